"""Outlier ejection: which of a backend's endpoints are out, how many may be, and who tries them again.

    an attempt ends --record--> breaker says TRIPPED --room under the cap?--> out of `pick`'s sight  (available = False)
                                                     \\--no--> spared: it stays, and pays by its estimate alone

    a request comes --probe--> an endpoint whose penalty is over takes this one request, and no other until it has ended
                                  success: back, as a new endpoint (slow start, estimate as at first)
                                  failure: out for twice as long

**Why a cap.**  Where most endpoints fail, the fault is seldom theirs: it is what they all depend on, or the requests.
Putting them all out makes a service that answers half of its requests answer none (docs/balancing.md has the figures).
At most `max_ejected` of them are out at once (half); of two or more always at least one may be, and one always stays.
With 1.0 the cap is off: then all can be out, and requests fail at once until a probe succeeds (failfast: policy of who would
rather shed load than offer it; Linkerd has no other).

An endpoint that is out leaves the choice: the cost of all this while nothing is out is one `record` an attempt.
"""

from __future__ import annotations

from typing import Final, TypeVar

from meshproxy.policy.balancer import Target
from meshproxy.policy.breaker import (
    CLOSED,
    NOTHING,
    RECOVERED,
    RELAPSED,
    TRIPPED,
    UNDECIDED,
    Breaker,
    BreakerPolicy,
)
from meshproxy.policy.random import Rng

T = TypeVar("T", bound=Target)

# What `noted` is told.
EJECTED: Final = 0
RETURNED: Final = 1
SPARED: Final = 2


def allowed(members: int, max_ejected: float) -> int:
    """How many of `members` endpoints may be out at once."""
    if max_ejected >= 1.0:
        return members
    if max_ejected <= 0.0 or members < 2:
        return 0
    # the margin is for shares such as 0.29, of which a hundred are 28.999999999999996
    return max(1, min(int(members * max_ejected + 1e-9), members - 1))


class Ejection:
    """The endpoints of one backend.  Lives as long as the backend does, over configuration updates.

    out         those that are out, in the order in which they went
    ejected     how often one was put out, repeated failures of probes included
    spared      how often one should have been, and the cap kept it in
    returned_at when one last came back, 0.0 if none ever did
    """

    def __init__(self, policy: BreakerPolicy, rng: Rng) -> None:
        self.policy = policy
        self.rng = rng
        self.members: list[Target] = []
        self.out: list[Target] = []
        self.ejected = 0
        self.spared = 0
        self.returned_at = 0.0

    def update(self, members: list[Target], policy: BreakerPolicy, now: float) -> None:
        """These are the endpoints now, and these the rules.  Who stays keeps his state; if more are out than may be (the
        others went), those that have been out longest are let in."""
        self.policy = policy
        staying = set(members)
        for target in self.members:
            if target not in staying:
                self._leave(target)
        self.members = list(members)
        self.out = [target for target in self.out if target in staying]
        for target in members:
            breaker = target.breaker
            if breaker is None:
                target.breaker = Breaker(policy)
                target.ejection = self
            elif breaker.policy is not policy:
                breaker.reconfigure(policy)
        while len(self.out) > allowed(len(members), policy.max_ejected):
            self._return(self.out[0], now)

    def dissolve(self) -> None:
        """No breaker any more: the declaration went.  Everyone is let in."""
        members = self.members
        self.members = []
        self.out = []
        for target in members:
            self._leave(target)

    def record(self, target: Target, verdict: int, started: float, now: float) -> None:
        """An attempt at `target`, begun at `started`, ended with `verdict` (policy.breaker)."""
        breaker = target.breaker
        if breaker is None:
            return
        found = breaker.record(verdict, started, now)
        if found == NOTHING:
            return
        if found == TRIPPED:
            if len(self.out) >= allowed(len(self.members), self.policy.max_ejected):
                self.spared += 1
                self.noted(target, SPARED)
                return
            self.out.append(target)
            self._eject(target, breaker, now)
        elif found == RELAPSED:
            self._eject(target, breaker, now)
        elif found == UNDECIDED:
            breaker.wait()
        elif found == RECOVERED:
            self._return(target, now)

    def probe(self, candidates: list[T], now: float, exclude: T | None = None) -> T | None:
        """One of `candidates` that is to be tried again, marked as being probed; None if there is none.  Who calls this
        sends it the request at hand.  Not the one that has just failed that request."""
        for target in candidates:
            breaker = target.breaker
            if breaker is not None and target is not exclude and breaker.due(now):
                breaker.probe(now)
                return target
        return None

    def noted(self, target: Target, what: int) -> None:
        """`target` was ejected, has returned, or was spared.  For who wants to know (proxy/backends.py)."""

    def _eject(self, target: Target, breaker: Breaker, now: float) -> None:
        self.ejected += 1
        breaker.open(now, self.rng.uniform())
        target.settle()
        self.noted(target, EJECTED)

    def _return(self, target: Target, now: float) -> None:
        breaker = target.breaker
        assert breaker is not None
        breaker.close(now)
        self.out.remove(target)
        target.load.renew(now)
        target.since = now
        self.returned_at = now
        target.settle()
        self.noted(target, RETURNED)

    def _leave(self, target: Target) -> None:
        target.breaker = None
        target.ejection = None
        target.settle()


def is_out(target: Target) -> bool:
    """Has its breaker put it out (or is it being probed)?"""
    breaker = target.breaker
    return breaker is not None and breaker.state != CLOSED
