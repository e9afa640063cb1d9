"""An open-loop load generator: requests leave by a fixed schedule, whatever the answers do.

    schedule   | . . . . . . . . |   request k is due at start + k / rate
    due        -> a free connection, else a queue (a stalled server makes it grow, and every one in it is late)
    latency    = answer - due, and not answer - sent

A closed-loop client that waits for a slow answer sends nothing meanwhile and so never measures what users meet then
("coordinated omission").  Here a pause of 100 ms at 2,000 requests a second gives 200 slow samples, as it would in life.

The generator can be late itself.  How late it was with requests that had a free connection is measured apart
(`late_us`); where that is of the size of the result the result is the generator's, and it says `pacer_dominates`.  Then
`response_us` is the better figure: the same, less the generator's own lateness (a request that had to wait for a connection
still counts from when it was due).

    python -m benchmarks.pace 127.0.0.1 8080 --rate 2000 --seconds 10 --connections 50 [--h2] [--varied]
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final

from benchmarks.connections import Http1Connection, Http2Connection, Reactor, request_head, wait_ready
from benchmarks.histogram import Histogram

VARIED: Final = 1000  # different requests in a cycle
DRAIN_S: Final = 10.0  # how long answers may take after the last request was due
DOMINATES: Final = 0.25  # the generator's own p99 lateness above this share of the p99 it reports
SPIN_NS: Final = 100_000  # a sleeping thread wakes about this late in a VM, so the end of every wait is spent looking

Ask = Callable[[Any, int], None]


class Pacer:
    """`connections` have room() and get `ask(connection, k)` for request k.  Call run() once."""

    def __init__(self, reactor: Reactor, rate: float, total: int) -> None:
        self.reactor = reactor
        self.interval_ns = 1e9 / rate
        self.total = total
        self.connections: deque[Any] = deque()  # with room for a request
        self.owner: dict[int, Any] = {}
        self.ask: Ask = lambda connection, k: None
        self.queue: deque[int] = deque()
        self.start_ns = 0
        self.latency = Histogram()
        self.response = Histogram()
        self.late = Histogram()
        self.sent: dict[int, int] = {}  # ns, of those that left without a queue
        self.queued = 0
        self.failed = 0
        self.answered = 0

    def due(self, k: int) -> int:
        """When request k is due, in ns of the monotonic clock."""
        return self.start_ns + int(k * self.interval_ns)

    def done(self, k: int, failed: bool) -> None:
        """The connections' callback."""
        if k < 0:
            return
        self.answered += 1
        due = self.due(k)
        sent = self.sent.pop(k, due)
        if failed:
            self.failed += 1
        else:
            now = monotonic_ns()
            self.latency.record(now - due)
            self.response.record(now - sent)
        connection = self.owner.pop(k)
        if connection.open and connection not in self.connections:
            self.connections.append(connection)

    def run(self) -> None:
        """All requests and their answers, or DRAIN_S after the last was due: what is unanswered then has failed."""
        self.start_ns = monotonic_ns() + 1_000_000
        next_k = 0
        last = self.due(self.total) + int(DRAIN_S * 1e9)
        while self.answered < self.total:
            now = monotonic_ns()
            if now > last:
                self.failed += self.total - self.answered
                return
            while next_k < self.total and self.due(next_k) <= now:
                if self.queue or not self.connections:
                    self.queue.append(next_k)
                    self.queued += 1
                else:
                    now = monotonic_ns()
                    self.sent[next_k] = now
                    self.late.record(now - self.due(next_k))
                    self.send(next_k)
                next_k += 1
            while self.queue and self.connections:
                self.send(self.queue.popleft())
            if not self.reactor.connections:
                self.failed += self.total - self.answered
                return
            wait = self.due(next_k) - monotonic_ns() if next_k < self.total else 50_000_000
            self.reactor.wait((wait - SPIN_NS) / 1e9 if wait > SPIN_NS else 0)

    def send(self, k: int) -> None:
        connection = self.connections.popleft()
        self.owner[k] = connection
        self.ask(connection, k)
        if connection.open and connection.room() > 0 and connection not in self.connections:
            self.connections.append(connection)

    def result(self) -> dict[str, Any]:
        late, latency = self.late.microseconds(), self.latency.microseconds()
        return {
            "requests": self.total,
            "errors": self.failed,
            "latency_us": latency,
            "response_us": self.response.microseconds(),
            "late_us": late,
            "queued": self.queued,
            "pacer_dominates": late["p99"] > DOMINATES * latency["p99"],
        }


