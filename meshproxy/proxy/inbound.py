"""The inbound side: what other proxies send to the pod's own app.

    mTLS, ALPN meshproxy/1 --> who is calling? --> mesh-target-port listed? --> may they? --> app on the pod's own address
    plaintext -----------------------------------> its authority's port ... --> may they?

It is no open relay: only ports the pod's configuration lists are reachable, only on the pod's own address.

May they?   a health probe (GET, exactly its path)                          yes
            TrafficTargets select the pod (policy/access.py)                what they allow, and nothing else; 403 access_...
            none does, or they are in audit (then what they would deny is reported):
                        all-authenticated | all-unauthenticated | deny      403 not_authenticated, forbidden
Is it HTTP?         bytes to a port that is declared http or grpc          403 not_http
                    HTTP inside a tunnel to one that is declared nothing   403 http_in_tunnel (proxy/watched.py)
Is there room?  where the pod declares a limit of requests at once         503 concurrency_limit (proxy/limited.py)
A tunnel is judged when it opens, and again when the rules change; a request, once: one that was let in ends as it would.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.access import Access
from meshproxy.policy.budget import Budget
from meshproxy.policy.path import with_path
from meshproxy.policy.retry import RetryPolicy
from meshproxy.policy.service import DETECT, HTTP1, HTTP2
from meshproxy.policy.tables import parse_authority
from meshproxy.proxy.answer import refuse
from meshproxy.proxy.context import Context
from meshproxy.proxy.denials import Denials, take_in
from meshproxy.proxy.endpoint import SPEAKS_HTTP1, SPEAKS_HTTP2, SPEAKS_OPAQUE, Endpoint
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.limited import OVER_LIMIT, Limit, LimitedExchange
from meshproxy.proxy.max_forwards import within_max_forwards
from meshproxy.proxy.outcome import DONE
from meshproxy.proxy.refusals import (
    ACCESS,
    BAD_TARGET,
    FORBIDDEN,
    NOT_AUTHENTICATED,
    NOT_HTTP,
    NOT_READY,
    PORT_NOT_LISTED,
    Refusal,
)
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.side import REFUSE, TERMINATE, Side
from meshproxy.proxy.tls import Credentials, TlsFailure
from meshproxy.proxy.upgrade import told
from meshproxy.proxy.watched import WatchedExchange
from meshproxy.telemetry.registry import HttpSeries
from meshproxy.telemetry.series import NOT_COUNTED
from meshproxy.wire.engine import Stream
from meshproxy.wire.http2.heads import MESH_UPGRADE
from meshproxy.wire.message import Field, Head

# Inbound modes, numbers as in mesh.proto.
ALL_AUTHENTICATED: Final = 0
ALL_UNAUTHENTICATED: Final = 1
DENY: Final = 2

CLIENTS: Final = 1000  # distinct (client, port, protocol) with counters of their own; the rest share "other"
TUNNELS_SWEPT: Final = 64  # as many are kept before those that are over are looked for


class Tunnel:
    """An opaque connection or an upgrade that was let in."""

    def __init__(self, exchange: Exchange, client: str, port: int, head: Head) -> None:
        self.exchange = exchange
        self.client = client
        self.port = port
        self.head = head


class InboundPort:
    """One port of the pod."""

    def __init__(self, port: int, protocol: int, probe_paths: tuple[str, ...]) -> None:
        self.port = port
        self.protocol = protocol
        self.probe_paths = frozenset(path.encode() for path in probe_paths)


def unread(port: InboundPort, head: Head) -> bool:
    """Does it ask to carry other bytes than HTTP to a port that is declared to carry HTTP?  What is not read could be a request
    with any `mesh-client-id`.  (An upgrade is HTTP, and the app's own to grant.)"""
    return head.method == b"CONNECT" and not head.protocol and (port.protocol == HTTP1 or port.protocol == HTTP2)


def app_speaks(port: InboundPort, orig_proto: bytes, head: Head, own_connect: bool = False) -> int:
    """What to speak to the app: what its port declares (appProtocol), otherwise what the calling app spoke.  `own_connect`: a
    CONNECT is the calling app's own, and not how our proxies carry bytes."""
    if head.method == b"CONNECT" and not head.protocol and not own_connect:
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
        self.access: Access | None = None  # what TrafficTargets allow; None: none selects this pod
        self.limit: Limit | None = None  # how many requests at once; None: any number
        self.denials = Denials(ctx)
        ctx.registry.on_scrape(self.count_allowed)
        self.tunnels: list[Tunnel] = []  # open ones, and some that are over
        self.tunnels_swept = TUNNELS_SWEPT
        self.ready = False
        self.endpoints: dict[tuple[int, int], Endpoint] = {}  # by (port, what it speaks)
        self.routes: dict[tuple[str, int, int], Route] = {}  # by (client, port, speaks)
        self.budgets: dict[int, Budget] = {}
        self.golden: dict[int, HttpSeries] = {}  # of each port: there, at zero, before the first request

    def apply(
        self, ports: list[InboundPort], mode: int, access: Access | None = None, greatest: int = 0, adaptive: bool = False
    ) -> None:
        """`greatest`, `adaptive`: how many requests at once (proxy/limited.py), 0: any number.

        Swap what the pod's configuration says.  Connections stay: each request is judged by what is in force.  Tunnels that
        would no longer be opened end."""
        self.ports = {port.port: port for port in ports}
        self.mode = mode
        self.count_allowed()
        self.access = access
        if greatest or self.limit is not None:
            if self.limit is None:
                self.limit = Limit(self.ctx)
            self.limit.declare(greatest, adaptive)
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
        self.judge_tunnels()

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
        own_connect = False
        if connection.client_id:
            for field in head.mesh:
                if field.name == b"mesh-target-port" and field.value.isdigit() and len(field.value) <= 5:
                    target = int(field.value)
                elif field.name == b"mesh-orig-proto":
                    proto = field.value
                elif field.name == MESH_UPGRADE:
                    own_connect = field.value == b"CONNECT"
                    head = told(head, field.value)
            if target == 0:
                refuse(ctx, stream, head, "inbound", BAD_TARGET)
                return
        else:
            target = self.clear_target(head)
            own_connect = True  # nobody else carries bytes so
        port = self.ports.get(target)
        if port is None:
            refuse(ctx, stream, head, "inbound", PORT_NOT_LISTED)
            return
        if self.access is None:
            refusal = self.barred(connection.client_id, port, head)
            if refusal is not None:
                refuse(ctx, stream, head, "inbound", refusal)
                return
        else:
            judged = self.judged(self.access, connection.client_id, stream, port, head)
            if judged is None:
                return
            head = judged
        if head.max_forwards:
            may = within_max_forwards(ctx, stream, head, "inbound", connection.client_id != "")
            if may is None:
                return
            head = may
        exchange: Exchange
        if head.protocol or head.method == b"CONNECT":
            if unread(port, head):
                refuse(ctx, stream, head, "inbound", NOT_HTTP)
                return
            if port.protocol == DETECT and not head.protocol:
                exchange = WatchedExchange(ctx, stream, head, "inbound", connection.client_id != "")
            else:
                exchange = Exchange(ctx, stream, head, "inbound", connection.client_id != "")
            self.opened_tunnel(Tunnel(exchange, connection.client_id, target, head))
        elif self.limit is None:
            exchange = Exchange(ctx, stream, head, "inbound", connection.client_id != "")
        else:
            within = self.limited(self.limit, connection, stream, port, head)
            if within is None:
                return
            exchange = within
        stream.sink = exchange
        exchange.begin(
            self.route(connection.client_id, target, app_speaks(port, proto, head, own_connect)), connection.client_extra, end
        )

    def limited(self, limit: Limit, connection: Accepted, stream: Stream, port: InboundPort, head: Head) -> Exchange | None:
        """An exchange, if there is room for one more; None: it was refused.  Health probes always have room: a pod that is
        busy is not a pod that is ill."""
        ctx = self.ctx
        meshed = connection.client_id != ""
        gate = limit.gate
        if gate is None or self.is_probe(port, head):
            return Exchange(ctx, stream, head, "inbound", meshed)
        cls = limit.admit(gate, head)
        if cls < 0:
            refuse(ctx, stream, head, "inbound", OVER_LIMIT)
            return None
        return LimitedExchange(ctx, stream, head, "inbound", meshed, gate, cls)

    def clear_target(self, head: Head) -> int:
        """The port a plaintext request means: the one its authority names, or the only one there is."""
        parsed = parse_authority(head.authority)
        if parsed is not None and parsed.port in self.ports:
            return parsed.port
        if len(self.ports) == 1:
            return next(iter(self.ports))
        return 0

    def barred(self, client: str, port: InboundPort, head: Head) -> Refusal | None:
        """Why the inbound mode keeps this request out, None if it lets it in."""
        mode = self.mode
        if mode != DENY and (client or mode == ALL_UNAUTHENTICATED):
            return None
        if self.is_probe(port, head):
            return None
        return FORBIDDEN if mode == DENY else NOT_AUTHENTICATED

    def judged(self, access: Access, client: str, stream: Stream, port: InboundPort, head: Head) -> Head | None:
        """The request as the app may have it, by what TrafficTargets allow; None: it was refused."""
        decision = access.decide(client, port.port, head)
        by = decision.by
        if by is not None:
            by.allowed += 1
        if access.audit:
            if not decision.allowed and not self.is_probe(port, head):
                self.denials.note(decision.reason, client, port.port, head, True)
            refusal = self.barred(client, port, head)
            if refusal is None:
                return head
        elif decision.allowed:
            if decision.path is None:
                return head
            respelt = head.copied(head.fields)
            respelt.path = with_path(head.path, decision.path)
            return respelt
        elif self.is_probe(port, head):
            return head
        else:
            self.denials.note(decision.reason, client, port.port, head, False)
            refusal = ACCESS[decision.reason]
        refuse(self.ctx, stream, head, "inbound", refusal)
        return None

    def count_allowed(self) -> None:
        take_in(self.ctx, self.access)

    def is_probe(self, port: InboundPort, head: Head) -> bool:
        """Health probes come from no workload, so they have no identity: exactly their paths, exactly GET."""
        return head.method == b"GET" and head.path in port.probe_paths

    # -- tunnels

    def opened_tunnel(self, tunnel: Tunnel) -> None:
        tunnels = self.tunnels
        if len(tunnels) >= self.tunnels_swept:
            self.tunnels = tunnels = [one for one in tunnels if one.exchange.state != DONE]
            self.tunnels_swept = max(2 * len(tunnels), TUNNELS_SWEPT)
        tunnels.append(tunnel)

    def judge_tunnels(self) -> None:
        """End the tunnels that would not be opened now."""
        self.tunnels = [one for one in self.tunnels if one.exchange.state != DONE]
        for tunnel in list(self.tunnels):
            refusal = self.shut(tunnel)
            if refusal is not None:
                tunnel.exchange.cut(refusal)

    def shut(self, tunnel: Tunnel) -> Refusal | None:
        port = self.ports.get(tunnel.port)
        if port is None:
            return PORT_NOT_LISTED
        if unread(port, tunnel.head):
            return NOT_HTTP
        access = self.access
        if access is None or access.audit:
            return self.barred(tunnel.client, port, tunnel.head)
        decision = access.decide(tunnel.client, tunnel.port, tunnel.head)
        if decision.allowed:
            return None
        self.denials.note(decision.reason, tunnel.client, tunnel.port, tunnel.head, False)
        return ACCESS[decision.reason]

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
            endpoint = Endpoint(ctx, self.pod_ip, port, speaks, NOT_COUNTED)
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
