"""A closed-loop HTTP/1.1 client: N keep-alive connections, one request at a time on each, until a count is reached."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any


class Connection(asyncio.Protocol):
    def __init__(self, run: Run) -> None:
        self.run = run
        self.got = 0
        self.expected = -1
        self.head = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.run.transports.append(transport)
        self.send()

    def send(self) -> None:
        if self.run.left <= 0:
            return
        self.run.left -= 1
        self.got = 0
        self.expected = -1
        self.head = b""
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        if self.expected < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.head[:end].lower()
            if not head.startswith(b"http/1.1 200"):
                self.run.failed += 1
            at = head.find(b"content-length:")
            self.expected = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self.got = len(self.head) - end - 4
        else:
            self.got += len(data)
        if self.got >= self.expected:
            self.run.answered += 1
            if self.run.answered >= self.run.total:
                self.run.finished()
            else:
                self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self.run.answered < self.run.total:
            self.run.failed += 1
            self.run.finished()


class Run:
    """One run.  `failed` counts answers other than 200 and lost connections; a run with any is no measurement."""

    def __init__(self, request: bytes, total: int) -> None:
        self.request = request
        self.total = total
        self.left = total
        self.answered = 0
        self.failed = 0
        self.transports: list[Any] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def finished(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(host: str, port: int, request: bytes, connections: int, total: int) -> tuple[float, int]:
    """(seconds, failures)."""
    run = Run(request, total)
    loop = asyncio.get_running_loop()
    started = perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(run), host, port)
    await asyncio.wait_for(run.done, 120)
    seconds = perf_counter() - started
    for transport in run.transports:
        transport.abort()
    return seconds, run.failed
