"""A release beside a baseline: the part of a tick that sees to it.  What a baseline is: baseline.py.

    a release begins, or begins again    a policy wants one -> condition Baseline                      begin, start
    analysed, before any other step      there, as wanted and ready? -> else make it, wait; stuck -> roll back     ready
    end of any tick                      no condition, but something is left -> remove it              settle

Its requests go before it does: whoever leaves the analysis routes without it in the same decision (Draft.to, roll_back), the
status that says so is stored, and the next tick removes it.  So wherever it crashes, there is one while it has requests.
"""

from __future__ import annotations

from control.canary.machine import failure
from control.canary.machine.decision import EnsureBaseline, RemoveBaseline
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.status import BASELINE
from control.canary.objects import baseline


def begin(draft: Draft) -> None:
    """A release begins: what its policy says now holds for all of it."""
    spec, policy = draft.spec, draft.facts.policy
    draft.status = draft.status.without_condition(BASELINE)
    wanted = policy is not None and policy.evidence is not None and policy.evidence.baseline
    if wanted and not spec.skip_analysis and not baseline.unfit(spec):
        draft.status = baseline.begun(draft.status, spec, draft.now)


def start(draft: Draft) -> None:
    """Together with the canary's pods: one is not to be warmer than the other."""
    if draft.status.beside_baseline:
        draft.do(EnsureBaseline())


def ready(draft: Draft) -> None:
    """Ends the tick while the baseline is not as the comparison needs it; as with the canary's pods."""
    spec, seen = draft.spec, draft.facts.baseline
    if not draft.status.beside_baseline:
        return
    name = f"deployment {spec.baseline}.{spec.namespace}"
    if seen is None or not seen.as_wanted:
        draft.do(EnsureBaseline())
        text = seen.problem if seen is not None and seen.problem else f"{name} is not as the comparison needs it; making it so"
        draft.warn(f"baseline not ready: {text}")
        if draft.now - draft.status.transitioned > spec.progress_deadline_s:
            failure.deadline_exceeded(draft, text)
        raise Stop
    if not seen.ready.ready:
        draft.warn(f"baseline {name} not ready: {seen.ready.text}")
        if seen.ready.stuck:
            failure.deadline_exceeded(draft, seen.ready.text)
        raise Stop


def settle(draft: Draft) -> None:
    """Last of all: nothing is left of a baseline that is over.  In the tick after the one that decided so: a crash in between
    goes back to the analysis, and must still have it."""
    seen, routing = draft.facts.baseline, draft.facts.routing
    if seen is None or seen.problem or draft.asks:
        return
    over = all(status.condition(BASELINE) is None for status in (draft.before, draft.status))
    if over and (draft.routed or routing is None or not routing.baseline):  # else it still has requests
        draft.do(RemoveBaseline())
