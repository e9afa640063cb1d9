"""The primary takes the traffic back by promotionSteps that pause and have checks of their own: tick by tick, wherever it
crashes, and by the numbers of the primary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from canary_cluster import CANARY, PRIMARY, TARGET
from canary_plays import Play, canary_spec, stuck, waiting
from test_canary_crash import FragileCluster, crashed_at
from test_canary_policy import policy, policy_object
from test_canary_steps_invariants import ByPolicy

from control.canary.declared.commands import ANNOTATION_APPROVE, Command, Commands
from control.canary.facts import READY
from control.canary.history import decisions, policy_key
from control.canary.machine.analysis import Measurement
from control.canary.machine.gates import gate_it_waits_at
from control.canary.machine.progress import progress
from control.canary.machine.question import AskHook, AskMetrics, Question
from control.canary.machine.routing import TO_PRIMARY, Routing
from control.canary.machine.status import Phase, Status

LOST = {"name": "orders-lost", "query": "sum(increase(orders_lost_total[1m]))", "thresholdRange": {"max": 0}}
GIVING_BACK = [
    {"weight": 75, "duration": "20s", "pause": True},
    {"weight": 90, "checks": [LOST]},
]
COPYING = "Copying podinfo.test template spec to podinfo-primary.test"
HALT = "Halt podinfo.test advancement waiting for approval of promotion step 1"
DONE = "Promotion completed! Scaling down podinfo.test"


class GivingBack(ByPolicy):
    """A release at its last weight, 50, that is about to be promoted."""

    lost = 0.0  # what the check of the second promotion step sees
    no_answer = False

    @classmethod
    def begun(cls, promotion: list[dict[str, Any]], analysis: dict[str, Any] | None = None) -> GivingBack:
        play = cls.initialised(canary_spec(analysis))
        assert isinstance(play, GivingBack)
        play.policy = policy(steps=[{"weight": 50}], promotionSteps=promotion)
        play.edit("v2")
        play.until(Phase.PROMOTING)
        assert play.line() == play.back(75)
        return play

    policy = policy(steps=[{"weight": 50}])

    def answer(self, question: Question):
        if isinstance(question, AskMetrics) and question.of_primary:
            self.asked.append("metrics of the primary")
            seen = Measurement(error=True, reason="no route") if self.no_answer else Measurement(self.lost)
            return {metric: seen if metric.name == "orders-lost" else self.seen[metric.name] for metric in question.besides}
        return super().answer(question)

    def back(self, primary: int) -> tuple[str, int, list[str]]:
        return ("Promoting", 100 - primary, [f"Advance podinfo.test primary weight {primary}"])

    def approve(self) -> None:
        gate = gate_it_waits_at(self.spec, self.status, self.policy)
        assert gate
        self.order("approve", gate=gate)


def test_a_promotion_with_a_pause_and_a_check_from_its_first_step_to_its_end():
    play = GivingBack.begun(GIVING_BACK)
    assert play.line() == ("Promoting", 25, [])  # it lasts 20 s
    for _ in range(3):
        assert play.line() == ("Promoting", 25, [HALT])
    assert play.status.condition("Promoted").message == "Waiting for approval of promotion step 1."
    assert gate_it_waits_at(play.spec, play.status, play.policy) == "promotion-step/1"
    play.approve()
    approved = "Promotion step 1 of podinfo.test approved"
    assert play.line() == ("Promoting", 10, [approved, "Advance podinfo.test primary weight 90"])
    assert play.asked == []
    assert play.status.condition("Promoted").message == "Canary analysis completed, starting primary rolling update."
    assert play.line() == ("Finalising", 0, ["Advance podinfo.test primary weight 100"])
    assert play.asked == ["metrics of the primary"]
    assert play.line() == ("Succeeded", 0, [DONE])
    assert progress(play.status) is None


def test_people_are_told_once_of_a_promotion_that_waits():
    play = GivingBack.begun(GIVING_BACK)
    for _ in range(4):
        play.tick()
    alerts = [notice.text for decision in play.decisions for notice in decision.notices]
    assert alerts.count("Canary is waiting for approval of promotion step 1.") == 1


def test_an_approval_of_a_step_of_the_analysis_opens_no_promotion_step():
    play = GivingBack.begun(GIVING_BACK)
    for gate in ("step/1", "promotion", "promotion-step/2"):
        play.tick()
        play.order("approve", gate=gate)
        assert play.line()[1] == 25


def test_the_primary_that_fails_the_check_of_a_promotion_step_leaves_everyone_with_the_canary():
    play = GivingBack.begun([{"weight": 75, "duration": "1m", "checks": [LOST]}, {"weight": 90}])
    play.lost = 3.0
    halt = "Halt podinfo.test advancement orders-lost 3.00 > 0"
    assert play.line() == ("Promoting", 25, [halt])
    assert play.status.failed_checks == 1
    failed = "Promotion of podinfo.test failed, the new primary fails its checks: orders-lost 3.00 > 0"
    assert play.line() == ("Failed", 100, [halt, failed])  # the threshold is 2
    assert play.status.condition("Promoted").message == (
        "Promotion failed, the new primary fails its checks; all traffic is on the canary."
    )
    record = play.decisions[-1].records[-1]
    assert [(check.metric, check.value) for check in record.checks] == [("orders-lost", 3.0)]
    assert play.target.replicas == 2
    play.lost = 0.0
    play.order("promote")
    play.until(Phase.SUCCEEDED)
    assert play.primary.revision == "v2"


def test_one_failed_check_before_a_promotion_and_one_in_it_are_not_two():
    play = GivingBack.initialised(canary_spec())
    play.policy = policy(steps=[{"weight": 50}], promotionSteps=[{"weight": 75, "duration": "30s", "checks": [LOST]}])
    play.edit("v2")
    while play.status.canary_weight < 50:
        play.tick()
    play.measure(success=1.0)
    play.tick()
    assert play.status.failed_checks == 1
    play.measure()
    play.until(Phase.PROMOTING)
    play.tick()
    play.lost = 1.0
    play.tick()
    assert (play.status.phase, play.status.failed_checks) == (Phase.PROMOTING, 1)
    play.lost = 0.0
    play.until(Phase.SUCCEEDED)


def test_a_source_that_does_not_answer_is_a_failed_check_of_a_promotion_step_too():
    play = GivingBack.begun([{"weight": 75, "duration": "1m", "checks": [LOST]}])
    play.no_answer = True
    play.until(Phase.FAILED, limit=2)
    assert play.routing == Routing(100)


def test_a_check_of_a_promotion_step_that_warms_up_holds_and_is_not_counted():
    play = GivingBack.begun([{"weight": 75, "checks": [{"name": "request-success-rate", "thresholdRange": {"min": 99}}]}])
    play.seen = {**play.seen, "request-success-rate": Measurement(warming=True, reason="the source is starting")}
    for _ in range(3):
        assert play.line() == ("Promoting", 25, ["Halt podinfo.test advancement: the source is starting"])
    assert play.status.failed_checks == 0
    play.measure()
    assert play.line()[:2] == ("Finalising", 0)


def test_a_promotion_paused_by_hand_stays_where_it_is_until_it_is_resumed():
    play = GivingBack.begun([{"weight": 75}, {"weight": 90}])
    play.commands = Commands(pause=True)
    for _ in range(3):
        assert play.line() == ("Promoting", 25, ["Canary podinfo.test is paused at weight 25"])
    assert play.status.condition("Promoted").message == "Paused."
    play.commands = Commands()
    resumed = "Canary podinfo.test is resumed"
    assert play.line() == ("Promoting", 10, [resumed, "Advance podinfo.test primary weight 90"])


def test_a_promotion_by_the_canarys_own_steps_can_be_paused_by_hand():
    play = Play.initialised(canary_spec({"stepWeightPromotion": 20}))
    play.edit("v2")
    play.until(Phase.PROMOTING)
    assert play.line() == ("Promoting", 30, ["Advance podinfo.test primary weight 70"])
    play.commands = Commands(pause=True)
    assert play.line() == ("Promoting", 30, ["Canary podinfo.test is paused at weight 30"])
    play.commands = Commands()
    play.until(Phase.SUCCEEDED)


def test_a_promotion_in_one_go_is_not_held_by_a_pause():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.until(Phase.PROMOTING)
    play.commands = Commands(pause=True)
    assert play.line()[:2] == ("Finalising", 0)


def test_a_release_that_a_person_promotes_goes_through_its_pauses_and_not_through_its_checks():
    play = GivingBack.initialised(canary_spec())
    play.policy = policy(
        steps=[{"weight": 50}], promotionSteps=[{"weight": 75, "pause": True}, {"weight": 90, "checks": [LOST]}]
    )
    play.edit("v2")
    play.until(Phase.PROGRESSING)
    play.tick()
    play.commands = Commands(pause=True)
    play.order("promote")
    weights = [play.line()[:2] for _ in range(3)]
    assert weights == [("Promoting", 50), ("Promoting", 25), ("Promoting", 10)]
    play.lost = 1.0
    play.until(Phase.FAILED, limit=2)


def test_checks_go_on_while_a_promotion_waits_for_a_person():
    play = GivingBack.begun([{"weight": 75, "pause": True, "checks": [LOST]}])
    assert play.line() == ("Promoting", 25, [HALT])
    play.lost = 1.0
    play.until(Phase.FAILED, limit=2)
    assert play.routing == Routing(100)


@pytest.mark.parametrize("held", ["by its step", "by hand"])
def test_a_promotion_that_waits_is_ended_by_another_revision_for_the_canarys_pods_are_that_one_now(held):
    play = GivingBack.begun([{"weight": 75, "pause": held == "by its step"}, {"weight": 90}])
    if held == "by hand":
        play.commands = Commands(pause=True)
    play.tick()
    play.edit("v3")
    assert play.line() == ("Finalising", 0, ["Advance podinfo.test primary weight 100"])
    play.commands = Commands()
    assert play.line() == ("Succeeded", 0, [DONE])
    assert play.status.last_promoted == "v2"
    assert play.line() == ("Progressing", 0, ["New revision detected! Scaling up podinfo.test"])


def test_a_promotion_that_waits_is_ended_by_canary_pods_that_never_get_ready_again():
    play = GivingBack.begun(GIVING_BACK)
    play.tick()
    play.target = replace(play.target, readiness=waiting())
    assert play.line()[:2] == ("Promoting", 25)
    play.target = replace(play.target, readiness=stuck())
    assert play.line()[:2] == ("Finalising", 0)


def test_a_promotion_that_waits_is_ended_by_another_hand_that_scales_the_canarys_pods_away():
    play = GivingBack.begun(GIVING_BACK)
    play.tick()
    play.target = replace(play.target, replicas=0)
    assert play.line() == ("Finalising", 0, ["Advance podinfo.test primary weight 100"])


@pytest.mark.parametrize("late", [0, 3])
def test_a_failed_promotion_that_a_person_tries_again_goes_through_its_pauses_however_late_the_order_is_seen(late):
    play = GivingBack.begun(GIVING_BACK)
    play.primary = replace(play.primary, readiness=stuck())
    play.until(Phase.FAILED)
    play.primary = replace(play.primary, readiness=READY)
    play.order("promote", at=play.now)
    play.now += late
    assert play.line()[:2] == ("Promoting", 100)
    play.until(Phase.SUCCEEDED, limit=5)
    assert HALT not in [event.text for decision in play.decisions[-6:] for event in decision.events]


def test_a_promotion_by_the_canarys_own_steps_has_whole_percents_whatever_weight_it_begins_at():
    play = GivingBack.initialised(canary_spec({"stepWeightPromotion": 10}))
    play.policy = policy(steps=[{"weight": 50.5}])
    play.edit("v2")
    play.until(Phase.PROMOTING)
    assert play.line()[:2] == ("Promoting", 40)
    play.commands = Commands(pause=True)
    play.status = Status.of(play.status.to_object())
    assert play.line() == ("Promoting", 40, ["Canary podinfo.test is paused at weight 40"])


def test_a_primary_that_breaks_while_its_promotion_waits_leaves_everyone_with_the_canary():
    play = GivingBack.begun(GIVING_BACK)
    for _ in range(2):
        play.tick()
    play.primary = replace(play.primary, readiness=stuck())
    assert play.line()[:2] == ("Failed", 100)


def test_woken_before_the_interval_is_over_a_promotion_neither_checks_nor_advances():
    play = GivingBack.begun([{"weight": 75, "checks": [LOST]}])
    play.due = False
    assert play.line() == ("Promoting", 25, [])
    assert play.asked == []


def test_a_policy_whose_promotion_steps_go_meanwhile_gives_all_back_at_once():
    play = GivingBack.begun(GIVING_BACK)
    for _ in range(2):
        play.tick()
    play.policy = policy(steps=[{"weight": 50}])
    assert play.line() == ("Finalising", 0, ["Routing all traffic to primary"])


# ---------------------------------------------------------------- crashes


def life(crash: tuple[int, int] | None, *, bad: bool) -> GivingBack:
    """The whole of it, with a crash in one tick after so many of its actions."""
    play = GivingBack.initialised(canary_spec())
    play.policy = policy(steps=[{"weight": 50}], promotionSteps=GIVING_BACK)
    play.edit("v2")
    play.decisions.clear()
    for number in range(24):
        if number == 12:
            play.order("approve", gate="promotion-step/1")
        if bad and number >= 13:
            play.lost = 1.0
        play.tick(crash[1] if crash and crash[0] == number else None)
    return play


@pytest.mark.parametrize("bad", [False, True])
def test_wherever_it_crashes_a_promotion_by_steps_ends_in_the_same_place(bad):
    whole = life(None, bad=bad)
    points = [(number, after) for number, one in enumerate(whole.decisions) for after in range(len(one.actions) + 1)]
    assert len(points) > 24
    for crash in points:
        play = life(crash, bad=bad)
        seen = (play.status.phase, play.primary.revision, play.routing)
        assert seen == ((Phase.FAILED, "v2", Routing(100)) if bad else (Phase.SUCCEEDED, "v2", TO_PRIMARY)), crash


class FragilePromotion(FragileCluster):
    """A crash at any single write; a person approves the pause once it has begun."""

    def begin(self, **canary: Any) -> None:
        steps = [{"weight": 50, "pause": True, "checks": [LOST]}, {"weight": 90}]
        self.write(policy_object(steps=[{"weight": 50}], promotionSteps=steps))
        super().begin(**canary)

    def answer(self, question: Question, spec):
        if isinstance(question, AskHook) or not question.of_primary:
            return super().answer(question, spec)
        return {metric: Measurement(0.0) for metric in question.besides}

    async def tick(self, crash_after: int | None = None) -> int:
        status = self.status()
        if status.phase is Phase.PROMOTING and (at := progress(status)) is not None and at.promoting:
            order = str(Command(status.last_applied, self.now, "promotion-step/1"))
            metadata = {"name": CANARY.name, "namespace": CANARY.namespace, "annotations": {ANNOTATION_APPROVE: order}}
            await self.cli.apply({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata})
            self.refresh()
        return await super().tick(crash_after)


async def test_on_files_a_promotion_by_steps_ends_well_whatever_write_it_crashed_at(tmp_path: Path):
    async for cluster, at in crashed_at(tmp_path, 4, {"stepWeight": 50}, kind=FragilePromotion):
        for _ in range(4):  # its steps take that many looks more
            await cluster.tick()
        assert (cluster.status().phase, cluster.image(PRIMARY), cluster.replicas(TARGET)) == (
            Phase.SUCCEEDED,
            "podinfo:v2",
            0,
        ), at
        told = [entry["message"] for entry in decisions(cluster.store.get(policy_key("test", "podinfo")))]
        assert "Promotion step 1 of podinfo.test approved" in told, at
