"""Splitting through two real sidecars: by request and connection, which split decides, empty backends, users who stay."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any

import pytest
from mesh_manifests import NAMESPACE, Object, split
from mesh_policy import World, front, ours, route, to
from mesh_run import until

APEXES = ("even", "tenth", "lines", "chosen", "empty", "given", "stay")


def group(name: str, **match: Any) -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "HTTPRouteGroup",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"matches": [{"name": "all", **match}]},
    }


def named(name: str, one: Object, *groups: str, **annotations: str) -> Object:
    one["metadata"] = {**one["metadata"], "name": name, "annotations": ours(annotations)}
    if groups:
        one["spec"]["matches"] = [{"kind": "HTTPRouteGroup", "name": name} for name in groups]
    return one


def sticky(one: int, two: int) -> Object:
    return named("stay", split("stay", one=one, two=two), sticky="cookie=user")


FIXED = [
    *[front(name) for name in APEXES],
    front("nobody", "none"),
    split("even", one=1, two=1),
    split("tenth", one=9, two=1),
    split("lines", one=3, two=1),
    # Of the four that fit GET /api by a tester the one that says most decides, whatever its name.
    group("testers", methods=["GET"], pathRegex="/api", headers={"x-tester": "yes"}),
    group("readers", methods=["GET"], pathRegex="/api"),
    group("anyone", pathRegex="/api"),
    named("a-anyone", split("chosen", one=1), "anyone"),
    named("b-readers", split("chosen", two=1), "readers"),
    named("c-testers", split("chosen", three=1), "testers"),
    named("d-rest", split("chosen", one=1)),
    named("empty", split("empty", one=1, nobody=1)),
    named("given", split("given", one=1, nobody=1, two=0), empty_backend="redistribute"),
]


@pytest.fixture(scope="module")
def splits(policy_mesh: World) -> World:
    def told() -> bool:
        return all({"backends", "routes"} & set(policy_mesh.resource(name)) for name in APEXES)

    policy_mesh.declare("splits", *FIXED, sticky(9, 1), until_told=told)
    policy_mesh.reset()
    return policy_mesh


def assert_event(world: World, *words: str) -> None:
    def told() -> bool:
        said = world.mesh.verb("get", "events", "-n", NAMESPACE, "--name", world.mesh.name).stdout
        return any(all(word in line for word in words) for line in said.splitlines()[1:])

    until(told, f"an Event with {words}", 20)


# ---------------------------------------------------------------- by request


def test_a_client_that_sends_in_a_pattern_does_not_lock_on_to_a_backend(splits: World) -> None:
    """Two kinds of requests in turn, half and half: were blocks in a fixed order, each kind would have one backend."""
    pairs = [(splits.who("even", id="first"), splits.who("even", id="second")) for _ in range(150)]
    assert all(set(pair) == {"one", "two"} for pair in pairs), "each block of two is exact"
    first = sum(pair[0] == "two" for pair in pairs)
    assert 35 <= first <= 115, "75 are expected; further away once in ten billion runs"


def test_a_client_whose_period_is_the_block_finds_the_canary_in_every_place(splits: World) -> None:
    blocks = [[splits.who("tenth") for _ in range(10)] for _ in range(40)]
    assert {block.count("two") for block in blocks} == {1}
    places = Counter(block.index("two") for block in blocks)
    assert max(places.values()) <= 16, "four are expected"


def test_what_says_most_decides_between_splits_and_what_fits_none_goes_on(splits: World) -> None:
    def who(path: str, method: str = "GET", **headers: str) -> str:
        return str(splits.ask("chosen", method, path=path, headers=headers).json["pod"]).split("-")[1]

    assert who("/api/x", **{"x-tester": "yes"}) == "three"
    assert who("/api/x", **{"x-tester": "no"}) == "two"
    assert who("/api/x", "POST") == "one"
    assert who("/do") == "one"


def test_routes_come_before_splits(splits: World) -> None:
    routed = route("chosen", to(("three", 1), matches=[{"path": {"value": "/api"}}]), to(("two", 1)))
    splits.declare("over", routed, until_told=lambda: "three" in json.dumps(splits.resource("chosen").get("routes", [])[:1]))
    try:
        until(lambda: splits.ask("chosen", path="/do").json["pod"].startswith("web-two"), "the route to be in force")
        assert splits.ask("chosen", path="/api", method="POST").json["pod"].startswith("web-three")
    finally:
        (splits.mesh.manifests / "over.yaml").unlink()
        until(lambda: splits.ask("chosen", path="/do").json["pod"].startswith("web-one"), "the splits to be in force again")


# ---------------------------------------------------------------- backends without endpoints


def test_the_share_of_a_backend_without_endpoints_fails_at_once_and_is_counted_against_it(splits: World) -> None:
    labels = {"backend": f"{NAMESPACE}/nobody:80"}
    before = splits.page().total("meshproxy_backend_empty_total", **labels)
    assert splits.share("empty", 40) == {"one": 20, "503 no_endpoints": 20}
    assert splits.page().total("meshproxy_backend_empty_total", **labels) == before + 20
    assert_event(splits, "trafficsplit/empty", "BackendEmpty")


def test_declared_so_its_share_goes_to_the_others_that_have_a_weight(splits: World) -> None:
    assert splits.share("given", 40) == {"one": 40}
    assert splits.page().total("meshproxy_backend_redistributed", backend=f"{NAMESPACE}/nobody:80") == 1
    assert_event(splits, "trafficsplit/given", "BackendEmpty")


# ---------------------------------------------------------------- users


def test_a_user_stays_with_one_backend_and_who_has_the_canary_keeps_it_when_its_share_grows(splits: World) -> None:
    def homes() -> dict[int, str]:
        found = {}
        for user in range(60):
            asked = {splits.who("stay", headers={"cookie": f"a=b; user={user}"}) for _ in range(2)}
            assert len(asked) == 1
            found[user] = asked.pop()
        return found

    few = homes()
    assert 0 < sum(home == "two" for home in few.values()) < 30, "six are expected"

    def weights() -> list[int]:
        return [int(one.get("weightMilli", 0)) // 1000 for one in splits.resource("stay")["backends"]]

    splits.declare("splits", *FIXED, sticky(1, 1), until_told=lambda: weights() == [1, 1])
    more = homes()
    assert {user for user, home in few.items() if home == "two"} < {user for user, home in more.items() if home == "two"}


# ---------------------------------------------------------------- by connection


def test_what_is_carried_as_bytes_is_split_by_connection(splits: World) -> None:
    for resource in splits.mesh.config(splits.client.ip)["resources"]:
        for listener in resource["content"].get("workload", {}).get("listeners", []):
            if listener["service"] == f"{NAMESPACE}/lines" and listener["port"] == 7000:
                host, _, port = listener["address"].rpartition(":")
    homes = []
    for _ in range(20):
        with socket.create_connection((host, int(port)), 30) as connection, connection.makefile("rw") as both:
            said = []
            for _ in range(3):
                both.write("who\n")
                both.flush()
                said.append(both.readline().split("-")[1])
            assert len(set(said)) == 1, "all of a connection goes one way"
            homes.append(said[0])
    assert [homes[at : at + 4].count("two") for at in range(0, 20, 4)] == [1] * 5
