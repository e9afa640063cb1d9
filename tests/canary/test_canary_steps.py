"""The rules of steps, windows and groups, one by one: pure functions of statuses and numbers."""

from __future__ import annotations

import pytest
from canary_plays import START, canary_spec
from test_canary_policy import policy

from control.canary.declared.policy import ReleasePolicy, in_force, steps_of
from control.canary.machine import group, steps
from control.canary.machine.group import Member, Stage, member
from control.canary.machine.progress import Progress, State, progress, start, without
from control.canary.machine.status import Phase, Status
from control.canary.machine.steps import Done, Go, Hold, Seen, Wait

LIST = policy(
    steps=[
        {"weight": 0.5, "duration": "30s", "minRequests": 100},
        {"weight": 10, "duration": "1m", "pause": True},
        {"weight": 50},
    ],
    promotionSteps=[{"weight": 60, "duration": "30s"}, {"weight": 90}],
)


def move(at: Progress, now: float, of: ReleasePolicy = LIST, **seen):
    return steps.next_move(of, at, Seen(**seen), 10.0, START + now)


def at(step: int, weight: float, since: float = 0.0, passed: float | None = None, **more) -> Progress:
    found = Progress(step, weight, START + since, **more)
    return found if passed is None else found.to(State.PASSED, START + passed)


def test_the_first_weight_comes_at_once():
    assert move(start(START), 0) == Go(at(1, 0.5))


def test_a_step_lasts_and_has_its_requests_before_the_next():
    assert move(at(1, 0.5), 29, requests=500) == Hold("30 s at weight 0.5")
    assert move(at(1, 0.5), 30, requests=99.5) == Hold("100 requests at weight 0.5")
    assert move(at(1, 0.5), 30) == Hold("100 requests at weight 0.5"), "not to know how many is not to have had them"
    assert move(at(1, 0.5), 30, requests=100) == Go(at(2, 10.0, 30))


def test_a_pause_waits_for_approval_after_the_step_has_lasted():
    assert move(at(2, 10), 59) == Hold("60 s at weight 10")
    assert move(at(2, 10), 60) == Wait("approval of step 2", "step/2")
    assert move(at(2, 10), 60, approved=True) == Go(at(3, 50.0, 60))


def test_a_step_without_a_duration_lasts_an_interval_and_the_last_ends_the_list():
    assert move(at(3, 50), 9) == Hold("10 s at weight 50")
    assert move(at(3, 50), 10) == Done()


def test_promotion_steps_give_the_primary_its_traffic_back():
    def back(here: Progress, now: float, of: ReleasePolicy = LIST):
        return steps.next_back(of, here, 10, START + now)

    begun = start(START, weight=50.0, promoting=True)
    assert back(begun, 0) == Go(at(1, 40.0, promoting=True))
    assert back(at(1, 40), 29) == Hold("30 s at weight 40")
    assert back(at(1, 40), 30) == Go(at(2, 10.0, 30, promoting=True))
    assert back(at(2, 10), 10) == Done()
    assert back(start(START, weight=5.0, promoting=True), 0) == Done(), "the primary has more than the list would give it"
    assert back(begun, 0, policy()) == Done()


def test_a_promotion_step_with_a_pause_waits_for_an_approval_of_its_own():
    paused = policy(promotionSteps=[{"weight": 60, "duration": "30s", "pause": True}, {"weight": 90, "pause": True}])
    first, last = at(1, 40, promoting=True), at(2, 10, promoting=True)
    assert steps.next_back(paused, first, 10, START + 29) == Hold("30 s at weight 40")
    assert steps.next_back(paused, first, 10, START + 30) == Wait("approval of promotion step 1", "promotion-step/1")
    assert steps.next_back(paused, first, 10, START + 30, approved=True) == Go(at(2, 10.0, 30, promoting=True))
    assert steps.next_back(paused, last, 10, START + 10) == Wait("approval of promotion step 2", "promotion-step/2")
    assert steps.next_back(paused, last, 10, START + 10, approved=True) == Done()


def test_outside_its_window_a_release_says_when_it_opens():
    night = policy(steps=[{"weight": 5}], windows=[{"from": "02:00", "to": "03:00"}])
    assert move(start(START), 0, night) == Wait("its window, which opens Sat 2027-01-16 02:00 UTC")


@pytest.mark.parametrize(
    ("edited", "expected"),
    [
        ([{"weight": 1}, {"weight": 20}, {"weight": 30}], Go(at(3, 30.0, 60))),
        ([{"weight": 1}, {"weight": 2}], Done()),
        ([{"weight": 1}, {"weight": 2}, {"weight": 3}], Done()),  # never back down
        ([{"weight": 1}, {"weight": 2}, {"weight": 3}, {"weight": 30}], Go(at(4, 30.0, 60))),
    ],
)
def test_an_edited_list_applies_from_the_next_step_and_never_falls(edited, expected):
    assert move(at(2, 10), 60, policy(steps=edited)) == expected


@pytest.mark.parametrize(
    "kept",
    [at(2, 0.25), at(7, 100), at(1, 33.33, 5, passed=9), at(3, 60, promoting=True), at(2, 5, counted=1234)],
)
def test_progress_survives_the_status_of_the_canary(kept: Progress):
    status = kept.on(Status.of(kept.on(Status()).to_object()))
    assert progress(Status.of(status.to_object())) == kept
    assert len(status.conditions) == 1
    assert progress(without(status)) is None


def test_the_weight_is_whole_percent_for_others_and_exact_for_us():
    status = at(1, 0.25).on(Status(canary_weight=0.25))
    assert status.to_object()["canaryWeight"] == 1
    assert Status.of(status.to_object()).canary_weight == 0.25
    edited = {**status.to_object(), "canaryWeight": 7}  # written by somebody else: then that is what counts
    assert Status.of(edited).canary_weight == 7


