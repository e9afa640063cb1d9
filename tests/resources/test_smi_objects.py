"""Every kind and version of SMI's specs and access objects: read into one form, written back in each version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resource_helpers import look, short, told

from control.resources import split
from control.resources.routegroup import (
    PortRoute,
    RouteGroup,
    RouteGroupMatch,
    parse_group,
    parse_ports,
    write_group,
    write_ports,
)
from control.resources.traffictarget import Account, Rule, TrafficTarget, parse_target, write_target
from control.resources.validate import Review
from control.store.store import Object

EXAMPLES = sorted((Path(__file__).parent / "smi").glob("*.yaml"))

METRICS = RouteGroupMatch("metrics", ("GET",), "/metrics")
HEALTH = RouteGroupMatch("health", (), "/ping")
ANDROID = RouteGroupMatch(
    "android-insiders", (), "", (("cookie", "^(.*?;)?(type=insider)(;.*)?$"), ("user-agent", ".*Android.*"))
)


def example(name: str) -> Review:
    return look((Path(__file__).parent / "smi" / name).read_text(), name)


def objects(name: str, kind: str) -> list[Object]:
    found = example(name).accepted.values()
    return [one.obj for one in found if one.obj is not None and one.obj["kind"] == kind]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_of_the_specification_load(path: Path) -> None:
    review = example(path.name)
    assert [short(one) for one in review.diagnostics if "UDP does not go" not in one.message] == []
    assert len(review.accepted) == review.documents > 0


@pytest.mark.parametrize("version", ["v1alpha2", "v1alpha3"])
def test_headers_are_the_same_as_a_map_and_as_a_list(version: str) -> None:
    groups = {group.name: group for group in map(parse_group, objects(f"specs_{version}.yaml", "HTTPRouteGroup"))}
    assert groups["telephones"].matches == (ANDROID,)


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha3", "v1alpha4"])
def test_the_list_of_matches_is_found_where_its_version_has_it(version: str) -> None:
    groups = {group.name: group for group in map(parse_group, objects(f"specs_{version}.yaml", "HTTPRouteGroup"))}
    assert groups["prices-routes"].matches == (METRICS, HEALTH)


def test_a_list_at_the_top_is_read_in_the_newest_version_too() -> None:
    groups = {group.name: group for group in map(parse_group, objects("specs_v1alpha4.yaml", "HTTPRouteGroup"))}
    assert groups["ab-test"].matches == (RouteGroupMatch("firefox-users", (), "", (("user-agent", ".*Firefox.*"),)),)


def test_named_matches_are_those_and_no_names_are_all() -> None:
    group = RouteGroup("shop", "g", (METRICS, HEALTH))
    assert group.named(("health",)) == (HEALTH,)
    assert group.named(()) == (METRICS, HEALTH)
    assert group.named(("nothing",)) == ()


# (form, version, may be written): each that may be written is read back as the same form.
GROUP = RouteGroup("shop", "g", (METRICS, HEALTH))
HEADERS = RouteGroup("shop", "g", (ANDROID,))
ANY_PORT = PortRoute("TCPRoute", "shop", "t", ())
PORTS = PortRoute("TCPRoute", "shop", "t", (80, 81))
UDP = PortRoute("UDPRoute", "shop", "t", (53,))
PLAIN = TrafficTarget("shop", "t", Account("shop", "a"), (Account("web", "b"),), (Rule("HTTPRouteGroup", "g", ("m",)),))
PORTED = TrafficTarget("shop", "t", Account("shop", "a"), (Account("web", "b"),), (Rule("TCPRoute", "r"),), 80)
WITH_UDP = TrafficTarget("shop", "t", Account("shop", "a"), (Account("web", "b"),), (Rule("UDPRoute", "r"),))

EVEN = split.TrafficSplit("shop", "s", "web", (split.Backend("a", 90_000), split.Backend("b", 10_000)), "")
FINE = split.TrafficSplit("shop", "s", "web", (split.Backend("a", 999_500), split.Backend("b", 500)), "")
MATCHING = split.TrafficSplit("shop", "s", "web", (split.Backend("a", 1000),), "", ("g", "h"))

CONVERSIONS: list[tuple[Any, str, bool]] = [
    *((GROUP, version, True) for version in ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")),
    (HEADERS, "v1alpha1", False),
    *((HEADERS, version, True) for version in ("v1alpha2", "v1alpha3", "v1alpha4")),
    *((ANY_PORT, version, True) for version in ("v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")),
    *((PORTS, version, False) for version in ("v1alpha1", "v1alpha2", "v1alpha3")),
    (PORTS, "v1alpha4", True),
    (UDP, "v1alpha3", False),
    (UDP, "v1alpha4", True),
    (PLAIN, "v1alpha1", False),  # it cannot do without a port
    (PLAIN, "v1alpha2", True),
    (PLAIN, "v1alpha3", True),
    (PORTED, "v1alpha1", True),
    (PORTED, "v1alpha2", True),
    (PORTED, "v1alpha3", False),
    *((EVEN, version, True) for version in split.VERSIONS),
    (FINE, "v1alpha1", True),
    (MATCHING, "v1alpha2", False),
    (MATCHING, "v1alpha3", True),
    (MATCHING, "v1alpha4", True),
    (WITH_UDP, "v1alpha2", False),
    (WITH_UDP, "v1alpha3", True),
]


@pytest.mark.parametrize(("form", "version", "possible"), CONVERSIONS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_form_is_written_in_every_version_that_can_say_it_and_read_back_the_same(
    form: Any, version: str, possible: bool
) -> None:
    write: Any = {
        RouteGroup: write_group,
        PortRoute: write_ports,
        TrafficTarget: write_target,
        split.TrafficSplit: split.write,
    }[type(form)]
    read: Any = {RouteGroup: parse_group, PortRoute: parse_ports, TrafficTarget: parse_target, split.TrafficSplit: split.parse}[
        type(form)
    ]
    if not possible:
        with pytest.raises(ValueError, match=r"which|has no|needs a"):
            write(form, version)
        return
    obj = write(form, version)
    assert obj["apiVersion"].endswith(f".smi-spec.io/{version}")
    assert read(obj) == form


@pytest.mark.parametrize("version", split.VERSIONS[1:])
def test_a_share_below_a_percent_stays_exact_in_versions_of_whole_numbers(version: str) -> None:
    read = split.parse(split.write(FINE, version))
    assert [backend.weight_milli * FINE.total_milli for backend in read.backends] == [
        backend.weight_milli * read.total_milli for backend in FINE.backends
    ]


def test_the_port_of_an_older_target_becomes_a_tcp_route_of_the_newest() -> None:
    obj = write_target(PORTED, "v1alpha3", port_route="t-port")
    assert parse_target(obj).rules == (*PORTED.rules, Rule("TCPRoute", "t-port"))


@pytest.mark.parametrize(("version", "port"), [("v1alpha1", 9091), ("v1alpha2", 8080)])
def test_a_target_is_read_whatever_its_layout(version: str, port: int) -> None:
    (obj,) = objects(f"access_{version}.yaml", "TrafficTarget")
    assert parse_target(obj) == TrafficTarget(
        "shop",
        "metrics-readers",
        Account("shop", "prices"),
        (Account("watch", "prometheus"),),
        (Rule("HTTPRouteGroup", "prices-routes", ("metrics",)),),
        port,
    )


def test_a_subject_without_a_namespace_is_of_the_targets() -> None:
    target = {target.name: target for target in map(parse_target, objects("access_v1alpha3.yaml", "TrafficTarget"))}["by-path"]
    assert target.sources == (Account("watch", "prometheus"), Account("shop", "web"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: HTTPRouteGroup\nspec: {matches: [{pathRegex: /a}]}", "spec.matches[0].name: is missing"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a, methods: [FETCH]}]}", "expected one of *, CONNECT"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a, pathRegex: '(?=x)'}]}", "look-around at 0 is not supported"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a, pathRegex: '('}]}", "the group at 0 is not closed"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a}, {name: a}]}", "a is the name of two matches"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a, headers: {x y: b}}]}", "expected the name of a header"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a, headers: [{x: b}, {X: b}]}]}", "given twice"),
        ("kind: HTTPRouteGroup\nspec: {matches: [{name: a, headers: [b]}]}", "expected a map from header names"),
        ("kind: HTTPRouteGroup\nspec: {}", "is empty: the group fits no request"),
        ("kind: TCPRoute\nspec: {matches: {ports: [0]}}", "expected a whole number from 1 to 65535"),
        ("kind: UDPRoute\nspec: {matches: {ports: [53]}}", "UDP does not go through the mesh"),
    ],
)
def test_what_a_route_group_cannot_mean_is_told(text: str, expected: str) -> None:
    lines = told(f"apiVersion: specs.smi-spec.io/v1alpha4\nmetadata: {{name: g, namespace: shop}}\n{text}\n")
    assert any(expected in line for line in lines), lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{sources: [{kind: ServiceAccount, name: b}], rules: [{kind: TCPRoute, name: r}]}", "destination: is missing"),
        ("{destination: {kind: ServiceAccount, name: a}, rules: [{kind: TCPRoute, name: r}]}", "spec.sources: is missing"),
        ("{destination: {kind: ServiceAccount, name: a}, sources: [{kind: ServiceAccount, name: b}]}", "at least one rule"),
        ("{destination: {kind: Group, name: a}}", "expected ServiceAccount"),
        ("{destination: {kind: ServiceAccount, name: a, namespace: web}}", "the target's own namespace"),
        ("{destination: {kind: ServiceAccount, name: a, port: http}}", "expected a port from 1 to 65535"),
        ("{rules: [{kind: TLSRoute, name: r}]}", "expected one of HTTPRouteGroup, TCPRoute, UDPRoute"),
        ("{rules: [{kind: TCPRoute, name: r, matches: [a]}]}", "matches of a TCPRoute mean nothing"),
    ],
)
def test_what_a_target_cannot_mean_is_told(text: str, expected: str) -> None:
    lines = told(
        f"apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {{name: t, namespace: shop}}\nspec: {text}\n"
    )
    assert any(expected in line for line in lines), lines


def test_one_unit_of_a_quantity_is_a_thousand_milli_units_in_every_version() -> None:
    splits = {split.name: split for split in map(split.parse, objects("split.yaml", "TrafficSplit"))}
    assert [backend.weight_milli for backend in splits["canary-of-prices"].backends] == [1000, 500]
    assert [backend.weight_milli for backend in splits["percent-of-web"].backends] == [1000, 10]
    assert [backend.weight_milli for backend in splits["canary-of-cart"].backends] == [50_000, 50_000]
