"""What the routers read back from a real store: their own writing, other hands, what other routers left, conditions."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from canary_cluster import PRIMARY, Cluster, deployment, service
from canary_cluster import condition as deployment_condition
from canary_plays import canary_object
from router_world import RUNNING, target

from control.canary.controller import Controller
from control.canary.declared.commands import ANNOTATION_PROMOTE, Command
from control.canary.declared.spec import CanarySpec, parse
from control.canary.machine.decision import SetRouting
from control.canary.machine.routing import Routing
from control.canary.machine.status import PRIMARY_READY, Phase, Status
from control.canary.measuring.embedded import EmbeddedSource
from control.canary.objects import manifests
from control.canary.routers import router_for, with_cookies
from control.resources.traffic import KINDS, Traffic, status_of
from control.store.store import Key, Object

ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "test", "podinfo")
SPLIT = Key("split.smi-spec.io", "TrafficSplit", "test", "podinfo")
TRIAL = Key("split.smi-spec.io", "TrafficSplit", "test", "podinfo-trial")
MATCH = [{"headers": {"x-canary": {"exact": "insider"}}}]
COOKIES = {"cookieName": "seen", "primaryCookieName": "unseen"}
AFFINITY = {"sessionAffinity": {"cookieName": "flagger-cookie"}}


async def begin(cluster: Cluster, analysis: dict[str, Any] | None = None, **spec: Any) -> CanarySpec:
    """A Canary, and the Services it has."""
    cluster.write(canary_object(analysis, **spec))
    made = cluster.store.get(Key("flagger.app", "Canary", "test", "podinfo"))
    assert made is not None
    parsed = parse(made)
    current = cluster.store.get(Key("", "Service", "test", "podinfo"))
    for obj in (*manifests.services(parsed, target()), manifests.apex_service(parsed, target(), current)):
        await cluster.store.apply(obj)
    return parsed


async def write(cluster: Cluster, spec: CanarySpec, routing: Routing, status: Status = RUNNING) -> None:
    for obj in router_for(spec).wanted(spec, routing, status):
        await cluster.store.apply(obj)


def seen(cluster: Cluster, spec: CanarySpec, status: Status = RUNNING) -> Routing | None:
    return router_for(spec).observed(cluster.store, spec, status)


async def edit(cluster: Cluster, key: Key, change: Any) -> None:
    """Another hand changes an object of ours (the store lets only the owner write, so the owner's name is used)."""
    obj = copy.deepcopy(cluster.store.get(key))
    assert obj is not None
    change(obj)
    for name in ("uid", "generation", "resourceVersion", "creationTimestamp"):
        obj["metadata"].pop(name, None)
    obj.pop("status", None)
    await cluster.store.apply(obj)


@pytest.mark.parametrize(
    ("analysis", "more"),
    [
        ({}, {}),
        ({"match": MATCH}, {}),
        ({"match": MATCH}, {"provider": "gatewayapi:v1"}),
        ({"mirror": True}, {}),
        (AFFINITY, {"provider": "gatewayapi:v1"}),
        ({}, {"service": {"port": 80, "timeout": "2s", "rewrite": {"authority": "a.b"}, "retries": {"attempts": 1}}}),
    ],
)
@pytest.mark.parametrize("canary", [0, 0.5, 30, 100])
async def test_what_was_written_is_seen_as_the_same_routing(cluster, analysis, more, canary):
    spec = await begin(cluster, analysis, **more)
    assert seen(cluster, spec) is None
    mirrored = bool(analysis.get("mirror")) and canary == 0
    everyone = bool(analysis.get("match")) and canary == 100
    for routing in (Routing(canary, mirrored=mirrored), Routing(canary, everyone=everyone)):
        status = with_cookies(spec, RUNNING, routing)
        await write(cluster, spec, routing, status)
        assert seen(cluster, spec, status) == routing
    assert router_for(spec).problem(cluster.store, spec) == ""


def hand_weights(obj: Object) -> None:
    obj["spec"]["backends"][0]["weight"] = 42
    obj["spec"]["backends"][1]["weight"] = 58


def another_backend(obj: Object) -> None:
    obj["spec"]["backends"].append({"service": "other", "weight": 0})


def no_rest(obj: Object) -> None:
    obj["spec"]["backends"][0]["weight"] = 90


def some_matches(obj: Object) -> None:
    obj["spec"]["matches"] = [{"kind": "HTTPRouteGroup", "name": "x"}]


def quantities(obj: Object) -> None:
    obj["apiVersion"] = "split.smi-spec.io/v1alpha1"
    obj["spec"]["backends"][0]["weight"] = "30"
    obj["spec"]["backends"][1]["weight"] = "70"


def another_label(obj: Object) -> None:
    obj["metadata"].setdefault("labels", {})["team"] = "a"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (hand_weights, Routing(42)),
        (another_backend, None),
        (no_rest, None),
        (some_matches, None),
        (quantities, Routing(30)),
        (another_label, Routing(30)),
    ],
)
async def test_a_split_that_another_hand_edited_is_seen_for_what_it_says(cluster, change, expected):
    spec = await begin(cluster)
    await write(cluster, spec, Routing(30))
    await edit(cluster, SPLIT, change)
    assert seen(cluster, spec) == expected


