"""TrafficSplit (split.smi-spec.io v1alpha1 to v1alpha4): one normal form for all versions.

Weights are kept in thousandths of a unit (milli): v1alpha1's quantities (`500m`) and the later whole numbers then share one
scale.  Ints, floats and quantity strings are read in every version, because clients in the wild write each under any.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from control.resources.annotations import PLAIN_SHARING, Sharing, sharing, sharing_mistakes
from control.resources.core import ObjectMeta
from control.resources.documents import Path
from control.resources.quantity import milli
from control.resources.shape import Report, Shape, shown, words
from control.store.store import Object

GROUP = "split.smi-spec.io"
VERSIONS = ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")
MAX_BACKENDS = 100
MAX_GROUPS = 16  # HTTPRouteGroups of one split
MAX_WEIGHT_MILLI = 10**12  # a thousand million units: products of two still fit 64 bits after reduction

Weight = Annotated[int | float | str, Meta(extra={"expected": "a weight such as 10, or a quantity such as 500m"})]


class BackendShape(Shape, frozen=True, kw_only=True):
    service: Annotated[str, Meta(min_length=1, max_length=253)]
    weight: Weight


class GroupRefShape(Shape, frozen=True, kw_only=True):
    api_group: Literal["specs.smi-spec.io"] = "specs.smi-spec.io"
    kind: Literal["HTTPRouteGroup"]
    name: Annotated[str, Meta(min_length=1, max_length=253)]


class SplitSpecShape(Shape, frozen=True, kw_only=True):
    service: Annotated[str, Meta(min_length=1, max_length=253)]
    backends: tuple[BackendShape, ...]
    matches: tuple[GroupRefShape, ...] = ()


class SplitShape(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind status")
    metadata: ObjectMeta
    spec: SplitSpecShape


@dataclass(frozen=True, slots=True)
class Backend:
    service: str  # name of a Service in the split's namespace
    weight_milli: int  # relative


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    namespace: str
    name: str
    service: str  # the apex: name of the Service callers address
    backends: tuple[Backend, ...]  # each Service once
    created: str  # creationTimestamp, for the rule that the oldest split of an apex wins
    matches: tuple[str, ...] = ()  # HTTPRouteGroups of its namespace: the split is for what one of them fits; none: for all
    sharing: Sharing = PLAIN_SHARING

    @property
    def total_milli(self) -> int:
        return sum(backend.weight_milli for backend in self.backends)


@dataclass(frozen=True, slots=True)
class Splits:
    """The split in force of each (namespace, Service) for the requests no other one is for, the shadowed ones with the name of
    the one that won, and those with `matches`: all of them are in force, `attach` has their order."""

    winners: dict[tuple[str, str], TrafficSplit]
    shadowed: tuple[tuple[TrafficSplit, str], ...]
    matching: tuple[TrafficSplit, ...] = ()


def splits_by_apex(splits: Iterable[TrafficSplit]) -> Splits:
    winners: dict[tuple[str, str], TrafficSplit] = {}
    shadowed: list[tuple[TrafficSplit, str]] = []
    matching: list[TrafficSplit] = []
    for one in sorted(splits, key=lambda one: (one.created, one.name)):
        if one.matches:
            matching.append(one)
            continue
        winner = winners.setdefault((one.namespace, one.service), one)
        if winner is not one:
            shadowed.append((one, winner.name))
    return Splits(winners, tuple(shadowed), tuple(matching))


def weight_milli(value: int | float | str) -> int:
    """A weight in thousandths.  Raises ValueError saying what was expected."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value}, expected a whole number or a quantity such as {round(value * 1000)}m")
    result = milli(value)
    if result < 0:
        raise ValueError(f"{value}, expected a weight of at least 0")
    if result > MAX_WEIGHT_MILLI:
        raise ValueError(f"{value}, expected a weight of at most {MAX_WEIGHT_MILLI // 1000}")
    return result


def service_name(name: str, namespace: str) -> str | None:
    """The Service that `prices`, `prices.shop` or `prices.shop.svc.cluster.local` means; None if in another namespace."""
    first, _, rest = name.rstrip(".").partition(".")
    if not rest or rest == namespace or rest == f"{namespace}.svc" or rest.startswith(f"{namespace}.svc."):
        return first
    return None


