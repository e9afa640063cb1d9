"""Resources of the control plane -> the plain tables the data path routes by.

    {ResourceName: Resource} --tables_of()-->  policy.route.Tables       services, splits, endpoints
                             --ports_of()--->  [InboundPort], mode       what the inbound side admits

Pure; raises ConversionError naming the resource, so that the stream can reject exactly that one (NACK).
"""

from __future__ import annotations

from collections.abc import Iterable

from control.api import mesh_pb2
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.route import EndpointEntry, ServiceSpec, Tables, build_tables
from meshproxy.proxy.inbound import InboundPort


class ConversionError(ValueError):
    """A resource this proxy cannot use; `str()` says which field and why."""


def service_spec(service: mesh_pb2.Service) -> ServiceSpec:
    """One Service as the tables take it.  Raises ConversionError."""
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
            raise ConversionError(f"service {service.namespace}/{service.name}: retry: {error}") from error
    for port in service.ports:
        if not 1 <= port.port <= 65535:
            raise ConversionError(f"service {service.namespace}/{service.name}: port {port.port} is not 1..65535")
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
    """The addresses of one Service.  Raises ConversionError."""
    entries = []
    for item in endpoints.endpoints:
        if not item.address or not 1 <= item.target_port <= 65535:
            raise ConversionError(
                f"endpoints {endpoints.namespace}/{endpoints.name}: {item.address or 'no address'}:{item.target_port}"
            )
        if item.identity and not 1 <= item.mesh_port <= 65535:
            raise ConversionError(f"endpoints {endpoints.namespace}/{endpoints.name}: {item.address} has no mesh port")
        entries.append(
            EndpointEntry(
                item.address,
                item.service_port,
                item.target_port,
                item.identity,
                item.mesh_port,
                item.protocol,
                tuple(item.labels.items()),
            )
        )
    return entries


def tables_of(version: int, resources: Iterable[mesh_pb2.Resource], cluster_domains: tuple[str, ...]) -> Tables:
    """All services and endpoints as tables.  Raises ConversionError."""
    services: list[ServiceSpec] = []
    endpoints: dict[str, list[EndpointEntry]] = {}
    for resource in resources:
        content = resource.WhichOneof("content")
        if content == "service":
            services.append(service_spec(resource.service))
        elif content == "endpoints":
            endpoints[f"{resource.endpoints.namespace}/{resource.endpoints.name}"] = endpoint_entries(resource.endpoints)
    return build_tables(version, services, endpoints, cluster_domains or ("svc.cluster.local",))


def ports_of(workload: mesh_pb2.Workload) -> list[InboundPort]:
    return [InboundPort(port.port, port.protocol, tuple(port.probe_paths)) for port in workload.ports]
