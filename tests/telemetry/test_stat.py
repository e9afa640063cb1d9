"""`meshproxy stat` as a user runs it: a process that finds the mesh, reads its pods' pages twice and prints."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stat_mesh import StatMesh

from meshproxy.telemetry.registry import Registry


def serving(good: int, bad: int, latency_ms: float) -> object:
    """Inbound traffic between two looks."""

    def traffic(registry: Registry) -> None:
        series = registry.http("inbound", (("tls", "true"),))
        for i in range(good + bad):
            series.request()
            series.response(200 if i < good else 503, -1, i < good, latency_ms, latency_ms)
        tcp = registry.tcp("inbound", (("peer", "src"),))
        if not tcp.open_connections:
            tcp.opened()
        registry.tcp("inbound", (("peer", "dst"),)).open_connections = 50  # towards the app: not what is asked for
        tcp.read_bytes += 1_000

    return traffic


def calling(registry: Registry) -> None:
    """Outbound: ten exchanges with the Service `api`, of which each took two attempts, the first failed."""
    exchange = registry.route("outbound", (("dst_namespace", "shop"), ("dst_service", "api")))
    attempt = registry.http("outbound", (("dst_namespace", "shop"), ("dst_service", "api"), ("dst_deployment", "api")))
    leaf = registry.http("outbound", (("dst_namespace", "shop"), ("dst_service", "leaf")))
    registry.tcp("outbound", (("peer", "dst"), ("dst_namespace", "shop"), ("dst_service", "leaf"))).open_connections = 3
    for _ in range(10):
        exchange.response(200, -1, True, 4.5, 5.0)
        attempt.response(503, -1, False, 1.5, 2.0)
        attempt.response(200, -1, True, 2.5, 3.0)
        leaf.response(200, -1, True, 2.5, 3.0)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[StatMesh]:
    async with StatMesh(tmp_path) as mesh:
        for name in ("web", "api", "plain"):
            await mesh.deployment("shop", name)
        for name in ("api", "leaf", "unused"):
            await mesh.service("shop", name)
        await mesh.deployment("other", "web")
        await mesh.pod("shop", "web-1", "web", calling)
        await mesh.pod("shop", "api-1", "api", serving(30, 10, 3.5))
        await mesh.pod("shop", "api-2", "api", serving(60, 0, 3.5))
        await mesh.pod("shop", "plain-1", "plain")
        await mesh.pod("other", "web-9", "web", serving(5, 0, 250.0))
        yield mesh


async def stat(mesh: StatMesh, *arguments: str, code: int = 0) -> tuple[str, str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(mesh.layout.root.parent),
        "MESHPROXY_STATE_HOME": str(mesh.layout.root.parent),
        "http_proxy": "http://127.0.0.1:9",  # must not be used for pages
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "meshproxy",
        "stat",
        "--window",
        "1s",
        *arguments,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code, (out, err)
    return out.decode(), err.decode()


def table(text: str) -> dict[str, dict[str, str]]:
    header, *lines = (line.split() for line in text.splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    return {row["NAME"]: row for row in rows}


async def test_deployments_show_what_their_pods_served(mesh: StatMesh) -> None:
    rows = table((await stat(mesh, "deploy", "-n", "shop"))[0])
    assert list(rows) == ["api", "plain", "web"]
    api = rows["api"]
    assert (api["MESHED"], api["SUCCESS"], api["TCP_CONN"]) == ("2/2", "90.00%", "2")
    assert 50.0 < float(api["RPS"].removesuffix("rps")) <= 100.0  # 100 requests in a second or a little more
    assert api["LATENCY_P50"] == "3.5ms"
    assert rows["plain"]["MESHED"] == "0/1"
    assert rows["plain"]["SUCCESS"] == rows["plain"]["TCP_CONN"] == "-"


async def test_one_resource_a_pod_a_namespace(mesh: StatMesh) -> None:
    assert list(table((await stat(mesh, "deploy/api", "-n", "shop"))[0])) == ["api"]
    pods = table((await stat(mesh, "po", "api-1", "-n", "shop", "-o", "wide"))[0])
    assert (pods["api-1"]["MESHED"], pods["api-1"]["SUCCESS"]) == ("1/1", "75.00%")
    assert float(pods["api-1"]["READ_BYTES/SEC"].removesuffix("B/s")) > 500
    spaces = table((await stat(mesh, "ns"))[0])
    assert (spaces["shop"]["MESHED"], spaces["shop"]["SUCCESS"]) == ("3/4", "90.00%")
    assert spaces["other"]["SUCCESS"] == "100.00%"


async def test_everywhere_names_the_namespace_of_each_row(mesh: StatMesh) -> None:
    text = (await stat(mesh, "deploy/web", "-A"))[0]
    assert [line.split()[:3] for line in text.splitlines()] == [
        ["NAMESPACE", "NAME", "MESHED"],
        ["other", "web", "1/1"],
        ["shop", "web", "1/1"],
    ]


async def test_a_service_is_what_its_callers_saw_after_retries(mesh: StatMesh) -> None:
    rows = table((await stat(mesh, "svc", "-n", "shop"))[0])
    assert (rows["api"]["MESHED"], rows["api"]["SUCCESS"], rows["api"]["LATENCY_P99"]) == ("-", "100.00%", "5.0ms")
    assert rows["leaf"]["SUCCESS"] == "100.00%"  # no exchange names it: attempts
    # connections lead to endpoints, and these are the leaf's: of a split's apex nothing is counted, which is not 0
    assert (rows["leaf"]["TCP_CONN"], rows["api"]["TCP_CONN"]) == ("3", "-")
    assert rows["unused"]["SUCCESS"] == "-"


async def test_to_and_from_look_at_one_edge_from_the_callers_side(mesh: StatMesh) -> None:
    to = table((await stat(mesh, "deploy/web", "-n", "shop", "--to", "svc/api"))[0])
    assert to["web"]["SUCCESS"] == "100.00%"
    attempts = table((await stat(mesh, "deploy/web", "-n", "shop", "--to", "deploy/api"))[0])
    assert attempts["web"]["SUCCESS"] == "50.00%"
    called = table((await stat(mesh, "deploy/api", "-n", "shop", "--from", "deploy/web"))[0])
    assert called["api"]["SUCCESS"] == "50.00%"
    nobody = table((await stat(mesh, "deploy/api", "-n", "shop", "--from", "deploy/plain"))[0])
    assert nobody["api"]["SUCCESS"] == "-"


async def test_watching_goes_on_until_interrupted(mesh: StatMesh) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MESHPROXY_STATE_HOME": str(mesh.layout.root.parent)}
    arguments = ("-m", "meshproxy", "stat", "deploy/api", "-n", "shop", "--window", "1s", "-w")
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        seen = [(await asyncio.wait_for(process.stdout.readline(), 60)).split() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert [line[0] for line in seen] == [b"NAME", b"api", b"NAME", b"api"]
    assert seen[1][2] == seen[3][2] == b"90.00%"


async def test_json_has_numbers_and_null_for_what_was_not_measured(mesh: StatMesh) -> None:
    rows = {row["name"]: row for row in json.loads((await stat(mesh, "deploy", "-n", "shop", "-o", "json"))[0])}
    assert rows["api"]["success"] == pytest.approx(0.9)
    assert rows["api"]["meshed"] == "2/2"
    assert 3.0 < rows["api"]["latency_ms_p50"] < rows["api"]["latency_ms_p99"] <= 4.0
    assert rows["plain"]["success"] is rows["plain"]["latency_ms_p99"] is None


async def test_a_pod_that_does_not_answer_is_named_and_the_rest_is_shown(mesh: StatMesh) -> None:
    await mesh.put_pod("shop", "api-3", "api", f"{mesh.prefix}.99")
    out, err = await stat(mesh, "deploy/api", "-n", "shop")
    assert table(out)["api"]["SUCCESS"] == "90.00%"
    assert table(out)["api"]["MESHED"] == "3/3"
    assert f"pod shop/api-3 is not counted: http://{mesh.prefix}.99:4191/metrics" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("deploy/nothing", "-n", "shop"), 1, "no deployment 'nothing' in namespace shop (-A for all)"),
        (("deploy", "-n", "empty"), 1, "no deployments in namespace empty"),
        (("cronjob",), 2, "kinds: deploy, pod, svc, ns"),
        (("deploy/a", "b"), 2, "KIND/NAME"),
        (("deploy", "--window", "10"), 2, "not a duration such as 10s"),
        (("deploy", "--window", "5ms"), 2, "within 1s and 10m"),
        (("deploy", "--to", "svc/a", "--from", "svc/b"), 2, "not both"),
        (("svc", "--to", "svc/a"), 2, "use --from"),
        (("deploy", "--from", "svc/a"), 2, "a service makes no requests"),
    ],
)
async def test_mistakes_are_explained(mesh: StatMesh, arguments: tuple[str, ...], code: int, words: str) -> None:
    _, err = await stat(mesh, *arguments, code=code)
    assert words in " ".join(err.split())


async def test_without_a_mesh_it_says_how_to_start_one(mesh: StatMesh) -> None:
    mesh.layout.info.unlink()
    _, err = await stat(mesh, "deploy", code=1)
    assert "meshproxy up" in err
