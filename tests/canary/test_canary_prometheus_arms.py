"""Both arms by the counters of a Prometheus that scrapes when it scrapes."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml
from canary_prometheus import Said, elements, scripted

from control.canary.measuring import promql
from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.prometheus_arms import STALE_S, PrometheusArms
from control.canary.measuring.source import Subject

SUBJECT = Subject("test", "podinfo", "podinfo-canary", "podinfo", "podinfo")
ARMS = ("pod.info", "pod.info-primary")


class World:
    """Counters of a canary pod and a primary pod, as last scraped."""

    def __init__(self, prometheus, client) -> None:
        self.prometheus = prometheus
        self.now = 1_800_000_000.0
        self.pods = {"c-1": "podinfo", "p-1": "podinfo-primary"}
        self.scraped = dict.fromkeys(self.pods, self.now)
        self.existing = set(self.pods)
        self.good: dict[str, float] = {}
        self.bad: dict[str, float] = {}
        self.called: dict[tuple[str, str], float] = {}  # deployment, pod -> failures a caller saw
        self.broken = ""
        self.arms = PrometheusArms(client, prometheus.server, SUBJECT, lambda: self.existing)

    def scrape(self, *pods: str) -> None:
        self.now += 1
        for pod in pods or self.pods:
            self.scraped[pod] = self.now

    async def look(self):
        of = {pod: {"deployment": deployment, "pod": pod} for pod, deployment in self.pods.items() if pod in self.scraped}
        responses = [
            ({**of[pod], "classification": kind}, counts.get(pod, 0))
            for pod in of
            for kind, counts in (("success", self.good), ("failure", self.bad))
        ]
        latency = [
            ({**of[pod], "le": le}, share * self.good.get(pod, 0)) for pod in of for le, share in (("5", 0.5), ("+Inf", 1.0))
        ]
        caller = {"namespace": "test", "pod": "web-1", "dst_namespace": "test"}
        callers = [
            ({**caller, "dst_deployment": deployment, "dst_pod": pod}, count)
            for (deployment, pod), count in self.called.items()
        ]
        self.prometheus.answers = {
            "timestamp(": Said(elements(*((of[pod], self.scraped[pod]) for pod in of))),
            "pod, classification)": Said(elements(*responses)),
            "pod, le)": Said(elements(*latency)),
            "dst_service)": Said(elements(*callers)),
        }
        if self.broken:
            self.prometheus.answers[self.broken] = Said(b"<html>")
        return await self.arms.look(self.now)


@pytest.fixture
async def world():
    client = PrometheusClient()
    async with scripted() as prometheus:
        yield World(prometheus, client)
        await client.close()


async def test_a_baseline_is_the_third_arm_once_it_is_scraped(world):
    world.good = {"c-1": 50, "p-1": 1000}
    assert (await world.look()).baseline is None
    world.pods["b-1"] = "podinfo-baseline"
    world.existing.add("b-1")
    world.now += 1
    assert await world.look() is None, "its pod is there, and what it did is not known"
    world.scrape()
    world.good["b-1"] = 4
    arms = await world.look()
    assert (arms.baseline.successes, arms.primary.successes) == (4, 0)


async def test_what_was_counted_before_the_first_look_does_not_count(world):
    world.good = {"c-1": 50, "p-1": 1000}
    first = await world.look()
    assert (first.canary.requests, first.primary.requests) == (0, 0)
    world.good = {"c-1": 54, "p-1": 1090}
    world.bad = {"c-1": 1}
    world.scrape()
    seen = await world.look()
    assert (seen.canary.successes, seen.canary.failures, seen.primary.successes) == (4, 1, 90)
    assert seen.canary.latency == ((5.0, 2), (float("inf"), 2))


async def test_totals_change_only_when_every_pod_was_scraped_again(world):
    first = await world.look()
    world.good = {"c-1": 10}
    world.scrape("c-1")
    assert await world.look() == first
    world.scrape("p-1")
    assert (await world.look()).canary.successes == 10


async def test_what_callers_saw_fail_counts_once_with_what_the_pod_saw(world):
    await world.look()
    world.bad = {"c-1": 3}
    world.called = {("podinfo", "c-1"): 5, ("podinfo", ""): 1, ("podinfo-primary", "p-1"): 2, ("web", "web-1"): 9}
    world.scrape()
    seen = await world.look()
    assert (seen.canary.failures, seen.primary.failures) == (6, 2)


async def test_a_pod_that_is_new_or_restarted_counts_from_zero(world):
    world.good = {"c-1": 50}
    await world.look()
    world.good = {"c-1": 7, "c-2": 4}
    world.pods["c-2"] = "podinfo"
    world.scrape()
    assert (await world.look()).canary.successes == 11


async def test_an_existing_pod_that_is_not_scraped_leaves_the_arms_unknown_and_breaks_the_comparison(world):
    before = await world.look()
    del world.scraped["c-1"]
    world.pods["c-2"] = "podinfo"
    world.scrape("c-2", "p-1")
    assert await world.look() is None
    world.scrape()
    after = await world.look()
    assert after.canary.since(before.canary) is None
    world.existing.remove("c-1")  # deleted: nobody is missed
    del world.scraped["c-1"]
    world.scrape("c-2", "p-1")
    assert (await world.look()).canary.since(after.canary) is not None


async def test_a_pod_that_was_scraped_long_ago_is_out_of_sight(world):
    await world.look()
    world.now += STALE_S + 1
    world.scrape("p-1")
    assert await world.look() is None


async def test_an_arm_without_pods_is_not_known(world):
    del world.scraped["c-1"]
    world.existing.clear()
    assert await world.look() is None


@pytest.mark.parametrize("broken", ["timestamp(", "pod, classification)", "pod, le)", "dst_service)"])
async def test_an_answer_that_fails_is_not_known_and_loses_nothing(world, broken):
    await world.look()
    world.good = {"c-1": 10}
    world.scrape()
    world.broken = broken
    assert await world.look() is None
    world.broken = ""
    world.now += 1
    assert (await world.look()).canary.successes == 10


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_the_queries_select_both_arms_and_their_callers(tmp_path):
    pod = 'namespace="test",deployment="pod.info",pod="c-1"'
    to = 'dst_namespace="test",dst_pod="c-1"'
    series = {
        f'response_total{{direction="inbound",{pod},client_id="a",classification="success"}}': 3,
        f'response_total{{direction="inbound",{pod},client_id="b",classification="success"}}': 4,
        'response_total{direction="inbound",namespace="prod",deployment="pod.info",pod="c-1",classification="success"}': 9,
        'response_total{direction="inbound",namespace="test",deployment="pod-info",pod="c-1",classification="success"}': 9,
        f'response_latency_ms_bucket{{direction="inbound",{pod},status_code="200",le="5"}}': 7,
        f'response_latency_ms_bucket{{direction="inbound",{pod},status_code="503",le="5"}}': 1,
        f'response_total{{direction="outbound",namespace="a",pod="w",classification="failure",{to}}}': 2,
        f'response_total{{direction="outbound",namespace="a",pod="w",classification="success",{to}}}': 8,
    }
    asked = {
        promql.arm_stamps("test", ARMS): ('{deployment="pod.info",pod="c-1"}', 60),
        promql.arm_responses("test", ARMS): ('{classification="success",deployment="pod.info",pod="c-1"}', 7),
        promql.arm_latency("test", ARMS): ('{deployment="pod.info",le="5",pod="c-1"}', 7),
        promql.arm_callers("test"): ('{dst_namespace="test",dst_pod="c-1",namespace="a",pod="w"}', 2),
    }
    tests = [
        {"expr": query, "eval_time": "1m", "exp_samples": [{"labels": labels, "value": value}]}
        for query, (labels, value) in asked.items()
    ]
    given = [{"series": name, "values": f"{value}x9"} for name, value in series.items()]
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"tests": [{"interval": "10s", "input_series": given, "promql_expr_test": tests}]}))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_who_looks_often_does_not_ask_often(world):
    first = await world.look()
    asked = len(world.prometheus.requests)
    world.now += 0.25
    assert await world.look() is first
    world.broken = "timestamp("
    world.now += 1
    assert await world.look() is None
    world.now += 0.25
    assert await world.look() is None
    assert len(world.prometheus.requests) == asked + 1
