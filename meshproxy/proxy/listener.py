"""Listening sockets, the once-a-second sweep, and the way a proxy stops.

LISTENING --SIGTERM--> DRAINING (readiness is false, still accepting for drain_accept_s, idle or not: who sends us requests
                                 learns of the end only now.  SIGINT of an idle proxy: nobody is waited for)
    --> CLOSING (backlog emptied, listeners closed, GOAWAY / connection: close, in flight finishes) --> STOPPED
                                                    at the latest drain_s after the signal

A connection that the kernel has made is a promise, whether we have accepted it or not: closing a listening socket resets
what waits in its queue, and the client cannot know whether somebody acted on what it sent.  So the last thing a listener
does is to let no further connection be made (a socket filter that drops everything), and to accept those that were.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

from meshproxy.proxy.context import Context, log
from meshproxy.proxy.keepalive import keep_alive
from meshproxy.proxy.relief import Relief
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.side import Side

BACKLOG: Final = 4096  # Linux' somaxconn
SO_ATTACH_FILTER: Final = 26  # linux/socket.h; Python has no name for it


class ListenError(Exception):
    """A listener could not be bound; `str()` says which, why and what to do."""


class Listener:
    """One address feeding one side.

    sockets  bound already, by a parent process that keeps them too (meshproxy/workers); otherwise `start` binds
    """

    def __init__(
        self, ctx: Context, side: Side, host: str, port: int, destination: str = "", sockets: Sequence[socket.socket] = ()
    ) -> None:
        self.ctx = ctx
        self.side = side
        self.host = host
        self.port = port
        self.destination = destination
        self.given = list(sockets)
        self.servers: list[Any] = []
        self.queues: list[socket.socket] = []  # while paused: listening, with nobody who accepts

    def accept(self) -> Accepted:
        return Accepted(self.ctx, self.side, self.destination)

    async def start(self) -> None:
        """Bind and listen.  Raises ListenError."""
        loop = self.ctx.loop
        try:
            if self.given:
                for sock in self.given:
                    self.servers.append(await loop.create_server(self.accept, sock=sock, backlog=BACKLOG))
            else:
                self.servers.append(await loop.create_server(self.accept, self.host, self.port, backlog=BACKLOG))
        except OSError as error:
            raise listen_error(self.host, self.port, error) from error
        self.port = self.servers[0].sockets[0].getsockname()[1]
        for server in self.servers:
            for each in server.sockets:
                keep_alive(each, self.ctx.settings)

    def close(self) -> None:
        """Stop listening; a queue that nobody else accepts from is reset."""
        for server in self.servers:
            server.close()
        self.servers = []
        for queue in self.queues:
            queue.close()
        self.queues = []

    def duplicates(self) -> list[socket.socket]:
        """The listening sockets by descriptors of our own, which outlive `close`."""
        return [socket.socket(fileno=os.dup(each.fileno())) for server in self.servers for each in server.sockets]

    def pause(self) -> None:
        """Accept nobody for now; who connects waits in the kernel's queue.  (An event loop can only stop accepting by closing
        its descriptor, so the queue is kept open by another one.)"""
        if not self.servers:
            return
        queues = self.queues + self.duplicates()
        self.queues = []
        self.close()
        self.queues = queues

    def resume(self) -> None:
        if self.queues:
            self.ctx.spawn(self.listen_again(), "resume listening")

    async def listen_again(self) -> None:
        queues = self.queues
        self.queues = []
        for queue in queues:
            self.servers.append(await self.ctx.loop.create_server(self.accept, sock=queue, backlog=BACKLOG))

    async def finish(self) -> None:
        """Stop listening and lose nobody: let no more connections be made, and accept those that wait."""
        loop = self.ctx.loop
        queues = self.queues + self.duplicates()
        self.queues = []
        self.close()
        for queue in queues:
            with queue:
                queue.setblocking(False)
                let_in_nobody(queue)
                for _ in range(BACKLOG + 1):
                    try:
                        accepted, _address = queue.accept()
                    except BlockingIOError:
                        break
                    except ConnectionAbortedError:  # it was reset while it waited
                        continue
                    except OSError as error:  # no descriptor is left: the others would fail alike
                        log.warning("closing %s:%d: waiting connections were not accepted: %s", self.host, self.port, error)
                        break
                    accepted.setblocking(False)
                    await loop.connect_accepted_socket(self.accept, accepted)


def listen_error(host: str, port: int, error: OSError) -> ListenError:
    """What `error` means to who chose the address."""
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = "; another process listens there: end it or choose another port"
    elif error.errno in (errno.EACCES, errno.EADDRNOTAVAIL) or isinstance(error, socket.gaierror):
        hint = "; is the address one of this machine's, and the port above 1023?"
    return ListenError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}")


def let_in_nobody(listening: socket.socket) -> None:
    """Drop what arrives at a listening socket: handshakes begun from now on do not end there.  (Their clients send the SYN
    again a second later, find the port closed, and know that nothing of theirs was taken.)"""
    from ctypes import addressof, create_string_buffer  # needed once, when a proxy stops

    drop_all = create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes
    program = struct.pack("HP", 1, addressof(drop_all))
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except OSError as error:  # not Linux, or forbidden: the gap between the last accept and the close stays
        log.debug("no filter on a closing listener: %s", error)


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
        self.relief = Relief(ctx, self)

    async def start(self) -> None:
        for listener in self.listeners:
            await listener.start()
        self.begin()

    def begin(self) -> None:
        """Without listeners yet: those that come are started by whoever adds them."""
        self.sweeper = self.ctx.loop.call_later(self.ctx.settings.sweep_s, self.sweep)

    def sweep(self) -> None:
        ctx = self.ctx
        ctx.now = now = monotonic()
        ctx.wall = ctx.clock()
        swept: list[Any] = [connection for side in [*self.sides, *self.pages] for connection in side.connections]
        swept += ctx.endpoints
        swept.append(ctx.registry)
        swept.append(self.relief)
        for item in swept:
            try:
                item.sweep(now)
            except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the others are swept all the same
                ctx.escaped("sweep")
        self.sweeper = ctx.loop.call_later(ctx.settings.sweep_s, self.sweep)

    def connections(self) -> list[Accepted]:
        return [connection for side in self.sides for connection in side.connections]

    def young(self, connection: Accepted) -> bool:
        """It came in so late that its first bytes may be on their way: closing it now would lose a request.  (What it does
        say is served, and then drained.)"""
        return connection.engine is None and monotonic() - connection.opened_at < self.ctx.settings.drain_accept_s

    async def stop(self, linger: bool = True) -> bool:
        """Drain, then close.  True if everything in flight finished in time.

        linger  accept for drain_accept_s although nobody is connected: in Kubernetes a pod is told to end when it is taken from
                the endpoints, so callers have yet to hear of it.  False: there are no callers but those connected
        """
        ctx = self.ctx
        settings = ctx.settings
        ctx.draining = True  # readiness is false from here on
        deadline = monotonic() + settings.drain_s
        if self.listeners and (linger or self.connections()):
            await asyncio.sleep(settings.drain_accept_s)
        await asyncio.sleep(0)  # connections accepted in this turn are counted from the next
        for listener in self.listeners:
            await listener.finish()
        for connection in self.connections():
            if not self.young(connection):
                connection.drain()
        await asyncio.sleep(0)
        second = monotonic() + 0.1  # HTTP/2's second GOAWAY, about a round-trip later (RFC 9113 6.8)
        while self.connections() and monotonic() < deadline:
            await asyncio.sleep(0.02)
            finish = second and monotonic() >= second
            for connection in self.connections():
                if finish:
                    connection.drain_finish()
                if connection.engine is None and not self.young(connection):
                    connection.drain()
            if finish:
                second = 0.0
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
