"""Thresholds and Flagger's words for what they say."""

from __future__ import annotations

import pytest
from canary_plays import canary_spec

from control.canary.machine.analysis import Measurement, Outcome, analyse, go_duration, plain


def check(metric: dict, value: float | None, requests: float | None = 50, minimum: int = 1) -> tuple[str, str]:
    spec = canary_spec({"metrics": [metric]}, annotations={"meshproxy.dev/minimum-requests": str(minimum)})
    verdict = analyse(spec, {spec.metrics[0]: Measurement(value, requests)})
    return verdict.outcome.value, verdict.text


@pytest.mark.parametrize(
    ("metric", "value", "outcome", "text"),
    [
        ({"name": "request-success-rate", "threshold": 99}, 99.0, "passed", ""),
        (
            {"name": "request-success-rate", "threshold": 99},
            98.69,
            "failed",
            "Halt podinfo.test advancement success rate 98.69% < 99%",
        ),
        (
            {"name": "request-success-rate", "thresholdRange": {"min": 99.5}},
            99.0,
            "failed",
            "Halt podinfo.test advancement success rate 99.00% < 99.5%",
        ),
        (
            {"name": "request-success-rate", "thresholdRange": {"max": 50}},
            60.0,
            "failed",
            "Halt podinfo.test advancement success rate 60.00% > 50%",
        ),
        ({"name": "request-duration", "threshold": 500}, 500.9, "passed", ""),  # truncated to whole ms, as Flagger
        (
            {"name": "request-duration", "threshold": 500},
            1200.0,
            "failed",
            "Halt podinfo.test advancement request duration 1.2s > 500ms",
        ),
        (
            {"name": "request-duration", "thresholdRange": {"min": 20, "max": 30}},
            10.0,
            "failed",
            "Halt podinfo.test advancement request duration 10ms < 20ms",
        ),
        ({"name": "request-duration", "thresholdRange": {"min": 20, "max": 30}}, 25.0, "passed", ""),
    ],
)
def test_thresholds(metric, value, outcome, text):
    assert check(metric, value) == (outcome, text)


def test_fewer_requests_than_the_minimum_are_no_data():
    outcome, text = check({"name": "request-success-rate", "threshold": 90}, 100.0, requests=3, minimum=20)
    assert outcome == "failed"
    assert text.endswith("is not receiving traffic: 3 requests, fewer than the minimum of 20")


def test_not_a_number_is_no_data_also_from_a_source_that_cannot_count_requests():
    assert check({"name": "request-duration", "threshold": 500}, float("nan"), requests=None)[0] == "failed"


def test_checks_are_made_in_order_and_stop_at_the_first_failure():
    spec = canary_spec()
    bad = {metric: Measurement(0.0 if "rate" in metric.name else 9999.0, 5) for metric in spec.metrics}
    verdict = analyse(spec, bad)
    assert [c.metric for c in verdict.checks] == ["request-success-rate"]
    assert verdict.outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0s"), (7, "7ms"), (1000, "1s"), (1234, "1.234s"), (1500, "1.5s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")],
)
def test_durations_read_as_go_prints_them(ms, text):
    assert go_duration(ms) == text


def test_numbers_read_as_go_prints_them():
    assert (plain(99.0), plain(99.5), plain(0.25)) == ("99", "99.5", "0.25")
