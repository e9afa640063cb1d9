"""What a simulation is given: the manifests a release is about, and what its world is like.

A target that is not among the manifests is made up, so that a Canary alone is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from control.canary.simulate.model import Fault
from control.canary.simulate.replay import Recording
from control.canary.spec import GROUP, KIND
from control.resources.validate import review
from control.store.store import Key, Object
from control.store.userfiles import UserFiles

START = 1_767_603_600.0  # Mon 2026-01-05 09:00 UTC: a simulation begins on a Monday morning
_REPLICAS = 2  # of a target that is made up


class SimulationError(Exception):
    """The simulation cannot be run; `str()` says what is wrong with what was given."""


@dataclass(slots=True)
class Given:
    """What a simulation is told besides the manifests.

    `faults`: (name of a Canary or "" for all, fault).  `denied`: gate or webhook (its name or type) -> how often it says no,
    None for ever.  `rate`: requests a second to the apex.  `limit_s`: simulated time after which it ends undecided."""

    faults: Sequence[tuple[str, Fault]] = ()
    recording: Recording | None = None
    denied: Mapping[str, int | None] = field(default_factory=dict)
    rate: float = 20.0
    limit_s: float = 24 * 3600.0
    start: float = START


def load(path: Path) -> list[Object]:
    """The objects of a file or directory of manifests that a release is about.  Raises SimulationError."""
    user = UserFiles(path)
    user.scan()
    reviewed = review(user.files)
    accepted = {key: checked.obj for key, checked in reviewed.accepted.items() if checked.obj is not None}
    errors = [found for found in (*user.problems, *reviewed.diagnostics) if found.severity == "error"]
    errors = [found for found in errors if found.key is None or (found.key.group, found.key.kind) in _ABOUT]
    if errors:
        raise SimulationError("\n".join(str(found) for found in errors))
    objects = [obj for key, obj in accepted.items() if (key.group, key.kind) in _ABOUT]
    canaries = [obj for obj in objects if obj["kind"] == KIND]
    if not canaries:
        raise SimulationError(f"{path}: there is no Canary in it")
    present = {Key.of(obj) for obj in objects}
    return objects + [made for obj in canaries if (made := _target(obj)) is not None and Key.of(made) not in present]


_ABOUT = {
    (GROUP, KIND),
    ("meshproxy.dev", "ReleasePolicy"),
    (GROUP, "MetricTemplate"),
    (GROUP, "AlertProvider"),
    ("", "ConfigMap"),
    ("", "Secret"),
    ("", "Service"),
    ("apps", "Deployment"),
}


def _target(canary: Object) -> Object | None:
    """A Deployment for a Canary whose target is not among the manifests."""
    reference, service = canary["spec"]["targetRef"], canary["spec"]["service"]
    if reference["kind"] != "Deployment":
        return None
    name, port = reference["name"], service.get("targetPort", service["port"])
    declared = {"name": port, "containerPort": 8080} if isinstance(port, str) else {"containerPort": port}
    container = {"name": name, "image": f"{name}:simulated", "command": ["true"], "ports": [declared]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": canary["metadata"]["namespace"]},
        "spec": {
            "replicas": _REPLICAS,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }
