"""Annotations of the mesh's own: their values, and those that nobody reads."""

from __future__ import annotations

import pytest
from resource_helpers import told

from control.resources.annotations import strays, traffic
from meshproxy.policy.retry import GRPC_CODES, parse_policy

DEPLOYMENT = """
    apiVersion: apps/v1
    kind: Deployment
    metadata:
      name: web
      annotations: {OUTER}
    spec:
      selector: {matchLabels: {app: web}}
      template:
        metadata:
          labels: {app: web}
          annotations: {INNER}
        spec:
          containers: [{name: a, command: [a]}]
"""


def deployment(outer: str = "{}", inner: str = "{}") -> list[str]:
    return told(DEPLOYMENT.replace("{OUTER}", outer).replace("{INNER}", inner))


def service(annotations: str) -> list[str]:
    return told(
        f"""
        apiVersion: v1
        kind: Service
        metadata:
          name: web
          annotations: {annotations}
        spec: {{selector: {{app: web}}, ports: [{{port: 80}}]}}
        """
    )


@pytest.mark.parametrize("value", ["1", "2", "64", "auto"])
def test_a_number_of_workers_is_taken(value: str) -> None:
    assert deployment(inner=f'{{meshproxy.dev/workers: "{value}"}}') == []


@pytest.mark.parametrize("value", ["0", "65", "lots", "-1", "1.5", "", "²", "9" * 5000])
def test_what_is_no_number_of_workers_is_refused_with_its_line(value: str) -> None:
    (line,) = deployment(inner=f'{{meshproxy.dev/workers: "{value}"}}')
    assert line.startswith('11 error spec.template.metadata.annotations["meshproxy.dev/workers"]: found ')
    assert line.endswith("expected a number from 1 to 64, or auto")


def test_a_pod_s_annotation_on_the_deployment_itself_is_told_where_it_belongs() -> None:
    assert deployment(outer='{meshproxy.dev/workers: "2"}') == [
        '5 warning metadata.annotations["meshproxy.dev/workers"]: has no effect on a Deployment: it is read on a pod'
        " (put it into spec.template.metadata.annotations)"
    ]


def test_an_annotation_that_nobody_knows_is_told_with_the_nearest_one() -> None:
    assert deployment(inner='{meshproxy.dev/worker: "2"}') == [
        '11 warning spec.template.metadata.annotations["meshproxy.dev/worker"]: is no annotation that the mesh knows:'
        " it has no effect (did you mean meshproxy.dev/workers?)"
    ]
    (line,) = service('{meshproxy.dev/retry-htp: "5xx"}')
    assert line.endswith("(did you mean meshproxy.dev/retry-http?)")


def test_a_service_s_annotation_on_a_pod_and_a_pod_s_on_a_service_are_told() -> None:
    (line,) = deployment(inner='{meshproxy.dev/timeout-request: "1s"}')
    assert line.endswith("has no effect on a Pod: it is read on a Service, HTTPRoute or GRPCRoute")
    (line,) = service('{meshproxy.dev/workers: "2"}')
    assert line.endswith("has no effect on a Service: it is read on a pod")


def test_inject_is_enabled_or_disabled() -> None:
    assert deployment(inner="{meshproxy.dev/inject: disabled}") == []
    (line,) = deployment(inner="{meshproxy.dev/inject: disable}")
    assert "error" in line
    assert line.endswith('found the string "disable", expected enabled, disabled (did you mean disabled?)')


def test_what_others_or_the_mesh_itself_write_is_not_told() -> None:
    assert deployment(inner='{example.com/worker: "2", meshproxy.dev/proxy: "true", meshproxy.dev/revision: "1"}') == []
    assert service('{retry.linkerd.io/http: "5xx", meshproxy.dev/timeout-request: "1s"}') == []


@pytest.mark.parametrize("name", ["timeout-response-start", "timeout-response", "timeout-idle"])
def test_a_time_of_a_service_is_a_duration_of_a_day_at_most(name: str) -> None:
    assert service(f'{{meshproxy.dev/{name}: "1.5s"}}') == []
    assert service(f'{{meshproxy.dev/{name}: "0s"}}') == []
    (line,) = service(f'{{meshproxy.dev/{name}: "soon"}}')
    assert f"[\"meshproxy.dev/{name}\"]: found 'soon', expected a duration" in line
    (line,) = service(f'{{meshproxy.dev/{name}: "25h"}}')
    assert "expected at most 24h" in line


def test_a_timeout_is_propagated_or_not() -> None:
    assert service('{meshproxy.dev/timeout-propagate: "false"}') == []
    (line,) = service('{meshproxy.dev/timeout-propagate: "tru"}')
    assert 'found the string "tru", expected true or false' in line
    assert "did you mean true?" in line


def test_linkerds_times_are_read_as_they_are_and_those_it_does_not_have_are_told() -> None:
    assert service('{timeout.linkerd.io/response: "1s", timeout.linkerd.io/idle: "1s"}') == []
    (line,) = service('{timeout.linkerd.io/connect: "1s"}')
    assert "is not supported and has no effect" in line