def http1_requests(host: str, path: str, varied: bool) -> list[bytes]:
    """Whole requests with 5 fields, as the other workloads send them."""
    return [
        (
            f"GET {path}{f'?k={k}' if varied else ''} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: pace\r\nAccept: */*\r\n"
            f"Accept-Language: en\r\nX-Trace: {k * 2654435761 % 2**64:016x}\r\n\r\n"
        ).encode()
        for k in range(VARIED if varied else 1)
    ]


def pace(
    address: tuple[str, int],
    rate: float,
    seconds: float,
    connections: int = 50,
    h2: bool = False,
    varied: bool = True,
    host: str = "bench.bench",
    path: str = "/",
    warm: int = 200,
) -> dict[str, Any]:
    """One run; what it returns is a `round` of results JSON as far as a load generator knows it, with `response_us`,
    `late_us`, `queued` and `pacer_dominates`.  `warm` requests go before and are not counted."""
    reactor = Reactor()
    try:
        pacer = _pacer(reactor, address, rate, warm, connections, h2, varied, host, path) if warm else None
        if pacer is not None:
            pacer.run()
        measured = Pacer(reactor, rate, max(1, int(rate * seconds)))
        if pacer is None:
            _connect(measured, address, connections, h2, varied, host, path)
        else:
            measured.connections, measured.ask = pacer.connections, pacer.ask
            for connection in reactor.connections.values():
                connection.done = measured.done
        measured.run()
        return measured.result()
    finally:
        reactor.close()


def _pacer(
    reactor: Reactor,
    address: tuple[str, int],
    rate: float,
    total: int,
    connections: int,
    h2: bool,
    varied: bool,
    host: str,
    path: str,
) -> Pacer:
    pacer = Pacer(reactor, rate, total)
    _connect(pacer, address, connections, h2, varied, host, path)
    return pacer


def _connect(pacer: Pacer, address: tuple[str, int], connections: int, h2: bool, varied: bool, host: str, path: str) -> None:
    if h2:
        heads = [
            request_head(
                b"GET",
                host.encode(),
                (path + (f"?k={k}" if varied else "")).encode(),
                [(b"user-agent", b"pace"), (b"accept", b"*/*"), (b"x-trace", b"%016x" % (k * 2654435761 % 2**64))],
            )
            for k in range(VARIED if varied else 1)
        ]
        opened = [Http2Connection(pacer.reactor, address, pacer.done, 100) for _ in range(connections)]
        wait_ready(pacer.reactor, opened)
        pacer.connections.extend(opened)
        pacer.ask = lambda connection, k: connection.ask(k, heads[k % len(heads)], None)
        return
    requests = http1_requests(host, path, varied)
    pacer.connections.extend(Http1Connection(pacer.reactor, address, pacer.done) for _ in range(connections))
    pacer.ask = lambda connection, k: connection.ask(k, requests[k % len(requests)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=2000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--h2", action="store_true", help="HTTP/2 by prior knowledge")
    parser.add_argument("--varied", action="store_true", help="another query and trace field in every request")
    parser.add_argument("--authority", default="bench.bench", help="the Host field")
    parser.add_argument("--path", default="/", help='also absolute-form: "http://web.shop/"')
    options = parser.parse_args()
    print(
        json.dumps(
            pace(
                (options.host, options.port),
                options.rate,
                options.seconds,
                options.connections,
                options.h2,
                options.varied,
                options.authority,
                options.path,
            )
        )
    )


if __name__ == "__main__":
    main()
