"""The objects a release is made of, as we want them: pure functions from Canary and target to manifests.

    Deployment <t>          the user's: the new revision, scaled to zero between releases
    Deployment <t>-primary  ours: a copy of the last promoted template; selector and pod label <label>: <v>-primary
    Service <apex>          selects the primary (takes part in the split as its root)
    Service <apex>-primary, <apex>-canary
    TrafficSplit <apex>     <apex>-canary: w, <apex>-primary: 100 - w     (Flagger's order)

`contains(current, wanted)` is how facts see that something is as wanted; what others put on an object does not matter.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from control.canary.commands import PREFIX
from control.canary.spec import API_VERSION, KIND, SELECTOR_LABELS, CanarySpec
from control.store.store import Key, Object

SPLIT_API_VERSION = "split.smi-spec.io/v1alpha2"
SPLIT_GROUP = "split.smi-spec.io"
ANNOTATION_REVISION = PREFIX + "revision"  # on the primary and its pods: the target revision it was copied from
ANNOTATION_CANARY = PREFIX + "canary"  # on a user's object of which we hold a field: the Canary it is held for
ANNOTATION_TRACKING = "flagger.app/config-tracking"  # user's, on a ConfigMap or Secret: "disabled" leaves it alone

# Container names whose ports are a sidecar's, not the application's (Flagger's list).
_SIDECARS = ("istio-proxy", "envoy")


class TargetError(Exception):
    """The target Deployment cannot be released; `str()` says what is missing."""


def digest(value: object) -> str:
    """A short stable hash of JSON-like data, 16 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def revision(target: Mapping[str, Any]) -> str:
    """Names a revision: the hash of the whole pod template, annotations included, as in Flagger."""
    return digest(target["spec"]["template"])


def selector_label(target: Mapping[str, Any]) -> tuple[str, str]:
    """The label that tells target from primary, and its value on the target.  Raises TargetError."""
    labels = ((target.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    for name in SELECTOR_LABELS:
        if value := labels.get(name):
            return name, str(value)
    metadata = target["metadata"]
    raise TargetError(
        f"Deployment {metadata['name']}.{metadata.get('namespace', 'default')}: spec.selector.matchLabels must contain "
        f"one of {', '.join(SELECTOR_LABELS)}; found {', '.join(labels) or 'none'}"
    )


def owner(spec: CanarySpec) -> list[Object]:
    """ownerReferences of what we create: it goes when the Canary goes."""
    reference = {"apiVersion": API_VERSION, "kind": KIND, "name": spec.name, "uid": spec.uid, "controller": True}
    return [{**reference, "blockOwnerDeletion": True}]


# ---------------------------------------------------------------- configuration the template refers to


def _references(template: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Each (kind, dict, key) such that dict[key] names a ConfigMap or Secret used by the pod template."""
    pod = template.get("spec") or {}
    for container in [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]:
        for variable in container.get("env") or ():
            source = variable.get("valueFrom") or {}
            if ref := source.get("configMapKeyRef"):
                yield "configmap", ref, "name"
            if ref := source.get("secretKeyRef"):
                yield "secret", ref, "name"
        for source in container.get("envFrom") or ():
            if ref := source.get("configMapRef"):
                yield "configmap", ref, "name"
            if ref := source.get("secretRef"):
                yield "secret", ref, "name"
    for volume in pod.get("volumes") or ():
        if ref := volume.get("configMap"):
            yield "configmap", ref, "name"
        if ref := volume.get("secret"):
            yield "secret", ref, "secretName"
        for source in (volume.get("projected") or {}).get("sources") or ():
            if ref := source.get("configMap"):
                yield "configmap", ref, "name"
            if ref := source.get("secret"):
                yield "secret", ref, "name"


def referenced_configs(template: Mapping[str, Any]) -> list[tuple[str, str]]:
    """("configmap"|"secret", name) the template uses, sorted, each once."""
    return sorted({(kind, str(ref[key])) for kind, ref, key in _references(template) if ref.get(key)})


def config_key(kind: str, namespace: str, name: str) -> Key:
    return Key("", "ConfigMap" if kind == "configmap" else "Secret", namespace, name)


def config_hash(obj: Mapping[str, Any]) -> str | None:
    """The tracked hash of a ConfigMap or Secret; None when its owner asked us to leave it alone."""
    if ((obj["metadata"].get("annotations")) or {}).get(ANNOTATION_TRACKING) == "disabled":
        return None
    return digest([obj.get("data"), obj.get("stringData"), obj.get("binaryData")])


def primary_config(spec: CanarySpec, source: Mapping[str, Any]) -> Object:
    """The primary's own copy, so that editing the original is a release and not an incident."""
    name = f"{source['metadata']['name']}-primary"
    copied = {field: copy.deepcopy(source[field]) for field in ("data", "stringData", "binaryData", "type") if field in source}
    metadata = {"name": name, "namespace": spec.namespace, "ownerReferences": owner(spec)}
    return {"apiVersion": "v1", "kind": source["kind"], "metadata": metadata, **copied}


# ---------------------------------------------------------------- workloads


def primary_deployment(spec: CanarySpec, target: Object, tracked: Mapping[str, str], replicas: int) -> Object:
    """The primary as a copy of the target as it is now.  `tracked`: configs that have a `-primary` copy.

    Deterministic: copying the same target twice changes nothing (Flagger stamps a random id instead)."""
    label, value = selector_label(target)
    template = copy.deepcopy(target["spec"]["template"])
    for kind, ref, key in _references(template):
        if f"{kind}/{ref.get(key)}" in tracked:
            ref[key] = f"{ref[key]}-primary"
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), label: f"{value}-primary"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION_REVISION: _stamp(target, tracked)}
    _point_affinity_to_primary(template.get("spec") or {}, spec.target, spec.primary)
    body: Object = {
        "replicas": max(1, replicas),
        "selector": {"matchLabels": {label: f"{value}-primary"}},
        "template": template,
    }
    for name in ("strategy", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"):
        if name in target["spec"]:
            body[name] = copy.deepcopy(target["spec"][name])
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": spec.primary,
            "namespace": spec.namespace,
            "labels": {label: f"{value}-primary"},
            "annotations": {ANNOTATION_REVISION: _stamp(target, tracked)},
            "ownerReferences": owner(spec),
        },
        "spec": body,
    }


