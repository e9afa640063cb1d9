"""A pod that takes only so many requests at once, through a real inbound side."""

from __future__ import annotations

import asyncio

import pytest
from proxy_peers import read_head, request, until
from test_exchange_machine import Loop, Spoken, request_head, response_head

from meshproxy.policy.budget import Budget
from meshproxy.policy.concurrency import Gradient
from meshproxy.policy.retry import parse_policy
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_MESH, Endpoint
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.inbound import ALL_UNAUTHENTICATED, Inbound, InboundPort
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import Credentials
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.message import Field, add_field

GET = b"GET /work HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
GRPC = GET.replace(b"\r\n\r\n", b"\r\nContent-Type: application/grpc\r\n\r\n")
PROBE = GET.replace(b"/work", b"/ready")


class App:
    """Answers when told, probes at once."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.asked = 0
        self.most = 0
        self.status = b"200 OK"

    async def serve(self, reader, writer) -> None:
        while True:
            head = await read_head(reader)
            if not head.startswith(b"GET /ready"):
                self.asked += 1
                done = asyncio.get_running_loop().create_future()
                self.waiting.append(done)
                self.most = max(self.most, len(self.waiting))
                await done
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\nok" % self.status)
            await writer.drain()

    def answer(self, count: int = 1000) -> None:
        for done in self.waiting[:count]:
            if not done.done():
                done.set_result(None)
        del self.waiting[:count]

    async def holds(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.waiting) >= count

        await until(enough, f"{count} requests at the app")


@pytest.fixture
async def app(peer):
    found = App()
    found.port = (await peer(found.serve)).port
    return found


async def inbound(house, app: App, greatest: int, adaptive: bool = False):
    side = Inbound(house.ctx, Credentials(), "127.0.0.1")
    side.apply(ports(app), ALL_UNAUTHENTICATED, None, greatest, adaptive)
    return await house.listen(side)


def ports(app: App) -> list[InboundPort]:
    return [InboundPort(app.port, 1, ("/ready",))]


def metric(house, line: str) -> float:
    found = [text.split()[-1] for text in house.ctx.registry.render().decode().splitlines() if text.startswith(line)]
    return sum(map(float, found))


async def test_above_the_limit_requests_are_refused_at_once_and_told_when_to_come_back(houses, app):
    house = houses()
    door = await inbound(house, app, 3)
    running = [asyncio.create_task(request(door.port, GET)) for _ in range(3)]
    await app.holds(3)
    status, fields, body = await request(door.port, GET)
    assert (status, fields[b"mesh-error"], fields[b"retry-after"]) == (503, b"concurrency_limit", b"1")
    assert b"at once" in body
    status, fields, _ = await request(door.port, GRPC)
    assert (status, fields[b"grpc-status"], fields[b"grpc-retry-pushback-ms"]) == (200, b"14", b"1000")
    assert metric(house, 'meshproxy_shed_total{class="ordinary"}') == 2
    assert metric(house, "meshproxy_concurrency_in_flight") == 3
    assert metric(house, "meshproxy_concurrency_limit") == 3
    app.answer(1)
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result()[0] for task in done] == [200]
    again = asyncio.create_task(request(door.port, GET))
    await app.holds(3)
    app.answer()
    assert [(await task)[0] for task in [*running, again]] == [200] * 4
    await house.quiet()
    assert metric(house, "meshproxy_concurrency_in_flight") == 0
    assert app.asked == 4


async def test_a_health_probe_is_let_in_however_busy_the_pod_is(houses, app):
    house = houses()
    door = await inbound(house, app, 1)
    running = asyncio.create_task(request(door.port, GET))
    await app.holds(1)
    assert (await request(door.port, PROBE))[0] == 200
    app.answer()
    assert (await running)[0] == 200


@pytest.mark.parametrize("end", ["client gone", "app gone", "app's own error"])
async def test_a_slot_comes_back_however_a_request_ends(houses, app, end):
    house = houses()
    door = await inbound(house, app, 2)
    for turn in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(GET)
        await app.holds(1)
        if end == "client gone":
            writer.transport.abort()
        elif end == "app gone":
            answer = asyncio.create_task(reader.read())

            async def answered(answer: asyncio.Task = answer) -> bool:  # a GET is tried once more
                for done in app.waiting:
                    done.set_exception(ConnectionError())
                app.waiting.clear()
                return answer.done()

            await until(answered, "the answer")
        else:
            app.status = b"500 Internal Server Error"
            app.answer()
            await reader.read()
        writer.close()

        async def free() -> bool:
            return metric(house, "meshproxy_concurrency_in_flight") == 0

        await until(free, f"the slot, turn {turn}")
        app.answer()


async def test_critical_requests_get_the_slot_that_is_free_next(houses, app):
    house = houses()
    door = await inbound(house, app, 2)
    low = GET.replace(b"\r\n\r\n", b"\r\nPriority: u=7\r\n\r\n")
    high = GET.replace(b"\r\n\r\n", b"\r\nPriority: u=0\r\n\r\n")
    running = [asyncio.create_task(request(door.port, low)) for _ in range(2)]
    await app.holds(2)
    assert (await request(door.port, high))[0] == 503
    app.answer(1)
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    assert (await request(door.port, low))[0] == 503, "the slot is kept for the class that asked in vain"
    urgent = asyncio.create_task(request(door.port, high))
    await app.holds(2)
    app.answer()
    assert (await urgent)[0] == 200
    await asyncio.gather(*running)
    assert metric(house, 'meshproxy_shed_total{class="critical"}') == 1
    assert metric(house, 'meshproxy_shed_total{class="sheddable"}') == 1


async def test_an_adaptive_limit_shrinks_when_the_app_says_that_it_is_overloaded(houses, app):
    house = houses()
    door = await inbound(house, app, 100, True)
    assert metric(house, "meshproxy_concurrency_limit") == 20
    app.status = b"503 Service Unavailable"

    async def shrunk() -> bool:
        tasks = [asyncio.create_task(request(door.port, GET)) for _ in range(4)]
        await app.holds(4)
        app.answer()
        await asyncio.gather(*tasks)
        return metric(house, "meshproxy_concurrency_limit") < 20

    await until(shrunk, "a lower limit")


async def test_an_adaptive_limit_learns_nothing_from_deadlines_that_anybody_can_set(houses, app):
    house = houses()
    door = await inbound(house, app, 100, True)
    hasty = GET.replace(b"\r\n\r\n", b"\r\nX-Envoy-Expected-Rq-Timeout-Ms: 30\r\n\r\n")
    loop = asyncio.get_running_loop()
    end = loop.time() + 1.2 * Gradient.WINDOW_S  # the limit looks at what happened once in a window
    while loop.time() < end:
        answers = await asyncio.gather(*[request(door.port, hasty) for _ in range(8)])
        assert {(status, fields[b"mesh-error"]) for status, fields, _ in answers} == {(504, b"deadline_exceeded")}
    assert metric(house, "meshproxy_concurrency_limit") == 20
    await house.quiet()


async def test_an_update_keeps_the_limit_changes_it_or_takes_it_away(houses, app):
    house = houses()
    door = await inbound(house, app, 1)
    running = [asyncio.create_task(request(door.port, GET))]
    await app.holds(1)
    door.apply(ports(app), ALL_UNAUTHENTICATED, None, 1, False)
    assert (await request(door.port, GET))[0] == 503
    door.apply(ports(app), ALL_UNAUTHENTICATED, None, 0, False)
    running += [asyncio.create_task(request(door.port, GET)) for _ in range(3)]
    await app.holds(4)
    door.apply(ports(app), ALL_UNAUTHENTICATED, None, 2, False)
    app.answer()
    assert [(await task)[0] for task in running] == [200] * 4
    await house.quiet()
    assert metric(house, "meshproxy_concurrency_in_flight") == 0


async def test_without_a_declaration_there_is_no_limit_and_no_metric_of_one(houses, app):
    house = houses()
    door = await inbound(house, app, 0)
    running = [asyncio.create_task(request(door.port, GET)) for _ in range(50)]
    await app.holds(50)
    app.answer()
    assert {(await task)[0] for task in running} == {200}
    assert "concurrency" not in house.ctx.registry.render().decode()


@pytest.mark.parametrize("attempts", [5, 1])
def test_who_was_refused_by_a_pod_is_sent_to_one_other_and_no_further(attempts):
    """Its caller's side: three pods whose sidecars all say that they are full.  (Time stands still; streams are stand-ins.)"""
    ctx = Context(Loop(), Settings(), Registry(), 1, b"x-")
    pods = [
        Endpoint(ctx, "127.0.0.1", port, SPEAKS_MESH, ctx.registry.http("outbound", (("target_addr", f"a:{port}"),)))
        for port in (1, 2, 3)
    ]
    retry = parse_policy(["5xx"], attempts=attempts, backoff_s=0.0)
    route = Route("r", [Backend("b", list(pods))], None, retry, Budget(), None, ctx.registry.route("outbound"))
    down = Spoken(over_when_said=True)
    exchange = Exchange(ctx, down, request_head(False, b"", b"GET", 20), "outbound", False)
    down.sink = exchange
    exchange.begin(route, [], True)
    asked = []
    while not down.over:
        pod, pool = next((pod, pool) for pod in pods for pool in pod.pools() if pool.waiting)
        asked.append(pod)
        up = Spoken(over_when_said=False)
        up.sink = requester = pool.next_requester()
        requester.attached(up)
        head = response_head(503, False, b"")
        add_field(head, Field(b"retry-after", b"1"))
        add_field(head, Field(b"mesh-error", b"concurrency_limit"))
        up.sink.response_head(head, True)
    assert len(asked) == len(set(asked)) == 2
    assert (down.head.status, down.head.field(b"retry-after")) == (503, b"1")
    assert route.series.skipped == {"retry_after": 1}
