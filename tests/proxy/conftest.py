"""Real processes for proxy tests: `forward` as a subprocess, backends and raw peers on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop

DEADLINE_S = 20.0


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """Tests that have a proxy in their own process run it on the loop that users run it on."""
    return {"uvloop": uvloop.new_event_loop}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
            self.process.send_signal(signal.SIGTERM)
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


Forward = Callable[..., Awaitable[Proxy]]


@pytest.fixture
async def forward() -> AsyncIterator[Forward]:
    """`await forward("127.0.0.1:9", "--upstream", "http2")` starts a proxy on free ports."""
    running: list[Proxy] = []

    async def start(*arguments: str) -> Proxy:
        port, admin = free_port(), free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "meshproxy",
            "forward",
            f"127.0.0.1:{port}",
            *arguments,
            "--admin",
            f"127.0.0.1:{admin}",
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        proxy = Proxy(process, port, admin)
        running.append(proxy)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        proxy.reader = asyncio.create_task(proxy.read_log(started))
        await asyncio.wait_for(started, DEADLINE_S)
        return proxy

    yield start
    for proxy in running:
        await proxy.stop()
        escaped = [line for line in proxy.log if "internal error" in line or "Traceback" in line]
        assert not escaped, "\n".join(proxy.log)


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


@pytest.fixture
async def peer() -> AsyncIterator[Callable[[Script], Awaitable[Peer]]]:
    """`await peer(script)`: a backend whose every connection runs `script(reader, writer)`."""
    peers: list[Peer] = []
    tasks: set[asyncio.Task[None]] = set()

    async def start(script: Script, port: int = 0) -> Peer:
        made = Peer()

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            made.connections += 1
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    await script(reader, writer)
            finally:
                tasks.discard(task)
                with suppress(ConnectionError):
                    writer.close()

        made.server = await asyncio.start_server(run, "127.0.0.1", port)
        made.port = made.server.sockets[0].getsockname()[1]
        peers.append(made)
        return made

    yield start
    for made in peers:
        made.server.close()
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def http2_peer() -> AsyncIterator[Any]:
    """`peer = await http2_peer(handler)`: a scripted HTTP/2 backend."""
    from http2_peer import Http2Peer

    made: list[Http2Peer] = []

    async def start(handler: Any = None, settings: dict[int, int] | None = None, late: bool = False) -> Http2Peer:
        peer = Http2Peer()
        if handler is not None:
            peer.handler = handler
        peer.settings = settings or {}
        peer.late = late
        await peer.start()
        made.append(peer)
        return peer

    yield start
    for peer in made:
        peer.stop()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until `condition` holds; fails naming `what` after the deadline."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while not await condition():
        assert loop.time() < end, f"not seen within {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.02)
