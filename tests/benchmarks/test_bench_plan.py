"""What `make bench` is going to do: rows, rounds, order, time."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench
from benchmarks.peers import all_peers
from benchmarks.workloads import WORKLOADS, choose


def test_ids_are_unique_and_every_letter_has_workloads() -> None:
    assert len({each.id for each in WORKLOADS}) == len(WORKLOADS)
    assert {each.group for each in WORKLOADS} == set("abcdefghi")


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["c"], ["mesh-c64", "mesh-c4", "mesh-c1"]),
        (["mesh-c4"], ["mesh-c4"]),
        (["grpc"], ["grpc-unary", "grpc-stream"]),
        (["h2-varied", "a"], ["h1-identical", "h1-varied", "h2-varied"]),
    ],
)
def test_workloads_are_chosen_by_letter_id_or_beginning(words: list[str], ids: list[str]) -> None:
    assert [each.id for each in choose(words)] == ids


def test_an_unknown_workload_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no workload 'smoke'; known: .*mesh-c64"):
        choose(["smoke"])


def test_every_peer_name_a_workload_asks_for_exists() -> None:
    names = {peer.name for peer in all_peers()}
    assert {name for each in WORKLOADS for name in each.peers} <= names


def test_the_full_bench_with_every_peer_fits_twenty_minutes() -> None:
    assert sum(bench.estimate(WORKLOADS, all_peers(), bench.FULL_ROUNDS).values()) <= 20 * 60


def test_a_peer_is_planned_only_for_what_it_can_do() -> None:
    planned = {(workload.id, peer.name) for _, workload, peer in bench.schedule(WORKLOADS, all_peers(), 5)}
    assert ("mesh-c64", "envoy") in planned
    assert ("mesh-c64", "haproxy") not in planned
    assert ("h2-varied", "nginx") not in planned
    assert ("latency-200", "direct") in planned
    assert ("h1-varied", "direct") not in planned


def test_rounds_interleave_peers_and_each_begins_with_another() -> None:
    workloads, peers = (
        choose(["h1-varied", "h1-1k"]),
        [peer for peer in all_peers() if peer.name in ("envoy", "haproxy", "nginx")],
    )
    order = [(number, workload.id, peer.name) for number, workload, peer in bench.schedule(workloads, peers, 5)]
    assert [peer for number, workload, peer in order if workload == "h1-varied"][:9] == [
        *("envoy", "haproxy", "nginx"),
        *("haproxy", "nginx", "envoy"),
        *("nginx", "envoy", "haproxy"),
    ]
    assert [number for number, _, _ in order] == sorted(number for number, _, _ in order)
    counts = {workload.id: len({n for n, each, _ in order if each == workload.id}) for workload in workloads}
    assert counts == {"h1-varied": 5, "h1-1k": 3}


@pytest.mark.parametrize(("rounds", "counts"), [(5, (5, 3, 1)), (1, (1, 1, 1)), (10, (10, 6, 1))])
def test_rounds_keep_their_proportion(rounds: int, counts: tuple[int, int, int]) -> None:
    rows = choose(["h1-varied"]) + choose(["h1-1k"]) + choose(["memory-idle"])
    assert tuple(bench.rounds_of(each, rounds) for each in rows) == counts


def test_a_peer_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert bench.main(["--peers", "traefik", "--results", str(tmp_path / "r.json")]) == 2
    assert "no peer traefik; known: " in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
