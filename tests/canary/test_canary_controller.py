"""The loop over real files: when it ticks, what it survives, what it tells Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from canary_cluster import APEX, CANARY, PRIMARY, SPLIT, TARGET, Cluster, deployment, service
from canary_plays import canary_object
from prometheus_client import CollectorRegistry, generate_latest

from control.canary.controller import Controller
from control.canary.declared.commands import ANNOTATION_ABORT, Command
from control.canary.declared.hooks import HookResult, Webhook
from control.canary.declared.spec import DURATION, SUCCESS_RATE
from control.canary.machine.analysis import Measurement
from control.canary.machine.status import Phase
from control.canary.measuring.source import MetricSource, Query, Subject
from control.canary.telling.hook_client import HookClient
from control.store.accept import GRACE
from control.store.store import Key


class Numbers(MetricSource):
    """A source that says what it is told to; remembers what it was asked."""

    def __init__(self) -> None:
        self.says = {SUCCESS_RATE: Measurement(100.0, 50), DURATION: Measurement(12.0, 50)}
        self.queries: list[Query] = []
        self.watched: frozenset[Subject] = frozenset()

    async def measure(self, query: Query) -> Measurement:
        self.queries.append(query)
        return self.says[query.metric.name]

    def watch(self, subjects) -> None:
        self.watched = frozenset(subjects)


class Gate(HookClient):
    """A webhook that answers once it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.bodies: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()

    async def call(self, hook: Webhook, body: Mapping[str, Any]) -> HookResult:
        self.bodies.put_nowait(body)
        await self.opened.wait()
        return HookResult(True)


async def stepper(cluster: Cluster, source: Numbers, hooks: HookClient | None = None) -> Controller:
    await cluster.roll_out()
    return Controller(cluster.store, source, hooks=hooks, clock=lambda: cluster.now)


