"""What the release machine says: actions to take, events to tell, numbers to remember.  Data only; act.py carries it out.

machine.tick -> Decision = actions (made true in order) + events + records (history) + the status to store, last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.canary.analysis import Check
from control.canary.status import Status


@dataclass(frozen=True, slots=True)
class EnsureServices:
    """`<apex>-canary` and `<apex>-primary` as wanted."""


@dataclass(frozen=True, slots=True)
class EnsureApex:
    """The apex Service selects the primary."""


@dataclass(frozen=True, slots=True)
class CreatePrimary:
    """The primary is a copy of the target, which must still be at `revision`."""

    revision: str


@dataclass(frozen=True, slots=True)
class PromoteTemplate:
    """The primary becomes a copy of the target (its configs too), which must still be at `revision` with `tracked`."""

    revision: str
    tracked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetWeights:
    """The split sends `canary` percent to the canary and the rest to the primary."""

    canary: int

    @property
    def primary(self) -> int:
        return 100 - self.canary


@dataclass(frozen=True, slots=True)
class ScaleToZero:
    """The target has no replicas."""


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """The target has the replicas its owner wants (else as many as the primary)."""


Action = EnsureServices | EnsureApex | CreatePrimary | PromoteTemplate | SetWeights | ScaleToZero | ScaleUp


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the Canary, reason "Synced"."""

    warning: bool
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One decision with the numbers it was made on, for `meshproxy canary history`."""

    at: float
    phase: str  # after the decision
    weight: int  # after the decision
    failed_checks: int
    revision: str
    text: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    actions: tuple[Action, ...]
    status: Status
    events: tuple[Event, ...]
    records: tuple[Record, ...]
    finished: str = ""  # "completed" | "skipped" | "failed" in the tick that ends a release, for the counters
