"""How a release ends badly: roll back, abort, cancel, a promotion that failed.

analysed release   roll back: all requests to the primary, the target to zero, Failed
promotion          the primary already is the new revision: if it does not get ready, all requests stay on the canary
"""

from __future__ import annotations

from typing import NoReturn

from control.canary.declared.alerts import ERROR, WARN
from control.canary.declared.hooks import POST_ROLLOUT
from control.canary.machine.decision import ScaleToZero, TellHook
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.routing import TO_PRIMARY, Routing
from control.canary.machine.status import ANALYSED, RUNNING, Phase


def tell_post_rollout(draft: Draft) -> None:
    """The hooks that hear how it ended."""
    phase = draft.status.phase.value
    draft.notices += [TellHook(hook, phase) for hook in draft.spec.webhooks if hook.type == POST_ROLLOUT]


def roll_back(draft: Draft, why: str, severity: str, alert: str) -> NoReturn:
    """`why` is the Event, `alert` what people are told."""
    draft.route(TO_PRIMARY)
    if draft.facts.target is not None:
        draft.do(ScaleToZero())
    draft.to(Phase.FAILED)
    draft.finished = "failed"
    draft.record(why, warning=True)
    draft.noted(failed_checks=0)  # as Flagger; the record keeps how many there were
    draft.warn(f"Canary failed! Scaling down {draft.spec.full_name}")
    draft.alert(severity, alert)
    tell_post_rollout(draft)
    raise Stop


def threshold_reached(draft: Draft) -> None:
    failed = draft.status.failed_checks
    if failed >= draft.spec.threshold:
        text = f"Rolling back {draft.spec.full_name} failed checks threshold reached {failed}"
        roll_back(draft, text, ERROR, f"Failed checks threshold reached {failed}")


def deadline_exceeded(draft: Draft, text: str) -> NoReturn:
    why = f"Rolling back {draft.spec.full_name} progress deadline exceeded {text}"
    roll_back(draft, why, ERROR, f"Progress deadline exceeded {text}")


def by_webhook(draft: Draft) -> NoReturn:
    text = "manual webhook invoked"
    roll_back(draft, f"Rolling back {draft.spec.full_name} {text}", WARN, f"Rolling back {text}")


def abort(draft: Draft) -> None:
    """If a person has ordered it.  Of a suspended Canary the release under way is what is meant, also where its target has
    changed or is gone: no new one begins there, and whoever is routed to its pods stays with them."""
    order = draft.facts.commands.abort
    if order is None or not (draft.ordered(order) or (draft.spec.suspend and draft.of_this_run(order))):
        return
    if draft.status.phase in (Phase.WAITING, *ANALYSED):
        text = f"aborted by hand{order.signature.suffix}"
        roll_back(draft, f"Rolling back {draft.spec.full_name} {text}", WARN, f"Rolling back {text}")
    elif draft.status.phase in RUNNING:
        draft.halt(f"Canary {draft.spec.full_name} cannot be aborted: the primary already runs the new revision")


def cancel(draft: Draft) -> NoReturn:
    """The user went back to what the primary runs: there is nothing left to release."""
    draft.noted(last_applied=draft.revision, tracked=draft.facts.tracked)
    text = "the target is back at the promoted revision"
    roll_back(draft, f"Rolling back {draft.spec.full_name} {text}", WARN, f"Rolling back, {text}")


def primary_not_ready(draft: Draft) -> NoReturn:
    spec, primary = draft.spec, draft.facts.primary
    assert primary is not None
    text = f"{spec.primary}.{spec.namespace} not ready: {primary.readiness.text}"
    if not primary.readiness.stuck or draft.status.phase not in RUNNING:
        draft.stop_warning(text)
    draft.warn(text)
    if draft.status.phase in ANALYSED:
        roll_back(
            draft, f"Rolling back {spec.full_name} primary not ready", ERROR, f"Primary not ready: {primary.readiness.text}"
        )
    failed_promotion(draft, primary.readiness.text)


def primary_scaled_to_zero(draft: Draft) -> NoReturn:
    """Its readiness says nothing: all of no pods are ready.  Neither the next weight nor a roll back would help anybody;
    Flagger means to stop here too (its comparison of two pointers never finds them equal)."""
    spec = draft.spec
    kind, primary = spec.target_kind.lower(), f"{spec.primary}.{spec.namespace}"
    draft.stop_warning(f"Halt {spec.full_name} advancement: primary {kind} {primary} is scaled to zero")


def failed_promotion(draft: Draft, why: str, what: str = "primary not ready") -> NoReturn:
    """The primary is broken and its old revision is gone: the analysed canary is the only good one, it takes all."""
    # Everyone, also who does not match in A/B: there is nobody else to answer them.
    draft.route(Routing(100, everyone=bool(draft.spec.routes.trial)))
    where = "all traffic is on the canary" if draft.spec.routed else "the canary is left running"
    message = f"Promotion failed, {what}; {where}."
    draft.to(Phase.FAILED, message, canary_weight=100)
    draft.finished = "failed"
    draft.record(f"Promotion of {draft.spec.full_target} failed, {what}: {why}", warning=True)
    draft.noted(failed_checks=0)
    draft.alert(ERROR, f"Promotion failed, {what}: {why}")
    tell_post_rollout(draft)
    raise Stop
