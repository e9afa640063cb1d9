"""What people order (annotations) and the gates they open; an order steers one release and no other."""

from __future__ import annotations

from dataclasses import replace

from canary_plays import START, Play, canary_spec, waiting

from control.canary.declared.commands import Command, Commands
from control.canary.machine.decision import SetRouting
from control.canary.machine.routing import TO_PRIMARY
from control.canary.machine.status import Phase


def progressing(weight: int = 20, **rest) -> Play:
    play = Play.initialised(canary_spec(**rest))
    play.edit("v2")
    while play.status.canary_weight < weight:
        play.tick()
    return play


def test_abort_rolls_back_at_once():
    play = progressing()
    play.order("abort")
    phase, weight, texts = play.line()
    assert (phase, weight) == ("Failed", 0)
    assert texts == ["Rolling back podinfo.test aborted by hand", "Canary failed! Scaling down podinfo.test"]


def test_an_abort_of_an_earlier_run_of_the_same_revision_does_not_count():
    play = progressing()
    play.order("abort")
    play.tick()
    play.edit("v1")
    play.tick()
    play.edit("v2")
    play.until(Phase.SUCCEEDED)  # the annotation is still there
    assert play.primary.revision == "v2"


def test_an_order_for_another_revision_does_not_count():
    play = progressing()
    play.order("abort", revision="v9")
    assert play.line()[0] == "Progressing"


def test_promote_skips_the_rest_of_the_analysis():
    play = progressing()
    play.measure(success=0.0)
    play.order("promote")
    assert play.line()[0] == "Promoting"
    play.until(Phase.SUCCEEDED)
    assert play.primary.revision == "v2"


def test_promote_waits_for_pods_that_are_not_ready():
    play = progressing()
    play.target = replace(play.target, readiness=waiting())
    play.order("promote")
    assert play.line()[0] == "Progressing"
    assert play.primary.revision == "v1"


def test_pause_holds_the_weight_while_checks_go_on():
    play = progressing()
    play.commands = Commands(pause=True)
    for _ in range(3):
        assert play.line() == ("Progressing", 20, ["Canary podinfo.test is paused at weight 20"])
    play.commands = Commands()
    assert play.line()[1] == 30
    play.commands = Commands(pause=True)
    play.measure(success=0.0)
    play.until(Phase.FAILED, limit=3)


def test_the_rollout_gate_waits_before_any_pod_is_started():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "rollout"}))
    play.edit("v2")
    assert play.line() == ("Waiting", 0, ["Halt podinfo.test advancement waiting for approval rollout"])
    assert play.target.replicas == 0
    for _ in range(3):
        assert play.line() == ("Waiting", 0, [])
    play.order("approve", gate="promotion")
    assert play.line()[0] == "Waiting"
    play.order("approve", gate="rollout")
    assert play.line()[2] == ["Confirm-rollout check approve passed", "New revision detected! Scaling up podinfo.test"]


def test_a_release_waiting_at_the_gate_ends_when_the_user_goes_back():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "rollout"}))
    play.edit("v2")
    play.tick()
    play.edit("v1")
    assert play.line()[0] == "Failed"
    assert play.line() == ("Failed", 0, [])


def test_an_approval_is_for_one_revision():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "rollout"}))
    play.edit("v2")
    play.tick()
    play.edit("v3")
    play.order("approve", revision="v2", gate="rollout")
    assert play.line()[0] == "Waiting"
    assert play.status.last_applied == "v3"


def test_each_traffic_increase_needs_its_own_approval():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "traffic-increase"}))
    play.edit("v2")
    play.tick()
    assert play.line()[1] == 0
    play.order("approve", gate="traffic-increase/0")
    assert play.line()[1] == 10
    assert play.line()[1] == 10
    play.order("approve", gate="traffic-increase/10")
    assert play.line()[1] == 20


def test_the_promotion_gate_keeps_weight_and_analysis_until_it_is_opened():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "promotion"}))
    play.edit("v2")
    play.until(Phase.WAITING_PROMOTION)
    for _ in range(3):
        assert play.line() == ("WaitingPromotion", 50, [])
    play.order("approve", gate="promotion")
    assert play.line()[0] == "Promoting"


