"""Endpoints that fail, through a real proxy: who is left out, who tries them again, what clients are told meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from proxy_house import total
from proxy_peers import free_port, read_head, request, until

from meshproxy.policy.balancer import LEAST_REQUEST
from meshproxy.policy.breaker import PROBING, BreakerPolicy
from meshproxy.policy.chooser import MAGLEV, RING_HASH, BalancerPolicy
from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import Credentials

GET = b"GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"
GRPC = GET.replace(b"\r\n\r\n", b"\r\nContent-Type: application/grpc\r\n\r\n")


class Web:
    """Three backends on ports of their own.  `broken`: those that answer 503; `held`: those that do not answer until told."""

    def __init__(self, peer) -> None:
        self.peer = peer
        self.ports: list[int] = []
        self.seen: Counter[int] = Counter()
        self.broken: set[int] = set()
        self.released = asyncio.Event()
        self.held: set[int] = set()
        self.more = b""  # fields of those answers

    async def start(self, count: int = 3) -> None:
        for index in range(count):
            self.ports.append((await self.peer(self.script(index))).port)

    def script(self, index: int):
        async def serve(reader, writer):
            while True:
                await read_head(reader)
                self.seen[index] += 1
                if index in self.held:
                    await self.released.wait()
                word = b"503 Service Unavailable" + self.more if index in self.broken else b"200 OK"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: 1\r\n\r\n%d" % (word, index))
                await writer.drain()

        return serve

    def tables(self, balancer: BalancerPolicy | None, version: int = 1, ports: list[int] | None = None):
        entries = [EndpointEntry("127.0.0.1", 80, port) for port in ports or self.ports]
        return build_tables(version, [ServiceSpec("shop", "web", [(80, 1)], balancer=balancer)], {"shop/web": entries})


@pytest.fixture
async def web(peer):
    found = Web(peer)
    await found.start()
    return found


async def outbound(house, web: Web, balancer: BalancerPolicy | None):
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    side.apply(web.tables(balancer))
    return await house.listen(side)


def breaking(**changed) -> BalancerPolicy:
    rules = {"min_penalty_s": 0.3, "max_penalty_s": 0.6, "jitter": 0.0, **changed}
    return BalancerPolicy(LEAST_REQUEST, breaker=BreakerPolicy(**rules))


def metric(house, name: str) -> int:
    lines = house.ctx.registry.render().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{")))


async def seven_failures_at(web: Web, door, index: int) -> None:
    async def ejected() -> bool:
        await request(door.port, GET)
        return web.seen[index] >= 7

    await until(ejected, "seven requests at the endpoint that fails")


async def test_seven_failures_in_a_row_eject_an_endpoint_one_request_probes_it_and_success_brings_it_back(houses, web):
    house = houses()
    web.broken = {1}
    door = await outbound(house, web, breaking())
    await seven_failures_at(web, door, 1)
    assert metric(house, "meshproxy_ejections_total") == 1
    assert metric(house, "meshproxy_endpoints_ejected") == 1
    ejected = next(one for one in house.ctx.endpoints if one.port == web.ports[1])
    assert ejected.breaker.state != 0

    web.broken = set()
    web.held = {1}  # the probe takes its time
    answers: list[asyncio.Task] = []

    async def probed() -> bool:
        answers.append(asyncio.create_task(request(door.port, GET)))
        await asyncio.sleep(0.01)
        return web.seen[1] == 8

    await until(probed, "a probe")
    assert ejected.breaker.state == PROBING
    for _ in range(20):
        assert (await request(door.port, GET))[0] == 200
    assert web.seen[1] == 8, "only one request probes"
    web.released.set()
    assert [(await answer)[0] for answer in answers] == [200] * len(answers)
    await house.quiet()
    assert ejected.available
    assert metric(house, "meshproxy_endpoints_ejected") == 0

    async def used() -> bool:
        await request(door.port, GET)
        return web.seen[1] > 8

    await until(used, "ordinary requests at the endpoint that came back")


@pytest.mark.parametrize(
    ("more", "least"),
    [
        (b"\r\nRetry-After: 40", 39.0),
        (b"\r\nRetry-After: Sun, 06 Nov 1994 08:50:17 GMT", 39.0),  # 40 s from the proxy's clock, see below
        (b"\r\nRetry-After: Sun, 06 Nov 1994 08:49:00 GMT", 0.0),
        (b"\r\nRetry-After: soon", 0.0),
        (b"", 0.0),
    ],
)
async def test_an_endpoint_that_says_when_to_come_back_is_left_alone_as_long(houses, web, more, least):
    house = houses()
    house.ctx.clock = lambda: 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
    web.broken, web.more = {1}, more
    door = await outbound(house, web, breaking(max_penalty_s=60.0))
    await seven_failures_at(web, door, 1)
    ejected = next(one for one in house.ctx.endpoints if one.port == web.ports[1])
    assert least <= ejected.breaker.until - house.ctx.now < least + 1.1


@pytest.mark.parametrize("in_trailers", [False, True])
async def test_a_grpc_server_that_pushes_back_is_left_alone_as_long(houses, web, http2_peer, in_trailers):
    def busy(asked):
        head = [(":status", "200"), ("content-type", "application/grpc")]
        said = [("grpc-status", "14"), ("grpc-retry-pushback-ms", "40000")]
        if in_trailers:
            asked.session.head(asked.stream_id, head, False)
            asked.session.head(asked.stream_id, said, True)
        else:
            asked.session.head(asked.stream_id, head + said, True)

    house, backend = houses(), await http2_peer(busy)
    web.ports = [web.ports[0], backend.port]  # of the first it knows only that it speaks no HTTP/2
    door = await outbound(house, web, breaking(max_penalty_s=60.0))

    async def ejected() -> bool:
        await request(door.port, GRPC)
        return len(backend.asked) >= 7

    await until(ejected, "seven calls at the server that pushes back")
    await house.quiet()
    out = next(one for one in house.ctx.endpoints if one.port == backend.port)
    assert 39.0 <= out.breaker.until - house.ctx.now < 41.1


async def test_a_probe_that_fails_keeps_it_out(houses, web):
    house = houses()
    web.broken = {1}
    door = await outbound(house, web, breaking())
    await seven_failures_at(web, door, 1)

    async def probed_twice() -> bool:
        await request(door.port, GET)
        return web.seen[1] == 9

    await until(probed_twice, "a second probe")
    await house.quiet()
    assert metric(house, "meshproxy_ejections_total") == 3
    assert metric(house, "meshproxy_endpoints_ejected") == 1


async def test_by_default_half_of_the_endpoints_at_most_are_out_and_the_rest_go_on_answering(houses, web):
    house = houses()
    web.broken = {0, 1, 2}
    door = await outbound(house, web, breaking(min_penalty_s=60.0, max_penalty_s=60.0))
    for _ in range(60):
        status, fields, _ = await request(door.port, GET)
        assert status == 503
        assert b"mesh-error" not in fields, "the endpoint's own answer"
    assert metric(house, "meshproxy_endpoints_ejected") == 1
    assert metric(house, "meshproxy_ejections_spared_total") > 0


async def test_with_all_of_them_out_requests_fail_at_once_and_are_told_when_to_come_back(houses, web):
    house = houses()
    web.broken = {0, 1, 2}
    door = await outbound(house, web, breaking(min_penalty_s=60.0, max_penalty_s=60.0, max_ejected=1.0))

    async def all_out() -> bool:
        return (await request(door.port, GET))[1].get(b"mesh-error") == b"circuit_open"

    await until(all_out, "everyone out")
    before = sum(web.seen.values())
    assert before == 21
    status, fields, body = await request(door.port, GET)
    assert (status, fields[b"mesh-error"], fields[b"retry-after"]) == (503, b"circuit_open", b"1")
    assert b"every endpoint" in body
    assert sum(web.seen.values()) == before, "nobody was asked"
    status, fields, _ = await request(door.port, GRPC)
    assert (status, fields[b"grpc-status"], fields[b"grpc-retry-pushback-ms"]) == (200, b"14", b"1000")


async def test_an_endpoint_that_cannot_be_reached_is_ejected_and_found_again(houses, web):
    house = houses(reconnect_min_s=0.01, reconnect_max_s=0.01)
    port = free_port()
    door = await outbound(house, web, None)
    ports = [*web.ports[:2], port]
    door.apply(web.tables(breaking(consecutive=2), 2, ports))

    async def ejected() -> bool:
        assert (await request(door.port, GET))[0] == 200, "what cannot be reached is tried elsewhere"
        return metric(house, "meshproxy_endpoints_ejected") == 1

    await until(ejected, "the ejection")
    await web.peer(web.script(7), port)

    async def back() -> bool:
        await request(door.port, GET)
        return web.seen[7] > 1

    await until(back, "the endpoint's return")


async def test_a_client_that_gives_up_is_no_failure(houses, web):
    house = houses()
    web.held = {0, 1, 2}
    door = await outbound(house, web, breaking(consecutive=1))
    for _ in range(6):
        before = sum(web.seen.values())
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(GET)

        async def asked(before: int = before) -> bool:
            return sum(web.seen.values()) > before

        await until(asked, "the request at an endpoint")
        writer.transport.abort()
        del reader
    await house.quiet()
    assert metric(house, "meshproxy_ejections_total") == 0
    web.released.set()


async def test_an_update_of_the_configuration_keeps_who_is_out_and_one_without_a_breaker_lets_it_in(houses, web):
    house = houses()
    web.broken = {1}
    policy = breaking(min_penalty_s=60.0, max_penalty_s=60.0)
    door = await outbound(house, web, policy)
    await seven_failures_at(web, door, 1)
    door.apply(web.tables(policy, 2, [*web.ports, free_port()]))
    for _ in range(20):
        await request(door.port, GET)
    assert web.seen[1] == 7
    door.apply(web.tables(BalancerPolicy(LEAST_REQUEST), 3))
    assert all(endpoint.breaker is None for endpoint in house.ctx.endpoints if not endpoint.retired)
    assert metric(house, "meshproxy_endpoints_ejected") == 0

    async def asked_again() -> bool:
        await request(door.port, GET)
        return web.seen[1] > 7

    await until(asked_again, "requests at the endpoint that is let in")


async def test_without_a_declaration_nobody_is_ejected(houses, web):
    house = houses()
    web.broken = {0, 1, 2}
    door = await outbound(house, web, None)
    for _ in range(40):
        assert (await request(door.port, GET))[0] == 503
    assert all(endpoint.available and endpoint.breaker is None for endpoint in house.ctx.endpoints)


@pytest.mark.parametrize("balancer", [MAGLEV, RING_HASH])
async def test_a_cookie_keeps_its_endpoint_and_the_books_agree(houses, web, balancer):
    house = houses()
    door = await outbound(house, web, BalancerPolicy(balancer, HashKey("cookie=session")))
    for session in range(12):
        raw = GET.replace(b"\r\n\r\n", b"\r\nCookie: a=b; session=%d\r\n\r\n" % session)
        assert len({(await request(door.port, raw))[2] for _ in range(3)}) == 1
    await house.quiet()
    assert sum(total(series, status=200) for series in {endpoint.series for endpoint in house.ctx.endpoints}) == 36
    assert len(web.seen) > 1, "twelve sessions are not all one endpoint's"


async def test_an_answer_that_puts_its_own_endpoint_out_is_still_its_client_s(houses, web):
    """429 is tried again where that is declared, and counts against the rate: the fifth one ejects the only endpoint."""

    async def busy(reader, writer):
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n")

    house = houses()
    web.ports = [(await web.peer(busy)).port]
    door = await outbound(house, web, breaking(success_rate=0.8, max_ejected=1.0, min_penalty_s=60.0, max_penalty_s=60.0))
    route = door.routes[("shop/web:80", False)]
    route.retry = parse_policy(["429"])
    route.retry_responses = True
    assert [(await request(door.port, GET))[0] for _ in range(6)] == [429] * 5 + [503]
    await house.quiet()
    assert (route.series.retry_total, route.series.skipped) == (0, {"no_endpoint": 5})
    assert metric(house, "meshproxy_endpoints_ejected") == 1


async def test_a_service_s_declaration_is_for_the_backends_of_its_split_that_have_none(houses, web):
    house = houses()
    policy = breaking(consecutive=2)
    entries = [EndpointEntry("127.0.0.1", 80, port) for port in web.ports]
    own = BalancerPolicy(slow_start_s=5.0)
    specs = [
        ServiceSpec("shop", "web", [(80, 1)], [("shop/web-v1", 1), ("shop/web-v2", 1)], balancer=policy),
        ServiceSpec("shop", "web-v1", [(80, 1)]),
        ServiceSpec("shop", "web-v2", [(80, 1)], balancer=own),
    ]
    tables = build_tables(1, specs, {"shop/web-v1": entries[:2], "shop/web-v2": entries[2:]})
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    side.apply(tables)
    first, second = side.routes[("shop/web:80", False)].backends
    assert first.chooser.policy is policy
    assert second.chooser.policy is own
    direct = side.routes[("shop/web-v1:80", False)].backends[0]
    assert direct.chooser is first.chooser, "one state for one backend, whoever leads to it"


async def test_weights_of_pods_count_though_the_service_declares_nothing(houses, web):
    house = houses()
    entries = [EndpointEntry("127.0.0.1", 80, port, weight=weight) for port, weight in zip(web.ports, (1, 1, 8), strict=True)]
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    side.apply(build_tables(1, [ServiceSpec("shop", "web", [(80, 1)])], {"shop/web": entries}))
    door = await house.listen(side)
    for _ in range(80):
        assert (await request(door.port, GET))[0] == 200
    assert web.seen[2] > web.seen[0] + web.seen[1]
    side.apply(build_tables(2, [ServiceSpec("shop", "web", [(80, 1)])], {"shop/web": entries}))
    as_bytes = side.routes[("shop/web:80", True)].backends[0]
    assert as_bytes.chooser.targets == as_bytes.endpoints, "bytes have endpoints of their own, and so has their choice"
