"""HTTPRoutes and GRPCRoutes in the one form of resources/routing.py: matches with their place in the order, and rules.

rule --_rule--> Rule           references that lead nowhere refuse their share (500), a filter we do not have the whole rule
route's annotations -----^     for all its rules: times, retries, shares
match --http_match, grpc_match--> RequestMatch, and the tuple that sorts it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from control.resources import core, gateway, split
from control.resources.annotations import MAX_TIMEOUT_MS, Traffic, sharing, traffic
from control.resources.documents import Path
from control.resources.gateway import GrpcMatch, HttpMatch, Route
from control.resources.quantity import seconds
from control.resources.routegroup import RouteGroup
from control.resources.routing import (
    EXACT,
    PREFIX,
    REGEX,
    AnswerTimes,
    Candidate,
    Changes,
    Leaf,
    Mirror,
    NewPath,
    Redirect,
    RequestMatch,
    Retries,
    Rewrite,
    Rule,
    StringMatch,
)
from control.store.store import Key
from meshproxy.policy.path import normal_path
from meshproxy.policy.regex import Regex

Name = tuple[str, str]  # namespace, name
NO_BACKEND = 500  # Gateway API: a reference that is none, or a rule we cannot do
MAX_RETRIES = 10  # as meshproxy.dev/retry-limit
FILTERS_OF_A_BACKEND = ("RequestHeaderModifier", "ResponseHeaderModifier")
FILTERS_OF_A_RULE = (*FILTERS_OF_A_BACKEND, "RequestRedirect", "URLRewrite", "RequestMirror")


class World:
    """What can be referred to.  Both look-ups give None for what is not there."""

    def __init__(
        self, service: Callable[[Name], core.Service | None], group: Callable[[Name], RouteGroup | None] = lambda name: None
    ) -> None:
        self.service = service
        self.group = group


def key_of(one: Route | split.TrafficSplit) -> Key:
    if isinstance(one, split.TrafficSplit):
        return Key(split.GROUP, "TrafficSplit", one.namespace, one.name)
    return Key(gateway.GROUP, one.kind, home_of(one), one.metadata.name)


def home_of(route: Route) -> str:
    return route.metadata.namespace or "default"


def parents(route: Route) -> list[tuple[Name, gateway.ParentRef]]:
    """The Services a route is attached to, each as often as it is named."""
    home = home_of(route)
    return [((ref.namespace or home, ref.name), ref) for ref in route.spec.parent_refs if ref.is_service]


def references(route: Route) -> set[Name]:
    """The Services a route sends to."""
    home = home_of(route)
    found: set[Name] = set()
    for rule in route.spec.rules:
        refs: list[gateway.ObjectRef] = list(rule.backend_refs)
        refs += [one.request_mirror.backend_ref for one in rule.filters if one.request_mirror is not None]
        found.update((ref.namespace or home, ref.name) for ref in refs if _is_service(ref))
    return found


def tcp_ports(service: core.Service) -> tuple[int, ...]:
    return tuple(port.port for port in service.spec.ports if port.protocol == "TCP")


def candidates_of(route: Route, ports: tuple[int, ...], scope: str, world: World) -> Iterable[Candidate]:
    key = key_of(route)
    age = (route.metadata.creation_timestamp, f"{key.namespace}/{key.name}")
    rules: tuple[gateway.HttpRule | gateway.GrpcRule, ...] = route.spec.rules
    for index, declared in enumerate(rules):
        path: Path = ("spec", "rules", index)
        rule = _rule(route, index, world)
        if rule is None:
            continue  # resources/traffic.py tells
        found: list[tuple[RequestMatch, tuple[int, ...]]]
        if isinstance(declared, gateway.HttpRule):
            found = [(http_match(one), _http_order(one)) for one in declared.matches or (HttpMatch(),)]
        else:
            found = [(grpc_match(one), _grpc_order(one)) for one in declared.matches or (GrpcMatch(),)]
        for number, (match, order) in enumerate(found):
            where: Path = (*path, "matches", number) if declared.matches else path
            yield Candidate(match, rule, ports, scope, (*order, *age, index, number), key, where)


def http_match(one: HttpMatch) -> RequestMatch:
    return RequestMatch(
        _path_match(one.path),
        (one.method,) if one.method else (),
        _first_of_each(one.headers, fold=True),
        _first_of_each(one.query_params, fold=False),
    )


def _path_match(path: gateway.PathMatch) -> StringMatch | None:
    if path.type == "RegularExpression":
        return StringMatch(REGEX, path.value)
    value = _spelt(path.value)
    if path.type == "Exact":
        return StringMatch(EXACT, value)
    prefix = value.rstrip("/")
    return StringMatch(PREFIX, prefix) if prefix else None


def _spelt(path: str) -> str:
    """In the one spelling in which requests' paths are compared.  One that has none is as it is: no request has it."""
    normal = normal_path(path.encode("utf-8", "replace"))
    return path if normal is None else normal.decode()


