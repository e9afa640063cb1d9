"""A Service, its annotations, the TrafficSplit in force and the routes attached -> what clients must know to send to it."""

from __future__ import annotations

from control.api import mesh_pb2
from control.compile.balancer import compile_balancer
from control.compile.protocol import protocol
from control.compile.routes import DEFAULT_CONDITIONS, compile_routes, empty_backend, sticky
from control.resources import core, split
from control.resources.annotations import traffic
from control.resources.attach import Attached
from control.resources.fault import fault
from control.store.store import Diagnostic, Key

BUDGET_RATIO = 0.2  # retries per original request
BUDGET_FLOOR_PER_SECOND = 10.0
BUDGET_TTL_MS = 10_000


def compile_service(
    service: core.Service,
    namespace: str,
    one: split.TrafficSplit | None,
    attached: Attached | None = None,
) -> tuple[mesh_pb2.Service, list[Diagnostic]]:
    """`one`: the split in force for the requests that nothing else is for.  `attached`: what else there is."""
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
            none=declared.attempts == 0,
            any_method=declared.any_method,
            backoff_ms=declared.backoff_ms,
        )
    routes, matches = compile_routes(attached) if attached is not None else ([], [])
    cluster_ip = service.spec.cluster_ip
    return (
        mesh_pb2.Service(
            namespace=namespace,
            name=service.metadata.name,
            ports=ports,
            # All of them, also those that do not exist (yet): their share is answered with 503, never moved silently.
            # SMI's port rule (a backend without the port takes no part for it) is the proxies', who know every Service's ports.
            backends=[
                mesh_pb2.Backend(service=f"{namespace}/{backend.service}", weight_milli=backend.weight_milli)
                for backend in (one.backends if one is not None else ())
            ],
            retry=retry,
            timeout_ms=declared.timeout_ms or 0,
            cluster_ip="" if cluster_ip == "None" else cluster_ip,
            routes=routes,
            matches=matches,
            empty_backend=empty_backend(one.sharing) if one is not None else mesh_pb2.FAIL,
            sticky=sticky(one.sharing) if one is not None else None,
            balancer=compile_balancer(service.metadata.annotations),
            fault=_fault(service),
            response_start_timeout_ms=declared.response_start_ms,
            response_timeout_ms=declared.response_ms,
            idle_timeout_ms=declared.idle_ms,
            propagate_timeout=declared.propagate,
        ),
        diagnostics,
    )


def _fault(service: core.Service) -> mesh_pb2.Fault | None:
    declared, _ = fault(service.metadata.annotations)
    if declared is None:
        return None
    name, value = declared.header
    return mesh_pb2.Fault(
        delay_ms=round(declared.delay_s * 1000),
        delay_ppm=declared.delay_ppm,
        status=declared.status,
        abort_ppm=declared.abort_ppm,
        header=mesh_pb2.HeaderValue(name=name, value=value) if name else None,
    )