async def pass_by(cluster: Cluster, controller: Controller, times: int, seconds: float) -> None:
    """Looks, so far apart, whatever is due."""
    for _ in range(times):
        await controller.step(cluster.now)
        await cluster.roll_out()
        cluster.now += seconds


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[None]:
    task = asyncio.create_task(controller.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


CANARY_ITSELF = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary"}


async def step(cluster: Cluster, controller: Controller, times: int = 1) -> None:
    for _ in range(times):
        next_due = await controller.step(cluster.now)
        assert next_due > cluster.now
        cluster.now = next_due
        await cluster.roll_out()


async def test_a_release_from_the_first_manifest_to_success(cluster):
    cluster.begin()
    source = Numbers()
    controller = await stepper(cluster, source)
    await step(cluster, controller, 2)
    assert cluster.status().phase is Phase.INITIALIZED
    assert source.watched == frozenset()
    cluster.write(deployment("v2"))
    await step(cluster, controller)
    assert source.watched == {Subject("test", "podinfo", "podinfo-canary", "podinfo", "podinfo")}
    await step(cluster, controller, 8)
    assert cluster.status().phase is Phase.SUCCEEDED
    assert cluster.image(PRIMARY) == "podinfo:v2"
    assert source.watched == frozenset()
    assert {(query.metric.name, query.window_s) for query in source.queries} == {(SUCCESS_RATE, 60.0), (DURATION, 30.0)}
    messages = [event["message"] for event in cluster.store.events(CANARY)]
    for text in ("Initialization done!", "New revision detected! Scaling up", "canary weight 50", "Promotion completed!"):
        assert any(text in message for message in messages)


async def test_ticks_come_at_the_interval_and_not_more_often(cluster):
    cluster.begin()
    source = Numbers()
    controller = await stepper(cluster, source)
    await step(cluster, controller, 2)
    cluster.write(deployment("v2"))
    await step(cluster, controller, 2)
    assert cluster.status().canary_weight == 10
    due = cluster.now
    for early in range(1, 10):
        assert await controller.step(due - early) == due
    assert cluster.status().canary_weight == 10
    assert await controller.step(due) == due + 10
    assert cluster.status().canary_weight == 20


async def test_intervals_below_a_second_become_one(cluster):
    cluster.begin(analysis={"interval": "100ms"})
    controller = await stepper(cluster, Numbers())
    assert await controller.step(cluster.now) == cluster.now + 1.0


async def test_a_canary_that_cannot_be_read_says_why_and_the_others_go_on(cluster):
    cluster.begin()
    bad = canary_object({"stepWeight": 10})
    bad["metadata"]["name"] = "another"
    bad["spec"]["targetRef"]["name"] = "other"
    cluster.write(bad)
    cluster.refresh()
    metadata = {"name": "another", "namespace": "test", "annotations": {"meshproxy.dev/confirm": "lunch"}}
    await cluster.cli.apply({"apiVersion": bad["apiVersion"], "kind": "Canary", "metadata": metadata})  # not from a manifest
    cluster.refresh()
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    assert cluster.status().phase is Phase.INITIALIZED
    conditions = cluster.store.get(Key("flagger.app", "Canary", "test", "another"))["status"]["conditions"]
    assert [(c["type"], c["status"], c["reason"]) for c in conditions] == [("Accepted", "False", "Invalid")]
    assert "'lunch' is no gate" in conditions[0]["message"]


async def test_a_mistake_in_a_manifest_leaves_a_release_under_way_as_it_was(cluster):
    cluster.begin()
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    wrong = canary_object({"stepWeight": 10, "metrics": [{"name": "request-succes-rate", "thresholdRange": {"min": 99}}]})
    cluster.write(wrong)
    cluster.refresh()
    kept = cluster.store.get(Key("flagger.app", "Canary", "test", "podinfo"))
    assert [metric["name"] for metric in kept["spec"]["analysis"]["metrics"]] != ["request-succes-rate"]
    assert "is not a built-in metric" in " ".join(str(found) for found in cluster.store.diagnostics())


async def test_a_second_canary_on_the_same_target_is_not_run(cluster):
    cluster.begin()
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    second = canary_object()
    second["metadata"]["name"] = "aaa"
    cluster.write(second)
    await step(cluster, controller)
    other = cluster.store.get(Key("flagger.app", "Canary", "test", "aaa"))
    assert "podinfo.test is already the target of Canary podinfo.test" in other["status"]["conditions"][0]["message"]
    assert cluster.status().phase is Phase.INITIALIZED


async def test_a_source_that_breaks_is_counted_and_is_a_failed_check(cluster):
    class Broken(Numbers):
        broken = True

        async def measure(self, query: Query) -> Measurement:
            if self.broken:
                raise RuntimeError("boom")
            return await super().measure(query)

    cluster.begin()
    source = Broken()
    controller = await stepper(cluster, source)
    await step(cluster, controller, 2)
    cluster.write(deployment("v2"))
    await step(cluster, controller, 3)
    assert (cluster.status().canary_weight, cluster.status().failed_checks) == (10, 1)
    assert controller.metrics.errors == {"RuntimeError": 2}  # one for each metric
    source.broken = False
    await step(cluster, controller)
    assert cluster.status().canary_weight == 20


async def test_a_state_of_another_controller_is_left_alone_and_said(cluster):
    cluster.begin()
    await cluster.store.status(CANARY, {"phase": "Paused"})
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller)
    assert controller.metrics.errors == {"ValueError": 1}
    assert any("another controller" in event["message"] for event in cluster.store.events(CANARY))
    assert cluster.store.get(PRIMARY) is None


async def test_a_canary_that_went_while_nobody_held_it_gives_the_target_and_the_apex_back(cluster):
    """As where it cannot wait for its target: deleted before it was ever asked to, or by force."""
    cluster.begin()
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    assert cluster.replicas(TARGET) == 0
    await cluster.store.apply({**CANARY_ITSELF, "metadata": {"name": "podinfo", "namespace": "test"}})
    await gone(cluster, "canary-podinfo.yaml")
    assert cluster.store.get(CANARY) is None
    # The controller that sees it need not be the one that ran it.
    await Controller(cluster.store, Numbers(), clock=lambda: cluster.now).step(cluster.now)
    cluster.refresh()
    assert cluster.replicas(TARGET) == 2
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo"}
    assert cluster.store.get(PRIMARY) is None
    assert cluster.store.get(SPLIT) is None


