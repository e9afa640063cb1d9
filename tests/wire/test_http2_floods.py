"""What a hostile peer may cost us (CVE-2023-44487, CVE-2025-8671, CVE-2024-27316, CVE-2019-9511 to -9518 ...), and for each
limit a control: the traffic that looks like the attack and must pass.  Time is an argument here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from http2_differences import CLIENTS, SERVERS, expected, strangers
from http2_harness import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GET,
    HEADERS,
    PING,
    POST,
    PRIORITY,
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

from meshproxy.wire.engine import CANCEL, ENHANCE_YOUR_CALM, NULL_SINK, REFUSED_STREAM, STREAM_CLOSED
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.http2.floods import LATE_FRAMES
from meshproxy.wire.limits import Limits


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


@pytest.fixture(params=list(SERVERS))
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serve(which: str, limits: Limits | None = None, *values: tuple[int, int]) -> tuple[Raw, Recorder]:
    host = Recorder()
    raw = Raw(SERVERS[which](host, limits or Limits()), *values)
    raw.settle()
    return raw, host


def killed(raw: Raw, host: Recorder, label: str) -> bool:
    """Whether the connection ended in the documented way; anything else than alive or that is a failure."""
    if not raw.engine.closing:
        assert raw.goaway() is None
        return False
    assert raw.goaway() == ENHANCE_YOUR_CALM
    assert host.violations[-1] == label
    assert raw.engine.active() == 0
    return True


def repeat(raw: Raw, times: int, step: Callable[[int], None]) -> int:
    """How many steps were taken before the connection ended."""
    for i in range(times):
        step(i)
        if raw.engine.closing:
            return i
    return times


def test_rapid_reset_is_killed_before_a_thousand_requests_were_dispatched(which: str) -> None:
    raw, host = serve(which)

    def step(i: int) -> None:
        raw.now = i * 1e-5
        raw.send(frame(HEADERS, 5, 2 * i + 1, block(GET)) + frame(RST_STREAM, 0, 2 * i + 1, u32(CANCEL)))

    repeat(raw, 20_000, step)
    assert killed(raw, host, "h2_rapid_reset")
    assert len(host.requests) == Limits().resets_burst + 1
    assert all(seen.log.reset == (CANCEL, False) for seen in host.requests)


def test_control_resets_at_the_rate_that_is_forgiven_go_on_for_ever(which: str) -> None:
    raw, host = serve(which)

    def step(i: int) -> None:
        raw.now = i / Limits().resets_per_second
        raw.send(frame(HEADERS, 5, 2 * i + 1, block(GET)) + frame(RST_STREAM, 0, 2 * i + 1, u32(CANCEL)))

    repeat(raw, 3000, step)
    assert not killed(raw, host, "h2_rapid_reset")


def test_control_resets_after_the_response_cost_nothing(which: str) -> None:
    raw, host = serve(which)

    def step(i: int) -> None:
        raw.headers(2 * i + 1, POST, end=False)
        host.requests[-1].stream.send_head(response(), [], True)
        raw.send(frame(RST_STREAM, 0, 2 * i + 1, u32(CANCEL)))

    repeat(raw, 1000, step)
    assert not killed(raw, host, "h2_rapid_reset")


PROVOKED: dict[str, Callable[[int], bytes]] = {
    "window update of 0": lambda sid: frame(WINDOW_UPDATE, 0, sid, u32(0)),
    "short priority": lambda sid: frame(PRIORITY, 0, sid, bytes(4)),
    "window overflow": lambda sid: frame(WINDOW_UPDATE, 0, sid, u32(2**31 - 1)),
    "data after end": lambda sid: frame(DATA, 0, sid, b"x"),
    "headers after end": lambda sid: frame(HEADERS, 5, sid, block(GET)),
    "own parent": lambda sid: frame(PRIORITY, 0, sid, u32(sid) + b"\0"),
}


@pytest.mark.parametrize("name", list(PROVOKED))
def test_resets_that_the_peer_provokes_count_as_its_own(which: str, name: str) -> None:
    raw, host = serve(which)
    repeat(raw, 2000, lambda i: raw.send(frame(HEADERS, 5, 2 * i + 1, block(GET)) + PROVOKED[name](2 * i + 1)))
    wanted = expected(which, "floods", name, ENHANCE_YOUR_CALM)
    if wanted == ENHANCE_YOUR_CALM:
        assert killed(raw, host, "h2_rapid_reset")
    else:
        assert raw.goaway() == wanted
        assert len(host.requests) == 1
    assert len(host.requests) <= Limits().resets_burst + 1
    assert all(seen.log.reset is not None for seen in host.requests)


def test_malformed_requests_count_too(which: str) -> None:
    raw, host = serve(which)
    taken = repeat(raw, 2000, lambda i: raw.headers(2 * i + 1, [*GET, (b"te", b"gzip")]))
    wanted = expected(which, "floods", "malformed requests", (Limits().resets_burst, ENHANCE_YOUR_CALM))
    assert (taken, raw.goaway()) == wanted
    assert host.requests == []


def test_control_resets_of_our_own_will_are_not_held_against_the_peer(which: str) -> None:
    raw, host = serve(which)

    def step(i: int) -> None:
        raw.headers(2 * i + 1)
        host.requests[-1].stream.reset(REFUSED_STREAM)

    repeat(raw, 1000, step)
    assert not killed(raw, host, "h2_rapid_reset")


def test_a_continuation_flood_is_killed_with_bounded_memory(which: str) -> None:
    raw, host = serve(which)
    raw.send(frame(HEADERS, 1, 1, block(GET)))
    steps = repeat(raw, 1000, lambda i: raw.send(frame(CONTINUATION, 0, 1, literal(b"x", b"v" * 16000))))
    assert steps == Limits().continuation_frames
    assert killed(raw, host, "h2_continuation_flood")


def test_empty_continuation_frames_are_counted_as_well(which: str) -> None:
    raw, host = serve(which)
    raw.send(frame(HEADERS, 1, 1, block(GET)))
    repeat(raw, 1000, lambda i: raw.send(frame(CONTINUATION, 0, 1, b"")))
    assert killed(raw, host, "h2_continuation_flood")


def test_control_a_block_in_as_many_frames_as_the_limit_allows_is_served(which: str) -> None:
    raw, host = serve(which)
    data = block(GET)
    raw.send(frame(HEADERS, 1, 1, data[:5]))
    for i in range(Limits().continuation_frames - 1):
        raw.send(frame(CONTINUATION, 0, 1, data[5 + i : 6 + i]))
    raw.send(frame(CONTINUATION, END_HEADERS, 1, data[4 + Limits().continuation_frames :]))
    assert not killed(raw, host, "h2_continuation_flood")
    assert host.requests[0].head.path == b"/"


FLOODS: dict[str, Callable[[int], bytes]] = {
    "SETTINGS": lambda i: frame(SETTINGS, 0, 0),
    "SETTINGS that change the window": lambda i: settings((4, 1000 + i % 2)),
    "PING": lambda i: frame(PING, 0, 0, bytes(8)),
    "PING acks": lambda i: frame(PING, 1, 0, bytes(8)),
    "PRIORITY on idle streams": lambda i: frame(PRIORITY, 0, 2 * i + 3, bytes(5)),
    "empty DATA": lambda i: frame(DATA, 0, 1),
    "DATA of padding alone": lambda i: frame(DATA, 8, 1, b"\x03\0\0\0"),
    "WINDOW_UPDATE": lambda i: frame(WINDOW_UPDATE, 0, 0, u32(1)),
    "unknown frames": lambda i: frame(0xEE, 0, 0, b"x"),
    "RST_STREAM of a closed stream": lambda i: frame(RST_STREAM, 0, 3, u32(8)),
}


@pytest.mark.parametrize("name", list(FLOODS))
def test_frames_that_bring_nothing_are_limited(which: str, name: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    raw.headers(3, GET)
    host.requests[1].stream.reset(CANCEL)
    steps = repeat(raw, 10_000, lambda i: raw.send(FLOODS[name](i)))
    assert Limits().control_burst - 5 <= steps <= Limits().control_burst + LATE_FRAMES
    assert killed(raw, host, "h2_control_flood")


@pytest.mark.parametrize("name", list(FLOODS))
def test_control_the_same_frames_between_useful_ones_pass(which: str, name: str) -> None:
    limits = Limits()
    limits.connection_window = 100 * 1024 * 1024
    raw, host = serve(which, limits)
    raw.headers(1, POST, end=False)
    raw.headers(3, GET)
    host.requests[1].stream.reset(CANCEL)

    def step(i: int) -> None:
        for j in range(100):
            raw.send(FLOODS[name](100 * i + j))
        raw.data(1, b"progress")

    repeat(raw, 50, step)
    assert not killed(raw, host, "h2_control_flood")


def test_control_keepalive_on_a_quiet_connection_goes_on_for_ever(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)

    def step(i: int) -> None:
        raw.now = i * 10.0
        raw.send(frame(PING, 0, 0, bytes(8)))

    repeat(raw, 5000, step)
    assert not killed(raw, host, "h2_control_flood")


def test_control_an_upload_in_small_frames_that_crosses_an_early_answer_is_dropped_quietly(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.send_head(response(413), [], True)
    repeat(raw, 6000, lambda i: raw.data(1, b"0123456789"))
    assert not killed(raw, host, "h2_control_flood")


def test_data_on_a_reset_stream_beyond_its_window_ends_the_connection(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.reset(CANCEL)
    taken = repeat(raw, 100, lambda i: raw.data(1, bytes(10_000)))
    assert (taken, raw.goaway()) == expected(which, "floods", "DATA beyond the window of a reset stream", (6, STREAM_CLOSED))


def test_control_a_long_download_in_small_windows_is_progress(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, GET)
    stream = host.requests[0].stream
    stream.send_head(response(), [], False)
    stream.send_data(bytes(200_000), True)
    for _ in range(3000):
        raw.send(frame(WINDOW_UPDATE, 0, 0, u32(50)) + frame(WINDOW_UPDATE, 0, 1, u32(50)))
    assert not killed(raw, host, "h2_control_flood")


def test_streams_refused_without_end_are_limited(which: str) -> None:
    limits = Limits()
    limits.streams = 1
    raw, host = serve(which, limits)
    repeat(raw, 5000, lambda i: raw.headers(2 * i + 1))
    assert killed(raw, host, "h2_control_flood")
    assert len(host.requests) == 1


@pytest.mark.parametrize("frame_", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0)], ids=["ping", "settings"])
def test_acknowledgements_that_nobody_reads_are_bounded_even_beside_progress(which: str, frame_: bytes) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    raw.engine.socket_blocked()

    def step(i: int) -> None:
        raw.send(frame_)
        if i % 500 == 0:
            raw.data(1, b"progress")

    steps = repeat(raw, 50_000, step)
    assert steps * 9 <= Limits().control_out_bytes
    assert killed(raw, host, "h2_unread_acks")


def test_control_acknowledgements_that_are_read_are_not_counted(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)

    def step(i: int) -> None:
        raw.engine.socket_blocked()
        for _ in range(100):
            raw.send(frame(PING, 0, 0, bytes(8)))
        raw.data(1, b"progress")
        raw.engine.socket_unblocked()

    repeat(raw, 100, step)
    assert not killed(raw, host, "h2_unread_acks")


def test_tiny_data_to_a_reader_that_stands_still_is_limited(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.pause()
    one = frame(DATA, 0, 1, b"x")
    repeat(raw, 65, lambda i: raw.send(one * 1000))
    assert killed(raw, host, "h2_tiny_data")


def test_control_small_messages_to_a_reader_that_drains_go_on_for_ever(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.sink = NULL_SINK
    one = frame(DATA, 0, 1, b"x" * 25)
    repeat(raw, 200 if which == "ours" else 40, lambda i: raw.send(one * 1000))
    assert not killed(raw, host, "h2_tiny_data")


def test_control_a_reader_that_pauses_now_and_then_may_get_small_messages(which: str) -> None:
    raw, host = serve(which)
    raw.headers(1, POST, end=False)
    host.requests[0].stream.sink = NULL_SINK
    one = frame(DATA, 0, 1, b"x" * 25)

    def step(i: int) -> None:
        host.requests[0].stream.pause()
        raw.send(one * 1000)
        host.requests[0].stream.resume()

    repeat(raw, 200 if which == "ours" else 40, step)
    assert not killed(raw, host, "h2_tiny_data")


def test_a_bomb_of_table_references_is_refused_and_the_connection_lives(which: str) -> None:
    raw, host = serve(which)
    raw.send(frame(HEADERS, 5, 1, block(GET) + b"\x40" + literal(b"x", b"")[1:]))
    for sid in range(3, 103, 2):
        raw.send(frame(HEADERS, 5, sid, block(GET) + b"\xbe" * 1500))
    assert len(host.requests) == 1
    assert host.violations == ["h2_head_too_large"] * 50
    raw.headers(201)
    assert len(host.requests) == 2


def test_what_waits_for_a_stalled_stream_is_bounded_by_bytes_and_not_by_pieces(which: str) -> None:
    raw, host = serve(which, None, (4, 0))  # the peer grants no window
    raw.headers(1, GET)
    stream = host.requests[0].stream
    stream.send_head(response(), [], False)
    for _ in range(65_535):
        stream.send_data(b"x", False)
    assert len(getattr(stream, "queue")) <= 65_535 // 1024 + 1  # noqa: B009
    assert host.requests[0].log.names() == ["blocked"]


def test_a_window_dribbled_open_sends_no_more_than_it_allows(which: str) -> None:
    raw, host = serve(which, None, (4, 0))
    raw.headers(1, GET)
    stream = host.requests[0].stream
    stream.send_head(response(), [], False)
    stream.send_data(b"x" * 1000, True)
    raw.read()
    for _ in range(50):
        raw.send(frame(WINDOW_UPDATE, 0, 1, u32(1)))
        assert [len(payload) for kind, _, _, payload in raw.read() if kind == DATA] == [1]


def test_a_server_that_floods_a_client_is_cut_off_too(which: str) -> None:
    host = Recorder()
    raw = Raw(CLIENTS[which](host, Limits()))
    stream = raw.engine.open()
    stream.sink = log = Log()
    stream.send_head(request(), [], True)
    take(raw.engine)
    repeat(raw, 5000, lambda i: raw.send(frame(PING, 0, 0, bytes(8))))
    assert killed(raw, host, "h2_control_flood")
    assert log.reset == (ENHANCE_YOUR_CALM, False)


def test_resets_are_remembered_in_bounded_space() -> None:
    raw, host = serve("ours")  # h2 keeps 65,536
    for i in range(3000):
        raw.headers(2 * i + 1)
        host.requests[-1].stream.reset(CANCEL)
    assert len(getattr(raw.engine, "reset_ids")) <= 2048  # noqa: B009
    assert raw.engine.active() == 0


# -- a peer of the mesh: judged by the work it keeps running, not by how often it changes its mind


def peer(which: str, limits: Limits | None = None, *values: tuple[int, int]) -> tuple[Raw, Recorder]:
    host = Recorder()
    raw = Raw(SERVERS[which](host, limits or Limits(), True), *values)
    raw.settle()
    return raw, host


@pytest.mark.parametrize("who", ["a peer", "the pod's own app"])
def test_five_hundred_cancelled_calls_a_second_from_a_peer_lose_no_other_request(which: str, who: str) -> None:
    host = Recorder()
    raw = Raw(SERVERS[which](host, Limits(), who == "a peer", who != "a peer"))
    raw.settle()
    raw.headers(1, POST, end=False)  # a long one, open all the time
    steady = host.requests[0]
    answered = 0
    calls = 30 * 500 if which == "ours" else 5 * 500  # it takes its time
    for i in range(calls):
        raw.now = i / 500
        sid = 4 * i + 3
        raw.headers(sid)
        if i % 10 == 0:
            raw.headers(sid + 2)
            host.requests[-1].stream.send_head(response(), [], True)
            assert host.requests[-1].log.reset is None
            answered += 1
            raw.data(1, b"x")
        raw.send(frame(RST_STREAM, 0, sid, u32(CANCEL)))
        assert raw.engine.active() == 1
    assert not killed(raw, host, "h2_rapid_reset")
    assert host.violations == []
    assert answered == calls // 10
    assert steady.log.body == b"x" * answered
    assert sum(seen.log.reset is not None for seen in host.requests) == calls


@pytest.mark.parametrize("kind", ["malformed", "too large", "own parent"])
def test_bad_requests_that_a_peer_relays_fail_alone_however_many(which: str, kind: str) -> None:
    raw, host = peer(which)
    raw.headers(1, POST, end=False)
    for i in range(1500):
        sid = 2 * i + 3
        if kind == "malformed":
            raw.headers(sid, [*GET, (b"te", b"gzip")])
        elif kind == "too large":
            raw.headers(sid, [*GET, *[(b"x", b"y")] * 200])
        else:
            raw.send(frame(HEADERS, 5, sid, block(GET)) + frame(PRIORITY, 0, sid, u32(sid) + b"\0"))
        raw.data(1, b"x")
    alone = expected(which, "floods", f"relayed: {kind}", "alone")
    if alone != "alone":
        assert raw.goaway() == alone
        return
    assert not killed(raw, host, "h2_rapid_reset")
    assert host.requests[0].log.body == b"x" * 1500


def test_what_a_peer_keeps_running_is_bounded_by_streams(which: str) -> None:
    raw, host = peer(which)
    for i in range(1002):
        raw.headers(2 * i + 1)
    assert raw.resets() == {2001: REFUSED_STREAM, 2003: REFUSED_STREAM}
    assert raw.engine.active() == 1000
    raw.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
    raw.headers(2005)
    assert raw.resets() == {}
    assert host.requests[-1].log.reset is None


def test_a_peer_is_told_that_it_may_have_a_thousand_streams(which: str) -> None:
    engine = SERVERS[which](Recorder(), Limits(), True)
    engine.start()
    assert (3).to_bytes(2, "big") + u32(1000) in take(engine)


def test_control_a_peer_that_floods_with_other_frames_is_cut_off_as_anyone(which: str) -> None:
    raw, host = peer(which)
    repeat(raw, 5000, lambda i: raw.send(frame(PING, 0, 0, bytes(8))))
    assert killed(raw, host, "h2_control_flood")


def test_resets_by_a_server_are_bounded_by_our_own_requests_and_end_no_connection(which: str) -> None:
    host = Recorder()
    raw = Raw(CLIENTS[which](host, Limits()))
    first = raw.engine.open()
    first.sink = kept = Log()
    first.send_head(request(), [], False)
    for i in range(2000):
        stream = raw.engine.open()
        stream.sink = log = Log()
        stream.send_head(request(), [], i % 2 == 0)
        sid = 2 * i + 3
        if i % 3 == 0:  # half an answer, then RST_STREAM; or an answer that is malformed; or none
            raw.send(frame(HEADERS, END_HEADERS, sid, block([(b":status", b"200")])))
        if i % 3 == 1 and expected(which, "floods", "a malformed answer fails alone", True):
            raw.send(frame(HEADERS, END_HEADERS, sid, block([(b"x", b"y")])))
        else:
            raw.send(frame(RST_STREAM, 0, sid, u32(2)))
        assert log.reset is not None
    assert not raw.engine.closing
    assert kept.reset is None


def test_a_thousand_streams_cancelled_at_one_stroke_leave_the_connection_alone(which: str) -> None:
    host = Recorder()
    raw = Raw(CLIENTS[which](host, Limits()))
    streams = [raw.engine.open() for _ in range(1000)]
    for stream in streams:
        stream.send_head(request(), [], True)
    for stream in streams:
        stream.reset(CANCEL)
    for i in range(1000):  # what was on its way
        raw.send(frame(HEADERS, END_HEADERS, 2 * i + 1, block([(b":status", b"200")])), frame(DATA, 1, 2 * i + 1, b"late"))
        if i % 500 == 499:
            raw.now += 100
    assert not raw.engine.closing, host.violations


def test_late_answers_and_resets_of_streams_we_reset_are_no_flood() -> None:
    """RFC 9113 5.1: they crossed our RST_STREAM.  A client that cancels must not end its neighbours' connection."""
    host = Recorder()
    raw = Raw(Http2Client(host, Limits()))
    first = raw.engine.open()
    first.sink = kept = Log()
    first.send_head(request(), [], True)
    for i in range(3000):
        stream = raw.engine.open()
        stream.send_head(request(), [], True)
        stream.reset(CANCEL)
        sid = 2 * i + 3
        raw.send(frame(HEADERS, END_HEADERS, sid, block([(b":status", b"200")])))
        raw.send(frame(HEADERS, END_HEADERS | 1, sid, block([(b"grpc-status", b"0")])), frame(RST_STREAM, 0, sid, u32(8)))
    assert not raw.engine.closing, host.violations
    assert kept.reset is None
    repeat(raw, 5000, lambda i: raw.send(frame(RST_STREAM, 0, 3, u32(8))))
    assert killed(raw, host, "h2_control_flood")


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_receiver_may_acknowledge_each_of_our_frames_however_small(role: str) -> None:
    """RFC 9113 6.9 leaves it to the receiver."""
    host = Recorder()
    if role == "server":
        raw = Raw(Http2Server(host, Limits()))
        raw.headers(1)
        stream = host.requests[0].stream
        stream.send_head(response(), [], False)
    else:
        raw = Raw(Http2Client(host, Limits()))
        stream = raw.engine.open()
        stream.send_head(request(b"POST"), [], False)
    for _ in range(3000):
        stream.send_data(b"ten bytes.", False)
    raw.read()
    for _ in range(3000):
        raw.send(frame(WINDOW_UPDATE, 0, 0, u32(10)), frame(WINDOW_UPDATE, 0, 1, u32(10)))
    assert not raw.engine.closing, host.violations
    repeat(raw, 40_000, lambda i: raw.send(frame(WINDOW_UPDATE, 0, 0, u32(1))))
    assert killed(raw, host, "h2_control_flood")


