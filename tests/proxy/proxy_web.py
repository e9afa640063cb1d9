"""A backend that speaks HTTP/1.1 on connections that stay, and keeps what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

from proxy_peers import Peer, Script, parse, read_head


class Web:
    """`web = await Web().at(peer)`, with the fixture `peer`: listens at `port`."""

    def __init__(self) -> None:
        self.port = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def at(self, peer: Callable[[Script], Awaitable[Peer]]) -> Self:
        self.port = (await peer(self.serve)).port
        return self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            self.heads.append(head)
            _, fields, _ = parse(head)
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            self.bodies.append(body)
            writer.write(self.answer(body))
            await writer.drain()

    def answer(self, body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
