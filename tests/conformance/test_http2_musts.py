"""RFC 9113 sections 3 to 8 and RFC 8441: every MUST and MUST NOT that a client can observe of our server.

One row a rule: its section, what the client sends, what must come back.  Rules about what we send are the functions below
the table.  The same for our client role is in test_http2_client_musts.py, HPACK in test_hpack_musts.py; attacks and a
running proxy are in test_frame_attacks.py and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http2_differences import SERVERS, expected, strangers
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
    Raw,
    Recorder,
    block,
    frame,
    frames,
    response,
    settings,
    take,
)
from http2_rows import (
    FINE,
    WHOLE,
    Outcome,
    answered,
    data_frames,
    half_closed_remote,
    next_request_is_served,
    nothing,
    opened,
    outcome,
    passed_over,
    reset_by_peer,
    reset_by_us,
    serve,
    tunnel,
    u32,
    windows,
)

from meshproxy.wire.engine import (
    CANCEL,
    COMPRESSION_ERROR,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
)
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field

WINDOW_MAX = 2**31 - 1
RESET: Outcome = ("reset", PROTOCOL_ERROR)
CONNECTION: Outcome = ("goaway", PROTOCOL_ERROR)
FRAME_SIZE: Outcome = ("goaway", FRAME_SIZE_ERROR)
GONE: Outcome = ("goaway", STREAM_CLOSED)

Row = tuple[Callable[[Raw], None], bytes, Outcome]


def headers(fields: list[tuple[bytes, bytes]], flags: int = WHOLE, stream_id: int = 1) -> bytes:
    return frame(HEADERS, flags, stream_id, block(fields))


# The order of the sections.  Where the RFC lets a receiver choose (stream or connection error, ignore or complain), the row
# says what ours does.
FRAMES: dict[str, Row] = {
    # 4.1 Frame Format
    "4.1 a frame of unknown type is ignored": (nothing, frame(0xBE, 0xFF, 0, b"anything"), FINE),
    "4.1 ... also on a stream": (opened, frame(0xBE, 0xFF, 1, b"anything"), FINE),
    "4.1 flags that mean nothing are ignored, PING": (nothing, frame(PING, 0xFE, 0, bytes(8)), FINE),
    "4.1 flags that mean nothing are ignored, DATA": (opened, frame(DATA, 0xF6, 1, b"x"), FINE),
    "4.1 flags that mean nothing are ignored, HEADERS": (nothing, headers(GET, WHOLE | 0xD2 & ~0x20), FINE),
    "4.1 flags that mean nothing are ignored, RST_STREAM": (opened, frame(RST_STREAM, 0xFF, 1, u32(8)), FINE),
    "4.1 flags that mean nothing are ignored, SETTINGS": (nothing, frame(SETTINGS, 0xFE, 0), FINE),
    "4.1 flags that mean nothing are ignored, WINDOW_UPDATE": (opened, frame(WINDOW_UPDATE, 0xFF, 1, u32(1)), FINE),
    "4.1 the reserved bit is ignored": (opened, frame(DATA, 0, 0x80000001, b"x"), FINE),
    # 4.2 Frame Size
    "4.2 16,384 bytes are taken": (opened, frame(DATA, 0, 1, bytes(16_384)), FINE),
    "4.2 DATA over MAX_FRAME_SIZE": (opened, frame(DATA, 0, 1, bytes(16_385)), FRAME_SIZE),
    "4.2 HEADERS over MAX_FRAME_SIZE": (nothing, headers([*GET, (b"x", bytes(16_384))]), FRAME_SIZE),
    "4.2 SETTINGS over MAX_FRAME_SIZE": (nothing, frame(SETTINGS, 0, 0, bytes(16_386)), FRAME_SIZE),
    "4.2 an unknown frame over MAX_FRAME_SIZE": (nothing, frame(0xBE, 0, 0, bytes(16_385)), FRAME_SIZE),
    # 4.3 Field Section Compression
    "4.3 a block that cannot be decoded": (nothing, frame(HEADERS, WHOLE, 1, b"\xff" * 8), ("goaway", COMPRESSION_ERROR)),
    "4.3 ... of trailers": (opened, frame(HEADERS, WHOLE, 1, b"\x80"), ("goaway", COMPRESSION_ERROR)),
    "4.3 ... on a stream we reset": (reset_by_us, frame(HEADERS, WHOLE, 1, b"\x80"), ("goaway", COMPRESSION_ERROR)),
    "4.3 ... that ends inside a field": (nothing, frame(HEADERS, WHOLE, 1, block(GET)[:-1]), ("goaway", COMPRESSION_ERROR)),
    "4.3 a block is not interrupted by a frame of its stream": (
        nothing,
        headers(GET, END_STREAM) + frame(WINDOW_UPDATE, 0, 1, u32(1)),
        CONNECTION,
    ),
    "4.3 ... nor of another": (opened, headers(GET, END_STREAM, 3) + frame(DATA, 0, 1, b"x"), CONNECTION),
    "4.3 ... nor by HEADERS": (nothing, headers(GET, END_STREAM) + headers(GET), CONNECTION),
    "4.3 ... nor by PING": (nothing, headers(GET, END_STREAM) + frame(PING, 0, 0, bytes(8)), CONNECTION),
    "4.3 ... nor by SETTINGS": (nothing, headers(GET, END_STREAM) + settings(), CONNECTION),
    "5.5 ... nor by an unknown frame": (nothing, headers(GET, END_STREAM) + frame(0xBE, 0, 1), CONNECTION),
    # 5.1.1 Stream Identifiers
    "5.1.1 a client's streams are odd": (nothing, headers(GET, WHOLE, 2), CONNECTION),
    "5.1.1 ids go up": (passed_over, headers(GET), GONE),
    "5.1.1 an id is used once": (answered, headers(GET), GONE),
    "5.1.1 ids may be passed over": (nothing, headers(GET, WHOLE, 2**31 - 1), FINE),
    # 5.3 Prioritization
    "5.3.2 what PRIORITY says is ignored": (opened, frame(PRIORITY, 0, 1, u32(0x80000003) + b"\xff"), FINE),
    "5.3.2 what HEADERS say of it, too": (nothing, frame(HEADERS, WHOLE | PRIORITY_FLAG, 1, bytes(5) + block(GET)), FINE),
    # 5.5 Extending HTTP/2
    "5.5 an unknown setting is ignored": (nothing, settings((0x99, 1), (0xFFFF, 2**32 - 1)), FINE),
    # 6.1 DATA
    "6.1 DATA on stream 0": (nothing, frame(DATA, 0, 0, b"x"), CONNECTION),
    "6.1 padding is dropped": (opened, frame(DATA, PADDED, 1, b"\x03abc\0\0\0"), FINE),
    "6.1 padding that is not zero is no error of ours": (opened, frame(DATA, PADDED, 1, b"\x03abc\1\2\3"), FINE),
    "6.1 nothing but padding": (opened, frame(DATA, PADDED, 1, b"\x04abc\0"), FINE),
    "6.1 as much padding as payload": (opened, frame(DATA, PADDED, 1, b"\x05abc\0"), CONNECTION),
    "6.1 more padding than payload": (opened, frame(DATA, PADDED, 1, b"\xff"), CONNECTION),
    "6.1 no room for the pad length": (opened, frame(DATA, PADDED, 1, b""), CONNECTION),
    "6.1 all padding and the end": (opened, frame(DATA, PADDED | END_STREAM, 1, b"\x02\0\0"), FINE),
    # 6.2 HEADERS
    "6.2 HEADERS on stream 0": (nothing, headers(GET, WHOLE, 0), CONNECTION),
    "6.2 padding is dropped": (nothing, frame(HEADERS, WHOLE | PADDED, 1, b"\x02" + block(GET) + b"\0\0"), FINE),
    "6.2 more padding than payload": (nothing, frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + block(GET)), CONNECTION),
    "6.2 no room for the pad length": (nothing, frame(HEADERS, WHOLE | PADDED, 1, b""), FRAME_SIZE),
    "6.2 no room for the priority": (nothing, frame(HEADERS, WHOLE | PRIORITY_FLAG, 1, bytes(4)), FRAME_SIZE),
    "6.2 padding over the priority": (
        nothing,
        frame(HEADERS, WHOLE | PADDED | PRIORITY_FLAG, 1, b"\x01" + bytes(5)),
        CONNECTION,
    ),
    # 6.3 PRIORITY
    "6.3 PRIORITY on stream 0": (nothing, frame(PRIORITY, 0, 0, bytes(5)), CONNECTION),
    "6.3 PRIORITY of 4 bytes": (opened, frame(PRIORITY, 0, 1, bytes(4)), ("reset", FRAME_SIZE_ERROR)),
    "6.3 PRIORITY of 6 bytes": (opened, frame(PRIORITY, 0, 1, bytes(6)), ("reset", FRAME_SIZE_ERROR)),
    "6.3 PRIORITY of 4 bytes, idle": (nothing, frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE),
    # 6.4 RST_STREAM
    "6.4 RST_STREAM on stream 0": (nothing, frame(RST_STREAM, 0, 0, u32(8)), CONNECTION),
    "6.4 RST_STREAM of 3 bytes": (opened, frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE),
    "6.4 RST_STREAM of 5 bytes": (opened, frame(RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE),
    "6.4 RST_STREAM is never answered with one": (opened, frame(RST_STREAM, 0, 1, u32(CANCEL)), FINE),
    # 6.5 SETTINGS
    "6.5 SETTINGS on a stream": (opened, frame(SETTINGS, 0, 1), CONNECTION),
    "6.5 SETTINGS of 5 bytes": (nothing, frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
    "6.5 an ack with a payload": (nothing, frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1"), FRAME_SIZE),
    "6.5.2 ENABLE_PUSH 0": (nothing, settings((2, 0)), FINE),
    "6.5.2 ENABLE_PUSH 2": (nothing, settings((2, 2)), CONNECTION),
    "6.5.2 MAX_CONCURRENT_STREAMS 0": (opened, settings((3, 0)), FINE),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31-1": (nothing, settings((4, WINDOW_MAX)), FINE),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31": (nothing, settings((4, 2**31)), ("goaway", FLOW_CONTROL_ERROR)),
    "6.5.2 MAX_FRAME_SIZE 16,383": (nothing, settings((5, 16_383)), CONNECTION),
    "6.5.2 MAX_FRAME_SIZE 16,384": (nothing, settings((5, 16_384)), FINE),
    "6.5.2 MAX_FRAME_SIZE 2^24-1": (nothing, settings((5, 2**24 - 1)), FINE),
    "6.5.2 MAX_FRAME_SIZE 2^24": (nothing, settings((5, 2**24)), CONNECTION),
    "6.5.2 MAX_HEADER_LIST_SIZE 0": (nothing, settings((6, 0)), FINE),
    "6.5.2 HEADER_TABLE_SIZE 2^32-1": (nothing, settings((1, 2**32 - 1)), FINE),
    "6.5.3 the last value of a kind holds, all are looked at": (nothing, settings((5, 16_383), (5, 16_384)), CONNECTION),
    "8441 3 ENABLE_CONNECT_PROTOCOL 1": (nothing, settings((8, 1)), FINE),
    "8441 3 ENABLE_CONNECT_PROTOCOL 2": (nothing, settings((8, 2)), CONNECTION),
    "8441 3 ENABLE_CONNECT_PROTOCOL does not go back to 0": (nothing, settings((8, 1)) + settings((8, 0)), CONNECTION),
    # 6.6 PUSH_PROMISE
    "6.6 a client does not push": (opened, frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)), CONNECTION),
    # 6.7 PING
    "6.7 PING on a stream": (opened, frame(PING, 0, 1, bytes(8)), CONNECTION),
    "6.7 PING of 7 bytes": (nothing, frame(PING, 0, 0, bytes(7)), FRAME_SIZE),
    "6.7 PING of 9 bytes": (nothing, frame(PING, 0, 0, bytes(9)), FRAME_SIZE),
    # 6.8 GOAWAY
    "6.8 GOAWAY on a stream": (opened, frame(GOAWAY, 0, 1, bytes(8)), CONNECTION),
    "6.8 GOAWAY of 7 bytes": (nothing, frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE),
    "6.8 a client's GOAWAY ends no request": (opened, frame(GOAWAY, 0, 0, bytes(8) + b"why"), FINE),
    # 6.9 WINDOW_UPDATE
    "6.9 WINDOW_UPDATE of 0 on a stream": (opened, frame(WINDOW_UPDATE, 0, 1, u32(0)), RESET),
    "6.9 WINDOW_UPDATE of 0 on the connection": (nothing, frame(WINDOW_UPDATE, 0, 0, u32(0)), CONNECTION),
    "6.9 the reserved bit of an increment": (opened, frame(WINDOW_UPDATE, 0, 1, u32(0x80000001)), FINE),
    "6.9 WINDOW_UPDATE of 3 bytes": (nothing, frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE),
    "6.9 WINDOW_UPDATE of 5 bytes": (opened, frame(WINDOW_UPDATE, 0, 1, bytes(5)), FRAME_SIZE),
    "6.9.1 a stream's window of 2^31-1": (opened, frame(WINDOW_UPDATE, 0, 1, u32(WINDOW_MAX - 65_535)), FINE),
    "6.9.1 a stream's window above 2^31-1": (
        opened,
        frame(WINDOW_UPDATE, 0, 1, u32(WINDOW_MAX - 65_534)),
        ("reset", FLOW_CONTROL_ERROR),
    ),
    "6.9.1 the connection's above 2^31-1": (
        nothing,
        frame(WINDOW_UPDATE, 0, 0, u32(WINDOW_MAX)),
        ("goaway", FLOW_CONTROL_ERROR),
    ),
    "6.9.2 a stream's above 2^31-1 by SETTINGS": (
        opened,
        frame(WINDOW_UPDATE, 0, 1, u32(1)) + settings((4, WINDOW_MAX)),
        ("goaway", FLOW_CONTROL_ERROR),
    ),
    # 6.10 CONTINUATION
    "6.10 a block in three frames": (
        nothing,
        headers([], END_STREAM) + frame(CONTINUATION, 0, 1, block(GET)[:9]) + frame(CONTINUATION, 4, 1, block(GET)[9:]),
        FINE,
    ),
    "6.10 CONTINUATION on stream 0": (nothing, frame(CONTINUATION, END_HEADERS, 0, block(GET)), CONNECTION),
    "6.10 CONTINUATION after END_HEADERS": (nothing, headers(GET) + frame(CONTINUATION, END_HEADERS, 1, b""), CONNECTION),
    "6.10 CONTINUATION on another stream": (nothing, headers(GET, 1) + frame(CONTINUATION, END_HEADERS, 3, b""), CONNECTION),
    "6.10 CONTINUATION after DATA": (opened, frame(DATA, 0, 1, b"x") + frame(CONTINUATION, END_HEADERS, 1, b""), CONNECTION),
    # 7 Error Codes
    "7 an unknown code means nothing special, RST_STREAM": (opened, frame(RST_STREAM, 0, 1, u32(0xABCDEF)), FINE),
    "7 an unknown code means nothing special, GOAWAY": (opened, frame(GOAWAY, 0, 0, u32(0) + u32(0xABCDEF)), FINE),
    # 8.1 HTTP Message Framing
    "8.1 trailers end the stream": (opened, headers([(b"x", b"y")], END_HEADERS), RESET),
    "8.1 trailers that do are trailers": (opened, headers([(b"x", b"y")]), FINE),
    "8.3 no pseudo field in trailers": (opened, headers([(b":path", b"/")]), RESET),
    "8.2.2 no connection field in trailers": (opened, headers([(b"connection", b"x")]), RESET),
    "8.2.1 no bad name in trailers": (opened, headers([(b"X", b"y")]), RESET),
    # 8.5 The CONNECT Method
    "8.5 DATA and its end go through a tunnel": (tunnel, frame(DATA, END_STREAM, 1, b"x"), FINE),
    "8.5 stream management goes on in a tunnel": (
        tunnel,
        frame(WINDOW_UPDATE, 0, 1, u32(9)) + frame(PRIORITY, 0, 1, bytes(5)),
        FINE,
    ),
    "8.5 HEADERS in a tunnel": (tunnel, headers([(b"x", b"y")]), RESET),
}


@pytest.mark.parametrize("rule", list(FRAMES))
def test_server(which: str, rule: str) -> None:
    before, data, ours = FRAMES[rule]
    wanted = expected(which, "server", rule, ours)
    for size in (len(data), 1):
        if size == 1 and len(data) > 1000:
            continue
        raw, host = serve(which)
        before(raw)
        for at in range(0, len(data), size):
            raw.send(data[at : at + size])
        assert outcome(raw) == wanted
        if wanted != FINE:
            assert host.violations, "it is named to the operator"
            assert not any(seen.log.ended for seen in host.requests if seen.log.reset is None and before is not answered)
        if wanted == FINE or wanted[0] == "reset":
            next_request_is_served(raw) if rule != "5.1.1 ids may be passed over" else None


# 5.1: what may arrive in which state.  Columns: DATA, HEADERS, PRIORITY, RST_STREAM, WINDOW_UPDATE, CONTINUATION, PUSH_PROMISE.
SAME = (CONNECTION, CONNECTION)  # the last two are errors everywhere
ENDED: Outcome = ("reset", STREAM_CLOSED)
STATES: dict[str, tuple[Callable[[Raw], None], tuple[Outcome, ...]]] = {
    "idle": (nothing, (CONNECTION, FINE, FINE, CONNECTION, CONNECTION, *SAME)),
    "open": (opened, (FINE, FINE, FINE, FINE, FINE, *SAME)),
    "half-closed (remote)": (half_closed_remote, (ENDED, ENDED, FINE, FINE, FINE, *SAME)),
    "closed by both ends": (answered, (GONE, GONE, FINE, FINE, FINE, *SAME)),
    "closed by the peer's RST_STREAM": (reset_by_peer, (GONE, GONE, FINE, FINE, FINE, *SAME)),
    "closed by our RST_STREAM": (reset_by_us, (FINE, FINE, FINE, FINE, FINE, *SAME)),
    "closed by a higher stream": (passed_over, (GONE, GONE, FINE, FINE, FINE, *SAME)),
}
COLUMNS = {
    "DATA": frame(DATA, 0, 1, b"x"),
    "HEADERS": headers(GET),
    "PRIORITY": frame(PRIORITY, 0, 1, bytes(5)),
    "RST_STREAM": frame(RST_STREAM, 0, 1, u32(CANCEL)),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, 1, u32(1)),
    "CONTINUATION": frame(CONTINUATION, END_HEADERS, 1, b""),
    "PUSH_PROMISE": frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)),
}


@pytest.mark.parametrize("column", list(COLUMNS))
@pytest.mark.parametrize("state", list(STATES))
def test_server_5_1_stream_states(which: str, state: str, column: str) -> None:
    before, row = STATES[state]
    raw, host = serve(which)
    before(raw)
    data = COLUMNS[column]
    if state == "open" and column == "HEADERS":
        data = headers([(b"x", b"y")])  # trailers
    seen = len(host.requests)
    raw.send(data)
    assert outcome(raw) == expected(which, "server", f"5.1 {state}: {column}", row[list(COLUMNS).index(column)])
    assert len(host.requests) == seen + (1 if (state, column) == ("idle", "HEADERS") else 0)


# 8.2 and 8.3: heads.  None: the fields after a good GET; a list: all of them.
BYTES_IN_NAMES = [*range(0x21), *range(0x41, 0x5B), *range(0x7F, 0x100), *b'"(),/;<=>?@[\\]{}']
BYTES_IN_VALUES = [0x00, 0x0A, 0x0D]
CONNECT = (b":method", b"CONNECT")
WEBSOCKET = (b":protocol", b"websocket")

HEADS: dict[str, tuple[list[tuple[bytes, bytes]], Outcome]] = {
    **{f"8.2.1 byte {byte:02x} in a name": ([*GET, (b"x%cy" % byte, b"1")], RESET) for byte in BYTES_IN_NAMES},
    **{f"8.2.1 byte {byte:02x} in a value": ([*GET, (b"x", b"a%cb" % byte)], RESET) for byte in BYTES_IN_VALUES},
    **{
        f"8.2.1 byte {byte:02x} at the {end} of a value": ([*GET, (b"x", value)], RESET)
        for byte in (0x20, 0x09)
        for end, value in (("start", b"%ca" % byte), ("end", b"a%c" % byte))
    },
    "8.2.1 an empty name": ([*GET, (b"", b"x")], RESET),
    "8.2.1 a colon in a name": ([*GET, (b"x:y", b"z")], RESET),
    "8.2.1 an empty value": ([*GET, (b"x", b"")], FINE),
    "8.2.1 white space inside a value": ([*GET, (b"x", b"a \t b")], FINE),
    "8.2.1 bytes above 7f in a value": ([*GET, (b"x", b"\x80\xff")], FINE),
    **{
        f"8.2.2 {name.decode()}": ([*GET, (name, value)], RESET)
        for name, value in (
            (b"connection", b"close"),
            (b"proxy-connection", b"close"),
            (b"keep-alive", b"timeout=5"),
            (b"transfer-encoding", b"chunked"),
            (b"upgrade", b"websocket"),
        )
    },
    "8.2.2 te: trailers": ([*GET, (b"te", b"trailers")], FINE),
    "8.2.2 te: gzip": ([*GET, (b"te", b"gzip")], RESET),
    "8.2.2 te: trailers, gzip": ([*GET, (b"te", b"trailers, gzip")], RESET),
    "8.2.3 cookie crumbs": ([*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")], FINE),
    "8.3 a pseudo field after a regular one": ([*GET[:3], (b"x", b"y"), GET[3]], RESET),
    "8.3 an unknown pseudo field": ([*GET, (b":unknown", b"x")], RESET),
    "8.3 a response's pseudo field": ([*GET, (b":status", b"200")], RESET),
    **{f"8.3 {field[0].decode()} twice": ([*GET, field], RESET) for field in GET},
    "8.3.1 no :method": (GET[1:], RESET),
    "8.3.1 no :scheme": ([GET[0], *GET[2:]], RESET),
    "8.3.1 no :path": ([*GET[:2], GET[3]], RESET),
    "8.3.1 an empty :path": ([*GET[:2], (b":path", b""), GET[3]], RESET),
    "8.3.1 a :path without a slash": ([*GET[:2], (b":path", b"index"), GET[3]], RESET),
    "8.3.1 a :path with a space": ([*GET[:2], (b":path", b"/a b"), GET[3]], RESET),
    "8.3.1 OPTIONS *": ([(b":method", b"OPTIONS"), GET[1], (b":path", b"*"), GET[3]], FINE),
    "8.3.1 GET *": ([*GET[:2], (b":path", b"*"), GET[3]], RESET),
    "8.3.1 a method that is no token": ([(b":method", b"GET /"), *GET[1:]], RESET),
    "8.3.1 a scheme that is none": ([GET[0], (b":scheme", b"http://evil/"), *GET[2:]], RESET),
    "8.3.1 user information in :authority": ([*GET[:3], (b":authority", b"user@svc.test")], RESET),
    "8.3.1 an empty :authority": ([*GET[:3], (b":authority", b"")], ("status", 400)),
    "8.3.1 :authority and host differ": ([*GET, (b"host", b"evil.test")], RESET),
    "8.3.1 :authority and host agree": ([*GET, (b"host", b"svc.test")], FINE),
    "8.3.1 host alone": ([*GET[:3], (b"host", b"svc.test")], FINE),
    "8.1.1 content-length that is no number": ([*GET, (b"content-length", b"x")], RESET),
    "8.1.1 content-length with a sign": ([*GET, (b"content-length", b"+0")], RESET),
    "8.1.1 two content-lengths that differ": ([*GET, (b"content-length", b"0"), (b"content-length", b"1")], RESET),
    "8.1.1 content-length and no DATA": ([*GET, (b"content-length", b"1")], RESET),
    "8.1.1 content-length 0 and no DATA": ([*GET, (b"content-length", b"0")], FINE),
    "8.5 CONNECT": ([CONNECT, (b":authority", b"svc.test:80")], FINE),
    "8.5 CONNECT with :scheme": ([CONNECT, GET[1], GET[3]], RESET),
    "8.5 CONNECT with :path": ([CONNECT, GET[2], GET[3]], RESET),
    "8.5 CONNECT without :authority": ([CONNECT], ("status", 400)),
    "8441 4 extended CONNECT": ([CONNECT, WEBSOCKET, *GET[1:]], FINE),
    "8441 4 extended CONNECT without :scheme": ([CONNECT, WEBSOCKET, *GET[2:]], RESET),
    "8441 4 extended CONNECT without :path": ([CONNECT, WEBSOCKET, GET[1], GET[3]], RESET),
    "8441 4 :protocol without CONNECT": ([*GET, WEBSOCKET], RESET),
    "8441 4 an empty :protocol": ([CONNECT, (b":protocol", b""), *GET[1:]], RESET),
}


@pytest.mark.parametrize("rule", list(HEADS))
def test_server_heads(which: str, rule: str) -> None:
    fields, ours = HEADS[rule]
    wanted = expected(which, "server", rule, ours)
    raw, host = serve(which)
    raw.headers(1, fields)
    assert outcome(raw) == wanted
    assert len(host.requests) == (1 if ours == FINE else 0), "8.1.1: what is malformed is not forwarded"
    if wanted[0] != "goaway":
        next_request_is_served(raw)


BODIES: dict[str, tuple[int, list[int], Outcome]] = {  # content-length, DATA
    "8.1.1 as many bytes as declared": (6, [2, 3, 1], FINE),
    "8.1.1 an empty DATA ends what is complete": (6, [6, 0], FINE),
    "8.1.1 one byte less": (6, [2, 3], RESET),
    "8.1.1 one byte more": (6, [2, 3, 2], RESET),
    "8.1.1 nothing at all": (6, [0], RESET),
    "8.1.1 something where nothing was declared": (0, [1], RESET),
}


@pytest.mark.parametrize("rule", list(BODIES))
def test_server_bodies(which: str, rule: str) -> None:
    declared, sizes, ours = BODIES[rule]
    wanted = expected(which, "server", rule, ours)
    raw, host = serve(which)
    raw.headers(1, [*POST, (b"content-length", b"%d" % declared)], end=False)
    for at, size in enumerate(sizes):
        raw.data(1, bytes(size), end=at == len(sizes) - 1)
    assert outcome(raw) == wanted
    assert host.requests[0].log.ended == (ours == FINE)
    assert (host.requests[0].log.reset is None) == (ours == FINE)
    if wanted[0] != "goaway":
        next_request_is_served(raw)


def test_every_known_difference_of_a_server_is_one_of_a_row() -> None:
    states = [f"5.1 {state}: {column}" for state in STATES for column in COLUMNS]
    single = ["6.1 padding spends the window", "6.5.2 a server says nothing of push"]
    assert strangers("server", FRAMES, HEADS, BODIES, states, single) == set()


# -- 3.4


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:23] + b"X", PREFACE + frame(PING, 0, 0, bytes(8)), PREFACE + headers(GET)],
    ids=["another protocol", "last byte wrong", "PING before SETTINGS", "HEADERS before SETTINGS"],
)
def test_server_3_4_an_invalid_preface_is_a_connection_error(which: str, data: bytes) -> None:
    for size in (1, len(data)):
        host = Recorder()
        engine = SERVERS[which](host, Limits())
        engine.start()
        take(engine)
        for at in range(0, len(data), size):
            engine.receive(data[at : at + size], 0.0)
        kind, _, _, payload = frames(take(engine))[-1]
        assert (kind, payload[4:8]) == (GOAWAY, u32(PROTOCOL_ERROR))
        assert engine.closing
        assert host.requests == []


def test_server_3_4_settings_are_the_first_frame_we_send(which: str) -> None:
    engine = SERVERS[which](Recorder(), Limits())
    engine.start()
    kind, flags, stream_id, _ = frames(take(engine))[0]
    assert (kind, flags, stream_id) == (SETTINGS, 0, 0)


def test_server_3_4_requests_right_behind_the_preface_are_served(which: str) -> None:
    host = Recorder()
    engine = SERVERS[which](host, Limits())
    engine.start()
    engine.receive(PREFACE + settings((4, 100)) + headers(GET), 0.0)
    assert len(host.requests) == 1


# -- 4 and 6: what we send


def test_server_4_1_only_flags_with_a_meaning_are_set_and_no_reserved_bit(which: str) -> None:
    raw, host = serve(which, (4, 100))
    for sid in (1, 3, 5):
        raw.headers(sid, POST, end=False)
    raw.send(frame(PING, 0, 0, b"abcdefgh"), settings((4, 1000)))
    for seen in host.requests:
        seen.stream.send_head(response(), [], False)
        seen.stream.send_data(bytes(5000), False)
    host.requests[0].stream.send_trailers([Field(b"x", b"y")])
    host.requests[1].stream.reset(CANCEL)
    for sid in (1, 5):
        raw.send(frame(WINDOW_UPDATE, 0, sid, u32(10_000)))
    getattr(raw.engine, "drain")()  # noqa: B009
    allowed = {DATA: 1, HEADERS: 5, RST_STREAM: 0, SETTINGS: 1, PING: 1, GOAWAY: 0, WINDOW_UPDATE: 0, CONTINUATION: 4}
    seen_kinds = set()
    for kind, flags, sid, _ in raw.read():
        seen_kinds.add(kind)
        assert flags & ~allowed[kind] == 0
        assert sid < 2**31
    assert seen_kinds >= {DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY}


def test_server_4_2_no_frame_is_larger_than_the_peer_takes_and_blocks_are_contiguous(which: str) -> None:
    raw, host = serve(which, (4, 1_000_000))
    raw.send(frame(WINDOW_UPDATE, 0, 0, u32(1_000_000)))
    raw.headers(1)
    large = tuple((b"x-%d" % i, b"^`{|}"[i : i + 1] * 9000) for i in range(5))  # Huffman codes are no shorter
    host.requests[0].stream.send_head(response(200, large), [], False)
    host.requests[0].stream.send_data(bytes(50_000), True)
    got = raw.read()
    assert all(len(payload) <= 16_384 for *_, payload in got)
    kinds = [kind for kind, *_ in got]
    assert kinds[:3] == [HEADERS, CONTINUATION, CONTINUATION]
    ends = [flags & END_HEADERS for kind, flags, *_ in got if kind in (HEADERS, CONTINUATION)]
    assert ends == [0] * (len(ends) - 1) + [END_HEADERS]


def test_server_4_3_a_block_of_a_refused_stream_is_decoded_all_the_same(which: str) -> None:
    limits = Limits()
    limits.streams = 1
    raw, host = serve(which, limits=limits)
    raw.headers(1)
    raw.send(frame(HEADERS, WHOLE, 3, block(GET) + b"\x40\x01x\x01y"))  # into the table
    assert raw.resets() == {3: REFUSED_STREAM}
    host.requests[0].stream.send_head(response(), [], True)
    raw.send(frame(HEADERS, WHOLE, 5, block(GET) + b"\xbe"))  # out of it
    assert host.requests[-1].head.field(b"x") == b"y"


def test_server_4_3_a_block_on_a_stream_we_reset_is_decoded_all_the_same(which: str) -> None:
    raw, host = serve(which)
    reset_by_us(raw)
    raw.send(frame(HEADERS, WHOLE, 1, b"\x40\x01x\x01y"))
    raw.send(frame(HEADERS, WHOLE, 3, block(GET) + b"\xbe"))
    assert host.requests[-1].head.field(b"x") == b"y"


def test_server_5_1_2_above_the_limit_only_the_stream_above_it_is_refused(which: str) -> None:
    raw, host = serve(which)
    for sid in range(1, 203, 2):
        raw.headers(sid)
    assert raw.resets() == {201: REFUSED_STREAM}
    assert not any(seen.log.reset for seen in host.requests)


def test_server_5_4_1_goaway_names_the_last_stream_we_took(which: str) -> None:
    raw, _ = serve(which)
    for sid in (1, 3, 7):
        raw.headers(sid)
    raw.read()
    raw.send(frame(DATA, 0, 0, b"x"))
    (goaway,) = [payload for kind, _, _, payload in raw.read() if kind == GOAWAY]
    assert goaway[:8] == u32(7) + u32(PROTOCOL_ERROR)
    raw.headers(9)
    assert raw.read() == [], "nothing is read or said after it"


def test_server_5_4_2_frames_that_cross_our_reset_are_counted_in_the_connections_window(which: str) -> None:
    raw, _ = serve(which)
    reset_by_us(raw)
    granted = 0
    for _ in range(4):
        raw.data(1, bytes(16_000))
        granted += sum(int.from_bytes(p, "big") for kind, _, sid, p in raw.read() if kind == WINDOW_UPDATE and sid == 0)
    assert windows(raw)[1] == Limits().connection_window - 4 * 16_000 + granted


def test_server_6_1_padding_counts_in_both_windows(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.pause()
    for _ in range(Limits().stream_window // 256):
        raw.send(frame(DATA, PADDED, 1, b"\xff" + bytes(255)))
    assert raw.resets() == {}
    raw.send(frame(DATA, PADDED, 1, b"\xff" + bytes(255)))
    # A frame counts with its padding, and the window is spent.
    assert outcome(raw) == expected(which, "server", "6.1 padding spends the window", ("reset", FLOW_CONTROL_ERROR))


def test_server_6_5_3_settings_are_acknowledged_once_each_in_their_order(which: str) -> None:
    raw, _ = serve(which)
    raw.send(settings((4, 10)) + frame(PING, 0, 0, b"first   ") + settings((4, 20)) + frame(PING, 0, 0, b"second  "))
    got = [(kind, flags, payload) for kind, flags, _, payload in raw.read()]
    assert got == [(SETTINGS, ACK, b""), (PING, ACK, b"first   "), (SETTINGS, ACK, b""), (PING, ACK, b"second  ")]


def test_server_6_5_3_an_ack_is_not_acknowledged(which: str) -> None:
    raw, _ = serve(which)
    raw.send(frame(SETTINGS, ACK, 0))
    assert raw.read() == []


def test_server_6_5_3_values_hold_before_the_next_frame(which: str) -> None:
    raw, host = serve(which, (4, 5))
    raw.headers(1)
    host.requests[0].stream.send_head(response(), [], False)
    host.requests[0].stream.send_data(bytes(100), True)
    assert data_frames(raw) == [(1, 5)]
    raw.send(settings((4, 9), (4, 25)))
    assert data_frames(raw) == [(1, 20)], "the last of two values"


def test_server_6_7_a_ping_comes_back_with_its_bytes_and_an_ack_does_not(which: str) -> None:
    raw, _ = serve(which)
    raw.send(frame(PING, 0, 0, b"\x01\x02\x03\x04\xfc\xfd\xfe\xff"), frame(PING, ACK, 0, b"\x01\x02\x03\x04\xfc\xfd\xfe\xff"))
    assert raw.read() == [(PING, ACK, 0, b"\x01\x02\x03\x04\xfc\xfd\xfe\xff")]


def test_server_6_8_leaving_takes_two_steps_and_loses_nothing(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1)
    raw.engine.drain()
    assert [payload for kind, _, _, payload in raw.read() if kind == GOAWAY] == [u32(WINDOW_MAX) + u32(NO_ERROR)]
    raw.headers(3)  # was on its way
    assert len(host.requests) == 2
    raw.engine.drain_finish()
    assert [payload for kind, _, _, payload in raw.read() if kind == GOAWAY] == [u32(3) + u32(NO_ERROR)]
    raw.send(frame(HEADERS, WHOLE, 5, block(GET) + b"\x40\x01x\x01y"))
    assert raw.resets() == {5: REFUSED_STREAM}
    for seen in host.requests:
        assert not raw.engine.closing
        seen.stream.send_head(response(), [], True)
    assert raw.engine.closing


def test_server_6_8_the_last_id_never_goes_up(which: str) -> None:
    raw, _ = serve(which)
    raw.headers(1)
    raw.engine.drain()
    raw.engine.drain_finish()
    raw.headers(3)
    raw.send(frame(DATA, 0, 0, b"x"))  # an error: a third GOAWAY
    lasts = [int.from_bytes(payload[:4], "big") for kind, _, _, payload in raw.read() if kind == GOAWAY]
    assert lasts == sorted(lasts, reverse=True)
    assert lasts[-1] == 1


def test_server_6_9_2_a_smaller_initial_window_makes_windows_negative_and_leaves_the_connections_alone(which: str) -> None:
    raw, host = serve(which, (4, 1000))
    for sid in (1, 3):
        raw.headers(sid)
        host.requests[-1].stream.send_head(response(), [], False)
    host.requests[0].stream.send_data(bytes(2000), False)
    assert data_frames(raw) == [(1, 1000)]
    raw.send(settings((4, 300)))
    host.requests[1].stream.send_data(bytes(2000), False)
    assert data_frames(raw) == [(3, 300)]
    raw.send(frame(WINDOW_UPDATE, 0, 1, u32(700)))
    assert data_frames(raw) == [], "700 bring it to 0"
    raw.send(frame(WINDOW_UPDATE, 0, 1, u32(1)))
    assert data_frames(raw) == [(1, 1)]
    assert windows(raw)[0] == 65_535 - 1301


def test_server_6_9_1_zero_bytes_and_the_end_need_no_window(which: str) -> None:
    raw, host = serve(which, (4, 0))
    raw.headers(1)
    host.requests[0].stream.send_head(response(), [], False)
    host.requests[0].stream.send_data(b"", True)
    assert data_frames(raw) == [(1, 0)]


def test_server_6_9_2_a_window_of_zero_from_the_start_holds_all_data_back(which: str) -> None:
    raw, host = serve(which, (4, 0))
    raw.headers(1)
    host.requests[0].stream.send_head(response(), [], False)
    host.requests[0].stream.send_data(b"abc", True)
    assert data_frames(raw) == []
    raw.send(frame(WINDOW_UPDATE, 0, 1, u32(2)))
    assert data_frames(raw) == [(1, 2)]


# -- 8: what we send


def test_server_8_1_an_answer_before_the_requests_end_is_followed_by_no_error(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.send_head(response(413), [], True)
    got = [(kind, flags, payload) for kind, flags, _, payload in raw.read()]
    assert [kind for kind, *_ in got] == [HEADERS, RST_STREAM]
    assert got[0][1] & END_STREAM
    assert got[1][2] == u32(NO_ERROR)


def test_server_8_1_trailers_follow_the_body_and_end_the_stream(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1)
    stream = host.requests[0].stream
    stream.send_interim(response(103))
    stream.send_head(response(), [], False)
    stream.send_data(b"x", False)
    stream.send_trailers([Field(b"x-sum", b"1")])
    stream.send_data(b"late", True)
    assert [(kind, flags & END_STREAM) for kind, flags, *_ in raw.read()] == [
        (HEADERS, 0),
        (HEADERS, 0),
        (DATA, 0),
        (HEADERS, 1),
    ]


def test_server_8_3_2_an_answer_has_one_status_first_and_names_in_lower_case(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1)
    head = response(200, ((b"x-a", b"1"),))
    head.fields.append(Field(b"x-b", b"2", b"X-B"))  # the case of HTTP/1.1 does not get here (8.2)
    host.requests[0].stream.send_head(head, [Field(b"x-request-id", b"7")], True)
    ((_, _, _, payload),) = raw.read()
    fields = raw.decoder.decode(payload, raw=True)
    assert [name for name, _ in fields] == [b":status", b"x-a", b"x-b", b"x-request-id"]


def test_server_8441_5_an_upgrade_is_accepted_with_200_and_not_with_101(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, [CONNECT, WEBSOCKET, *GET[1:]], end=False)
    assert (host.requests[0].head.method, host.requests[0].head.protocol) == (b"CONNECT", b"websocket")
    host.requests[0].stream.send_head(response(101), [], False)
    assert outcome(raw) == ("status", 200)
    raw.data(1, b"ping", end=True)
    assert host.requests[0].log.body == b"ping"
    host.requests[0].stream.send_data(b"pong", True)
    assert data_frames(raw) == [(1, 4)]
    assert raw.engine.active() == 0


def test_server_8441_3_extended_connect_is_offered(which: str) -> None:
    engine = SERVERS[which](Recorder(), Limits())
    engine.start()
    payload = frames(take(engine))[0][3]
    values = {payload[at : at + 2]: payload[at + 2 : at + 6] for at in range(0, len(payload), 6)}
    assert values[b"\0\x08"] == u32(1)
    assert (b"\0\x02" not in values) == expected(which, "server", "6.5.2 a server says nothing of push", True)
    assert values.get(b"\0\x02", u32(0)) == u32(0)
