"""Objects -> facts: all the machine knows about the world, read from the store in one go.

    Canary, Deployments, Services, the router's objects, ConfigMaps, Secrets  -> collect() -> Facts
    a workload's status, as Kubernetes writes it                                -> readiness.py

Nothing is written here and nothing is remembered: two calls on the same objects give equal facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from control.canary.declared.commands import Commands
from control.canary.declared.policy import ReleasePolicy
from control.canary.declared.spec import CanarySpec
from control.canary.evidence.standing import Compared
from control.canary.machine.group import Member
from control.canary.machine.question import Answer, Question
from control.canary.machine.routing import Routing
from control.canary.machine.status import RUNNING, Status
from control.canary.measuring.source import Arms
from control.canary.objects import declaration, foreign, manifests, promoted
from control.canary.objects.baseline import Baseline, seen
from control.canary.objects.readiness import READY, Readiness, readiness
from control.canary.policies import others, policy_for
from control.canary.routers import router_for
from control.store.store import Key, Object, Store

__all__ = ["FINALIZER", "READY", "Facts", "Readiness", "Workload", "collect", "readiness", "target_object", "tracked_configs"]

FINALIZER = "finalizer.flagger.app"  # Flagger's: whichever of the two runs the Canary can let it go


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment or DaemonSet, as far as a release cares."""

    revision: str  # target: hash of its template; primary: the stamp of what it was copied from
    replicas: int  # desired
    readiness: Readiness
    approved: bool = True  # primary: False if it was made of a revision that nobody promoted, because nothing was kept


@dataclass(frozen=True, slots=True)
class Facts:
    """The world as of one tick.  `due` is False when a change woke us before the interval was over: then orders and new
    revisions are seen to, but nothing is analysed and no weight moves."""

    target: Workload | None
    primary: Workload | None
    problem: str = ""  # why the target cannot be released at all
    anew: frozenset[str] = frozenset()  # of "services", "apex", "routing": differ because what is declared has changed
    foreign: str = ""  # what stands where the primary is to be, and is no Canary's
    foreign_copy: str = ""  # the same of the primary's copies: of its scaler, of the configs that the target uses now
    mark: str = ""  # the stamp that the primary, which Flagger made, is to have; "": it has one
    kept: str = ""  # the stamp of the primary that is kept, to be made again from; "": none is
    keeps: bool = True  # what the primary runs is kept; also where there is no primary, or nothing in it to keep
    spoilt: tuple[str, ...] = ()  # its configs that are not as they were promoted: "ConfigMap settings-primary"
    services_ok: bool = False
    apex_ok: bool = False
    scaler_ok: bool = True  # the primary's scaler is a copy of the target's; also where there is none
    scaler_problem: str = ""  # why there is none although the Canary names one
    routing: Routing | None = None  # as the router's objects say; None: absent, or not as wanted apart from weights
    routed_before: str = ""  # objects of the other router that still carry the weights, "" if there are none
    routing_problem: str = ""  # of a release, when it is due: why those objects have no effect, "" if they have
    tracked: Mapping[str, str] = field(default_factory=dict)  # configs the template uses -> hash
    source_problem: str = ""  # why the metric source is not available, "" if it is
    commands: Commands = field(default_factory=Commands)
    due: bool = True
    deleting: bool = False  # the Canary has been deleted, and waits for its finalizers
    finalizer: bool = False  # it has ours
    gives_back: bool = False  # whoever deletes the Canary gets target and apex back, whether it has revertOnDeletion or not
    baseline: Baseline | None = None  # what there is of it
    compared: Compared | None = None  # with the primary; None: this release is not judged by evidence
    answers: Mapping[Question, Answer] = field(default_factory=dict)  # to what this tick asked so far
    policy: ReleasePolicy | None = None  # what holds for this Canary beyond itself
    others: tuple[Member, ...] = ()  # the other members of its release
    arms: Arms | None = None  # running totals of both arms; None: not known, or nothing asks for them


def target_object(store: Store, spec: CanarySpec) -> Object | None:
    """The target; None also when only our own leftover fields of a deleted one remain."""
    obj = store.get(manifests.target_key(spec))
    return obj if obj is not None and (obj.get("spec") or {}).get("template") else None


