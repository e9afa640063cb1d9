"""The primary is what serves: with how many pods a release begins beside it."""

from __future__ import annotations

from typing import Any

import pytest
from canary_cluster import CANARY, PRIMARY, TARGET, Cluster, deployment, service
from canary_plays import canary_object

from control.canary.act import Actor
from control.canary.declared.spec import parse
from control.canary.machine.decision import Revert
from control.canary.machine.status import Phase, Status
from control.store.store import Object

HPA = "HorizontalPodAutoscaler"
SCALER = {"apiVersion": "autoscaling/v2", "kind": HPA, "name": "podinfo"}


async def initialise(cluster: Cluster, target: Object | None = None, **canary: Any) -> None:
    cluster.write(target or deployment(), service(), canary_object(**canary))
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED


async def edit_primary(cluster: Cluster, **spec: Any) -> None:
    """Somebody's `kubectl scale`, or an autoscaler."""
    primary = cluster.store.get(PRIMARY)
    assert primary is not None
    own = {name: value for name, value in primary["metadata"].items() if name in ("name", "namespace", "annotations", "labels")}
    own["ownerReferences"] = primary["metadata"]["ownerReferences"]
    body = {**primary["spec"], **spec}
    await cluster.store.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": own, "spec": body})
    await cluster.roll_out()


# ---------------------------------------------------------------- with how many pods a release begins


@pytest.mark.parametrize(("bounds", "first"), [({"minReplicas": 2}, 2), ({"minReplicas": 1}, 1), ({}, 1)])
async def test_with_an_autoscaler_a_canary_begins_with_the_least_that_it_keeps(cluster, bounds, first):
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}
    spec = {"scaleTargetRef": reference, "maxReplicas": 50, **bounds}
    metadata = {"name": "podinfo", "namespace": "test"}
    await cluster.cli.apply({"apiVersion": "autoscaling/v2", "kind": HPA, "metadata": metadata, "spec": spec})
    cluster.actor = Actor(cluster.store, gives_back=False)
    await initialise(cluster, deployment(replicas=None), autoscalerRef=SCALER)
    await edit_primary(cluster, replicas=40)
    cluster.write(deployment("v2", replicas=None))
    await cluster.tick()
    assert (cluster.status().phase, cluster.replicas(TARGET)) == (Phase.PROGRESSING, first)


@pytest.mark.parametrize(("reference", "first"), [({"autoscalerRef": SCALER}, 1), ({}, 4)])
async def test_the_primarys_number_counts_where_the_canary_names_no_autoscaler(cluster, reference, first):
    cluster.actor = Actor(cluster.store, gives_back=False)
    await initialise(cluster, deployment(replicas=None), **reference)
    await edit_primary(cluster, replicas=4)
    cluster.write(deployment("v2", replicas=None))
    await cluster.tick()
    assert (cluster.status().phase, cluster.replicas(TARGET)) == (Phase.PROGRESSING, first)


async def test_a_target_that_gets_its_traffic_back_has_as_many_pods_as_the_primary_had_also_with_an_autoscaler(cluster):
    cluster.actor = Actor(cluster.store, gives_back=False)
    await initialise(cluster, deployment(replicas=None), autoscalerRef=SCALER)
    await edit_primary(cluster, replicas=40)
    await cluster.actor.do(parse(cluster.store.get(CANARY)), Revert(), Status())
    assert cluster.replicas(TARGET) == 40
