"""What each engine answers to single frames and messages, right and wrong, from a peer made of raw bytes.

Every case runs on our engine and on the `h2` adapter.  The case tables say what the RFC asks and ours does; what `h2` does
otherwise is written down in one place, http2_differences.py.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from http2_differences import CLIENTS, FINE, SERVERS, Outcome, expected, seen, strangers
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
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Log,
    Raw,
    Recorder,
    block,
    frame,
    literal,
    request,
    response,
    settings,
    take,
)

from meshproxy.wire.engine import (
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
)
from meshproxy.wire.http2 import Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES

VECTORS = json.loads((pathlib.Path(__file__).parent.parent / "vectors" / "http2.json").read_text())["vectors"]

WINDOW_MAX = 2**31 - 1


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def opened(raw: Raw) -> None:
    """Stream 1 is open, its request unfinished; what was said so far is forgotten."""
    raw.headers(1, POST, end=False)
    raw.read()


def half_closed(raw: Raw) -> None:
    """Stream 1 is open, its request complete."""
    raw.headers(1, GET)
    raw.read()


def answered(raw: Raw) -> None:
    """Stream 1 is closed by END_STREAM both ways."""
    raw.headers(1, GET)
    host = raw.engine.host
    assert isinstance(host, Recorder)
    host.requests[0].stream.send_head(response(), [], True)
    raw.read()


def cancelled(raw: Raw) -> None:
    """Stream 1 is closed by the peer's RST_STREAM."""
    half_closed(raw)
    raw.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
    raw.read()


def nothing(raw: Raw) -> None:
    """An idle connection."""


