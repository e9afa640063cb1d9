"""Whatever a policy asks for and whatever happens: a release by steps keeps its promises and comes to an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from canary_plays import Play, canary_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from control.canary.declared.commands import Command
from control.canary.declared.metric import Metric
from control.canary.declared.policy import PolicyStep, ReleasePolicy
from control.canary.evidence.arms import ArmCounts
from control.canary.facts import Facts
from control.canary.machine import steps
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import PromoteTemplate
from control.canary.machine.progress import progress
from control.canary.machine.question import Answer, AskMetrics, Question
from control.canary.machine.status import ANALYSED, Phase, Status
from control.canary.measuring.source import Arms

percent = st.integers(1, 10_000).map(lambda parts: parts / 100)
durations = st.sampled_from([None, 0.0, 10.0, 35.0])
a_step = st.builds(PolicyStep, percent, durations, st.sampled_from([0, 0, 10]), st.booleans())
LOST = Metric("orders-lost", 60.0, None, 0.0, query="orders_lost")
back = st.builds(PolicyStep, percent, durations, st.just(0), st.booleans(), st.sampled_from([(), (LOST,)]))


def rising(found: list[PolicyStep]) -> tuple[PolicyStep, ...]:
    return tuple(sorted(found, key=lambda step: step.weight))


policies = st.builds(
    ReleasePolicy,
    st.just("test"),
    st.just("podinfo"),
    st.lists(a_step, min_size=1, max_size=5).map(rising),
    st.lists(back, max_size=3).map(rising),
    st.sampled_from([0.0, 15.0]),
)


class ByPolicy(Play):
    """The status goes through its stored form at every tick, as after a restart."""

    policy: ReleasePolicy
    arms: Arms | None = None
    lost = 0.0  # what the check of a promotion step sees

    def served(self, requests: int) -> None:
        self.arms = Arms(ArmCounts(successes=requests), ArmCounts())

    def facts(self) -> Facts:
        self.status = Status.of(self.status.to_object())
        return replace(super().facts(), policy=self.policy, arms=self.arms)

    def answer(self, question: Question) -> Answer:
        if isinstance(question, AskMetrics) and question.of_primary:
            return {metric: Measurement(self.lost) for metric in question.besides}
        return super().answer(question)

    def approve(self) -> None:
        at = progress(self.status)
        if at is not None:
            gate = steps.promotion_gate(at.step) if at.promoting else steps.gate(at.step)
            self.commands = replace(self.commands, approve=Command(self.target.revision, self.now, gate))


# what happens before a tick, and after how many of its actions the controller is killed
happenings = st.tuples(
    st.sampled_from(["", "", "", "", "approve", "bad", "good", "lost", "pause", "resume", "edit policy"]),
    st.sampled_from([None, None, None, 0, 1, 2]),
)


@given(policies, policies, st.lists(happenings, max_size=60))
@settings(max_examples=200, deadline=None)
def test_a_release_by_steps_keeps_its_promises_and_ends(policy: ReleasePolicy, edited: ReleasePolicy, story):
    play = ByPolicy(canary_spec())
    play.policy = policy
    play.tick()
    play.tick()
    play.edit("v2")
    for what, crash_after in story:
        happens(play, what, edited)
        watched(play, crash_after)
    comes_to_an_end(play)


@given(st.lists(back, min_size=1, max_size=4).map(rising), policies, st.lists(happenings, max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_promotion_by_steps_keeps_its_promises_and_ends(promotion: tuple[PolicyStep, ...], edited: ReleasePolicy, story):
    play = ByPolicy(canary_spec())
    play.policy = ReleasePolicy("test", "podinfo", (PolicyStep(100.0),), promotion)
    play.tick()
    play.tick()
    play.edit("v2")
    play.until(Phase.PROMOTING)
    for what, crash_after in story:
        happens(play, what, edited)
        watched(play, crash_after)
    comes_to_an_end(play)
    assert play.primary.revision == "v2"


def happens(play: ByPolicy, what: str, edited: ReleasePolicy) -> None:
    match what:
        case "approve":
            play.approve()
        case "bad":
            play.measure(success=0.0)
        case "good":
            play.measure()
            play.lost = 0.0
        case "lost":
            play.lost = 1.0
        case "pause" | "resume":
            play.commands = replace(play.commands, pause=what == "pause")
        case "edit policy":
            play.policy = edited


def comes_to_an_end(play: ByPolicy) -> None:
    """Once nothing is bad and a person approves."""
    play.measure()
    play.lost = 0.0
    play.commands = replace(play.commands, pause=False)
    for _ in range(100):
        if play.status.phase in (Phase.SUCCEEDED, Phase.FAILED):
            break
        play.approve()
        watched(play, None)
    assert play.status.phase in (Phase.SUCCEEDED, Phase.FAILED), play.texts()[-3:]
    fell_back = play.status.phase is Phase.FAILED and play.status.canary_weight == 100  # a promotion that failed
    assert play.routing.canary == (100 if fell_back else 0)
    assert play.primary.revision == ("v2" if play.status.phase is Phase.SUCCEEDED or fell_back else "v1")
    assert progress(play.status) is None


def watched(play: ByPolicy, crash_after: int | None) -> None:
    """One tick, and what must hold of it."""
    before, at = play.status, progress(play.status)
    decision = play.tick(crash_after)
    after = decision.status
    if before.phase in ANALYSED and after.phase in ANALYSED and before.last_applied == after.last_applied:
        assert after.canary_weight >= before.canary_weight, "a weight falls to 0, or not at all"
    if before.phase is Phase.PROMOTING and after.phase is Phase.PROMOTING:
        assert after.canary_weight <= before.canary_weight
        if at is not None and at.promoting and after.canary_weight < before.canary_weight:
            given_back(play, play.policy.promotion_steps, at.step)
    if any(isinstance(action, PromoteTemplate) for action in decision.actions) and before.phase in ANALYSED:
        assert at is not None
        assert at.step > 0, "nothing is promoted that never had a request"
        here = play.policy.step(at.step - 1)
        approved = play.commands.approve
        assert not here.pause or (approved is not None and approved.gate == steps.gate(at.step)), "nobody approved it"
        assert steps.ahead(play.policy.steps, at.step, at.weight) == len(play.policy.steps), "all steps are behind"
    if crash_after is None and after.phase in ANALYSED and after.canary_weight:
        assert play.routing.canary == after.canary_weight


def given_back(play: ByPolicy, back: Sequence[PolicyStep], step: int) -> None:
    """What must hold where more goes to the primary after this promotion step (the policy may have been edited)."""
    here = back[min(step, len(back)) - 1] if back else None
    if here is None:
        return
    approved = play.commands.approve
    assert not here.pause or (approved is not None and approved.gate == steps.promotion_gate(step)), "nobody approved it"
    assert not here.checks or play.lost == 0.0, "its check failed"
    assert not play.commands.pause, "it is paused"