def with_another_port() -> dict[str, Any]:
    wanted = service()
    wanted["spec"]["ports"].append({"name": "admin", "port": 81, "targetPort": 81})
    return wanted


async def gone(cluster: Cluster, name: str) -> None:
    (cluster.user / name).unlink()
    for _ in range(3):
        cluster.now += GRACE
        cluster.refresh()


async def test_a_service_written_while_its_canary_runs_is_the_users_but_for_its_selector(cluster):
    cluster.write(deployment(), canary_object())
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    cluster.write(with_another_port())
    await step(cluster, controller)
    apex = cluster.store.get(APEX)
    assert apex["spec"]["selector"] == {"app": "podinfo-primary"}
    assert [port["port"] for port in apex["spec"]["ports"]] == [80, 81]
    assert "ownerReferences" not in apex["metadata"]


@pytest.mark.parametrize("seen", [True, False], ids=["the controller saw it", "before the controller saw it"])
@pytest.mark.parametrize("revert", [False, True], ids=["given back", "reverted"])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "down and up"])
async def test_a_service_written_while_its_canary_ran_is_the_users_when_it_is_gone(cluster, seen, revert, restarted):
    cluster.write(deployment(), canary_object(revertOnDeletion=revert))
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 3)
    cluster.write(with_another_port())
    if seen:
        await step(cluster, controller)
    await gone(cluster, "canary-podinfo.yaml")
    if restarted:
        cluster.open()
        controller = await stepper(cluster, Numbers())
    await pass_by(cluster, controller, 4, GRACE)
    assert cluster.store.get(CANARY) is None
    assert cluster.store.get(APEX)["spec"] == with_another_port()["spec"]
    assert cluster.replicas(TARGET) == 2
    assert cluster.store.get(PRIMARY) is None
    cluster.write(service())
    assert cluster.store.get(APEX)["spec"] == service()["spec"]


async def test_a_service_removed_and_written_again_while_its_canary_ran_is_the_users_when_it_is_gone(cluster):
    cluster.begin()
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    await gone(cluster, "service-podinfo.yaml")
    await step(cluster, controller, 2)
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo-primary"}  # ours meanwhile
    cluster.write(with_another_port())
    await step(cluster, controller)
    await gone(cluster, "canary-podinfo.yaml")
    await pass_by(cluster, controller, 4, GRACE)
    assert cluster.store.get(APEX)["spec"] == with_another_port()["spec"]
    await gone(cluster, "service-podinfo.yaml")
    assert cluster.store.get(APEX) is None  # nothing of ours keeps it there


async def test_another_provider_moves_the_weights_to_other_objects_and_is_no_tampering(cluster):
    cluster.begin()
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 3)
    cluster.write(canary_object(provider="gatewayapi:v1"))
    await step(cluster, controller)
    told = [event for event in cluster.store.events(CANARY) if "Routing of" in event["message"]]
    assert [(event["type"], event["message"]) for event in told] == [
        ("Normal", "Routing of podinfo.test moves from TrafficSplit podinfo to HTTPRoute podinfo: canary 0, primary 100")
    ]
    assert cluster.store.get(SPLIT) is None
    cluster.write(canary_object())
    await step(cluster, controller)
    assert cluster.weights() == (0, 100)
    cluster.write(canary_object(provider="kubernetes"))
    await step(cluster, controller)
    assert cluster.store.get(SPLIT) is None
    last = [event["message"] for event in cluster.store.events(CANARY) if "Routing of" in event["message"]][-1]
    assert last.endswith("moves from TrafficSplit podinfo to Service podinfo: canary 0, primary 100")


