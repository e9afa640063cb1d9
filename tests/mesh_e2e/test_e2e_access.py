"""Who may call what: TrafficTargets written into a running mesh, and what callers see of it through two sidecars.

`client` may GET some paths of web, call one method of greeter, and speak lines with talk; `h2` may nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import grpc
import pytest
from mesh_load import Load
from mesh_manifests import NAMESPACE
from mesh_run import MeshRun, Pod, request, until, until_async

PATIENCE = 20.0
CLIENT = "spiffe://cluster.local/ns/e2e/sa/client"
H2 = "spiffe://cluster.local/ns/e2e/sa/h2"

Object = dict[str, Any]


def target(destination: str, *rules: Object, sources: tuple[str, ...] = ("client",), name: str = "") -> Object:
    return {
        "apiVersion": "access.smi-spec.io/v1alpha3",
        "kind": "TrafficTarget",
        "metadata": {"name": name or destination, "namespace": NAMESPACE},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": destination},
            "sources": [{"kind": "ServiceAccount", "name": source} for source in sources],
            "rules": list(rules),
        },
    }


def group(name: str, *matches: Object, **annotations: str) -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "HTTPRouteGroup",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {f"meshproxy.dev/{key.replace('_', '-')}": value for key, value in annotations.items()},
        },
        "spec": {"matches": [{"name": f"match-{index}", **match} for index, match in enumerate(matches)]},
    }


def ports(name: str, *numbers: int) -> Object:
    return {
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "kind": "TCPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"matches": {"ports": list(numbers)}},
    }


READS = {"kind": "HTTPRouteGroup", "name": "reads"}
RULES = [
    group("reads", {"methods": ["GET"], "pathRegex": "/(echo|work|begin)($|/)"}),
    target("web", READS),
    group("says", {"methods": ["POST"], "pathRegex": "/e2e[.]Echo/Unary"}, path_match="full"),
    target("greeter", {"kind": "HTTPRouteGroup", "name": "says"}),
    group("sockets", {"methods": ["GET"], "pathRegex": "/socket$"}),
    target("talk", {"kind": "HTTPRouteGroup", "name": "sockets"}),
    ports("lines", 7000),
    target("talk", {"kind": "TCPRoute", "name": "lines"}, name="talk-lines"),
]


def allowed(shop: MeshRun, pod: Pod) -> Object | None:
    """What a sidecar was told of access."""
    for resource in shop.config(pod.ip)["resources"]:
        workload = resource["content"].get("workload")
        if workload is not None:
            found: Object | None = workload.get("access")
            return found
    return None


def in_force(shop: MeshRun, accepted: Any, *names: str) -> None:
    """Wait until every pod of these Deployments was told what `accepted` takes."""
    for name in names:
        for pod in shop.pods(name):
            until(lambda pod=pod: accepted(allowed(shop, pod)), f"{pod.name} to know its rules")


@pytest.fixture(scope="module")
def ruled(shop: MeshRun) -> Iterator[MeshRun]:
    """The mesh with the rules above; without them afterwards."""
    shop.write("access", *RULES)
    in_force(shop, bool, "web", "greeter", "talk")
    try:
        yield shop
    finally:
        (shop.manifests / "access.yaml").unlink()
        in_force(shop, lambda access: access is None, "web", "greeter", "talk")


@pytest.fixture(scope="module")
def client(ruled: MeshRun) -> Pod:
    return ruled.pod("client")


@pytest.fixture(scope="module")
def stranger(ruled: MeshRun) -> Pod:
    """Of the mesh, and no source of any target."""
    return ruled.pod("h2")


def ask(pod: Pod, line: str, host: str = "web.e2e") -> tuple[int, str]:
    """A request by a pod's sidecar: (status, mesh-error)."""
    method, _, path = line.partition(" ")
    answer = request(pod.ip, 4140, method, path, headers={"host": host})
    return answer.status, answer.headers.get("mesh-error", "")


