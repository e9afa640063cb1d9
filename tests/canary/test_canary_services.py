"""The three Services of a release: Flagger's fields, ports, and Services that the user wrote."""

from __future__ import annotations

from typing import Any

import pytest
from canary_cluster import APEX, CANARY, SPLIT, Cluster, deployment, service
from canary_plays import canary_object, canary_spec
from router_world import target

from control.canary.act import Actor
from control.canary.declared.spec import CanarySpec, parse
from control.canary.machine.decision import Revert, RevertServices
from control.canary.machine.status import Phase
from control.canary.objects import manifests
from control.resources.documents import as_document
from control.resources.validate import check_document
from control.store.store import Key, Object

FLUX = {"kustomize.toolkit.fluxcd.io/reconcile": "disabled", "helm.toolkit.fluxcd.io/driftDetection": "disabled"}


def made(spec: CanarySpec, *ports: dict[str, Any]) -> dict[str, Object]:
    owner = target(ports=list(ports)) if ports else target()
    found = [*manifests.services(spec, owner), manifests.apex_service(spec, owner, None)]
    for obj in found:
        assert [str(one) for one in check_document(as_document(obj)).diagnostics if one.severity == "error"] == []
    return {obj["metadata"]["name"]: obj for obj in found}


def with_service(**service: Any) -> CanarySpec:
    return canary_spec(service={"port": 80, "targetPort": "http", **service})


def test_labels_and_annotations_are_those_the_canary_gives_each_service() -> None:
    spec = with_service(
        apex={"labels": {"a": "1"}, "annotations": {"x": "1", "kustomize.toolkit.fluxcd.io/checksum": "y"}},
        primary={"annotations": {"x": "2"}},
        canary={"labels": {"b": "2"}},
    )
    found = made(spec)
    assert found["podinfo"]["metadata"]["labels"] == {"a": "1", "app": "podinfo"}
    assert found["podinfo"]["metadata"]["annotations"] == {"x": "1", **FLUX}
    assert found["podinfo-primary"]["metadata"]["annotations"] == {"x": "2", **FLUX}
    assert found["podinfo-canary"]["metadata"]["labels"] == {"b": "2", "app": "podinfo-canary"}


def test_unmanaged_metadata_is_not_set() -> None:
    apex = {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "1", "y": "2"}}
    spec = with_service(apex=apex, unmanagedMetadata={"labels": ["a"], "annotations": ["x"]})
    metadata = made(spec)["podinfo"]["metadata"]
    assert metadata["labels"] == {"b": "2", "app": "podinfo"}
    assert metadata["annotations"] == {"y": "2", **FLUX}