# name: (what happened before, the frames, the outcome)
CASES: dict[str, tuple[Callable[[Raw], None], bytes, Outcome]] = {
    # -- frame size and stream number, by type
    "a frame larger than we take": (nothing, b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", ("goaway", FRAME_SIZE_ERROR)),
    "a frame that announces 2^24-1 bytes": (nothing, b"\xff\xff\xff\x04\x00\x00\x00\x00\x00", ("goaway", FRAME_SIZE_ERROR)),
    "an unknown frame type": (nothing, frame(0xBE, 0xFF, 0, b"anything"), FINE),
    "an unknown setting": (nothing, settings((0x99, 1)), FINE),
    "the reserved bit of a stream id": (opened, frame(DATA, 0, 0x80000001, b"x"), FINE),
    "SETTINGS on a stream": (nothing, frame(SETTINGS, 0, 1), ("goaway", PROTOCOL_ERROR)),
    "SETTINGS of 5 bytes": (nothing, frame(SETTINGS, 0, 0, b"12345"), ("goaway", FRAME_SIZE_ERROR)),
    "SETTINGS ack with a payload": (nothing, frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1"), ("goaway", FRAME_SIZE_ERROR)),
    "ENABLE_PUSH of 2": (nothing, settings((2, 2)), ("goaway", PROTOCOL_ERROR)),
    "INITIAL_WINDOW_SIZE above 2^31-1": (nothing, settings((4, 2**31)), ("goaway", FLOW_CONTROL_ERROR)),
    "MAX_FRAME_SIZE below 16384": (nothing, settings((5, 16383)), ("goaway", PROTOCOL_ERROR)),
    "MAX_FRAME_SIZE above 2^24-1": (nothing, settings((5, 2**24)), ("goaway", PROTOCOL_ERROR)),
    "ENABLE_CONNECT_PROTOCOL of 2": (nothing, settings((8, 2)), ("goaway", PROTOCOL_ERROR)),
    "HEADER_TABLE_SIZE of 2^32-1": (nothing, settings((1, 2**32 - 1)), FINE),
    "PING of 7 bytes": (nothing, frame(PING, 0, 0, b"1234567"), ("goaway", FRAME_SIZE_ERROR)),
    "PING on a stream": (nothing, frame(PING, 0, 1, b"12345678"), ("goaway", PROTOCOL_ERROR)),
    "PING ack unasked": (nothing, frame(PING, ACK, 0, b"12345678"), FINE),
    "GOAWAY on a stream": (nothing, frame(GOAWAY, 0, 1, bytes(8)), ("goaway", PROTOCOL_ERROR)),
    "GOAWAY of 7 bytes": (nothing, frame(GOAWAY, 0, 0, bytes(7)), ("goaway", FRAME_SIZE_ERROR)),
    "GOAWAY from a client": (opened, frame(GOAWAY, 0, 0, bytes(8) + b"why"), FINE),
    "PUSH_PROMISE from a client": (
        opened,
        frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)),
        ("goaway", PROTOCOL_ERROR),
    ),
    # -- DATA
    "DATA on stream 0": (nothing, frame(DATA, 0, 0, b"x"), ("goaway", PROTOCOL_ERROR)),
    "DATA on an idle stream": (nothing, frame(DATA, 0, 1, b"x"), ("goaway", PROTOCOL_ERROR)),
    "DATA after END_STREAM": (half_closed, frame(DATA, 0, 1, b"x"), ("reset", STREAM_CLOSED)),
    "DATA on a closed stream": (answered, frame(DATA, 0, 1, b"x"), ("goaway", STREAM_CLOSED)),
    "DATA after the peer's reset": (cancelled, frame(DATA, 0, 1, b"x"), ("goaway", STREAM_CLOSED)),
    "DATA with padding": (opened, frame(DATA, PADDED, 1, b"\x03abc\0\0\0"), FINE),
    "DATA that is all padding": (opened, frame(DATA, PADDED, 1, b"\x03\0\0\0"), FINE),
    "DATA with more padding than payload": (opened, frame(DATA, PADDED, 1, b"\x04abc"), ("goaway", PROTOCOL_ERROR)),
    "DATA without room for its pad length": (opened, frame(DATA, PADDED, 1, b""), ("goaway", PROTOCOL_ERROR)),
    # -- HEADERS and CONTINUATION
    "HEADERS on stream 0": (nothing, frame(HEADERS, 5, 0, block(GET)), ("goaway", PROTOCOL_ERROR)),
    "HEADERS on an even stream": (nothing, frame(HEADERS, 5, 2, block(GET)), ("goaway", PROTOCOL_ERROR)),
    "HEADERS with padding and priority": (
        nothing,
        frame(HEADERS, 5 | PADDED | PRIORITY_FLAG, 1, b"\x02" + bytes(5) + block(GET) + b"\0\0"),
        FINE,
    ),
    "HEADERS with more padding than payload": (
        nothing,
        frame(HEADERS, 5 | PADDED, 1, b"\xff" + block(GET)),
        ("goaway", PROTOCOL_ERROR),
    ),
    "HEADERS that depend on themselves": (
        nothing,
        frame(HEADERS, 5 | PRIORITY_FLAG, 1, u32(0x80000001) + b"\0" + block(GET)),
        ("goaway", PROTOCOL_ERROR),
    ),
    "HEADERS too short for priority": (nothing, frame(HEADERS, 5 | PRIORITY_FLAG, 1, b"\0\0\0"), ("goaway", FRAME_SIZE_ERROR)),
    "HEADERS after END_STREAM": (half_closed, frame(HEADERS, 5, 1, block([(b"x", b"y")])), ("reset", STREAM_CLOSED)),
    "HEADERS on a closed stream": (answered, frame(HEADERS, 5, 1, block(GET)), ("goaway", STREAM_CLOSED)),
    "trailers without END_STREAM": (opened, frame(HEADERS, END_HEADERS, 1, block([(b"x", b"y")])), ("reset", PROTOCOL_ERROR)),
    "trailers with a pseudo field": (opened, frame(HEADERS, 5, 1, block([(b":path", b"/")])), ("reset", PROTOCOL_ERROR)),
    "trailers with connection": (opened, frame(HEADERS, 5, 1, block([(b"connection", b"x")])), ("reset", PROTOCOL_ERROR)),
    "a block that cannot be decoded": (
        nothing,
        frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
        ("goaway", COMPRESSION_ERROR),
    ),
    "a block in two frames": (
        nothing,
        frame(HEADERS, END_STREAM, 1, block(GET)[:20]) + frame(CONTINUATION, END_HEADERS, 1, block(GET)[20:]),
        FINE,
    ),
    "CONTINUATION alone": (nothing, frame(CONTINUATION, END_HEADERS, 1, block(GET)), ("goaway", PROTOCOL_ERROR)),
    "a frame between HEADERS and CONTINUATION": (
        nothing,
        frame(HEADERS, END_STREAM, 1, block(GET)) + frame(PING, 0, 0, bytes(8)),
        ("goaway", PROTOCOL_ERROR),
    ),
    "DATA between HEADERS and CONTINUATION": (
        opened,
        frame(HEADERS, END_STREAM, 3, block(GET)) + frame(DATA, 0, 1, b"x"),
        ("goaway", PROTOCOL_ERROR),
    ),
    "CONTINUATION on another stream": (
        nothing,
        frame(HEADERS, END_STREAM, 1, block(GET)) + frame(CONTINUATION, END_HEADERS, 3, b""),
        ("goaway", PROTOCOL_ERROR),
    ),
    # -- PRIORITY, RST_STREAM, WINDOW_UPDATE
    "PRIORITY on an idle stream": (nothing, frame(PRIORITY, 0, 7, bytes(5)), FINE),
    "PRIORITY on itself, idle": (nothing, frame(PRIORITY, 0, 7, u32(7) + b"\0"), ("goaway", PROTOCOL_ERROR)),
    "PRIORITY on stream 0": (nothing, frame(PRIORITY, 0, 0, bytes(5)), ("goaway", PROTOCOL_ERROR)),
    "PRIORITY of 4 bytes": (half_closed, frame(PRIORITY, 0, 1, bytes(4)), ("reset", FRAME_SIZE_ERROR)),
    "PRIORITY on itself": (half_closed, frame(PRIORITY, 0, 1, u32(1) + b"\0"), ("reset", PROTOCOL_ERROR)),
    "RST_STREAM on stream 0": (nothing, frame(RST_STREAM, 0, 0, u32(CANCEL)), ("goaway", PROTOCOL_ERROR)),
    "RST_STREAM on an idle stream": (nothing, frame(RST_STREAM, 0, 1, u32(CANCEL)), ("goaway", PROTOCOL_ERROR)),
    "RST_STREAM of 3 bytes": (half_closed, frame(RST_STREAM, 0, 1, b"123"), ("goaway", FRAME_SIZE_ERROR)),
    "RST_STREAM with an unknown code": (half_closed, frame(RST_STREAM, 0, 1, u32(0xABCDEF)), FINE),
    "RST_STREAM on a closed stream": (answered, frame(RST_STREAM, 0, 1, u32(CANCEL)), FINE),
    "WINDOW_UPDATE of 3 bytes": (nothing, frame(WINDOW_UPDATE, 0, 0, b"123"), ("goaway", FRAME_SIZE_ERROR)),
    "WINDOW_UPDATE of 0 on the connection": (nothing, frame(WINDOW_UPDATE, 0, 0, u32(0)), ("goaway", PROTOCOL_ERROR)),
    "WINDOW_UPDATE of 0 on a stream": (half_closed, frame(WINDOW_UPDATE, 0, 1, u32(0)), ("reset", PROTOCOL_ERROR)),
    "WINDOW_UPDATE on an idle stream": (nothing, frame(WINDOW_UPDATE, 0, 1, u32(1)), ("goaway", PROTOCOL_ERROR)),
    "WINDOW_UPDATE on a closed stream": (answered, frame(WINDOW_UPDATE, 0, 1, u32(1)), FINE),
    "the connection's window above 2^31-1": (
        nothing,
        frame(WINDOW_UPDATE, 0, 0, u32(WINDOW_MAX)),
        ("goaway", FLOW_CONTROL_ERROR),
    ),
    "a stream's window above 2^31-1": (half_closed, frame(WINDOW_UPDATE, 0, 1, u32(WINDOW_MAX)), ("reset", FLOW_CONTROL_ERROR)),
    "a stream's window above 2^31-1 by SETTINGS": (
        half_closed,
        frame(WINDOW_UPDATE, 0, 1, u32(100_000)) + settings((4, WINDOW_MAX)),
        ("goaway", FLOW_CONTROL_ERROR),
    ),
}

