"""A release judged by evidence, by the real controller over real files: what harm, doubt and silence do to it."""

from __future__ import annotations

from typing import Any

import pytest
from canary_cluster import CANARY, TARGET, Cluster, deployment
from canary_plays import canary_object
from test_canary_policy import policy_object

from control.canary.controller import Controller
from control.canary.declared.commands import ANNOTATION_APPROVE, Command
from control.canary.declared.spec import parse
from control.canary.evidence.arms import ArmCounts
from control.canary.history import decisions, policy_key
from control.canary.machine.analysis import Measurement
from control.canary.machine.gates import gate_it_waits_at
from control.canary.machine.status import Phase
from control.canary.measuring.source import Arms, MetricSource, Query, Subject
from control.canary.policies import policy_for

POLICY = policy_key("test", "podinfo")
RATE = 200.0  # requests a second


class Traffic(MetricSource):
    """Both arms, in proportion to the weight in force, with a share of failures each; none of it by chance."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._at = cluster.now
        self._served = {"canary": [0.0, 0.0], "primary": [0.0, 0.0], "baseline": [0.0, 0.0]}
        self.failing = {"canary": 0.0, "primary": 0.0, "baseline": 0.0}
        self.rate = RATE
        self.lost = False
        self.mirrored = False  # the canary has copies of all requests
        self.success_rate = 100.0

    async def measure(self, query: Query) -> Measurement:
        return Measurement(self.success_rate, 100)

    async def counts(self, subject: Subject) -> Arms | None:
        elapsed, self._at = self._cluster.now - self._at, self._cluster.now
        canary, *beside, primary = (100, 100) if self.mirrored else self._cluster.weights() or (0, 100)
        for arm, weight in zip(("canary", "primary", "baseline"), (canary, primary, *(beside or [0])), strict=True):
            served, failed = self._served[arm], self.failing[arm]
            served[0] += elapsed * self.rate * weight / 100 * (1 - failed)
            served[1] += elapsed * self.rate * weight / 100 * failed
        if self.lost:
            return None
        return Arms(*(ArmCounts(int(good), int(bad)) for good, bad in self._served.values()))


class Release:
    """A cluster, a controller, its traffic; the revision v2 has begun."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.traffic = Traffic(cluster)
        self.controller = self._controller()
        self.decided_at = self.rolled_out_at = cluster.now

    @classmethod
    async def begun(cls, cluster: Cluster) -> Release:
        """Of the Canary, and the ReleasePolicy, that are there."""
        release = cls(cluster)
        await cluster.roll_out()
        await release.until(Phase.INITIALIZED, 60)
        cluster.write(deployment("v2"))
        return release

    def _controller(self) -> Controller:
        return Controller(self.cluster.store, self.traffic, clock=lambda: self.cluster.now)

    def crash(self) -> None:
        self.cluster.open()
        self.controller = self._controller()

    async def step(self) -> None:
        due = await self.controller.step(self.cluster.now)
        self.decided_at = self.cluster.now
        assert due > self.cluster.now
        self.cluster.now = due
        if due - self.rolled_out_at >= 1.0:  # looks come ten times as often, and change nothing in the world
            self.rolled_out_at = due
            await self.cluster.roll_out()

    async def until(self, phase: Phase, within_s: float) -> float:
        """Seconds it took."""
        begun = self.cluster.now
        while self.cluster.status().phase is not phase:
            assert self.cluster.now - begun <= within_s, (self.cluster.status(), self.messages()[-3:])
            await self.step()
        return self.decided_at - begun

    async def until_weight(self, weight: int) -> None:
        for _ in range(2000):
            if self.cluster.status().canary_weight == weight:
                return
            await self.step()
        raise AssertionError(f"never at {weight}: {self.cluster.status()}")

    async def go(self, seconds: float) -> None:
        end = self.cluster.now + seconds
        while self.cluster.now < end:
            await self.step()

    def messages(self) -> list[str]:
        return [event["message"] for event in self.cluster.store.events(CANARY)]

    def waits_for(self) -> str:
        said = self.cluster.status().condition("Promoted")
        assert said is not None
        return said.message

    def says(self, text: str) -> bool:
        return any(text in message for message in self.messages())

    def history(self) -> list[dict[str, Any]]:
        return decisions(self.cluster.store.get(POLICY))