def _first_of_each(found: tuple[gateway.HeaderMatch, ...], fold: bool) -> tuple[StringMatch, ...]:
    """Of several for one name the first counts, as the specification says."""
    kept: dict[str, StringMatch] = {}
    for one in found:
        name = one.name.lower() if fold else one.name
        kept.setdefault(name, StringMatch(EXACT if one.type == "Exact" else REGEX, one.value, name))
    return tuple(kept[name] for name in sorted(kept))


def _http_order(one: HttpMatch) -> tuple[int, ...]:
    rank = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}[one.path.type]
    length = len(_spelt(one.path.value).rstrip("/") if rank == 2 else one.path.value)
    headers, query = len({header.name.lower() for header in one.headers}), len({param.name for param in one.query_params})
    return (rank, -length, 0 if one.method else 1, -headers, -query)


def grpc_match(one: GrpcMatch) -> RequestMatch:
    """A gRPC method is the path "/<service>/<method>"."""
    headers = _first_of_each(one.headers, fold=True)
    method = one.method
    if method is None or not (method.service or method.method):
        return RequestMatch(None, (), headers)
    if method.type == "Exact" and method.service:
        path = (
            StringMatch(EXACT, f"/{method.service}/{method.method}")
            if method.method
            else StringMatch(PREFIX, f"/{method.service}")
        )
    else:
        service, name = method.service or "[^/]+", method.method or "[^/]+"
        if method.type == "Exact":
            name = _quoted(name)
        path = StringMatch(REGEX, f"/(?:{service})/(?:{name})")
    return RequestMatch(path, (), headers)


def _quoted(text: str) -> str:
    return "".join(char if char.isalnum() or char == "_" else "\\" + char for char in text)


def _grpc_order(one: GrpcMatch) -> tuple[int, ...]:
    """The specification counts characters, whatever the type; of as many, what is exact is more specific than a pattern."""
    method = one.method or gateway.MethodMatch()
    headers = len({header.name.lower() for header in one.headers})
    return (-len(method.service), -len(method.method), -headers, 0 if method.type == "Exact" else 1, 0)


def _rule(route: Route, index: int, world: World) -> Rule | None:
    """The rule in the one form; None where it cannot be (a pattern that our engine refuses)."""
    declared = route.spec.rules[index]
    if rule_mistake(declared):
        return None
    home = home_of(route)
    name = f"{route.kind} {home}/{route.metadata.name} rule {declared.name or index}"
    if unsupported_filters(declared):
        return Rule(name, refuse=NO_BACKEND)
    request, response, redirect, rewrite, mirrors = _filters(declared.filters, home, world)
    leaves = tuple(_leaf(ref, home, world) for ref in declared.backend_refs)
    refuse = 0
    if redirect is None and not any(leaf.weight_milli for leaf in leaves):
        refuse = NO_BACKEND
    said = traffic(route.metadata.annotations, route.kind)
    http = declared if isinstance(declared, gateway.HttpRule) else None
    timeouts = http.timeouts if http is not None and http.timeouts is not None else gateway.Timeouts()
    return Rule(
        name,
        leaves,
        request,
        response,
        redirect,
        rewrite,
        mirrors,
        _timeout_ms(timeouts, said),
        _ms(timeouts.backend_request) if timeouts.backend_request is not None else 0,
        _retries(http, said),
        refuse,
        sharing(route.metadata.annotations),
        AnswerTimes(said.response_start_ms, said.response_ms, said.idle_ms) if said.declared_times else None,
    )


def _timeout_ms(timeouts: gateway.Timeouts, said: Traffic) -> int | None:
    """The route's annotation comes before the rule's field (Linkerd: "the annotation will take priority"); either before the
    Service's annotations, and so does any other time that the route's annotations declare."""
    if said.timeout_ms is not None:
        return said.timeout_ms
    if timeouts.request is not None:
        return _ms(timeouts.request)
    return 0 if said.declared_times else None


def _request_match(one: HttpMatch | GrpcMatch) -> RequestMatch:
    return http_match(one) if isinstance(one, HttpMatch) else grpc_match(one)


def rule_mistake(declared: gateway.HttpRule | gateway.GrpcRule) -> str:
    """Why a rule is dropped; "" if it is not."""
    for match in map(_request_match, declared.matches):
        for part in (match.path, *match.headers, *match.query):
            if part is not None and part.how == REGEX:
                try:
                    Regex(part.value)
                except ValueError as mistake:
                    return f"{part.value!r}: {mistake}"
    return ""


