"""The estimate of one endpoint, and how a target is picked."""

from __future__ import annotations

from collections import Counter
from math import exp, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.balancer import DECAY_S, DEFAULT_RTT_S, LEAST_REQUEST, Load, Target, pick
from meshproxy.policy.random import Rng


def sampled(load: Load, now: float, latency_s: float) -> None:
    load.start(now)
    load.finish(now, latency_s)


# ---------------------------------------------------------------- the estimate


def test_a_new_endpoint_is_assumed_to_need_thirty_milliseconds_and_warms_up() -> None:
    load = Load(100.0)
    assert load.cost(100.0) == DEFAULT_RTT_S == 0.030
    assert load.cost(100.0 + DECAY_S) == pytest.approx(0.030 * exp(-1))


def test_a_slower_sample_counts_at_once_and_a_faster_one_by_its_age() -> None:
    load = Load(0.0)
    sampled(load, 1.0, 0.5)
    assert load.estimate == 0.5
    sampled(load, 6.0, 0.1)
    weight = exp(-5.0 / DECAY_S)
    assert load.estimate == pytest.approx(weight * 0.5 + (1 - weight) * 0.1)


def test_looking_often_changes_nothing() -> None:
    watched, alone = Load(0.0), Load(0.0)
    for load in (watched, alone):
        sampled(load, 1.0, 0.2)
    for step in range(1_000):
        watched.cost(1.0 + step * 0.004)
    for load in (watched, alone):
        sampled(load, 5.0, 0.1)
    assert watched.estimate == alone.estimate
    assert watched.estimate > 0.1


