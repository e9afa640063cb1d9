"""Configuration.Watch: one stream a proxy.

    SVID -> Hello -> protocol? -> is it this identity's pod? -> loop: wake, diff, send, wait for the Ack
            10 s      +-1           compare with Workload                 |
                                                                          `-> ends when the SVID presented ends, when a newer
                                                                              stream of the same pod comes, or on a breach

The sender owns the loop; the receiver only records acknowledgements and wakes it.  See `control.serve.delta` for what is
sent.  A pod that vanishes from the source while its stream is open keeps what it has: it may still be draining.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import grpc

from certs.bundle import TrustBundle
from certs.rotation import Peer
from certs.verify import PeerRefused
from control.api import mesh_pb2, mesh_pb2_grpc
from control.api.names import PROTOCOL
from control.serve.delta import Delta, ProtocolError
from control.serve.metrics import ServeMetrics
from control.serve.peer import Presented, peer_of
from control.serve.source import ConfigSource, ResourceKey, identity_of

log = logging.getLogger("meshproxy.control.stream")

HELLO_TIMEOUT: Final = 10.0  # s
_TRUST: Final[ResourceKey] = (int(mesh_pb2.TRUST), "")
ACK_TIMEOUT: Final = 60.0  # s; a proxy applies an update in milliseconds: after a minute it hangs, and a new stream helps


class Refused(Exception):
    """The stream ends with this status; `reason` is a metric label."""

    def __init__(self, code: grpc.StatusCode, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.code = code
        self.reason = reason


class Configuration(mesh_pb2_grpc.ConfigurationServicer):
    """`bundle` and `clock` (Unix seconds) are asked at each stream's start."""

    def __init__(
        self, source: ConfigSource, bundle: Callable[[], TrustBundle], clock: Callable[[], float], metrics: ServeMetrics
    ) -> None:
        self._source = source
        self._bundle = bundle
        self._clock = clock
        self._metrics = metrics
        self._open: dict[tuple[str, str], Stream] = {}  # one a pod, so bounded by the pods

    async def Watch(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> None:
        """The RPC.  The iterator is not used: grpc allows either it or read()."""
        stream: Stream | None = None
        try:
            stream = await self._admit(context)
            key = (stream.namespace, stream.pod)
            if (older := self._open.get(key)) is not None:
                older.supersede()
            self._open[key] = stream
            self._metrics.streams.inc()
            try:
                await stream.run()
            finally:
                self._metrics.streams.dec()
                if self._open.get(key) is stream:
                    del self._open[key]
        except Refused as refused:
            self._metrics.refused.labels(refused.reason).inc()
            whose = f"{stream.namespace}/{stream.pod}" if stream else context.peer()
            log.warning("configuration stream of %s: %s", whose, refused)
            await context.abort(refused.code, str(refused))

    def peers(self) -> list[Peer]:
        """The proxies that are connected: for a rotation of the authority."""
        trust = self._source.resources_for("", "").get(_TRUST)
        return [stream.peer(trust.hash if trust is not None else "") for stream in self._open.values()]

    async def _admit(self, context: grpc.aio.ServicerContext) -> Stream:
        try:
            presented = peer_of(context.auth_context(), self._bundle(), self._clock())
        except PeerRefused as refusal:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, refusal.reason, refusal.detail) from None
        try:
            request = await asyncio.wait_for(context.read(), HELLO_TIMEOUT)
        except TimeoutError:
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "no_hello", f"no Hello within {HELLO_TIMEOUT:g} s") from None
        if request is grpc.aio.EOF or not request.HasField("hello"):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "no_hello", "a stream begins with Hello")
        hello = request.hello
        if abs(hello.protocol - PROTOCOL) > 1:
            detail = f"the proxy speaks protocol {hello.protocol} (meshproxy {hello.version}), this control plane {PROTOCOL}"
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "protocol", f"{detail}; they may differ by one")
        stream = Stream(self._source, self._metrics, context, hello, presented, presented.not_after - self._clock())
        stream.check_identity(first=True)
        return stream


