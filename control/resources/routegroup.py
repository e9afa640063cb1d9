"""HTTPRouteGroup, TCPRoute, UDPRoute (specs.smi-spec.io v1alpha1 to v1alpha4): requests and ports by name, in one form.

    v1alpha1, v1alpha2    matches: [...]              --\\
    v1alpha3, v1alpha4    spec: {matches: [...]}      ---> RouteGroup(matches)      who refers to it decides what it is for:
                                                                                    TrafficSplit `matches`, TrafficTarget rules
    headers as a map (the specification) or as a list of maps (its SDK and CRD): both are read, the list is written

A group does nothing by itself.  Within a match all that is given must fit (AND); the matches of a group are alternatives (OR).
The specification calls all fields required, its CRD only the name: an absent field fits everything, as its header section says.
"""

# ruff: noqa: RUF012 - msgspec copies an empty default

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from control.resources.annotations import PATH_MATCH, PATH_MATCHES
from control.resources.core import Name, ObjectMeta, PortNumber, parse
from control.resources.documents import Path
from control.resources.shape import Report, Shape, shown, words
from control.store.store import Object
from meshproxy.policy.regex import Regex

GROUP = "specs.smi-spec.io"
VERSIONS = ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")
MAX_MATCHES = 128  # of a group: what Gateway API allows one route
MAX_HEADERS = 16  # of a match, as there
METHODS = ("*", "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")

