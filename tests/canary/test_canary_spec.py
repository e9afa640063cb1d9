"""Which Canaries are run, with which defaults, and which are refused in which words."""

from __future__ import annotations

import pytest
from canary_plays import canary_object, canary_spec

from control.canary.declared.spec import SpecError, duration, parse


def test_defaults_are_flaggers():
    obj = canary_object()
    obj["spec"]["analysis"] = {"stepWeight": 5}
    spec = parse(obj)
    assert (spec.interval_s, spec.threshold, spec.max_weight) == (60.0, 1, 100)
    assert (spec.progress_deadline_s, spec.primary_ready_threshold, spec.canary_ready_threshold) == (600.0, 100, 100)
    assert (spec.apex, spec.primary, spec.primary_service, spec.canary_service) == (
        "podinfo",
        "podinfo-primary",
        "podinfo-primary",
        "podinfo-canary",
    )
    assert spec.refused == ()


def test_the_deprecated_name_of_analysis_is_understood():
    obj = canary_object()
    obj["spec"]["canaryAnalysis"] = obj["spec"].pop("analysis")
    assert parse(obj).step_weight == 10


@pytest.mark.parametrize(
    ("analysis", "spec", "words"),
    [
        ({"stepWeight": 0}, {}, "nothing would ever advance"),
        ({}, {"provider": "istio"}, "spec.provider istio"),
        ({}, {"targetRef": {"kind": "Service", "name": "x"}}, "Service is not supported"),
    ],
)
def test_what_is_not_supported_is_named(analysis, spec, words):
    import re

    refused = canary_spec(analysis, **spec).refused
    assert len(refused) == 1
    assert re.search(words, refused[0])


@pytest.mark.parametrize("provider", ["linkerd", "osm", "smi:v1alpha1", "smi:v1alpha3"])
def test_providers_that_route_by_traffic_split_are_run(provider):
    assert canary_spec(provider=provider).refused == ()


@pytest.mark.parametrize(
    ("analysis", "spec", "words"),
    [
        ({"interval": "1 minute"}, {}, "spec.analysis.interval: '1 minute' is not a duration"),
        ({"stepWeight": 101}, {}, "spec.analysis.stepWeight: expected a whole number from 0 to 100, found 101"),
        ({"stepWeight": "10"}, {}, "found '10'"),
        ({"stepWeights": [10, 10]}, {}, "must rise"),
        ({"stepWeights": [20, 10]}, {}, "must rise"),
        ({"threshold": -1}, {}, "spec.analysis.threshold"),
        ({}, {"service": {}}, "spec.service.port"),
        ({}, {"targetRef": {}}, "spec.targetRef.name: expected a name"),
        ({"metrics": [{"name": "request-duration", "threshold": "fast"}]}, {}, r"metrics\[0\].threshold"),
    ],
)
def test_a_value_that_cannot_be_meant_raises_with_its_field(analysis, spec, words):
    with pytest.raises(SpecError, match=words):
        canary_spec(analysis, **spec)


@pytest.mark.parametrize(
    ("name", "value", "words"), [("confirm", "lunch", "'lunch' is no gate"), ("minimum-requests", "0", "whole number from 1")]
)
def test_settings_in_annotations_are_checked_too(name, value, words):
    with pytest.raises(SpecError, match=words):
        canary_spec(annotations={f"meshproxy.dev/{name}": value})


@pytest.mark.parametrize(("text", "seconds"), [("1m", 60), ("1m30s", 90), ("500ms", 0.5), ("1.5s", 1.5), ("2h", 7200)])
def test_durations_are_gos(text, seconds):
    assert duration(text, "x", 0.0) == pytest.approx(seconds)


def test_where_step_weights_are_given_the_last_of_them_is_the_top_as_in_flagger():
    def top(**analysis):
        return canary_spec({"stepWeight": 0, "maxWeight": 50, **analysis}).top_weight

    assert (top(stepWeight=10), top(stepWeights=[1, 5])) == (50, 5)
    both = canary_spec({"stepWeight": 10, "stepWeights": [1, 5], "maxWeight": 50})
    assert (both.top_weight, both.next_weight(0)) == (5, 10)  # stepWeight moves, the list says how far
