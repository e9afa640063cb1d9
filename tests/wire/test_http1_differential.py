"""Our HTTP/1.1 parsers against h11's, in both roles, on valid and damaged messages cut anywhere.

    both accept a message   it is the same message: start line, end-to-end fields, body, trailers
    one refuses             the refusal is in DIFFERENCES, with the reason; anything else is a bug of one of us

h11 gets all bytes at once, we get them in pieces: that cutting changes nothing is part of what is tested.
"""

from __future__ import annotations

import re

import h11
import pytest
from http1_play import answering, client, exchange, split_head
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from recorder import Request, pairs, request

from meshproxy.wire.message import CACHES, FORBIDDEN_TRAILERS, Field

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

# What we refuse and h11 accepts.  Our label, with the beginning of our sentence where the label has several: why; an example.
STRICTER = {
    "h1_line_end": ("a bare LF ends a line to h11 (RFC 9112 2.2 allows it)", b"GET / HTTP/1.1\nHost: a\n\n"),
    "h1_request_line: the request line is not": ("the same", b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "h1_request_line: the request line does not end": ("the same", b"GET / HTTP/1.1\nHost:\r\n a\r\n\r\n"),
    "h1_field: field name is empty": ("the same", GET + b"X: 1\r\n\nX: 2\r\n\r\n"),
    "h1_field: field value contains a control": ("RFC 9110 5.5 lets a recipient keep them", GET + b"X: a\x01b\r\n\r\n"),
    "h1_field: a header line is folded": ("h11 unfolds (RFC 9112 5.2 lets a server choose)", GET + b"X: 1\r\n y: 2\r\n\r\n"),
    "h1_field: a header line has no name": ("the same", GET + b"X: 1\r\n y\r\n\r\n"),
    "h1_field: content-length is not": (
        "h11 takes 20 digits, we take 18: no body has 2^63 bytes", GET + b"Content-Length: 0000000000000000000\r\n\r\n",
    ),
    "h1_framing": (
        "chunked wins over a length in h11 (RFC 9112 6.1 allows to refuse)",
        GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "h1_target": ("h11 does not read targets", b"GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n"),
    "h1_host": ("h11 counts Host fields and does not read them", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    "h1_chunk": ("h11 does not read extensions", CHUNKED + b"0;\x01\r\n\r\n"),
    "h1_trailers": ("h11 unfolds, and takes control characters", CHUNKED + b"0\r\nX: a\x01b\r\n\r\n"),
    "h1_version": ("h11 takes any digit before the dot", b"GET / HTTP/0.1\r\nHost: a\r\n\r\n"),
    "h1_status_line": ("h11 takes 0 to 999 for a status", b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"),
}  # fmt: skip
# What h11 refuses and we accept.  Part of its sentence: why; an example.
LAXER = {
    "no request line received": ("h11 skips no empty line before a request, we do (RFC 9112 2.2)", b"\r\n" + GET + b"\r\n"),
    "closed after HTTP/1.0": (
        "h11 never keeps such a connection; we do where it is asked for (RFC 9112 9.3)",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" + GET + b"\r\n",
    ),
    "illegal status line": (
        "a reason phrase that is none (VT, FF) is no reason to lose the answer: we drop the phrase",
        OK[:-2] + b"\x0b\r\nContent-Length: 0\r\n\r\n",
    ),
}  # fmt: skip

tokens = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x7f", b"\xa0", b"\xff", b":", b";", b",", b"_"),
    *(b"0", b"5", b"9", b"a", b"F", b"-", b"+", b"0x", b"/", b"?", b"#", b"*", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/1.2", b"GET "),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n"),
    *(b"Connection: close\r\n", b"Connection: x-a\r\n", b"Host: b\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b" folded\r\n"),
]  # fmt: skip
REQUESTS = [
    b"GET /a?b=1 HTTP/1.1\r\nHost: svc.test\r\nX-A: 1\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: svc.test\r\nContent-Length: 5\r\nX-A:  spaced out \r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: svc.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: svc.test:80\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    b"GET http://svc.test/abs HTTP/1.1\r\nHost: svc.test\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: svc.test\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
    b"HTTP/1.1 404 Not Here\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\nHTTP/1.1 204 No Content\r\nX-A: 2\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 500 \r\nConnection: close, X-A\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n",
]
HOPWISE = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"te", b"expect", b"keep-alive"))
cuts = st.lists(st.integers(1, 60), max_size=20)
Message = tuple[object, ...]


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes], most: int) -> bytes:
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=most))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        junk = draw(st.one_of(st.sampled_from(tokens), st.binary(max_size=2)))
        what = draw(st.integers(0, 3))
        if what == 0:
            data[place : place + 1] = junk
        elif what == 1:
            data[place:place] = junk
        elif what == 2:
            del data[place : place + draw(st.integers(1, 12))]
        else:  # at the start of a line, where fields and chunks begin
            line = data.find(b"\r\n", place) + 2
            data[line:line] = junk
    return bytes(data)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    out = []
    for size in sizes:
        out.append(data[:size])
        data = data[size:]
    return [piece for piece in [*out, data] if piece]


