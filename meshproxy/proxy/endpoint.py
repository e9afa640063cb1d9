"""An endpoint: one address a backend has, with its live state (load, connections, counters).

It outlives configuration updates: tables are swapped, endpoints are kept by address and identity.

    LISTED --retire()--> RETIRED --last connection gone, no one waits--> forgotten by the sweep

A retired endpoint gets no new requests as long as there is another; those that wait for it already are served.

                 pool(head).acquire(requester)
                        |
        http1 pool <----+----> http2 pool          which one: what the endpoint speaks, or the request's own version
                        |
                        +----> bulk pool           between proxies: tunnels and large uploads, on connections of their own,
                        |                          so that a lost packet of theirs holds up no small request
             attached(stream) | unreachable(refusal)
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.policy.balancer import Load
from meshproxy.policy.breaker import CLOSED
from meshproxy.proxy.context import Context
from meshproxy.proxy.pool import Dialer, Http1Pool, Http2Pool, Pool, Reachable
from meshproxy.proxy.tls import Credentials
from meshproxy.proxy.upgrade import OWN_CONNECT, telling
from meshproxy.telemetry.registry import HttpSeries
from meshproxy.telemetry.series import NOT_COUNTED
from meshproxy.wire.message import Field, Head

# What an endpoint speaks.
SPEAKS_HTTP1: Final = 1
SPEAKS_HTTP2: Final = 2
SPEAKS_AUTO: Final = 3  # the request's version; application/grpc always HTTP/2
SPEAKS_MESH: Final = 4  # mTLS, ALPN meshproxy/1, HTTP/2 inside
SPEAKS_OPAQUE: Final = 5  # bytes

_ORIG_HTTP1: Final = Field(b"mesh-orig-proto", b"HTTP/1.1")
_ORIG_HTTP10: Final = Field(b"mesh-orig-proto", b"HTTP/1.0")
_ORIG_HTTP2: Final = Field(b"mesh-orig-proto", b"HTTP/2")


class Endpoint(Reachable):
    """address, port   where connections go
    speaks          SPEAKS_*
    identity        SPIFFE ID its certificate must carry; "" where any under the trust anchors will do, or no TLS
    target_port     mesh: the port behind the peer's inbound proxy
    series          counters of attempts at this endpoint; NOT_COUNTED: they are not counted apart
    """

    def __init__(
        self,
        ctx: Context,
        address: str,
        port: int,
        speaks: int,
        series: HttpSeries,
        credentials: Credentials | None = None,
        identity: str = "",
        server_name: str = "",
        target_port: int = 0,
    ) -> None:
        super().__init__(Load(ctx.now))
        self.ctx = ctx
        self.address = address
        self.port = port
        self.speaks = speaks
        self.series = series
        self.identity = identity
        self.target_port = target_port
        self.failures = 0  # connects that failed in a row
        self.back_off: Any = None  # the timer that ends it
        self.retired = False
        # Of the destination, what is known of it (`stat svc` reads dst_service); the address is the one that is dialled.
        known = [label for label in series.labels if label[0].startswith("dst_") or label[0] in ("tls", "server_id")]
        tcp = ctx.registry.tcp("outbound", (("peer", "dst"), ("target_addr", f"{address}:{port}"), *known))
        self.tcp = tcp
        dialer = Dialer(ctx, self, address, port, tcp, credentials, identity, server_name or address)
        self.dialer = dialer
        self.http1 = Http1Pool(ctx, dialer, speaks == SPEAKS_OPAQUE)
        self.http2 = Http2Pool(ctx, dialer, ctx.settings.http2_connections, speaks == SPEAKS_MESH)
        self.bulk: Http2Pool | None = None  # made when first needed: few endpoints need one
        self.bulk_bytes = ctx.settings.bulk_bytes
        # Where every request goes, whatever its head; None where that has a say (`pool`).
        self.sole_pool: Pool | None = None
        if speaks == SPEAKS_HTTP2:
            self.sole_pool = self.http2
        elif speaks in (SPEAKS_HTTP1, SPEAKS_OPAQUE):
            self.sole_pool = self.http1
        port_field = Field(b"mesh-target-port", b"%d" % target_port)
        # What the mesh adds to every request to this endpoint, by the version the app spoke; interned, so each costs one
        # byte on the wire after the first request.
        self.extra_http1: list[Field] = [port_field, _ORIG_HTTP1] if speaks == SPEAKS_MESH else []
        self.extra_http10: list[Field] = [port_field, _ORIG_HTTP10] if speaks == SPEAKS_MESH else []
        self.extra_http2: list[Field] = [port_field, _ORIG_HTTP2] if speaks == SPEAKS_MESH else []
        ctx.endpoints[self] = None

    def __repr__(self) -> str:
        return f"Endpoint({self.address}:{self.port})"

    def pool(self, head: Head) -> Pool:
        """The pool that a stream for this request comes from."""
        sole = self.sole_pool
        if sole is not None:
            return sole
        if self.speaks == SPEAKS_MESH:
            # Three tests a request.  Large answers are not among them: how large an answer will be is known too late.
            if head.content_length > self.bulk_bytes or head.protocol or head.method == b"CONNECT":
                return self.bulk_pool()
            return self.http2
        return self.http2 if head.grpc or head.version == 20 else self.http1

    def bulk_pool(self) -> Http2Pool:
        bulk = self.bulk
        if bulk is None:
            bulk = self.bulk = Http2Pool(self.ctx, self.dialer, self.ctx.settings.bulk_connections, self.speaks == SPEAKS_MESH)
            if self.retired:
                bulk.retire()
        return bulk

    def pools(self) -> list[Pool]:
        return [self.http1, self.http2] if self.bulk is None else [self.http1, self.http2, self.bulk]

    def extra(self, head: Head) -> list[Field]:
        """What a mesh peer is told beside the request; nothing for everyone else."""
        if not head.path and head.version and self.speaks == SPEAKS_MESH:  # the app's own CONNECT; bytes have no version
            return [*(self.extra_http2 if head.version == 20 else self.extra_http1), OWN_CONNECT]
        if head.version == 20:
            return self.extra_http2
        if head.protocol and self.speaks == SPEAKS_MESH:
            return [*self.extra_http1, *telling(head)]
        return self.extra_http10 if head.version == 10 else self.extra_http1

    # -- told by the dialer

    def connected(self) -> None:
        self.failures = 0
        if self.back_off is not None:
            self.back_off.cancel()
            self.back_off = None
        self.settle()

    def connect_failed(self) -> None:
        """Leave the endpoint alone for a while: 100 ms, doubling to 10 s (settings.reconnect_*).  `pick` passes over
        unavailable endpoints as long as there is another; with none left it tries them anyway, so a lone endpoint that
        comes back is found at once.  Dials that fail during the back-off say nothing new: a burst of requests would otherwise
        double it to the maximum in one moment."""
        self.load.unreachable(self.ctx.now)
        if self.back_off is not None:
            return
        settings = self.ctx.settings
        delay = min(settings.reconnect_min_s * (1 << min(self.failures, 10)), settings.reconnect_max_s)
        self.failures += 1
        self.available = False
        if not self.retired:
            self.back_off = self.ctx.loop.call_later(delay, self.reconsider)

    def reconsider(self) -> None:
        self.back_off = None
        self.settle()

    def settle(self) -> None:
        """One of the three that have a say (the configuration, the dialler, the breaker) changed its mind."""
        breaker = self.breaker
        self.available = not self.retired and self.back_off is None and (breaker is None or breaker.state == CLOSED)

    def connections(self) -> int:
        """Open ones, also those that only finish what they have."""
        return sum([pool.size() for pool in self.pools()])

    def retire(self) -> None:
        """The configuration no longer lists it: no new requests; those in flight finish, then its connections close."""
        if self.retired:
            return
        self.retired = True
        self.available = False
        for pool in self.pools():
            pool.retire()
        registry = self.ctx.registry
        if self.series is not NOT_COUNTED:
            registry.release(self.series, self.ctx.now)
        registry.release(self.tcp, self.ctx.now)

    def sweep(self, now: float) -> None:
        over = self.retired
        for pool in self.pools():
            pool.sweep(now)
            over = over and pool.over()
        if over:
            self.ctx.endpoints.pop(self, None)

    def close(self) -> None:
        self.retire()
        if self.back_off is not None:
            self.back_off.cancel()
