"""Resources of the control plane -> the plain tables the data path routes by.

    Known --tables_of()--> policy.route.Tables       services, splits, endpoints
      --ports_of()---> [InboundPort], mode       what the inbound side admits

Pure; raises ResourceRejected naming the resource, so that the stream rejects exactly that one (NACK).
"""

from __future__ import annotations

from control.api import mesh_pb2
from meshproxy.mesh.knowledge import Known, ResourceRejected
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.route import EndpointEntry, ServiceSpec, Tables, build_tables
from meshproxy.proxy.inbound import InboundPort


def service_spec(service: mesh_pb2.Service) -> ServiceSpec:
    """One Service as the tables take it.  Raises ResourceRejected."""
    key = (int(mesh_pb2.SERVICE), f"{service.namespace}/{service.name}")
    retry = None
    if service.HasField("retry"):
        declared = service.retry
        try:
            retry = parse_policy(
                list(declared.conditions),
                declared.attempts or 1,
                declared.budget_ratio or 0.2,
                declared.budget_floor_per_second or 10.0,
                (declared.budget_ttl_ms or 10_000) / 1000.0,
            )
        except ValueError as error:
            raise ResourceRejected(key, f"retry: {error}") from error
    return ServiceSpec(
        service.namespace,
        service.name,
        [(port.port, port.protocol) for port in service.ports],
        [(backend.service, backend.weight_milli) for backend in service.backends],
        service.timeout_ms / 1000.0,
        retry,
        service.cluster_ip,
    )


def endpoint_entries(endpoints: mesh_pb2.Endpoints) -> list[EndpointEntry]:
    """The addresses of one Service (their shape was checked when they were received)."""
    return [
        EndpointEntry(
            item.address,
            item.service_port,
            item.target_port,
            item.identity,
            item.mesh_port,
            item.protocol,
            tuple(item.labels.items()),
        )
        for item in endpoints.endpoints
    ]


def tables_of(version: int, known: Known) -> Tables:
    """All services and endpoints as tables.  Raises ResourceRejected."""
    domains = tuple(known.workload.cluster_domains) if known.workload is not None else ()
    return build_tables(
        version,
        [service_spec(service) for service in known.services.values()],
        {name: endpoint_entries(endpoints) for name, endpoints in known.endpoints.items()},
        domains or ("svc.cluster.local",),
    )


def ports_of(workload: mesh_pb2.Workload) -> list[InboundPort]:
    return [InboundPort(port.port, port.protocol, tuple(port.probe_paths)) for port in workload.ports]
