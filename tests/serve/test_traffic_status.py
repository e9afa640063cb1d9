"""Contradictions between routes and splits are seen as Events, once; routes have their conditions in their status."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.serve.traffic_status import TrafficStatus
from control.store.files import FileStore
from control.store.store import Key

SPLIT = Key("split.smi-spec.io", "TrafficSplit", "default", "s")
ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "default", "r")

SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}], selector: {{app: {name}}}}}\n"
)
OBJECTS = """
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: s}
spec: {service: web, backends: [{service: late, weight: 1}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: "", kind: Service, name: other}]
  rules: [{backendRefs: [{name: late, port: 80}]}]
"""


class Mesh:
    def __init__(self, directory: Path) -> None:
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        self.now = 1_000_000.0
        self.store = FileStore(self.manifests, directory / "state", "canary", accepting=True, clock=lambda: self.now)
        self.status = TrafficStatus(self.store, lambda: self.now)

    async def edit(self, name: str, text: str) -> None:
        (self.manifests / name).write_text(text)
        for _ in range(3):
            self.now += 2.0
            self.store.refresh()
            await self.status.look()

    def events(self, key: Key) -> list[tuple[str, str, int]]:
        return [(event["type"], event["reason"], event["count"]) for event in self.store.events(key)]

    def conditions(self) -> dict[str, str]:
        obj = self.store.get(ROUTE)
        assert obj is not None
        (parent,) = obj["status"]["parents"]
        return {one["type"]: one["status"] for one in parent["conditions"]}


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path)
    yield made
    made.store.close()


SLICES = """apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.9.9.9], conditions: {{ready: {ready}}}}}]
ports: [{{port: 8080}}]
"""


async def test_a_backend_with_a_weight_and_nobody_ready_is_told_after_a_while(mesh: Mesh) -> None:
    names = ("web", "other", "late")
    await mesh.edit("services.yaml", "---\n".join(SERVICE.format(name=name) for name in names))
    await mesh.edit("slices.yaml", SLICES.format(name="late", ready="false"))
    (mesh.manifests / "traffic.yaml").write_text(OBJECTS)
    mesh.store.refresh()
    await mesh.status.look()
    assert mesh.events(SPLIT) == []
    mesh.now += 6.0
    await mesh.status.look()
    assert mesh.events(SPLIT) == mesh.events(ROUTE) == [("Warning", "BackendEmpty", 1)]
    await mesh.edit("slices.yaml", SLICES.format(name="late", ready="true"))
    assert mesh.events(SPLIT)[1:] == mesh.events(ROUTE)[1:] == [("Normal", "ProblemResolved", 1)]


async def test_a_problem_is_told_once_and_its_cure_too(mesh: Mesh) -> None:
    await mesh.edit("services.yaml", "---\n".join(SERVICE.format(name=name) for name in ("web", "other")))
    await mesh.edit("traffic.yaml", OBJECTS)
    assert mesh.events(SPLIT) == [("Warning", "BackendMissing", 1)]
    assert mesh.events(ROUTE) == [("Warning", "BackendMissing", 1)]
    await mesh.edit("slices.yaml", SLICES.format(name="late", ready="true"))
    await mesh.edit("late.yaml", SERVICE.format(name="late"))
    assert mesh.events(SPLIT)[1:] == [("Normal", "ProblemResolved", 1)]
    assert mesh.events(ROUTE)[1:] == [("Normal", "ProblemResolved", 1)]


async def test_a_route_has_its_conditions_and_they_follow(mesh: Mesh) -> None:
    await mesh.edit("traffic.yaml", OBJECTS)
    assert mesh.conditions() == {"Accepted": "False", "ResolvedRefs": "False"}
    await mesh.edit("services.yaml", "---\n".join(SERVICE.format(name=name) for name in ("web", "other", "late")))
    assert mesh.conditions() == {"Accepted": "True", "ResolvedRefs": "True"}


async def test_what_follows_from_a_refused_manifest_is_not_told_again(mesh: Mesh) -> None:
    await mesh.edit("late.yaml", SERVICE.format(name="late").replace("80", "no"))
    await mesh.edit("services.yaml", "---\n".join(SERVICE.format(name=name) for name in ("web", "other")))
    await mesh.edit("traffic.yaml", OBJECTS)
    assert mesh.events(SPLIT) == []
