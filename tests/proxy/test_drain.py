"""How a proxy stops: what is in flight finishes, what is idle goes, what takes too long is cut and said."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from proxy_house import total
from proxy_http2_peer import answers_ok
from proxy_peers import DEADLINE_S, parse, read_head, until

from meshproxy.proxy.listener import let_in_nobody
from meshproxy.wire.http2.frames import PREFACE, settings_frame

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GOAWAY = 7


class Frames:
    """The frames an HTTP/2 client receives, by type."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader

    async def next(self, kind: int) -> bytes:
        """The payload of the next frame of this type."""
        while True:
            header = await asyncio.wait_for(self.reader.readexactly(9), DEADLINE_S)
            payload = await asyncio.wait_for(self.reader.readexactly(int.from_bytes(header[:3], "big")), DEADLINE_S)
            if header[3] == kind:
                return payload


async def http2_client(port: int) -> tuple[Frames, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + settings_frame([]))
    frames = Frames(reader)
    await frames.next(4)  # its SETTINGS
    return frames, writer


async def test_idle_connections_of_both_versions_are_closed_and_both_goaways_are_sent(houses, peer):
    house = houses()
    side = await house.forward(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"GET / HTTP/1.1\r\n")  # not idle: this one began

    frames, other = await http2_client(side.port)
    third, silent = await asyncio.open_connection("127.0.0.1", side.port)
    await until(lambda: connections(side, 3), "all connections accepted")
    stopping = asyncio.create_task(house.stop())
    assert int.from_bytes((await frames.next(GOAWAY))[:4], "big") == 2**31 - 1
    assert int.from_bytes((await frames.next(GOAWAY))[:4], "big") == 0
    assert await asyncio.wait_for(third.read(-1), DEADLINE_S) == b""
    writer.write(b"Host: a\r\n\r\n")  # what began is answered
    status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"connection"]) == (502, b"close")
    assert await stopping
    for each in (writer, other, silent):
        each.close()


async def connections(side, count: int) -> bool:
    return len(side.connections) == count


async def test_what_outlasts_the_drain_is_cut_recorded_and_said(houses, peer):
    asked = asyncio.Event()

    async def silent(reader, writer):
        await read_head(reader)
        asked.set()
        await reader.read(-1)

    backend = await peer(silent)
    house = houses(drain_s=0.1)
    side = await house.forward(backend.port)
    _, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    await asyncio.wait_for(asked.wait(), DEADLINE_S)
    assert not await house.stop()
    await house.quiet()
    assert side.route.series.cancelled_total == 1
    writer.close()


async def test_a_connection_accepted_while_draining_is_served_once(houses, peer):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(OK)

    backend = await peer(script)
    house = houses(drain_accept_s=5.0)
    side = await house.forward(backend.port)
    _, holder = await asyncio.open_connection("127.0.0.1", side.port)
    await until(lambda: connections(side, 1), "a connection that keeps the listeners open")
    stopping = asyncio.create_task(house.stop())

    async def draining() -> bool:
        return house.ctx.draining

    await until(draining, "the drain")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"connection"]) == (200, b"close")
    writer.close()
    holder.close()
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)


async def test_a_tunnel_lives_until_its_ends_close_or_the_drain_is_over(houses, peer):
    async def shouts(reader, writer):
        while data := await reader.read(65536):
            writer.write(data.upper())

    backend = await peer(shouts)
    house = houses(drain_s=DEADLINE_S)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"\x00a")
    assert await asyncio.wait_for(reader.readexactly(2), DEADLINE_S) == b"\x00A"
    stopping = asyncio.create_task(house.stop())

    async def refuses() -> bool:
        return not any(listener.servers for listener in house.lifecycle.listeners)

    await until(refuses, "the listeners closed")
    writer.write(b"b")
    assert await asyncio.wait_for(reader.readexactly(1), DEADLINE_S) == b"B"
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    assert await asyncio.wait_for(stopping, DEADLINE_S)
    writer.close()
    await house.quiet()
    assert total(side.opaque.series, status=200) == 1


async def test_upstream_connections_are_gone_after_the_stop(houses, http2_peer):
    backend = await http2_peer(answers_ok)
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    assert parse(await read_head(reader))[0] == 200
    writer.close()
    assert await house.stop()
    await asyncio.wait_for(backend.sessions[0].closed.wait(), DEADLINE_S)


async def test_an_idle_http2_connection_is_ended_although_its_client_ignores_goaway(houses):
    house = houses(idle_timeout_s=0.05, sweep_s=0.02)
    side = await house.forward(1)
    frames, writer = await http2_client(side.port)
    await frames.next(GOAWAY)
    await frames.next(GOAWAY)
    assert await asyncio.wait_for(frames.reader.read(-1), DEADLINE_S) == b""
    writer.close()


async def test_connections_that_wait_in_the_queue_of_a_closing_listener_are_served(houses, peer):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(OK)

    backend = await peer(script)
    house = houses(drain_accept_s=DEADLINE_S)  # no such wait for callers that may come, only for those that came last
    side = await house.forward(backend.port)
    clients = []
    for _ in range(5):  # blocking, so that the loop has no chance to accept any of them
        client = socket.create_connection(("127.0.0.1", side.port), DEADLINE_S)
        client.sendall(GET)
        client.setblocking(False)
        clients.append(client)
    stopping = asyncio.create_task(house.stop(linger=False))
    for client in clients:
        reader, writer = await asyncio.open_connection(sock=client)
        status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
        assert (status, fields[b"connection"]) == (200, b"close"), fields
        writer.close()
    assert await asyncio.wait_for(stopping, DEADLINE_S)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", side.port)


async def test_an_idle_proxy_that_is_told_to_end_still_takes_who_has_not_heard_of_it(houses, peer):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(OK)

    backend = await peer(script)
    house = houses(drain_accept_s=1.0)
    side = await house.forward(backend.port)
    stopping = asyncio.create_task(house.stop())

    async def draining() -> bool:
        return house.ctx.draining

    await until(draining, "the drain to begin")
    await asyncio.sleep(0)  # the turn in which the listeners of a proxy that does not wait are closed
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"connection"]) == (200, b"close")
    writer.close()
    assert await asyncio.wait_for(stopping, DEADLINE_S)


async def test_who_connected_last_and_has_not_spoken_yet_is_waited_for(houses, peer):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(OK)

    backend = await peer(script)
    house = houses(drain_accept_s=DEADLINE_S)
    side = await house.forward(backend.port)
    client = socket.create_connection(("127.0.0.1", side.port), DEADLINE_S)  # blocking, so it is not accepted yet
    client.setblocking(False)
    stopping = asyncio.create_task(house.stop(linger=False))
    await until(lambda: connections(side, 1), "the connection, taken from the queue")

    async def refuses() -> bool:
        return not any(listener.servers for listener in house.lifecycle.listeners)

    await until(refuses, "the listeners closed")
    reader, writer = await asyncio.open_connection(sock=client)
    for _ in range(5):  # turns of the loop in which it might have been closed
        await asyncio.sleep(0)
    writer.write(GET)
    status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"connection"]) == (200, b"close")
    writer.close()
    assert await asyncio.wait_for(stopping, DEADLINE_S)


async def test_a_listener_that_lets_in_nobody_makes_no_connection_and_keeps_those_it_made():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as early:
            let_in_nobody(listening)
            late = socket.socket()
            late.setblocking(False)
            assert late.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
            accepted, address = listening.accept()
            assert address == early.getsockname()
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.accept()
            early.sendall(b"still read")
            assert accepted.recv(100) == b"still read"
            accepted.close()
            late.close()