VECTOR_OUTCOMES: dict[str, Outcome] = {
    "H2D-13": FINE,
    "H2D-35": ("status", 400),
    "H2D-43": FINE,
}


def outcome(raw: Raw, stream_id: int = 1) -> Outcome:
    frames = raw.read()
    for kind, _, _, payload in frames:
        if kind == GOAWAY:
            assert raw.engine.closing
            return ("goaway", int.from_bytes(payload[4:8], "big"))
    assert not raw.engine.closing
    for kind, _, sid, payload in frames:
        if kind == RST_STREAM and sid == stream_id:
            return ("reset", int.from_bytes(payload, "big"))
        if kind == HEADERS and sid == stream_id:
            return ("status", int(dict(raw.decoder.decode(payload, raw=True))[b":status"]))
    return FINE


def serve(which: str, *values: tuple[int, int], limits: Limits | None = None) -> tuple[Raw, Recorder]:
    host = Recorder()
    raw = Raw(SERVERS[which](host, limits or Limits()), *values)
    raw.settle()
    return raw, host


@pytest.fixture(params=list(SERVERS))
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", list(CASES))
def test_frames_are_answered_as_the_rfc_asks(which: str, name: str) -> None:
    before, data, result = CASES[name]
    raw, host = serve(which)
    before(raw)
    raw.send(data)
    result = expected(which, "wire", name, result)
    assert outcome(raw) == result
    if result[0] == "goaway":
        assert host.violations, "an error of the connection is named"
        assert all(seen.log.reset is not None or before is answered for seen in host.requests)


