"""Ways to choose a replica: those of others for comparison, and the proxy's own.

round robin, random         everyone's
least loaded                of two drawn, the one with fewer requests in flight (Finagle's p2c, Envoy's least request)
peak EWMA, no penalty       as Linkerd: an answer is a latency, whatever its status
peak EWMA                   ours: a failure is a sample of 1 s (policy/balancer.py)
peak EWMA + breaker         ours with ejection (policy/ejection.py)
least of all                the lowest cost of all endpoints instead of two: what a herd does
"""

from __future__ import annotations

from meshproxy.policy.balancer import LEAST_REQUEST, PEAK_EWMA, Target, pick
from meshproxy.policy.breaker import SUCCESS, BreakerPolicy
from meshproxy.policy.chooser import BalancerPolicy, Chooser
from meshproxy.policy.ejection import Ejection
from meshproxy.policy.random import Rng


class Strategy:
    """One caller's balancer."""

    penalise = True

    def __init__(self, seed: int) -> None:
        self.rng = Rng(seed)
        self.targets: list[Target] = []

    def update(self, targets: list[Target], names: list[bytes], now: float) -> None:
        self.targets = targets

    def pick(self, now: float) -> Target | None:
        raise NotImplementedError

    def ended(self, target: Target, verdict: int, latency_s: float, started: float, now: float) -> None:
        """A request ended; `latency_s` is negative where no answer came."""
        if self.penalise:
            target.load.finish(now, latency_s if latency_s >= 0.0 else None)
            if verdict != SUCCESS:
                target.load.penalise(now)
        else:
            target.load.finish(now, now - started)  # also of what was given up: Linkerd records that, too


class RoundRobin(Strategy):
    next = 0

    def pick(self, now: float) -> Target | None:
        self.next = (self.next + 1) % len(self.targets)
        return self.targets[self.next]


class Random(Strategy):
    def pick(self, now: float) -> Target | None:
        return self.targets[self.rng.below(len(self.targets))]


class TwoChoices(Strategy):
    """`policy`: PEAK_EWMA or LEAST_REQUEST.  `penalise`: whether a failure counts as more than its latency."""

    def __init__(self, seed: int, policy: int = PEAK_EWMA, penalise: bool = True) -> None:
        super().__init__(seed)
        self.policy = policy
        self.penalise = penalise

    def pick(self, now: float) -> Target | None:
        return pick(self.targets, self.rng, now, None, self.policy)


class LeastOfAll(Strategy):
    """`trusting`: an endpoint that nobody has tried is assumed to take no time."""

    def __init__(self, seed: int, trusting: bool) -> None:
        super().__init__(seed)
        self.trusting = trusting

    def update(self, targets: list[Target], names: list[bytes], now: float) -> None:
        if self.trusting:
            for target in targets:
                if target not in self.targets:
                    target.load.renew(now, 1e-6)
        super().update(targets, names, now)

    def pick(self, now: float) -> Target | None:
        return min(self.targets, key=lambda target: target.load.cost(now))


class Declared(Strategy):
    """What a service with annotations gets: a chooser, and a breaker if it declares one."""

    def __init__(self, seed: int, policy: BalancerPolicy, breaker: BreakerPolicy | None = None) -> None:
        super().__init__(seed)
        self.policy = policy
        self.breaker = breaker
        self.ejection = Ejection(breaker, self.rng) if breaker is not None else None
        self.chooser: Chooser | None = None
        self.key: bytes | None = None
        self.most_out = 0

    def update(self, targets: list[Target], names: list[bytes], now: float) -> None:
        super().update(targets, names, now)
        if self.ejection is not None and self.breaker is not None:
            self.ejection.update(targets, self.breaker, now)
        self.chooser = Chooser(targets, names, self.policy, self.rng, self.ejection)

    def pick(self, now: float) -> Target | None:
        assert self.chooser is not None
        return self.chooser.pick(now, None, self.key)

    def ended(self, target: Target, verdict: int, latency_s: float, started: float, now: float) -> None:
        super().ended(target, verdict, latency_s, started, now)
        ejection = target.ejection
        if ejection is not None:
            ejection.record(target, verdict, started, now)
            self.most_out = max(self.most_out, len(ejection.out))


def round_robin(seed: int) -> Strategy:
    return RoundRobin(seed)


def at_random(seed: int) -> Strategy:
    return Random(seed)


def least_loaded(seed: int) -> Strategy:
    return TwoChoices(seed, LEAST_REQUEST)


def ewma_without_penalty(seed: int) -> Strategy:
    return TwoChoices(seed, PEAK_EWMA, penalise=False)


def ewma(seed: int) -> Strategy:
    return TwoChoices(seed)


def least_of_all(seed: int) -> Strategy:
    return LeastOfAll(seed, False)


def herd(seed: int) -> Strategy:
    return LeastOfAll(seed, True)


def ewma_with_breaker(seed: int) -> Declared:
    return Declared(seed, BalancerPolicy(), BreakerPolicy())


def ewma_with_slow_start(seed: int) -> Declared:
    return Declared(seed, BalancerPolicy(slow_start_s=30.0))
