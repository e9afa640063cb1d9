r"""The state of one release: Canary.status, and the one table of which phase may follow which.

                          .------- new revision (or a gate: Waiting first) -----------------------------.
    ""  -> Initializing -> Initialized -> Progressing -> Promoting -> Finalising -> Succeeded ----------'
                                            |    ^ \         ^               |
                                            |    |  WaitingPromotion        | primary stuck
                                 roll back  v    '- restart                 v
                                          Failed <--------------------------'   (a newer revision leaves Failed too)

    any, when a Canary with revertOnDeletion is deleted -> Terminating -> Terminated

Everything the machine needs to go on after a crash is here; nothing is kept in memory between ticks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from control.canary.declared.commands import from_rfc3339, to_rfc3339


class Phase(StrEnum):
    """Flagger's phases, by its names."""

    NEW = ""
    INITIALIZING = "Initializing"
    INITIALIZED = "Initialized"
    WAITING = "Waiting"
    PROGRESSING = "Progressing"
    WAITING_PROMOTION = "WaitingPromotion"
    PROMOTING = "Promoting"
    FINALISING = "Finalising"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TERMINATING = "Terminating"
    TERMINATED = "Terminated"


_START = frozenset({Phase.WAITING, Phase.PROGRESSING})

_FORWARD: Mapping[Phase, frozenset[Phase]] = {
    Phase.NEW: frozenset({Phase.INITIALIZING}),
    Phase.INITIALIZING: frozenset({Phase.INITIALIZED}),
    Phase.INITIALIZED: _START,
    Phase.WAITING: frozenset({Phase.WAITING, Phase.PROGRESSING, Phase.FAILED}),
    Phase.PROGRESSING: frozenset({Phase.PROGRESSING, Phase.WAITING_PROMOTION, Phase.PROMOTING, Phase.SUCCEEDED, Phase.FAILED}),
    Phase.WAITING_PROMOTION: frozenset({Phase.PROGRESSING, Phase.PROMOTING, Phase.SUCCEEDED, Phase.FAILED}),
    Phase.PROMOTING: frozenset({Phase.FINALISING, Phase.FAILED}),
    Phase.FINALISING: frozenset({Phase.SUCCEEDED, Phase.FAILED}),
    Phase.SUCCEEDED: _START,
    # Failed -> Promoting: only by a person's `promote`, the way out of a promotion whose primary never became ready.
    Phase.FAILED: _START | {Phase.PROMOTING},
    Phase.TERMINATING: frozenset({Phase.TERMINATED}),
    Phase.TERMINATED: frozenset(),
}
ENDING = frozenset({Phase.TERMINATING, Phase.TERMINATED})
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    phase: after if phase in ENDING else after | {Phase.TERMINATING} for phase, after in _FORWARD.items()
}

RUNNING = frozenset({Phase.PROGRESSING, Phase.WAITING_PROMOTION, Phase.PROMOTING, Phase.FINALISING})
ANALYSED = frozenset({Phase.PROGRESSING, Phase.WAITING_PROMOTION})
INITIAL = frozenset({Phase.NEW, Phase.INITIALIZING})


class IllegalTransition(Exception):
    """The machine asked for a phase that cannot follow the present one: a bug, never a user's mistake."""


# Condition "Promoted" for each phase: status and message (Flagger's words; it has none of its own for the last two).
_PROMOTED: Mapping[Phase, tuple[str, str]] = {
    Phase.INITIALIZING: ("Unknown", "New {kind} detected, starting initialization."),
    Phase.INITIALIZED: ("True", "{kind} initialization completed."),
    Phase.WAITING: ("Unknown", "Waiting for approval."),
    Phase.WAITING_PROMOTION: ("Unknown", "Waiting for approval."),
    Phase.PROGRESSING: ("Unknown", "New revision detected, progressing canary analysis."),
    Phase.PROMOTING: ("Unknown", "Canary analysis completed, starting primary rolling update."),
    Phase.FINALISING: ("Unknown", "Canary analysis completed, routing all traffic to primary."),
    Phase.SUCCEEDED: ("True", "Canary analysis completed successfully, promotion finished."),
    Phase.FAILED: ("False", "Canary analysis failed, {kind} scaled to zero."),
    Phase.TERMINATING: ("Unknown", "Canary deleted, giving the traffic back to the {kind}."),
    Phase.TERMINATED: ("Unknown", "Canary deleted, the {kind} has its traffic back."),
}
PROMOTED = "Promoted"
ACCEPTED = "Accepted"  # ours: False while the object asks for something this version cannot do
BASELINE = "Baseline"  # ours: a third workload runs the promoted revision beside the canary (baseline.py)
PRIMARY_READY = "PrimaryReady"  # ours: False while a promotion that failed is tried again, until its primary is ready
STEP = "Step"  # ours: how far a release by steps is, and its exact weight (progress.py)
STEP_WEIGHT = re.compile(r"weight ([0-9]{1,3}(?:\.[0-9]{1,2})?) %(?:,|\Z)")


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: str  # True, False, Unknown
    reason: str
    message: str
    updated: float  # lastUpdateTime
    transitioned: float  # lastTransitionTime: when `status` last changed


