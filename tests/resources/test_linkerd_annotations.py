"""Linkerd's annotations that people bring: what is not read here is told, with where it belongs or what there is instead."""

from __future__ import annotations

import pytest
from resource_helpers import told

from control.resources.annotations import FOREIGN, strays
from control.resources.linkerd import NOT_READ, WRITTEN

KINDS = ("Namespace", "Service", "Deployment", "Pod", "HTTPRoute", "GRPCRoute", "TrafficSplit", "Canary")
INJECT = "linkerd.io/inject"
OPAQUE = "config.linkerd.io/opaque-ports"


def said(kind: str, annotations: dict[str, str], *ports: dict[str, object]) -> list[str]:
    return [f"{name} {message}" + f" ({hint})" * bool(hint) for name, message, hint in strays(annotations, kind, ports)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted({*FOREIGN, *NOT_READ} - {"flagger.app/config-tracking", INJECT, OPAQUE}))
def test_each_is_read_where_it_stands_or_told_once(name: str, kind: str) -> None:
    lines = said(kind, {name: "1"})
    assert len(lines) == (0 if kind in FOREIGN.get(name, ()) else 1)
    assert all(line.startswith(f"{name} ") for line in lines)


@pytest.mark.parametrize("kind", KINDS)
def test_what_linkerd_itself_wrote_is_nobodys_mistake(kind: str) -> None:
    assert said(kind, dict.fromkeys(WRITTEN, "1")) == []


def test_it_is_a_warning_with_its_line_and_the_object_is_taken() -> None:
    lines = told(
        """
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata:
          name: r
          annotations:
            linkerd.io/inject: enabled
            balancer.linkerd.io/failure-accrual: consecutive
            config.linkerd.io/opaque-ports: "3306"
        spec:
          parentRefs: [{group: "", kind: Service, name: web}]
          rules: [{backendRefs: [{name: web, port: 80}]}]
        """
    )
    assert [line.split("]: ")[0] for line in lines] == [
        '6 warning metadata.annotations["linkerd.io/inject"',
        '7 warning metadata.annotations["balancer.linkerd.io/failure-accrual"',
        '8 warning metadata.annotations["config.linkerd.io/opaque-ports"',
    ]
    assert lines[0].endswith("has no effect on an HTTPRoute: it is read on a pod")
    assert lines[1].endswith("has no effect on an HTTPRoute: it is read on a Service")
    assert "has no effect on an HTTPRoute at all: in Linkerd it is for a Namespace, pod or Service" in lines[2]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("Pod", "enabled", ""),
        ("Pod", "disabled", ""),
        ("Pod", "ingress", "there is no ingress mode"),
        ("Pod", "true", 'found the string "true", expected enabled or disabled; it is enabled'),
        ("Pod", "disable", "did you mean disabled?"),
        ("Namespace", "enabled", ""),
        ("Namespace", "disabled", "its pods have a sidecar if they do not say otherwise"),
        ("Deployment", "disabled", "(put it into spec.template.metadata.annotations)"),
        ("Service", "enabled", "has no effect on a Service: it is read on a pod"),
    ],
)
def test_inject_is_for_a_pod_to_say(kind: str, value: str, expected: str) -> None:
    lines = said(kind, {INJECT: value})
    assert len(lines) == bool(expected)
    assert all(expected in line for line in lines)


MYSQL: dict[str, object] = {"port": 3306}
REDIS: dict[str, object] = {"port": 6379, "targetPort": 16379}


@pytest.mark.parametrize(
    ("kind", "value", "ports", "expected"),
    [
        ("Service", "3306", [MYSQL], "(give port 3306 of this Service appProtocol: tcp)"),
        ("Service", "3300-3310, 16379", [MYSQL, REDIS], "(give port 3306 and 6379 of this Service appProtocol: tcp)"),
        ("Service", "3306", [{**MYSQL, "appProtocol": "tcp"}], ""),
        ("Service", "3306,6379", [{**MYSQL, "appProtocol": "linkerd.io/opaque"}, REDIS], "(give port 6379 of this"),
        ("Service", "4444", [MYSQL], "(give the Service's port appProtocol: tcp;"),
        ("Service", "mysql", [MYSQL], 'the string "mysql" is no port, nor a range such as 3306-3310'),
        ("Service", "3306-", [MYSQL], 'the string "3306-" is no port'),
        ("Service", "3310-3306", [MYSQL], 'the string "3310-3306" is no port'),
        ("Service", "0", [MYSQL], 'the string "0" is no port'),
        ("Namespace", "70000", [], 'the string "70000" is no port'),
        ("Namespace", "3306,,25", [], 'the string "" is no port'),
        ("Pod", "mysql,3306", [], "is not supported and has no effect (give the Service's port appProtocol: tcp;"),
        ("TrafficSplit", "3306", [], "has no effect on a TrafficSplit at all"),
    ],
)
def test_opaque_ports_are_told_by_app_protocol(kind: str, value: str, ports: list[dict[str, object]], expected: str) -> None:
    lines = said(kind, {OPAQUE: value}, *ports)
    assert len(lines) == bool(expected)
    assert all(expected in line for line in lines)


def test_those_of_which_the_same_is_to_be_said_are_told_in_one_line() -> None:
    names = ["config.linkerd.io/proxy-cpu-request", "config.linkerd.io/proxy-memory-limit", "config.linkerd.io/proxy-log-level"]
    annotations = {**dict.fromkeys(names, "1"), "config.linkerd.io/default-inbound-policy": "deny"}
    line, other = said("Pod", annotations)
    assert other.endswith("is not supported and has no effect (meshproxy.dev/default-inbound-policy, on the pod)")
    assert line == f"{names[0]} is not supported and has no effect; so it is with {names[1]} and {names[2]}"


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        ("Pod", "linkerd.io/injects", INJECT),
        ("Pod", "config.linkerd.io/inject", INJECT),
        ("Service", "config.linkerd.io/opaque-port", f"{OPAQUE}? That is not supported either: give the Service's port"),
        ("Service", "linkerd.io/opaque-ports", OPAQUE),
        ("Pod", "config.linkerd.io/proxy-cpu-limits", "config.linkerd.io/proxy-cpu-limit"),
        ("Service", "balancer.linkerd.io/failure-acrual", "balancer.linkerd.io/failure-accrual"),
        ("Service", "balancers.linkerd.io/failure-accrual", "balancer.linkerd.io/failure-accrual"),
        ("HTTPRoute", "retry.linkerd.io/htp", "retry.linkerd.io/http"),
        ("HTTPRoute", "timeout.linkerd.io/requests", "timeout.linkerd.io/request"),
        ("Pod", "viz.linkerd.io/tap-disable", ""),
        ("Service", "mirror.linkerd.io/cluster-name", ""),
    ],
)
def test_one_that_nobody_knows_is_told_with_the_nearest(kind: str, name: str, meant: str) -> None:
    (line,) = said(kind, {name: "1"})
    assert line.startswith(f"{name} is not supported and has no effect")
    assert (f"did you mean {meant}" if meant else "effect") in line
    assert bool(meant) == ("did you mean" in line)


@pytest.mark.parametrize("name", ["linkerd.io", "example.com/linkerd.io", "notlinkerd.io/inject", "kubernetes.io/inject"])
def test_what_is_not_linkerds_is_not_told(name: str) -> None:
    assert said("Pod", {name: "1"}) == []