class Stream:
    """An admitted stream.  `lifetime` is how many seconds the presented SVID still has."""

    def __init__(
        self,
        source: ConfigSource,
        metrics: ServeMetrics,
        context: grpc.aio.ServicerContext,
        hello: mesh_pb2.Hello,
        presented: Presented,
        lifetime: float,
    ) -> None:
        self.namespace, self.pod = hello.namespace, hello.pod
        self._source, self._metrics, self._context = source, metrics, context
        self._identity = str(presented.identity)
        self._issuer_key_id = presented.issuer_key_id
        self._ends_at = asyncio.get_running_loop().time() + lifetime
        self._sent_at = 0.0
        self._delta = Delta(hello.held)
        self._wake = asyncio.Event()
        self._superseded = False
        self._over: Refused | None = None  # why the receiver ended
        self._closed = False  # the proxy closed its side

    def check_identity(self, first: bool = False) -> None:
        """The pod is the peer's.  Raises Refused; a pod that vanished is let be once the stream is open."""
        expected = identity_of(self._source.resources_for(self.namespace, self.pod), self.namespace, self.pod)
        if expected is None:
            if first:
                detail = f"no pod {self.namespace}/{self.pod} with a sidecar is known (yet)"
                raise Refused(grpc.StatusCode.NOT_FOUND, "unknown_pod", detail)
        elif expected != self._identity:
            detail = f"{self._identity} asked for the configuration of {self.namespace}/{self.pod}, which is {expected}"
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, "foreign_pod", detail)

    def peer(self, trust: str) -> Peer:
        """`trust`: hash of the anchors in force."""
        return Peer(not self._delta.waiting and self._delta.known.get(_TRUST, "") == trust, self._issuer_key_id)

    def supersede(self) -> None:
        """A newer stream of the same pod has come."""
        self._superseded = True
        self._wake.set()

    async def run(self) -> None:
        """Until the proxy leaves (returns) or something is wrong (raises Refused)."""
        unsubscribe = self._source.subscribe(self._wake.set)
        receiver = asyncio.create_task(self._receive(), name=f"acks of {self.namespace}/{self.pod}")
        try:
            while not self._closed:
                self._wake.clear()
                self._check()
                await self._send()
                await self._sleep()
        finally:
            unsubscribe()
            receiver.cancel()
            await asyncio.gather(receiver, return_exceptions=True)

    def _check(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._over is not None:
            raise self._over
        if self._superseded:
            raise Refused(grpc.StatusCode.ABORTED, "superseded", "a newer stream of this pod has come")
        if now >= self._ends_at:
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "expired", "the SVID of this stream has ended; come with a new one")
        if self._delta.waiting and now >= self._sent_at + ACK_TIMEOUT:
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "no_ack", f"no Ack within {ACK_TIMEOUT:g} s")
        self.check_identity()

    async def _send(self) -> None:
        if self._delta.waiting:
            return
        wanted = self._source.resources_for(self.namespace, self.pod)
        if identity_of(wanted, self.namespace, self.pod) is None:
            return  # vanished: it keeps what it has
        update = self._delta.offer(wanted)
        if update is not None:
            self._sent_at = asyncio.get_running_loop().time()
            self._metrics.updates.inc()
            await self._context.write(update)

    async def _sleep(self) -> None:
        """Until something happened or a deadline is reached."""
        deadline = self._ends_at
        if self._delta.waiting:
            deadline = min(deadline, self._sent_at + ACK_TIMEOUT)
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            pass  # `_check` says which

    async def _receive(self) -> None:
        while True:
            request = await self._context.read()
            if request is grpc.aio.EOF:
                self._closed = True
                self._wake.set()
                return
            try:
                self._acknowledge(request)
            except ProtocolError as error:
                self._over = Refused(grpc.StatusCode.INVALID_ARGUMENT, "out_of_turn", str(error))
                self._wake.set()
                return
            self._wake.set()

    def _acknowledge(self, request: mesh_pb2.Request) -> None:
        if not request.HasField("ack"):
            raise ProtocolError("after Hello a proxy sends only Acks")
        self._delta.acknowledge(request.ack)
        for rejected in request.ack.rejected:
            self._metrics.rejected.inc()
            log.error(
                "%s/%s refused %s %s and keeps its last good form: %s",
                self.namespace,
                self.pod,
                mesh_pb2.Kind.Name(rejected.name.kind),
                rejected.name.name,
                rejected.reason[:500],
            )
