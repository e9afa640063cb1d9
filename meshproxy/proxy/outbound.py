"""The outbound side: what the pod's own app sends, on its way to other services.

    absolute-form / Host ---+
    CONNECT name:port ------+--> authority --> Route of a mesh service (or of a rule attached to it) --> split, balance, mTLS
    service listener -------+            \\--> outside the mesh: passed through to that host, counted

Tables are swapped as a whole (`apply`); live state (endpoints with their pools and EWMA, split positions, budgets) is kept
here by key and survives the swap.  A request keeps the route it began with.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.declared import RouteSpec
from meshproxy.policy.match import Matches
from meshproxy.policy.retry import NO_RETRY, RetryPolicy
from meshproxy.policy.service import (
    DETECT,
    HTTP1,
    HTTP2,
    OPAQUE,
    BackendEntry,
    EndpointEntry,
    MirrorEntry,
    RouteEntry,
    ServiceEntry,
)
from meshproxy.policy.split import Split
from meshproxy.policy.tables import NO_TABLES, Tables, parse_authority
from meshproxy.proxy.answer import CONNECTED, refuse
from meshproxy.proxy.backends import Backends
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_AUTO, SPEAKS_HTTP1, SPEAKS_HTTP2, SPEAKS_MESH, SPEAKS_OPAQUE, Endpoint
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.explained import Explained, Explainer, asks, unasked
from meshproxy.proxy.faulty import FaultyExchange, Injection
from meshproxy.proxy.max_forwards import within_max_forwards
from meshproxy.proxy.mirror import TIMEOUT_S as MIRROR_TIMEOUT_S
from meshproxy.proxy.mirror import Mirror
from meshproxy.proxy.refusals import AMBIGUOUS_PATH, BAD_AUTHORITY, LOOP, NO_ROUTE, NOT_READY, Refusal
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.routing import Routing
from meshproxy.proxy.rule import Rule
from meshproxy.proxy.server import Accepted
from meshproxy.proxy.side import PASS_THROUGH, Side
from meshproxy.proxy.timed import TimedExchange, Times
from meshproxy.proxy.tls import Credentials
from meshproxy.proxy.tunnel import StreamTransport
from meshproxy.proxy.watched import WatchedExchange
from meshproxy.proxy.websocket import asking
from meshproxy.telemetry.families import MAX
from meshproxy.wire.engine import NO_FIELDS, Stream
from meshproxy.wire.message import Field, Head

EXTERNAL_ROUTES: Final = 256  # hosts outside the mesh remembered at once; the oldest goes
DST_LABELS: Final = frozenset(("deployment", "pod", "serviceaccount", "version"))  # of a pod, as dst_* of its callers


class Made:
    """What is being made of new tables, until it is put in force."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.endpoints: dict[tuple[str, object], Endpoint] = {}
        self.entries: dict[tuple[str, object], EndpointEntry] = {}
        self.routes: dict[tuple[str, bool], Route] = {}
        self.rules: dict[str, Route] = {}
        self.pods: dict[str, Route] = {}


def note_given(backends: list[BackendEntry], weights: list[int], given: set[str]) -> None:
    """Note those that have a weight and draw nothing: it was given to others (policy/service.py `weights_of`)."""
    for index, backend in enumerate(backends):
        if backend.weight > 0 and weights[index] == 0:
            given.add(backend.key)


