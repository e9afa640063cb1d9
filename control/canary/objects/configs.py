"""ConfigMaps and Secrets that a pod template refers to: found, hashed, and copied for the primary.

template --referenced_configs--> [("configmap", "settings"), ...] --config_hash--> status.trackedConfigs: a change is a release
                                                                  --primary_config--> ConfigMap settings-primary
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from control.canary.declared.spec import CanarySpec
from control.canary.objects.ownership import digest, kept_by_prefix, owner
from control.store.store import Key, Object

ANNOTATION_TRACKING = "flagger.app/config-tracking"  # user's, on a ConfigMap or Secret: "disable..." leaves it alone
# Types of Secrets that applications are given.  Tokens and credentials of registries belong to ServiceAccounts.
COPIED_SECRETS = ("", "Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls")


def references(template: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
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
    return sorted({(kind, str(ref[key])) for kind, ref, key in references(template) if ref.get(key)})


def config_key(kind: str, namespace: str, name: str) -> Key:
    return Key("", "ConfigMap" if kind == "configmap" else "Secret", namespace, name)


def config_hash(obj: Mapping[str, Any]) -> str | None:
    """The tracked hash of a ConfigMap or Secret; None when it is left alone: its owner asked for it, or its type says so."""
    if str((obj["metadata"].get("annotations") or {}).get(ANNOTATION_TRACKING) or "").startswith("disable"):
        return None
    if obj.get("kind") == "Secret" and (obj.get("type") or "") not in COPIED_SECRETS:
        return None
    return digest([obj.get("data"), obj.get("stringData"), obj.get("binaryData")])


def primary_config(spec: CanarySpec, source: Mapping[str, Any]) -> Object:
    """The primary's own copy, so that editing the original is a release and not an incident."""
    name = f"{source['metadata']['name']}-primary"
    copied = {field: copy.deepcopy(source[field]) for field in ("data", "stringData", "binaryData", "type") if field in source}
    metadata: Object = {"name": name, "namespace": spec.namespace, "ownerReferences": owner(spec)}
    if labels := kept_by_prefix(spec, source["metadata"].get("labels")):
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": source["kind"], "metadata": metadata, **copied}