def denied(mesh: MeshRun, name: str, **labels: str) -> float:
    return sum(mesh.metrics(pod.ip).total("meshproxy_access_denied_total", **labels) for pod in mesh.pods(name))


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /echo", (200, "")),
        ("GET /echo?x=/run", (200, "")),
        ("GET /env", (403, "access_request")),
        ("GET /echoes", (403, "access_request")),
        ("POST /echo", (403, "access_request")),
        ("HEAD /echo", (403, "access_request")),
        ("GET /", (403, "access_request")),
    ],
)
def test_a_source_may_what_a_rule_allows_and_nothing_else(client: Pod, line: str, expected: tuple[int, str]) -> None:
    assert ask(client, line) == expected


def test_another_workload_of_the_mesh_may_nothing_and_that_is_counted_and_logged(ruled: MeshRun, stranger: Pod) -> None:
    labels = {"client_id": H2, "reason": "access_client", "target_port": "8080", "audit": "false"}
    before = denied(ruled, "web", **labels)
    assert ask(stranger, "GET /work?id=from-a-stranger") == (403, "access_client")
    assert denied(ruled, "web", **labels) == before + 1
    assert "from-a-stranger" not in ruled.executions()
    logs = [
        ruled.verb("logs", pod.name, "-n", NAMESPACE, "-c", "sidecar", "--name", ruled.name).stdout for pod in ruled.pods("web")
    ]
    line = f"access denied: client={H2} port=8080 reason=access_client request=GET /work"
    assert any(line in text for text in logs), logs


def test_a_refusal_says_why_to_people(stranger: Pod) -> None:
    answer = request(stranger.ip, 4140, "GET", "/echo", headers={"host": "web.e2e"})
    assert answer.body == b"access_client: no TrafficTarget that selects this pod names this client as a source\n"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("//env", "access_request"),
        ("/./env", "access_request"),
        ("/echo/../env", "access_request"),
        ("/%65nv", "access_request"),
        ("/echo/%2e%2e/env", "access_request"),
        ("/echo/..%2fenv", "access_path"),
        ("/echo%2f..%2fenv", "access_path"),
        ("/echo/..;/env", "access_path"),
        ("/echo/..\\env", "access_path"),
        ("/echo/%5c../env", "access_path"),
        ("/echo/%00/env", "access_path"),
    ],
)
def test_no_spelling_of_a_path_gets_past_the_rules(client: Pod, path: str, expected: str) -> None:
    assert ask(client, f"GET {path}") == (403, expected)


@pytest.mark.parametrize("path", ["//echo", "/./echo", "/x/../echo", "/%65cho", "/env/%2e%2e/echo"])
def test_an_allowed_path_reaches_the_app_in_the_spelling_it_was_judged_by(client: Pod, path: str) -> None:
    answer = request(client.ip, 4140, "GET", f"{path}?q=//%2f", headers={"host": "web.e2e"})
    assert answer.status == 200
    assert answer.json["path"] == "/echo?q=//%2f"


@pytest.mark.parametrize("host", ["WEB.e2e", "web.e2e.svc.cluster.local.", "web.e2e:80"])
def test_another_spelling_of_the_host_is_judged_the_same(client: Pod, stranger: Pod, host: str) -> None:
    assert ask(client, "GET /echo", host) == (200, "")
    assert ask(client, "GET /env", host) == (403, "access_request")
    assert ask(stranger, "GET /echo", host) == (403, "access_client")


def test_health_probes_are_let_in_and_other_plaintext_is_not(ruled: MeshRun) -> None:
    web = ruled.pods("web")[0]
    assert request(web.ip, 4143, "GET", "/ready").status == 200
    answer = request(web.ip, 4143, "GET", "/echo", headers={"mesh-client-id": CLIENT})
    assert (answer.status, answer.headers["mesh-error"]) == (403, "access_no_identity")


# ---------------------------------------------------------------- gRPC


