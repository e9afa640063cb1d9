"""What proxy tests are made of: `forward` as a process, raw peers, requests as bytes, waiting for conditions."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from loopback_ports import free_port as free_port

DEADLINE_S = 20.0


class Proxy:
    """A running `meshproxy forward`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, admin: int) -> None:
        self.process = process
        self.port = port
        self.admin = admin
        self.log: list[str] = []
        self.reader: asyncio.Task[None] | None = None

    async def read_log(self, started: asyncio.Future[None]) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(line.decode(errors="replace").rstrip())
            if "forwarding " in self.log[-1] and not started.done():
                started.set_result(None)
        if not started.done():
            started.set_exception(RuntimeError("forward ended at once:\n" + "\n".join(self.log)))

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)  # of an idle proxy: no time to accept in
        try:
            code = await asyncio.wait_for(self.process.wait(), DEADLINE_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise
        if self.reader is not None:
            await self.reader
        return code

    async def metrics(self) -> dict[str, float]:
        """Every sample of the admin page: 'name{labels}' -> value."""
        status, _, body = await request(self.admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert status == 200
        samples = {}
        for line in body.decode().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    async def total(self, family: str, **labels: str) -> float:
        """The sum over all series of a family that carry these labels."""
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        samples = await self.metrics()
        return sum(
            value
            for name, value in samples.items()
            if name.partition("{")[0] == family and all(pair in name for pair in wanted)
        )


async def request(port: int, raw: bytes, host: str = "127.0.0.1") -> tuple[int, dict[bytes, bytes], bytes]:
    """Send raw bytes, read to EOF: (status, fields by lower-case name, body as received)."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(raw)
    await writer.drain()
    data = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    return parse(data)


def parse(data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    status = int(lines[0].split(b" ")[1]) if lines[0].startswith(b"HTTP/") else 0
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    return status, fields, body


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A scripted TCP server; `connections` counts what arrived, `received` keeps every byte by connection."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.received: list[bytearray] = []
        self.server: Any = None


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until `condition` holds; fails naming `what` after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while not await condition():
        assert loop.time() < end, f"not seen within {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.02)
