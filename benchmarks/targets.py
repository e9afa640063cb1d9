"""What we set out to reach, and whether a run reached it.

    Target("h1-varied", "envoy", 0.50)  --judge(results)-->  Verdict: the ratio with its spread, met or missed, or why unknown

Ratios of CPU a request, ours / theirs, median over the rounds of one run.  `BEST`: the best of HAProxy, nginx and nghttpx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.results import Reading, Results, Spread, cpu_us, dominated, largest_rss_mb, latency, per_connection_kb
from benchmarks.workloads import WORKLOADS

BEST: Final = ("haproxy", "nginx", "nghttpx")
COMPILED, INTERPRETED = "compiled", "interpreted"
MET, MISSED, UNKNOWN = "met", "missed", "not measured"


@dataclass(frozen=True)
class Verdict:
    """`found`: in the target's own unit."""

    what: str
    against: str
    limit: str
    found: Spread | None
    said: str
    note: str = ""


@dataclass(frozen=True)
class Target:
    """CPU a request: ours / `against` <= `limit`."""

    workload: str
    against: str | Sequence[str]
    limit: float
    ours: str = COMPILED

    def judge(self, results: Results) -> Verdict:
        peer, note = self.against, ""
        if not isinstance(peer, str):
            chosen = results.best(self.workload, peer, cpu_us)
            note = f"best: {chosen}" if chosen else ""
            peer = chosen or "best of " + ", ".join(self.against)
        found = results.ratio(self.workload, self.ours, peer, cpu_us)
        what = f"{_title(self.workload)}, {self.ours}"
        return Verdict(what, peer, f"<= {self.limit:.2f}", found, _said(found, self.limit), note)


@dataclass(frozen=True)
class Bound:
    """A figure of our own: `reading` <= `limit` `unit`."""

    workload: str
    what: str
    limit: float
    unit: str
    reading: Reading
    ours: str = COMPILED

    def judge(self, results: Results) -> Verdict:
        found = results.spread(self.workload, self.ours, self.reading)
        return Verdict(f"{self.what}, {self.ours}", "-", f"<= {self.limit:g} {self.unit}", found, _said(found, self.limit))


@dataclass(frozen=True)
class Added:
    """Latency at a fixed rate: our median p99 is not above the greatest p99 of the peer's rounds."""

    workload: str
    against: str = "envoy"
    ours: str = COMPILED

    def judge(self, results: Results) -> Verdict:
        mine = results.spread(self.workload, self.ours, latency("p99"))
        theirs = results.spread(self.workload, self.against, latency("p99"))
        rounds = [
            one for one in results.rounds if one["workload"] == self.workload and one["peer"] in (self.ours, self.against)
        ]
        note = "the pacer dominates: no difference can be claimed" if any(dominated(one) for one in rounds) else ""
        limit = f"<= {theirs.high:.0f} us, the worst of its rounds" if theirs else "within the spread of its rounds"
        said = _said(mine, theirs.high) if theirs else UNKNOWN
        return Verdict(f"{_title(self.workload)}, p99, {self.ours}", self.against, limit, mine, said, note)


def _title(workload: str) -> str:
    return next((known.title for known in WORKLOADS if known.id == workload), workload)


def _said(found: Spread | None, limit: float) -> str:
    if found is None:
        return UNKNOWN
    return MET if found.median <= limit else MISSED


def _pair(workload: str, compiled: float, interpreted: float) -> list[Target]:
    return [Target(workload, "envoy", compiled), Target(workload, "envoy", interpreted, INTERPRETED)]


TARGETS: Final[Sequence[Target | Bound | Added]] = (
    *_pair("h1-varied", 0.50, 0.75),
    Target("h1-varied", BEST, 1.5),
    *_pair("h2-varied", 0.45, 0.85),
    Target("h2-varied", BEST, 1.3),
    *_pair("mesh-c64", 0.38, 0.60),
    *_pair("mesh-c4", 0.55, 0.80),
    *_pair("mesh-c1", 0.55, 0.65),
    *_pair("grpc-unary", 0.50, 0.80),
    Target("h1-64k", "envoy", 0.55),
    Target("h1-1m", "envoy", 0.80),
    Target("h1-64k", BEST, 1.2),
    Target("h1-1m", BEST, 1.2),
    Target("h2-64k", "envoy", 0.85),
    Target("h2-1m", "envoy", 1.05),
    Target("h2-64k", BEST, 1.15),
    Target("h2-1m", BEST, 1.15),
    Added("latency-2000"),
    Added("mesh-latency-2000"),
    Bound("memory-idle", "forward, idle", 45, "MB", largest_rss_mb),
    Bound("memory-sidecar", "a whole sidecar, idle", 65, "MB", largest_rss_mb),
    Bound("memory-connections", "an idle connection", 3, "kB", per_connection_kb),
    Bound("memory-mtls-connections", "an idle mTLS connection", 35, "kB", per_connection_kb),
)
