"""What Flagger's own end-to-end scripts look at, of Canaries like theirs: phases, selectors, the primary's image, cookies.

Written anew from test/linkerd, test/gatewayapi and test/kubernetes of fluxcd/flagger; the mesh's part of them - requests, load,
metrics of a real Prometheus - is in tests/mesh_e2e.
"""

from __future__ import annotations

from typing import Any

import pytest
from canary_cluster import APEX, CANARY, PRIMARY, TARGET, Cluster, deployment, service

from control.canary.declared.hooks import HookResult
from control.canary.machine.analysis import Measurement
from control.store.store import Key, Object

ROUTE = Key("gateway.networking.k8s.io", "HTTPRoute", "test", "podinfo")
TESTER = "http://flagger-loadtester.test/"
MESH_PARENT = {"name": "podinfo", "namespace": "test", "group": "core", "kind": "Service", "port": 80}
INBOUND = {"direction": "inbound"}
TEMPLATES = [
    {
        "name": "success-rate",
        "templateRef": {"name": "success-rate", "namespace": "linkerd"},
        "thresholdRange": {"min": 99},
        "interval": "1m",
        "templateVariables": INBOUND,
    },
    {
        "name": "latency",
        "templateRef": {"name": "latency", "namespace": "linkerd"},
        "threshold": 300,
        "interval": "1m",
        "templateVariables": INBOUND,
    },
]
BUILT_IN = [
    {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}},
    {"name": "request-duration", "interval": "30s", "thresholdRange": {"max": 500}},
]
LOAD = {"name": "load-test", "url": TESTER, "timeout": "5s", "metadata": {"type": "cmd", "cmd": "hey http://podinfo.test/"}}
SMOKE = {"name": "acceptance-test", "type": "pre-rollout", "url": TESTER, "metadata": {"type": "bash", "cmd": "true"}}
GATE = {"name": "gate", "type": "confirm-rollout", "url": TESTER + "gate/approve"}
WEIGHTS = {"interval": "15s", "threshold": 15, "maxWeight": 50, "stepWeight": 10}


def canary(analysis: Object, provider: str = "", service: Object | None = None) -> Object:
    spec: Object = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
        "progressDeadlineSeconds": 60,
        "service": {"port": 80, "targetPort": "http", "portDiscovery": True, **(service or {})},
        "analysis": analysis,
    }
    if provider:
        spec["provider"] = provider
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test"},
        "spec": spec,
    }


