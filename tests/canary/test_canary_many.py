"""What a tick costs where there are many Canaries: it reads what its own Canary has, and little of all the others'."""

from __future__ import annotations

from pathlib import Path

import pytest
from canary_cluster import Cluster, deployment, ticks, until

from control.canary.machine.status import Phase
from control.resources import traffic
from control.store.files import FileStore
from control.store.store import Objects


class CountingStore(FileStore):
    """Remembers which kinds were read whole."""

    def list(self, group: str, kind: str, namespace: str | None = None) -> Objects:
        self.listed = [*getattr(self, "listed", ()), (group, kind)]
        return super().list(group, kind, namespace)


class CountingCluster(Cluster):
    canary_store = CountingStore


@pytest.mark.parametrize("phase", [Phase.INITIALIZED, Phase.PROGRESSING])
async def test_all_routing_of_a_namespace_is_read_only_for_a_release(tmp_path: Path, phase: Phase):
    cluster = CountingCluster(tmp_path)
    cluster.begin()
    await cluster.roll_out()
    await ticks(cluster, 3)
    if phase is Phase.PROGRESSING:
        cluster.write(deployment("v2"))
        await until(cluster, phase)
    cluster.store.listed = []
    cluster.decide()
    routing = {kind for kind in cluster.store.listed if kind in traffic.KINDS}
    assert routing == (set(traffic.KINDS) if phase is Phase.PROGRESSING else set())
