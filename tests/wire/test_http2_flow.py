"""Flow control (RFC 9113 5.2, 6.9): never beyond a window, fair among streams, back-pressure to the one that caused it."""

from __future__ import annotations

import pytest
from http2_harness import (
    ACK,
    DATA,
    GET,
    HEADERS,
    PADDED,
    PING,
    POST,
    RST_STREAM,
    WINDOW_UPDATE,
    Log,
    Raw,
    Recorder,
    frame,
    request,
    response,
    settings,
)
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from meshproxy.wire.engine import CANCEL, FLOW_CONTROL_ERROR, NULL_SINK, Engine, Stream
from meshproxy.wire.h2_adapter import H2Client, H2Server
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.http2.windows import ReceiveWindow
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def serve(limits: Limits | None = None, *values: tuple[int, int]) -> tuple[Raw, Recorder]:
    host = Recorder()
    raw = Raw(Http2Server(host, limits or Limits()), *values)
    raw.settle()
    return raw, host


def answer(raw: Raw, host: Recorder, stream_id: int) -> Stream:
    raw.headers(stream_id, GET)
    stream = host.requests[-1].stream
    stream.send_head(response(), [], False)
    raw.read()
    return stream


def sent(raw: Raw) -> list[tuple[int, int]]:
    """(stream, bytes) of the DATA frames since the last look."""
    return [(sid, len(payload)) for kind, _, sid, payload in raw.read() if kind == DATA]


def granted(raw: Raw, stream_id: int) -> int:
    return sum(
        int.from_bytes(payload, "big") for kind, _, sid, payload in raw.read() if kind == WINDOW_UPDATE and sid == stream_id
    )


@given(st.integers(1, 70_000), st.integers(1, 2_000_000), st.lists(st.integers(1, 70_000), max_size=60), st.data())
def test_a_receive_window_grants_what_was_used_and_growth_and_nothing_else(
    initial: int, largest: int, frames: list[int], data: st.DataObject
) -> None:
    window = ReceiveWindow(initial, initial, max(initial, largest))
    peer = initial
    for size in frames:
        size = min(size, peer)
        window.available -= size
        peer -= size
        if data.draw(st.booleans()):
            window.shrink()
            assert window.size == initial
        peer += window.credit(data.draw(st.booleans()))
        assert peer == window.available
        assert 0 <= peer <= max(initial, largest)
        assert peer > 0, "a peer whose bytes are taken may always send more"


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 3), st.integers(0, 60_000)),
    st.tuples(st.just("window"), st.integers(-1, 3), st.integers(1, 40_000)),
    st.tuples(st.just("initial"), st.just(0), st.integers(0, 80_000)),
    st.tuples(st.just("frame"), st.just(0), st.integers(16_384, 30_000)),
    st.tuples(st.just("socket"), st.just(0), st.integers(0, 1)),
)


