"""Releases judged by evidence, with real proxies, users and a control plane: a bad one is pulled, a good one is promoted.

The numbers are the sidecars' own; which arm answered is counted by the users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mesh_arms import CANARY, PRIMARY, arms
from mesh_release import Lanes, Release, Stage

LANES = Lanes()
lane = LANES.lane


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    chosen = {item.name for item in request.session.items}
    with LANES.performed(tmp_path_factory.mktemp("evidence"), "evidence", chosen) as found:
        yield found


def policy_status(release: Release) -> dict[str, Any]:
    policy = release.view.get("meshproxy.dev", "ReleasePolicy", release.namespace, "web")
    assert policy is not None
    return policy["status"]


@lane("evidence")
def test_a_bad_revision_is_pulled_by_evidence_and_the_history_says_on_which_numbers(release: Release) -> None:
    release.write("1", replicas=1)
    release.canary(stepWeight=20)
    release.policy(evidence={}, steps=[{"weight": 20, "duration": "1h"}])
    release.begins()
    with release.users(rate=60.0) as users:
        release.write("2", replicas=1, STATUS=500)
        release.reaches("Failed")
        release.shares((0, 100))
        assert arms(release.count(20)) == {(PRIMARY, "1", 200): 20}
    assert {(one.arm, one.status) for one in users.failures} == {(CANARY, 500)}
    release.says("Rolling back web.evidence evidence of harm: ")
    (entry,) = [entry for entry in policy_status(release)["decisions"] if "evidence of harm" in entry["message"]]
    (failures,) = [check for check in entry["checks"] if check["metric"] == "failures"]
    assert (failures["value"], failures["outcome"]) == (100.0, "failed")
    assert 3 <= failures["requests"] <= len(users.failures)
    assert "evidence of harm" in release.order("history")


@lane("evidence")
def test_a_good_revision_is_promoted_once_all_metrics_are_within_their_margins(release: Release) -> None:
    """Wide margins: with the default ones it takes thousands of requests."""
    release.policy(evidence={"failureMargin": 10, "slowMargin": 30}, steps=[{"weight": 50, "duration": "1s"}])
    with release.users(rate=60.0) as users:
        release.write("3", replicas=1)
        release.until(lambda: release.phase in ("Progressing", "Promoting"), "the next revision")
        release.reaches("Succeeded")
        release.shares((0, 100))
        assert arms(release.count(20)) == {(PRIMARY, "3", 200): 20}
    assert users.failures == []
    *_, promoted = (entry for entry in policy_status(release)["decisions"] if entry["message"].startswith("Copying"))
    outcomes = {check["metric"]: check["outcome"] for check in promoted["checks"]}
    assert outcomes.keys() > {"failures"}, "latency in fine buckets was compared too"
    assert set(outcomes.values()) == {"passed"}
