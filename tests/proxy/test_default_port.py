"""A name without a port means the port of the request's scheme (RFC 9110 4.2.1, 4.2.2), whatever was asked before."""

from __future__ import annotations

import asyncio

import pytest
from proxy_peers import DEADLINE_S, read_head

from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.service import DETECT, EndpointEntry
from meshproxy.policy.tables import build_tables

PORTS = {b"http": 80, b"https": 443}


def says(word: bytes):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(word), word))

    return script


@pytest.mark.parametrize("order", [(b"http", b"https"), (b"https", b"http")])
async def test_a_services_port_is_that_of_the_scheme_in_any_order(houses, peer, order):
    backends = {scheme: await peer(says(scheme)) for scheme in PORTS}
    house = houses()
    door = await house.outbound()
    entries = [EndpointEntry("127.0.0.1", port, backends[scheme].port) for scheme, port in PORTS.items()]
    spec = ServiceSpec("shop", "prices", [(port, DETECT) for port in PORTS.values()])
    door.apply(build_tables(1, [spec], {"shop/prices": entries}))
    for scheme in order * 2:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET %b://prices/ HTTP/1.1\r\nHost: prices\r\nConnection: close\r\n\r\n" % scheme)
        answer = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
        assert answer.partition(b"\r\n\r\n")[2] == scheme
        writer.close()
    await house.quiet()


async def test_a_host_outside_has_an_endpoint_for_each_scheme(houses):
    house = houses()
    door = await house.outbound()
    for scheme in PORTS:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET %b://outside.invalid/ HTTP/1.1\r\nHost: outside.invalid\r\nConnection: close\r\n\r\n" % scheme)
        assert (await asyncio.wait_for(reader.read(-1), DEADLINE_S)).startswith(b"HTTP/1.1 50")
        writer.close()
    await house.quiet()
    assert sorted(endpoint.port for endpoint in house.ctx.endpoints if endpoint.address == "outside.invalid") == [80, 443]
