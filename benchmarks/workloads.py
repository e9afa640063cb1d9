"""What is measured: one row a workload.

    a  HTTP/1.1 to HTTP/1.1               e  bodies: 1 KiB, 64 KiB, 1 MiB; of requests: 64 KiB, 1 MiB
    b  h2c to h2c                         f  latency added at a fixed rate (open loop)
    c  two hops, mutual TLS between       g  memory
    d  the same for gRPC                  h  our scaling with --workers
                                          i  what declared policy costs

A run is measured after a warm-up of its own.  Rounds interleave peers, so that a slow minute of the machine hits all alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

VARIED_PATHS = 20_000  # more than any cache of header blocks or paths holds
POLICY_TITLE = "(i) two hops mTLS, c=64: routes, access, breaker and limit declared, and without"
LATENCY_PEERS = ("compiled", "envoy", "haproxy", "linkerd", "direct")


@dataclass(frozen=True)
class Workload:
    """`tool`: wrk, h2load, grpc (benchmarks.grpc_load), pace (benchmarks.pace), or a memory reading.

    `connections` times `streams` requests are in flight (gRPC: `streams` over all `connections`; memory: `connections` are
    held).  `seconds` of load, after `warm` seconds of the same; gRPC counts `calls` instead.  `peers`: only these; () means
    all that can."""

    id: str
    title: str
    hops: int
    kind: str
    tool: str
    rounds: int
    connections: int = 64
    streams: int = 1
    seconds: float = 1.5
    warm: float = 0.4
    varied: bool = True
    path: str = "/"
    rate: int = 0
    calls: int = 0
    body: int = 0  # bytes of each request: a POST; 0: a GET
    endpoints: int = 1
    peers: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return self.title[1]

    def paths(self) -> list[str]:
        """Varied: a thousand items, each with another query every time."""
        if not self.varied:
            return [self.path]
        return [f"{self.path}items/{n % 997}?page={n % 13}&q={n * 2654435761 % 2**32:x}" for n in range(VARIED_PATHS)]

    def cost_s(self) -> float:
        """About how long one measurement takes, all in."""
        if self.tool == "grpc":
            return 1.0 + 1.2 * self.calls / 20_000  # what the driver manages a second on a core it shares with its server
        if self.tool == "pace":
            return 1.0 + self.seconds + 200 / self.rate
        if self.tool.startswith("memory"):
            return 2.5 + self.connections / 1000 * (4.0 if self.kind == "mtls" else 0.5) * (self.tool == "memory-connections")
        return self.seconds + self.warm + 0.2


def _body(kind: str, size: str, connections: int, streams: int) -> Workload:
    tool, name = ("wrk", "HTTP/1.1") if kind == "h1" else ("h2load", "h2c")
    title = {"1k": "1 KiB", "64k": "64 KiB", "1m": "1 MiB"}[size]
    path = f"/body/{size}/"
    return Workload(
        *(f"{kind}-{size}", f"(e) {title} over {name}", 1, kind, tool, 3, connections, streams),
        seconds=0.8,
        warm=0.3,
        path=path,
    )


def _upload(kind: str, size: str, connections: int, streams: int) -> Workload:
    """As `_body`, but it is the request that is large; the backend answers when it has all of it."""
    down = _body(kind, size, connections, streams)
    title = f"{down.title.replace('(e) ', '(e) uploads of ')}"
    return replace(down, id=f"{kind}-up-{size}", title=title, path="/upload/", body={"64k": 1 << 16, "1m": 1 << 20}[size])


def _workers(workers: int) -> Workload:
    suffix = "" if workers == 1 else f"-w{workers}"
    title = f"(h) HTTP/1.1, varied, --workers {workers}" + (" (on all cores, beside the load)" if workers > 1 else "")
    return Workload(f"workers-{workers}", title, 1, "h1", "wrk", 3, peers=("compiled" + suffix, "interpreted" + suffix))


WORKLOADS: tuple[Workload, ...] = (
    Workload("h1-identical", "(a) HTTP/1.1, c=64, identical", 1, "h1", "wrk", 3, seconds=1.0, varied=False),
    Workload("h1-varied", "(a) HTTP/1.1, c=64, varied", 1, "h1", "wrk", 5),
    Workload("h2-identical", "(b) h2c, 10x10, identical", 1, "h2", "h2load", 3, 10, 10, seconds=1.0, varied=False),
    Workload("h2-varied", "(b) h2c, 10x10, varied", 1, "h2", "h2load", 5, 10, 10),
    Workload("mesh-c64", "(c) two hops mTLS, c=64", 2, "h1", "wrk", 5, 64),
    Workload("mesh-c4", "(c) two hops mTLS, c=4", 2, "h1", "wrk", 5, 4),
    Workload("mesh-c1", "(c) two hops mTLS, c=1", 2, "h1", "wrk", 5, 1),
    Workload("grpc-unary", "(d) gRPC unary, two hops, 64 calls at a time", 2, "grpc", "grpc", 3, 10, 64, calls=20_000),
    Workload("grpc-stream", "(d) gRPC stream, two hops, ping-pong on 16", 2, "grpc", "grpc", 3, 4, 16, calls=20_000),
    _body("h1", "1k", 8, 1),
    _body("h1", "64k", 8, 1),
    _body("h1", "1m", 8, 1),
    _body("h2", "1k", 8, 4),
    _body("h2", "64k", 8, 4),
    _body("h2", "1m", 8, 4),
    _upload("h1", "64k", 8, 1),
    _upload("h1", "1m", 8, 1),
    _upload("h2", "64k", 8, 4),
    _upload("h2", "1m", 8, 4),
    Workload("latency-200", "(f) 200 requests/s, one hop", 1, "h1", "pace", 3, 50, seconds=5, rate=200, peers=LATENCY_PEERS),
    Workload(
        "latency-2000", "(f) 2,000 requests/s, one hop", 1, "h1", "pace", 3, 50, seconds=4, rate=2000, peers=LATENCY_PEERS
    ),
    Workload(
        "mesh-latency-200", "(f) 200 requests/s, two hops", 2, "h1", "pace", 3, 50, seconds=5, rate=200, peers=LATENCY_PEERS
    ),
    Workload(
        "mesh-latency-2000", "(f) 2,000 requests/s, two hops", 2, "h1", "pace", 3, 50, seconds=4, rate=2000, peers=LATENCY_PEERS
    ),
    Workload("memory-idle", "(g) one proxy, idle", 1, "h1", "memory-idle", 1),
    Workload("memory-sidecar", "(g) two sidecars, idle", 2, "h1", "memory-idle", 1),
    Workload("memory-endpoints", "(g) 1,000 endpoints, all in use", 1, "h1", "memory-endpoints", 1, endpoints=1000),
    Workload("memory-connections", "(g) 10,000 idle connections", 1, "h1", "memory-connections", 1, 10_000),
    Workload("memory-mtls-connections", "(g) 2,000 idle connections with mTLS", 1, "mtls", "memory-connections", 1, 2_000),
    _workers(1),
    _workers(2),
    Workload("policy-cost", POLICY_TITLE, 2, "h1", "wrk", 3, peers=("compiled", "compiled-policy")),
)


def choose(words: Sequence[str], known: Sequence[Workload] = WORKLOADS) -> list[Workload]:
    """Those named by id, beginning of an id, or letter; all for no words.  Raises ValueError for a word that names none."""
    chosen: list[Workload] = []
    for word in words:
        found = [each for each in known if word in (each.id, each.group)] or [
            each for each in known if each.id.startswith(word)
        ]
        if not found:
            raise ValueError(f"no workload {word!r}; known: {', '.join(each.id for each in known)}, or letters a to i")
        chosen.extend(found)
    return [each for each in known if each in chosen] if words else list(known)
