"""Connection pools of one endpoint.

    Http1Pool   a connection carries one exchange at a time; idle ones are reused, youngest first
    Http2Pool   a connection carries many; a further one is opened only when streams run short (bounded)

                          +--- a connection is free ----> attached(stream)
    acquire(requester) ---+
                          +--- none: wait, dial --------> attached(stream) | unreachable(refusal)

A requester waits in an insertion-ordered dict (first come, first served; leaving is O(1)).  Waiting is bounded
(settings.waiting): above it the answer is 503 queue_full at once.
"""

from __future__ import annotations

from meshproxy.policy.balancer import Target
from meshproxy.proxy.context import Context
from meshproxy.proxy.engines import KIND_HTTP1, KIND_HTTP2, KIND_OPAQUE
from meshproxy.proxy.refusals import QUEUE_FULL, Refusal
from meshproxy.proxy.requester import Requester
from meshproxy.proxy.tls import Credentials
from meshproxy.proxy.upstream import Owner, Upstream
from meshproxy.telemetry.series import TcpSeries


class Reachable(Target):
    """What a pool tells about the address it dials.  Endpoint is the only subclass; this base keeps imports one-way."""

    def connected(self) -> None:
        raise NotImplementedError

    def connect_failed(self) -> None:
        raise NotImplementedError


class Dialer:
    """How to reach one address: where, with which credentials, expecting whom."""

    def __init__(
        self,
        ctx: Context,
        endpoint: Reachable,
        address: str,
        port: int,
        tcp: TcpSeries,
        credentials: Credentials | None,
        identity: str,
        server_name: str,
    ) -> None:
        self.ctx = ctx
        self.tcp = tcp
        self.endpoint = endpoint
        self.address = address
        self.port = port
        self.credentials = credentials
        self.identity = identity
        self.server_name = server_name


class Pool(Owner):
    """What both kinds share: the waiting, the counting, the dialling."""

    def __init__(self, ctx: Context, dialer: Dialer, kind: int, limit: int) -> None:
        self.ctx = ctx
        self.dialer = dialer
        self.kind = kind
        self.limit = limit  # connections
        self.connections: dict[Upstream, None] = {}  # ready ones
        self.opening = 0
        self.waiting: dict[Requester, None] = {}
        self.retired = False

    def acquire(self, requester: Requester) -> None:
        raise NotImplementedError

    def cancel(self, requester: Requester) -> None:
        """The requester no longer waits (timeout, client gone)."""
        self.waiting.pop(requester, None)

    def wait(self, requester: Requester) -> None:
        if len(self.waiting) >= self.ctx.settings.waiting:
            requester.unreachable(QUEUE_FULL)
            return
        self.waiting[requester] = None

    def dial(self) -> None:
        self.opening += 1
        dialer = self.dialer
        upstream = Upstream(self.ctx, self, self.kind, dialer.tcp, dialer.credentials, dialer.identity, dialer.server_name)
        self.ctx.spawn(upstream.connect(dialer.address, dialer.port), "connect")

    def next_requester(self) -> Requester | None:
        for requester in self.waiting:
            del self.waiting[requester]
            return requester
        return None

    def drop_all_waiting(self, refusal: Refusal) -> None:
        waiting = list(self.waiting)
        self.waiting.clear()
        for requester in waiting:
            requester.unreachable(refusal)

    # -- Owner: told by upstream connections

    def ready(self, upstream: Upstream) -> None:
        self.opening -= 1
        self.connections[upstream] = None
        endpoint = self.dialer.endpoint
        endpoint.connected()
        if self.retired:
            upstream.drain()
            return
        self.free(upstream)

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        self.opening -= 1
        endpoint = self.dialer.endpoint
        endpoint.connect_failed()

    def lost(self, upstream: Upstream) -> None:
        self.connections.pop(upstream, None)

    def retire(self) -> None:
        self.retired = True
        for upstream in list(self.connections):
            upstream.drain()

    def sweep(self, now: float) -> None:
        raise NotImplementedError


class Http1Pool(Pool):
    def __init__(self, ctx: Context, dialer: Dialer, opaque: bool) -> None:
        super().__init__(ctx, dialer, KIND_OPAQUE if opaque else KIND_HTTP1, ctx.settings.http1_connections)
        self.idle: list[Upstream] = []

    def acquire(self, requester: Requester) -> None:
        idle = self.idle
        while idle:
            upstream = idle.pop()
            if upstream.capacity():
                upstream.take(requester)
                return
        self.wait(requester)
        if len(self.waiting) > self.opening and len(self.connections) + self.opening < self.limit:
            self.dial()

    def free(self, upstream: Upstream) -> None:
        if self.retired:
            upstream.drain()
            return
        requester = self.next_requester()
        if requester is not None:
            upstream.take(requester)
        else:
            self.idle.append(upstream)

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        """One dial stood for one waiting request: that one learns of it, the others have dials of their own."""
        super().failed(upstream, refusal)
        requester = self.next_requester()
        if requester is not None:
            requester.unreachable(refusal)
        if len(self.waiting) > self.opening and len(self.connections) + self.opening < self.limit:
            self.dial()

    def lost(self, upstream: Upstream) -> None:
        super().lost(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)
        if len(self.waiting) > self.opening and len(self.connections) + self.opening < self.limit:
            self.dial()

    def sweep(self, now: float) -> None:
        """Close what has been idle too long.  The oldest are at the front."""
        limit = now - self.ctx.settings.pool_idle_timeout_s
        idle = self.idle
        while idle and idle[0].active_at < limit:
            idle.pop(0).drain()

    def retire(self) -> None:
        self.idle.clear()
        super().retire()


class Http2Pool(Pool):
    def __init__(self, ctx: Context, dialer: Dialer) -> None:
        super().__init__(ctx, dialer, KIND_HTTP2, ctx.settings.http2_connections)

    def acquire(self, requester: Requester) -> None:
        for upstream in self.connections:
            if upstream.capacity() > 0:
                upstream.take(requester)
                return
        self.wait(requester)
        # One dial serves many; a second one only when every connection there is has no stream left.
        if self.opening == 0 and len(self.connections) < self.limit:
            self.dial()

    def free(self, upstream: Upstream) -> None:
        """`upstream` can take (more) streams."""
        while self.waiting and upstream.capacity() > 0:
            requester = self.next_requester()
            assert requester is not None
            upstream.take(requester)
        if self.waiting and self.opening == 0 and len(self.connections) < self.limit:
            self.dial()

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        super().failed(upstream, refusal)
        if not self.connections:  # otherwise those who wait get the streams that end
            self.drop_all_waiting(refusal)

    def lost(self, upstream: Upstream) -> None:
        super().lost(upstream)
        if self.waiting and self.opening == 0:
            self.dial()

    def leaving(self, upstream: Upstream) -> None:
        """GOAWAY: it finishes what it has and takes nothing new."""
        self.connections.pop(upstream, None)
        if self.waiting and self.opening == 0:
            self.dial()

    def sweep(self, now: float) -> None:
        settings = self.ctx.settings
        for upstream in list(self.connections):
            upstream.keepalive(now, settings.ping_interval_s, settings.ping_timeout_s)
