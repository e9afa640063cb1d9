"""A Service, its annotations and the TrafficSplit in force -> what clients must know to send to it."""

from __future__ import annotations

from collections.abc import Mapping

from control.api import mesh_pb2
from control.compile.protocol import protocol
from control.compile.views import View
from control.resources import core, split
from control.resources.annotations import traffic
from control.store.store import Diagnostic, Key

# What a retry may follow without being declared: nothing can have acted on the request.
DEFAULT_CONDITIONS = ("connect-failure", "refused-stream")
BUDGET_RATIO = 0.2  # retries per original request
BUDGET_FLOOR_PER_SECOND = 10.0
BUDGET_TTL_MS = 10_000


def compile_service(
    service: core.Service,
    namespace: str,
    one: split.TrafficSplit | None,
    backends: Mapping[str, View[core.Service]],
) -> tuple[mesh_pb2.Service, list[Diagnostic]]:
    """`one`: the split in force for this Service; `backends`: the Services it names that exist, by name."""
    key = Key("", "Service", namespace, service.metadata.name)
    diagnostics: list[Diagnostic] = []
    ports: list[mesh_pb2.ServicePort] = []
    for index, port in enumerate(service.spec.ports):
        if port.protocol != "TCP":
            continue
        expected = protocol(port.app_protocol)
        if expected is None:
            message = f"{port.app_protocol!r} is not known; the protocol is detected"
            diagnostics.append(
                Diagnostic("warning", "", 0, f"spec.ports[{index}].appProtocol", message, "e.g. http, grpc, tcp", key)
            )
            expected = mesh_pb2.DETECT
        ports.append(mesh_pb2.ServicePort(port=port.port, name=port.name, protocol=expected))
    declared = traffic(service.metadata.annotations)
    retry = None
    if declared.declared_retry:
        retry = mesh_pb2.Retry(
            conditions=[*DEFAULT_CONDITIONS, *declared.conditions],
            attempts=declared.attempts,
            budget_ratio=BUDGET_RATIO,
            budget_floor_per_second=BUDGET_FLOOR_PER_SECOND,
            budget_ttl_ms=BUDGET_TTL_MS,
        )
    cluster_ip = service.spec.cluster_ip
    return (
        mesh_pb2.Service(
            namespace=namespace,
            name=service.metadata.name,
            ports=ports,
            backends=_backends(service, namespace, one, backends) if one is not None else [],
            retry=retry,
            timeout_ms=declared.timeout_ms,
            cluster_ip="" if cluster_ip == "None" else cluster_ip,
        ),
        diagnostics,
    )


def _backends(
    apex: core.Service, namespace: str, one: split.TrafficSplit, existing: Mapping[str, View[core.Service]]
) -> list[mesh_pb2.Backend]:
    """SMI: a backend takes part for a port only if it has that port.  One with no port in common (or that does not exist
    yet) is left out here and the others share its part; per port the proxies do the same, since they know every Service's
    ports.  If none is left, all are kept with weight 0: the split is still in force, requests are answered with 503."""
    wanted = {port.port for port in apex.spec.ports if port.protocol == "TCP"}

    def takes_part(name: str) -> bool:
        view = existing.get(name)
        return view is not None and any(port.port in wanted for port in view.typed.spec.ports if port.protocol == "TCP")

    kept = [backend for backend in one.backends if takes_part(backend.service)]
    if not kept:
        return [mesh_pb2.Backend(service=f"{namespace}/{backend.service}", weight_milli=0) for backend in one.backends]
    return [mesh_pb2.Backend(service=f"{namespace}/{backend.service}", weight_milli=backend.weight_milli) for backend in kept]