@pytest.mark.parametrize("name", list(CASES))
def test_frames_cut_anywhere_are_answered_alike(which: str, name: str) -> None:
    before, data, result = CASES[name]
    for size in (1, 7):
        raw, _ = serve(which)
        before(raw)
        for at in range(0, len(data), size):
            raw.send(data[at : at + size])
        assert outcome(raw) == expected(which, "wire", name, result)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["id"] for vector in VECTORS])
def test_messages_are_judged_as_the_catalogue_says(which: str, vector: dict[str, Any]) -> None:
    raw, host = serve(which)
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in vector["headers"]]
    body = [part.encode("latin-1") for part in vector["body"] or []]
    raw.headers(1, fields, end=not body)
    for at, part in enumerate(body):
        raw.data(1, part, end=at == len(body) - 1)
    result = VECTOR_OUTCOMES.get(vector["id"], ("reset", PROTOCOL_ERROR))
    result = expected(which, "wire", vector["id"], result)
    assert outcome(raw) == result
    if result == FINE:
        assert host.requests[0].log.ended
    else:
        assert not any(seen.log.body for seen in host.requests)
        assert not any(seen.log.ended for seen in host.requests)
        assert host.violations
    if vector["id"] == "H2D-43":
        assert host.requests[0].head.field(b"cookie") == b"a=1; b=2"
    if result[0] != "goaway":  # the connection goes on, and its HPACK state is right
        raw.headers(3, GET)
        assert host.requests[-1].head.path == b"/"


CONNECT = [(b":method", b"CONNECT"), (b":authority", b"svc.test:80")]
WEBSOCKET = [CONNECT[0], (b":protocol", b"websocket"), *GET[1:]]

