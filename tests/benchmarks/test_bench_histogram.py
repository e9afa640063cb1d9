"""Latencies keep their percentiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.histogram import Histogram

values = st.lists(st.integers(0, 10**12), min_size=1, max_size=300)


def of(numbers: list[int]) -> Histogram:
    histogram = Histogram()
    for number in numbers:
        histogram.record(number)
    return histogram


@given(values, st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_within_one_part_in_128_of_the_exact_one(numbers: list[int], percent: int) -> None:
    exact = sorted(numbers)[-(-len(numbers) * percent // 100) - 1]  # the smallest that `percent` of all are not above
    assert exact <= of(numbers).percentile(percent) <= exact + exact / 128


@given(values, values)
def test_two_histograms_add_up_to_the_histogram_of_both(first: list[int], second: list[int]) -> None:
    added = of(first)
    added.add(of(second))
    both = of(first + second)
    assert (added.counts, added.total, added.greatest) == (both.counts, both.total, both.greatest)


def test_the_greatest_value_is_kept_exactly() -> None:
    assert of([3, 1_000_003]).microseconds()["max"] == 1000.003
    assert of([1_000_003]).percentile(99.9) == 1_000_003


def test_an_empty_histogram_says_zero() -> None:
    assert Histogram().microseconds() == {"p50": 0, "p90": 0, "p99": 0, "p999": 0, "max": 0}
