"""A release by a list of steps: what is next?  Pure; the analysis has passed when this is asked.

    (policy, progress, what is seen, now)  -->  Hold   something this step asks for is missing: which
                                                Wait   the step has all it asks for; a person or the clock must let it go on
                                                Go     the next weight
                                                Done   all steps are behind: promote

A step has what it asks for when it has lasted and has had its requests.  What is then waited for is a person (pause) or the
hours of a window; then the other members of the release (group.py).  None of these keeps a bad release from being rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control.canary.declared.opening import opens, said
from control.canary.declared.policy import PolicyStep, ReleasePolicy
from control.canary.machine.progress import Progress


@dataclass(frozen=True, slots=True)
class Hold:
    """Not yet.  `text` says what is asked for: the same text as long as it is missing, for it becomes an Event each time."""

    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """`text`: for what.  `gate`: what a person must approve, "" if nobody can hurry it."""

    text: str
    gate: str = ""


@dataclass(frozen=True, slots=True)
class Go:
    """The next weight; the progress once it is set."""

    progress: Progress


@dataclass(frozen=True, slots=True)
class Done:
    pass


Move = Hold | Wait | Go | Done


@dataclass(frozen=True, slots=True)
class Seen:
    """What the world has to say to a step.  `requests`: answered by the canary since the step began; None: nobody knows.
    `approved`: of the gate of this step."""

    requests: float | None = None
    approved: bool = False


def gate(step: int) -> str:
    """The name by which a step's pause is approved; `step` counts from 1."""
    return f"step/{step}"


def promotion_gate(step: int) -> str:
    """The same of a promotion step."""
    return f"promotion-step/{step}"


def ahead(steps: Sequence[PolicyStep], step: int, weight: float) -> int:
    """Index of the step after number `step`; len(steps): none.  A weight that would fall (the list was edited) is left out."""
    return next((index for index in range(step, len(steps)) if steps[index].weight >= weight), len(steps))


def lacking(step: PolicyStep, at: Progress, seen: Seen, interval_s: float, now: float) -> str:
    """What this step still asks for, "" if nothing: time first, then requests."""
    lasts = interval_s if step.duration_s is None else step.duration_s
    left = at.since + lasts - now
    if left > 0:
        return f"{lasts:g} s at weight {at.weight:g}"
    wanted = step.min_requests
    if wanted and (seen.requests is None or seen.requests < wanted):
        return f"{wanted} requests at weight {at.weight:g}"
    return ""


def next_move(policy: ReleasePolicy, at: Progress, seen: Seen, interval_s: float, now: float) -> Move:
    """What comes after `at`, of the canary's steps.  `interval_s`: the Canary's, how long a step lasts that does not say."""
    here = policy.step(at.step - 1) if at.step else None
    if here is not None:
        if text := lacking(here, at, seen, interval_s, now):
            return Hold(text)
        if here.pause and not seen.approved:
            return Wait(f"approval of step {at.step}", gate(at.step))
    if (opening := opens(policy.windows, now)) is not None:
        return Wait(f"its window, which opens {said(policy.windows, opening)}")
    index = ahead(policy.steps, at.step, at.weight)
    if index == len(policy.steps):
        return Done()
    return Go(Progress(index + 1, policy.steps[index].weight, float(int(now))))


def next_back(policy: ReleasePolicy, at: Progress, interval_s: float, now: float, *, approved: bool = False) -> Move:
    """The same for the promotion steps, by which the primary takes the traffic back: their weights are the primary's.
    `approved`: by a person, of the gate of this step."""
    steps = policy.promotion_steps
    here = steps[min(at.step, len(steps)) - 1] if at.step and steps else None
    if here is not None:
        if text := lacking(here, at, Seen(), interval_s, now):
            return Hold(text)
        if here.pause and not approved:
            return Wait(f"approval of promotion step {at.step}", promotion_gate(at.step))
    index = ahead(steps, at.step, 100 - at.weight)
    if index == len(steps):
        return Done()
    return Go(Progress(index + 1, round(100 - steps[index].weight, 2), float(int(now)), promoting=True))
