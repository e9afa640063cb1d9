"""Objects + settings -> every resource of the mesh, each with the hash of its content.

    objects --views--> typed --+--> Workload of each pod with a sidecar
                               +--> Service, Endpoints of each Service
    settings ------------------+--> Trust

Pure: the same objects give the same bytes, so a restarted control plane agrees with the hashes its proxies hold.  Total: an
object that cannot be read becomes a diagnostic, the rest compiles.  Memoised per resource: one whose objects are the same
dicts as the last time is taken from the memo, so a change costs what it touches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from control.api import mesh_pb2
from control.compile.access import Policies, policies
from control.compile.endpoints import compile_endpoints
from control.compile.service import compile_service
from control.compile.settings import Settings
from control.compile.views import View, ViewMemo, Views, read
from control.compile.workload import compile_workload, meshed
from control.resources import core
from control.resources.attach import Attached, attach
from control.resources.gateway_rules import World, references
from control.resources.routegroup import RouteGroup
from control.resources.traffictarget import Account
from control.store.store import Diagnostic, Object

ResourceKey = tuple[int, str]  # mesh_pb2.Kind, ResourceName.name
Content = mesh_pb2.Workload | mesh_pb2.Service | mesh_pb2.Endpoints | mesh_pb2.TrustBundle

HASH_DIGITS = 16  # 64 bits of SHA-256: equality of a few thousand resources, no defence against forgery needed

C = TypeVar("C", bound=Content)


@dataclass(slots=True)
class _Made:
    inputs: tuple[object, ...]  # compared by identity
    resource: mesh_pb2.Resource
    diagnostics: list[Diagnostic]


@dataclass(slots=True)
class Memo:
    """What the last compilation made; give it to the next one.  Bounded by the objects of one snapshot."""

    views: ViewMemo = field(default_factory=dict)
    resources: dict[ResourceKey, _Made] = field(default_factory=dict)
    reused: int = 0  # of the last compilation, for metrics and tests
    made: int = 0


@dataclass(frozen=True, slots=True)
class Compiled:
    """Immutable by convention: the resources are shared with the memo and must not be changed."""

    resources: Mapping[ResourceKey, mesh_pb2.Resource]
    diagnostics: tuple[Diagnostic, ...] = ()
    shared: Mapping[ResourceKey, mesh_pb2.Resource] = field(default_factory=dict)  # all but the workloads

    def resources_for(self, namespace: str, pod: str) -> dict[ResourceKey, mesh_pb2.Resource]:
        """What the sidecar of a pod needs: its Workload (absent: no such pod, or it has no sidecar), every Service and its
        Endpoints, Trust."""
        wanted = dict(self.shared)
        key = (mesh_pb2.WORKLOAD, f"{namespace}/{pod}")
        if key in self.resources:
            wanted[key] = self.resources[key]
        return wanted


def content_hash(content: Content) -> str:
    return hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()[:HASH_DIGITS]


def resource(kind: mesh_pb2.Kind, name: str, content: Content) -> mesh_pb2.Resource:
    made = mesh_pb2.Resource(name=mesh_pb2.ResourceName(kind=kind, name=name), hash=content_hash(content))
    if isinstance(content, mesh_pb2.Workload):
        made.workload.CopyFrom(content)
    elif isinstance(content, mesh_pb2.Service):
        made.service.CopyFrom(content)
    elif isinstance(content, mesh_pb2.Endpoints):
        made.endpoints.CopyFrom(content)
    else:
        made.trust.CopyFrom(content)
    return made


def compile_snapshot(objects: Iterable[Object], settings: Settings, memo: Memo | None = None) -> Compiled:
    """Compile all objects (as `Store.all()` gives them).  Never raises for what an object holds."""
    memo = memo if memo is not None else Memo()
    views = read(objects, memo.views)
    build = _Build(memo, settings)
    trust = mesh_pb2.TrustBundle(
        trust_domain=settings.trust_domain, anchors_der=settings.anchors_der, issuer_key_id=settings.issuer_key_id
    )
    build.make(mesh_pb2.TRUST, "", (), lambda: (trust, []))
    for name in sorted(views.services):
        _service(build, views, name, settings)
    shared = {key: made.resource for key, made in build.made.items()}
    access = policies(views, settings)
    for home in sorted(views.pods):
        namespace, pod = home[0], views.pods[home]
        if meshed(pod.typed) and pod.typed.ip:
            _workload(build, views, pod, namespace, settings, access)
    memo.views, memo.resources = views.memo, build.made
    memo.reused, memo.made = build.reused, len(build.made) - build.reused
    diagnostics = [*views.diagnostics, *access.diagnostics, *(one for made in build.made.values() for one in made.diagnostics)]
    return Compiled({key: made.resource for key, made in build.made.items()}, tuple(diagnostics), shared)


class _Build:
    def __init__(self, memo: Memo, settings: Settings) -> None:
        self.made: dict[ResourceKey, _Made] = {}
        self.reused = 0
        self._before = memo.resources
        self._settings = settings

    def make(
        self, kind: mesh_pb2.Kind, name: str, inputs: tuple[object, ...], compiler: Callable[[], tuple[C, list[Diagnostic]]]
    ) -> None:
        """`inputs` is everything `compiler` looks at; equal by identity means that the result is equal."""
        key = (kind, name)
        inputs = (self._settings, *inputs)
        known = self._before.get(key)
        if (
            known is not None
            and len(known.inputs) == len(inputs)
            and known.inputs[0] == inputs[0]
            and all(a is b for a, b in zip(known.inputs[1:], inputs[1:], strict=True))
        ):
            self.made[key] = known
            self.reused += 1
            return
        content, diagnostics = compiler()
        self.made[key] = _Made(inputs, resource(kind, name, content), diagnostics)


def _service(build: _Build, views: Views, name: tuple[str, str], settings: Settings) -> None:
    namespace, short = name
    view = views.services[name]
    if view.typed.spec.type == "ExternalName":
        return  # a DNS alias: its name is outside the mesh
    split = views.splits.get(name)
    routed = _routed(views, name)
    build.make(
        mesh_pb2.SERVICE,
        f"{namespace}/{short}",
        (view.obj, split and split.obj, *routed),
        lambda: compile_service(
            view.typed, namespace, split.typed if split is not None else None, _attached(views, name) if routed else None
        ),
    )
    slices = sorted(views.slices.get(name, ()), key=lambda one: one.typed.metadata.name)
    pods: dict[str, View[core.Pod]] = {}
    behind: list[object] = []  # of every address in turn: its pod's object, or None
    for one in slices:
        for endpoint in one.typed.endpoints:
            reference = endpoint.target_ref
            pod = None
            if reference is not None and reference.kind == "Pod":
                pod = views.pods.get((reference.namespace or namespace, reference.name))
            for address in endpoint.addresses[:1]:
                found = pod or views.pods_by_ip.get(address)
                behind.append(_obj(found))
                if found is not None:
                    pods[address] = found
    build.make(
        mesh_pb2.ENDPOINTS,
        f"{namespace}/{short}",
        (view.obj, *(one.obj for one in slices), *behind),
        lambda: compile_endpoints(view.typed, namespace, slices, pods, settings),
    )


def _routed(views: Views, name: tuple[str, str]) -> list[object]:
    """All objects that have a part in the routes of a Service, or None where one is missing; empty: it has no routes."""
    found: list[object] = []
    for split in views.matching.get(name, ()):
        groups = [views.groups.get((split.typed.namespace, group)) for group in split.typed.matches]
        found += [split.obj, *(group and group.obj for group in groups)]
    for route in views.routes.get(name, ()):
        services = [views.services.get(service) for service in sorted(references(route.typed))]
        found += [route.obj, *(service and service.obj for service in services)]
    return found


def _attached(views: Views, name: tuple[str, str]) -> Attached:
    def service(wanted: tuple[str, str]) -> core.Service | None:
        found = views.services.get(wanted)
        return found.typed if found is not None else None

    def group(wanted: tuple[str, str]) -> RouteGroup | None:
        found = views.groups.get(wanted)
        return found.typed if found is not None else None

    splits = [view.typed for view in views.matching.get(name, ())]
    routes = [view.typed for view in views.routes.get(name, ())]
    return attach(name, views.services[name].typed, splits, routes, World(service, group))


def _obj(view: View[core.Pod] | View[core.Service] | None) -> Object | None:
    return view.obj if view is not None else None


def _workload(build: _Build, views: Views, pod: View[core.Pod], namespace: str, settings: Settings, access: Policies) -> None:
    services = views.selecting(pod.typed, namespace)
    home = views.namespaces.get(namespace)
    policy = access.by_account.get(Account(namespace, pod.typed.spec.service_account_name or "default"))
    annotations = home.typed.metadata.annotations if home is not None else {}
    build.make(
        mesh_pb2.WORKLOAD,
        f"{namespace}/{pod.typed.metadata.name}",
        (pod.obj, home and home.obj, *(policy.inputs if policy is not None else ()), *(view.obj for view in services)),
        lambda: compile_workload(pod.typed, namespace, services, settings, policy, annotations),
    )
