"""TrafficSplit in all its versions, and Flagger's Canary."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resource_helpers import look, taken, told

from control.resources import canary, split
from control.resources.split import Backend


def split_of(weights: str, version: str = "v1alpha2", service: str = "web") -> str:
    return f"""
apiVersion: split.smi-spec.io/{version}
kind: TrafficSplit
metadata: {{name: s, namespace: shop}}
spec:
  service: {service}
  backends: {weights}
"""


def backends(text: str) -> list[tuple[str, int]]:
    (obj,) = taken(text)
    return [(backend.service, backend.weight_milli) for backend in split.parse(obj).backends]


@pytest.mark.parametrize("version", split.VERSIONS)
def test_every_version_has_one_normal_form(version: str) -> None:
    text = split_of("[{service: a, weight: 90}, {service: b, weight: '9500m'}, {service: c, weight: 5e-1}]", version)
    assert backends(text.replace("5e-1", "500m")) == [("a", 90_000), ("b", 9_500), ("c", 500)]


@pytest.mark.parametrize(
    ("weight", "milli"),
    [("1", 1000), ("'1'", 1000), ("2.0", 2000), ("1e2", 100_000), ("100m", 100), ("0", 0), ("1k", 1_000_000)],
)
def test_a_weight_may_be_a_number_or_a_quantity(weight: str, milli: int) -> None:
    assert backends(split_of(f"[{{service: a, weight: {weight}}}]")) == [("a", milli)]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("-1", "found -1, expected a weight of at least 0"),
        ("0.5", "found 0.5, expected a whole number or a quantity such as 500m"),
        ("ten", 'found the string "ten", expected a quantity such as 1, 500m or 1Gi'),
        ("true", "found the boolean true, expected a weight such as 10, or a quantity such as 500m"),
        ("10000000000", "found 10000000000, expected a weight of at most 1000000000"),
    ],
)
def test_a_weight_that_is_none_is_refused(weight: str, message: str) -> None:
    (line,) = told(split_of(f"[{{service: a, weight: {weight}}}]"))
    assert line == f"6 error spec.backends[0].weight: {message}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (split_of("[]"), "6 error spec.backends: is empty, expected at least one backend"),
        (split_of("[{service: a}]"), "weight: is missing, expected a weight such as 10"),
        (split_of("[{service: a, wieght: 1}]"), "unknown field of spec.backends[0] (did you mean weight?)"),
        (split_of("[{service: a.other, weight: 1}]"), "a.other is not in namespace shop"),
        (split_of("[{service: a, weight: 1}]", service="web.other.svc"), "web.other.svc is not in namespace shop"),
        (
            split_of("[{service: a, weight: 1}]", "v1alpha4") + "  matches: [{kind: HTTPRouteGroup}]",
            "spec.matches[0].name: is missing",
        ),
    ],
)
def test_a_split_that_means_nothing_is_refused(text: str, expected: str) -> None:
    lines = told(text)
    assert any(expected in line and " error " in line for line in lines)


def test_a_backend_listed_twice_gets_both_weights_and_a_warning() -> None:
    text = split_of("[{service: a, weight: 1}, {service: b, weight: 1}, {service: a.shop.svc, weight: 2}]")
    (line,) = told(text)
    assert "warning spec.backends[2].service: a is listed twice (also backends[0]) (the weights are added)" in line
    assert backends(text) == [("a", 3000), ("b", 1000)]


@pytest.mark.parametrize(
    "name", ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."]
)
def test_the_apex_may_be_named_in_full(name: str) -> None:
    (obj,) = taken(split_of("[{service: web, weight: 1}]", service=name))
    assert split.parse(obj).service == "web"


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=10))
def test_ratios_survive_the_normal_form(weights: list[int]) -> None:
    obj = {
        "metadata": {"name": "s", "namespace": "shop"},
        "spec": {
            "service": "web",
            "backends": [{"service": f"b{index}", "weight": weight} for index, weight in enumerate(weights)],
        },
    }
    parsed = split.parse(obj)
    assert parsed.backends == tuple(Backend(f"b{index}", 1000 * weight) for index, weight in enumerate(weights))
    assert parsed.total_milli == 1000 * sum(weights)


CANARY = """
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: web, namespace: shop}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  service: {port: 80, targetPort: http}
  analysis:
    interval: 1m30s
    threshold: 3
    stepWeights: [10, 30, 60]
    metrics:
    - name: request-success-rate
      thresholdRange: {min: 99}
      interval: 30s
