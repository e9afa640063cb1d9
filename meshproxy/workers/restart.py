"""When a worker that died is started again.   Pure: times are arguments.

    died --lived STEADY_S or longer, or first death--> at once
         --again, and soon-------------------------> 0.1, 0.2, 0.4 ... 10 s

One death is an accident, and every request that waits meanwhile is a user.  A worker that dies each time it starts would
otherwise spend the machine on starting.
"""

from __future__ import annotations

from typing import Final

STEADY_S: Final = 10.0  # who lived this long did not die of its start
DELAY_FIRST_S: Final = 0.1
DELAY_MAX_S: Final = 10.0


class Restarts:
    """Of one worker."""

    def __init__(self) -> None:
        self.early = 0  # deaths in a row that came soon after a start

    def died(self, lived_s: float) -> float:
        """Seconds to wait before the next start."""
        if lived_s >= STEADY_S:
            self.early = 0
        self.early += 1
        if self.early == 1:
            return 0.0
        return min(DELAY_MAX_S, float(DELAY_FIRST_S * 2 ** min(self.early - 2, 20)))
