"""What is ours: objects made for a Canary, fields of the user's objects held for one, and whether something is as wanted.

ownerReferences     on what we make: it goes when the Canary goes
meshproxy.dev/canary    on a user's object of which we hold a field: given back when that Canary is gone
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from control.canary.declared.commands import PREFIX
from control.canary.declared.spec import API_VERSION, KIND, CanarySpec
from control.store.store import Key, Object

ANNOTATION_CANARY = PREFIX + "canary"  # on a user's object of which we hold a field: the Canary it is held for

# Flux would put back what is in git, and would take a copy of its marks for its own (Flagger's two annotations, and rule).
FLUX = "toolkit.fluxcd.io"
HANDS_OFF: Mapping[str, str] = {
    "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
    "helm.toolkit.fluxcd.io/driftDetection": "disabled",
}

Find = Callable[[Key], Object | None]  # Store.get


class TargetError(Exception):
    """The target cannot be released; `str()` says what is missing."""


def nothing(key: Key) -> None:
    """A Find that finds nothing."""


def digest(value: object) -> str:
    """A short stable hash of JSON-like data, 16 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def owner(spec: CanarySpec) -> list[Object]:
    """ownerReferences of what we create: it goes when the Canary goes."""
    reference = {"apiVersion": API_VERSION, "kind": KIND, "name": spec.name, "uid": spec.uid, "controller": True}
    return [{**reference, "blockOwnerDeletion": True}]


def is_ours(spec: CanarySpec, obj: Mapping[str, Any]) -> bool:
    """Was `obj` created for this Canary?"""
    references = obj["metadata"].get("ownerReferences") or ()
    return any(r.get("kind") == KIND and r.get("name") == spec.name for r in references)


def held_for(obj: Mapping[str, Any]) -> str:
    """The Canary for which we hold a field of this object, "" if none."""
    return str((obj["metadata"].get("annotations") or {}).get(ANNOTATION_CANARY, ""))


def kept_by_prefix(spec: CanarySpec, marks: Mapping[str, str] | None) -> dict[str, str]:
    """Of the labels (or annotations) of what is copied, those that the copy has too (Flagger's -include-label-prefix); Flux's
    never, nor what others keep their own state in."""
    prefixes = spec.flags.label_prefixes
    never = (PREFIX, "kubectl.kubernetes.io/", "deployment.kubernetes.io/")
    return {
        name: value
        for name, value in (marks or {}).items()
        if FLUX not in name and not name.startswith(never) and ("*" in prefixes or name.startswith(prefixes))
    }


def held(spec: CanarySpec, api_version: str, kind: str, name: str, body: Object | None = None) -> Object:
    """A user's object, as far as we hold it: the mark, and of its spec `body`."""
    metadata = {"name": name, "namespace": spec.namespace, "annotations": {ANNOTATION_CANARY: spec.name}}
    made: Object = {"apiVersion": api_version, "kind": kind, "metadata": metadata}
    return made if body is None else {**made, "spec": body}


def held_canary(spec: CanarySpec, *finalizers: str) -> Object:
    """The Canary itself, as far as we hold it: the finalizers that delay its deletion."""
    metadata: Object = {"name": spec.name, "namespace": spec.namespace}
    if finalizers:
        metadata["finalizers"] = list(finalizers)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata}


def taken_over(spec: CanarySpec, made: Object, current: Mapping[str, Any] | None) -> Object:
    """`made` as it is to be applied: where the user wrote an object of that name, held and not owned, so that it is theirs
    again - and still there - when the Canary is gone."""
    if current is None or is_ours(spec, current):
        return made
    metadata = {name: value for name, value in made["metadata"].items() if name != "ownerReferences"}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION_CANARY: spec.name}
    return {**made, "metadata": metadata}


def given_back(spec: CanarySpec, api_version: str, kind: str, name: str) -> Object:
    """A user's object of which we hold nothing any more."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": spec.namespace}}


def left_behind(obj: Mapping[str, Any], *, gives_back: bool) -> Object:
    """What stays held of a user's object whose Canary is gone: nothing where the owner's values come back by themselves.

    Where they do not (an API server keeps no value that was overridden) a field that is let go is gone for good; so it is left
    with the value that needs no primary: a Service selects the target, a Deployment has pods, shares are as they were."""
    metadata = {"name": obj["metadata"]["name"], "namespace": obj["metadata"].get("namespace") or "default"}
    made: Object = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}
    body = obj.get("spec") or {}
    if gives_back:
        return made
    match obj["kind"]:
        case "Service":
            selector = body.get("selector") or {}
            made["spec"] = {"selector": {name: value.removesuffix("-primary") for name, value in selector.items()}}
        case "Deployment":
            made["spec"] = {"replicas": body.get("replicas") or 1}
        case "TrafficSplit" | "HTTPRoute" | "HTTPRouteGroup":
            made["spec"] = body
    return made


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