def tracked_configs(store: Store, spec: CanarySpec, target: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the ConfigMaps and Secrets the template uses; absent and opted-out ones are left out."""
    found: dict[str, str] = {}
    if not spec.flags.tracks_configs:
        return found
    for kind, name in manifests.referenced_configs(target["spec"]["template"]):
        obj = store.get(manifests.config_key(kind, spec.namespace, name))
        value = manifests.config_hash(obj) if obj is not None else None
        if value is not None:
            found[f"{kind}/{name}"] = value
    return found


def collect(
    store: Store,
    spec: CanarySpec,
    status: Status,
    metadata: Mapping[str, Any],
    now: float,
    *,
    source_problem: str = "",
    due: bool = True,
    gives_back: bool = False,
    policies: Callable[[Store, CanarySpec], ReleasePolicy | None] = policy_for,
) -> Facts:
    """All facts about one Canary at `now` (Unix seconds) but what a tick asks for.  `metadata` is the Canary's.  Raises
    SpecError if its ReleasePolicy cannot be meant."""
    target = target_object(store, spec)
    primary = store.get(manifests.primary_key(spec))
    router = router_for(spec)
    policy = policies(store, spec)
    routing = router.observed(store, spec, status)
    anew = ("routing",) if _routing_anew(store, spec, routing is not None) else ()
    common: dict[str, Any] = {
        "policy": policy,
        "others": others(store, spec, policy),
        "commands": Commands.of(metadata.get("annotations") or {}),
        "routing": routing,
        "baseline": seen(store, spec, now),
        "routed_before": ", ".join(f"{key.kind} {key.name}" for key in router.left(store, spec)),
        # Looks at all routing of the namespace, so only where it is asked for.
        "routing_problem": router.problem(store, spec) if due and status.phase in RUNNING else "",
        "source_problem": source_problem,
        "due": due,
        "anew": frozenset(anew),
        "deleting": bool(metadata.get("deletionTimestamp")),
        "gives_back": gives_back,
        "finalizer": FINALIZER in (metadata.get("finalizers") or ()),
        **_promoted(store, spec, primary),
    }
    primary_facts = primary and Workload(
        manifests.primary_stamp(primary),
        manifests.replicas(primary),
        readiness(primary, spec.progress_deadline_s, spec.primary_ready_threshold, now, status.transitioned),
        promoted.is_approved(primary),
    )
    if target is None:
        problem = f"{spec.target_kind.lower()} {spec.full_target} not found; spec.targetRef of Canary {spec.full_name} names it"
        return Facts(None, primary_facts or None, problem, **common)
    target_facts = Workload(
        manifests.revision(target),
        manifests.replicas(target),
        readiness(target, spec.progress_deadline_s, spec.canary_ready_threshold, now, status.transitioned),
    )
    try:
        wanted = manifests.services(spec, target, store.get)
        apex = store.get(Key("", "Service", spec.namespace, spec.apex))
        wanted_apex = manifests.apex_service(spec, target, apex)
        services_ok, services_anew = _services(store, [*zip(wanted, declaration.of_services(spec, target), strict=True)])
        apex_ok, apex_anew = _services(store, [(wanted_apex, declaration.of_apex(spec, target))])
        tracked = tracked_configs(store, spec, target)
        mark = foreign.mark_of(spec, primary, target, tracked, store.get) if primary is not None else ""
    except manifests.TargetError as error:
        return Facts(target_facts, primary_facts or None, str(error), **common)
    if primary_facts and mark:
        primary_facts = replace(primary_facts, revision=mark)
    return Facts(
        target_facts,
        primary_facts or None,
        services_ok=services_ok,
        apex_ok=apex_ok,
        tracked=tracked,
        foreign=foreign.foreign(spec, [manifests.primary_key(spec)], store.get),
        foreign_copy=foreign.foreign(spec, [*_scaler_copy(store, spec), *foreign.config_keys(spec, tracked)], store.get),
        mark=mark,
        **_scaler(store, spec),
        **{**common, "anew": frozenset({*anew, *(("services",) if services_anew else ()), *(("apex",) if apex_anew else ())})},
    )


def _routing_anew(store: Store, spec: CanarySpec, as_wanted: bool) -> bool:
    if spec.refused:
        return False  # nothing may be wanted of a router then
    found = [obj for key in router_for(spec).keys(spec) if (obj := store.get(key)) is not None]
    return bool(found) and declaration.is_routing_anew(found, declaration.of_routing(spec), as_wanted)


def _services(store: Store, wanted: list[tuple[Object, str]]) -> tuple[bool, bool]:
    """(are they as wanted, is it that what is declared has changed), of Services and the marks they should have."""
    found = [(store.get(Key.of(obj)), obj, mark) for obj, mark in wanted]
    differing = [
        (current, mark)
        for current, obj, mark in found
        if not manifests.contains(current, obj) or declaration.is_anew(current, mark)
    ]
    return not differing, bool(differing) and declaration.is_followed(differing)


def _scaler_copy(store: Store, spec: CanarySpec) -> list[Key]:
    """The primary's scaler, where there is one to copy."""
    scaler = manifests.scaler_key(spec)
    there = scaler is not None and store.get(scaler) is not None
    return [replace(scaler, name=f"{scaler.name}-primary")] if scaler is not None and there else []


def _promoted(store: Store, spec: CanarySpec, primary: Object | None) -> dict[str, Any]:
    kept = promoted.kept(store, spec)
    stamp = manifests.primary_stamp(primary) if primary is not None and promoted.is_approved(primary) else ""
    found: dict[str, Any] = {"kept": kept.stamp if kept else ""}
    if not stamp:
        return found
    if kept is None or kept.stamp != stamp or not promoted.is_whole(spec, kept, store.get):
        return {**found, "keeps": False}
    spoilt = promoted.spoilt(spec, kept, store.get)
    return {**found, "spoilt": tuple(f"{one['kind']} {one['metadata']['name']}" for one in spoilt)}


def _scaler(store: Store, spec: CanarySpec) -> dict[str, Any]:
    key = manifests.scaler_key(spec)
    if key is None:
        return {}
    scaler = store.get(key)
    if scaler is None:
        return {"scaler_problem": f"{key.kind} {key.name}.{key.namespace} not found: replicas are the workloads' own"}
    wanted = manifests.primary_scaler(spec, scaler)
    return {"scaler_ok": manifests.contains(store.get(Key.of(wanted)), wanted)}
