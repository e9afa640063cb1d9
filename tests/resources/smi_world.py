"""From SMI manifests to what becomes of a request, each question in one call: the words of the table of statements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import access_objects as who
import routing_objects as where
import yaml
from compile_objects import compiled, endpoint, service, slice_of
from resource_helpers import look

from control.api import mesh_pb2
from control.resources import split as splits
from control.resources.routegroup import parse_group
from control.resources.traffic import Traffic, problems
from control.resources.traffictarget import parse_target
from control.store.store import Object
from meshproxy.mesh.convert import access_of
from meshproxy.policy.random import Rng
from meshproxy.policy.split import Split

Row = tuple[str, Callable[[], Any], Any]  # statement, question, answer

EXAMPLES = Path(__file__).parent / "smi"

SPLIT = "split.smi-spec.io"
SPECS = "specs.smi-spec.io"
ACCESS = "access.smi-spec.io"


def smi(kind: str, group: str, version: str, name: str, **body: Any) -> Object:
    return {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **body}


# ---------------------------------------------------------------- splits


def split(*weights: Any, version: str = "v1alpha4", name: str = "s", matches: Sequence[str] = (), born: str = "") -> Object:
    """A split of `web`: the weights of web-v1, web-v2 and so on; a pair names its backend."""
    named = [one if isinstance(one, tuple) else (f"web-v{index}", one) for index, one in enumerate(weights, 1)]
    spec: dict[str, Any] = {"service": "web", "backends": [{"service": leaf, "weight": weight} for leaf, weight in named]}
    if matches:
        spec["matches"] = [{"kind": "HTTPRouteGroup", "name": one} for one in matches]
    obj = smi("TrafficSplit", SPLIT, version, name, spec=spec)
    if born:
        obj["metadata"]["creationTimestamp"] = born
    return obj


def drawn(obj: Object, requests: int, seed: int = 1) -> list[int]:
    """How many of so many requests each backend gets."""
    parsed = splits.parse(obj)
    chosen = Split([backend.weight_milli for backend in parsed.backends], Rng(seed))
    found = Counter(chosen.draw() for _ in range(requests))
    return [found[index] for index in range(len(parsed.backends))]


def shares(*objects: Object, port: int = 80, target: str = "GET /") -> list[tuple[str, int, int]]:
    """(backend, weight in thousandths, endpoints) of a request for web, as its client's proxy has it."""
    found = where.tables(*where.WEB, *where.ENDPOINTS, *objects).service("shop", "web", port)
    assert found is not None
    taken = where.taken_by(found, where.request(target))
    holder = found if isinstance(taken, str) else taken
    return [(leaf.name, weight, len(leaf.endpoints)) for leaf, weight in zip(holder.backends, holder.weights, strict=True)]


def leaf_ports(*lacking: str) -> list[list[str]]:
    """web has the ports 80 and 81, and so have its backends but for 81 those that are `lacking`: who takes part on each.
    The target ports differ from Service to Service."""
    objects: list[Object] = [service("web", {"port": 80, "name": "a"}, {"port": 81, "name": "b"}), split(1, 1)]
    for number, name in enumerate(("web-v1", "web-v2")):
        ports = [{"port": 80, "name": "a", "targetPort": 8080 + number}]
        if name not in lacking:
            ports.append({"port": 81, "name": "b", "targetPort": 9090 + number})
        objects.append(service(name, *ports))
    made = where.tables(*objects)
    entries = [made.service("shop", "web", port) for port in (80, 81)]
    return [[leaf.name for leaf in entry.backends] for entry in entries if entry is not None]


def target_ports() -> list[int]:
    """Of two backends that listen on ports of their own, where a request for port 80 of web arrives."""
    objects: list[Object] = [service("web"), split(1, 1)]
    for number, name in enumerate(("web-v1", "web-v2")):
        objects.append(service(name, {"port": 80, "targetPort": 8080 + number}))
        objects.append(slice_of(name, endpoint(f"127.9.9.{number + 10}"), ports=[{"port": 8080 + number}]))
    entry = where.tables(*objects).service("shop", "web", 80)
    assert entry is not None
    return [one.target_port for leaf in entry.backends for one in leaf.endpoints]


def found_by(*authorities: str, namespace: str = "shop") -> list[str]:
    """The Service that each of these names for a client in `namespace`; "" for none."""
    made = where.tables(*where.WEB, *where.ENDPOINTS, namespace=namespace)
    entries = [made.lookup(one.encode(), namespace, 80) for one in authorities]
    return ["" if entry is None else entry.name for entry in entries]


