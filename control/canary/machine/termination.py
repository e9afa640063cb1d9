"""When something is deleted: the Canary (with revertOnDeletion, or where fields are given back), or its target under it.

Canary deleted -> Terminating: target scaled up --ready--> apex selects it again, finalizer removed -> Terminated
target deleted -> requests go to the primary; what was being analysed has failed, what was being promoted goes on
"""

from __future__ import annotations

from typing import NoReturn

from control.canary.declared.alerts import ERROR
from control.canary.machine import setup
from control.canary.machine.decision import KeepUntilReverted, Release, Revert, RevertServices
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.failure import roll_back
from control.canary.machine.promotion import copied, finish
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.status import ANALYSED, ENDING, INITIAL, Phase


def keep_finalizer(draft: Draft) -> None:
    """Kubernetes and the file store hold a deleted object back for as long as it has a finalizer.  Where the owner gets the
    fields back anyway they do so in this order too: otherwise the primary went while the target's pods begin."""
    wanted = draft.spec.revert_on_deletion or draft.facts.gives_back
    if wanted and not draft.facts.finalizer:
        draft.do(KeepUntilReverted())
    elif draft.facts.finalizer and not wanted:
        draft.do(Release())


def terminate(draft: Draft) -> NoReturn:
    """The Canary has been deleted.  Ends the tick.  The primary answers until the target can."""
    spec, facts = draft.spec, draft.facts
    if not facts.finalizer:
        raise Stop
    if draft.status.phase not in ENDING:
        weight = draft.status.canary_weight
        failed = draft.status.phase is Phase.FAILED  # its weight of 100 must stay: the primary is broken
        if not failed and facts.primary is not None and facts.routing != TO_PRIMARY:
            draft.route(TO_PRIMARY)
        draft.to(Phase.TERMINATING, canary_weight=weight if failed else 0)
        draft.record(f"Terminating canary {spec.full_name}")
    if draft.status.phase is Phase.TERMINATED:
        draft.do(Release())
        raise Stop
    target = facts.target
    if target is None or facts.problem:  # without its label nothing can be made to select it
        draft.warn(f"{facts.problem}; there is nothing to give the traffic back to")
    elif target.replicas == 0:
        draft.do(Revert())
        draft.stop(f"Scaling up {spec.full_target}, which gets its traffic back")
    elif not target.readiness.ready and facts.primary is not None:
        draft.stop_warning(f"{spec.full_target} not ready: {target.readiness.text}; {spec.primary} answers until it is")
    else:
        draft.do(RevertServices())
    # Stored before the finalizer goes in the next tick: there is no status of an object that is gone.
    draft.to(Phase.TERMINATED)
    draft.record(f"Terminated canary {spec.full_name}")
    raise Stop


def target_gone(draft: Draft) -> NoReturn:
    """Nobody answers for the canary any more: whatever was under way, requests go to the primary.  Ends the tick."""
    spec, status = draft.spec, draft.status
    draft.warn(draft.facts.problem)
    if draft.facts.primary is None and draft.facts.kept and status.phase not in INITIAL:
        setup.make_primary(draft)
    if status.phase in (Phase.WAITING, *ANALYSED):
        roll_back(draft, f"Rolling back {spec.full_name} the target is gone", ERROR, "Rolling back, the target is gone")
    if status.phase in (Phase.PROMOTING, Phase.FINALISING):
        if not copied(draft):
            text = "the revision to promote is gone"
            roll_back(draft, f"Rolling back {spec.full_name} {text}", ERROR, f"Rolling back, {text}")
        if status.phase is Phase.FINALISING:
            finish(draft)
        draft.route(TO_PRIMARY)
        draft.to(Phase.FINALISING)
        draft.record("Routing all traffic to primary")
    elif status.phase is Phase.FAILED and status.canary_weight:
        draft.route(TO_PRIMARY)
    raise Stop
