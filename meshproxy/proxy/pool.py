"""Connection pools of one endpoint.

    Http1Pool   a connection carries one exchange at a time; idle ones are reused, youngest first
    Http2Pool   a connection carries many; a further one is opened only when streams run short (bounded)

                          +--- a connection is free ----> attached(stream)
    acquire(requester) ---+
                          +--- none: wait, dial --------> attached(stream) | unreachable(refusal)

A requester waits in an insertion-ordered dict (first come, first served; leaving is O(1)).  Waiting is bounded
(settings.waiting): above it the answer is 503 queue_full at once.

A connection is in one of three places:

    opening (a number) --ready--> connections --GOAWAY, drain--> leaving --> lost
                       --failed-> (nowhere)   ------------------------------^

Nobody waits for ever: when no one who waits got a stream for `queue_timeout_s` (every connection is busy with long
exchanges), or for `connect_timeout_s` although the connections carry nothing (a peer that allows no streams), all who wait
are refused.  A dial has its own deadline.

A retired pool keeps nothing: a connection that no waiting request needs is drained.
"""

from __future__ import annotations

from meshproxy.policy.balancer import Target
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.engines import KIND_HTTP1, KIND_HTTP2, KIND_OPAQUE
from meshproxy.proxy.refusals import NAME_NOT_FOUND, NO_CAPACITY, QUEUE_FULL, Refusal
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
        self.departing: dict[Upstream, None] = {}  # those that finish what they have and take nothing new
        self.opening = 0
        self.waiting: dict[Requester, None] = {}
        self.progress_at = 0.0  # when someone last got what he waited for, or the first began to wait
        self.retired = False
        self.fresh = False  # who gets a stream now gets it on a connection that has just become ready

    def acquire(self, requester: Requester) -> None:
        raise NotImplementedError

    def cancel(self, requester: Requester) -> None:
        """The requester no longer waits (timeout, client gone)."""
        self.waiting.pop(requester, None)

    def wait(self, requester: Requester) -> None:
        if len(self.waiting) >= self.ctx.settings.waiting:
            requester.unreachable(QUEUE_FULL)
            return
        if not self.waiting:
            self.progress_at = self.ctx.now
        self.waiting[requester] = None

    def dial(self) -> None:
        self.opening += 1
        dialer = self.dialer
        upstream = Upstream(self.ctx, self, self.kind, dialer.tcp, dialer.credentials, dialer.identity, dialer.server_name)
        upstream.dial(dialer.address, dialer.port)

    def next_requester(self) -> Requester | None:
        for requester in self.waiting:
            del self.waiting[requester]
            self.progress_at = self.ctx.now
            requester.unraced = self.fresh
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
        self.fresh = True
        self.free(upstream)
        self.fresh = False

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        self.opening -= 1
        if refusal.ours:
            return  # it says nothing about the endpoint
        endpoint = self.dialer.endpoint
        if endpoint.available:  # once a back-off: every 10 s in the end
            dialer = self.dialer
            if refusal is NAME_NOT_FOUND:
                log.warning("the name %s has no address, or no name server answered", dialer.address)
            else:
                log.info("no connection to %s:%d: %s", dialer.address, dialer.port, refusal.reason)
        endpoint.connect_failed()

    def lost(self, upstream: Upstream) -> None:
        self.connections.pop(upstream, None)
        self.departing.pop(upstream, None)

    def leaving(self, upstream: Upstream) -> None:
        self.connections.pop(upstream, None)
        self.departing[upstream] = None

    def size(self) -> int:
        return len(self.connections) + len(self.departing)

    def over(self) -> bool:
        """Nothing is left: no connection, no dial, no one who waits."""
        return not self.connections and not self.departing and not self.opening and not self.waiting

    def retire(self) -> None:
        """Close what is idle, let the rest finish.  Who waits already is served: the address may be on its way out, but it
        was the choice when the request came, and a request that is not sent at all helps nobody."""
        self.retired = True
        if not self.waiting:
            for upstream in list(self.connections):
                upstream.drain()

    def sweep(self, now: float) -> None:
        """Once a second: refuse those who wait in vain."""
        if not self.waiting or self.opening:
            return
        settings = self.ctx.settings
        limit = settings.connect_timeout_s
        for upstream in [*self.connections, *self.departing]:
            if upstream.engine is not None and upstream.engine.active():
                limit = settings.queue_timeout_s
                break
        if now - self.progress_at > limit:
            self.dialer.endpoint.connect_failed()  # it is left alone for a while: the next requests try others first
            self.drop_all_waiting(NO_CAPACITY)


