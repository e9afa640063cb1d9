"""Both HTTP/1.1 engines back to back, as a proxy has them; and both against h11, by generated exchanges.

For any valid exchange, cut anywhere on either side, what the proxy sends on must read the same to h11 as what came in:
method, target, fields, body, trailers.  For any bytes at all, no engine raises.
"""

from __future__ import annotations

import string

import h11
import pytest
from http1_play import Proxy, answering, client, exchange, server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorder import request

from meshproxy.wire.message import CACHES

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

token = st.text(string.ascii_letters + string.digits + "-!#$%&'*+.^_`|~", min_size=1, max_size=12)
value = st.text("".join(chr(c) for c in range(0x21, 0x7F)) + " \t\xe9", max_size=20).map(lambda text: text.strip(" \t"))
# Names that mean something to a hop are tested one by one elsewhere; "mesh-" and aliases with "_" are dropped by design.
fields = st.lists(st.tuples(token.map(lambda name: "X-" + name.replace("_", "")), value), max_size=6)
path = st.text(string.ascii_letters + string.digits + "/?=&%-._~|{}", max_size=20).map(lambda text: "/" + text)
pieces = st.lists(st.binary(min_size=1, max_size=30), max_size=4)
cuts = st.lists(st.integers(min_value=1, max_value=40), max_size=30)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    out = []
    for size in sizes:
        out.append(data[:size])
        data = data[size:]
    return [piece for piece in [*out, data] if piece]


def read(peer: h11.Connection, data: bytes) -> tuple[h11.Event, bytes, list[tuple[bytes, bytes]]]:
    """One message as h11 reads it."""
    peer.receive_data(data)
    head = peer.next_event()
    assert isinstance(head, h11.Request | h11.Response), head
    body = b""
    event = peer.next_event()
    while isinstance(event, h11.Data):
        body += event.data
        event = peer.next_event()
    assert isinstance(event, h11.EndOfMessage), event
    return head, body, list(event.headers)


def end_to_end(head: h11.Request | h11.Response) -> list[tuple[bytes, bytes]]:
    hop = (b"host", b"content-length", b"transfer-encoding", b"connection")
    return [(name, value) for name, value in head.headers.raw_items() if name.lower() not in hop]


@QUICK
@given(
    method=token, target=path, headers=fields, body=pieces, chunked=st.booleans(), trailers=fields,
    status=st.integers(200, 599), answer=pieces, answer_headers=fields, answer_chunked=st.booleans(),
    sizes=cuts, caches=st.booleans(),
)  # fmt: skip
def test_any_exchange_reads_the_same_on_the_far_side(
    method: str, target: str, headers: list[tuple[str, str]], body: list[bytes], chunked: bool,
    trailers: list[tuple[str, str]], status: int, answer: list[bytes], answer_headers: list[tuple[str, str]],
    answer_chunked: bool, sizes: list[int], caches: bool,
) -> None:  # fmt: skip
    if method == "CONNECT":
        method = "GET"
    before = CACHES.enabled
    CACHES.enabled = caches
    try:
        browser, origin = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
        proxy = Proxy()
        framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(sum(map(len, body))))
        sent = h11.Request(
            method=method,
            target=target,
            headers=[("Host", "svc.test"), *((n, v.encode("latin-1")) for n, v in headers), framing],
        )
        tail = [(n, v.encode("latin-1")) for n, v in trailers] if chunked else []
        data = b"".join(
            browser.send(event) or b"" for event in (sent, *(h11.Data(data=b) for b in body), h11.EndOfMessage(headers=tail))
        )
        onward = b"".join(proxy.from_client(piece) for piece in cut(data, sizes))
        head, seen, seen_trailers = read(origin, onward)
        assert isinstance(head, h11.Request)
        assert (head.method, head.target) == (method.encode(), target.encode())
        assert end_to_end(head) == end_to_end(sent)
        assert seen == b"".join(body)
        assert [(n.lower(), v) for n, v in seen_trailers] == [(n.lower().encode(), v) for n, v in tail]

        bodyless = method == "HEAD" or status in (204, 304)
        framing = ("Transfer-Encoding", "chunked") if answer_chunked else ("Content-Length", str(sum(map(len, answer))))
        extra = [] if status == 204 else [framing]
        reply = h11.Response(status_code=status, headers=[*((n, v.encode("latin-1")) for n, v in answer_headers), *extra])
        chunks = [] if bodyless else [h11.Data(data=b) for b in answer]
        data = b"".join(origin.send(event) or b"" for event in (reply, *chunks, h11.EndOfMessage()))
        back = b"".join(proxy.from_server(piece) for piece in cut(data, sizes))
        answered, seen, _ = read(browser, back)
        assert isinstance(answered, h11.Response)
        assert answered.status_code == status
        assert end_to_end(answered) == end_to_end(reply)
        assert seen == (b"" if bodyless else b"".join(answer))
        assert proxy.up.capacity() == 1
        assert proxy.down.active() == 0
        assert not proxy.down.closing
    finally:
        CACHES.enabled = before


