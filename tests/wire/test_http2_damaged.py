"""Our HTTP/2 server against the `h2` package, frame by frame: valid and damaged streams of bytes cut anywhere.

both accept a request   it is the same request: pseudo fields, fields, body, trailers
one does not            the refusal is in DIFFERENCES, with the reason; anything else is a bug of one of us

These are differences to the bare package; what it does behind our interface is in http2_differences.py.
"""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest
from http2_harness import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PRIORITY_FLAG,
    SETTINGS,
    WINDOW_UPDATE,
    Recorder,
    frame,
    literal,
    pairs,
    take,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshproxy.wire.http2 import Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, FORBIDDEN_TRAILERS

Request = tuple[object, ...]


def ours(pieces: list[bytes]) -> tuple[list[Request], list[str]]:
    host = Recorder()
    engine = Http2Server(host, Limits())
    engine.start()
    for piece in pieces:
        engine.receive(piece, 0.0)
        take(engine)
    found = []
    for seen in host.requests:
        if seen.log.ended:
            head = seen.head
            found.append((head.method, head.path, head.authority, pairs(head.fields), seen.log.body, seen.log.trailers or []))
    return found, host.violations


class Theirs:
    def __init__(self, frames: list[bytes]) -> None:
        """A frame at a time: what came before an error would be lost with it.  A client's GOAWAY, which ends no request
        (RFC 9113 6.8), is kept from h2, which takes nothing after it."""
        self.open: dict[int, list] = {}
        self.found: list[tuple[int, Request]] = []
        self.order: list[int] = []
        self.error = ""
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        peer.initiate_connection()
        try:
            for data in (PREFACE, *frames):
                if data[3] == GOAWAY and len(data) >= 17 and data[5:9] in (bytes(4), b"\x80\0\0\0"):
                    continue
                for event in peer.receive_data(data):
                    self.take(event)
        except h2.exceptions.ProtocolError as error:
            self.error = f"{type(error).__name__}: {error}"
        self.requests = [request for _, request in sorted(self.found, key=lambda pair: self.order.index(pair[0]))]

    def take(self, event: object) -> None:
        if isinstance(event, h2.events.RequestReceived):
            pseudo = {n: v for n, v in event.headers if n[:1] == b":"}
            fields = [(n, v) for n, v in event.headers if n[:1] != b":" and n not in (b"te", b"host")]
            self.open[event.stream_id] = [pseudo, fields, b"", []]
            self.order.append(event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            self.open[event.stream_id][2] += event.data
        elif isinstance(event, h2.events.TrailersReceived):
            self.open[event.stream_id][3] = [(n, v) for n, v in event.headers if n not in FORBIDDEN_TRAILERS]
        elif isinstance(event, h2.events.StreamEnded):
            pseudo, fields, body, trailers = self.open[event.stream_id]
            method = pseudo[b":method"]
            self.found.append(
                (event.stream_id, (method, pseudo.get(b":path", b""), pseudo.get(b":authority", b""), fields, body, trailers))
            )


def block(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


Frame = tuple[int, int, int, bytes]


def exchange(stream_id: int, kind: int) -> list[Frame]:
    """One request, in one of the shapes that a client may give it."""
    priority = bytes((0, 0, 0, 0, 15))
    get, post = block([*GET, (b"x-a", b"1")]), block([*POST, (b"content-length", b"5")])
    whole = END_HEADERS | END_STREAM
    return [
        [(HEADERS, whole, stream_id, get)],
        [(HEADERS, END_HEADERS, stream_id, post), (DATA, END_STREAM, stream_id, b"hello")],
        [(HEADERS, END_HEADERS, stream_id, block(POST)), (DATA, 0, stream_id, b"hel"), (DATA, END_STREAM, stream_id, b"lo")],
        [(HEADERS, END_STREAM, stream_id, get[:9]), (CONTINUATION, END_HEADERS, stream_id, get[9:])],
        [
            (HEADERS, END_HEADERS | PADDED, stream_id, b"\x03" + block(POST) + bytes(3)),
            (DATA, PADDED, stream_id, b"\x02hi" + bytes(2)),
            (HEADERS, whole, stream_id, block([(b"x-sum", b"1")])),
        ],
        [(HEADERS, whole | PRIORITY_FLAG, stream_id, priority + get), (PRIORITY, 0, stream_id, priority)],
    ][kind]  # fmt: skip


BESIDE: list[Frame] = [
    (PING, 0, 0, b"12345678"),
    (SETTINGS, 0, 0, b"\x00\x04\x00\x01\x00\x00"),
    (SETTINGS, ACK, 0, b""),
    (WINDOW_UPDATE, 0, 0, b"\x00\x00\x10\x00"),
    (0x20, 0, 0, b"unknown"),
]
KINDS = 6


@st.composite
def streams(draw: st.DrawFn, damage: int) -> list[bytes]:
    frames: list[Frame] = [(SETTINGS, 0, 0, b"")]
    for at, kind in enumerate(draw(st.lists(st.integers(0, KINDS - 1), min_size=1, max_size=4))):
        frames += exchange(1 + 2 * at, kind)
        if draw(st.booleans()):
            frames.append(draw(st.sampled_from(BESIDE)))
    for _ in range(draw(st.integers(0, damage))):
        at = draw(st.integers(1, len(frames) - 1)) if len(frames) > 1 else 0
        kind, flags, stream_id, payload = frames[at]
        what = draw(st.integers(0, 7))
        if what == 0:
            del frames[at]
        elif what == 1:
            frames.insert(at, frames[at])
        elif what == 2:
            frames[at - 1], frames[at] = frames[at], frames[at - 1]
        elif what == 3:
            frames[at] = (
                kind,
                flags ^ draw(st.sampled_from([END_STREAM, END_HEADERS, PADDED, PRIORITY_FLAG])),
                stream_id,
                payload,
            )
        elif what == 4:
            frames[at] = (kind, flags, draw(st.integers(0, 9)), payload)
        elif what == 5 and payload:
            place = draw(st.integers(0, len(payload) - 1))
            frames[at] = (kind, flags, stream_id, payload[:place] + bytes((draw(st.integers(0, 255)),)) + payload[place + 1 :])
        elif what == 6:
            frames[at] = (kind, flags, stream_id, payload[: draw(st.integers(0, len(payload)))])
        else:
            frames[at] = (draw(st.sampled_from([*range(10), 0x20])), flags, stream_id, payload)
        if not frames:
            frames.append((PING, 0, 0, b"12345678"))
    return [frame(*each) for each in frames]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    out = []
    for size in sizes:
        out.append(data[:size])
        data = data[size:]
    return [piece for piece in [*out, data] if piece]


cuts = st.lists(st.integers(1, 90), max_size=20)


def head(*fields: tuple[bytes, bytes], stream_id: int = 1) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block(list(fields)))


SPACE = head(*GET[:2], (b":path", b"a b"), GET[3])
HELLO = frame(SETTINGS, 0, 0)
NEXT = head(*GET, stream_id=3)
OPEN = frame(HEADERS, END_HEADERS, 1, block(POST))
UPPER = head(*GET, (b"X-A", b"1"))
SHORT = frame(HEADERS, END_HEADERS, 1, block([*POST, (b"content-length", b"5")])) + frame(DATA, END_STREAM, 1, b"hi")

# Who accepts more: our first violation ("" for none), the class of h2's error ("" for none): why; an example.
DIFFERENCES: dict[tuple[str, str, str], tuple[str, list[bytes]]] = {
    ("h2", "h2_preface", ""): ("h2 does not demand that SETTINGS come first (RFC 9113 3.4)", [head(*GET)]),
    ("h2", "h2_malformed", ""): (
        "h2 does not read the values of :path, :authority and :scheme (8.3.1)", [HELLO, SPACE],
    ),
    ("ours", "h2_malformed", "ProtocolError"): (
        "a malformed message ends its stream here (8.1.1), the connection there, with all behind it", [HELLO, UPPER, NEXT],
    ),
    ("ours", "h2_no_authority", "ProtocolError"): ("the same; we answer 400, as in HTTP/1.1", [HELLO, head(*GET[:3]), NEXT]),
    ("ours", "h2_malformed", "InvalidBodyLengthError"): ("the same, of a length that is not kept", [HELLO, SHORT, NEXT]),
    ("ours", "", "InvalidDataError"): (
        "h2 reads the reserved bit of a WINDOW_UPDATE, which is to be ignored (6.9), as part of the increment",
        [HELLO, frame(WINDOW_UPDATE, 0, 0, b"\x80\x00\x10\x00"), NEXT],
    ),
    ("ours", "h2_frame_size", "FrameDataMissingError"): (
        "a PRIORITY frame of a wrong size ends its stream here (6.3), the connection there",
        [HELLO, OPEN, frame(PRIORITY, 0, 1, b"abc"), NEXT],
    ),
}  # fmt: skip


def differences(
    mine: list[Request], theirs: list[Request], violations: list[str], error: str
) -> list[list[tuple[str, str, str]]]:
    """For each of the two that accepted a request that the other did not: what could explain it, one for each thing that we
    found wrong (any of them may be what h2 does not mind); [] where both accepted the same."""
    fault = (
        "InvalidDataError" if "non-compliant data" in error else error.partition(":")[0]
    )  # hyperframe's, whose name h2 drops
    found = []
    if any(request not in theirs for request in mine):
        found.append([("ours", violation, fault) for violation in violations or [""]])
    if any(request not in mine for request in theirs):
        found.append([("h2", violation, "") for violation in violations or [""]])
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(frames=streams(4), sizes=cuts, caches=st.booleans())
def test_requests_that_both_accept_are_the_same_and_each_refusal_is_a_known_difference(
    frames: list[bytes], sizes: list[int], caches: bool
) -> None:
    data = PREFACE + b"".join(frames)
    CACHES.enabled = caches
    try:
        mine, violations = ours(cut(data, sizes))
    finally:
        CACHES.enabled = True
    assert ours([data]) == (mine, violations)
    theirs = Theirs(frames)
    for could_be in differences(mine, theirs.requests, violations, theirs.error):
        assert not DIFFERENCES.keys().isdisjoint(could_be), (frames, theirs.error, mine, theirs.requests)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(frames=streams(0), sizes=cuts)
def test_undamaged_requests_are_accepted_by_both(frames: list[bytes], sizes: list[int]) -> None:
    mine, violations = ours(cut(PREFACE + b"".join(frames), sizes))
    theirs = Theirs(frames)
    assert (violations, theirs.error) == ([], "")
    assert mine == theirs.requests
    assert mine


@pytest.mark.parametrize("known", DIFFERENCES, ids=" ".join)
def test_each_known_difference_is_one(known: tuple[str, str, str]) -> None:
    _, frames = DIFFERENCES[known]
    mine, violations = ours([PREFACE + b"".join(frames)])
    theirs = Theirs(frames)
    assert differences(mine, theirs.requests, violations, theirs.error) == [[known]]