def test_a_canary_that_turns_bad_while_waiting_for_promotion_is_rolled_back():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "promotion"}))
    play.edit("v2")
    play.until(Phase.WAITING_PROMOTION)
    play.measure(success=10.0)
    play.until(Phase.FAILED, limit=3)
    assert play.routing == TO_PRIMARY


def test_abort_after_the_promotion_began_is_refused_in_words():
    play = progressing()
    play.until(Phase.PROMOTING)
    play.order("abort")
    phase, _, texts = play.line()
    assert phase == "Finalising"
    assert "cannot be aborted" in texts[0]


def test_a_malformed_order_is_no_order():
    assert Command.parse("now") is None
    assert Command.parse("v2 yesterday") is None
    assert Command.parse("v2 2027-01-15T08:00:00") is None  # no zone
    assert Command.parse("v2 2027-01-15T08:00:00Z") == Command("v2", START)
    assert str(Command("v2", START, "rollout")) == "v2 2027-01-15T08:00:00Z rollout"


def test_a_decision_of_a_paused_release_moves_nothing():
    play = progressing()
    play.commands = Commands(pause=True)
    assert not any(isinstance(action, SetRouting) for action in play.tick().actions)


# ---------------------------------------------------------------- the emergency brake


def suspended(weight: int = 20) -> Play:
    play = progressing(weight)
    play.spec = replace(play.spec, suspend=True)
    play.tick()
    return play


SKIPPED = "skipping canary run as object is suspended"


def test_a_suspended_release_is_aborted_and_stays_suspended():
    play = suspended()
    play.order("abort")
    aborted = ["Rolling back podinfo.test aborted by hand", "Canary failed! Scaling down podinfo.test"]
    assert play.line() == ("Failed", 0, aborted)
    assert (play.target.replicas, play.primary.revision) == (0, "v1")
    for _ in range(3):
        assert play.line() == ("Failed", 0, [SKIPPED])
    play.spec = replace(play.spec, suspend=False)
    assert play.line() == ("Failed", 0, [])


def test_the_abort_of_a_suspended_release_waits_for_no_interval():
    play = suspended()
    play.due = False
    play.order("abort")
    assert play.line()[:2] == ("Failed", 0)


def test_a_suspended_release_is_aborted_whatever_its_target_says_by_now():
    play = suspended()
    play.edit("v3")  # begins nothing: it is suspended, and a part of the requests meets v3
    play.order("abort", revision="v2")
    assert play.line()[:2] == ("Failed", 0)
    play.spec = replace(play.spec, suspend=False)
    assert play.line() == ("Progressing", 0, ["New revision detected! Scaling up podinfo.test"])


def test_a_suspended_release_whose_target_is_gone_is_aborted():
    play = suspended()
    play.order("abort")
    play.delete_target()
    assert play.line()[:2] == ("Failed", 0)
    assert play.line() == ("Failed", 0, [SKIPPED])


def test_a_suspended_release_that_waits_at_its_gate_is_aborted():
    play = Play.initialised(canary_spec(annotations={"meshproxy.dev/confirm": "rollout"}))
    play.edit("v2")
    play.tick()
    play.spec = replace(play.spec, suspend=True)
    play.order("abort")
    assert play.line()[0] == "Failed"


def test_no_other_order_moves_a_suspended_release():
    for verb in ("promote", "retry", "approve"):
        play = suspended()
        play.order(verb)
        assert play.line() == ("Progressing", 20, [SKIPPED])


def test_an_abort_of_an_earlier_run_does_not_end_a_suspended_release():
    play = suspended()
    play.order("abort", at=play.status.run_started - 1)
    assert play.line() == ("Progressing", 20, [SKIPPED])


def test_a_crash_in_the_abort_of_a_suspended_release_leaves_it_to_be_aborted():
    for after in range(3):
        play = suspended()
        play.order("abort")
        play.tick(crash_after=after)
        play.tick()
        assert (play.status.phase, play.routing, play.target.replicas) == (Phase.FAILED, TO_PRIMARY, 0)
