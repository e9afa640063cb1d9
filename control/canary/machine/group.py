"""Several Canaries as one release: all or none.  Pure; each member decides for itself from what all members' statuses say.

    every member at step k has passed it  ->  each goes to step k + 1          (those ahead wait, those behind catch up)
    every member has passed its last      ->  the first to see it promotes; from then on all are bound to
    one fails, or is aborted              ->  all others roll back             (unless they are bound already)

A member with nothing to release takes no part.  One that was rolled back with the others joins again when one of them
begins anew: a fixed revision of one brings the whole release with it.  The ticks of one group never overlap, so between
"all have passed" and "I promote" nobody can fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from control.canary.machine.progress import progress
from control.canary.machine.status import ANALYSED, Phase, Status


class Stage(Enum):
    IDLE = "nothing to release"
    COMING = "has not begun"
    RUNNING = "is at a step"
    PASSED = "has passed its last step"
    BOUND = "is promoted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Member:
    """One of the others, as its status says."""

    name: str
    stage: Stage
    began: float = 0.0  # when its present release began, or its last one ended (Unix seconds)
    step: int = 0  # weights set so far
    step_passed: bool = False
    at: float = 0.0  # when it came to `stage`


def member(name: str, status: Status, target_revision: str, *, steps: int) -> Member:
    """The other member as the rules see it.  `target_revision`: of its target now, "" if none; `steps`: how many it has."""
    began, at = status.run_started, status.transitioned
    new = target_revision not in ("", status.last_promoted)
    if status.phase in (Phase.PROMOTING, Phase.FINALISING) or (status.phase is Phase.FAILED and status.canary_weight == 100):
        return Member(name, Stage.BOUND, began, at=began if status.phase is Phase.FAILED else at)
    if status.phase in ANALYSED:
        seen = progress(status)
        if seen is None:
            return Member(name, Stage.RUNNING, began, at=began)
        passed = seen.passed_at is not None
        stage = Stage.PASSED if passed and seen.step >= steps else Stage.RUNNING
        return Member(name, stage, began, seen.step, passed, seen.passed_at if seen.passed_at is not None else seen.since)
    if status.phase is Phase.WAITING:
        return Member(name, Stage.COMING, began, at=at)
    if status.phase is Phase.FAILED and new:
        # A newer revision than the one that failed is about to begin.
        return Member(name, Stage.FAILED if target_revision == status.last_applied else Stage.COMING, began, at=began)
    if status.phase in (Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED):
        if status.phase is Phase.SUCCEEDED and not new:
            return Member(name, Stage.BOUND, began, at=began)
        return Member(name, Stage.COMING if new else Stage.IDLE, began, at=began)
    return Member(name, Stage.COMING, began, at=at)  # not initialised yet


def failed(others: Iterable[Member], began: float) -> Member | None:
    """A member that failed in this release, which began at `began` for us."""
    return next((one for one in others if one.stage is Stage.FAILED and one.at >= began), None)


def bound(others: Iterable[Member], passed_at: float | None) -> Member | None:
    """A member that is promoted, and could only be because we too had passed: then we promote as well, whatever we see now."""
    if passed_at is None:
        return None
    return next((one for one in others if one.stage is Stage.BOUND and one.at >= passed_at), None)


def waits_for(others: Iterable[Member], step: int, began: float, *, last: bool = False) -> str:
    """Why we, who have passed `step`, do not go on: "" if all are as far.  `last`: it was our last, and all must have passed
    theirs.

    Those that failed before we began are awaited: they begin again because we did."""
    behind = [
        one
        for one in others
        if one.stage is Stage.COMING
        or (one.stage is Stage.FAILED and one.at < began)
        or (one.stage is Stage.RUNNING and (last or one.step < step or (one.step == step and not one.step_passed)))
    ]
    if not behind:
        return ""
    how = (f"{one.name} ({f'step {one.step}' if one.stage is Stage.RUNNING else one.stage.value})" for one in behind)
    return f"the other members of the release: {', '.join(how)}"


def begins_again(others: Iterable[Member], failed_at: float) -> Member | None:
    """We failed at `failed_at`: a member that has begun a release since, so that we begin again too."""
    return next((one for one in others if one.stage in (Stage.RUNNING, Stage.PASSED) and one.began > failed_at), None)
