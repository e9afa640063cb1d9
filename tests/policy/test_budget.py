"""The retry budget: a share of the traffic, a floor, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.budget import Budget


def granted(budget: Budget, now: float, tries: int) -> int:
    return sum(budget.withdraw(now) for _ in range(tries))


def test_a_quiet_service_may_retry_by_the_floor_and_no_more() -> None:
    budget = Budget(ratio=0.2, floor_per_second=10, ttl=10)
    assert granted(budget, 0.0, 1_000) == 100
    assert granted(budget, 5.0, 1_000) == 0
    assert granted(budget, 10.0, 1_000) == 100


def test_each_request_earns_its_share_of_a_retry() -> None:
    budget = Budget(ratio=0.2, floor_per_second=0)
    for _ in range(4):
        budget.deposit(0.0)
    assert not budget.withdraw(0.0)
    budget.deposit(0.0)
    assert budget.available(0.0) == 1
    assert granted(budget, 0.0, 10) == 1


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.1, 100), (0.3, 300), (0.35, 350), (1.0, 1_000), (2.5, 2_500)])
def test_any_ratio_is_exact(ratio: float, expected: int) -> None:
    """tower and Linkerd round 1 / ratio down to a whole number: 0.35 becomes 0.5."""
    budget = Budget(ratio=ratio, floor_per_second=0)
    for _ in range(1_000):
        budget.deposit(0.0)
    assert granted(budget, 0.0, 10_000) == expected


def test_what_was_earned_is_forgotten_after_the_ttl() -> None:
    budget = Budget(ratio=1.0, floor_per_second=0, ttl=10)
    for _ in range(50):
        budget.deposit(0.0)
    assert budget.available(9.9) == 50
    assert budget.available(10.1) == 0


def test_slots_expire_one_after_the_other() -> None:
    budget = Budget(ratio=1.0, floor_per_second=0, ttl=10)
    for second in range(10):
        budget.deposit(float(second))
    assert [budget.available(t) for t in (9.5, 10.5, 12.5, 18.5)] == [10, 9, 7, 1]


def test_new_rules_keep_what_was_earned_and_spent() -> None:
    budget = Budget(ratio=0.2, floor_per_second=10, ttl=10)
    assert granted(budget, 0.0, 1_000) == 100
    budget.reconfigure(0.2, 10, 10)
    assert granted(budget, 0.5, 1_000) == 0, "an update must not hand out a fresh floor"
    for _ in range(100):
        budget.deposit(0.6)
    budget.reconfigure(0.5, 10, 10)
    assert granted(budget, 0.7, 1_000) == 20, "earned at 0.2"
    for _ in range(100):
        budget.deposit(0.8)
    assert granted(budget, 0.9, 1_000) == 50


@pytest.mark.parametrize("rules", [(-0.1, 10, 10), (0.2, -1, 10), (0.2, 10, 0.5), (0.2, 10, 61), (float("nan"), 10, 10)])
def test_rules_out_of_range_are_refused_and_change_nothing(rules: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="retry budget"):
        Budget(*rules)
    budget = Budget(ratio=0.2, floor_per_second=3, ttl=10)
    with pytest.raises(ValueError, match="retry budget"):
        budget.reconfigure(*rules)
    assert (budget.ratio, budget.floor_per_second, budget.ttl) == (0.2, 3, 10)
    assert granted(budget, 0.0, 100) == 30


def test_a_clock_that_steps_back_grants_nothing_extra() -> None:
    budget = Budget(ratio=0.2, floor_per_second=1, ttl=10)
    assert granted(budget, 100.0, 50) == 10
    assert granted(budget, 50.0, 50) == 0


@given(
    st.lists(st.tuples(st.floats(0, 0.7), st.booleans()), max_size=300),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([1.0, 4.0, 10.0]),
)
def test_no_window_of_a_ttl_sees_more_retries_than_ratio_and_floor_allow(
    steps: list[tuple[float, bool]], ratio: float, floor: float, ttl: float
) -> None:
    """Over any stretch of nine slots (the part of a ttl that is always remembered), retries are paid for by the requests of
    that stretch and at most one ttl before it, plus the floor."""
    budget = Budget(ratio, floor, ttl)
    now, requests, retries = 50.0, [], []
    for pause, is_retry in steps:
        now += pause
        if is_retry:
            if budget.withdraw(now):
                retries.append(now)
        else:
            budget.deposit(now)
            requests.append(now)
    for end in retries:
        recent = sum(1 for t in retries if end - 0.9 * ttl < t <= end)
        earned = sum(1 for t in requests if end - ttl < t <= end)
        assert recent <= ratio * earned + floor * ttl + 1e-6
