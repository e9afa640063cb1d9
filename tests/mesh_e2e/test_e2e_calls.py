"""curl and grpcio through two sidecars: by http_proxy and grpc_proxy, and by the *_SERVICE_HOST listeners."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from mesh_run import MeshRun, Pod, until_async

BIG = 4 * 1024 * 1024
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def client(shop: MeshRun) -> Pod:
    return shop.pod("client")


def curl(shop: MeshRun, client: Pod, *arguments: str) -> Any:
    """Run the real curl in the client's pod; what it printed, read as JSON."""
    ran = shop.run_in(client, "curl", "-sS", "--max-time", "20", *arguments)
    assert ran["code"] == 0, ran
    return json.loads(ran["out"])


def headers(told: Any) -> dict[str, str]:
    return dict(told["headers"])


def identity(account: str) -> str:
    return f"spiffe://cluster.local/ns/e2e/sa/{account}"


# ---------------------------------------------------------------- curl


def test_curl_through_the_gateway_reaches_a_service_with_the_gateways_identity(shop: MeshRun, client: Pod) -> None:
    told = curl(shop, client, "-x", f"http://{shop.info.gateway}", "http://web.e2e/echo")
    assert headers(told)["mesh-client-id"].startswith("spiffe://cluster.local/ns/meshproxy/sa/")
    assert headers(told)["host"] == "web.e2e"


@pytest.mark.parametrize("name", ["web", "web.e2e", "web.e2e.svc", "web.e2e.svc.cluster.local", "web.e2e:80", "WEB.e2e"])
def test_curl_with_the_pods_http_proxy_reaches_a_service_by_each_of_its_names(shop: MeshRun, client: Pod, name: str) -> None:
    told = curl(shop, client, f"http://{name}/echo")
    assert headers(told)["mesh-client-id"] == identity("client")
    assert told["pod"] in {pod.name for pod in shop.pods("web")}
    assert told["http"] == "1.1"


def test_curl_through_a_connect_tunnel_is_routed_as_if_it_had_none(shop: MeshRun, client: Pod) -> None:
    before = shop.metrics(client.ip).total("meshproxy_external_total")
    told = curl(shop, client, "-p", "http://web.e2e/echo", "-d", "some words")
    assert (told["method"], told["bytes"]) == ("POST", 10)
    assert headers(told)["mesh-client-id"] == identity("client")
    assert shop.metrics(client.ip).total("meshproxy_external_total") == before


def test_parallel_requests_are_spread_over_the_replicas(shop: MeshRun, client: Pod) -> None:
    url = "http://web.e2e/work?id=spread-[1-40]&ms=50"
    ran = shop.run_in(client, "curl", "-sS", "-Z", "--parallel-max", "20", "-o", "/dev/null", "-w", "%{http_code}\\n", url)
    assert ran["out"].split() == ["200"] * 40, ran
    done = shop.executions()
    pods = [pod for number in range(1, 41) for pod in done[f"spread-{number}"]]
    assert len(pods) == 40  # each once
    assert set(pods) == {pod.name for pod in shop.pods("web")}


def test_curl_by_service_host_and_port_keeps_its_connection(shop: MeshRun, client: Pod) -> None:
    around = shop.environment_of(client)
    url = f"http://{around['WEB_SERVICE_HOST']}:{around['WEB_SERVICE_PORT']}/echo?[1-5]"
    ran = shop.run_in(client, "curl", "-sS", "--noproxy", "*", "-w", "\\n%{num_connects}\\n", url)
    lines = ran["out"].split("\n")
    assert [int(line) for line in lines if line.isdigit()] == [1, 0, 0, 0, 0]
    assert {headers(json.loads(line))["mesh-client-id"] for line in lines if line.startswith("{")} == {identity("client")}


def test_curl_with_http2_by_service_host_and_port(shop: MeshRun, client: Pod) -> None:
    around = shop.environment_of(client)
    url = f"http://{around['H2_SERVICE_HOST']}:{around['H2_SERVICE_PORT']}/echo"
    told = curl(shop, client, "--noproxy", "*", "--http2-prior-knowledge", "-d", "x" * 1000, url)
    assert told["http"] == "2"
    assert told["bytes"] == 1000
    assert headers(told)["mesh-client-id"] == identity("client")
    assert not [name for name in headers(told) if name.startswith("mesh-") and name != "mesh-client-id"]


