"""Our gRPC driver: unary calls or ping-pong streams, as many at a time as asked for, until a count is reached.

    unary    HEADERS, DATA+END -->   <-- HEADERS, DATA, trailers        a call; `concurrency` of them over `connections`
    stream   HEADERS --> then DATA --> <-- DATA --> <-- DATA ...        `concurrency` streams, one message in flight on each

A closed loop: the next call leaves when one is answered.  It counts what went wrong (a grpc-status other than 0, no trailers,
a reset, a lost connection) and never hides it.  On our own HTTP/2 engine, because a grpcio client would cost more CPU than
the proxies it loads.

    python -m benchmarks.grpc_load HOST:PORT --calls 10000 --connections 10 --concurrency 64 [--stream] [--identical]
"""

from __future__ import annotations

import argparse
import json
from time import monotonic, monotonic_ns
from typing import Any, Final

from benchmarks.connections import Answer, Http2Connection, Reactor, request_head, wait_ready
from benchmarks.histogram import Histogram
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Field, Head

UNARY, STREAM = b"/bench.Echo/Unary", b"/bench.Echo/Talk"
VARIED: Final = 1000
STALL_S: Final = 10.0  # without a single answer: give up, everything in flight has failed


def message(size: int) -> bytes:
    """A gRPC message of `size` bytes with its 5-byte frame."""
    return b"\0" + size.to_bytes(4, "big") + b"m" * size


def heads(path: bytes, authority: str, varied: bool) -> list[Head]:
    """As grpcio sends them, with a trace field; `varied`: another one, and another method, each time."""
    return [
        request_head(
            b"POST",
            authority.encode(),
            path + (b"%d" % (k % 10) if varied else b""),
            [
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"grpc-python/1.80.0 grpc-c/50.0.0 (linux; chttp2)"),
                (b"grpc-accept-encoding", b"identity, deflate, gzip"),
                (b"grpc-timeout", b"10S"),
                (b"x-trace", b"%016x" % (k * 2654435761 % 2**64)),
            ],
        )
        for k in range(VARIED if varied else 1)
    ]


class Load:
    """One run's books."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.begun = 0
        self.answered = 0
        self.failed = 0
        self.latency = Histogram()

    def result(self, seconds: float) -> dict[str, Any]:
        return {
            "requests": self.total,
            "seconds": seconds,
            "errors": self.failed + self.total - self.answered,
            "latency_us": self.latency.microseconds(),
        }


class Unary(Load):
    """`done` is the connections' callback: the call's number and whether it failed."""

    def __init__(self, total: int, heads: list[Head], body: bytes) -> None:
        super().__init__(total)
        self.heads = heads
        self.body = body
        self.left: dict[int, tuple[int, Http2Connection]] = {}  # call -> when it left

    def fill(self, connection: Http2Connection) -> None:
        while self.begun < self.total and connection.room() > 0:
            k = self.begun
            self.begun += 1
            self.left[k] = monotonic_ns(), connection
            connection.ask(k, self.heads[k % len(self.heads)], self.body)

    def done(self, k: int, failed: bool) -> None:
        at, connection = self.left.pop(k)
        self.answered += 1
        if failed:
            self.failed += 1
        else:
            self.latency.record(monotonic_ns() - at)
        self.fill(connection)


class PingPong(Answer):
    """A stream that sends its next message when the echo of the last one is whole."""

    def __init__(self, load: Talk, connection: Http2Connection, key: int) -> None:
        super().__init__(connection, key)
        self.load = load
        self.stream: Stream | None = None
        self.expected = 0
        self.at = 0

    def send(self) -> None:
        load = self.load
        assert self.stream is not None
        if load.begun >= load.total:
            self.stream.send_data(b"", True)
            return
        load.begun += 1
        self.expected = len(load.body)
        self.at = monotonic_ns()
        self.stream.send_data(load.body, False)

    def response_data(self, data: bytes, end: bool) -> None:
        if end:
            self.finish(True)
            return
        self.expected -= len(data)
        if self.expected == 0:
            self.load.answered += 1
            self.load.latency.record(monotonic_ns() - self.at)
            self.send()
            self.connection.flush()

    def response_trailers(self, fields: list[Field]) -> None:
        if self.expected:
            self.load.failed += 1  # it ended in the middle of a message
        super().response_trailers(fields)


class Talk(Load):
    """`total` messages over all streams."""

    def __init__(self, total: int, heads: list[Head], body: bytes) -> None:
        super().__init__(total)
        self.heads = heads
        self.body = body
        self.open = 0

    def start(self, connection: Http2Connection) -> None:
        answer = PingPong(self, connection, self.open)
        answer.stream = connection.start(answer, self.heads[self.open % len(self.heads)], False)
        self.open += 1
        answer.send()
        connection.flush()

    def done(self, k: int, failed: bool) -> None:
        self.open -= 1
        if failed:
            self.failed += 1


def run(
    address: tuple[str, int],
    calls: int,
    connections: int = 10,
    concurrency: int = 64,
    stream: bool = False,
    varied: bool = True,
    authority: str = "bench.bench",
    size: int = 100,
    warm: int = 0,
) -> dict[str, Any]:
    """One round: {"requests", "seconds", "errors", "latency_us"}.  `calls`: calls, or messages with `stream`; `concurrency`:
    calls in flight, or streams, over all `connections`; `warm`: calls or messages before, not counted."""
    reactor = Reactor()
    try:
        made = heads(STREAM if stream else UNARY, authority, varied)
        each = max(1, concurrency // connections)
        streams = [each + (1 if i < concurrency - each * connections else 0) for i in range(min(connections, concurrency))]
        opened = [Http2Connection(reactor, address, _ignore, count, grpc=True) for count in streams]
        wait_ready(reactor, opened)
        for total in (warm, calls):
            if total:
                load, seconds = _measure(reactor, opened, total, made, message(size), stream)
        return load.result(seconds)
    finally:
        reactor.close()


def _ignore(k: int, failed: bool) -> None:
    pass


def _measure(
    reactor: Reactor, opened: list[Http2Connection], total: int, made: list[Head], body: bytes, stream: bool
) -> tuple[Load, float]:
    load: Unary | Talk = Talk(total, made, body) if stream else Unary(total, made, body)
    started = monotonic()
    for connection in opened:
        connection.done = load.done
        if isinstance(load, Unary):
            load.fill(connection)
        else:
            while connection.room() > 0:
                load.start(connection)
    seen, since = 0, started
    while load.answered < load.total or (isinstance(load, Talk) and load.open):
        reactor.wait(0.1)
        now = monotonic()
        if load.answered > seen:
            seen, since = load.answered, now
        elif now - since > STALL_S or not reactor.connections:
            break
    return load, monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("--calls", type=int, default=10_000, help="calls; messages with --stream")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=64, help="calls in flight, or streams")
    parser.add_argument("--stream", action="store_true", help="ping-pong on bidirectional streams")
    parser.add_argument("--identical", action="store_true", help="the same request each time")
    parser.add_argument("--authority", default="bench.bench")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    parser.add_argument("--warm", type=int, default=1000)
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    result = run(
        (host, int(port)),
        options.calls,
        options.connections,
        options.concurrency,
        options.stream,
        not options.identical,
        options.authority,
        options.size,
        options.warm,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
