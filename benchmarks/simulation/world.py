"""A discrete-event simulation of callers that balance over replicas.

    Caller (Poisson arrivals) --strategy.pick--> Replica: `servers` at a time, the others wait in line --> answer
         ^                                                                                             |
         +--- success | failure | late (its deadline passed; what waits in line for nobody is skipped) --+

Chance comes from generators with seeds: one for the world, one for each strategy, so that two strategies of one seed meet
the same arrivals and the same work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from math import log
from typing import Any

from benchmarks.simulation.strategies import Strategy
from meshproxy.policy.balancer import Load, Target
from meshproxy.policy.breaker import FAILURE, LIMITED, SUCCESS
from meshproxy.policy.random import Rng


class World:
    """The clock, and what happens when."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.dice = Rng(seed)
        self._order = 0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, delay: float, what: Callable[..., None], *arguments: Any) -> None:
        self._order += 1
        heappush(self._events, (self.now + delay, self._order, what, arguments))

    def run(self, until: float) -> None:
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, what, arguments = heappop(events)
            what(*arguments)
        self.now = until

    def exponential(self, mean: float) -> float:
        return -log(1.0 - self.dice.uniform()) * mean


class Request:
    __slots__ = ("caller", "cls", "endpoint", "over", "started")

    def __init__(self, caller: Caller, endpoint: Endpoint, started: float, cls: int) -> None:
        self.caller = caller
        self.endpoint = endpoint
        self.started = started
        self.cls = cls
        self.over = False


class Replica:
    """One process of the service.

    service_s   mean time of one request (exponential)
    servers     requests at once; the others wait in line
    failing     share that is answered 503 after `failure_s`
    gate        its own concurrency limit (policy.concurrency), if it has one
    """

    def __init__(
        self,
        world: World,
        name: str,
        service_s: float,
        *,
        servers: int = 8,
        failing: float = 0.0,
        failure_s: float = 1e-6,
        zone: str = "",
        weight: float = 1.0,
        gate: Any = None,
    ) -> None:
        self.world = world
        self.name = name
        self.service_s = service_s
        self.servers = servers
        self.failing = failing
        self.failure_s = failure_s
        self.zone = zone
        self.weight = weight
        self.gate = gate
        self.busy = 0
        self.line: list[Request] = []
        self.most = 0  # requests at it at once

    def take(self, request: Request) -> None:
        if self.gate is not None and not self.gate.admit(request.cls, self.world.now):
            self.world.at(0.0, request.caller.answered, request, LIMITED)
            return
        self.most = max(self.most, self.busy + len(self.line) + 1)
        if self.world.dice.uniform() < self.failing:
            self.world.at(self.failure_s, self.answer, request, FAILURE)
        elif self.busy < self.servers:
            self.serve(request)
        else:
            self.line.append(request)

    def serve(self, request: Request) -> None:
        self.busy += 1
        self.world.at(self.world.exponential(self.service_s), self.served, request)

    def served(self, request: Request) -> None:
        self.busy -= 1
        self.answer(request, SUCCESS)
        while self.line and self.busy < self.servers:
            following = self.line.pop(0)
            if following.over:  # its client has given it up
                self.leave(following)
            else:
                self.serve(following)

    def answer(self, request: Request, verdict: int) -> None:
        self.leave(request)
        if not request.over:
            request.caller.answered(request, verdict)

    def leave(self, request: Request) -> None:
        if self.gate is not None:
            self.gate.release(request.cls, self.world.now, self.world.now - request.started, request.over)


class Endpoint:
    """A replica as one caller knows it.  Has a Target and is none: an interpreted class cannot extend a compiled one."""

    def __init__(self, replica: Replica, now: float) -> None:
        self.replica = replica
        self.target = Target(Load(now))
        self.target.since = now
        self.target.zone = replica.zone
        self.target.weight = replica.weight


class Caller:
    """One client proxy: makes requests at `rate` a second, each with a deadline (0.0: none), and counts how they end.

    classes     shares of the three priority classes
    """

    def __init__(
        self,
        world: World,
        replicas: list[Replica],
        strategy: Strategy,
        rate: float,
        deadline_s: float = 1.0,
        classes: tuple[float, float, float] = (0.0, 1.0, 0.0),
    ) -> None:
        self.world = world
        self.strategy = strategy
        self.rate = rate
        self.deadline_s = deadline_s
        self.classes = classes
        self.endpoints: list[Endpoint] = []
        self.by_target: dict[Target, Endpoint] = {}
        self.forget()
        self.know(replicas)
        world.at(world.exponential(1.0 / rate), self.arrive)

    def forget(self) -> None:
        """Count afresh from here: requests that begin later, and no other."""
        self.since = self.world.now
        self.made: Counter[int] = Counter()  # requests that ended, by class
        self.good: Counter[int] = Counter()  # those answered well and in time
        self.late = 0
        self.refused = 0  # by nobody asked: no endpoint was available
        self.shares: Counter[str] = Counter()
        self.latencies: list[float] = []

    def know(self, replicas: list[Replica]) -> None:
        """These are the replicas now; those known before are the same endpoints."""
        known = {endpoint.replica: endpoint for endpoint in self.endpoints}
        self.endpoints = [known.get(replica) or Endpoint(replica, self.world.now) for replica in replicas]
        self.by_target = {endpoint.target: endpoint for endpoint in self.endpoints}
        names = [endpoint.replica.name.encode() for endpoint in self.endpoints]
        self.strategy.update([endpoint.target for endpoint in self.endpoints], names, self.world.now)

    def draw_class(self) -> int:
        at = self.world.dice.uniform()
        for cls, share in enumerate(self.classes):
            at -= share
            if at < 0.0:
                return cls
        return 1

    def arrive(self) -> None:
        world = self.world
        world.at(world.exponential(1.0 / self.rate), self.arrive)
        cls = self.draw_class()
        target = self.strategy.pick(world.now)
        if target is None:
            self.refused += 1
            self.made[cls] += 1
            return
        endpoint = self.by_target[target]
        target.load.start(world.now)
        self.shares[endpoint.replica.name] += 1
        request = Request(self, endpoint, world.now, cls)
        if self.deadline_s > 0.0:
            world.at(self.deadline_s, self.expire, request)
        endpoint.replica.take(request)

    def answered(self, request: Request, verdict: int) -> None:
        request.over = True
        now = self.world.now
        latency = now - request.started
        if request.started > self.since:
            self.made[request.cls] += 1
            if verdict == SUCCESS:
                self.good[request.cls] += 1
                self.latencies.append(latency)
        self.strategy.ended(request.endpoint.target, verdict, latency, request.started, now)

    def expire(self, request: Request) -> None:
        if not request.over:
            request.over = True
            if request.started > self.since:
                self.late += 1
                self.made[request.cls] += 1
            self.strategy.ended(request.endpoint.target, FAILURE, -1.0, request.started, self.world.now)

    # -- what came of it

    def success(self, cls: int | None = None) -> float:
        """Share of the requests (of one class) that were answered well within their deadline."""
        made = sum(self.made.values()) if cls is None else self.made[cls]
        good = sum(self.good.values()) if cls is None else self.good[cls]
        return good / made if made else 0.0

    def share(self, name: str) -> float:
        return self.shares[name] / max(1, sum(self.shares.values()))

    def percentile(self, q: float) -> float:
        """Of the latencies of good answers, seconds."""
        ordered = sorted(self.latencies)
        return ordered[int(q * (len(ordered) - 1))] if ordered else 0.0
