"""Which endpoint gets the next request, where a backend declares more than the default (policy/balancer.py).

    request --> an ejected endpoint is to be probed? --> that one
            --> it has a key (consistent hash)?      --> whose key it is
            --> otherwise  two drawn in proportion to weight x warmth        the cheaper one
                           first among those of our zone  ------------->     clearly dearer? two of the others

**Weights** say capacity.  They count in the drawing, so that shares are exact while there is little to compare, and in the
cost, as   latency x (pending / weight + 1):   with nothing in flight both are equal in price, and under load it is
pending *per capacity* that is evened out.  (With the whole cost divided by the weight, one of weight 2 beside one of weight
1 would win every comparison while nothing is in flight.)  With unequal weights the two may be the same one: of two endpoints
with weights 9 and 1, two different ones would always be both, and chance would give them half each.  The same one drawn
twice takes the request unless another is clearly cheaper.

**Zones.**  The cheaper of two in our own zone takes the request unless it costs more than CLEARLY times the cheaper of two
outside it.  So a zone that is short of capacity, slow, or failing spills what is too much for it, and no more; one whose
endpoints are all gone spills everything.  Traffic between zones is paid for, so a small difference is none.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, TypeVar

from meshproxy.policy.balancer import LEAST_REQUEST, PEAK_EWMA, Target
from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.consistent_hash import HashKey, Maglev, Ring, Table, hash_key
from meshproxy.policy.ejection import Ejection
from meshproxy.policy.random import Rng
from meshproxy.policy.slow_start import warmth

MAGLEV: Final = 2
RING_HASH: Final = 3

BALANCERS: Final = {"ewma": PEAK_EWMA, "least-request": LEAST_REQUEST, "maglev": MAGLEV, "ring-hash": RING_HASH}

# How many times dearer is clearly dearer.  Estimates of equals differ by a factor of some at any moment (a peak counts in
# full), and that alone must not send requests abroad, nor shift shares: simulated with three equal zones, 12 % leave at a
# factor of 5, 2.5 % at 10, 0.7 % at 20; with 25 % more load than the zone can serve 31 %, 23 % and 20 % leave.
CLEARLY: Final = 10.0

_REDRAWS: Final = 8  # of an endpoint that is not warm yet; then it is taken as it is


class BalancerPolicy:
    """How a service's endpoints are chosen; immutable, part of the tables.  Raises ValueError.

    balancer        PEAK_EWMA, LEAST_REQUEST, MAGLEV, RING_HASH
    key             of the last two
    slow_start_s    0.0: none
    zone            ours, if those in it are to be preferred; "": no preference
    breaker         when an endpoint is left out; None: never
    """

    __slots__ = ("balancer", "breaker", "key", "slow_start_s", "zone")

    def __init__(
        self,
        balancer: int = PEAK_EWMA,
        key: HashKey | None = None,
        slow_start_s: float = 0.0,
        zone: str = "",
        breaker: BreakerPolicy | None = None,
    ) -> None:
        if balancer in (MAGLEV, RING_HASH) and key is None:
            raise ValueError("a balancer by consistent hash needs a key: header=NAME or cookie=NAME")
        if not 0.0 <= slow_start_s <= 3600.0:
            raise ValueError(f"slow start must be 0 to 3600 seconds, not {slow_start_s}")
        self.balancer = balancer
        self.key = key
        self.slow_start_s = slow_start_s
        self.zone = zone
        self.breaker = breaker


T = TypeVar("T", bound=Target)


class Group:
    """Targets to draw from, with their weights."""

    def __init__(self, targets: list[Target]) -> None:
        self.targets = targets
        self.mean = 1.0
        self.sums: list[float] | None = None  # of the weights, cumulative; None: all are equal
        weights = [target.weight for target in targets]
        if weights and min(weights) < max(weights):
            self.mean = sum(weights) / len(weights)
            self.sums = []
            total = 0.0
            for weight in weights:
                total += weight
                self.sums.append(total)

    def draw(self, rng: Rng) -> Target:
        """One of at least one."""
        sums = self.sums
        if sums is None:
            return self.targets[rng.below(len(self.targets))]
        at = bisect_right(sums, rng.uniform() * sums[-1])
        return self.targets[min(at, len(self.targets) - 1)]

    def other(self, than: Target, rng: Rng) -> Target:
        """One that is not `than`, each as likely, whatever its weight; `than` if there is no other."""
        targets = self.targets
        n = len(targets)
        at = rng.below(n)
        if targets[at] is not than:
            return targets[at]
        return targets[(at + 1 + rng.below(n - 1)) % n] if n > 1 else than


class Chooser:
    """The choice for one backend, of these targets; made anew when they or their weights change.

    names       what every proxy calls them ("address:port"), in the order of `targets`; only consistent hashes ask
    ejection    the backend's, if it declares a breaker
    """

    def __init__(
        self, targets: list[Target], names: list[bytes], policy: BalancerPolicy, rng: Rng, ejection: Ejection | None = None
    ) -> None:
        self.targets = targets
        self.policy = policy
        self.rng = rng
        self.ejection = ejection
        self.table: Table | None = None
        if policy.balancer == MAGLEV:
            self.table = Maglev(names, targets)
        elif policy.balancer == RING_HASH:
            self.table = Ring(names, targets)
        self.all = Group(targets)
        self.near: Group | None = None
        self.far: Group | None = None
        if policy.zone:
            near = [target for target in targets if target.zone == policy.zone]
            if near and len(near) < len(targets):
                self.near = Group(near)
                self.far = Group([target for target in targets if target.zone != policy.zone])
        self.facts = [(target.weight, target.zone) for target in targets]
        # Until when some endpoint is not warm: after that nobody has to look.
        self.cold_until = max([target.since for target in targets], default=0.0) + policy.slow_start_s

    def fits(self, targets: list[Target]) -> bool:
        """Is it still the choice for these: the same, in the same order, with the same weights and zones?"""
        return targets == self.targets and self.facts == [(target.weight, target.zone) for target in targets]

    def pick(
        self, now: float, exclude: Target | None = None, key: bytes | None = None, told: list[Target] | None = None
    ) -> Target | None:
        """The target for the next request; None if none is available.  `exclude` has just failed this request: it is taken
        again only if no other is available.  `told`: those that told this request to wait, which are not taken.  `key`: of the
        request, for a consistent hash."""
        ejection = self.ejection
        if ejection is not None:
            if ejection.out:
                out = ejection.out if told is None else [target for target in ejection.out if target not in told]
                probed = ejection.probe(out, now, exclude)
                if probed is not None:
                    return probed
            back = ejection.returned_at
            if back > 0.0:
                self.cold_until = max(self.cold_until, back + self.policy.slow_start_s)
        table = self.table
        if table is not None and key is not None:
            chosen = table.at(hash_key(key), exclude, told)
        else:
            near = self.near
            far = self.far
            if near is None or far is None:
                chosen = self._cheaper_of_two(self.all, now, exclude, told)
            else:
                chosen = self._cheaper_of_two(near, now, exclude, told)
                other = self._cheaper_of_two(far, now, exclude, told)
                if chosen is None or (
                    other is not None and self.cost(chosen, near, now) > CLEARLY * self.cost(other, far, now)
                ):
                    chosen = other
        if chosen is None and exclude is not None and exclude.available and exclude in self.targets:
            return exclude if told is None or exclude not in told else None
        return chosen

    def cost(self, target: Target, group: Group, now: float) -> float:
        """What one more request there costs, seconds (least request: requests)."""
        capacity = target.weight / group.mean
        if now < self.cold_until:
            capacity *= warmth(now, target.since, self.policy.slow_start_s)
        load = target.load
        if self.policy.balancer == LEAST_REQUEST:
            return load.pending / capacity + 1.0
        return load.latency(now) * (load.pending / capacity + 1.0)

    def _cheaper_of_two(self, group: Group, now: float, exclude: Target | None, told: list[Target] | None) -> Target | None:
        if not group.targets:
            return None
        first = self._draw(group, now, None)
        second = self._draw(group, now, first)
        if not (first.available and second.available) or first is exclude or second is exclude or told is not None:
            # Rare: draw from what remains.
            remaining = [target for target in group.targets if target.available and target is not exclude]
            if told is not None:
                remaining = [target for target in remaining if target not in told]
            if not remaining:
                return None
            group = Group(remaining)
            first = self._draw(group, now, None)
            second = self._draw(group, now, first)
        if second is first:
            if len(group.targets) == 1:
                return first
            second = group.other(first, self.rng)
            # By latency alone: a small one may bear little, and still be the one that works.
            return second if CLEARLY * second.load.latency(now) < first.load.latency(now) else first
        return second if self.cost(second, group, now) < self.cost(first, group, now) else first

    def _draw(self, group: Group, now: float, first: Target | None) -> Target:
        """One in proportion to weight and warmth; where nothing is unequal, another one than `first`."""
        rng = self.rng
        if now >= self.cold_until:
            return group.other(first, rng) if group.sums is None and first is not None else group.draw(rng)
        window = self.policy.slow_start_s
        target = group.draw(rng)
        for _ in range(_REDRAWS):
            if rng.uniform() < warmth(now, target.since, window):
                break
            target = group.draw(rng)
        return target