async def test_a_grpc_method_is_a_path_and_a_denied_call_ends_with_permission_denied(ruled: MeshRun, client: Pod) -> None:
    listener = await asyncio.to_thread(listener_of, ruled, client, "greeter")
    async with grpc.aio.insecure_channel(listener, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        assert await channel.unary_unary("/e2e.Echo/Unary")(b"hello", timeout=PATIENCE) == b"hello"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/e2e.Echo/Fail")(b"", timeout=PATIENCE)
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "access_request" in (failed.value.details() or "")
    other = await asyncio.to_thread(listener_of, ruled, ruled.pod("h2"), "greeter")
    async with grpc.aio.insecure_channel(other, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/e2e.Echo/Unary")(b"hello", timeout=PATIENCE)
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


def listener_of(mesh: MeshRun, pod: Pod, service: str, port: int = 0) -> str:
    """host:port of a pod's own sidecar that leads to a Service."""
    for resource in mesh.config(pod.ip)["resources"]:
        workload = resource["content"].get("workload")
        for listener in workload["listeners"] if workload is not None else []:
            if listener["service"] == f"{NAMESPACE}/{service}" and port in (0, listener["port"]):
                return str(listener["address"])
    raise AssertionError(f"{pod.name} has no listener of {service}")


# ---------------------------------------------------------------- TCP


async def lines(mesh: MeshRun, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, number = (await asyncio.to_thread(listener_of, mesh, pod, "talk", port)).rpartition(":")
    return await asyncio.open_connection(host, int(number))


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes) -> bytes:
    """What comes back; b"" if the connection ends."""
    try:
        writer.write(word)
        async with asyncio.timeout(PATIENCE):
            return await reader.readline()
    except ConnectionError:
        return b""


async def test_a_connection_is_carried_for_a_source_on_its_ports_and_closed_for_others(
    ruled: MeshRun, client: Pod, stranger: Pod
) -> None:
    reader, writer = await lines(ruled, client, 7000)
    assert await said(reader, writer, b"one\n") == b"echo one\n"
    writer.close()
    before = denied(ruled, "talk", client_id=H2, reason="access_client", target_port="7000")
    reader, writer = await lines(ruled, stranger, 7000)
    assert await said(reader, writer, b"one\n") == b""
    writer.close()
    assert denied(ruled, "talk", client_id=H2, reason="access_client", target_port="7000") == before + 1
    before = denied(ruled, "talk", client_id=CLIENT, reason="access_not_http", target_port="7443")
    reader, writer = await lines(ruled, client, 7443)
    assert await said(reader, writer, b"one\n") == b""
    writer.close()
    assert denied(ruled, "talk", client_id=CLIENT, reason="access_not_http", target_port="7443") == before + 1


async def test_a_websocket_is_the_get_it_begins_with(client: Pod, stranger: Pod) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect("http://talk.e2e/socket", proxy=f"http://{client.ip}:4140") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str(timeout=PATIENCE) == f"{CLIENT} said hello"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("http://talk.e2e/socket", proxy=f"http://{stranger.ip}:4140")
    assert refused.value.status == 403


# ---------------------------------------------------------------- changes


def given_to(one: Object, account: str) -> Object:
    return {**one, "spec": {**one["spec"], "sources": [{"kind": "ServiceAccount", "name": account}]}}


async def test_what_is_withdrawn_ends_tunnels_and_is_denied_on_connections_that_are_open(ruled: MeshRun, client: Pod) -> None:
    mesh = ruled
    reader, writer = await lines(mesh, client, 7000)
    assert await said(reader, writer, b"one\n") == b"echo one\n"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:

        async def get() -> tuple[int, str]:
            async with session.get("http://web.e2e/echo", proxy=f"http://{client.ip}:4140") as answer:
                await answer.read()
                return answer.status, answer.headers.get("mesh-error", "")

        assert await get() == (200, "")
        mesh.write("access", *[given_to(one, "h2") if one["kind"] == "TrafficTarget" else one for one in RULES])
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):  # cut, not closed
                assert await reader.read() == b""
        writer.close()
        await asyncio.to_thread(in_force, mesh, lambda access: H2 in str(access), "web")
        assert await get() == (403, "access_client")
        mesh.write("access", *RULES)
        await asyncio.to_thread(in_force, mesh, lambda access: H2 not in str(access), "web", "greeter", "talk")
        assert await get() == (200, "")


async def test_rules_change_under_load_without_an_error(ruled: MeshRun, client: Pod) -> None:
    """What the load needs is allowed all the time, by one target or another."""
    more = [
        *RULES,
        target("web", {"kind": "TCPRoute", "name": "web"}, sources=("client", "talk"), name="more"),
        ports("web", 8080),
    ]
    other = [*RULES[:1], *RULES[2:], *more[len(RULES) :]]  # without the first one
    async with Load(client.ip, "http://web.e2e/work", 100.0, prefix="rules") as load:
        for objects, marks in ((more, ("web", "more")), (other, ("more",)), (more, ("web", "more")), (RULES, ("web",))):
            ruled.write("access", *objects)
            wanted = sorted(f"TrafficTarget e2e/{name}" for name in marks)
            await until_async(
                lambda wanted=wanted: all(
                    sorted(rule["name"] for rule in (allowed(ruled, pod) or {}).get("rules", [])) == wanted
                    for pod in ruled.pods("web")
                ),
                "the rules to be in force",
            )
            await load.more(40)
    assert load.failures == []


async def test_audit_lets_everyone_in_and_reports_who_would_be_denied(ruled: MeshRun, stranger: Pod) -> None:
    before = denied(ruled, "web", client_id=H2, reason="access_client", audit="true")
    home = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "annotations": {"meshproxy.dev/access": "audit"}},
    }
    ruled.write("audit", home)
    try:
        await asyncio.to_thread(in_force, ruled, lambda access: access.get("audit"), "web", "talk")
        assert ask(stranger, "GET /echo") == (200, "")
        assert denied(ruled, "web", client_id=H2, reason="access_client", audit="true") == before + 1
        plain = request(ruled.pods("web")[0].ip, 4143, "GET", "/echo")
        assert (plain.status, plain.headers["mesh-error"]) == (403, "not_authenticated")  # the inbound mode is in force
        reader, writer = await lines(ruled, stranger, 7000)
        assert await said(reader, writer, b"one\n") == b"echo one\n"
    finally:
        (ruled.manifests / "audit.yaml").unlink()
        await asyncio.to_thread(in_force, ruled, lambda access: not access.get("audit"), "web", "talk")
    async with asyncio.timeout(PATIENCE):  # what audit let in is judged when it ends
        with suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert ask(stranger, "GET /echo") == (403, "access_client")


