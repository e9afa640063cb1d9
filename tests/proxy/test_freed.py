"""A connection that is gone is freed at once, by reference counts: the collector looks rarely (proxy/run.py), and what waited
for it was 25 MB of a sidecar that serves 40 short connections a second."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, until
from test_tunnel import UPGRADE, chain, upgrades_and_shouts

WATCHED = ("Accepted", "Upstream", "Exchange", "Tunnel", "TlsLayer")
ENGINES = ("Http1Server", "Http1Client", "Http2Server", "Http2Client", "OpaqueServer", "OpaqueClient")
TIMES = 20
KEPT = 3  # connections to the backend that wait in the pool for the next request


def alive() -> Counter[str]:
    return Counter(name for name in (type(found).__name__ for found in gc.get_objects()) if name in WATCHED + ENGINES)


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def answers(reader, writer):
    while await read_head(reader):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()


async def told(port: int, raw: bytes, status: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which that was said, and answered like this."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == status
    return reader, writer


async def asks(port: int) -> None:
    """A request, its answer, and the client goes."""
    _, writer = await told(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200)
    writer.close()


async def leaves(port: int) -> None:
    """The client breaks off in the middle of a request."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.transport.abort()


async def errs(port: int) -> None:
    """What it says is no HTTP request."""
    _, writer = await told(port, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400)
    writer.close()


async def tunnels(port: int) -> None:
    reader, writer = await told(port, UPGRADE, 101)
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) == b"HELLO"
    writer.close()


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize(
    ("client", "backend"), [(asks, answers), (leaves, answers), (errs, answers), (tunnels, upgrades_and_shouts)]
)
@pytest.mark.usefixtures("uncollected")
async def test_a_connection_that_is_gone_leaves_nothing_behind(houses, peer, hops, client, backend):
    server = await peer(backend)
    house = houses()
    first, _ = await chain(house, server.port, hops)
    await client(first.port)  # what is made once: the connection between two hops
    await house.quiet()
    seen: dict[str, int] = {}

    async def over() -> bool:
        seen.clear()
        seen.update(alive() - before)
        return not seen or max(seen.values()) <= KEPT

    before = alive()
    for _ in range(TIMES):
        await client(first.port)
    await house.quiet()
    try:
        await until(over, "everything is freed")
    except AssertionError:
        raise AssertionError(f"still there: {seen}") from None
