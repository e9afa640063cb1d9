"""Retries, their budget, and times, through two real sidecars: counted at the apps, which say how often a request came.

An app fails a request as its query says, the first `times` times.  "web" below is web-one and web-two.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from typing import Any

import grpc
import pytest
from mesh_manifests import NAMESPACE, Object, split
from mesh_policy import CLOSED, World, at, front, route, to
from mesh_run import until

GRPC_PORT = 9090

SERVICES = [
    front("lost", "hand"),  # web-one, and an address of web-two at which nobody listens
    front("refused", "hand"),  # web-one, and a port of web-two at which no app listens
    front("plain", "one"),
    front("declared", "one", retry_http="5xx", retry_limit="2"),
    front("gateways", "one", retry_http="gateway-error"),
    front("calls", "one", retry_grpc="unavailable,deadline-exceeded", retry_limit="2"),
    front("limited", "one", timeout_request="700ms"),
    front("halves", retry_http="5xx", retry_limit="5"),
    split("halves", one=1, two=1),
    front("outage", "hand"),
    front("tries", "one"),
    front("timed", "one", retry_grpc="deadline-exceeded"),
    front("backs", "one"),
    front("late", "one"),
    front("orders", "one"),
]


def retrying(codes: list[int], attempts: int, **more: Any) -> Object:
    return {"retry": {"codes": codes, "attempts": attempts, **more}}


def outage(timeout: str) -> Object:
    return route("outage", to(("outage", 1), timeouts={"request": timeout}, **retrying([503], 10, backoff="0s")))


ROUTES = [
    route(
        "tries",
        to(
            ("tries", 1),
            matches=[{"path": {"value": "/api/again"}}],
            timeouts={"backendRequest": "700ms"},
            retry={"attempts": 2},
        ),
        to(("tries", 1), timeouts={"backendRequest": "700ms"}),
    ),
    route("timed", to(("timed", 1), port=GRPC_PORT, timeouts={"backendRequest": "700ms"})),
    route("orders", to(("orders", 1), matches=[{"method": "POST"}], **retrying([503], 1)), to(("orders", 1))),
    route("backs", to(("backs", 1), **retrying([503], 3, backoff="100ms"))),
]


@pytest.fixture(scope="module", autouse=True)
def retries(policy_mesh: World) -> None:
    web = policy_mesh.web
    dead = web["two"].ip.rpartition(".")[0] + ".250"
    slices = [at("lost", [(web["one"], ""), (web["two"], dead)]), at("outage", [(web["one"], ""), (web["two"], "")])]
    policy_mesh.mesh.write("refused", at("refused", [(web["one"], "")]), at("refused", [(web["two"], "")], CLOSED))
    policy_mesh.mesh.write("retries", *SERVICES, *ROUTES, *slices, outage("60s"))
    until(lambda: policy_mesh.addresses("lost") == {web["one"].ip, dead}, "the endpoints")
    until(lambda: all(len(policy_mesh.addresses(name)) == 2 for name in ("refused", "outage")), "the endpoints")
    until(
        lambda: all(policy_mesh.resource(name).get("routes") for name in ("tries", "timed", "backs", "orders", "outage")),
        "the routes",
    )
    until(lambda: policy_mesh.resource("halves").get("backends"), "the split")


def listener(world: World, name: str) -> str:
    """Where the client's sidecar listens for gRPC to a Service."""
    for resource in world.mesh.config(world.client.ip)["resources"]:
        for one in resource["content"].get("workload", {}).get("listeners", []):
            if one["service"] == f"{NAMESPACE}/{name}" and one["port"] == GRPC_PORT:
                return str(one["address"])
    raise AssertionError(name)