PSEUDO_CASES: dict[str, tuple[list[tuple[bytes, bytes]], Outcome]] = {
    "no method": (GET[1:], ("reset", PROTOCOL_ERROR)),
    "no scheme": ([GET[0], *GET[2:]], ("reset", PROTOCOL_ERROR)),
    "no path": ([*GET[:2], GET[3]], ("reset", PROTOCOL_ERROR)),
    "method twice": ([*GET, (b":method", b"GET")], ("reset", PROTOCOL_ERROR)),
    "scheme twice": ([*GET, (b":scheme", b"http")], ("reset", PROTOCOL_ERROR)),
    "authority twice": ([*GET, (b":authority", b"svc.test")], ("reset", PROTOCOL_ERROR)),
    "empty method": ([(b":method", b""), *GET[1:]], ("reset", PROTOCOL_ERROR)),
    "host instead of authority": ([*GET[:3], (b"host", b"svc.test")], FINE),
    "host in another case": ([*GET, (b"host", b"SVC.test")], FINE),
    "the default port in host alone": ([*GET, (b"host", b"SVC.test:80")], FINE),
    "the default port in authority alone": ([*GET[:3], (b":authority", b"svc.test:80"), (b"host", b"svc.test")], FINE),
    "the default port of https": ([GET[0], (b":scheme", b"HTTPS"), *GET[2:], (b"host", b"svc.test:443")], FINE),
    "the default port behind IPv6": ([*GET[:3], (b":authority", b"[::1]"), (b"host", b"[::1]:80")], FINE),
    "the default port of another scheme": ([*GET, (b"host", b"svc.test:443")], ("reset", PROTOCOL_ERROR)),
    "another port in host": ([*GET, (b"host", b"svc.test:8080")], ("reset", PROTOCOL_ERROR)),
    "the default port behind a port": (
        [*GET[:3], (b":authority", b"svc.test:443"), (b"host", b"svc.test:443:80")],
        ("reset", PROTOCOL_ERROR),
    ),
    "CONNECT with a host without its port": ([*CONNECT, (b"host", b"svc.test")], ("reset", PROTOCOL_ERROR)),
    "two hosts": ([*GET, (b"host", b"svc.test"), (b"host", b"svc.test")], ("reset", PROTOCOL_ERROR)),
    "a port that is no number": ([*GET[:3], (b":authority", b"svc.test:80a")], ("reset", PROTOCOL_ERROR)),
    "an empty port": ([*GET[:3], (b":authority", b"svc.test:")], FINE),
    "an empty port of host": ([*GET, (b"host", b"svc.test:")], FINE),
    "two colons": ([*GET[:3], (b":authority", b"svc.test::")], ("reset", PROTOCOL_ERROR)),
    "a colon behind a port": ([*GET[:3], (b":authority", b"svc.test:80:")], ("reset", PROTOCOL_ERROR)),
    "CONNECT to an empty port": ([CONNECT[0], (b":authority", b"svc.test:")], ("reset", PROTOCOL_ERROR)),
    "IPv6 with a port": ([*GET[:3], (b":authority", b"[::1]:80")], FINE),
    "OPTIONS *": ([(b":method", b"OPTIONS"), GET[1], (b":path", b"*"), GET[3]], FINE),
    "GET *": ([GET[0], GET[1], (b":path", b"*"), GET[3]], ("reset", PROTOCOL_ERROR)),
    "a fragment in the path": ([*GET[:2], (b":path", b"/a#b"), GET[3]], ("reset", PROTOCOL_ERROR)),
    "CONNECT": (CONNECT, FINE),
    "CONNECT with a path": ([*CONNECT, GET[2]], ("reset", PROTOCOL_ERROR)),
    "CONNECT without a port": ([CONNECT[0], GET[3]], ("reset", PROTOCOL_ERROR)),
    "CONNECT to port 0": ([CONNECT[0], (b":authority", b"svc.test:0")], ("reset", PROTOCOL_ERROR)),
    "CONNECT with host alone": ([CONNECT[0], (b"host", b"svc.test:80")], ("status", 400)),
    "CONNECT with another host": ([*CONNECT, (b"host", b"other.test:80")], ("reset", PROTOCOL_ERROR)),
    "CONNECT with a length": ([*CONNECT, (b"content-length", b"40")], ("reset", PROTOCOL_ERROR)),
    "CONNECT with the length 0": ([*CONNECT, (b"content-length", b"0")], FINE),
    "extended CONNECT with a length": ([*WEBSOCKET, (b"content-length", b"40")], ("reset", PROTOCOL_ERROR)),
    "extended CONNECT with the length 0": ([*WEBSOCKET, (b"content-length", b"0")], FINE),
    "extended CONNECT to h2c": ([CONNECT[0], (b":protocol", b"H2C"), *GET[1:]], ("reset", PROTOCOL_ERROR)),
    "extended CONNECT to HTTP/2.0": ([CONNECT[0], (b":protocol", b"HTTP/2.0"), *GET[1:]], ("reset", PROTOCOL_ERROR)),
    "extended CONNECT to TLS": ([CONNECT[0], (b":protocol", b"TLS/1.0"), *GET[1:]], ("reset", PROTOCOL_ERROR)),
    "CONNECT without authority": ([(b":method", b"CONNECT")], ("status", 400)),
    "extended CONNECT": (WEBSOCKET, FINE),
    "extended CONNECT without path": (
        [(b":method", b"CONNECT"), (b":protocol", b"websocket"), GET[1], GET[3]],
        ("reset", PROTOCOL_ERROR),
    ),
    "protocol without CONNECT": ([*GET, (b":protocol", b"websocket")], ("reset", PROTOCOL_ERROR)),
    "keep-alive": ([*GET, (b"keep-alive", b"1")], ("reset", PROTOCOL_ERROR)),
    "proxy-connection": ([*GET, (b"proxy-connection", b"close")], ("reset", PROTOCOL_ERROR)),
    "space at the end of a value": ([*GET, (b"x", b"y ")], ("reset", PROTOCOL_ERROR)),
    "content-length twice, equal": ([*POST, (b"content-length", b"0"), (b"content-length", b"0")], FINE),
    "content-length twice, different": (
        [*POST, (b"content-length", b"0"), (b"content-length", b"1")],
        ("reset", PROTOCOL_ERROR),
    ),
    "a large method token": ([(b":method", b"PROPFIND"), *GET[1:]], FINE),
    "te in capitals": ([*GET, (b"te", b"Trailers")], FINE),
}


@pytest.mark.parametrize("name", list(PSEUDO_CASES))
def test_heads_are_judged_as_the_rfc_says(which: str, name: str) -> None:
    fields, result = PSEUDO_CASES[name]
    raw, _ = serve(which)
    raw.headers(1, fields)
    assert outcome(raw) == expected(which, "wire", name, result)


