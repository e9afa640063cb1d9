"""The baseline: what the primary runs, once more, as fresh and as small as the canary, for a comparison of like with like.

    <t>-primary  --template-->  <t>-baseline   as many replicas as <t>; pod label and selector <label>: <v>-baseline
    <apex>-canary: w            <apex>-baseline: w, beyond 50 what the canary leaves            <apex>-primary: the rest

The primary's pods are many and long warm: their caches are full, their connections open, their code compiled.  A canary that is
compared with them is worse for being new.  The baseline begins together with it, on the promoted revision, and has as many
requests; what differs then is the revision.

    Canary.status condition "Baseline"      set when a release begins, gone with the analysis; there is one as long
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.canary.declared.policy import unfit as unfit  # why a Canary can have none
from control.canary.declared.spec import CanarySpec
from control.canary.machine.status import ANALYSED, BASELINE, Phase, Status
from control.canary.objects.ownership import TargetError, contains, is_ours
from control.canary.objects.readiness import Readiness, readiness
from control.canary.objects.services import baseline_service, service_key
from control.canary.objects.workloads import GROUP, baseline_workload, primary_key, primary_stamp, replicas, target_key
from control.store.store import Key, Object, Store


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is there of it: facts for the machine."""

    ready: Readiness
    as_wanted: bool  # of the primary's revision, with as many replicas as the target, behind its Service
    problem: str = ""  # why there can be none


def kept(status: Status, phase: Phase) -> Status:
    """The status on its way to `phase`: the baseline is there for the analysis only."""
    return status if phase in ANALYSED else status.without_condition(BASELINE)


def begun(status: Status, spec: CanarySpec, now: float) -> Status:
    text = f"{spec.baseline} runs the promoted revision beside the canary, which is compared with it."
    return status.with_condition(BASELINE, "True", "Compared", text, now)


def workload_key(spec: CanarySpec) -> Key:
    return Key(GROUP, "Deployment", spec.namespace, spec.baseline)


def keys(spec: CanarySpec) -> list[Key]:
    """Both objects, in the order to delete them in."""
    return [service_key(spec, spec.baseline_service), workload_key(spec)]


def manifests(spec: CanarySpec, primary: Object, target: Object) -> list[Object]:
    """Both, whole.  Raises TargetError."""
    return [baseline_workload(spec, primary, replicas(target)), baseline_service(spec, target)]


def seen(store: Store, spec: CanarySpec, now: float) -> Baseline | None:
    """None: there is nothing of it.  What somebody else made under its names is never touched, and told."""
    found = {key: obj for key in keys(spec) if (obj := store.get(key)) is not None}
    foreign = [key for key, obj in found.items() if not is_ours(spec, obj)]
    if foreign:
        text = f"{foreign[0].kind} {foreign[0].name}.{spec.namespace} is there already and not of Canary {spec.name}'s making"
        return Baseline(Readiness(False, text), False, f"{text}: a baseline would need its name")
    if not found:
        return None
    workload = found.get(workload_key(spec))
    primary, target = store.get(primary_key(spec)), store.get(target_key(spec))
    if workload is None or primary is None or target is None or not (target.get("spec") or {}).get("template"):
        return Baseline(Readiness(False, "it is not complete"), False)
    ready = readiness(workload, spec.progress_deadline_s, spec.canary_ready_threshold, now)
    return Baseline(ready, _as_wanted(spec, found, primary, target))


def _as_wanted(spec: CanarySpec, found: Mapping[Key, Object], primary: Object, target: Object) -> bool:
    """By stamp and number, as the primary: an API server's defaults in a template are no difference."""
    workload = found[workload_key(spec)]
    try:
        made, service = manifests(spec, primary, target)
    except TargetError:
        return False
    same = primary_stamp(workload) == primary_stamp(made) and replicas(workload) == replicas(made)
    return same and contains(found.get(Key.of(service)), service)