def route_weights(obj: Object) -> None:
    for ref, weight in zip(obj["spec"]["rules"][0]["backendRefs"], (58, 42), strict=True):
        ref["weight"] = weight


def a_filter(obj: Object) -> None:
    changes = {"add": [{"name": "x-a", "value": "1"}]}
    obj["spec"]["rules"][0]["filters"] = [{"type": "RequestHeaderModifier", "requestHeaderModifier": changes}]


def a_rule(obj: Object) -> None:
    obj["spec"]["rules"].append({"backendRefs": [{"name": "other", "port": 80}]})


def no_parent(obj: Object) -> None:
    obj["spec"]["parentRefs"] = [{"group": "", "kind": "Service", "name": "other"}]


def defaults_left_out(obj: Object) -> None:
    obj["spec"]["rules"][0]["matches"] = [{}]
    for name in ("group", "kind"):
        del obj["spec"]["rules"][0]["backendRefs"][0][name]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (route_weights, Routing(42)),
        (a_filter, None),
        (a_rule, None),
        (no_parent, None),
        (defaults_left_out, Routing(30)),
        (another_label, Routing(30)),
    ],
)
async def test_a_route_that_another_hand_edited_is_seen_for_what_it_says(cluster, change, expected):
    spec = await begin(cluster, provider="gatewayapi:v1")
    await write(cluster, spec, Routing(30))
    await edit(cluster, ROUTE, change)
    assert seen(cluster, spec) == expected


async def test_copies_and_strangers_with_the_canary_are_told_apart_from_the_weights(cluster):
    spec = await begin(cluster, {"match": MATCH})
    await write(cluster, spec, Routing(100))
    await edit(
        cluster, SPLIT, lambda obj: obj["spec"]["backends"][0].update(weight=50) or obj["spec"]["backends"][1].update(weight=50)
    )
    assert seen(cluster, spec) is None  # who does not match must not be shared out
    await write(cluster, spec, Routing(100, everyone=True))
    assert seen(cluster, spec) == Routing(100, everyone=True)


async def test_with_affinity_the_cookie_of_another_run_is_not_as_wanted(cluster):
    spec = await begin(cluster, AFFINITY, provider="gatewayapi:v1")
    status = with_cookies(spec, RUNNING, Routing(30))
    await write(cluster, spec, Routing(30), status)
    other = Status(phase=status.phase, last_applied="r3", session_affinity_cookie="flagger-cookie=x")
    assert (seen(cluster, spec, status), seen(cluster, spec, other)) == (Routing(30), None)


