"""DaemonSets and scalers of a release: pure objects first, then a whole release of each on a real store."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from canary_cluster import Cluster, deployment
from canary_plays import START, canary_object, canary_spec

from control.canary.machine.status import Phase
from control.canary.objects import manifests
from control.canary.objects.readiness import readiness
from control.store.store import Key, Object

TARGET = Key("apps", "DaemonSet", "test", "podinfo")
PRIMARY = Key("apps", "DaemonSet", "test", "podinfo-primary")
NO_NODE = {"flagger.app/scale-to-zero": "true"}
TARGET_REF = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"}
NODES = 3


def daemon_set(version: str = "v1", **spec: Any) -> Object:
    made = copy.deepcopy(deployment(version, None))
    made["kind"] = "DaemonSet"
    made["spec"].update(spec)
    return made


def held_back(target: Object) -> Object:
    made = copy.deepcopy(target)
    made["spec"]["template"]["spec"].setdefault("nodeSelector", {}).update(NO_NODE)
    return made


def status_of(obj: Object, **numbers: int) -> Object:
    """As the DaemonSet controller writes it, on a cluster of NODES."""
    selector = obj["spec"]["template"]["spec"].get("nodeSelector") or {}
    count = 0 if NO_NODE.items() <= selector.items() else NODES
    status = {"desiredNumberScheduled": count, "updatedNumberScheduled": count, "numberAvailable": count, **numbers}
    return {"observedGeneration": obj["metadata"].get("generation", 0), **status}


# ---------------------------------------------------------------- DaemonSets


@pytest.mark.parametrize("own", [None, {}, {"disk": "ssd"}])
def test_a_daemon_set_without_pods_is_the_same_revision(own: dict[str, str] | None) -> None:
    target = daemon_set()
    if own is not None:
        target["spec"]["template"]["spec"]["nodeSelector"] = own
    held = held_back(target)
    if own != {}:  # as Kubernetes, which drops an empty map
        assert manifests.revision(held) == manifests.revision(target)
    assert manifests.revision(held) != manifests.revision(held_back(daemon_set("v2")))
    primary = manifests.primary_workload(canary_spec(targetRef=TARGET_REF), held, {}, 3)
    assert primary["spec"]["template"]["spec"].get("nodeSelector") == (own or None)


def test_the_primary_of_a_daemon_set_is_a_daemon_set() -> None:
    spec = canary_spec(targetRef=TARGET_REF)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}}
    target = daemon_set(updateStrategy=strategy, minReadySeconds=5, revisionHistoryLimit=3)
    primary = manifests.primary_workload(spec, target, {}, 3)
    assert (primary["kind"], primary["metadata"]["name"]) == ("DaemonSet", "podinfo-primary")
    assert primary["spec"]["updateStrategy"] == strategy
    assert (primary["spec"]["minReadySeconds"], primary["spec"]["revisionHistoryLimit"]) == (5, 3)
    assert "replicas" not in primary["spec"]
    assert (manifests.target_key(spec), manifests.primary_key(spec)) == (TARGET, PRIMARY)


def test_a_daemon_set_whose_pods_wait_for_a_person_is_refused() -> None:
    target = daemon_set(updateStrategy={"type": "OnDelete"})
    with pytest.raises(manifests.TargetError, match=r"spec\.updateStrategy\.type must be RollingUpdate; found OnDelete"):
        manifests.primary_workload(canary_spec(targetRef=TARGET_REF), target, {}, 1)


@pytest.mark.parametrize(
    ("numbers", "threshold", "text"),
    [
        ({}, 100, ""),
        ({"updatedNumberScheduled": 2}, 100, "2 out of 3 new pods have been updated"),
        ({"numberAvailable": 2}, 100, "2 of 3 (readyThreshold 100%) updated pods are available"),
        ({"numberAvailable": 2}, 60, ""),
        ({"observedGeneration": -1}, 100, "observed daemonset generation less than desired generation"),
    ],
)
def test_readiness_of_a_daemon_set_is_read_from_its_numbers(numbers: dict[str, int], threshold: int, text: str) -> None:
    obj = daemon_set()
    obj["status"] = status_of(obj, **numbers)
    found = readiness(obj, 600, threshold, START, START)
    assert found.text == (f"waiting for rollout to finish: {text}" if text else "")
    assert (found.ready, found.stuck) == (not text, False)


def test_a_daemon_set_is_stuck_when_nothing_moved_for_longer_than_the_deadline() -> None:
    obj = daemon_set()
    obj["status"] = status_of(obj, numberAvailable=0)
    assert not readiness(obj, 600, 100, START + 600, START).stuck
    assert readiness(obj, 600, 100, START + 601, START).stuck
    assert "exceeded its progressDeadlineSeconds: 600" in readiness(obj, 600, 100, START + 601, START).text


def test_a_daemon_set_that_never_said_how_many_it_wants_has_pods() -> None:
    assert manifests.replicas(daemon_set()) == 1
    assert manifests.replicas(held_back(daemon_set())) == 0


class DaemonSets(Cluster):
    """`cli` stands for the user: manifests of DaemonSets are not taken where there is one node."""

    async def roll_out(self) -> None:
        await super().roll_out()
        for obj in self.runtime.list("apps", "DaemonSet"):
            await self.runtime.status(Key.of(obj), status_of(obj))
        self.refresh()

    def selector(self) -> dict[str, str]:
        obj = self.store.get(TARGET)
        assert obj is not None
        return obj["spec"]["template"]["spec"].get("nodeSelector") or {}


async def succeeds(cluster: Cluster) -> None:
    for _ in range(20):
        await cluster.tick()
        if cluster.status().phase is Phase.SUCCEEDED:
            return
    raise AssertionError(cluster.status())


async def test_a_daemon_set_is_released_and_held_back_between_releases(tmp_path):
    cluster = DaemonSets(tmp_path)
    try:
        cluster.write(canary_object(targetRef=TARGET_REF, revertOnDeletion=False))
        await cluster.cli.apply(daemon_set())
        await cluster.roll_out()
        for _ in range(3):
            await cluster.tick()
        assert cluster.status().phase is Phase.INITIALIZED
        assert cluster.selector() == NO_NODE
        promoted = cluster.status().last_promoted
        for _ in range(2):  # what we did to it is no new revision
            await cluster.tick()
        assert (cluster.status().phase, cluster.status().last_applied) == (Phase.INITIALIZED, promoted)

        await cluster.cli.apply(daemon_set("v2"))
        await cluster.roll_out()
        await cluster.tick()
        assert cluster.status().phase is Phase.PROGRESSING
        assert cluster.selector() == {}
        await succeeds(cluster)
        assert cluster.image(PRIMARY) == "podinfo:v2"
        assert cluster.selector() == NO_NODE
    finally:
        cluster.store.close()


# ---------------------------------------------------------------- scalers


def scaler(kind: str, **spec: Any) -> Object:
    version = {"HorizontalPodAutoscaler": "autoscaling/v2", "ScaledObject": "keda.sh/v1alpha1"}[kind]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}
    metadata = {
        "name": "podinfo",
        "namespace": "test",
        "labels": {"team": "a", "kustomize.toolkit.fluxcd.io/name": "x"},
        "annotations": {"keep": "b", "autoscaling.keda.sh/paused-replicas": "0", "meshproxy.dev/canary": "podinfo"},
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {"scaleTargetRef": reference, **spec}}


def scaled(kind: str, **more: Any) -> Any:
    return canary_spec(autoscalerRef={"kind": kind, "name": "podinfo", **more})


def test_the_primary_gets_a_copy_of_the_hpa() -> None:
    metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]
    hpa = scaler("HorizontalPodAutoscaler", minReplicas=2, maxReplicas=4, metrics=metrics)
    copied = manifests.primary_scaler(scaled("HorizontalPodAutoscaler"), hpa)
    assert copied["metadata"]["name"] == "podinfo-primary"
    assert copied["metadata"]["labels"] == {"team": "a"}
    assert copied["metadata"]["ownerReferences"][0]["kind"] == "Canary"
    assert copied["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo-primary"},
        "minReplicas": 2,
        "maxReplicas": 4,
        "metrics": metrics,
    }
    bounds = {"minReplicas": 5, "maxReplicas": 9}
    bounded = manifests.primary_scaler(scaled("HorizontalPodAutoscaler", primaryScalerReplicas=bounds), hpa)
    assert (bounded["spec"]["minReplicas"], bounded["spec"]["maxReplicas"]) == (5, 9)
    assert manifests.held_scaler(scaled("HorizontalPodAutoscaler"), paused=True) is None  # it rests by itself


def test_the_primary_gets_a_copy_of_the_scaled_object_that_asks_about_the_primary() -> None:
    query = 'sum(rate(requests{app=~"podinfo|podinfo-canary|podinfo-primary"}[1m]))'
    triggers = [{"type": "prometheus", "name": "t", "metadata": {"threshold": "5", "query": query}}]
    advanced = {"horizontalPodAutoscalerConfig": {"name": "mine"}}
    given = scaler("ScaledObject", minReplicaCount=1, triggers=triggers, advanced=advanced)
    before = copy.deepcopy(given)
    copied = manifests.primary_scaler(scaled("ScaledObject"), given)
    expected = 'sum(rate(requests{app=~"podinfo-primary|podinfo-primary|podinfo-primary"}[1m]))'
    assert copied["spec"]["triggers"][0]["metadata"] == {"threshold": "5", "query": expected}
    assert copied["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["name"] == "mine-primary"
    assert copied["metadata"]["annotations"] == {"keep": "b"}  # neither paused nor held
    assert given == before
    own = manifests.primary_scaler(scaled("ScaledObject", primaryScalerQueries={"t": "up"}), given)
    assert own["spec"]["triggers"][0]["metadata"]["query"] == "up"
    other = manifests.primary_scaler(scaled("ScaledObject", primaryScalerQueries={"u": "up"}), given)
    assert other["spec"]["triggers"][0]["metadata"]["query"] == query


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
async def test_a_release_with_a_scaler_leaves_the_replicas_to_it(cluster, kind):
    api = {"HorizontalPodAutoscaler": "autoscaling", "ScaledObject": "keda.sh"}[kind]
    target_scaler, copied = Key(api, kind, "test", "podinfo"), Key(api, kind, "test", "podinfo-primary")
    primary = Key("apps", "Deployment", "test", "podinfo-primary")
    given = scaler(kind, maxReplicas=4)
    given["metadata"]["annotations"] = {"keep": "b"}
    await cluster.cli.apply(given)
    cluster.begin(autoscalerRef={"kind": kind, "name": "podinfo"})
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED

    def paused() -> bool:
        return "autoscaling.keda.sh/paused-replicas" in cluster.store.get(target_scaler)["metadata"]["annotations"]

    assert cluster.store.get(copied)["spec"]["scaleTargetRef"]["name"] == "podinfo-primary"
    assert paused() == (kind == "ScaledObject")
    assert cluster.replicas(primary) == 2
    cluster.write(deployment("v2"))
    await cluster.tick()
    assert not paused()
    await succeeds(cluster)
    assert cluster.image(primary) == "podinfo:v2"
    assert "replicas" not in cluster.store.get(primary)["spec"]  # the scaler's, from the first promotion on
    assert paused() == (kind == "ScaledObject")


async def test_a_change_of_the_scaler_is_copied_and_its_absence_told(cluster):
    cluster.begin(autoscalerRef={"kind": "HorizontalPodAutoscaler", "name": "podinfo"})
    await cluster.roll_out()
    await cluster.tick()
    await cluster.tick()
    told = [event["message"] for event in cluster.store.events()]
    assert "HorizontalPodAutoscaler podinfo.test not found: replicas are the workloads' own" in told
    key = Key("autoscaling", "HorizontalPodAutoscaler", "test", "podinfo-primary")
    for most in (4, 6):
        await cluster.cli.apply(scaler("HorizontalPodAutoscaler", maxReplicas=most))
        cluster.refresh()
        await cluster.tick()
        assert cluster.store.get(key)["spec"]["maxReplicas"] == most
