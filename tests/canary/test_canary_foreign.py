"""What stands where a Canary's own objects would: somebody else's is never written over, Flagger's is taken over as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from canary_cluster import APEX, CANARY, PRIMARY, TARGET, Cluster, deployment, service, ticks, told, until
from canary_plays import canary_object

from control.canary.act import TargetChanged
from control.canary.declared.spec import SUCCESS_RATE, parse
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import CreatePrimary, EnsureScaler, PromoteTemplate
from control.canary.machine.status import Phase, Status
from control.canary.objects import manifests
from control.store.store import Key, Object, StoreError

USES = [{"configMapRef": {"name": "settings"}}]


def named(obj: Object, name: str) -> Object:
    made = copy.deepcopy(obj)
    made["metadata"]["name"] = name
    return made


def primary(version: str = "other", **template: Any) -> Object:
    """A Deployment podinfo-primary that the user wrote."""
    made = named(deployment(version, **template), "podinfo-primary")
    made["spec"]["selector"] = {"matchLabels": {"app": "podinfo-primary"}}
    made["spec"]["template"]["metadata"]["labels"] = {"app": "podinfo-primary"}
    return made


def settings(value: str, name: str = "settings") -> Object:
    metadata = {"name": name, "namespace": "test"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": value}}


def copied() -> Key:
    return Key("", "ConfigMap", "test", "settings-primary")


NOT_OURS = "is there already and not of Canary podinfo's making; nothing is written over it"

# ---------------------------------------------------------------- somebody else's


async def test_a_deployment_that_has_the_primarys_name_stops_the_canary_and_stays_as_it_is(cluster):
    cluster.write(primary())
    before = cluster.store.get(PRIMARY)
    cluster.begin()
    await cluster.roll_out()
    await ticks(cluster, 4)
    assert (cluster.status().phase, cluster.replicas(TARGET)) == (Phase.INITIALIZING, 2)
    assert cluster.store.get(PRIMARY)["spec"] == before["spec"]
    assert not {"annotations", "labels", "ownerReferences"} & cluster.store.get(PRIMARY)["metadata"].keys()
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo"}
    assert f"Deployment podinfo-primary.test {NOT_OURS}" in told(cluster)
    assert "ownerReferences" in told(cluster)

    (cluster.user / "deployment-podinfo-primary.yaml").unlink()  # what it says to do
    cluster.refresh()
    cluster.now += 5
    cluster.refresh()
    await until(cluster, Phase.INITIALIZED)
    assert cluster.image(PRIMARY) == "podinfo:v1"


async def test_a_config_that_has_the_name_of_the_primarys_copy_stops_the_canary_and_stays_as_it_is(cluster):
    cluster.write(settings("1"), settings("MINE", "settings-primary"), deployment(envFrom=USES), service(), canary_object())
    await cluster.roll_out()
    await ticks(cluster, 4)
    assert (cluster.status().phase, cluster.store.get(PRIMARY)) == (Phase.INITIALIZING, None)
    assert cluster.store.get(copied())["data"] == {"x": "MINE"}
    assert "ownerReferences" not in cluster.store.get(copied())["metadata"]
    assert f"ConfigMap settings-primary.test {NOT_OURS}" in told(cluster)


async def test_a_revision_that_first_uses_such_a_config_is_not_released(cluster):
    cluster.write(settings("1"), settings("MINE", "settings-primary"))
    cluster.begin()
    await cluster.roll_out()
    await ticks(cluster, 3)
    cluster.write(deployment("v2", envFrom=USES))
    await ticks(cluster, 3)
    assert (cluster.status().phase, cluster.replicas(TARGET)) == (Phase.INITIALIZED, 0)
    cluster.write(deployment("v3"))
    await until(cluster, Phase.PROGRESSING)
    await ticks(cluster, 2)
    assert cluster.weights() == (20, 80)
    cluster.write(deployment("v4", envFrom=USES))  # now while one is analysed: its canary is not left alone with its users
    await cluster.tick()
    assert (cluster.status().phase, cluster.weights(), cluster.replicas(TARGET)) == (Phase.FAILED, (0, 100), 0)
    cluster.write(deployment("v5"))
    await until(cluster, Phase.SUCCEEDED)
    assert cluster.store.get(copied())["data"] == {"x": "MINE"}


async def test_while_promoting_the_next_revision_may_use_what_it_wants(cluster):
    cluster.write(settings("1"), settings("MINE", "settings-primary"))
    cluster.begin()
    await cluster.roll_out()
    await ticks(cluster, 3)
    cluster.write(deployment("v2"))
    await until(cluster, Phase.PROMOTING)
    cluster.write(deployment("v3", envFrom=USES))
    await until(cluster, Phase.SUCCEEDED)
    assert cluster.image(PRIMARY) == "podinfo:v2"


async def test_a_scaler_that_has_the_name_of_the_primarys_stops_the_canary(cluster):
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}
    for name, most in (("podinfo", 4), ("podinfo-primary", 9)):
        metadata = {"name": name, "namespace": "test"}
        body = {"scaleTargetRef": reference, "maxReplicas": most}
        await cluster.cli.apply(
            {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": body}
        )
    cluster.begin(autoscalerRef={"kind": "HorizontalPodAutoscaler", "name": "podinfo"})
    await cluster.roll_out()
    await ticks(cluster, 3)
    assert cluster.status().phase is Phase.INITIALIZING
    theirs = cluster.store.get(Key("autoscaling", "HorizontalPodAutoscaler", "test", "podinfo-primary"))
    assert theirs["spec"]["maxReplicas"] == 9
    assert f"HorizontalPodAutoscaler podinfo-primary.test {NOT_OURS}" in told(cluster)


@pytest.mark.parametrize(("at", "ends"), [(Phase.PROGRESSING, Phase.FAILED), (Phase.PROMOTING, Phase.SUCCEEDED)])
async def test_such_a_scaler_that_comes_in_a_release_rolls_it_back_and_a_promotion_goes_on(cluster, at, ends):
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}
    cluster.begin(autoscalerRef={"kind": "HorizontalPodAutoscaler", "name": "podinfo"})
    await cluster.roll_out()
    await ticks(cluster, 3)
    cluster.write(deployment("v2"))
    await until(cluster, at)
    for name, most in (("podinfo-primary", 9), ("podinfo", 4)):
        metadata = {"name": name, "namespace": "test"}
        body = {"scaleTargetRef": reference, "maxReplicas": most}
        await cluster.cli.apply(
            {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": body}
        )
    await until(cluster, Phase.FAILED, Phase.SUCCEEDED)
    assert (cluster.status().phase, cluster.weights()) == (ends, (0, 100))
    theirs = cluster.store.get(Key("autoscaling", "HorizontalPodAutoscaler", "test", "podinfo-primary"))
    assert theirs["spec"]["maxReplicas"] == 9


@pytest.mark.parametrize("action", [CreatePrimary, PromoteTemplate])
async def test_what_came_between_the_look_and_the_write_is_not_written_over_either(cluster, action):
    cluster.write(settings("1"), settings("MINE", "settings-primary"), deployment(envFrom=USES), service(), canary_object())
    spec, target = parse(cluster.store.get(CANARY)), cluster.store.get(TARGET)
    revision = manifests.revision(target)
    tracked = {"configmap/settings": manifests.config_hash(cluster.store.get(Key("", "ConfigMap", "test", "settings")))}
    given = (revision,) if action is CreatePrimary else (revision, tracked)
    with pytest.raises(StoreError, match=r"ConfigMap settings-primary\.test is there already") as caught:
        await cluster.actor.do(spec, action(*given), Status())
    assert not isinstance(caught.value, TargetChanged)
    assert cluster.store.get(PRIMARY) is None


async def test_two_canaries_may_use_one_config(cluster):
    """As with Flagger: its copy belongs to both, and goes with the last."""
    other = named(deployment(envFrom=USES), "other")
    other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    second = named(canary_object(targetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}), "other")
    cluster.write(settings("1"), deployment(envFrom=USES), service(), canary_object())
    await cluster.roll_out()
    await ticks(cluster, 3)
    cluster.write(other, second)
    spec = parse(cluster.store.get(Key("flagger.app", "Canary", "test", "other")))
    await cluster.actor.do(
        spec, CreatePrimary(manifests.revision(cluster.store.get(Key("apps", "Deployment", "test", "other")))), Status()
    )
    owners = [(one["name"], one.get("controller")) for one in cluster.store.get(copied())["metadata"]["ownerReferences"]]
    assert sorted(owners) == [("other", True), ("podinfo", False)]
    cluster.refresh()
    assert await cluster.tick() == 0
    assert "settings-primary" not in told(cluster)
    await cluster.actor.do(spec, EnsureScaler(), Status())  # names none: nothing happens


# ---------------------------------------------------------------- Flagger's


def flaggers(obj: Object) -> Object:
    """As Flagger leaves it in a cluster: owned by the Canary, without any mark of ours."""
    reference = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "controller": True}
    made = copy.deepcopy(obj)
    made["metadata"]["ownerReferences"] = [reference]
    return made


async def installed(cluster: Cluster, version: str, served: str, phase: str, config: str = "1") -> None:
    """A cluster in which Flagger ran until now: `version` in the target, `served` and `config` in the primary."""
    uses = [{"configMapRef": {"name": "settings-primary"}}]
    made = flaggers(primary(served, envFrom=uses))
    made["spec"]["template"]["metadata"]["annotations"] = {"flagger-id": "5b2a"}
    cluster.write(made, settings("1"), flaggers(settings(config, "settings-primary")))
    cluster.write(deployment(version, replicas=0, envFrom=USES), service(), canary_object())
    if phase:
        status = {"phase": phase, "lastAppliedSpec": "5978589476", "lastPromotedSpec": "5978589476", "canaryWeight": 0}
        await cluster.store.status(CANARY, {**status, "trackedConfigs": {"configmap/settings": "2a8b6f1c"}})
    await cluster.roll_out()


@pytest.mark.parametrize("phase", ["Initialized", "Succeeded", "Failed", "Finalising", ""])
async def test_what_flagger_promoted_is_taken_over_without_a_release_and_without_new_pods(cluster, phase):
    await installed(cluster, "v1", "v1", phase)
    pods = cluster.store.get(PRIMARY)["spec"]["template"]
    await ticks(cluster, 4)
    status = cluster.status()
    wanted = {"": Phase.INITIALIZED, "Finalising": Phase.SUCCEEDED}.get(phase, phase)
    assert (status.phase, cluster.replicas(TARGET)) == (wanted, 0)
    assert cluster.store.get(PRIMARY)["spec"]["template"] == pods
    assert status.last_promoted == status.last_applied == manifests.revision(cluster.store.get(TARGET))
    assert list(status.tracked) == ["configmap/settings"]
    assert "New revision" not in told(cluster, "Normal")
    assert len(cluster.store.list("apps", "ControllerRevision", "test")) == 1
    cluster.write(deployment("v2", replicas=2, envFrom=USES))
    await until(cluster, Phase.PROGRESSING)
    await until(cluster, Phase.SUCCEEDED)
    assert (cluster.image(PRIMARY), cluster.store.get(copied())["data"]) == ("podinfo:v2", {"x": "1"})


@pytest.mark.parametrize(("version", "config"), [("v2", "1"), ("v1", "2")])
async def test_what_flagger_had_not_promoted_is_a_release(cluster, version, config):
    await installed(cluster, version, "v1", "Succeeded", config)
    await ticks(cluster, 2)
    assert cluster.status().phase is Phase.PROGRESSING
    cluster.measurements = {**cluster.measurements, SUCCESS_RATE: Measurement(50.0, 50)}
    await until(cluster, Phase.FAILED)
    assert (cluster.image(PRIMARY), cluster.store.get(copied())["data"]) == ("podinfo:v1", {"x": config})
