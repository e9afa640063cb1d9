"""How a release begins, and begins again.

changed?    another revision, other configs; a person's `retry`; a member of the same release that begins once more
begin       Initialized, Succeeded, Failed --gate--> Waiting --gate--> Progressing, the target is scaled up
restart     analysed, and changed once more: from weight 0; back at the promoted revision: nothing is left to release
"""

from __future__ import annotations

from typing import Any

from control.canary.declared.alerts import INFO
from control.canary.machine import approval, baselining, failure, progress, setup, stepping, strategy
from control.canary.machine.decision import ScaleUp
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.status import Phase


def changed(draft: Draft) -> bool:
    """Is there a revision to release?  Going back to exactly the promoted one is not a release; a person may want the one
    that failed tried again."""
    revision, status = draft.revision, draft.status
    template = revision != status.last_promoted and revision != status.last_applied
    again = _retried(draft) or stepping.begins_again(draft)
    return template or again or dict(draft.facts.tracked) != dict(status.tracked)


def _retried(draft: Draft) -> bool:
    """Has a person ordered the revision that failed to be released once more?"""
    status = draft.status
    return status.phase is Phase.FAILED and not status.canary_weight and draft.ordered(draft.facts.commands.retry)


def begin(draft: Draft) -> None:
    """Initialized, Succeeded, Failed or Waiting: through the gate, then up with the pods."""
    facts, status = draft.facts, draft.status
    revision, ordered = draft.revision, draft.ordered(facts.commands.promote)
    if status.phase is Phase.WAITING:
        if status.last_promoted == revision != status.last_applied:
            failure.cancel(draft)
        same = status.last_applied == revision and dict(status.tracked) == dict(facts.tracked)
        if same and not facts.due and not ordered and not draft.approved("rollout"):
            setup.rest(draft)
            raise Stop
        if facts.due and approval.rollback_wanted(draft):
            failure.by_webhook(draft)
    by = facts.commands.retry.signature.suffix if _retried(draft) and facts.commands.retry is not None else ""
    approval.confirm_rollout(draft, skip=ordered)
    if status.canary_weight:  # after a failed promotion all traffic may be on the target
        draft.route(TO_PRIMARY)
    draft.do(ScaleUp())
    _progress(draft)
    baselining.start(draft)
    draft.record(f"New revision detected! Scaling up {draft.spec.full_target}{by}")
    draft.alert(INFO, "New revision detected, progressing canary analysis.", about=True)
    raise Stop


def restart(draft: Draft) -> None:
    """The template or its configuration changed again while being analysed, or what an analysis is did."""
    facts, status = draft.facts, draft.status
    same = draft.revision == status.last_applied and dict(facts.tracked) == dict(status.tracked)
    if same and strategy.coherent(draft.spec, status):
        return
    if draft.revision == status.last_promoted and draft.revision != status.last_applied:
        failure.cancel(draft)
    draft.route(TO_PRIMARY)
    _progress(draft)
    what = "New revision detected!" if not same else "Analysis changed to another strategy!"
    draft.record(f"{what} Restarting analysis for {draft.spec.full_target}")
    raise Stop


def _progress(draft: Draft) -> None:
    fresh: dict[str, Any] = {"canary_weight": 0, "failed_checks": 0, "iterations": 0}
    draft.status = progress.without(draft.status)
    draft.to(Phase.PROGRESSING, last_applied=draft.revision, tracked=draft.facts.tracked, **fresh)
    baselining.begin(draft)