RESPONSE_CASES: dict[str, tuple[list[tuple[int, list[tuple[bytes, bytes]] | bytes, bool]], Outcome]] = {
    "no status": ([(HEADERS, [(b"x", b"y")], True)], ("reset", PROTOCOL_ERROR)),
    "status of two digits": ([(HEADERS, [(b":status", b"20")], True)], ("reset", PROTOCOL_ERROR)),
    "status 101": ([(HEADERS, [(b":status", b"101")], False)], ("reset", PROTOCOL_ERROR)),
    "status 600": ([(HEADERS, [(b":status", b"600")], True)], ("reset", PROTOCOL_ERROR)),
    "status after a field": ([(HEADERS, [(b"x", b"y"), (b":status", b"200")], True)], ("reset", PROTOCOL_ERROR)),
    "a path in a response": ([(HEADERS, [(b":status", b"200"), (b":path", b"/")], True)], ("reset", PROTOCOL_ERROR)),
    "100 with END_STREAM": ([(HEADERS, [(b":status", b"100")], True)], ("reset", PROTOCOL_ERROR)),
    "DATA before HEADERS": ([(DATA, b"x", False)], ("reset", PROTOCOL_ERROR)),
    "DATA after 100 alone": ([(HEADERS, [(b":status", b"100")], False), (DATA, b"x", False)], ("reset", PROTOCOL_ERROR)),
    "more DATA than declared": (
        [(HEADERS, [(b":status", b"200"), (b"content-length", b"1")], False), (DATA, b"xx", False)],
        ("reset", PROTOCOL_ERROR),
    ),
    "less DATA than declared": (
        [(HEADERS, [(b":status", b"200"), (b"content-length", b"2")], False), (DATA, b"x", True)],
        ("reset", PROTOCOL_ERROR),
    ),
    "a length and no body": ([(HEADERS, [(b":status", b"200"), (b"content-length", b"2")], True)], ("reset", PROTOCOL_ERROR)),
    "trailers before the declared body is complete": (
        [(HEADERS, [(b":status", b"200"), (b"content-length", b"2")], False), (HEADERS, [(b"x", b"y")], True)],
        ("reset", PROTOCOL_ERROR),
    ),
    "a body with 204": ([(HEADERS, [(b":status", b"204")], False), (DATA, b"x", True)], ("reset", PROTOCOL_ERROR)),
    "a body with 304": ([(HEADERS, [(b":status", b"304")], False), (DATA, b"x", True)], ("reset", PROTOCOL_ERROR)),
    "304 with a length": ([(HEADERS, [(b":status", b"304"), (b"content-length", b"9")], True)], FINE),
    "a PUSH_PROMISE": ([(PUSH_PROMISE, u32(2) + block(GET), False)], ("goaway", PROTOCOL_ERROR)),
    "a second head": (
        [(HEADERS, [(b":status", b"200")], False), (HEADERS, [(b":status", b"200")], True)],
        ("reset", PROTOCOL_ERROR),
    ),
}


@pytest.mark.parametrize("client", list(CLIENTS))
@pytest.mark.parametrize("name", list(RESPONSE_CASES))
def test_responses_are_judged_as_the_rfc_says(client: str, name: str) -> None:
    messages, result = RESPONSE_CASES[name]
    host = Recorder()
    raw = Raw(CLIENTS[client](host, Limits()), (8, 1))
    raw.settle()
    stream = raw.engine.open()
    stream.sink = log = Log()
    stream.send_head(request(), [], True)
    raw.read()
    for kind, content, end in messages:
        payload = content if isinstance(content, bytes) else block(content)
        raw.send(frame(kind, (END_HEADERS if kind != DATA else 0) | (END_STREAM if end else 0), 1, payload))
    assert outcome(raw) == seen(expected(client, "wire", "response: " + name, result))
    if result == FINE:
        assert log.ended
    else:
        assert log.reset is not None
        assert not log.ended


def test_every_known_difference_is_one_of_a_row() -> None:
    rows = [vector["id"] for vector in VECTORS], ["response: " + name for name in RESPONSE_CASES]
    assert strangers("wire", CASES, PSEUDO_CASES, *rows) == set()


@pytest.mark.parametrize("client", list(CLIENTS))
def test_a_server_may_not_switch_push_on(client: str) -> None:
    raw = Raw(CLIENTS[client](Recorder(), Limits()))
    raw.settle()
    raw.send(settings((2, 1)))
    assert outcome(raw) == ("goaway", PROTOCOL_ERROR)


