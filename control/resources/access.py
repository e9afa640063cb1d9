"""What a TrafficTarget allows, once its rules' references are followed: the meaning of access.smi-spec.io.

    TrafficTarget --rules--> HTTPRouteGroup: these matches of it, or all        OR among all of them  --\\
                  --rules--> TCPRoute: these ports, or every port               OR among all of them  ---> AND: Allowance
                  --destination.port (before v1alpha3)-->                       this port alone       --/

An HTTP rule and a TCP rule in one target restrict each other: the port and the request must fit.  Without a TCP rule every port
fits; without an HTTP rule everything on the ports does, also what is no HTTP.  A UDPRoute allows nothing that goes through the
mesh.  It fails closed: a target whose reference is missing allows nothing, and its destination is selected all the same.
So is that of one whose first version is refused: `closed` stands for it until there is a good one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from control.resources.annotations import ACCESS, ACCESS_MODES, REFUSED
from control.resources.documents import Path
from control.resources.routegroup import PortRoute, RouteGroup, RouteGroupMatch
from control.resources.routing import Problem
from control.resources.traffictarget import GROUP, VERSIONS, Account, Rule, TrafficTarget, destination_of, parse_target
from control.store.store import Key, Object
from meshproxy.policy.regex import Regex

MAX_WHY = 500  # characters of a mistake in an annotation

Groups = Mapping[tuple[str, str], RouteGroup]  # by namespace and name
PortRoutes = Mapping[tuple[str, str, str], PortRoute]  # by kind, namespace and name


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the sources may.  ports: of the pod; none: every one.  http: (a match, does its path regex take the whole path);
    none: anything."""

    ports: tuple[int, ...] = ()
    http: tuple[tuple[RouteGroupMatch, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Selected:
    """A TrafficTarget by what it selects.  `target` is None if it was refused, or cannot be read (an API server whose CRD is
    wide takes such an object): then it allows nothing, and `mistake` says why."""

    name: str
    destination: Account
    target: TrafficTarget | None
    mistake: str = ""


def read_target(obj: Object) -> Selected:
    """Raises ValueError (or KeyError, TypeError) if not even the destination can be read, or it is of another namespace than
    the target: nobody may decide over the pods of another one."""
    name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace") or "default"
    if why := refused(obj):
        mistake = f"was refused ({why}), and no version from before is in force"
        selected = Selected(name, destination_of(obj, namespace), None, mistake)
    else:
        try:
            target = parse_target(obj)
        except ValueError as failure:
            selected = Selected(name, destination_of(obj, namespace), None, f"cannot be read ({failure})")
        else:
            selected = Selected(name, target.destination, target)
    if selected.destination.namespace != namespace:
        raise ValueError(f"its destination is in namespace {selected.destination.namespace}, expected {namespace}: its own")
    return selected


def refused(obj: Object) -> str:
    """Why a TrafficTarget was refused for which this object stands; "" if it stands for itself."""
    return str((obj["metadata"].get("annotations") or {}).get(REFUSED, ""))


def closed(obj: Object, namespace: str, name: str, why: str) -> Object | None:
    """What stands for a TrafficTarget that is refused: it selects the destination, and allows nothing.  None if it cannot be
    said whom that selects.  `obj` may be of any shape."""
    try:
        destination = destination_of(obj, namespace)
    except ValueError:
        return None
    if destination.namespace != namespace:
        return None
    return {
        "apiVersion": f"{GROUP}/{VERSIONS[-1]}",
        "kind": "TrafficTarget",
        "metadata": {"name": name, "namespace": namespace, "annotations": {REFUSED: why[:MAX_WHY] or "it has a mistake"}},
        "spec": {"destination": {"kind": "ServiceAccount", "name": destination.name, "namespace": namespace}},
    }


def audited(pod: Mapping[str, str], namespace: Mapping[str, str]) -> tuple[bool, str]:
    """Is what TrafficTargets deny only reported?  By the annotations of a pod, else of its namespace.  And what is wrong with
    them: another value than the known two enforces."""
    value = pod.get(ACCESS, namespace.get(ACCESS, ACCESS_MODES[0]))
    if value not in ACCESS_MODES:
        return False, f"found {value!r}, expected {' or '.join(ACCESS_MODES)}"
    return value == "audit", ""


def allowance(target: TrafficTarget, groups: Groups, routes: PortRoutes) -> tuple[Allowance | None, list[Problem]]:
    """What `target` allows, None for nothing; and why, or what else is wrong."""
    problems: list[Problem] = []
    ports: set[int] = set()
    matches: list[tuple[RouteGroupMatch, bool]] = []
    on_http = on_tcp = on_udp = broken = False
    every_port = False  # a TCPRoute says so

    def tell(reason: str, message: str, hint: str = "", path: Path = ("spec", "rules")) -> None:
        problems.append(Problem(Key(GROUP, "TrafficTarget", target.namespace, target.name), path, reason, message, hint))

    def lacks(what: str, path: Path) -> None:
        tell("RuleMissing", f"{what}: the target allows nothing until it does", "its destination denies all the same", path)

    for index, rule in enumerate(target.rules):
        path: Path = ("spec", "rules", index)
        if rule.kind == "HTTPRouteGroup":
            on_http = True
            group = groups.get((target.namespace, rule.name))
            problem = _missing(rule, group)
            if problem:
                broken = True
                lacks(problem, path)
            elif group is not None:
                matches.extend((match, group.full_path) for match in group.named(rule.matches))
            continue
        route = routes.get((rule.kind, target.namespace, rule.name))
        if rule.kind == "UDPRoute":
            on_udp = True
            tell("NotCarried", "UDP does not go through the mesh: this rule allows nothing", "", path)
        elif route is None:
            broken = True
            lacks(f"TCPRoute {rule.name} does not exist", path)
        else:
            on_tcp = True
            every_port = every_port or not route.ports
            ports.update(route.ports)
    if broken:
        return None, problems
    if not target.sources:
        tell("NothingAllowed", "is empty: the target allows nobody", "", ("spec", "sources"))
        return None, problems
    if not (on_http or on_tcp):
        why = "UDPRoutes alone allow" if on_udp else "is empty: the target allows"
        tell("NothingAllowed", f"{why} nothing that goes through the mesh", "add an HTTPRouteGroup or a TCPRoute")
        return None, problems
    if on_http and not matches:
        tell("NothingAllowed", "its HTTPRouteGroups have no matches: the target allows nothing")
        return None, problems
    every_port = every_port or not on_tcp
    if target.port:
        if not every_port and target.port not in ports:
            message = f"port {target.port} is none of those of its TCPRoutes: the target allows nothing"
            tell("NothingAllowed", message, "", ("spec", "destination", "port"))
            return None, problems
        every_port, ports = False, {target.port}
    return Allowance(() if every_port else tuple(sorted(ports)), tuple(matches)), problems


def _missing(rule: Rule, group: RouteGroup | None) -> str:
    """What is not there of what the rule refers to, "" if all is."""
    if group is None:
        return f"HTTPRouteGroup {rule.name} does not exist"
    known = {match.name for match in group.matches}
    for name in rule.matches:
        if name not in known:
            return f"HTTPRouteGroup {rule.name} has no match {name}"
    for match in group.matches:
        for pattern in (match.path_regex, *(value for _, value in match.headers)):
            if mistake := _mistake(pattern):
                return (
                    f"match {match.name} of HTTPRouteGroup {rule.name} has no regular expression that can be used ({mistake})"
                )
    return ""


@lru_cache(4096)
def _mistake(pattern: str) -> str:
    """What is wrong with a regular expression.  (The store takes no such group; an API server may.)"""
    try:
        Regex(pattern)
    except ValueError as mistake:
        return str(mistake)
    return ""