async def call(world: World, name: str, patience: float = 30.0, **told: Any) -> str:
    """The status of a call (OK or a code's name) with what was said of it."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(await asyncio.to_thread(listener, world, name), options=options) as channel:
        try:
            await channel.unary_unary("/e2e.Puppet/Do")(json.dumps(told).encode(), timeout=patience)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
        return "OK"


def skipped(world: World, reason: str) -> float:
    found: float = world.page().total("route_retry_skipped_total", reason=reason)
    return found


# ---------------------------------------------------------------- which failures


def test_what_could_not_connect_is_tried_elsewhere_whatever_the_method(world: World) -> None:
    before = world.page().total("route_retry_total")
    assert [world.ask("lost", "POST", b"body", id=f"lost-{number}").status for number in range(12)] == [200] * 12
    assert world.came(*[f"lost-{number}" for number in range(12)]) == {"one": 12}
    assert world.page().total("route_retry_total") > before


def test_what_no_app_took_is_tried_elsewhere_whatever_the_method(world: World) -> None:
    """The far sidecar is there, its app is not: it refuses the stream, so that the caller's may ask another."""
    before = world.page().total("route_retry_total")
    assert [world.ask("refused", "POST", b"body", id=f"refused-{number}").status for number in range(12)] == [200] * 12
    assert world.came(*[f"refused-{number}" for number in range(12)]) == {"one": 12}
    assert world.page().total("route_retry_total") > before
    refused = world.mesh.metrics(world.web["two"].ip).total("meshproxy_refused_total", reason="connect_failed")
    assert refused > 0, "nothing was sent there"


def test_an_answer_is_tried_again_only_where_that_is_declared(world: World) -> None:
    assert world.ask("plain", status=503, times=1, id="plain").status == 503
    assert world.ask("declared", status=503, times=2, id="declared").status == 200
    assert world.ask("declared", status=503, id="always").status == 503
    assert world.ask("gateways", status=502, times=1, id="gateway").status == 200
    assert world.ask("gateways", status=500, times=1, id="own").status == 500
    came = {name: world.came(name)["one"] for name in ("plain", "declared", "always", "gateway", "own")}
    assert came == {"plain": 1, "declared": 3, "always": 3, "gateway": 2, "own": 1}


def test_what_may_have_been_done_is_not_done_twice(world: World) -> None:
    before = skipped(world, "not_idempotent")
    assert world.ask("declared", "POST", b"pay", status=503, times=1, id="pay").status == 503
    assert world.came("pay") == {"one": 1}
    assert skipped(world, "not_idempotent") == before + 1
    assert world.ask("declared", "PUT", b"put", status=503, times=1, id="put").status == 200


def test_a_post_is_done_again_where_its_rule_declares_that(world: World) -> None:
    assert world.ask("orders", "POST", b"order", status=503, times=1, id="order").status == 200
    assert world.ask("orders", "PATCH", b"change", status=503, times=1, id="change").status == 503
    assert [world.came(name) for name in ("order", "change")] == [{"one": 2}, {"one": 1}]


async def test_a_grpc_call_is_tried_again_for_the_codes_that_are_declared(world: World) -> None:
    assert await call(world, "calls", id="unavailable", code="UNAVAILABLE", times=1) == "OK"
    assert (await call(world, "calls", id="internal", code="INTERNAL", times=1)).startswith("INTERNAL")
    assert (await call(world, "plain", id="plain", code="UNAVAILABLE", times=1)).startswith("UNAVAILABLE")
    assert [world.came(name) for name in ("unavailable", "internal", "plain")] == [{"one": 2}, {"one": 1}, {"one": 1}]


def test_a_retry_stays_with_its_backend_so_that_a_bad_canary_is_seen(world: World) -> None:
    world.mood("two", status=500)
    ids = [f"half-{number}" for number in range(20)]
    answers = [world.ask("halves", id=name) for name in ids]
    assert sorted(answer.status for answer in answers) == [200] * 10 + [500] * 10
    failed = [name for name, answer in zip(ids, answers, strict=True) if answer.status == 500]
    assert world.came(*failed).keys() == {"two"}
    assert world.came(*failed)["two"] > len(failed), "they were tried again, there"


def test_two_that_both_say_when_to_come_back_are_asked_once_each(world: World) -> None:
    answer = world.ask("outage", status=503, retry_after=5, id="both")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert world.came("both") == {"one": 1, "two": 1}, "ten further tries were declared"


