"""The times a Service declares, and deadlines that go on, through two real sidecars: told by name, cancelled at the app."""

from __future__ import annotations

from typing import Any

import pytest
from mesh_manifests import NAMESPACE
from mesh_policy import World, front, route, to
from mesh_run import request, until
from test_e2e_retries import call

LEFT = "x-envoy-expected-rq-timeout-ms"

SERVICES = [
    front("begins", "one", timeout_response_start="400ms"),
    front("again", "one", timeout_response_start="400ms", retry_http="504"),
    front("whole", "one", timeout_response="400ms"),
    front("quiet", "one", timeout_idle="400ms"),
    front("hops", "one", timeout_request="5s", timeout_propagate="true"),
    front("bare", "one"),
    front("routed", "one", timeout_response_start="200ms"),
]
ROUTED = route("routed", to(("routed", 1)), annotations={"timeout.linkerd.io/response": "400ms"})


@pytest.fixture(scope="module", autouse=True)
def times(policy_mesh: World) -> None:
    policy_mesh.mesh.write("times", *SERVICES, ROUTED)
    names = [one["metadata"]["name"] for one in SERVICES]
    until(lambda: all(policy_mesh.resource(name) and policy_mesh.addresses(name) for name in names), "the Services")


def refused(world: World, reason: str) -> float:
    found: float = world.page().total("meshproxy_refused_total", reason=reason, direction="outbound")
    return found


def gone(world: World, name: str) -> None:
    until(lambda: name in world.seen("one")["gone"], "the app to be told")


@pytest.mark.parametrize(
    ("service", "reason"),
    [("begins", "response_start_timeout"), ("whole", "response_timeout"), ("quiet", "idle_timeout")],
)
def test_each_time_is_504_by_its_name_counted_by_it_and_cancelled_at_the_app(world: World, service: str, reason: str) -> None:
    before = refused(world, reason)
    answer = world.ask(service, hold=1, id=service)
    assert (answer.status, answer.headers["mesh-error"]) == (504, reason)
    assert refused(world, reason) == before + 1
    gone(world, service)
    assert world.ask(service, id="in time").status == 200


def test_what_a_route_declares_of_times_takes_the_place_of_its_services(world: World) -> None:
    answer = world.ask("routed", hold=1, id="routed")
    assert (answer.status, answer.headers["mesh-error"]) == (504, "response_timeout")
    gone(world, "routed")


def test_an_answer_that_does_not_begin_is_tried_again_where_that_is_declared(world: World) -> None:
    assert world.ask("again", hold=1, times=1, id="again").status == 200
    assert world.came("again") == {"one": 2}
    assert world.seen("one")["gone"] == ["again"]


async def test_a_grpc_call_is_told_the_same_by_status_and_message(world: World) -> None:
    for service, reason in (("begins", "response_start_timeout"), ("quiet", "idle_timeout")):
        said = await call(world, service, id=service, hold=True)
        assert said.startswith("DEADLINE_EXCEEDED")
        assert reason in said


def test_a_request_has_the_time_its_client_gives_it_and_its_app_sees_what_is_left(world: World) -> None:
    answer = world.ask("bare", hold=1, id="short", headers={LEFT: "400"})
    assert (answer.status, answer.headers["mesh-error"]) == (504, "deadline_exceeded")
    gone(world, "short")
    (seen,) = world.seen("one")["ids"]["short"]
    assert 1 <= int(seen["headers"][LEFT]) <= 400
    assert world.ask("bare", id="none").status == 200
    assert world.ask("bare", id="bad", headers={LEFT: "soon"}).status == 200
    for name in ("none", "bad"):
        assert LEFT not in world.seen("one")["ids"][name][0]["headers"]


def test_a_try_that_was_too_long_comes_off_what_is_left(world: World) -> None:
    assert world.ask("again", hold=1, times=1, id="left", headers={LEFT: "20000"}).status == 200
    first, second = [int(one["headers"][LEFT]) for one in world.seen("one")["ids"]["left"]]
    assert 15_000 < first <= 20_000
    assert second <= first - 390, "the first try had 0.4 s"


def test_a_pods_own_sidecar_keeps_the_deadline_whoever_asks(world: World) -> None:
    """The gate lets in everyone, also from outside the mesh."""
    gate = world.mesh.pod("gate")
    at_once = request(gate.ip, 4143, "GET", "/do?hold=1&id=outside", headers={"host": "gate:8080", LEFT: "300"})
    assert (at_once.status, at_once.headers["mesh-error"]) == (504, "deadline_exceeded")
    until(lambda: "outside" in request(gate.ip, 8080, "GET", "/seen").json["gone"], "the app to be told")


async def test_a_service_that_says_so_sends_its_timeout_on(world: World) -> None:
    assert world.ask("hops", id="web").status == 200
    assert await call(world, "hops", id="call") == "OK"
    ids: dict[str, Any] = world.seen("one")["ids"]
    assert 1 <= int(ids["web"][0]["headers"][LEFT]) <= 5000
    assert 0.0 < ids["call"][0]["left"] <= 5.1


def test_explain_tells_them(world: World) -> None:
    asked = ("--from", "deploy/client", "-n", NAMESPACE, "--name", world.mesh.name)
    text = world.mesh.verb("explain", "GET", "http://begins/", "-H", f"{LEFT}: 1500", *asked).stdout
    assert "timeouts   answer begins within 400ms, the request's own deadline 1500 ms" in text