def goes(*objects: Object, target: str = "GET /", **headers: str) -> str:
    """Where a request for web goes: its backends with a weight, or the status it is answered with."""
    return where.goes_to(where.service_entry(*objects), target, **headers)


def reasons(*objects: Object) -> list[str]:
    """The Events of the objects, by their reasons."""
    return sorted(one.reason for one in problems(Traffic.of([*where.WEB, *objects])))


def events_where_nobody_is_ready(*objects: Object) -> list[str]:
    """The Events in a mesh that runs, in which web alone has an endpoint."""
    return sorted(one.reason for one in problems(Traffic.of([*where.WEB, where.ENDPOINTS[0], *objects], live=True)))


def reads(obj: Object) -> Any:
    """The one form that a TrafficSplit, TrafficTarget or HTTPRouteGroup of any version is read into."""
    return {"TrafficSplit": splits.parse, "TrafficTarget": parse_target, "HTTPRouteGroup": parse_group}[obj["kind"]](obj)


def weights(*given: Any, version: str = "v1alpha4") -> list[int]:
    return [backend.weight_milli for backend in splits.parse(split(*given, version=version)).backends]


def same_route(*objects: Object) -> bool:
    """Do these splits lead to the same backends with the same shares?"""
    return len({tuple(shares(obj)) for obj in objects}) == 1


# ---------------------------------------------------------------- groups


def group(*matches: Object, name: str = "g", version: str = "v1alpha4", top: bool | None = None, full: bool = False) -> Object:
    """`top`: `matches` stands at the top and not in `spec`; by itself as the version has it."""
    body = {"matches": [{"name": f"match-{index}", **match} for index, match in enumerate(matches)]}
    if top is None:
        top = version in ("v1alpha1", "v1alpha2")
    obj = smi("HTTPRouteGroup", SPECS, version, name, **(body if top else {"spec": body}))
    if full:
        obj["metadata"]["annotations"] = {"meshproxy.dev/path-match": "full"}
    return obj


def fits(*asked: Any, matches: Sequence[Object], **how: Any) -> list[bool]:
    """Does each request fit the group?  A request: "GET /path", or that and its headers."""
    objects = [split(("web-v2", 1), matches=["g"]), group(*matches, **how)]
    entry = where.service_entry(*objects)
    found = []
    for one in asked:
        line, headers = (one, {}) if isinstance(one, str) else one
        found.append(where.goes_to(entry, line, **headers) == "web-v2")
    return found


def lint(obj: Object) -> list[str]:
    """What the check of one object says: severities of all that it found, and messages."""
    return [f"{one.severity}: {one.message}" for one in look(yaml.safe_dump(obj)).diagnostics]


def refused(obj: Object) -> bool:
    return any(line.startswith("error") for line in lint(obj))


def example(name: str) -> bool:
    """Does a file of examples load whole?"""
    review = look((EXAMPLES / name).read_text(), name)
    return review.documents > 0 and len(review.accepted) == review.documents


# ---------------------------------------------------------------- access


def verdict(*objects: Object, **asked: Any) -> str:
    return who.verdict(*objects, **asked)


def old_target(version: str, port: Any = None, rules: Sequence[Object] = (), home: str | None = None) -> Object:
    """A TrafficTarget for web from reader, laid out as the version has it."""
    destination: dict[str, Any] = {"kind": "ServiceAccount", "name": "web"}
    if port is not None:
        destination["port"] = port
    source: dict[str, Any] = {"kind": "ServiceAccount", "name": "reader"}
    if home is not None:
        source["namespace"] = home
    if version == "v1alpha1":
        return smi("TrafficTarget", ACCESS, version, "t", destination=destination, sources=[source], specs=list(rules))
    return smi(
        "TrafficTarget", ACCESS, version, "t", spec={"destination": destination, "sources": [source], "rules": list(rules)}
    )


def in_force(*objects: Object, account: str = "web") -> bool:
    """Does any TrafficTarget select a pod of this service account?"""
    return access_of(who.workload(who.pod(account), *objects)) is not None


def mode(**annotations: str) -> int:
    """The inbound mode of a pod, which decides where no TrafficTarget selects it."""
    one = who.pod(annotations={f"meshproxy.dev/{key.replace('_', '-')}": value for key, value in annotations.items()})
    return int(compiled(one).resources[mesh_pb2.WORKLOAD, "shop/web-1"].workload.inbound_mode)
