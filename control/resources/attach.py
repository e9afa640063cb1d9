"""Which rules hold for the requests of a Service: everything attached to it, in order of precedence, contradictions resolved.

    TrafficSplits of the Service --\\
    HTTPRouteGroups they name    ---> attach() --> Attached(candidates in order, problems)
    HTTPRoutes, GRPCRoutes       --/

Precedence, and one outcome for each contradiction (docs/traffic.md is this list for users):

    routes of the client's namespace ("consumer") > of the Service's ("producer") > splits with matches > split > Service
    on one port   GRPCRoutes > HTTPRoutes: the others are Conflicted there (GEP-1294)
    of routes     exact path > regular expression > longest prefix > method > headers > query > oldest > namespace/name > first
    of splits     most conditions > oldest > name > first
    a request no rule of the attached routes fits: 404.  No split fits: as if there were none

Pure and total for accepted objects.  A problem of one Service changes nothing for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from control.resources import core, gateway, split
from control.resources.annotations import sharing
from control.resources.documents import Path
from control.resources.gateway import GrpcMatch, GrpcRoute, HttpMatch, HttpRoute, Route
from control.resources.quantity import seconds
from control.resources.routegroup import RouteGroup, RouteGroupMatch
from control.resources.routing import (
    EVERYTHING,
    EXACT,
    PREFIX,
    REGEX,
    REGEX_START,
    Candidate,
    Changes,
    Leaf,
    Mirror,
    NewPath,
    Problem,
    Redirect,
    RequestMatch,
    Retries,
    Rewrite,
    Rule,
    StringMatch,
)
from control.store.store import Key
from meshproxy.policy.regex import Regex

Name = tuple[str, str]  # namespace, name
NO_RULE = 404  # no rule of the attached routes fits
NO_BACKEND = 500  # Gateway API: a reference that is none, or a rule we cannot do
MAX_CANDIDATES = 512  # of one Service: four routes with all the matches a route may have; the rest is left out and told
MAX_RETRIES = 10  # as meshproxy.dev/retry-limit


class World:
    """What can be referred to.  Both look-ups give None for what is not there."""

    def __init__(
        self, service: Callable[[Name], core.Service | None], group: Callable[[Name], RouteGroup | None] = lambda name: None
    ) -> None:
        self.service = service
        self.group = group


@dataclass(frozen=True, slots=True)
class Attached:
    """candidates  in order of precedence, scope by scope; the first that fits decides
    ports          the Service's TCP ports
    problems       of this Service's splits and routes
    """

    candidates: tuple[Candidate, ...]
    ports: tuple[int, ...]
    problems: tuple[Problem, ...]


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


def attach(
    home: Name, service: core.Service, splits: Sequence[split.TrafficSplit], routes: Iterable[Route], world: World
) -> Attached:
    """`splits`: those whose apex is this Service.  `routes`: those with this Service among their parents."""
    problems: list[Problem] = []
    all_ports = tcp_ports(service)
    candidates: list[Candidate] = []
    scopes: dict[str, list[Candidate]] = {}
    for route, ports in attached_ports(home, service, routes):
        scope = "" if home_of(route) == home[0] else home_of(route)
        if ports:
            scopes.setdefault(scope, []).extend(_candidates(route, ports, scope, world))
    for scope in sorted(scopes, key=lambda scope: (scope == "", scope)):
        found = sorted(scopes[scope], key=lambda one: one.order)
        candidates += _without_shadowed(found, problems)
        covered = tuple(port for port in all_ports if any(port in one.ports for one in found))
        none = Rule(
            f"no rule of {home[0]}/{home[1]}" if not scope else f"no rule of {scope} for {home[0]}/{home[1]}", refuse=NO_RULE
        )
        candidates.append(Candidate(EVERYTHING, none, covered, scope, (), Key("", "Service", *home)))
    taken = {port for one in scopes.get("", ()) for port in one.ports}
    free = tuple(port for port in all_ports if port not in taken)
    if taken:
        problems += _overruled(splits, taken, free)
    if free:
        found = sorted(_split_candidates(splits, free, world, problems), key=lambda one: one.order)
        candidates += _without_shadowed(found, problems)
    if len(candidates) > MAX_CANDIDATES:
        message = f"{len(candidates)} matches are attached, more than {MAX_CANDIDATES}: the last ones are left out"
        problems.append(Problem(Key("", "Service", *home), (), "TooManyMatches", message, "use fewer routes"))
    return Attached(tuple(candidates[:MAX_CANDIDATES]), all_ports, tuple(problems))


# ---------------------------------------------------------------- which routes, on which ports


def attached_ports(home: Name, service: core.Service, routes: Iterable[Route]) -> list[tuple[Route, tuple[int, ...]]]:
    """The ports each route holds for; none where it is attached to no port there is, or overruled on all of them."""
    wanted: list[tuple[Route, set[int]]] = []
    for route in routes:
        ports: set[int] = set()
        for parent, ref in parents(route):
            if parent == home:
                ports |= ports_of(ref, service)
        wanted.append((route, ports))
    grpc: dict[str, set[int]] = {}
    for route, ports in wanted:
        if isinstance(route, GrpcRoute):
            grpc.setdefault(home_of(route), set()).update(ports)
    return [
        (route, tuple(sorted(ports - grpc.get(home_of(route), set()) if isinstance(route, HttpRoute) else ports)))
        for route, ports in wanted
    ]


def ports_of(ref: gateway.ParentRef, service: core.Service) -> set[int]:
    """The ports of a Service that a parentRef means."""
    if not attachable(service):
        return set()
    return {
        port.port
        for port in service.spec.ports
        if port.protocol == "TCP"
        and (ref.port is None or port.port == ref.port)
        and (not ref.section_name or port.name == ref.section_name)
    }


def attachable(service: core.Service) -> bool:
    """GEP-1294: a Service without a front (headless), or that is only an alias, is no parent."""
    return service.spec.type != "ExternalName" and service.spec.cluster_ip != "None"


def _without_shadowed(found: list[Candidate], problems: list[Problem]) -> list[Candidate]:
    """A candidate that can never be reached, because one before it fits all that it fits, is told and left out."""
    kept: list[Candidate] = []
    seen: dict[RequestMatch, list[Candidate]] = {}
    for one in found:
        before = [*seen.get(one.match, ()), *(seen.get(EVERYTHING, ()) if one.match != EVERYTHING else ())]
        left = set(one.ports)
        for other in before:
            left -= set(other.ports)
        if left:
            kept.append(one)
            seen.setdefault(one.match, []).append(one)
            continue
        winner = before[0]
        if winner.origin == one.origin and winner.rule is one.rule:
            continue
        reason = "ShadowedSplit" if one.origin.kind == "TrafficSplit" else "ShadowedRule"
        message = f"{winner.rule.name} fits the same requests and comes before: this one has no effect"
        problems.append(Problem(one.origin, one.path, reason, message, "remove one, or tell them apart by a condition"))
    return kept


# ---------------------------------------------------------------- SMI


def _split_candidates(
    splits: Sequence[split.TrafficSplit], ports: tuple[int, ...], world: World, problems: list[Problem]
) -> Iterable[Candidate]:
    for one in splits:
        if not one.matches:
            continue
        key = key_of(one)
        rule = Rule(
            f"TrafficSplit {one.namespace}/{one.name}",
            tuple(Leaf(f"{one.namespace}/{backend.service}", backend.weight_milli) for backend in one.backends),
            sharing=one.sharing,
        )
        number = 0
        for index, name in enumerate(one.matches):
            group = world.group((one.namespace, name))
            path: Path = ("spec", "matches", index, "name")
            if group is None:
                message = f"HTTPRouteGroup {name} does not exist: no request fits it, so they go to {one.service} itself"
                problems.append(Problem(key, path, "MatchGroupMissing", message))
                continue
            for entry in group.matches:
                match = group_match(entry, group.full_path)
                order = (-match.conditions, one.created, one.name, number)
                yield Candidate(match, rule, ports, "", order, key, path)
                number += 1


def group_match(entry: RouteGroupMatch, full_path: bool) -> RequestMatch:
    """A match of an HTTPRouteGroup.  A path expression that fits every path is no condition."""
    path = None
    if entry.path_regex not in (FITS_ALL if full_path else FITS_FROM_START):
        path = StringMatch(REGEX if full_path else REGEX_START, entry.path_regex)
    headers = tuple(StringMatch(REGEX, pattern, name) for name, pattern in entry.headers)
    return RequestMatch(path, entry.methods, headers)


FITS_ALL = ("", ".*", "/.*", "^.*", "^/.*", "^.*$", "^/.*$")
FITS_FROM_START = (*FITS_ALL, "/", "^/", "^")


def _overruled(splits: Sequence[split.TrafficSplit], taken: set[int], free: tuple[int, ...]) -> list[Problem]:
    where = "on port " + ", ".join(map(str, sorted(taken))) if free else "on all ports"
    message = f"HTTPRoutes or GRPCRoutes are attached to Service {{0}} {where}, and come first: the split has no effect there"
    return [
        Problem(key_of(one), ("spec", "service"), "ShadowedSplit", message.format(one.service), "say it in the route")
        for one in splits
    ]


# ---------------------------------------------------------------- Gateway API


def _candidates(route: Route, ports: tuple[int, ...], scope: str, world: World) -> Iterable[Candidate]:
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
    if path.type == "Exact":
        return StringMatch(EXACT, path.value)
    if path.type == "RegularExpression":
        return StringMatch(REGEX, path.value)
    prefix = path.value.rstrip("/")
    return StringMatch(PREFIX, prefix) if prefix else None


def _first_of_each(found: tuple[gateway.HeaderMatch, ...], fold: bool) -> tuple[StringMatch, ...]:
    """Of several for one name the first counts, as the specification says."""
    kept: dict[str, StringMatch] = {}
    for one in found:
        name = one.name.lower() if fold else one.name
        kept.setdefault(name, StringMatch(EXACT if one.type == "Exact" else REGEX, one.value, name))
    return tuple(kept[name] for name in sorted(kept))


def _http_order(one: HttpMatch) -> tuple[int, ...]:
    rank = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}[one.path.type]
    length = len(one.path.value.rstrip("/") if rank == 2 else one.path.value)
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
    method = one.method or gateway.MethodMatch()
    exact = 0 if method.type == "Exact" else 1
    return (exact, -len(method.service), -len(method.method), -len({header.name.lower() for header in one.headers}), 0)


def _rule(route: Route, index: int, world: World) -> Rule | None:
    """The rule in the one form; None where it cannot be (a pattern that our engine refuses)."""
    declared = route.spec.rules[index]
    if rule_mistake(declared):
        return None
    home = home_of(route)
    name = f"{route.kind} {home}/{route.metadata.name} rule {declared.name or index}"
    if any(one.type in gateway.UNSUPPORTED_FILTERS for one in declared.filters):
        return Rule(name, refuse=NO_BACKEND)
    request, response, redirect, rewrite, mirrors = _filters(declared.filters, home, world)
    leaves = tuple(_leaf(ref, home, world) for ref in declared.backend_refs)
    refuse = 0
    if redirect is None and not any(leaf.weight_milli for leaf in leaves):
        refuse = NO_BACKEND
    timeout, each = (declared.timeouts, declared.retry) if isinstance(declared, gateway.HttpRule) else (None, None)
    return Rule(
        name,
        leaves,
        request,
        response,
        redirect,
        rewrite,
        mirrors,
        _ms(timeout.request) if timeout is not None and timeout.request is not None else None,
        _ms(timeout.backend_request) if timeout is not None and timeout.backend_request is not None else 0,
        _retries(each),
        refuse,
        sharing(route.metadata.annotations),
    )


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


def _leaf(ref: gateway.ObjectRef, home: str, world: World) -> Leaf:
    weight, request, response = 1, None, None
    refuse = NO_BACKEND if reference_mistake(ref, home, world) else 0
    if isinstance(ref, gateway.BackendRef):
        weight = ref.weight
        request, response, redirect, rewrite, mirrors = _filters(ref.filters, home, world)
        if redirect or rewrite or mirrors or any(one.type in gateway.UNSUPPORTED_FILTERS for one in ref.filters):
            refuse = NO_BACKEND  # such a filter of one backend only is not supported
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
    return round(seconds(duration) * 1000)


def _retries(given: gateway.Retry | None) -> Retries | None:
    if given is None:
        return None
    attempts = 1 if given.attempts is None else min(given.attempts, MAX_RETRIES)
    backoff = _ms(given.backoff) if given.backoff is not None else 0
    return Retries(tuple(sorted(set(given.codes))), attempts, backoff)
