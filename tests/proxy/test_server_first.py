"""Protocols in which the server speaks first: asked for after a short silence, remembered, corrected, bounded."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, until

from meshproxy.proxy.server import ASKING, SERVING, SNIFFING
from meshproxy.proxy.server_first import ASKED, DESTINATIONS, ServerFirst
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.detect import PREFACE

NEVER = 3600.0
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
GREETING = b"220 ready\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def greets(reader, writer):
    writer.write(GREETING)
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()


async def answers(reader, writer):
    while True:
        await read_head(reader)
        writer.write(PAGE)


async def listens(reader, writer):
    """Never first; what it hears comes back."""
    while data := await reader.read(65536):
        writer.write(b"heard " + data)
    writer.write(b"end")


async def opened(side):
    return await asyncio.open_connection("127.0.0.1", side.port)


async def line(reader) -> bytes:
    return await asyncio.wait_for(reader.readline(), DEADLINE_S)


async def asked(side, count: int = 1) -> None:
    async def enough() -> bool:
        return [c.phase for c in side.connections].count(ASKING) == count

    await until(enough, f"{count} servers asked")


def counts(side) -> tuple[int, int, int, int]:
    """(timeouts, learnt, used, forgotten)"""
    memory = side.server_first
    return memory.timeouts.value, memory.learnt.value, memory.used.value, memory.forgotten.value


@pytest.mark.parametrize("way", ["forward", "connect"])
async def test_a_server_that_speaks_first_is_heard_and_the_next_connection_does_not_wait(houses, peer, way):
    backend = await peer(greets)
    house = houses(server_first_s=0.05)
    side = await (house.forward(backend.port) if way == "forward" else house.outbound())

    async def through():
        reader, writer = await opened(side)
        if way == "connect":
            writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: a\r\n\r\n" % backend.port)
            await read_head(reader)
        assert await line(reader) == GREETING
        writer.write(b"helo\n")
        assert await line(reader) == b"HELO\n"
        writer.close()

    await through()
    assert counts(side) == (1, 1, 0, 0)
    house.ctx.settings.server_first_s = NEVER
    await through()
    assert counts(side) == (1, 1, 1, 0)
    await house.quiet()
    assert not side.server_first.asked


async def test_http_after_a_silence_is_still_http(houses, peer):
    """A client that connects long before it asks (a browser, a pool) loses nothing: not routing, not its answer."""
    backend = await peer(answers)
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    await asked(side)
    writer.write(GET)
    assert parse(await read_head(reader))[0] == 200
    writer.close()
    await house.quiet()
    assert side.route.series.request_total == 1
    assert sum(cell.count for cell in side.route.series.cells.values()) == 1
    assert counts(side) == (1, 0, 0, 0)
    assert not side.server_first.asked


async def test_a_destination_learnt_wrongly_is_forgotten_when_a_client_speaks_http_first(houses, peer):
    backend = await peer(answers)
    house = houses(server_first_s=NEVER)
    side = await house.forward(backend.port)
    side.server_first.learn(b"forward")
    reader, writer = await opened(side)
    await asked(side)  # at once
    for byte in GET[:1], GET[1:]:
        writer.write(byte)
        await asyncio.sleep(0)
    assert parse(await read_head(reader))[0] == 200
    writer.close()
    assert counts(side) == (0, 1, 1, 1)
    reader, writer = await opened(side)
    writer.write(GET)
    assert parse(await read_head(reader))[0] == 200
    writer.close()
    assert counts(side) == (0, 1, 1, 1)
    await house.quiet()


async def test_a_client_that_is_late_and_speaks_no_http_is_carried_in_the_tunnel_that_is_there(houses, peer):
    backend = await peer(listens)
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    await asked(side)
    writer.write(b"\x00\x01")
    assert await asyncio.wait_for(reader.readexactly(8), DEADLINE_S) == b"heard \x00\x01"
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"end"
    writer.close()
    await house.quiet()
    assert backend.connections == 1
    assert counts(side) == (1, 0, 0, 0)  # that server did not speak first


@pytest.mark.parametrize("said", [b"", b"hello"])
async def test_the_end_of_a_client_that_said_too_little_to_tell_is_passed_on_with_it(houses, peer, said):
    backend = await peer(listens)
    house = houses(server_first_s=0.02 if not said else NEVER)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    if said:
        writer.write(said)
    else:
        await asked(side)
    writer.write_eof()
    expected = (b"heard " + said if said else b"") + b"end"
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == expected
    writer.close()
    await house.quiet()


async def test_a_server_that_speaks_while_the_clients_first_word_is_incomplete_is_heard(houses, peer):
    async def script(reader, writer):
        await go.wait()
        await greets(reader, writer)

    go = asyncio.Event()
    backend = await peer(script)
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    await asked(side)
    writer.write(b"QUIT")

    async def seen() -> bool:
        return next(iter(side.connections)).head == b"QUIT"

    await until(seen, "the client's first bytes")
    go.set()
    assert await line(reader) == GREETING
    writer.write(b"\r\n")
    assert await line(reader) == b"QUIT\r\n"
    assert counts(side)[1] == 0  # the client had begun
    writer.close()
    await house.quiet()


async def test_a_web_server_that_says_408_to_an_idle_connection_is_no_protocol_of_its_own(houses, peer):
    async def script(reader, writer):
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")

    backend = await peer(script)
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    assert (await asyncio.wait_for(reader.read(-1), DEADLINE_S)).startswith(b"HTTP/1.1 408")
    assert not side.server_first.known
    writer.close()
    await house.quiet()


async def test_a_client_that_leaves_in_silence_ends_the_question(houses, peer):
    gone = asyncio.Event()

    async def script(reader, writer):
        assert await reader.read(-1) == b""
        gone.set()

    backend = await peer(script)
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    _, writer = await opened(side)
    await asked(side)

    async def there() -> bool:
        return backend.connections == 1

    await until(there, "the tunnel")
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await house.quiet()
    assert not side.server_first.asked


async def test_a_silent_client_of_a_server_that_is_away_is_let_go(houses, peer):
    backend = await peer(greets)
    backend.server.close()
    await backend.server.wait_closed()
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    writer.close()
    await house.quiet()
    assert not side.server_first.asked
    assert not side.server_first.known


async def test_a_word_begun_after_the_silence_must_be_finished_in_time(houses, peer):
    backend = await peer(listens)
    house = houses(server_first_s=0.02, detect_timeout_s=0.05, sweep_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)
    await asked(side)
    (connection,) = side.connections
    connection.sweep(house.ctx.now + 3600.0)
    assert connection.phase == ASKING  # silence of both is no debt
    writer.write(b"GE")
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    assert house.ctx.violations["slow_start"].value == 1
    writer.close()
    await house.quiet()


async def test_idle_connections_are_not_all_doubled_and_end_after_the_idle_time(houses, peer):
    backend = await peer(listens)
    house = houses(server_first_s=0.02, sweep_s=NEVER)
    side = await house.forward(backend.port)
    clients = [await opened(side) for _ in range(ASKED + 5)]

    async def all_silent() -> bool:
        return side.server_first.timeouts.value == ASKED + 5 and backend.connections == ASKED

    await until(all_silent, "everybody's silence noticed")
    left = [c for c in side.connections if c.phase == SNIFFING]
    assert len(left) == 5
    settings = house.ctx.settings
    for connection in left:
        connection.sweep(connection.opened_at + settings.detect_timeout_s + 1.0)
        assert connection.phase == SNIFFING
        connection.sweep(connection.opened_at + settings.idle_timeout_s + 1.0)
    assert not house.ctx.violations
    for _, writer in clients:
        writer.close()
    await house.quiet()
    assert not side.server_first.asked


def test_the_memory_is_bounded_and_keeps_what_is_used():
    memory = ServerFirst(Registry(), "outbound")
    memory.learn(b"kept:25")
    for number in range(DESTINATIONS + 50):
        memory.learn(b"host:%d" % number)
        assert memory.speaks_first(b"kept:25")
    assert len(memory.known) == DESTINATIONS
    assert not memory.speaks_first(b"host:0")
    assert memory.speaks_first(b"host:%d" % (DESTINATIONS + 49))


async def test_a_server_of_http2_that_sends_its_settings_at_once_does_not_decide_for_its_client(houses, peer):
    """grpcio's does.  A client that connects long before it asks (a pool) is routed a request at a time all the same."""

    async def script(reader, writer):
        writer.write(SETTINGS)
        await reader.read(1)

    backend = await peer(script)
    house = houses(server_first_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await opened(side)

    async def heard() -> bool:
        return backend.connections == 1 and not side.server_first.asked

    await until(heard, "the server's settings")
    (connection,) = side.connections
    assert connection.phase == SNIFFING
    assert not side.server_first.known
    writer.write(PREFACE + SETTINGS)
    assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) != b""
    assert connection.phase == SERVING
    assert not connection.opaque
    writer.close()
    await house.quiet()