async def test_what_another_router_left_is_not_as_wanted_until_it_is_gone(cluster):
    """A route comes before splits: left behind, it would decide."""
    before = await begin(cluster, {"match": MATCH}, provider="gatewayapi:v1")
    await write(cluster, before, Routing(30))
    after = await begin(cluster)
    await write(cluster, after, Routing(0))
    assert seen(cluster, after) is None
    await cluster.store.delete(ROUTE)
    assert seen(cluster, after) == Routing(0)
    assert ROUTE in router_for(after).stale(after)
    assert SPLIT in router_for(before).stale(before)


async def test_the_users_own_objects_of_those_names_are_not_leftovers(cluster):
    spec = await begin(cluster, provider="gatewayapi:v1")
    body = {"service": "other", "backends": [{"service": "x", "weight": 1}]}
    metadata = {"name": "podinfo", "namespace": "test"}
    cluster.write({"apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit", "metadata": metadata, "spec": body})
    await write(cluster, spec, Routing(30))
    assert seen(cluster, spec) == Routing(30)


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
async def test_an_object_of_the_users_is_taken_over_and_given_back_whole(cluster, provider):
    """Flagger takes them over too; with it, the user's weights are gone."""
    cluster.write(deployment(), service())
    spec = await begin(cluster, provider=provider)
    metadata = {"name": "podinfo", "namespace": "test"}
    backend = {"name": "podinfo", "port": 80}
    theirs = {
        "": {
            "apiVersion": "split.smi-spec.io/v1alpha2",
            "kind": "TrafficSplit",
            "metadata": metadata,
            "spec": {"service": "podinfo", "backends": [{"service": "podinfo", "weight": 1}]},
        },
        "gatewayapi:v1": {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": metadata,
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "podinfo"}],
                "rules": [{"backendRefs": [backend]}],
            },
        },
    }[provider]
    cluster.write(theirs)
    key = Key.of(theirs)
    await cluster.actor.do(spec, SetRouting(Routing(30)), RUNNING)
    cluster.refresh()
    assert seen(cluster, spec) == Routing(30)
    assert not manifests.is_ours(spec, cluster.store.get(key))
    (cluster.user / "canary-podinfo.yaml").unlink()
    for _ in range(2):
        cluster.now += 2  # a file that vanished is believed after a second
        cluster.refresh()
    await Controller(cluster.store, EmbeddedSource(cluster.store, time.time), clock=lambda: cluster.now).step(cluster.now)
    cluster.refresh()
    assert cluster.store.get(key)["spec"] == theirs["spec"]
    assert manifests.held_for(cluster.store.get(key)) == ""


# ---------------------------------------------------------------- does it have an effect?


async def accept(cluster: Cluster, **changes: Any) -> None:
    """The control plane says what it thinks of the route now; `changes` to the Accepted condition."""
    route = cluster.store.get(ROUTE)
    traffic = Traffic.of(obj for group, kind in KINDS for obj in cluster.store.list(group, kind))
    parents = status_of(traffic.routes[0], route, traffic, "2026-11-23T00:00:00Z")
    for entry in parents:
        for condition in entry["conditions"]:
            if condition["type"] == "Accepted":
                condition.update(changes)
    await cluster.runtime.status(ROUTE, {"parents": parents})
    cluster.refresh()


async def test_a_route_that_is_not_accepted_as_it_is_now_is_a_problem(cluster):
    spec = await begin(cluster, provider="gatewayapi:v1")
    router = router_for(spec)
    assert router.problem(cluster.store, spec) == ""
    await write(cluster, spec, Routing(0))
    await accept(cluster)
    assert router.problem(cluster.store, spec) == ""
    await write(cluster, spec, Routing(10))
    assert "is not ready (status: True" in router.problem(cluster.store, spec)
    assert "observed generation: 1, current generation: 2" in router.problem(cluster.store, spec)
    await accept(cluster)
    assert router.problem(cluster.store, spec) == ""
    await accept(cluster, status="False", reason="NoMatchingParent", message="no such Service")
    assert "HTTPRoute podinfo.test parent podinfo is not ready (status: False, no such Service" in router.problem(
        cluster.store, spec
    )


