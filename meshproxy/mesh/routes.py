"""The routes of a Service as they came from the control plane -> the tables' form.

    Service.matches, Service.routes --routes_of(service, namespace)--> [(Match, ports)], [RouteSpec]

Routes of the client's own namespace (consumer routes) stand before those of the Service's; those of other namespaces are left
out here.  Raises ValueError saying what cannot be used.
"""

from __future__ import annotations

from functools import lru_cache

from control.api import mesh_pb2
from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.declared import BackendSpec, RouteSpec
from meshproxy.policy.filters import HeaderChanges, NewPath, Redirect, Rewrite
from meshproxy.policy.match import Match, Value
from meshproxy.policy.retry import NO_RETRY, RetryPolicy, parse_policy

MAX_MATCHES = 1024  # of one Service: the control plane sends 512 at most


def routes_of(service: mesh_pb2.Service, namespace: str) -> tuple[list[tuple[Match, tuple[int, ...]]], list[RouteSpec]]:
    """`namespace`: of the pod that this proxy serves."""
    if len(service.matches) > MAX_MATCHES:
        raise ValueError(f"{len(service.matches)} matches, more than {MAX_MATCHES}")
    matches: list[tuple[Match, tuple[int, ...]]] = []
    for one in service.matches:
        if one.route >= len(service.routes):
            raise ValueError(f"a match leads to route {one.route}, and there are {len(service.routes)}")
        if one.client_namespace in ("", namespace):
            matches.append((_match(one), tuple(one.ports)))
    return matches, [_route(one) for one in service.routes] if matches else []


def retry_of(declared: mesh_pb2.Retry, tries: bool = False) -> RetryPolicy:
    """`tries`: it is of a rule that gives each try a time.  Whoever declares both means the tries that run out of it too
    (GEP-1731), whatever statuses are named."""
    if declared.none:
        return NO_RETRY
    words = list(declared.conditions)
    if tries and words:  # the control plane names what always holds
        words.append("try-timeout")
    return parse_policy(
        words,
        declared.attempts or 1,
        declared.budget_ratio or 0.2,
        declared.budget_floor_per_second or 10.0,
        (declared.budget_ttl_ms or 10_000) / 1000.0,
        declared.backoff_ms / 1000.0 if declared.HasField("backoff_ms") else None,
        declared.any_method,
    )


def sticky_of(declared: mesh_pb2.Sticky) -> HashKey | None:
    if declared.header:
        return HashKey(f"header={declared.header}")
    return HashKey(f"cookie={declared.cookie}") if declared.cookie else None


def _match(one: mesh_pb2.RouteMatch) -> Match:
    return Match(
        one.route,
        _value(one.path.how, one.path.value, "") if one.HasField("path") else None,
        tuple(method.encode() for method in one.methods),
        tuple(_value(header.how, header.value, header.name) for header in one.headers),
        tuple(_value(param.how, param.value, param.name) for param in one.query),
    )


@lru_cache(maxsize=4096)  # tables are made anew with each change of any endpoint, and a pattern takes time to build
def _value(how: int, text: str, name: str) -> Value:
    return Value(how, text, name)


def _route(one: mesh_pb2.Route) -> RouteSpec:
    return RouteSpec(
        one.name,
        [_backend(backend) for backend in one.backends],
        _changes(one.request_headers) if one.HasField("request_headers") else None,
        _changes(one.response_headers) if one.HasField("response_headers") else None,
        _redirect(one.redirect) if one.HasField("redirect") else None,
        Rewrite(one.rewrite.host, _path(one.rewrite)) if one.HasField("rewrite") else None,
        [(_backend(mirror.backend), mirror.numerator, mirror.denominator or 1) for mirror in one.mirrors],
        0.0 if one.no_timeout else one.timeout_ms / 1000.0 if one.timeout_ms else -1.0,
        one.try_timeout_ms / 1000.0,
        retry_of(one.retry, one.try_timeout_ms > 0) if one.HasField("retry") else None,
        one.refuse,
        one.empty_backend == mesh_pb2.REDISTRIBUTE,
        sticky_of(one.sticky),
        _times(one.times) if one.HasField("times") else None,
    )


def _times(one: mesh_pb2.AnswerTimes) -> ServiceTimes:
    return ServiceTimes(one.response_start_timeout_ms / 1000.0, one.response_timeout_ms / 1000.0, one.idle_timeout_ms / 1000.0)


def _backend(one: mesh_pb2.Backend) -> BackendSpec:
    return BackendSpec(
        one.service,
        one.weight_milli,
        one.port,
        one.refuse,
        _changes(one.request_headers) if one.HasField("request_headers") else None,
        _changes(one.response_headers) if one.HasField("response_headers") else None,
    )


def _changes(one: mesh_pb2.HeaderChanges) -> HeaderChanges:
    return HeaderChanges(
        tuple((item.name, item.value) for item in one.set),
        tuple((item.name, item.value) for item in one.add),
        tuple(one.remove),
    )


def _redirect(one: mesh_pb2.Redirect) -> Redirect:
    if one.status not in (301, 302, 303, 307, 308):
        raise ValueError(f"a redirect with status {one.status}")
    return Redirect(one.status, one.scheme, one.host, one.port, _path(one))


def _path(one: mesh_pb2.Redirect | mesh_pb2.Rewrite) -> NewPath | None:
    if one.HasField("full_path"):
        return NewPath(True, one.full_path)
    return NewPath(False, one.prefix) if one.HasField("prefix") else None
