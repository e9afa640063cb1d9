"""The comparison of two arms: against closed forms, by seeds, and at its edges."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb, exp, isfinite, lgamma, log
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.evidence.streams import binomial
from control.canary.evidence import sequence
from control.canary.evidence.interval import bounds
from control.canary.evidence.judge import FAILURES, Terms
from control.canary.evidence.sequence import WAKE, Comparison, Counts, growth, nearest

GOAL = log(100.0)
MARGIN = 0.01


def watch(blocks: Iterator[Counts], margin: float = MARGIN) -> Comparison:
    """Until there is a proof of harm, or no more blocks."""
    one = Comparison.of(margin)
    for block in blocks:
        one = one.observe(block, GOAL)
        if one.log_harm >= GOAL:
            break
    return one


def traffic(seed: int, seconds: int, canary: tuple[int, float], primary: tuple[int, float]) -> Iterator[Counts]:
    rng = Random(seed)
    for _ in range(seconds):
        yield Counts(binomial(rng, *canary), canary[0], binomial(rng, *primary), primary[0])


# -- the innocent explanation


def test_nearest_is_the_minimum_of_the_weighted_divergence() -> None:
    def divergence(q: float, canary: float, weight: float, primary: float, primary_weight: float, margin: float) -> float:
        def one(truth: float, claim: float) -> float:
            return truth * log(truth / claim) + (1 - truth) * log((1 - truth) / (1 - claim))

        return primary_weight * one(primary, q) + weight * one(canary, q + margin)

    rng = Random(1)
    for _ in range(300):
        margin = rng.choice((0.01, 0.02, 0.1))
        primary, canary = rng.uniform(1e-4, 0.85), rng.uniform(1e-4, 0.999)
        arguments = (canary, 10 ** rng.uniform(0, 3), primary, 10 ** rng.uniform(0, 4), margin)
        q = nearest(*arguments)
        assert 0.0 < q < 1.0 - margin
        here = divergence(q, *arguments)
        for other in (q * 0.99, q * 1.01, q - 1e-4, q + 1e-4):
            if 0.0 < other < 1.0 - margin:
                assert here <= divergence(other, *arguments) + 1e-9


def test_rates_that_obey_the_claim_with_equality_explain_themselves() -> None:
    assert nearest(0.06, 10, 0.05, 90, 0.01) == pytest.approx(0.05, abs=1e-9)
    assert growth(0.06, 0.05, 9.0, 0.01) == pytest.approx(0.0, abs=1e-9)


def test_growth_for_a_primary_of_certain_rate_is_the_divergence_of_the_canary() -> None:
    """With endlessly many primary requests q is the primary's own rate."""
    certain = 0.2 * log(0.2 / 0.02) + 0.8 * log(0.8 / 0.98)
    assert growth(0.2, 0.01, 1e9, 0.01) == pytest.approx(certain, rel=1e-3)


# -- validity


@pytest.mark.parametrize("primary", [0.001, 0.05, 0.4])
@pytest.mark.parametrize(("n1", "n0"), [(1, 1), (3, 2), (2, 9)])
def test_the_expected_factor_of_a_block_is_at_most_one_when_the_claim_is_true(primary: float, n1: int, n0: int) -> None:
    """Summed exactly over all outcomes, for rates at the boundary and inside, against the factor as it is before the cap."""
    start = Comparison.of(MARGIN)
    for rate in (0.0, 0.001, 0.01, 0.1, 0.5, 0.95):
        for canary in (max(0.0, rate - 0.05), rate, rate + MARGIN):
            total = 0.0
            for f1 in range(n1 + 1):
                for f0 in range(n0 + 1):
                    chance = comb(n1, f1) * canary**f1 * (1 - canary) ** (n1 - f1)
                    chance *= comb(n0, f0) * rate**f0 * (1 - rate) ** (n0 - f0)
                    total += chance * exp(start.observe(Counts(f1, n1, f0, n0), GOAL, 3600.0).log_harm)
            assert total <= 1.0 + 1e-9, (rate, canary)


def test_the_expected_factor_is_at_most_one_whatever_happened_before_and_whoever_bets() -> None:
    """After good times, in which bettors stopped, and after bad ones, in which some began again."""
    quiet = watch(traffic(1, 300, (10, 0.001), (90, 0.001)))
    stirred = quiet.observe(Counts(1, 10, 0, 90), GOAL).observe(Counts(1, 10, 0, 90), GOAL)
    assert all(won < WAKE for won in quiet.paper)
    assert {won >= WAKE for won in stirred.paper} == {True, False}
    for before in (quiet, stirred):
        for rate in (0.0, 0.001, 0.05, 0.5):
            total = 0.0
            for f1 in range(4):
                for f0 in range(6):
                    chance = comb(3, f1) * (rate + MARGIN) ** f1 * (1 - rate - MARGIN) ** (3 - f1)
                    chance *= comb(5, f0) * rate**f0 * (1 - rate) ** (5 - f0)
                    total += chance * exp(before.observe(Counts(f1, 3, f0, 5), GOAL, 3600.0).log_harm - before.log_harm)
            assert total <= 1.0 + 1e-9, (rate, before.paper)


