"""What a held series counts, and what bounds it."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.telemetry.families import BUCKETS_MS
from meshproxy.telemetry.registry import HttpSeries, TcpSeries
from meshproxy.telemetry.series import MAX_NAMES, MAX_OUTCOMES, fine_bound, fine_place


def outcomes(series: HttpSeries) -> dict[tuple[int, int, bool], int]:
    return {(cell.status, cell.grpc_status, cell.success): cell.count for cell in series.cells.values()}


def test_usual_outcomes_are_there_at_zero_before_anything_happened() -> None:
    assert outcomes(HttpSeries(())) == {
        (200, -1, True): 0, (500, -1, False): 0, (502, -1, False): 0, (503, -1, False): 0, (504, -1, False): 0,
    }  # fmt: skip


def test_the_first_grpc_answer_brings_grpcs_usual_outcomes_with_it() -> None:
    series = HttpSeries(())
    series.response(200, 5, True, 1.0, 1.0)
    counted = outcomes(series)
    assert counted[200, 5, True] == 1
    assert counted[200, 0, True] == counted[200, 14, False] == 0


def test_outcomes_that_differ_in_one_respect_are_counted_apart() -> None:
    series = HttpSeries(())
    for status, grpc, success in [(200, -1, True), (200, 0, True), (200, 2, False), (200, 2, True), (201, -1, True)]:
        series.response(status, grpc, success, 1.0, 1.0)
    assert [count for count in outcomes(series).values() if count] == [1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("latency_ms", "bucket"), [(0.0, 1), (0.9, 1), (1.0, 1), (1.001, 2), (10.0, 10), (50_000.0, 50_000), (50_000.1, None)]
)
def test_a_latency_falls_into_the_bucket_whose_bound_it_does_not_exceed(latency_ms: float, bucket: int | None) -> None:
    series = HttpSeries(())
    series.response(200, -1, True, latency_ms, latency_ms)
    index = BUCKETS_MS.index(bucket) if bucket else len(BUCKETS_MS)
    (cell,) = (cell for cell in series.cells.values() if cell.count)
    assert cell.buckets[index] == series.duration_buckets[index] == 1
    assert sum(cell.buckets) == sum(series.duration_buckets) == 1


def test_every_request_is_in_exactly_one_outcome_or_in_flight() -> None:
    series = HttpSeries(())
    for _ in range(5):
        series.request()
    assert series.in_flight() == 5
    series.response(200, -1, True, 1.0, 1.0)
    series.failed("reset", 3.0)
    series.cancelled()
    assert series.in_flight() == 2
    assert sum(series.duration_buckets) == 2


def test_an_application_that_invents_outcomes_fills_two_folded_ones_and_no_more() -> None:
    series = HttpSeries(())
    sent = 0
    for status in range(100, 600):
        for grpc in (-1, 3, 14):
            series.response(status, grpc, status < 500, 1.0, 1.0)
            sent += 1
    assert len(series.cells) <= MAX_OUTCOMES + 2
    assert sum(cell.count for cell in series.cells.values()) == sent
    assert sum(cell.count for cell in series.cells.values() if cell.success) == 400 * 3


def test_error_names_and_reasons_are_bounded() -> None:
    series = HttpSeries(())
    for i in range(10 * MAX_NAMES):
        series.failed(f"error-{i}", 1.0)
        series.retry_skipped(f"reason-{i}")
    assert len(series.errors) <= MAX_NAMES + 1
    assert sum(cell.count for cell in series.errors.values()) == 10 * MAX_NAMES
    assert len(series.skipped) <= MAX_NAMES + 1
    assert sum(series.skipped.values()) == 10 * MAX_NAMES


def test_connections_are_open_until_they_are_closed() -> None:
    series = TcpSeries(())
    for _ in range(3):
        series.opened()
    series.closed()
    series.closed("ECONNRESET")
    assert (series.open_total, series.open_connections) == (3, 1)
    assert series.close_total == {"": 1, "ECONNRESET": 1}


@given(st.lists(st.floats(0, 60_000), max_size=50))
def test_buckets_hold_each_sample_once(latencies: list[float]) -> None:
    series = HttpSeries(())
    for latency in latencies:
        series.response(200, -1, True, latency, latency)
    expected = [0] * (len(BUCKETS_MS) + 1)
    for latency in latencies:
        expected[bisect_left(BUCKETS_MS, latency)] += 1
    assert series.duration_buckets == expected


# ---------------------------------------------------------------- fine buckets


@given(st.floats(min_value=0.0, max_value=1e7))
def test_a_latency_lies_within_two_percent_below_the_bound_of_its_fine_bucket(latency_ms: float) -> None:
    place = fine_place(latency_ms)
    assert latency_ms <= fine_bound(place) * (1 + 1e-9)
    if place:
        assert latency_ms >= fine_bound(place - 1) * (1 - 1e-9)


def test_a_fine_histogram_is_bounded() -> None:
    assert fine_place(float("1e300")) == 999
