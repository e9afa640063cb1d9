"""Several Canaries as one release, whatever the order of their ticks, the moment of a failure and the place of a crash."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from canary_plays import INTERVAL, START, Play, canary_object
from hypothesis import given, settings
from hypothesis import strategies as st
from test_canary_policy import policy

from control.canary.declared.policy import in_force
from control.canary.declared.spec import CanarySpec, parse
from control.canary.facts import Facts
from control.canary.machine.decision import Decision
from control.canary.machine.group import member
from control.canary.machine.progress import progress
from control.canary.machine.status import Phase, Status

NAMES = ("cart", "podinfo", "web")
ENDS = (Phase.SUCCEEDED, Phase.FAILED)


def spec(name: str, threshold: int = 1) -> CanarySpec:
    obj = canary_object({"threshold": threshold})
    obj["metadata"]["name"] = obj["spec"]["targetRef"]["name"] = name
    return parse(obj)


class One(Play):
    """A member; its status goes through its stored form at every tick, as after a restart of the controller."""

    team: Team

    def facts(self) -> Facts:
        self.status = Status.of(self.status.to_object())
        held = in_force(self.spec, None, self.team.policy)
        assert held is not None
        others = tuple(
            member(name, one.status, one.target.revision, steps=len(held.steps))
            for name, one in self.team.plays.items()
            if name != self.spec.name
        )
        return replace(super().facts(), policy=held, others=others)

    def decide_at(self, now: float) -> Decision:
        self.now = now
        return self.decide()


class Team:
    def __init__(self, *changed: str, threshold: int = 1) -> None:
        steps = [{"weight": 0.5, "duration": "10s"}, {"weight": 50, "duration": "10s"}]
        self.policy = replace(policy(steps=steps), members=NAMES[1:], name=NAMES[0])
        self.now = START
        self.plays = {name: One(spec(name, threshold)) for name in NAMES}
        for one in self.plays.values():
            one.team = self
        for name in NAMES:
            self.tick(name)
        for name in NAMES:
            self.tick(name)
        for name in changed or NAMES:
            self.plays[name].edit("v2")

    def tick(self, name: str, crash_after: int | None = None) -> None:
        one = self.plays[name]
        one.now = self.now
        one.tick(crash_after)
        self.now += INTERVAL / len(NAMES)

    def phases(self) -> dict[str, Phase]:
        return {name: one.status.phase for name, one in self.plays.items()}

    def run(self, *names: str, rounds: int = 40) -> None:
        """Until those have ended; fails if they never do."""
        for _ in range(rounds):
            if all(self.plays[name].status.phase in ENDS for name in names or NAMES):
                return
            for name in NAMES:
                self.tick(name)
        raise AssertionError(f"no end: {self.phases()}, {[one.texts()[-1] for one in self.plays.values()]}")

    def until_begun(self) -> None:
        """All have their first weight."""
        while not all((at := progress(one.status)) and at.step for one in self.plays.values()):
            for name in NAMES:
                self.tick(name)

    def until_passed(self, name: str) -> None:
        while (at := progress(self.plays[name].status)) is None or at.step < 2 or at.passed_at is None:
            for one in NAMES:
                self.tick(one)
                if (at := progress(self.plays[name].status)) is not None and at.step == 2 and at.passed_at is not None:
                    return


@given(
    order=st.lists(st.sampled_from(NAMES), min_size=20, max_size=60),
    bad=st.tuples(st.integers(10, 60), st.sampled_from(NAMES)),  # from that tick on it fails
    crashes=st.dictionaries(st.integers(10, 60), st.integers(0, 2), max_size=6),  # tick -> after how many actions
)
@settings(max_examples=200, deadline=None)
def test_all_or_none_in_any_order_with_any_failure_and_any_crash(order, bad, crashes):
    team = Team()
    for number, name in enumerate(order):
        if number == bad[0]:
            team.plays[bad[1]].measure(success=50.0)
        team.tick(name, crashes.get(number))
        phases = set(team.phases().values())
        assert not (phases & {Phase.PROMOTING, Phase.FINALISING, Phase.SUCCEEDED} and Phase.FAILED in phases), team.phases()
    for one in team.plays.values():
        one.measure()
    team.run()
    assert len(set(team.phases().values())) == 1, team.phases()
    promoted = {one.primary.revision for one in team.plays.values()}
    assert promoted == {"v2" if team.phases()["cart"] is Phase.SUCCEEDED else "v1"}


def test_nobody_is_more_than_a_step_ahead():
    team = Team()
    for _ in range(60):
        for name in NAMES:
            team.tick(name)
            numbers = [at.step for one in team.plays.values() if (at := progress(one.status)) and not at.promoting]
            assert not numbers or max(numbers) - min(numbers) <= 1
    assert set(team.phases().values()) == {Phase.SUCCEEDED}


def test_a_member_with_nothing_to_release_takes_no_part():
    team = Team("cart", "web")
    team.run("cart", "web")
    assert team.phases() == {"cart": Phase.SUCCEEDED, "podinfo": Phase.INITIALIZED, "web": Phase.SUCCEEDED}


def test_one_that_joins_late_is_waited_for():
    team = Team("cart")
    for _ in range(3):
        for name in NAMES:
            team.tick(name)
    team.plays["web"].edit("v2")
    team.run("cart", "web")
    assert {team.plays[name].primary.revision for name in ("cart", "web")} == {"v2"}
    held = [text for text in team.plays["cart"].texts() if "waiting for the other members" in text]
    assert any("web" in text for text in held)


def test_a_failure_after_a_member_is_promoted_does_not_keep_the_others_back():
    team = Team()
    team.until_passed("web")
    while not any(phase is Phase.PROMOTING for phase in team.phases().values()):
        team.tick("cart")
        team.tick("podinfo")
    for one in team.plays.values():
        one.measure(success=0.0)
    team.run()
    assert set(team.phases().values()) == {Phase.SUCCEEDED}, "what was decided of all holds for all"


@pytest.mark.parametrize("how", ["fixed", "retried"])
def test_after_a_failure_a_fixed_or_retried_member_brings_the_others_with_it(how):
    team = Team()
    team.plays["web"].measure(success=0.0)
    team.run()
    assert set(team.phases().values()) == {Phase.FAILED}
    team.plays["web"].measure()
    team.now += 60
    if how == "fixed":
        team.plays["web"].edit("v3")
    else:
        team.plays["web"].now = team.now
        team.plays["web"].order("retry")
    for name in ("web", "cart", "podinfo"):
        team.tick(name)
    assert Phase.FAILED not in team.phases().values()
    team.run()
    assert set(team.phases().values()) == {Phase.SUCCEEDED}
    assert team.plays["web"].primary.revision == ("v3" if how == "fixed" else "v2")


def test_a_member_whose_change_is_taken_back_takes_no_part_any_more():
    team = Team()
    team.until_begun()
    team.plays["podinfo"].edit("v1")
    team.run()
    assert team.phases() == {"cart": Phase.SUCCEEDED, "podinfo": Phase.FAILED, "web": Phase.SUCCEEDED}
    assert team.plays["podinfo"].primary.revision == "v1"


def test_an_abort_of_one_is_an_abort_of_all():
    team = Team()
    team.until_begun()
    team.plays["podinfo"].now = team.now
    team.plays["podinfo"].order("abort")
    team.run()
    assert set(team.phases().values()) == {Phase.FAILED}


def test_a_crash_between_the_promotion_of_one_and_its_record_commits_nobody():
    team = Team()
    team.until_begun()
    for name in itertools.cycle(NAMES):
        if team.plays[name].decide_at(team.now).status.phase is Phase.PROMOTING:
            break
        team.tick(name)
    team.tick(name, crash_after=1)
    for other in NAMES:
        if other != name:
            team.plays[other].measure(success=0.0)
    for other in NAMES:
        if other != name:
            team.tick(other)
            team.tick(other)
    team.run()
    assert len({one.primary.revision for one in team.plays.values()}) == 1, team.phases()


def test_a_member_with_a_failed_check_has_not_passed_and_is_waited_for():
    team = Team(threshold=5)
    team.until_begun()
    team.plays["web"].measure(success=0.0)
    for _ in range(4):
        for name in NAMES:
            team.tick(name)
    assert set(team.phases().values()) == {Phase.PROGRESSING}
    assert team.plays["cart"].texts()[-1].endswith("waiting for the other members of the release: web (step 1)")
    team.plays["web"].measure()
    team.run()
    assert set(team.phases().values()) == {Phase.SUCCEEDED}


def test_a_member_that_fails_a_check_after_it_had_passed_is_waited_for_again():
    team = Team(threshold=5)
    team.until_passed("web")
    assert set(team.phases().values()) == {Phase.PROGRESSING}
    team.plays["web"].measure(success=0.0)
    team.tick("web")
    for name in ("cart", "podinfo"):
        team.tick(name)
        team.tick(name)
    assert set(team.phases().values()) == {Phase.PROGRESSING}
