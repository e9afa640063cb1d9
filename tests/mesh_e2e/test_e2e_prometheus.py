"""Releases judged by a real Prometheus that scrapes real sidecars: built-in metrics, and PromQL of a MetricTemplate."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from mesh_load import Load
from mesh_manifests import NAMESPACE, Object, account, deployment
from mesh_prometheus import MISSING, Prometheus
from mesh_run import MeshRun, fetch, until

from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.prometheus_arms import PrometheusArms
from control.canary.measuring.promql import Server
from control.canary.measuring.source import Arms, Subject
from control.store.files import FileStore
from control.store.store import Key

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

# Percent of answers that are 404: to the built-in success rate they are successes, as in Linkerd and Flagger.
NOT_FOUND = """
sum(rate(response_total{
  namespace="{{ namespace }}", deployment=~"{{ target }}", direction="{{ variables.direction }}", status_code="404"
}[{{ interval }}]))
/ sum(rate(response_total{namespace="{{ namespace }}", deployment=~"{{ target }}", direction="inbound"}[{{ interval }}])) * 100
or vector(0)
"""

# flagger.md 5.2: what a real Flagger asks of a mesh that it takes for Linkerd.
FLAGGERS_RATE = """
sum(rate(response_total{namespace="e2e",deployment=~"TARGET",classification!="failure",direction="inbound"}[10s]))
/ sum(rate(response_total{namespace="e2e",deployment=~"TARGET",direction="inbound"}[10s])) * 100
"""
FLAGGERS_DURATION = """
histogram_quantile(0.99,
  sum(rate(response_latency_ms_bucket{namespace="e2e",deployment=~"TARGET",direction="inbound"}[10s])) by (le))
