"""When to ask for the next certificate.  Pure: the clock and the randomness are arguments.

    |<------------------------- lifetime ------------------------->|
    issued            65 % ... 75 %         80 %                not_after
                      first attempt         never later
                      failed: again after 0.1, 0.2, 0.4 ... 8 s (each times 0.5 to 1), until it works; also past the end

A new issuer (the control plane says so) brings the attempt forward, to within 30 s or a tenth of what is left.

The jitter spreads proxies that started together (Linkerd: 70 %; SPIRE: half).  The cap of 8 s keeps the promise that a
proxy is renewed within 10 s of the control plane's return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_ATTEMPT: Final = (0.65, 0.75)  # of the lifetime, drawn evenly
LATEST: Final = 0.80  # of the lifetime
RETRY_FIRST: Final = 0.1  # s
RETRY_MAX: Final = 8.0  # s
HASTE: Final = 30.0  # s, over which all proxies of a mesh are spread when its issuer changes
HASTE_SHARE: Final = 0.1  # of what is left of the lifetime


class RenewalSchedule:
    """`uniform(a, b)` draws; times are Unix seconds.  Until the first success an attempt is due at once."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self.due = 0.0  # when to ask next
        self.failures = 0  # in a row

    def succeeded(self, now: float, not_after: float) -> None:
        """A certificate that ends at `not_after` was received at `now`."""
        lifetime = max(0.0, not_after - now)
        self.failures = 0
        self.due = now + lifetime * min(LATEST, self._uniform(*FIRST_ATTEMPT))

    def hasten(self, now: float, not_after: float) -> None:
        """The issuer of the certificate that ends at `not_after` is no longer in force: do not wait for 70 %."""
        spread = min(HASTE, HASTE_SHARE * max(0.0, not_after - now))
        self.due = min(self.due, now + self._uniform(0.0, spread))

    def failed(self, now: float) -> None:
        """An attempt failed: try again after a back-off."""
        delay = min(RETRY_MAX, RETRY_FIRST * 2 ** min(self.failures, 10))
        self.failures += 1
        self.due = now + self._uniform(delay / 2, delay)

    def wait(self, now: float) -> float:
        """Seconds until an attempt is due, 0 if it is."""
        return max(0.0, self.due - now)
