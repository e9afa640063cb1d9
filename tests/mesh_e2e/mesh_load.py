"""Open-loop load: a request is sent when its time has come, whether or not earlier ones were answered, and never again.

Connections are kept alive and reused, youngest first.  The client is built on h11 because the usual ones quietly repeat an
idempotent request whose connection broke, and just that is what must be seen here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import h11

PATIENCE = 20.0  # seconds for an answer
MAX_IN_FLIGHT = 500  # one more is counted as a failure instead of sent


@dataclass(frozen=True)
class Outcome:
    """`status` 0: no complete answer, `error` says why."""

    id: str
    status: int
    body: str = ""
    mesh_error: str = ""
    error: str = ""


class Load:
    """`async with Load(...)`: sends until the block ends; `outcomes` has every request once that is left."""

    def __init__(self, proxy: str, url: str, rate: float, *, method: str = "GET", prefix: str = "r", ms: int = 0) -> None:
        """Args:
        proxy: address of a sidecar; requests go to its port 4140 in absolute form.
        url: without a query; id and ms are added.
        rate: requests a second.
        """
        self.proxy = proxy
        self.url = url
        self.authority = url.split("/")[2]
        self.rate = rate
        self.method = method
        self.prefix = prefix
        self.ms = ms
        self.outcomes: list[Outcome] = []
        self._idle: list[tuple[h11.Connection, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._pacing: asyncio.Task[None] | None = None

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status != 200]

    async def __aenter__(self) -> Load:
        self._pacing = asyncio.create_task(self._pace())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pacing is not None
        if self._pacing.done():
            self._pacing.result()
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        while self._under_way:  # bounded by PATIENCE
            await asyncio.wait(self._under_way)
        for _, _, writer in self._idle:
            writer.close()

    async def more(self, count: int, deadline: float = 60.0) -> None:
        """Wait until `count` more requests have ended."""
        goal = len(self.outcomes) + count
        end = asyncio.get_running_loop().time() + deadline
        while len(self.outcomes) < goal:
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"only {len(self.outcomes) - goal + count} of {count} requests ended in {deadline:g} s")
            await asyncio.sleep(0.02)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            due = max(due + 1 / self.rate, loop.time() - 1.0)  # what a busy machine made late is not sent all at once
            number += 1
            name = f"{self.prefix}-{number}"
            if len(self._under_way) >= MAX_IN_FLIGHT:
                self.outcomes.append(Outcome(name, 0, error="not sent: too many wait for their answers"))
                continue
            task = asyncio.create_task(self._one(name))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _one(self, name: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                self.outcomes.append(await self._exchange(name))
        except (OSError, TimeoutError, h11.ProtocolError, EOFError) as error:
            self.outcomes.append(Outcome(name, 0, error=f"{type(error).__name__}: {error}"))

    async def _exchange(self, name: str) -> Outcome:
        if self._idle:
            connection, reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self.proxy, 4140)
            connection = h11.Connection(h11.CLIENT)
        kept = False
        try:
            target = f"{self.url}?id={name}&ms={self.ms}"
            headers = [("host", self.authority), ("content-length", "0")]
            writer.write(connection.send(h11.Request(method=self.method, target=target, headers=headers)) or b"")
            writer.write(connection.send(h11.EndOfMessage()) or b"")
            head, body = await self._answer(connection, reader)
            if connection.our_state is h11.DONE and connection.their_state is h11.DONE:
                connection.start_next_cycle()
                self._idle.append((connection, reader, writer))
                kept = True
            found = dict(head.headers)
            return Outcome(name, head.status_code, body.decode(), found.get(b"mesh-error", b"").decode())
        finally:
            if not kept:
                with suppress(OSError):
                    writer.close()

    async def _answer(self, connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Response, bytes]:
        head: h11.Response | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return head, body
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("the connection was closed before the answer")
