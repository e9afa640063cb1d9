"""Records of many managers -> the objects everybody sees.   Pure.

    base (the user's document, or the record of who created the object)
      <- overlaid by each manager's fields, in order of the managers' names (of the user's document only the user says who
         owns it: it does not go with what a manager made it for)
      <- status: each manager's own fields
    -> minus garbage: objects whose owners (metadata.ownerReferences) are all gone

A field is a leaf of nested maps; a list is one field.  Two managers never own one field with different values: the
second writer is refused (`conflict`).  Overriding the user's value is what managers are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from control.store.records import ACCEPTED, Record
from control.store.store import Key, Object

FieldPath = tuple[str, ...]

# Kept by the store itself, never owned by a manager.
STORE_METADATA = frozenset(
    {"creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid"}
)
# Names the object; every record has it, nobody owns it.
_IDENTITY = frozenset({("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")})


def base_of(records: Mapping[str, Record]) -> tuple[str, Record] | None:
    """The record that makes the object exist: the user's, else the oldest of those who created it."""
    accepted = records.get(ACCEPTED)
    if accepted is not None and accepted.created:
        return ACCEPTED, accepted
    makers = [(record.created_at, manager) for manager, record in records.items() if record.created]
    if not makers:
        return None
    _, manager = min(makers)
    return manager, records[manager]


def overlay(records: Mapping[str, Record]) -> Object | None:
    """The object, or None if nobody who created it still holds it."""
    found = base_of(records)
    if found is None:
        return None
    base_manager, base = found
    obj: Object = merge({}, base.object)
    status: Object = {}
    generation = 0
    for manager in sorted(records):
        record = records[manager]
        if record.uid != base.uid:
            continue  # about an earlier object of the same name
        generation += record.generation
        if manager != base_manager:
            owned = {name: value for name, value in record.object.items() if name not in ("apiVersion", "kind")}
            if base_manager == ACCEPTED and owners(record):
                owned["metadata"] = {name: value for name, value in owned["metadata"].items() if name != "ownerReferences"}
            obj = merge(obj, owned)
        status.update(record.status)
    if status:
        obj["status"] = status
    metadata = obj["metadata"]
    metadata["uid"] = base.uid
    metadata["creationTimestamp"] = base.created_at
    metadata["generation"] = generation
    if base.deleted_at:
        metadata["deletionTimestamp"] = base.deleted_at
    # Opaque, equal in every process that sees the same object.
    digest = hashlib.sha256(msgspec.json.encode(obj, order="sorted")).digest()
    metadata["resourceVersion"] = str(int.from_bytes(digest[:7]))
    return obj


def owners(record: Record) -> Any:
    """The ownerReferences of what a manager says of an object; None or empty if there are none."""
    return record.object["metadata"].get("ownerReferences")


def finalized(records: Mapping[str, Record]) -> bool:
    """Has a manager put a finalizer on this object, so that it stays when its maker deletes it?  The maker's own do not count:
    nobody would take them off."""
    found = base_of(records)
    return found is not None and any(
        manager != found[0] and record.uid == found[1].uid and bool(record.object["metadata"].get("finalizers"))
        for manager, record in records.items()
    )


def merge(under: Object, over: Object) -> Object:
    """A new map: `over` wins, nested maps are merged, lists and scalars replaced."""
    out = dict(under)
    for name, value in over.items():
        if isinstance(value, dict):
            inner = out.get(name)
            out[name] = merge(inner if isinstance(inner, dict) else {}, value)
        else:
            out[name] = value
    return out


def leaves(obj: Object, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """The fields a record owns.  An empty map is a field of its own."""
    for name, value in obj.items():
        inner = (*path, name)
        if isinstance(value, dict) and value:
            yield from leaves(value, inner)
        elif inner not in _IDENTITY:
            yield inner, value


def conflict(records: Mapping[str, Record], manager: str, wanted: Object) -> tuple[str, FieldPath] | None:
    """Who else owns a field of `wanted` with another value, and which; the user's fields never conflict."""
    mine = dict(leaves(wanted))
    found = base_of(records)
    uid = found[1].uid if found else ""
    for other in sorted(records):
        record = records[other]
        if other in (manager, ACCEPTED) or record.uid != uid:
            continue
        theirs = dict(leaves(record.object))
        for path, value in theirs.items():
            if path in mine and mine[path] != value and {} not in (value, mine[path]):
                return other, path
        for path in _inside(mine, theirs):  # a map here where the other has a scalar, or the other way round
            return other, path
    return None


def _inside(mine: Mapping[FieldPath, Any], theirs: Mapping[FieldPath, Any]) -> Iterator[FieldPath]:
    for inner, outer in ((mine, theirs), (theirs, mine)):
        for path in inner:
            for end in range(1, len(path)):
                if path[:end] in outer and outer[path[:end]] != {}:
                    yield path[:end]


def substance(obj: Object | None) -> Object:
    """What `generation` counts changes of: everything but metadata and status."""
    return {name: value for name, value in (obj or {}).items() if name not in ("metadata", "status")}


def counted(found: Mapping[str, Record], manager: str, record: Record) -> Record:
    """`record` as `manager` is to write it: its generation goes up if the object as everybody sees it changes in substance."""
    if substance(overlay(found)) != substance(overlay({**found, manager: record})):
        record.generation += 1
    return record


def garbage(objects: Mapping[Key, Object], held: frozenset[Key] | set[Key]) -> set[Key]:
    """Objects whose owners are all gone, and what they in turn own.  `held` (the user's documents) never is."""
    gone: set[Key] = set()
    dependents = [
        (key, references)
        for key, obj in objects.items()
        if key not in held and (references := obj["metadata"].get("ownerReferences"))
    ]
    changed = True
    while changed:  # each round removes at least one: bounded by the number of objects
        changed = False
        for key, references in dependents:
            if key not in gone and not any(_alive(reference, key, objects, gone) for reference in references):
                gone.add(key)
                changed = True
    return gone


def leaving(objects: Mapping[Key, Object], held: frozenset[Key] | set[Key]) -> set[Key]:
    """Objects that are deleted and held back by a finalizer, and what goes with them.  `held`: as of `garbage`."""
    deleted = {key for key, obj in objects.items() if obj["metadata"].get("deletionTimestamp")}
    if not deleted:
        return deleted
    return deleted | garbage({key: obj for key, obj in objects.items() if key not in deleted}, held)


def orphaned(records: Mapping[Key, Mapping[str, Record]], objects: Mapping[Key, Object]) -> set[tuple[Key, str]]:
    """What managers say of the user's objects on behalf of owners that are all gone: (object, manager)."""
    found: set[tuple[Key, str]] = set()
    for key, several in records.items():
        if len(several) < 2 or ACCEPTED not in several or not several[ACCEPTED].created:
            continue
        for manager, record in several.items():
            references = owners(record) if manager != ACCEPTED else None
            if references and not any(_alive(reference, key, objects, set()) for reference in references):
                found.add((key, manager))
    return found


def _alive(reference: Any, dependent: Key, objects: Mapping[Key, Object], gone: set[Key]) -> bool:
    if not isinstance(reference, dict):
        return False
    group, _, _ = str(reference.get("apiVersion", "")).rpartition("/")
    namespaces = (dependent.namespace, "default")  # "default" also stands for objects of the whole cluster
    for namespace in namespaces:
        key = Key(group, str(reference.get("kind", "")), namespace, str(reference.get("name", "")))
        owner = objects.get(key)
        if owner is not None and key not in gone and reference.get("uid") in (None, "", owner["metadata"]["uid"]):
            return True
    return False
