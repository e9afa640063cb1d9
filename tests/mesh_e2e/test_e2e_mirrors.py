"""Copies of requests and injected faults through two real sidecars: what the client of the original notices."""

from __future__ import annotations

import hashlib
import os
from collections import Counter

import pytest
from mesh_manifests import NAMESPACE, Object
from mesh_policy import World, front, route, to
from mesh_run import until


def mirror(to_service: str, **share: object) -> Object:
    wanted = {"backendRef": {"name": to_service, "port": 80}, **share}
    return {"type": "RequestMirror", "requestMirror": wanted}


OBJECTS = [
    front("seen", "one"),
    front("some", "one"),
    front("faulty", "one", fault_abort="503 25%", fault_header="x-test=chaos"),
    front("slow", "one", fault_delay="100ms 50%"),
    route("seen", to(("seen", 1), filters=[mirror("two")])),
    route("some", to(("some", 1), filters=[mirror("two", fraction={"numerator": 1, "denominator": 4})])),
]
MIRRORED = f"HTTPRoute {NAMESPACE}/seen rule 0 mirror"


@pytest.fixture(scope="module", autouse=True)
def mirrors(policy_mesh: World) -> None:
    def told() -> bool:
        return all(policy_mesh.resource(name).get("routes") for name in ("seen", "some")) and bool(policy_mesh.resource("slow"))

    policy_mesh.declare("mirrors", *OBJECTS, until_told=told)
    until(lambda: all(policy_mesh.addresses(name) for name in ("seen", "some", "faulty", "slow")), "the endpoints")


def test_a_copy_has_the_body_and_its_answer_goes_nowhere(world: World) -> None:
    world.mood("two", status=500)
    bodies = {f"body-{size}": os.urandom(size) for size in (0, 1, 5_000, 300_000)}
    copies = world.page().total("route_request_total", rt_route=MIRRORED)
    for name, body in bodies.items():
        answer = world.ask("seen", "POST", body, id=name, headers={"x-kept": name})
        assert (answer.status, answer.json["pod"]) == (200, world.web["one"].name)
    until(lambda: world.came(*bodies) == {"one": len(bodies), "two": len(bodies)}, lambda: f"the copies: {world.came(*bodies)}")
    for name, body in bodies.items():
        for one in ("one", "two"):
            (seen,) = world.seen(one)["ids"][name]
            assert (seen["method"], seen["sha256"]) == ("POST", hashlib.sha256(body).hexdigest())
            assert seen["headers"]["x-kept"] == name
    page = world.page()
    assert page.total("route_request_total", rt_route=MIRRORED) == copies + len(bodies), "counted apart"
    assert page.total("route_response_total", rt_route=f"HTTPRoute {NAMESPACE}/seen rule 0", classification="failure") == 0


def test_a_copy_that_is_never_answered_holds_up_no_request(world: World) -> None:
    world.mood("two", ms=5_000)
    answers = [world.ask("seen", id=f"quick-{number}") for number in range(10)]
    assert {answer.json["pod"] for answer in answers} == {world.web["one"].name}
    under_way = world.page().total("route_request_total", rt_route=MIRRORED) - world.page().total(
        "route_response_total", rt_route=MIRRORED
    )
    assert under_way > 0, "all ten were answered while copies were still waiting"


def test_of_a_share_every_block_has_exactly_its_copies(world: World) -> None:
    ids = [f"some-{number}" for number in range(40)]
    assert {world.ask("some", id=name).status for name in ids} == {200}
    until(lambda: world.came(*ids) == {"one": 40, "two": 10}, "a quarter of them")


def test_an_abort_happens_to_its_share_of_the_requests_it_is_meant_for(world: World) -> None:
    assert world.share("faulty", 40) == {"one": 40}, "off unless it is asked for"
    found: Counter[str] = Counter()
    for _ in range(120):
        found[world.who("faulty", headers={"x-test": "chaos"})] += 1
    assert set(found) == {"one", "503 fault_injected"}
    assert 8 < found["503 fault_injected"] < 60, "thirty are expected"
    assert world.seen("one")["asked"] == 40 + found["one"], "what is aborted reaches no app"


def test_a_delay_happens_to_its_share_and_is_counted(world: World) -> None:
    before = world.page().total("meshproxy_faults_delayed_total")
    assert world.share("slow", 24) == {"one": 24}
    delayed = world.page().total("meshproxy_faults_delayed_total") - before
    assert 1 <= delayed <= 23, "twelve are expected"