@pytest.mark.parametrize("order", ["approve", "abort", "promote", "retry", "pause"])
def test_an_order_that_stands_in_an_exported_canary_is_no_stray(order: str) -> None:
    assert strays({f"meshproxy.dev/{order}": "5d4f 2026-01-31T12:00:00Z"}, "Canary") == []


def test_what_the_mesh_wrote_on_a_service_it_was_exported_with_is_no_stray() -> None:
    assert strays({"meshproxy.dev/added-port": "80", "meshproxy.dev/canary": "web"}, "Service") == []


def route(kind: str, annotations: str, more: str = "") -> list[str]:
    return told(
        f"""
        apiVersion: gateway.networking.k8s.io/v1
        kind: {kind}
        metadata:
          name: r
          annotations: {annotations}
        spec:
          parentRefs: [{{group: "", kind: Service, name: web}}]
          rules:
          - backendRefs: [{{name: web, port: 80}}]
            {more}
        """
    )


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize("name", ["meshproxy.dev/timeout-", "timeout.linkerd.io/"])
def test_times_stand_on_routes_and_what_is_no_time_is_told(kind: str, name: str) -> None:
    assert route(kind, f'{{{name}request: "1s", {name}response: "1s", {name}idle: "1s"}}') == []
    (line,) = route(kind, f'{{{name}idle: "soon"}}')
    assert "warning" in line
    assert f"[\"{name}idle\"]: found 'soon', expected a duration" in line


def test_retries_of_statuses_stand_on_http_routes_and_of_codes_on_grpc_routes() -> None:
    assert route("HTTPRoute", '{retry.linkerd.io/http: "5xx", retry.linkerd.io/limit: "2"}') == []
    assert route("GRPCRoute", '{retry.linkerd.io/grpc: "unavailable", retry.linkerd.io/limit: "2"}') == []
    (line,) = route("HTTPRoute", '{retry.linkerd.io/grpc: "unavailable"}')
    assert line.endswith("has no effect on an HTTPRoute: it is read on a Service or GRPCRoute")
    (line,) = route("GRPCRoute", '{meshproxy.dev/retry-http: "5xx"}')
    assert line.endswith("has no effect on a GRPCRoute: it is read on a Service or HTTPRoute")
    (line,) = route("HTTPRoute", '{meshproxy.dev/timeout-propagate: "true"}')
    assert line.endswith("has no effect on an HTTPRoute: it is read on a Service")
    (line,) = route("HTTPRoute", '{retry.linkerd.io/timeout: "1s"}')
    assert "is not supported and has no effect (meshproxy.dev/timeout-response-start, with retries of gateway-error)" in line


def test_what_a_rule_and_its_route_both_say_is_told_where_it_has_no_effect() -> None:
    (line,) = route("HTTPRoute", '{timeout.linkerd.io/request: "1s"}', "timeouts: {request: 2s}")
    assert line.endswith(
        "spec.rules[0].timeouts.request: has no effect: the route's annotation timeout.linkerd.io/request comes first"
    )
    (line,) = route("HTTPRoute", '{retry.linkerd.io/http: "5xx"}', "retry: {codes: [503]}")
    assert line.endswith("spec.rules[0].retry: comes before the route's annotations on retries: of them this rule has none")
    assert route("HTTPRoute", '{timeout.linkerd.io/idle: "1s"}', "timeouts: {request: 2s}") == []


def test_a_wait_between_two_tries_is_a_time_to_10s() -> None:
    assert service('{meshproxy.dev/retry-backoff: "50ms"}') == []
    assert [route(kind, '{meshproxy.dev/retry-backoff: "0s"}') for kind in ("HTTPRoute", "GRPCRoute")] == [[], []]
    (line,) = service('{meshproxy.dev/retry-backoff: "11s"}')
    assert line.endswith("found '11s', expected at most 10s")
    (line,) = service('{meshproxy.dev/retry-backoff: "50"}')
    assert "found '50', expected a duration" in line


def test_a_status_that_is_no_failure_is_nothing_to_try_again() -> None:
    (line,) = service('{meshproxy.dev/retry-http: "200"}')
    assert "found '200', expected reset, 5xx, gateway-error, retriable-4xx, a status from 400" in line


def test_the_codes_that_may_be_tried_again_are_those_that_a_proxy_takes() -> None:
    assert service(f'{{meshproxy.dev/retry-grpc: "{",".join(GRPC_CODES)}", meshproxy.dev/retry-limit: "1"}}') == []
    assert parse_policy(list(traffic({"meshproxy.dev/retry-grpc": ",".join(GRPC_CODES)}).conditions)).grpc_codes == sum(
        1 << code for code in GRPC_CODES.values()
    )
    (line,) = service('{meshproxy.dev/retry-grpc: "abortd"}')
    assert line.endswith("(did you mean aborted?)")
