"""The release machine: (spec, status, facts, now) -> Decision.  Pure: no clock, no store, no randomness.

One call is one tick.  Its order is Flagger's (flagger.md 3); the drawing of the phases is in status.py.

    refused? suspended? target there?        -> say so, stop
    services, primary, split, apex           -> make them, wait for the primary        (Initializing -> Initialized)
    new revision?                            -> gate, scale the target up              (-> Progressing)
    order to abort; newer revision           -> roll back; restart from weight 0
    canary pods ready?                       -> wait, or roll back when stuck
    Promoting, Finalising                    -> traffic back to the primary, target to zero (-> Succeeded)
    failed checks reached the threshold      -> roll back                              (-> Failed)
    metrics                                  -> a failed check, or the next weight, or the promotion

A Decision is carried out in order: actions, then events, then the status.  A crash anywhere before the status is stored
repeats the tick; so every action is something to be made true, never something to be done once more.  `status` says what
weight the split has: a split that disagrees is put right, never believed.

Where we differ from Flagger, on purpose: a primary that does not become ready at first leaves the user's pods serving;
a release whose template goes back to the promoted one ends at once; metrics are checked while paused.
"""

from __future__ import annotations

import contextlib
from typing import Any, NoReturn

from control.canary.analysis import Check, Outcome, Verdict, analyse
from control.canary.commands import Command
from control.canary.decision import (
    Action,
    CreatePrimary,
    Decision,
    EnsureApex,
    EnsureServices,
    Event,
    PromoteTemplate,
    Record,
    ScaleToZero,
    ScaleUp,
    SetWeights,
)
from control.canary.facts import Facts
from control.canary.objects import stamp_for
from control.canary.spec import CanarySpec
from control.canary.status import ACCEPTED, ANALYSED, INITIAL, RUNNING, Phase, Status


def measures(spec: CanarySpec, status: Status) -> bool:
    """Will the next tick look at measurements?  Only then is a source asked."""
    return not spec.refused and not spec.suspend and status.phase in ANALYSED and status.canary_weight > 0


def tick(spec: CanarySpec, status: Status, facts: Facts, now: float) -> Decision:
    """Decide what happens now.  Raises IllegalTransition only if the machine itself is wrong."""
    machine = _Tick(spec, status, facts, now)
    with contextlib.suppress(_Stop):
        machine.run()
    machine.put_split_right()
    return Decision(tuple(machine.actions), machine.status, tuple(machine.events), tuple(machine.records), machine.finished)


def invalid(status: Status, name: str, text: str, now: float) -> Decision:
    """The decision for an object that cannot be read: what runs stays as it is, and the object says why."""
    status = status.with_condition(ACCEPTED, "False", "Invalid", text, now)
    return Decision((), status, (Event(True, f"Canary {name} is not run: {text}"),), ())


class _Stop(Exception):
    """This tick is over; what was gathered so far is the decision."""


