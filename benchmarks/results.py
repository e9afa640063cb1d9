"""Results JSON, read: rounds by workload and peer, medians, and ratios computed per round.

    {"machine": {...}, "peers": {name: {title, version, settings}}, "missing": {peer: why}, "skipped": [...],
     "rounds": [{"workload", "peer", "round", "requests", "seconds", "cpu_us": {"A": .., "B": ..},
                 "rss": {"A": bytes}, "latency_us": {"p50", ...}, "errors": 0, "invalid": why, ...}]}

A ratio compares two peers inside one round, minutes apart at most, and only then takes the median over rounds: the machine's
mood changes by 30 % between rounds, and so divides out.  A round that is `invalid` is no measurement: it is listed, never used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Round = Mapping[str, Any]
Reading = Callable[[Round], float | None]


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of `count` rounds."""

    median: float
    low: float
    high: float
    count: int


class Results:
    """Raises ValueError if `data` is not results JSON."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        if not isinstance(data.get("rounds"), list):
            raise ValueError('not results of `make bench`: no list "rounds"')
        self.machine: Mapping[str, Any] = data.get("machine", {})
        self.missing: Mapping[str, str] = data.get("missing", {})
        self.skipped: list[Any] = data.get("skipped", [])
        self.peers: Mapping[str, Mapping[str, str]] = data.get("peers", {})
        self.finished = bool(data.get("finished", True))
        self.failed = [one for one in data["rounds"] if one.get("errors") or "invalid" in one]
        self.rounds = [one for one in data["rounds"] if not one.get("errors") and "invalid" not in one]

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(json.loads(path.read_text()))

    def peers_of(self, workload: str) -> list[str]:
        """In the order they were first measured."""
        return list(dict.fromkeys(one["peer"] for one in self.rounds if one["workload"] == workload))

    def by_round(self, workload: str, peer: str, reading: Reading) -> dict[int, float]:
        found = {}
        for one in self.rounds:
            if one["workload"] == workload and one["peer"] == peer:
                value = reading(one)
                if value is not None:
                    found[int(one["round"])] = value
        return found

    def spread(self, workload: str, peer: str, reading: Reading) -> Spread | None:
        return spread(self.by_round(workload, peer, reading).values())

    def ratio(self, workload: str, ours: str, peer: str, reading: Reading) -> Spread | None:
        """ours / peer, of the rounds both have; None without any."""
        over = self.by_round(workload, peer, reading)
        mine = self.by_round(workload, ours, reading)
        return spread(value / over[number] for number, value in mine.items() if over.get(number))

    def best(self, workload: str, peers: Iterable[str], reading: Reading) -> str | None:
        """The peer with the least median."""
        known = {peer: found.median for peer in peers if (found := self.spread(workload, peer, reading))}
        return min(known, key=lambda peer: known[peer]) if known else None


def spread(values: Iterable[float]) -> Spread | None:
    listed = sorted(values)
    return Spread(median(listed), listed[0], listed[-1], len(listed)) if listed else None


# -- readings


def cpu_us(one: Round) -> float | None:
    """CPU microseconds a request, all proxies of the path together."""
    used = one.get("cpu_us")
    return sum(used.values()) if used else None


def cpu_of(role: str) -> Reading:
    def read(one: Round) -> float | None:
        return (one.get("cpu_us") or {}).get(role)

    return read


def rate(one: Round) -> float | None:
    return one["requests"] / one["seconds"] if one.get("seconds") and one.get("requests") else None


def latency(name: str) -> Reading:
    def read(one: Round) -> float | None:
        return (one.get("latency_us") or {}).get(name)

    return read


def per_connection_kb(one: Round) -> float | None:
    """kB (1e3 bytes) that each idle connection added, to all proxies of the path together."""
    if "rss_before" not in one or not one.get("connections"):
        return None
    grown = sum(one["rss"].values()) - sum(one["rss_before"].values())
    return float(grown / one["connections"] / 1000)


def lateness(one: Round) -> float | None:
    """Open loop: how late the generator itself was, p99 in us."""
    return (one.get("late_us") or {}).get("p99")


def response_p99(one: Round) -> float | None:
    """Open loop: p99 in us, less the generator's own lateness."""
    return (one.get("response_us") or {}).get("p99")


def largest_rss_mb(one: Round) -> float | None:
    """Of the proxies of the path the largest one, in MB (1e6 bytes)."""
    used = one.get("rss")
    return max(used.values()) / 1e6 if used else None


def dominated(one: Round) -> bool:
    """The open-loop generator was as late as what it measured."""
    return bool(one.get("pacer_dominates"))
