"""Which service is meant: the tables a proxy routes by, and how a name finds its place in them.

    build_tables(services, endpoints)  --->  Tables   immutable, swapped in one assignment

    "Prices.shop:8080"  --parse-->  (prices, shop, 8080)  --Tables-->  ServiceEntry
                                                                         backends:  BackendEntry v1   weight 90
                                                                                       endpoints: EndpointEntry ...
                                                                                    BackendEntry v2   weight 10

Nothing here changes while requests flow.  What does (loads, pools, splits, budgets) lives with the proxy, found by the
`key` of an entry, and survives a swap of the tables.

Names are those a pod's resolver would accept: `prices`, `prices.shop`, `prices.shop.svc`, `prices.shop.svc.cluster.local`,
any case, with or without a port; the full name also with its trailing dot.  (A shorter name with a trailing dot is absolute
in DNS: `prices.shop.` is a host of the public domain "shop", not ours.)  A Service's cluster IP is a name for it as well.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.retry import RetryPolicy
from meshproxy.wire.message import CACHES

# Protocol numbers as in mesh.proto.
DETECT: Final = 0
HTTP1: Final = 1
HTTP2: Final = 2
OPAQUE: Final = 3

DEFAULT_PORT: Final = 80  # of a name without a port, over plain HTTP

# The memo of a table: as many names as a workload speaks to, and no more when a client invents names.
MAX_MEMO: Final = 1024

DEFAULT_RETRY: Final = RetryPolicy()


class EndpointEntry:
    """One address behind a Service port.

    identity    expected SPIFFE ID; "" means not meshed: plaintext to address:target_port
    mesh_port   where the peer's inbound proxy listens; 0 if not meshed
    labels      metric labels of the destination, sorted pairs
    key         what live state is kept by: the same process at the same place, for the same port
    """

    __slots__ = ("address", "identity", "key", "labels", "mesh_port", "protocol", "service_port", "target_port")

    def __init__(
        self,
        address: str,
        service_port: int,
        target_port: int,
        identity: str = "",
        mesh_port: int = 0,
        protocol: int = DETECT,
        labels: tuple[tuple[str, str], ...] = (),
    ) -> None:
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
    """One leaf of a split.  No endpoints (none ready, or no such Service): its share is answered 503, never moved."""

    __slots__ = ("endpoints", "key", "name", "namespace", "weight")

    def __init__(self, namespace: str, name: str, port: int, weight: int, endpoints: list[EndpointEntry]) -> None:
        self.namespace = namespace
        self.name = name
        self.weight = weight
        self.endpoints = endpoints
        self.key = f"{namespace}/{name}:{port}"

    def __repr__(self) -> str:
        return f"BackendEntry({self.key}, weight={self.weight}, {len(self.endpoints)} endpoints)"


class ServiceEntry:
    """One port of a Service, as this proxy treats it.

    backends    without a split, the service itself with weight 1; none where no backend of a split has the port
    weights     of the backends, in their order: what a Split is made of
    timeout_s   for the whole request, seconds; 0.0: none
    authority   the canonical name for metrics, "prices.shop.svc.cluster.local:8080"
    """

    __slots__ = ("authority", "backends", "key", "name", "namespace", "port", "protocol", "retry", "timeout_s", "weights")

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
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.port = port
        self.protocol = protocol
        self.backends = backends
        self.weights = [backend.weight for backend in backends]
        self.timeout_s = timeout_s
        self.retry = retry
        self.key = f"{namespace}/{name}:{port}"
        self.authority = f"{name}.{namespace}.{domain}:{port}"

    def __repr__(self) -> str:
        return f"ServiceEntry({self.key}, {self.backends})"


class ServiceSpec:
    """What `build_tables` is given for one Service.

    ports       (port, protocol) pairs
    backends    ("<namespace>/<name>", weight) pairs; empty: its own endpoints
    """

    __slots__ = ("backends", "cluster_ip", "name", "namespace", "ports", "retry", "timeout_s")

    def __init__(
        self,
        namespace: str,
        name: str,
        ports: list[tuple[int, int]],
        backends: list[tuple[str, int]] | None = None,
        timeout_s: float = 0.0,
        retry: RetryPolicy | None = None,
        cluster_ip: str = "",
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.ports = ports
        self.backends = backends or []
        self.timeout_s = timeout_s
        self.retry = retry or DEFAULT_RETRY
        self.cluster_ip = cluster_ip


class Authority:
    """A parsed authority: host in lower case without trailing dot; port 0 if none was given."""

    __slots__ = ("absolute", "host", "port")

    def __init__(self, host: str, port: int, absolute: bool) -> None:
        self.host = host
        self.port = port
        self.absolute = absolute  # it had the trailing dot


_HOST_BYTES: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-._"


def parse_authority(authority: bytes) -> Authority | None:
    """Host and port of a name or IPv4 address, or None for what cannot name a service: empty, user information, IPv6
    literals, characters outside a host name, a port that is not 1..65535."""
    if len(authority) > 261:  # 255 octets of a name (RFC 1035 2.3.4), ":" and five digits
        return None
    host, _, digits = authority.lower().partition(b":")
    port = 0
    if digits:
        if len(digits) > 5 or not digits.isdigit():
            return None
        port = int(digits)
        if not 1 <= port <= 65535:
            return None
    absolute = host.endswith(b".")
    if absolute:
        host = host[:-1]
    if not host or host.translate(None, _HOST_BYTES):
        return None
    return Authority(host.decode("ascii"), port, absolute)


class Tables:
    """Everything one proxy routes by, at one version.  Make it with `build_tables`."""

    __slots__ = ("_by_address", "_memo", "_namespaces", "_suffixes", "services", "version")

    def __init__(
        self,
        version: int,
        services: dict[str, ServiceEntry],
        by_address: dict[str, ServiceEntry],
        cluster_domains: tuple[str, ...],
    ) -> None:
        self.version = version
        self.services = services  # by ServiceEntry.key
        self._by_address = by_address  # "<cluster ip>:<port>"
        self._suffixes = tuple("." + domain for domain in cluster_domains)
        self._memo: dict[tuple[bytes, str, int], ServiceEntry | None] = {}
        self._namespaces = frozenset(entry.namespace for entry in services.values())

    def service(self, namespace: str, name: str, port: int) -> ServiceEntry | None:
        """By its own name and port (a listener knows both)."""
        return self.services.get(f"{namespace}/{name}:{port}")

    def lookup(self, authority: bytes, default_namespace: str, default_port: int = DEFAULT_PORT) -> ServiceEntry | None:
        """The service that `authority` names for a caller in `default_namespace`, or None: not in the mesh."""
        key = (authority, default_namespace, default_port)
        memo = self._memo
        if key in memo:
            return memo[key]
        entry = self._find(authority, default_namespace, default_port)
        if CACHES.enabled:
            if len(memo) >= MAX_MEMO:
                memo.clear()  # the names in use are back after one lookup each; an LRU would cost on every one
            memo[key] = entry
        return entry

    def is_ours(self, host: str) -> bool:
        """Does this name lie in the mesh, whether or not there is a Service of it?  `x.shop` does where a Service of the
        namespace shop is known, and so does all under a cluster domain: such a name is a mistake, not an outside host."""
        labels = host.split(".")
        if any(host.endswith(suffix) for suffix in self._suffixes):
            return True
        return len(labels) in (2, 3) and labels[1] in self._namespaces and labels[2:] in ([], ["svc"])

    def _find(self, authority: bytes, default_namespace: str, default_port: int) -> ServiceEntry | None:
        parsed = parse_authority(authority)
        if parsed is None:
            return None
        port = parsed.port or default_port
        host = parsed.host
        address = self._by_address.get(f"{host}:{port}")
        if address is not None:
            return address
        full = False
        for suffix in self._suffixes:
            if host.endswith(suffix):
                host = host[: -len(suffix)]
                full = True
                break
        if parsed.absolute and not full:
            return None
        labels = host.split(".")
        if len(labels) == 3 and labels[2] == "svc" and not full:
            labels.pop()
        if len(labels) == 2:
            return self.services.get(f"{labels[1]}/{labels[0]}:{port}")
        if len(labels) == 1 and not full:
            return self.services.get(f"{default_namespace}/{labels[0]}:{port}")
        return None


NO_TABLES: Final = Tables(0, {}, {}, ())


def build_tables(
    version: int,
    services: list[ServiceSpec],
    endpoints: dict[str, list[EndpointEntry]],
    cluster_domains: tuple[str, ...] = ("svc.cluster.local",),
) -> Tables:
    """Tables from plain facts.  `endpoints` is keyed by "<namespace>/<name>" of the Service they belong to.

    A backend serves a port with its endpoints of the same Service port.  One that does not exist, or has no endpoint there,
    keeps its weight: its share is answered 503.  One that exists without that port takes no part for it (SMI's port rule).
    """
    ports_of = {f"{spec.namespace}/{spec.name}": {port for port, _ in spec.ports} for spec in services}
    by_key: dict[str, ServiceEntry] = {}
    by_address: dict[str, ServiceEntry] = {}
    domain = cluster_domains[0] if cluster_domains else "svc"
    for spec in services:
        own = f"{spec.namespace}/{spec.name}"
        for port, protocol in spec.ports:
            backends: list[BackendEntry] = []
            for backend, weight in spec.backends or [(own, 1)]:
                if backend in ports_of and port not in ports_of[backend]:
                    continue
                namespace, _, name = backend.partition("/")
                serving = [endpoint for endpoint in endpoints.get(backend, []) if endpoint.service_port == port]
                backends.append(BackendEntry(namespace, name, port, weight, serving))
            entry = ServiceEntry(spec.namespace, spec.name, port, protocol, backends, spec.timeout_s, spec.retry, domain)
            by_key[entry.key] = entry
            if spec.cluster_ip and spec.cluster_ip != "None":
                by_address[f"{spec.cluster_ip}:{port}"] = entry
    return Tables(version, by_key, by_address, cluster_domains)
