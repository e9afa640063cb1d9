"""A circuit breaker: is this one endpoint worth asking, judged by how its last requests ended.

                    failures in a row, or success rate
          +-------+ ---------------------------------> +------+   penalty over, and a request comes   +---------+
          | CLOSED|                                    | OPEN | ------------------------------------> | PROBING |
          +-------+ <--------------------------------- +------+ <------------------------------------ +---------+
              ^        released (too many are out)              failed: penalty doubles                    |
              |                                                 no verdict: the next request probes        |
              |                                         (PROBING for max_penalty_s: another request probes) |
              +-----------------------------------------------------------------------  success  ---------+

The names, the two rules and their figures are Linkerd's failure accrual (linkerd2-proxy app/outbound/src/http/breaker):

    consecutive     7 failures in a row
    success rate    below 0.8 of the requests of the last 10 s, if those are 5 or more; here 429 and RESOURCE_EXHAUSTED are
                    failures too, while for the first rule they end a row: who asks for less load is not broken
    penalty n       min(60 s, 1 s x 2^n), and up to half of that more by chance, so that callers do not probe in step

Two things differ.  A breaker that trips again within `max_penalty_s` of having closed goes on with the next penalty instead
of the first: an endpoint that works for a moment after each probe would otherwise be believed each time.  And a breaker
only says that its endpoint *should* be out; whether it may be is decided where all endpoints are known (policy/ejection.py).
"""

from __future__ import annotations

from typing import Final

# ---------------------------------------------------------------- how an attempt ended

SUCCESS: Final = 0
LIMITED: Final = 1  # 429, RESOURCE_EXHAUSTED: it works, and asks for less
FAILURE: Final = 2
NO_VERDICT: Final = 3  # the client gave it up, or this proxy did for reasons of its own

_RESOURCE_EXHAUSTED: Final = 8


def verdict_of(success: bool, status: int, grpc_status: int) -> int:
    """SUCCESS, LIMITED or FAILURE of a complete answer; `success` as policy.classify has it."""
    if status == 429 or grpc_status == _RESOURCE_EXHAUSTED:
        return LIMITED
    return SUCCESS if success else FAILURE


class BreakerPolicy:
    """When an endpoint is left out; immutable, part of the tables.  Raises ValueError for what is out of range.

    consecutive     failures in a row that open it; 7.  0: that rule is off
    success_rate    opens it below this share of successes, 0 .. 1; 0.0: that rule is off (Linkerd's `unified`: 0.8)
    window_s        over which the success rate is taken, 0.1 .. 3600 s; 10
    min_requests    fewer in the window say nothing about a rate; 5
    min_penalty_s   how long it is left out at first; 1
    max_penalty_s   the doubling ends; 60
    jitter          up to this share of the penalty is added by chance, 0 .. 100; 0.5
    max_ejected     largest share of a backend's endpoints that may be out at once, 0 .. 1; 0.5.  1.0: all of them (Linkerd's)
    """

    __slots__ = (
        "consecutive",
        "jitter",
        "max_ejected",
        "max_penalty_s",
        "min_penalty_s",
        "min_requests",
        "success_rate",
        "window_s",
    )

    def __init__(
        self,
        consecutive: int = 7,
        success_rate: float = 0.0,
        window_s: float = 10.0,
        min_requests: int = 5,
        min_penalty_s: float = 1.0,
        max_penalty_s: float = 60.0,
        jitter: float = 0.5,
        max_ejected: float = 0.5,
    ) -> None:
        _check("consecutive failures", consecutive, 0, 1_000_000)
        _check("success rate", success_rate, 0.0, 1.0)
        _check("window in seconds", window_s, 0.1, 3600.0)
        _check("least requests", min_requests, 1, 1_000_000)
        _check("least penalty in seconds", min_penalty_s, 0.001, 3600.0)
        _check("greatest penalty in seconds", max_penalty_s, min_penalty_s, 86400.0)
        _check("jitter", jitter, 0.0, 100.0)
        _check("greatest share ejected", max_ejected, 0.0, 1.0)
        self.consecutive = consecutive
        self.success_rate = success_rate
        self.window_s = window_s
        self.min_requests = min_requests
        self.min_penalty_s = min_penalty_s
        self.max_penalty_s = max_penalty_s
        self.jitter = jitter
        self.max_ejected = max_ejected

    def penalty(self, n: int, chance: float) -> float:
        """Seconds out after the n-th failure to come back, n from 0.  `chance`: a number of [0, 1)."""
        base = self.min_penalty_s
        for _ in range(min(n, 40)):
            base *= 2.0
            if base >= self.max_penalty_s:
                break
        base = min(base, self.max_penalty_s)
        return min(base + base * self.jitter * chance, self.max_penalty_s)


def _check(what: str, value: float, least: float, greatest: float) -> None:
    if not least <= value <= greatest:
        raise ValueError(f"circuit breaker: {what} must be {least} to {greatest}, not {value}")


# ---------------------------------------------------------------- the window

_SLOTS: Final = 10


class Window:
    """Successes and requests of the last `span` seconds, in ten slots that expire one by one."""

    __slots__ = ("_bad", "_index", "_slot_s", "_started", "_total", "bad", "total")

    def __init__(self, span: float) -> None:
        self._bad = [0] * _SLOTS
        self._total = [0] * _SLOTS
        self._index = 0
        self._started = -1.0
        self._slot_s = span / _SLOTS
        self.bad = 0
        self.total = 0

    def add(self, bad: bool, now: float) -> None:
        self._expire(now)
        self._total[self._index] += 1
        self.total += 1
        if bad:
            self._bad[self._index] += 1
            self.bad += 1

    def clear(self) -> None:
        self._bad = [0] * _SLOTS
        self._total = [0] * _SLOTS
        self.bad = 0
        self.total = 0

    def _expire(self, now: float) -> None:
        if self._started < 0.0:
            self._started = now
        passed = now - self._started
        if passed < self._slot_s:
            return
        steps = int(passed / self._slot_s)
        self._started += steps * self._slot_s
        if steps >= _SLOTS:
            self.clear()
            return
        for _ in range(steps):
            i = self._index = (self._index + 1) % _SLOTS
            self.bad -= self._bad[i]
            self.total -= self._total[i]
            self._bad[i] = 0
            self._total[i] = 0