@pytest.fixture
def begin(cluster):
    async def begin(analysis: dict[str, Any] | None = None, evidence: dict[str, Any] | None = None, **policy: Any) -> Release:
        cluster.begin(analysis=analysis)
        cluster.write(policy_object(evidence=evidence or {}, **policy))
        return await Release.begun(cluster)

    return begin


async def test_a_bad_canary_is_pulled_when_the_evidence_is_in_and_not_at_the_next_interval(begin):
    release = await begin({"interval": "60s"})
    await release.until_weight(10)
    release.traffic.failing["canary"] = 1.0
    assert await release.until(Phase.FAILED, 60) <= 2.0
    assert release.cluster.weights() == (0, 100)
    assert release.says("Rolling back podinfo.test evidence of harm: ")


async def test_the_history_keeps_the_numbers_a_roll_back_was_decided_on(begin):
    release = await begin()
    await release.until_weight(20)
    release.traffic.failing["canary"] = 0.3
    await release.until(Phase.FAILED, 30)
    entry = next(entry for entry in release.history() if "evidence of harm" in entry["message"])
    (check,) = entry["checks"]
    assert (check["metric"], check["outcome"]) == ("failures", "failed")
    assert check["value"] > check["max"] >= 1.0
    assert check["requests"] > 10


async def test_a_good_canary_is_promoted_when_every_metric_is_within_its_margin(begin):
    release = await begin()
    await release.until(Phase.SUCCEEDED, 600)
    assert release.cluster.image(TARGET) == "podinfo:v2"


async def test_failures_that_both_arms_have_roll_nothing_back_whatever_the_threshold_says(begin):
    release = await begin()
    release.traffic.failing.update(canary=0.03, primary=0.03)
    release.traffic.success_rate = 97.0  # the Canary asks for 99
    await release.until_weight(50)
    assert release.cluster.status().failed_checks == 0


async def test_other_metrics_of_the_canary_are_held_against_their_thresholds_as_ever(begin):
    release = await begin({"metrics": [{"name": "errors", "query": "sum(errors)", "thresholdRange": {"max": 1}}]})
    release.traffic.success_rate = 7.0  # what the query gives
    await release.until(Phase.FAILED, 120)
    assert release.says("failed checks threshold reached")


RATE_OF_ALL = {"name": "request-success-rate", "interval": "10s", "thresholdRange": {"min": 99}}


async def test_a_built_in_check_that_a_step_asks_for_is_held_besides_the_evidence(begin):
    release = await begin(steps=[{"weight": 10}, {"weight": 20, "checks": [RATE_OF_ALL]}])
    release.traffic.success_rate = 97.0  # of both arms alike
    await release.until_weight(20)
    assert release.cluster.status().failed_checks == 0, "the Canary's own is compared instead"
    await release.until(Phase.FAILED, 60)
    assert release.says("Halt podinfo.test advancement success rate 97.00% < 99%")


async def test_a_built_in_check_that_a_promotion_step_asks_for_is_held_besides_the_evidence(begin):
    release = await begin(promotionSteps=[{"weight": 60, "duration": "30s", "checks": [RATE_OF_ALL]}])
    await release.until(Phase.PROMOTING, 600)
    release.traffic.success_rate = 97.0
    await release.until(Phase.FAILED, 60)
    assert release.cluster.weights() == (100, 0)
    assert release.says("the new primary fails its checks: success rate 97.00% < 99%")


