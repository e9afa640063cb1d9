"""A client whose link goes down says nothing (the catalogue's SL-10): TCP's own timers end its connections, idle or busy.

Two network namespaces and a cable between them, which is pulled.  Needs root and iproute2; nothing outside is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

NAMES = (f"mesh-a-{os.getpid()}", f"mesh-b-{os.getpid()}")
ADDRESSES = ("10.97.0.1", "10.97.0.2")

# In the first namespace: a proxy, the app behind it, and what became of each connection.
PROXY = """
import asyncio, json, sys, uvloop
from meshproxy.proxy.context import Context
from meshproxy.proxy.forward import ForwardSide, Target
from meshproxy.proxy.listener import Lifecycle, Listener
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.registry import Registry

async def app(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            if b"/flood" not in head:
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
                continue
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 999999999999\\r\\n\\r\\n")
            while True:
                writer.write(bytes(65536))
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    settings = Settings()
    settings.tcp_keepalive_s = 1.0
    settings.tcp_user_timeout_s = 2.0
    server = await asyncio.start_server(app, "127.0.0.1", 0)
    ctx = Context(asyncio.get_running_loop(), settings, Registry(), 1, b"x-")
    side = ForwardSide(ctx, [Target("127.0.0.1", server.sockets[0].getsockname()[1])], "http1", 0.0, None, False, None, "")
    lifecycle = Lifecycle(ctx)
    lifecycle.sides.append(side)
    lifecycle.listeners.append(Listener(ctx, side, sys.argv[1], 8000))
    await lifecycle.start()
    print("ready", flush=True)
    while not side.connections:
        await asyncio.sleep(0.05)
    while side.connections:
        await asyncio.sleep(0.05)
    print(json.dumps(side.tcp.close_total), flush=True)

uvloop.run(main())
"""

# In the second: an idle connection, and one in the middle of an answer.  Then this end falls silent.
CLIENT = """
import socket, sys
idle = socket.create_connection((sys.argv[1], 8000))
idle.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
assert idle.recv(1000).startswith(b"HTTP/1.1 200")
busy = socket.create_connection((sys.argv[1], 8000))
busy.sendall(b"GET /flood HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
assert busy.recv(1000).startswith(b"HTTP/1.1 200")
print("connected", flush=True)
while True:
    busy.recv(1 << 20)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def cable() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip (iproute2) for network namespaces")
    try:
        ip("netns", "add", NAMES[0])
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", NAMES[1])
        ip("link", "add", "cable", "netns", NAMES[0], "type", "veth", "peer", "name", "cable", "netns", NAMES[1])
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=10)


def started(place: str, script: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["ip", "netns", "exec", place, sys.executable, "-c", script, address], stdout=subprocess.PIPE, text=True
    )


def test_connections_of_a_client_whose_link_went_down_are_ended_idle_or_busy(cable: None) -> None:
    proxy = started(NAMES[0], PROXY, ADDRESSES[0])
    client = None
    try:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == "ready\n"
        client = started(NAMES[1], CLIENT, ADDRESSES[0])
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        ip("-n", NAMES[1], "link", "set", "cable", "down")
        said, _ = proxy.communicate(timeout=20)  # the kernel's own timers would take a quarter of an hour
        closed = {reason: count for reason, count in json.loads(said).items() if count}
        assert sum(closed.values()) == 2
        assert set(closed) <= {"ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"}
    finally:
        for process in (proxy, client):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
