"""Golden timelines of each strategy: tick by tick, the phase, where requests go, the iterations, who was asked, what was said.

row = phase, canary percent ("m": mirrored), iterations, asked, events
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from canary_plays import Play, canary_spec, stuck, waiting

from control.canary.declared.hooks import HookResult
from control.canary.facts import READY
from control.canary.machine import machine, strategy
from control.canary.machine.decision import KeepUntilReverted, TellHook
from control.canary.machine.routing import Routing
from control.canary.machine.status import PRIMARY_READY, Phase

NO = HookResult(False, "no")
MATCH = [{"headers": {"x-canary": {"exact": "insider"}}}]
AB = {"stepWeight": 0, "iterations": 3, "match": MATCH}
BLUE_GREEN = {"stepWeight": 0, "iterations": 2}
START = "Starting canary analysis for podinfo.test"
COPY = "Copying podinfo.test template spec to podinfo-primary.test"
TO_PRIMARY = "Routing all traffic to primary"
DONE = "Promotion completed! Scaling down podinfo.test"
NEW = "New revision detected! Scaling up podinfo.test"
SICK = "Halt podinfo.test advancement success rate 50.00% < 99%"
ROLL_BACK = ["Rolling back podinfo.test failed checks threshold reached 2", "Canary failed! Scaling down podinfo.test"]


def hook(kind: str, name: str, **more: object) -> dict[str, object]:
    return {"type": kind, "name": name, "url": f"http://{name}.test/", **more}


def row(play: Play) -> tuple[str, str, int, str, list[str]]:
    decision = play.tick()
    where = f"{play.routing.canary:g}{'m' if play.routing.mirrored else ''}"
    return play.status.phase.value, where, play.status.iterations, " ".join(play.asked), [e.text for e in decision.events]


def released(analysis: dict[str, object] | None = None, **spec: object) -> Play:
    play = Play.initialised(canary_spec(analysis, **spec))
    play.edit("v2")
    assert row(play)[4] == [NEW]
    return play


def advance(weight: int) -> str:
    return f"Advance podinfo.test canary weight {weight}"


def iteration(number: int, of: int) -> str:
    return f"Advance podinfo.test canary iteration {number}/{of}"


# ---------------------------------------------------------------- that all goes well


def test_a_b_testing_sends_those_who_match_to_the_canary_for_its_iterations_and_promotes():
    play = released(AB)
    assert [row(play) for _ in range(7)] == [
        ("Progressing", "100", 1, "", [START, iteration(1, 3)]),
        ("Progressing", "100", 2, "metrics", [iteration(2, 3)]),
        ("Progressing", "100", 3, "metrics", [iteration(3, 3)]),
        ("Promoting", "100", 3, "metrics", [COPY]),
        ("Finalising", "0", 0, "", [TO_PRIMARY]),
        ("Succeeded", "0", 0, "", [DONE]),
        ("Succeeded", "0", 0, "", []),
    ]
    assert play.primary.revision == "v2"


def test_blue_green_leaves_requests_on_the_primary_then_sends_all_to_the_canary_and_looks_once_more():
    play = released(BLUE_GREEN)
    assert [row(play) for _ in range(6)] == [
        ("Progressing", "0", 1, "", [START, iteration(1, 2)]),
        ("Progressing", "0", 2, "metrics", [iteration(2, 2)]),
        ("Progressing", "100", 3, "metrics", ["Routing all traffic to canary"]),
        ("Promoting", "100", 3, "metrics", [COPY]),
        ("Finalising", "0", 0, "", [TO_PRIMARY]),
        ("Succeeded", "0", 0, "", [DONE]),
    ]


def test_blue_green_with_mirroring_copies_requests_during_the_iterations():
    play = released({**BLUE_GREEN, "mirror": True})
    assert [row(play) for _ in range(5)] == [
        ("Progressing", "0m", 1, "", [START, iteration(1, 2)]),
        ("Progressing", "0m", 2, "metrics", [iteration(2, 2)]),
        ("Progressing", "100", 3, "metrics", ["Stop traffic mirroring and route all traffic to canary"]),
        ("Promoting", "100", 3, "metrics", [COPY]),
        ("Finalising", "0", 0, "", [TO_PRIMARY]),
    ]


def test_weights_with_mirroring_have_one_mirrored_step_first():
    play = released({"mirror": True, "stepWeight": 50, "webhooks": [hook("confirm-traffic-increase", "more")]})
    assert [row(play) for _ in range(5)] == [
        ("Progressing", "0m", 1, "more", [START, "Confirm-traffic-increase check more passed", advance(0)]),
        ("Progressing", "50", 0, "metrics", [advance(50)]),  # mirrored: nobody is asked, as in Flagger
        ("Promoting", "50", 0, "metrics more", ["Confirm-traffic-increase check more passed", COPY]),
        ("Finalising", "0", 0, "", [TO_PRIMARY]),
        ("Succeeded", "0", 0, "", [DONE]),
    ]


def test_provider_kubernetes_is_blue_green_without_any_routing():
    play = released({"stepWeight": 0, "iterations": 2}, provider="kubernetes")
    assert [row(play) for _ in range(6)] == [
        ("Progressing", "0", 1, "", [START, iteration(1, 2)]),
        ("Progressing", "0", 2, "metrics", [iteration(2, 2)]),
        ("Progressing", "0", 3, "metrics", []),
        ("Promoting", "0", 3, "metrics", [COPY]),
        ("Finalising", "0", 0, "", []),
        ("Succeeded", "0", 0, "", [DONE]),
    ]


def test_provider_kubernetes_makes_ten_iterations_of_weights_and_chooses_nobody_by_header():
    spec = canary_spec({"match": MATCH}, provider="kubernetes")
    assert (strategy.strategy(spec), spec.iterations) == (strategy.Strategy.BLUE_GREEN, 10)
    assert any("iterations is 10" in text for text in spec.ignored)


def test_what_is_ignored_is_told_at_the_beginning_in_the_words_of_lint():
    spec = canary_spec(service={"port": 80, "gateways": ["mesh"]}, provider="kubernetes")
    play = Play(spec)
    play.tick()
    assert [text for text in play.texts() if "ignored" in text] == [
        "ignored: spec.analysis: weights, as provider kubernetes routes no requests: iterations is 10",
        "ignored: spec.service.gateways: Istio's gateways are not this mesh's",
    ]


# ---------------------------------------------------------------- webhooks


def test_webhooks_are_asked_in_flaggers_order_and_places():
    webhooks = [
        hook("confirm-promotion", "promote?"),
        hook("rollout", "load"),
        hook("rollback", "back?"),
        hook("pre-rollout", "smoke"),
        hook("confirm-rollout", "begin?"),
        hook("", "load2"),
        hook("confirm-traffic-increase", "more?"),
        hook("post-rollout", "bye"),
        hook("event", "log"),
    ]
    play = Play.initialised(canary_spec({"webhooks": webhooks, "stepWeight": 50}))
    play.edit("v2")
    silent = "Rollback hook back? not signaling a rollback"
    more = "Confirm-traffic-increase check more? passed"
    assert [row(play) for _ in range(5)] == [
        ("Progressing", "0", 0, "begin?", ["Confirm-rollout check begin? passed", NEW]),
        ("Progressing", "50", 0, "back? smoke more?", [silent, START, "Pre-rollout check smoke passed", more, advance(50)]),
        (
            "Promoting",
            "50",
            0,
            "back? load load2 metrics more? promote?",
            [silent, more, "Confirm-promotion check promote? passed", COPY],
        ),
        ("Finalising", "0", 0, "", [TO_PRIMARY]),
        ("Succeeded", "0", 0, "", [DONE]),
    ]
    told = [(n.hook.name, n.phase) for n in play.decisions[-1].notices if isinstance(n, TellHook)]
    assert told == [("bye", "Succeeded")]


def test_confirm_rollout_holds_the_release_before_any_pod_until_it_agrees():
    play = Play.initialised(canary_spec({"webhooks": [hook("confirm-rollout", "begin?")]}))
    play.edit("v2")
    play.hooks["begin?"] = NO
    halt = "Halt podinfo.test advancement waiting for approval begin?"
    assert [row(play) for _ in range(3)] == [
        ("Waiting", "0", 0, "begin?", [halt]),
        ("Waiting", "0", 0, "begin?", []),
        ("Waiting", "0", 0, "begin?", []),
    ]
    assert (play.target.replicas, play.status.failed_checks) == (0, 0)
    assert [n.text for d in play.decisions for n in d.notices if n.severity == "warn"] == ["Canary is waiting for approval."]
    del play.hooks["begin?"]
    assert row(play) == ("Progressing", "0", 0, "begin?", ["Confirm-rollout check begin? passed", NEW])


def test_a_waiting_release_is_not_asked_about_between_its_ticks():
    play = Play.initialised(canary_spec({"webhooks": [hook("confirm-rollout", "begin?")]}))
    play.edit("v2")
    play.hooks["begin?"] = NO
    play.due = False
    assert row(play)[:4] == ("Waiting", "0", 0, "begin?")  # new: asked at once
    assert row(play)[:4] == ("Waiting", "0", 0, "")


def test_a_rollback_hook_ends_a_release_that_waits():
    play = Play.initialised(canary_spec({"webhooks": [hook("confirm-rollout", "begin?"), hook("rollback", "back?")]}))
    play.edit("v2")
    play.hooks = {"begin?": NO, "back?": HookResult(True)}
    assert row(play)[0] == "Waiting"
    assert row(play) == (
        "Failed",
        "0",
        0,
        "back?",
        [
            "Rollback check back? passed",
            "Rolling back podinfo.test manual webhook invoked",
            "Canary failed! Scaling down podinfo.test",
        ],
    )


def test_a_pre_rollout_check_that_fails_is_a_failed_check():
    play = released({"webhooks": [hook("pre-rollout", "smoke")]})
    play.hooks["smoke"] = HookResult(False, "500")
    failed = "Halt podinfo.test advancement pre-rollout check smoke failed 500"
    assert [row(play) for _ in range(3)] == [
        ("Progressing", "0", 0, "smoke", [START, failed]),
        ("Progressing", "0", 0, "smoke", [START, failed]),
        ("Failed", "0", 0, "", ROLL_BACK),
    ]


def test_a_rollout_check_that_fails_is_a_failed_check_and_metrics_are_not_looked_at():
    play = released({"webhooks": [hook("rollout", "load"), hook("rollout", "second")]})
    row(play)
    play.hooks["load"] = HookResult(False, "refused")
    failed = "Halt podinfo.test advancement external check load failed refused"
    assert [row(play) for _ in range(3)] == [
        ("Progressing", "10", 0, "load", [failed]),
        ("Progressing", "10", 0, "load", [failed]),
        ("Failed", "0", 0, "", ROLL_BACK),
    ]


def test_confirm_traffic_increase_holds_the_weight_counts_nothing_and_alerts_once_a_weight():
    play = released({"webhooks": [hook("confirm-traffic-increase", "more?")]})
    row(play)
    play.hooks["more?"] = NO
    halt = "Halt podinfo.test advancement waiting for traffic increase approval more?"
    assert [row(play) for _ in range(2)] == [("Progressing", "10", 0, "metrics more?", [halt])] * 2
    assert play.status.condition("Promoted").message == "Waiting for approval of more? at weight 10."
    assert play.status.failed_checks == 0
    del play.hooks["more?"]
    assert row(play)[1] == "20"
    assert play.status.condition("Promoted").message == "New revision detected, progressing canary analysis."
    play.hooks["more?"] = NO
    row(play)
    waiting = [n.text for d in play.decisions for n in d.notices if n.severity == "warn"]
    assert waiting == ["Canary traffic increase is waiting for approval."] * 2  # at 10 and at 20


@pytest.mark.parametrize(
    ("analysis", "before"),
    [({"stepWeight": 50}, ("50", 0)), (AB, ("100", 3)), (BLUE_GREEN, ("0", 2)), ({**BLUE_GREEN, "mirror": True}, ("0m", 2))],
)
def test_confirm_promotion_holds_everything_as_it_is_while_analysis_goes_on(analysis, before):
    play = released({**analysis, "webhooks": [hook("confirm-promotion", "promote?")]})
    play.hooks["promote?"] = NO
    play.until(Phase.WAITING_PROMOTION)
    assert [row(play) for _ in range(2)] == [("WaitingPromotion", *before, "metrics promote?", [])] * 2
    assert [n.text for d in play.decisions for n in d.notices if n.severity == "warn"] == [
        "Canary promotion is waiting for approval."
    ]
    del play.hooks["promote?"]
    play.until(Phase.SUCCEEDED, limit=5)


@pytest.mark.parametrize("analysis", [{"stepWeight": 50}, AB, BLUE_GREEN, {**BLUE_GREEN, "mirror": True}])
def test_what_turns_bad_while_waiting_for_promotion_is_rolled_back(analysis):
    play = released({**analysis, "webhooks": [hook("confirm-promotion", "promote?")]})
    play.hooks["promote?"] = NO
    play.until(Phase.WAITING_PROMOTION)
    play.measure(success=50.0)
    assert [row(play)[4] for _ in range(3)] == [[SICK], [SICK], ROLL_BACK]
    assert play.routing == Routing(0)


def test_blue_green_asks_before_the_switch_and_before_the_copy():
    play = released({**BLUE_GREEN, "webhooks": [hook("confirm-promotion", "promote?")]})
    asked = []
    while play.status.phase is Phase.PROGRESSING:
        asked.append((row(play)[1], play.asked))
    assert asked == [
        ("0", []),
        ("0", ["metrics"]),
        ("100", ["metrics", "promote?"]),
        ("100", ["metrics", "promote?"]),
    ]


# ---------------------------------------------------------------- that it goes badly

STRATEGIES = [
    pytest.param({}, "10", id="weights"),
    pytest.param({"mirror": True}, "0m", id="weights, mirrored"),
    pytest.param(AB, "100", id="a/b"),
    pytest.param(BLUE_GREEN, "0", id="blue/green"),
    pytest.param({**BLUE_GREEN, "mirror": True}, "0m", id="blue/green, mirrored"),
]


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_failed_checks_roll_back_the_tick_after_the_threshold(analysis, where):
    play = released(analysis)
    begun = row(play)
    play.measure(success=50.0)
    assert [row(play) for _ in range(4)] == [
        ("Progressing", where, begun[2], "metrics", [SICK]),
        ("Progressing", where, begun[2], "metrics", [SICK]),
        ("Failed", "0", 0, "", ROLL_BACK),
        ("Failed", "0", 0, "", []),
    ]
    assert (play.target.replicas, play.primary.revision) == (0, "v1")


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_a_rollback_hook_that_says_yes_rolls_back_at_once(analysis, where):
    play = released({**analysis, "webhooks": [hook("rollback", "back?")]})
    assert row(play)[1] == where
    play.hooks["back?"] = HookResult(True)
    phase, weight, _, asked, texts = row(play)
    assert (phase, weight, asked) == ("Failed", "0", "back?")
    assert texts[1] == "Rolling back podinfo.test manual webhook invoked"


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_pods_that_are_stuck_are_rolled_back(analysis, where):
    play = released(analysis)
    assert row(play)[1] == where
    play.target = replace(play.target, readiness=stuck())
    phase, weight, _, _, texts = row(play)
    assert (phase, weight) == ("Failed", "0")
    assert 'Rolling back podinfo.test progress deadline exceeded deployment "podinfo" exceeded its progress deadline' in texts


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_a_newer_revision_begins_again_from_nothing(analysis, where):
    play = released(analysis)
    assert row(play)[1] == where
    play.edit("v3")
    restarted = "New revision detected! Restarting analysis for podinfo.test"
    assert row(play) == ("Progressing", "0", 0, "", [restarted])
    assert row(play)[1] == where
    play.until(Phase.SUCCEEDED)
    assert play.primary.revision == "v3"


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_a_target_deleted_under_the_analysis_fails_it_with_all_requests_on_the_primary(analysis, where):
    play = released(analysis)
    assert row(play)[1] == where
    play.delete_target()
    phase, weight, _, _, texts = row(play)
    assert (phase, weight) == ("Failed", "0")
    assert texts[1] == "Rolling back podinfo.test the target is gone"
    assert row(play)[4] == ["deployment podinfo.test not found"]


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_a_target_deleted_once_it_was_copied_is_promoted_all_the_same(analysis, where):
    play = released(analysis)
    play.until(Phase.PROMOTING)
    play.delete_target()
    assert row(play)[:2] == ("Finalising", "0")
    assert row(play)[:2] == ("Succeeded", "0")
    assert play.primary.revision == "v2"


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_a_primary_stuck_while_promoting_leaves_everyone_on_the_canary(analysis, where):
    play = released(analysis)
    play.until(Phase.PROMOTING)
    play.primary = replace(play.primary, readiness=stuck())
    phase, weight, _, _, texts = row(play)
    assert (phase, weight) == ("Failed", "100")
    assert play.routing.everyone == bool(play.spec.match)  # also those who do not match; without a match all are one
    assert texts[-1].startswith("Promotion of podinfo.test failed, primary not ready: ")
    assert play.target.replicas == 2
    assert row(play)[:2] == ("Failed", "100")


def test_a_promotion_tried_again_leaves_everyone_on_the_canary_until_the_primary_is_ready():
    play = released(AB)
    play.until(Phase.PROMOTING)
    play.primary = replace(play.primary, readiness=stuck())
    play.until(Phase.FAILED)
    for fails in (True, False):
        play.order("promote", at=play.now)
        assert row(play)[:2] == ("Promoting", "100")
        assert play.status.condition(PRIMARY_READY) is not None
        assert play.routing == Routing(100, everyone=True)
        play.primary = replace(play.primary, readiness=waiting())
        assert row(play)[:2] == ("Promoting", "100")
        assert play.routing == Routing(100, everyone=True)
        play.primary = replace(play.primary, readiness=stuck() if fails else READY)
        row(play)
        assert play.status.condition(PRIMARY_READY) is None
        assert play.routing == (Routing(100, everyone=True) if fails else Routing(0))
        assert play.status.phase is (Phase.FAILED if fails else Phase.FINALISING)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (AB, {"stepWeight": 10}),
        (BLUE_GREEN, {"stepWeight": 10}),
        ({}, AB),
        ({}, BLUE_GREEN),
        (AB, {**BLUE_GREEN, "iterations": 9}),
    ],
)
def test_an_analysis_changed_to_another_strategy_begins_again_rather_than_read_its_weights_otherwise(first, second):
    play = released(first)
    while not play.routing.canary:
        row(play)
    play.spec = canary_spec(second)
    changed = "Analysis changed to another strategy! Restarting analysis for podinfo.test"
    assert row(play) == ("Progressing", "0", 0, "", [changed])
    play.until(Phase.SUCCEEDED)


def test_routes_that_are_not_accepted_hold_the_release_and_roll_it_back_at_the_deadline():
    play = released(progressDeadlineSeconds=25)
    row(play)
    play.routing_problem = "HTTPRoute podinfo.test parent web is not ready"
    assert [row(play)[4] for _ in range(2)] == [[play.routing_problem]] * 2
    assert row(play)[0] == "Failed"
    assert play.decisions[-1].events[1].text == (f"Rolling back podinfo.test progress deadline exceeded {play.routing_problem}")


# ---------------------------------------------------------------- between releases


def test_a_target_scaled_up_by_another_hand_between_releases_is_scaled_down_with_a_warning():
    play = Play.initialised(canary_spec())
    play.target = replace(play.target, replicas=3)
    _, _, _, _, (text,) = row(play)
    assert text.startswith("deployment podinfo.test was scaled to 3 between releases")
    assert play.target.replicas == 0


def test_a_service_edited_by_another_hand_is_put_right_with_a_warning():
    play = released()
    row(play)
    play.apex_ok = False
    phase, weight, _, _, texts = row(play)
    assert (phase, weight) == ("Progressing", "20")
    assert texts[0] == "service podinfo.test is not as podinfo.test wants it; putting it right"
    assert play.apex_ok


def test_a_failed_revision_is_tried_again_on_order_and_not_otherwise():
    play = released()
    play.hooks = {}
    row(play)
    play.measure(success=0.0)
    play.until(Phase.FAILED)
    play.measure()
    play.order("retry", at=play.now - 1000)
    assert row(play)[0] == "Failed"  # an order older than the failure
    play.order("retry")
    assert row(play)[4] == [NEW]
    play.until(Phase.SUCCEEDED)
    assert play.primary.revision == "v2"


# ---------------------------------------------------------------- what people hear


def test_alerts_carry_flaggers_texts_and_severities():
    play = Play(canary_spec({"stepWeight": 50}))
    fields = (
        ("Target", "Deployment/podinfo.test"),
        ("Failed checks threshold", "2"),
        ("Progress deadline", "600s"),
        ("Traffic routing", "Weight step: 50 max: 50"),
    )
    for _ in range(2):
        play.tick()
    play.edit("v2")
    play.until(Phase.SUCCEEDED)
    play.edit("v3")
    play.measure(success=0.0)
    play.until(Phase.FAILED)
    heard = [(n.severity, n.text, n.fields) for d in play.decisions for n in d.notices]
    assert heard == [
        ("info", "New Deployment detected, initialization completed.", fields),
        ("info", "New revision detected, progressing canary analysis.", fields),
        ("info", "Canary analysis completed successfully, promotion finished.", ()),
        ("info", "New revision detected, progressing canary analysis.", fields),
        ("error", "Failed checks threshold reached 2", ()),
    ]


@pytest.mark.parametrize(
    ("analysis", "routing"),
    [
        (AB, "A/B Testing"),
        (BLUE_GREEN, "Blue/Green"),
        ({"stepWeight": 0, "stepWeights": [5, 40], "maxWeight": 50}, "Weight steps: 5,40 max: 40"),
    ],
)
def test_an_alert_says_the_strategy(analysis, routing):
    play = Play(canary_spec(analysis))
    for _ in range(2):
        play.tick()
    assert play.decisions[-1].notices[0].fields[-1] == ("Traffic routing", routing)


def test_a_muted_hook_raises_no_alert():
    play = Play.initialised(canary_spec({"webhooks": [hook("confirm-rollout", "begin?", muteAlert=True)]}))
    play.edit("v2")
    play.hooks["begin?"] = NO
    row(play)
    assert play.decisions[-1].notices == ()


def test_session_affinity_has_a_cookie_from_the_first_weight_which_is_of_the_past_afterwards():
    play = released({"sessionAffinity": {"cookieName": "flagger-cookie"}})
    assert play.status.session_affinity_cookie == ""
    row(play)
    cookie = play.status.session_affinity_cookie
    assert cookie.startswith("flagger-cookie=")
    row(play)
    assert play.status.session_affinity_cookie == cookie
    play.until(Phase.SUCCEEDED)
    assert (play.status.session_affinity_cookie, play.status.previous_session_affinity_cookie) == ("", cookie)
    play.edit("v3")
    row(play)
    row(play)
    assert play.status.session_affinity_cookie not in ("", cookie)


# ---------------------------------------------------------------- deletion


def test_a_canary_that_reverts_keeps_a_finalizer_and_one_that_no_longer_does_lets_it_go():
    play = Play.initialised(canary_spec(revertOnDeletion=True))
    assert play.finalizer
    play.spec = canary_spec()
    row(play)
    assert not play.finalizer


def test_where_the_owner_gets_fields_back_every_canary_keeps_a_finalizer():
    play = Play.initialised(canary_spec())
    assert not play.finalizer
    spec, status, facts = play.spec, play.status, play.facts()
    assert machine.tick(spec, status, replace(facts, gives_back=True), play.now).actions == (KeepUntilReverted(),)
    assert machine.tick(spec, status, replace(facts, gives_back=True, finalizer=True), play.now).actions == ()


def test_deleted_when_its_target_can_no_longer_be_selected_it_ends():
    play = Play.initialised(canary_spec(revertOnDeletion=True))
    play.deleting = True
    facts = replace(play.facts(), problem="spec.selector.matchLabels must contain one of app")
    decision = machine.tick(play.spec, play.status, facts, play.now)
    assert (decision.actions, decision.status.phase) == ((), Phase.TERMINATED)
    assert "nothing to give the traffic back to" in decision.events[-2].text


@pytest.mark.parametrize(("analysis", "where"), STRATEGIES)
def test_deleted_it_gives_requests_back_to_the_target_only_once_that_is_ready(analysis, where):
    play = Play.initialised(canary_spec(analysis, revertOnDeletion=True))
    play.edit("v2")
    row(play)
    assert row(play)[1] == where
    play.target = replace(play.target, replicas=0)
    play.deleting = True
    texts = ["Terminating canary podinfo.test", "Scaling up podinfo.test, which gets its traffic back"]
    assert row(play) == ("Terminating", "0", 0, "", texts)
    play.target = replace(play.target, readiness=stuck())
    assert row(play)[0] == "Terminating"
    assert play.apex_ok
    play.target = replace(play.target, readiness=play.primary.readiness)
    assert row(play)[:1] + row(play)[:1] == ("Terminated", "Terminated")
    assert (play.apex_ok, play.finalizer) == (False, False)


def test_deleted_without_the_finalizer_nothing_is_done():
    play = Play.initialised(canary_spec())
    play.deleting = True
    decision = play.tick()
    assert (decision.actions, decision.events) == ((), ())


def test_deleted_after_its_target_it_ends_too():
    play = Play.initialised(canary_spec(revertOnDeletion=True))
    play.delete_target()
    play.deleting = True
    assert row(play)[0] == "Terminated"
    row(play)
    assert not play.finalizer