def _stamp(target: Mapping[str, Any], tracked: Mapping[str, str]) -> str:
    """`<revision>` or `<revision>-<hash of configs>`: changes when only a ConfigMap did, so the primary's pods restart."""
    return f"{revision(target)}-{digest(dict(tracked))}" if tracked else revision(target)


def primary_stamp(obj: Mapping[str, Any]) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(ANNOTATION_REVISION, ""))


def stamp_for(target_revision: str, tracked: Mapping[str, str]) -> str:
    """What `primary_stamp` says once that revision with those configs has been copied."""
    return f"{target_revision}-{digest(dict(tracked))}" if tracked else target_revision


def _point_affinity_to_primary(pod: dict[str, Any], target: str, primary: str) -> None:
    """Rules that keep replicas apart must speak of the primary's replicas (as Flagger: values equal to the name)."""
    anti = ((pod.get("affinity") or {}).get("podAntiAffinity")) or {}
    terms = list(anti.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
    terms += [t.get("podAffinityTerm") or {} for t in anti.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
    for rule in [*terms, *(pod.get("topologySpreadConstraints") or ())]:
        selector = rule.get("labelSelector") or {}
        for label, value in (selector.get("matchLabels") or {}).items():
            if value == target:
                selector["matchLabels"][label] = primary
        for expression in selector.get("matchExpressions") or ():
            expression["values"] = [primary if v == target else v for v in expression.get("values") or ()]


# ---------------------------------------------------------------- services and the split


def services(spec: CanarySpec, target: Object) -> list[Object]:
    """`<apex>-canary` and `<apex>-primary`."""
    label, value = selector_label(target)
    ports = service_ports(spec, target)
    return [
        _service(spec, spec.canary_service, "canary", {label: value}, ports),
        _service(spec, spec.primary_service, "primary", {label: f"{value}-primary"}, ports),
    ]


def apex_service(spec: CanarySpec, target: Object, current: Mapping[str, Any] | None) -> Object:
    """The apex Service.  One that the user wrote keeps everything but its selector; otherwise it is all ours."""
    label, value = selector_label(target)
    wanted = _service(spec, spec.apex, "apex", {label: f"{value}-primary"}, service_ports(spec, target))
    if current is None or is_ours(spec, current):
        return wanted
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": spec.apex, "namespace": spec.namespace, "annotations": {ANNOTATION_CANARY: spec.name}},
        "spec": {"selector": wanted["spec"]["selector"]},
    }


def held_target(spec: CanarySpec, replicas: int | None) -> Object:
    """What we own of the target: spec.replicas, or with None nothing but the mark that it is ours to scale."""
    metadata = {"name": spec.target, "namespace": spec.namespace, "annotations": {ANNOTATION_CANARY: spec.name}}
    owned: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}
    if replicas is not None:
        owned["spec"] = {"replicas": replicas}
    return owned


