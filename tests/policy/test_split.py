"""Weighted splits: exact, unpredictable to periodic clients, and never to a weight of zero."""

from __future__ import annotations

from collections import Counter
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.policy.consistent_hash import hash_key
from meshproxy.policy.random import Rng
from meshproxy.policy.split import MAX_BLOCK, Split


@pytest.mark.parametrize(
    ("weights", "block"),
    [([90, 10], 10), ([50_000, 50_000], 2), ([999, 1], 1000), ([1, 2, 3, 0], 6), ([5], 1), ([9_999, 1], 10_000)],
)
def test_each_block_holds_exactly_the_weights(weights: list[int], block: int) -> None:
    split = Split(weights, Rng(1))
    for _ in range(3):
        counts = Counter(split.draw() for _ in range(block))
        assert [counts[i] for i in range(len(weights))] == [w * block // sum(weights) for w in weights]


def test_order_within_blocks_differs_from_block_to_block() -> None:
    split = Split([9, 1], Rng(2))
    places = [[split.draw() for _ in range(10)].index(1) for _ in range(2_000)]
    counts = Counter(places)
    assert set(counts) == set(range(10))
    assert all(abs(count - 200) < 75 for count in counts.values()), counts  # over five standard deviations


def test_a_periodic_client_sees_its_share_whatever_its_period() -> None:
    """Every tenth request is a checkout: a fixed order would send all checkouts to one backend, or none."""
    split = Split([90, 10], Rng(3))
    draws = [split.draw() for _ in range(100_000)]
    for period in (2, 5, 10, 20, 100):
        share = sum(draws[::period]) / len(draws[::period])
        assert abs(share - 0.1) < 5 * (0.09 / len(draws[::period])) ** 0.5, period


@pytest.mark.parametrize("weights", [[], [0], [0, 0, 0]])
def test_no_weight_at_all_draws_nobody(weights: list[int]) -> None:
    assert Split(weights, Rng(1)).draw() == -1


def test_a_weight_of_zero_is_never_drawn() -> None:
    split = Split([0, 3, 0, 1], Rng(4))
    assert {split.draw() for _ in range(1_000)} == {1, 3}
    huge = Split([0, 999_983, 1], Rng(4))
    assert 0 not in {huge.draw() for _ in range(3 * MAX_BLOCK)}


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Split([5, -1], Rng(1))


def test_the_given_weights_can_be_compared_to_see_whether_a_new_split_is_needed() -> None:
    assert Split([90, 10], Rng(1)).weights == [90, 10]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6).filter(any), st.integers(1, 6), st.integers(0, 2**32))
def test_every_split_is_exact_in_the_large(weights: list[int], blocks: int, seed: int) -> None:
    """After any number of whole blocks no backend is further from its share than one draw for each of the others."""
    split = Split(weights, Rng(seed))
    reduced = sum(weights) // gcd(*weights)
    n = blocks * min(reduced, MAX_BLOCK)
    counts = Counter(split.draw() for _ in range(n))
    for i, weight in enumerate(weights):
        error = abs(counts[i] - n * weight / sum(weights))
        assert error < (1e-6 if reduced <= MAX_BLOCK else len(weights)), (i, counts)
        assert weight or not counts[i]


def test_a_share_smaller_than_one_draw_a_block_still_gets_what_it_is_owed() -> None:
    split = Split([1, 49_999], Rng(5))  # one in 50,000: a draw every fifth block
    counts = Counter(split.draw() for _ in range(500_000))
    assert counts[0] == 10


def test_a_key_stays_with_its_backend_while_the_weights_are_the_same() -> None:
    split = Split([90, 10], Rng(1))
    again = Split([90, 10], Rng(2))
    keys = [hash_key(b"user-%d" % i) for i in range(2_000)]
    assert [split.at(key) for key in keys] == [again.at(key) for key in keys]
    share = sum(split.at(key) for key in keys) / len(keys)
    assert 0.07 < share < 0.13  # of 2,000 keys at 10 %: four standard deviations are 2.7 %


def test_who_is_with_a_backend_at_the_end_stays_there_when_its_weight_grows() -> None:
    before, after = Split([90, 10], Rng(1)), Split([80, 20], Rng(1))
    keys = [hash_key(b"user-%d" % i) for i in range(2_000)]
    assert all(after.at(key) == 1 for key in keys if before.at(key) == 1)


def test_a_key_never_leads_to_a_backend_without_weight() -> None:
    assert {Split([0, 1, 0], Rng(1)).at(hash_key(b"%d" % i)) for i in range(100)} == {1}
    assert Split([0, 0], Rng(1)).at(7) == -1
