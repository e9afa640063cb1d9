"""The inbound side: what other proxies send to the pod's own app.

    mTLS, ALPN meshproxy/1 --> who is calling? --> mesh-target-port listed? --> may they? --> app on the pod's own address
    plaintext ---------------> a probe on its exact path, or the mode lets it in; otherwise 403

It is no open relay: only ports the pod's configuration lists are reachable, only on the pod's own address.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.budget import Budget
from meshproxy.policy.retry import RetryPolicy
from meshproxy.policy.route import HTTP1, HTTP2, parse_authority
from meshproxy.proxy.answer import refuse
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_HTTP1, SPEAKS_HTTP2, SPEAKS_OPAQUE, Endpoint
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.refusals import BAD_TARGET, NOT_AUTHENTICATED, NOT_READY, PORT_NOT_LISTED
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.server import REFUSE, TERMINATE, Accepted, Side
from meshproxy.proxy.tls import Credentials, TlsFailure
from meshproxy.telemetry.registry import HttpSeries
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Field, Head

# Inbound modes, numbers as in mesh.proto.
ALL_AUTHENTICATED: Final = 0
ALL_UNAUTHENTICATED: Final = 1
DENY: Final = 2

CLIENTS: Final = 1000  # distinct (client, port, protocol) with counters of their own; the rest share "other"


class InboundPort:
    """One port of the pod."""

    def __init__(self, port: int, protocol: int, probe_paths: tuple[str, ...]) -> None:
        self.port = port
        self.protocol = protocol
        self.probe_paths = frozenset(path.encode() for path in probe_paths)


def app_speaks(port: InboundPort, orig_proto: bytes, head: Head) -> int:
    """What to speak to the app: what its port declares (appProtocol), otherwise what the calling app spoke."""
    if head.method == b"CONNECT" and not head.protocol:
        return SPEAKS_OPAQUE
    if head.grpc or port.protocol == HTTP2:
        return SPEAKS_HTTP2
    if port.protocol == HTTP1:
        return SPEAKS_HTTP1
    if orig_proto == b"HTTP/2" or (not orig_proto and head.version == 20):
        return SPEAKS_HTTP2
    return SPEAKS_HTTP1


class Inbound(Side):
    def __init__(self, ctx: Context, credentials: Credentials, pod_ip: str) -> None:
        super().__init__(ctx, "inbound")
        self.credentials = credentials
        self.pod_ip = pod_ip
        self.ports: dict[int, InboundPort] = {}
        self.mode = ALL_AUTHENTICATED
        self.ready = False
        self.endpoints: dict[tuple[int, int], Endpoint] = {}  # by (port, what it speaks)
        self.routes: dict[tuple[str, int, int], Route] = {}  # by (client, port, speaks)
        self.budgets: dict[int, Budget] = {}
        self.golden: dict[int, HttpSeries] = {}  # of each port: there, at zero, before the first request

    def apply(self, ports: list[InboundPort], mode: int) -> None:
        """Swap what the pod's configuration says.  Connections stay: each request is judged by what is in force."""
        self.ports = {port.port: port for port in ports}
        self.mode = mode
        for key, endpoint in list(self.endpoints.items()):
            if key[0] not in self.ports:
                endpoint.retire()
                del self.endpoints[key]
        for name, route in list(self.routes.items()):
            if name[1] not in self.ports:
                del self.routes[name]
                self.ctx.registry.release(route.series, self.ctx.now)
        for number in list(self.golden):
            if number not in self.ports:
                self.ctx.registry.release(self.golden.pop(number), self.ctx.now)
        for number in self.ports:
            if number not in self.golden:
                self.golden[number] = self.series_for("", number)
        self.ready = True

    # -- connections

    def on_hello(self, connection: Accepted, alpn: list[bytes]) -> int:
        return TERMINATE if b"meshproxy/1" in alpn else REFUSE

    def on_secured(self, connection: Accepted, leaf: bytes | None) -> None:
        assert connection.tls is not None
        assert self.credentials is not None
        if connection.tls.alpn() != "meshproxy/1":
            raise TlsFailure("alpn_mismatch", "the client did not agree on meshproxy/1")
        if leaf is None:
            raise TlsFailure("no_client_certificate", "the client showed no certificate")
        connection.client_id = identity = self.credentials.verify(leaf)
        value = identity.encode()
        connection.client_extra = [Field(b"mesh-client-id", value), Field(b"l5d-client-id", value)]

    def allows_clear(self, connection: Accepted) -> bool:
        return True  # it is answered with a reason, and probes are let in: see `request`

    # -- requests

    def request(self, connection: Accepted, stream: Stream, head: Head, end: bool) -> None:
        ctx = self.ctx
        if not self.ready:
            refuse(ctx, stream, head, "inbound", NOT_READY)
            return
        target = 0
        proto = b""
        if connection.client_id:
            for field in head.mesh:
                if field.name == b"mesh-target-port" and field.value.isdigit() and len(field.value) <= 5:
                    target = int(field.value)
                elif field.name == b"mesh-orig-proto":
                    proto = field.value
            if target == 0:
                refuse(ctx, stream, head, "inbound", BAD_TARGET)
                return
        else:
            target = self.clear_target(head)
        port = self.ports.get(target)
        if port is None:
            refuse(ctx, stream, head, "inbound", PORT_NOT_LISTED)
            return
        if not self.admits(connection, port, head):
            refuse(ctx, stream, head, "inbound", NOT_AUTHENTICATED)
            return
        exchange = Exchange(ctx, stream, head, "inbound", connection.client_id != "")
        stream.sink = exchange
        exchange.begin(self.route(connection.client_id, target, app_speaks(port, proto, head)), connection.client_extra, end)

    def clear_target(self, head: Head) -> int:
        """The port a plaintext request means: the one its authority names, or the only one there is."""
        parsed = parse_authority(head.authority)
        if parsed is not None and parsed.port in self.ports:
            return parsed.port
        if len(self.ports) == 1:
            return next(iter(self.ports))
        return 0

    def admits(self, connection: Accepted, port: InboundPort, head: Head) -> bool:
        if self.mode == DENY:
            return self.is_probe(port, head)
        if connection.client_id or self.mode == ALL_UNAUTHENTICATED:
            return True
        return self.is_probe(port, head)

    def is_probe(self, port: InboundPort, head: Head) -> bool:
        """Health probes come from no workload, so they have no identity: exactly their paths, exactly GET."""
        return head.method == b"GET" and head.path in port.probe_paths

    # -- live state

    def route(self, client: str, port: int, speaks: int) -> Route:
        key = (client, port, speaks)
        route = self.routes.get(key)
        if route is not None:
            return route
        if len(self.routes) >= CLIENTS:
            client = "other"
            key = (client, port, speaks)
            route = self.routes.get(key)
            if route is not None:
                return route
        ctx = self.ctx
        endpoint = self.endpoints.get((port, speaks))
        if endpoint is None:
            # Attempts are not counted apart here: there is one endpoint, so they are the exchanges.
            endpoint = Endpoint(ctx, self.pod_ip, port, speaks, HttpSeries(()))
            self.endpoints[(port, speaks)] = endpoint
        budget = self.budgets.get(port)
        if budget is None:
            budget = self.budgets[port] = self.ctx.budget(RetryPolicy())
        backend = Backend(f"{self.pod_ip}:{port}", [endpoint])
        route = Route(f"inbound:{port}", [backend], None, RetryPolicy(), budget, None, self.series_for(client, port))
        self.routes[key] = route
        return route

    def series_for(self, client: str, port: int) -> HttpSeries:
        labels = [("target_port", str(port))]
        if client:
            labels += [("client_id", client), ("tls", "true")]
        else:
            labels.append(("tls", "no_identity"))
        return self.ctx.registry.http("inbound", tuple(sorted(labels)))
