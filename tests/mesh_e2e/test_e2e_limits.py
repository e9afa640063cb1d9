"""What is too much, and who is left out, through two real sidecars: limits, priorities, ejection by rate, failing fast."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest
from mesh_manifests import NAMESPACE, rules, traffic_target
from mesh_policy import World, at, front
from mesh_run import Answer, request, until

LEAST = {"balancer": "least-request"}  # which by itself does not see that something fails
PENALTY = {"breaker_min_penalty": "60s", "breaker_max_penalty": "60s"}
EVERY = {**LEAST, **PENALTY, "breaker": "consecutive", "breaker_max_failures": "3"}
VIEWS = {
    "rate": {**LEAST, **PENALTY, "breaker": "unified", "breaker_success_rate": "0.7", "breaker_min_requests": "10"},
    "capped": EVERY,
    "fast": {**EVERY, "breaker_max_ejected": "1"},
}
ALL = ("one", "two", "three")
# A pod in mode deny takes nothing until this selects it.
ACCESS = [traffic_target("desk", "desk", "TCPRoute/any"), rules("TCPRoute", "any")]


@pytest.fixture(scope="module", autouse=True)
def limits(policy_mesh: World) -> Iterator[None]:
    for name, declared in VIEWS.items():
        endpoints = at(name, [(policy_mesh.web[one], "") for one in ALL])
        policy_mesh.mesh.write(name, front(name, "hand", **declared), endpoints)
    policy_mesh.mesh.write("access", *ACCESS)
    for name in VIEWS:
        until(lambda name=name: len(policy_mesh.addresses(name)) == 3, f"the endpoints of {name}")  # type: ignore[misc]
    # As who needs no place kept: what a class lately needed is kept for it.
    until(lambda: policy_mesh.who("desk", headers={"priority": "u=7"})[:3] not in ("403", "503"), "desk to be open")
    yield
    (policy_mesh.mesh.manifests / "access.yaml").unlink()
    until(lambda: policy_mesh.ask("desk").status == 403, "desk to be closed again")


# ---------------------------------------------------------------- ejection


def ejected(world: World, name: str, what: str = "meshproxy_endpoints_ejected") -> float:
    found: float = world.page().total(what, backend=f"{NAMESPACE}/{name}:80")
    return found


def test_an_endpoint_whose_success_rate_is_low_is_left_out_though_it_never_fails_often_in_a_row(world: World) -> None:
    world.mood("two", status=500, every=2)

    until(lambda: [world.ask("rate") for _ in range(30)] and ejected(world, "rate") == 1, "the ejection", 20)
    assert world.seen("two")["asked"] >= 10, "fewer are no rate"
    asked = world.seen("two")["asked"]
    assert world.share("rate", 30).keys() == {"one", "three"}
    assert world.seen("two")["asked"] == asked


def test_where_all_fail_no_more_than_half_are_left_out(world: World) -> None:
    for name in ALL:
        world.mood(name, status=503)
    until(
        lambda: [world.ask("capped") for _ in range(30)] and ejected(world, "capped", "meshproxy_ejections_spared_total"), "it"
    )
    assert ejected(world, "capped") == 1
    before = {name: world.seen(name)["asked"] for name in ALL}
    world.share("capped", 30)
    assert sum(world.seen(name)["asked"] > before[name] for name in ALL) == 2, "the others are still asked"


def test_with_all_left_out_requests_fail_at_once_and_reach_no_app(world: World) -> None:
    for name in ALL:
        world.mood(name, status=503)
    until(lambda: world.ask("fast").headers.get("mesh-error") == "circuit_open", "all to be out")
    assert ejected(world, "fast") == 3
    world.reset()
    answers = [world.ask("fast") for _ in range(20)]
    assert {(one.status, one.headers["mesh-error"], one.headers["retry-after"]) for one in answers} == {
        (503, "circuit_open", "1")
    }
    assert [world.seen(name)["asked"] for name in ALL] == [0, 0, 0]


# ---------------------------------------------------------------- limits


class Held:
    """Requests that an app holds, each on a connection of its own."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.pod = world.mesh.pod(name)
        self.pool = ThreadPoolExecutor(80)
        self.sent: list[Future[Answer]] = []

    def __enter__(self) -> Held:
        self.world.at_own_port(self.pod, "/reset")
        return self

    def __exit__(self, *_: object) -> None:
        self.world.at_own_port(self.pod, "/reset")
        self.pool.shutdown()

    def send(self, count: int, what: str, priority: str = "") -> None:
        """So many at once, until each is at the app or was turned away."""
        headers = {"priority": priority} if priority else {}
        url = f"http://{self.name}.e2e/do?id={what}&hold=1"
        sent = [self.pool.submit(request, self.world.client.ip, 4140, "GET", url, None, headers) for _ in range(count)]
        self.sent += sent
        until(lambda: self.held(what) + sum(one.done() for one in sent) >= count, "them to be held or turned away")

    def held(self, what: str) -> int:
        return len(request(self.pod.ip, 8080, "GET", "/seen").json["ids"].get(what, []))

    def end(self) -> Counter[tuple[int, str]]:
        """Let go; how they ended."""
        self.world.at_own_port(self.pod, "/release")
        answers = [one.result(60) for one in self.sent]
        self.sent = []
        return Counter((one.status, one.headers.get("mesh-error", "")) for one in answers)


