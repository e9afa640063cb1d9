"""A release beside a baseline, with real proxies and users: who got how many requests, what is compared, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from mesh_arms import BASELINE, CANARY, PRIMARY, ask_each
from mesh_release import INCREASE, Lanes, Release, Stage


def beside(release: Release) -> None:
    release.write("1")
    release.canary(INCREASE, stepWeight=20, maxWeight=20)
    release.policy(evidence={"baseline": True, "failureMargin": 10, "slowMargin": 30})
    release.begins()
    release.let(INCREASE)
    release.write("2")
    release.until(lambda: release.status.get("canaryWeight") == 20, "weight 20")
    release.until(
        lambda: all(shared(release, ip) == {CANARY: 4, BASELINE: 4, PRIMARY: 12} for ip in release.clients), "20, 20, 60"
    )
    said = release.count(100)
    assert Counter((one.arm, one.revision) for one in said) == {(CANARY, "2"): 20, (BASELINE, "1"): 20, (PRIMARY, "1"): 60}
    assert {one.status for one in said} == {200}
    with release.users(rate=80.0) as users:
        release.until(lambda: release.gates.asked(release.namespace, INCREASE) > 1, "the gate to be asked")
        release.write("3", STATUS=500)
        release.says("Restarting analysis")
        release.let(INCREASE)
        release.reaches("Failed")
        release.shares((0, 100))
    release.says("of the baseline's")
    assert {(one.arm, one.revision) for one in users.failures} == {(CANARY, "3")}, "nobody met a baseline that was gone"
    release.until(lambda: not release.mesh_pods("web-baseline"), "no pod of the baseline")
    for group, kind in (("apps", "Deployment"), ("", "Service")):
        assert release.view.get(group, kind, release.namespace, "web-baseline") is None


def shared(release: Release, ip: str) -> Counter[str]:
    return Counter(one.arm for one in ask_each(ip, release.host, "probe", 20))


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    lanes = Lanes({"baseline": [beside]})
    with lanes.performed(tmp_path_factory.mktemp("baseline"), "baseline", {beside.__name__}) as found:
        yield found


def test_canary_and_baseline_get_equal_shares_and_a_worse_canary_takes_the_baseline_with_it(stage: Stage) -> None:
    stage.result(beside)
