"""Tunnels: CONNECT, Upgrade and plain bytes; through one proxy and through two with HTTP/2 between."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

import pytest
from proxy_house import total
from proxy_http2_peer import CONNECT_PROTOCOL
from proxy_peers import DEADLINE_S, free_port, parse, read_head, request, until

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def upgrades_and_shouts(reader, writer):
    """101, then everything back in capitals, and its end after the client's."""
    head = await read_head(reader)
    assert b"websocket" in head
    writer.write(SWITCH)
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()


async def shouts(reader, writer):
    while data := await reader.read(65536):
        writer.write(data.upper())
        await writer.drain()


async def chain(house, port: int, hops: int):
    """`hops` forwards before `port`, HTTP/2 between them; the first and the last one."""
    last = side = await house.forward(port)
    for _ in range(hops - 1):
        side = await house.forward(side.port, upstream="http2")
    return side, last


@pytest.mark.parametrize("hops", [1, 2, 3])
async def test_an_upgrade_carries_both_directions_and_their_ends(houses, peer, hops):
    backend = await peer(upgrades_and_shouts)
    house = houses()
    first, _ = await chain(house, backend.port, hops)
    reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
    writer.write(UPGRADE)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 101
    writer.write(b"hello")
    assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) == b"HELLO"
    writer.write(b"bye")
    writer.write_eof()  # half-close: the answer to "bye" still comes
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"BYE"
    writer.close()
    await house.quiet()
    assert total(first.route.series, success=True) == hops  # they share the series of this process


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_server_that_ends_its_direction_first_still_hears_the_client(houses, peer, hops):
    heard = asyncio.get_running_loop().create_future()

    async def script(reader, writer):
        await read_head(reader)
        writer.write(SWITCH + b"that is all")
        writer.write_eof()
        heard.set_result(await reader.read(-1))

    backend = await peer(script)
    house = houses()
    first, _ = await chain(house, backend.port, hops)
    reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
    writer.write(UPGRADE)
    await read_head(reader)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"that is all"
    writer.write(b"and this is mine")
    writer.write_eof()
    assert await asyncio.wait_for(heard, DEADLINE_S) == b"and this is mine"
    writer.close()
    await house.quiet()


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_declined_upgrade_is_an_ordinary_answer(houses, peer, hops):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    backend = await peer(script)
    house = houses()
    first, _ = await chain(house, backend.port, hops)
    reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
    writer.write(UPGRADE)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 403
    writer.close()
    await house.quiet()


async def test_an_upgrade_answered_with_a_page_is_that_page(houses, peer):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    for _ in range(2):
        writer.write(UPGRADE)
        assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 200
        assert await reader.readexactly(4) == b"page"
    assert backend.connections == 1  # nothing was wrong with it
    writer.close()
    await house.quiet()


async def test_a_page_in_answer_to_an_extended_connect_does_not_grant_it(houses, peer):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")

    backend = await peer(script)
    house = houses()
    first, last = await chain(house, backend.port, 2)
    reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
    writer.write(UPGRADE)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 502
    assert (await reader.readline()).startswith(b"upgrade_declined: ")
    writer.close()
    await house.quiet()
    assert total(last.endpoints[0].series, status=200) == 1


@pytest.mark.parametrize("settings", [{}, {CONNECT_PROTOCOL: 0}])
async def test_an_upgrade_to_an_http2_server_without_extended_connect_is_left_out(houses, http2_peer, settings):
    backend = await http2_peer(lambda asked: asked.respond(200, b"page"), settings=settings)
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 200
    assert b"page" in await asyncio.wait_for(reader.readuntil(b"page"), DEADLINE_S)
    (asked,) = backend.asked
    await asyncio.wait_for(asked.ended.wait(), DEADLINE_S)
    assert (asked.headers[":method"], ":protocol" in asked.headers) == ("GET", False)
    writer.close()
    await house.quiet()
    assert total(side.endpoints[0].series, status=200) == 1


async def test_a_stream_that_is_granted_by_an_http2_server_ends_cleanly_by_trailers_or_data(houses, http2_peer):
    backend = await http2_peer(lambda asked: asked.respond(200, None), settings={CONNECT_PROTOCOL: 1})
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 101
    assert backend.asked[0].headers[":protocol"] == "websocket"
    asked = backend.asked[0]
    asked.session.data(asked.stream_id, b"bye", True)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"bye"
    writer.write_eof()
    await asyncio.wait_for(asked.ended.wait(), DEADLINE_S)
    writer.close()
    await house.quiet()


async def test_the_timeout_of_a_route_ends_with_the_grant_of_a_tunnel(houses, peer):
    backend = await peer(upgrades_and_shouts)
    house = houses()
    side = await house.forward(backend.port, timeout_s=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE)
    await asyncio.wait_for(read_head(reader), DEADLINE_S)
    assert not any(queue.waiting for queue in house.ctx.deadlines.queues.values())
    writer.write(b"x")
    assert await asyncio.wait_for(reader.readexactly(1), DEADLINE_S) == b"X"
    writer.close()
    await house.quiet()


