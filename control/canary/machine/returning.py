"""The primary takes the traffic back by steps: a policy's promotionSteps, or the Canary's own stepWeightPromotion.

    the canary's pods: another revision, stuck, none   -> all to the primary: nobody is better off with them
    a check of the present step                        -> a failed check; `threshold` of them: all to the canary, Failed
    paused by a person; the step's time; its pause     -> the weight stays
    else                                               -> the next weight, at the end all to the primary

The checks of a promotion step are about the primary, which is what is new to the traffic now.  Failed ones are counted from
the first step on: what failed before was about other pods.  A person who orders the promotion means its pauses as well.
"""

from __future__ import annotations

import math
from dataclasses import replace

from control.canary.declared.policy import PolicyStep, ReleasePolicy
from control.canary.machine import failure, pausing, progress, steps
from control.canary.machine.analysis import Outcome, analyse
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.progress import Progress, State
from control.canary.machine.routing import TO_PRIMARY, Routing


def by_policy(draft: Draft) -> ReleasePolicy | None:
    policy = draft.facts.policy
    return policy if policy is not None and policy.promotion_steps else None


def gradual(draft: Draft) -> bool:
    """Is there more than one step of it?"""
    return by_policy(draft) is not None or draft.spec.step_weight_promotion > 0


def next_routing(draft: Draft) -> Routing:
    """Ends the tick while the weight stays."""
    policy, step = by_policy(draft), draft.spec.step_weight_promotion
    if (policy is None and not step) or _has_no_canary(draft):
        return TO_PRIMARY
    if policy is None:
        _hold(draft)
        return Routing(max(0, math.floor(draft.status.canary_weight - step)))  # whole percents, which the status keeps
    return _by_steps(draft, policy)


def _has_no_canary(draft: Draft) -> bool:
    """Do the pods that still have a part of the requests not run what was analysed, or not at all, or has another hand scaled
    them away?  To wait would be to leave their users there."""
    target, status = draft.facts.target, draft.status
    assert target is not None
    same = draft.revision == status.last_applied and dict(draft.facts.tracked) == dict(status.tracked)
    return not same or target.readiness.stuck or not target.replicas


def _hold(draft: Draft) -> None:
    """Ends the tick while it is paused, unless a person has ordered the promotion."""
    if not draft.ordered(draft.facts.commands.promote):
        pausing.hold(draft)
    pausing.resumed(draft)


def _by_steps(draft: Draft, policy: ReleasePolicy) -> Routing:
    at = progress.progress(draft.status)
    if at is None or not at.promoting:
        at = progress.start(draft.now, weight=draft.status.canary_weight, promoting=True)
    here = policy.promotion_steps[min(at.step, len(policy.promotion_steps)) - 1] if at.step else None
    if here is not None:
        _check(draft, here, at)
    _hold(draft)
    approved = draft.approved(steps.promotion_gate(at.step))
    free = approved or draft.ordered(draft.facts.commands.promote)
    move = steps.next_back(policy, at, draft.spec.interval_s, draft.now, approved=free)
    match move:
        case steps.Hold():
            _keep(draft, at.to(State.LOOKED_AT, draft.now))
            raise Stop
        case steps.Wait(text=text):
            _keep(draft, at.to(State.WAITING, draft.now))
            draft.wait(text, alert=True)
    command = draft.facts.commands.approve
    if here is not None and here.pause and approved and command is not None:
        draft.record(f"Promotion step {at.step} of {draft.spec.full_name} approved{command.signature.suffix}")
    draft.status = draft.status.says("", draft.now)
    if not at.step:
        draft.noted(failed_checks=0)
    if isinstance(move, steps.Done):
        return TO_PRIMARY
    draft.status = move.progress.on(draft.status)
    return Routing(move.progress.weight)


def _check(draft: Draft, step: PolicyStep, at: Progress) -> None:
    """Ends the tick if one of the step's own checks does not pass."""
    if not step.checks:
        return
    alone = replace(draft.spec, metrics=(), target=draft.spec.primary)  # the words are about the primary too
    verdict = analyse(alone, draft.measurements_of_primary(step.checks), step.checks)
    draft.checks = verdict.checks
    if verdict.outcome is Outcome.PASSED:
        return
    if verdict.outcome is Outcome.FAILED:
        draft.noted(failed_checks=draft.status.failed_checks + 1)
    _keep(draft, at.to(State.LOOKED_AT, draft.now))
    draft.halt(verdict.text)
    if verdict.outcome is Outcome.FAILED and draft.status.failed_checks >= draft.spec.threshold:
        failure.failed_promotion(draft, verdict.why, "the new primary fails its checks")
    raise Stop


def _keep(draft: Draft, at: Progress) -> None:
    """Before the first weight there is nothing to keep."""
    if at.step:
        draft.status = at.on(draft.status)
