"""The two workloads of a release, Deployments or DaemonSets: what tells them apart, the copy, what we hold of the target.

<t>           the user's: the new revision; between releases it has no pods
              Deployment: spec.replicas 0        DaemonSet: a nodeSelector that no node has
<t>-baseline  ours, while a release is analysed and wants one: a copy of <t>-primary (baseline.py)
<t>-primary   ours: a copy of the last promoted template; selector and pod label <label>: <v>-primary
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from control.canary.declared.commands import PREFIX
from control.canary.declared.spec import CanarySpec
from control.canary.objects.configs import references
from control.canary.objects.ownership import FLUX, HANDS_OFF, TargetError, digest, held, kept_by_prefix, owner
from control.store.store import Key, Object

API_VERSION = "apps/v1"
GROUP = "apps"
DEPLOYMENT, DAEMON_SET = "Deployment", "DaemonSet"
KINDS = (DEPLOYMENT, DAEMON_SET)

ANNOTATION_REVISION = PREFIX + "revision"  # on the primary and its pods: the target revision it was copied from
NO_NODE = "flagger.app/scale-to-zero"  # nodeSelector of a DaemonSet without pods

# Of the target's spec, beside template and replicas, what the primary has too.
_COPIED = {
    DEPLOYMENT: ("strategy", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit"),
    DAEMON_SET: ("updateStrategy", "minReadySeconds", "revisionHistoryLimit"),
}


def target_key(spec: CanarySpec) -> Key:
    return Key(GROUP, spec.target_kind, spec.namespace, spec.target)


def primary_key(spec: CanarySpec) -> Key:
    return Key(GROUP, spec.target_kind, spec.namespace, spec.primary)


# ---------------------------------------------------------------- what is released


def revision(target: Mapping[str, Any]) -> str:
    """Names a revision: the hash of the whole pod template, annotations included, as in Flagger; that a DaemonSet has no
    pods just now is not part of it."""
    return digest(_released(target["spec"]["template"]))


def _released(template: Mapping[str, Any]) -> Mapping[str, Any]:
    """The template without the nodeSelector that holds a DaemonSet back."""
    pod = template.get("spec") or {}
    selector = pod.get("nodeSelector")
    if not selector or NO_NODE not in selector:
        return template
    left = {name: value for name, value in selector.items() if name != NO_NODE}
    rest = {name: value for name, value in pod.items() if name != "nodeSelector"}
    return {**template, "spec": {**rest, **({"nodeSelector": left} if left else {})}}


def selector_label(spec: CanarySpec, target: Mapping[str, Any]) -> tuple[str, str]:
    """The label that tells target from primary, and its value on the target.  Raises TargetError."""
    labels = ((target.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    for name in spec.flags.selector_labels:
        if value := labels.get(name):
            return name, str(value)
    metadata = target["metadata"]
    raise TargetError(
        f"{target.get('kind', DEPLOYMENT)} {metadata['name']}.{metadata.get('namespace', 'default')}: "
        f"spec.selector.matchLabels must contain one of {', '.join(spec.flags.selector_labels)}; "
        f"found {', '.join(labels) or 'none'} (--canary-selector-labels of the control plane names others)"
    )


def replicas(workload: Mapping[str, Any]) -> int:
    """How many pods it is to have.  A DaemonSet's number is the nodes', so 1 stands for "as many as there are"."""
    if workload.get("kind") == DAEMON_SET:
        selector = ((workload["spec"].get("template") or {}).get("spec") or {}).get("nodeSelector") or {}
        if NO_NODE in selector:
            return 0
        status = workload.get("status") or {}
        return int(status.get("desiredNumberScheduled") or 1)
    value = (workload.get("spec") or {}).get("replicas")
    return 1 if value is None else int(value)  # Kubernetes' default


# ---------------------------------------------------------------- the primary


def primary_workload(spec: CanarySpec, target: Object, tracked: Mapping[str, str], count: int | None) -> Object:
    """The primary as a copy of the target as it is now.  `tracked`: configs that have a `-primary` copy.  `count`: replicas of
    a Deployment; None leaves them to who scales it.  Raises TargetError.

    Deterministic: copying the same target twice changes nothing (Flagger stamps a random id instead)."""
    label, value = selector_label(spec, target)
    kind = target.get("kind", DEPLOYMENT)
    _check_strategy(target)
    template = copy.deepcopy(dict(_released(target["spec"]["template"])))
    for what, ref, key in references(template):
        if f"{what}/{ref.get(key)}" in tracked:
            ref[key] = f"{ref[key]}-primary"
    stamp = stamp_for(revision(target), tracked)
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**_own(metadata.get("labels")), label: f"{value}-primary"}
    metadata["annotations"] = {**_own(metadata.get("annotations")), ANNOTATION_REVISION: stamp}
    _point_affinity_to(template.get("spec") or {}, spec.flags.selector_labels, spec.target, spec.primary)
    body: Object = {"selector": {"matchLabels": {label: f"{value}-primary"}}, "template": template}
    if kind == DEPLOYMENT and count is not None:
        body["replicas"] = max(1, count)
    for name in _COPIED[kind]:
        if name in target["spec"]:
            body[name] = copy.deepcopy(target["spec"][name])
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {
            "name": spec.primary,
            "namespace": spec.namespace,
            "labels": {**kept_by_prefix(spec, target["metadata"].get("labels")), label: f"{value}-primary"},
            "annotations": {
                **kept_by_prefix(spec, target["metadata"].get("annotations")),
                **HANDS_OFF,
                ANNOTATION_REVISION: stamp,
            },
            "ownerReferences": owner(spec),
        },
        "spec": body,
    }


def baseline_workload(spec: CanarySpec, primary: Object, count: int) -> Object:
    """The primary's template once more, as `<target>-baseline` with `count` replicas.  Raises TargetError."""
    label, value = selector_label(spec, primary)
    value = f"{value.removesuffix('-primary')}-baseline"
    stamp = primary_stamp(primary)
    template = copy.deepcopy(dict(primary["spec"]["template"]))
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), label: value}
    _point_affinity_to(template.get("spec") or {}, spec.flags.selector_labels, spec.primary, spec.baseline)
    body: Object = {"selector": {"matchLabels": {label: value}}, "template": template, "replicas": max(1, count)}
    for name in _COPIED[DEPLOYMENT]:
        if name in primary["spec"]:
            body[name] = copy.deepcopy(primary["spec"][name])
    return {
        "apiVersion": API_VERSION,
        "kind": DEPLOYMENT,
        "metadata": {
            "name": spec.baseline,
            "namespace": spec.namespace,
            "labels": {label: value},
            "annotations": {**HANDS_OFF, ANNOTATION_REVISION: stamp},
            "ownerReferences": owner(spec),
        },
        "spec": body,
    }


