"""What an object was last written for, on the object: so that an edit of the Canary is told from another hand's.

    on the object     what the Canary (and its target) declare now      the object differs
    the same          the same                                          another hand: put back, with a Warning
    another           anew                                              the declaration is followed
    none              whatever                                          from before there was a mark, or Flagger's: followed

By a hash of the object as wanted, and not by the Canary's generation: it holds across restarts and for each object alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from control.canary.declared.commands import PREFIX
from control.canary.declared.spec import CanarySpec
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.status import Status
from control.canary.objects import services
from control.canary.objects.ownership import digest
from control.canary.routers import router_for
from control.store.store import Object

ANNOTATION_DECLARED = PREFIX + "declared"


def of_routing(spec: CanarySpec) -> str:
    """Of all the router's objects; who gets how many requests at the moment is no part of it."""
    return digest(router_for(spec).wanted(spec, TO_PRIMARY, Status()))


def of_services(spec: CanarySpec, target: Object) -> list[str]:
    """Of `<apex>-canary` and `<apex>-primary`, in the order of `services.services`.  Raises TargetError."""
    return [digest(service) for service in services.services(spec, target)]


def of_apex(spec: CanarySpec, target: Object) -> str:
    """Raises TargetError."""
    return digest(services.apex_service(spec, target, None))


def marked(obj: Object, mark: str) -> Object:
    metadata = obj["metadata"]
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION_DECLARED: mark}
    return {**obj, "metadata": {**metadata, "annotations": annotations}}


def is_anew(current: Mapping[str, Any] | None, mark: str) -> bool:
    """Has what is declared changed since it was written?  Then it is to be written again, whatever it says."""
    return current is not None and _mark(current) not in ("", mark)


def is_followed(differing: Iterable[tuple[Mapping[str, Any] | None, str]]) -> bool:
    """Of objects that are not as wanted (None: gone), with the mark that each should have: is it the declaration's doing?"""
    return all(current is not None and _mark(current) != mark for current, mark in differing)


def is_routing_anew(found: Sequence[Mapping[str, Any]], mark: str, as_wanted: bool) -> bool:
    """`found`: those of the router's objects that are there; the declaration may have changed which there are.  `as_wanted`:
    they say what they should, but for weights."""
    marks = {_mark(one) for one in found}
    return bool(marks) and mark not in marks and (not as_wanted or "" not in marks)


def _mark(obj: Mapping[str, Any]) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(ANNOTATION_DECLARED, ""))
