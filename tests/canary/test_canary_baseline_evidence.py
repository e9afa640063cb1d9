"""Evidence against a baseline, by the real controller over real files: both are new, so being new is no evidence."""

from __future__ import annotations

from typing import Any

import pytest
from canary_cluster import CANARY, Cluster
from test_canary_evidence_release import POLICY, Release
from test_canary_policy import policy_object

from control.canary.machine.status import BASELINE, Phase
from control.store.store import Key

WORKLOAD, SERVICE = Key("apps", "Deployment", "test", "podinfo-baseline"), Key("", "Service", "test", "podinfo-baseline")


@pytest.fixture
def begin(cluster: Cluster):
    async def begin(analysis: dict[str, Any] | None = None, *, baseline: bool = True, **policy: Any) -> Release:
        cluster.begin(analysis={"maxWeight": 20, **(analysis or {})})
        cluster.write(policy_object(evidence={"baseline": baseline}, **policy))
        return await Release.begun(cluster)

    return begin


@pytest.mark.parametrize(("baseline", "end"), [(True, Phase.SUCCEEDED), (False, Phase.FAILED)])
async def test_what_every_new_pod_does_rolls_back_only_where_it_is_compared_with_pods_that_are_not_new(begin, baseline, end):
    release = await begin(baseline=baseline)
    release.traffic.rate = 1000.0
    release.traffic.failing.update(canary=0.05, baseline=0.05)
    await release.until(end, 900)
    await release.go(11)
    assert [release.cluster.store.get(key) for key in (WORKLOAD, SERVICE)] == [None, None]
    assert release.cluster.weights() == (0, 100)


async def test_a_canary_that_is_worse_than_its_baseline_is_pulled_and_the_numbers_are_the_baselines(begin):
    release = await begin({"interval": "60s"})
    await release.until_weight(10)
    assert release.cluster.weights() == (10, 10, 80)
    release.traffic.failing["canary"] = 1.0
    assert await release.until(Phase.FAILED, 60) <= 2.0
    assert release.says("of the baseline's")
    assert not release.says("of the primary's")


async def test_a_baseline_that_fails_alone_is_no_evidence_against_the_canary(begin):
    release = await begin()
    await release.until_weight(10)
    release.traffic.failing["baseline"] = 0.5
    await release.until(Phase.SUCCEEDED, 900)


async def test_another_controller_goes_on_with_the_same_comparison(begin):
    release = await begin(steps=[{"weight": 20, "duration": "10m"}])
    await release.until_weight(20)
    await release.go(30)
    before = release.cluster.store.get(POLICY)["status"]["evidence"]["metrics"]["failures"]["total"]
    release.crash()
    await release.go(15)
    after = release.cluster.store.get(POLICY)["status"]["evidence"]["metrics"]["failures"]["total"]
    assert after[1] > before[1] > 500
    assert abs(after[1] - after[3]) <= 1, "as many requests at the baseline as at the canary"
    assert release.cluster.status().condition(BASELINE) is not None
    assert release.cluster.store.get(CANARY)["status"]["canaryWeight"] == 20


async def test_while_promoting_the_new_primary_is_compared_with_the_canary_as_ever(begin):
    release = await begin(promotionSteps=[{"weight": weight, "duration": "30s"} for weight in (60, 80, 100)])
    await release.until(Phase.PROMOTING, 900)
    release.traffic.failing["primary"] = 0.5
    await release.until(Phase.FAILED, 60)
    assert release.cluster.weights() == (100, 0)
    assert release.says("the new primary is worse than the canary")
    assert release.says("of the new primary's")
    assert release.says("of the canary's")