def _check_strategy(target: Mapping[str, Any]) -> None:
    """A DaemonSet that waits for somebody to delete its pods would never be rolled out.  Raises TargetError."""
    kind = (target["spec"].get("updateStrategy") or {}).get("type") or "RollingUpdate"
    if target.get("kind") == DAEMON_SET and kind != "RollingUpdate":
        name = f"{target['metadata']['name']}.{target['metadata'].get('namespace', 'default')}"
        raise TargetError(f"DaemonSet {name}: spec.updateStrategy.type must be RollingUpdate; found {kind}")


def _own(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Without Flux's marks: it would take the copy for its own."""
    return {name: value for name, value in (labels or {}).items() if FLUX not in name}


def primary_stamp(obj: Mapping[str, Any]) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(ANNOTATION_REVISION, ""))


def stamp_for(target_revision: str, tracked: Mapping[str, str]) -> str:
    """`<revision>` or `<revision>-<hash of configs>`: changes when only a ConfigMap did, so the primary's pods restart.
    What `primary_stamp` says once that revision with those configs has been copied."""
    return f"{target_revision}-{digest(dict(tracked))}" if tracked else target_revision


def _point_affinity_to(pod: dict[str, Any], labels: Collection[str], target: str, primary: str) -> None:
    """Rules that keep replicas apart must speak of the copy's replicas (as Flagger: of labels that could be the selector's,
    the values equal to the name)."""
    anti = ((pod.get("affinity") or {}).get("podAntiAffinity")) or {}
    terms = list(anti.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
    terms += [t.get("podAffinityTerm") or {} for t in anti.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
    for rule in [*terms, *(pod.get("topologySpreadConstraints") or ())]:
        selector = rule.get("labelSelector") or {}
        for label, value in (selector.get("matchLabels") or {}).items():
            if label in labels and value == target:
                selector["matchLabels"][label] = primary
        for expression in selector.get("matchExpressions") or ():
            if expression.get("key") in labels and expression.get("values"):
                expression["values"] = [primary if value == target else value for value in expression["values"]]


# ---------------------------------------------------------------- what we hold of the target


def held_target(spec: CanarySpec, count: int | None) -> Object:
    """What we own of the target: how many pods it has, or with None nothing but the mark that it is ours to scale.
    Of a DaemonSet only 0 and None mean something: its number is the nodes'."""
    if count is None or (spec.target_kind == DAEMON_SET and count):
        return held(spec, API_VERSION, spec.target_kind, spec.target)
    if spec.target_kind == DAEMON_SET:
        body = {"template": {"spec": {"nodeSelector": {NO_NODE: "true"}}}}
        return held(spec, API_VERSION, DAEMON_SET, spec.target, body)
    return held(spec, API_VERSION, DEPLOYMENT, spec.target, {"replicas": count})
