"""The release machine: (spec, status, facts, now) -> Decision.  Pure: no clock, no store, no randomness.

One call is one tick.  Its order is Flagger's (flagger.md 3); the drawing of the phases is in status.py.

    deleted? refused? suspended? target there?   -> terminate; say so, stop (suspended: abort only)  termination.py
    services, primary, routing, apex             -> make them, wait for the primary (-> Initialized) setup.py
    new revision?                                -> gate, scale the target up       (-> Progressing) beginning.py
    order to abort                               -> roll back                                        failure.py
    the primary has no pods?                     -> halt: requests stay where they are
    evidence of harm                             -> roll back                                        comparison.py
    newer revision                               -> restart from weight 0                            beginning.py
    canary pods ready? routing in force?         -> wait, or roll back when stuck  (the baseline's too: baselining.py)
    rollback hooks                               -> roll back
    Promoting, Finalising                        -> traffic back to the primary, target to zero      promotion.py
    failed checks reached the threshold          -> roll back                       (-> Failed)
    hooks, then metrics                          -> a failed check, or ...
    strategy                                     -> the next weight or iteration, or the promotion   strategy.py
                                                    by the steps of a ReleasePolicy                  stepping.py

A Decision is carried out in order: actions, then events, then the status, then notices.  A crash anywhere before the status
is stored repeats the tick; so every action is something to be made true, never something to be done once more.  `status`
says how requests are routed: objects that disagree are put right, never believed.  What the machine must be told in the
middle of a tick (a webhook's verdict, measurements) it asks for: question.py.

Where we differ from Flagger, on purpose, is in docs/canary/machine.md.
"""

from __future__ import annotations

import contextlib

from control.canary.declared.commands import Signature
from control.canary.declared.spec import CanarySpec
from control.canary.facts import Facts
from control.canary.machine import (
    approval,
    baselining,
    beginning,
    comparison,
    failure,
    pausing,
    promotion,
    setup,
    stepping,
    strategy,
    termination,
)
from control.canary.machine.analysis import Outcome, analyse
from control.canary.machine.decision import Decision, Event, ScaleUp
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.status import ACCEPTED, ANALYSED, INITIAL, RUNNING, Phase, Status


def tick(spec: CanarySpec, status: Status, facts: Facts, now: float) -> Decision:
    """Decide what happens now, or ask what must be known first.  Raises IllegalTransition only if the machine itself is
    wrong."""
    draft = Draft(spec, status, facts, now)
    with contextlib.suppress(Stop):
        _run(draft)
    baselining.settle(draft)
    return draft.decision()


def invalid(status: Status, name: str, text: str, now: float) -> Decision:
    """The decision for an object that cannot be read: what runs stays as it is, and the object says why."""
    status = status.with_condition(ACCEPTED, "False", "Invalid", text, now)
    return Decision((), status, (Event(True, f"Canary {name} is not run: {text}"),), ())


def _run(draft: Draft) -> None:
    spec, facts = draft.spec, draft.facts
    if facts.deleting:
        termination.terminate(draft)
    _refuse(draft)
    termination.keep_finalizer(draft)
    if spec.suspend:
        failure.abort(draft)  # the brake works whatever else is held
        draft.stop("skipping canary run as object is suspended")
    if facts.target is None:
        termination.target_gone(draft)
    if facts.problem:
        failure.abort(draft)
        draft.stop_warning(facts.problem)
    if draft.status.phase is Phase.NEW:
        draft.to(Phase.INITIALIZING)
        for text in spec.ignored:
            draft.warn(f"ignored: {text}")
    try:
        setup.ensure_objects(draft)
        if draft.status.phase is Phase.INITIALIZING:
            setup.initialised(draft)
        _release(draft)
    finally:
        if not draft.asks and draft.status.phase not in INITIAL and draft.before.phase not in INITIAL:
            setup.put_routing_right(draft)


def _refuse(draft: Draft) -> None:
    if not draft.spec.refused:
        draft.status = draft.status.without_condition(ACCEPTED)
        return
    text = "; ".join(draft.spec.refused)
    before = draft.status
    draft.status = before.with_condition(ACCEPTED, "False", "Unsupported", text, draft.now)
    if draft.status != before:
        draft.warn(f"Canary {draft.spec.full_name} is not run: {text}")
    raise Stop