def held_for(obj: Mapping[str, Any]) -> str:
    """The Canary for which we hold a field of this object, "" if none."""
    return str((obj["metadata"].get("annotations") or {}).get(ANNOTATION_CANARY, ""))


def is_ours(spec: CanarySpec, obj: Mapping[str, Any]) -> bool:
    """Was `obj` created for this Canary?"""
    references = obj["metadata"].get("ownerReferences") or ()
    return any(r.get("kind") == KIND and r.get("name") == spec.name for r in references)


def service_ports(spec: CanarySpec, target: Mapping[str, Any]) -> list[Object]:
    port: Object = {
        "name": spec.port_name,
        "port": spec.port,
        "protocol": "TCP",
        "targetPort": spec.target_port or spec.port,
    }
    if spec.app_protocol:
        port["appProtocol"] = spec.app_protocol
    ports = [port]
    if spec.port_discovery:
        for container in (target["spec"]["template"].get("spec") or {}).get("containers") or ():
            if container.get("name") in _SIDECARS:
                continue
            for index, found in enumerate(container.get("ports") or ()):
                number = found.get("containerPort")
                if number in (spec.port, spec.target_port) or found.get("name") == spec.target_port:
                    continue
                name = found.get("name") or f"tcp-{container.get('name')}-{index}"
                ports.append({"name": name, "port": number, "protocol": found.get("protocol", "TCP"), "targetPort": number})
    return ports


def _service(spec: CanarySpec, name: str, role: str, selector: Object, ports: list[Object]) -> Object:
    extra = spec.service_metadata.get(role) or {}
    label = next(iter(selector))
    metadata: Object = {
        "name": name,
        "namespace": spec.namespace,
        "labels": {**(extra.get("labels") or {}), label: name},
        "ownerReferences": owner(spec),
    }
    if extra.get("annotations"):
        metadata["annotations"] = dict(extra["annotations"])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ClusterIP", "selector": selector, "ports": copy.deepcopy(ports)},
    }


def traffic_split(spec: CanarySpec, canary_weight: int) -> Object:
    """The split with `canary_weight` percent to the canary.  Raises ValueError outside 0..100."""
    if not 0 <= canary_weight <= 100:
        raise ValueError(f"a canary weight is 0..100 percent, not {canary_weight}")
    return {
        "apiVersion": SPLIT_API_VERSION,
        "kind": "TrafficSplit",
        "metadata": {"name": spec.apex, "namespace": spec.namespace, "ownerReferences": owner(spec)},
        "spec": {
            "service": spec.apex,
            "backends": [
                {"service": spec.canary_service, "weight": canary_weight},
                {"service": spec.primary_service, "weight": 100 - canary_weight},
            ],
        },
    }


def contains(current: object, wanted: object) -> bool:
    """True if everything `wanted` says is so in `current`.  Lists are compared whole."""
    if isinstance(wanted, Mapping):
        return isinstance(current, Mapping) and all(k in current and contains(current[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(current, list)
            and len(current) == len(wanted)
            and all(contains(c, w) for c, w in zip(current, wanted, strict=True))
        )
    return current == wanted