@dataclass(frozen=True, slots=True)
class Status:
    """Canary.status.  Times are Unix seconds, whole (Kubernetes keeps no fractions)."""

    phase: Phase = Phase.NEW
    canary_weight: float = 0  # percent sent to the canary; the router's objects are made to agree with it, not the reverse
    failed_checks: int = 0
    iterations: int = 0  # rounds of A/B and blue/green analysed; see strategy.py
    last_applied: str = ""  # revision being, or last, released
    last_promoted: str = ""  # revision the primary runs
    transitioned: float = 0.0
    tracked: Mapping[str, str] = field(default_factory=dict)  # "configmap/<name>" -> hash
    conditions: tuple[Condition, ...] = ()
    # "<name>=<value>" (routers/affinity.py): of this run, of the last one, and of who stays with the primary
    session_affinity_cookie: str = ""
    previous_session_affinity_cookie: str = ""
    primary_session_affinity_cookie: str = ""

    def condition(self, kind: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def beside_baseline(self) -> bool:
        """Is the canary compared with an equal-sized copy of the primary, which has requests of its own?"""
        return self.phase in ANALYSED and self.condition(BASELINE) is not None

    @property
    def left_to_canary(self) -> bool:
        """Did a promotion break the primary, so that nobody but the canary can answer?  Also while it is tried again, until the
        primary is ready."""
        if self.phase is Phase.FAILED:
            return self.canary_weight > 0
        return self.phase is Phase.PROMOTING and self.condition(PRIMARY_READY) is not None

    @property
    def run_started(self) -> float:
        """When the present release began: the moment Promoted last changed its status (0 if it never did)."""
        condition = self.condition(PROMOTED)
        return condition.transitioned if condition else 0.0

    def to(self, phase: Phase, now: float, message: str = "", *, kind: str = "Deployment", **changes: Any) -> Status:
        """The status in another phase.  Weight and iterations go to 0 except where Flagger keeps them (and in
        WaitingPromotion, where both are facts).  `kind` is the target's.  Raises IllegalTransition."""
        if phase not in TRANSITIONS[self.phase]:
            raise IllegalTransition(f"a canary cannot go from {self.phase or 'new'} to {phase}")
        if phase not in (Phase.PROGRESSING, Phase.WAITING, Phase.WAITING_PROMOTION, Phase.PROMOTING):
            changes = {"canary_weight": 0, "iterations": 0, **changes}
        status, text = _PROMOTED[phase]
        moved = replace(self, phase=phase, transitioned=float(int(now)), **changes)
        return moved.with_condition(PROMOTED, status, phase.value, message or text.format(kind=kind), now)

    def begun(self, at: float) -> Status:
        """The same with a release that began at `at`, if that is earlier."""
        found = self.condition(PROMOTED)
        if found is None or found.transitioned <= at:
            return self
        others = (c for c in self.conditions if c.type != PROMOTED)
        return replace(self, conditions=(replace(found, transitioned=float(int(at))), *others))

    def says(self, message: str, now: float) -> Status:
        """The same phase with another message in its condition Promoted: what it waits for, "" for the phase's own words."""
        before = self.condition(PROMOTED)
        if before is None:
            return self
        text = message or _PROMOTED[self.phase][1]
        return self.with_condition(PROMOTED, before.status, before.reason, text, now)

    def with_condition(self, kind: str, status: str, reason: str, message: str, now: float) -> Status:
        now = float(int(now))
        before = self.condition(kind)
        if before and (before.status, before.reason, before.message) == (status, reason, message):
            return self
        since = before.transitioned if before and before.status == status else now
        others = tuple(c for c in self.conditions if c.type != kind)
        made = Condition(kind, status, reason, message, now, since)
        # Flagger's one condition stays the first: scripts look at .status.conditions[0].
        return replace(self, conditions=(made, *others) if kind == PROMOTED else (*others, made))

    def without_condition(self, kind: str) -> Status:
        return replace(self, conditions=tuple(c for c in self.conditions if c.type != kind))

    def noted(self, now: float, **changes: Any) -> Status:
        """The same phase with other numbers; stamps lastTransitionTime, as Flagger does on every change."""
        changed = replace(self, **changes)
        return self if changed == self else replace(changed, transitioned=float(int(now)))

    # -- Kubernetes' form

    def to_object(self) -> dict[str, Any]:
        moment = {"lastTransitionTime": to_rfc3339(self.transitioned)} if self.transitioned else {}
        cookies = {
            "sessionAffinityCookie": self.session_affinity_cookie,
            "previousSessionAffinityCookie": self.previous_session_affinity_cookie,
            "primarySessionAffinityCookie": self.primary_session_affinity_cookie,
        }
        if not any(cookies.values()):
            cookies = {}  # else all of them: a field that is not named stays as it was
        return {
            "phase": self.phase.value,
            "canaryWeight": math.ceil(self.canary_weight),
            "failedChecks": self.failed_checks,
            "iterations": self.iterations,
            "lastAppliedSpec": self.last_applied,
            "lastPromotedSpec": self.last_promoted,
            **moment,
            "trackedConfigs": dict(sorted(self.tracked.items())),
            **cookies,
            "conditions": [
                {
                    "type": c.type,
                    "status": c.status,
                    "reason": c.reason,
                    "message": c.message,
                    "lastUpdateTime": to_rfc3339(c.updated),
                    "lastTransitionTime": to_rfc3339(c.transitioned),
                }
                for c in self.conditions
            ],
        }

    @classmethod
    def of(cls, obj: Mapping[str, Any] | None) -> Status:
        """From Canary.status.  Raises ValueError on a phase we do not know (another controller's, or a newer version's)."""
        if not obj:
            return cls()
        text = obj.get("phase") or ""
        try:
            phase = Phase(text)
        except ValueError:
            expected = ", ".join(p.value for p in Phase if p)
            raise ValueError(f"status.phase {text!r} is not one of {expected}; was this Canary run by another controller?")
        return cls(
            phase=phase,
            canary_weight=_exact(obj, int(obj.get("canaryWeight") or 0)),
            failed_checks=int(obj.get("failedChecks") or 0),
            iterations=int(obj.get("iterations") or 0),
            last_applied=obj.get("lastAppliedSpec") or "",
            last_promoted=obj.get("lastPromotedSpec") or "",
            transitioned=_time(obj.get("lastTransitionTime")),
            tracked=dict(obj.get("trackedConfigs") or {}),
            session_affinity_cookie=obj.get("sessionAffinityCookie") or "",
            previous_session_affinity_cookie=obj.get("previousSessionAffinityCookie") or "",
            primary_session_affinity_cookie=obj.get("primarySessionAffinityCookie") or "",
            conditions=tuple(
                Condition(
                    c["type"],
                    c["status"],
                    c.get("reason", ""),
                    c.get("message", ""),
                    _time(c.get("lastUpdateTime")),
                    _time(c.get("lastTransitionTime")),
                )
                for c in obj.get("conditions") or ()
            ),
        )


def _time(text: str | None) -> float:
    return from_rfc3339(text) if text else 0.0


def _exact(obj: Mapping[str, Any], whole: int) -> float:
    """The weight as the condition Step has it, where that is what the whole percent was rounded up from."""
    for condition in obj.get("conditions") or ():
        if condition.get("type") == STEP and (match := STEP_WEIGHT.match(condition.get("message", ""))):
            exact = float(match.group(1))
            return exact if math.ceil(exact) == whole else whole
    return whole
