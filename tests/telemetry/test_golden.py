"""Golden metrics from pages: parsing, resets, Prometheus' quantiles."""

from __future__ import annotations

from math import inf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from meshproxy.telemetry.families import BUCKETS_MS
from meshproxy.telemetry.golden import Golden, deltas, golden_by, parse, quantile
from meshproxy.telemetry.registry import Registry

# ---------------------------------------------------------------- parsing


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=6))
def test_a_page_reads_as_prometheus_own_parser_reads_it(values: list[tuple[str, str]]) -> None:
    registry = Registry()
    for i, (authority, pod) in enumerate(values):
        series = registry.http("outbound", (("authority", authority), ("dst_pod", pod)))
        for _ in range(i):
            series.request()
            series.response(200, -1, True, 7.5, 8.0)
    text = registry.render().decode()
    expected = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("up 1", {("up", ()): 1.0}),
        ("up{} 1", {("up", ()): 1.0}),
        ("up 1 1700000000000", {("up", ()): 1.0}),
        ('x{a="1",} +Inf', {("x", (("a", "1"),)): inf}),
        ('x{ b = "2" , a = "}" } 1e3', {("x", (("a", "}"), ("b", "2"))): 1000.0}),
        ("# HELP x y", {}),
        ("", {}),
    ],
)
def test_the_format_allows_more_than_we_write(line: str, expected: object) -> None:
    assert parse(line) == expected


@pytest.mark.parametrize("line", ["x", "x{a=1} 2", 'x{a="1" b="2"} 3', "x one", "{} 1", 'x{a="1"', "<html>"])
def test_what_is_no_page_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse("up 1\n" + line)


# ---------------------------------------------------------------- deltas


def test_counters_grow_are_born_at_zero_and_start_again_after_a_restart() -> None:
    before = {("a", ()): 5.0, ("restarted", ()): 100.0, ("gone", ()): 1.0}
    after = {("a", ()): 8.0, ("restarted", ()): 3.0, ("new", ()): 2.0}
    assert deltas(before, after) == {("a", ()): 3.0, ("restarted", ()): 3.0, ("new", ()): 2.0}


# ---------------------------------------------------------------- quantile, cases from Prometheus' own tests


BUCKETS = [(0.1, 1.0), (0.2, 2.0), (1.0, 4.0), (inf, 5.0)]


@pytest.mark.parametrize(
    ("q", "expected"),
    [(-0.1, -inf), (0.0, 0.0), (0.2, 0.1), (0.3, 0.15), (0.4, 0.2), (0.6, 0.6), (0.8, 1.0), (0.9, 1.0), (1.0, 1.0), (1.1, inf)],
)
def test_a_quantile_is_linear_within_its_bucket(q: float, expected: float) -> None:
    assert quantile(q, BUCKETS) == pytest.approx(expected)


@pytest.mark.parametrize(
    "buckets", [[], [(inf, 5.0)], [(1.0, 3.0), (2.0, 5.0)], [(1.0, 0.0), (inf, 0.0)]], ids=["none", "inf", "no inf", "empty"]
)
def test_there_is_no_quantile_of_nothing(buckets: list[tuple[float, float]]) -> None:
    assert isnan(quantile(0.5, buckets))
    assert isnan(quantile(nan, BUCKETS))


def test_a_bucket_that_holds_less_than_the_one_before_does_not_turn_the_curve_round() -> None:
    assert quantile(11 / 12, [(1.0, 10.0), (2.0, 8.0), (4.0, 12.0), (inf, 12.0)]) == pytest.approx(3.0)


@given(st.lists(st.floats(0, 49_999), min_size=1, max_size=60), st.floats(0, 1, exclude_min=True))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    values.sort()
    bounds = [*map(float, BUCKETS_MS), inf]
    buckets = [(bound, float(sum(value <= bound for value in values))) for bound in bounds]
    answer = quantile(q, buckets)
    rank = max(1, -(-q * len(values) // 1))  # the smallest rank that covers q
    true = values[int(rank) - 1]
    index = next(i for i, bound in enumerate(bounds) if true <= bound)
    lower = bounds[index - 1] if index else 0.0
    assert lower - 1e-6 <= answer <= bounds[index] + 1e-6


# ---------------------------------------------------------------- rows


def test_rows_are_computed_from_two_pages() -> None:
    registry = Registry((("namespace", "shop"), ("pod", "web-1")))
    prices = registry.http("outbound", (("dst_namespace", "shop"), ("dst_service", "prices")))
    stock = registry.http("outbound", (("dst_namespace", "shop"), ("dst_service", "stock")))
    inbound = registry.http("inbound")
    tcp = registry.tcp("outbound", (("peer", "dst"), ("dst_namespace", "shop"), ("dst_service", "prices")))
    tcp.opened()
    for _ in range(1_000):  # before the window
        prices.response(500, -1, False, 900.0, 900.0)
    before = parse(registry.render().decode())
    for i in range(40):
        prices.response(200, -1, True, 3.5, 4.0)
        inbound.response(200, -1, True, 1.0, 1.0)
        if i % 4 == 0:
            prices.failed("reset", 1.0)
            stock.response(200, 14, False, 2.5, 2.5)
    tcp.read_bytes += 500
    after = parse(registry.render().decode())
    rows = golden_by(before, after, 10.0, ("dst_service",), lambda labels: labels["direction"] == "outbound")
    assert set(rows) == {("prices",), ("stock",)}
    seen = rows["prices",]
    assert (seen.success, seen.failure, seen.tcp_open, seen.read_bytes) == (40, 10, 1, 500)
    assert seen.success_rate == 0.8
    assert seen.rps == 5.0
    assert 3.0 < seen.latency_ms(0.5) < seen.latency_ms(0.99) <= 4.0
    assert rows["stock",].success_rate == 0.0
    assert rows["stock",].latency_ms(0.5) == pytest.approx(2.5)


def test_groups_add_up_and_nothing_is_not_a_success() -> None:
    total = Golden(10.0)
    assert isnan(total.success_rate)
    assert isnan(total.latency_ms(0.5))
    assert total.rps == 0.0
    total.add(Golden(10.0, 3, 1, {1.0: 2.0, inf: 4.0}, 1, 10, 20))
    total.add(Golden(10.0, 1, 0, {1.0: 1.0, inf: 1.0}, 2, 10, 20))
    assert (total.success, total.failure, total.tcp_open, total.read_bytes, total.write_bytes) == (4, 1, 3, 20, 40)
    assert total.buckets == {1.0: 3.0, inf: 5.0}