def test_headless_app_protocol_and_traffic_distribution_are_passed_on() -> None:
    spec = with_service(headless=True, appProtocol="kubernetes.io/h2c", trafficDistribution="PreferClose")
    for obj in made(spec).values():
        assert (obj["spec"]["clusterIP"], obj["spec"]["trafficDistribution"]) == ("None", "PreferClose")
        assert obj["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
    assert spec.refused == ()
    assert "spec.service.headless" in spec.ignored[0]
    assert "spec.service.headless" in canary_spec(provider="gatewayapi:v1", service={"port": 80, "headless": True}).refused[0]


@pytest.mark.parametrize(
    ("given", "ports", "expected"),
    [
        ({"targetPort": "http"}, [{"name": "http", "containerPort": 9898}, {"containerPort": 9999}], {"tcp-podinfo-1": 9999}),
        (
            {"targetPort": 9898},
            [{"name": "http", "containerPort": 9898}, {"name": "grpc", "containerPort": 9999}],
            {"grpc": 9999},
        ),
        ({}, [{"containerPort": 80}, {"name": "admin", "containerPort": 81}], {"admin": 81}),
        # A name or number that is taken: Kubernetes would refuse the Service.
        ({"targetPort": 9898}, [{"name": "http", "containerPort": 8080}], {"tcp-podinfo-0": 8080}),
        ({"targetPort": 9898}, [{"name": "low", "containerPort": 80}], {}),
        ({"targetPort": 9898}, [{"name": "a", "containerPort": 81}, {"name": "b", "containerPort": 81}], {"a": 81}),
        ({"targetPort": 9898}, [{"containerPort": 53, "protocol": "UDP"}], {"udp-podinfo-0": 53}),
    ],
)
def test_discovered_ports_are_those_spec_service_does_not_stand_for(
    given: dict[str, Any], ports: list[dict[str, Any]], expected: dict[str, int]
) -> None:
    spec = canary_spec(service={"port": 80, "portDiscovery": True, **given})
    first, *rest = made(spec, *ports)["podinfo-canary"]["spec"]["ports"]
    assert (first["name"], first["port"], first["targetPort"]) == ("http", 80, given.get("targetPort", 80))
    assert {port["name"]: port["port"] for port in rest} == expected


def test_ports_of_sidecars_are_nobodys() -> None:
    owner = target()
    owner["spec"]["template"]["spec"]["containers"].append({"name": "istio-proxy", "ports": [{"containerPort": 15001}]})
    spec = canary_spec(service={"port": 80, "targetPort": "http", "portDiscovery": True})
    assert len(manifests.service_ports(spec, owner)) == 1


def test_of_services_that_the_user_wrote_only_what_flagger_takes_is_taken() -> None:
    spec = canary_spec()
    written = service()
    apex = manifests.apex_service(spec, target(), written)
    assert apex["spec"] == {"selector": {"app": "podinfo-primary"}}
    assert "ownerReferences" not in apex["metadata"]
    assert apex["metadata"]["annotations"] == {"meshproxy.dev/canary": "podinfo", **FLUX}
    mine = {Key("", "Service", "test", "podinfo-canary"): written}
    canary, primary = manifests.services(spec, target(), mine.get)
    assert set(canary["spec"]) == {"selector", "ports"}
    assert "ownerReferences" not in canary["metadata"]
    assert primary["metadata"]["ownerReferences"][0]["kind"] == "Canary"


# ---------------------------------------------------------------- what a Canary leaves behind


async def test_fields_that_others_set_on_our_services_stay(cluster):
    cluster.write(deployment(), canary_object())
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    metadata = {"name": "podinfo", "namespace": "test", "annotations": {"theirs": "1"}}
    await cluster.cli.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata})
    cluster.refresh()
    for _ in range(2):
        await cluster.tick()
    assert cluster.store.get(APEX)["metadata"]["annotations"]["theirs"] == "1"


def test_a_reverted_apex_selects_the_target_and_is_the_users_again() -> None:
    spec = canary_spec()
    left = manifests.apex_service(spec, target(), service(), selects_target=True)
    assert left["spec"] == {"selector": {"app": "podinfo"}}
    assert "annotations" not in left["metadata"]
    ours = manifests.apex_service(spec, target(), manifests.apex_service(spec, target(), None), selects_target=True)
    assert ours["spec"]["selector"] == {"app": "podinfo"}
    assert ours["metadata"]["ownerReferences"][0]["kind"] == "Canary"


async def test_reverting_takes_the_routers_objects_away_before_what_they_name(cluster: Cluster):
    cluster.begin()
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED
    assert cluster.store.get(SPLIT) is not None
    spec, status = parse(cluster.store.get(CANARY)), cluster.status()
    for action in (Revert(), RevertServices()):
        await cluster.actor.do(spec, action, status)
    assert cluster.store.get(SPLIT) is None
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo"}
    assert cluster.store.get(Key("", "Service", "test", "podinfo-primary")) is not None


@pytest.mark.parametrize(
    ("obj", "left"),
    [
        (
            {"apiVersion": "v1", "kind": "Service", "spec": {"selector": {"app": "podinfo-primary"}}},
            {"selector": {"app": "podinfo"}},
        ),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0, "template": {}}}, {"replicas": 1}),
        ({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3, "template": {}}}, {"replicas": 3}),
        ({"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {"template": {}}}, None),
        ({"apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit", "spec": {"service": "a"}}, {"service": "a"}),
    ],
)
async def test_where_a_field_that_is_let_go_is_lost_it_is_left_so_that_no_primary_is_needed(cluster, obj, left):
    """An API server keeps no value that was overridden; the file store does, and gives it back."""
    obj = {**obj, "metadata": {"name": "podinfo", "namespace": "test", "annotations": {"meshproxy.dev/canary": "gone"}}}
    kept = manifests.left_behind(obj, gives_back=False)
    assert kept.get("spec") == left
    assert "annotations" not in kept["metadata"]
    assert "spec" not in manifests.left_behind(obj, gives_back=True)
    await Actor(cluster.store, gives_back=False).give_back(obj)
    assert (cluster.store.get(Key.of(obj)) or {}).get("spec") == left
