"""Objects that contradict each other: one outcome each, told once, and no other Service is touched."""

from __future__ import annotations

from typing import Any

import pytest
from compile_objects import compiled, service, split
from routing_objects import ENDPOINTS, WEB, goes_to, group, http_route, matching_split, route, service_entry, to, told

from control.api import mesh_pb2
from control.resources.attach import MAX_CANDIDATES
from control.resources.gateway import parse_grpc_route, parse_http_route
from control.resources.traffic import Traffic, conditions, problems, status_of
from control.store.store import Object

GET = group("g", "{methods: [GET]}")
PLAIN = split("web", **{"web-v1": 1})


def reasons(*objects: Object) -> list[tuple[str, str]]:
    return [(one.key.name, one.reason) for one in problems(Traffic.of([*WEB, *objects]))]


def again_as(name: str, obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "name": name}}


SHADOWED = again_as("zweb", split("web", **{"web-v2": 1}))

CORS = "{matches: [{path: {value: /a}}], filters: [{type: CORS, cors: {}}], backendRefs: [{name: web-v1, port: 80}]}"


def for_a_share(filter_: str) -> str:
    """Two backends, of which the second has a filter of its own."""
    return f"{{backendRefs: [{{name: web-v1, port: 80}}, {{name: web-v2, port: 80, filters: [{filter_}]}}]}}"


MIRRORED_SHARE = for_a_share("{type: RequestMirror, requestMirror: {backendRef: {name: web-v3, port: 80}}}")

# objects, who is told which reason, where a GET for web goes all the same
CONTRADICTIONS: list[tuple[str, list[Object], list[tuple[str, str]], str]] = [
    (
        "two splits for one root",
        [PLAIN, again_as("zweb", split("web", **{"web-v2": 1}))],
        [("zweb", "ShadowedSplit")],
        "web-v1",
    ),
    (
        "two splits with equal matches",
        [GET, matching_split("a", "g", web_v1=1), matching_split("b", "g", web_v2=1)],
        [("b", "ShadowedSplit")],
        "web-v1",
    ),
    ("a split chain", [PLAIN, again_as("onward", split("web-v1", **{"web-v2": 1}))], [("web", "SplitChain")], "web-v1"),
    (
        "a split cycle",
        [PLAIN, again_as("back", split("web-v1", web=1))],
        [("back", "SplitChain"), ("web", "SplitChain")],
        "web-v1",
    ),
    ("a backend that is not there", [split("web", gone=1)], [("web", "BackendMissing")], "gone"),
    ("all weights zero", [split("web", **{"web-v1": 0, "web-v2": 0})], [("web", "AllWeightsZero")], ""),
    ("a group that is not there", [matching_split("a", "nobody", web_v1=1)], [("a", "MatchGroupMissing")], "web"),
    ("a root that is not there", [split("nothing", web=1)], [("nothing", "RootMissing")], "web"),
    ("a split beside a route", [PLAIN, http_route("r", to("web-v2"))], [("web", "ShadowedSplit")], "web-v2"),
    (
        "a rule that another one covers",
        [http_route("a", to("web-v1")), http_route("b", to("web-v2"))],
        [("b", "ShadowedRule")],
        "web-v1",
    ),
    ("a route to no backend that is there", [http_route("r", to("gone"))], [("r", "BackendMissing")], "500"),
    (
        "a route to a port that is not there",
        [http_route("r", "{backendRefs: [{name: web, port: 9}]}")],
        [("r", "BackendNotFound")],
        "500",
    ),
    ("a route to something else", [http_route("r", "{backendRefs: [{kind: Bucket, name: b}]}")], [("r", "InvalidKind")], "500"),
    ("a route without backends", [http_route("r", "{}")], [("r", "NoBackend")], "500"),
    (
        "a route of weights zero",
        [http_route("r", "{backendRefs: [{name: web, port: 80, weight: 0}]}")],
        [("r", "AllWeightsZero")],
        "500",
    ),
    (
        "a parent that is not there",
        [http_route("r", to("web-v1"), parent="{group: '', kind: Service, name: nothing}")],
        [("r", "ParentMissing")],
        "web",
    ),
    (
        "a parent without the port",
        [http_route("r", to("web-v1"), parent="{group: '', kind: Service, name: web, port: 9}")],
        [("r", "ParentPortMissing")],
        "web",
    ),
    (
        "routes of two kinds on one port",
        [http_route("r", to("web-v1")), route("GRPCRoute", "g", "{backendRefs: [{name: web-v2, port: 80}]}")],
        [("r", "RouteConflicted")],
        "web-v2",
    ),
    ("a filter we do not have", [http_route("r", CORS, to("web-v2"))], [("r", "UnsupportedFilter")], "web-v2"),
    ("a share that is mirrored", [http_route("r", MIRRORED_SHARE)], [("r", "UnsupportedFilter")], "web-v1+500"),
    (
        "a share that is redirected",
        [http_route("r", for_a_share("{type: RequestRedirect, requestRedirect: {port: 81}}"))],
        [("r", "UnsupportedFilter")],
        "web-v1+500",
    ),
    (
        "a share that is rewritten, to nothing new",
        [http_route("r", for_a_share("{type: URLRewrite, urlRewrite: {}}"))],
        [("r", "UnsupportedFilter")],
        "web-v1+500",
    ),
]


