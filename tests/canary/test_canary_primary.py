"""The primary is what serves: with how many pods a release begins beside it, and what happens while it has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from canary_cluster import CANARY, PRIMARY, TARGET, Cluster, deployment, service
from canary_plays import Play, canary_object, canary_spec

from control.canary.act import Actor
from control.canary.declared.spec import parse
from control.canary.facts import READY, Workload
from control.canary.machine.decision import Revert
from control.canary.machine.routing import TO_PRIMARY, Routing
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


# ---------------------------------------------------------------- a primary without pods


def scaled(play: Play, count: int) -> None:
    assert play.primary is not None
    play.primary = replace(play.primary, replicas=count)


ZERO = "Halt podinfo.test advancement: primary deployment podinfo-primary.test is scaled to zero"


@pytest.mark.parametrize("ticks", [0, 1, 3])
def test_while_the_primary_is_scaled_to_zero_nobody_more_is_sent_anywhere_and_then_it_goes_on(ticks: int) -> None:
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(ticks):
        play.tick()
    before, routing = play.status, play.routing
    scaled(play, 0)
    for _ in range(8):
        decision = play.tick()
        assert (play.status, play.routing) == (before, routing)
        assert [(event.warning, event.text) for event in decision.events] == [(True, ZERO)]
    scaled(play, 2)
    play.until(Phase.SUCCEEDED)
    assert play.primary is not None
    assert play.primary.revision == "v2"


def test_a_promotion_sends_nobody_back_to_a_primary_that_is_scaled_to_zero() -> None:
    play = Play.initialised(canary_spec())
    play.edit("v2")
    play.until(Phase.PROMOTING)
    assert play.routing == Routing(50)
    scaled(play, 0)
    for _ in range(5):
        play.tick()
    assert (play.status.phase, play.routing, play.target.replicas) == (Phase.PROMOTING, Routing(50), 2)
    scaled(play, 2)
    play.until(Phase.SUCCEEDED)


def test_bad_numbers_do_not_roll_back_onto_nobody() -> None:
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    assert play.routing == Routing(20)
    scaled(play, 0)
    play.measure(success=10.0)
    for _ in range(5):
        play.tick()
    assert (play.status.phase, play.routing) == (Phase.PROGRESSING, Routing(20))
    scaled(play, 2)
    play.until(Phase.FAILED)
    assert play.routing == TO_PRIMARY


def test_a_person_may_abort_while_the_primary_is_scaled_to_zero() -> None:
    play = Play.initialised(canary_spec())
    play.edit("v2")
    for _ in range(3):
        play.tick()
    scaled(play, 0)
    play.order("abort")
    play.tick()
    assert (play.status.phase, play.routing) == (Phase.FAILED, TO_PRIMARY)


def test_a_first_primary_without_pods_gets_no_requests() -> None:
    play = Play(canary_spec())
    play.tick()
    play.primary = Workload("v1", 0, READY)
    for _ in range(3):
        play.tick()
        assert (play.status.phase, play.apex_ok, play.target.replicas) == (Phase.INITIALIZING, False, 2)
    scaled(play, 2)
    play.tick()
    assert (play.status.phase, play.apex_ok, play.target.replicas) == (Phase.INITIALIZED, True, 0)


def test_between_releases_a_primary_without_pods_is_its_owners_business() -> None:
    play = Play.initialised(canary_spec())
    scaled(play, 0)
    decision = play.tick()
    assert (decision.events, decision.actions, play.status.phase) == ((), (), Phase.INITIALIZED)


def test_with_skip_analysis_the_promotion_gives_it_pods_again_as_with_flagger() -> None:
    play = Play.initialised(canary_spec(skipAnalysis=True))
    play.edit("v2")
    scaled(play, 0)
    play.until(Phase.SUCCEEDED)
    assert play.primary is not None
    assert (play.primary.revision, play.primary.replicas) == ("v2", 2)
