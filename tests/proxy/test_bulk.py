"""Transfers in bulk through `forward`: every byte in its place, past the point where a connection has shown that its peer reads
and is written to without cutting."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from proxy_peers import DEADLINE_S, parse, read_head
from test_tls_forward import Mesh

from meshproxy.proxy.carrier import PROVEN_BYTES

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = random.Random(5).randbytes(3 * 1024 * 1024 + 17)  # not a multiple of anything
TIMES = PROVEN_BYTES // len(BODY) + 3
DIGEST = hashlib.sha256(BODY).hexdigest()


def chunked(body: bytes) -> bytes:
    chance = random.Random(6)
    out, at = [], 0
    while at < len(body):
        size = chance.choice([1, 8192, 8192, 8192, 100_000])
        out.append(b"%x\r\n" % len(body[at : at + size]) + body[at : at + size] + b"\r\n")
        at += size
    return b"".join(out) + b"0\r\n\r\n"


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY),
}


async def body_of(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> bytes:
    if b"content-length" in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_downloads_arrive_byte_for_byte_on_one_connection(houses, peer, framing):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(ANSWERS[framing])
            await writer.drain()

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    for _ in range(TIMES):
        writer.write(GET)
        status, fields, _ = parse(await read_head(reader))
        assert status == 200
        body = await asyncio.wait_for(body_of(reader, fields), DEADLINE_S)
        assert hashlib.sha256(body).hexdigest() == DIGEST
    writer.close()


@pytest.mark.parametrize("upstream", ["http1", "http2"])
@pytest.mark.parametrize("inside", ["clear", "tls"])
async def test_bytes_both_ways_through_two_proxies_are_the_same(forward, peer, tmp_path, upstream, inside):
    """The one in front is a plain `forward`, its upstream a second one that speaks HTTP/2, or HTTP/1.1, in clear or by mTLS."""

    async def script(reader, writer):
        while True:
            head = await read_head(reader)
            _, fields, _ = parse(b"HTTP/1.1 200 OK\r\n" + head.partition(b"\r\n")[2])
            body = await body_of(reader, fields)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    backend = await peer(script)
    mesh = Mesh(tmp_path)
    server, client = [], []
    if inside == "tls":
        server = ["--mtls", str(mesh.member("inner"))]
        client = ["--upstream-mtls", str(mesh.member("outer"))]
    inner = await forward(f"127.0.0.1:{backend.port}", *server)
    outer = await forward(f"127.0.0.1:{inner.port}", "--upstream", upstream, *client)
    reader, writer = await asyncio.open_connection("127.0.0.1", outer.port)
    for _ in range(2):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        sending = asyncio.ensure_future(send(writer, BODY))
        status, fields, _ = parse(await read_head(reader))
        assert status == 200
        body = await asyncio.wait_for(body_of(reader, fields), DEADLINE_S)
        await sending
        assert hashlib.sha256(body).hexdigest() == DIGEST
    writer.close()


async def send(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(body)
    await writer.drain()