def test_a_canary_at_the_margin_is_seldom_rolled_back() -> None:
    """alpha is 1 %: of 200 releases more than 8 would be a chance of 1 in 3,000."""
    rolled_back = sum(watch(traffic(seed, 150, (10, 0.03 + MARGIN), (40, 0.03))).log_harm >= GOAL for seed in range(200))
    assert rolled_back <= 8


def test_an_outage_that_hits_both_arms_is_no_evidence_whatever_the_weights() -> None:
    """Sums over the release would say 2 % against 26 %: the outage came when the canary had half of the traffic."""

    def blocks() -> Iterator[Counts]:
        rng = Random(7)
        for second in range(400):
            canary = 5 if second < 300 else 50
            rate = 0.001 if second < 300 else 0.5
            yield Counts(binomial(rng, canary, rate), canary, binomial(rng, 100 - canary, rate), 100 - canary)

    one = watch(blocks())
    assert one.peak_harm < GOAL
    assert one.total.canary_failed / one.total.canary > 0.25 > 0.1 > one.total.primary_failed / one.total.primary


def looks_until_rolled_back(one: Comparison) -> int:
    """With all requests of the canary failing, many of them."""
    for look in range(1, 100):
        one = one.observe(Counts(10_000, 10_000, 0, 90_000), GOAL)
        if one.log_harm >= Terms().harm_goal(FAILURES):
            return look
    raise AssertionError("never rolled back")


def test_it_takes_three_looks_to_roll_back_however_bad_they_are() -> None:
    assert looks_until_rolled_back(Comparison.of(MARGIN)) == 3


def test_it_takes_more_looks_to_roll_back_a_canary_that_has_been_good() -> None:
    assert 5 <= looks_until_rolled_back(watch(traffic(11, 600, (25, 0.001), (25, 0.001)))) <= 8


def test_a_longer_block_may_say_more() -> None:
    assert Comparison.of(MARGIN).observe(Counts(10_000, 10_000, 0, 90_000), GOAL, 15.0).log_harm >= GOAL


# -- power


def test_a_canary_of_which_a_fifth_fails_is_caught_at_the_third_failure_in_fifteen() -> None:
    one = Comparison.of(MARGIN)
    for second in range(15):
        one = one.observe(Counts(int(second in (3, 8, 14)), 1, 0, 9), GOAL, 1.0)
    assert one.log_harm >= GOAL


def test_five_points_more_are_seen_within_a_thousand_requests() -> None:
    missed = [seed for seed in range(60) if watch(traffic(seed, 100, (10, 0.051), (90, 0.001))).log_harm < GOAL]
    assert missed == []


def test_a_canary_that_breaks_after_an_hour_is_caught_all_the_same() -> None:
    def blocks() -> Iterator[Counts]:
        yield from traffic(1, 3600, (10, 0.001), (90, 0.001))
        yield from traffic(2, 120, (10, 0.2), (90, 0.001))

    one = watch(blocks())
    assert one.log_harm >= GOAL
    assert one.total.canary < 36_000 + 150


def test_five_points_more_after_five_minutes_are_seen_within_a_thousand_requests() -> None:
    """Bettors who had lost all against the good canary would need more for one release in six."""

    def rolled_back(seed: int) -> bool:
        rng, one = Random(seed), watch(traffic(seed, 600, (25, 0.001), (25, 0.001)))
        assert one.log_harm < GOAL
        later = (Counts(binomial(rng, 25, 0.051), 25, binomial(rng, 25, 0.001), 25) for _ in range(40))
        return any((one := one.observe(counts, GOAL)).log_harm >= Terms().harm_goal(FAILURES) for counts in later)

    assert sum(map(rolled_back, range(25))) >= 24


def test_a_bettor_who_loses_stops_and_bets_again_when_he_would_have_won() -> None:
    one = watch(Counts(0, 10, 0, 90) for _ in range(1000))
    assert all(won < WAKE for won in one.paper)
    kept = one.log_harm
    for _ in range(20):
        one = one.observe(Counts(0, 10, 0, 90), GOAL)
    assert one.log_harm == pytest.approx(kept)  # nobody bets: nothing is lost
    assert all(won == 0.0 for won in one.paper)
    one = one.observe(Counts(10, 10, 0, 90), GOAL)
    assert one.log_harm == pytest.approx(kept)  # one look, however bad, wakes nobody
    one = one.observe(Counts(10, 10, 0, 90), GOAL)
    assert all(won >= WAKE for won in one.paper)
    assert one.log_harm == pytest.approx(kept)
    assert one.observe(Counts(10, 10, 0, 90), GOAL).log_harm > kept + 1.0