def test_a_canary_without_steps_in_its_policy_has_those_it_says_itself():
    assert [step.weight for step in steps_of(canary_spec({"maxWeight": 50, "stepWeight": 20}))] == [20, 40, 60]
    listed = canary_spec({"stepWeight": 0, "stepWeights": [1, 5, 80]})
    found = in_force(listed, policy(warmUp="5s"))
    assert found is not None
    assert [step.weight for step in found.steps] == [1, 5, 80]
    assert in_force(listed, None) is None


def test_a_member_without_a_policy_of_its_own_has_that_of_the_group():
    shared = policy(steps=[{"weight": 7}], warmUp="5s", members=["cart"])
    own = policy(warmUp="9s")
    found = in_force(canary_spec(), None, shared)
    assert found is not None
    assert (found.steps[0].weight, found.warm_up_s, found.members) == (7, 5, ("cart",))
    found = in_force(canary_spec(), own, shared)
    assert found is not None
    assert (found.steps[0].weight, found.warm_up_s) == (7, 9)


# ---------------------------------------------------------------- several as one


def released(to: Progress | None, *, phase: Phase = Phase.PROGRESSING, began: float = START, weight: int = 0) -> Status:
    status = Status().to(Phase.INITIALIZING, 1.0).to(Phase.INITIALIZED, 2.0, last_applied="v1", last_promoted="v1")
    status = status.to(Phase.PROGRESSING, began, last_applied="v2")
    status = to.on(status) if to else status
    if phase in (Phase.FINALISING, Phase.SUCCEEDED):
        status = status.to(Phase.PROMOTING, began + 50).to(Phase.FINALISING, began + 60)
    if phase is Phase.SUCCEEDED:
        return status.to(phase, began + 70, last_promoted="v2")
    if phase not in (Phase.PROGRESSING, Phase.FINALISING):
        status = status.to(phase, began + 50)
    return status if not weight else status.noted(began + 50, canary_weight=weight)


STAGES = [
    (Status(), "v1", Stage.COMING),
    (Status().to(Phase.INITIALIZING, 1.0).to(Phase.INITIALIZED, 2.0, last_promoted="v1"), "v1", Stage.IDLE),
    (Status().to(Phase.INITIALIZING, 1.0).to(Phase.INITIALIZED, 2.0, last_promoted="v1"), "v2", Stage.COMING),
    (released(None), "v2", Stage.RUNNING),
    (released(at(1, 5)), "v2", Stage.RUNNING),
    (released(at(1, 5, passed=5)), "v2", Stage.RUNNING),
    (released(at(2, 50)), "v2", Stage.RUNNING),
    (released(at(2, 50, passed=5)), "v2", Stage.PASSED),
    (released(at(2, 50, passed=5), phase=Phase.PROMOTING), "v2", Stage.BOUND),
    (released(at(2, 50), phase=Phase.SUCCEEDED), "v2", Stage.BOUND),
    (released(at(2, 50), phase=Phase.SUCCEEDED), "v3", Stage.COMING),
    (released(at(2, 50), phase=Phase.FAILED), "v2", Stage.FAILED),
    (released(at(2, 50), phase=Phase.FAILED), "v3", Stage.COMING),
    (released(at(2, 50), phase=Phase.FAILED), "v1", Stage.IDLE),
    (released(at(2, 50), phase=Phase.FAILED, weight=100), "v2", Stage.BOUND),  # its promotion failed: the canary serves all
]


@pytest.mark.parametrize(("status", "target", "expected"), STAGES)
def test_a_members_status_says_how_far_it_is(status, target, expected):
    assert member("cart", status, target, steps=2).stage is expected


def cart(stage: Stage, step: int = 0, passed: bool = False, when: float = START) -> Member:
    return Member("cart", stage, START, step, passed, when)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (cart(Stage.IDLE), ""),
        (cart(Stage.PASSED, 1, True), ""),
        (cart(Stage.BOUND), ""),
        (cart(Stage.RUNNING, 2, True), ""),
        (cart(Stage.RUNNING, 3), ""),
        (cart(Stage.RUNNING, 2), "the other members of the release: cart (step 2)"),
        (cart(Stage.RUNNING, 1, True), "the other members of the release: cart (step 1)"),
        (cart(Stage.COMING), "the other members of the release: cart (has not begun)"),
        (cart(Stage.FAILED, when=START - 1), "the other members of the release: cart (failed)"),
    ],
)
def test_members_advance_together(other, text):
    assert group.waits_for([other], 2, START) == text


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (cart(Stage.IDLE), ""),
        (cart(Stage.PASSED, 1, True), ""),
        (cart(Stage.RUNNING, 3, True), "the other members of the release: cart (step 3)"),
        (cart(Stage.COMING), "the other members of the release: cart (has not begun)"),
    ],
)
def test_nobody_is_promoted_before_all_have_passed_their_last_step(other, text):
    assert group.waits_for([other], 2, START, last=True) == text


def test_one_that_failed_takes_the_others_with_it_but_not_a_later_release():
    assert group.failed([cart(Stage.FAILED, when=START + 1)], began=START) is not None
    assert group.failed([cart(Stage.FAILED, when=START - 1)], began=START) is None
    assert group.begins_again([cart(Stage.RUNNING)], failed_at=START - 1) is not None
    assert group.begins_again([cart(Stage.RUNNING)], failed_at=START + 1) is None


def test_once_one_is_promoted_those_that_had_passed_are_bound():
    promoted = [cart(Stage.BOUND, when=START + 10)]
    assert group.bound(promoted, START + 9) is not None
    assert group.bound(promoted, START + 11) is None, "it passed after that: another release"
    assert group.bound(promoted, None) is None