IDS = [row[0] for row in CONTRADICTIONS]


@pytest.mark.parametrize(("objects", "expected", "goes"), [row[1:] for row in CONTRADICTIONS], ids=IDS)
def test_a_contradiction_has_one_outcome_and_one_telling(
    objects: list[Object], expected: list[tuple[str, str]], goes: str
) -> None:
    assert sorted(reasons(*objects)) == sorted(expected)
    assert goes_to(service_entry(*objects)) == goes


@pytest.mark.parametrize("objects", [row[1] for row in CONTRADICTIONS], ids=IDS)
def test_a_contradiction_changes_nothing_for_another_service(objects: list[Object]) -> None:
    bystander = service("bystander")
    key = (mesh_pb2.SERVICE, "shop/bystander")
    alone = compiled(*WEB, *ENDPOINTS, bystander).resources[key]
    assert compiled(*WEB, *ENDPOINTS, bystander, *objects).resources[key].hash == alone.hash


def test_what_is_right_is_not_told() -> None:
    right = [GET, matching_split("a", "g", web_v1=1, web_v2=1), split("web", web=9, **{"web-v1": 1})]
    assert reasons(*right) == []
    assert reasons(http_route("r", to("web-v1", "{path: {value: /a}}"), to("web-v2"))) == []


BYTES = {"port": 5432, "name": "sql", "appProtocol": "TCP"}
SEEN = {"port": 80, "name": "http", "appProtocol": "http"}


@pytest.mark.parametrize(
    ("ports", "parent", "told"),
    [
        ([BYTES], "{group: '', kind: Service, name: web}", True),
        ([BYTES, SEEN], "{group: '', kind: Service, name: web, port: 5432}", True),
        ([BYTES, SEEN], "{group: '', kind: Service, name: web, sectionName: sql}", True),
        ([BYTES, SEEN], "{group: '', kind: Service, name: web, port: 80}", False),
        ([BYTES, SEEN], "{group: '', kind: Service, name: web}", False),  # those of its ports that are HTTP
        ([{"port": 5432}], "{group: '', kind: Service, name: web}", False),  # nobody knows before a connection speaks
    ],
)
def test_a_route_for_a_port_that_carries_bytes_is_told(ports: list[Object], parent: str, told: bool) -> None:
    objects = [service("web", *ports), service("web-v1"), http_route("r", to("web-v1"), parent=parent)]
    found = [one for one in problems(Traffic.of(objects)) if one.key.name == "r"]
    assert [(one.reason, one.path) for one in found] == ([("OpaquePort", ("spec", "parentRefs", 0))] if told else [])
    if told:
        assert found[0].message.startswith("port 5432 (appProtocol TCP) is carried as bytes: ")


def test_a_split_with_matches_where_all_ports_carry_bytes_is_told() -> None:
    matching = matching_split("a", "g", web_v1=1)
    backends = [service("web-v1", BYTES), GET]
    assert [one.reason for one in problems(Traffic.of([service("web", BYTES), *backends, matching]))] == ["OpaquePort"]
    plain = split("web", **{"web-v1": 1})
    assert problems(Traffic.of([service("web", BYTES), *backends, plain])) == []