class Outbound(Side):
    """namespace  of the pod: short names are looked up there
    own        "ip:port" of this proxy's own listeners: a request to one of them is a loop
    """

    def __init__(self, ctx: Context, credentials: Credentials, namespace: str, own: frozenset[str]) -> None:
        super().__init__(ctx, "outbound")
        self.own_app = True
        self.mesh_credentials = credentials
        self.namespace = namespace
        self.own = own
        self.ready = False
        self.explainer: Explainer | None = None  # of requests that ask for it; None: the pod does not let its app ask
        self.tables: Tables = NO_TABLES
        self.endpoints: dict[tuple[str, object], Endpoint] = {}  # by (backend key, EndpointEntry.key)
        self.entries: dict[tuple[str, object], EndpointEntry] = {}
        self.backends = Backends(ctx)
        self.routes: dict[tuple[str, bool], Route] = {}  # by (ServiceEntry.key, opaque)
        self.rules: dict[str, Route] = {}  # by RouteEntry.key
        self.pods: dict[str, Route] = {}  # by "ip:port" of a meshed pod addressed directly
        self.memo: dict[bytes, Route] = {}  # authority -> route, of this tables' version
        self.redistributed: set[str] = set()  # backends whose share goes to others
        self.external: dict[tuple[str, bool], Route] = {}
        self.external_route_series = ctx.registry.route("outbound", (("authority", "external"),))
        self.external_connects = ctx.registry.counter(
            "meshproxy_external_total", "Requests and tunnels passed through to hosts outside the mesh."
        )

    # ---------------------------------------------------------------- configuration

    def apply(self, tables: Tables) -> None:
        """Swap the tables.  All of the new ones are in effect for the next request; nothing of the old is lost that lives."""
        made = Made(tables)
        given: set[str] = set()
        self.backends.begin()
        for entry in tables.services.values():
            note_given(entry.backends, entry.weights, given)
            for rule in entry.routes.values():
                note_given(rule.backends, rule.weights, given)
            for opaque in (False, True):
                backends = [self.backend(made, leaf, entry, opaque) for leaf in entry.backends]
                made.routes[(entry.key, opaque)] = self.keep_or_make_route(entry, opaque, backends)
            if entry.matches is not None:
                self.attach_rules(made, entry, entry.matches)
            fault = tables.faults.get(f"{entry.namespace}/{entry.name}")
            if fault is not None:
                self.inject(made, entry, Injection(self.ctx, fault))
            times = tables.times.get(f"{entry.namespace}/{entry.name}")
            if times is not None:
                made.routes[(entry.key, False)].times = Times(self.ctx, times)
        self.backends.end()
        for key, endpoint in self.endpoints.items():
            if made.endpoints.get(key) is not endpoint:
                endpoint.retire()
        for before, after in ((self.routes, made.routes), (self.rules, made.rules)):
            for name, route in before.items():
                if name not in after:
                    self.ctx.registry.release(route.series, self.ctx.now)
        self.endpoints = made.endpoints
        self.entries = made.entries
        self.pods = made.pods
        self.routes = made.routes
        self.rules = made.rules
        self.tables = tables
        self.memo = {}
        self.ready = True
        for backend in given | self.redistributed:
            self.redistribute(backend, backend in given)
        self.redistributed = given

    def redistribute(self, backend: str, now: bool) -> None:
        """Say so in a metric.  Backends without endpoints get no request where that is declared, so none can be counted."""
        gauge = self.ctx.registry.gauge(
            "meshproxy_backend_redistributed",
            "1 while a backend has no endpoint and its share goes to others, as its split or route declares.",
            (("backend", backend),),
            MAX,
        )
        gauge.value = 1.0 if now else 0.0

    def backend(self, made: Made, leaf: BackendEntry, entry: ServiceEntry, opaque: bool) -> Backend:
        members: list[Endpoint] = []
        for item in leaf.endpoints:
            key: tuple[str, object] = (f"{leaf.key}#opaque" if opaque else leaf.key, item.key)
            endpoint = made.endpoints.get(key)
            if endpoint is None:
                endpoint = self.keep_or_make(key, item, entry, leaf.namespace, leaf.name, opaque)
                endpoint.zone = item.zone
                endpoint.weight = float(item.weight)
                made.endpoints[key] = endpoint
                made.entries[key] = item
            members.append(endpoint)
            address = f"{item.address}:{item.target_port}"
            if item.identity and not opaque and address not in made.pods:
                made.pods[address] = self.pod_route(address, endpoint)
        # What is carried as bytes has no answers to judge an endpoint by, and no keys.
        policy = None if opaque else made.tables.balancers.get(f"{leaf.namespace}/{leaf.name}")
        return self.backends.make(leaf.key, members, policy, opaque)

    def inject(self, made: Made, entry: ServiceEntry, injection: Injection) -> None:
        made.routes[(entry.key, False)].injection = injection
        for rule in entry.routes.values():
            made.rules[rule.key].injection = injection

    def attach_rules(self, made: Made, entry: ServiceEntry, matches: Matches) -> None:
        """The rules attached to a Service port, each with a Route of its own: its split, its times, its counters.  Retries are
        paid from the Service's budget, whichever rule asks."""
        ctx = self.ctx
        service = made.routes[(entry.key, False)]
        rules: dict[int, Route] = {}
        for number, one in entry.routes.items():
            known = self.rules.get(one.key)
            split = self.keep_or_make_split(known, one.weights)
            labels = (("authority", entry.authority), ("dst_namespace", entry.namespace), ("dst_service", entry.name))
            labelled = (*labels, ("rt_route", one.spec.name))
            series = known.series if known is not None else ctx.registry.route("outbound", labelled)
            backends = [self.backend(made, leaf, entry, False) for leaf in one.backends]
            tries = ctx.deadlines.queue(one.spec.try_timeout_s) if one.spec.try_timeout_s > 0.0 else None
            deadlines = ctx.deadlines.queue(one.timeout_s) if one.timeout_s > 0.0 else None
            mirrors = [self.mirror(made, mirror, entry, one) for mirror in one.mirrors]
            rule = Rule(one.spec, one.backends, tries, mirrors or None)
            route = Route(one.key, backends, split, one.retry, service.budget, deadlines, series, None, rule)
            route.times = Times(ctx, one.times) if one.times is not None else None
            rules[number] = made.rules[one.key] = route
        service.routing = Routing(matches, rules, entry.port)

    def mirror(self, made: Made, declared: MirrorEntry, entry: ServiceEntry, one: RouteEntry) -> Mirror:
        ctx = self.ctx
        leaf = declared.backend
        key = f"{one.key} mirror {leaf.key}"
        known = self.rules.get(key)
        labels = (("authority", entry.authority), ("dst_namespace", leaf.namespace), ("dst_service", leaf.name))
        labelled = (*labels, ("rt_route", f"{one.spec.name} mirror"))
        series = known.series if known is not None else ctx.registry.route("outbound", labelled)
        backend = self.backend(made, leaf, entry, False)
        deadlines = ctx.deadlines.queue(MIRROR_TIMEOUT_S)
        route = Route(key, [backend], None, NO_RETRY, ctx.budget(NO_RETRY), deadlines, series)
        made.rules[key] = route
        return Mirror(route, declared.numerator, declared.denominator, ctx.rng)

    def keep_or_make_split(self, known: Route | None, weights: list[int]) -> Split | None:
        """None: there is nothing to draw."""
        if not weights or (len(weights) == 1 and weights[0] > 0):
            return None
        if known is not None and known.split is not None and known.split.weights == weights:
            return known.split  # a block begun under the same weights is finished: the split stays exact
        return Split(weights, self.ctx.rng)

    def keep_or_make(
        self, key: tuple[str, object], item: EndpointEntry, entry: ServiceEntry, namespace: str, name: str, opaque: bool
    ) -> Endpoint:
        known = self.endpoints.get(key)
        if known is not None:
            seen = self.entries[key]
            if seen.labels == item.labels and seen.protocol == item.protocol and seen.mesh_port == item.mesh_port:
                return known
        ctx = self.ctx
        labels = [("dst_" + label, value) for label, value in item.labels if label in DST_LABELS]
        labels += [("dst_namespace", namespace), ("dst_service", name), ("authority", entry.authority)]
        labels.append(("target_addr", f"{item.address}:{item.target_port}"))
        if item.identity:
            labels += [("tls", "true"), ("server_id", item.identity)]
        else:
            labels.append(("tls", "no_identity"))
        series = ctx.registry.http("outbound", tuple(sorted(labels)))
        if item.identity:
            return Endpoint(
                ctx,
                item.address,
                item.mesh_port,
                SPEAKS_MESH,
                series,
                self.mesh_credentials,
                item.identity,
                target_port=item.target_port,
            )
        speaks = SPEAKS_AUTO
        if opaque:
            speaks = SPEAKS_OPAQUE
        elif item.protocol == HTTP1 or item.protocol == OPAQUE:  # a request that was read as HTTP can only be sent as HTTP
            speaks = SPEAKS_HTTP1
        elif item.protocol == HTTP2:
            speaks = SPEAKS_HTTP2
        return Endpoint(ctx, item.address, item.target_port, speaks, series)

    def keep_or_make_route(self, entry: ServiceEntry, opaque: bool, backends: list[Backend]) -> Route:
        ctx = self.ctx
        retry = entry.retry
        known = self.routes.get((entry.key, opaque))
        split = self.keep_or_make_split(known, entry.weights)
        if known is not None:
            budget = known.budget
            budget.reconfigure(retry.budget_ratio, retry.budget_floor / ctx.settings.workers, retry.budget_ttl)
            series = known.series
        else:
            budget = ctx.budget(retry)
            series = ctx.registry.route(
                "outbound",
                (("authority", entry.authority), ("dst_namespace", entry.namespace), ("dst_service", entry.name)),
            )
        deadlines = ctx.deadlines.queue(entry.timeout_s) if entry.timeout_s > 0.0 and not opaque else None
        rule: Rule | None = None
        if not opaque and entry.sticky is not None:
            rule = Rule(RouteSpec(entry.key, sticky=entry.sticky), entry.backends, None)
        return Route(entry.key, backends, split, retry, budget, deadlines, series, None, rule)

    def pod_route(self, address: str, endpoint: Endpoint) -> Route:
        """A meshed pod addressed by IP: mTLS all the same (no plaintext leaves a meshed workload for a meshed peer)."""
        known = self.pods.get(address)
        if known is not None and known.backends[0].endpoints[0] is endpoint:
            return known
        retry = RetryPolicy()
        budget = self.ctx.budget(retry)
        return Route(address, [Backend(address, [endpoint])], None, retry, budget, None, self.external_route_series)

    # ---------------------------------------------------------------- requests

    def on_hello(self, connection: Accepted, alpn: list[bytes]) -> int:
        return PASS_THROUGH  # the app's own TLS: its bytes are carried, not read

    def declared(self, connection: Accepted) -> int:
        """What the Service says that the connection leads to; DETECT if it does not, or it leads to none."""
        if not connection.destination:
            return DETECT
        entry = self.tables.lookup(connection.destination.encode(), self.namespace)
        return DETECT if entry is None else entry.protocol

    def declared_opaque(self, connection: Accepted) -> bool:
        return self.declared(connection) == OPAQUE

    def only_http(self, connection: Accepted) -> bool:
        return self.declared(connection) in (HTTP1, HTTP2)

    def opaque_authority(self, connection: Accepted) -> bytes:
        return b"" if self.only_http(connection) else connection.destination.encode()

    def request(self, connection: Accepted, stream: Stream, head: Head, end: bool) -> None:
        ctx = self.ctx
        if not self.ready:
            refuse(ctx, stream, head, "outbound", NOT_READY)
            return
        authority = head.authority
        if connection.opaque:
            self.begin(connection, stream, head, end, self.find(authority, True, head))
            return
        if connection.destination:  # also a CONNECT: whoever listens there is the proxy that the app chose (RFC 9110 9.3.6)
            authority = connection.destination.encode()
            if not head.authority:  # HTTP/1.0 without Host: it means whom it connected to (RFC 9112 3.3)
                head = head.copied(head.fields)
                head.authority = authority
        elif head.method == b"CONNECT" and not head.protocol:
            self.tunnel(connection, stream, authority)
            return
        # The memo is for http; of https, which is rare here, the same name means another port.
        route = self.memo.get(authority) if head.scheme != b"https" else None
        self.begin(connection, stream, head, end, route if route is not None else self.find(authority, False, head))

    def begin(self, connection: Accepted, stream: Stream, head: Head, end: bool, route: Route | Refusal) -> None:
        ctx = self.ctx
        if self.explainer is not None and asks(head):
            self.explained(self.explainer, connection, stream, head, end, route)
            return
        if isinstance(route, Refusal):
            refuse(ctx, stream, head, "outbound", route)
            return
        if head.max_forwards:
            may = within_max_forwards(ctx, stream, head, "outbound", False)
            if may is None:
                return
            head = may
        if route.routing is not None:
            routed = route.routing.find(head)
            if routed.unsafe:
                refuse(ctx, stream, head, "outbound", AMBIGUOUS_PATH)
                return
            if routed.head is not None:
                head = routed.head
            if routed.route is not None:
                route = routed.route
                if routed.location:
                    Exchange(ctx, stream, head, "outbound", False).redirect(route, routed.location)
                    return
        exchange: Exchange | None = None
        if route.injection is not None:
            fault = route.injection.draw(route, head, end)
            if fault is not None:
                exchange = FaultyExchange(ctx, stream, head, "outbound", route.injection, fault)
        if exchange is None:
            if connection.watched:
                exchange = WatchedExchange(ctx, stream, head, "outbound", False)
            elif route.times is None:
                exchange = Exchange(ctx, stream, head, "outbound", False)
            else:
                exchange = TimedExchange(ctx, stream, head, "outbound", route.times)
        stream.sink = exchange
        if head.method == b"CONNECT":
            extra = asking(head)
            if head.protocol and not head.request_id:
                extra = [*extra, Field(b"x-request-id", ctx.request_id())]
            exchange.begin(route, extra, end)
        elif head.request_id:
            exchange.begin(route, NO_FIELDS, end)
        else:
            exchange.begin(route, [Field(b"x-request-id", ctx.request_id())], end)

    def explained(
        self, explainer: Explainer, connection: Accepted, stream: Stream, head: Head, end: bool, route: Route | Refusal
    ) -> None:
        """Begin with a stand-in for the client's stream, which adds the trail to the answer."""
        head = unasked(head)
        explained = Explained(self.ctx, stream, explainer, head)
        self.begin(connection, explained, head, end, route)
        sink = explained.sink
        if isinstance(sink, Exchange):
            explained.exchange = sink

    def find(self, authority: bytes, opaque: bool, head: Head) -> Route | Refusal:
        """The route for an authority: a mesh service, a meshed pod, or a host outside."""
        entry = self.tables.lookup(authority, self.namespace, 443 if head.scheme == b"https" else 80)
        if entry is not None:
            route = self.routes[(entry.key, opaque)]
            if not opaque and head.scheme != b"https":
                self.remember(authority, route)
            return route
        parsed = parse_authority(authority)
        if parsed is None:
            return BAD_AUTHORITY
        port = parsed.port or (443 if head.scheme == b"https" else 80)
        address = f"{parsed.host}:{port}"
        if address in self.own:
            return LOOP
        pod = self.pods.get(address)
        if pod is not None:
            return pod
        if not parsed.absolute and self.tables.is_ours(parsed.host):
            return NO_ROUTE
        return self.outside(address, parsed.host, port, opaque)

    def remember(self, authority: bytes, route: Route) -> None:
        if len(self.memo) >= 1024:  # names in use are back after one look-up each
            self.memo.clear()
        self.memo[authority] = route

    def outside(self, address: str, host: str, port: int, opaque: bool) -> Route:
        self.external_connects.value += 1
        key = (address, opaque)
        route = self.external.get(key)
        if route is None:
            if len(self.external) >= EXTERNAL_ROUTES:
                oldest = next(iter(self.external))
                for endpoint in self.external.pop(oldest).backends[0].endpoints:
                    endpoint.retire()
            retry = RetryPolicy()
            budget = self.ctx.budget(retry)
            speaks = SPEAKS_OPAQUE if opaque else SPEAKS_AUTO
            # One series for all of them, with an owner for each: `retire` gives it back.
            series = self.ctx.registry.http("outbound", (("authority", "external"), ("tls", "no_identity")))
            endpoint = Endpoint(self.ctx, host, port, speaks, series)
            backend = Backend("external", [endpoint])
            route = Route("external", [backend], None, retry, budget, None, self.external_route_series)
            self.external[key] = route
        return route

    def tunnel(self, connection: Accepted, stream: Stream, authority: bytes) -> None:
        """Take the CONNECT ourselves and look at what comes through it, as at a redirected connection."""
        stream.send_head(CONNECTED, NO_FIELDS, False)
        transport = StreamTransport(stream, connection.peer, self.ctx.loop)
        inner = Accepted(self.ctx, self, authority.decode("latin-1"))
        transport.carry(inner)
