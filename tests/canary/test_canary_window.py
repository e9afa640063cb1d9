"""Counting from pages: increments, restarts, new series, windows, quantiles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from control.canary.measuring.exposition import samples
from control.canary.measuring.window import LIMIT, PodWindow, quantile
from meshproxy.telemetry.registry import Registry


def page(success: int = 0, failure: int = 0, fast: int = 0, slow: int = 0) -> str:
    return f"""# HELP response_total Responses.
# TYPE response_total counter
response_total{{direction="inbound",deployment="podinfo",classification="success",status_code="200"}} {success}
response_total{{direction="inbound",deployment="podinfo",classification="failure",status_code="500"}} {failure}
response_total{{direction="outbound",dst_deployment="other",classification="success"}} 1e6
response_latency_ms_bucket{{direction="inbound",le="10"}} {fast}
response_latency_ms_bucket{{direction="inbound",le="100"}} {fast + slow}
response_latency_ms_bucket{{direction="inbound",le="+Inf"}} {fast + slow}
response_latency_ms_bucket{{direction="outbound",le="+Inf"}} 1e6
response_latency_ms_sum{{direction="inbound"}} 1e6
process_open_fds 12
"""


def counts(window: PodWindow, now: float, over: float = 60.0) -> tuple[float, float]:
    totals = window.over(now, over)
    assert totals is not None
    return totals.success, totals.failure


def test_the_first_page_of_an_old_pod_is_a_baseline():
    window = PodWindow(newborn=False)
    window.page(0, page(1000, 10))
    assert window.over(0, 60) is None
    window.page(1, page(1003, 11))
    assert counts(window, 1) == (3, 1)


def test_the_first_page_of_a_newborn_counts_from_zero():
    window = PodWindow(newborn=True)
    window.page(0, page(4, 1))
    assert counts(window, 0) == (4, 1)


def test_a_restart_of_the_proxy_loses_nothing_it_showed():
    window = PodWindow(newborn=False)
    for now, (success, failure) in enumerate([(100, 0), (110, 0), (3, 1), (5, 1)]):
        window.page(now, page(success, failure))
    assert counts(window, 3) == (10 + 3 + 2, 1)


def test_a_series_that_appears_later_had_been_zero():
    window = PodWindow(newborn=False)
    window.page(0, "")
    window.page(1, page(failure=5))
    assert counts(window, 1) == (0, 5)


def test_only_the_window_counts():
    window = PodWindow(newborn=False)
    for now in range(100):
        window.page(now, page(success=now * 10, failure=now if now < 50 else 50))
    assert counts(window, 99, 10) == (100, 0)
    assert counts(window, 99, 1000) == (990, 50)


def test_the_ring_is_bounded():
    window = PodWindow(newborn=False)
    for now in range(LIMIT * 2):
        window.page(now, page(success=now))
    assert counts(window, LIMIT * 2, 1e9) == (LIMIT - 1, 0)


def test_failures_towards_others_are_kept_by_destination():
    line = 'response_total{direction="outbound",dst_namespace="test",dst_deployment="podinfo",dst_pod="podinfo-1",'
    line += 'dst_service="podinfo-canary",classification="failure",error="connect"} '
    window = PodWindow(newborn=False)
    window.page(0, line + "2")
    window.page(1, line + "5")
    assert window.over(1, 60).failed_to == {("test", "podinfo", "podinfo-1", "podinfo-canary"): 3}


def test_quantiles_are_prometheus_histogram_quantile():
    buckets = [(10.0, 50.0), (100.0, 99.0), (math.inf, 100.0)]
    assert quantile(0.5, buckets) == 10.0
    assert quantile(0.99, buckets) == 100.0
    assert quantile(0.745, buckets) == pytest.approx(10 + 90 * (24.5 / 49))
    assert quantile(0.999, buckets) == 100.0  # in +Inf: the last finite bound
    assert quantile(0.99, [(10.0, 0.0), (math.inf, 0.0)]) is None
    assert quantile(0.99, []) is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=30))
def test_whatever_restarts_there_are_the_window_holds_exactly_what_was_counted_while_watched(steps):
    window = PodWindow(newborn=False)
    window.page(0, page(7, 3))
    shown_success, shown_failure, success, failure = 7, 3, 0, 0
    for now, (good, bad, restart) in enumerate(steps, 1):
        fell = restart and good < shown_success and bad < shown_failure  # a restart a reader of pages can see
        shown_success, shown_failure = (good, bad) if fell else (shown_success + good, shown_failure + bad)
        success, failure = success + good, failure + bad
        window.page(now, page(shown_success, shown_failure))
    if steps:
        assert counts(window, len(steps), 1e9) == (success, failure)


def test_our_reading_of_a_real_page_agrees_with_prometheus_client():
    registry = Registry((("namespace", "test"), ("deployment", 'odd "name"\\with\nbreaks')))
    series = registry.http("inbound", (("tls", "true"),))
    for number in range(200):
        series.request()
        series.response(500 if number % 7 == 0 else 200, -1, number % 7 != 0, number, number)
    series.failed("reset", 3.0)
    text = registry.render().decode()
    wanted = ("response_total", "response_latency_ms_bucket")
    theirs = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in wanted
    ]
    ours = [(name, labels, value) for name, _, labels, value in samples(text, wanted)]
    assert ours == theirs
    assert len(ours) > 20


@pytest.mark.parametrize(
    "broken", ['response_total{a="b"', 'response_total{a="b"}', 'response_total{a="b"} x', "response_total"]
)
def test_a_page_that_breaks_off_is_read_as_far_as_it_goes(broken):
    assert list(samples('response_total{a="b"} 1\n' + broken, ("response_total",))) == [
        ("response_total", 'response_total{a="b"}', {"a": "b"}, 1.0)
    ]


def test_pages_that_come_faster_do_not_shorten_what_is_remembered():
    window, pages = PodWindow(newborn=True), 2 * (LIMIT - 10)
    for half in range(pages):
        window.page(half / 2, page(success=half))
    now = (pages - 1) / 2
    assert counts(window, now, 1e9)[0] == pages - 1
    assert counts(window, now, 10.0)[0] == pytest.approx(20, abs=2)
