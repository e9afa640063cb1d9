"""A retry budget: how many retries a service may get, as a share of its ordinary requests.

    request -> deposit  ratio tokens   --+
                                         +--> slots of ttl / 10; those older than ttl are forgotten
    retry   -> withdraw 1 token        --+

    a retry is granted while   (deposits - withdrawals) of the last ttl  +  floor_per_second x ttl  >=  1

Counting attempts a request (at most 3 tries) is not enough: when everything fails, three tries mean three times the load,
at the moment when there is least to give.  A budget bounds the *sum*: with ratio 0.2 a broken service sees at most 1.2 x
its traffic, plus a floor so that a quiet service may retry at all.  The scheme is tower's (tower/src/retry/budget); the
defaults are Linkerd's.

Kept across configuration updates: `reconfigure` changes the rules and keeps what was earned and spent.  (Linkerd begins
anew on every update; a canary that moves weights each minute would then get a fresh floor each minute.)
"""

from __future__ import annotations

from math import inf
from typing import Final

SLOTS: Final = 10
_TOKEN: Final = 1_000_000  # tokens are counted in millionths, as ints, so that sums do not drift


class Budget:
    """One service's budget in this proxy.  `now` is in monotonic seconds; a clock that steps back only delays expiry.

    ratio               retries granted for each original request; 0.2
    floor_per_second    retries granted a second without any request, 10 (a process with N workers gives each 1/N)
    ttl                 how long a deposit or a withdrawal counts, seconds, 1 .. 60; 10
    """

    __slots__ = (
        "_balance",
        "_deposit",
        "_index",
        "_requests",
        "_reserve",
        "_slot_ends",
        "_slot_s",
        "_slots",
        "_started",
        "floor_per_second",
        "ratio",
        "ttl",
    )

    def __init__(self, ratio: float = 0.2, floor_per_second: float = 10.0, ttl: float = 10.0) -> None:
        self._slots = [0] * SLOTS
        self._balance = 0  # the sum of the slots
        self._index = 0
        self._requests = 0  # original requests of the current slot that are not in it yet: a request costs one addition
        self._started = -1.0  # when the current slot began; -1: nothing has happened yet
        self._slot_ends = -inf
        self.ratio = 0.0
        self.floor_per_second = 0.0
        self.ttl = 0.0
        self._deposit = 0
        self._reserve = 0
        self._slot_s = 0.0
        self.reconfigure(ratio, floor_per_second, ttl)

    def reconfigure(self, ratio: float, floor_per_second: float, ttl: float) -> None:
        """New rules from here on; tokens earned and spent stay.  Raises ValueError and changes nothing if out of range."""
        if not 0.0 <= ratio <= 1000.0:
            raise ValueError(f"retry budget: ratio must be 0 to 1000 retries a request, not {ratio}")
        if not 0.0 <= floor_per_second <= 1_000_000.0:
            raise ValueError(f"retry budget: floor must be 0 to 1000000 retries a second, not {floor_per_second}")
        if not 1.0 <= ttl <= 60.0:
            raise ValueError(f"retry budget: ttl must be 1 to 60 seconds, not {ttl}")
        self._settle()  # what was earned under the old rules
        self.ratio = ratio
        self.floor_per_second = floor_per_second
        self.ttl = ttl
        self._deposit = round(ratio * _TOKEN)
        self._reserve = round(floor_per_second * ttl * _TOKEN)
        self._slot_s = ttl / SLOTS
        if self._started >= 0.0:
            self._slot_ends = self._started + self._slot_s

    def deposit(self, now: float) -> None:
        """An original request (never a retry) was sent."""
        if now >= self._slot_ends:
            self._expire(now)
        self._requests += 1

    def withdraw(self, now: float) -> bool:
        """May one retry be sent?  If so, it is paid for."""
        self._expire(now)
        if self._balance + self._reserve < _TOKEN:
            return False
        self._slots[self._index] -= _TOKEN
        self._balance -= _TOKEN
        return True

    def available(self, now: float) -> int:
        """How many retries would be granted now (for a gauge)."""
        self._expire(now)
        return max(0, (self._balance + self._reserve) // _TOKEN)

    def peek(self, now: float) -> int:
        """As `available`, and changes nothing."""
        balance = self._balance + self._requests * self._deposit
        if self._started >= 0.0 and now >= self._slot_ends:
            steps = int((now - self._started) / self._slot_s)
            if steps >= SLOTS:
                balance = 0
            else:
                for step in range(steps):
                    balance -= self._slots[(self._index + 1 + step) % SLOTS]
        return max(0, (balance + self._reserve) // _TOKEN)

    def _settle(self) -> None:
        """Put what the current slot's requests earned into it."""
        if self._requests:
            earned = self._requests * self._deposit
            self._requests = 0
            self._slots[self._index] += earned
            self._balance += earned

    def _expire(self, now: float) -> None:
        """Settle, and forget the slots that are older than the ttl."""
        self._settle()
        if now < self._slot_ends:
            return
        passed = now - self._started
        if self._started < 0.0:
            self._started = now
        elif passed >= self._slot_s * SLOTS:
            self._slots = [0] * SLOTS
            self._balance = 0
            self._started = now
        else:
            steps = int(passed / self._slot_s)
            self._started += steps * self._slot_s
            for _ in range(steps):
                self._index = (self._index + 1) % SLOTS
                self._balance -= self._slots[self._index]
                self._slots[self._index] = 0
        self._slot_ends = self._started + self._slot_s
