"""Look after look: when a block ends, what a step, a warm-up and a lost source do, what a record carries on."""

from __future__ import annotations

from control.canary.evidence.arms import ArmCounts
from control.canary.evidence.judge import FAILURES, Finding, Terms
from control.canary.evidence.standing import LONGEST_S, Arms, Standing, resume

TERMS = Terms()


class Counting:
    """Both arms' running counts, and the standing that looks at them every half second."""

    def __init__(self, standing: Standing | None = None, warm_up_s: float = 0.0) -> None:
        self.standing = standing or Standing("run")
        self.warm_up_s = warm_up_s
        self.now = 1000.0
        self.canary = self.primary = ArmCounts(0, 0, ((10.0, 0), (20.0, 0)))

    def arms(self) -> Arms:
        return self.canary, self.primary

    def serve(self, canary: tuple[int, int] = (0, 0), primary: tuple[int, int] = (0, 0)) -> None:
        """(successes, failures) of each; all successes are fast."""
        self.canary = more(self.canary, *canary)
        self.primary = more(self.primary, *primary)

    def look(self, weight: float = 10.0, *, lost: bool = False, after_s: float = 0.5) -> Standing:
        self.now += after_s
        arms = None if lost else self.arms()
        self.standing = self.standing.look(arms, weight, self.now, TERMS, self.warm_up_s)
        return self.standing

    @property
    def seen(self) -> tuple[int, int]:
        """Requests compared so far: (canary, primary)."""
        one = self.standing.evidence.comparisons.get(FAILURES)
        return (one.total.canary, one.total.primary) if one else (0, 0)


class BesideBaseline(Counting):
    """What is called primary above is the baseline here; the primary itself was there before."""

    def look(self, weight: float = 10.0, *, lost: bool = False, after_s: float = 0.5) -> Standing:
        self.now += after_s
        primary = ArmCounts(1000, 0, ((10.0, 900), (20.0, 100)))
        self.standing = self.standing.look(self.arms(), weight, self.now, TERMS, self.warm_up_s, primary)
        return self.standing


def test_the_warm_up_of_a_baseline_teaches_nothing_and_slow_begins_where_the_primary_says() -> None:
    play = BesideBaseline(warm_up_s=10.0)
    play.look(weight=0.0)
    play.look()
    for _ in range(19):
        play.serve((0, 10), (0, 10))
        play.look()
    assert play.seen == (0, 0), "both are cold"
    play.look(after_s=2.0)
    for _ in range(4):
        play.serve((10, 0), (10, 0))
        play.look()
    assert play.seen == (30, 30), "a block that began in the warm-up is no part of it"
    assert dict(play.standing.evidence.marks.at) == {0.5: 10.0, 0.99: 20.0}


def more(arm: ArmCounts, successes: int, failures: int) -> ArmCounts:
    (bound, count), *rest = arm.latency
    return ArmCounts(arm.successes + successes, arm.failures + failures, ((bound, count + successes), *rest))


def test_the_first_look_is_where_counting_begins() -> None:
    play = Counting()
    play.serve((50, 50), (50, 0))
    play.look()
    assert play.seen == (0, 0)
    play.serve((5, 0), (45, 0))
    play.look()
    assert play.seen == (5, 45)


def test_a_block_waits_until_both_arms_had_requests() -> None:
    play = Counting()
    play.look()
    for _ in range(4):
        play.serve(primary=(9, 0))
        play.look()
    assert play.seen == (0, 0)
    play.serve((1, 0), (9, 0))
    play.look()
    assert play.seen == (1, 45)


def test_a_block_does_not_wait_for_ever() -> None:
    play = Counting()
    play.look()
    play.serve(primary=(9, 0))
    play.look(after_s=LONGEST_S)
    play.serve((1, 0), (9, 0))
    play.look()
    assert play.seen == (1, 9)


def test_looks_that_come_faster_than_blocks_lose_nothing() -> None:
    play = Counting()
    play.look()
    for _ in range(10):
        play.serve((1, 0), (9, 0))
        play.look(after_s=0.25)
    assert play.seen == (10, 90)
    assert play.standing.evidence.comparisons[FAILURES].blocks == 5


def test_before_the_first_weight_the_primary_is_learned_and_the_canary_is_not_judged() -> None:
    play = Counting()
    play.look(0.0)
    for _ in range(20):
        play.serve((0, 9), (19, 1))
        play.look(0.0)
    assert play.standing.verdict(TERMS).finding is Finding.OPEN
    assert play.standing.requests == 0
    assert play.standing.evidence.comparisons[FAILURES].rates()[1] > 0.02


def test_warm_up_is_seen_but_not_judged() -> None:
    play = Counting(warm_up_s=5.0)
    play.look(0.0)
    for _ in range(9):
        play.serve((0, 10), (90, 0))
        play.look()
    assert play.standing.requests == 0
    for _ in range(6):
        play.serve((0, 10), (90, 0))
        play.look()
    assert play.standing.requests > 0
    assert play.standing.verdict(TERMS).finding is Finding.HARM


def test_a_step_counts_its_own_requests_and_the_evidence_goes_on() -> None:
    play = Counting()
    play.look(10.0)
    for weight in (10.0, 10.0, 20.0, 20.0):
        play.serve((5, 0), (45, 0))
        play.look(weight)
    assert play.seen == (20, 180)
    assert play.standing.requests == 5  # what came before the weight was seen to change is the step's before it


def test_a_step_freezes_where_slow_begins() -> None:
    play = Counting()
    play.look(0.0)
    play.serve(primary=(200, 0))
    play.look(10.0)
    assert play.standing.evidence.marks.at == {0.5: 10.0}


def test_a_source_that_is_lost_says_since_when_and_nothing_across_the_gap_is_compared() -> None:
    play = Counting()
    play.look()
    play.serve((1, 0), (9, 0))
    play.look()
    first = play.look(lost=True).lost_since
    assert first == play.now
    play.serve((0, 500), (500, 0))
    assert play.look(lost=True).lost_since == first
    assert play.look().lost_since is None
    assert play.seen == (1, 9)


def test_a_record_carries_the_evidence_over_a_crash() -> None:
    play = Counting()
    play.look()
    for _ in range(10):
        play.serve((5, 0), (45, 0))
        play.look()
    again = Counting(resume(play.standing.to_object(), "run"))
    again.serve((9, 9), (9, 9))  # what a source that began anew has is no block with what was before
    again.look()
    assert again.seen == play.seen
    assert again.standing.requests == play.standing.requests


def test_a_record_of_another_revision_or_none_begins_anew() -> None:
    play = Counting()
    play.look()
    play.serve((5, 0), (45, 0))
    kept = play.look().to_object()
    for obj, run in ((kept, "other"), (None, "run"), ({"run": "run"}, "run"), ({**kept, "weight": "x"}, "run")):
        assert resume(obj, run).evidence.comparisons == {}