def test_an_endpoint_nobody_uses_looks_better_with_time_until_it_is_tried_again() -> None:
    load = Load(0.0)
    sampled(load, 0.0, 1.0)
    costs = [load.cost(t) for t in (0.0, 10.0, 30.0, 60.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.005


def test_requests_in_flight_multiply_the_cost() -> None:
    load = Load(0.0)
    for _ in range(3):
        load.start(0.0)
    assert load.pending == 3
    assert load.cost(0.0) == pytest.approx(4 * 0.030)
    load.finish(0.0, None)
    assert load.cost(0.0) == pytest.approx(3 * 0.030)


def test_ending_an_attempt_twice_is_an_error() -> None:
    load = Load(0.0)
    load.start(0.0)
    load.finish(1.0, 0.1)
    with pytest.raises(RuntimeError, match="ended twice"):
        load.finish(1.0, 0.1)


@pytest.mark.parametrize("nonsense", [nan, -1.0, -inf])
def test_a_latency_that_is_none_is_ignored(nonsense: float) -> None:
    load = Load(0.0)
    sampled(load, 5.0, nonsense)
    assert load.estimate == 0.030
    assert load.pending == 0


def test_a_clock_that_steps_back_changes_nothing_and_a_decay_of_zero_is_refused() -> None:
    load = Load(10.0)
    sampled(load, 10.0, 0.2)
    assert load.cost(3.0) == 0.2
    sampled(load, 3.0, 0.1)
    assert load.cost(10.0) == 0.2
    with pytest.raises(ValueError, match="decay"):
        Load(0.0, decay=0.0)


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("order", ["finish first", "penalise first", "no sample"])
def test_a_failure_in_a_microsecond_does_not_look_fast(order: str) -> None:
    load = Load(0.0)
    sampled(load, 1.0, 0.005)
    before = load.latency(2.0)
    load.start(2.0)
    if order == "penalise first":
        load.penalise(2.0)
        load.finish(2.0, 1e-6)
    else:
        load.finish(2.0, 1e-6 if order == "finish first" else None)
        load.penalise(2.0)
    weight = exp(-1.0 / DECAY_S)
    assert load.estimate == pytest.approx(weight * load._before + (1 - weight) * 1.0)
    assert load.latency(2.0) > before * 3


def test_failures_weigh_by_their_share_of_the_time() -> None:
    """One failure in a hundred costs about 10 ms, whatever the request rate."""
    for rate in (10, 1_000):
        load = Load(0.0)
        for i in range(60 * rate):
            now = i / rate
            load.start(now)
            load.finish(now, 0.005)
            if i % 100 == 50:
                load.penalise(now)
        assert 0.010 < load.latency(60.0) < 0.025, rate


def test_a_failure_never_improves_an_estimate_that_is_worse_than_the_penalty() -> None:
    load = Load(0.0)
    sampled(load, 1.0, 8.0)
    load.start(4.0)
    load.finish(4.0, 1e-6)
    load.penalise(4.0)
    assert load.estimate == 8.0


def test_an_unreachable_endpoint_pays_in_full_at_once_and_is_forgiven_with_time() -> None:
    load = Load(0.0)
    sampled(load, 1.0, 0.005)
    load.unreachable(1.001)
    assert load.cost(1.001) == 1.0
    assert load.cost(61.0) < 0.005


# ---------------------------------------------------------------- pick


def targets(n: int) -> list[Target]:
    return [Target(Load(0.0)) for _ in range(n)]


def test_nothing_to_pick_from_is_none() -> None:
    assert pick([], Rng(1), 0.0) is None
    one = targets(1)
    assert pick(one, Rng(1), 0.0) is one[0]
    one[0].available = False
    assert pick(one, Rng(1), 0.0) is None


def test_equal_targets_get_equal_shares() -> None:
    rng, four = Rng(2), targets(4)
    counts = Counter(four.index(picked(four, rng)) for _ in range(40_000))
    assert all(abs(counts[i] - 10_000) < 450 for i in range(4)), counts  # over five standard deviations


def test_the_dearest_of_all_is_never_picked_since_two_different_ones_are_compared() -> None:
    rng, three = Rng(3), targets(3)
    three[1].load.unreachable(0.0)
    assert {three.index(picked(three, rng)) for _ in range(1_000)} == {0, 2}


def test_unavailable_targets_are_skipped_without_favouring_their_neighbours() -> None:
    rng, six = Rng(4), targets(6)
    for i in (0, 1, 2):
        six[i].available = False
    counts = Counter(six.index(picked(six, rng)) for _ in range(30_000))
    assert set(counts) == {3, 4, 5}
    assert all(abs(count - 10_000) < 450 for count in counts.values()), counts


def test_a_retry_goes_elsewhere_unless_there_is_nowhere_else() -> None:
    rng, three = Rng(5), targets(3)
    three[2].load.unreachable(0.0)
    assert {three.index(picked(three, rng, three[0])) for _ in range(100)} == {1}
    three[1].available = three[2].available = False
    assert picked(three, rng, three[0]) is three[0]
    three[0].available = False
    assert pick(three, rng, 0.0, three[0]) is None
    gone = targets(1)[0]
    assert pick([], rng, 0.0, gone) is None  # what failed is not even listed any more


def test_least_request_looks_at_pending_requests_alone() -> None:
    rng, two = Rng(6), targets(2)
    two[0].load.unreachable(0.0)
    two[1].load.start(0.0)
    assert pick(two, rng, 0.0, None, LEAST_REQUEST) is two[0]
    assert pick(two, rng, 0.0) is two[1]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=8),
    st.integers(0, 2**32),
    st.integers(-1, 7),
)
def test_a_pick_is_always_available_and_not_the_excluded_one_if_there_is_a_choice(
    facts: list[tuple[bool, int]], seed: int, excluded: int
) -> None:
    all_targets = targets(len(facts))
    for target, (available, pending) in zip(all_targets, facts, strict=True):
        target.available = available
        target.load.pending = pending
    exclude = all_targets[excluded] if 0 <= excluded < len(facts) else None
    chosen = pick(all_targets, Rng(seed), 1.0, exclude)
    available_targets = [t for t in all_targets if t.available]
    if not available_targets:
        assert chosen is None
    else:
        assert chosen in available_targets
        assert chosen is not exclude or available_targets == [exclude]


def picked(candidates: list[Target], rng: Rng, exclude: Target | None = None) -> Target:
    chosen = pick(candidates, rng, 0.0, exclude)
    assert chosen is not None
    return chosen
