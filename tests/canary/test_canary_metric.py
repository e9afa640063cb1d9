"""Which checks an entry of analysis.metrics asks for, with which limits, and in which order."""

from __future__ import annotations

import pytest

from control.canary.declared.fields import SpecError
from control.canary.declared.metric import DURATION, SUCCESS_RATE, Kind, Metric, parse_metrics


def parsed(*entries):
    return parse_metrics(list(entries), "spec.analysis.metrics", "test")


def test_a_threshold_is_a_minimum_of_the_success_rate_and_a_maximum_of_everything_else():
    assert parsed(
        {"name": SUCCESS_RATE, "threshold": 99},
        {"name": DURATION, "threshold": 500.9, "interval": "30s"},
        {"name": "lag", "threshold": 0.5, "query": "lag"},
    ) == (Metric(SUCCESS_RATE, minimum=99.0), Metric(DURATION, 30.0, maximum=500.0), Metric("lag", maximum=0.5, query="lag"))


def test_a_range_wins_over_a_threshold_and_bounds_of_a_duration_are_whole_milliseconds():
    bounds = {"min": 1.9, "max": 500.9}
    assert parsed({"name": DURATION, "threshold": 3, "thresholdRange": bounds}) == (
        Metric(DURATION, minimum=1.0, maximum=500.0),
    )
    (lag,) = parsed({"name": "lag", "query": "lag", "thresholdRange": bounds})
    assert (lag.minimum, lag.maximum) == (1.9, 500.9)


def test_templates_are_checked_after_all_others_and_each_kind_in_list_order():
    found = parsed(
        {"name": "a", "templateRef": {"name": "ta"}},
        {"name": "b", "query": "vector(1)"},
        {"name": "c", "templateRef": {"name": "tc", "namespace": "flagger"}, "templateVariables": {"direction": "inbound"}},
        {"name": SUCCESS_RATE, "threshold": 99},
    )
    assert [metric.name for metric in found] == ["b", SUCCESS_RATE, "a", "c"]
    assert [metric.template for metric in found[2:]] == [("test", "ta"), ("flagger", "tc")]
    assert found[3].variables == (("direction", "inbound"),)


def test_a_built_in_name_with_a_template_is_both_checks():
    found = parsed({"name": SUCCESS_RATE, "threshold": 99, "templateRef": {"name": "t"}})
    assert [(metric.kind, metric.minimum, metric.maximum) for metric in found] == [
        (Kind.BUILT_IN, 99.0, None),
        (Kind.TEMPLATE, None, 99.0),
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "error-rate"}, r"metrics\[0\]: 'error-rate' is not a built-in metric; expected request-success-rate or"),
        ({"threshold": 1}, r"metrics\[0\].name: expected a name"),
        ({"name": DURATION, "interval": "0s"}, r"metrics\[0\].interval: expected more than 0"),
        ({"name": DURATION, "interval": "soon"}, r"metrics\[0\].interval: 'soon' is not a duration"),
        ({"name": DURATION, "thresholdRange": {"max": float("nan")}}, r"thresholdRange.max: expected a number"),
        ({"name": "x", "templateRef": {"namespace": "y"}}, r"templateRef.name: expected a name"),
        ({"name": "x", "query": "y" * 20_000}, r"query: expected at most 16384 characters, found 20000"),
        ({"name": "x", "query": ["a"]}, r"query: expected a name"),
    ],
)
def test_what_cannot_be_meant_is_named(entry, words):
    with pytest.raises(SpecError, match=words):
        parsed(entry)


def test_the_number_of_metrics_is_bounded():
    with pytest.raises(SpecError, match="at most 64"):
        parsed(*[{"name": DURATION}] * 65)
