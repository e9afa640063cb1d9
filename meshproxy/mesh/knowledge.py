"""What this proxy knows of the mesh: the resources it was sent, checked, kept, handed over.

    Update -> check each resource by itself -> old + good ones = candidate -> build(candidate) -> in force
                    |                                                          |
                    `-> Rejected: keeps its last good form                     `-> ResourceRejected(key): without it, again

One Update is in force at once: `build` sees whole candidates and swaps its tables in one assignment, or raises and
nothing has changed.  Live state (pools, breakers) is the builder's affair and not kept here.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from certs.bundle import BundleError, TrustBundle
from certs.spiffe import SpiffeError, SpiffeId
from control.api import mesh_pb2

log = logging.getLogger("meshproxy.mesh.knowledge")

Key = tuple[int, str]  # (mesh_pb2.Kind, name)
MAX_RESOURCES: Final = 50_000  # far above a cluster's services; a control plane gone wild must not end us

_CONTENT: Final = {
    mesh_pb2.WORKLOAD: "workload",
    mesh_pb2.SERVICE: "service",
    mesh_pb2.ENDPOINTS: "endpoints",
    mesh_pb2.TRUST: "trust",
}


class ResourceRejected(Exception):
    """Raised by a builder: this one resource cannot be put to use, and why.  The rest is tried without it."""

    def __init__(self, key: Key, reason: str) -> None:
        super().__init__(f"{key[1]}: {reason}")
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Known:
    """A whole, immutable state of knowledge.  Names are "<namespace>/<name>"; the messages must not be modified."""

    workload: mesh_pb2.Workload | None = None  # None until the first update
    services: dict[str, mesh_pb2.Service] = field(default_factory=dict)
    endpoints: dict[str, mesh_pb2.Endpoints] = field(default_factory=dict)
    trust: TrustBundle | None = None
    resources: dict[Key, mesh_pb2.Resource] = field(default_factory=dict)  # all of the above, with their hashes


class Knowledge:
    """`build(known)` puts a state in force; it may raise ResourceRejected."""

    def __init__(self, build: Callable[[Known], None]) -> None:
        self.known = Known()
        self.updates = 0  # put in force
        self.rejected = 0  # resources
        self._build = build

    def held(self) -> list[mesh_pb2.Held]:
        """What to name in Hello."""
        return [mesh_pb2.Held(name=r.name, hash=r.hash) for r in self.known.resources.values()]

    def apply(self, update: mesh_pb2.Update) -> list[mesh_pb2.Rejected]:
        """Put `update` in force; returns the resources that were not taken."""
        refused: dict[Key, str] = {}
        changed: dict[Key, mesh_pb2.Resource] = {}
        for resource in update.set:
            key = _key(resource.name)
            if reason := problem_with(resource):
                refused[key] = reason
            else:
                changed[key] = resource
        removed = {_key(name) for name in update.removed}
        if len(self.known.resources) + len(changed) > MAX_RESOURCES:
            refused |= dict.fromkeys([*changed, *removed], f"more than {MAX_RESOURCES} resources")
            changed, removed = {}, set()
        self._put_in_force(changed, removed, refused)
        self.rejected += len(refused)
        for (kind, name), reason in refused.items():
            log.error("%s %s is not usable and keeps its last good form: %s", mesh_pb2.Kind.Name(kind), name, reason)
        return [
            mesh_pb2.Rejected(name=mesh_pb2.ResourceName(kind=mesh_pb2.Kind.Name(kind), name=name), reason=reason[:500])
            for (kind, name), reason in refused.items()
        ]

    def _put_in_force(self, changed: dict[Key, mesh_pb2.Resource], removed: set[Key], refused: dict[Key, str]) -> None:
        for _ in range(len(changed) + len(removed) + 1):  # each round drops at least one resource
            candidate = {k: r for k, r in self.known.resources.items() if k not in removed} | changed
            known = _known(candidate)
            try:
                self._build(known)
            except ResourceRejected as rejection:
                if rejection.key in changed:
                    del changed[rejection.key]
                elif rejection.key in removed:
                    removed.discard(rejection.key)
                else:  # something old no longer fits: nothing of this update can be taken
                    refused |= dict.fromkeys([*changed, *removed], f"{rejection} (held already)")
                    return
                refused[rejection.key] = rejection.reason
            except Exception as error:  # a bug in building tables: the last good ones stay, and the control plane is told
                log.exception("building the tables failed; the last good ones stay in force")
                refused |= dict.fromkeys([*changed, *removed], f"{type(error).__name__}: {error}")
                return
            else:
                self.known = known
                self.updates += 1
                return


def problem_with(resource: mesh_pb2.Resource) -> str:
    """Why a resource cannot be used by itself; "" if it can."""
    expected = _CONTENT.get(resource.name.kind)
    if expected is None:
        return f"kind {resource.name.kind} is not known to this version"
    if resource.WhichOneof("content") != expected:
        return f"holds {resource.WhichOneof('content')}, {expected} was expected"
    if not resource.hash:
        return "has no hash"
    try:
        match expected:
            case "workload":
                _check_workload(resource.name.name, resource.workload)
            case "service":
                _check_service(resource.name.name, resource.service)
            case "endpoints":
                _check_endpoints(resource.name.name, resource.endpoints)
            case "trust":
                TrustBundle.of(resource.trust.trust_domain, resource.trust.anchors_der)
    except (BundleError, SpiffeError, ValueError) as error:
        return str(error)
    return ""


def _check_workload(name: str, workload: mesh_pb2.Workload) -> None:
    _check_name(name, f"{workload.namespace}/{workload.pod}")
    SpiffeId.parse(workload.identity)
    ipaddress.ip_address(workload.pod_ip)
    _check_ports(p.port for p in workload.ports)
    for listener in workload.listeners:
        host, _, port = listener.address.rpartition(":")
        ipaddress.ip_address(host.strip("[]"))
        _check_ports([int(port), listener.port])


def _check_service(name: str, service: mesh_pb2.Service) -> None:
    _check_name(name, f"{service.namespace}/{service.name}")
    _check_ports(p.port for p in service.ports)
    if service.HasField("retry") and service.retry.budget_ratio < 0:
        raise ValueError(f"retry budget of {service.retry.budget_ratio}")


def _check_endpoints(name: str, endpoints: mesh_pb2.Endpoints) -> None:
    _check_name(name, f"{endpoints.namespace}/{endpoints.name}")
    for endpoint in endpoints.endpoints:
        ipaddress.ip_address(endpoint.address)
        _check_ports((endpoint.service_port, endpoint.target_port))
        if endpoint.identity:
            SpiffeId.parse(endpoint.identity)
            _check_ports((endpoint.mesh_port,))


def _check_name(name: str, content: str) -> None:
    if name != content:
        raise ValueError(f"named {name!r}, but its content is {content!r}")


def _check_ports(ports: Iterable[int]) -> None:
    for port in ports:
        if not 0 < port < 65536:
            raise ValueError(f"port {port} is not between 1 and 65535")


def _known(resources: dict[Key, mesh_pb2.Resource]) -> Known:
    workload: mesh_pb2.Workload | None = None
    services: dict[str, mesh_pb2.Service] = {}
    endpoints: dict[str, mesh_pb2.Endpoints] = {}
    trust: TrustBundle | None = None
    for (kind, name), resource in resources.items():
        if kind == mesh_pb2.SERVICE:
            services[name] = resource.service
        elif kind == mesh_pb2.ENDPOINTS:
            endpoints[name] = resource.endpoints
        elif kind == mesh_pb2.WORKLOAD:
            workload = resource.workload
        elif kind == mesh_pb2.TRUST:
            trust = TrustBundle(resource.trust.trust_domain, tuple(resource.trust.anchors_der))
    return Known(workload, services, endpoints, trust, resources)


def _key(name: mesh_pb2.ResourceName) -> Key:
    return int(name.kind), name.name
