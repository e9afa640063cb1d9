"""What stands where objects of a Canary are to be: somebody else's is never written over, Flagger's is taken over as it is.

found under the name               no Canary owns it     foreign() says so: the Canary stops, nothing is written
<t>-primary, owned by the Canary,
without our mark (Flagger made it) runs what <t> says    marked with the revision of <t>: nothing to release
                                   runs something else   marked with a revision of its own: <t> is a release
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from control.canary.declared.spec import API_VERSION, KIND, CanarySpec
from control.canary.objects.configs import config_hash, config_key, references
from control.canary.objects.ownership import FLUX, Find, digest, is_ours, owner
from control.canary.objects.workloads import ANNOTATION_REVISION, primary_stamp, primary_workload, revision, stamp_for
from control.store.store import Key, Object

SUFFIX = "-primary"
_FLAGGERS_ID = "flagger-id"  # an annotation of its primary's pods, new with each promotion


def foreign(spec: CanarySpec, keys: Iterable[Key], find: Find) -> str:
    """What is under these names and belongs to no Canary, in words for an Event; "" if nothing is."""
    for key in keys:
        found = find(key)
        if found is not None and not is_ours(spec, found) and not _canaries(found):
            return (
                f"{key.kind} {key.name}.{key.namespace} is there already and not of Canary {spec.name}'s making; nothing is "
                f"written over it: rename or delete it, or make the Canary its owner (metadata.ownerReferences)"
            )
    return ""


def config_keys(spec: CanarySpec, tracked: Iterable[str]) -> list[Key]:
    """Of the primary's copies of these configs ("configmap/settings")."""
    split = (reference.partition("/") for reference in sorted(tracked))
    return [config_key(kind, spec.namespace, name + SUFFIX) for kind, _, name in split]


def beside_others(spec: CanarySpec, wanted: Object, current: Mapping[str, Any] | None) -> Object:
    """`wanted` with the other Canaries that use it as owners, as Flagger has it: it goes with the last of them."""
    others = [one for one in (_canaries(current) if current is not None else ()) if one.get("name") != spec.name]
    if not others:
        return wanted
    references = [*owner(spec), *({**one, "controller": False} for one in others)]
    return {**wanted, "metadata": {**wanted["metadata"], "ownerReferences": references}}


def is_shared(obj: Mapping[str, Any]) -> bool:
    return len(_canaries(obj)) > 1


def _canaries(obj: Mapping[str, Any]) -> list[Object]:
    group = API_VERSION.partition("/")[0]
    references = obj["metadata"].get("ownerReferences") or ()
    return [one for one in references if one.get("kind") == KIND and str(one.get("apiVersion", "")).startswith(group + "/")]


# ---------------------------------------------------------------- Flagger's


def mark_of(spec: CanarySpec, primary: Object, target: Object, tracked: Mapping[str, str], find: Find) -> str:
    """The stamp for a primary that has none, "" for one that has, or is not ours.  Raises TargetError."""
    if primary_stamp(primary) or not is_ours(spec, primary):
        return ""
    if _same(spec, primary, target, tracked, find):
        return stamp_for(revision(target), tracked)
    return digest(primary["spec"]["template"])  # no target has this revision


def marked(spec: CanarySpec, stamp: str) -> Object:
    """Nothing but the mark, and not on the pods: they go on running."""
    marks = {ANNOTATION_REVISION: stamp}
    metadata = {"name": spec.primary, "namespace": spec.namespace, "annotations": marks}
    return {"apiVersion": "apps/v1", "kind": spec.target_kind, "metadata": metadata}


def _same(spec: CanarySpec, primary: Object, target: Object, tracked: Mapping[str, str], find: Find) -> bool:
    """Does it run what the target says, and with configs that say what those of the target do?"""
    made = primary_workload(spec, target, tracked, None)
    if _bare(primary["spec"]["template"]) != _bare(made["spec"]["template"]):
        return False
    used = {f"{kind}/{ref.get(key)}" for kind, ref, key in references(primary["spec"]["template"])}
    for (reference, wanted), key in zip(sorted(tracked.items()), config_keys(spec, tracked), strict=True):
        if reference + SUFFIX not in used:
            continue  # it reads the original itself
        found = find(key)
        if found is None or config_hash(found) != wanted:
            return False
    return True


def _bare(template: Mapping[str, Any]) -> Object:
    """Without marks of either controller, and with configs by the names that the target has for them."""
    made: Object = copy.deepcopy(dict(template))
    for _, ref, key in references(made):
        ref[key] = str(ref.get(key) or "").removesuffix(SUFFIX)
    metadata = made.get("metadata") or {}
    for field in ("labels", "annotations"):
        kept = metadata.get(field) or {}
        own = {
            name: value for name, value in kept.items() if name not in (ANNOTATION_REVISION, _FLAGGERS_ID) and FLUX not in name
        }
        metadata[field] = own
    return {**made, "metadata": {name: value for name, value in metadata.items() if value}}
