"""Which service is meant: the tables a proxy routes by, and how a name finds its place in them.

    build_tables(services, endpoints)  --->  Tables   immutable, swapped in one assignment

    "Prices.shop:8080"  --parse-->  (prices, shop, 8080)  --Tables-->  ServiceEntry (service.py)

Names are those a pod's resolver would accept: `prices`, `prices.shop`, `prices.shop.svc`, `prices.shop.svc.cluster.local`,
any case, with or without a port; the full name also with its trailing dot.  (A shorter name with a trailing dot is absolute
in DNS: `prices.shop.` is a host of the public domain "shop", not ours.)  A Service's cluster IP is a name for it as well.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.chooser import BalancerPolicy
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.declared import BackendSpec, ServiceSpec
from meshproxy.policy.fault import FaultPolicy
from meshproxy.policy.match import Matches
from meshproxy.policy.service import BackendEntry, EndpointEntry, MirrorEntry, RouteEntry, ServiceEntry
from meshproxy.wire.message import CACHES

DEFAULT_PORT: Final = 80  # of a name without a port, over plain HTTP

# The memo of a table: as many names as a workload speaks to, and no more when a client invents names.
MAX_MEMO: Final = 1024


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

    __slots__ = ("_by_address", "_memo", "_namespaces", "_suffixes", "balancers", "faults", "services", "times", "version")

    def __init__(
        self,
        version: int,
        services: dict[str, ServiceEntry],
        by_address: dict[str, ServiceEntry],
        cluster_domains: tuple[str, ...],
        balancers: dict[str, BalancerPolicy] | None = None,
        faults: dict[str, FaultPolicy] | None = None,
        times: dict[str, ServiceTimes] | None = None,
    ) -> None:
        self.faults = faults or {}  # by "<namespace>/<name>" of the Service that is asked for
        self.times = times or {}  # likewise
        self.version = version
        self.balancers = balancers or {}  # by "<namespace>/<name>" of a backend; the others have the default
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
        declared = [BackendSpec(backend, weight) for backend, weight in spec.backends or [(own, 1)]]
        for port, protocol in spec.ports:
            backends = _leaves(declared, port, ports_of, endpoints)
            entry = ServiceEntry(
                spec.namespace,
                spec.name,
                port,
                protocol,
                backends,
                spec.timeout_s,
                spec.retry,
                domain,
                spec.redistribute,
                spec.sticky,
            )
            _add_routes(entry, spec, own, ports_of, endpoints)
            by_key[entry.key] = entry
            if spec.cluster_ip and spec.cluster_ip != "None":
                by_address[f"{spec.cluster_ip}:{port}"] = entry
    faults = {f"{spec.namespace}/{spec.name}": spec.fault for spec in services if spec.fault is not None}
    times = {f"{spec.namespace}/{spec.name}": spec.times for spec in services if spec.times is not None}
    return Tables(version, by_key, by_address, cluster_domains, _balancers(services), faults, times)


def _balancers(services: list[ServiceSpec]) -> dict[str, BalancerPolicy]:
    """What a Service declares is for its own endpoints, and for those of its backends that declare nothing themselves (of two
    Services that lead to one backend, the first by name)."""
    declared = sorted([(f"{spec.namespace}/{spec.name}", spec) for spec in services if spec.balancer is not None], key=_name)
    found: dict[str, BalancerPolicy] = {}
    for own, spec in declared:
        if spec.balancer is not None:
            found[own] = spec.balancer
    for _, spec in declared:
        leaves = [backend for backend, _ in spec.backends]
        for route in spec.routes:
            leaves += [backend.service for backend in route.backends]
        for leaf in leaves:
            if leaf not in found and spec.balancer is not None:
                found[leaf] = spec.balancer
    return found


def _name(declared: tuple[str, ServiceSpec]) -> str:
    return declared[0]


def _leaves(
    declared: list[BackendSpec], port: int, ports_of: dict[str, set[int]], endpoints: dict[str, list[EndpointEntry]]
) -> list[BackendEntry]:
    found: list[BackendEntry] = []
    for one in declared:
        if not one.port and one.service in ports_of and port not in ports_of[one.service]:
            continue
        wanted = one.port or port
        namespace, _, name = one.service.partition("/")
        serving = [endpoint for endpoint in endpoints.get(one.service, []) if endpoint.service_port == wanted]
        found.append(
            BackendEntry(namespace, name, wanted, one.weight, serving, one.refuse, one.request_headers, one.response_headers)
        )
    return found


def _add_routes(
    entry: ServiceEntry,
    spec: ServiceSpec,
    own: str,
    ports_of: dict[str, set[int]],
    endpoints: dict[str, list[EndpointEntry]],
) -> None:
    matches = [one for one, ports in spec.matches if not ports or entry.port in ports]
    if not matches:
        return
    entry.matches = Matches(matches)
    for one in matches:
        if one.route in entry.routes:
            continue
        route = spec.routes[one.route]
        backends = _leaves(route.backends or [BackendSpec(own)], entry.port, ports_of, endpoints)
        mirrors = [
            MirrorEntry(leaf, numerator, denominator)
            for backend, numerator, denominator in route.mirrors
            for leaf in _leaves([backend], entry.port, ports_of, endpoints)
        ]
        timeout_s = entry.timeout_s if route.timeout_s < 0.0 else route.timeout_s
        key = f"{entry.key} {route.name}"
        times = _times(route.times, spec.times)
        entry.routes[one.route] = RouteEntry(route, key, backends, mirrors, timeout_s, route.retry or entry.retry, times)


def _times(own: ServiceTimes | None, services: ServiceTimes | None) -> ServiceTimes | None:
    """A rule's, where it has its own instead of the Service's; None: nothing is declared."""
    if own is None:
        return services
    return ServiceTimes(own.response_start_s, own.response_s, own.idle_s, services is not None and services.propagate).if_any()