Method = Literal["*", "GET", "HEAD", "PUT", "POST", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
Headers = Annotated[
    dict[str, str] | tuple[dict[str, str], ...],
    Meta(extra={"expected": "a map from header names to regular expressions, or a list of such maps"}),
]


class MatchShape(Shape, frozen=True, kw_only=True):
    name: Name
    methods: tuple[Method, ...] = ()
    path_regex: str = ""
    headers: Headers = {}


class GroupSpecShape(Shape, frozen=True, kw_only=True):
    matches: tuple[MatchShape, ...] = ()


class GroupShape(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind status")
    metadata: ObjectMeta
    matches: tuple[MatchShape, ...] = ()  # v1alpha1, v1alpha2; and v1alpha4 in examples of the specification itself
    spec: GroupSpecShape = GroupSpecShape()


class PortMatchShape(Shape, frozen=True, kw_only=True):
    name: str = ""
    ports: tuple[PortNumber, ...] = ()


class PortSpecShape(Shape, frozen=True, kw_only=True):
    matches: PortMatchShape = PortMatchShape()


class PortRouteShape(Shape, frozen=True, kw_only=True):
    """TCPRoute and UDPRoute."""

    unread = words("apiVersion kind status")
    metadata: ObjectMeta
    spec: PortSpecShape = PortSpecShape()


@dataclass(frozen=True, slots=True)
class RouteGroupMatch:
    """One kind of request.

    methods     none: any
    path_regex  anchored at the start of the path (without the query); "": any
    headers     (name in lower case, regular expression for the whole value); all must be there and fit
    """

    name: str
    methods: tuple[str, ...] = ()
    path_regex: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RouteGroup:
    """`full_path`: the path regexes take the whole path (annotation meshproxy.dev/path-match: full), not only its beginning."""

    namespace: str
    name: str
    matches: tuple[RouteGroupMatch, ...]
    full_path: bool = False

    def named(self, names: tuple[str, ...]) -> tuple[RouteGroupMatch, ...]:
        """The matches with these names, in the group's order; all of them where no names are given."""
        return tuple(match for match in self.matches if not names or match.name in names)


@dataclass(frozen=True, slots=True)
class PortRoute:
    """A TCPRoute or UDPRoute.  `ports` are those the pods accept on; none: every port."""

    kind: str
    namespace: str
    name: str
    ports: tuple[int, ...]


def parse_group(obj: Object) -> RouteGroup:
    """The one form of an accepted HTTPRouteGroup.  Raises ValueError on one that was never checked."""
    shape = parse(obj, GroupShape)
    return RouteGroup(
        shape.metadata.namespace or "default",
        shape.metadata.name,
        tuple(map(_match, [*shape.matches, *shape.spec.matches])),
        shape.metadata.annotations.get(PATH_MATCH, "start") != "start",  # another word than the two: what lets less through
    )


def parse_ports(obj: Object) -> PortRoute:
    """The one form of an accepted TCPRoute or UDPRoute.  Raises ValueError on one that was never checked."""
    shape = parse(obj, PortRouteShape)
    ports = tuple(dict.fromkeys(shape.spec.matches.ports))
    return PortRoute(obj["kind"], shape.metadata.namespace or "default", shape.metadata.name, ports)


def _match(shape: MatchShape) -> RouteGroupMatch:
    headers: dict[str, str] = {}
    for part in [shape.headers] if isinstance(shape.headers, dict) else shape.headers:
        headers |= {name.lower(): pattern for name, pattern in part.items()}
    methods = () if "*" in shape.methods else tuple(dict.fromkeys(shape.methods))
    return RouteGroupMatch(shape.name, methods, shape.path_regex, tuple(sorted(headers.items())))


def write_group(group: RouteGroup, version: str) -> Object:
    """A group as `version` has it.  v1alpha1 has no headers: raises ValueError for a match that asks for some, because without
    them it would fit more than was meant."""
    matches: list[dict[str, Any]] = []
    for match in group.matches:
        if match.headers and version == "v1alpha1":
            raise ValueError(f"match {match.name} asks for headers, which {version} cannot say")
        one: dict[str, Any] = {"name": match.name, "methods": list(match.methods) or ["*"]}
        if match.path_regex:
            one["pathRegex"] = match.path_regex
        if match.headers:
            one["headers"] = [{name: pattern} for name, pattern in match.headers]
        matches.append(one)
    body: dict[str, Any] = {"matches": matches}
    obj = _object("HTTPRouteGroup", group.namespace, group.name, version, body if _flat(version) else {"spec": body})
    if group.full_path:
        obj["metadata"]["annotations"] = {PATH_MATCH: "full"}
    return obj


def write_ports(route: PortRoute, version: str) -> Object:
    """A TCPRoute or UDPRoute as `version` has it.  Before v1alpha4 there are no ports: raises ValueError for a route that names
    some, because without them it would fit every port."""
    if version != "v1alpha4":
        if route.ports or route.kind == "UDPRoute":
            raise ValueError(f"{version} has no {'UDPRoute' if route.kind == 'UDPRoute' else 'ports'}")
        return _object(route.kind, route.namespace, route.name, version, {} if _flat(version) else {"spec": {}})
    spec = {"matches": {"ports": list(route.ports)}}
    return _object(route.kind, route.namespace, route.name, version, {"spec": spec})


def _flat(version: str) -> bool:
    return version in ("v1alpha1", "v1alpha2")


def _object(kind: str, namespace: str, name: str, version: str, body: dict[str, Any]) -> Object:
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        **body,
    }


# ---------------------------------------------------------------- checking


def check_group(obj: Object, report: Report) -> None:
    """What the shape cannot say."""
    how = (obj["metadata"].get("annotations") or {}).get(PATH_MATCH)
    if how is not None and how not in PATH_MATCHES:
        report.error(("metadata", "annotations", PATH_MATCH), f"found {shown(how)}, expected {' or '.join(PATH_MATCHES)}")
    found: dict[str, Path] = {}
    matches = [(("matches",), obj.get("matches") or []), (("spec", "matches"), (obj.get("spec") or {}).get("matches") or [])]
    total = sum(len(items) for _, items in matches)
    if total > MAX_MATCHES:
        report.error(matches[-1][0], f"has {total} entries, expected at most {MAX_MATCHES}")
    if not total:
        report.warning(("spec", "matches"), "is empty: the group fits no request")
    for base, items in matches:
        for index, match in enumerate(items):
            path: Path = (*base, index)
            if match["name"] in found:
                report.error((*path, "name"), f"{match['name']} is the name of two matches", "names must differ")
            found[match["name"]] = path
            check_regex(match.get("pathRegex", ""), (*path, "pathRegex"), report)
            _check_headers(match.get("headers") or {}, (*path, "headers"), report)


def open_ended(obj: Object) -> Iterator[tuple[Path, str, str]]:
    """Patterns of a checked group that fit more paths than they show: (field, what, hint).  They mean what SMI says, so it is
    no mistake; but whoever writes `/admin` seldom means `/administrator` too, and in a TrafficTarget that is access."""
    if (obj["metadata"].get("annotations") or {}).get(PATH_MATCH, "start") != "start":
        return
    matches = [(("matches",), obj.get("matches") or []), (("spec", "matches"), (obj.get("spec") or {}).get("matches") or [])]
    for base, items in matches:
        for index, match in enumerate(items):
            pattern = match.get("pathRegex", "")
            if pattern and not pattern.endswith(("$", "/", "*", "+")):
                hint = f"end it with '$' or '(/.*)?$', or annotate {PATH_MATCH}: full"
                yield (*base, index, "pathRegex"), f"{shown(pattern)} fits every path that begins so, {_longer(pattern)}", hint


def _longer(pattern: str) -> str:
    return f"also {pattern}x" if _PLAIN_PATH.match(pattern) else "however it goes on"


def _check_headers(headers: Any, path: Path, report: Report) -> None:
    parts = [(path, headers)] if isinstance(headers, dict) else [((*path, i), part) for i, part in enumerate(headers)]
    seen: set[str] = set()
    for where, part in parts:
        for name, pattern in part.items():
            if name.lower() in seen:
                report.error((*where, name), "is given twice (names of headers have no case)", "keep one")
            seen.add(name.lower())
            check_header_name(name, (*where, name), report)
            check_regex(pattern, (*where, name), report)
    if len(seen) > MAX_HEADERS:
        report.error(path, f"has {len(seen)} entries, expected at most {MAX_HEADERS}")


_PLAIN_PATH = re.compile(r"[/A-Za-z0-9_-]{1,60}\Z")
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")  # RFC 9110 5.6.2


def check_header_name(name: str, path: Path, report: Report) -> None:
    if not name or len(name) > 256 or not _TOKEN.issuperset(name):
        report.error(path, f"found {shown(name)}, expected the name of a header")


def check_regex(pattern: str, path: Path, report: Report) -> None:
    """Matched in linear time, so look-around and back-references do not exist (meshproxy/policy/regex.py)."""
    try:
        Regex(pattern)
    except ValueError as mistake:
        report.error(path, f"found {shown(pattern)}: {mistake}", "the syntax is RE2's")


def check_ports(obj: Object, report: Report) -> None:
    if obj["kind"] == "UDPRoute":
        report.warning(("kind",), "UDP does not go through the mesh: the route is read, and carries nothing")