@pytest.mark.parametrize("who", ["a server", "a peer in the mesh"])
def test_small_messages_for_many_readers_that_stand_still_end_nothing(who: str) -> None:
    """They are others' readers, and nobody's fault but theirs; whoever waits is bounded by its window."""
    host = Recorder()
    if who == "a server":
        raw = Raw(Http2Client(host, Limits()))
        for i in range(100):
            stream = raw.engine.open()
            stream.send_head(request(), [], True)
            raw.send(frame(HEADERS, END_HEADERS, 2 * i + 1, block([(b":status", b"200")])))
            stream.pause()
    else:
        raw = Raw(Http2Server(host, Limits(), True))
        for i in range(100):
            raw.headers(2 * i + 1, POST, end=False)
            host.requests[i].stream.pause()
    for i in range(100):
        raw.send(frame(DATA, 0, 2 * i + 1, b"a small event") * 500)
    assert not raw.engine.closing, host.violations


def test_acknowledgements_that_a_client_does_not_read_end_its_own_connection_whoever_causes_them() -> None:
    """A reader goes on where the other side's engine says so, in the middle of its receive(): nothing may be raised there."""
    limits = Limits()
    limits.control_out_bytes = 40
    raw, host = serve("ours", limits)
    ids = range(1, 21, 2)
    for sid in ids:
        raw.headers(sid, POST, end=False)
        host.requests[-1].stream.pause()
        for _ in range(5):
            raw.data(sid, b"x" * 10_000)
    raw.engine.socket_blocked()
    for seen in host.requests:
        seen.stream.resume()
    assert killed(raw, host, "h2_unread_acks")
    assert all(seen.log.reset is not None for seen in host.requests)


