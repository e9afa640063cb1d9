"""Where the requests to the apex Service go: what the machine wants, and what a router reads back.

Routing(canary=12.5)                 12.5 % to the canary, 87.5 % to the primary
Routing(canary=100), analysis.match  all requests that match to the canary, all others to the primary
Routing(canary=20, baseline=20)      20 % to the canary, 20 % to the baseline (baseline.py), 60 % to the primary
Routing(canary=0, mirrored=True)     all to the primary, and a copy of each to the canary, whose answer is thrown away
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

PARTS = 10_000  # of the whole: a weight is a multiple of 0.01 percent


@dataclass(frozen=True, slots=True)
class Routing:
    """`canary` is percent, 0..100, and a multiple of 0.01.  Raises ValueError otherwise.

    With analysis.match it is of the requests that match, and the others go to the primary - unless `everyone`: then those go
    to the canary too, because it is the only one left to answer (a promotion that broke the primary)."""

    canary: float = 0.0
    mirrored: bool = False
    everyone: bool = False
    baseline: float = 0.0  # percent, and a multiple of 0.01; with the canary's at most 100

    def __post_init__(self) -> None:
        if not 0 <= self.canary <= 100 or abs(self.canary * 100 - round(self.canary * 100)) > 1e-6:
            raise ValueError(f"a canary weight is 0..100 percent in steps of 0.01, not {self.canary}")
        if not 0 <= self.baseline <= 100 - self.canary + 1e-9 or abs(self.baseline * 100 - round(self.baseline * 100)) > 1e-6:
            raise ValueError(f"a baseline's weight is in steps of 0.01 what the canary leaves, not {self.baseline}")

    @property
    def parts(self) -> int:
        """The canary's share in ten-thousandths."""
        return round(self.canary * 100)

    @property
    def primary(self) -> float:
        return (PARTS - self.parts - round(self.baseline * 100)) / 100

    @property
    def weights(self) -> tuple[int, int, int]:
        """(canary, primary, baseline) as objects have them: of 100 where whole percents do, else of 10,000."""
        beside = round(self.baseline * 100)
        parts = self.parts, PARTS - self.parts - beside, beside
        if self.parts % 100 == beside % 100 == 0:
            return parts[0] // 100, parts[1] // 100, parts[2] // 100
        return parts

    @classmethod
    def of_weights(
        cls, canary: int, primary: int, baseline: int = 0, *, mirrored: bool = False, everyone: bool = False
    ) -> Routing | None:
        """From what objects have; None if that is not of our making."""
        total = canary + primary + baseline
        if min(canary, primary, baseline) < 0 or total not in (100, PARTS):
            return None
        return cls(canary * 100 / total, mirrored, everyone, baseline * 100 / total)

    def beside(self) -> Routing:
        """With a baseline that has as much as the canary; beyond 50 % what the canary leaves."""
        return replace(self, baseline=min(self.parts, PARTS - self.parts) / 100)

    def __str__(self) -> str:
        shares = f"canary {self.canary:g}, primary {self.primary:g}"
        return shares + (f", baseline {self.baseline:g}" if self.baseline else "") + (", mirrored" if self.mirrored else "")

    @property
    def percent(self) -> int:
        """As Canary.status.canaryWeight says it: whole percent, rounded up, so that a little is not nothing."""
        return math.ceil(self.parts / 100)


TO_PRIMARY = Routing(0.0)
TO_CANARY = Routing(100.0)
