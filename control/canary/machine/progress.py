"""How far a release is in a list of steps: kept in Canary.status, so that the one write that ends a tick moves all at once.

    condition   type: Step   reason: Step2   message: "weight 0.5 %"   lastTransitionTime: when the weight was set
                status: Unknown  it is looked at            lacks time, requests, or a check that passes
                        False    it has all it asks for     waits for a person, or the hours of a window
                        True     it may go on               waits for the other members of the release
                lastUpdateTime: since when it has this status

A condition, because Flagger's schema of Canary.status is closed but for its list of conditions; and because the weight there
is a whole number of percent.  The weight is kept beside the number of the step: a policy that is edited meanwhile applies from
the next step on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum

from control.canary.machine.status import STEP, STEP_WEIGHT, Condition, Status

_COUNTED = re.compile(r"begun at request ([0-9]{1,15})\Z")
_REASON = re.compile(r"(Promotion)?Step([0-9]{1,4})\Z")


class State(Enum):
    LOOKED_AT = "Unknown"
    WAITING = "False"
    PASSED = "True"


@dataclass(frozen=True, slots=True)
class Progress:
    """`step`: how many weights of the list have been set, 0: none yet.  `weight`: percent to the canary.  Times are Unix
    seconds, whole."""

    step: int
    weight: float
    since: float
    promoting: bool = False  # among the promotion steps
    state: State = State.LOOKED_AT
    changed: float | None = None  # when `state` last did; None: as long as the weight
    counted: int | None = None  # requests of the canary as the step began, by a running total; None: nobody counted

    @property
    def passed_at(self) -> float | None:
        return None if self.state is not State.PASSED else self.since if self.changed is None else self.changed

    def to(self, state: State, now: float) -> Progress:
        return self if state is self.state else replace(self, state=state, changed=float(int(now)))

    def on(self, status: Status) -> Status:
        """The status with this progress written into it."""
        changed = self.since if self.changed is None else self.changed
        reason = f"{'Promotion' if self.promoting else ''}Step{self.step}"
        message = f"weight {self.weight:g} %"
        if self.counted is not None:
            message += f", begun at request {self.counted}"
        condition = Condition(STEP, self.state.value, reason, message, changed, self.since)
        others = tuple(c for c in status.conditions if c.type != STEP)
        return replace(status, conditions=(*others, condition))


def progress(status: Status) -> Progress | None:
    """What `on` wrote; None if there is none (or somebody else's)."""
    condition = status.condition(STEP)
    reason = _REASON.match(condition.reason) if condition else None
    weight = STEP_WEIGHT.match(condition.message) if condition else None
    if condition is None or reason is None or weight is None:
        return None
    state = State(condition.status)
    changed = None if condition.updated == condition.transitioned else condition.updated
    counted = _COUNTED.search(condition.message)
    return Progress(
        int(reason.group(2)),
        float(weight.group(1)),
        condition.transitioned,
        bool(reason.group(1)),
        state,
        changed,
        int(counted.group(1)) if counted else None,
    )


def start(now: float, *, weight: float = 0.0, promoting: bool = False) -> Progress:
    """Before the first weight of the list."""
    return Progress(0, weight, float(int(now)), promoting)


def without(status: Status) -> Status:
    """The release is over, or begins anew."""
    return status.without_condition(STEP)
