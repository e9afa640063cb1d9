"""Replicas and the control plane are killed, weights change, all under load: what clients see, and what apps did."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import aiohttp
import pytest
from mesh_load import Load
from mesh_manifests import Object, account, deployment, service, split
from mesh_run import MeshRun, Pod, request, until, until_async

from control.runtime.meshes import start_time

RATE = 60.0
WORK_MS = 150  # long enough that a killed replica certainly had requests under way


def manifests(mesh: MeshRun, generation: str = "first") -> list[Object]:
    """`generation`: an annotation of web-v1's pod template; another one means other pods."""
    web = {"app": "web"}
    v1 = deployment("web-v1", "echo_app", 8080, mesh.ledger, replicas=2, labels=web, version="v1")
    v1["spec"]["template"]["metadata"]["annotations"] = {"generation": generation}
    return [
        account("web"),
        v1,
        deployment("web-v2", "echo_app", 8080, mesh.ledger, labels=web, version="v2"),
        service("web"),
        service("web-v1", selector={**web, "version": "v1"}),
        service("web-v2", selector={**web, "version": "v2"}),
    ]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client; web: the apex of web-v1 (two replicas) and web-v2 (one)."""
    found = MeshRun(tmp_path_factory.mktemp("failures"), "failures")
    found.write("client", account("client"), deployment("client", "echo_app", 8080, found.ledger))
    found.write("web", *manifests(found))
    found.write("split", split("web", web_v1=3, web_v2=1))
    try:
        found.start()
        yield found
    finally:
        found.end()


@pytest.fixture
def client(mesh: MeshRun) -> Pod:
    """Once everything is ready again, whatever the test before did."""

    def whole() -> bool:
        pods = [*mesh.pods("client"), *mesh.pods("web-v1"), *mesh.pods("web-v2")]
        return len(pods) == 4 and all(pod.ready and len(pod.pids) == 2 for pod in pods)

    until(whole, "all pods to be ready")
    client = mesh.pod("client")
    ips = [pod.ip for pod in mesh.pods("web-v1")]
    until(lambda: all(f'"address": "{ip}"' in str(mesh.config(client.ip)).replace("'", '"') for ip in ips), "all endpoints")
    return client


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not start_time(pid), "the killed process to be gone")


async def warm(mesh: MeshRun, load: Load, prefix: str) -> None:
    """Go on until both replicas have taken requests."""
    await load.more(20)
    replicas = {pod.name for pod in mesh.pods("web-v1")}
    await until_async(
        lambda: replicas <= {pod for name, pods in mesh.executions().items() if name.startswith(prefix) for pod in pods},
        "both replicas to have taken requests",
    )


@pytest.mark.parametrize("part", ["app", "sidecar"])
async def test_killing_a_replica_under_load_fails_no_get(mesh: MeshRun, client: Pod, part: str) -> None:
    prefix = f"get-{part}"
    async with Load(client.ip, "http://web-v1.e2e/work", RATE, prefix=prefix, ms=WORK_MS) as load:
        await warm(mesh, load, prefix)
        victim = mesh.pods("web-v1")[0]
        await asyncio.to_thread(kill, victim.pids[part])
        await load.more(100)
        await until_async(
            lambda: (
                (pod := next(p for p in mesh.pods("web-v1") if p.name == victim.name)).ready
                and pod.pids.get(part, victim.pids[part]) != victim.pids[part]
            ),
            f"the {part} to be started again",
        )
        await load.more(100)
    assert load.failures == []
    done = mesh.executions()
    again = [outcome.id for outcome in load.outcomes if len(done[outcome.id]) > 1]
    assert again, "no request was under way at the killed replica, so this showed nothing"
    assert all(len(done[name]) == 2 for name in again)  # begun once where it was killed, once more elsewhere
    assert len(again) < 50  # those under way, not the traffic


@pytest.mark.parametrize("part", ["app", "sidecar"])
async def test_killing_a_replica_under_load_never_repeats_a_post(mesh: MeshRun, client: Pod, part: str) -> None:
    prefix = f"post-{part}"
    async with Load(client.ip, "http://web-v1.e2e/work", RATE, method="POST", prefix=prefix, ms=WORK_MS) as load:
        await warm(mesh, load, prefix)
        victim = mesh.pods("web-v1")[1]
        await asyncio.to_thread(kill, victim.pids[part])
        await load.more(150)
    done = mesh.executions()
    assert not [outcome for outcome in load.outcomes if len(done.get(outcome.id, [])) > 1]
    assert all(len(done[outcome.id]) == 1 for outcome in load.outcomes if outcome.status == 200)
    assert load.failures, "no request was under way at the killed replica, so this showed nothing"
    assert {(outcome.status, outcome.mesh_error) for outcome in load.failures} == {(502, "upstream_reset")}
    assert len(load.failures) < 50
    # Begun where it was killed, or (a killed sidecar) on its way there: nobody can know, so nobody may send it again.
    assert {pod for outcome in load.failures for pod in done.get(outcome.id, [])} <= {victim.name}


@pytest.mark.parametrize("part", ["app", "sidecar"])
@pytest.mark.parametrize("query", ["", "?length"], ids=["chunked", "with a length"])
async def test_an_answer_that_had_begun_when_its_replica_was_killed_is_seen_to_be_incomplete(
    mesh: MeshRun, client: Pod, query: str, part: str
) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://web-v1.e2e/begin{query}", proxy=f"http://{client.ip}:4140") as response,
    ):
        assert response.status == 200
        name = (await response.content.readline()).decode().strip()
        (victim,) = [pod for pod in mesh.pods("web-v1") if pod.name == name]
        await asyncio.to_thread(kill, victim.pids[part])
        with pytest.raises(aiohttp.ClientPayloadError):
            async with asyncio.timeout(20):
                await response.content.read()


async def test_the_gateway_comes_back_after_its_proxy_was_killed(mesh: MeshRun, client: Pod) -> None:
    def answered() -> bool:
        try:
            return request(*mesh.gateway, "GET", "http://web.e2e/work?id=gateway").status == 200
        except OSError:
            return False

    assert answered()
    (pid,) = [pid for name, pid in mesh.recorded().items() if name.startswith("meshproxy/") and name.endswith("/sidecar")]
    await asyncio.to_thread(kill, pid)
    await until_async(answered, "an answer through the gateway, at its old address")


async def test_a_rolling_replacement_under_load_fails_no_post(mesh: MeshRun, client: Pod) -> None:
    old = {pod.name for pod in mesh.pods("web-v1")}
    async with Load(client.ip, "http://web-v1.e2e/work", RATE, method="POST", prefix="roll", ms=WORK_MS) as load:
        await load.more(30)
        mesh.write("web", *manifests(mesh, generation="second"))
        await until_async(
            lambda: (pods := mesh.pods("web-v1")) and not old & {p.name for p in pods} and all(p.ready for p in pods),
            "both replicas to be replaced",
        )
        await load.more(60)
    assert load.failures == []
    done = mesh.executions()
    assert all(len(done[outcome.id]) == 1 for outcome in load.outcomes)
    pods = {pod for outcome in load.outcomes for pod in done[outcome.id]}
    assert pods & old
    assert pods - old


async def test_killing_the_control_plane_fails_no_request_and_new_configuration_flows_once_it_is_back(
    mesh: MeshRun, client: Pod
) -> None:
    mesh.write("split", split("web", web_v1=3, web_v2=1))
    await until_async(lambda: mesh.weights(client.ip, "web") == {"web-v1": 3, "web-v2": 1}, "the split")
    async with Load(client.ip, "http://web.e2e/work", RATE, prefix="control") as load:
        await load.more(30)
        pid = mesh.recorded()["control plane"]
        await asyncio.to_thread(kill, pid)
        mesh.write("split", split("web", web_v1=0, web_v2=1))
        await load.more(60)
        await until_async(lambda: mesh.recorded().get("control plane", pid) != pid, "a new control plane")
        await until_async(lambda: mesh.weights(client.ip, "web") == {"web-v1": 0, "web-v2": 1}, "the new weights")
        seen = len(load.outcomes)
        await load.more(60)
    assert load.failures == []
    assert {outcome.body for outcome in load.outcomes[:30]} == {"v1", "v2"}
    # Sent after the change; those still under way when it came had been drawn before.
    late = sorted(load.outcomes, key=lambda outcome: int(outcome.id.rpartition("-")[2]))[seen + 20 :]
    assert {outcome.body for outcome in late} == {"v2"}
    assert mesh.metrics(client.ip).total("meshproxy_control_connected") == 1


async def test_weights_change_under_load_without_a_dropped_request_and_shares_are_exact(mesh: MeshRun, client: Pod) -> None:
    mesh.write("split", split("web", web_v1=3, web_v2=1))
    await until_async(lambda: mesh.weights(client.ip, "web") == {"web-v1": 3, "web-v2": 1}, "the first weights")
    for number, (v1, v2) in enumerate([(1, 1), (1, 4), (9, 1)]):
        async with Load(client.ip, "http://web.e2e/work", RATE, prefix=f"turn-{number}", ms=5) as load:
            await load.more(30)
            mesh.write("split", split("web", web_v1=v1, web_v2=v2))
            await until_async(
                lambda v1=v1, v2=v2: mesh.weights(client.ip, "web") == {"web-v1": v1, "web-v2": v2}, "new weights"
            )
            await load.more(10)
        assert load.failures == []
        async with Load(client.ip, "http://web.e2e/work", RATE, prefix=f"share-{number}", ms=5) as load:
            await load.more(70)
        assert load.failures == []
        # All of these were drawn one after the other from blocks of v1 + v2: whole blocks are exact, and the part of a
        # block at either end is off by less than one.
        count = sum(outcome.body == "v2" for outcome in load.outcomes)
        assert abs(count - len(load.outcomes) * v2 / (v1 + v2)) < 2


def test_every_block_of_requests_has_exactly_the_split(mesh: MeshRun, client: Pod) -> None:
    mesh.write("split", split("web", web_v1=90, web_v2=10))
    web = mesh.pods("web-v1")[0]  # its sidecar takes requests to other services from nobody: blocks begin with ours
    until(lambda: mesh.weights(web.ip, "web") == {"web-v1": 90, "web-v2": 10}, "the weights")
    versions = [request(web.ip, 4140, "GET", "http://web.e2e/work?id=block").body for _ in range(50)]
    blocks = [versions[at : at + 10] for at in range(0, 50, 10)]
    assert [block.count(b"v2") for block in blocks] == [1] * 5
    assert len({block.index(b"v2") for block in blocks}) > 1  # in no fixed place
