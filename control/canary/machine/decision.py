"""What the release machine says: actions to take, events to tell, numbers to remember.  Data only; act.py carries it out.

machine.tick -> Decision that asks: questions, and nothing else; get the answers and tick again (question.py)
             -> Decision that acts: actions (made true in order) + events + records (history) + the status to store
                                    + notices, told to people once the status is stored
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from control.canary.declared.alerts import Alert
from control.canary.declared.hooks import Webhook
from control.canary.machine.analysis import Check
from control.canary.machine.question import Question
from control.canary.machine.routing import Routing
from control.canary.machine.status import Status


@dataclass(frozen=True, slots=True)
class EnsureServices:
    """`<apex>-canary` and `<apex>-primary` as wanted."""


@dataclass(frozen=True, slots=True)
class EnsureApex:
    """The apex Service selects the primary."""


@dataclass(frozen=True, slots=True)
class EnsureScaler:
    """The primary's scaler is a copy of the target's."""


@dataclass(frozen=True, slots=True)
class CreatePrimary:
    """The primary is a copy of the target, which must still be at `revision`.  Not `approved`: it says so, and is not kept."""

    revision: str
    approved: bool = True


@dataclass(frozen=True, slots=True)
class MarkPrimary:
    """The primary, which Flagger made, says what it runs; nothing else about it changes."""

    stamp: str


@dataclass(frozen=True, slots=True)
class KeepPrimary:
    """What the primary runs is kept, to be made again from (objects/promoted.py)."""


@dataclass(frozen=True, slots=True)
class RestorePrimary:
    """The primary and its configs are as they were last kept."""


@dataclass(frozen=True, slots=True)
class RestoreConfigs:
    """The primary's configs are as they were last kept."""


@dataclass(frozen=True, slots=True)
class PromoteTemplate:
    """The primary becomes a copy of the target (its configs too), which must still be at `revision` with `tracked`."""

    revision: str
    tracked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetRouting:
    """The router's objects say `routing`."""

    routing: Routing


@dataclass(frozen=True, slots=True)
class ScaleToZero:
    """The target has no replicas."""


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """The target has the replicas its owner wants (else as many as the primary)."""


@dataclass(frozen=True, slots=True)
class EnsureBaseline:
    """The baseline runs what the primary runs, with as many replicas as the target has, behind its Service."""


@dataclass(frozen=True, slots=True)
class RemoveBaseline:
    """There is no baseline: neither workload nor Service."""


@dataclass(frozen=True, slots=True)
class KeepUntilReverted:
    """The Canary has the finalizer: deleting it waits until Release."""


@dataclass(frozen=True, slots=True)
class Revert:
    """The target has its own replicas again, at least as many as the primary has."""


@dataclass(frozen=True, slots=True)
class RevertServices:
    """The apex Service selects the target again, and the router's objects send nobody elsewhere."""


@dataclass(frozen=True, slots=True)
class Release:
    """The Canary has no finalizer: its deletion goes through."""


Action = (
    EnsureServices
    | EnsureApex
    | EnsureScaler
    | CreatePrimary
    | MarkPrimary
    | KeepPrimary
    | RestorePrimary
    | RestoreConfigs
    | PromoteTemplate
    | SetRouting
    | ScaleToZero
    | ScaleUp
    | EnsureBaseline
    | RemoveBaseline
    | KeepUntilReverted
    | Revert
    | RevertServices
    | Release
)


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
    weight: float  # percent to the canary, after the decision
    failed_checks: int
    revision: str
    text: str
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class TellHook:
    """A webhook that is told and not asked (post-rollout).  Those of one decision are called in order; the first that fails
    ends the row.  `phase` is what it is told."""

    hook: Webhook
    phase: str


Notice = TellHook | Alert


@dataclass(frozen=True, slots=True)
class Decision:
    """Either `asks` or the rest.  `notices` never change a state: they are queued once the status is stored."""

    actions: tuple[Action, ...]
    status: Status
    events: tuple[Event, ...]
    records: tuple[Record, ...]
    finished: str = ""  # "completed" | "skipped" | "failed" in the tick that ends a release, for the counters
    asks: tuple[Question, ...] = ()
    notices: tuple[Notice, ...] = ()
