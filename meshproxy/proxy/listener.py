"""Listening sockets, the once-a-second sweep, and the way a proxy stops.

LISTENING --SIGTERM--> DRAINING (readiness is false, still accepting for drain_accept_s)
    --> CLOSING (listeners closed, GOAWAY / connection: close, in flight finishes) --> STOPPED
                                                    at the latest drain_s after the signal
"""

from __future__ import annotations

import asyncio
import errno
import socket
from time import monotonic
from typing import Any

from meshproxy.proxy.context import Context, log
from meshproxy.proxy.server import Accepted, Side


class ListenError(Exception):
    """A listener could not be bound; `str()` says which, why and what to do."""


class Listener:
    """One listening socket feeding one side."""

    def __init__(self, ctx: Context, side: Side, host: str, port: int, destination: str = "") -> None:
        self.ctx = ctx
        self.side = side
        self.host = host
        self.port = port
        self.destination = destination
        self.server: Any = None

    def accept(self) -> Accepted:
        return Accepted(self.ctx, self.side, self.destination)

    async def start(self) -> None:
        """Bind and listen.  Raises ListenError."""
        try:
            # uvloop would resolve a numeric address too; a backlog of 4,096 is Linux' somaxconn
            self.server = await self.ctx.loop.create_server(self.accept, self.host, self.port, backlog=4096)
        except OSError as error:
            hint = ""
            if error.errno == errno.EADDRINUSE:
                hint = "; another process listens there: end it or choose another port"
            elif error.errno in (errno.EACCES, errno.EADDRNOTAVAIL) or isinstance(error, socket.gaierror):
                hint = "; is the address one of this machine's, and the port above 1023?"
            raise ListenError(f"cannot listen on {self.host}:{self.port}: {error.strerror or error}{hint}") from error
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None


class Lifecycle:
    """All listeners and sides of one proxy, from start to stop.

    sides   those that carry traffic: swept, and drained at the stop
    pages   the admin side: swept, but it answers until the end, and nobody waits for its clients
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.listeners: list[Listener] = []
        self.sides: list[Side] = []
        self.pages: list[Side] = []
        self.sweeper: Any = None

    async def start(self) -> None:
        for listener in self.listeners:
            await listener.start()
        self.sweeper = self.ctx.loop.call_later(self.ctx.settings.sweep_s, self.sweep)

    def sweep(self) -> None:
        ctx = self.ctx
        ctx.now = now = monotonic()
        swept: list[Any] = [connection for side in [*self.sides, *self.pages] for connection in side.connections]
        swept += ctx.endpoints
        swept.append(ctx.registry)
        for item in swept:
            try:
                item.sweep(now)
            except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the others are swept all the same
                ctx.escaped("sweep")
        self.sweeper = ctx.loop.call_later(ctx.settings.sweep_s, self.sweep)

    def connections(self) -> list[Accepted]:
        return [connection for side in self.sides for connection in side.connections]

    async def stop(self) -> bool:
        """Drain, then close.  True if everything in flight finished in time."""
        ctx = self.ctx
        settings = ctx.settings
        ctx.draining = True  # readiness is false from here on
        deadline = monotonic() + settings.drain_s
        if self.connections():
            await asyncio.sleep(settings.drain_accept_s)
        for listener in self.listeners:
            listener.close()
        for connection in self.connections():
            connection.drain()
        await asyncio.sleep(0)
        second = monotonic() + 0.1  # HTTP/2's second GOAWAY, about a round-trip later (RFC 9113 6.8)
        while self.connections() and monotonic() < deadline:
            await asyncio.sleep(0.02)
            if second and monotonic() >= second:
                second = 0.0
                for connection in self.connections():
                    connection.drain_finish()
        left = self.connections()
        if left:
            log.warning(
                "%d connections were still busy after %.0f s of draining and are closed now", len(left), settings.drain_s
            )
        for connection in left:
            connection.abort()
        for endpoint in list(ctx.endpoints):
            endpoint.close()
        if self.sweeper is not None:
            self.sweeper.cancel()
        await asyncio.sleep(0)
        return not left
