"""What a release writes into a real store: the copies, who owns which field, and that all is given back."""

from __future__ import annotations

import asyncio

import pytest
import yaml
from canary_cluster import APEX, CANARY, PRIMARY, SPLIT, TARGET, Cluster, condition, deployment, service
from canary_plays import START, canary_object, canary_spec

from control.canary.act import Actor, TargetChanged
from control.canary.declared.spec import parse
from control.canary.facts import readiness
from control.canary.history import LIMIT, append, decisions, policy_key
from control.canary.machine.decision import (
    CreatePrimary,
    Decision,
    EnsureApex,
    EnsureServices,
    PromoteTemplate,
    Record,
    ScaleToZero,
    ScaleUp,
    SetRouting,
)
from control.canary.machine.routing import Routing
from control.canary.machine.status import Phase, Status
from control.canary.objects import manifests
from control.store.store import Key


async def initialise(cluster: Cluster, target=None, **canary) -> None:
    cluster.write(target or deployment(), service(), canary_object(**canary))
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED


async def test_initialisation_makes_the_objects_flagger_makes(cluster):
    await initialise(cluster)
    primary = cluster.store.get(PRIMARY)
    assert primary["spec"]["selector"] == {"matchLabels": {"app": "podinfo-primary"}}
    assert primary["spec"]["template"]["metadata"]["labels"] == {"app": "podinfo-primary"}
    assert primary["metadata"]["ownerReferences"][0]["kind"] == "Canary"
    assert primary["metadata"]["ownerReferences"][0]["uid"] == cluster.store.get(CANARY)["metadata"]["uid"]
    split = cluster.store.get(SPLIT)
    assert split["apiVersion"] == "split.smi-spec.io/v1alpha2"
    assert split["spec"] == {
        "service": "podinfo",
        "backends": [{"service": "podinfo-canary", "weight": 0}, {"service": "podinfo-primary", "weight": 100}],
    }
    for name, label in (("podinfo-canary", "podinfo"), ("podinfo-primary", "podinfo-primary"), ("podinfo", "podinfo-primary")):
        made = cluster.store.get(Key("", "Service", "test", name))
        assert made["spec"]["selector"] == {"app": label}
        assert made["spec"]["ports"][0]["port"] == 80
    assert (cluster.replicas(TARGET), cluster.replicas(PRIMARY)) == (0, 2)


async def test_a_missing_apex_service_is_made(cluster):
    cluster.write(deployment(), canary_object())
    await cluster.roll_out()
    for _ in range(2):
        await cluster.tick()
    made = cluster.store.get(APEX)
    assert made["metadata"]["ownerReferences"][0]["name"] == "podinfo"
    assert made["spec"]["ports"] == [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]


async def test_a_users_apex_service_is_given_the_port_it_lacks_and_keeps_its_others(cluster):
    there = service()
    there["spec"]["ports"] = [{"name": "http", "port": 8080, "targetPort": "http"}, {"name": "admin", "port": 9000}]
    cluster.write(deployment(), there, canary_object())
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED
    ports = {port["name"]: (port["port"], port.get("targetPort")) for port in cluster.store.get(APEX)["spec"]["ports"]}
    assert ports == {"http": (80, "http"), "http-8080": (8080, "http"), "admin": (9000, None)}
    assert await cluster.tick() == 0
    await cluster.actor.give_back(cluster.store.get(APEX))
    assert cluster.store.get(APEX)["spec"] == there["spec"]


async def test_scaling_up_gives_the_replicas_back_to_the_users_manifest(cluster):
    await initialise(cluster)
    cluster.write(deployment("v2", replicas=3))
    assert cluster.replicas(TARGET) == 0
    await cluster.tick()
    assert cluster.status().phase is Phase.PROGRESSING
    assert cluster.replicas(TARGET) == 3
    while cluster.status().phase is not Phase.SUCCEEDED:
        await cluster.tick()
    assert (cluster.replicas(TARGET), cluster.replicas(PRIMARY)) == (0, 3)


async def test_where_giving_back_would_lose_the_number_the_primarys_is_written(cluster):
    await initialise(cluster)
    spec = parse(cluster.store.get(CANARY))
    await Actor(cluster.store, gives_back=False).do(spec, ScaleUp(), Status())
    assert cluster.replicas(TARGET) == 2


async def test_pods_go_some_time_after_the_requests_to_them_and_a_crash_in_between_leaves_them(cluster):
    await initialise(cluster)
    spec = parse(cluster.store.get(CANARY))
    await cluster.actor.do(spec, ScaleUp(), Status())
    await cluster.actor.do(spec, SetRouting(Routing(30)), Status())
    decision = Decision((SetRouting(Routing(0)), ScaleToZero()), Status(), (), ())
    carrying = asyncio.create_task(Actor(cluster.store, settle_s=3600.0).carry_out(spec, Status(), decision))
    for _ in range(1000):
        await asyncio.sleep(0)
        if cluster.weights() == (0, 100):
            break
    assert not carrying.done()
    assert cluster.replicas(TARGET) == 2
    carrying.cancel()
    await asyncio.wait([carrying])
    await cluster.actor.carry_out(spec, Status(), decision)
    assert cluster.replicas(TARGET) == 0