def test_an_equal_canary_is_certainly_within_the_margin_after_some_thousand_requests() -> None:
    for seed in range(5):
        one = watch(traffic(seed, 300, (10, 0.002), (90, 0.002)))
        assert one.log_safe >= GOAL
        assert one.more_for_safe(GOAL) == 0


def test_the_forecast_of_requests_comes_true() -> None:
    one = watch(traffic(3, 20, (10, 0.001), (90, 0.001)))
    more = one.more_for_safe(GOAL)
    assert more is not None
    assert more > 0
    for block in traffic(4, 2 * more // 10 + 1, (10, 0.001), (90, 0.001)):
        one = one.observe(block, GOAL)
    assert one.log_safe >= GOAL


def test_no_forecast_is_given_for_a_canary_beyond_the_margin() -> None:
    assert watch(traffic(5, 10, (10, 0.08), (90, 0.001))).more_for_safe(GOAL) is None
    assert Comparison.of(MARGIN).more_for_safe(GOAL) is None


# -- monotone


@given(st.integers(0, 19), st.integers(0, 180))
@settings(max_examples=60, deadline=None)
def test_one_more_failure_of_the_canary_is_never_evidence_for_it(failed: int, primary_failed: int) -> None:
    before = Comparison.of(MARGIN)
    less = before.observe(Counts(failed, 20, primary_failed, 180), GOAL)
    more = before.observe(Counts(failed + 1, 20, primary_failed, 180), GOAL)
    assert more.log_harm >= less.log_harm - 1e-9
    assert more.log_safe <= less.log_safe + 1e-9


# -- edges


def test_without_requests_in_an_arm_nothing_is_concluded() -> None:
    start = Comparison.of(MARGIN)
    for counts in (Counts(0, 0, 0, 0), Counts(0, 0, 50, 100), Counts(10, 10, 0, 0)):
        one = start.observe(counts, GOAL)
        assert (one.log_harm, one.log_safe, one.blocks) == (start.log_harm, start.log_safe, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12
    ),
    st.sampled_from((0.0001, 0.01, 0.02, 0.3, 0.9)),
)
@settings(max_examples=150, deadline=None)
def test_any_counts_up_to_a_billion_give_finite_evidence(blocks: list[tuple[int, int, float, float]], margin: float) -> None:
    one = Comparison.of(margin)
    for n1, n0, part1, part0 in blocks:
        one = one.observe(Counts(int(n1 * part1), n1, int(n0 * part0), n0), GOAL)
        assert all(map(isfinite, (*one.harm, *one.safe, *one.paper)))
        assert one.log_safe <= GOAL + sequence.SURPLUS + 1e-9
        more = one.more_for_safe(GOAL)
        assert more is None or more >= 0


@pytest.mark.parametrize(("margin", "expected"), [(0.0, 0.1), (1.0, 0.1), (0.01, -0.1), (0.01, 1.1)])
def test_impossible_margins_and_rates_are_refused(margin: float, expected: float) -> None:
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        Comparison.of(margin, expected)


# -- one arm's bounds


def test_the_bounds_of_one_arm_are_those_of_the_mixture() -> None:
    """At each bound the data is exactly 1 / alpha times likelier under the mixture."""
    low, high = bounds(3, 15, 0.05)
    mixture = lgamma(3.5) + lgamma(12.5) - lgamma(16) - (2 * lgamma(0.5) - lgamma(1))
    for edge in (low, high):
        assert mixture - (3 * log(edge) + 12 * log(1 - edge)) == pytest.approx(log(20), abs=1e-6)
    assert low < 0.2 < high


def test_the_bounds_hold_at_every_look_at_once() -> None:
    """alpha is 10 %: of 200 runs more than 35 would be a chance of 1 in 1,000."""

    def ever_out(seed: int) -> bool:
        rng, failed = Random(seed), 0
        for requests in range(10, 1010, 10):
            failed += binomial(rng, 10, 0.05)
            low, high = bounds(failed, requests, 0.1)
            if not low <= 0.05 <= high:
                return True
        return False

    assert sum(ever_out(seed) for seed in range(200)) <= 35


@pytest.mark.parametrize(("failed", "requests", "expected"), [(0, 0, (0.0, 1.0)), (0, 10**9, (0.0, 2e-8)), (5, 5, (0.3, 1.0))])
def test_bounds_at_the_edges(failed: int, requests: int, expected: tuple[float, float]) -> None:
    assert bounds(failed, requests, 0.01) == pytest.approx(expected, rel=0.3, abs=1e-8)


@pytest.mark.parametrize(("failed", "requests", "alpha"), [(2, 1, 0.1), (-1, 1, 0.1), (0, 1, 0.0), (0, 1, 1.0)])
def test_impossible_counts_are_refused(failed: int, requests: int, alpha: float) -> None:
    with pytest.raises(ValueError, match="expected 0 <= failed"):
        bounds(failed, requests, alpha)
