"""Peers' configurations are accepted by the peers' own checks, and a proxy of ours is really measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import bench, measure, memory, nginx_backend
from benchmarks.fleet import Fleet
from benchmarks.peers import all_peers
from benchmarks.peers.certificates import CLIENT, SERVER, write_certificates
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.haproxy import HAProxy
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.peer import Peer, Running, find_program
from benchmarks.record import Record
from benchmarks.workloads import choose

BACKENDS = ["127.0.0.1:18080", "127.0.0.1:18081"]
LISTEN = "127.0.0.1:18000"


def peer_here(peer: Peer) -> Peer:
    if why := peer.missing():
        pytest.skip(f"{peer.name} is missing: {why}")
    return peer


def accepts(words: Sequence[str]) -> None:
    done = subprocess.run(list(words), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    write_certificates(directory)
    return directory


@pytest.mark.parametrize(
    ("kind", "server", "client"),
    [("h1", "", ""), ("h2", "", ""), ("mtls", SERVER, ""), ("h1", "", CLIENT), ("grpc", SERVER, "")],
)
def test_envoy_accepts_its_configuration(certificates: Path, tmp_path: Path, kind: str, server: str, client: str) -> None:
    envoy = Envoy()
    peer_here(envoy)
    tls = {"server_tls": certificates / server if server else None, "client_tls": certificates / client if client else None}
    config = envoy.config(tmp_path / "envoy.yaml", kind, LISTEN, BACKENDS, **tls)
    accepts([*envoy.command(config), "--mode", "validate"])


@pytest.mark.parametrize("kind", ["h1", "h2", "mtls"])
def test_haproxy_accepts_its_configuration(certificates: Path, tmp_path: Path, kind: str) -> None:
    haproxy = HAProxy()
    peer_here(haproxy)
    measure.raise_open_files()
    tls = certificates / SERVER if kind == "mtls" else None
    config = haproxy.config(tmp_path / "haproxy.cfg", kind, LISTEN, BACKENDS, tls)
    accepts([find_program("haproxy") or "", "-c", "-f", str(config)])


@pytest.mark.parametrize("kind", ["h1", "mtls"])
def test_nginx_accepts_its_configuration(certificates: Path, tmp_path: Path, kind: str) -> None:
    nginx = Nginx()
    peer_here(nginx)
    config = nginx.config(tmp_path / "nginx", LISTEN, BACKENDS, certificates / SERVER if kind == "mtls" else None)
    accepts([*nginx.command(config), "-t"])


@pytest.mark.parametrize(("kind", "count"), [("h1", 1), ("h2", 1), ("h1", 1000)])
def test_nginx_accepts_the_backends_configuration(tmp_path: Path, kind: str, count: int) -> None:
    peer_here(Nginx())
    config = tmp_path / "backend.conf"
    config.write_text(nginx_backend.config(kind, tmp_path, "127.1.0.1:18080", count))
    measure.raise_open_files()
    accepts([find_program("nginx") or "", "-p", str(tmp_path), "-c", str(config), "-e", "stderr", "-t"])


def test_a_thousand_endpoints_have_a_thousand_addresses() -> None:
    addresses = nginx_backend.neighbours("127.1.0.1:18080", 1000)
    assert len(set(addresses)) == 1000
    assert (addresses[0], addresses[-1]) == ("127.1.0.1:18080", "127.1.3.232:18080")


def test_cpu_and_memory_are_counted_with_descendants() -> None:
    child = "import os, sys; sum(range(3_000_000)); os.write(1, b'.'); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.read(1) == b"."
        first, second = measure.tree(running.pid)
        assert measure.cpu_seconds(second) > 0.01
        assert measure.cpu_seconds(first) > measure.cpu_seconds(second)
        assert measure.rss_bytes(first) > measure.rss_bytes(second)
        running.stdin.close()  # both end
    with pytest.raises(ProcessLookupError):
        measure.cpu_seconds(first)


@pytest.mark.skipif(not (shutil.which("wrk") and find_program("nginx")), reason="needs wrk and nginx (Debian: wrk nginx-light)")
def test_a_run_of_ours_writes_a_valid_round_and_one_with_failures_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    varied, bodies = (bench.scaled(each, True) for each in choose(["h1-varied", "h1-64k"]))
    ours = next(peer for peer in all_peers() if peer.name == "interpreted")
    record = Record(path, [ours], [varied, bodies])
    with Fleet(tmp_path) as fleet:
        record.add(bench.one_measurement(fleet, 1, varied, ours))
        first = fleet.need(ours, varied).pids["A"]
        (tmp_path / "bodies" / "64k").unlink()  # now it is 404
        record.add(bench.one_measurement(fleet, 1, bodies, ours))
        assert fleet.need(ours, varied).pids["A"] != first  # a proxy that was there when requests failed is started anew
    good, bad = json.loads(path.read_text())["rounds"]
    assert "invalid" not in good
    assert good["errors"] == 0
    assert good["requests"] > 100
    assert 1 < good["cpu_us"]["A"] < 10_000
    assert good["rss"]["A"] > 10 << 20
    assert set(good["latency_us"]) == {"p50", "p90", "p99", "p999"}
    assert bad["invalid"].endswith("requests failed while warming up")
    assert bad["errors"] >= 1
    assert "cpu_us" not in bad


@pytest.mark.skipif(not find_program("nginx"), reason="needs nginx (Debian: nginx-light)")
@pytest.mark.parametrize("name", ["memory-connections", "memory-mtls-connections"])
def test_idle_connections_are_held_while_memory_is_read(tmp_path: Path, name: str) -> None:
    workload = replace(choose([name])[0], connections=100)
    ours = next(peer for peer in all_peers() if peer.name == "interpreted")
    with Fleet(tmp_path) as fleet:
        entry = bench.one_measurement(fleet, 1, workload, ours)
    assert "invalid" not in entry
    assert entry["connections"] == 100
    assert entry["rss"]["A"] > entry["rss_before"]["A"]


@pytest.mark.parametrize(
    ("open_files", "held"), [(1_048_576, 10_000), (20_400, 10_000), (20_000, 9_800), (1024, 312), (100, 1)]
)
def test_as_many_connections_are_held_as_a_proxy_has_descriptors_for_both_sides(open_files: int, held: int) -> None:
    assert memory.held(choose(["memory-connections"])[0].connections, open_files) == held


def test_a_crowd_that_is_refused_is_no_measurement() -> None:
    with pytest.raises(memory.NoAnswer, match=r"connection \d of 3: .*refused"), memory.crowd(nowhere(), 3, None):
        pytest.fail("nobody listens there")


def nowhere() -> Running:
    return Running(measure.free_address(), {})


def test_a_record_keeps_what_it_has_and_names_who_is_missing(tmp_path: Path) -> None:
    class Absent(Peer):
        name = title = "absent"

        def missing(self) -> str:
            return "apt install absent"

    path = tmp_path / "new" / "results.json"
    record = Record(path, [Absent()], choose(["h1-varied"]))
    record.skip(choose(["h1-varied"])[0], Absent(), "no hands")
    record.add({"workload": "h1-varied", "peer": "absent", "round": 1})
    found = json.loads(path.read_text())
    assert found["missing"] == {"absent": "apt install absent"}
    assert found["skipped"] == [{"workload": "h1-varied", "peer": "absent", "why": "no hands"}]
    assert found["rounds"] == [{"workload": "h1-varied", "peer": "absent", "round": 1}]
    assert found["finished"] is False
    assert found["machine"]["cores"] >= 1
    record.save(finished=True)
    assert json.loads(path.read_text())["finished"] is True
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]
