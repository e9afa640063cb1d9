"""`meshproxy forward`: one proxy, one route, no control plane.

    LISTEN --(HTTP/1.1 | HTTP/2 | bytes, in clear or TLS)--> route "forward" --pick--> TARGET...

Where TARGETs are told who asks (a client certificate, `forwarded_for`) only HTTP is carried: bytes that are not read could tell
them anything.  With `upstream` "tcp" all is bytes, and nothing is told.

It is the whole data path with the smallest configuration: benchmarks, conformance suites and learners use it.
"""

from __future__ import annotations

import ssl
from typing import Any

from meshproxy.policy.retry import RetryPolicy
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_AUTO, SPEAKS_HTTP1, SPEAKS_HTTP2, SPEAKS_OPAQUE, Endpoint
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.max_forwards import within_max_forwards
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.side import PASS_THROUGH, TERMINATE, Side
from meshproxy.proxy.tls import NEVER, Credentials, TlsFailure
from meshproxy.proxy.via import Via, forwarded_for
from meshproxy.proxy.watched import WatchedExchange
from meshproxy.proxy.websocket import asking
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Field, Head

SPEAKS = {"http1": SPEAKS_HTTP1, "http2": SPEAKS_HTTP2, "auto": SPEAKS_AUTO, "tcp": SPEAKS_OPAQUE}


class Target:
    """Where to: one TARGET of the command line."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port


class FixedCredentials(Credentials):
    """Contexts made once from a user's directory.  `identify` reads the identity in a leaf, `ends` when it ends (functions, so
    that certs stays out; without the second one connections outlive certificates).  `own_end`: of our own (Unix seconds)."""

    def __init__(
        self,
        server: ssl.SSLContext | None,
        client: ssl.SSLContext | None,
        identify: Any,
        ends: Any = None,
        own_end: float = NEVER,
    ) -> None:
        self.server = server
        self.client = client
        self.identify = identify
        self.ends = ends
        self.own_end = own_end

    def server_context(self) -> ssl.SSLContext:
        assert self.server is not None
        return self.server

    def client_context(self) -> ssl.SSLContext:
        assert self.client is not None
        return self.client

    def verify(self, leaf_der: bytes) -> str:
        identity: str = self.identify(leaf_der)
        return identity

    def until(self, leaf_der: bytes) -> float:
        if self.ends is None:
            return NEVER
        peers: float = self.ends(leaf_der)
        return min(self.own_end, peers)


class ForwardSide(Side):
    def __init__(
        self,
        ctx: Context,
        targets: list[Target],
        upstream: str,
        timeout_s: float,
        credentials: Credentials | None,
        client_certificates: bool,
        upstream_credentials: Credentials | None,
        upstream_identity: str,
    ) -> None:
        super().__init__(ctx, "outbound")
        name = ctx.settings.via_name
        self.via = Via(name) if name else None
        self.forwarded_for = ctx.settings.forwarded_for
        host = targets[0].host
        self.authority = f"{'[' + host + ']' if ':' in host else host}:{targets[0].port}".encode()
        self.credentials = credentials
        self.client_certificates = client_certificates
        self.all_bytes = upstream == "tcp"
        self.tells = not self.all_bytes and (client_certificates or self.forwarded_for)
        self.endpoints: list[Endpoint] = []
        speaks = SPEAKS[upstream]
        self.route = self.make_route("forward", targets, speaks, timeout_s, upstream_credentials, upstream_identity)
        self.opaque = self.make_route("forward-opaque", targets, SPEAKS_OPAQUE, 0.0, upstream_credentials, upstream_identity)

    def make_route(
        self,
        name: str,
        targets: list[Target],
        speaks: int,
        timeout_s: float,
        credentials: Credentials | None,
        identity: str,
    ) -> Route:
        ctx = self.ctx
        endpoints = []
        for target in targets:
            address = f"{target.host}:{target.port}"
            series = ctx.registry.http("outbound", (("authority", name), ("target_addr", address)))
            endpoint = Endpoint(ctx, target.host, target.port, speaks, series, credentials, identity)
            endpoints.append(endpoint)
        self.endpoints.extend(endpoints)
        retry = RetryPolicy()
        budget = ctx.budget(retry)
        deadlines = ctx.deadlines.queue(timeout_s) if timeout_s > 0.0 else None
        series = ctx.registry.route("outbound", (("authority", name),))
        via = None if speaks == SPEAKS_OPAQUE else self.via
        return Route(name, [Backend(name, endpoints)], None, retry, budget, deadlines, series, via)

    def opened(self, connection: Accepted) -> None:
        super().opened(connection)
        if self.forwarded_for:
            connection.client_extra = [forwarded_for(connection.peer)]

    def on_hello(self, connection: Accepted, alpn: list[bytes]) -> int:
        if self.credentials is not None:
            return TERMINATE
        return PASS_THROUGH

    def on_secured(self, connection: Accepted, leaf: bytes | None) -> None:
        if not self.client_certificates:
            return
        if leaf is None:
            raise TlsFailure("no_client_certificate", "the client showed no certificate")
        assert self.credentials is not None
        connection.client_id = identity = self.credentials.verify(leaf)
        value = identity.encode()
        known = connection.client_extra
        connection.client_extra = [*known, Field(b"mesh-client-id", value), Field(b"l5d-client-id", value)]

    def allows_clear(self, connection: Accepted) -> bool:
        return self.credentials is None

    def declared_opaque(self, connection: Accepted) -> bool:
        return self.all_bytes

    def only_http(self, connection: Accepted) -> bool:
        return self.tells

    def opaque_authority(self, connection: Accepted) -> bytes:
        return b"" if self.tells else b"forward"  # not a name: there is one place to go

    def request(self, connection: Accepted, stream: Stream, head: Head, end: bool) -> None:
        ctx = self.ctx
        if not head.authority:  # HTTP/1.0 without Host: it means whom it connected to (RFC 9112 3.3), and that is the target
            head = head.copied(head.fields)
            head.authority = self.authority
        if head.max_forwards:
            may = within_max_forwards(ctx, stream, head, "outbound", False)
            if may is None:
                return
            head = may
        extra = connection.client_extra
        if connection.watched:
            stream.sink = watched = WatchedExchange(ctx, stream, head, "outbound", False)
            watched.begin(self.opaque, extra, end)
            return
        exchange = Exchange(ctx, stream, head, "outbound", False)
        stream.sink = exchange
        if connection.opaque:
            exchange.begin(self.opaque, extra, end)
            return
        if head.protocol and head.method == b"CONNECT":
            extra = [*extra, *asking(head)]
        if self.via is not None:
            extra = [*extra, self.via.field(head)]
        if not head.request_id:
            extra = [*extra, Field(b"x-request-id", ctx.request_id())]
        exchange.begin(self.route, extra, end)