async def test_conditions_of_parents_the_route_does_not_name_do_not_count(cluster):
    spec = await begin(cluster, provider="gatewayapi:v1")
    await write(cluster, spec, Routing(0))
    refused = {"type": "Accepted", "status": "False", "reason": "X", "message": ""}
    other = {"parentRef": {"name": "gw"}, "controllerName": "x/y", "conditions": [refused]}
    await cluster.runtime.status(ROUTE, {"parents": [other]})
    cluster.refresh()
    assert router_for(spec).problem(cluster.store, spec) == ""


async def test_a_split_that_others_overrule_is_a_problem_and_says_by_whom(cluster):
    spec = await begin(cluster)
    await write(cluster, spec, Routing(10))
    parent = {"group": "", "kind": "Service", "name": "podinfo", "port": 80}
    rule = {"backendRefs": [{"name": "podinfo-primary", "port": 80}]}
    cluster.write(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "mine", "namespace": "test"},
            "spec": {"parentRefs": [parent], "rules": [rule]},
        }
    )
    assert "TrafficSplit podinfo.test: HTTPRoutes or GRPCRoutes are attached to Service podinfo" in router_for(spec).problem(
        cluster.store, spec
    )


async def test_a_split_whose_root_is_missing_is_a_problem(cluster):
    spec = await begin(cluster, service={"port": 80, "hosts": ["frontend"]})
    await write(cluster, spec, Routing(10))
    assert "Service frontend does not exist" in router_for(spec).problem(cluster.store, spec)


async def primary_waits(cluster: Cluster, *conditions: Object) -> None:
    made = cluster.store.get(PRIMARY)
    assert made is not None
    status = {"observedGeneration": made["metadata"]["generation"], "updatedReplicas": 0, "conditions": list(conditions)}
    await cluster.runtime.status(PRIMARY, status)
    cluster.refresh()


def routes_of(cluster: Cluster) -> list[Any]:
    """What the router's objects say at present, those that there are."""
    return [obj["spec"] for key in (ROUTE, SPLIT, TRIAL) if (obj := cluster.store.get(key)) is not None]


@pytest.mark.parametrize("analysis", [{"sessionAffinity": COOKIES}, {"match": MATCH, "iterations": 1, "stepWeight": 0}])
async def test_trying_a_failed_promotion_again_is_no_edit_of_somebody_elses(cluster, analysis):
    """Nobody is sent to the broken primary meanwhile: not who has its cookie, not who does not match in A/B."""
    cluster.begin(analysis=analysis)
    await cluster.roll_out()
    for _ in range(4):
        await cluster.tick()
    cluster.write(deployment("v2"))
    for _ in range(9):
        if cluster.status().phase is Phase.PROMOTING:
            break
        await cluster.tick()
    await primary_waits(cluster, deployment_condition("Progressing", "False", "ProgressDeadlineExceeded", cluster.now))
    await cluster.tick()
    assert (cluster.status().phase, cluster.status().canary_weight) == (Phase.FAILED, 100)
    order = str(Command(cluster.status().last_applied, cluster.now))
    cluster.write(canary_object(analysis, annotations={ANNOTATION_PROMOTE: order}))
    said: list[str] = []
    only_the_canary, tried = routes_of(cluster), False
    for _ in range(4):
        said += [event.text for event in cluster.decide().events]
        await cluster.tick()
        if len(said) == 2:  # copied, and not up yet
            await primary_waits(cluster)
        if cluster.status().phase is Phase.PROMOTING:
            tried = True
            assert routes_of(cluster) == only_the_canary
    assert tried
    assert cluster.status().phase is Phase.SUCCEEDED
    assert routes_of(cluster) != only_the_canary
    assert cluster.status().condition(PRIMARY_READY) is None
    assert "Promotion of podinfo.test ordered by hand, trying again" in said
    assert [text for text in said if "putting it back" in text] == []
