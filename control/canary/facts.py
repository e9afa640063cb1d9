"""Objects -> facts: all the machine knows about the world, read from the store in one go.

    Canary, Deployments, Services, the router's objects, ConfigMaps, Secrets  -> collect() -> Facts
    Deployment status, as Kubernetes writes it                        -> readiness() -> Readiness

Nothing is written here and nothing is remembered: two calls on the same objects give equal facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from control.canary import objects
from control.canary.commands import Commands, from_rfc3339
from control.canary.question import Answer, Question
from control.canary.routers import router_for
from control.canary.routing import Routing
from control.canary.spec import CanarySpec
from control.canary.status import Status
from control.store.store import Key, Object, Store

FINALIZER = "finalizer.flagger.app"  # Flagger's: whichever of the two runs the Canary can let it go


@dataclass(frozen=True, slots=True)
class Readiness:
    """Is a Deployment fully rolled out?  `stuck`: it is not and waiting longer will not help."""

    ready: bool
    text: str = ""
    stuck: bool = False


READY = Readiness(True)


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment, as far as a release cares."""

    revision: str  # target: hash of its template; primary: the stamp of what it was copied from
    replicas: int  # desired
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Facts:
    """The world as of one tick.  `due` is False when a change woke us before the interval was over: then orders and new
    revisions are seen to, but nothing is analysed and no weight moves."""

    target: Workload | None
    primary: Workload | None
    problem: str = ""  # why the target cannot be released at all
    services_ok: bool = False
    apex_ok: bool = False
    routing: Routing | None = None  # as the router's objects say; None: absent, or not as wanted apart from weights
    routing_problem: str = ""  # why those objects have no effect, "" if they have
    tracked: Mapping[str, str] = field(default_factory=dict)  # configs the template uses -> hash
    source_problem: str = ""  # why the metric source is not available, "" if it is
    commands: Commands = field(default_factory=Commands)
    due: bool = True
    deleting: bool = False  # the Canary has been deleted, and waits for its finalizers
    finalizer: bool = False  # it has ours
    answers: Mapping[Question, Answer] = field(default_factory=dict)  # to what this tick asked so far


def deployment_key(spec: CanarySpec, name: str) -> Key:
    return Key("apps", "Deployment", spec.namespace, name)


def target_object(store: Store, spec: CanarySpec) -> Object | None:
    """The target Deployment; None also when only our own leftover fields of a deleted one remain."""
    obj = store.get(deployment_key(spec, spec.target))
    return obj if obj is not None and (obj.get("spec") or {}).get("template") else None


def tracked_configs(store: Store, spec: CanarySpec, target: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the ConfigMaps and Secrets the template uses; absent and opted-out ones are left out."""
    found: dict[str, str] = {}
    for kind, name in objects.referenced_configs(target["spec"]["template"]):
        obj = store.get(objects.config_key(kind, spec.namespace, name))
        value = objects.config_hash(obj) if obj is not None else None
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
) -> Facts:
    """All facts about one Canary at `now` (Unix seconds) but what a tick asks for.  `metadata` is the Canary's."""
    target = target_object(store, spec)
    primary = store.get(deployment_key(spec, spec.primary))
    router = router_for(spec)
    common: dict[str, Any] = {
        "commands": Commands.of(metadata.get("annotations") or {}),
        "routing": router.observed(store, spec, status),
        "routing_problem": router.problem(store, spec),
        "source_problem": source_problem,
        "due": due,
        "deleting": bool(metadata.get("deletionTimestamp")),
        "finalizer": FINALIZER in (metadata.get("finalizers") or ()),
    }
    primary_facts = primary and Workload(
        objects.primary_stamp(primary),
        _replicas(primary),
        readiness(primary, spec.progress_deadline_s, spec.primary_ready_threshold, now),
    )
    if target is None:
        problem = f"deployment {spec.full_target} not found; spec.targetRef of Canary {spec.full_name} names it"
        return Facts(None, primary_facts or None, problem, **common)
    target_facts = Workload(
        objects.revision(target),
        _replicas(target),
        readiness(target, spec.progress_deadline_s, spec.canary_ready_threshold, now),
    )
    try:
        wanted = objects.services(spec, target)
        apex = store.get(Key("", "Service", spec.namespace, spec.apex))
        wanted_apex = objects.apex_service(spec, target, apex)
    except objects.TargetError as error:
        return Facts(target_facts, primary_facts or None, str(error), **common)
    return Facts(
        target_facts,
        primary_facts or None,
        _apex_problem(spec, apex),
        services_ok=all(objects.contains(store.get(Key.of(obj)), obj) for obj in wanted),
        apex_ok=objects.contains(apex, wanted_apex),
        tracked=tracked_configs(store, spec, target),
        **common,
    )


def _apex_problem(spec: CanarySpec, apex: Object | None) -> str:
    """A Service the user wrote must have the port the Canary speaks of: we do not rewrite its ports."""
    if apex is None or objects.is_ours(spec, apex):
        return ""
    ports = [port.get("port") for port in (apex.get("spec") or {}).get("ports") or ()]
    if spec.port in ports:
        return ""
    return f"service {spec.apex}.{spec.namespace} has no port {spec.port}, which spec.service.port names; it has {ports}"


def _replicas(deployment: Mapping[str, Any]) -> int:
    value = (deployment.get("spec") or {}).get("replicas")
    return 1 if value is None else int(value)  # Kubernetes' default


def readiness(deployment: Mapping[str, Any], deadline_s: float, threshold_percent: int, now: float) -> Readiness:
    """Flagger's rule (flagger.md 4.5) on a Deployment's status.

    Stuck: condition Progressing says ProgressDeadlineExceeded, or Available has been False for lack of replicas for longer
    than `deadline_s`.  `threshold_percent` of the updated replicas must be available."""
    status = deployment.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}
    rollout = "waiting for rollout to finish: "
    generation = int(deployment["metadata"].get("generation") or 0)
    # A status that was never written has observed nothing, whatever the generation counts from.
    if "observedGeneration" not in status or int(status["observedGeneration"]) < generation:
        return Readiness(False, rollout + "observed deployment generation less than desired generation")
    progressing = conditions.get("Progressing") or {}
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        name = deployment["metadata"]["name"]
        return Readiness(False, f'deployment "{name}" exceeded its progress deadline', stuck=True)
    available = conditions.get("Available") or {}
    stuck = False
    if progressing and available.get("status") == "False" and available.get("reason") == "MinimumReplicasUnavailable":
        since = available.get("lastUpdateTime") or available.get("lastTransitionTime")
        stuck = since is not None and from_rfc3339(since) + deadline_s < now
    desired = _replicas(deployment)
    updated = int(status.get("updatedReplicas") or 0)
    total = int(status.get("replicas") or 0)
    have = int(status.get("availableReplicas") or 0)
    enough = updated * threshold_percent // 100
    if updated < desired:
        return Readiness(False, f"{rollout}{updated} out of {desired} new replicas have been updated", stuck)
    if total > updated:
        return Readiness(False, f"{rollout}{total - updated} old replicas are pending termination", stuck)
    if have < enough:
        text = f"{have} of {enough} (readyThreshold {threshold_percent}%) updated replicas are available"
        return Readiness(False, rollout + text, stuck)
    return READY