@pytest.mark.parametrize("client", list(CLIENTS))
def test_extended_connect_waits_for_the_servers_permission(client: str) -> None:
    raw = Raw(CLIENTS[client](Recorder(), Limits()))
    raw.settle()
    stream = raw.engine.open()
    stream.sink = log = Log()
    stream.send_head(request(b"CONNECT", protocol=b"websocket"), [], False)
    assert log.reset == (0xD, True)
    assert raw.engine.active() == 0
    assert not any(kind == HEADERS for kind, *_ in raw.read())


def test_the_server_says_what_it_takes(which: str) -> None:
    engine = SERVERS[which](Recorder(), Limits())
    engine.start()
    raw = take(engine)
    length = int.from_bytes(raw[:3], "big")
    payload = raw[9 : 9 + length]
    said = {
        int.from_bytes(payload[i : i + 2], "big"): int.from_bytes(payload[i + 2 : i + 6], "big") for i in range(0, length, 6)
    }
    assert said[3] == 100
    assert said[4] == Limits().stream_window
    assert said[8] == 1
    assert raw[9 + length :] == frame(WINDOW_UPDATE, 0, 0, u32(16 * 1024 * 1024 - 65535))


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:20] + b"X", PREFACE + frame(PING, 0, 0, bytes(8)), PREFACE + frame(SETTINGS, ACK, 0)],
    ids=["http/1.1", "typo", "no settings", "ack first"],
)
def test_a_wrong_preface_closes_the_connection(which: str, data: bytes) -> None:
    for size in (1, 1000):
        host = Recorder()
        engine = SERVERS[which](host, Limits())
        engine.start()
        for at in range(0, len(data), size):
            engine.receive(data[at : at + size], 0.0)
        assert engine.closing
        assert host.violations == ["h2_preface"]
        assert host.requests == []


def test_the_host_is_told_what_the_peer_owes() -> None:
    host = Recorder()
    engine = Http2Server(host, Limits())
    assert engine.awaiting() == AWAITING_HEAD, "the preface"
    raw = Raw(engine)
    assert engine.awaiting() == AWAITING_NOTHING
    raw.send(frame(HEADERS, 0, 1, block(POST)))
    assert engine.awaiting() == AWAITING_HEAD, "the rest of the block"
    raw.send(frame(CONTINUATION, END_HEADERS, 1))
    assert engine.awaiting() == AWAITING_US, "bodies are looked at stream by stream (test_http2_silent.py)"
    raw.data(1, b"x", end=True)
    assert engine.awaiting() == AWAITING_US
    host.requests[0].stream.send_head(response(), [], True)
    assert engine.awaiting() == AWAITING_NOTHING
    raw.headers(3, CONNECT, end=False)
    assert engine.awaiting() == AWAITING_US, "a tunnel may be silent for as long as it likes"


def test_a_stream_over_the_limit_is_refused_and_the_others_go_on(which: str) -> None:
    raw, host = serve(which)
    for sid in range(1, 2 * 101, 2):
        raw.headers(sid, GET)
    assert raw.resets() == {201: REFUSED_STREAM}
    assert len(host.requests) == 100
    host.requests[0].stream.send_head(response(), [], True)
    raw.headers(203, GET)
    assert len(host.requests) == 101
    assert not raw.engine.closing


def test_a_malformed_request_fails_alone() -> None:
    raw, host = serve("ours")
    for sid in range(1, 101, 2):
        raw.headers(sid, GET)
    raw.headers(101, [*GET, (b"connection", b"close")])
    assert raw.resets() == {101: PROTOCOL_ERROR}
    assert host.violations == ["h2_malformed"]
    assert raw.engine.active() == 50
    assert all(seen.log.reset is None for seen in host.requests)


def test_a_head_too_large_is_answered_with_431_and_the_next_request_is_served() -> None:
    raw, host = serve("ours")
    large = [(b"x-%d" % i, b"v" * 1000) for i in range(70)]
    data = block(POST) + block(large) + b"\x40" + literal(b"x-kept", b"yes")[1:]
    parts = [data[at : at + 16384] for at in range(0, len(data), 16384)]
    raw.send(frame(HEADERS, 0, 1, parts[0]))
    for part in parts[1:-1]:
        raw.send(frame(CONTINUATION, 0, 1, part))
    raw.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]))
    frames = raw.read()
    assert dict(raw.decoder.decode(frames[0][3], raw=True))[b":status"] == b"431"
    assert dict(raw.decoder.decode(frames[0][3], raw=True))[b"mesh-error"] == b"h2_head_too_large"
    assert frames[1] == (RST_STREAM, 0, 1, u32(NO_ERROR))
    raw.data(1, b"the body that was on its way", end=True)
    raw.send(frame(HEADERS, 5, 3, block(GET) + b"\xbe"))
    assert host.requests[0].head.field(b"x-kept") == b"yes"
    assert host.violations == ["h2_head_too_large"]


