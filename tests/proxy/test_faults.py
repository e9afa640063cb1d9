"""Faults that a Service declares, through a real proxy: who waits, who is answered in the endpoint's place."""

from __future__ import annotations

import asyncio

import pytest
from proxy_house import total
from proxy_peers import request, until
from proxy_web import Web

from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.fault import MILLION, FaultPolicy
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import Credentials

GET = b"GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n"
GRPC = GET.replace(b"\r\n\r\n", b"\r\nContent-Type: application/grpc\r\n\r\n")


@pytest.fixture
async def web(peer):
    return await Web().at(peer)


async def outbound(house, web: Web, fault: FaultPolicy | None, timeout_s: float = 0.0):
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    spec = ServiceSpec("shop", "web", [(80, 1)], timeout_s=timeout_s, fault=fault)
    side.apply(build_tables(1, [spec], {"shop/web": [EndpointEntry("127.0.0.1", 80, web.port)]}))
    return await house.listen(side)


def books(door) -> tuple[int, int]:
    """Exchanges that were begun, and those that were cancelled by their clients."""
    series = door.routes[("shop/web:80", False)].series
    return series.request_total, series.cancelled_total


async def test_an_abort_is_answered_in_the_endpoints_place_and_names_itself(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(status=418, abort_ppm=MILLION))
    status, fields, body = await request(door.port, GET)
    assert (status, fields[b"mesh-error"]) == (418, b"fault_injected")
    assert b"declared" in body
    status, fields, _ = await request(door.port, GRPC)
    assert (status, fields[b"grpc-status"], fields[b"mesh-error"]) == (200, b"14", b"fault_injected")
    await house.quiet()
    assert web.bodies == []
    assert books(door) == (2, 0)
    assert total(door.routes[("shop/web:80", False)].series, status=418) == 1


async def test_a_share_is_aborted_and_the_rest_is_not(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(status=500, abort_ppm=MILLION // 2))
    answers = [(await request(door.port, GET))[0] for _ in range(60)]
    assert 10 < answers.count(500) < 50
    assert answers.count(200) == 60 - answers.count(500) == len(web.bodies)


async def test_a_delayed_request_arrives_later_and_whole(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(0.3, MILLION))
    raw = b"POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    began = asyncio.get_running_loop().time()
    writer.write(raw + b"ab")
    await writer.drain()
    writer.write(b"cde")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert asyncio.get_running_loop().time() - began >= 0.29
    assert web.bodies == [b"abcde"]
    await house.quiet()
    assert books(door) == (1, 0)


async def test_a_body_that_is_too_large_to_keep_waits_with_its_client_and_arrives_whole(houses, web):
    house = houses(replay_bytes=1000)
    door = await outbound(house, web, FaultPolicy(0.2, MILLION))
    body = bytes(range(256)) * 4000
    raw = b"POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    assert (await request(door.port, raw + body))[0] == 200
    assert web.bodies == [body]


async def test_a_client_that_does_not_wait_is_counted_and_nothing_is_sent(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(60.0, MILLION))
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(GET)

    async def delayed() -> bool:
        return books(door)[0] == 1

    await until(delayed, "the request to be delayed")
    writer.transport.abort()

    async def gone() -> bool:
        return books(door) == (1, 1)

    await until(gone, "its end")
    del reader
    await house.quiet()
    assert web.bodies == []


async def test_delay_and_abort_come_together(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(0.2, MILLION, 503, MILLION))
    began = asyncio.get_running_loop().time()
    assert (await request(door.port, GET))[1][b"mesh-error"] == b"fault_injected"
    assert asyncio.get_running_loop().time() - began >= 0.19
    assert books(door) == (1, 0)


async def test_a_call_whose_own_deadline_passes_in_the_delay_is_late(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(0.2, MILLION))
    status, fields, _ = await request(door.port, GRPC.replace(b"\r\n\r\n", b"\r\nGrpc-Timeout: 50m\r\n\r\n"))
    assert (status, fields[b"grpc-status"]) == (200, b"4")
    assert web.bodies == []


async def test_only_requests_with_the_declared_header_are_meant(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(status=503, abort_ppm=MILLION, header="x-test", value="chaos"))
    assert (await request(door.port, GET))[0] == 200
    assert (await request(door.port, GET.replace(b"\r\n\r\n", b"\r\nX-Test: chaos\r\n\r\n")))[0] == 503


async def test_an_update_ends_the_faults(houses, web):
    house = houses()
    door = await outbound(house, web, FaultPolicy(abort_ppm=MILLION))
    assert (await request(door.port, GET))[0] == 503
    spec = ServiceSpec("shop", "web", [(80, 1)])
    door.apply(build_tables(2, [spec], {"shop/web": [EndpointEntry("127.0.0.1", 80, web.port)]}))
    assert (await request(door.port, GET))[0] == 200
