"""What a proxy knows of one port of a Service: its backends, their endpoints, the rules for its requests.

    ServiceEntry  prices.shop:8080
        backends:  BackendEntry v1   weight 90
                       endpoints: EndpointEntry ...
                   BackendEntry v2   weight 10
        matches --match(entry, head)--> RouteEntry
                                        backends, filters ...

Made by `tables.build_tables` of what is declared (declared.py), and never changed.  What does change while requests flow
(loads, pools, splits, budgets) lives with the proxy, found by the `key` of an entry, and survives a swap of the tables.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.declared import RouteSpec
from meshproxy.policy.filters import HeaderChanges
from meshproxy.policy.match import Matches
from meshproxy.policy.retry import RetryPolicy
from meshproxy.wire.message import Head

# Protocol numbers as in mesh.proto.
DETECT: Final = 0
HTTP1: Final = 1
HTTP2: Final = 2
OPAQUE: Final = 3


class EndpointEntry:
    """One address behind a Service port.

    identity    expected SPIFFE ID; "" means not meshed: plaintext to address:target_port
    mesh_port   where the peer's inbound proxy listens; 0 if not meshed
    labels      metric labels of the destination, sorted pairs
    zone        where it runs, "": nobody said
    weight      relative capacity, > 0
    key         what live state is kept by: the same process at the same place, for the same port
    """

    __slots__ = (
        "address", "identity", "key", "labels", "mesh_port", "protocol", "service_port", "target_port", "weight", "zone",
    )  # fmt: skip

    def __init__(
        self,
        address: str,
        service_port: int,
        target_port: int,
        identity: str = "",
        mesh_port: int = 0,
        protocol: int = DETECT,
        labels: tuple[tuple[str, str], ...] = (),
        zone: str = "",
        weight: int = 1,
    ) -> None:
        self.zone = zone
        self.weight = weight
        self.address = address
        self.service_port = service_port
        self.target_port = target_port
        self.identity = identity
        self.mesh_port = mesh_port
        self.protocol = protocol
        self.labels = tuple(sorted(labels))
        self.key = (address, target_port, identity)

    def __repr__(self) -> str:
        return f"EndpointEntry({self.address}:{self.target_port}, {self.identity or 'not meshed'})"


class BackendEntry:
    """One leaf of a split.  No endpoints (none ready, or no such Service): its share is answered 503, never moved.

    refuse    its share is answered with this status, 0: it is sent
    request_headers, response_headers    what is changed for this backend alone, None: nothing
    """

    __slots__ = ("endpoints", "key", "name", "namespace", "refuse", "request_headers", "response_headers", "weight")

    def __init__(
        self,
        namespace: str,
        name: str,
        port: int,
        weight: int,
        endpoints: list[EndpointEntry],
        refuse: int = 0,
        request_headers: HeaderChanges | None = None,
        response_headers: HeaderChanges | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.weight = weight
        self.endpoints = endpoints
        self.refuse = refuse
        self.request_headers = request_headers
        self.response_headers = response_headers
        self.key = f"{namespace}/{name}:{port}"

    def __repr__(self) -> str:
        return f"BackendEntry({self.key}, weight={self.weight}, {len(self.endpoints)} endpoints)"


class MirrorEntry:
    """Of `denominator` requests `numerator` are sent to `backend` as well."""

    __slots__ = ("backend", "denominator", "numerator")

    def __init__(self, backend: BackendEntry, numerator: int, denominator: int) -> None:
        self.backend = backend
        self.numerator = numerator
        self.denominator = denominator


class RouteEntry:
    """A rule for one port of a Service; fields as RouteSpec's, with what it leaves to the Service filled in.

    key      what live state is kept by
    weights  of the backends, in their order
    """

    __slots__ = ("backends", "key", "mirrors", "retry", "spec", "timeout_s", "times", "weights")

    def __init__(
        self,
        spec: RouteSpec,
        key: str,
        backends: list[BackendEntry],
        mirrors: list[MirrorEntry],
        timeout_s: float,
        retry: RetryPolicy,
        times: ServiceTimes | None = None,
    ) -> None:
        self.times = times
        self.spec = spec
        self.key = key
        self.backends = backends
        self.weights = weights_of(backends, spec.redistribute)
        self.mirrors = mirrors
        self.timeout_s = timeout_s
        self.retry = retry

    def __repr__(self) -> str:
        return f"RouteEntry({self.key}, {self.backends})"


def weights_of(backends: list[BackendEntry], redistribute: bool) -> list[int]:
    """`redistribute`: a backend without endpoints gets none, as long as another one with a weight has some."""
    weights = [backend.weight for backend in backends]
    if redistribute:
        left = [weight if backends[i].endpoints and not backends[i].refuse else 0 for i, weight in enumerate(weights)]
        if any(left):
            return left
    return weights


class ServiceEntry:
    """One port of a Service, as this proxy treats it.

    backends    without a split, the service itself with weight 1; none where no backend of a split has the port
    weights     of the backends, in their order: what a Split is made of
    timeout_s   for the whole request, seconds; 0.0: none
    authority   the canonical name for metrics, "prices.shop.svc.cluster.local:8080"
    matches     which requests go by `routes` instead; None: no request does
    routes      by Match.route
    sticky      for `backends`; None: each request is drawn by itself
    """

    __slots__ = (
        "authority", "backends", "key", "matches", "name", "namespace", "port", "protocol", "retry", "routes", "sticky",
        "timeout_s", "weights",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str,
        name: str,
        port: int,
        protocol: int,
        backends: list[BackendEntry],
        timeout_s: float,
        retry: RetryPolicy,
        domain: str,
        redistribute: bool = False,
        sticky: HashKey | None = None,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.port = port
        self.protocol = protocol
        self.backends = backends
        self.weights = weights_of(backends, redistribute)
        self.sticky = sticky
        self.matches: Matches | None = None
        self.routes: dict[int, RouteEntry] = {}
        self.timeout_s = timeout_s
        self.retry = retry
        self.key = f"{namespace}/{name}:{port}"
        self.authority = f"{name}.{namespace}.{domain}:{port}"

    def __repr__(self) -> str:
        return f"ServiceEntry({self.key}, {self.backends})"


def match(entry: ServiceEntry, head: Head) -> RouteEntry | None:
    """The rule for a request, None where the Service's own backends are for it.  For explaining and tests; the proxy asks
    `entry.matches` itself, because a path that cannot be read safely is answered and not routed."""
    if entry.matches is None:
        return None
    return entry.routes.get(entry.matches.find(head).route)
