"""What happened in a simulation, as data: one entry for each tick that had something to say.

Entry (when, which Canary, phase, weight, what was measured, events)  ...  Outcome
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    UNDECIDED = "not decided"  # still waiting or analysing when the simulation ended


@dataclass(frozen=True, slots=True)
class Said:
    """An event of a release, or the answer of a hook."""

    warning: bool
    text: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One metric as it was measured in a tick; `value` None: no data, `text` why."""

    metric: str
    value: float | None
    requests: float | None
    minimum: float | None
    maximum: float | None
    text: str = ""

    @property
    def good(self) -> bool:
        if self.value is None:
            return False
        above = self.minimum is None or self.value >= self.minimum
        return above and (self.maximum is None or self.value <= self.maximum)


@dataclass(frozen=True, slots=True)
class Entry:
    """One tick.  `at`: seconds since the new revision was applied.  `weight`: percent of the requests to the canary."""

    at: float
    canary: str
    phase: str
    weight: float
    mirrored: bool = False
    iteration: int = 0
    failed_checks: int = 0
    seen: tuple[Seen, ...] = ()
    said: tuple[Said, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    entries: tuple[Entry, ...]
    outcomes: dict[str, Outcome] = field(default_factory=dict)  # by Canary, "name.namespace"
    waits_for: str = ""  # what an undecided one still waited for

    @property
    def outcome(self) -> Outcome:
        """Of all: promoted only if every one is."""
        found = set(self.outcomes.values())
        if found == {Outcome.PROMOTED}:
            return Outcome.PROMOTED
        return Outcome.ROLLED_BACK if Outcome.ROLLED_BACK in found else Outcome.UNDECIDED

    def of(self, canary: str) -> Sequence[Entry]:
        return [entry for entry in self.entries if entry.canary == canary]
