"""What was promoted, kept where no deletion of the primary reaches it: what the primary was last made to be.

    <t>-primary-<hash>        ControllerRevision, as Kubernetes keeps a workload's history: template, replicas, which configs
    <config>-primary-<hash>   ConfigMap or Secret: what the primary's copies say (not inside of the ControllerRevision: who may
                              read that may not read every Secret)

    primary made, or promoted   --keeping-->   one more of them, whole; then those before it go (superseded)
    primary gone                --restored-->  made again from the newest

The target is no help when the primary is gone: in a release it is what is being analysed, after a failed one what has failed.
All of it has the Canary as owner, so it goes with it; one revision is kept, two in the middle of a promotion.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control.canary.declared.commands import PREFIX
from control.canary.declared.spec import CanarySpec
from control.canary.objects.configs import config_key, references
from control.canary.objects.foreign import is_shared
from control.canary.objects.ownership import Find, digest, is_ours, owner
from control.canary.objects.workloads import API_VERSION, DEPLOYMENT, GROUP, primary_stamp, replicas
from control.store.store import Key, Object, Store

KIND = "ControllerRevision"
ANNOTATION_PROMOTED = PREFIX + "promoted"  # on what is kept: the primary it is of
ANNOTATION_UNAPPROVED = PREFIX + "unapproved"  # on a primary that was made of a revision nobody promoted: nothing was kept

# Annotations that speak of the one object that has them, and not of what it is made to be.
_OF_ONE = ("deployment.kubernetes.io/", "deprecated.daemonset.", "kubectl.kubernetes.io/", ANNOTATION_UNAPPROVED)
_CONTENT = ("data", "stringData", "binaryData", "type")


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest revision of a primary that is kept."""

    key: Key
    number: int
    data: Mapping[str, Any]  # kind, metadata, spec; stamp; configs: "<kind>/<name of the primary's copy>" -> name of ours

    @property
    def stamp(self) -> str:
        return str(self.data.get("stamp") or "")

    @property
    def configs(self) -> Mapping[str, str]:
        return self.data.get("configs") or {}


def kept(store: Store, spec: CanarySpec) -> Kept | None:
    """None: nothing is."""
    found = [
        Kept(Key.of(obj), int(obj.get("revision") or 0), obj["data"])
        for obj in store.list(GROUP, KIND, spec.namespace)
        if _is_kept(spec, obj) and (obj.get("data") or {}).get("kind") == spec.target_kind
    ]
    return max(found, key=lambda one: one.number, default=None)


def is_approved(primary: Mapping[str, Any]) -> bool:
    return ANNOTATION_UNAPPROVED not in (primary["metadata"].get("annotations") or {})


def is_whole(spec: CanarySpec, one: Kept, find: Find) -> bool:
    """Is all of it still there?"""
    return all(find(_copy_key(spec, reference, name)) is not None for reference, name in one.configs.items())


# ---------------------------------------------------------------- keeping


def keeping(spec: CanarySpec, primary: Object, find: Find, newest: Kept | None) -> list[Object]:
    """The objects that keep this primary, to be applied in order: the last makes the others count."""
    made: list[Object] = []
    configs: dict[str, str] = {}
    for kind, name in _configs(primary):
        source = find(config_key(kind, spec.namespace, name))
        if source is not None and is_ours(spec, source):
            content = _content(source)
            # Of this primary alone: another that uses the same config, with another Canary, keeps what it needs itself.
            configs[f"{kind}/{name}"] = kept_name = f"{name}-{digest([spec.primary, content, _labels(source)])}"
            made.append(
                {
                    "apiVersion": "v1",
                    "kind": source["kind"],
                    "metadata": {**_metadata(spec, kept_name), **_labels(source)},
                    "immutable": True,
                    **copy.deepcopy(content),
                }
            )
    marks = primary["metadata"].get("annotations") or {}
    metadata = {
        "labels": dict(primary["metadata"].get("labels") or {}),
        "annotations": {name: value for name, value in marks.items() if not name.startswith(_OF_ONE)},
    }
    data: Object = {
        "kind": primary["kind"],
        "stamp": primary_stamp(primary),
        "metadata": metadata,
        "spec": copy.deepcopy(primary["spec"]),
        "configs": configs,
    }
    if primary["kind"] == DEPLOYMENT:
        data["spec"]["replicas"] = max(1, replicas(primary))
    name = f"{spec.primary}-{digest(data)}"
    number = newest.number + (newest.key.name != name) if newest is not None else 1
    made.append({"apiVersion": API_VERSION, "kind": KIND, "metadata": _metadata(spec, name), "data": data, "revision": number})
    return made