async def test_a_connect_through_the_outbound_proxy_carries_http_inside(houses, peer):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend = await peer(script)
    house = houses()
    side = await house.outbound()
    reader, writer = await connect(side.port, backend.port)
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 200
        assert await reader.readexactly(2) == b"ok"
    inner = [connection for connection in side.connections if connection.destination]
    host, port = writer.get_extra_info("sockname")
    assert inner[0].peer == f"{host}:{port}"
    writer.close()
    await house.quiet()
    await until(lambda: nothing_left(side), "the end of both connections")


async def nothing_left(side) -> bool:
    return not side.connections


async def connect(proxy: int, port: int):
    """A CONNECT tunnel to 127.0.0.1:port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy, limit=1 << 22)
    writer.write(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (port, port))
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 200
    return reader, writer


async def test_a_connect_is_granted_before_anything_is_reached_and_what_is_inside_is_told(houses):
    """HTTP inside is routed request by request; to other bytes the end of the tunnel says that nobody was there."""
    house = houses()
    side = await house.outbound()
    for inside, expected in (
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 502),
        (b"\x16\x03\x01\x00\x05hello", None),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        authority = b"127.0.0.1:%d" % free_port()
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority))
        assert parse(await read_head(reader))[0] == 200
        writer.write(inside.replace(b"Host: a", b"Host: " + authority))
        rest = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
        if expected is None:
            assert rest == b""
        else:
            status, fields, _ = parse(rest)
            assert (status, fields[b"mesh-error"]) == (expected, b"connect_failed")
        writer.close()
    await house.quiet()


@pytest.mark.parametrize("outer", ["http1", "http2"])
async def test_the_last_answer_in_a_tunnel_arrives_whole_although_its_connection_closes(houses, peer, outer):
    """Sizes from what the sockets on the way hold to what makes the proxy wait; the client reads when the proxy is done."""
    sizes = [(n + 1) * 150_000 for n in range(24)]

    async def script(reader, writer):
        head = await read_head(reader)
        size = int(head.split(b" ")[1][1:])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await writer.drain()

    backend = await peer(script)
    house = houses()
    side = await house.outbound()
    port = side.port if outer == "http1" else (await house.forward(side.port, upstream="http2")).port
    for count, size in enumerate(sizes, 1):
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            await house.loop.sock_connect(raw, ("127.0.0.1", port))
            await house.loop.sock_sendall(raw, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: a\r\n\r\n" % backend.port)
            assert (await house.loop.sock_recv(raw, 100)).startswith(b"HTTP/1.1 200")
            (inner,) = [connection for connection in side.connections if connection.destination]
            await house.loop.sock_sendall(raw, b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % size)

            async def written(count: int = count, inner=inner) -> bool:
                return total(side.external_route_series, status=200) == count or (
                    inner.engine is not None and inner.engine.blocked
                )

            await until(written, "the whole answer written, or the proxy waiting for the client")
            got = 0
            with suppress(ConnectionResetError):
                while data := await asyncio.wait_for(house.loop.sock_recv(raw, 1 << 20), DEADLINE_S):
                    got += len(data)
            assert got > size, f"cut at {got} of {size} and the head"
    await house.quiet()
    if outer == "http1":
        await until(lambda: nothing_left(side), "the end of all connections")


async def test_bytes_in_a_connect_tunnel_keep_their_half_close(houses, peer):
    async def shout(reader, writer):
        writer.write((await reader.read(-1)).upper())
        await writer.drain()

    backend = await peer(shout)
    house = houses()
    side = await house.outbound()
    reader, writer = await connect(side.port, backend.port)
    writer.write(b"\x00\x01 some protocol of its own")
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"\x00\x01 SOME PROTOCOL OF ITS OWN"
    writer.close()
    await house.quiet()
    await until(lambda: nothing_left(side), "the end of both connections")


async def test_a_client_that_breaks_off_a_tunnel_ends_everything_behind_it(houses, peer):
    gone = asyncio.Event()

    async def script(reader, writer):
        await read_head(reader)
        await reader.read(-1)
        gone.set()

    backend = await peer(script)
    house = houses()
    side = await house.outbound()
    _, writer = await connect(side.port, backend.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    async def begun() -> bool:
        return side.external_route_series.request_total == 1

    await until(begun, "the request inside the tunnel")
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await house.quiet()
    await until(lambda: nothing_left(side), "the end of both connections")


@pytest.mark.parametrize("slow", ["client", "server"])
async def test_a_slow_end_of_a_tunnel_stops_the_other_and_loses_nothing(houses, peer, slow):
    """The quick end can write only as much as the sockets and our bounded buffers hold, until the slow one reads."""
    size = 48 * 1024 * 1024
    go = asyncio.Event()
    sent = 0
    got = asyncio.get_running_loop().create_future()
    blocked = asyncio.Event()

    async def pour(writer):
        nonlocal sent
        chunk = b"x" * 65536
        while sent < size:
            writer.write(chunk)
            sent += len(chunk)
            try:
                await asyncio.wait_for(asyncio.shield(writer.drain()), 0.5)
            except TimeoutError:
                blocked.set()
                await writer.drain()
        writer.write_eof()

    async def drink(reader):
        reader._transport.pause_reading()
        await go.wait()
        reader._transport.resume_reading()
        count = 0
        while data := await reader.read(1 << 20):
            count += len(data)
        got.set_result(count)

    async def script(reader, writer):
        assert await reader.readexactly(1) == b"\x00"
        await (drink(reader) if slow == "server" else pour(writer))

    backend = await peer(script)
    house = houses()
    side = await house.outbound()
    reader, writer = await connect(side.port, backend.port)
    writer.write(b"\x00")  # no HTTP: it stays bytes
    ours = asyncio.create_task(drink(reader) if slow == "client" else pour(writer))
    await asyncio.wait_for(blocked.wait(), DEADLINE_S)
    assert sent < size
    go.set()
    assert await asyncio.wait_for(got, DEADLINE_S) == size
    await ours
    writer.close()
    await house.quiet()


async def test_a_request_cannot_name_its_way_into_the_byte_tunnel(houses, peer):
    seen = []

    async def script(reader, writer):
        seen.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    for name in (b"forward", b"forward-opaque:0", b"opaque.a:80"):
        assert (await request(side.port, b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % name))[0] == 200
        assert seen.pop().startswith(b"GET / HTTP/1.1\r\n")
    await house.quiet()


async def test_a_client_that_begins_a_request_and_stops_is_let_go(houses, peer):
    backend = await peer(shouts)
    house = houses(detect_timeout_s=0.05, sweep_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"GE")
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    assert backend.connections == 0
    writer.close()


@pytest.mark.parametrize("how", ["bytes", "answer without a length"])
async def test_what_broke_off_does_not_look_complete(houses, peer, how):
    """The server resets in the middle: its client sees a reset too, where an end would say that this was all."""
    both = asyncio.Event()

    async def script(reader, writer):
        if how != "bytes":
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            await reader.readexactly(1)
        writer.write(b"half of it")
        await both.wait()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"\x00" if how == "bytes" else b"GET / HTTP/1.0\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"half of it"), DEADLINE_S)
    both.set()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    await house.quiet()


async def test_a_websocket_client_of_http1_gets_its_accept_from_an_http2_server_that_gives_none(houses, http2_peer):
    backend = await http2_peer(lambda asked: asked.respond(200, None), settings={CONNECT_PROTOCOL: 1})
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE[:-2] + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    status, fields, _ = parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))
    assert (status, fields[b"sec-websocket-accept"]) == (101, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")  # RFC 6455 1.3
    asked = backend.asked[0]
    asked.session.data(asked.stream_id, b"bye", True)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"bye"
    writer.close()
    await house.quiet()


@pytest.mark.parametrize("end", ["reset", "half-close"])
async def test_a_client_that_resets_while_its_server_stands_still_is_noticed(houses, peer, end):
    """The proxy does not read from it then.  An orderly end is no reset: all that came before it is delivered."""
    go = asyncio.Event()
    gone = asyncio.get_running_loop().create_future()
    size = 8 << 20

    async def script(reader, writer):
        reader._transport.pause_reading()
        await go.wait()
        reader._transport.resume_reading()
        count = 0
        with suppress(ConnectionResetError):
            while data := await reader.read(1 << 20):
                count += len(data)
        gone.set_result(count)

    backend = await peer(script)
    house = houses(sweep_s=0.02)
    side = await house.forward(backend.port)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        raw.setblocking(False)
        await house.loop.sock_connect(raw, ("127.0.0.1", side.port))
        sending = asyncio.create_task(house.loop.sock_sendall(raw, b"\x00" * size))

        async def held() -> bool:
            return any(connection.held for connection in side.connections)

        await until(held, "the proxy not reading")
        if end == "reset":
            sending.cancel()
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
            await until(lambda: nothing_left(side), "the client's connection gone")
            go.set()
            assert await asyncio.wait_for(gone, DEADLINE_S) < size
        else:
            (connection,) = side.connections
            connection.sweep(house.ctx.now)
            assert connection.held
            go.set()
            await sending
            raw.shutdown(socket.SHUT_WR)
            assert await asyncio.wait_for(gone, DEADLINE_S) == size
    await house.quiet()
