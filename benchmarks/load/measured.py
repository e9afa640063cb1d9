"""What a load generator reports, and what it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


@dataclass(frozen=True)
class Ask:
    """One run against `address` (HOST:PORT).  `paths` are used in turn; one path means identical requests.

    `connections` times `streams` requests are in flight at a time, for `seconds`."""

    address: str
    authority: str
    paths: Sequence[str]
    connections: int
    streams: int
    seconds: float
    body: int = 0  # bytes; above 0 requests are POSTs that carry as many

    @property
    def varied(self) -> bool:
        return len(self.paths) > 1


@dataclass(frozen=True)
class Load:
    """`errors`: requests that failed or were answered other than 2xx, and connections lost.  Latencies in microseconds."""

    requests: int
    seconds: float
    errors: int
    latency_us: Mapping[str, float] = field(default_factory=dict)
    warm: int = 0  # requests of this run that were sent and are not in `requests`; the proxy's CPU has them
    extra: Mapping[str, Any] = field(default_factory=dict)  # what only this generator knows; kept in the results


def percentiles(sorted_us: Sequence[float]) -> dict[str, float]:
    """Of a sorted list, nearest rank; {} if it is empty."""
    if not sorted_us:
        return {}
    last = len(sorted_us) - 1
    return {name: sorted_us[min(last, int(len(sorted_us) * value / 100))] for name, value in PERCENTILES.items()}