REQUESTS = [
    b"GET /a HTTP/1.1\r\nHost: svc.test\r\nX: 1\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: svc.test\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /c HTTP/1.1\r\nHost: svc.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nabc\r\n0\r\nX: 1\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nraw",
    b"GET /ws HTTP/1.1\r\nHost: svc.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: svc.test\r\nConnection: upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n\r\nhelloraw",
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
]


@st.composite
def mangled(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.integers(0, 2))
        junk = draw(
            st.one_of(
                st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b"0", b"\xff"]), st.binary(max_size=4)
            )
        )
        if kind == 0:
            data[place : place + 1] = junk
        elif kind == 1:
            data[place:place] = junk
        else:
            del data[place : place + draw(st.integers(1, 20))]
    return bytes(data)


@settings(max_examples=400, deadline=None)
@given(data=st.one_of(mangled(REQUESTS), st.binary(max_size=200)), sizes=cuts, eof=st.booleans())
def test_no_bytes_from_a_client_raise_and_cutting_them_changes_nothing(data: bytes, sizes: list[int], eof: bool) -> None:
    outcomes = []
    for parts in ([data] if data else [], cut(data, sizes)):
        engine, host = answering()
        out = host.feed(parts)
        if eof:
            engine.receive_eof()
        engine.lost()
        # Which of several faults is named may depend on how far the input had come; what is served may not.
        served = [(r.head.method, r.head.path, r.sink.body, r.sink.trailers) for r in host.complete]
        outcomes.append((served, out.count(b"HTTP/1.1 200 OK"), len(host.violations)))
        for asked in host.requests:
            assert asked.end + asked.sink.ended + len(asked.sink.named("request_reset")) == 1
        assert engine.active() == 0
    assert outcomes[0] == outcomes[1]


@settings(max_examples=400, deadline=None)
@given(data=st.one_of(mangled(RESPONSES), st.binary(max_size=200)), sizes=cuts, eof=st.booleans(), upgrade=st.booleans())
def test_no_bytes_from_a_server_raise_and_each_exchange_ends_once(
    data: bytes, sizes: list[int], eof: bool, upgrade: bool
) -> None:
    outcomes = []
    for parts in ([data] if data else [], cut(data, sizes)):
        engine, host = client()
        stream, sink = exchange(engine)
        head = request()
        if upgrade:
            head.protocol = b"websocket"
        stream.send_head(head, [], not upgrade)
        host.take()
        for part in parts:
            engine.receive(part, 0.0)
        if eof:
            engine.receive_eof()
        engine.lost()
        tunnel = sink.head is not None and sink.head.status == 101
        assert sink.ended + len(sink.named("response_reset")) == 1 or tunnel
        outcomes.append((sink.body if sink.ended else b"", sink.ended, sink.head.status if sink.head else 0, sink.trailers))
        assert engine.active() == 0
        assert engine.closing
    assert outcomes[0] == outcomes[1]


@settings(max_examples=400, deadline=None)
@given(data=mangled(REQUESTS[:3]))
def test_what_both_we_and_h11_accept_we_read_alike(data: bytes) -> None:
    _, host = answering()
    host.feed([data])
    if not host.complete:
        return
    ours = host.complete[0]
    peer = h11.Connection(h11.SERVER)
    try:
        head, body, _ = read(peer, data)
    except (h11.RemoteProtocolError, AssertionError):
        return  # h11 refuses, or waits for more
    assert isinstance(head, h11.Request)
    assert head.method == ours.head.method
    assert body == ours.sink.body
    if not head.target.lower().startswith(b"http"):
        assert head.target == ours.head.path


# -- known plays through both engines


def test_a_slow_client_holds_the_server_and_no_one_else() -> None:
    proxy = Proxy()
    proxy.from_client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.from_server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    proxy.down.socket_blocked()
    assert proxy.up_host.holding
    assert not proxy.down_host.holding
    proxy.down.socket_unblocked()
    assert not proxy.up_host.holding
    assert proxy.from_server(b"world") == b"world"


def test_a_slow_server_holds_the_client() -> None:
    proxy = Proxy()
    proxy.from_client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
    proxy.up.socket_blocked()
    assert proxy.down_host.holding
    proxy.up.socket_unblocked()
    assert not proxy.down_host.holding