def check_split(obj: Object, report: Report) -> None:
    """What the shape cannot say."""
    spec = obj["spec"]
    namespace = obj["metadata"].get("namespace") or "default"
    path: Path = ("spec", "service")
    if service_name(spec["service"], namespace) is None:
        report.error(path, f"{spec['service']} is not in namespace {namespace}", "a split and its Services share a namespace")
    version = str(obj.get("apiVersion", "")).rpartition("/")[2]
    if spec.get("matches") and version in ("v1alpha1", "v1alpha2"):
        report.warning(("spec", "matches"), f"{version} has no matches; they are in force all the same", "use v1alpha4")
    if len(spec.get("matches") or ()) > MAX_GROUPS:
        report.error(("spec", "matches"), f"has {len(spec['matches'])} entries, expected at most {MAX_GROUPS}")
    for annotation, message, hint in sharing_mistakes(obj["metadata"].get("annotations") or {}):
        report.error(("metadata", "annotations", annotation), message, hint)
    backends = spec["backends"]
    if not backends:
        report.error(("spec", "backends"), "is empty, expected at least one backend")
    if len(backends) > MAX_BACKENDS:
        report.error(("spec", "backends"), f"has {len(backends)} entries, expected at most {MAX_BACKENDS}")
    seen: dict[str, int] = {}
    for index, backend in enumerate(backends):
        path = ("spec", "backends", index)
        name = service_name(backend["service"], namespace)
        if name is None:
            report.error((*path, "service"), f"{backend['service']} is not in namespace {namespace}")
        elif name in seen:
            report.warning((*path, "service"), f"{name} is listed twice (also backends[{seen[name]}])", "the weights are added")
        else:
            seen[name] = index
        try:
            weight_milli(backend["weight"])
        except ValueError as mistake:
            found = shown(backend["weight"]) if isinstance(backend["weight"], str) else str(mistake).split(",")[0]
            hint = "weights are shares of their sum: leave the % out" if str(backend["weight"]).endswith("%") else ""
            report.error((*path, "weight"), f"found {found}, {str(mistake).partition(', ')[2]}", hint)


def parse(obj: Object) -> TrafficSplit:
    """The typed view of an accepted object.  Raises KeyError, TypeError or ValueError on one that was never checked."""
    metadata, spec = obj["metadata"], obj["spec"]
    namespace = metadata.get("namespace") or "default"
    weights: dict[str, int] = {}
    for backend in spec["backends"]:
        name = service_name(backend["service"], namespace)
        if name is None:
            raise ValueError(f"backend {backend['service']} is not in namespace {namespace}")
        weights[name] = weights.get(name, 0) + weight_milli(backend["weight"])
    apex = service_name(spec["service"], namespace)
    if apex is None:
        raise ValueError(f"service {spec['service']} is not in namespace {namespace}")
    return TrafficSplit(
        namespace,
        metadata["name"],
        apex,
        tuple(Backend(name, weight) for name, weight in weights.items()),
        str(metadata.get("creationTimestamp") or ""),
        tuple(dict.fromkeys(str(reference["name"]) for reference in spec.get("matches") or ())),
        sharing(metadata.get("annotations") or {}),
    )


def write(one: TrafficSplit, version: str) -> Object:
    """A split as `version` has it.  From v1alpha2 on weights are whole numbers: all are scaled by a thousand where one is not
    (only their relation counts).  Raises ValueError where the meaning would be lost: `matches` before v1alpha3."""
    if one.matches and version in ("v1alpha1", "v1alpha2"):
        raise ValueError(f"{version} has no matches: the split would apply to every request")
    weights: list[int | str] = [backend.weight_milli for backend in one.backends]
    if all(backend.weight_milli % 1000 == 0 for backend in one.backends):
        weights = [backend.weight_milli // 1000 for backend in one.backends]
    elif version == "v1alpha1":
        weights = [f"{backend.weight_milli}m" for backend in one.backends]
    spec: dict[str, Any] = {
        "service": one.service,
        "backends": [
            {"service": backend.service, "weight": weight} for backend, weight in zip(one.backends, weights, strict=True)
        ],
    }
    if one.matches:
        spec["matches"] = [{"kind": "HTTPRouteGroup", "name": name} for name in one.matches]
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "TrafficSplit",
        "metadata": {"name": one.name, "namespace": one.namespace},
        "spec": spec,
    }