def superseded(store: Store, spec: CanarySpec, made: Sequence[Object]) -> list[Key]:
    """What was kept before `made`, in the order to delete it in."""
    wanted = {Key.of(obj) for obj in made}
    kinds = ((GROUP, KIND), ("", "ConfigMap"), ("", "Secret"))
    found = (obj for group, kind in kinds for obj in store.list(group, kind, spec.namespace) if _is_kept(spec, obj))
    return [key for key in map(Key.of, found) if key not in wanted]


# ---------------------------------------------------------------- making again


def restored(spec: CanarySpec, one: Kept, find: Find) -> list[Object]:
    """The primary as it was last made, after its configs.  Of these, one whose copy is gone is left as it is."""
    metadata: Object = {
        "name": spec.primary,
        "namespace": spec.namespace,
        **copy.deepcopy(dict(one.data.get("metadata") or {})),
    }
    metadata["ownerReferences"] = owner(spec)
    body = copy.deepcopy(one.data["spec"])
    primary: Object = {"apiVersion": API_VERSION, "kind": spec.target_kind, "metadata": metadata, "spec": body}
    return [*_copies(spec, one, find), primary]


def spoilt(spec: CanarySpec, one: Kept, find: Find) -> list[Object]:
    """The primary's configs, as they were promoted, that another hand has changed or taken away.  One that another Canary
    uses too says what that one promoted, if it was the later."""
    found = []
    for wanted in _copies(spec, one, find):
        current = find(Key.of(wanted))
        own = current is not None and is_ours(spec, current) and not is_shared(current)
        if current is None or (own and _content(current) != _content(wanted)):
            found.append(wanted)
    return found


def _copies(spec: CanarySpec, one: Kept, find: Find) -> Iterator[Object]:
    for reference, name in sorted(one.configs.items()):
        source = find(_copy_key(spec, reference, name))
        if source is not None:
            metadata = {"name": reference.partition("/")[2], "namespace": spec.namespace, "ownerReferences": owner(spec)}
            content = copy.deepcopy(_content(source))
            yield {"apiVersion": "v1", "kind": source["kind"], "metadata": {**metadata, **_labels(source)}, **content}


# ---------------------------------------------------------------- parts


def _is_kept(spec: CanarySpec, obj: Mapping[str, Any]) -> bool:
    metadata = obj["metadata"]
    return (metadata.get("annotations") or {}).get(ANNOTATION_PROMOTED) == spec.primary and is_ours(spec, obj)


def _metadata(spec: CanarySpec, name: str) -> Object:
    marks = {ANNOTATION_PROMOTED: spec.primary}
    return {"name": name, "namespace": spec.namespace, "annotations": marks, "ownerReferences": owner(spec)}


def _copy_key(spec: CanarySpec, reference: str, name: str) -> Key:
    return config_key(reference.partition("/")[0], spec.namespace, name)


def _configs(primary: Object) -> list[tuple[str, str]]:
    """(kind, name) of the ConfigMaps and Secrets that it uses, each once."""
    return sorted({(kind, str(ref[key])) for kind, ref, key in references(primary["spec"]["template"]) if ref.get(key)})


def _labels(config: Mapping[str, Any]) -> Object:
    return {"labels": dict(found)} if (found := config["metadata"].get("labels")) else {}


def _content(config: Mapping[str, Any]) -> Object:
    return {name: config[name] for name in _CONTENT if config.get(name)}
