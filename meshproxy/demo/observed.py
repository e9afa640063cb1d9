"""Everything that is known about one run of the demonstration: the facts that the verdict judges.

timeline    what the store said, and from when on

    Moment ---- Moment ---- Moment ---------- Moment ---- ...
    Initialized Progressing Progressing       Progressing
    0 %         10 %        30 %              60 %
                |-- Step ---|------ Step -----|--- ...
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from meshproxy.demo.ledger import Handled, Request


@dataclass(frozen=True, slots=True)
class Moment:
    """From `at` on the store said this: canary phase, percent of the split given to the canary, revision under way."""

    at: float
    phase: str
    weight: int
    version: str  # of the target's template: the one being released, or released last
    why: str = ""  # of phase Failed: the check that did not pass, as the canary's Event has it


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of time in which the weights stood still."""

    version: str
    weight: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Kill:
    """A replica's process was killed at `at`; what is said about it holds until `until`.  `ended`: it was seen to be gone.
    (The pod lives on: its container is started again.)"""

    pod: str
    at: float
    until: float
    ended: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """What the relay saw.  `leaks` counts the places where the marker stands in the bytes."""

    sent: int = 0  # bytes towards the pod
    received: int = 0  # bytes back
    leaks: int = 0
    pod: str = ""  # the pod behind it


@dataclass(frozen=True, slots=True)
class Intrusion:
    """A call that must be refused.  `refused`: the peer said no; a call that merely did not get there is not."""

    what: str
    refused: bool
    detail: str


@dataclass(slots=True)
class Observed:
    """All that is known about one run."""

    trust_domain: str
    interval: float  # of the canary's analysis, seconds
    steps: tuple[int, ...]  # weights each release goes through
    requests: Sequence[Request] = ()
    handled: Sequence[Handled] = ()
    timeline: Sequence[Moment] = ()
    marker: str = ""
    slow_pod: str = ""
    prices_pods: tuple[str, ...] = ()  # all replicas while the slow one was measured
    slow_window: tuple[float, float] = (0.0, 0.0)
    kill: Kill | None = None
    recording: Recording = field(default_factory=Recording)
    intrusions: Sequence[Intrusion] = ()
    expected_intrusions: int = 2


def steps(timeline: Sequence[Moment]) -> list[Step]:
    """The stretches of a release in which analysis ran and a share of traffic went to the new version."""
    found = []
    for moment, after in itertools.pairwise(timeline):
        if moment.phase == "Progressing" and 0 < moment.weight < 100:
            found.append(Step(moment.version, moment.weight, moment.at, after.at))
    # The same weights in two moments (the phase was written after the weights, or the other way round) are one step.
    merged: list[Step] = []
    for step in found:
        last = merged[-1] if merged else None
        if last and (last.version, last.weight, last.end) == (step.version, step.weight, step.start):
            merged[-1] = Step(step.version, step.weight, last.start, step.end)
        else:
            merged.append(step)
    return merged


def since(timeline: Sequence[Moment], version: str, phase: str) -> float | None:
    """When a release of `version` reached `phase`."""
    return next((moment.at for moment in timeline if moment.version == version and moment.phase == phase), None)