# ---------------------------------------------------------------- how much


RATIO, FLOOR, TTL = 0.2, 10.0, 10.0  # of the budget: retries a request, retries a second, seconds


def test_an_outage_is_amplified_by_no_more_than_the_budget_which_survives_a_new_configuration(world: World) -> None:
    for name in ("one", "two"):
        world.mood(name, status=503)
    before, began = skipped(world, "no_budget"), time.monotonic()

    def spent(count: int) -> int:
        """Retries of so many requests that all fail."""
        at_apps = sum(world.seen(name)["asked"] for name in ("one", "two"))
        assert {world.ask("outage").status for _ in range(count)} == {503}
        return int(sum(world.seen(name)["asked"] for name in ("one", "two")) - at_apps - count)

    retries = spent(300)
    assert retries <= RATIO * 300 + FLOOR * (TTL + time.monotonic() - began), "ten a request were declared"
    assert retries >= 100, "it had the reserve of a quiet time"
    assert skipped(world, "no_budget") > before
    began = time.monotonic()
    slices = [at("outage", [(world.web["one"], ""), (world.web["two"], "")])]
    world.mesh.write("retries", *SERVICES, *ROUTES, *slices, outage("50s"))
    until(lambda: "50000" in json.dumps(world.resource("outage")), "the new configuration")
    assert spent(50) <= RATIO * 50 + FLOOR * (time.monotonic() - began) + 2, (
        "a new budget would have had a hundred to begin with"
    )


def test_between_two_tries_there_is_a_wait_that_grows(world: World) -> None:
    assert world.ask("backs", status=503, times=3, id="backs").status == 200
    came = [one["at"] for one in world.seen("one")["ids"]["backs"]]
    waits = [after - before for before, after in pairwise(came)]
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, (0.09, 0.19, 0.39), strict=True)), waits


def test_who_is_told_to_come_back_later_is_not_hurried(world: World) -> None:
    before = skipped(world, "retry_after")
    answer = world.ask("backs", status=503, times=1, retry_after=5, id="later")
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert world.came("later") == {"one": 1}
    assert skipped(world, "retry_after") == before + 1


# ---------------------------------------------------------------- times


def test_a_request_whose_time_is_up_is_504_by_name_and_cancelled_at_the_app(world: World) -> None:
    answer = world.ask("limited", hold=1, id="limited")
    assert (answer.status, answer.headers["mesh-error"]) == (504, "request_timeout")
    until(lambda: "limited" in world.seen("one")["gone"], "the app to be told")


def test_a_try_that_takes_too_long_is_cancelled_and_tried_again_or_named(world: World) -> None:
    answer = world.ask("tries", path="/api/again", hold=1, times=1, id="again")
    assert answer.status == 200
    assert world.came("again") == {"one": 2}
    until(lambda: world.seen("one")["gone"] == ["again"], "the first try to be cancelled, and only that")
    answer = world.ask("tries", hold=1, id="once")
    assert (answer.status, answer.headers["mesh-error"]) == (504, "try_timeout")
    assert world.came("once") == {"one": 1}


async def test_a_grpc_call_has_the_times_of_its_service_and_rule(world: World) -> None:
    said = await call(world, "limited", id="limited", hold=True)
    assert said.startswith("DEADLINE_EXCEEDED")
    assert "request_timeout" in said
    assert await call(world, "timed", id="tried", hold=True, times=1) == "OK"
    assert world.came("limited", "tried") == {"one": 3}


async def test_a_calls_own_deadline_goes_on_less_the_time_it_has_used(world: World) -> None:
    assert await call(world, "timed", 20.0, id="deadline", hold=True, times=1) == "OK"
    first, second = [one["left"] for one in world.seen("one")["ids"]["deadline"]]
    assert 19.0 < first <= 20.5
    assert second <= first - 0.6, "the first try had 0.7 s"
    said = await call(world, "plain", 1.0, id="over", hold=True)
    assert said.startswith("DEADLINE_EXCEEDED")
