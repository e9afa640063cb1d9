"""How a release ends well: the primary becomes what was analysed, traffic goes back to it, the target rests.

promote -> Promoting -- primary ready --> weights back to it, at once or by steps (returning.py)
                                          -> Finalising -> Succeeded
"""

from __future__ import annotations

from typing import NoReturn

from control.canary.declared.alerts import ERROR, INFO
from control.canary.machine import returning
from control.canary.machine.decision import PromoteTemplate, ScaleToZero
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.failure import roll_back, tell_post_rollout
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.status import PRIMARY_READY, Phase
from control.canary.objects.manifests import stamp_for


def promote(draft: Draft) -> NoReturn:
    _copy_template(draft)
    draft.to(Phase.PROMOTING)
    raise Stop


def commit(draft: Draft, why: str) -> NoReturn:
    """Of several Canaries released together: the status first, the copy in the next tick.  From the moment the status is
    stored the others are bound to follow, so nothing may have happened before it that they do not know of."""
    draft.to(Phase.PROMOTING)
    draft.record(why)
    raise Stop


def resume(draft: Draft) -> None:
    """A crash after the copy and before the status: the primary already is the new revision.  To analyse again could only
    end in a roll back onto the very revision that failed."""
    if not copied(draft):
        return
    draft.to(Phase.PROMOTING)
    name = f"{draft.spec.primary}.{draft.spec.namespace}"
    draft.record(f"{name} already runs the new revision; going on with the promotion")
    raise Stop


def retry(draft: Draft) -> None:
    """Failed with all traffic on the canary: a person's `promote` copies the template again.  The order is the beginning of
    that run, however late it is seen: it holds for the pauses of its steps too.  Nobody is sent to the primary before it is
    ready: what it ran before is gone."""
    order = draft.facts.commands.promote
    if order is None or draft.status.canary_weight != 100 or not draft.ordered(order):
        return
    draft.halt(f"Promotion of {draft.spec.full_target} ordered by hand, trying again")
    _copy_template(draft)
    text = "The promotion is tried again; the primary gets no requests before it is ready."
    draft.status = draft.status.with_condition(PRIMARY_READY, "False", "TriedAgain", text, draft.now)
    draft.to(Phase.PROMOTING)
    draft.status = draft.status.begun(order.at)
    raise Stop


def copied(draft: Draft) -> bool:
    """Does the primary run what is being released?  One that was made of it for want of anything else was not promoted."""
    primary, status = draft.facts.primary, draft.status
    return primary is not None and primary.approved and primary.revision == stamp_for(status.last_applied, status.tracked)


def route_to_primary(draft: Draft) -> NoReturn:
    """Promoting, with the primary ready."""
    spec, status = draft.spec, draft.status
    if not copied(draft):
        # The copy was lost.  Copy again if the target still is what was analysed; otherwise what was analysed is gone.
        if draft.revision != status.last_applied or dict(draft.facts.tracked) != dict(status.tracked):
            text = "the revision to promote is gone: the target changed"
            roll_back(draft, f"Rolling back {spec.full_name} {text}", ERROR, f"Rolling back, {text}")
        _copy_template(draft)
        raise Stop
    if not spec.routed:  # pods are all there is: no traffic to shift, and Flagger says nothing here
        draft.to(Phase.FINALISING)
        raise Stop
    routing = returning.next_routing(draft)
    draft.status = draft.status.without_condition(PRIMARY_READY)
    draft.route(routing)
    if not routing.canary:
        draft.to(Phase.FINALISING)
    by_steps = returning.gradual(draft)
    text = f"Advance {spec.full_name} primary weight {routing.primary:g}" if by_steps else "Routing all traffic to primary"
    draft.record(text)
    raise Stop


def finish(draft: Draft) -> NoReturn:
    """Finalising: the target is not needed any more."""
    if draft.facts.target is not None:
        draft.do(ScaleToZero())
    _succeed(draft, "completed", f"Promotion completed! Scaling down {draft.spec.full_target}")
    draft.alert(INFO, "Canary analysis completed successfully, promotion finished.")
    raise Stop


def skip_analysis(draft: Draft) -> NoReturn:
    """spec.skipAnalysis: all at once."""
    draft.route(TO_PRIMARY)
    _copy_template(draft)
    draft.do(ScaleToZero())
    _succeed(draft, "skipped", f"Promotion completed! Canary analysis was skipped for {draft.spec.full_target}")
    draft.alert(INFO, "Canary analysis was skipped, promotion finished.")
    raise Stop


def _succeed(draft: Draft, how: str, text: str) -> None:
    draft.to(Phase.SUCCEEDED, last_promoted=draft.status.last_applied)
    draft.finished = how
    draft.record(text)
    tell_post_rollout(draft)


def _copy_template(draft: Draft) -> None:
    spec = draft.spec
    draft.do(PromoteTemplate(draft.revision, draft.facts.tracked))
    draft.record(f"Copying {spec.full_target} template spec to {spec.primary}.{spec.namespace}")
