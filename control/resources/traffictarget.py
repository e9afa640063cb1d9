"""TrafficTarget (access.smi-spec.io v1alpha1 to v1alpha3): who may call whom, and what; one form for all versions.

    v1alpha1    destination, sources, specs      at the top   --\\
    v1alpha2    destination, sources, rules      in spec      ---> TrafficTarget(destination, sources, rules, port)
    v1alpha3    the same, without a port                      --/
    destination.port p    the same as one more rule: a TCPRoute with ports [p]   (the SDK's conversion loses it)

What it means is `access`'s; here it is only read.  Version and layout are not held against each other: what a newer version's
object has at the top, or an older one's in `spec`, is read all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from control.resources.core import Name, ObjectMeta, parse
from control.resources.documents import Path
from control.resources.shape import Report, Shape, shown, words
from control.store.store import Object

GROUP = "access.smi-spec.io"
VERSIONS = ("v1alpha1", "v1alpha2", "v1alpha3")
MAX_SOURCES = 256  # of a target
MAX_RULES = 64  # of a target

# Written as a string by the conformance suite and by one controller's documentation.
Port = Annotated[int | str, Meta(extra={"expected": "a port from 1 to 65535"})]


class SubjectShape(Shape, frozen=True, kw_only=True):
    kind: Literal["ServiceAccount"]
    name: Name
    namespace: str = ""
    port: Port | None = None  # of a destination, before v1alpha3


class RuleShape(Shape, frozen=True, kw_only=True):
    unread = words("apiGroup")
    kind: Literal["HTTPRouteGroup", "TCPRoute", "UDPRoute"]
    name: Name
    matches: tuple[Name, ...] = ()


class TargetSpecShape(Shape, frozen=True, kw_only=True):
    destination: SubjectShape | None = None
    sources: tuple[SubjectShape, ...] = ()
    rules: tuple[RuleShape, ...] = ()
    specs: tuple[RuleShape, ...] = ()


class TargetShape(TargetSpecShape, frozen=True, kw_only=True):
    unread = words("apiVersion kind status")
    metadata: ObjectMeta
    spec: TargetSpecShape = TargetSpecShape()


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A ServiceAccount: who a workload is."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Rule:
    """kind: HTTPRouteGroup, TCPRoute or UDPRoute, in the target's namespace.  `matches`: names within a group; none: all."""

    kind: str
    name: str
    matches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrafficTarget:
    namespace: str
    name: str
    destination: Account
    sources: tuple[Account, ...]
    rules: tuple[Rule, ...]
    port: int = 0  # 0: none given; otherwise the same as a TCPRoute with this port


def parse_target(obj: Object) -> TrafficTarget:
    """The one form of an accepted object.  Raises ValueError on one that was never checked."""
    shape = parse(obj, TargetShape)
    namespace = shape.metadata.namespace or "default"
    destination = shape.spec.destination or shape.destination
    if destination is None:
        raise ValueError("destination is missing")
    rules = [*shape.specs, *shape.rules, *shape.spec.specs, *shape.spec.rules]
    return TrafficTarget(
        namespace,
        shape.metadata.name,
        _account(destination, namespace),
        tuple(dict.fromkeys(_account(one, namespace) for one in [*shape.sources, *shape.spec.sources])),
        tuple(Rule(one.kind, one.name, tuple(dict.fromkeys(one.matches))) for one in rules),
        _port(destination.port) if destination.port is not None else 0,
    )


def destination_of(obj: Object, namespace: str) -> Account:
    """The destination alone, of an object that cannot be read whole.  Raises ValueError if there is none."""
    for place in (obj.get("spec"), obj):
        found = place.get("destination") if isinstance(place, dict) else None
        if isinstance(found, dict) and isinstance(found.get("name"), str) and found["name"]:
            return Account(str(found.get("namespace") or namespace), found["name"])
    raise ValueError("destination is missing")


def _account(subject: SubjectShape, namespace: str) -> Account:
    return Account(subject.namespace or namespace, subject.name)


def _port(value: int | str) -> int:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 5):
            raise ValueError(f"{value!r} is not a port")
        value = int(value)
    if not 1 <= value <= 65535:
        raise ValueError(f"{value} is not a port")
    return value


def write_target(target: TrafficTarget, version: str, port_route: str = "") -> Object:
    """A target as `version` has it.

    v1alpha3 has no port: it goes to a TCPRoute of the name `port_route` (the caller writes that object).
    Raises ValueError where the meaning would be lost: a port without such a name, a UDPRoute before v1alpha3."""
    rules = list(target.rules)
    destination: dict[str, Any] = _written(target.destination)
    if target.port and version == "v1alpha3":
        if not port_route:
            raise ValueError(f"{version} has no port: it needs a TCPRoute with port {target.port}")
        rules.append(Rule("TCPRoute", port_route))
    elif target.port:
        destination["port"] = target.port
    elif version == "v1alpha1":
        raise ValueError(f"{version} needs a port")
    if version != "v1alpha3" and any(rule.kind == "UDPRoute" for rule in rules):
        raise ValueError(f"{version} has no UDPRoute")
    body = {
        "destination": destination,
        "sources": [_written(source) for source in target.sources],
        "specs" if version == "v1alpha1" else "rules": [
            {"kind": rule.kind, "name": rule.name, **({"matches": list(rule.matches)} if rule.matches else {})}
            for rule in rules
        ],
    }
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "TrafficTarget",
        "metadata": {"name": target.name, "namespace": target.namespace},
        **(body if version == "v1alpha1" else {"spec": body}),
    }


def _written(account: Account) -> dict[str, Any]:
    return {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}


def check_target(obj: Object, report: Report) -> None:
    """What the shape cannot say."""
    spec: Object = obj.get("spec") or {}
    namespace = obj["metadata"].get("namespace") or "default"

    def place(field: str) -> tuple[Path, Any]:
        return ((field,), obj[field]) if obj.get(field) else (("spec", field), spec.get(field))

    path, destination = place("destination")
    if destination is None:
        report.error(path, "is missing, expected a ServiceAccount")
    else:
        if destination.get("namespace", namespace) != namespace:
            where = (*path, "namespace")
            report.error(where, f"found {shown(destination['namespace'])}, expected {namespace}: the target's own namespace")
        if destination.get("port") is not None:
            try:
                _port(destination["port"])
            except ValueError:
                report.error((*path, "port"), f"found {shown(destination['port'])}, expected a port from 1 to 65535")
    path, sources = place("sources")
    if not sources:
        report.error(path, "is missing, expected at least one source", "without one nobody may call")
    elif len(sources) > MAX_SOURCES:
        report.error(path, f"has {len(sources)} entries, expected at most {MAX_SOURCES}")
    rules = [place(field) for field in ("specs", "rules")]
    found = [(where, rule) for where, items in rules for rule in items or []]
    if not found:
        report.error(rules[1][0], "is missing, expected at least one rule", "an HTTPRouteGroup or a TCPRoute by its name")
    elif len(found) > MAX_RULES:
        report.error(rules[1][0], f"has {len(found)} entries, expected at most {MAX_RULES}")
    for where, rule in found:
        if rule["kind"] != "HTTPRouteGroup" and rule.get("matches"):
            report.warning(where, f"matches of a {rule['kind']} mean nothing", "they name matches of an HTTPRouteGroup")
