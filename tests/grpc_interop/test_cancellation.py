"""Who gives up is told apart from what fails; the server stops working at once; and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
from interop_ways import HERE, PATIENCE_S, Process, Way, channel_to, ended, message, until
from mesh_run import MeshRun, Page

SERVICE = "/interop.Test/"


async def seen(address: str, name: str) -> Any:
    async with channel_to(address) as channel:
        return json.loads(await channel.unary_unary(SERVICE + "Seen")(message(name=name), timeout=PATIENCE_S))


async def waits(channel: grpc.aio.Channel, name: str) -> Any:
    """A call that the server has begun to answer, and will not end."""
    call = channel.stream_stream(SERVICE + "Wait")()
    await call.write(message(name=name, first=True))
    assert await call.read() == b"first"
    return call


class Counted:
    """What the sidecars count of calls to the server, less what was counted before."""

    def __init__(self, run: MeshRun) -> None:
        self.run = run
        self.before = self.now()

    def pages(self) -> list[Page]:
        return [self.run.metrics(self.run.pod(name).ip) for name in ("client", "interop")]

    def now(self) -> dict[str, float]:
        outbound, inbound = self.pages()
        to = {"dst_service": "interop"}
        return {
            "exchanges cancelled": outbound.total("meshproxy_route_cancelled_total", **to),
            "attempts cancelled": outbound.total("meshproxy_cancelled_total", direction="outbound", **to),
            "inbound cancelled": inbound.total("meshproxy_cancelled_total", direction="inbound"),
            "exchanges failed": outbound.total("route_response_total", classification="failure", **to),
            "attempts failed": outbound.total("response_total", classification="failure", direction="outbound", **to),
            "inbound failed": inbound.total("response_total", classification="failure", direction="inbound"),
            "violations": outbound.total("meshproxy_protocol_violations_total")
            + inbound.total("meshproxy_protocol_violations_total"),
        }

    def more(self) -> dict[str, float]:
        """What grew."""
        return {name: value - self.before[name] for name, value in self.now().items() if value != self.before[name]}


async def test_a_cancelled_call_is_counted_as_that_on_both_sides_and_as_no_failure(running: MeshRun, mesh: Way) -> None:
    counted = Counted(running)
    async with channel_to(mesh.address) as channel:
        calls = [await waits(channel, f"cancelled-{i}") for i in range(5)]
        for call in calls:
            call.cancel()
        assert {(await ended(call))[0] for call in calls} == {grpc.StatusCode.CANCELLED}
    expected = {"exchanges cancelled": 5, "attempts cancelled": 5, "inbound cancelled": 5}

    async def told() -> bool:
        return counted.more().keys() >= expected.keys() and counted.more()["inbound cancelled"] >= 5

    await until(told, "the cancellations in the metrics")
    assert counted.more() == expected


async def test_a_missed_deadline_is_counted_as_a_failure_whoever_saw_it_first(running: MeshRun, mesh: Way) -> None:
    counted = Counted(running)
    async with channel_to(mesh.address) as channel:
        calls = [channel.stream_stream(SERVICE + "Wait")(timeout=0.3) for _ in range(5)]
        for call in calls:
            await call.write(message(name="late"))
        assert {(await ended(call))[0] for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    expected = {"exchanges failed": 5, "attempts failed": 5, "inbound failed": 5}

    async def told() -> bool:
        return sum(counted.more().values()) >= 15

    await until(told, "the deadlines in the metrics")
    assert counted.more() == expected


async def test_a_client_that_is_killed_cancels_its_call_at_the_server(mesh: Way) -> None:
    client = Process(str(HERE / "cancelling_client.py"), mesh.address, "killed", word="called")
    try:
        assert await seen(mesh.address, "killed") == ["begun"]
    finally:
        client.process.kill()
        client.stop()

    async def cancelled() -> bool:
        return bool(await seen(mesh.address, "killed") == ["begun", "cancelled"])

    await until(cancelled, "the server's call to be cancelled")


async def test_hundreds_of_cancelled_calls_a_second_lose_no_other_request(running: MeshRun, mesh: Way) -> None:
    """500 a second through the one connection between the two proxies; each client stays below what a stranger may do."""
    counted = Counted(running)
    clients, each, steady_calls = 10, 150, 300
    opened = [channel_to(mesh.address) for _ in range(clients)]
    calm = channel_to(mesh.address)
    loop = asyncio.get_running_loop()

    async def cancels(channel: grpc.aio.Channel) -> None:
        begun = loop.time()
        for number in range(each):
            await asyncio.sleep(max(0.0, begun + number / 50 - loop.time()))
            call = channel.stream_stream(SERVICE + "Wait")()
            await call.write(message(name="many"))
            call.cancel()

    async def goes_on() -> set[tuple[grpc.StatusCode, str]]:
        begun = loop.time()
        codes = set()
        for number in range(steady_calls):
            await asyncio.sleep(max(0.0, begun + number / 100 - loop.time()))
            call = calm.unary_unary(SERVICE + "Unary")(message(100, size=number), timeout=PATIENCE_S)
            codes.add(await ended(call))
        return codes

    try:
        codes, *_ = await asyncio.gather(goes_on(), *map(cancels, opened))
        assert {code for code, _ in codes} == {grpc.StatusCode.OK}, codes
        more = counted.more()
        assert more.pop("exchanges cancelled") > clients * each / 2  # some were given up before they were sent at all
        assert not {name for name in more if "failed" in name or "violations" in name}, more
    finally:
        await asyncio.gather(*(channel.close() for channel in [*opened, calm]))
