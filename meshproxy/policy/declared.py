"""What is declared of a Service and of the routes to it, as plain facts: what `tables.build_tables` makes tables of.

    ServiceSpec
        ports, backends, balancer, retry, fault, times
        matches --Match.route--> RouteSpec
                                 backends: BackendSpec ...   filters, mirrors, times, retry

Endpoints are not part of it: they come and go by themselves.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.chooser import BalancerPolicy
from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.fault import FaultPolicy
from meshproxy.policy.filters import HeaderChanges, Redirect, Rewrite
from meshproxy.policy.match import Match
from meshproxy.policy.retry import RetryPolicy

DEFAULT_RETRY: Final = RetryPolicy()


class BackendSpec:
    """A backend as it is declared.  service: "<namespace>/<name>"; port: 0: the one the request was for."""

    __slots__ = ("port", "refuse", "request_headers", "response_headers", "service", "weight")

    def __init__(
        self,
        service: str,
        weight: int = 1,
        port: int = 0,
        refuse: int = 0,
        request_headers: HeaderChanges | None = None,
        response_headers: HeaderChanges | None = None,
    ) -> None:
        self.service = service
        self.weight = weight
        self.port = port
        self.refuse = refuse
        self.request_headers = request_headers
        self.response_headers = response_headers


class RouteSpec:
    """What becomes of the requests that a match leads here.

    name          "HTTPRoute shop/web rule 0"
    backends      none: the Service's own endpoints
    mirrors       (backend, numerator, denominator)
    timeout_s     whole request, seconds; 0.0: none; below 0: the Service's
    try_timeout_s each attempt, seconds; 0.0: none
    retry         None: the Service's
    times         what is declared beside them, None: the Service's.  Its `propagate` is always the Service's
    refuse        answered with this status, 0: not
    redistribute  the share of a backend without endpoints goes to those with
    sticky        what keeps a client with one backend, None: each request is drawn by itself
    """

    __slots__ = (
        "backends", "mirrors", "name", "redirect", "redistribute", "refuse", "request_headers", "response_headers", "retry",
        "rewrite", "sticky", "timeout_s", "times", "try_timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        backends: list[BackendSpec] | None = None,
        request_headers: HeaderChanges | None = None,
        response_headers: HeaderChanges | None = None,
        redirect: Redirect | None = None,
        rewrite: Rewrite | None = None,
        mirrors: list[tuple[BackendSpec, int, int]] | None = None,
        timeout_s: float = -1.0,
        try_timeout_s: float = 0.0,
        retry: RetryPolicy | None = None,
        refuse: int = 0,
        redistribute: bool = False,
        sticky: HashKey | None = None,
        times: ServiceTimes | None = None,
    ) -> None:
        self.name = name
        self.times = times
        self.backends = backends or []
        self.request_headers = request_headers
        self.response_headers = response_headers
        self.redirect = redirect
        self.rewrite = rewrite
        self.mirrors = mirrors or []
        self.timeout_s = timeout_s
        self.try_timeout_s = try_timeout_s
        self.retry = retry
        self.refuse = refuse
        self.redistribute = redistribute
        self.sticky = sticky


class ServiceSpec:
    """What `build_tables` is given for one Service.

    ports       (port, protocol) pairs
    backends    ("<namespace>/<name>", weight) pairs; empty: its own endpoints
    routes      what `matches` lead to, by Match.route
    matches     in order of precedence, with the ports each is for (none: all)
    redistribute, sticky    as RouteSpec's, for `backends`
    balancer    of its own endpoints, and of those of backends that declare none; None: the default
    fault       what is done to requests for it on purpose; None: nothing
    times       what else is declared of times; None: nothing
    """

    __slots__ = (
        "backends", "balancer", "cluster_ip", "fault", "matches", "name", "namespace", "ports", "redistribute", "retry",
        "routes", "sticky", "timeout_s", "times",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str,
        name: str,
        ports: list[tuple[int, int]],
        backends: list[tuple[str, int]] | None = None,
        timeout_s: float = 0.0,
        retry: RetryPolicy | None = None,
        cluster_ip: str = "",
        routes: list[RouteSpec] | None = None,
        matches: list[tuple[Match, tuple[int, ...]]] | None = None,
        redistribute: bool = False,
        sticky: HashKey | None = None,
        balancer: BalancerPolicy | None = None,
        fault: FaultPolicy | None = None,
        times: ServiceTimes | None = None,
    ) -> None:
        self.times = times
        self.balancer = balancer
        self.fault = fault
        self.namespace = namespace
        self.name = name
        self.ports = ports
        self.backends = backends or []
        self.timeout_s = timeout_s
        self.retry = retry or DEFAULT_RETRY
        self.cluster_ip = cluster_ip
        self.routes = routes or []
        self.matches = matches or []
        self.redistribute = redistribute
        self.sticky = sticky