async def test_run_sees_an_order_at_once_and_not_at_the_next_interval(cluster):
    """With a ten-minute interval and real time, only being woken can end this before the deadline."""
    cluster.write(deployment(), service(), canary_object({"interval": "10m"}))
    source = Numbers()
    controller = await stepper(cluster, source)
    controller_now = cluster.now
    await controller.step(cluster.now)
    await cluster.roll_out()
    cluster.now += 600
    await controller.step(cluster.now)
    await cluster.roll_out()
    async with running(controller):
        await asyncio.sleep(0)
        cluster.write(deployment("v2"))
        await until(cluster, Phase.PROGRESSING)
        revision = cluster.status().last_applied
        cluster.write(
            canary_object({"interval": "10m"}, annotations={ANNOTATION_ABORT: str(Command(revision, cluster.now + 1))})
        )
        await until(cluster, Phase.FAILED)
        assert cluster.now < controller_now + 1200


async def test_run_sees_a_deleted_target_at_once_and_not_at_the_next_interval(cluster):
    cluster.write(deployment(), service(), canary_object({"interval": "10m"}))
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    cluster.write(deployment("v2"))
    await step(cluster, controller, 2)
    while not (cluster.weights() or (0, 0))[0]:
        await step(cluster, controller)
    cluster.now -= 300  # in the middle of an interval
    now = cluster.now
    async with running(controller):
        await asyncio.sleep(0)
        (cluster.user / "deployment-podinfo.yaml").unlink()
        cluster.refresh()
        cluster.now += GRACE
        await until(cluster, Phase.FAILED)
        assert cluster.weights() == (0, 100)
        assert cluster.now == now + GRACE


async def until(cluster: Cluster, phase: Phase, key: Key = CANARY) -> None:
    async with asyncio.timeout(20):
        while cluster.status(key).phase is not phase:  # files have no event to wait for
            cluster.refresh()
            await asyncio.sleep(0.01)


def hooked(kind: str) -> dict[str, Any]:
    return {"interval": "10m", "webhooks": [{"type": kind, "name": "slow", "url": "http://gate.test/", "metadata": {"a": "b"}}]}


async def test_a_webhook_that_hangs_holds_up_its_own_release_and_no_other_and_an_order_does_not_wait_for_it(cluster):
    other = canary_object({"interval": "10m"})
    other["metadata"]["name"] = other["spec"]["targetRef"]["name"] = "other"
    target = deployment()
    target["metadata"]["name"] = "other"
    target["spec"]["selector"]["matchLabels"]["app"] = target["spec"]["template"]["metadata"]["labels"]["app"] = "other"
    cluster.write(deployment(), service(), canary_object(hooked("pre-rollout")), target, other)
    gate = Gate()
    controller = await stepper(cluster, Numbers(), gate)
    await pass_by(cluster, controller, 2, 600)
    cluster.write(deployment("v2"))
    await pass_by(cluster, controller, 1, 600)
    async with running(controller):
        async with asyncio.timeout(20):
            body = await gate.bodies.get()
        revision = cluster.status().last_applied
        assert (body["name"], body["namespace"], body["phase"], body["metadata"]) == (
            "podinfo",
            "test",
            "Progressing",
            {"a": "b"},
        )
        assert body["checksum"]
        target["spec"]["template"]["spec"]["containers"][0]["image"] = "podinfo:v2"
        cluster.write(target)
        await until(cluster, Phase.PROGRESSING, Key("flagger.app", "Canary", "test", "other"))
        order = {ANNOTATION_ABORT: str(Command(revision, cluster.now + 1))}
        cluster.write(canary_object(hooked("pre-rollout"), annotations=order))
        await until(cluster, Phase.FAILED)
        assert not gate.opened.is_set()
        assert gate.bodies.empty()