"""


def test_a_canary_is_read_with_flaggers_defaults() -> None:
    (obj,) = taken(CANARY)
    one = canary.parse(obj)
    assert one.apex == "web"
    analysis = one.analysis
    assert analysis is not None
    assert (analysis.interval_seconds, analysis.threshold, analysis.step_weights) == (90.0, 3, (10, 30, 60))
    assert (analysis.max_weight, analysis.step_weight, analysis.step_weight_promotion) == (100, 0, 0)
    assert (analysis.primary_ready_threshold, analysis.canary_ready_threshold) == (100, 100)
    (metric,) = analysis.metrics
    assert metric.threshold_range is not None
    assert (metric.name, metric.interval_seconds, metric.threshold_range.min) == ("request-success-rate", 30.0, 99)
    assert (one.spec.progress_deadline_seconds, one.spec.skip_analysis, one.spec.suspend) == (600, False, False)
    assert one.spec.service.port_name == "http"


def test_the_deprecated_canaryAnalysis_is_read_too() -> None:
    (obj,) = taken(CANARY.replace("  analysis:", "  canaryAnalysis:"))
    analysis = canary.parse(obj).analysis
    assert analysis is not None
    assert analysis.threshold == 3


FULL: dict[str, Any] = {
    "provider": "linkerd",
    "metricsServer": "http://prometheus:9090",
    "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "web"},
    "revertOnDeletion": True,
    "suspend": False,
    "skipAnalysis": False,
    "progressDeadlineSeconds": 60,
}


@pytest.mark.parametrize("field", sorted(FULL))
def test_fields_of_flaggers_crd_are_known(field: str) -> None:
    import json

    lines = told(CANARY + f"  {field}: {json.dumps(FULL[field])}\n")
    assert [line for line in lines if "not run" not in line and "ignored" not in line] == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "  analysis:",
            "  autoscalerRef: {kind: HorizontalPodAutoscaler, name: web}\n  analysis:",
            "7 warning spec.autoscalerRef: ignored: replicas are the Deployments' own",
        ),
        (
            "{port: 80, targetPort: http}",
            "{port: 80, targetPort: http, retries: {retryOn: unavailable}}",
            "6 warning spec.service.retries.retryOn: ignored: unavailable (HTTP status codes and resets can be retried)",
        ),
    ],
)
def test_what_embedded_mode_ignores_of_a_canary_is_told(before: str, after: str, expected: str) -> None:
    text = CANARY.replace(before, after)
    (line,) = told(text)
    assert line.startswith(expected), line
    assert len(taken(text)) == 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "    threshold: 3",
            "    webhooks: [{name: load, url: nowhere}]",
            "9 error spec.analysis.webhooks[0].url: 'nowhere' is no address",
        ),
        (
            "request-success-rate",
            "latency",
            "12 error spec.analysis.metrics[0]: 'latency' is not a built-in metric",
        ),
        (
            "  analysis:",
            "  canaryAnalysis:\n    sessionAffinity: {cookieName: a, primaryCookieName: a}",
            "8 error spec.canaryAnalysis.sessionAffinity.primaryCookieName: must not be the same as cookieName (a)",
        ),
        (
            "namespace: shop}",
            "namespace: shop, annotations: {meshproxy.dev/confirm: all}}",
            "3 error metadata.annotations[\"meshproxy.dev/confirm\"]: 'all' is no gate",
        ),
        (
            "namespace: shop}",
            "namespace: shop, annotations: {meshproxy.dev/minimum-requests: '²'}}",
            "3 error metadata.annotations[\"meshproxy.dev/minimum-requests\"]: '²'",
        ),
    ],
)
def test_a_canary_with_a_mistake_is_refused_so_that_what_was_there_before_stays_in_force(
    before: str, after: str, expected: str
) -> None:
    text = CANARY.replace(before, after)
    (line,) = told(text)
    assert line.startswith(expected), line
    assert not look(text).accepted


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("interval: 1m30s", "interval: soon", "8 error spec.analysis.interval: found 'soon', expected a duration such as"),
        ("interval: 1m30s", "interval: 0s", "8 error spec.analysis.interval: found 0s, expected more than 0"),
        ("interval: 1m30s", "interval: 10", "8 error spec.analysis.interval: found the number 10, expected a duration"),
        ("[10, 30, 60]", "[10, 60, 30]", "10 error spec.analysis.stepWeights[2]: found 30 after 60, expected ascending"),
        (
            "[10, 30, 60]",
            "[10, 300]",
            "10 error spec.analysis.stepWeights[1]: found the number 300, expected a whole number from 0 to 100",
        ),
        ("    stepWeights: [10, 30, 60]\n", "", "7 error spec.analysis: none of stepWeight, stepWeights, iterations is given"),
        ("{min: 99}", "{min: 99, max: 1}", "13 error spec.analysis.metrics[0].thresholdRange: min 99 is above max 1"),
        ("kind: Deployment", "kind: StatefulSet", "expected one of DaemonSet, Deployment, Service"),
        ("{port: 80, targetPort: http}", "{targetPort: http}", "spec.service.port: is missing, expected a whole number from 1"),
        ("    threshold: 3", "    treshold: 3", "unknown field of spec.analysis (did you mean threshold?)"),
    ],
)
def test_a_canary_that_means_nothing_is_refused(before: str, after: str, expected: str) -> None:
    assert before in CANARY
    lines = told(CANARY.replace(before, after))
    assert any(expected in line for line in lines), lines
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("{min: 99}", "{}", "13 warning spec.analysis.metrics[0].thresholdRange: has neither min nor max: every value passes"),
        (
            "{min: 99}",
            "{min: null}",
            "13 warning spec.analysis.metrics[0].thresholdRange: has neither min nor max: every value",
        ),
        (
            "      thresholdRange: {min: 99}\n",
            "",
            "12 warning spec.analysis.metrics[0]: has no threshold: at least 0 is wanted, so every value passes",
        ),
        (
            "request-success-rate\n      thresholdRange: {min: 99}\n",
            "request-duration\n",
            "12 warning spec.analysis.metrics[0]: has no threshold: at most 0 is wanted, so every value above 0 fails",
        ),
        (
            "request-success-rate\n      thresholdRange: {min: 99}\n",
            "errors\n      query: up\n",
            "12 warning spec.analysis.metrics[0]: has no threshold: at most 0 is wanted, so every value above 0 fails",
        ),
    ],
)
def test_a_metric_without_a_limit_is_taken_as_flagger_takes_it_and_what_that_means_is_told(
    before: str, after: str, expected: str
) -> None:
    assert before in CANARY
    lines = told(CANARY.replace(before, after))
    assert [line for line in lines if line.startswith(expected)], lines
    assert not [line for line in lines if " error " in line]
    assert look(CANARY.replace(before, after)).accepted


def test_an_alert_whose_severity_is_empty_is_taken() -> None:
    text = CANARY + "    alerts: [{name: on-call, severity: '', providerRef: {name: slack}}]\n"
    assert told(text) == []


def test_a_canary_without_analysis_is_refused_unless_it_skips_it() -> None:
    text = CANARY[: CANARY.index("  analysis:")]
    (line,) = told(text)
    assert "spec.analysis: is missing" in line
    assert told(text + "  skipAnalysis: true\n") == []
