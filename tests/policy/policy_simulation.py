"""A discrete-event simulation of one balancer and its replicas: seconds of traffic in milliseconds, repeatable from a seed.

arrivals (Poisson) --pick--> Replica: `servers` requests at a time, the others wait in line --> finish / penalise
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from math import log

from meshproxy.policy.balancer import PEAK_EWMA, Load, Target, pick
from meshproxy.policy.random import Rng


class Replica:
    """Takes `service_s` on average (exponential), serves `servers` requests at once, fails a share of them in `failure_s`.

    Has a Target and is none: a compiled class cannot be extended by an interpreted one.
    """

    def __init__(
        self, name: str, now: float, service_s: float, *, servers: int = 8, failing: float = 0.0, failure_s: float = 1e-6
    ) -> None:
        self.target = Target(Load(now))
        self.load = self.target.load
        self.name = name
        self.service_s = service_s
        self.servers = servers
        self.failing = failing
        self.failure_s = failure_s
        self.busy = 0
        self.line: list[tuple[float, bool, float]] = []  # (arrived, fails, needs)
        self.most_pending = 0


class Simulation:
    """`run(until)` plays arrivals at `rate` a second; counts who got what, and how long clients waited."""

    def __init__(self, replicas: list[Replica], rate: float, seed: int, policy: int = PEAK_EWMA) -> None:
        self.replicas = replicas
        self.targets = [replica.target for replica in replicas]
        self.rate = rate
        self.rng = Rng(seed)  # of the balancer
        self.dice = Rng(seed + 1_000_003)  # of the world
        self.policy = policy
        self.now = 0.0
        self.order = 0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.shares: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.failures = 0
        self.at(self.pause(), self.arrive)

    def pause(self) -> float:
        return -log(1.0 - self.dice.uniform()) / self.rate

    def at(self, delay: float, what: Callable[[], None]) -> None:
        self.order += 1
        heappush(self.events, (self.now + delay, self.order, what))

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heappop(self.events)
            what()
        self.now = until

    def forget(self) -> None:
        """Count afresh from here."""
        self.shares.clear()
        self.latencies.clear()
        self.failures = 0
        for replica in self.replicas:
            replica.most_pending = 0

    def arrive(self) -> None:
        self.at(self.pause(), self.arrive)
        if len(self.targets) != len(self.replicas):
            self.targets = [replica.target for replica in self.replicas]
        chosen = pick(self.targets, self.rng, self.now, None, self.policy)
        assert chosen is not None
        replica = self.replicas[self.targets.index(chosen)]
        replica.load.start(self.now)
        replica.most_pending = max(replica.most_pending, replica.load.pending)
        self.shares[replica.name] += 1
        fails = self.dice.uniform() < replica.failing
        needs = replica.failure_s if fails else -log(1.0 - self.dice.uniform()) * replica.service_s
        if replica.busy < replica.servers:
            self.serve(replica, self.now, fails, needs)
        else:
            replica.line.append((self.now, fails, needs))

    def serve(self, replica: Replica, arrived: float, fails: bool, needs: float) -> None:
        replica.busy += 1
        self.at(needs, lambda: self.done(replica, arrived, fails))

    def done(self, replica: Replica, arrived: float, fails: bool) -> None:
        latency = self.now - arrived
        replica.load.finish(self.now, latency)
        if fails:
            replica.load.penalise(self.now)
            self.failures += 1
        self.latencies.append(latency)
        replica.busy -= 1
        if replica.line:
            self.serve(replica, *replica.line.pop(0))

    def share(self, name: str) -> float:
        return self.shares[name] / sum(self.shares.values())

    def percentile(self, q: float) -> float:
        return sorted(self.latencies)[int(q * (len(self.latencies) - 1))]