def test_lint_says_the_same() -> None:
    (line,) = [line for line in told(PLAIN, SHADOWED) if line.startswith("TrafficSplit")]
    assert line == "TrafficSplit zweb: web is already split by web, which is older, or first by name: this one has no effect"


def test_lint_tells_a_filter_that_is_not_supported_with_its_outcome() -> None:
    for rule, line in (
        (CORS, "CORS is not supported: the rule's requests are answered with 500"),
        (MIRRORED_SHARE, "RequestMirror is not supported for one backend: its share is answered with 500"),
    ):
        assert [one for one in told(http_route("r", rule)) if one.startswith("HTTPRoute")] == [f"HTTPRoute r: {line}"]


def test_a_headless_service_takes_no_route() -> None:
    headless = service("web")
    headless["spec"]["clusterIP"] = "None"
    objects = [headless, *WEB[1:], http_route("r", to("web-v1"))]
    assert [one.reason for one in problems(Traffic.of(objects))] == ["ParentNotSupported"]


def test_of_matches_without_end_the_first_ones_hold_and_that_is_told() -> None:
    routes = []
    for number in range(5):
        matches = ", ".join(f"{{path: {{value: /r{number}/m{one}}}}}" for one in range(120))
        routes.append(http_route(f"r{number}", f"{{matches: [{matches}], backendRefs: [{{name: web-v1, port: 80}}]}}"))
    assert reasons(*routes) == [("web", "TooManyMatches")]
    entry = service_entry(*routes)
    assert entry.matches is not None
    assert len(entry.matches.all) == MAX_CANDIDATES


# ---------------------------------------------------------------- conditions


def of(*objects: Object) -> list[tuple[str, str, str]]:
    """(type, status, reason) of the first route's first parent."""
    traffic = Traffic.of([*WEB, *objects])
    first = traffic.routes[0]
    return [(one.type, str(one.status), one.reason) for one in conditions(first, first.spec.parent_refs[0], traffic)]


GOOD = [("Accepted", "True", "Accepted"), ("ResolvedRefs", "True", "ResolvedRefs")]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([http_route("r", to("web-v1"))], GOOD),
        ([http_route("r", to("gone"))], [GOOD[0], ("ResolvedRefs", "False", "BackendNotFound")]),
        ([http_route("r", "{backendRefs: [{name: web, port: 9}]}")], [GOOD[0], ("ResolvedRefs", "False", "BackendNotFound")]),
        ([http_route("r", "{backendRefs: [{kind: Bucket, name: b}]}")], [GOOD[0], ("ResolvedRefs", "False", "InvalidKind")]),
        (
            [http_route("r", to("web-v1"), parent="{group: '', kind: Service, name: nothing}")],
            [("Accepted", "False", "NoMatchingParent"), GOOD[1]],
        ),
        (
            [http_route("r", to("web-v1"), parent="{group: '', kind: Service, name: web, port: 9}")],
            [("Accepted", "False", "NoMatchingParent"), GOOD[1]],
        ),
        (
            [http_route("r", to("web-v1")), route("GRPCRoute", "g", "{backendRefs: [{name: web-v2, port: 80}]}")],
            [("Accepted", "False", "Conflicted"), GOOD[1]],
        ),
        (
            [http_route("r", to("web-v1", "{path: {type: RegularExpression, value: '('}}"))],
            [("Accepted", "False", "UnsupportedValue"), GOOD[1]],
        ),
        (
            [http_route("r", to("web-v1", "{path: {type: RegularExpression, value: '('}}"), to("web-v2"))],
            [*GOOD, ("PartiallyInvalid", "True", "UnsupportedValue")],
        ),
        ([http_route("r", MIRRORED_SHARE)], [*GOOD, ("PartiallyInvalid", "True", "UnsupportedValue")]),
        ([http_route("r", CORS, to("web-v2"))], [*GOOD, ("PartiallyInvalid", "True", "UnsupportedValue")]),
        ([http_route("r", CORS)], [("Accepted", "False", "UnsupportedValue"), GOOD[1]]),
    ],
)
def test_the_conditions_are_the_specifications(objects: list[Object], expected: list[tuple[str, str, str]]) -> None:
    assert of(*objects) == expected