async def test_a_step_without_requests_is_not_left(begin):
    release = await begin()
    await release.until_weight(10)
    release.traffic.rate = 0.0
    await release.go(25)
    assert release.cluster.status().canary_weight == 10
    assert release.cluster.status().failed_checks == 0
    assert release.waits_for() == "Waiting for evidence: more requests at weight 10 needed (the canary has 0 of 1)."
    release.traffic.rate = RATE
    await release.until_weight(20)
    assert "Waiting for evidence" not in release.waits_for()


async def test_a_canary_that_nobody_uses_is_rolled_back_after_max_wait_where_the_policy_says_so(begin):
    release = await begin(onInconclusive="rollback", maxWait="1m")
    await release.until_weight(10)
    release.traffic.rate = 0.0
    assert 50 <= await release.until(Phase.FAILED, 100) <= 80


async def test_too_little_evidence_holds_at_the_last_weight_and_says_how_much_is_missing(begin):
    release = await begin({"interval": "10s"})
    release.traffic.rate = 10.0
    await release.until_weight(50)
    await release.go(30)
    assert release.cluster.status().phase is Phase.PROGRESSING
    assert "more requests needed" in release.waits_for()
    release.traffic.rate = 1000.0
    await release.until(Phase.SUCCEEDED, 300)


async def test_while_it_holds_the_numbers_change_in_status_and_history_and_one_event_says_so(begin):
    release = await begin()
    release.traffic.rate = 10.0
    await release.until_weight(50)
    await release.go(25)
    waited, told = release.waits_for(), release.messages()
    await release.go(30)
    assert waited != release.waits_for()
    assert [message for message in release.messages() if message not in told] == []
    assert release.says("Halt podinfo.test advancement: not certain yet at weight 50 that it is within its margins")
    events = release.cluster.store.events(CANARY)
    (halt,) = [event for event in events if "not certain yet" in event["message"]]
    assert halt.get("count", 1) == 1
    entry = release.history()[-1]
    assert entry["count"] > 3
    assert entry["checks"]


async def test_what_stays_inconclusive_is_rolled_back_after_max_wait_where_the_policy_says_so(begin):
    release = await begin(onInconclusive="rollback", maxWait="2m")
    release.traffic.rate = 5.0
    await release.until_weight(50)
    assert 110 <= await release.until(Phase.FAILED, 200) <= 140
    assert release.says("inconclusive after")


async def test_what_stays_inconclusive_is_held_for_ever_where_the_policy_says_so(begin):
    release = await begin(maxWait="1m")
    release.traffic.rate = 5.0
    await release.until_weight(50)
    await release.go(90)
    assert release.cluster.status().phase is Phase.PROGRESSING


async def test_what_stays_inconclusive_waits_for_a_person_where_the_policy_says_so(begin):
    release = await begin(onInconclusive="approve", maxWait="1m")
    release.traffic.rate = 5.0
    await release.until_weight(50)
    await release.go(75)
    cluster = release.cluster
    canary = cluster.store.get(CANARY)
    assert gate_it_waits_at(parse(canary), cluster.status()) == "evidence/50"
    order = str(Command(cluster.status().last_applied, cluster.now, "evidence/50"))
    metadata = {"name": "podinfo", "namespace": "test", "annotations": {ANNOTATION_APPROVE: order}}
    await cluster.cli.apply({"apiVersion": canary["apiVersion"], "kind": "Canary", "metadata": metadata})
    cluster.refresh()
    await release.until(Phase.SUCCEEDED, 60)
    assert [text for text in [entry["message"] for entry in release.history()] if "approved" in text] == [
        "Evidence of podinfo.test at weight 50 approved as it is"
    ]


