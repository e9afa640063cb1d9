"""From running counts to a verdict: blocks, marks, metrics, records."""

from __future__ import annotations

import json
from random import Random

import pytest

from benchmarks.evidence.streams import binomial
from control.canary.declared.policy import EvidencePolicy
from control.canary.evidence.arms import ArmCounts, Block, Marks, block, freeze
from control.canary.evidence.judge import FAILURES, QUANTILES, Evidence, Finding, Terms, judge, slow
from control.canary.evidence.record import from_object, to_object
from control.canary.evidence.sequence import HARM_PAPER
from control.canary.machine.status import Phase, Status
from control.canary.observer import terms_of

TERMS = Terms()
INF = float("inf")


def histogram(*counts: int) -> tuple[tuple[float, int], ...]:
    """Bounds 10, 20, 40, 80 ms and inf."""
    return tuple(zip((10.0, 20.0, 40.0, 80.0, INF), counts, strict=True))


def arm(seed: Random, requests: int, failing: float, slowness: float) -> ArmCounts:
    """Each success is slower than 10 ms with `slowness`, than 20 ms with a fifth of that, than 40 ms with a fiftieth."""
    failed = binomial(seed, requests, failing)
    good = requests - failed
    above_10 = binomial(seed, good, slowness)
    above_20 = binomial(seed, above_10, 0.2)
    above_40 = binomial(seed, above_20, 0.1)
    return ArmCounts(good, failed, histogram(good - above_10, above_10 - above_20, above_20 - above_40, above_40, 0))


MARKS = Marks({0.5: 10.0, 0.9: 20.0, 0.99: 40.0})


def release(
    seconds: int, failing: tuple[float, float] = (0.001, 0.001), slowness: tuple[float, float] = (0.5, 0.5)
) -> Evidence:
    """(canary, primary)"""
    rng = Random(11)
    evidence = Evidence(marks=MARKS)
    for _ in range(seconds):
        evidence = evidence.observe(Block(arm(rng, 50, failing[0], slowness[0]), arm(rng, 50, failing[1], slowness[1])), TERMS)
    return evidence


# -- arms


def test_a_block_is_what_both_arms_did_between_two_looks() -> None:
    one = block(
        ArmCounts(15, 3, histogram(9, 4, 2, 0, 0)),
        ArmCounts(90, 1, histogram(80, 8, 1, 1, 0)),
        ArmCounts(10, 1, histogram(8, 2, 0, 0, 0)),
        ArmCounts(50, 0, histogram(45, 5, 0, 0, 0)),
    )
    assert one is not None
    assert (one.canary.successes, one.canary.failures, one.canary.latency) == (5, 2, histogram(1, 2, 2, 0, 0))
    assert (one.primary.successes, one.primary.failures, one.primary.requests) == (40, 1, 41)


def test_counts_of_a_source_that_began_anew_are_not_compared() -> None:
    before, after = ArmCounts(10, 1, epoch=5.0), ArmCounts(20, 2, epoch=6.0)
    assert after.since(before) is None
    assert block(after, before, before, before) is None
    assert ArmCounts(9, 1, epoch=5.0).since(before) is None
    assert block(before, before, None, before) is None


def test_a_histogram_that_lost_a_bucket_is_not_compared() -> None:
    assert ArmCounts(2, 0, ((10.0, 2),)).since(ArmCounts(1, 0, ((5.0, 1),))) is None
    assert ArmCounts(2, 0, ((5.0, 1), (10.0, 1))).since(ArmCounts(1, 0, ((5.0, 1),))) is not None


def test_slower_counts_what_lies_above_a_bound() -> None:
    one = ArmCounts(10, 0, histogram(4, 3, 2, 0, 1))
    assert one.slower_than(10.0) == (6, 10)
    assert one.slower_than(15.0) == (6, 10)  # the whole bucket that 15 ms lies in, in either arm
    assert one.slower_than(80.0) == (1, 10)
    assert ArmCounts(10, 0).slower_than(10.0) == (0, 0)