def test_a_body_of_four_megabytes_arrives_whole_in_both_directions(shop: MeshRun, client: Pod, tmp_path: Path) -> None:
    body = bytes(range(256)) * (BIG // 256)
    (tmp_path / "body").write_bytes(body)
    told = curl(shop, client, "-H", "Expect:", "--data-binary", f"@{tmp_path / 'body'}", "http://web.e2e/echo")
    assert (told["bytes"], told["sha256"]) == (BIG, hashlib.sha256(body).hexdigest())
    told = curl(
        shop, client, "-H", "Transfer-Encoding: chunked", "--data-binary", f"@{tmp_path / 'body'}", "http://web.e2e/echo"
    )
    assert (told["bytes"], told["sha256"]) == (BIG, hashlib.sha256(body).hexdigest())
    ran = shop.run_in(client, "curl", "-sS", "-o", str(tmp_path / "out"), f"http://web.e2e/bytes/{BIG}")
    assert ran["code"] == 0
    assert (tmp_path / "out").read_bytes() == b"x" * BIG


# ---------------------------------------------------------------- grpcio

Way = str  # "grpc_proxy": CONNECT through port 4140; "service host": the listener of the client's own sidecar


@pytest.fixture(params=["grpc_proxy", "service host"])
async def channel(
    request: pytest.FixtureRequest, shop: MeshRun, client: Pod, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[grpc.aio.Channel]:
    around = shop.environment_of(client)
    for variable in ("http_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    options: list[tuple[str, int]] = [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]
    if request.param == "grpc_proxy":
        for variable in ("grpc_proxy", "no_grpc_proxy", "no_proxy"):
            monkeypatch.setenv(variable, around[variable])
        target = "greeter.e2e:9090"
    else:
        target = f"{around['GREETER_SERVICE_HOST']}:{around['GREETER_SERVICE_PORT']}"
    async with grpc.aio.insecure_channel(target, options=options) as opened:
        yield opened


@pytest.mark.parametrize("size", [0, 1, 16_384, 65_535, 1_000_000, BIG])
async def test_a_unary_grpc_call_carries_messages_of_any_size(channel: grpc.aio.Channel, size: int) -> None:
    message = bytes(size)
    assert await channel.unary_unary("/e2e.Echo/Unary")(message, timeout=30) == message


async def test_grpc_metadata_and_the_callers_identity_arrive_and_claims_do_not(channel: grpc.aio.Channel) -> None:
    sent = (
        ("x-one", "1"),
        ("x-bin-bin", b"\x00\xff"),
        ("mesh-client-id", "spiffe://cluster.local/ns/e2e/sa/root"),
        ("l5d-x", "y"),
    )
    call = channel.unary_unary("/e2e.Echo/Unary")(b"m", metadata=sent, timeout=30)
    assert ("x-began", "yes") in tuple(await call.initial_metadata())
    assert await call == b"m"
    saw = dict(tuple(await call.trailing_metadata()))
    assert saw["x-saw-x-one"] == "1"
    assert saw["x-saw-x-bin-bin"] == b"\x00\xff"
    assert saw["x-saw-mesh-client-id"] == saw["x-saw-l5d-client-id"] == identity("client")
    assert {name for name in saw if name.startswith(("x-saw-mesh-", "x-saw-l5d-"))} == {
        "x-saw-mesh-client-id",
        "x-saw-l5d-client-id",
    }


def test_a_sidecar_carries_grpc_and_is_told_what_to_do_without_having_loaded_it(shop: MeshRun) -> None:
    for name in ("client", "greeter"):
        pids = shop.pod(name).pids
        loaded = {of: Path(f"/proc/{pid}/maps").read_text() for of, pid in pids.items()}
        assert "cryptography" in loaded["sidecar"]  # it shows what was imported
        assert "cygrpc" not in loaded["sidecar"]
        assert ("cygrpc" in loaded["app"]) == (name == "greeter")


async def test_grpc_streams_of_every_kind(channel: grpc.aio.Channel) -> None:
    async def messages() -> AsyncIterator[bytes]:
        for number in range(200):
            yield bytes(number * 10)

    total = sum(number * 10 for number in range(200))
    assert await channel.stream_unary("/e2e.Echo/Collect")(messages(), timeout=30) == f"200 {total}".encode()
    spread = [message async for message in channel.unary_stream("/e2e.Echo/Spread")(b"100 20000", timeout=30)]
    assert spread == [bytes([number]) * 20000 for number in range(100)]
    chat = channel.stream_stream("/e2e.Echo/Chat")(timeout=30)
    for number in range(20):  # one by one: an answer comes before the next question is sent
        await chat.write(b"%d" % number)
        assert await chat.read() == b"%d" % number
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF
    assert await chat.code() is grpc.StatusCode.OK


async def test_a_trailers_only_error_arrives_with_its_message_and_metadata(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary("/e2e.Echo/Fail")(b"", timeout=30)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "no: ½ of it, 100 %"
    assert ("x-why", "because") in tuple(failed.value.trailing_metadata())
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await channel.unary_unary("/e2e.Echo/Nothing")(b"", timeout=30)
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_reaches_the_server_and_ends_the_call_there(
    shop: MeshRun, channel: grpc.aio.Channel, request: pytest.FixtureRequest
) -> None:
    name = f"deadline-{hash(request.node.name)}"
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await channel.unary_unary("/e2e.Echo/Wait")(name.encode(), timeout=1.5)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    (begun,) = [line for line in shop.executions() if line.startswith(f"{name} begun")]
    assert 0.0 < float(begun.rpartition(" ")[2]) <= 2.0  # grpc rounds what it sends up, to two or three digits
    await until_async(lambda: f"{name} cancelled" in shop.executions(), "the server's call to be cancelled")


async def test_cancelling_a_call_cancels_it_at_the_server(
    shop: MeshRun, channel: grpc.aio.Channel, request: pytest.FixtureRequest
) -> None:
    name = f"cancel-{hash(request.node.name)}"
    call = channel.unary_unary("/e2e.Echo/Wait")(name.encode())
    began = asyncio.ensure_future(call.code())
    await until_async(lambda: f"{name} begun without" in shop.executions(), "the server to have begun")
    call.cancel()
    await until_async(lambda: f"{name} cancelled" in shop.executions(), "the server's call to be cancelled")
    assert await began is grpc.StatusCode.CANCELLED


async def test_calls_in_parallel_on_one_channel_do_not_mix(channel: grpc.aio.Channel) -> None:
    unary = channel.unary_unary("/e2e.Echo/Unary")
    messages = [b"%d" % number * 500 for number in range(200)]
    assert await asyncio.gather(*(unary(message, timeout=30) for message in messages)) == messages


@pytest.fixture(autouse=True, scope="module")
def no_internal_errors(shop: MeshRun) -> Iterator[None]:
    yield
    for prefix in ("client", "web", "h2", "greeter"):
        for pod in shop.pods(prefix):
            assert shop.metrics(pod.ip).total("meshproxy_internal_errors_total") == 0
