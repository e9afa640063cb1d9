"""The mesh that declares policy for the benchmark: its manifests are right, and its requests pay for all that is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.ours import Ours
from benchmarks.workloads import choose
from control.api import mesh_pb2
from control.compile.settings import Settings
from control.compile.snapshot import compile_snapshot
from control.resources.crosscheck import crosscheck
from control.resources.documents import parse_documents
from control.resources.validate import check_file, review
from control.store.store import Object
from meshproxy.mesh.convert import access_of, tables_of
from meshproxy.mesh.knowledge import Known
from meshproxy.wire.message import Head


def manifests(directory: Path, policy: bool) -> list[Object]:
    """As the store takes them.  Nothing in them is refused or warned of."""
    Ours("compiled", policy=policy).declare(directory, "h1", ["app"], directory / "where")
    found = review(
        [check_file(path.name, parse_documents(path.read_bytes(), path.name)) for path in sorted(directory.glob("*.yaml"))]
    )
    objects = [checked.obj for checked in found.accepted.values() if checked.obj is not None]
    assert [str(one) for one in [*found.diagnostics, *crosscheck(objects)]] == []
    return objects


def head(target: str) -> Head:
    made = Head()
    made.method, made.path, made.authority = b"GET", target.encode(), b"bench.bench"
    return made


@pytest.mark.parametrize("policy", [False, True])
def test_the_manifests_are_right(tmp_path: Path, policy: bool) -> None:
    kinds = {obj["kind"] for obj in manifests(tmp_path, policy)}
    assert kinds >= {"Service", "Deployment"}
    assert ({"HTTPRoute", "TrafficTarget", "HTTPRouteGroup"} <= kinds) == policy


def test_every_request_of_the_load_passes_four_matches_and_is_allowed_by_its_path(tmp_path: Path) -> None:
    objects = manifests(tmp_path, policy=True)
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bench-1", "namespace": "bench", "annotations": {"meshproxy.dev/proxy": "true"}},
        "spec": {"serviceAccountName": "bench", "containers": [{"name": "a", "ports": [{"containerPort": 8080}]}]},
        "status": {"podIP": "127.9.9.10"},
    }
    made = compile_snapshot([*objects, pod], Settings("mesh.test", (b"root",))).resources
    service = made[mesh_pb2.SERVICE, "bench/bench"].service
    known = Known(mesh_pb2.Workload(namespace="bench"), {"bench/bench": service}, {})
    entry = tables_of(1, known).service("bench", "bench", 80)
    access = access_of(made[mesh_pb2.WORKLOAD, "bench/bench-1"].workload)
    assert entry is not None
    assert entry.matches is not None
    assert access is not None
    assert len(entry.matches.all) >= 5
    (workload,) = choose(["policy-cost"])
    for target in ["/", *workload.paths()[:50]]:
        asked = head(target)
        found = entry.routes[entry.matches.find(asked).route]
        assert found.spec.name.endswith("rule all"), target
        assert access.decide("spiffe://mesh.test/ns/bench/sa/caller", 8080, asked).allowed, target
    assert service.balancer.breaker.consecutive == 7


def test_it_takes_part_where_it_is_named_and_nowhere_else() -> None:
    peer = Ours("compiled", policy=True)
    assert (peer.name, peer.special) == ("compiled-policy", True)
    assert [each.id for each in choose([]) if peer.name in each.peers] == ["policy-cost"]
