"""What a simulation is given: the manifests a release is about, and what its world is like.

A target that is not among the manifests is made up, so that a Canary alone is enough.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from control.canary.declared.fields import SpecError
from control.canary.declared.policy import ReleasePolicy
from control.canary.declared.policy import parse as parse_policy
from control.canary.declared.spec import GROUP, KIND, NO_FLAGS, CanarySpec, Flags
from control.canary.declared.spec import parse as parse_canary
from control.canary.objects.workloads import DAEMON_SET, DEPLOYMENT
from control.canary.simulate.model import KINDS, Fault
from control.canary.simulate.replay import Recording
from control.resources.validate import review
from control.store.store import Key, Object
from control.store.userfiles import UserFiles

START = 1_767_603_600.0  # Mon 2026-01-05 09:00 UTC: a simulation begins on a Monday morning
_REPLICAS = 2  # of a target that is made up


class SimulationError(Exception):
    """The simulation cannot be run; `str()` says what is wrong with what was given."""


class GivenError(SimulationError):
    """What was given is about nothing in the manifests; `option` of the command line says it."""

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


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
    flags: Flags = NO_FLAGS  # of the control plane


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


def check(objects: Sequence[Object], given: Given) -> None:
    """Every name given is one in the manifests: another would change nothing, and the simulation say that all is well.  Raises
    GivenError.  Manifests that cannot be read are the simulation's to tell."""
    specs, policies = _declared(objects)
    names = sorted({spec.name for spec in specs})
    metrics = _metrics(specs, policies)
    for name, fault in given.faults:
        if name and name not in names:
            raise GivenError("--scenario", _nothing("Canary", name, names))
        if fault.metric and fault.metric not in metrics:
            also = [] if fault.kind == "bad" else KINDS
            raise GivenError("--scenario", _nothing("metric", fault.metric, metrics, also))
    if given.recording is not None:
        for name in given.recording.series:
            if name not in metrics:
                raise GivenError("--replay", _nothing("metric", name, metrics))
        if any(fault.kind not in ("good", "unready") for _, fault in given.faults):
            raise GivenError(
                "--scenario", "with --replay the recording is what the metrics say: give one of the two (or unready)"
            )
    hooks = {word for spec in specs for hook in spec.webhooks for word in (hook.name, hook.type)}
    gates = {gate for spec in specs for gate in spec.gates}
    gates |= {"step" for policy in policies if any(step.pause for step in policy.steps)}
    gates |= {"promotion-step" for policy in policies if any(step.pause for step in policy.promotion_steps)}
    gates |= {"evidence" for policy in policies if policy.evidence is not None}
    for name in given.denied:
        if name not in hooks and name.partition("/")[0] not in gates:
            raise GivenError("--deny", _nothing("webhook or gate", name, sorted(hooks | gates)))


def doubts(objects: Sequence[Object], given: Given) -> list[str]:
    """What lets a simulation say less than it seems to: to be told beside it."""
    present = {Key.of(obj) for obj in objects}
    found: list[str] = []
    for obj in objects:
        if obj["kind"] != "ReleasePolicy":
            continue
        namespace = obj["metadata"].get("namespace") or "default"
        names = sorted(key.name for key in present if (key.group, key.kind, key.namespace) == (GROUP, KIND, namespace))
        for member in (obj.get("spec") or {}).get("members") or ():
            if member not in names:
                near = difflib.get_close_matches(member, names, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                found.append(
                    f"ReleasePolicy {obj['metadata']['name']}: spec.members: there is no Canary {member} in the manifests"
                    f"{hint}: it takes no part, and nothing here says how it would go with it"
                )
    if given.recording is not None:
        missing = [name for name in _metrics(*_declared(objects)) if name not in given.recording.series]
        found += [
            f"the recording has no metric {name}: each look at it fails, as if its source did not answer" for name in missing
        ]
    return found


def _declared(objects: Sequence[Object]) -> tuple[list[CanarySpec], list[ReleasePolicy]]:
    """Those that can be read."""
    specs: list[CanarySpec] = []
    policies: list[ReleasePolicy] = []
    for obj in objects:
        with suppress(SpecError):
            if obj["kind"] == KIND:
                specs.append(parse_canary(obj))
            elif obj["kind"] == "ReleasePolicy" and (policy := parse_policy(obj)) is not None:
                policies.append(policy)
    return specs, policies


def _metrics(specs: Sequence[CanarySpec], policies: Sequence[ReleasePolicy]) -> list[str]:
    return sorted(
        {metric.name for spec in specs for metric in spec.metrics}
        | {one.name for policy in policies for step in (*policy.steps, *policy.promotion_steps) for one in step.checks}
    )


def _nothing(what: str, name: str, known: Sequence[str], also: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(name, [*known, *also], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"there is no {what} {name!r} in the manifests, only {', '.join(known) or 'none'}{hint}"


_ABOUT = {
    (GROUP, KIND),
    ("meshproxy.dev", "ReleasePolicy"),
    (GROUP, "MetricTemplate"),
    (GROUP, "AlertProvider"),
    ("", "ConfigMap"),
    ("", "Secret"),
    ("", "Service"),
    ("apps", "Deployment"),
    # What may come before a release's weights: then it waits for routing to have an effect, as it would in the mesh.
    ("split.smi-spec.io", "TrafficSplit"),
    ("specs.smi-spec.io", "HTTPRouteGroup"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("gateway.networking.k8s.io", "GRPCRoute"),
}


def _target(canary: Object) -> Object | None:
    """A Deployment or DaemonSet for a Canary whose target is not among the manifests.  A DaemonSet never is: the store, which
    is embedded mode's, takes no manifest of one."""
    reference, service = canary["spec"]["targetRef"], canary["spec"]["service"]
    if reference["kind"] not in (DEPLOYMENT, DAEMON_SET):
        return None
    name, port = reference["name"], service.get("targetPort", service["port"])
    declared = {"name": port, "containerPort": 8080} if isinstance(port, str) else {"containerPort": port}
    container = {"name": name, "image": f"{name}:simulated", "command": ["true"], "ports": [declared]}
    return {
        "apiVersion": "apps/v1",
        "kind": reference["kind"],
        "metadata": {"name": name, "namespace": canary["metadata"]["namespace"]},
        "spec": {
            **({"replicas": _REPLICAS} if reference["kind"] == DEPLOYMENT else {}),
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }
