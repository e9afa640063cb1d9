"""Who must agree before a release goes on: webhooks, in the order of the list, and our annotations' `approve`.

    rollout            before a revision is scaled up            no: Waiting
    traffic-increase   before each weight                        no: the weight stays
    promotion          at the last weight, at the last iteration no: WaitingPromotion, still analysed
    pre-rollout        before the first request                  no: a failed check
    rollback           each tick until the promotion             yes: roll back

A gate that is closed is neither success nor failure: it is asked again at each tick, and never counted.  A person's `promote`
opens them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.canary.declared import hooks
from control.canary.declared.alerts import WARN
from control.canary.declared.hooks import Webhook
from control.canary.machine import comparison
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.gates import TRAFFIC_INCREASE, increase_gate, waits_for
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.setup import rest
from control.canary.machine.status import Phase

BY_HAND = "approve"  # the name of an annotation's gate, where a webhook's stands


def of_type(draft: Draft, kind: str) -> Iterator[Webhook]:
    return (hook for hook in draft.spec.webhooks if hook.type == kind)


def confirm_rollout(draft: Draft, *, skip: bool) -> None:
    """Ends the tick in Waiting if the revision may not begin.  `skip`: a person has ordered it."""
    spec = draft.spec
    if skip:
        return
    for hook in of_type(draft, hooks.CONFIRM_ROLLOUT):
        if not draft.hook(hook, draft.before.phase.value).ok:
            _wait_for_rollout(draft, hook.name, mute=hook.mute_alert)
        draft.event(f"Confirm-rollout check {hook.name} passed")
    if "rollout" in spec.gates:
        if not draft.approved("rollout"):
            _wait_for_rollout(draft, "rollout", mute=False)
        _approved(draft, "Confirm-rollout")


def _wait_for_rollout(draft: Draft, gate: str, *, mute: bool) -> None:
    status, revision, tracked = draft.status, draft.revision, draft.facts.tracked
    known = status.last_applied == revision and dict(status.tracked) == dict(tracked)
    if status.phase is not Phase.WAITING or not known:
        if status.canary_weight:  # after a failed promotion: the primary is ready again, or this were not asked
            draft.route(TO_PRIMARY)
        draft.to(Phase.WAITING, failed_checks=0, iterations=0, last_applied=revision, tracked=tracked)
        draft.halt(f"Halt {draft.spec.full_name} advancement waiting for approval {gate}")
        if not mute:
            draft.alert(WARN, "Canary is waiting for approval.")
    draft.status = draft.status.says(waits_for(gate), draft.now)
    rest(draft)
    raise Stop


def _approved(draft: Draft, check: str) -> None:
    """By a person: the history keeps who and why."""
    command = draft.facts.commands.approve
    draft.record(f"{check} check {BY_HAND} passed{command.signature.suffix if command else ''}")


def confirm_traffic_increase(draft: Draft) -> None:
    """Ends the tick if the weight may not grow.  Flagger raises an alert at each tick; once is enough for a person."""
    for hook in of_type(draft, hooks.CONFIRM_TRAFFIC_INCREASE):
        if not draft.hook(hook, Phase.PROGRESSING.value).ok:
            _wait_for_increase(draft, hook.name, hook.name, mute=hook.mute_alert)
        draft.event(f"Confirm-traffic-increase check {hook.name} passed")


def approve_traffic_increase(draft: Draft) -> None:
    """The annotation's part: each weight has an approval of its own."""
    if TRAFFIC_INCREASE not in draft.spec.gates:
        return
    if not draft.approved(increase_gate(draft.status)):
        _wait_for_increase(draft, f"at weight {draft.status.canary_weight:g}", TRAFFIC_INCREASE, mute=False)
    _approved(draft, "Confirm-traffic-increase")


def _wait_for_increase(draft: Draft, what: str, gate: str, *, mute: bool) -> None:
    said = waits_for(gate, draft.status.canary_weight)
    asked_before = draft.status
    draft.status = draft.status.says(said, draft.now)
    draft.halt(f"Halt {draft.spec.full_name} advancement waiting for traffic increase approval {what}")
    if draft.status != asked_before and not mute:
        draft.alert(WARN, "Canary traffic increase is waiting for approval.")
    raise Stop


def confirm_promotion(draft: Draft) -> None:
    """Ends the tick in WaitingPromotion if the analysed revision may not be promoted; where it is, if that is not proved."""
    comparison.suffice(draft)
    for hook in of_type(draft, hooks.CONFIRM_PROMOTION):
        if not draft.hook(hook, Phase.PROGRESSING.value).ok:
            _wait_for_promotion(draft, f"waiting for promotion approval {hook.name}", hook.name, mute=hook.mute_alert)
        draft.event(f"Confirm-promotion check {hook.name} passed")
    if "promotion" in draft.spec.gates:
        if not draft.approved("promotion"):
            _wait_for_promotion(draft, "waiting for promotion approval", "promotion", mute=False)
        _approved(draft, "Confirm-promotion")


def _wait_for_promotion(draft: Draft, what: str, gate: str, *, mute: bool) -> None:
    if draft.status.phase is Phase.PROGRESSING:
        draft.to(Phase.WAITING_PROMOTION)
        draft.halt(f"Halt {draft.spec.full_name} advancement {what}")
        if not mute:
            draft.alert(WARN, "Canary promotion is waiting for approval.")
    draft.status = draft.status.says(waits_for(gate), draft.now)
    raise Stop


def pre_rollout(draft: Draft) -> bool:
    """Did all that must hold before the first request hold?"""
    for hook in of_type(draft, hooks.PRE_ROLLOUT):
        if not _passes(draft, hook, "pre-rollout"):
            return False
        draft.event(f"Pre-rollout check {hook.name} passed")
    return True


def external_checks(draft: Draft) -> bool:
    """Did the checks that others make (hooks of type rollout: load, smoke tests) pass?"""
    return all(_passes(draft, hook, "external") for hook in of_type(draft, hooks.ROLLOUT))


def _passes(draft: Draft, hook: Webhook, check: str) -> bool:
    """Asked while the revision is analysed; a no is told with its words."""
    answer = draft.hook(hook, Phase.PROGRESSING.value)
    if not answer.ok:
        said = answer.text or "without a word"
        draft.halt(f"Halt {draft.spec.full_name} advancement {check} check {hook.name} failed {said}")
    return answer.ok


def rollback_wanted(draft: Draft) -> bool:
    """Does any hook say "roll back"?  Its not answering, or saying no, says nothing."""
    for hook in of_type(draft, hooks.ROLLBACK):
        if draft.hook(hook, draft.status.phase.value).ok:
            draft.warn(f"Rollback check {hook.name} passed")
            return True
        draft.event(f"Rollback hook {hook.name} not signaling a rollback")
    return False
