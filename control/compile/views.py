"""A snapshot's objects as typed views, found the way compiling asks for them.

A view is made once for an object: the store hands out the same dict until it changes, so "same dict" means "same object".
What cannot be read (nobody checked it: a manager wrote it) becomes a diagnostic and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from control.resources import access, core, gateway, routegroup, split, traffictarget
from control.resources.gateway import Route
from control.resources.gateway_rules import parents
from control.resources.split import Splits, splits_by_apex
from control.store.store import Diagnostic, Key, Object

SLICE_SERVICE = "kubernetes.io/service-name"

T = TypeVar("T")
Name = tuple[str, str]  # namespace, name


@dataclass(frozen=True, slots=True)
class View(Generic[T]):
    """An object and its typed form; compared by identity of the object."""

    obj: Object
    typed: T


ViewMemo = dict[Key, tuple[Object, View[Any] | Diagnostic]]


@dataclass(slots=True)
class Views:
    services: dict[Name, View[core.Service]] = field(default_factory=dict)
    pods: dict[Name, View[core.Pod]] = field(default_factory=dict)
    pods_by_ip: dict[str, View[core.Pod]] = field(default_factory=dict)
    slices: dict[Name, list[View[core.EndpointSlice]]] = field(default_factory=dict)  # by the Service they belong to
    splits: dict[Name, View[split.TrafficSplit]] = field(default_factory=dict)  # by apex: the one in force for what is left
    matching: dict[Name, list[View[split.TrafficSplit]]] = field(default_factory=dict)  # by apex: those with matches
    routes: dict[Name, list[View[Route]]] = field(default_factory=dict)  # by each Service they are attached to
    targets: list[View[access.Selected]] = field(default_factory=list)
    groups: dict[Name, View[routegroup.RouteGroup]] = field(default_factory=dict)
    port_routes: dict[tuple[str, str, str], View[routegroup.PortRoute]] = field(
        default_factory=dict
    )  # by kind, namespace, name
    namespaces: dict[str, View[core.Namespace]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    memo: ViewMemo = field(default_factory=dict)

    def selecting(self, pod: core.Pod, namespace: str) -> list[View[core.Service]]:
        """The Services whose selector takes this pod, by name."""
        labels = pod.metadata.labels
        found = [
            view
            for (home, _), view in self.services.items()
            if home == namespace and view.typed.spec.selector and view.typed.spec.selector.items() <= labels.items()
        ]
        return sorted(found, key=lambda view: view.typed.metadata.name)


def _service(obj: Object) -> core.Service:
    return core.parse(obj, core.Service)


def _pod(obj: Object) -> core.Pod:
    return core.parse(obj, core.Pod)


def _slice(obj: Object) -> core.EndpointSlice:
    return core.parse(obj, core.EndpointSlice)


def _namespace(obj: Object) -> core.Namespace:
    return core.parse(obj, core.Namespace)


_READERS: dict[tuple[str, str], Callable[[Object], Any]] = {
    ("", "Service"): _service,
    ("", "Pod"): _pod,
    ("discovery.k8s.io", "EndpointSlice"): _slice,
    ("", "Namespace"): _namespace,
    (split.GROUP, "TrafficSplit"): split.parse,
    (gateway.GROUP, "HTTPRoute"): gateway.parse_http_route,
    (gateway.GROUP, "GRPCRoute"): gateway.parse_grpc_route,
    (traffictarget.GROUP, "TrafficTarget"): access.read_target,
    (routegroup.GROUP, "HTTPRouteGroup"): routegroup.parse_group,
    (routegroup.GROUP, "TCPRoute"): routegroup.parse_ports,
    (routegroup.GROUP, "UDPRoute"): routegroup.parse_ports,
}


def read(objects: Iterable[Object], memo: ViewMemo) -> Views:
    """Total: never raises for what an object holds."""
    views = Views()
    splits: list[View[split.TrafficSplit]] = []
    for obj in objects:
        key = Key.of(obj)
        reader = _READERS.get((key.group, key.kind))
        if reader is None:
            continue
        known = memo.get(key)
        view = known[1] if known is not None and known[0] is obj else _view(key, obj, reader)
        views.memo[key] = (obj, view)
        if isinstance(view, Diagnostic):
            views.diagnostics.append(view)
            continue
        match key.kind:
            case "Service":
                views.services[key.namespace, key.name] = view
            case "Pod":
                views.pods[key.namespace, key.name] = view
                if view.typed.ip:
                    views.pods_by_ip[view.typed.ip] = view
            case "EndpointSlice":
                owner = view.typed.metadata.labels.get(SLICE_SERVICE)
                if owner:
                    views.slices.setdefault((key.namespace, owner), []).append(view)
            case "TrafficSplit":
                splits.append(view)
            case "HTTPRoute" | "GRPCRoute":
                for service in {service for service, _ in parents(view.typed)}:
                    views.routes.setdefault(service, []).append(view)
            case "TrafficTarget":
                views.targets.append(view)
            case "HTTPRouteGroup":
                views.groups[key.namespace, key.name] = view
            case "TCPRoute" | "UDPRoute":
                views.port_routes[key.kind, key.namespace, key.name] = view
            case "Namespace":
                views.namespaces[key.name] = view
    apexes: Splits = splits_by_apex(view.typed for view in splits)
    for view in splits:
        home = (view.typed.namespace, view.typed.service)
        if view.typed.matches:
            views.matching.setdefault(home, []).append(view)
        elif apexes.winners.get(home) is view.typed:
            views.splits[home] = view
    return views


def _view(key: Key, obj: Object, reader: Callable[[Object], Any]) -> View[Any] | Diagnostic:
    try:
        return View(obj, reader(obj))
    except (KeyError, TypeError, ValueError, AttributeError) as failure:  # msgspec.ValidationError is a ValueError
        why = f"{failure} is missing" if isinstance(failure, KeyError) else str(failure)
        return Diagnostic("error", "", 0, "", f"cannot be compiled: {why}", "it is left out", key)