async def test_a_tick_that_was_interrupted_while_it_asked_is_made_up_for(cluster):
    """Interrupted by an order that is not for this revision: the webhook is asked again, at once and not an interval later."""
    cluster.write(deployment(), service(), canary_object(hooked("confirm-rollout")))
    gate = Gate()
    controller = await stepper(cluster, Numbers(), gate)
    await pass_by(cluster, controller, 2, 600)
    async with running(controller):
        await asyncio.sleep(0)
        cluster.write(deployment("v2"))
        async with asyncio.timeout(20):
            await gate.bodies.get()
            cluster.write(canary_object(hooked("confirm-rollout"), annotations={ANNOTATION_ABORT: str(Command("x", 1.0))}))
            await gate.bodies.get()
        gate.opened.set()
        await until(cluster, Phase.PROGRESSING)


async def test_without_a_way_to_call_them_webhooks_do_not_agree(cluster):
    cluster.begin(analysis=hooked("confirm-rollout"))
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 2)
    cluster.write(deployment("v2"))
    await step(cluster, controller)
    assert cluster.status().phase is Phase.WAITING


@pytest.mark.parametrize("revert", [True, False])
async def test_deleting_a_canary_the_primary_answers_until_the_target_can(cluster, revert):
    cluster.begin(revertOnDeletion=revert)
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 3)
    cluster.write(deployment("v2"))
    await step(cluster, controller, 3)
    assert cluster.weights() == (20, 80)
    (cluster.user / "canary-podinfo.yaml").unlink()
    for _ in range(2):
        cluster.refresh()
        cluster.now += 1
    assert cluster.store.get(CANARY)["metadata"]["deletionTimestamp"]
    await cluster.runtime.status(TARGET, {"availableReplicas": 0})
    cluster.refresh()
    await controller.step(cluster.now)
    assert (cluster.status().phase, cluster.weights()) == (Phase.TERMINATING, (0, 100))
    assert cluster.store.get(PRIMARY) is not None
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo-primary"}
    for _ in range(4):
        cluster.now += 1
        await cluster.roll_out()
        await controller.step(cluster.now)
        cluster.refresh()
    assert cluster.store.get(CANARY) is None
    assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo"}
    assert (cluster.replicas(TARGET), cluster.image(TARGET)) == (2, "podinfo:v2")
    assert (cluster.store.get(PRIMARY), cluster.store.get(SPLIT)) == (None, None)
    messages = [event["message"] for event in cluster.store.events(CANARY)]
    assert "Terminating canary podinfo.test" in messages
    assert "Terminated canary podinfo.test" in messages


async def test_its_metrics_carry_flaggers_names(cluster):
    cluster.begin()
    source = Numbers()
    controller = await stepper(cluster, source)
    registry = CollectorRegistry()
    registry.register(controller.metrics)
    await step(cluster, controller, 2)
    cluster.write(deployment("v2"))
    await step(cluster, controller, 3)
    page = generate_latest(registry).decode()
    for line in (
        'flagger_canary_total{namespace="test"} 1.0',
        'flagger_canary_status{name="podinfo",namespace="test"} 0.0',
        'flagger_canary_weight{namespace="test",workload="podinfo"} 20.0',
        'flagger_canary_weight{namespace="test",workload="podinfo-primary"} 80.0',
        'flagger_canary_duration_seconds_count{name="podinfo",namespace="test"} 5.0',
    ):
        assert line in page.replace('workload="podinfo",namespace="test"', 'namespace="test",workload="podinfo"').replace(
            'workload="podinfo-primary",namespace="test"', 'namespace="test",workload="podinfo-primary"'
        )
    analysed = 'flagger_canary_metric_analysis{metric="%s",name="podinfo",namespace="test"} %s'
    assert analysed % (SUCCESS_RATE, 100.0) in page
    assert analysed % (DURATION, 0.012) in page  # seconds, as Flagger has it
    source.says[SUCCESS_RATE] = Measurement(0.0, 50)
    await step(cluster, controller, 3)
    page = generate_latest(registry).decode()
    assert 'analysis_status="completed",deployment_strategy="canary",name="podinfo",namespace="test"} 1.0' in page or (
        'name="podinfo",namespace="test",deployment_strategy="canary",analysis_status="completed"} 1.0' in page
    )
    assert 'flagger_canary_status{name="podinfo",namespace="test"} 2.0' in page