# ---------------------------------------------------------------- the machine

CLOSED: Final = 0
OPEN: Final = 1
PROBING: Final = 2

STATES: Final = ("closed", "open", "probing")

# state -> the states that may follow, as bits
_NEXT: Final = (1 << OPEN, 1 << PROBING | 1 << CLOSED, 1 << CLOSED | 1 << OPEN | 1 << PROBING)

# What `record` found.
NOTHING: Final = 0
TRIPPED: Final = 1  # closed, and should not be: `open` it if there is room
RECOVERED: Final = 2  # the probe succeeded: `close` it
RELAPSED: Final = 3  # the probe failed: `open` it again
UNDECIDED: Final = 4  # the probe ended without a verdict: `wait` for another


class IllegalTransition(Exception):
    """A breaker went where its drawing has no arrow: a fault of ours."""


class Breaker:
    """One endpoint's.  `record` what ended, act on what it found.

    state       CLOSED, OPEN, PROBING
    failures    in a row
    until       when the penalty is over, while OPEN
    penalties   how often it was opened without having been closed for long
    asked       until when it asked to be left alone (Retry-After); a penalty does not end before
    """

    __slots__ = ("_closed_at", "asked", "failures", "penalties", "policy", "probing_since", "state", "until", "window")

    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self.state = CLOSED
        self.failures = 0
        self.until = 0.0
        self.penalties = 0
        self.asked = 0.0
        self.probing_since = 0.0
        self._closed_at = -1.0
        self.window: Window | None = Window(policy.window_s) if policy.success_rate > 0.0 else None

    def reconfigure(self, policy: BreakerPolicy) -> None:
        """New rules from the next result on; a penalty that runs is served."""
        old = self.policy
        self.policy = policy
        if policy.success_rate <= 0.0:
            self.window = None
        elif self.window is None or old.window_s != policy.window_s:
            self.window = Window(policy.window_s)

    def record(self, verdict: int, started: float, now: float) -> int:
        """An attempt that began at `started` has ended.  What was begun before the probe says nothing new about it."""
        state = self.state
        if state == CLOSED:
            return self._judge(verdict, now)
        if state == PROBING and started >= self.probing_since:
            if verdict == SUCCESS or (verdict == LIMITED and self.window is None):
                return RECOVERED
            return UNDECIDED if verdict == NO_VERDICT else RELAPSED
        return NOTHING

    def _judge(self, verdict: int, now: float) -> int:
        if verdict == NO_VERDICT:
            return NOTHING
        policy = self.policy
        failures = self.failures = self.failures + 1 if verdict == FAILURE else 0
        window = self.window
        if window is not None:
            window.add(verdict != SUCCESS, now)
            total = window.total
            if total >= policy.min_requests and total - window.bad < policy.success_rate * total:
                return TRIPPED
        return TRIPPED if 0 < policy.consecutive <= failures else NOTHING

    # -- transitions

    def _enter(self, state: int) -> None:
        if not (_NEXT[self.state] >> state) & 1:
            raise IllegalTransition(f"a breaker cannot go from {STATES[self.state]} to {STATES[state]}")
        self.state = state

    def open(self, now: float, chance: float) -> float:
        """Leave the endpoint out; returns until when.  `chance`: a number of [0, 1)."""
        fresh = self.state == CLOSED and (self._closed_at < 0.0 or now - self._closed_at >= self.policy.max_penalty_s)
        self._enter(OPEN)
        if fresh:
            self.penalties = 0
        self.until = max(now + self.policy.penalty(self.penalties, chance), self.asked)
        self.penalties += 1
        return self.until

    def ask(self, seconds: float, now: float) -> None:
        """Its answer says how long it wants to be left alone (RFC 9110 10.2.3).  That puts nobody out, but a penalty lasts as
        long, also one that runs; up to `max_penalty_s`: an endpoint's word is not to take it out for ever."""
        self.asked = now + min(max(seconds, 0.0), self.policy.max_penalty_s)
        if self.state == OPEN and self.until < self.asked:
            self.until = self.asked

    def due(self, now: float) -> bool:
        """May the next request probe it: its penalty is over, or the probe takes so long (a tunnel, an answer that never
        comes) that another one has to tell?"""
        if self.state == OPEN:
            return now >= self.until
        return self.state == PROBING and now - self.probing_since >= self.policy.max_penalty_s

    def probe(self, now: float) -> None:
        """The request that begins now is the probe."""
        self._enter(PROBING)
        self.probing_since = now

    def wait(self) -> None:
        """The probe ended without a verdict: the next request probes."""
        if self.state != PROBING:
            raise IllegalTransition(f"a breaker cannot go from {STATES[self.state]} to waiting for another probe")
        self._enter(OPEN)

    def close(self, now: float) -> None:
        """It takes requests again: its probe succeeded, or too many others are out."""
        self._enter(CLOSED)
        self.failures = 0
        self._closed_at = now
        if self.window is not None:
            self.window.clear()

    def __repr__(self) -> str:
        return f"Breaker({STATES[self.state]}, {self.failures} failures in a row)"
