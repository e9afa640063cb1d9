"""`meshproxy forward --workers N` as a process, its page, and clients that send when their time has come."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from loopback_ports import free_ports

DEADLINE_S = 20.0
GET = b"GET /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def until(condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while not (value := await condition()):
        assert time.monotonic() < end, f"not seen within {DEADLINE_S:g} s: {what}"
        await asyncio.sleep(0.01)
    return value


def state_of(pid: int) -> str:
    """R, S, Z ..., "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class Forward:
    def __init__(self, process: asyncio.subprocess.Process, port: int, admin: int) -> None:
        self.process = process
        self.port = port
        self.admin = admin
        self.log: list[str] = []
        self.reader: asyncio.Task[None] | None = None

    async def read_log(self, started: asyncio.Event) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode(errors="replace").rstrip())
            if self.log[-1].startswith("forwarding "):
                started.set()
        started.set()

    async def page(self, path: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(-1), DEADLINE_S)).partition(b"\r\n\r\n")
        writer.close()
        return int(head[9:12]), body.decode()

    async def total(self, name: str, **labels: str) -> float:
        found = 0.0
        for line in (await self.page("/metrics"))[1].splitlines():
            match = re.match(r"([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)", line)
            if line.startswith("#") or match is None or match[1] != name:
                continue
            if labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")).items():
                found += float(match[3])
        return found

    async def workers(self) -> dict[int, str]:
        """pid -> state, in the order of the workers."""
        config = json.loads((await self.page("/config"))[1])
        return {worker["pid"]: worker["state"] for worker in config["worker_processes"]}

    async def all_serve(self) -> bool:
        return set((await self.workers()).values()) == {"serving"}


@asynccontextmanager
async def forward(target: int, *options: str, workers: int = 2) -> AsyncIterator[Forward]:
    port = free_ports(2)
    arguments = [f"127.0.0.1:{port}", f"127.0.0.1:{target}", "--admin", f"127.0.0.1:{port + 1}", "--workers", str(workers)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshproxy", "forward", *arguments, *options, stderr=asyncio.subprocess.PIPE
    )
    made = Forward(process, port, port + 1)
    started = asyncio.Event()
    made.reader = asyncio.create_task(made.read_log(started))
    try:
        await asyncio.wait_for(started.wait(), DEADLINE_S)
        assert process.returncode is None, made.log
        yield made
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)  # of an idle proxy: no time to accept in
        try:
            await asyncio.wait_for(process.wait(), DEADLINE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        await made.reader
    escaped = [line for line in made.log if "internal error" in line or "Traceback" in line]
    assert not escaped, "\n".join(made.log)


class Backend:
    """Answers every request with its path after `delay_s`; `begun` and `ended` count."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.begun = self.ended = 0
        self.release = asyncio.Event()
        self.release.set()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *ending: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.begun += 1
                    await asyncio.sleep(self.delay_s)
                    await self.release.wait()
                    body = head.split(b" ")[1]
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    self.ended += 1
        finally:
            self._tasks.discard(task)
            with suppress(ConnectionError, RuntimeError):
                writer.close()


class Request:
    """One request on a connection of its own.  `ok`: answered in full, with its own answer."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent_at = time.monotonic()
        self.ok = False
        self.answer = b""
        self.error = ""

    async def run(self, port: int) -> Request:
        try:
            async with asyncio.timeout(DEADLINE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(GET % self.number)
                    self.answer = await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            self.error = repr(error)
        self.ok = self.answer.startswith(b"HTTP/1.1 200 ") and self.answer.endswith(b"\r\n\r\n/%d" % self.number)
        return self

    def __repr__(self) -> str:
        return f"Request({self.number}, {self.answer[:60]!r}, {self.error})"


class Load:
    """Open loop: a request is sent when its time has come, whether or not others were answered."""

    def __init__(self, port: int, rate: float) -> None:
        self.port = port
        self.rate = rate
        self.requests: list[Request] = []
        self._tasks: list[asyncio.Task[Request]] = []
        self._pacer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        self._pacer = asyncio.create_task(self._pace())
        return self

    async def __aexit__(self, *ending: object) -> None:
        assert self._pacer is not None
        self._pacer.cancel()
        await asyncio.gather(self._pacer, return_exceptions=True)
        await asyncio.gather(*self._tasks)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += 1 / self.rate
            request = Request(len(self.requests))
            self.requests.append(request)
            self._tasks.append(asyncio.create_task(request.run(self.port)))

    async def more(self, count: int) -> None:
        goal = len(self.requests) + count

        async def sent() -> bool:
            return len(self.requests) >= goal

        await until(sent, f"{count} more requests")

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.requests if not request.ok]


async def ask(port: int, count: int) -> list[Request]:
    """`count` requests at once, each on a connection of its own."""
    return await asyncio.gather(*(Request(number).run(port) for number in range(count)))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
