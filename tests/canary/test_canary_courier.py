"""What a release tells the world: in order, never waited for, bounded, and no state changed by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from canary_cluster import CANARY, Cluster
from canary_plays import START, canary_object
from canary_receiver import Receiver, never_answers, says
from prometheus_client import CollectorRegistry

from control.canary.declared.alerts import Alert, Provider
from control.canary.declared.hooks import Webhook, checksum, event_webhook
from control.canary.declared.spec import CanarySpec, parse
from control.canary.machine.decision import Event, TellHook
from control.canary.machine.status import Phase, Status
from control.canary.telling import courier as courier_module
from control.canary.telling.alert_sender import AlertSender
from control.canary.telling.courier import Courier
from control.canary.telling.hook_client import HookClient
from control.canary.telling.post import Poster
from control.canary.telling.reach import service_key, through_the_gateway

STATUS = Status(phase=Phase.PROGRESSING, last_applied="r2", tracked={"configmap/a": "1"})
WAIT_S = 20.0  # until something that takes milliseconds has happened


def spec_of(receiver: Receiver | None = None, *, event: int = 0, alerts: int = 0) -> CanarySpec:
    hooks = [{"type": "event", "name": f"e{i}", "url": f"{receiver.url}/event/{i}"} for i in range(event)] if receiver else []
    references = [{"name": f"a{i}", "severity": "warn", "providerRef": {"name": f"p{i}"}} for i in range(alerts)]
    return parse(canary_object({"webhooks": hooks, "alerts": references}))


def post_hook(receiver: Receiver, name: str) -> TellHook:
    return TellHook(Webhook("post-rollout", name, f"{receiver.url}/{name}", metadata=(("cmd", "hey"),)), "Succeeded")


@pytest.fixture
async def courier(cluster: Cluster) -> AsyncIterator[Courier]:
    async def at_once(seconds: float) -> None:
        return None

    cluster.begin()
    poster = Poster(sleep=at_once)
    made = Courier(cluster.store, HookClient(poster), AlertSender(cluster.store, poster), clock=lambda: START)
    yield made
    await made.close()
    await poster.close()


async def arrived(courier: Courier) -> None:
    async with asyncio.timeout(WAIT_S):
        await courier.settled()


def warnings(cluster: Cluster) -> list[str]:
    cluster.refresh()
    return [event["message"] for event in cluster.store.events(CANARY) if event["type"] == "Warning"]


async def test_every_event_is_told_in_order_with_phase_checksum_and_time(
    cluster: Cluster, receiver: Receiver, courier: Courier
) -> None:
    events = [Event(False, "New revision detected"), Event(True, "Halt advancement")]
    courier.tell(CANARY, spec_of(receiver, event=1), STATUS, events)
    await arrived(courier)
    assert [seen.json for seen in receiver.seen] == [
        {
            "name": "podinfo",
            "namespace": "test",
            "phase": "Progressing",
            "checksum": checksum({"configmap/a": "1"}, "r2"),
            "metadata": {"eventMessage": text, "eventType": kind, "timestamp": "1800000000000"},
        }
        for text, kind in (("New revision detected", "Normal"), ("Halt advancement", "Warning"))
    ]


async def test_the_meshs_event_webhook_is_for_canaries_without_their_own(cluster: Cluster, receiver: Receiver) -> None:
    poster = Poster()
    made = Courier(
        *(cluster.store, HookClient(poster), AlertSender(cluster.store, poster)),
        clock=lambda: START,
        event_webhook=event_webhook(f"{receiver.url}/all"),
    )
    made.tell(CANARY, spec_of(receiver, event=2), STATUS, [Event(False, "one")])
    await arrived(made)
    made.tell(CANARY, spec_of(), STATUS, [Event(False, "two")])
    await arrived(made)
    made.tell(CANARY, None, STATUS, [Event(True, "cannot be read")])
    await arrived(made)
    await poster.close()
    assert sorted(seen.path for seen in receiver.seen[:2]) == ["/event/0", "/event/1"]
    assert [seen.path for seen in receiver.seen[2:]] == ["/all", "/all"]


async def test_post_rollout_hooks_are_called_in_order_and_each_is_an_event(
    cluster: Cluster, receiver: Receiver, courier: Courier
) -> None:
    row = [post_hook(receiver, "one"), post_hook(receiver, "two")]
    courier.tell(CANARY, spec_of(receiver, event=1), STATUS, [], row)
    await arrived(courier)
    hooks = [seen for seen in receiver.seen if not seen.path.startswith("/event")]
    assert [(seen.path, seen.json["phase"], seen.json["metadata"]) for seen in hooks] == [
        ("/one", "Succeeded", {"cmd": "hey"}),
        ("/two", "Succeeded", {"cmd": "hey"}),
    ]
    told = [seen.json["metadata"]["eventMessage"] for seen in receiver.seen if seen.path.startswith("/event")]
    assert told == ["Post-rollout check one passed", "Post-rollout check two passed"]
    cluster.refresh()
    assert told == [event["message"] for event in cluster.store.events(CANARY)]


async def test_the_first_post_rollout_hook_that_fails_ends_the_row(
    cluster: Cluster, receiver: Receiver, courier: Courier
) -> None:
    receiver.answers = [says(403, "not yet")]
    courier.tell(CANARY, spec_of(), STATUS, [], [post_hook(receiver, "one"), post_hook(receiver, "two")])
    await arrived(courier)
    assert [seen.path for seen in receiver.seen] == ["/one"]
    assert warnings(cluster) == ["Post-rollout hook one failed not yet"]


def slack(name: str, url: str) -> dict[str, Any]:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "AlertProvider",
        "metadata": {"name": name, "namespace": "test"},
        "spec": {"type": "slack", "address": url},
    }


async def test_an_alert_goes_to_each_provider_that_wants_its_severity(
    cluster: Cluster, receiver: Receiver, courier: Courier
) -> None:
    cluster.write(slack("p0", f"{receiver.url}/p0"), slack("p1", f"{receiver.url}/p1"))
    courier.tell(CANARY, spec_of(alerts=2), STATUS, [], [Alert("info", "fine"), Alert("error", "rolled back")])
    await arrived(courier)
    assert sorted((seen.path, seen.json["attachments"][0]["text"]) for seen in receiver.seen) == [
        ("/p0", "rolled back"),
        ("/p1", "rolled back"),
    ]


async def test_a_provider_that_begins_to_fail_is_an_event_once_and_again_after_it_worked(
    cluster: Cluster, receiver: Receiver, courier: Courier
) -> None:
    cluster.write(slack("p0", receiver.url))
    receiver.answers = [says(404, "a"), says(404, "b"), says(200), says(404, "c")]
    for _ in range(4):
        courier.tell(CANARY, spec_of(alerts=1), STATUS, [], [Alert("error", "x")])
        await arrived(courier)
    assert warnings(cluster) == ["Alert provider p0.test: HTTP 404 a", "Alert provider p0.test: HTTP 404 c"]
    assert courier.outcomes == {("alert", "failed"): 3, ("alert", "sent"): 1}


async def test_a_default_provider_is_for_canaries_that_name_none(cluster: Cluster, receiver: Receiver) -> None:
    poster = Poster()
    alerts = AlertSender(cluster.store, poster, Provider("slack", f"{receiver.url}/default"))
    made = Courier(cluster.store, HookClient(poster), alerts, clock=lambda: START)
    cluster.write(slack("p0", f"{receiver.url}/p0"))
    made.tell(CANARY, spec_of(alerts=1), STATUS, [], [Alert("error", "x")])
    await arrived(made)
    made.tell(CANARY, spec_of(), STATUS, [], [Alert("info", "x")])
    await arrived(made)
    await poster.close()
    assert [seen.path for seen in receiver.seen] == ["/p0", "/default"]


async def test_a_receiver_that_hangs_delays_its_own_lane_only_and_its_oldest_go(
    receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "LANE_LENGTH", 3)
    monkeypatch.setattr(courier_module, "DRAIN_S", 0.05)
    async with Receiver([never_answers]) as hanging:
        spec = spec_of(receiver, event=1)
        stuck = replace(spec, webhooks=(*spec.webhooks, Webhook("event", "stuck", hanging.url, timeout_s=60)))
        courier.tell(CANARY, stuck, STATUS, [Event(False, "first")])
        async with asyncio.timeout(WAIT_S):
            await hanging.saw(1)
        courier.tell(CANARY, stuck, STATUS, [Event(False, "second")])
        async with asyncio.timeout(WAIT_S):
            await receiver.saw(2)
        for number in range(4):
            courier.tell(CANARY, replace(stuck, webhooks=stuck.webhooks[1:]), STATUS, [Event(False, str(number))])
        assert courier.outcomes["event", "dropped"] == 2
        assert [seen.json["metadata"]["eventMessage"] for seen in hanging.seen] == ["first"]
        await courier.close()
        assert courier.outcomes == {("event", "sent"): 2, ("event", "dropped"): 5}


async def test_all_lanes_together_are_bounded(receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "MAX_WAITING", 5)
    spec = spec_of(receiver, event=1)
    for number in range(8):  # before any lane's task has run
        courier.tell(replace(CANARY, name=f"c{number}"), spec, STATUS, [Event(False, "x")])
    assert courier.outcomes == {("event", "dropped"): 3}
    await arrived(courier)
    assert courier.outcomes == {("event", "dropped"): 3, ("event", "sent"): 5}


async def test_what_became_of_notices_is_counted(receiver: Receiver, courier: Courier) -> None:
    registry = CollectorRegistry()
    registry.register(courier)
    courier.tell(CANARY, spec_of(receiver, event=1), STATUS, [Event(False, "x")])
    await arrived(courier)
    assert registry.get_sample_value("meshproxy_canary_notices_total", {"kind": "event", "outcome": "sent"}) == 1
    assert registry.get_sample_value("meshproxy_canary_notices_total", {"kind": "alert", "outcome": "dropped"}) == 0


# ---------------------------------------------------------------- the way to a receiver


@pytest.mark.parametrize(
    "host",
    ["podinfo.test", "PODINFO.test.", "podinfo.test.svc", "podinfo.test.svc.cluster.local", "podinfo.test.svc.cluster.local."],
)
async def test_a_service_of_the_mesh_is_reached_by_the_gateway(cluster: Cluster, host: str) -> None:
    cluster.begin()
    proxy_for = through_the_gateway(cluster.store, "127.0.0.1:9999")
    assert proxy_for(f"http://{host}/") == "http://127.0.0.1:9999"
    assert proxy_for(f"http://{host}:8080/gate") == "http://127.0.0.1:9999"


@pytest.mark.parametrize(
    "host", ["podinfo", "other.test", "podinfo.other", "hooks.slack.com", "127.0.0.1", "podinfo.test.svc.example.com", "[::1]"]
)
async def test_all_else_is_reached_straight(cluster: Cluster, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    cluster.begin()
    assert through_the_gateway(cluster.store, "127.0.0.1:9999")(f"http://{host}/") is None


def test_names_of_services_are_read_as_kubernetes_writes_them() -> None:
    found = service_key("prices.shop.svc")
    assert found is not None
    assert (found.namespace, found.name) == ("shop", "prices")
    assert service_key("a.b.c") is None
    assert service_key(".shop") is None
