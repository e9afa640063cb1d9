"""Releases by a ReleasePolicy, from its manifest to the end: steps, pauses, windows, warm-up, promotion steps, groups.

Run by the real controller on a simulated world, so that a release of hours is a second."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_canary_policy import policy_object
from test_canary_simulate import canary

from control.canary.simulate.given import Given, GivenError, check, load
from control.canary.simulate.model import parse_scenario
from control.canary.simulate.timeline import Entry, Outcome, Timeline
from control.canary.simulate.world import World

MONDAY = 1_767_603_600.0  # 2026-01-05 09:00 UTC


def play(tmp_path: Path, *objects: dict[str, Any], scenarios: tuple[str, ...] = (), **given: Any) -> Timeline:
    path = tmp_path / "manifests.yaml"
    path.write_text(yaml.safe_dump_all([copy.deepcopy(obj) for obj in objects]))
    faults = [(text.partition("=")[0] if "=" in text else "", parse_scenario(text.rpartition("=")[2])) for text in scenarios]
    return asyncio.run(World(load(path), Given(faults=faults, **given)).run())


def weights(timeline: Timeline, name: str = "podinfo.test") -> list[tuple[float, float]]:
    """(seconds, weight) each time the weight changed."""
    found: list[tuple[float, float]] = []
    for entry in timeline.of(name):
        if not found or found[-1][1] != entry.weight:
            found.append((round(entry.at), entry.weight))
    return found


def texts(entries: list[Entry]) -> list[str]:
    return [said.text for entry in entries for said in entry.said]


def test_a_release_follows_the_list_of_steps_from_a_quarter_percent_on(tmp_path: Path):
    steps = [{"weight": 0.25, "duration": "30s"}, {"weight": 12.5, "duration": "1m"}, {"weight": 100, "duration": "10s"}]
    timeline = play(tmp_path, canary(), policy_object(steps=steps))
    assert timeline.outcome is Outcome.PROMOTED
    assert weights(timeline) == [(10, 0), (20, 0.25), (50, 12.5), (110, 100), (130, 0)]
    assert "Advance podinfo.test canary weight 0.25" in texts(timeline.of("podinfo.test"))


def test_a_bad_canary_is_rolled_back_at_the_step_where_it_is_bad(tmp_path: Path):
    timeline = play(tmp_path, canary(), policy_object(steps=[{"weight": 1}, {"weight": 20}]), scenarios=("errors:5%@20%",))
    assert timeline.outcome is Outcome.ROLLED_BACK
    assert [weight for _, weight in weights(timeline)] == [0, 1, 20, 0]


def test_a_step_with_a_pause_waits_until_a_person_approves_it(tmp_path: Path):
    objects = (canary(), policy_object(steps=[{"weight": 5, "pause": True}, {"weight": 50}]))
    timeline = play(tmp_path, *objects, denied={"step/1": None}, limit_s=600)
    assert (timeline.outcome, weights(timeline)[-1]) == (Outcome.UNDECIDED, (20, 5))
    assert "waiting for approval of step 1" in timeline.waits_for
    assert play(tmp_path, *objects, denied={"step/1": 3}).outcome is Outcome.PROMOTED
    failing = play(tmp_path, *objects, denied={"step/1": None}, scenarios=("errors:50%@5m",))
    assert failing.outcome is Outcome.ROLLED_BACK, "to wait is not to look away"


def test_a_step_needs_its_requests(tmp_path: Path):
    objects = (canary(), policy_object(steps=[{"weight": 5, "minRequests": 40}, {"weight": 50}]))
    fast, slow = (play(tmp_path, *objects, rate=rate) for rate in (20.0, 2.0))
    assert weights(fast)[2] == (20 + 40, 50), "one a second reaches the canary"
    assert weights(slow)[2] == (20 + 400, 50), "more than any metric's window holds"
    assert fast.outcome is slow.outcome is Outcome.PROMOTED


def test_a_step_that_wants_requests_waits_for_them_as_long_as_its_policy_has_patience(tmp_path: Path):
    quiet = {"rate": 0.1}  # one request to the canary in 200 s
    steps = [{"weight": 5, "minRequests": 3}, {"weight": 50}]
    assert play(tmp_path, canary(), policy_object(steps=[{"weight": 5}, *steps[1:]]), **quiet).outcome is Outcome.ROLLED_BACK
    waited = play(tmp_path, canary(), policy_object(steps=steps), limit_s=1200, **quiet)
    assert weights(waited)[:2] == [(10, 0), (20, 5)]
    assert "Canary podinfo.test needs 3 requests at weight 5 before it goes on" in texts(waited.of("podinfo.test"))
    impatient = play(tmp_path, canary(), policy_object(steps=steps, maxWait="5m"), limit_s=1200, **quiet)
    assert impatient.outcome is Outcome.ROLLED_BACK
    assert 300 <= impatient.entries[-1].at <= 360
    failing = play(tmp_path, canary(), policy_object(steps=steps), limit_s=1200, scenarios=("down",), **quiet)
    assert failing.outcome is Outcome.ROLLED_BACK, "not to know is not the same as few"


def test_a_step_has_checks_of_its_own(tmp_path: Path):
    check = {"name": "checkout-errors", "query": "vector(0)", "thresholdRange": {"max": 1}, "interval": "1m"}
    objects = (canary(), policy_object(steps=[{"weight": 5}, {"weight": 10, "checks": [check]}, {"weight": 20}]))
    timeline = play(tmp_path, *objects)
    seen = [(entry.weight, [s.metric for s in entry.seen]) for entry in timeline.of("podinfo.test") if entry.seen]
    assert [weight for weight, metrics in seen if "checkout-errors" in metrics] == [20]  # looked at before 20 is set
    failing = play(tmp_path, *objects, scenarios=("checkout-errors:7",))
    assert failing.outcome is Outcome.ROLLED_BACK
    assert max(weight for _, weight in weights(failing)) == 10
    assert "Halt podinfo.test advancement checkout-errors 7.00 > 1" in texts(failing.of("podinfo.test"))


def test_outside_its_window_a_release_holds_and_says_when_it_opens(tmp_path: Path):
    window = {"days": ["Mon"], "from": "09:00", "to": "09:01"}
    later = {"days": ["Mon"], "from": "09:10", "to": "12:00", "timeZone": "UTC"}
    timeline = play(tmp_path, canary(), policy_object(windows=[window, later]))
    assert timeline.outcome is Outcome.PROMOTED
    said = texts(timeline.of("podinfo.test"))
    assert "Halt podinfo.test advancement waiting for its window, which opens Mon 2026-01-05 09:10 UTC" in said
    grown = [at for at, weight in weights(timeline) if weight]
    assert {at < 60 for at in grown} == {True, False}
    assert not [at for at in grown if 60 <= at < 570]
    bad = play(tmp_path, canary(), policy_object(windows=[window]), scenarios=("errors:9%@3m",), limit_s=3600)
    assert bad.outcome is Outcome.ROLLED_BACK, "what is bad is rolled back at any hour"


def test_while_it_warms_up_a_canary_is_not_judged(tmp_path: Path):
    slow_at_first = ("errors:50%", "request-success-rate:100@40s")
    assert play(tmp_path, canary(), policy_object(), scenarios=slow_at_first).outcome is Outcome.ROLLED_BACK
    warm = play(tmp_path, canary(), policy_object(warmUp="45s"), scenarios=slow_at_first)
    assert warm.outcome is Outcome.PROMOTED
    assert [weight for _, weight in weights(warm)] == [0, 10, 20, 30, 40, 50, 0]


def test_promotion_steps_give_the_traffic_back_slowly(tmp_path: Path):
    policy = policy_object(steps=[{"weight": 50}], promotionSteps=[{"weight": 60, "duration": "30s"}, {"weight": 99.5}])
    timeline = play(tmp_path, canary(), policy)
    assert [weight for _, weight in weights(timeline)] == [0, 50, 40, 0.5, 0]
    said = texts(timeline.of("podinfo.test"))
    assert [text for text in said if "primary weight" in text] == [
        "Advance podinfo.test primary weight 60",
        "Advance podinfo.test primary weight 99.5",
        "Advance podinfo.test primary weight 100",
    ]


def back(timeline: Timeline) -> list[tuple[float, float]]:
    """The weights of the promotion, in seconds since it began."""
    begun = next(round(entry.at) for entry in timeline.entries if entry.phase == "Promoting")
    return [(at - begun, weight) for at, weight in weights(timeline) if at > begun]


ORDERS_LOST = {"name": "orders-lost", "query": "vector(0)", "thresholdRange": {"max": 0}, "interval": "10s"}


def test_a_promotion_step_with_a_pause_waits_until_a_person_approves_it(tmp_path: Path):
    giving_back = [{"weight": 60, "duration": "30s", "pause": True}, {"weight": 90}]
    objects = (canary(), policy_object(steps=[{"weight": 50}], promotionSteps=giving_back))
    approved = play(tmp_path, *objects)
    assert (approved.outcome, back(approved)) == (Outcome.PROMOTED, [(10, 40), (50, 10), (60, 0)])
    late = play(tmp_path, *objects, denied={"promotion-step/1": 4})
    assert (late.outcome, back(late)) == (Outcome.PROMOTED, [(10, 40), (90, 10), (100, 0)])
    never = play(tmp_path, *objects, denied={"promotion-step": None}, limit_s=900)
    assert (never.outcome, back(never)) == (Outcome.UNDECIDED, [(10, 40)])
    assert "waiting for approval of promotion step 1" in never.waits_for
    check(objects, Given(denied={"promotion-step/1": None}))
    with pytest.raises(GivenError, match="there is no webhook or gate 'step/1'"):
        check(objects, Given(denied={"step/1": None}))


def test_a_promotion_step_has_checks_of_its_own(tmp_path: Path):
    giving_back = [{"weight": 60}, {"weight": 90, "duration": "30s", "checks": [ORDERS_LOST]}]
    objects = (canary(), policy_object(steps=[{"weight": 50}], promotionSteps=giving_back))
    good = play(tmp_path, *objects)
    assert (good.outcome, back(good)) == (Outcome.PROMOTED, [(10, 40), (20, 10), (50, 0)])
    seen = [(entry.phase, [s.metric for s in entry.seen]) for entry in good.entries if "orders-lost" in str(entry.seen)]
    assert seen == [("Promoting", ["orders-lost"])] * 2 + [("Finalising", ["orders-lost"])]
    check(objects, Given(faults=[("", parse_scenario("bad:orders-lost"))]))
    failing = play(tmp_path, *objects, scenarios=("orders-lost:7",))
    assert (failing.outcome, back(failing)) == (Outcome.ROLLED_BACK, [(10, 40), (20, 10), (40, 100)])
    said = texts(failing.entries)
    assert "Promotion of podinfo.test failed, the new primary fails its checks: orders-lost 7.00 > 0" in said


def test_a_built_in_check_of_a_promotion_step_is_about_the_primary(tmp_path: Path):
    success = {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "10s"}
    policy = policy_object(steps=[{"weight": 50}], promotionSteps=[{"weight": 80, "duration": "1m", "checks": [success]}])
    worse = play(tmp_path, canary(), policy, scenarios=("errors:9%@70%",))  # the canary never had that much
    assert (worse.outcome, back(worse)) == (Outcome.ROLLED_BACK, [(10, 20), (30, 100)])


def test_the_canarys_own_steps_do_where_the_policy_has_none(tmp_path: Path):
    assert weights(play(tmp_path, canary(), policy_object(maxWait="1m"))) == weights(play(tmp_path, canary()))


# ---------------------------------------------------------------- several as one


def group(*members: str, **policy: Any) -> list[dict[str, Any]]:
    steps = policy.pop("steps", [{"weight": 10}, {"weight": 50}])
    return [canary(), *(canary(name) for name in members), policy_object(steps=steps, members=list(members), **policy)]


def test_members_advance_together_and_are_promoted_together(tmp_path: Path):
    objects = group("cart", "web")
    objects[1]["spec"]["analysis"]["interval"] = "40s"  # the slowest sets the pace
    timeline = play(tmp_path, *objects)
    assert timeline.outcome is Outcome.PROMOTED
    starts = {name: {w: at for at, w in weights(timeline, name)} for name in timeline.outcomes}
    passed = {name: next(e.at for e in timeline.of(name) if e.phase == "Promoting") for name in timeline.outcomes}
    assert max(begun[50] for begun in starts.values()) - min(begun[50] for begun in starts.values()) <= 40
    assert min(passed.values()) > max(begun[50] for begun in starts.values()), (
        "nobody is promoted before all had their last step"
    )


@pytest.mark.parametrize(("bad", "when"), [("podinfo", ""), ("cart", "@50%"), ("web", "@10%")])
def test_one_that_fails_takes_all_with_it(tmp_path: Path, bad: str, when: str):
    timeline = play(tmp_path, *group("cart", "web"), scenarios=(f"{bad}=errors:20%{when}",))
    assert set(timeline.outcomes.values()) == {Outcome.ROLLED_BACK}
    others = [name for name in timeline.outcomes if not name.startswith(bad)]
    for name in others:
        assert any("released with it, failed" in text for text in texts(timeline.of(name)))
    assert not any(entry.phase == "Promoting" for entry in timeline.entries)


def test_a_member_whose_pods_never_get_ready_holds_the_others_at_nothing(tmp_path: Path):
    timeline = play(tmp_path, *group("cart"), scenarios=("cart=unready",))
    assert set(timeline.outcomes.values()) == {Outcome.ROLLED_BACK}
    assert max(entry.weight for entry in timeline.entries) == 0


def test_a_gate_of_one_member_holds_all_before_the_promotion(tmp_path: Path):
    objects = group("cart")
    objects[1]["metadata"]["annotations"] = {"meshproxy.dev/confirm": "promotion"}
    timeline = play(tmp_path, *objects, denied={"promotion": None}, limit_s=600)
    assert set(timeline.outcomes.values()) == {Outcome.UNDECIDED}
    assert "the other members of the release: cart (step 2)" in timeline.waits_for
    assert play(tmp_path, *objects, denied={"promotion": 4}).outcome is Outcome.PROMOTED


def test_a_member_that_cannot_go_by_steps_is_refused_by_name(tmp_path: Path):
    objects = group("cart")
    objects[1]["spec"]["analysis"] = {"interval": "10s", "threshold": 2, "iterations": 3}
    with pytest.raises(Exception, match=r"Canary cart is released with others by ReleasePolicy podinfo.*iterations"):
        play(tmp_path, *objects)