async def test_every_action_may_be_repeated(cluster):
    await initialise(cluster)
    spec = parse(cluster.store.get(CANARY))
    revision = manifests.revision(cluster.store.get(TARGET))
    for action in (
        EnsureServices(),
        EnsureApex(),
        CreatePrimary(revision),
        PromoteTemplate(revision),
        SetRouting(Routing(40)),
        ScaleUp(),
        ScaleToZero(),
    ):
        await cluster.actor.do(spec, action, Status())
        once = cluster.store.all()
        await cluster.actor.do(spec, action, Status())
        assert cluster.store.all() == once


async def test_a_target_that_changed_since_the_decision_is_not_copied(cluster):
    await initialise(cluster)
    spec = parse(cluster.store.get(CANARY))
    decided = manifests.revision(cluster.store.get(TARGET))
    cluster.write(deployment("v2"))
    with pytest.raises(TargetChanged):
        await cluster.actor.do(spec, PromoteTemplate(decided), Status())
    assert cluster.image(PRIMARY) == "podinfo:v1"


async def test_config_is_copied_for_the_primary_and_a_change_of_it_is_a_release(cluster):
    def config(value: str) -> dict:
        metadata = {"name": "settings", "namespace": "test"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"colour": value}}

    cluster.write(config("blue"))
    await initialise(cluster, deployment(envFrom=[{"configMapRef": {"name": "settings"}}]))
    copied = Key("", "ConfigMap", "test", "settings-primary")
    container = cluster.store.get(PRIMARY)["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"configMapRef": {"name": "settings-primary"}}]
    assert cluster.store.get(copied)["data"] == {"colour": "blue"}
    before = cluster.store.get(PRIMARY)["spec"]["template"]["metadata"]["annotations"]
    cluster.write(config("green"))
    await cluster.tick()
    assert cluster.status().phase is Phase.PROGRESSING
    assert cluster.store.get(copied)["data"] == {"colour": "blue"}
    while cluster.status().phase is not Phase.SUCCEEDED:
        await cluster.tick()
    assert cluster.store.get(copied)["data"] == {"colour": "green"}
    assert cluster.store.get(PRIMARY)["spec"]["template"]["metadata"]["annotations"] != before  # so its pods restart


@pytest.mark.parametrize(("value", "copied"), [("disabled", False), ("disable", False), ("enabled", True), ("", True)])
async def test_config_that_opted_out_is_left_alone(cluster, value, copied):
    metadata = {"name": "settings", "namespace": "test", "annotations": {"flagger.app/config-tracking": value}}
    cluster.write({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})
    await initialise(cluster, deployment(envFrom=[{"configMapRef": {"name": "settings"}}]))
    container = cluster.store.get(PRIMARY)["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"configMapRef": {"name": "settings-primary" if copied else "settings"}}]
    assert list(cluster.status().tracked) == (["configmap/settings"] if copied else [])


@pytest.mark.parametrize(
    ("kind", "copied"),
    [
        ("", True),
        ("Opaque", True),
        ("kubernetes.io/basic-auth", True),
        ("kubernetes.io/ssh-auth", True),
        ("kubernetes.io/tls", True),
        ("kubernetes.io/service-account-token", False),
        ("kubernetes.io/dockerconfigjson", False),
        ("example.com/own", False),
    ],
)
async def test_only_secrets_of_the_types_that_applications_are_given_are_copied(cluster, kind, copied):
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key", "namespace": "test"}, "data": {"a": "YQ=="}}
    cluster.write({**secret, **({"type": kind} if kind else {})})
    await initialise(cluster, deployment(envFrom=[{"secretRef": {"name": "key"}}]))
    container = cluster.store.get(PRIMARY)["spec"]["template"]["spec"]["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "key-primary" if copied else "key"}}]
    assert list(cluster.status().tracked) == (["secret/key"] if copied else [])
    assert (cluster.store.get(Key("", "Secret", "test", "key-primary")) is not None) is copied


def test_a_target_without_a_known_label_is_refused_in_words():
    target = deployment()
    target["spec"]["selector"]["matchLabels"] = {"component": "x"}
    with pytest.raises(manifests.TargetError, match=r"one of app, name, app\.kubernetes\.io/name; found component"):
        manifests.selector_label(canary_spec(), target)


def test_ports_are_discovered_except_those_of_sidecars_and_the_main_one():
    target = deployment(ports=[{"name": "http", "containerPort": 9898}, {"containerPort": 9999}])
    target["spec"]["template"]["spec"]["containers"].append({"name": "envoy", "ports": [{"containerPort": 15001}]})
    spec = canary_spec(service={"port": 80, "targetPort": "http", "portDiscovery": True})
    assert [(p["name"], p["port"]) for p in manifests.service_ports(spec, target)] == [("http", 80), ("tcp-podinfo-1", 9999)]


def test_anti_affinity_of_the_primary_speaks_of_the_primary():
    target = deployment()
    term = {"labelSelector": {"matchLabels": {"app": "podinfo"}}, "topologyKey": "kubernetes.io/hostname"}
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    target["spec"]["template"]["spec"]["affinity"] = rule
    primary = manifests.primary_deployment(canary_spec(), target, {}, 2)
    assert "app: podinfo-primary" in yaml.safe_dump(primary["spec"]["template"]["spec"]["affinity"])
    assert term["labelSelector"] == {"matchLabels": {"app": "podinfo"}}  # the target is not touched


def test_rules_about_other_labels_stay_as_they_are_whatever_their_value():
    """A part-of or a tier that happens to have the target's name is the primary's too, unchanged."""

    def rules(label: str) -> dict:
        expression = {"key": label, "operator": "In", "values": ["podinfo", "other"]}
        spread = {"maxSkew": 1, "topologyKey": "zone", "labelSelector": {"matchLabels": {label: "podinfo"}}}
        term = {"topologyKey": "host", "labelSelector": {"matchExpressions": [expression]}}
        preferred = [{"weight": 1, "podAffinityTerm": term}]
        anti = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
        return {"affinity": anti, "topologySpreadConstraints": [spread]}

    for label, changed in (("app", True), ("name", True), ("app.kubernetes.io/name", True), ("part-of", False)):
        target = deployment()
        target["spec"]["template"]["spec"].update(rules(label))
        pod = manifests.primary_deployment(canary_spec(), target, {}, 2)["spec"]["template"]["spec"]
        found = yaml.safe_dump({name: pod[name] for name in rules(label)})
        assert found == yaml.safe_dump(rules(label)).replace("podinfo", "podinfo-primary" if changed else "podinfo")


# ---------------------------------------------------------------- readiness


def status(generation: int = 1, observed: int | None = 1, spec: int = 2, **numbers) -> dict:
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, **numbers}
    if observed is not None:
        counts["observedGeneration"] = observed
    return {"metadata": {"name": "podinfo", "generation": generation}, "spec": {"replicas": spec}, "status": counts}


@pytest.mark.parametrize(
    ("obj", "threshold", "text"),
    [
        (status(), 100, ""),
        (status(generation=2), 100, "observed deployment generation less than desired generation"),
        (status(generation=0, observed=None), 100, "observed deployment generation less than desired generation"),
        (status(updatedReplicas=1), 100, "1 out of 2 new replicas have been updated"),
        (status(replicas=3), 100, "1 old replicas are pending termination"),
        (status(availableReplicas=1), 100, "1 of 2 (readyThreshold 100%) updated replicas are available"),
        (status(availableReplicas=1), 50, ""),
    ],
)
def test_readiness_is_read_from_status_as_kubernetes_writes_it(obj, threshold, text):
    found = readiness(obj, 600, threshold, START)
    assert found.ready == (not text)
    assert found.text == (f"waiting for rollout to finish: {text}" if text else "")
    assert not found.stuck


def test_a_deployment_is_stuck_when_kubernetes_says_so_or_it_was_unavailable_for_longer_than_the_deadline():
    exceeded = status(updatedReplicas=1, conditions=[condition("Progressing", "False", "ProgressDeadlineExceeded", START)])
    assert readiness(exceeded, 600, 100, START).stuck
    unavailable = status(
        availableReplicas=0,
        conditions=[
            condition("Progressing", "True", "ReplicaSetUpdated", START),
            condition("Available", "False", "MinimumReplicasUnavailable", START),
        ],
    )
    assert not readiness(unavailable, 600, 100, START + 600).stuck
    assert readiness(unavailable, 600, 100, START + 601).stuck


# ---------------------------------------------------------------- history


async def test_decisions_are_kept_with_their_numbers_and_bounded(cluster):
    await initialise(cluster)
    cluster.write(deployment("v2"))
    for _ in range(3):
        await cluster.tick()
    kept = decisions(cluster.store.get(policy_key("test", "podinfo")))
    assert kept[0]["message"] == "Initialization done! podinfo.test"
    assert kept[-1]["message"] == "Advance podinfo.test canary weight 20"
    assert kept[-1]["checks"][0] == {
        "metric": "request-success-rate",
        "outcome": "passed",
        "value": 100.0,
        "requests": 50,
        "min": 99.0,
    }
    spec = parse(cluster.store.get(CANARY))
    await append(cluster.store, spec, [Record(START + i, "Progressing", 0, 0, "v", f"number {i}") for i in range(250)])
    kept = decisions(cluster.store.get(policy_key("test", "podinfo")))
    assert (len(kept), kept[-1]["message"]) == (LIMIT, "number 249")


async def test_a_repeated_tick_does_not_repeat_its_record(cluster):
    await initialise(cluster)
    spec = parse(cluster.store.get(CANARY))
    for _ in range(2):
        await append(cluster.store, spec, [Record(START, "Failed", 0, 2, "v", "once")])
    kept = decisions(cluster.store.get(policy_key("test", "podinfo")))
    assert [entry["message"] for entry in kept].count("once") == 1