def test_marks_are_the_bounds_of_the_buckets_the_quantiles_lie_in() -> None:
    assert freeze(histogram(60, 35, 4, 1, 0)).at == {0.5: 10.0, 0.9: 20.0, 0.99: 40.0}


def test_quantiles_in_one_bucket_share_a_mark_and_none_is_infinite() -> None:
    assert freeze(histogram(100, 0, 0, 0, 0)).at == {0.5: 10.0}
    assert freeze(histogram(60, 0, 0, 0, 40)).at == {0.5: 10.0}


def test_few_requests_give_no_marks() -> None:
    assert freeze(histogram(99, 0, 0, 0, 0)).at == {}
    assert freeze(()).at == {}


def test_marks_stay_when_a_step_begins_without_enough_requests() -> None:
    assert Evidence(marks=MARKS).begin_step(histogram(5, 0, 0, 0, 0)).marks == MARKS
    assert Evidence(marks=MARKS).begin_step(histogram(0, 95, 5, 0, 0)).marks.at == {0.5: 20.0, 0.99: 40.0}


# -- verdicts


def test_alpha_is_divided_over_the_metrics() -> None:
    parts = [TERMS.alpha_of(metric) for metric in (FAILURES, *map(slow, QUANTILES))]
    assert sum(parts) == pytest.approx(TERMS.alpha)
    assert parts[0] == max(parts)


def test_before_any_block_nothing_is_known() -> None:
    verdict = judge(Evidence(), TERMS)
    assert (verdict.finding, verdict.more, verdict.text) == (Finding.OPEN, None, "nothing has been compared yet")


def test_failures_beyond_the_margin_are_harm_and_say_their_numbers() -> None:
    verdict = judge(release(20, failing=(0.2, 0.001)), TERMS)
    assert verdict.finding is Finding.HARM
    failures = verdict.assessments[0].counts
    assert verdict.text.startswith(f"{failures.canary_failed} of 1000 requests failed (")
    assert verdict.text.endswith("more than 1 point worse")


def test_slowness_beyond_the_margin_is_harm_though_nothing_fails() -> None:
    verdict = judge(release(60, slowness=(0.75, 0.5)), TERMS)
    assert verdict.finding is Finding.HARM
    assert "slower than p50 of the primary" in verdict.text
    assert verdict.assessments[0].finding is not Finding.HARM


def test_in_a_promotion_the_new_primary_is_named_and_the_canary_it_is_compared_with() -> None:
    terms = terms_of(EvidencePolicy(), Status(Phase.PROMOTING))
    failing = judge(release(20, failing=(0.2, 0.001)), terms)
    counts = failing.assessments[0].counts
    assert failing.text.startswith(f"{counts.canary_failed} of the new primary's 1000 requests failed (")
    assert f", {counts.primary_failed} of the canary's {counts.primary} (" in failing.text
    slow_ones = judge(release(60, slowness=(0.75, 0.5)), terms).text
    assert "slower than p50 of the canary (" in slow_ones
    assert "the primary" not in slow_ones


def test_beside_a_baseline_slow_is_what_the_primary_says() -> None:
    text = judge(release(60, slowness=(0.75, 0.5)), Terms(beside="baseline")).text
    assert "slower than p50 of the primary (" in text
    assert "of the baseline's" in text


def test_a_good_canary_is_open_with_a_number_and_then_safe() -> None:
    early = judge(release(10), TERMS)
    assert early.finding is Finding.OPEN
    assert early.more is not None
    assert early.more > 100
    assert f"about {early.more} more requests needed" in early.text
    late = judge(release(700), TERMS)
    assert (late.finding, late.more) == (Finding.SAFE, 0)


