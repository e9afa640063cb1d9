"""`meshproxy canary simulate` of a release judged by evidence: both arms have latencies, and a slow canary is pulled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_canary_policy import policy_object
from test_canary_simulate import canary, told, write

from control.canary.evidence.arms import freeze
from control.canary.simulate.model import GOOD_DURATION_MS, GOOD_LATENCY, Fault, latency


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "canary.yaml", canary(), policy_object(evidence={"slowMargin": 8, "failureMargin": 5}))


def rolled_back(file: Path, scenario: str) -> str:
    found = told(file, "--scenario", scenario)
    assert found["outcome"] == "rolled back"
    return json.dumps(found["entries"][-1])


@pytest.mark.parametrize("scenario", ["slow:900ms", "slow", "slow:900ms@20%"])
def test_a_slow_canary_is_pulled_by_evidence(file: Path, scenario: str):
    last = rolled_back(file, scenario)
    assert "evidence of harm" in last
    assert "were slower than p" in last


def test_a_failing_one_is_pulled_for_its_failures(file: Path):
    assert "requests failed" in rolled_back(file, "errors:50%")


@pytest.mark.parametrize("words", [(), ("--scenario", "slow:25ms")])
def test_one_that_is_as_slow_as_the_primary_is_promoted_when_every_metric_is_known_to_be_within_its_margin(file: Path, words):
    found = told(file, *words, code=0)
    assert found["outcome"] == "promoted"
    assert "not certain yet" in json.dumps(found["entries"]), "it takes more requests than the steps do"


@pytest.mark.parametrize("requests", [101, 137, 1000, 12345])
def test_where_slow_begins_in_a_good_arm_does_not_hang_on_rounding(requests: int):
    histogram = tuple((bound, round(requests * share)) for bound, share in GOOD_LATENCY)
    assert freeze(histogram).at == {0.5: 10.0, 0.9: 15.0, 0.99: GOOD_DURATION_MS}


def test_of_a_slow_arm_the_p99_is_as_told_and_the_last_fault_counts():
    assert latency([]) == GOOD_LATENCY
    assert dict(latency([Fault("slow", 50.0), Fault("slow", 900.0)])).keys() == {360.0, 540.0, 900.0, 1800.0}
    assert dict(latency([Fault("errors", 0.5)])) == dict(GOOD_LATENCY)
