"""What is wrong between the objects that route traffic, and the conditions of routes: pure, from all objects at once.

    Services, TrafficSplits, TrafficTargets, what they refer to, HTTPRoutes, GRPCRoutes --Traffic--> problems()    lint, Events
                                                                              --> conditions()  status.parents of a route

Each problem has one outcome, which its message says (docs/traffic.md lists them).  It is found here and by nobody else:
`attach` decides by the same functions.  SMI's objects have no status, so Events are all they get.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from control.resources import access, attach, core, gateway, routegroup, split, traffictarget
from control.resources.annotations import sharing
from control.resources.attach import ports_of
from control.resources.documents import Path
from control.resources.gateway import Route
from control.resources.gateway_rules import (
    Name,
    World,
    home_of,
    key_of,
    parents,
    reference_mistake,
    rule_mistake,
    unsupported_filters,
)
from control.resources.routing import Problem
from control.resources.split import splits_by_apex
from control.store.store import Key, Object, Store

CONTROLLER = "meshproxy.dev/mesh"  # controllerName in the status of routes
KINDS = (
    ("", "Service"),
    (split.GROUP, "TrafficSplit"),
    (routegroup.GROUP, "HTTPRouteGroup"),
    (routegroup.GROUP, "TCPRoute"),
    (routegroup.GROUP, "UDPRoute"),
    (traffictarget.GROUP, "TrafficTarget"),
    (gateway.GROUP, "HTTPRoute"),
    (gateway.GROUP, "GRPCRoute"),
)
LIVE_KINDS = (*KINDS, ("discovery.k8s.io", "EndpointSlice"))

Missing = Callable[[Key], bool]


@dataclass(slots=True)
class Traffic:
    services: dict[Name, core.Service] = field(default_factory=dict)
    splits: list[split.TrafficSplit] = field(default_factory=list)
    groups: dict[Name, routegroup.RouteGroup] = field(default_factory=dict)
    port_routes: dict[tuple[str, str, str], routegroup.PortRoute] = field(default_factory=dict)  # by kind, namespace, name
    targets: list[access.Selected] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    # Services with an endpoint that is ready; None: nobody knows (manifests alone do not say).
    ready: set[Name] | None = None

    @classmethod
    def of(cls, objects: Iterable[Object], live: bool = False) -> Traffic:
        """`live`: the objects of a mesh that runs, EndpointSlices among them.
        An object that has not the right shape is passed over: its own check has reported it."""
        made = cls(ready=set() if live else None)
        for obj in objects:
            try:
                made.add(Key.of(obj), obj)
            except (KeyError, TypeError, ValueError):
                continue
        return made

    def add(self, key: Key, obj: Object) -> None:
        match (key.group, key.kind):
            case ("", "Service"):
                self.services[key.namespace, key.name] = core.parse(obj, core.Service)
            case (split.GROUP, "TrafficSplit"):
                self.splits.append(split.parse(obj))
            case (routegroup.GROUP, "HTTPRouteGroup"):
                self.groups[key.namespace, key.name] = routegroup.parse_group(obj)
            case (routegroup.GROUP, "TCPRoute" | "UDPRoute"):
                self.port_routes[key.kind, key.namespace, key.name] = routegroup.parse_ports(obj)
            case (traffictarget.GROUP, "TrafficTarget"):
                self.targets.append(access.read_target(obj))
            case (gateway.GROUP, "HTTPRoute"):
                self.routes.append(gateway.parse_http_route(obj))
            case (gateway.GROUP, "GRPCRoute"):
                self.routes.append(gateway.parse_grpc_route(obj))
            case ("discovery.k8s.io", "EndpointSlice"):
                one = core.parse(obj, core.EndpointSlice)
                owner = one.metadata.labels.get("kubernetes.io/service-name")
                if (
                    self.ready is not None
                    and owner
                    and any(
                        end.conditions.ready is not False and end.conditions.terminating is not True for end in one.endpoints
                    )
                ):
                    self.ready.add((key.namespace, owner))

    @property
    def world(self) -> World:
        return World(self.services.get, self.groups.get)

    def attached_to(self, home: Name) -> list[Route]:
        return [route for route in self.routes if any(parent == home for parent, _ in parents(route))]


def problems(traffic: Traffic, missing: Missing = lambda key: True) -> list[Problem]:
    """`missing`: may it be said that an object is not there?  (Not where its manifest was refused: that has been told.)"""
    found = [*_splits(traffic, missing), *_attached(traffic, missing)]
    for route in traffic.routes:
        found += _route(route, traffic, missing)
    return [*found, *_empty(traffic), *_targets(traffic, missing)]


def standing(store: Store) -> tuple[Traffic, list[Problem]]:
    """All that routes traffic in a mesh, and what is wrong with it now."""
    traffic = Traffic.of((obj for group, kind in LIVE_KINDS for obj in store.list(group, kind)), live=True)
    refused = {one.key for one in store.diagnostics() if one.severity == "error"}
    return traffic, problems(traffic, lambda key: key not in refused and None not in refused)


# ---------------------------------------------------------------- what runs


EMPTY = "BackendEmpty"
UNSUPPORTED = "UnsupportedFilter"
OPAQUE = "OpaquePort"


def _empty(traffic: Traffic) -> Iterator[Problem]:
    """Backends that have a weight and nobody who is ready: only a mesh that runs has any."""
    if traffic.ready is None:
        return
    for one in traffic.splits:
        outcome = "goes to the others" if one.sharing.redistribute else "is answered with 503"
        for index, backend in enumerate(one.backends):
            where = (one.namespace, backend.service)
            if backend.weight_milli and where in traffic.services and where not in traffic.ready:
                path: Path = ("spec", "backends", index, "service")
                message = f"Service {backend.service} has no endpoint that is ready: its share {outcome}"
                yield Problem(key_of(one), path, EMPTY, message)
    for route in traffic.routes:
        redistribute = sharing(route.metadata.annotations).redistribute
        outcome = "goes to the others" if redistribute else "is answered with 503"
        rules: tuple[gateway.HttpRule | gateway.GrpcRule, ...] = route.spec.rules
        for number, rule in enumerate(rules):
            if rule_mistake(rule) or unsupported_filters(rule):
                continue  # nothing of it is sent, whoever is ready: that is told by itself
            for index, ref in enumerate(rule.backend_refs):
                if reference_mistake(ref, home_of(route), traffic.world) or unsupported_filters(ref):
                    continue
                where = (ref.namespace or home_of(route), ref.name)
                if ref.weight and where in traffic.services and where not in traffic.ready:
                    place: Path = ("spec", "rules", number, "backendRefs", index)
                    message = f"Service {where[0]}/{where[1]} has no endpoint that is ready: its share {outcome}"
                    yield Problem(key_of(route), place, EMPTY, message)


# ---------------------------------------------------------------- access


def _targets(traffic: Traffic, missing: Missing) -> Iterator[Problem]:
    for selected in traffic.targets:
        one = selected.target
        if one is None:
            key = Key(traffictarget.GROUP, "TrafficTarget", selected.destination.namespace, selected.name)
            message = f"{selected.mistake}: the pods of service account {selected.destination.name} take only what other "
            yield Problem(key, (), "TargetRefused", message + "TrafficTargets allow", "correct its manifest")
            continue
        for problem in access.allowance(one, traffic.groups, traffic.port_routes)[1]:
            path = problem.path
            rule = one.rules[path[2]] if len(path) == 3 and isinstance(path[2], int) else None
            if rule is None or _there(rule, one.namespace, traffic) or missing(_refers_to(rule, one.namespace)):
                yield problem  # what it refers to was not refused: its own error would say so


def _refers_to(rule: traffictarget.Rule, namespace: str) -> Key:
    return Key(routegroup.GROUP, rule.kind, namespace, rule.name)


def _there(rule: traffictarget.Rule, namespace: str, traffic: Traffic) -> bool:
    if rule.kind == "HTTPRouteGroup":
        return (namespace, rule.name) in traffic.groups
    return (rule.kind, namespace, rule.name) in traffic.port_routes


# ---------------------------------------------------------------- splits


def _splits(traffic: Traffic, missing: Missing) -> Iterator[Problem]:
    apexes = splits_by_apex(traffic.splits)
    for one, winner in apexes.shadowed:
        message = f"{one.service} is already split by {winner}, which is older, or first by name: this one has no effect"
        yield Problem(key_of(one), ("spec", "service"), "ShadowedSplit", message, "remove one")
    for one in (*apexes.winners.values(), *apexes.matching):
        key = key_of(one)
        apex = traffic.services.get((one.namespace, one.service))
        if apex is None and missing(Key("", "Service", one.namespace, one.service)):
            message = f"Service {one.service} does not exist: the split has no effect"
            yield Problem(key, ("spec", "service"), "RootMissing", message)
        if apex is not None and one.matches:
            opaque = opaque_ports(apex)
            if opaque and len(opaque) == len(apex.spec.ports):
                message = f"{_as_bytes(opaque)}: matches are about requests, and the split does not apply to its connections"
                yield Problem(key, ("spec", "matches"), OPAQUE, message, "a split without matches is by connection")
        if one.total_milli == 0:
            message = "all weights are 0: requests are answered with 503"
            yield Problem(key, ("spec", "backends"), "AllWeightsZero", message, "give one backend a weight")
        for index, backend in enumerate(one.backends):
            path: Path = ("spec", "backends", index, "service")
            yield from _backend(one, backend, apex, key, path, traffic, missing)
            onward = apexes.winners.get((one.namespace, backend.service))
            if backend.service != one.service and onward is not None:
                back = any(other.service == one.service for other in onward.backends)
                message = f"{backend.service} is itself split by {onward.name}" + (", and that leads back" if back else "")
                message += ": a backend is not split again, its own endpoints get this share"
                yield Problem(key, path, "SplitChain", message, "name the last backends here")


def _backend(
    one: split.TrafficSplit,
    backend: split.Backend,
    apex: core.Service | None,
    key: Key,
    path: Path,
    traffic: Traffic,
    missing: Missing,
) -> Iterator[Problem]:
    service = traffic.services.get((one.namespace, backend.service))
    if service is None:
        if missing(Key("", "Service", one.namespace, backend.service)):
            message = f"Service {backend.service} does not exist: it gets no traffic until it does"
            yield Problem(key, path, "BackendMissing", message)
    elif apex is not None:
        lacking = sorted({port.port for port in apex.spec.ports} - {port.port for port in service.spec.ports})
        if lacking:
            numbers = ", ".join(map(str, lacking))
            message = f"Service {backend.service} has no port {numbers}: so nothing of {one.service}:{numbers}"
            yield Problem(key, path, "BackendPortMismatch", message)


def _attached(traffic: Traffic, missing: Missing) -> Iterator[Problem]:
    """What attaching finds: shadowed splits and rules, groups that are not there."""
    homes = {(one.namespace, one.service) for one in traffic.splits}
    homes |= {parent for route in traffic.routes for parent, _ in parents(route)}
    for home in sorted(homes):
        service = traffic.services.get(home)
        if service is None:
            continue
        splits = [one for one in traffic.splits if (one.namespace, one.service) == home]
        for problem in attach.attach(home, service, splits, traffic.attached_to(home), traffic.world).problems:
            if problem.reason == "MatchGroupMissing":
                name = str(problem.message.split()[1])
                if not missing(Key(routegroup.GROUP, "HTTPRouteGroup", home[0], name)):
                    continue
            yield problem


# ---------------------------------------------------------------- routes


def _route(route: Route, traffic: Traffic, missing: Missing) -> Iterator[Problem]:
    key = key_of(route)
    home = home_of(route)
    for index, ref in enumerate(route.spec.parent_refs):
        path: Path = ("spec", "parentRefs", index)
        if not ref.is_service:
            continue
        reason, message = parent_mistake(route, ref, traffic)
        if reason and (reason != "ParentMissing" or missing(Key("", "Service", ref.namespace or home, ref.name))):
            yield Problem(key, path, reason, message)
        service = traffic.services.get((ref.namespace or home, ref.name))
        if not reason and service is not None:
            ports = ports_of(ref, service)
            opaque = {port: why for port, why in opaque_ports(service).items() if port in ports}
            if opaque and (len(opaque) == len(ports) or ref.port is not None or ref.section_name):
                message = f"{_as_bytes(opaque)}: rules are about requests, and do not apply to its connections"
                yield Problem(key, path, OPAQUE, message)
    for path, reason, message in _rule_mistakes(route, traffic):
        if reason == "BackendMissing" and not missing(Key("", "Service", *message.split()[1].split("/"))):
            continue
        yield Problem(key, path, reason, message)


def opaque_ports(service: core.Service) -> dict[int, str]:
    """Ports that are declared to carry bytes -> the appProtocol that says so."""
    return {port.port: port.app_protocol for port in service.spec.ports if port.app_protocol.lower() in core.OPAQUE_PROTOCOLS}


def _as_bytes(opaque: Mapping[int, str]) -> str:
    ports = ", ".join(f"{port} (appProtocol {word})" for port, word in sorted(opaque.items()))
    return f"port {ports} is carried as bytes" if len(opaque) == 1 else f"ports {ports} are carried as bytes"


def parent_mistake(route: Route, ref: gateway.ParentRef, traffic: Traffic) -> tuple[str, str]:
    """Why a route is not attached to one of its parents: a reason for Events, and a text; ("", "") if it is."""
    where = (ref.namespace or home_of(route), ref.name)
    name = f"Service {where[0]}/{where[1]}"
    service = traffic.services.get(where)
    if service is None:
        return "ParentMissing", f"{name} does not exist: the route is not attached to it"
    if not attach.attachable(service):
        return "ParentNotSupported", f"{name} has no address of its own (headless, or an alias): no route can be attached to it"
    ports = ports_of(ref, service)
    if not ports:
        wanted = " and ".join(
            [f"number {ref.port}"] * (ref.port is not None) + [f"name {ref.section_name}"] * bool(ref.section_name)
        )
        return "ParentPortMissing", f"{name} has no port with {wanted or 'protocol TCP'}: the route is not attached to it"
    held = attach.attached_ports(where, service, traffic.attached_to(where))
    if not any(ports & set(found) for one, found in held if one is route):
        return "RouteConflicted", f"a GRPCRoute is attached to the same ports of {name}: HTTPRoutes have no effect there"
    return "", ""


def _rule_mistakes(route: Route, traffic: Traffic) -> Iterator[tuple[Path, str, str]]:
    rules: tuple[gateway.HttpRule | gateway.GrpcRule, ...] = route.spec.rules
    for index, rule in enumerate(rules):
        path: Path = ("spec", "rules", index)
        if mistake := rule_mistake(rule):
            yield path, "UnsupportedValue", f"the rule is left out: {mistake}"
            continue
        if not rule.backend_refs and not any(one.request_redirect is not None for one in rule.filters):
            yield path, "NoBackend", "the rule has no backendRefs: its requests are answered with 500"
        elif rule.backend_refs and not any(ref.weight for ref in rule.backend_refs):
            yield (*path, "backendRefs"), "AllWeightsZero", "all weights are 0: requests are answered with 500"
        for at, kind in unsupported_filters(rule):
            yield (
                (*path, "filters", at, "type"),
                UNSUPPORTED,
                f"{kind} is not supported: the rule's requests are answered with 500",
            )
        for number, backend in enumerate(rule.backend_refs):
            for at, kind in unsupported_filters(backend):
                message = f"{kind} is not supported for one backend: its share is answered with 500"
                yield (*path, "backendRefs", number, "filters", at, "type"), UNSUPPORTED, message
        references: list[tuple[Path, gateway.ObjectRef]] = [
            ((*path, "backendRefs", number), ref) for number, ref in enumerate(rule.backend_refs)
        ]
        references += [
            ((*path, "filters", number, "requestMirror", "backendRef"), one.request_mirror.backend_ref)
            for number, one in enumerate(rule.filters)
            if one.request_mirror is not None
        ]
        for where, ref in references:
            found = reference_mistake(ref, home_of(route), traffic.world)
            if found is not None:
                exists = (ref.namespace or home_of(route), ref.name) in traffic.services
                reason = found[0] if found[0] == "InvalidKind" or exists else "BackendMissing"
                outcome = "nothing is mirrored" if "requestMirror" in where else "its share is answered with 500"
                yield where, reason, f"{found[1]}: {outcome}"


# ---------------------------------------------------------------- conditions


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    status: bool
    reason: str
    message: str


_ACCEPTED_REASONS = {
    "ParentMissing": "NoMatchingParent",
    "ParentPortMissing": "NoMatchingParent",
    "ParentNotSupported": "UnsupportedValue",
    "RouteConflicted": "Conflicted",
}


def conditions(route: Route, ref: gateway.ParentRef, traffic: Traffic) -> list[Condition]:
    """The conditions of a route towards one of its parents (a Service)."""
    reason, message = parent_mistake(route, ref, traffic)
    mistakes = list(_rule_mistakes(route, traffic))
    dropped = sorted({int(path[2]) for path, why, _ in mistakes if why == "UnsupportedValue"})
    texts = [text for _, why, text in mistakes if why == "UnsupportedValue"]
    refused = [(path, text) for path, why, text in mistakes if why == UNSUPPORTED]
    useless = {*dropped, *(int(path[2]) for path, _ in refused if path[3] == "filters")}
    accepted = Condition("Accepted", True, "Accepted", "the route is in force")
    if reason:
        accepted = Condition("Accepted", False, _ACCEPTED_REASONS[reason], message)
    elif dropped and len(dropped) == len(route.spec.rules):
        accepted = Condition("Accepted", False, "UnsupportedValue", texts[0])
    elif useless and len(useless) == len(route.spec.rules):
        accepted = Condition("Accepted", False, "UnsupportedValue", refused[0][1])
    unresolved = [(why, text) for _, why, text in mistakes if why in ("InvalidKind", "BackendNotFound", "BackendMissing")]
    resolved = Condition("ResolvedRefs", True, "ResolvedRefs", "all references lead somewhere")
    if unresolved:
        why, text = unresolved[0]
        more = f" (and {len(unresolved) - 1} more)" if len(unresolved) > 1 else ""
        resolved = Condition("ResolvedRefs", False, "BackendNotFound" if why == "BackendMissing" else why, text + more)
    found = [accepted, resolved]
    if accepted.status and dropped:
        numbers = ", ".join(map(str, dropped))
        found.append(Condition("PartiallyInvalid", True, "UnsupportedValue", f"Dropped Rule {numbers}: {texts[0]}"))
    elif accepted.status and refused:
        path, text = refused[0]
        found.append(Condition("PartiallyInvalid", True, "UnsupportedValue", f"Rule {path[2]}: {text}"))
    return found


def status_of(route: Route, obj: Object, traffic: Traffic, now: str) -> list[dict[str, Any]]:
    """`status.parents` of a route.  Entries of other controllers stay as they are; a condition keeps its lastTransitionTime
    while its status does.  `now`: RFC 3339."""
    before: list[Mapping[str, Any]] = (obj.get("status") or {}).get("parents") or []
    made: list[dict[str, Any]] = [dict(entry) for entry in before if entry.get("controllerName") != CONTROLLER]
    generation = obj["metadata"].get("generation", 0)
    for given, ref in zip(obj.get("spec", {}).get("parentRefs") or [], route.spec.parent_refs, strict=True):
        if not ref.is_service:
            continue
        known = {
            condition["type"]: condition
            for entry in before
            if entry.get("controllerName") == CONTROLLER and entry.get("parentRef") == given
            for condition in entry.get("conditions") or ()
        }
        made.append(
            {
                "parentRef": given,
                "controllerName": CONTROLLER,
                "conditions": [
                    _written(condition, known.get(condition.type), generation, now)
                    for condition in conditions(route, ref, traffic)
                ],
            }
        )
    return made


def _written(condition: Condition, known: Mapping[str, Any] | None, generation: int, now: str) -> dict[str, Any]:
    status = "True" if condition.status else "False"
    same = known is not None and known.get("status") == status
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": generation,
        "lastTransitionTime": known["lastTransitionTime"] if same and known is not None else now,
    }