def _filters(
    filters: tuple[gateway.Filter, ...], home: str, world: World
) -> tuple[Changes | None, Changes | None, Redirect | None, Rewrite | None, tuple[Mirror, ...]]:
    request = response = redirect = rewrite = None
    mirrors: list[Mirror] = []
    for one in filters:
        if one.request_header_modifier is not None:
            request = _changes(one.request_header_modifier)
        if one.response_header_modifier is not None:
            response = _changes(one.response_header_modifier)
        if (given := one.request_redirect) is not None:
            redirect = Redirect(
                given.scheme or "", given.hostname or "", given.port or 0, _new_path(given.path), given.status_code
            )
        if one.url_rewrite is not None:
            rewrite = Rewrite(one.url_rewrite.hostname or "", _new_path(one.url_rewrite.path))
        if (mirror := one.request_mirror) is not None:
            share = mirror.fraction or gateway.Fraction(numerator=100 if mirror.percent is None else mirror.percent)
            leaf = _leaf(mirror.backend_ref, home, world)
            if share.numerator and not leaf.refuse:
                mirrors.append(Mirror(leaf, share.numerator, share.denominator))
    return request, response, redirect, rewrite, tuple(mirrors)


def _changes(given: gateway.HeaderModifier) -> Changes | None:
    if not (given.set or given.add or given.remove):
        return None
    return Changes(
        tuple((header.name.lower(), header.value) for header in given.set),
        tuple((header.name.lower(), header.value) for header in given.add),
        tuple(name.lower() for name in given.remove),
    )


def _new_path(given: gateway.PathModifier | None) -> NewPath | None:
    if given is None:
        return None
    if given.type == "ReplaceFullPath":
        return NewPath(full=given.replace_full_path or "/")
    return NewPath(prefix=(given.replace_prefix_match or "").rstrip("/"))


def _is_service(ref: gateway.ObjectRef) -> bool:
    return ref.kind == "Service" and ref.group in gateway.SERVICE_GROUPS


def unsupported_filters(of: gateway.HttpRule | gateway.GrpcRule | gateway.BackendRef) -> list[tuple[int, str]]:
    """(number, type) of the filters that we do not have for a rule, or for one backend of it alone: what they are for is
    answered with 500, because a filter must never be left out in silence."""
    known = FILTERS_OF_A_BACKEND if isinstance(of, gateway.BackendRef) else FILTERS_OF_A_RULE
    return [(number, one.type) for number, one in enumerate(of.filters) if one.type not in known]


def _leaf(ref: gateway.ObjectRef, home: str, world: World) -> Leaf:
    weight, request, response = 1, None, None
    refuse = NO_BACKEND if reference_mistake(ref, home, world) else 0
    if isinstance(ref, gateway.BackendRef):
        weight = ref.weight
        request, response, *_ = _filters(ref.filters, home, world)
        if unsupported_filters(ref):
            refuse = NO_BACKEND
    return Leaf(f"{ref.namespace or home}/{ref.name}", 1000 * weight, ref.port or 0, refuse, request, response)


def reference_mistake(ref: gateway.ObjectRef, home: str, world: World) -> tuple[str, str] | None:
    """Why a reference leads nowhere: the condition's reason, and a text."""
    if not _is_service(ref):
        return "InvalidKind", f"{ref.group or 'core'} {ref.kind} is not supported, expected a Service"
    where = (ref.namespace or home, ref.name)
    service = world.service(where)
    if service is None or service.spec.type == "ExternalName":
        why = "does not exist" if service is None else "is an ExternalName, outside the mesh"
        return "BackendNotFound", f"Service {where[0]}/{where[1]} {why}"
    if ref.port not in tcp_ports(service):
        return "BackendNotFound", f"Service {where[0]}/{where[1]} has no port {ref.port}"
    return None


def _ms(duration: str) -> int:
    """At most a day, which `gateway_check` tells: the specification has durations of eleven years."""
    return min(round(seconds(duration) * 1000), MAX_TIMEOUT_MS)


def _retries(http: gateway.HttpRule | None, said: Traffic) -> Retries | None:
    """The rule's own field comes before the route's annotations (Linkerd does not read the field).  Retries of a rule that is
    for certain methods alone are declared for those, POST too."""
    chosen = http is not None and bool(http.matches) and all(one.method for one in http.matches)
    given = http.retry if http is not None else None
    if given is None:
        return (
            Retries(said.conditions, said.attempts, said.backoff_ms, said.any_method or chosen) if said.declared_retry else None
        )
    attempts = 1 if given.attempts is None else min(given.attempts, MAX_RETRIES)
    backoff = _ms(given.backoff) if given.backoff is not None else None
    return Retries(tuple(map(str, sorted(set(given.codes)))), attempts, backoff, chosen)
