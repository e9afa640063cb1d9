"""What is told and asked, as the control plane puts it together from its settings."""

from __future__ import annotations

from typing import Any

import pytest
from canary_cluster import CANARY, Cluster
from canary_plays import START, canary_object
from canary_receiver import Receiver, says
from prometheus_client import CollectorRegistry

from control.canary.declared.alerts import Alert
from control.canary.declared.fields import SpecError
from control.canary.declared.hooks import Webhook
from control.canary.declared.spec import parse
from control.canary.machine.decision import Event
from control.canary.machine.status import Phase, Status
from control.canary.telling.wiring import Telling

STATUS = Status(phase=Phase.PROGRESSING, last_applied="r2")


def provider(namespace: str, url: str) -> dict[str, Any]:
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "AlertProvider",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"type": "slack", "address": url},
    }


async def test_the_environment_says_who_hears_of_all_canaries(cluster: Cluster, receiver: Receiver) -> None:
    cluster.begin()
    settings = {"EVENT_WEBHOOK_URL": f"{receiver.url}/events", "SLACK_URL": f"{receiver.url}/slack", "SLACK_CHANNEL": "ops"}
    telling = Telling(cluster.store, lambda: START, "", settings)
    telling.courier.tell(CANARY, parse(canary_object()), STATUS, [Event(False, "hello")], [Alert("info", "hi")])
    await telling.courier.settled()
    await telling.close()
    assert sorted(seen.path for seen in receiver.seen) == ["/events", "/slack"]


@pytest.mark.parametrize("name", ["EVENT_WEBHOOK_URL", "SLACK_URL", "MSTEAMS_URL"])
async def test_an_address_that_is_none_is_refused_by_name(cluster: Cluster, name: str) -> None:
    with pytest.raises(SpecError, match=f"{name}: 'ops' is no address"):
        Telling(cluster.store, lambda: START, "", {name: "ops"})


async def test_a_service_of_the_mesh_is_asked_through_the_gateway(cluster: Cluster, receiver: Receiver) -> None:
    """The receiver plays the gateway's proxy: it is sent the whole address."""
    cluster.begin()
    telling = Telling(cluster.store, lambda: START, receiver.url.removeprefix("http://"))
    result = await telling.hooks.call(Webhook("rollout", "load", "http://podinfo.test/gate/check"), {})
    await telling.close()
    assert result.ok
    assert receiver.seen[0].headers["Host"] == "podinfo.test"


async def test_references_to_another_namespace_can_be_switched_off(cluster: Cluster, receiver: Receiver) -> None:
    cluster.begin()
    cluster.write(provider("ops", f"{receiver.url}/ops"))
    telling = Telling(cluster.store, lambda: START, cross_namespace=False)
    alerts = [{"name": "a", "severity": "info", "providerRef": {"name": "p", "namespace": "ops"}}]
    telling.courier.tell(CANARY, parse(canary_object({"alerts": alerts})), STATUS, [], [Alert("error", "x")])
    await telling.courier.settled()
    await telling.close()
    assert receiver.seen == []
    (event,) = cluster.store.events(CANARY)
    assert "references to another namespace are switched off" in event["message"]


async def test_calls_are_counted_by_type_and_result(cluster: Cluster, receiver: Receiver) -> None:
    receiver.answers = [says(200), says(403)]
    telling = Telling(cluster.store, lambda: START)
    registry = CollectorRegistry()
    registry.register(telling)
    for _ in range(3):
        await telling.hooks.call(Webhook("confirm-rollout", "gate", receiver.url), {})
    await telling.close()
    found = {
        result: registry.get_sample_value("meshproxy_canary_webhook_calls_total", {"type": "confirm-rollout", "result": result})
        for result in ("ok", "failed")
    }
    assert found == {"ok": 1, "failed": 2}
    assert registry.get_sample_value("meshproxy_canary_notices_total", {"kind": "alert", "outcome": "sent"}) == 0