"""


class Shop:
    """client, and two releases that are judged side by side: web and desk."""

    def __init__(self, mesh: MeshRun, prometheus: Prometheus) -> None:
        self.mesh = mesh
        self.prometheus = prometheus
        self.wanted: dict[str, dict[str, str]] = {}
        self.sent = 0  # to web in the last releases
        self.arms: Arms | None = None  # of web, as last seen in them
        self._store: FileStore | None = None

    def revise(self, name: str, **env: str) -> None:
        """From the next `releases` on it is to run with these."""
        self.wanted[name] = env

    def write(self, name: str, **env: str) -> None:
        made = deployment(name, "release_app", 8080, self.mesh.ledger, labels={"app": name})
        container = made["spec"]["template"]["spec"]["containers"][0]
        container["env"] += [{"name": key, "value": value} for key, value in env.items()]
        container["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "main"}, "periodSeconds": 1}
        self.mesh.write(name, account(name), made, canary(name))

    def _objects(self) -> FileStore:
        if self._store is None:
            self._store = FileStore(None, self.mesh.layout.objects, "e2e")
        self._store.refresh()
        return self._store

    def status(self, name: str) -> Object:
        obj = self._objects().get(Key("flagger.app", "Canary", NAMESPACE, name))
        return (obj or {}).get("status") or {}

    def said(self, name: str) -> Counter[str]:
        """What was said of a Canary, and how often."""
        about = Key("flagger.app", "Canary", NAMESPACE, name)
        return Counter({event["message"]: event["count"] for event in self._objects().events(about)})

    async def releases(self, **expected: str) -> dict[str, Counter[str]]:
        """Wait, under load, until each new revision has ended in this phase; what was said of it."""
        before = {name: (self.status(name)["lastAppliedSpec"], self.said(name)) for name in expected}
        for name, revision in self.wanted.items():
            self.write(name, **revision)
        client = self.mesh.pod("client").ip

        def ended() -> bool:
            found = {name: self.status(name) for name in expected}
            return all(
                one["lastAppliedSpec"] != before[name][0] and one["phase"] in ("Succeeded", "Failed")
                for name, one in found.items()
            )

        asking = PrometheusClient()
        subject = Subject(NAMESPACE, "web", "web-canary", "web", "web")
        counting = PrometheusArms(asking, Server(self.prometheus.address), subject, tuple)
        load = Load(client, "http://web.e2e/", 30, prefix="w")
        async with load, Load(client, "http://desk.e2e/", 30, prefix="d"):
            deadline = asyncio.get_running_loop().time() + 60
            while not await asyncio.to_thread(ended):
                self.arms = await counting.look(time.time()) or self.arms
                assert asyncio.get_running_loop().time() < deadline, {name: self.said(name) for name in expected}
                await asyncio.sleep(0.1)
        await asking.close()
        self.sent = len(load.outcomes)
        told = {name: self.said(name) - before[name][1] for name in expected}
        assert {name: self.status(name)["phase"] for name in expected} == expected, told
        return told


def canary(name: str) -> Object:
    metrics: list[dict[str, Any]] = [
        {"name": "request-success-rate", "interval": "5s", "thresholdRange": {"min": 90}},
        {"name": "request-duration", "interval": "5s", "thresholdRange": {"max": 400}},
        {
            "name": "not-found",
            "interval": "5s",
            "thresholdRange": {"max": 5},
            "templateRef": {"name": "not-found"},
            "templateVariables": {"direction": "inbound"},
        },
    ]
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "service": {"port": 80, "targetPort": "main"},
            # Prometheus takes up to 5 s to act on what discovery tells it of a new pod: until then there are no values
            "analysis": {"interval": "1s", "threshold": 10, "stepWeights": [50], "metrics": metrics},
        },
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    mesh = MeshRun(tmp_path_factory.mktemp("judged"), "judged")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    prometheus = Prometheus(mesh.home, port)
    found = Shop(mesh, prometheus)
    mesh.write("client", account("client"), deployment("client", "echo_app", 8080, mesh.ledger))
    mesh.write(
        "template",
        {
            "apiVersion": "flagger.app/v1beta1",
            "kind": "MetricTemplate",
            "metadata": {"name": "not-found", "namespace": NAMESPACE},
            "spec": {"provider": {"type": "prometheus", "address": prometheus.address}, "query": NOT_FOUND},
        },
    )
    found.write("web")
    found.write("desk")
    try:
        mesh.start("--metrics-server", prometheus.address)
        prometheus.start(f"http://{mesh.info.control_admin}/sd")
        until(prometheus.ready, "prometheus to be ready")
        for name in ("web", "desk"):
            until(lambda name=name: found.status(name).get("phase") == "Initialized", f"{name} to be initialized")
        yield found
    finally:
        prometheus.stop()
        mesh.end()


async def test_a_good_revision_is_promoted_and_one_that_a_template_measures_badly_is_not(shop: Shop) -> None:
    shop.revise("web", REVISION="2")
    shop.revise("desk", REVISION="2", STATUS="404")
    told = await shop.releases(web="Succeeded", desk="Failed")
    assert any(text.startswith("Halt desk.e2e advancement not-found ") and text.endswith(" > 5") for text in told["desk"]), told
    assert not any("success rate" in text for text in told["desk"])
    assert shop.arms is not None
    assert shop.arms.canary.successes > 0
    assert shop.arms.primary.successes > 0
    assert shop.arms.canary.requests + shop.arms.primary.requests <= shop.sent
    assert sum(count for _, count in shop.arms.canary.latency) == shop.arms.canary.successes


async def test_errors_and_slowness_are_seen_by_the_built_in_queries(shop: Shop) -> None:
    shop.revise("web", REVISION="3", STATUS="500")
    shop.revise("desk", REVISION="3", DELAY_MS="700")
    told = await shop.releases(web="Failed", desk="Failed")
    assert any(
        text.startswith("Halt web.e2e advancement success rate ") and text.endswith("% < 90%") for text in told["web"]
    ), told
    assert any(text.startswith("Halt desk.e2e advancement request duration ") for text in told["desk"]), told


async def test_the_queries_of_a_real_flagger_find_what_they_need(shop: Shop) -> None:
    async with Load(shop.mesh.pod("client").ip, "http://web.e2e/", 30, prefix="f") as load:
        await load.more(30)

        def answered(query: str) -> float:
            found = shop.prometheus.ask(query.replace("TARGET", "web-primary"))
            return found[0][1] if found else math.nan

        deadline = asyncio.get_running_loop().time() + 30
        while answered(FLAGGERS_RATE) != 100.0 or not 0 < answered(FLAGGERS_DURATION) < 5000:
            assert asyncio.get_running_loop().time() < deadline, (answered(FLAGGERS_RATE), answered(FLAGGERS_DURATION))
            await asyncio.sleep(0.2)


def test_discovery_names_every_pod_with_a_proxy(shop: Shop) -> None:
    names = {pod.name for name in ("client", "web", "web-primary", "desk-primary") for pod in shop.mesh.pods(name)}

    def scraped() -> set[str]:
        return {labels["pod"] for labels, value in shop.prometheus.ask('up{job="meshproxy"}') if value == 1}

    until(lambda: names <= scraped(), f"all of {sorted(names)} to be scraped")


def test_the_control_plane_counts_what_it_asks(shop: Shop) -> None:
    host, _, port = shop.mesh.info.control_admin.rpartition(":")
    page = dict(line.rsplit(" ", 1) for line in fetch(host, int(port), "/metrics").splitlines() if not line.startswith("#"))
    assert float(page["meshproxy_canary_prometheus_queries_total"]) > 10
    assert float(page["meshproxy_canary_scrapes_total"]) == 0  # nobody is judged by the mesh's own numbers here
    assert 0 < float(page['flagger_canary_metric_analysis{metric="request-duration",name="desk",namespace="e2e"}']) < 5
