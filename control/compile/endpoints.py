"""EndpointSlices of a Service, joined with the pods behind them -> Endpoints.

    slice port --name--> Service port --appProtocol--> protocol
    slice address --targetRef (else the pod's IP)--> pod --> expected identity, metric labels

Only ready addresses; an address that stands in two slices (while one moves to another) counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control.api import mesh_pb2
from control.compile.protocol import protocol
from control.compile.settings import Settings
from control.compile.views import View
from control.compile.workload import identity, meshed, metric_labels, zone
from control.resources import core
from control.resources.balancing import weight
from control.store.store import Diagnostic, Key

MAX_ENDPOINTS = 5_000  # addresses times ports of one Service


def compile_endpoints(
    service: core.Service,
    namespace: str,
    slices: Sequence[View[core.EndpointSlice]],
    pods: Mapping[str, View[core.Pod]],
    settings: Settings,
) -> tuple[mesh_pb2.Endpoints, list[Diagnostic]]:
    """`pods`: those behind the slices' addresses, by address."""
    name = service.metadata.name
    diagnostics: list[Diagnostic] = []
    by_name = {port.name: port for port in service.spec.ports if port.protocol == "TCP"}
    found: dict[tuple[int, str, int], mesh_pb2.Endpoint] = {}
    for view in slices:
        one = view.typed
        if one.address_type == "FQDN":
            key = Key("discovery.k8s.io", "EndpointSlice", namespace, one.metadata.name)
            diagnostics.append(Diagnostic("warning", "", 0, "addressType", "FQDN is not supported", "give addresses", key))
            continue
        for slice_port in one.ports:
            service_port = by_name.get(slice_port.name)
            if service_port is None or slice_port.port is None or slice_port.protocol != "TCP":
                continue
            for endpoint in one.endpoints:
                if not ready(endpoint.conditions):
                    continue
                for address in endpoint.addresses[:1]:  # Kubernetes: more than one is undefined, readers take the first
                    place = (service_port.port, address, slice_port.port)
                    made = _endpoint(place, service_port, endpoint.zone, pods.get(address), name, namespace, settings)
                    found.setdefault(place, made)
    if len(found) > MAX_ENDPOINTS:
        key = Key("", "Service", namespace, name)
        message = f"{len(found):,} endpoints, more than {MAX_ENDPOINTS:,}: the rest is left out"
        diagnostics.append(Diagnostic("error", "", 0, "", message, "split the Service", key))
    return (
        mesh_pb2.Endpoints(namespace=namespace, name=name, endpoints=[found[place] for place in sorted(found)[:MAX_ENDPOINTS]]),
        diagnostics,
    )


def ready(conditions: core.EndpointConditions) -> bool:
    """Kubernetes: an absent `ready` is to be read as true."""
    return conditions.ready is not False and conditions.terminating is not True


def _endpoint(
    place: tuple[int, str, int],
    port: core.ServicePort,
    at: str,
    pod: View[core.Pod] | None,
    service: str,
    namespace: str,
    settings: Settings,
) -> mesh_pb2.Endpoint:
    """`at`: its zone, if the slice says; else the pod may."""
    labels = {"namespace": namespace, "service": service}
    expected, mesh_port, capacity = "", 0, 1
    if pod is not None:
        at, capacity = at or zone(pod.typed), weight(pod.typed.metadata.annotations)
        labels |= metric_labels(pod.typed, namespace)
        if meshed(pod.typed):
            expected, mesh_port = identity(pod.typed, namespace, settings), settings.inbound_port
    service_port, address, target = place
    return mesh_pb2.Endpoint(
        address=address,
        service_port=service_port,
        target_port=target,
        identity=expected,
        mesh_port=mesh_port,
        protocol=protocol(port.app_protocol) or mesh_pb2.DETECT,
        labels=labels,
        zone=at,
        weight=0 if capacity == 1 else capacity,
    )
