"""RFC 9113 sections 3 to 8 and RFC 8441: every MUST and MUST NOT that a server can observe of our client.

One row a rule: its section, what the server sends, what must come back.  The server role is in test_http2_musts.py; a whole
proxy before hostile servers is in test_http2_upstreams.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http2_differences import CLIENTS, UNSAID, expected, seen, strangers
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
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Log,
    Raw,
    Recorder,
    block,
    frame,
    frames,
    pairs,
    request,
    settings,
    take,
)
from http2_rows import (
    FINE,
    STATUS_200,
    WHOLE,
    Asked,
    Outcome,
    ask,
    ask_answered,
    ask_nothing,
    ask_open,
    ask_reset_by_peer,
    ask_reset_by_us,
    connect,
    data_frames,
    outcome,
    u32,
)

from meshproxy.wire.engine import (
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    HTTP_1_1_REQUIRED,
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

Row = tuple[Callable[[Raw], Asked | None], bytes, Outcome]


def headers(fields: list[tuple[bytes, bytes]], flags: int = WHOLE, stream_id: int = 1) -> bytes:
    return frame(HEADERS, flags, stream_id, block(fields))


OK = headers([(b":status", b"200")], END_HEADERS)

FRAMES: dict[str, Row] = {
    "4.1 a frame of unknown type is ignored": (ask, frame(0xBE, 0xFF, 1, b"anything"), FINE),
    "4.1 flags that mean nothing are ignored": (ask, frame(RST_STREAM, 0xFF, 1, u32(8)), FINE),
    "4.1 the reserved bit is ignored": (ask, frame(HEADERS, WHOLE, 0x80000001, STATUS_200), FINE),
    "4.2 16,384 bytes are taken": (ask, OK + frame(DATA, 0, 1, bytes(16_384)), FINE),
    "4.2 DATA over MAX_FRAME_SIZE": (ask, OK + frame(DATA, 0, 1, bytes(16_385)), FRAME_SIZE),
    "4.2 an unknown frame over MAX_FRAME_SIZE": (ask, frame(0xBE, 0, 0, bytes(16_385)), FRAME_SIZE),
    "4.3 a block that cannot be decoded": (ask, frame(HEADERS, WHOLE, 1, b"\xff" * 8), ("goaway", COMPRESSION_ERROR)),
    "4.3 ... on a stream we reset": (
        ask_reset_by_us,
        frame(HEADERS, WHOLE, 1, b"\x80"),
        ("goaway", COMPRESSION_ERROR),
    ),
    "4.3 a block is not interrupted": (ask, frame(HEADERS, 1, 1, STATUS_200) + frame(PING, 0, 0, bytes(8)), CONNECTION),
    "5.1.1 a server opens no odd stream": (ask, headers([(b":status", b"200")], WHOLE, 5), CONNECTION),
    "5.1.1 nor an even one, push is off": (ask, headers([(b":status", b"200")], WHOLE, 2), CONNECTION),
    "5.5 an unknown setting is ignored": (ask, settings((0x99, 1)), FINE),
    "6.1 DATA on stream 0": (ask, frame(DATA, 0, 0, b"x"), CONNECTION),
    "6.1 padding is dropped": (ask, OK + frame(DATA, PADDED | END_STREAM, 1, b"\x03abc\0\0\0"), FINE),
    "6.1 more padding than payload": (ask, OK + frame(DATA, PADDED, 1, b"\x04abc"), CONNECTION),
    "6.2 HEADERS on stream 0": (ask, headers([(b":status", b"200")], WHOLE, 0), CONNECTION),
    "6.2 more padding than payload": (ask, frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + STATUS_200), CONNECTION),
    "6.3 PRIORITY on stream 0": (ask, frame(PRIORITY, 0, 0, bytes(5)), CONNECTION),
    "6.3 PRIORITY of 4 bytes": (ask, frame(PRIORITY, 0, 1, bytes(4)), ("reset", FRAME_SIZE_ERROR)),
    "6.4 RST_STREAM on stream 0": (ask, frame(RST_STREAM, 0, 0, u32(8)), CONNECTION),
    "6.4 RST_STREAM of 5 bytes": (ask, frame(RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE),
    "6.4 RST_STREAM is never answered with one": (ask, frame(RST_STREAM, 0, 1, u32(CANCEL)), FINE),
    "6.5 SETTINGS on a stream": (ask, frame(SETTINGS, 0, 1), CONNECTION),
    "6.5 SETTINGS of 7 bytes": (ask, frame(SETTINGS, 0, 0, bytes(7)), FRAME_SIZE),
    "6.5 an ack with a payload": (ask, frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE),
    "6.5.2 a server may not switch push on": (ask, settings((2, 1)), CONNECTION),
    "6.5.2 but it may say that it is off": (ask, settings((2, 0)), FINE),
    "6.5.2 INITIAL_WINDOW_SIZE 2^31": (ask, settings((4, 2**31)), ("goaway", FLOW_CONTROL_ERROR)),
    "6.5.2 MAX_FRAME_SIZE 16,383": (ask, settings((5, 16_383)), CONNECTION),
    "6.5.2 MAX_FRAME_SIZE 2^24": (ask, settings((5, 2**24)), CONNECTION),
    "8441 3 ENABLE_CONNECT_PROTOCOL 2": (ask, settings((8, 2)), CONNECTION),
    "8441 3 ENABLE_CONNECT_PROTOCOL does not go back to 0": (ask, settings((8, 1)) + settings((8, 0)), CONNECTION),
    "6.6 PUSH_PROMISE although push is off": (ask, frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)), CONNECTION),
    "8.4 ... also on a stream we reset": (
        ask_reset_by_us,
        frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)),
        CONNECTION,
    ),
    "6.7 PING on a stream": (ask, frame(PING, 0, 1, bytes(8)), CONNECTION),
    "6.7 PING of 7 bytes": (ask, frame(PING, 0, 0, bytes(7)), FRAME_SIZE),
    "6.8 GOAWAY on a stream": (ask, frame(GOAWAY, 0, 1, bytes(8)), CONNECTION),
    "6.8 GOAWAY of 7 bytes": (ask, frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE),
    "6.9 WINDOW_UPDATE of 0 on a stream": (ask_open, frame(WINDOW_UPDATE, 0, 1, u32(0)), RESET),
    "6.9 WINDOW_UPDATE of 0 on the connection": (ask, frame(WINDOW_UPDATE, 0, 0, u32(0)), CONNECTION),
    "6.9 WINDOW_UPDATE of 3 bytes": (ask, frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE),
    "6.9.1 a stream's window above 2^31-1": (
        ask_open,
        frame(WINDOW_UPDATE, 0, 1, u32(WINDOW_MAX)),
        ("reset", FLOW_CONTROL_ERROR),
    ),
    "6.9.1 the connection's above 2^31-1": (ask, frame(WINDOW_UPDATE, 0, 0, u32(WINDOW_MAX)), ("goaway", FLOW_CONTROL_ERROR)),
    "6.9.2 a stream's above 2^31-1 by SETTINGS": (
        ask_open,
        frame(WINDOW_UPDATE, 0, 1, u32(1)) + settings((4, WINDOW_MAX)),
        ("goaway", FLOW_CONTROL_ERROR),
    ),
    "6.10 a block in two frames": (
        ask,
        frame(HEADERS, END_STREAM, 1, STATUS_200[:4]) + frame(CONTINUATION, END_HEADERS, 1, STATUS_200[4:]),
        FINE,
    ),
    "6.10 CONTINUATION alone": (ask, frame(CONTINUATION, END_HEADERS, 1, STATUS_200), CONNECTION),
    "6.10 CONTINUATION on another stream": (
        ask,
        frame(HEADERS, END_STREAM, 1, STATUS_200) + frame(CONTINUATION, END_HEADERS, 3, b""),
        CONNECTION,
    ),
    "7 an unknown code means nothing special": (ask, frame(RST_STREAM, 0, 1, u32(0xABCDEF)), FINE),
    "8.1 DATA before HEADERS": (ask, frame(DATA, END_STREAM, 1, b"x"), RESET),
    "8.1 DATA after an interim response alone": (
        ask,
        headers([(b":status", b"103")], END_HEADERS) + frame(DATA, END_STREAM, 1, b"x"),
        RESET,
    ),
    "8.1 an interim response does not end the stream": (ask, headers([(b":status", b"100")]), RESET),
    "8.1 interim responses, then one": (
        ask,
        headers([(b":status", b"100")], END_HEADERS)
        + headers([(b":status", b"103")], END_HEADERS)
        + headers([(b":status", b"200")]),
        FINE,
    ),
    "8.1 trailers": (ask, OK + headers([(b"x-sum", b"1")]), FINE),
    "8.1 trailers without END_STREAM": (ask, OK + headers([(b"x-sum", b"1")], END_HEADERS), RESET),
    "8.1 a second head": (ask, OK + OK, RESET),
    "8.3 a pseudo field in trailers": (ask, OK + headers([(b":status", b"200")]), RESET),
    "8.2.2 a connection field in trailers": (ask, OK + headers([(b"connection", b"x")]), RESET),
    "8.3.2 no :status": (ask, headers([(b"x", b"y")]), RESET),
    "8.3.2 :status twice": (ask, headers([(b":status", b"200"), (b":status", b"200")]), RESET),
    "8.3.2 :status after a field": (ask, headers([(b"x", b"y"), (b":status", b"200")]), RESET),
    "8.3.2 a request's pseudo field": (ask, headers([(b":status", b"200"), (b":path", b"/")]), RESET),
    "8.3.2 :status of two digits": (ask, headers([(b":status", b"20")]), RESET),
    "8.3.2 :status of four digits": (ask, headers([(b":status", b"2000")]), RESET),
    "8.3.2 :status with a sign": (ask, headers([(b":status", b"+20")]), RESET),
    "8.6 101 does not exist": (ask, headers([(b":status", b"101")], END_HEADERS), RESET),
    "8.2.1 a name in upper case": (ask, headers([(b":status", b"200"), (b"X", b"y")]), RESET),
    "8.2.1 LF in a value": (ask, headers([(b":status", b"200"), (b"x", b"a\nb")]), RESET),
    "8.2.1 CR in a value": (ask, headers([(b":status", b"200"), (b"x", b"a\rb")]), RESET),
    "8.2.1 NUL in a value": (ask, headers([(b":status", b"200"), (b"x", b"a\0b")]), RESET),
    "8.2.1 white space around a value": (ask, headers([(b":status", b"200"), (b"x", b" y")]), RESET),
    "8.2.2 connection": (ask, headers([(b":status", b"200"), (b"connection", b"close")]), RESET),
    "8.2.2 transfer-encoding": (ask, headers([(b":status", b"200"), (b"transfer-encoding", b"chunked")]), RESET),
    "8.2.2 upgrade": (ask, headers([(b":status", b"200"), (b"upgrade", b"h2c")]), RESET),
    "8.2.2 keep-alive": (ask, headers([(b":status", b"200"), (b"keep-alive", b"1")]), RESET),
    "8.1.1 more DATA than declared": (
        ask,
        headers([(b":status", b"200"), (b"content-length", b"1")], END_HEADERS) + frame(DATA, END_STREAM, 1, b"xx"),
        RESET,
    ),
    "8.1.1 less DATA than declared": (
        ask,
        headers([(b":status", b"200"), (b"content-length", b"2")], END_HEADERS) + frame(DATA, END_STREAM, 1, b"x"),
        RESET,
    ),
    "8.1.1 a length and no DATA": (ask, headers([(b":status", b"200"), (b"content-length", b"2")]), RESET),
    "8.1.1 a length and no DATA is right for 304": (ask, headers([(b":status", b"304"), (b"content-length", b"2")]), FINE),
    "8.1.1 a body with 204": (ask, headers([(b":status", b"204")], END_HEADERS) + frame(DATA, END_STREAM, 1, b"x"), RESET),
    "8.1.1 an empty DATA ends 204": (ask, headers([(b":status", b"204")], END_HEADERS) + frame(DATA, END_STREAM, 1), FINE),
    "8.1.1 two lengths that differ": (
        ask,
        headers([(b":status", b"200"), (b"content-length", b"0"), (b"content-length", b"1")]),
        RESET,
    ),
    "8.1.1 a length and no DATA is right for HEAD": (
        lambda raw: Asked(raw, b"HEAD"),
        headers([(b":status", b"200"), (b"content-length", b"2")]),
        FINE,
    ),
}


@pytest.mark.parametrize("rule", list(FRAMES))
def test_client(which: str, rule: str) -> None:
    before, data, ours = FRAMES[rule]
    wanted = expected(which, "client", rule, ours)
    for size in (len(data), 1):
        if size == 1 and len(data) > 1000:
            continue
        raw, host = connect(which)
        asked = before(raw)
        other = Asked(raw, b"POST", end=False)  # stream 3
        raw.read()
        for at in range(0, len(data), size):
            raw.send(data[at : at + size])
        assert outcome(raw) == seen(wanted)
        if wanted != FINE:
            assert host.violations, "it is named to the operator"
            assert asked is not None
            assert not asked.log.ended, "8.1.1: what is malformed is not forwarded as complete"
            assert asked.log.reset is not None or before in (ask_answered, ask_reset_by_us)
        if wanted in (FINE, UNSAID) or wanted[0] == "reset":
            raw.send(headers([(b":status", b"200"), (b"x-next", b"yes")], WHOLE, 3))
            assert other.log.head is not None
            assert pairs(other.log.head.fields) == [(b"x-next", b"yes")]


SAME = (CONNECTION, CONNECTION)
STATES: dict[str, tuple[Callable[[Raw], Asked | None], tuple[Outcome, ...]]] = {
    "idle": (ask_nothing, (CONNECTION, CONNECTION, FINE, CONNECTION, CONNECTION, *SAME)),
    "open": (ask_open, (RESET, FINE, FINE, FINE, FINE, *SAME)),
    "half-closed (local)": (ask, (RESET, FINE, FINE, FINE, FINE, *SAME)),
    "closed by both ends": (ask_answered, (GONE, GONE, FINE, FINE, FINE, *SAME)),
    "closed by the peer's RST_STREAM": (ask_reset_by_peer, (GONE, GONE, FINE, FINE, FINE, *SAME)),
    "closed by our RST_STREAM": (ask_reset_by_us, (FINE, FINE, FINE, FINE, FINE, *SAME)),
}
COLUMNS = {
    "DATA": frame(DATA, 0, 1, b"x"),
    "HEADERS": OK,
    "PRIORITY": frame(PRIORITY, 0, 1, bytes(5)),
    "RST_STREAM": frame(RST_STREAM, 0, 1, u32(CANCEL)),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, 1, u32(1)),
    "CONTINUATION": frame(CONTINUATION, END_HEADERS, 1, b""),
    "PUSH_PROMISE": frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(GET)),
}


@pytest.mark.parametrize("column", list(COLUMNS))
@pytest.mark.parametrize("state", list(STATES))
def test_client_5_1_stream_states(which: str, state: str, column: str) -> None:
    before, row = STATES[state]
    raw, _ = connect(which)
    before(raw)
    raw.send(COLUMNS[column])
    assert outcome(raw) == expected(which, "client", f"5.1 {state}: {column}", row[list(COLUMNS).index(column)])


def test_every_known_difference_of_a_client_is_one_of_a_row() -> None:
    states = [f"5.1 {state}: {column}" for state in STATES for column in COLUMNS]
    assert strangers("client", FRAMES, states, ["6.9.1 DATA beyond the window"]) == set()


@pytest.mark.parametrize("column", ["DATA", "HEADERS", "RST_STREAM", "WINDOW_UPDATE"])
def test_client_5_1_a_stream_that_only_a_push_could_open_is_idle(which: str, column: str) -> None:
    raw, _ = connect(which)
    ask(raw)
    raw.send(COLUMNS[column].replace(b"\0\0\0\x01", b"\0\0\0\x02", 1))
    assert outcome(raw, 2) == CONNECTION


# -- 3.4, 5, 6: what we send, and when


def test_client_3_4_the_preface_and_settings_come_first(which: str) -> None:
    engine = CLIENTS[which](Recorder(), Limits())
    engine.start()
    data = take(engine)
    assert data.startswith(PREFACE)
    kind, flags, stream_id, payload = frames(data)[0]
    assert (kind, flags, stream_id) == (SETTINGS, 0, 0)
    values = {payload[at : at + 2]: payload[at + 2 : at + 6] for at in range(0, len(payload), 6)}
    assert values[b"\0\x02"] == u32(0), "push is off (6.5.2)"


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frame(PING, 0, 0, bytes(8)),
        frame(SETTINGS, ACK, 0),
        frame(HEADERS, WHOLE, 1, STATUS_200),
    ],
    ids=["HTTP/1.1", "PING", "an ack", "HEADERS"],
)
def test_client_3_4_settings_are_the_first_frame_of_a_server(which: str, data: bytes) -> None:
    host = Recorder()
    engine = CLIENTS[which](host, Limits())
    engine.start()
    take(engine)
    engine.receive(data, 0.0)
    kind, _, _, payload = frames(take(engine))[-1]
    assert kind == GOAWAY
    assert int.from_bytes(payload[4:8], "big") in (PROTOCOL_ERROR, FRAME_SIZE_ERROR)
    assert engine.closing
    assert host.ready == 0


def test_client_5_1_1_streams_are_odd_and_go_up_in_the_order_they_are_used(which: str) -> None:
    raw, _ = connect(which)
    late = raw.engine.open()
    first, second = Asked(raw), Asked(raw)
    late.send_head(request(), [], True)
    assert [sid for kind, _, sid, _ in raw.read() if kind == HEADERS] == [1, 3, 5]
    raw.send(headers([(b":status", b"200")], WHOLE, 3))
    assert second.log.ended
    assert not first.log.ended


def test_client_5_1_1_when_the_ids_are_used_up_a_new_connection_is_asked_for(which: str) -> None:
    raw, host = connect(which)
    setattr(raw.engine, "next_id", 2**31 - 3)  # noqa: B010
    Asked(raw)
    assert raw.engine.capacity() > 0
    last = Asked(raw)
    assert [sid for kind, _, sid, _ in raw.read() if kind == HEADERS] == [2**31 - 3, 2**31 - 1]
    assert raw.engine.capacity() == 0
    assert host.goaways == [NO_ERROR]
    raw.send(headers([(b":status", b"200")], WHOLE, 2**31 - 1))
    assert last.log.ended


@pytest.mark.parametrize("most", [0, 1, 7])
def test_client_5_1_2_no_more_streams_than_the_server_allows(which: str, most: int) -> None:
    raw, _ = connect(which, (3, most))
    for _ in range(most):
        assert raw.engine.capacity() > 0
        Asked(raw)
    assert raw.engine.capacity() == 0


def test_client_5_1_2_a_limit_that_falls_ends_no_stream_and_opens_none_until_there_is_room(which: str) -> None:
    raw, host = connect(which, (3, 5))
    asked = [Asked(raw) for _ in range(4)]
    raw.send(settings((3, 2)))
    assert raw.engine.capacity() == 0
    for i in range(4):
        host.capacities = 0
        raw.send(headers([(b":status", b"200")], WHOLE, 2 * i + 1))
        assert asked[i].log.ended
        assert raw.engine.capacity() == max(0, i - 1)
        assert host.capacities == 1
    raw.send(settings((3, 100)))
    assert raw.engine.capacity() == 100


def test_client_5_2_and_6_9_what_is_sent_keeps_to_both_windows(which: str) -> None:
    raw, _ = connect(which, (4, 1000))
    asked = Asked(raw, b"POST", end=False)
    asked.stream.send_data(bytes(3000), True)
    assert data_frames(raw) == [(1, 1000)]
    raw.send(settings((4, 400)), frame(WINDOW_UPDATE, 0, 1, u32(600)))
    assert data_frames(raw) == [], "the window was -600"
    raw.send(frame(WINDOW_UPDATE, 0, 1, u32(100_000)))
    assert data_frames(raw) == [(1, 2000)]
    raw.send(settings((4, 1_000_000)))
    asked = Asked(raw, b"POST", end=False)
    asked.stream.send_data(bytes(100_000), True)
    assert sum(size for _, size in data_frames(raw)) == 65_535 - 3000, "the connection's window"


def test_client_5_4_1_an_error_of_the_connection_ends_every_request_once(which: str) -> None:
    raw, _ = connect(which)
    asked = [Asked(raw) for _ in range(3)]
    raw.read()
    raw.send(frame(DATA, 0, 0, b"x"))
    assert outcome(raw) == CONNECTION
    assert [one.log.reset for one in asked] == [(PROTOCOL_ERROR, False)] * 3
    raw.send(headers([(b":status", b"200")]))
    assert raw.engine.active() == 0


def test_client_6_4_a_reset_carries_its_code_and_says_whether_the_request_was_worked_on(which: str) -> None:
    for code, unprocessed in ((CANCEL, False), (REFUSED_STREAM, True), (NO_ERROR, False), (0xABCDEF, False)):
        raw, _ = connect(which)
        asked = ask(raw)
        raw.send(frame(RST_STREAM, 0, 1, u32(code)))
        assert asked.log.reset == (code, unprocessed)


def test_client_6_5_3_settings_are_acknowledged_and_hold_from_then_on(which: str) -> None:
    raw, _ = connect(which)
    raw.send(settings((5, 20_000), (4, 100_000)))
    assert (SETTINGS, ACK, 0, b"") in raw.read()
    raw.send(frame(WINDOW_UPDATE, 0, 0, u32(100_000)))
    asked = Asked(raw, b"POST", end=False)
    asked.stream.send_data(bytes(50_000), True)
    assert data_frames(raw) == [(1, 20_000), (1, 20_000), (1, 10_000)]


def test_client_6_7_a_ping_comes_back_with_its_bytes_and_an_ack_does_not(which: str) -> None:
    raw, _ = connect(which)
    raw.send(frame(PING, 0, 0, b"\xff\x01\x02\x03\x04\x05\x06\x07"), frame(PING, ACK, 0, b"\xff\x01\x02\x03\x04\x05\x06\x07"))
    assert raw.read() == [(PING, ACK, 0, b"\xff\x01\x02\x03\x04\x05\x06\x07")]


def test_client_6_8_after_goaway_streams_below_go_on_those_above_are_unprocessed_and_none_is_opened(which: str) -> None:
    raw, host = connect(which)
    asked = [Asked(raw) for _ in range(3)]
    reserved = raw.engine.open()
    reserved.sink = log = Log()
    raw.read()
    raw.send(frame(GOAWAY, 0, 0, u32(WINDOW_MAX) + u32(NO_ERROR)))
    assert host.goaways == [NO_ERROR]
    assert raw.engine.capacity() == 0
    assert all(one.log.reset is None for one in asked)
    reserved.send_head(request(), [], True)
    assert log.reset is not None
    assert log.reset[1], "it was never sent"
    assert not any(kind == HEADERS for kind, *_ in raw.read())
    raw.send(frame(GOAWAY, 0, 0, u32(3) + u32(ENHANCE_YOUR_CALM)))
    assert [one.log.reset for one in asked] == [None, None, (ENHANCE_YOUR_CALM, True)]
    raw.send(headers([(b":status", b"200")], WHOLE, 1), headers([(b":status", b"200")], WHOLE, 3))
    assert asked[0].log.ended
    assert asked[1].log.ended


def test_client_6_8_frames_for_streams_above_a_goaway_are_no_reason_to_fail_the_others(which: str) -> None:
    raw, _ = connect(which)
    asked = [Asked(raw) for _ in range(2)]
    raw.send(frame(GOAWAY, 0, 0, u32(1) + u32(NO_ERROR)))
    raw.send(frame(RST_STREAM, 0, 3, u32(REFUSED_STREAM)), frame(WINDOW_UPDATE, 0, 3, u32(1)))
    raw.send(headers([(b":status", b"200")], WHOLE, 1))
    assert asked[0].log.ended
    assert asked[1].log.reset == (NO_ERROR, True)
    assert not any(kind == GOAWAY and payload[4:8] != u32(NO_ERROR) for kind, _, _, payload in raw.read())


def test_client_6_9_1_data_beyond_the_window_we_gave_is_an_error_of_the_stream(which: str) -> None:
    raw, _ = connect(which)
    asked = ask(raw)
    raw.send(OK)
    asked.stream.pause()
    for _ in range(5):
        raw.data(1, bytes(Limits().stream_window // 5))
    assert outcome(raw) == FINE
    raw.data(1, bytes(1))
    assert outcome(raw) == expected(which, "client", "6.9.1 DATA beyond the window", ("reset", FLOW_CONTROL_ERROR))
    assert asked.log.reset == (FLOW_CONTROL_ERROR, False)


# -- 8: messages


def test_client_8_1_a_complete_answer_counts_although_the_server_wants_no_more_of_the_request(which: str) -> None:
    raw, _ = connect(which)
    asked = ask_open(raw)
    raw.send(headers([(b":status", b"413")]), frame(RST_STREAM, 0, 1, u32(NO_ERROR)))
    assert asked.log.ended
    assert asked.log.reset is None
    assert not raw.engine.closing


def test_client_8_3_1_pseudo_fields_come_first_and_once_and_names_in_lower_case(which: str) -> None:
    raw, _ = connect(which)
    head = request(fields=((b"x-a", b"1"), (b"te", b"trailers")))
    head.fields.append(Field(b"x-b", b"2", b"X-B"))
    raw.engine.open().send_head(head, [], True)
    ((_, _, _, payload),) = raw.read()
    fields = raw.decoder.decode(payload, raw=True)
    assert sorted(fields[:4]) == sorted(GET)  # pseudo fields have no order among themselves
    assert fields[4:] == [(b"x-a", b"1"), (b"x-b", b"2"), (b"te", b"trailers")]


def test_client_8_5_connect_has_an_authority_and_nothing_else(which: str) -> None:
    raw, _ = connect(which)
    raw.engine.open().send_head(request(b"CONNECT", b"", b"svc.test:80"), [], False)
    ((_, flags, _, payload),) = raw.read()
    assert raw.decoder.decode(payload, raw=True) == [(b":method", b"CONNECT"), (b":authority", b"svc.test:80")]
    assert not flags & END_STREAM


def test_client_8_5_in_a_tunnel_there_is_data_alone(which: str) -> None:
    raw, _ = connect(which)
    asked = Asked(raw, b"CONNECT", end=False)
    raw.read()
    raw.send(OK, frame(DATA, 0, 1, b"x"), frame(WINDOW_UPDATE, 0, 1, u32(1)))
    assert outcome(raw) == FINE
    raw.send(headers([(b"x", b"y")]))
    assert outcome(raw) == RESET
    assert asked.log.reset == (PROTOCOL_ERROR, False)


def test_client_8_5_the_two_directions_of_a_tunnel_end_on_their_own(which: str) -> None:
    raw, _ = connect(which)
    asked = Asked(raw, b"CONNECT", end=False)
    raw.send(OK, frame(DATA, END_STREAM, 1, b"bye"))
    assert asked.log.ended
    asked.stream.send_data(b"still here", False)
    asked.stream.send_data(b"", True)
    assert [(kind, flags) for kind, flags, *_ in raw.read()][-2:] == [(DATA, 0), (DATA, END_STREAM)]
    assert raw.engine.active() == 0


def test_client_8441_3_extended_connect_waits_for_the_servers_word(which: str) -> None:
    raw, _ = connect(which)
    asked = Asked(raw, b"CONNECT", end=False, protocol=b"websocket")
    assert asked.log.reset == (HTTP_1_1_REQUIRED, True)
    assert raw.read() == []
    Asked(raw, b"GET", end=False, protocol=b"websocket")  # of HTTP/1.1, which may do without
    ((_, flags, _, payload),) = raw.read()
    assert flags & END_STREAM
    assert sorted(raw.decoder.decode(payload, raw=True)) == sorted(GET)
    raw, _ = connect(which, (8, 1))
    Asked(raw, b"GET", end=False, protocol=b"websocket")
    ((_, _, _, payload),) = raw.read()
    fields = raw.decoder.decode(payload, raw=True)
    assert sorted(fields) == sorted([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]])
