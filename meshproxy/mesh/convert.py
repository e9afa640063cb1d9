"""Resources of the control plane -> the plain tables the data path routes by.

    Known --tables_of()--> policy.tables.Tables       services, splits, endpoints
      --ports_of()---> [InboundPort], mode       what the inbound side admits
      --access_of()--> policy.access.Access      ... and of whom, where TrafficTargets select the pod

Pure; raises ResourceRejected naming the resource, so that the stream rejects exactly that one (NACK).
"""

from __future__ import annotations

from control.api import mesh_pb2
from meshproxy.mesh.balancer import balancer_of
from meshproxy.mesh.knowledge import Known, ResourceRejected
from meshproxy.mesh.routes import retry_of, routes_of, sticky_of
from meshproxy.policy.access import Access, AccessRule, HeaderMatch, HttpMatch
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.fault import FaultPolicy
from meshproxy.policy.regex import Regex
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import Tables, build_tables
from meshproxy.proxy.inbound import InboundPort


def service_spec(service: mesh_pb2.Service, namespace: str, zone: str = "") -> ServiceSpec:
    """One Service as the tables take it, for a client in `namespace` and `zone`.  Raises ResourceRejected."""
    try:
        matches, routes = routes_of(service, namespace) if service.matches else ([], [])
        return ServiceSpec(
            service.namespace,
            service.name,
            [(port.port, port.protocol) for port in service.ports],
            [(backend.service, backend.weight_milli) for backend in service.backends],
            service.timeout_ms / 1000.0,
            retry_of(service.retry) if service.HasField("retry") else None,
            service.cluster_ip,
            routes,
            matches,
            service.empty_backend == mesh_pb2.REDISTRIBUTE,
            sticky_of(service.sticky),
            balancer_of(service, zone),
            fault_of(service.fault) if service.HasField("fault") else None,
            times_of(service),
        )
    except ValueError as error:
        raise ResourceRejected((int(mesh_pb2.SERVICE), f"{service.namespace}/{service.name}"), str(error)) from error


def fault_of(declared: mesh_pb2.Fault) -> FaultPolicy:
    return FaultPolicy(
        declared.delay_ms / 1000.0,
        declared.delay_ppm,
        declared.status,
        declared.abort_ppm,
        header=declared.header.name,
        value=declared.header.value,
    )


def times_of(service: mesh_pb2.Service) -> ServiceTimes | None:
    """None: nothing is declared."""
    return ServiceTimes(
        service.response_start_timeout_ms / 1000.0,
        service.response_timeout_ms / 1000.0,
        service.idle_timeout_ms / 1000.0,
        service.propagate_timeout,
    ).if_any()


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
            item.zone,
            item.weight or 1,
        )
        for item in endpoints.endpoints
    ]


def tables_of(version: int, known: Known) -> Tables:
    """All services and endpoints as tables.  Raises ResourceRejected."""
    domains = tuple(known.workload.cluster_domains) if known.workload is not None else ()
    namespace = known.workload.namespace if known.workload is not None else ""
    zone = known.workload.zone if known.workload is not None else ""
    return build_tables(
        version,
        [service_spec(service, namespace, zone) for service in known.services.values()],
        {name: endpoint_entries(endpoints) for name, endpoints in known.endpoints.items()},
        domains or ("svc.cluster.local",),
    )


def ports_of(workload: mesh_pb2.Workload) -> list[InboundPort]:
    return [InboundPort(port.port, port.protocol, tuple(port.probe_paths)) for port in workload.ports]


def access_of(workload: mesh_pb2.Workload) -> Access | None:
    """What TrafficTargets allow on this pod, None where none selects it.  Raises ResourceRejected: a rule that cannot be read
    as it was meant must not be read in another way."""
    if not workload.HasField("access"):
        return None
    regexes: dict[tuple[str, bool], Regex] = {}
    rules = []
    for rule in workload.access.rules:
        try:
            http = tuple(_http_match(match, regexes) for match in rule.http)
        except ValueError as error:
            raise ResourceRejected(
                (int(mesh_pb2.WORKLOAD), f"{workload.namespace}/{workload.pod}"), f"{rule.name}: {error}"
            ) from error
        rules.append(AccessRule(rule.name, tuple(rule.clients), tuple(rule.ports), http))
    return Access(tuple(rules), workload.access.audit)


def _http_match(match: mesh_pb2.RouteMatch, regexes: dict[tuple[str, bool], Regex]) -> HttpMatch:
    """`regexes`: each is built once, whatever the number of rules it is in."""
    if match.query or match.ports or match.client_namespace:
        raise ValueError("a match on more than path, method and headers")
    headers = tuple(HeaderMatch(one.name.lower().encode(), _regex(one, regexes)) for one in match.headers)
    path = _regex(match.path, regexes) if match.HasField("path") else None
    return HttpMatch(tuple(method.encode() for method in match.methods), path, headers)


def _regex(one: mesh_pb2.StringMatch, regexes: dict[tuple[str, bool], Regex]) -> Regex:
    if one.how not in (mesh_pb2.StringMatch.REGEX, mesh_pb2.StringMatch.REGEX_START):
        raise ValueError(f"{mesh_pb2.StringMatch.How.Name(one.how)} where a regular expression was expected")
    key = (one.value, one.how == mesh_pb2.StringMatch.REGEX)
    if key not in regexes:
        regexes[key] = Regex(*key)
    return regexes[key]