def shed(world: World, name: str, priority: str) -> float:
    page = world.mesh.metrics(world.mesh.pod(name).ip)
    return page.total("meshproxy_shed_total", **{"class": priority})


def test_the_lowest_priority_is_shed_first_and_the_highest_finds_room(world: World) -> None:
    sheddable, critical = shed(world, "desk", "sheddable"), shed(world, "desk", "critical")
    with Held(world, "desk") as desk:
        desk.send(2, "known", "u=0")  # so much the critical ones have lately needed
        assert desk.end() == {(200, ""): 2}
        desk.send(4, "low", "u=7")
        assert desk.held("low") == 2, "of four places two are kept"
        desk.send(2, "high", "u=1")
        assert desk.held("high") == 2
        desk.send(1, "more", "u=0")
        assert desk.held("more") == 0, "now it is full for everybody"
        assert desk.end() == {(200, ""): 4, (503, "concurrency_limit"): 3}
    assert shed(world, "desk", "sheddable") == sheddable + 2
    assert shed(world, "desk", "critical") == critical + 1


async def test_a_grpc_call_that_is_too_much_is_unavailable_and_told_when_to_come_back(world: World) -> None:
    address = await asyncio.to_thread(grpc_listener, world, "desk")
    with Held(world, "desk") as desk:
        await asyncio.to_thread(desk.send, 4, "full")
        async with grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)]) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/e2e.Puppet/Do")(json.dumps({"id": "call"}).encode(), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "concurrency_limit" in str(refused.value.details())
        assert ("grpc-retry-pushback-ms", "1000") in tuple(refused.value.trailing_metadata() or ())
        assert desk.held("call") == 0


def grpc_listener(world: World, name: str) -> str:
    for resource in world.mesh.config(world.client.ip)["resources"]:
        for one in resource["content"].get("workload", {}).get("listeners", []):
            if one["service"] == f"{NAMESPACE}/{name}" and one["port"] == 9090:
                return str(one["address"])
    raise AssertionError(name)


def test_an_adaptive_limit_grows_while_answers_are_quick_and_shrinks_when_they_are_not(world: World) -> None:
    gate = world.mesh.pod("gate")

    def limit() -> float:
        return world.mesh.metrics(gate.ip).total("meshproxy_concurrency_limit")

    assert limit() == 20
    with ThreadPoolExecutor(30) as pool:

        def ask(ms: int) -> Counter[int]:
            url = f"http://gate.e2e/do?ms={ms}"
            sent = [pool.submit(request, world.client.ip, 4140, "GET", url) for _ in range(30)]
            return Counter(one.result(60).status for one in sent)

        until(lambda: ask(20) and limit() > 20, "the limit to grow")
        grown = limit()
        until(lambda: ask(400) and limit() < grown, "the limit to shrink")
        until(lambda: ask(400)[503], "what is too much to be turned away")
