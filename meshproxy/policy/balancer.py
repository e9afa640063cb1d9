"""Which endpoint gets the next request: power of two choices over peak-EWMA latency.

    candidates: available, not excluded          two different ones, drawn uniformly        the cheaper one
    [ a  b  c  d  e ]                    ------>  [ b  d ]                           ------>  d
                                                    |  |
                                      cost = estimate x (pending + 1)

Two draws are enough: the chance that a slow endpoint is compared only with slower ones falls with every healthy one,
while no endpoint is ever the favourite of all callers at once (a global minimum would be: the thundering herd).

**The estimate** (Load) is an exponentially weighted moving average of time to first response data that follows a rise
at once and a fall slowly (Finagle's and Linkerd's peak-EWMA, with Linkerd's constants):

    sample R, time D since the last sample, w = exp(-D / decay)
    R >= E     E := R                     a peak counts in full
    R <  E     E := w * E + (1 - w) * R
    reading    E * w                      an endpoint that nobody uses looks better with time, so it is tried again

**Reading does not write.**  Linkerd and Finagle treat every read as a sample of zero, which restarts D.  The decay composes
(exp(-a)exp(-b) = exp(-(a+b))), but the next real sample is then weighed with the time since the last *look*: in a busy
proxy that is microseconds, so its weight is about nothing and E sinks until a peak lifts it again.  Here a read is a
projection; how often an endpoint is looked at changes nothing.

**Failures must not look fast.**  An endpoint that answers 500 in a microsecond would win every comparison.  A failure
therefore counts as a sample of a penalty, not of its latency.  The penalty is *weighed* like any sample, not taken as a
peak: the estimate becomes (share of failures lately) x 1 s + latency, the expected price of sending a request there.
With peaks, an application with 1 % errors everywhere would throw one endpoint after the other out for a minute each.
Where the endpoint could not even be reached, `unreachable` does take the peak: that is not a matter of degree.

What this cannot see: an endpoint that accepts requests and never answers produces no samples.  `pending` holds it back, and
the request timeout (which penalises) ends it; a timeout is therefore worth configuring.
"""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final, TypeVar

from meshproxy.policy.breaker import CLOSED, Breaker
from meshproxy.policy.random import Rng

if TYPE_CHECKING:
    from meshproxy.policy.ejection import Ejection

DEFAULT_RTT_S: Final = 0.030  # what a new endpoint is assumed to need (Linkerd's BALANCER_DEFAULT_RTT)
DECAY_S: Final = 10.0  # time constant of the average (Linkerd's BALANCER_DECAY)

# What a failed request is worth in seconds.  1 s = a caller's patience with a page, and Linkerd's first breaker pause:
# 1 % of failures weigh as 10 ms.  An endpoint that always fails is tried about once a minute beside 5 ms siblings
# (10 s x ln(1 s / 5 ms) = 53 s).
FAILURE_PENALTY_S: Final = 1.0

# How two candidates are compared.
PEAK_EWMA: Final = 0
LEAST_REQUEST: Final = 1