def _release(draft: Draft) -> None:
    spec, facts = draft.spec, draft.facts
    assert facts.primary is not None
    started = draft.status.phase in RUNNING or draft.status.phase is Phase.WAITING
    if not started and not beginning.changed(draft):
        if draft.status.phase is Phase.FAILED:
            promotion.retry(draft)
            # So that coming back to this revision later counts as a change.
            draft.noted(last_applied=draft.revision, tracked=facts.tracked)
        setup.rest(draft)
        raise Stop
    failure.abort(draft)
    if not spec.skip_analysis and not facts.primary.replicas:
        failure.primary_scaled_to_zero(draft)
    stepping.with_the_others(draft)
    comparison.pull(draft)
    if not spec.skip_analysis and not facts.primary.readiness.ready:
        failure.primary_not_ready(draft)
    if draft.status.phase not in RUNNING:
        beginning.begin(draft)
    if draft.status.phase in ANALYSED:
        beginning.restart(draft)
        promotion.resume(draft)
    _canary_ready(draft)
    if spec.skip_analysis and draft.status.phase in ANALYSED:
        promotion.skip_analysis(draft)
    if draft.status.phase in ANALYSED and draft.ordered(facts.commands.promote):
        signature = facts.commands.promote.signature if facts.commands.promote else Signature()
        draft.halt(f"Promotion of {spec.full_target} ordered by hand, skipping the rest of the analysis{signature.suffix}")
        promotion.promote(draft)
    baselining.ready(draft)
    if not facts.due:
        raise Stop
    _routing_in_force(draft)
    if draft.status.phase in ANALYSED and approval.rollback_wanted(draft):
        failure.by_webhook(draft)
    if draft.status.phase is Phase.PROMOTING:
        promotion.route_to_primary(draft)
    if draft.status.phase is Phase.FINALISING:
        promotion.finish(draft)
    failure.threshold_reached(draft)
    _analyse(draft)
    _advance(draft)


# ---------------------------------------------------------------- is there anything to look at?


def _canary_ready(draft: Draft) -> None:
    spec, target, phase = draft.spec, draft.facts.target, draft.status.phase
    assert target is not None
    kind = spec.target_kind.lower()
    if target.replicas == 0 and phase in ANALYSED:
        # Scaled down by someone else, or our own scaling was lost in a crash: nothing ready is not readiness.
        draft.do(ScaleUp())
        draft.stop_warning(f"canary {kind} {spec.full_target} not ready: it has no replicas; scaling it up")
    if target.readiness.ready or phase is Phase.FINALISING:
        return
    draft.warn(f"canary {kind} {spec.full_target} not ready: {target.readiness.text}")
    if target.readiness.stuck and phase in ANALYSED:
        failure.deadline_exceeded(draft, target.readiness.text)
    if phase is Phase.PROMOTING:
        # The primary is about to take everything back: broken canary pods are a reason to go on, not to wait.
        return
    raise Stop


def _routing_in_force(draft: Draft) -> None:
    """Flagger halts for ever when the routes are not accepted; here the progress deadline counts for them too."""
    problem = draft.facts.routing_problem
    if not problem:
        return
    if draft.status.phase in ANALYSED and draft.now - draft.status.transitioned > draft.spec.progress_deadline_s:
        draft.warn(problem)
        failure.deadline_exceeded(draft, problem)
    draft.stop_warning(problem)


# ---------------------------------------------------------------- analysis


def _analyse(draft: Draft) -> None:
    """Ends the tick if a check failed.  Before the first request there is nothing to check but what pre-rollout hooks do."""
    if strategy.begins(draft.status):
        draft.event(f"Starting canary analysis for {draft.spec.full_target}")
        if not approval.pre_rollout(draft):
            _failed_check(draft)
        return
    if stepping.warming(draft):
        draft.stop(f"Canary {draft.spec.full_name} is warming up, its metrics are not judged yet")
    if not approval.external_checks(draft):
        _failed_check(draft)
    extra = stepping.extra_checks(draft)
    verdict = analyse(draft.spec, draft.measurements(extra), extra, built_in=draft.facts.compared is None)
    draft.checks = verdict.checks
    if verdict.outcome is Outcome.PASSED:
        comparison.go_on(draft)
        return
    if verdict.too_few:
        stepping.wait_for_requests(draft)
    if verdict.outcome is Outcome.FAILED:
        draft.noted(failed_checks=draft.status.failed_checks + 1)
    stepping.not_passed(draft)
    draft.halt(verdict.text)
    raise Stop


def _failed_check(draft: Draft) -> None:
    draft.noted(failed_checks=draft.status.failed_checks + 1)
    stepping.not_passed(draft)
    raise Stop


def _advance(draft: Draft) -> None:
    spec, status = draft.spec, draft.status
    pausing.hold(draft)
    pausing.resumed(draft)
    if (policy := stepping.by_steps(draft)) is not None and not (spec.mirror and strategy.begins(status)):
        stepping.advance(draft, policy)
    stepping.in_its_window(draft)
    weighted = strategy.strategy(spec) is strategy.Strategy.CANARY
    mirrored = strategy.routing(spec, status).mirrored
    increases = weighted and not mirrored and status.phase is Phase.PROGRESSING
    if increases:
        approval.confirm_traffic_increase(draft)  # before the promotion too, as Flagger has it
    step = strategy.next_step(spec, status)
    if isinstance(step, strategy.Promote):
        approval.confirm_promotion(draft)
        promotion.promote(draft)
    if step.gated:
        approval.confirm_promotion(draft)
    elif increases:
        approval.approve_traffic_increase(draft)
    if draft.status.phase is Phase.WAITING_PROMOTION:  # confirmed, or maxWeight was raised while waiting
        draft.to(Phase.PROGRESSING)
    draft.status = draft.status.says("", draft.now)
    if step.routing != strategy.routing(spec, status):
        draft.route(step.routing)
    draft.noted(iterations=step.iterations)
    if step.text:
        draft.record(step.text)
    raise Stop
