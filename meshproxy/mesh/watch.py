"""The configuration stream, from the proxy's side.

WAITING for an SVID -> CONNECTING -> Hello(what we hold) -> STREAMING: Update -> apply -> Ack, again and again
    ^                     ^                                    |
    |                     `--- back-off 0.1 .. 10 s, jitter <--+  lost: what we have stays in force, `stale_since` is set
    `--------------------------------------------- new SVID <--'  at once, no back-off: the stream must not outlive it
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from certs.svid import Svid
from control.api import mesh_pb2
from control.api.names import PROTOCOL
from meshproxy import __version__
from meshproxy.mesh.call import Call
from meshproxy.mesh.channel import open_channel
from meshproxy.mesh.identity import ProxyIdentity
from meshproxy.mesh.rpc import WATCH, RpcError

log = logging.getLogger("meshproxy.mesh.watch")

BACKOFF_FIRST: Final = 0.1  # s
BACKOFF_MAX: Final = 10.0  # s
CONNECT_TIMEOUT: Final = 5.0  # s until the first Update; the control plane sends one at once, even if empty

Apply = Callable[[mesh_pb2.Update], list[mesh_pb2.Rejected]]


class ConfigurationWatch:
    """`run()` keeps a stream open until cancelled.  `held` says what to name in Hello, `apply` puts an update in force."""

    def __init__(
        self,
        target: str,
        namespace: str,
        pod: str,
        identity: ProxyIdentity,
        held: Callable[[], list[mesh_pb2.Held]],
        apply: Apply,
        clock: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.target, self.namespace, self.pod = target, namespace, pod
        self.connected_since: float | None = None  # Unix seconds; None: no stream, or no update on it yet
        self.stale_since: float | None = None  # Unix seconds; None: up to date, or never was
        self.connects = 0  # streams that got an update
        self.updates = 0  # received
        self.last_error = ""
        self._identity = identity
        self._held, self._apply = held, apply
        self._clock, self._uniform = clock, uniform
        self._presented: Svid | None = None  # on the stream that is open
        self._renewed = asyncio.Event()
        identity.on_change(self._note_identity)

    async def run(self) -> None:
        """Connect, stream, connect again; ends only by cancellation."""
        failures = 0
        while True:
            self._presented = await self._identity.wait_svid()
            self._renewed.clear()
            connects = self.connects
            stream = asyncio.create_task(self._stream(self._presented), name="configuration stream")
            renewed = asyncio.create_task(self._renewed.wait(), name="identity renewed")
            try:
                await asyncio.wait((stream, renewed), return_when=asyncio.FIRST_COMPLETED)
                if stream.done():
                    self.last_error = stream.result()
            finally:
                stream.cancel()
                renewed.cancel()
                await asyncio.gather(stream, renewed, return_exceptions=True)
                self._lost()
            if self._renewed.is_set():
                continue
            failures = 0 if self.connects > connects else failures + 1
            if failures in (0, 1, 5) or failures % 50 == 0:
                log.warning("configuration stream to %s: %s; what is known stays in force", self.target, self.last_error)
            await self._pause(failures)

    async def _pause(self, failures: int) -> None:
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** min(failures, 10))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._renewed.wait(), self._uniform(delay / 2, delay))

    async def _stream(self, svid: Svid) -> str:
        """One stream, to its end; returns why it ended."""
        try:
            async with open_channel(self.target, self._identity.control_bundle(), svid) as channel:
                call = await channel.start(WATCH)
                hello = mesh_pb2.Hello(
                    protocol=PROTOCOL, namespace=self.namespace, pod=self.pod, version=__version__, held=self._held()
                )
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await call.write(mesh_pb2.Request(hello=hello))
                    update = await call.read()
                while update is not None:
                    await self._take(call, update)
                    update = await call.read()
                return "the control plane closed the stream"
        except TimeoutError:
            return f"no update within {CONNECT_TIMEOUT:g} s"
        except RpcError as error:
            return str(error)

    async def _take(self, call: Call[mesh_pb2.Request, mesh_pb2.Update], update: mesh_pb2.Update) -> None:
        rejected = self._apply(update)
        self.updates += 1
        if self.connected_since is None:
            self.connects += 1
            self.connected_since = self._clock()
            self.stale_since = None
            self.last_error = ""
        await call.write(mesh_pb2.Request(ack=mesh_pb2.Ack(version=update.version, rejected=rejected)))

    def _note_identity(self) -> None:
        if self._identity.svid is not self._presented:  # new anchors alone need no new stream
            self._renewed.set()

    def _lost(self) -> None:
        if self.connected_since is not None:
            self.connected_since = None
            self.stale_since = self._clock()