# -- what waits here


def test_a_connection_that_holds_too_much_takes_no_new_streams_until_it_has_got_rid_of_it(which: str) -> None:
    raw, host = serve(which, None, (4, 0))
    raw.headers(1)
    raw.headers(3)
    first, second = host.requests[0].stream, host.requests[1].stream
    for stream in (first, second):
        stream.send_head(response(), [], False)
        stream.send_data(bytes(Limits().connection_held // 2), False)
    raw.headers(5)
    assert len(host.requests) == 3, "at the bound is not above it"
    first.send_data(b"x", False)
    raw.headers(7)
    assert raw.resets() == {7: REFUSED_STREAM}
    assert host.violations == ["h2_connection_held"]
    first.reset(CANCEL)
    raw.headers(9)
    assert raw.resets() == {1: CANCEL}
    assert len(host.requests) == 4


def test_answers_that_nobody_reads_are_bounded_though_they_have_no_body(which: str) -> None:
    limits = Limits()
    limits.connection_held = 1 << 20
    raw, host = serve(which, limits)
    fields = tuple((b"x-%d" % i, b"v" * 1000) for i in range(30))
    raw.engine.socket_blocked()
    written = 0
    for i in range(10_000):
        before = len(host.requests)
        raw.headers(2 * i + 1)
        if raw.engine.closing:
            break
        if len(host.requests) > before:
            host.requests[-1].stream.send_head(response(204, fields), [], True)
        written += sum(9 + len(frame_[3]) for frame_ in raw.read())
    assert written < limits.connection_held + 2 * limits.control_out_bytes
    assert host.violations.count("h2_connection_held") >= 1


def test_a_peer_that_reads_nothing_and_asks_on_is_cut_off_in_the_end(which: str) -> None:
    limits = Limits()
    limits.mesh_connection_held = 1000
    raw, host = peer(which, limits)
    raw.engine.socket_blocked()

    def step(i: int) -> None:
        before = len(host.requests)
        raw.headers(2 * i + 1)
        if len(host.requests) > before:
            host.requests[-1].stream.send_head(response(204), [], True)

    steps = repeat(raw, 50_000, step)
    assert steps < 6000
    assert killed(raw, host, "h2_unread_acks")


def test_a_client_takes_no_requests_while_heads_pile_up_before_a_full_socket(which: str) -> None:
    limits = Limits()
    limits.connection_held = 20_000
    host = Recorder()
    raw = Raw(CLIENTS[which](host, limits))
    raw.engine.socket_blocked()
    count = 0
    while raw.engine.capacity() > 0:
        stream = raw.engine.open()
        stream.send_head(request(path=b"/%d" % count), [], True)
        stream.reset(CANCEL)  # cancelled calls: no stream is open, and yet each leaves bytes behind
        count += 1
        assert count < 2000
    assert sum(9 + len(frame_[3]) for frame_ in raw.read()) <= 20_000 + 100
    assert host.waiting > 20_000
    host.capacities = 0
    raw.engine.socket_unblocked()
    assert raw.engine.capacity() > 0
    assert host.capacities == 1, "who waits in the pool is told"
    assert host.waiting == 0


def test_every_known_difference_of_floods_is_one_of_a_row() -> None:
    relayed = ["relayed: malformed", "relayed: own parent"]
    single = ["malformed requests", "DATA beyond the window of a reset stream", "a malformed answer fails alone"]
    assert strangers("floods", PROVOKED, relayed, single) == set()