LEDGER = "{name: ledger, namespace: billing, port: 80}"
COPY = f"{{type: RequestMirror, requestMirror: {{backendRef: {LEDGER}}}}}"
GRANT = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "ReferenceGrant",
    "metadata": {"name": "not-for-us", "namespace": "billing"},
    "spec": {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "gateways"}],
        "to": [{"group": "", "kind": "Service", "name": "other"}],
    },
}


@pytest.mark.parametrize("grants", [[], [GRANT]], ids=["no grant", "a grant for others"])
@pytest.mark.parametrize(
    "made",
    [
        http_route("r", f"{{backendRefs: [{LEDGER}]}}"),
        route("GRPCRoute", "r", f"{{backendRefs: [{LEDGER}]}}"),
        http_route("r", f"{{filters: [{COPY}], backendRefs: [{{name: web-v1, port: 80}}]}}"),
    ],
    ids=["HTTPRoute", "GRPCRoute", "mirror"],
)
def test_a_route_of_a_service_sends_to_any_namespace_without_a_reference_grant(made: Object, grants: list[Object]) -> None:
    """GEP-1294, "Namespace boundaries": a grant is for routes of a Gateway."""
    ledger = in_namespace("billing", service("ledger"))
    assert reasons(made, ledger, *grants) == []
    assert of(made, ledger, *grants) == GOOD
    entry = service_entry(made, ledger, *grants)
    (rule,) = (one for one in entry.routes.values() if one.spec.name.startswith(made["kind"]))
    (leaf,) = [one.backend for one in rule.mirrors] or rule.backends
    assert (leaf.key, leaf.refuse) == ("billing/ledger:80", 0)
    assert of(made, service("ledger"))[1] == (
        "ResolvedRefs",
        "False",
        "BackendNotFound",
    )  # one of that name at home is no other


def in_namespace(namespace: str, obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}


def test_a_backend_that_a_route_cannot_reach_anyway_is_not_told_to_be_empty() -> None:
    """Its share gets 500 whoever is ready: `BackendEmpty` would say 503."""
    ready = Traffic.of(
        [*WEB, *ENDPOINTS, service("late"), http_route("r", "{backendRefs: [{name: late, port: 9}]}")], live=True
    )
    assert [one.reason for one in problems(ready)] == ["BackendNotFound"]
    ready = Traffic.of([*WEB, *ENDPOINTS, service("late"), http_route("r", CORS.replace("web-v1", "late"))], live=True)
    assert [one.reason for one in problems(ready)] == ["UnsupportedFilter"]
    ready = Traffic.of([*WEB, *ENDPOINTS, service("late"), http_route("r", to("late"))], live=True)
    assert [one.reason for one in problems(ready)] == ["BackendEmpty"]


def written(obj: Object, now: str, *objects: Object) -> list[dict[str, Any]]:
    traffic = Traffic.of([*WEB, obj, *objects])
    read: Any = parse_http_route if obj["kind"] == "HTTPRoute" else parse_grpc_route
    parsed = next(one for one in traffic.routes if one.metadata.name == obj["metadata"]["name"])
    assert read(obj) == parsed
    return status_of(parsed, obj, traffic, now)


def test_the_status_names_parent_controller_and_generation_and_keeps_the_time_of_what_did_not_turn() -> None:
    obj = http_route("r", to("late"), generation=3)  # type: ignore[arg-type]
    (entry,) = written(obj, "2026-01-01T00:00:00Z")
    assert entry["parentRef"] == obj["spec"]["parentRefs"][0]
    assert entry["controllerName"] == "meshproxy.dev/mesh"
    assert [one["observedGeneration"] for one in entry["conditions"]] == [3, 3]
    later = {**obj, "status": {"parents": [entry]}}
    (entry,) = written(later, "2026-01-02T00:00:00Z", service("late"))
    assert {one["type"]: one["lastTransitionTime"][:10] for one in entry["conditions"]} == {
        "Accepted": "2026-01-01",
        "ResolvedRefs": "2026-01-02",
    }


def test_the_status_of_other_controllers_is_left_alone() -> None:
    theirs = {"controllerName": "gate.example/gate", "parentRef": {"name": "gate"}, "conditions": []}
    obj = {**http_route("r", to("web")), "status": {"parents": [theirs]}}
    found = written(obj, "2026-01-01T00:00:00Z")
    assert found[0] == theirs
    assert len(found) == 2