async def test_a_step_that_is_approved_and_waits_for_evidence_says_so_once(begin):
    release = await begin(steps=[{"weight": 10}, {"weight": 50, "pause": True}], maxWait="1h")
    release.traffic.rate = 5.0
    await release.until_weight(50)
    await release.go(60)
    cluster = release.cluster
    canary = cluster.store.get(CANARY)
    policy = policy_for(cluster.store, parse(canary))
    assert gate_it_waits_at(parse(canary), cluster.status(), policy) == "step/2"
    order = str(Command(cluster.status().last_applied, cluster.now, "step/2"))
    metadata = {"name": "podinfo", "namespace": "test", "annotations": {ANNOTATION_APPROVE: order}}
    await cluster.cli.apply({"apiVersion": canary["apiVersion"], "kind": "Canary", "metadata": metadata})
    cluster.refresh()
    await release.go(60)
    assert cluster.status().phase is Phase.PROGRESSING
    said = [entry["message"] for entry in release.history()]
    assert [text for text in said if "approved" in text] == ["Step 2 of podinfo.test approved"]
    assert len([text for text in said if text.startswith("Halt")]) <= 2, "what is decided again and again is one line"
    assert gate_it_waits_at(parse(canary), cluster.status(), policy) == ""
    assert "not certain yet" in cluster.status().condition("Promoted").message


async def test_a_lost_source_holds_and_counts_nothing_as_failed(begin):
    release = await begin(onInconclusive="rollback", maxWait="2m")
    await release.until_weight(20)
    release.traffic.lost = True
    await release.go(100)
    status = release.cluster.status()
    assert (status.phase, status.canary_weight, status.failed_checks) == (Phase.PROGRESSING, 20, 0)
    assert release.says("the source of evidence does not answer")
    await release.until(Phase.FAILED, 90)


async def test_a_source_that_comes_back_lets_the_release_go_on(begin):
    release = await begin()
    await release.until_weight(20)
    release.traffic.lost = True
    await release.go(20)
    release.traffic.lost = False
    await release.until(Phase.SUCCEEDED, 300)


async def test_while_promoting_a_primary_that_is_worse_than_the_canary_leaves_all_requests_with_the_canary(begin):
    steps = [{"weight": weight, "duration": "30s"} for weight in (60, 80, 100)]
    release = await begin(promotionSteps=steps)
    await release.until(Phase.PROMOTING, 600)
    release.traffic.failing["primary"] = 0.5
    await release.until(Phase.FAILED, 60)
    assert release.cluster.weights() == (100, 0)
    assert release.says("the new primary is worse than the canary")


async def test_another_controller_goes_on_with_the_evidence(begin):
    release = await begin({"interval": "10s"}, steps=[{"weight": 50, "duration": "10m"}])
    await release.until_weight(50)
    await release.go(30)
    before = release.cluster.store.get(POLICY)["status"]["evidence"]["metrics"]["failures"]["total"]
    release.crash()
    await release.go(15)
    after = release.cluster.store.get(POLICY)["status"]["evidence"]["metrics"]["failures"]["total"]
    assert after[1] > before[1] > 1000
    assert release.history(), "the record leaves the decisions where they are"


async def test_a_canary_that_has_copies_only_is_compared_by_them(begin):
    release = await begin({"iterations": 5, "stepWeight": None, "maxWeight": None, "mirror": True})
    release.traffic.mirrored = True
    await release.until(Phase.PROGRESSING, 30)
    release.traffic.failing["canary"] = 0.4
    assert await release.until(Phase.FAILED, 40) < 25
    assert release.says("evidence of harm")


async def test_a_new_revision_begins_with_no_evidence_against_it(begin):
    release = await begin()
    await release.until_weight(20)
    release.traffic.failing["canary"] = 0.5
    await release.until(Phase.FAILED, 30)
    release.traffic.failing["canary"] = 0.0
    release.cluster.write(deployment("v3"))
    await release.until(Phase.SUCCEEDED, 600)


async def test_a_canary_without_a_policy_is_judged_by_its_thresholds(cluster):
    cluster.begin(analysis={})
    release = await Release.begun(cluster)
    release.traffic.failing["canary"] = 1.0
    await release.until_weight(50)
    assert canary_object()["spec"]["analysis"]["threshold"] == 2
