"""What attacks and stalled peers make two engines in a row hold, by the allocator's own count (rows H2A-10, -15, -22, -27)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from http2_harness import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GET,
    HEADERS,
    POST,
    WINDOW_UPDATE,
    Raw,
    Recorder,
    block,
    frame,
    literal,
    request,
    response,
)

from meshproxy.wire.engine import NULL_SINK, Sink, Stream
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head

KIB = 1024
STALLED = 256 * KIB  # what one stalled stream may hold
OVERHEAD = 48 * KIB  # two engines, their tables and memos


class Meter:
    """Bytes allocated since it was made: now, and at the worst moment."""

    def __init__(self) -> None:
        gc.collect()
        tracemalloc.reset_peak()
        self.before = tracemalloc.get_traced_memory()[0]

    def now(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self.before

    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self.before


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    CACHES.enabled = False  # the process's memos are bounded elsewhere; here it is one connection that counts
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        CACHES.enabled = True


class Relay(Sink):
    """One exchange between two streams, with back-pressure as the proxy does it."""

    def __init__(self, down: Stream, up: Stream) -> None:
        self.down = down
        self.up = up

    def request_data(self, data: bytes, end: bool) -> None:
        self.up.send_data(data, end)

    def request_blocked(self) -> None:
        self.down.pause()

    def request_unblocked(self) -> None:
        self.down.resume()

    def response_head(self, head: Head, end: bool) -> None:
        self.down.send_head(head, [], end)

    def response_data(self, data: bytes, end: bool) -> None:
        self.down.send_data(data, end)

    def response_blocked(self) -> None:
        self.up.pause()

    def response_unblocked(self) -> None:
        self.up.resume()


class Proxy:
    """A raw client, our server, our client, a raw server; `streams` exchanges are open, in both directions."""

    def __init__(self, streams: int, client_window: int, server_window: int) -> None:
        self.host = Recorder()
        self.down = Raw(Http2Server(self.host, Limits()), (4, client_window))
        self.up = Raw(Http2Client(Recorder(), Limits()), (4, server_window))
        self.down.settle()
        self.up.settle()
        for i in range(streams):
            self.down.headers(2 * i + 1, POST, end=False)
            stream = self.host.requests[-1].stream
            upstream = self.up.engine.open()
            stream.sink = upstream.sink = Relay(stream, upstream)
            upstream.send_head(request(b"POST"), [], False)
            self.up.send(frame(HEADERS, END_HEADERS, 2 * i + 1, block([(b":status", b"200")])))
        self.down.read()
        self.up.read()
        self.host.requests.clear()
        self.windows: dict[tuple[Raw, int], int] = {}

    def pour(self, source: Raw, stream_id: int, piece: int, most: int = 100 << 20) -> int:
        """Send what the windows we gave allow, up to `most` bytes; how many that were.  What the other side is sent is read
        and forgotten: the socket is never what is full here."""
        windows = self.windows
        own, shared = (source, stream_id), (source, 0)
        windows.setdefault(own, 65_535)
        windows.setdefault(shared, Limits().connection_window)
        sent = 0
        data = frame(DATA, 0, stream_id, bytes(piece))
        while sent < most and windows[own] >= piece and windows[shared] >= piece:
            count = min(100 if piece < 1000 else 1, windows[own] // piece)
            source.send(data * count)
            windows[own] -= piece * count
            windows[shared] -= piece * count
            sent += piece * count
            for kind, _, sid, payload in source.read():
                if kind == WINDOW_UPDATE and (source, sid) in windows:
                    windows[source, sid] += int.from_bytes(payload, "big")
            self.down.engine.out.clear()
        return sent


@pytest.mark.parametrize("piece", [1, 100, 16_384])
@pytest.mark.parametrize("direction", ["upload", "download"])
def test_a_stream_whose_reader_stands_still_holds_no_more_than_256_kib(direction: str, piece: int) -> None:
    """H2A-22: whatever the size of the pieces."""
    proxy = Proxy(1, 0, 0)
    meter = Meter()
    sent = proxy.pour(proxy.down if direction == "upload" else proxy.up, 1, piece)
    assert sent < STALLED
    assert meter.now() < STALLED + OVERHEAD


def test_a_stream_that_was_fast_and_then_stalls_holds_no_more_than_256_kib() -> None:
    """The window had grown; a short link is no reason for more than that."""
    proxy = Proxy(1, 8 << 20, 0)
    proxy.down.send(frame(WINDOW_UPDATE, 0, 0, (8 << 20).to_bytes(4, "big")))
    proxy.down.read()
    meter = Meter()
    sent = proxy.pour(proxy.up, 1, 16_000)
    assert (8 << 20) < sent < (8 << 20) + STALLED, "until the client's window is spent, and then what is on its way"
    assert proxy.host.waiting > 100_000
    assert meter.now() < STALLED + OVERHEAD


def test_a_window_opened_byte_by_byte_keeps_the_sender_stopped() -> None:
    """H2A-27."""
    proxy = Proxy(1, 0, 65_535)
    meter = Meter()
    sent = proxy.pour(proxy.up, 1, 10_000)
    for _ in range(500):
        proxy.down.send(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")))
        assert [len(payload) for kind, _, _, payload in proxy.down.read() if kind == DATA] == [1]
        assert proxy.up.read() == [], "no window is given upstream"
    assert sent < STALLED
    assert meter.now() < STALLED + OVERHEAD


def test_a_hundred_stalled_streams_hold_a_hundred_times_as_much_and_give_it_all_back() -> None:
    proxy = Proxy(100, 0, 65_535)
    meter = Meter()
    for i in range(100):
        proxy.pour(proxy.up, 2 * i + 1, 16_000)
    held = meter.now()
    assert proxy.host.waiting >= 100 * 60_000
    assert held < proxy.host.waiting + 100 * 4 * KIB
    proxy.down.engine.lost()
    assert proxy.host.waiting == 0
    assert meter.now() < held - 100 * 60_000


@pytest.mark.parametrize("size", [16_000, 1, 0])
def test_a_continuation_flood_never_holds_more_than_the_block_it_may_have(size: int) -> None:
    """H2A-10."""
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()))
    raw.settle()
    piece = frame(CONTINUATION, 0, 1, literal(b"x", b"v" * size))
    meter = Meter()
    raw.send(frame(HEADERS, 1, 1, block(GET)))
    while not raw.engine.closing:
        raw.send(piece)
    assert meter.peak() < (Limits().continuation_frames + 4) * 16 * KIB + OVERHEAD


BOMBS: dict[str, tuple[bytes, bytes]] = {  # what goes into the table, what each request refers to it with
    "a tiny entry 1,500 times": (literal(b"x", b""), b"\xbe" * 1500),
    "a large entry 2,000 times": (literal(b"x", b"v" * 3900), b"\xbe" * 2000),
    "a tiny entry, as often as is allowed": (literal(b"x", b""), b"\xbe" * 120),
    "an entry of the static table 1,500 times": (literal(b"x", b""), b"\x90" * 1500),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_blocks_that_unpack_hold_a_small_multiple_of_what_was_sent(name: str) -> None:
    """H2A-14, -15: many streams, a client that gives no window."""
    added, references = BOMBS[name]
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()), (4, 0))
    raw.settle()
    raw.send(frame(HEADERS, 5, 1, block(GET) + b"\x40" + added[1:]))
    data = [frame(HEADERS, 5, 2 * i + 3, block(GET) + references) for i in range(30)]
    wire = sum(map(len, data))
    meter = Meter()
    for one in data:
        raw.send(one)
        raw.read()
    assert not raw.engine.closing
    held = meter.now()
    assert meter.peak() < 100 * wire, "Envoy's line"
    assert held < 30 * wire
    for seen in host.requests:
        seen.stream.send_head(response(), [], True)
    raw.read()
    host.requests.clear()
    assert meter.now() < max(64 * KIB, held // 4), "and it is released"


def test_trailers_of_a_stalled_stream_are_held_with_it_and_go_with_it() -> None:
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()), (4, 0))
    raw.headers(1)
    stream: Any = host.requests[0].stream
    stream.sink = NULL_SINK
    stream.send_head(response(), [], False)
    stream.send_data(bytes(1000), False)
    stream.send_trailers([Field(b"x-sum", b"v" * 1000)])
    assert stream.trailers is not None
    raw.engine.lost()
    assert stream.trailers is None
    assert stream.queue is None
