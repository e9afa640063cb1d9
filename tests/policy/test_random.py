"""The generator of policy decisions: repeatable, uniform, and as good after a small seed as after any other."""

from __future__ import annotations

from collections import Counter

import pytest

from meshproxy.policy.random import Rng


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again, other = Rng(7), Rng(7), Rng(8)
    numbers = [first.bits() for _ in range(100)]
    assert numbers == [again.bits() for _ in range(100)]
    assert numbers != [other.bits() for _ in range(100)]


@pytest.mark.parametrize("seed", [0, 1, 2, 2**31, 2**32 - 1, 2**32, 2**64 + 3, -1])
def test_every_seed_gives_uniform_numbers_and_uniform_pairs(seed: int) -> None:
    rng = Rng(seed)
    draws = [rng.below(10) for _ in range(20_000)]
    # chi-squared: 9 and 99 degrees of freedom; the bounds are beyond the 99.99th percentile (33.7 and 160)
    assert chi_squared(Counter(draws), 10, len(draws)) < 40
    pairs = [10 * a + b for a, b in zip(draws[::2], draws[1::2], strict=True)]
    assert chi_squared(Counter(pairs), 100, len(pairs)) < 170


def test_first_draws_of_neighbouring_seeds_are_unrelated() -> None:
    first = [Rng(seed).below(10) for seed in range(20_000)]
    assert chi_squared(Counter(first), 10, len(first)) < 40
    pairs = [10 * a + b for a, b in zip(first[::2], first[1::2], strict=True)]
    assert chi_squared(Counter(pairs), 100, len(pairs)) < 170


def test_low_bits_are_as_random_as_high_ones() -> None:
    rng = Rng(3)
    for bit in range(32):
        ones = sum((rng.bits() >> bit) & 1 for _ in range(4_000))
        assert abs(ones - 2_000) < 160, f"bit {bit} is set in {ones} of 4000 draws"  # five standard deviations


def test_high_bits_follow_no_short_recurrence() -> None:
    """Plain xorshift is linear: 64 of its bits foretell all others, and so would draws of two that follow one another."""
    rng = Rng(11)
    assert linear_complexity([rng.below(2) for _ in range(400)]) > 180  # random bits: about 200; xorshift32: 32


def test_below_covers_its_range_and_never_leaves_it() -> None:
    rng = Rng(5)
    assert {rng.below(3) for _ in range(200)} == {0, 1, 2}
    assert {rng.below(1) for _ in range(50)} == {0}
    assert all(0.0 <= rng.uniform() < 1.0 for _ in range(1_000))


def chi_squared(counts: Counter[int], cells: int, total: int) -> float:
    expected = total / cells
    return sum((counts[cell] - expected) ** 2 / expected for cell in range(cells))


def linear_complexity(bits: list[int]) -> int:
    """Berlekamp-Massey over GF(2): the length of the shortest recurrence that gives `bits`."""
    current, previous = [1], [1]
    length, gap = 0, 1
    for n in range(len(bits)):
        discrepancy = sum(current[i] & bits[n - i] for i in range(min(length, len(current) - 1) + 1)) & 1
        if not discrepancy:
            gap += 1
            continue
        before = list(current)
        current += [0] * (len(previous) + gap - len(current))
        for i, bit in enumerate(previous):
            current[i + gap] ^= bit
        if 2 * length <= n:
            length, previous, gap = n + 1 - length, before, 1
        else:
            gap += 1
    return length
