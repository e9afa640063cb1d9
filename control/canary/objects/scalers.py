"""spec.autoscalerRef: a HorizontalPodAutoscaler or a KEDA ScaledObject.  The primary gets a copy; the target's rests between
releases.

    <hpa>            rests by itself: a Deployment with 0 replicas is not scaled
    <scaledobject>   rests by the annotation autoscaling.keda.sh/paused-replicas: "0"
    <name>-primary   ours: scales <t>-primary, with primaryScalerReplicas and primaryScalerQueries

Neither runs in embedded mode: there the object is not found, and replicas are the Deployments' own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from control.canary.declared.spec import CanarySpec
from control.canary.objects.ownership import FLUX, held, owner
from control.store.store import Key, Object

HPA, SCALED_OBJECT = "HorizontalPodAutoscaler", "ScaledObject"
API_VERSIONS = {HPA: "autoscaling/v2", SCALED_OBJECT: "keda.sh/v1alpha1"}
PAUSED = "autoscaling.keda.sh/paused-replicas"

# Of the spec, what the copy has too; scaleTargetRef apart.
_HPA_FIELDS = ("minReplicas", "maxReplicas", "metrics", "behavior")
_SCALED_OBJECT_FIELDS = (
    "pollingInterval",
    "cooldownPeriod",
    "minReplicaCount",
    "maxReplicaCount",
    "idleReplicaCount",
    "advanced",
    "triggers",
    "fallback",
)


def scaler_key(spec: CanarySpec) -> Key | None:
    """The target's scaler, None if the Canary names none."""
    if not spec.autoscaler:
        return None
    kind = str(spec.autoscaler.get("kind") or HPA)
    group = API_VERSIONS.get(kind, "").partition("/")[0]
    return Key(group, kind, spec.namespace, str(spec.autoscaler.get("name") or ""))


def primary_scaler(spec: CanarySpec, scaler: Object) -> Object:
    """The primary's copy of the target's scaler, deterministic."""
    kind = scaler["kind"]
    body = _hpa(spec, scaler) if kind == HPA else _scaled_object(spec, scaler)
    metadata: Object = {
        "name": f"{scaler['metadata']['name']}-primary",
        "namespace": spec.namespace,
        "ownerReferences": owner(spec),
    }
    fields = ("labels",) if kind == HPA else ("labels", "annotations")
    for field in fields:
        kept = {
            name: value
            for name, value in (scaler["metadata"].get(field) or {}).items()
            if FLUX not in name and name != PAUSED and not name.startswith("meshproxy.dev/") and not name.startswith("kubectl.")
        }
        if kept:
            metadata[field] = kept
    return {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": metadata, "spec": body}


def held_scaler(spec: CanarySpec, *, paused: bool) -> Object | None:
    """What we hold of the target's scaler; None where it needs nothing."""
    key = scaler_key(spec)
    if key is None or key.kind != SCALED_OBJECT:
        return None
    made = held(spec, API_VERSIONS[SCALED_OBJECT], SCALED_OBJECT, key.name)
    if paused:
        made["metadata"]["annotations"][PAUSED] = "0"
    return made


def minimum(scaler: Mapping[str, Any] | None) -> int:
    """The fewest replicas a scaler keeps: where a target starts whose own number nobody knows.  0: it says nothing."""
    body = (scaler or {}).get("spec") or {}
    return int(body.get("minReplicas") or body.get("minReplicaCount") or 0)


# ---------------------------------------------------------------- copies


def _hpa(spec: CanarySpec, scaler: Object) -> Object:
    body = scaler.get("spec") or {}
    reference = body.get("scaleTargetRef") or {}
    made: Object = {"scaleTargetRef": {**_target(reference, spec)}}
    made.update({name: copy.deepcopy(body[name]) for name in _HPA_FIELDS if name in body})
    return _bounded(spec, made, "minReplicas", "maxReplicas")


def _scaled_object(spec: CanarySpec, scaler: Object) -> Object:
    body = scaler.get("spec") or {}
    reference = body.get("scaleTargetRef") or {}
    made: Object = {"scaleTargetRef": _target(reference, spec)}
    if "envSourceContainerName" in reference:
        made["scaleTargetRef"]["envSourceContainerName"] = reference["envSourceContainerName"]
    made.update({name: copy.deepcopy(body[name]) for name in _SCALED_OBJECT_FIELDS if name in body})
    named = (made.get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    if named.get("name"):
        named["name"] = f"{named['name']}-primary"
    queries = spec.autoscaler.get("primaryScalerQueries") or {}
    for trigger in made.get("triggers") or ():
        metadata = trigger.get("metadata") or {}
        if queries:
            if trigger.get("name") in queries:
                metadata["query"] = queries[trigger["name"]]
        elif "query" in metadata:
            metadata["query"] = _about_primary(str(metadata["query"]), spec.target)
    return _bounded(spec, made, "minReplicaCount", "maxReplicaCount")


def _target(reference: Mapping[str, Any], spec: CanarySpec) -> Object:
    return {"name": spec.primary, **{name: reference[name] for name in ("kind", "apiVersion") if name in reference}}


def _bounded(spec: CanarySpec, made: Object, low: str, high: str) -> Object:
    bounds = spec.autoscaler.get("primaryScalerReplicas") or {}
    for name, field in (("minReplicas", low), ("maxReplicas", high)):
        if bounds.get(name) is not None:
            made[field] = bounds[name]
    return made


def _about_primary(query: str, target: str) -> str:
    """The target's name becomes the primary's, `<target>-canary` too; what is the primary's already stays.  Best effort, as
    Flagger's: where it is not, primaryScalerQueries says it."""
    for name in (f"{target}-primary", f"{target}-canary"):
        query = query.replace(name, target)
    return query.replace(target, f"{target}-primary")
