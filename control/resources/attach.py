"""Which rules hold for the requests of a Service: everything attached to it, in order of precedence, contradictions resolved.

    TrafficSplits of the Service --\\
    HTTPRouteGroups they name    ---> attach() --> Attached(candidates in order, problems)
    HTTPRoutes, GRPCRoutes       --/

Precedence, and one outcome for each contradiction (docs/traffic.md is this list for users):

    routes of the client's namespace ("consumer") > of the Service's ("producer") > splits with matches > split > Service
    on one port   GRPCRoutes > HTTPRoutes: the others are Conflicted there (GEP-1294)
    of routes     exact path > regular expression > longest prefix > method > headers > query > oldest > namespace/name > first
                  GRPCRoutes: longest service > longest method > headers > exact > oldest > ...
    of splits     most conditions > oldest > name > first
    a request no rule of the attached routes fits: 404.  No split fits: as if there were none

Pure and total for accepted objects.  A problem of one Service changes nothing for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control.resources import core, gateway, split
from control.resources.cover import covers
from control.resources.documents import Path
from control.resources.gateway import GrpcRoute, HttpRoute, Route
from control.resources.gateway_rules import Name, World, candidates_of, home_of, key_of, parents, tcp_ports
from control.resources.routegroup import RouteGroupMatch
from control.resources.routing import (
    EVERYTHING,
    REGEX,
    REGEX_START,
    Candidate,
    Leaf,
    Problem,
    RequestMatch,
    Rule,
    StringMatch,
)
from control.store.store import Key

NO_RULE = 404  # no rule of the attached routes fits
MAX_CANDIDATES = 512  # of one Service: four routes with all the matches a route may have; the rest is left out and told


@dataclass(frozen=True, slots=True)
class Attached:
    """candidates  in order of precedence, scope by scope; the first that fits decides
    ports          the Service's TCP ports
    problems       of this Service's splits and routes
    """

    candidates: tuple[Candidate, ...]
    ports: tuple[int, ...]
    problems: tuple[Problem, ...]


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
            scopes.setdefault(scope, []).extend(candidates_of(route, ports, scope, world))
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
    """A candidate that can never be reached, because those before it fit all that it fits, is told and left out."""
    kept: list[Candidate] = []
    for one in found:
        before = [other for other in kept[:MAX_CANDIDATES] if covers(other.match, one.match)]
        left = set(one.ports)
        for other in before:
            left -= set(other.ports)
        if left:
            kept.append(one)
            continue
        winner = before[0]
        if winner.origin == one.origin and winner.rule is one.rule:
            continue
        reason = "ShadowedSplit" if one.origin.kind == "TrafficSplit" else "ShadowedRule"
        message = f"{winner.rule.name} fits all of these requests and comes before: this one has no effect"
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
