"""First bytes that are almost HTTP/2 (H2A-40): answered or closed, never passed on unread, and nobody else notices."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, request, until

from meshproxy.wire.detect import PREFACE

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
GOAWAY = 0x7
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def frames(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        found.append((data[3], data[9 : 9 + length]))
        data = data[9 + length :]
    return found


async def answers(reader, writer):
    while True:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def said(side, *parts: bytes) -> bytes:
    """What the proxy says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    got = b""
    with suppress(ConnectionResetError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        got = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    return got


@pytest.fixture
async def side(houses, peer):
    backend = await peer(answers)
    house = houses()
    made = await house.forward(backend.port)
    yield made
    assert (await request(made.port, GET))[0] == 200  # the others go on
    await house.quiet()
    assert backend.connections == 1


@pytest.mark.parametrize(
    "wrong",
    [
        PREFACE[:14] + b"\r\n\r\nXX\r\n\r\n",
        PREFACE[:23] + b"x",
        b"PRI * HTTP/2.0\r\nHost: a\r\n\r\n",
        PREFACE[:14] + b"x",
        b"INVALID CONNECTION PREFACE\r\n\r\n",
    ],
)
async def test_a_wrong_preface_is_a_connection_error_of_http2(side, wrong):
    assert [(kind, body[4:8]) for kind, body in frames(await said(side, wrong + SETTINGS)) if kind == GOAWAY] == [
        (GOAWAY, b"\x00\x00\x00\x01")
    ]


async def test_a_preface_after_an_http1_request_is_no_change_of_protocol(houses, peer):
    backend = await peer(answers)
    house = houses()
    side = await house.forward(backend.port)
    got = await said(side, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + PREFACE + SETTINGS)
    first, _, rest = got.partition(b"ok")
    assert parse(first)[0] == 200
    assert parse(rest)[0] in (400, 405, 505)
    assert GOAWAY not in [kind for kind, _ in frames(rest)]
    await house.quiet()


async def test_a_preface_a_byte_at_a_time_is_http2_if_it_is_in_time_and_let_go_if_it_is_not(houses, peer):
    backend = await peer(answers)
    house = houses(sweep_s=3600.0)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(len(PREFACE)):
        writer.write(PREFACE[place : place + 1])
        await asyncio.sleep(0)
    writer.write(SETTINGS)
    assert (await asyncio.wait_for(reader.readexactly(9), DEADLINE_S))[3] == SETTINGS[3]
    writer.close()

    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(PREFACE[:10])

    async def begun() -> bool:
        return any(c.head for c in side.connections)

    await until(begun, "the first bytes seen")
    (connection,) = [c for c in side.connections if c.head]
    connection.sweep(connection.opened_at + house.ctx.settings.detect_timeout_s - 0.1)
    assert connection in side.connections
    assert not house.ctx.violations
    assert (await request(side.port, GET))[0] == 200
    connection.sweep(connection.opened_at + house.ctx.settings.detect_timeout_s + 0.1)
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    assert house.ctx.violations["slow_start"].value == 1
    writer.close()
    await house.quiet()
