"""An edit of one's own Canary is followed, and told as that; only another hand is warned of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from canary_cluster import APEX, CANARY, Cluster, deployment, service
from canary_plays import canary_object

from control.canary.declared.spec import parse
from control.canary.facts import collect
from control.canary.machine.status import Phase
from control.store.store import Key, Object

ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "test", "podinfo")
APEX_FOLLOWS = "service podinfo.test follows Canary podinfo.test"
ROUTING_FOLLOWS = "Routing of podinfo.test follows the Canary: canary 0, primary 100"
BEFORE = {"port": 80, "targetPort": "http", "timeout": "5s", "apex": {"labels": {"team": "a"}}}


async def initialise(cluster: Cluster, **canary: Any) -> None:
    cluster.write(deployment(), canary_object(**canary))
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED


async def said(cluster: Cluster) -> list[tuple[bool, str]]:
    """What the next tick says; the one after it has nothing to do."""
    events = [(event.warning, event.text) for event in cluster.decide().events]
    await cluster.tick()
    assert await cluster.tick() == 0
    return events


async def edit(cluster: Cluster, key: Key, change: Callable[[Object], Any]) -> None:
    """Another hand (the store lets only the owner write, so the owner's name is used)."""
    obj = copy.deepcopy(cluster.store.get(key))
    assert obj is not None
    change(obj)
    obj["metadata"] = {
        name: value
        for name, value in obj["metadata"].items()
        if name in ("name", "namespace", "labels", "annotations", "ownerReferences")
    }
    obj.pop("status", None)
    await cluster.store.apply(obj)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("more", "texts"),
    [
        ({"timeout": "6s"}, [ROUTING_FOLLOWS]),
        ({"hosts": ["a.test"]}, [ROUTING_FOLLOWS]),
        (
            {"targetPort": 9898},
            ["services of podinfo.test follow the Canary", APEX_FOLLOWS],
        ),
        ({"apex": {"labels": {"team": "b"}}}, [APEX_FOLLOWS, ROUTING_FOLLOWS]),  # the route has the apex Service's labels
        ({"apex": {}}, [APEX_FOLLOWS, ROUTING_FOLLOWS]),
    ],
)
async def test_an_edit_of_the_canary_is_followed_without_a_warning(cluster, more, texts, restarted):
    await initialise(cluster, provider="gatewayapi:v1", service=BEFORE)
    cluster.write(canary_object(provider="gatewayapi:v1", service={**BEFORE, **more}))
    if restarted:
        cluster.open()
    assert await said(cluster) == [(False, text) for text in texts]


async def test_the_edit_is_in_force_afterwards(cluster):
    await initialise(cluster, provider="gatewayapi:v1", service=BEFORE)
    cluster.write(canary_object(provider="gatewayapi:v1", service={"port": 80, "targetPort": 9898, "timeout": "6s"}))
    await said(cluster)
    assert cluster.store.get(ROUTE)["spec"]["rules"][0]["timeouts"]["request"] == "6s"
    assert cluster.store.get(APEX)["spec"]["ports"][0]["targetPort"] == 9898
    assert "team" not in cluster.store.get(APEX)["metadata"]["labels"]


async def test_a_match_that_is_added_in_a_release_is_no_other_hand(cluster):
    await initialise(cluster)
    cluster.write(deployment("v2"))
    for _ in range(3):
        await cluster.tick()
    assert cluster.weights() == (20, 80)
    match = [{"headers": {"x-canary": {"exact": "insider"}}}]
    cluster.write(canary_object({"match": match, "iterations": 3, "stepWeight": 0}))
    decision = cluster.decide()
    assert [event.text for event in decision.events if event.warning] == []


async def test_ports_that_a_new_revision_brings_are_the_targets_and_no_other_hands(cluster):
    await initialise(cluster, service={"port": 80, "targetPort": "http", "portDiscovery": True})
    ports = [{"name": "http", "containerPort": 9898}, {"name": "admin", "containerPort": 9999}]
    cluster.write(deployment("v2", ports=ports))
    texts = [event.text for event in cluster.decide().events if event.warning]
    assert texts == []
    await cluster.tick()
    assert [port["name"] for port in cluster.store.get(APEX)["spec"]["ports"]] == ["http", "admin"]


def another_timeout(route: Object) -> None:
    route["spec"]["rules"][0]["timeouts"] = {"request": "1s"}


def another_selector(service: Object) -> None:
    service["spec"]["selector"] = {"app": "elsewhere"}


OTHERS = [
    (
        ROUTE,
        another_timeout,
        "Routing of podinfo.test says something else, or is gone; putting it back to canary 0, primary 100",
    ),
    (APEX, another_selector, "service podinfo.test is not as podinfo.test wants it; putting it right"),
    (
        Key("", "Service", "test", "podinfo-canary"),
        another_selector,
        "services of podinfo.test are not as it wants them; putting them right",
    ),
]


@pytest.mark.parametrize("after_an_edit", [False, True])
@pytest.mark.parametrize(("key", "change", "text"), OTHERS)
async def test_another_hand_is_warned_of(cluster, key, change, text, after_an_edit):
    await initialise(cluster, provider="gatewayapi:v1", service=BEFORE)
    if after_an_edit:
        cluster.write(canary_object(provider="gatewayapi:v1", service={"port": 80, "targetPort": 9898, "timeout": "6s"}))
        await said(cluster)
    await edit(cluster, key, change)
    assert await said(cluster) == [(True, text)]


async def test_what_is_as_it_should_be_is_not_declared_anew(cluster):
    await initialise(cluster, provider="gatewayapi:v1", service=BEFORE)
    obj = cluster.store.get(CANARY)
    facts = collect(cluster.store, parse(obj), cluster.status(), obj["metadata"], cluster.now)
    assert (facts.services_ok, facts.apex_ok, facts.anew) == (True, True, frozenset())


@pytest.mark.parametrize(("key", "change", "text"), OTHERS)
async def test_what_is_gone_is_warned_of_too(cluster, key, change, text):
    await initialise(cluster, provider="gatewayapi:v1", service=BEFORE)
    await cluster.store.delete(key)
    assert (await said(cluster))[0] == (True, text)


async def test_objects_from_before_there_was_a_mark_are_left_as_they_are_and_followed_when_they_differ(cluster):
    await initialise(cluster, provider="gatewayapi:v1", service=BEFORE)

    def unmark(obj: Object) -> None:
        del obj["metadata"]["annotations"]["meshproxy.dev/declared"]

    for key in (ROUTE, APEX, *(Key("", "Service", "test", f"podinfo-{arm}") for arm in ("canary", "primary"))):
        await edit(cluster, key, unmark)
    assert await cluster.tick() == 0
    cluster.write(canary_object(provider="gatewayapi:v1", service={**BEFORE, "timeout": "6s"}))
    assert await said(cluster) == [(False, ROUTING_FOLLOWS)]


async def test_the_mark_on_a_service_of_the_users_goes_when_it_is_given_back(cluster):
    cluster.write(service())
    await initialise(cluster)
    assert "meshproxy.dev/declared" in cluster.store.get(APEX)["metadata"]["annotations"]
    await cluster.actor.give_back(cluster.store.get(APEX))
    assert "annotations" not in cluster.store.get(APEX)["metadata"]