class _Tick:
    def __init__(self, spec: CanarySpec, status: Status, facts: Facts, now: float) -> None:
        self.spec = spec
        self.status = status
        self.facts = facts
        self.now = now
        self.actions: list[Action] = []
        self.events: list[Event] = []
        self.records: list[Record] = []
        self.finished = ""
        self.checks: tuple[Check, ...] = ()

    # -- the story

    def run(self) -> None:
        self._refuse()
        if self.spec.suspend:
            self._stop("skipping canary run as object is suspended")
        if self.facts.target is None or self.facts.problem:
            self._stop_warning(self.facts.problem)
        if self.status.phase is Phase.NEW:
            self.status = self.status.to(Phase.INITIALIZING, self.now)
            for text in self.spec.ignored:
                self._warn(f"{text} is ignored")
        self._ensure_objects()
        if self.status.phase is Phase.INITIALIZING:
            self._initialised()
        self._release()

    def _refuse(self) -> None:
        if not self.spec.refused:
            self.status = self.status.without_condition(ACCEPTED)
            return
        text = "; ".join(self.spec.refused)
        before = self.status
        self.status = before.with_condition(ACCEPTED, "False", "Unsupported", text, self.now)
        if self.status != before:
            self._warn(f"Canary {self.spec.full_name} is not run: {text}")
        raise _Stop

    # -- what must exist before anything can be released

    def _ensure_objects(self) -> None:
        spec, facts, initial = self.spec, self.facts, self.status.phase in INITIAL
        if not facts.services_ok:
            self.actions.append(EnsureServices())
        if initial and not spec.skip_analysis and spec.metrics:
            if facts.source_problem:
                self._warn(f"Error checking metric providers: {facts.source_problem}")
            else:
                self._event("all the metrics providers are available!")
        if facts.primary is None:
            if not initial:
                self._warn(f"deployment {spec.primary}.{spec.namespace} is gone; creating it again from {spec.full_target}")
            self.actions.append(CreatePrimary(self._target_revision))
            self._stop_warning(f"{spec.primary}.{spec.namespace} not ready: waiting for rollout to finish")
        if initial and not facts.primary.readiness.ready:
            # Flagger scales the target to zero when this gets stuck.  The user's pods are all there is: they stay.
            self._stop_warning(f"{spec.primary}.{spec.namespace} not ready: {facts.primary.readiness.text}")
        # The split first: once the apex selects the primary and the target goes, no request must still aim at the target.
        if initial and facts.weights != (0, 100):
            self.actions.append(SetWeights(0))
        if not facts.apex_ok:
            self.actions.append(EnsureApex())

    def put_split_right(self) -> None:
        """Last in a tick that moved no weight: the split says what the status says, whoever edited it meanwhile."""
        weight, seen = self.status.canary_weight, self.facts.weights
        if self.spec.refused or self.spec.suspend or self.facts.primary is None or self.status.phase in INITIAL:
            return
        if seen == (weight, 100 - weight) or any(isinstance(action, SetWeights) for action in self.actions):
            return
        if self.facts.target is None or self.facts.problem:
            return
        self.actions.insert(0, SetWeights(weight))
        found = f"canary {seen[0]}, primary {seen[1]}" if seen else "other backends, or is gone"
        self._note(f"TrafficSplit {self.spec.apex}.{self.spec.namespace} says {found}; putting it back to canary {weight}")

    def _initialised(self) -> None:
        assert self.facts.primary is not None
        self.actions.append(ScaleToZero())
        # What the primary runs, not what the target says by now: an edit made meanwhile is the first release.
        promoted = self.facts.primary.revision.partition("-")[0]
        same = stamp_for(promoted, self.facts.tracked) == self.facts.primary.revision
        self.status = self.status.to(
            Phase.INITIALIZED,
            self.now,
            failed_checks=0,
            last_applied=promoted,
            last_promoted=promoted,
            tracked=self.facts.tracked if same else {},
        )
        self._record(f"Initialization done! {self.spec.full_name}")
        raise _Stop

    # -- a release

    def _release(self) -> None:
        spec, facts = self.spec, self.facts
        assert facts.primary is not None
        started = self.status.phase in RUNNING or self.status.phase is Phase.WAITING
        if not started and not self._changed():
            if self.status.phase is Phase.FAILED:
                self._retry_promotion()
                # So that coming back to this revision later counts as a change.
                self.status = self.status.noted(self.now, last_applied=self._target_revision, tracked=facts.tracked)
            raise _Stop
        self._abort()
        if not spec.skip_analysis and not facts.primary.readiness.ready:
            self._primary_not_ready()
        if self.status.phase not in RUNNING:
            self._begin()
        if self.status.phase in ANALYSED:
            self._restart()
            self._resume_promotion()
        self._canary_ready()
        if spec.skip_analysis and self.status.phase in ANALYSED:
            self._skip_analysis()
        if self.status.phase in ANALYSED and self._ordered(facts.commands.promote):
            self._note(f"Promotion of {spec.full_target} ordered by hand, skipping the rest of the analysis")
            self._promote()
        if not facts.due:
            raise _Stop
        if self.status.phase is Phase.PROMOTING:
            self._route_to_primary()
        if self.status.phase is Phase.FINALISING:
            self._finish()
        if self.status.failed_checks >= spec.threshold:
            self._roll_back(
                f"Rolling back {spec.full_name} failed checks threshold reached {self.status.failed_checks}",
            )
        self._analyse()
        self._advance()

    def _changed(self) -> bool:
        """Is there a revision to release?  Going back to exactly the promoted one is not a release."""
        revision = self._target_revision
        template = revision != self.status.last_promoted and revision != self.status.last_applied
        return template or dict(self.facts.tracked) != dict(self.status.tracked)

    def _begin(self) -> None:
        """Initialized, Succeeded, Failed or Waiting: through the gate, then up with the pods."""
        spec, facts = self.spec, self.facts
        revision = self._target_revision
        if self.status.phase is Phase.WAITING and self.status.last_promoted == revision != self.status.last_applied:
            self._cancel()
        release: dict[str, Any] = {"failed_checks": 0, "iterations": 0, "last_applied": revision, "tracked": facts.tracked}
        if "rollout" in spec.gates and not (self._approved("rollout") or self._ordered(facts.commands.promote)):
            if self.status.phase is not Phase.WAITING or self.status.last_applied != revision:
                self.status = self.status.to(Phase.WAITING, self.now, **release)
                self._halt(f"Halt {spec.full_name} advancement waiting for approval rollout")
            raise _Stop
        if "rollout" in spec.gates:
            self._event("Confirm-rollout check approve passed")
        if self.status.canary_weight:  # after a failed promotion all traffic may be on the target
            self.actions.append(SetWeights(0))
        self.actions.append(ScaleUp())
        self.status = self.status.to(Phase.PROGRESSING, self.now, canary_weight=0, **release)
        self._record(f"New revision detected! Scaling up {spec.full_target}")
        raise _Stop

    def _restart(self) -> None:
        """The template or its configuration changed again while being analysed."""
        spec, facts = self.spec, self.facts
        revision = self._target_revision
        if revision == self.status.last_applied and dict(facts.tracked) == dict(self.status.tracked):
            return
        if revision == self.status.last_promoted and revision != self.status.last_applied:
            self._cancel()
        self.actions.append(SetWeights(0))
        self.status = self.status.to(
            Phase.PROGRESSING,
            self.now,
            canary_weight=0,
            failed_checks=0,
            iterations=0,
            last_applied=revision,
            tracked=facts.tracked,
        )
        self._record(f"New revision detected! Restarting analysis for {spec.full_target}")
        raise _Stop

    def _canary_ready(self) -> None:
        spec, target = self.spec, self.facts.target
        assert target is not None
        if target.replicas == 0 and self.status.phase in ANALYSED:
            # Scaled down by someone else, or our own scaling was lost in a crash: nothing ready is not readiness.
            self.actions.append(ScaleUp())
            self._stop_warning(f"canary deployment {spec.full_target} not ready: it has no replicas; scaling it up")
        if target.readiness.ready or self.status.phase is Phase.FINALISING:
            return
        text = f"canary deployment {spec.full_target} not ready: {target.readiness.text}"
        if target.readiness.stuck and self.status.phase in ANALYSED:
            self._warn(text)
            self._roll_back(f"Rolling back {spec.full_name} progress deadline exceeded {target.readiness.text}")
        if self.status.phase is Phase.PROMOTING:
            # The primary is about to take everything back: broken canary pods are a reason to go on, not to wait.
            self._warn(text)
            return
        self._stop_warning(text)

    # -- analysis

    def _analyse(self) -> None:
        spec = self.spec
        if self.status.canary_weight == 0:
            self._event(f"Starting canary analysis for {spec.full_target}")
            return
        verdict: Verdict = analyse(spec, self.facts.measurements)
        self.checks = verdict.checks
        if verdict.outcome is Outcome.PASSED:
            return
        if verdict.outcome is Outcome.FAILED:
            self.status = self.status.noted(self.now, failed_checks=self.status.failed_checks + 1)
        self._halt(verdict.text)
        raise _Stop

    def _advance(self) -> None:
        spec = self.spec
        if self.facts.commands.pause:
            self._stop(f"Canary {spec.full_name} is paused at weight {self.status.canary_weight}")
        weight = self.status.canary_weight
        if weight >= spec.top_weight:
            self._promote_through_gate()
        gate = f"traffic-increase/{weight}"
        if "traffic-increase" in spec.gates and self.status.phase is Phase.PROGRESSING:
            if not self._approved(gate):
                self._halt(f"Halt {spec.full_name} advancement waiting for traffic increase approval at weight {weight}")
                raise _Stop
            self._event("Confirm-traffic-increase check approve passed")
        if self.status.phase is Phase.WAITING_PROMOTION:  # maxWeight was raised while waiting
            self.status = self.status.to(Phase.PROGRESSING, self.now)
        weight = spec.next_weight(weight)
        self.actions.append(SetWeights(weight))
        self.status = self.status.noted(self.now, canary_weight=weight)
        self._record(f"Advance {spec.full_name} canary weight {weight}")
        raise _Stop

    # -- promotion

    def _promote_through_gate(self) -> None:
        spec = self.spec
        if "promotion" in spec.gates and not self._approved("promotion"):
            if self.status.phase is Phase.PROGRESSING:
                self.status = self.status.to(Phase.WAITING_PROMOTION, self.now)
                self._halt(f"Halt {spec.full_name} advancement waiting for promotion approval")
            raise _Stop
        if "promotion" in spec.gates:
            self._event("Confirm-promotion check approve passed")
        self._promote()

    def _resume_promotion(self) -> None:
        """A crash after the copy and before the status: the primary already is the new revision.  To analyse again could
        only end in a roll back onto the very revision that failed."""
        assert self.facts.primary is not None
        copied = self.facts.primary.revision == stamp_for(self.status.last_applied, self.status.tracked)
        if copied:
            self.status = self.status.to(Phase.PROMOTING, self.now)
            self._record(
                f"{self.spec.primary}.{self.spec.namespace} already runs the new revision; going on with the promotion"
            )
            raise _Stop

    def _promote(self) -> None:
        self._copy_template()
        self.status = self.status.to(Phase.PROMOTING, self.now)
        raise _Stop

    def _copy_template(self) -> None:
        spec = self.spec
        self.actions.append(PromoteTemplate(self._target_revision, self.facts.tracked))
        self._record(f"Copying {spec.full_target} template spec to {spec.primary}.{spec.namespace}")

    def _route_to_primary(self) -> None:
        spec, facts = self.spec, self.facts
        assert facts.primary is not None
        wanted = stamp_for(self.status.last_applied, self.status.tracked)
        if facts.primary.revision != wanted:
            # The copy was lost.  Copy again if the target still is what was analysed; otherwise what was analysed is gone.
            if self._target_revision != self.status.last_applied or dict(facts.tracked) != dict(self.status.tracked):
                self._roll_back(f"Rolling back {spec.full_name} the revision to promote is gone: the target changed")
            self._copy_template()
            raise _Stop
        step = spec.step_weight_promotion
        weight = max(0, self.status.canary_weight - step) if step else 0
        self.actions.append(SetWeights(weight))
        if weight:
            self.status = self.status.noted(self.now, canary_weight=weight)
        else:
            self.status = self.status.to(Phase.FINALISING, self.now)
        self._record(f"Advance {spec.full_name} primary weight {100 - weight}" if step else "Routing all traffic to primary")
        raise _Stop

    def _finish(self) -> None:
        self.actions.append(ScaleToZero())
        self.status = self.status.to(Phase.SUCCEEDED, self.now, last_promoted=self.status.last_applied)
        self.finished = "completed"
        self._record(f"Promotion completed! Scaling down {self.spec.full_target}")
        raise _Stop

    def _skip_analysis(self) -> None:
        self.actions.append(SetWeights(0))
        self._copy_template()
        self.actions.append(ScaleToZero())
        self.status = self.status.to(Phase.SUCCEEDED, self.now, last_promoted=self.status.last_applied)
        self.finished = "skipped"
        self._record(f"Promotion completed! Canary analysis was skipped for {self.spec.full_target}")
        raise _Stop

    # -- failure

    def _abort(self) -> None:
        if not self._ordered(self.facts.commands.abort):
            return
        if self.status.phase in (Phase.WAITING, *ANALYSED):
            self._roll_back(f"Rolling back {self.spec.full_name} aborted by hand")
        elif self.status.phase in RUNNING:
            self._note(f"Canary {self.spec.full_name} cannot be aborted: the primary already runs the new revision")

    def _cancel(self) -> None:
        """The user went back to what the primary runs: there is nothing left to release."""
        self.status = self.status.noted(self.now, last_applied=self._target_revision, tracked=self.facts.tracked)
        self._roll_back(f"Rolling back {self.spec.full_name} the target is back at the promoted revision")

    def _primary_not_ready(self) -> None:
        spec, primary = self.spec, self.facts.primary
        assert primary is not None
        text = f"{spec.primary}.{spec.namespace} not ready: {primary.readiness.text}"
        if not primary.readiness.stuck or self.status.phase not in RUNNING:
            self._stop_warning(text)
        self._warn(text)
        if self.status.phase in ANALYSED:
            self._roll_back(f"Rolling back {spec.full_name} primary not ready")
        # The primary is broken and its old revision is gone: the analysed canary is the only good one, it takes all.
        self.actions.append(SetWeights(100))
        message = "Promotion failed, primary not ready; all traffic is on the canary."
        self.status = self.status.to(Phase.FAILED, self.now, message, canary_weight=100)
        self.finished = "failed"
        self._record(f"Promotion of {spec.full_target} failed, primary not ready", warning=True)
        raise _Stop

    def _retry_promotion(self) -> None:
        """Failed with all traffic on the canary: `promote` copies the template again."""
        if self.status.canary_weight == 100 and self._ordered(self.facts.commands.promote):
            self._note(f"Promotion of {self.spec.full_target} ordered by hand, trying again")
            self._promote()

    def _roll_back(self, why: str) -> None:
        self.actions += [SetWeights(0), ScaleToZero()]
        self.status = self.status.to(Phase.FAILED, self.now)
        self.finished = "failed"
        self._record(why, warning=True)
        self._warn(f"Canary failed! Scaling down {self.spec.full_name}")
        raise _Stop

    # -- helpers

    @property
    def _target_revision(self) -> str:
        assert self.facts.target is not None
        return self.facts.target.revision

    def _ordered(self, command: Command | None) -> bool:
        """An order counts if it names the revision being released and was given since that release began."""
        if command is None or command.revision != self._target_revision:
            return False
        return command.revision == self.status.last_applied and command.at >= self.status.run_started

    def _approved(self, gate: str) -> bool:
        command = self.facts.commands.approve
        return command is not None and command.gate == gate and self._ordered(command)

    def _event(self, text: str) -> None:
        self.events.append(Event(False, text))

    def _warn(self, text: str) -> None:
        self.events.append(Event(True, text))

    def _stop(self, text: str) -> NoReturn:
        self._event(text)
        raise _Stop

    def _stop_warning(self, text: str) -> NoReturn:
        self._warn(text)
        raise _Stop

    def _note(self, text: str) -> None:
        self._record(text, warning=True)

    def _halt(self, text: str) -> None:
        self._record(text, warning=True)

    def _record(self, text: str, *, warning: bool = False) -> None:
        """An event that is also kept in the history, with the checks made so far in this tick."""
        self.events.append(Event(warning, text))
        status = self.status
        self.records.append(
            Record(
                self.now,
                status.phase.value,
                status.canary_weight,
                status.failed_checks,
                status.last_applied,
                text,
                self.checks,
            )
        )
