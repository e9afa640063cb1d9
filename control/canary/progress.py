"""How far a release is in a list of steps: kept in Canary.status, so that the one write that ends a tick moves all at once.

    condition   type: Step   reason: Step2   status: Unknown (it is looked at) -> True (passed; something else is waited for)
                message: "weight 0.5 %"      lastTransitionTime: when the weight was set     lastUpdateTime: when it passed

A condition, because Flagger's schema of Canary.status is closed but for its list of conditions; and because the weight there
is a whole number of percent.  The weight is kept beside the number of the step: a policy that is edited meanwhile applies from
the next step on.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from control.canary.status import Condition, Status

STEP = "Step"

_REASON = re.compile(r"(Promotion)?Step([0-9]{1,4})\Z")
_WEIGHT = re.compile(r"weight ([0-9]{1,3}(?:\.[0-9]{1,2})?) %")


@dataclass(frozen=True, slots=True)
class Progress:
    """`step`: how many weights have been set, 0: none yet.  `weight`: percent to the canary (of promotion steps: to the
    primary).  Times are Unix seconds, whole."""

    step: int
    weight: float
    since: float
    promoting: bool = False  # among the promotion steps
    passed_at: float | None = None  # since when all this step asks for is there

    @property
    def passed(self) -> bool:
        return self.passed_at is not None

    @property
    def whole_percent(self) -> int:
        """For Canary.status.canaryWeight: rounded up, so that some is never shown as none."""
        return math.ceil(self.weight)

    def on(self, status: Status) -> Status:
        """The status with this progress written into it."""
        condition = Condition(
            STEP,
            "True" if self.passed else "Unknown",
            f"{'Promotion' if self.promoting else ''}Step{self.step}",
            f"weight {self.weight:g} %",
            self.since if self.passed_at is None else self.passed_at,
            self.since,
        )
        others = tuple(c for c in status.conditions if c.type != STEP)
        return replace(status, conditions=(*others, condition))


def progress(status: Status) -> Progress | None:
    """What `on` wrote; None if there is none (or somebody else's)."""
    condition = status.condition(STEP)
    reason = _REASON.match(condition.reason) if condition else None
    weight = _WEIGHT.match(condition.message) if condition else None
    if condition is None or reason is None or weight is None:
        return None
    passed_at = condition.updated if condition.status == "True" else None
    return Progress(int(reason.group(2)), float(weight.group(1)), condition.transitioned, bool(reason.group(1)), passed_at)


def start(now: float, *, promoting: bool = False) -> Progress:
    """Before the first weight."""
    return Progress(0, 0.0, float(int(now)), promoting)


def without(status: Status) -> Status:
    """The release is over, or begins anew."""
    return status.without_condition(STEP)
