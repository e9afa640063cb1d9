"""Routes and splits, short to write; and what becomes of a request, from objects to the rule that takes it."""

from __future__ import annotations

from typing import Any

import yaml
from compile_objects import compiled, endpoint, service, slice_of

from control.api import mesh_pb2
from control.resources.crosscheck import crosscheck
from control.store.store import Object
from meshproxy.mesh.convert import tables_of
from meshproxy.mesh.knowledge import Known
from meshproxy.policy.match import UNSAFE
from meshproxy.policy.service import RouteEntry, ServiceEntry
from meshproxy.policy.tables import Tables
from meshproxy.wire.message import Field, Head, add_field

WEB = [service("web"), service("web-v1"), service("web-v2"), service("web-v3")]
ENDPOINTS = [
    slice_of(name, endpoint(f"127.9.9.{number}")) for number, name in enumerate(("web", "web-v1", "web-v2", "web-v3"), 10)
]


def http_route(name: str, *rules: str, parent: str = "{group: '', kind: Service, name: web}", **metadata: Any) -> Object:
    return route("HTTPRoute", name, *rules, parent=parent, **metadata)


def route(kind: str, name: str, *rules: str, parent: str = "{group: '', kind: Service, name: web}", **metadata: Any) -> Object:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {"parentRefs": [yaml.safe_load(parent)], "rules": [yaml.safe_load(rule) for rule in rules]},
    }


def to(name: str, match: str = "{}", more: str = "") -> str:
    """A rule with one match and one backend."""
    return f"{{matches: [{match}], backendRefs: [{{name: {name}, port: 80}}]{', ' + more if more else ''}}}"


def group(name: str, *matches: str, **annotations: str) -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "HTTPRouteGroup",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"matches": [{"name": f"m{i}", **yaml.safe_load(match)} for i, match in enumerate(matches)]},
    }


def matching_split(name: str, groups: str, metadata: dict[str, Any] | None = None, **weights: Any) -> Object:
    return {
        "apiVersion": "split.smi-spec.io/v1alpha4",
        "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "shop", **(metadata or {})},
        "spec": {
            "service": "web",
            "matches": [{"kind": "HTTPRouteGroup", "name": name} for name in groups.split()],
            "backends": [{"service": name.replace("_", "-"), "weight": weight} for name, weight in weights.items()],
        },
    }


def tables(*objects: Object, namespace: str = "shop") -> Tables:
    """As a client's proxy in `namespace` builds them, after a trip through the wire's form."""
    services, endpoints = {}, {}
    for (kind, name), made in compiled(*objects).resources.items():
        copy = mesh_pb2.Resource.FromString(made.SerializeToString())
        if kind == mesh_pb2.SERVICE:
            services[name] = copy.service
        elif kind == mesh_pb2.ENDPOINTS:
            endpoints[name] = copy.endpoints
    return tables_of(1, Known(mesh_pb2.Workload(namespace=namespace), services, endpoints))


def request(target: str = "GET /", **headers: str) -> Head:
    head = Head()
    method, _, path = target.partition(" ")
    head.method, head.path, head.authority = method.encode(), path.encode(), b"web.shop"
    for name, value in headers.items():
        add_field(head, Field(name.replace("_", "-").encode(), value.encode()))
    return head


def service_entry(*objects: Object, namespace: str = "shop", port: int = 80) -> ServiceEntry:
    found = tables(*WEB, *ENDPOINTS, *objects, namespace=namespace).service("shop", "web", port)
    assert found is not None
    return found


def taken_by(entry: ServiceEntry, head: Head) -> RouteEntry | str:
    """The rule that takes a request; "service": the Service's own backends; "unsafe"."""
    if entry.matches is None:
        return "service"
    match = entry.matches.find(head)
    if match is UNSAFE:
        return "unsafe"
    return entry.routes.get(match.route, "service")


def goes_to(entry: ServiceEntry, target: str = "GET /", **headers: str) -> str:
    """Names of the backends with a weight, joined by "+", or the status a request is answered with."""
    found = taken_by(entry, request(target, **headers))
    if isinstance(found, str) and found != "service":
        return found
    if isinstance(found, RouteEntry) and found.spec.refuse:
        return str(found.spec.refuse)
    holder = entry if isinstance(found, str) else found
    names = [
        str(leaf.refuse) if leaf.refuse else leaf.name
        for leaf, weight in zip(holder.backends, holder.weights, strict=True)
        if weight
    ]
    return "+".join(names)


def told(*objects: Object) -> list[str]:
    """What `lint` and Events say, as "Kind name: message"."""
    return [f"{one.key.kind} {one.key.name}: {one.message}" for one in crosscheck([*WEB, *objects]) if one.key is not None]
