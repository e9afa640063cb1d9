"""What must exist before anything can be released, and must stay: Services, the primary, the router's objects.

    services -> primary, ready -> router's objects -> apex selects the primary -> target to zero       (-> Initialized)

    primary gone later -> made again as it was promoted (objects/promoted.py); nothing is kept: of the target, which is told

Afterwards each tick looks again.  What another hand changed is put back, and that is said: a weight, a selector, the target's
replicas between releases.  What the Canary itself declares anew is followed (objects/declaration.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from control.canary.declared.alerts import ERROR, INFO
from control.canary.machine import failure, strategy
from control.canary.machine.decision import (
    CreatePrimary,
    EnsureApex,
    EnsureScaler,
    EnsureServices,
    KeepPrimary,
    MarkPrimary,
    RestoreConfigs,
    RestorePrimary,
    ScaleToZero,
    SetRouting,
)
from control.canary.machine.draft import Draft, Stop
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.status import ANALYSED, INITIAL, Phase
from control.canary.objects.manifests import stamp_for
from control.canary.routers import router_for


def ensure_objects(draft: Draft) -> None:
    """Ends the tick while the primary is not there, or at first not ready."""
    spec, facts, initial = draft.spec, draft.facts, draft.status.phase in INITIAL
    _nobody_elses(draft)
    if not facts.services_ok:
        draft.do(EnsureServices())
        if not initial and "services" in facts.anew:
            draft.event(f"services of {spec.full_name} follow the Canary")
        elif not initial:
            draft.warn(f"services of {spec.full_name} are not as it wants them; putting them right")
    if initial and not spec.skip_analysis and spec.metrics:
        if facts.source_problem:
            draft.warn(f"Error checking metric providers: {facts.source_problem}")
        else:
            draft.event("all the metrics providers are available!")
    primary = f"{spec.primary}.{spec.namespace}"
    if facts.primary is None:
        make_primary(draft)
    _as_promoted(draft)
    if not facts.scaler_ok and not facts.foreign_copy:
        draft.do(EnsureScaler())
    if initial and facts.scaler_problem:
        draft.warn(facts.scaler_problem)
    if initial and not facts.primary.readiness.ready:
        # Flagger scales the target to zero when this gets stuck.  The user's pods are all there is: they stay.
        draft.stop_warning(f"{primary} not ready: {facts.primary.readiness.text}")
    if initial and not facts.primary.replicas:
        draft.stop_warning(f"{primary} not ready: it is scaled to zero")
    # The routing first: once the apex selects the primary and the target goes, no request must still aim at the target.
    if initial and facts.routing != TO_PRIMARY:
        draft.do(SetRouting(TO_PRIMARY))
    if not facts.apex_ok:
        draft.do(EnsureApex())
        if not initial and "apex" in facts.anew:
            draft.event(f"service {spec.apex}.{spec.namespace} follows Canary {spec.full_name}")
        elif not initial:
            draft.warn(f"service {spec.apex}.{spec.namespace} is not as {spec.full_name} wants it; putting it right")


def _nobody_elses(draft: Draft) -> None:
    """Ends the tick where an object that is no Canary's has a name we need.  A release under way is not left alone with its
    canary, but for one that is being promoted: what it needs is there."""
    facts, phase = draft.facts, draft.status.phase
    text = facts.foreign or ("" if phase in (Phase.PROMOTING, Phase.FINALISING) else facts.foreign_copy)
    if not text:
        return
    failure.abort(draft)
    if phase in ANALYSED and not facts.foreign:
        failure.roll_back(draft, f"Rolling back {draft.spec.full_name} {text}", ERROR, f"Rolling back, {text}")
    draft.stop_warning(text)


def _taken_over(draft: Draft) -> None:
    """Flagger made the primary.  Its hashes of revisions are not ours: whether there is something to release is for what the
    primary runs to say."""
    spec, facts, phase = draft.spec, draft.facts, draft.status.phase
    primary = f"{spec.primary}.{spec.namespace}"
    draft.do(MarkPrimary(facts.mark))
    if facts.mark != stamp_for(draft.revision, facts.tracked):
        draft.record(f"{primary} is taken over as it is; {spec.full_target} says something else")
        return
    if phase not in INITIAL:
        draft.noted(last_promoted=draft.revision)
    if phase not in (*INITIAL, *ANALYSED, Phase.WAITING):
        draft.noted(last_applied=draft.revision, tracked=facts.tracked)
    draft.record(f"{primary} is taken over as it is: it runs what {spec.full_target} says")


def make_primary(draft: Draft) -> NoReturn:
    """There is none.  As it was promoted, not as the target is by now: that may be what is being analysed, or has failed."""
    spec, facts = draft.spec, draft.facts
    primary = f"{spec.primary}.{spec.namespace}"
    gone = f"{spec.target_kind.lower()} {primary} is gone"
    if draft.status.phase in INITIAL:
        draft.do(CreatePrimary(draft.revision))
    elif facts.kept:
        draft.do(RestorePrimary())
        draft.halt(f"{gone}; creating it again as it was promoted")
    elif _promoted(draft):
        draft.do(CreatePrimary(draft.revision))
        draft.halt(f"{gone}; creating it again from {spec.full_target}, which is at the promoted revision")
    else:
        draft.do(CreatePrimary(draft.revision, approved=False))
        draft.halt(f"{gone}, and what was promoted is not kept; creating it again from {spec.full_target} as it is")
        _never_approved(draft)
        draft.alert(ERROR, f"{primary} was gone, and what was promoted is not kept: what is served was never approved")
    draft.stop_warning(f"{primary} not ready: waiting for rollout to finish")


def _promoted(draft: Draft) -> bool:
    """Is the target at the very revision, configs included, that was promoted?"""
    status, tracked = draft.status, dict(draft.facts.tracked)
    if tracked != dict(status.tracked):
        return False
    if status.phase in (Phase.PROMOTING, Phase.FINALISING):
        return draft.revision == status.last_applied
    # Elsewhere the configs in the status are those of the last release, whatever became of it.
    return draft.revision == status.last_promoted and (status.phase in (Phase.INITIALIZED, Phase.SUCCEEDED) or not tracked)


def _never_approved(draft: Draft) -> None:
    """No revision counts as promoted any more: each that comes now is a release, going back included."""
    spec = draft.spec
    draft.noted(last_promoted="")
    if draft.status.phase in (Phase.INITIALIZED, Phase.SUCCEEDED):
        draft.noted(last_applied="")  # it was promoted, so that coming back to it would be no change
    draft.warn(
        f"what {spec.primary}.{spec.namespace} serves was never approved: it was created from {spec.full_target} "
        f"when what was promoted was not kept; the next promotion ends this"
    )


def _as_promoted(draft: Draft) -> None:
    """What the primary runs is kept, and its configs are as they were promoted."""
    spec, facts = draft.spec, draft.facts
    assert facts.primary is not None
    if not facts.primary.approved and draft.status.phase not in INITIAL:
        _never_approved(draft)
    if facts.mark:
        _taken_over(draft)
    elif not facts.keeps:
        draft.do(KeepPrimary())
    elif facts.spoilt:
        draft.do(RestoreConfigs())
        names = ", ".join(f"{name}.{spec.namespace}" for name in facts.spoilt)
        draft.warn(f"{names} is not as it was promoted; putting it back")


def initialised(draft: Draft) -> None:
    facts, spec = draft.facts, draft.spec
    assert facts.primary is not None
    draft.do(ScaleToZero())
    # What the primary runs, not what the target says by now: an edit made meanwhile is the first release.
    promoted = facts.primary.revision.partition("-")[0]
    same = stamp_for(promoted, facts.tracked) == facts.primary.revision
    draft.to(
        Phase.INITIALIZED,
        failed_checks=0,
        last_applied=promoted,
        last_promoted=promoted,
        tracked=facts.tracked if same else {},
    )
    draft.record(f"Initialization done! {spec.full_name}")
    draft.alert(INFO, f"New {spec.target_kind} detected, initialization completed.", about=True)
    raise Stop


def rest(draft: Draft) -> None:
    """Between releases the target has no pods."""
    target, status = draft.facts.target, draft.status
    if target is None or target.replicas == 0 or status.canary_weight:
        return  # a failed promotion left all requests on the target
    draft.do(ScaleToZero())
    draft.warn(
        f"{draft.spec.target_kind.lower()} {draft.spec.full_target} was scaled to {target.replicas} between releases; "
        f"scaling it down (a changed template starts a release)"
    )


def put_routing_right(draft: Draft) -> None:
    """Last in a tick that moved no request: the objects say what the status says, whoever edited them meanwhile."""
    spec, facts, status = draft.spec, draft.facts, draft.status
    if draft.routed or facts.primary is None or facts.target is None or facts.problem:
        return
    wanted, seen = strategy.routing(spec, status), facts.routing
    there = facts.baseline is not None and facts.baseline.as_wanted and facts.baseline.ready.ready
    if not there and (seen is None or not seen.baseline):
        wanted = replace(wanted, baseline=0.0)  # it is made anew (baselining.ready): nobody is sent there before it is ready
    if seen == wanted and "routing" not in facts.anew:
        return
    draft.actions.insert(0, SetRouting(wanted))
    if facts.routed_before:  # another provider, or service asks for more, or less, than before: nobody has touched anything
        now = ", ".join(f"{key.kind} {key.name}" for key in router_for(spec).keys(spec)) or f"Service {spec.apex}"
        draft.record(f"Routing of {spec.apex}.{spec.namespace} moves from {facts.routed_before} to {now}: {wanted}")
        return
    if "routing" in facts.anew:
        draft.record(f"Routing of {spec.apex}.{spec.namespace} follows the Canary: {wanted}")
        return
    found = str(seen) if seen else "something else, or is gone"
    if seen and seen.mirrored != wanted.mirrored and not seen.mirrored:
        found += ", not mirrored"
    draft.halt(f"Routing of {spec.apex}.{spec.namespace} says {found}; putting it back to {wanted}")
