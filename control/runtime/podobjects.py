"""The Pod objects this controller writes.  Pure.

Deployment's template -> a Pod of its own    the gateway's Pod    a user's Pod: the fields we own, or all when it vanished
"""

from __future__ import annotations

from typing import Any

from control.runtime.layout import LABEL_DEPLOYMENT, SYSTEM_NAMESPACE

Object = dict[str, Any]

GATEWAY = "gateway"
LABEL_HASH = "pod-template-hash"
ANNOTATION_MADE_BY = "meshproxy.dev/made-by"  # "runtime" on Pods that are not the user's own
ANNOTATION_TERMINATING = "meshproxy.dev/terminating-since"  # stands for metadata.deletionTimestamp, which is the store's


def made_by_runtime(pod: Object) -> bool:
    return (pod["metadata"].get("annotations") or {}).get(ANNOTATION_MADE_BY) == "runtime"


def of_deployment(deployment: Object, name: str, template_hash: str) -> Object:
    """One replica."""
    owner, template = deployment["metadata"], deployment["spec"]["template"]
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner.get("namespace") or "default",
            "labels": {**(metadata.get("labels") or {}), LABEL_HASH: template_hash, LABEL_DEPLOYMENT: owner["name"]},
            "annotations": {**(metadata.get("annotations") or {}), ANNOTATION_MADE_BY: "runtime"},
        },
        "spec": {"serviceAccountName": "default", "nodeName": "localhost", **template["spec"]},
    }


def gateway() -> Object:
    """The mesh's way in for people: a sidecar without an app."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": GATEWAY,
            "namespace": SYSTEM_NAMESPACE,
            "labels": {"app": GATEWAY, LABEL_DEPLOYMENT: GATEWAY},
            "annotations": {ANNOTATION_MADE_BY: "runtime"},
        },
        "spec": {
            "serviceAccountName": GATEWAY,
            "nodeName": "localhost",
            "containers": [{"name": GATEWAY, "image": "meshproxy", "command": ["meshproxy", "proxy"]}],
        },
    }


def gateway_account() -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": GATEWAY, "namespace": SYSTEM_NAMESPACE}}


def skeleton(obj: Object) -> Object:
    """Only what names an object: of a user's Pod the runtime owns annotations, nothing else."""
    metadata = {"name": obj["metadata"]["name"], "namespace": obj["metadata"].get("namespace") or "default"}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}


def taken_over(pod: Object) -> Object:
    """All of a Pod that vanished from the user's files, as the runtime's own until it has ended."""
    metadata = {
        name: pod["metadata"][name] for name in ("name", "namespace", "labels", "annotations") if name in pod["metadata"]
    }
    metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION_MADE_BY: "runtime"}
    return {"apiVersion": pod["apiVersion"], "kind": pod["kind"], "metadata": metadata, "spec": pod["spec"]}