class Script:
    """`kubectl apply`, `set image`, `get | grep` in a loop."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen: list[tuple[str, int]] = []  # (phase, status.canaryWeight), each change
        good = Measurement(100.0, 50)
        cluster.measurements |= {"success-rate": good, "latency": Measurement(12.0, 50)}

    async def apply(self, *objects: Object) -> None:
        self.cluster.write(*objects)
        await self.cluster.roll_out()

    async def until(self, phase: str, limit: int = 40) -> None:
        for _ in range(limit):
            await self.cluster.tick()
            status = self.object(CANARY)["status"]
            if (now := (status["phase"], status["canaryWeight"])) not in self.seen[-1:]:
                self.seen.append(now)
            if status["phase"] == phase:
                return
        raise AssertionError(f"no {phase}: {self.seen}")

    def object(self, key: Key) -> Object:
        found = self.cluster.store.get(key)
        assert found is not None, key
        return found

    def selector(self, name: str) -> str:
        return str(self.object(Key("", "Service", "test", name))["spec"]["selector"]["app"])


@pytest.fixture
def script(cluster: Cluster) -> Script:
    return Script(cluster)


@pytest.mark.parametrize(
    ("provider", "metrics", "parents"),
    [("linkerd", BUILT_IN, None), ("osm", BUILT_IN, None), ("gatewayapi:v1beta1", TEMPLATES, [MESH_PARENT])],
)
async def test_linkerd_and_osm_initialise_promote_and_roll_back(script: Script, provider: str, metrics: Any, parents: Any):
    more = {"gatewayRefs": parents} if parents else {}
    await script.apply(deployment("6.0.0"), canary({**WEIGHTS, "metrics": metrics, "webhooks": [SMOKE, LOAD]}, provider, more))
    await script.until("Initialized")
    assert script.selector("podinfo") == "podinfo-primary"
    assert script.selector("podinfo-canary") == "podinfo"
    await script.apply(deployment("6.0.1"))
    await script.until("Succeeded")
    assert "6.0.1" in script.cluster.image(PRIMARY)
    assert [weight for phase, weight in script.seen if phase == "Progressing"] == [0, 10, 20, 30, 40, 50]
    await script.apply(canary({**WEIGHTS, "threshold": 3, "metrics": metrics, "webhooks": [SMOKE, LOAD]}, provider, more))
    script.cluster.measurements[metrics[0]["name"]] = Measurement(0.0, 50)
    await script.apply(deployment("6.0.2"))
    await script.until("Failed")
    assert "6.0.1" in script.cluster.image(PRIMARY)


async def test_linkerd_goes_by_a_list_of_steps(script: Script):
    steps = {"interval": "15s", "threshold": 15, "stepWeights": [10, 20, 30, 40, 50, 60], "metrics": BUILT_IN}
    await script.apply(deployment("6.0.0"), canary(steps, "linkerd"))
    await script.until("Initialized")
    await script.apply(deployment("6.0.1"))
    await script.until("Succeeded")
    assert [weight for phase, weight in script.seen if phase == "Progressing"] == [0, 10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize(
    "analysis",
    [
        pytest.param({"interval": "10s", "threshold": 5, "iterations": 5}, id="blue/green"),
        pytest.param(
            {"interval": "15s", "threshold": 10, "iterations": 10, "match": [{"headers": {"x-canary": {"exact": "insider"}}}]},
            id="a/b",
        ),
    ],
)
async def test_gateway_api_promotes_by_iterations(script: Script, analysis: Object):
    whole = {**analysis, "metrics": TEMPLATES, "webhooks": [SMOKE, LOAD]}
    await script.apply(deployment("6.0.0"), canary(whole, "gatewayapi:v1", {"gatewayRefs": [MESH_PARENT]}))
    await script.until("Initialized")
    await script.apply(deployment("6.0.1"))
    await script.until("Succeeded")
    assert "6.0.1" in script.cluster.image(PRIMARY)


async def test_gateway_api_has_session_affinity_and_takes_its_cookie_back(script: Script):
    affinity = {"cookieName": "canary-flagger-cookie", "primaryCookieName": "primary-flagger-cookie"}
    whole = {**WEIGHTS, "sessionAffinity": affinity, "metrics": TEMPLATES}
    await script.apply(deployment("6.0.4"), canary(whole, "gatewayapi:v1", {"gatewayRefs": [MESH_PARENT]}))
    await script.until("Initialized")
    await script.apply(deployment("6.1.0"))
    while script.object(CANARY)["status"]["canaryWeight"] != 10:
        await script.until("Progressing", limit=1)
    cookie = script.object(CANARY)["status"]["sessionAffinityCookie"]
    assert cookie.startswith("canary-flagger-cookie=")
    assert cookie in str(script.object(ROUTE)["spec"])
    await script.until("Succeeded")
    assert "6.1.0" in script.cluster.image(PRIMARY)
    assert script.object(CANARY)["status"]["previousSessionAffinityCookie"] == cookie
    taken_back = str(script.object(ROUTE)["spec"])
    assert cookie in taken_back
    assert "Max-Age=-1" in taken_back


async def test_kubernetes_is_blue_green_behind_a_service_that_was_there_before(script: Script):
    there = service()
    there["metadata"]["name"] = "podinfo-svc"
    there["spec"]["ports"] = [{"name": "http", "port": 9898, "protocol": "TCP", "targetPort": "http"}]
    analysis = {"interval": "15s", "threshold": 10, "iterations": 5, "metrics": BUILT_IN, "webhooks": [GATE, SMOKE, LOAD]}
    named = {"name": "podinfo-svc", "targetPort": 9898}
    await script.apply(deployment("6.0.0"), there, canary(analysis, "kubernetes", named))
    await script.until("Initialized")
    assert script.selector("podinfo-svc") == "podinfo-primary"
    assert 80 in [port["port"] for port in script.object(Key("", "Service", "test", "podinfo-svc"))["spec"]["ports"]]
    told = script.object(Key("", "Service", "test", "podinfo-svc"))["metadata"]["annotations"]
    assert {"kustomize.toolkit.fluxcd.io/reconcile", "helm.toolkit.fluxcd.io/driftDetection"} <= told.keys()
    await script.apply(deployment("6.0.1"))
    await script.until("Succeeded")
    assert "6.0.1" in script.cluster.image(PRIMARY)
    assert script.cluster.store.get(ROUTE) is None


async def test_a_gate_that_never_opens_leaves_the_primary_as_it_is(script: Script):
    script.cluster.hooks["gate"] = HookResult(False, "Forbidden")
    await script.apply(deployment("6.0.0"), service(), canary({**WEIGHTS, "webhooks": [GATE]}, "linkerd"))
    await script.until("Initialized")
    await script.apply(deployment("6.0.1"))
    await script.until("Waiting")
    for _ in range(10):
        await script.until("Waiting", limit=1)
    assert script.cluster.replicas(TARGET) == 0
    assert "6.0.0" in script.cluster.image(PRIMARY)
    assert script.object(APEX)["spec"]["selector"] == {"app": "podinfo-primary"}
