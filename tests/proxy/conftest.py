"""Fixtures of proxy tests.  Everything they start they end, also on failure."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import uvloop
from proxy_house import House
from proxy_http2_peer import Http2Peer
from proxy_peers import DEADLINE_S, Peer, Proxy, Script, free_port


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Any]:
    """Tests that have a proxy in their own process run it on the loop that users run it on."""
    return {"uvloop": uvloop.new_event_loop}


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
    for proxy in running:
        escaped = [line for line in proxy.log if "internal error" in line or "Traceback" in line]
        assert not escaped, "\n".join(proxy.log)


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


@pytest.fixture
async def houses() -> AsyncIterator[Any]:
    """`house = houses(connect_timeout_s=0.2)`; quiet and stopped afterwards."""
    made: list[House] = []

    def make(**changed: Any) -> House:
        house = House(**changed)
        made.append(house)
        return house

    yield make
    for house in made:
        house.ctx.settings.drain_s = 0.2
        await house.stop(linger=False)
        await house.quiet()
        await house.tasks_over()
