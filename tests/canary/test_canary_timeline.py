"""The machine's timelines as tables: what Flagger documents, tick by tick, and where we differ on purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from canary_plays import Play, canary_spec, stuck, waiting

from control.canary.declared.spec import SUCCESS_RATE
from control.canary.facts import READY
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import ScaleUp, SetRouting
from control.canary.machine.routing import TO_PRIMARY, Routing
from control.canary.machine.status import IllegalTransition, Phase, Status


def test_initialisation_creates_the_primary_waits_for_it_and_only_then_moves_traffic_and_scales_the_target_down():
    play = Play(canary_spec())
    first = play.tick()
    assert [type(a).__name__ for a in first.actions] == ["EnsureServices", "CreatePrimary"]
    assert play.target.replicas == 2
    play.primary = replace(play.primary, readiness=waiting())
    second = play.tick()
    assert second.actions == ()
    assert play.status.phase is Phase.INITIALIZING
    play.primary = replace(play.primary, readiness=READY)
    third = play.tick()
    assert [type(a).__name__ for a in third.actions] == ["SetRouting", "EnsureApex", "ScaleToZero"]
    assert third.events[-1].text == "Initialization done! podinfo.test"
    assert play.status.phase is Phase.INITIALIZED
    assert play.status.last_promoted == play.status.last_applied == "v1"


def test_a_primary_that_never_becomes_ready_leaves_the_users_pods_serving():
    play = Play(canary_spec())
    play.tick()
    play.primary = replace(play.primary, readiness=stuck())
    for _ in range(5):
        assert play.tick().actions == ()
    assert play.status.phase is Phase.INITIALIZING
    assert play.target.replicas == 2


def test_step_10_max_50_goes_as_flagger_documents():
    play = Play.initialised(canary_spec())
    assert play.line() == ("Initialized", 0, [])
    play.edit("v2")
    assert [play.line() for _ in range(9)] == [
        ("Progressing", 0, ["New revision detected! Scaling up podinfo.test"]),
        ("Progressing", 10, ["Starting canary analysis for podinfo.test", "Advance podinfo.test canary weight 10"]),
        ("Progressing", 20, ["Advance podinfo.test canary weight 20"]),
        ("Progressing", 30, ["Advance podinfo.test canary weight 30"]),
        ("Progressing", 40, ["Advance podinfo.test canary weight 40"]),
        ("Progressing", 50, ["Advance podinfo.test canary weight 50"]),
        ("Promoting", 50, ["Copying podinfo.test template spec to podinfo-primary.test"]),
        ("Finalising", 0, ["Routing all traffic to primary"]),
        ("Succeeded", 0, ["Promotion completed! Scaling down podinfo.test"]),
    ]
    assert play.status.last_promoted == "v2"
    assert play.primary.revision == "v2"
    assert play.target.replicas == 0
    assert play.line() == ("Succeeded", 0, [])


@pytest.mark.parametrize(
    ("analysis", "weights"),
    [
        ({"stepWeight": 20, "maxWeight": 50}, [20, 40, 60]),  # overshoots, as Flagger
        ({"stepWeight": 30, "maxWeight": 100}, [30, 60, 90, 100]),
        ({"stepWeight": 0, "stepWeights": [1, 2, 10, 80]}, [1, 2, 10, 80]),
        ({"stepWeight": 0, "stepWeights": [50, 100]}, [50, 100]),
        ({"stepWeight": 100, "maxWeight": 100}, [100]),
        # stepWeight says how far each step goes, the list where they end
        ({"stepWeight": 10, "stepWeights": [5, 30], "maxWeight": 20}, [10, 20, 30]),
    ],
)
def test_weights_follow_the_steps(analysis, weights):
    play = Play.initialised(canary_spec(analysis))
    play.edit("v2")
    seen = []
    while play.status.phase is not Phase.PROMOTING:
        _, weight, _ = play.line()
        if weight and weight not in seen:
            seen.append(weight)
    assert seen == weights


def test_a_weight_that_is_not_in_the_list_of_steps_jumps_to_all():
    spec = canary_spec({"stepWeight": 0, "stepWeights": [10, 20, 40]})
    assert spec.next_weight(15) == 100


def test_promotion_by_steps_takes_traffic_back_gradually():
    play = Play.initialised(canary_spec({"maxWeight": 50, "stepWeight": 50, "stepWeightPromotion": 20}))
    play.edit("v2")
    play.until(Phase.PROMOTING)
    assert [play.line() for _ in range(4)] == [
        ("Promoting", 30, ["Advance podinfo.test primary weight 70"]),
        ("Promoting", 10, ["Advance podinfo.test primary weight 90"]),
        ("Finalising", 0, ["Advance podinfo.test primary weight 100"]),
        ("Succeeded", 0, ["Promotion completed! Scaling down podinfo.test"]),
    ]


def test_failed_checks_halt_and_the_tick_after_the_threshold_rolls_back():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    play.measure(success=79.5)
    assert [play.line() for _ in range(3)] == [
        ("Progressing", 20, ["Halt podinfo.test advancement success rate 79.50% < 99%"]),
        ("Progressing", 20, ["Halt podinfo.test advancement success rate 79.50% < 99%"]),
        (
            "Failed",
            0,
            ["Rolling back podinfo.test failed checks threshold reached 2", "Canary failed! Scaling down podinfo.test"],
        ),
    ]
    assert play.target.replicas == 0
    assert play.primary.revision == "v1"
    assert play.status.failed_checks == 0  # as Flagger's; the history has how many there were
    kept = [(record.failed_checks, record.text) for record in play.decisions[-1].records]
    assert kept == [(2, "Rolling back podinfo.test failed checks threshold reached 2")]
    assert play.line() == ("Failed", 0, [])  # the failed revision is not tried again


def test_a_good_check_does_not_forgive_an_earlier_bad_one():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    play.measure(duration=1200)
    assert play.line()[2] == ["Halt podinfo.test advancement request duration 1.2s > 500ms"]
    play.measure()
    assert play.line()[2] == ["Advance podinfo.test canary weight 30"]
    play.measure(duration=501)
    play.line()
    assert play.line()[0] == "Failed"


def test_no_data_is_a_failed_check_and_rolls_back():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.tick()
    play.tick()
    play.measure(success=None)
    _, _, texts = play.line()
    assert texts == [
        "Halt advancement no values found for mesh metric request-success-rate probably podinfo.test is not receiving"
        " traffic: no values found"
    ]
    play.tick()
    assert play.line()[0] == "Failed"


def test_a_source_that_is_still_warming_up_neither_advances_nor_counts():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.tick()
    play.tick()
    play.seen[SUCCESS_RATE] = Measurement(reason="the metric source is starting", warming=True)
    for _ in range(5):
        assert play.line()[:2] == ("Progressing", 10)
    assert play.status.failed_checks == 0
    play.measure()
    assert play.line()[1] == 20


def test_a_newer_revision_restarts_the_analysis_from_nothing():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(4):
        play.tick()
    play.measure(success=50.0)
    play.tick()
    assert play.status.failed_checks == 1
    play.edit("v3")
    assert play.line() == ("Progressing", 0, ["New revision detected! Restarting analysis for podinfo.test"])
    assert play.status.failed_checks == 0
    play.measure()
    play.until(Phase.SUCCEEDED)
    assert play.status.last_promoted == play.primary.revision == "v3"


def test_a_changed_configmap_is_a_new_revision():
    play = Play.initialised(canary_spec())
    play.tracked = {"configmap/settings": "aa"}
    assert play.line()[2] == ["New revision detected! Scaling up podinfo.test"]
    play.tick()
    play.tracked = {"configmap/settings": "bb"}
    assert play.line()[2] == ["New revision detected! Restarting analysis for podinfo.test"]
    play.until(Phase.SUCCEEDED)
    assert play.line() == ("Succeeded", 0, [])


def test_going_back_to_the_promoted_revision_is_no_release():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.until(Phase.SUCCEEDED)
    play.edit("v3")
    play.measure(success=0.0)
    play.until(Phase.FAILED)
    play.edit("v2")
    assert play.line() == ("Failed", 0, [])
    play.edit("v3")  # and asking for the failed one again after that is
    assert play.line()[2] == ["New revision detected! Scaling up podinfo.test"]


def test_going_back_to_the_promoted_revision_during_the_analysis_ends_it():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(4):
        play.tick()
    play.edit("v1")
    phase, weight, texts = play.line()
    assert (phase, weight) == ("Failed", 0)
    assert texts[0] == "Rolling back podinfo.test the target is back at the promoted revision"
    assert play.target.replicas == 0
    assert play.line() == ("Failed", 0, [])


def test_pods_that_are_not_ready_hold_the_analysis_and_stuck_ones_roll_it_back():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.tick()
    play.target = replace(play.target, readiness=waiting())
    assert play.line() == (
        "Progressing",
        0,
        ["canary deployment podinfo.test not ready: waiting for rollout to finish: 0 out of 2 new replicas have been updated"],
    )
    play.target = replace(play.target, readiness=stuck())
    phase, _, texts = play.line()
    assert phase == "Failed"
    assert 'Rolling back podinfo.test progress deadline exceeded deployment "podinfo" exceeded its progress deadline' in texts


def test_a_canary_without_replicas_is_not_taken_for_ready():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.tick()
    play.target = replace(play.target, replicas=0)
    decision = play.tick()
    assert ScaleUp() in decision.actions
    assert play.routing == TO_PRIMARY


def test_a_stuck_primary_during_analysis_rolls_back():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    play.primary = replace(play.primary, readiness=stuck())
    assert play.line()[:2] == ("Failed", 0)


def test_a_promotion_whose_primary_never_becomes_ready_leaves_all_traffic_on_the_analysed_canary():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.until(Phase.PROMOTING)
    play.primary = replace(play.primary, readiness=waiting())
    assert play.line()[:2] == ("Promoting", 50)
    play.primary = replace(play.primary, readiness=stuck())
    assert play.line()[:2] == ("Failed", 100)
    assert play.status.canary_weight == 100
    assert play.target.replicas == 2
    assert play.line()[:2] == ("Failed", 100)
    play.order("promote")
    assert play.line()[0] == "Promoting"
    assert play.line()[:2] == ("Finalising", 0)


def test_a_copy_that_was_lost_is_made_again_before_traffic_goes_to_the_primary():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.until(Phase.PROMOTING)
    play.primary = replace(play.primary, revision="v1")
    assert play.line() == ("Promoting", 50, ["Copying podinfo.test template spec to podinfo-primary.test"])
    assert play.line()[:2] == ("Finalising", 0)
    assert play.primary.revision == "v2"


def test_a_copy_that_was_lost_is_not_replaced_by_a_revision_nobody_analysed():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.until(Phase.PROMOTING)
    play.primary = replace(play.primary, revision="v1")
    play.edit("v3")
    phase, weight, texts = play.line()
    assert (phase, weight) == ("Failed", 0)
    assert texts[0] == "Rolling back podinfo.test the revision to promote is gone: the target changed"
    assert play.primary.revision == "v1"


def test_skip_analysis_promotes_at_once_when_the_canary_is_ready():
    play = Play.initialised(canary_spec(skipAnalysis=True))
    play.edit("v2")
    play.measure(success=0.0)
    assert play.line()[0] == "Progressing"
    assert play.line() == (
        "Succeeded",
        0,
        [
            "Copying podinfo.test template spec to podinfo-primary.test",
            "Promotion completed! Canary analysis was skipped for podinfo.test",
        ],
    )
    assert play.decisions[-1].finished == "skipped"


def test_suspend_freezes_everything_but_says_so():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    play.spec = replace(play.spec, suspend=True)
    before = play.status
    assert play.line() == ("Progressing", 20, ["skipping canary run as object is suspended"])
    assert play.status == before


def test_an_object_that_asks_for_what_we_cannot_do_is_refused_with_a_condition_and_nothing_happens():
    play = Play(canary_spec({"stepWeight": 0}, provider="istio"))
    decision = play.tick()
    assert decision.actions == ()
    assert play.status.phase is Phase.NEW
    condition = play.status.condition("Accepted")
    assert (condition.status, condition.reason) == ("False", "Unsupported")
    assert "spec.provider istio" in condition.message
    assert "nothing would ever advance" in condition.message
    play.spec = canary_spec()
    play.tick()
    assert play.status.condition("Accepted") is None


def test_a_split_that_somebody_edited_is_put_back_to_what_the_status_says():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    play.routing = Routing(90)
    play.primary = replace(play.primary, readiness=waiting())
    decision = play.tick()
    assert decision.actions == (SetRouting(Routing(20)),)
    assert "Routing of podinfo.test says canary 90, primary 10; putting it back to canary 20" in decision.events[-1].text


def test_woken_before_the_interval_is_over_it_neither_analyses_nor_advances():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.due = False
    assert play.line()[0] == "Progressing"
    play.measure(success=0.0)
    for _ in range(3):
        assert play.line() == ("Progressing", 0, [])
    play.order("abort")
    assert play.line()[0] == "Failed"


def test_the_promoted_condition_follows_the_release():
    play = Play.initialised(canary_spec())
    assert play.status.condition("Promoted").status == "True"
    play.edit("v2")
    play.tick()
    started = play.status.condition("Promoted")
    assert (started.status, started.reason) == ("Unknown", "Progressing")
    play.until(Phase.PROMOTING)
    assert play.status.condition("Promoted").transitioned == started.transitioned == play.status.run_started
    play.until(Phase.SUCCEEDED)
    assert play.status.condition("Promoted").status == "True"


def test_an_illegal_transition_raises():
    with pytest.raises(IllegalTransition, match="from Initialized to Promoting"):
        Status(phase=Phase.INITIALIZED).to(Phase.PROMOTING, 0.0)


def test_a_status_survives_being_stored():
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(4):
        play.tick()
    assert Status.of(play.status.to_object()) == play.status


def test_a_phase_of_another_controller_is_named_in_the_error():
    with pytest.raises(ValueError, match="'Paused' is not one of Initializing"):
        Status.of({"phase": "Paused"})
