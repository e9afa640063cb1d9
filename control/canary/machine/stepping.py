"""A release by the steps of its ReleasePolicy, alone or with others: the part of a tick that a policy changes.

before anything else   a member that failed takes us with it; one that is promoted binds us          with_the_others
analysis               nothing is judged while it warms up; the step's own checks come besides        warming, extra_checks
the strategy's place   Hold -> look again;  Wait -> say for what;  Go -> gates, members, next weight   advance
                       Done -> gates, members, promote
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from control.canary.declared.alerts import WARN
from control.canary.declared.metric import Metric
from control.canary.declared.opening import opens, said
from control.canary.declared.policy import ReleasePolicy
from control.canary.machine import approval, failure, group, progress, promotion, steps, strategy
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.gates import evidence_gate, increase_gate
from control.canary.machine.progress import Progress, State
from control.canary.machine.routing import Routing
from control.canary.machine.status import ANALYSED, Phase


def by_steps(draft: Draft) -> ReleasePolicy | None:
    """The policy whose steps this release follows; None if the Canary says all there is."""
    policy = draft.facts.policy
    weighted = strategy.strategy(draft.spec) is strategy.Strategy.CANARY
    return policy if policy is not None and policy.steps and weighted else None


def where(draft: Draft) -> Progress:
    """How far the release is.  One that was begun without a policy goes on from its weight."""
    found = progress.progress(draft.status)
    if found is not None and not found.promoting:
        return found
    policy, weight = draft.facts.policy, draft.status.canary_weight
    number = sum(step.weight <= weight for step in policy.steps) if policy is not None and weight else 0
    return Progress(number, weight, float(int(draft.status.transitioned or draft.now)))


# ---------------------------------------------------------------- the others


def with_the_others(draft: Draft) -> None:
    """All or none: ends the tick if another member has decided for us."""
    if not draft.facts.others or draft.status.phase not in (Phase.WAITING, *ANALYSED):
        return
    spec, others = draft.spec, draft.facts.others
    if (one := group.bound(others, where(draft).passed_at)) is not None:
        promotion.commit(draft, f"{one.name}.{spec.namespace}, released with {spec.full_name}, is promoted; promoting as well")
    if (one := group.failed(others, draft.status.run_started)) is not None:
        text = f"{one.name}.{spec.namespace}, released with it, failed"
        failure.roll_back(draft, f"Rolling back {spec.full_name} {text}", WARN, f"Rolling back, {text}")


def begins_again(draft: Draft) -> bool:
    """Rolled back, and a member of the same release has begun once more."""
    status = draft.status
    if status.phase is not Phase.FAILED or status.canary_weight or draft.revision == status.last_promoted:
        return False
    return group.begins_again(draft.facts.others, status.run_started) is not None


# ---------------------------------------------------------------- analysis


def extra_checks(draft: Draft) -> Sequence[Metric]:
    """What the present step checks besides the Canary."""
    policy = by_steps(draft)
    at = where(draft)
    return policy.step(at.step - 1).checks if policy is not None and at.step else ()


def warming(draft: Draft) -> bool:
    """Has the first weight been set only just?  Then the canary is seen, but not judged."""
    policy = draft.facts.policy
    if policy is None or not policy.warm_up_s:
        return False
    at = progress.progress(draft.status)
    if at is None:  # blue/green, A/B: from the first iteration on
        return draft.status.iterations == 1 and draft.now - draft.status.transitioned < policy.warm_up_s
    return at.step <= 1 and draft.now - at.since < policy.warm_up_s


def wait_for_requests(draft: Draft) -> None:
    """Too few requests to judge by.  Flagger counts that as a failed check; a step that says how many it wants (minRequests)
    waits for them, for as long as its policy has patience (maxWait)."""
    policy, at = by_steps(draft), where(draft)
    step = policy.step(at.step - 1) if policy is not None and at.step else None
    if policy is None or step is None or not step.min_requests or draft.now - at.since >= policy.max_wait_s:
        return
    _keep(draft, at.to(State.LOOKED_AT, draft.now))
    draft.event(f"Canary {draft.spec.full_name} needs {step.min_requests} requests at weight {at.weight:g} before it goes on")
    raise Stop


def not_passed(draft: Draft) -> None:
    """A check failed: whatever the step had, it has to have again."""
    if (at := progress.progress(draft.status)) is not None:
        draft.status = at.to(State.LOOKED_AT, draft.now).on(draft.status)


# ---------------------------------------------------------------- what comes next


def advance(draft: Draft, policy: ReleasePolicy) -> NoReturn:
    """After a round of analysis that passed."""
    spec, at = draft.spec, _counted_anew(draft, where(draft))
    move = steps.next_move(policy, at, _seen(draft, at), spec.interval_s, draft.now)
    match move:
        case steps.Hold(text=text):
            _keep(draft, at.to(State.LOOKED_AT, draft.now))
            draft.event(f"Canary {spec.full_name} needs {text} before it goes on")
            raise Stop
        case steps.Wait(text=text, gate=gate):
            _keep(draft, at.to(State.WAITING, draft.now))
            draft.wait(text, alert=bool(gate))
    pause = at.step > 0 and policy.step(at.step - 1).pause
    if pause and at.state is State.WAITING:
        command = draft.facts.commands.approve
        draft.record(f"Step {at.step} of {spec.full_name} approved{command.signature.suffix if command else ''}")
    last = isinstance(move, steps.Done)
    # If a gate ends the tick.  After a pause it is not the person of this step who is waited for: that was told, once.
    _keep(draft, at.to(State.LOOKED_AT if pause else State.WAITING, draft.now))
    if draft.status.phase is Phase.PROGRESSING:
        approval.confirm_traffic_increase(draft)
        if not last:
            approval.approve_traffic_increase(draft)
    if last:
        approval.confirm_promotion(draft)
    passed = at.to(State.PASSED, draft.now)
    _keep(draft, passed)
    began = draft.status.run_started
    if text := group.waits_for(draft.facts.others, passed.step, began, last=last):
        draft.wait(text, alert=False)
    if not isinstance(move, steps.Go):
        if draft.facts.others:
            promotion.commit(draft, f"All that are released with {spec.full_name} have passed; promoting")
        promotion.promote(draft)
    if draft.status.phase is Phase.WAITING_PROMOTION:  # steps were added while it waited
        draft.to(Phase.PROGRESSING)
    draft.status = draft.status.says("", draft.now)
    draft.route(Routing(move.progress.weight))
    draft.noted(iterations=0)
    _keep(draft, _from_now_on(draft, move.progress))
    draft.record(f"Advance {spec.full_name} canary weight {move.progress.weight:g}")
    raise Stop


def in_its_window(draft: Draft) -> None:
    """For strategies without steps: ends the tick outside the hours of the policy."""
    policy = draft.facts.policy
    if policy is not None and (opening := opens(policy.windows, draft.now)) is not None:
        draft.wait(f"its window, which opens {said(policy.windows, opening)}", alert=False)


# ---------------------------------------------------------------- helpers


def _seen(draft: Draft, at: Progress) -> steps.Seen:
    # What a step is followed by may have a gate as well, and an approval opens one: the later stands for the earlier.
    gates = (steps.gate(at.step), increase_gate(draft.status), evidence_gate(draft.status), "promotion")
    return steps.Seen(_requests(draft, at), approved=at.step > 0 and any(map(draft.approved, gates)))


def _requests(draft: Draft, at: Progress) -> float | None:
    """Answered by the canary in this step.  By a source that counts; else as the checks of this tick saw them: those whose
    window lies within the step."""
    if draft.facts.compared is not None:
        return float(draft.facts.compared.requests)
    arms = draft.facts.arms
    if arms is not None and at.counted is not None:
        return float(arms.canary.requests - at.counted)
    elapsed = draft.now - at.since
    metrics = (*draft.spec.metrics, *extra_checks(draft))
    windows = {metric.name: metric.interval_s for metric in metrics}
    found = [c.requests for c in draft.checks if c.requests is not None and windows.get(c.metric, elapsed + 1) <= elapsed]
    return max(found, default=None)


def _from_now_on(draft: Draft, at: Progress) -> Progress:
    """With the number of requests so far, if a source counts them."""
    arms = draft.facts.arms
    return at if arms is None else replace(at, counted=arms.canary.requests)


def _counted_anew(draft: Draft, at: Progress) -> Progress:
    """A total below that at the beginning of the step is another's (the control plane was restarted): it counts from 0, which
    is not too much.  Where nobody could count as the step began (the source had just begun itself), it counts from the first
    total that is known: too few, and never too many."""
    arms = draft.facts.arms
    if arms is None or not at.step:
        return at
    if at.counted is None:
        return replace(at, counted=arms.canary.requests)
    return replace(at, counted=0) if arms.canary.requests < at.counted else at


def _keep(draft: Draft, at: Progress) -> None:
    draft.status = at.on(draft.status)