def test_a_websocket_passes_in_both_directions() -> None:
    proxy = Proxy()
    asked = proxy.from_client(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    )
    assert b"upgrade: websocket\r\n" in asked
    assert b"Sec-WebSocket-Key: k\r\n" in asked
    got = proxy.from_server(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi")
    assert got == b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi"
    assert proxy.from_client(b"\x81") == b"\x81"
    proxy.down.receive_eof()
    assert proxy.up.half_close
    assert proxy.from_server(b"bye") == b"bye"
    proxy.up.receive_eof()
    assert proxy.up.closing
    assert proxy.down.closing


@QUICK
@given(
    content=st.binary(min_size=1, max_size=12), after=st.binary(max_size=12),
    sizes=st.lists(st.integers(1, 5), max_size=20), granted=st.booleans(), answered_at=st.integers(0, 6),
)  # fmt: skip
def test_the_content_of_an_upgrade_and_what_follows_it_never_change_places(
    content: bytes, after: bytes, sizes: list[int], granted: bool, answered_at: int
) -> None:
    """However it is cut, and whenever the answer comes: declined, nothing but content reaches the server."""
    proxy = Proxy()
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n" % len(content)
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"
    if granted:
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    got = proxy.from_client(head).partition(b"\r\n\r\n")[2]
    whole = answered = False
    for at, piece in enumerate([*cut(content + after, sizes), b""]):
        if piece == b"" or at == answered_at:
            if not answered:
                whole = got == content
                assert proxy.from_server(answer).startswith(answer[:12])
                answered = True
                got += proxy.up_host.take()
            if proxy.down.closing:
                break
        if piece:
            got += proxy.from_client(piece)
    assert len(proxy.down_host.requests) == 1
    if granted:
        assert got == content + after
    else:
        assert got == content if whole else content.startswith(got)


def test_expect_100_continue_passes_through_both_ways() -> None:
    proxy = Proxy()
    asked = proxy.from_client(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert b"expect: 100-continue\r\n" in asked
    assert proxy.from_server(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert proxy.from_client(b"ok") == b"ok"


def test_a_response_that_ends_with_the_connection_is_chunked_to_the_client() -> None:
    proxy = Proxy()
    proxy.from_client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    out = proxy.from_server(b"HTTP/1.0 200 OK\r\n\r\nhello")
    proxy.up.receive_eof()
    out += proxy.down_host.take()
    assert out == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert not proxy.down.closing


@pytest.mark.parametrize(
    "cut_short",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"],
)
def test_a_response_cut_short_is_cut_short_for_the_client_too(cut_short: bytes) -> None:
    proxy = Proxy()
    proxy.from_client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    out = proxy.from_server(cut_short)
    proxy.up.lost()
    out += proxy.down_host.take()
    assert proxy.down.closing
    browser = h11.Connection(h11.CLIENT)
    browser.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    browser.send(h11.EndOfMessage())
    browser.receive_data(out)
    browser.receive_data(b"")
    assert isinstance(browser.next_event(), h11.Response)
    assert isinstance(browser.next_event(), h11.Data)
    with pytest.raises(h11.RemoteProtocolError):
        browser.next_event()


def test_the_early_answer_of_a_server_reaches_the_client_and_both_connections_end() -> None:
    proxy = Proxy()
    proxy.from_client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
    out = proxy.from_server(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    assert out.endswith(b"\r\n\r\nno")
    assert proxy.up.closing
    assert proxy.down.closing
    assert proxy.down.linger
    assert proxy.from_client(b"x" * 1000) == b""


def test_pipelined_requests_reach_a_server_one_after_the_other() -> None:
    proxy = Proxy()
    first = proxy.from_client(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert first == b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n"
    proxy.from_server(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert proxy.up_host.take() == b"GET /2 HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "onward"),
    [
        (b"HTTP/1.1 200 Fine", b"HTTP/1.1 200 Fine"),
        (b"HTTP/1.0 404 Nicht gefunden \xe4", b"HTTP/1.1 404 Nicht gefunden \xe4"),
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 299 Mine", b"HTTP/1.1 299 Mine"),
        (b"HTTP/1.1 299 ", b"HTTP/1.1 299 "),
        (b"HTTP/1.1 200 a\x01b", b"HTTP/1.1 200 OK"),  # no reason phrase (RFC 9112 4), so it is not passed on
    ],
)
def test_a_reason_phrase_is_the_servers_own(line: bytes, onward: bytes) -> None:
    for caches in (True, False):
        CACHES.enabled = caches
        try:
            for _ in range(2):
                proxy = Proxy()
                proxy.from_client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert proxy.from_server(line + b"\r\nContent-Length: 0\r\n\r\n").split(b"\r\n")[0] == onward
        finally:
            CACHES.enabled = True


def test_a_server_engine_without_an_exchange_is_at_rest() -> None:
    engine, _ = server()
    assert (engine.active(), engine.capacity(), engine.closing) == (0, 0, False)