class Http1Pool(Pool):
    """One dial stands for one waiting request.  A request takes whatever is free first: its own dial, or a connection that
    another request is done with."""

    def __init__(self, ctx: Context, dialer: Dialer, opaque: bool) -> None:
        super().__init__(ctx, dialer, KIND_OPAQUE if opaque else KIND_HTTP1, ctx.settings.http1_connections)
        self.idle: list[Upstream] = []

    def acquire(self, requester: Requester) -> None:
        idle = self.idle
        while idle:
            if idle.pop().take(requester):
                return
        self.wait(requester)
        self.dial_more()

    def dial_more(self) -> None:
        if len(self.waiting) > self.opening and self.size() + self.opening < self.limit:
            self.dial()

    def free(self, upstream: Upstream) -> None:
        if self.waiting and upstream.capacity() > 0:
            requester = self.next_requester()
            assert requester is not None
            upstream.take(requester)
        elif self.retired:
            upstream.drain()
        else:
            self.idle.append(upstream)

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        """The request that has waited longest learns of it, also while other connections are busy: its policy may know
        another endpoint, and nobody can say when one of these will be free."""
        super().failed(upstream, refusal)
        requester = self.next_requester()
        if requester is not None:
            requester.unreachable(refusal)
        self.dial_more()

    def lost(self, upstream: Upstream) -> None:
        super().lost(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)
        self.dial_more()

    def sweep(self, now: float) -> None:
        """Close what has been idle too long (the oldest are at the front), give up answers that stop in their heads."""
        super().sweep(now)
        if self.kind == KIND_HTTP1:
            for upstream in [*self.connections, *self.departing]:
                upstream.await_head(now, self.ctx.settings.head_timeout_s)
        limit = now - self.ctx.settings.pool_idle_timeout_s
        idle = self.idle
        while idle and idle[0].active_at < limit:
            idle.pop(0).drain()

    def retire(self) -> None:
        idle = self.idle
        self.idle = []
        for upstream in idle:
            upstream.drain()
        super().retire()


class Http2Pool(Pool):
    """`meshed`: the endpoint is one of our own proxies, which takes a PING as often as we like."""

    def __init__(self, ctx: Context, dialer: Dialer, limit: int, meshed: bool) -> None:
        super().__init__(ctx, dialer, KIND_HTTP2, limit)
        self.meshed = meshed

    def acquire(self, requester: Requester) -> None:
        for upstream in self.connections:
            if upstream.take(requester):
                return
        self.wait(requester)
        self.dial_more()

    def dial_more(self) -> None:
        """One dial serves many; a second one only when every connection there is has no stream left."""
        if self.waiting and self.opening == 0 and len(self.connections) < self.limit:
            self.dial()

    def free(self, upstream: Upstream) -> None:
        """`upstream` can take (more) streams."""
        if not self.waiting and not self.retired:
            return
        while self.waiting and upstream.capacity() > 0:
            requester = self.next_requester()
            assert requester is not None
            upstream.take(requester)
        if self.retired and not self.waiting:
            self.retire()
        else:
            self.dial_more()

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        super().failed(upstream, refusal)
        if not self.connections:  # otherwise those who wait get the streams that end
            self.drop_all_waiting(refusal)

    def lost(self, upstream: Upstream) -> None:
        super().lost(upstream)
        self.dial_more()

    def leaving(self, upstream: Upstream) -> None:
        """GOAWAY: it finishes what it has and takes nothing new."""
        super().leaving(upstream)
        self.dial_more()

    def sweep(self, now: float) -> None:
        super().sweep(now)
        settings = self.ctx.settings
        interval = settings.ping_interval_s
        again = interval if self.meshed else settings.ping_others_s
        for upstream in [*self.connections, *self.departing]:
            if upstream.idle(now) > settings.pool_idle_timeout_s:
                upstream.drain()
            upstream.age(now)
            upstream.keepalive(now, interval, again, settings.ping_timeout_s)
