"""What happens to the requests of both arms, look by look.

    plan(second) -> the canary's share      a model -> Counts of each half second: failed and all, canary and primary

A burst is a run of consecutive requests that all fail.  `shared`: of the whole stream, whichever arm they are for (a database
hiccup).  `own`: of one arm (a pod that loses a connection with all that was on it); an arm has as many of them, by its share of
the requests, as the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log, log1p, pi, sin
from random import Random

from control.canary.evidence.sequence import Counts

SECONDS = 600
LOOKS = 2  # a second
RATE = 100  # requests a second, both arms together
LEAD_S = 10  # the canary's pods start: only the primary is seen
STEP_S = 60
WEIGHTS = (0.10, 0.20, 0.30, 0.40, 0.50)  # a minute each, then the last one until the end


def climbing(second: int) -> float:
    return WEIGHTS[min((second - LEAD_S) // STEP_S, len(WEIGHTS) - 1)] if second >= LEAD_S else 0.0


def binomial(rng: Random, n: int, p: float) -> int:
    """Failures of `n` requests: the gaps between them are geometric, so rare ones cost little."""
    if p <= 0.0 or n <= 0:
        return 0
    if p >= 1.0:
        return n
    if p > 0.5:
        return n - binomial(rng, n, 1.0 - p)
    scale, at, found = log1p(-p), 0, 0
    while True:
        at += int(log(1.0 - rng.random()) / scale) + 1
        if at > n:
            return found
        found += 1


Rates = Callable[[int], tuple[float, float]]  # second -> failure rates of (canary, primary)


@dataclass(frozen=True)
class Stream:
    """One model of traffic.  `bad`: it should be rolled back."""

    name: str
    title: str
    rates: Rates
    bad: bool = False
    shared_bursts: tuple[float, float] = (0.0, 1.0)  # bursts a second, mean length in requests
    own_bursts: tuple[float, float] = (0.0, 1.0)
    brief: bool = False  # bursts of its own are over after a look or two: a lost connection, not a pod that is down
    plan: Callable[[int], float] = climbing
    rate: int = RATE
    since: int = LEAD_S  # second from which the canary is bad

    def play(self, seed: int) -> Iterator[Counts]:
        rng = Random(f"{self.name}/{seed}")
        due = every = 0.0
        left: dict[str, int] = {}  # requests that a burst still takes
        for look in range(SECONDS * LOOKS):
            second = look // LOOKS
            share = self.plan(second)
            every += self.rate / LOOKS
            due += self.rate / LOOKS * share
            canary = int(due)  # the split is exact (meshproxy/policy/split.py)
            due -= canary
            primary = max(0, int(every) - canary)
            every -= canary + primary
            p1, p0 = self.rates(second)
            hit1 = hit0 = 0
            if self.shared_bursts[0]:
                often, length = self.shared_bursts
                hit = _burst(rng, left, "all", often / LOOKS, length, canary + primary)
                hit1 = _drawn(rng, hit, canary, primary)
                hit0 = hit - hit1
            if self.own_bursts[0]:
                often, length = self.own_bursts
                hit1 = _burst(rng, left, "canary", often * share / LOOKS, length, canary)
                hit0 = _burst(rng, left, "primary", often * (1.0 - share) / LOOKS, length, primary)
                if self.brief and rng.random() < 0.5:  # half of them lie across a look
                    left.clear()
            yield Counts(hit1 + binomial(rng, canary - hit1, p1), canary, hit0 + binomial(rng, primary - hit0, p0), primary)


def _drawn(rng: Random, hit: int, canary: int, primary: int) -> int:
    """How many of `hit` requests are the canary's: drawn without putting back."""
    found = 0
    for done in range(hit):
        found += rng.random() * (canary + primary - done) < canary - found
    return found


def _burst(rng: Random, left: dict[str, int], whose: str, often: float, length: float, requests: int) -> int:
    """How many of an arm's requests of this look fall into bursts; what does not fit goes into the next one."""
    if rng.random() < often:
        left[whose] = left.get(whose, 0) + 1 + int(log(1.0 - rng.random()) / log1p(-1.0 / length))
    hit = min(left.get(whose, 0), requests)
    left[whose] = left.get(whose, 0) - hit
    return hit


def steady(canary: float, primary: float) -> Rates:
    return lambda second: (canary, primary)


def drifting(second: int) -> tuple[float, float]:
    """Both arms: from 0.1 % to 5 % and back, twice."""
    rate = 0.001 + 0.049 * (0.5 - 0.5 * sin(pi / 2 + 2 * pi * second / (SECONDS / 2)))
    return rate, rate


def outage(second: int) -> tuple[float, float]:
    """Both arms: half of all requests fail for 30 s, when the canary already has half of the traffic."""
    rate = 0.5 if 270 <= second < 300 else 0.001
    return rate, rate


def late(second: int) -> tuple[float, float]:
    return (0.001 if second < 300 else 0.051), 0.001


def small(second: int) -> float:
    return 0.10 if second >= LEAD_S else 0.0


ONE = steady(0.001, 0.001)
STREAMS = (
    Stream("aa", "both fail 0.1 %", ONE),
    Stream("aa-1", "both fail 1 %", steady(0.01, 0.01)),
    Stream("aa-5", "both fail 5 %", steady(0.05, 0.05)),
    Stream("margin", "just at the margin: 1.1 % and 0.1 %", steady(0.011, 0.001)),
    Stream("shared-bursts", "shared bursts: one in 5 s, 20 requests", ONE, shared_bursts=(0.2, 20.0)),
    Stream("own-bursts", "own bursts: one in 10 s, 5 requests", ONE, own_bursts=(0.1, 5.0)),
    Stream("own-bursts-20", "own bursts: one in 20 s, 20 at once", ONE, own_bursts=(0.05, 20.0), brief=True),
    Stream("own-outages", "own bursts: one in 20 s, 20 however long", ONE, own_bursts=(0.05, 20.0)),
    Stream("drifting", "drift: both between 0.1 % and 5 %", drifting),
    Stream("outage", "shared outage: half fail for 30 s", outage),
    Stream("plus-5", "5.1 % fail, 0.1 % of the primary's", steady(0.051, 0.001), bad=True),
    Stream("plus-5-of-1", "6 % fail, 1 % of the primary's", steady(0.06, 0.01), bad=True),
    Stream("plus-5-bursts", "5 points more, with own bursts", steady(0.051, 0.001), bad=True, own_bursts=(0.1, 5.0)),
    Stream("plus-5-late", "5 points more after 5 minutes", late, bad=True, since=300),
    Stream("fifth", "20 % fail", steady(0.2, 0.001), bad=True),
    Stream("fifth-slow", "20 % fail, one request a second", steady(0.2, 0.001), bad=True, plan=small, rate=10),
    Stream("all", "all fail", steady(1.0, 0.001), bad=True),
)