def test_every_metric_must_be_within_its_margin() -> None:
    """After 60 s failures and p99 are; half of the requests beyond p50 take longer to compare."""
    verdict = judge(release(60), TERMS)
    found = {one.metric: one.finding for one in verdict.assessments}
    assert found[FAILURES] is Finding.SAFE
    assert found[slow(0.5)] is Finding.OPEN
    assert verdict.finding is Finding.OPEN


def test_latency_that_was_not_compared_yet_is_open_and_one_the_source_lacks_is_not_asked_for() -> None:
    rng = Random(3)
    with_latency, without = Evidence(), Evidence()
    for _ in range(200):
        ours, theirs = arm(rng, 50, 0.001, 0.5), arm(rng, 50, 0.001, 0.5)
        with_latency = with_latency.observe(Block(ours, theirs), TERMS)
        bare = Block(ArmCounts(ours.successes, ours.failures), ArmCounts(theirs.successes, theirs.failures))
        without = without.observe(bare, TERMS)
    assert judge(with_latency, TERMS).finding is Finding.OPEN
    assert judge(with_latency, TERMS).more is None
    assert judge(without, TERMS).finding is Finding.SAFE


def test_warm_up_teaches_the_primary_and_says_nothing_about_the_canary() -> None:
    rng = Random(5)
    evidence = Evidence()
    for _ in range(30):
        evidence = evidence.learn(Block(arm(rng, 50, 1.0, 0.5), arm(rng, 50, 0.04, 0.5)), TERMS)
    assert evidence.requests == 0
    assert judge(evidence, TERMS).finding is Finding.OPEN
    assert evidence.comparisons[FAILURES].rates()[1] == pytest.approx(0.04, abs=0.02)


def test_what_was_once_proved_stays_proved() -> None:
    rng, evidence = Random(9), release(10, failing=(0.5, 0.001))
    assert judge(evidence, TERMS).finding is Finding.HARM
    for _ in range(600):
        evidence = evidence.observe(Block(arm(rng, 50, 0.0, 0.5), arm(rng, 50, 0.0, 0.5)), TERMS)
    assert judge(evidence, TERMS).finding is Finding.HARM


# -- records


def test_a_record_gives_the_evidence_back() -> None:
    evidence = release(30, failing=(0.02, 0.01))
    again = from_object(json.loads(json.dumps(to_object(evidence))))
    assert again.marks == evidence.marks
    assert again.has_latency
    for metric, one in evidence.comparisons.items():
        assert again.comparisons[metric].total == one.total
        assert again.comparisons[metric].harm == pytest.approx(one.harm, abs=1e-4)
        assert again.comparisons[metric].paper == pytest.approx(one.paper, abs=1e-4)
    assert len(json.dumps(to_object(evidence))) < 3000


def test_a_record_of_before_bettors_could_stop_is_read_and_all_of_them_bet() -> None:
    evidence = release(30, failing=(0.02, 0.01))
    obj = json.loads(json.dumps(to_object(evidence)))
    for metric in obj["metrics"].values():
        del metric["paper"]
    again = from_object(obj)
    for metric, one in evidence.comparisons.items():
        assert again.comparisons[metric].harm == pytest.approx(one.harm, abs=1e-4)
        assert again.comparisons[metric].paper == HARM_PAPER


@pytest.mark.parametrize("damage", [{}, {"metrics": []}, {"metrics": {}, "marks": 3, "latency": True}])
def test_a_record_that_is_none_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a record of evidence"):
        from_object(damage)


def test_a_record_with_impossible_numbers_is_refused() -> None:
    obj = to_object(release(2))
    for key, value in (
        ("harm", [0.0]),
        ("paper", [0.0]),
        ("recent", [1, 2, 3]),
        ("recent", [1, 2, float("nan"), 4]),
        ("peakHarm", float("inf")),
    ):
        broken = json.loads(json.dumps(obj))
        broken["metrics"]["failures"][key] = value
        with pytest.raises(ValueError, match="not a record of evidence"):
            from_object(broken)