@profile(max_examples=150, deadline=None)
@given(st.integers(0, 70_000), st.lists(ACTIONS, max_size=40))
def test_no_byte_is_sent_beyond_a_window_and_none_is_lost(initial: int, actions: list[tuple[str, int, int]]) -> None:
    raw, host = serve(None, (4, initial))
    streams = [answer(raw, host, 2 * i + 1) for i in range(4)]
    windows = {2 * i + 1: initial for i in range(4)}
    total = 65_535
    frame_max = 16_384
    given_in = dict.fromkeys(windows, 0)
    came_out = dict.fromkeys(windows, 0)
    full = False

    def look() -> None:
        nonlocal total
        for sid, size in sent(raw):
            assert size <= frame_max
            assert size == 0 or not full
            windows[sid] -= size
            total -= size
            assert size == 0 or (windows[sid] >= 0 and total >= 0)
            came_out[sid] += size

    for what, which, amount in actions:
        if what == "send":
            given_in[2 * which + 1] += amount
            streams[which].send_data(bytes(amount), False)
        elif what == "window":
            if which < 0:
                total += amount
            else:
                windows[2 * which + 1] += amount
            raw.send(frame(WINDOW_UPDATE, 0, 2 * which + 1 if which >= 0 else 0, u32(amount)))
        elif what == "initial":
            change = amount - initial
            initial = amount
            for sid in windows:
                windows[sid] += change
            raw.send(settings((4, amount)))
        elif what == "frame":
            frame_max = amount
            raw.send(settings((5, amount)))
        else:
            full = amount == 1
            if full:
                raw.engine.socket_blocked()
            else:
                raw.engine.socket_unblocked()
        look()
    if full:
        full = False
        raw.engine.socket_unblocked()
        look()
    for sid in windows:  # what could be sent was sent: either nothing waits, or a window is spent
        assert came_out[sid] == given_in[sid] or windows[sid] <= 0 or total == 0
        windows[sid] += 2_000_000
        raw.send(frame(WINDOW_UPDATE, 0, sid, u32(2_000_000)))
    total += 20_000_000
    raw.send(frame(WINDOW_UPDATE, 0, 0, u32(20_000_000)))
    look()
    assert came_out == given_in
    for seen in host.requests:
        names = seen.log.names()
        assert names == ["blocked", "unblocked"] * (len(names) // 2)


def test_streams_that_wait_take_turns_of_one_frame() -> None:
    raw, host = serve(None, (4, 1_000_000))
    streams = [answer(raw, host, sid) for sid in (1, 3, 5)]
    streams[0].send_data(bytes(65_535), False)  # the connection's window is spent
    raw.read()
    for stream in streams:
        stream.send_data(bytes(100_000), False)
    assert sent(raw) == []
    raw.send(frame(WINDOW_UPDATE, 0, 0, u32(6 * 16_384)))
    assert sent(raw) == [(1, 16_384), (3, 16_384), (5, 16_384)] * 2


def test_a_stream_whose_own_window_is_spent_does_not_hold_the_round() -> None:
    raw, host = serve(None, (4, 100))
    stalled, other = answer(raw, host, 1), answer(raw, host, 3)
    stalled.send_data(bytes(1000), False)
    assert sent(raw) == [(1, 100)]
    other.send_data(bytes(50), False)
    assert sent(raw) == [(3, 50)]


def test_a_window_made_negative_by_settings_must_be_earned_back() -> None:
    raw, host = serve(None, (4, 1000))
    stream = answer(raw, host, 1)
    stream.send_data(bytes(800), False)
    raw.send(settings((4, 100)))  # the window is -700 now (6.9.2)
    raw.read()
    stream.send_data(bytes(10), False)
    raw.send(frame(WINDOW_UPDATE, 0, 1, u32(700)))
    assert sent(raw) == []
    raw.send(frame(WINDOW_UPDATE, 0, 1, u32(5)))
    assert sent(raw) == [(1, 5)]


def test_one_byte_more_than_a_window_waits() -> None:
    raw, host = serve(None, (4, 10))
    answer(raw, host, 1).send_data(bytes(11), False)
    assert sent(raw) == [(1, 10)]
    raw, host = serve(None, (4, 1_000_000))
    answer(raw, host, 1).send_data(bytes(65_536), False)
    assert sum(size for _, size in sent(raw)) == 65_535


def test_end_of_stream_needs_no_window() -> None:
    raw, host = serve(None, (4, 10))
    stream = answer(raw, host, 1)
    stream.send_data(bytes(10), False)
    stream.send_data(b"", True)
    assert sent(raw) == [(1, 10), (1, 0)]
    stream = answer(raw, host, 3)
    stream.send_data(bytes(10), False)
    stream.send_trailers([Field(b"grpc-status", b"0")])
    assert [kind for kind, *_ in raw.read()] == [DATA, HEADERS]


def test_a_body_larger_than_the_peers_frames_is_cut() -> None:
    raw, host = serve(None, (4, 1_000_000))
    raw.send(frame(WINDOW_UPDATE, 0, 0, u32(1_000_000)))
    stream = answer(raw, host, 1)
    stream.send_data(bytes(40_000), True)
    got = [(flags, len(payload)) for kind, flags, _, payload in raw.read() if kind == DATA]
    assert got == [(0, 16_384), (0, 16_384), (1, 40_000 - 2 * 16_384)]


def test_more_than_the_streams_window_resets_that_stream() -> None:
    raw, host = serve()
    raw.headers(1, POST, end=False)
    host.requests[0].stream.pause()
    for _ in range(5):
        raw.data(1, bytes(Limits().stream_window // 5))
    assert raw.resets() == {}
    raw.data(1, bytes(1))
    assert raw.resets() == {1: FLOW_CONTROL_ERROR}
    assert host.requests[0].log.reset == (FLOW_CONTROL_ERROR, False)
    raw.headers(3)
    assert len(host.requests) == 2


def test_more_than_the_connections_window_ends_the_connection() -> None:
    limits = Limits()
    limits.connection_window = 100_000
    limits.stream_window = limits.stream_window_max = 1_000_000
    raw, _ = serve(limits)
    raw.headers(1, POST, end=False)
    raw.send(b"".join(frame(DATA, 0, 1, bytes(16_000)) for _ in range(3)))
    getattr(raw.engine, "window").available = 10  # noqa: B009  as if the rest were in flight
    raw.data(1, bytes(11))
    assert raw.goaway() == FLOW_CONTROL_ERROR


@pytest.mark.parametrize("engine", [Http2Server, Http2Client, H2Server, H2Client], ids=["server", "client", "h2s", "h2c"])
@pytest.mark.parametrize("body", [b"", b"x"])
def test_padding_is_granted_again_also_where_nothing_else_was_in_the_frame(engine: type[Engine], body: bytes) -> None:
    """RFC 9113 6.1, 6.9.1: all of a DATA frame's payload uses the windows, so all of it must come back."""
    host = Recorder()
    raw = Raw(engine(host, Limits()))
    raw.settle()
    if raw.engine.server:
        raw.headers(1, POST, end=False)
        log = host.requests[0].log
    else:
        stream, log = raw.engine.open(), Log()
        stream.sink = log
        stream.send_head(request(), [], True)
        raw.read()
        raw.headers(1, [(b":status", b"200")], end=False)
    window = Limits().stream_window
    padded = frame(DATA, PADDED, 1, bytes((255,)) + body + bytes(255))
    for _ in range(600):
        assert window >= len(padded) - 9
        window -= len(padded) - 9
        raw.send(padded)
        window += granted(raw, 1)
    raw.data(1, b"end", end=True)
    assert raw.resets() == {}
    assert log.body == body * 600 + b"end"
    assert log.ended


def test_padding_to_a_stream_that_is_paused_is_granted_when_it_goes_on() -> None:
    raw, host = serve()
    raw.headers(1, POST, end=False)
    host.requests[0].stream.pause()
    padded = frame(DATA, PADDED, 1, bytes((255,)) + bytes(255))
    for _ in range(Limits().stream_window // 256):
        raw.send(padded)
    assert granted(raw, 1) == 0
    host.requests[0].stream.resume()
    assert granted(raw, 1) == Limits().stream_window


class Link:
    """An upload over a link with a round-trip of `rtt_s`, by a client that sends what the window allows and no more.

    window   what it may send now        largest  the largest the window was
    grants   (when they arrive, bytes)   pings    (when their acks arrive)
    """

    def __init__(self, rtt_s: float, limits: Limits | None = None) -> None:
        self.raw, self.host = serve(limits)
        self.rtt_s = rtt_s
        self.raw.headers(1, POST, end=False)
        self.stream = self.host.requests[0].stream
        self.stream.sink = NULL_SINK
        self.window = self.largest = Limits().stream_window
        self.grants: list[tuple[float, int]] = []
        self.pings: list[tuple[float, bytes]] = []
        self.pinged = 0

    def arrive(self) -> None:
        now = self.raw.now
        self.window += sum(size for at, size in self.grants if at <= now)
        self.largest = max(self.largest, self.window)
        self.grants = [grant for grant in self.grants if grant[0] > now]
        for _, payload in [ping for ping in self.pings if ping[0] <= now]:
            self.raw.send(frame(PING, ACK, 0, payload))
        self.pings = [ping for ping in self.pings if ping[0] > now]

    def listen(self) -> None:
        for kind, flags, sid, payload in self.raw.read():
            if kind == WINDOW_UPDATE and sid == 1:
                self.grants.append((self.raw.now + self.rtt_s, int.from_bytes(payload, "big")))
            elif kind == PING and not flags & ACK:
                self.pings.append((self.raw.now + self.rtt_s, payload))
                self.pinged += 1

    def upload(self, size: int, bytes_per_s: float) -> None:
        while size > 0:
            self.arrive()
            part = min(self.window, 16_384, size)
            if part == 0:
                self.raw.now = min(at for at, _ in self.grants)
                continue
            self.raw.data(1, bytes(part))
            self.window -= part
            size -= part
            self.listen()
            self.raw.now += part / bytes_per_s


@pytest.mark.parametrize(
    ("rtt_s", "bytes_per_s", "largest"),
    [
        (0.0, 1e9, 256 * 1024),  # the same machine
        (0.0005, 1e9, 256 * 1024),  # the same data centre
        (0.0015, 1e9, 256 * 1024),
        (0.010, 1e9, 1024 * 1024),
        (0.080, 1e8, 1024 * 1024),  # another continent
        (0.080, 1e6, 256 * 1024),  # far, but 80 kB a round-trip are all there is
    ],
)
def test_a_streams_window_grows_beyond_256_kib_only_where_the_round_trip_makes_it_necessary(
    rtt_s: float, bytes_per_s: float, largest: int
) -> None:
    link = Link(rtt_s)
    link.upload(16 << 20, bytes_per_s)
    assert largest // 2 < link.largest <= largest  # half of it is granted at a time
    assert link.pinged <= 3 + link.raw.now


def test_a_window_that_was_large_falls_back_when_its_reader_stops() -> None:
    link = Link(0.010)
    link.upload(16 << 20, 1e9)
    link.raw.now += 1.0
    link.arrive()
    link.stream.pause()
    assert link.window > 512 * 1024
    while link.window:
        part = min(link.window, 16_384)
        link.raw.data(1, bytes(part))
        link.window -= part
        assert granted(link.raw, 1) == 0
    link.stream.resume()
    assert granted(link.raw, 1) == Limits().stream_window


def test_one_slow_answer_to_a_ping_does_not_make_a_link_long() -> None:
    link = Link(0.0005)
    link.upload(400_000, 1e9)  # enough for the first PING
    assert link.pings
    link.pings = [(at + 0.3, payload) for at, payload in link.pings]
    link.raw.now += 0.5
    link.upload(16 << 20, 1e9)
    assert link.largest <= 256 * 1024


def test_acks_of_pings_that_were_never_sent_measure_nothing() -> None:
    link = Link(0.0005)
    for i in range(100):
        link.raw.now = i * 0.1
        link.raw.send(frame(PING, ACK, 0, b"meshrtt\0"))
    link.upload(16 << 20, 1e9)
    assert link.largest <= 256 * 1024


def test_padding_is_given_back_as_window() -> None:
    raw, host = serve()
    raw.headers(1, POST, end=False)
    host.requests[0].stream.sink = NULL_SINK
    total = 0
    for _ in range(400):
        raw.send(frame(DATA, 8, 1, b"\xc8" + b"x" + bytes(200)))
        total += granted(raw, 1)
    assert total >= 400 * 202 - Limits().stream_window // 2


def test_uploads_cancelled_half_way_leak_no_connection_window() -> None:
    raw, host = serve()
    window = Limits().connection_window
    for i in range(3000):
        raw.now = i * 1.0
        raw.headers(2 * i + 1, POST, end=False)
        raw.data(2 * i + 1, bytes(16_000))
        window += granted(raw, 0) - 16_000
        if i % 2:
            raw.send(frame(RST_STREAM, 0, 2 * i + 1, u32(CANCEL)))
        else:
            host.requests[-1].stream.reset(CANCEL)
            raw.data(2 * i + 1, bytes(1000))  # was on its way
            window += granted(raw, 0) - 1000
        host.requests.clear() if i % 100 == 99 else None
        assert window >= Limits().connection_window // 2
    assert raw.engine.active() == 0


def test_before_our_settings_are_acknowledged_the_default_window_holds() -> None:
    limits = Limits()
    limits.stream_window = 1000
    limits.stream_window_max = 1000
    host = Recorder()
    raw = Raw(Http2Server(host, limits))
    raw.headers(1, POST, end=False)
    host.requests[0].stream.pause()
    for _ in range(4):
        raw.data(1, bytes(16_383))
    assert host.requests[0].log.reset is None
    raw.settle()  # acknowledges
    raw.headers(3, POST, end=False)
    host.requests[1].stream.pause()
    raw.data(3, bytes(1001))
    assert host.requests[1].log.reset == (FLOW_CONTROL_ERROR, False)