@pytest.mark.parametrize("caches", [True, False])
def test_the_same_bytes_mean_another_request_once_the_table_has_changed(caches: bool) -> None:
    CACHES.enabled = caches
    try:
        raw, host = serve("ours")

        def add(value: bytes) -> bytes:
            return block(GET) + b"\x40" + literal(b"x-app", value)[1:]

        newest = block(GET) + b"\xbe"
        for sid, data in ((1, add(b"one")), (3, newest), (5, newest), (7, add(b"two")), (9, newest), (11, newest)):
            raw.send(frame(HEADERS, 5, sid, data))
        assert [seen.head.field(b"x-app") for seen in host.requests] == [b"one"] * 3 + [b"two"] * 3
        assert (host.requests[1].head is host.requests[2].head) is caches
    finally:
        CACHES.enabled = True


def test_ninety_cookie_crumbs_and_fifteen_fields_are_served(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, [*GET, *[(b"cookie", b"c%d=1" % i) for i in range(90)], *[(b"x-%d" % i, b"y") for i in range(15)]])
    cookie = host.requests[0].head.field(b"cookie")
    assert cookie is not None
    assert cookie.count(b"; ") == 89


def test_trailers_that_must_not_be_are_dropped_and_large_ones_refused(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    raw.headers(1, [(b"content-length", b"9"), (b"x-sum", b"1"), (b"authorization", b"x"), (b"mesh-client-id", b"x")])
    assert host.requests[0].log.trailers == [(b"x-sum", b"1")]
    raw.headers(3, POST, end=False)
    raw.send(frame(HEADERS, 0, 3, literal(b"x", b"v" * 16000)) + frame(CONTINUATION, 5, 3, literal(b"x", b"v" * 1000)))
    assert host.requests[1].log.reset == (PROTOCOL_ERROR, False)


@pytest.mark.parametrize("client", list(CLIENTS))
def test_goaway_resets_only_the_streams_above_its_last_id(client: str) -> None:
    host = Recorder()
    raw = Raw(CLIENTS[client](host, Limits()), (8, 1))
    logs = []
    for _ in range(3):
        stream = raw.engine.open()
        stream.sink = log = Log()
        logs.append(log)
        stream.send_head(request(), [], True)
    raw.send(frame(GOAWAY, 0, 0, u32(3) + u32(NO_ERROR) + b"bye"))
    assert [log.reset for log in logs] == [None, None, (NO_ERROR, True)]
    assert host.goaways == [NO_ERROR]
    assert raw.engine.capacity() == 0
    raw.send(frame(HEADERS, 5, 1, block([(b":status", b"200")])))
    assert logs[0].ended
    raw.send(frame(GOAWAY, 0, 0, u32(1) + u32(ENHANCE_YOUR_CALM)))
    assert logs[1].reset == (ENHANCE_YOUR_CALM, True)
    assert host.goaways == [NO_ERROR]


@pytest.mark.parametrize("client", list(CLIENTS))
def test_frames_that_cross_a_reset_of_ours_are_dropped(client: str) -> None:
    raw = Raw(CLIENTS[client](Recorder(), Limits()))
    stream = raw.engine.open()
    stream.send_head(request(), [], True)
    stream.reset(CANCEL)
    raw.send(frame(HEADERS, END_HEADERS, 1, block([(b":status", b"200")])), frame(DATA, END_STREAM, 1, b"late"))
    assert not raw.engine.closing
    assert raw.engine.active() == 0


@pytest.mark.parametrize("client", list(CLIENTS))
def test_interim_responses_are_bounded(client: str) -> None:
    raw = Raw(CLIENTS[client](Recorder(), Limits()))
    stream = raw.engine.open()
    stream.sink = log = Log()
    stream.send_head(request(), [], True)
    for _ in range(Limits().interim_responses):
        raw.send(frame(HEADERS, END_HEADERS, 1, block([(b":status", b"103")])))
    assert log.reset is None
    raw.send(frame(HEADERS, END_HEADERS, 1, block([(b":status", b"103")])))
    assert log.reset == (PROTOCOL_ERROR, False)
