"""A release whose Prometheus is lost or talks nonsense is rolled back at the threshold, and never promoted."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
from canary_cluster import CANARY, PRIMARY, Cluster, deployment
from canary_prometheus import Said, scripted, vector

from control.canary.controller import Controller
from control.canary.machine.status import Phase
from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.sources import MetricSources


class Silent:
    """The embedded source's place: nobody may ask it."""

    def watch(self, subjects) -> None:
        assert list(subjects) == []

    def hurry(self, subjects) -> None:
        assert list(subjects) == []


@asynccontextmanager
async def releasing(cluster: Cluster, address: str, **canary):
    """A controller with podinfo v2 at weight 10; threshold 2."""
    client = PrometheusClient(timeout_s=0.2)
    controller = Controller(
        cluster.store,
        MetricSources(cluster.store, Silent(), client, metrics_server=address),
        clock=lambda: cluster.now,
    )
    cluster.begin(**canary)

    async def step(times: int = 1) -> None:
        for _ in range(times):
            cluster.now = await controller.step(cluster.now)
            await cluster.roll_out()

    await cluster.roll_out()
    await step(2)
    assert cluster.status().phase is Phase.INITIALIZED
    cluster.write(deployment("v2"))
    await step(2)
    assert cluster.status().canary_weight == 10
    try:
        yield step
    finally:
        await client.close()


def said(cluster: Cluster) -> list[str]:
    return [event["message"] for event in cluster.store.events(CANARY)]


LOST = {
    "HTML": (Said(b"<html>"), "Prometheus query failed: "),
    "an error": (Said(b"", status=503), "Prometheus query failed: "),
    "cut off": (Said(vector("100"), cut=9), "Prometheus query failed: "),
    "empty": (Said(vector()), "Halt advancement no values found for mesh metric request-success-rate"),
    "NaN": (Said(vector("NaN")), "Halt advancement no values found"),
    "Inf": (Said(vector("+Inf")), "Halt advancement no values found"),
    "stale": (Said(vector("100", at=time.time() - 3600)), "Halt advancement no values found"),
}


@pytest.mark.parametrize(("says", "words"), LOST.values(), ids=LOST.keys())
async def test_nonsense_from_prometheus_rolls_back_at_the_threshold(cluster, says, words):
    async with scripted() as prometheus:
        prometheus.says = Said(vector("1"))
        async with releasing(cluster, prometheus.server.address) as step:
            prometheus.says = says
            await step(2)
            assert (cluster.status().phase, cluster.status().failed_checks) == (Phase.PROGRESSING, 2)
            assert cluster.status().canary_weight == 10
            await step()
            assert cluster.status().phase is Phase.FAILED
    assert cluster.weights() == (0, 100)
    assert cluster.image(PRIMARY) == "podinfo:v1"
    assert any(message.startswith(words) for message in said(cluster)), said(cluster)


async def test_a_prometheus_that_is_gone_for_the_whole_analysis_rolls_back(cluster, unused_tcp_port):
    async with releasing(cluster, f"http://127.0.0.1:{unused_tcp_port}") as step:
        await step(3)
    assert cluster.status().phase is Phase.FAILED
    assert cluster.image(PRIMARY) == "podinfo:v1"
    assert any(text.startswith("Error checking metric providers: Prometheus is not available: ") for text in said(cluster))


async def test_a_release_that_its_prometheus_finds_good_is_promoted(cluster):
    async with scripted() as prometheus:
        prometheus.answers = {"histogram_quantile": Said(vector("12")), "vector(1)": Said(vector("1"))}
        prometheus.says = Said(vector("100"))
        async with releasing(cluster, prometheus.server.address) as step:
            await step(7)
    assert cluster.status().phase is Phase.SUCCEEDED
    assert "all the metrics providers are available!" in said(cluster)


async def test_too_few_requests_are_no_values_whatever_their_rate(cluster):
    async with scripted() as prometheus:
        prometheus.answers = {"increase(": Said(vector("19.2"))}
        prometheus.says = Said(vector("100"))
        fewest = {"meshproxy.dev/minimum-requests": "21"}
        async with releasing(cluster, prometheus.server.address, annotations=fewest) as step:
            await step()
    assert cluster.status().failed_checks == 1
    assert any("20 requests, fewer than the minimum of 21" in text for text in said(cluster)), said(cluster)