async def test_a_target_that_is_spoilt_is_refused_and_the_last_good_one_stays(
    ruled: MeshRun, client: Pod, stranger: Pod
) -> None:
    spoilt = [
        *RULES[:1],
        target("web"),
        *RULES[2:],
    ]
    ruled.write("access", *spoilt)
    try:
        await until_async(
            lambda: "spec.rules" in ruled.verb("get", "events", "-n", NAMESPACE, "--name", ruled.name).stdout, "an Event"
        )
        assert ask(client, "GET /echo") == (200, "")
        assert ask(client, "GET /env") == (403, "access_request")
        assert ask(stranger, "GET /echo") == (403, "access_client")
    finally:
        ruled.write("access", *RULES)


async def test_a_target_whose_first_version_is_refused_closes_its_pods_and_says_so(
    ruled: MeshRun, client: Pod, stranger: Pod
) -> None:
    (ruled.manifests / "access.yaml").unlink()
    await asyncio.to_thread(in_force, ruled, lambda access: access is None, "web")
    assert ask(stranger, "GET /echo") == (200, "")
    first = target("web", READS)
    first["spec"]["sources"] = [{"kind": "Group", "name": "system:authenticated"}]
    try:
        ruled.write("access", *RULES[:1], first)
        await asyncio.to_thread(in_force, ruled, lambda access: access is not None, "web")
        assert ask(client, "GET /echo") == (403, "access_client")
        assert ask(stranger, "GET /echo") == (403, "access_client")
        events = ("get", "events", "-n", NAMESPACE, "--name", ruled.name)
        await until_async(lambda: "TargetRefused" in ruled.verb(*events).stdout, "an Event")
        ruled.write("access", *RULES)
        await asyncio.to_thread(in_force, ruled, bool, "web", "greeter", "talk")
        await until_async(lambda: ask(client, "GET /echo") == (200, ""), "the good version to be in force")
        assert ask(stranger, "GET /echo") == (403, "access_client")
    finally:
        ruled.write("access", *RULES)
        await asyncio.to_thread(in_force, ruled, bool, "web", "greeter", "talk")
