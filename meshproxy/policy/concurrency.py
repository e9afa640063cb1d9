"""How many requests may be in flight at once, and who is turned away first.

    request --admit(class)--> in flight < limit - reserve(class)?  --yes--> in flight --release(rtt)--> the limit learns
                                                                   \\--no--> 503 / UNAVAILABLE, Retry-After: 1

**The limit** is fixed, or finds itself: a service that queues answers more slowly, so the round-trip time says when there
is too much in flight (Netflix' concurrency-limits, Gradient2):

    gradient  =  tolerance x long-term RTT / RTT of the last window, held within 0.5 .. 1
    limit     =  0.8 x limit  +  0.2 x (limit x gradient + queue)         queue = sqrt(limit), at least 4

With RTTs as usual the gradient is 1 and the limit grows by a fifth of `queue` a window; when RTTs exceed `tolerance` times
the usual it shrinks.  A limit that is not half used is left alone: an idle service proves nothing.  Two differences keep it
honest under an overload that lasts: the long-term RTT follows a fall within seconds and a rise over minutes, and only while
the limit is not the bottleneck (a baseline that follows the queue learns to call the queue normal); and a window in which
something failed for lack of time or was refused by the server counts as a gradient of 0.5.

**Priority.**  Three classes.  For each higher class as many slots are kept free as it lately had in flight at once or asked
for in vain, less those it has in flight now.  Nobody loses a slot to a class that no one uses, and the lowest is shed first.

    needed    |#### a peak: all of it            a class that asks once a minute is to find a slot: what it needed is not
              |    #..half the limit at most      forgotten at once, but halved every two minutes; one slot stays.  After a
              |        ###### 1 slot              peak the others have at least half of the limit all the same.
            0 +----10 s-------------300 s         since the class last asked: nothing is kept
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import Final

# ---------------------------------------------------------------- classes

CRITICAL: Final = 0
ORDINARY: Final = 1
SHEDDABLE: Final = 2
CLASSES: Final = 3
CLASS_NAMES: Final = ("critical", "ordinary", "sheddable")

_PEAK_S: Final = 10.0  # how long a class is believed to need all that it needed at once
_HALF_S: Final = 120.0  # then it is believed to need half as much after so long
_FORGOTTEN_S: Final = 300.0  # and nothing, when it has not asked for so long


def class_of(priority: bytes | None) -> int:
    """The class of a request by its `priority` field (RFC 9218: u=0 the most urgent, u=3 without one, u=7 the least):
    0 and 1 are CRITICAL, 2 to 4 ORDINARY, 5 to 7 SHEDDABLE.  What cannot be read is ORDINARY."""
    if priority is None:
        return ORDINARY
    for part in priority.split(b","):
        name, equals, value = part.strip().partition(b"=")
        if name == b"u" and equals:
            value = value.partition(b";")[0].strip()
            if len(value) != 1 or value not in b"01234567":
                return ORDINARY
            urgency = value[0] - 48
            if urgency <= 1:
                return CRITICAL
            return ORDINARY if urgency <= 4 else SHEDDABLE
    return ORDINARY


# ---------------------------------------------------------------- the limit


class Gradient:
    """The adaptive part.  Times in seconds.

    least, greatest     bounds of the limit; 4, 1000
    tolerance           an RTT this many times the usual is no sign of a queue; 2.0
    """

    __slots__ = (
        "_dropped",
        "_peak",
        "_rtts",
        "_samples",
        "_window_ends",
        "greatest",
        "least",
        "limit",
        "long_rtt",
        "tolerance",
    )

    WINDOW_S: Final = 0.25
    MIN_SAMPLES: Final = 10  # a window lasts until it has them
    _SMOOTHING: Final = 0.2
    _FALL: Final = 0.1  # share of a window's RTT in the long-term one where it is lower
    _RISE: Final = 0.002  # and where it is higher: a time constant of about two minutes

    def __init__(self, initial: float = 20.0, least: int = 4, greatest: int = 1000, tolerance: float = 2.0) -> None:
        if not 1 <= least <= greatest <= 1_000_000:
            raise ValueError(f"concurrency limit: bounds must be 1 <= {least} <= {greatest} <= 1000000")
        if not 1.0 <= tolerance <= 10.0:
            raise ValueError(f"concurrency limit: tolerance must be 1 to 10, not {tolerance}")
        self.limit = min(max(initial, float(least)), float(greatest))
        self.least = least
        self.greatest = greatest
        self.tolerance = tolerance
        self.long_rtt = 0.0
        self._samples = 0
        self._rtts = 0.0
        self._peak = 0
        self._dropped = False
        self._window_ends = 0.0

    def binds(self) -> None:
        """A request was turned away: it is the limit that keeps more from being in flight, also while slots of it are kept."""
        self._peak = max(self._peak, int(self.limit))

    def sample(self, now: float, rtt: float, in_flight: int, dropped: bool) -> None:
        """One request ended after `rtt`; `in_flight` includes it.  `dropped`: it timed out, or the server refused it for
        overload."""
        if self._window_ends == 0.0:
            self._window_ends = now + self.WINDOW_S
        self._samples += 1
        self._rtts += rtt
        if in_flight > self._peak:
            self._peak = in_flight
        if dropped:
            self._dropped = True
        if now >= self._window_ends and (self._samples >= self.MIN_SAMPLES or dropped):
            self._close(now)

    def _close(self, now: float) -> None:
        rtt = self._rtts / self._samples
        peak, dropped = self._peak, self._dropped
        self._samples = 0
        self._rtts = 0.0
        self._peak = 0
        self._dropped = False
        self._window_ends = now + self.WINDOW_S
        limit = self.limit
        busy = peak >= limit * 0.5
        if self.long_rtt == 0.0:
            self.long_rtt = rtt
        elif rtt < self.long_rtt:
            self.long_rtt += (rtt - self.long_rtt) * self._FALL
        elif peak < limit * 0.9:
            self.long_rtt += (rtt - self.long_rtt) * self._RISE
        if not (busy or dropped):
            return
        gradient = 0.5 if dropped else max(0.5, min(1.0, self.tolerance * self.long_rtt / max(rtt, 1e-9)))
        wanted = limit * gradient + (max(4.0, sqrt(limit)) if gradient == 1.0 else 0.0)
        limit += (wanted - limit) * self._SMOOTHING
        self.limit = min(max(limit, float(self.least)), float(self.greatest))


class Concurrency:
    """The gate of one service or port.

    limit       requests in flight at once; the first value if `gradient` is given
    rejected    requests turned away, by class
    """

    __slots__ = ("_asked_at", "_level", "_needed", "_needed_at", "fixed", "gradient", "in_flight", "rejected", "total")

    def __init__(self, limit: int, gradient: Gradient | None = None) -> None:
        if not 1 <= limit <= 1_000_000:
            raise ValueError(f"concurrency limit must be 1 to 1000000 requests, not {limit}")
        self.fixed = limit
        self.gradient = gradient
        self.total = 0
        self.in_flight = [0] * CLASSES
        self.rejected = [0] * CLASSES
        self._needed = [0] * CLASSES  # what a class lately had in flight at once, or asked for: `_level`, rounded up
        self._needed_at = [0.0] * CLASSES  # when that was so
        self._level = [0.0] * CLASSES
        self._asked_at = [0.0] * CLASSES

    @property
    def limit(self) -> int:
        gradient = self.gradient
        return self.fixed if gradient is None else int(gradient.limit)

    def admit(self, cls: int, now: float) -> bool:
        """May a request of class `cls` go on?  If so it is in flight, and ends with exactly one `release`."""
        gradient = self.gradient
        limit = self.fixed if gradient is None else int(gradient.limit)
        free = limit - self.total
        for higher in range(cls):
            if now - self._needed_at[higher] >= _PEAK_S:
                self._forget(higher, limit, now)
            kept = self._needed[higher] - self.in_flight[higher]
            if kept > 0:
                free -= kept
        in_flight = self.in_flight[cls] + 1
        if free <= 0:
            self.rejected[cls] += 1
            if gradient is not None:
                gradient.binds()
            self._note(cls, min(in_flight, limit), now)
            return False
        self.in_flight[cls] = in_flight
        self.total += 1
        self._note(cls, in_flight, now)
        return True

    def _forget(self, cls: int, limit: int, now: float) -> None:
        """Nothing new for a while: what a class needed counts for less."""
        level = 0.0
        if now - self._asked_at[cls] < _FORGOTTEN_S:
            level = self._level[cls] * 0.5 ** ((now - self._needed_at[cls]) / _HALF_S)
            level = min(max(level, 1.0), float(limit // 2)) if level else 0.0
        level = max(level, float(self.in_flight[cls]))
        self._level[cls] = level
        self._needed[cls] = ceil(level - 1e-6)
        self._needed_at[cls] = now

    def _note(self, cls: int, needed: int, now: float) -> None:
        self._asked_at[cls] = now
        if needed >= self._needed[cls]:
            self._needed[cls] = needed
            self._level[cls] = float(needed)
            self._needed_at[cls] = now

    def release(self, cls: int, now: float, rtt: float, dropped: bool = False, sampled: bool = True) -> None:
        """That request is over, `rtt` seconds after it was admitted.  `sampled`: its time says something about the service
        (not of tunnels, streams and what its client gave up).  Raises RuntimeError without an `admit`."""
        if self.in_flight[cls] <= 0:
            raise RuntimeError("release() without admit(): a request was ended twice")
        gradient = self.gradient
        if gradient is not None and sampled:
            gradient.sample(now, rtt, self.total, dropped)
        self.in_flight[cls] -= 1
        self.total -= 1