def end_to_end(fields: list[tuple[bytes, bytes]], connection: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What both must agree on: without framing, hop-by-hop fields, and what we drop by design (aliases with "_")."""
    named = {token.strip(b" \t") for value in connection for token in value.lower().split(b",")}
    return [(n, v) for n, v in fields if n not in HOPWISE and n not in named and b"_" not in n]


def tail(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(n, v) for n, v in fields if n not in FORBIDDEN_TRAILERS and b"_" not in n]


class Theirs:
    """What h11 makes of all of `data` and then the end of input.

    messages  complete ones; a request is answered at once
    error     its sentence, "" if it did not complain
    """

    def __init__(self, role: type[h11.CLIENT] | type[h11.SERVER], data: bytes, eof: bool = False) -> None:
        self.role = role
        self.peer = h11.Connection(role, max_incomplete_event_size=1 << 20)
        self.messages: list[Message] = []
        self.error = ""
        self.over = False
        if role is h11.CLIENT:
            self.peer.send(h11.Request(method="GET", target="/", headers=[("Host", "svc.test")]))
            self.peer.send(h11.EndOfMessage())
        try:
            self.peer.receive_data(data)
            self.read()
            if eof and not self.over:
                self.peer.receive_data(b"")
                self.read()
        except h11.RemoteProtocolError as error:
            self.error = str(error)

    def read(self) -> None:
        while not self.over:
            event = self.peer.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request | h11.Response):
                self.head, self.body = event, b""
            elif isinstance(event, h11.Data):
                self.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.complete(event)

    def complete(self, event: h11.EndOfMessage) -> None:
        head = self.head
        fields = [(n.lower(), v) for n, v in head.headers.raw_items()]
        agreed = end_to_end(fields, [v for n, v in fields if n == b"connection"])
        start = (head.method, head.target) if isinstance(head, h11.Request) else (head.status_code,)
        self.messages.append((*start, agreed, self.body, tail([(n.lower(), v) for n, v in event.headers])))
        if self.role is h11.CLIENT:
            self.over = True
            return
        if head.method == b"CONNECT":
            self.over = True
            return
        self.peer.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        self.peer.send(h11.EndOfMessage())
        if self.peer.our_state is h11.MUST_CLOSE:
            self.over = True
            self.error = "closed after HTTP/1.0" if head.http_version == b"1.0" else ""
        else:
            self.peer.start_next_cycle()


def our_requests(pieces: list[bytes]) -> tuple[list[Message], str]:
    """The complete requests, and the refusal of what comes behind them: "label: sentence", or ""."""
    engine, host = answering()
    out = host.feed(pieces)
    refusal = ""
    if engine.closing and host.violations:
        refusal = out[out.rfind(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")[2].decode()
        assert refusal.startswith(host.violations[-1] + ": ")
    return [as_message(asked) for asked in host.complete], refusal


def as_message(asked: Request) -> Message:
    head = asked.head
    target = head.authority if head.method == b"CONNECT" else head.path
    return (
        head.method,
        target,
        end_to_end(pairs(head.fields), head.connection or []),
        asked.sink.body,
        tail(asked.sink.trailers),
    )


def target_of(theirs: Message) -> bytes:
    """h11 leaves the absolute form as it came."""
    target = theirs[1]
    assert isinstance(target, bytes)
    match = re.fullmatch(rb"(?i:https?)://[^/?]*(.*)", target)
    if match is None:
        return target
    rest = match[1]
    if not rest and theirs[0] == b"OPTIONS":
        return b"*"
    return rest if rest[:1] == b"/" else b"/" + rest


def explained(table: dict[str, tuple[str, bytes]], said: str) -> bool:
    return any(known in said for known in table)


@pytest.mark.parametrize("known", [*STRICTER, *LAXER])
def test_each_known_difference_is_one(known: str) -> None:
    _, data = (STRICTER | LAXER)[known]
    if data.startswith(b"HTTP/"):
        ours, violations = our_response([data], True)
        theirs = Theirs(h11.CLIENT, data, True)
        refusal = violations[0] if violations else ""
    else:
        ours, refusal = our_requests([data])
        theirs = Theirs(h11.SERVER, data)
    if known in STRICTER:
        assert len(theirs.messages) > len(ours)
        assert known in refusal
    else:
        assert len(ours) > len(theirs.messages)
        assert known in theirs.error


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=damaged(REQUESTS, 3), sizes=cuts, caches=st.booleans())
@example(data=b"\r\n\r\n" + REQUESTS[0], sizes=[], caches=True)
@example(data=b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", sizes=[], caches=True)
@example(data=REQUESTS[2].replace(b"5\r\nhello", b"00000000000000005\r\nhello"), sizes=[], caches=True)
def test_requests_that_both_accept_are_the_same_and_each_refusal_is_a_known_difference(
    data: bytes, sizes: list[int], caches: bool
) -> None:
    CACHES.enabled = caches
    try:
        ours, refusal = our_requests(cut(data, sizes))
        assert our_requests([data])[0] == ours
    finally:
        CACHES.enabled = True
    theirs = Theirs(h11.SERVER, data)
    for mine, other in zip(ours, theirs.messages, strict=False):
        assert mine == (other[0], target_of(other), *other[2:])
    if len(ours) < len(theirs.messages):
        assert explained(STRICTER, refusal), (refusal, data)
    elif len(ours) > len(theirs.messages):
        assert explained(LAXER, theirs.error), (theirs.error, data)


def our_response(pieces: list[bytes], eof: bool) -> tuple[list[Message], list[str]]:
    engine, host = client()
    stream, sink = exchange(engine)
    stream.send_head(request(), [], True)
    host.take()
    for piece in pieces:
        engine.receive(piece, 0.0)
    if eof:
        engine.receive_eof()
    if not sink.ended:
        return [], host.violations
    head = sink.head
    assert head is not None
    agreed = end_to_end(pairs(head.fields), head.connection or [])
    return [(head.status, agreed, sink.body, tail(sink.trailers))], host.violations


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=damaged(RESPONSES, 1), sizes=cuts, eof=st.booleans(), caches=st.booleans())
@example(data=b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", sizes=[], eof=False, caches=True)
@example(data=b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", sizes=[], eof=False, caches=True)
def test_responses_that_both_accept_are_the_same_and_each_refusal_is_a_known_difference(
    data: bytes, sizes: list[int], eof: bool, caches: bool
) -> None:
    CACHES.enabled = caches
    try:
        ours, violations = our_response(cut(data, sizes), eof)
        assert our_response([data], eof)[0] == ours
    finally:
        CACHES.enabled = True
    theirs = Theirs(h11.CLIENT, data, eof)
    if ours and theirs.messages:
        assert ours == theirs.messages
    elif theirs.messages:
        assert violations, data
        assert any(known.startswith(violations[0]) for known in STRICTER), (violations, data)
    elif ours:
        assert explained(LAXER, theirs.error), (theirs.error, data)


@pytest.mark.parametrize("data", REQUESTS + RESPONSES, ids=lambda data: data.split(b"\r\n")[0].decode())
def test_what_the_damage_is_done_to_both_accept(data: bytes) -> None:
    if data.startswith(b"HTTP/"):
        assert our_response([data], True)[0] == Theirs(h11.CLIENT, data, True).messages != []
    else:
        (mine,), refusal = our_requests([data])
        (other,) = Theirs(h11.SERVER, data).messages
        assert mine == (other[0], target_of(other), *other[2:])
        assert refusal == ""


@pytest.mark.parametrize(
    "data", [data for data in REQUESTS if not data.startswith(b"GET http")], ids=lambda data: data[:12].decode()
)
def test_a_request_sent_on_reads_as_it_was_read(data: bytes) -> None:
    """serialise(parse(x)) parses the same, with trailers and without."""
    first = our_requests([data])[0]
    _, host = answering()
    host.feed([data])
    (asked,) = host.complete
    engine, out = client()
    stream, _ = exchange(engine)
    stream.send_head(asked.head, [], asked.end)
    for event in asked.sink.events:
        if event[0] == "request_data":
            stream.send_data(event[1], event[2])
        elif event[0] == "request_trailers":
            stream.send_trailers([Field(name, value) for name, value in event[1]])
    again = out.take()
    assert split_head(again)[0].startswith(asked.head.method)
    assert our_requests([again])[0] == first
