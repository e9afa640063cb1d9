"""results.json becomes a page: right ratios, targets judged, nothing left out in silence."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.chart import Bar, Group, chart, figure
from benchmarks.report import charts, page, table, write
from benchmarks.results import Results, cpu_us, per_connection_kb, rate
from benchmarks.targets import BEST, MET, MISSED, UNKNOWN, Added, Bound, Target
from benchmarks.workloads import WORKLOADS

REPOSITORY = Path(__file__).parents[2]


def one(workload: str, peer: str, number: int, a: float, b: float | None = None, **more: Any) -> dict[str, Any]:
    used = {"A": a} if b is None else {"A": a, "B": b}
    entry = {
        "workload": workload,
        "peer": peer,
        "round": number,
        "requests": 1000,
        "seconds": 0.5,
        "cpu_us": used,
        "rss": dict.fromkeys(used, 30000000),
        "latency_us": {"p50": 100.0, "p90": 200.0, "p99": 1000.0, "p999": 2000.0},
        "errors": 0,
    }
    return entry | more


def results(rounds: list[dict[str, Any]], **more: Any) -> Results:
    return Results({"machine": {"cores": 2, "cpu": "a | b"}, "missing": {}, "skipped": [], "rounds": rounds, **more})


def test_a_ratio_is_taken_inside_each_round_and_then_the_median() -> None:
    """The machine was three times as slow in round 2; medians first would say 20 / 60 = 0.33."""
    rounds = [
        *(one("h1-varied", "compiled", n, cpu) for n, cpu in ((1, 20.0), (2, 60.0), (3, 10.0))),
        *(one("h1-varied", "envoy", n, cpu) for n, cpu in ((1, 40.0), (2, 100.0), (3, 60.0))),
    ]
    found = results(rounds).ratio("h1-varied", "compiled", "envoy", cpu_us)
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == (0.5, pytest.approx(1 / 6), 0.6, 3)


def test_a_round_that_one_of_the_two_lacks_gives_no_ratio() -> None:
    rounds = [one("h1-varied", "compiled", 1, 20.0), one("h1-varied", "envoy", 2, 40.0)]
    assert results(rounds).ratio("h1-varied", "compiled", "envoy", cpu_us) is None


def test_a_round_with_errors_is_listed_and_not_used() -> None:
    rounds = [
        one("h1-varied", "compiled", 1, 20.0),
        one("h1-varied", "compiled", 2, 1.0, errors=3, invalid="3 of 1000 requests failed"),
        {"workload": "h1-varied", "peer": "envoy", "round": 1, "requests": 0, "seconds": 0.0, "errors": 0, "invalid": "gone"},
    ]
    found = results(rounds)
    assert found.by_round("h1-varied", "compiled", cpu_us) == {1: 20.0}
    text = page(found, [])
    assert "h1-varied, compiled, round 2: 3 of 1000 requests failed" in text
    assert "h1-varied, envoy, round 1: gone" in text


def test_the_cpu_of_two_hops_is_the_sum_of_both() -> None:
    assert cpu_us(one("mesh-c64", "compiled", 1, 10.0, 12.5)) == 22.5
    assert rate(one("mesh-c64", "compiled", 1, 10.0, 12.5)) == 2000


@pytest.mark.parametrize(("ours", "said"), [(20.0, MET), (20.1, MISSED)])
def test_a_target_is_met_up_to_its_limit_and_missed_above(ours: float, said: str) -> None:
    rounds = [one("h1-varied", "compiled", 1, ours), one("h1-varied", "envoy", 1, 40.0)]
    assert Target("h1-varied", "envoy", 0.50).judge(results(rounds)).said == said


def test_the_best_of_the_c_proxies_is_the_one_with_the_least_median() -> None:
    rounds = [
        one("h1-varied", "compiled", 1, 15.0),
        one("h1-varied", "haproxy", 1, 12.0),
        one("h1-varied", "nginx", 1, 10.0),
    ]
    verdict = Target("h1-varied", BEST, 1.5).judge(results(rounds))
    assert (verdict.said, verdict.note) == (MET, "best: nginx")


def test_a_target_without_figures_is_said_to_be_not_measured() -> None:
    assert Target("h1-varied", "envoy", 0.5).judge(results([])).said == UNKNOWN
    assert Added("latency-2000").judge(results([])).said == UNKNOWN


def test_added_latency_is_judged_by_the_spread_of_envoys_rounds_and_the_pacer_named() -> None:
    def p99(peer: str, number: int, value: float, **more: Any) -> dict[str, Any]:
        return one("latency-2000", peer, number, 20.0, latency_us={"p50": 1.0, "p99": value}, **more)

    theirs = [p99("envoy", 1, 900.0), p99("envoy", 2, 1500.0)]
    better = Added("latency-2000").judge(results([*theirs, p99("compiled", 1, 1400.0)]))
    worse = Added("latency-2000").judge(results([*theirs, p99("compiled", 1, 1600.0, pacer_dominates=True)]))
    assert (better.said, better.note) == (MET, "")
    assert worse.said == MISSED
    assert "pacer" in worse.note


def test_added_latency_is_what_is_left_of_the_same_round_without_a_proxy() -> None:
    def p50(workload: str, peer: str, number: int, value: float) -> dict[str, Any]:
        return one(workload, peer, number, 20.0, latency_us={"p50": value, "p90": value, "p99": value, "p999": value})

    rounds = [p50("latency-200", "direct", n, 100.0 * n) for n in (1, 2, 3)]
    rounds += [p50("latency-200", "envoy", n, 100.0 * n + 50 + n) for n in (1, 2, 3)]
    rounds += [p50("mesh-latency-200", "envoy", n, 100.0 * n + 90) for n in (1, 2, 3)]
    text = page(results(rounds), [])
    assert "| envoy | 52.0 [51.0-53.0] |" in text
    assert "| envoy | 90.0 [90.0-90.0] |" in text
    assert "was not measured." in page(results(rounds[3:]), [])


def test_what_policy_adds_is_told_round_by_round() -> None:
    rounds = [one("policy-cost", "compiled", n, 20.0 * n, 20.0 * n) for n in (1, 2, 3)]
    assert "was not measured: a round of each is needed." in page(results(rounds), [])
    rounds += [one("policy-cost", "compiled-policy", n, 25.0 * n, 20.0 * n) for n in (1, 2, 3)]
    text = page(results(rounds), [])
    assert "adds 10.0 [5.00-15.0] us of CPU to a request" in text
    assert "1.12 [1.12-1.12] times as much" in text


def test_memory_a_connection_is_what_the_connections_added() -> None:
    entry = one(
        "memory-connections", "compiled", 1, 1.0, rss={"A": 60_000_000}, rss_before={"A": 40_000_000}, connections=10_000
    )
    assert per_connection_kb(entry) == 2.0
    assert Bound("memory-connections", "a connection", 3, "kB", per_connection_kb).judge(results([entry])).said == MET


def test_where_fewer_connections_were_held_than_the_heading_says_the_page_tells_how_many_and_why() -> None:
    held = {"rss": {"A": 60_000_000}, "rss_before": {"A": 40_000_000}}
    machine = {"machine": {"open_files": 20_000}}
    entries = [one("memory-connections", peer, 1, 1.0, connections=9_800, **held) for peer in ("compiled", "envoy")]
    text = page(results(entries, **machine), [])
    assert text.count("9,800 connections were held, not 10,000") == 1
    assert "the hard limit of descriptors (20,000 here) bounds them." in text
    all_of_them = [one("memory-connections", "compiled", 1, 1.0, connections=10_000, **held)]
    assert "were held" not in page(results(all_of_them, **machine), [])


def made_up() -> dict[str, Any]:
    """A whole run, with what may be missing missing."""
    chance = random.Random(7)
    rounds = []
    for workload in WORKLOADS:
        for number in (1, 2, 3):
            for peer, cost in (("compiled", 20), ("interpreted", 35), ("envoy", 50), ("haproxy", 15), ("direct", 0)):
                if peer == "direct" and workload.tool != "pace":
                    continue
                entry = one(workload.id, peer, number, cost * chance.uniform(0.9, 1.1), cost if workload.hops == 2 else None)
                rounds.append(entry)
    return {
        "machine": {"cpu": "test", "cores": 2, "versions": {"python": "3.11.7"}},
        "peers": {"compiled": {"title": "meshproxy, compiled", "version": "1", "settings": "Defaults."}},
        "missing": {"linkerd": "LINKERD2_PROXY_BIN names no binary"},
        "skipped": [{"workload": "grpc-unary", "peer": "haproxy", "why": "no mutual TLS over HTTP/2 upstream"}],
        "rounds": rounds,
    }


def test_the_page_has_every_workload_that_was_measured_and_names_who_was_missing() -> None:
    text = page(Results(made_up()), ["one-hop"])
    for workload in WORKLOADS:
        assert f"### {workload.title.partition(') ')[2]}" in text
    assert "**linkerd**: LINKERD2_PROXY_BIN names no binary" in text
    assert "no mutual TLS over HTTP/2 upstream" in text
    assert "meshproxy, compiled" in text
    assert "![" in text


def test_every_row_of_every_table_has_as_many_cells_as_its_head() -> None:
    widths: list[int] = []
    for line in page(Results(made_up()), []).splitlines():
        if line.startswith("|"):
            widths.append(line.replace("\\|", "").count("|"))
        else:
            assert len(set(widths)) <= 1, line
            widths = []


def test_charts_are_well_formed_and_show_each_peer_in_its_colour() -> None:
    made = charts(Results(made_up()))
    assert set(made) == {"one-hop", "two-hops", "bodies", "uploads"}
    for text in made.values():
        root = ElementTree.fromstring(text)
        bars = [each for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("fill") == "#D55E00"]
        assert bars
        assert all(float(bar.get("width", "0")) > 0 for bar in bars)


def test_a_longer_bar_is_a_greater_value() -> None:
    bars = [Bar("compiled", "ours <1>", 10, 9, 11), Bar("envoy", "Envoy & co", 20, 18, 22)]
    root = ElementTree.fromstring(chart("t", "us", [Group("g", bars)]))
    widths = [float(each.get("width", "0")) for each in root.iter("{http://www.w3.org/2000/svg}rect") if each.get("x")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)


@pytest.mark.parametrize(("value", "said"), [(1234.5, "1,234"), (123.4, "123"), (12.34, "12.3"), (0.421, "0.42")])
def test_figures_have_three_digits_at_most(value: float, said: str) -> None:
    assert figure(value) == said


def test_a_bar_in_a_cell_does_not_break_the_table() -> None:
    assert table(["a"], [["x|y"]]).splitlines()[2] == "| x\\|y |"


def test_the_command_writes_page_and_charts(tmp_path: Path) -> None:
    source = tmp_path / "results.json"
    source.write_text(json.dumps(made_up()))
    target = tmp_path / "docs" / "benchmarks.md"
    target.parent.mkdir()
    command = [sys.executable, "-m", "benchmarks.report", str(source), "--page", str(target)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert "HTTP/1.1, c=64, varied, compiled" in done.stdout
    assert target.read_text().startswith("# Benchmarks")
    assert sorted(each.name for each in (tmp_path / "docs" / "benchmarks").iterdir()) == [
        "bodies.svg",
        "one-hop.svg",
        "two-hops.svg",
        "uploads.svg",
    ]


def test_a_file_that_is_no_results_is_refused_with_its_name(tmp_path: Path) -> None:
    source = tmp_path / "other.json"
    source.write_text("{}")
    command = [sys.executable, "-m", "benchmarks.report", str(source), "--page", str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "other.json" in done.stderr
    assert not (tmp_path / "page.md").exists()


def test_an_empty_run_still_makes_a_page(tmp_path: Path) -> None:
    write(results([]), tmp_path / "page.md")
    assert "0 met" not in (tmp_path / "page.md").read_text()