class Load:
    """What one endpoint looks like from here.  All times are seconds of one monotonic clock.

    pending     requests sent to it that are not finished
    estimate    the average as of `stamp`, seconds; read it through `latency(now)`
    stamp       when the last sample came; at first, when the endpoint became known
    """

    __slots__ = ("_before", "_before_stamp", "decay", "estimate", "pending", "stamp")

    def __init__(self, now: float, default_rtt: float = DEFAULT_RTT_S, decay: float = DECAY_S) -> None:
        """A new endpoint starts at `default_rtt`: among faster ones it warms up over some seconds (its estimate decays),
        among slower ones `pending` keeps it from being buried."""
        if not decay > 0.0:
            raise ValueError(f"decay must be a positive number of seconds, not {decay}")
        self.pending = 0
        self.estimate = default_rtt
        self.stamp = now
        self.decay = decay
        # As of just before the samples of `stamp`: a failure is often known only after its fast answer was sampled in the
        # same moment, and then takes that sample's place.
        self._before = default_rtt
        self._before_stamp = now

    def start(self, now: float) -> None:
        """A request was given to this endpoint.  Ends with exactly one `finish`."""
        self.pending += 1

    def finish(self, now: float, latency_s: float | None) -> None:
        """That request is over.  `latency_s`: time to its first response data; None when it is no measure of speed
        (failed, cancelled).  Raises RuntimeError without a `start`."""
        pending = self.pending - 1
        if pending < 0:
            raise RuntimeError("finish() without start(): an attempt was ended twice")
        self.pending = pending
        if latency_s is None or not latency_s >= 0.0:  # numbers that are none (negative, NaN) are ignored
            return
        old = self.estimate
        elapsed = now - self.stamp
        if elapsed > 0.0:  # `_advance`, on the way of every request
            self._before = old
            self._before_stamp = self.stamp
            self.stamp = now
            if latency_s < old:
                weight = exp(-elapsed / self.decay)
                self.estimate = weight * old + (1.0 - weight) * latency_s
                return
        if latency_s >= old:
            self.estimate = latency_s

    def penalise(self, now: float, penalty_s: float = FAILURE_PENALTY_S) -> None:
        """A request failed: a sample of at least `penalty_s`, weighed by the time it stands for.  May come before or after
        the `finish` of that request: what a fast failure was sampled with at the same moment does not count."""
        self._advance(now)
        before = self._before
        if penalty_s > before:
            weight = exp(-(self.stamp - self._before_stamp) / self.decay)
            self.estimate = max(self.estimate, weight * before + (1.0 - weight) * penalty_s)
        elif before > self.estimate:
            self.estimate = before

    def unreachable(self, now: float, penalty_s: float = FAILURE_PENALTY_S) -> None:
        """The endpoint could not be reached at all (connect or handshake failed): the penalty counts in full, at once."""
        self._advance(now)
        self.estimate = max(self.estimate, penalty_s)

    def renew(self, now: float, default_rtt: float = DEFAULT_RTT_S) -> None:
        """Forget what was sampled: the endpoint was out, and is back as a new one.  What is pending still is."""
        self.estimate = default_rtt
        self.stamp = now
        self._before = default_rtt
        self._before_stamp = now

    def _advance(self, now: float) -> float:
        """Move `stamp` to `now`; gives the seconds passed.  Within one loop turn `now` is one number and completions come
        in any order: no time has passed then, and a sample has no weight of its own."""
        elapsed = now - self.stamp
        if elapsed <= 0.0:
            return 0.0
        self._before = self.estimate
        self._before_stamp = self.stamp
        self.stamp = now
        return elapsed

    def latency(self, now: float) -> float:
        """The estimate as of `now`, in seconds.  Changes nothing."""
        elapsed = now - self.stamp
        if elapsed <= 0.0:
            return self.estimate
        return self.estimate * exp(-elapsed / self.decay)

    def cost(self, now: float) -> float:
        """What it would cost to send one more request there (`latency`, times the requests): smaller is better."""
        elapsed = now - self.stamp
        if elapsed <= 0.0:
            return self.estimate * (self.pending + 1)
        return self.estimate * exp(-elapsed / self.decay) * (self.pending + 1)

    def __repr__(self) -> str:
        return f"Load(estimate={self.estimate * 1000:.1f} ms, pending={self.pending})"


class Target:
    """Base of what a balancer chooses from (the proxy's endpoint).  `available` is the owner's word: connected or
    connectable, breaker closed, not draining.

    What only some backends declare is in the class body, and costs the others nothing:

    breaker, ejection   policy/ejection.py
    weight              relative capacity, > 0
    since               when it was first known, or let in again: a slow start counts from there
    zone                where it runs; "": nobody said
    """

    breaker: Breaker | None = None
    ejection: Ejection | None = None
    weight: float = 1.0
    since: float = 0.0
    zone: str = ""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.available = True

    def settle(self) -> None:
        """Its breaker's state changed: say anew whether it is available."""
        breaker = self.breaker
        self.available = breaker is None or breaker.state == CLOSED


T = TypeVar("T", bound=Target)


def pick(targets: list[T], rng: Rng, now: float, exclude: T | None = None, policy: int = PEAK_EWMA) -> T | None:
    """The target for the next request, or None if none is available.

    `exclude` is the one that has just failed this request: it is used again only if no other is available.
    `policy`: PEAK_EWMA, or LEAST_REQUEST (pending requests alone, for services whose latency says nothing about load).
    Equal cost: the first drawn, so ties spread evenly.
    """
    n = len(targets)
    if n >= 2:
        # Every ordered pair of two different ones is equally likely.  One draw: the bias is under n * n / 2**32.
        others = n - 1
        pair = rng.below(n * others)
        i = pair // others
        j = pair - i * others
        if j >= i:
            j += 1
        first = targets[i]
        second = targets[j]
        if first.available and second.available and first is not exclude and second is not exclude:
            if policy == LEAST_REQUEST:
                return second if second.load.pending < first.load.pending else first
            return second if second.load.cost(now) < first.load.cost(now) else first
    # Rare: something is unavailable or excluded.  Draw from what remains, so that the two are still different candidates.
    candidates = [t for t in targets if t.available and t is not exclude]
    if len(candidates) >= 2:
        return pick(candidates, rng, now, None, policy)
    if candidates:
        return candidates[0]
    if exclude is not None and exclude.available and exclude in targets:
        return exclude
    return None
