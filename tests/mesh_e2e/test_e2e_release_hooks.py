"""A release that asks and tells: gates, acceptance test, load and rollback at a load tester in the mesh, events outside it.

The load tester is a workload like any other; only the gateway's identity may call it, which is whom the control plane calls as.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mesh_manifests import NAMESPACE, Object, account, deployment, rules, service
from mesh_receiver import Receiver
from mesh_run import MeshRun, request, until

from control.store.files import FileStore
from control.store.store import Key

INSTANCE = "app.kubernetes.io/instance"
TESTER = "http://flagger-loadtester.e2e"
PAYLOAD = json.dumps({"name": "web", "namespace": NAMESPACE}).encode()


class Outside(Receiver):
    """Keeps what it is sent, by path."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Object]] = []
        super().__init__()

    def heard(self, path: str, body: bytes) -> int:
        self.got.append((path, json.loads(body)))
        return 200

    def events(self) -> list[str]:
        return [body["metadata"]["eventMessage"] for path, body in list(self.got) if path == "/events"]

    def alerts(self) -> list[str]:
        return [body["attachments"][0]["text"] for path, body in list(self.got) if path == "/slack"]


def load_tester() -> list[Object]:
    made = deployment("flagger-loadtester", "echo_app", 8080, Path("/nowhere"))
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["meshproxy", "loadtester", "--port", "8080"]
    container["readinessProbe"] = {"tcpSocket": {"port": "main"}, "periodSeconds": 1}
    guard = {
        "apiVersion": "access.smi-spec.io/v1alpha3",
        "kind": "TrafficTarget",
        "metadata": {"name": "loadtester", "namespace": NAMESPACE},
        "spec": {
            "destination": {"kind": "ServiceAccount", "name": "flagger-loadtester", "namespace": NAMESPACE},
            "sources": [{"kind": "ServiceAccount", "name": "gateway", "namespace": "meshproxy"}],
            "rules": [{"kind": "TCPRoute", "name": "all"}],
        },
    }
    routes = rules("TCPRoute", "all", matches={"ports": [8080]})
    return [account("flagger-loadtester"), made, service("flagger-loadtester"), guard, routes]


def canary(outside: Outside) -> Object:
    def hook(kind: str, name: str, path: str, **metadata: str) -> Object:
        return {
            "type": kind,
            "name": name,
            "url": TESTER + path,
            "timeout": "20s",
            **({"metadata": metadata} if metadata else {}),
        }

    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80, "targetPort": "main"},
            "analysis": {
                "interval": "1s",
                "threshold": 30,
                "stepWeights": [30, 60],
                "metrics": [{"name": "request-success-rate", "interval": "5s", "thresholdRange": {"min": 99}}],
                "webhooks": [
                    hook("confirm-rollout", "gate", "/gate/check"),
                    hook("pre-rollout", "acceptance", "/", type="bash", cmd="hey -n 3 -c 1 http://web-canary.e2e/ | grep 200"),
                    hook("rollout", "load", "/", cmd="hey -z 30s -q 20 -c 2 http://web.e2e/"),
                    hook("confirm-promotion", "go", "/gate/approve"),
                    hook("rollback", "back", "/rollback/check"),
                    hook("post-rollout", "after", "/", type="bash", cmd="true"),
                    {"type": "event", "name": "log", "url": f"{outside.address}/events", "metadata": {"where": "here"}},
                ],
                "alerts": [{"name": "us", "severity": "info", "providerRef": {"name": "slack"}}],
            },
        },
    }


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    made = Outside()
    yield made
    made.end()


class Release:
    def __init__(self, mesh: MeshRun, outside: Outside) -> None:
        self.mesh = mesh
        self.outside = outside

    def write(self, revision: str) -> None:
        """Labelled as Helm's charts are: the label that tells it from its primary is named when the mesh is started."""
        made = deployment("web", "release_app", 8080, self.mesh.ledger)
        made["spec"]["selector"]["matchLabels"] = made["spec"]["template"]["metadata"]["labels"] = {INSTANCE: "web"}
        container = made["spec"]["template"]["spec"]["containers"][0]
        container["env"].append({"name": "REVISION", "value": revision})
        container["readinessProbe"] = {"httpGet": {"path": "/ready", "port": "main"}, "periodSeconds": 1}
        self.mesh.write("web", account("web"), made)

    @property
    def phase(self) -> str:
        store = FileStore(None, self.mesh.layout.objects, "e2e")
        store.refresh()
        obj = store.get(Key("flagger.app", "Canary", NAMESPACE, "web")) or {}
        return str((obj.get("status") or {}).get("phase", ""))

    def reaches(self, phase: str) -> None:
        def reached() -> bool:
            return self.phase == phase

        try:
            until(reached, f"phase {phase}")
        except AssertionError as failure:
            raise AssertionError(f"{failure}; it is {self.phase!r}: {self.outside.events()}") from None

    def ask(self, path: str) -> int:
        """As a person does it: curl -x GATEWAY -d ... http://flagger-loadtester.e2e/..."""
        return request(*self.mesh.gateway, "POST", TESTER + path, PAYLOAD).status


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, outside: Outside) -> Iterator[Release]:
    mesh = MeshRun(tmp_path_factory.mktemp("hooks"), "hooks")
    found = Release(mesh, outside)
    slack = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "AlertProvider",
        "metadata": {"name": "slack", "namespace": NAMESPACE},
        "spec": {"type": "slack", "address": f"{outside.address}/slack", "channel": "releases"},
    }
    mesh.write("tester", *load_tester())
    mesh.write("canary", canary(outside), slack)
    found.write("1")
    try:
        mesh.start("--canary-selector-labels", f"app,{INSTANCE}", "--cluster-name", "edge-7")
        found.reaches("Initialized")
        yield found
    finally:
        mesh.end()


def test_a_release_waits_for_its_gate_is_tested_and_loaded_and_promoted(release: Release, outside: Outside) -> None:
    release.write("2")
    release.reaches("Waiting")
    until(lambda: "Canary is waiting for approval." in outside.alerts(), "the alert")
    until(lambda: "Halt web.e2e advancement waiting for approval gate" in outside.events(), "the event")
    os.kill(release.mesh.recorded()["control plane"], signal.SIGKILL)  # all it knows is in the Canary
    assert release.ask("/gate/open") == 202
    release.reaches("Succeeded")
    until(lambda: "Post-rollout check after passed" in outside.events(), "the post-rollout hook")
    events = outside.events()
    in_order = [
        "Halt web.e2e advancement waiting for approval gate",
        "Confirm-rollout check gate passed",
        "New revision detected! Scaling up web.e2e",
        "Pre-rollout check acceptance passed",
        "Advance web.e2e canary weight 30",
        "Advance web.e2e canary weight 60",
        "Confirm-promotion check go passed",
        "Post-rollout check after passed",
    ]
    places = [events.index(text) for text in in_order]
    assert places == sorted(places), events
    told = next(body for path, body in outside.got if path == "/events")
    assert told["metadata"]["where"] == "here"
    assert told["metadata"]["cluster"] == "edge-7"
    alert = next(body for path, body in outside.got if path == "/slack")
    assert alert["attachments"][0]["fields"][0] == {"title": "Cluster", "value": "edge-7", "short": False}
    until(lambda: "Canary analysis completed successfully, promotion finished." in outside.alerts(), "the last alert")


def test_a_person_rolls_a_release_back_at_the_load_tester(release: Release, outside: Outside) -> None:
    before = len(outside.events())
    assert release.ask("/rollback/open") == 202
    release.write("3")
    release.reaches("Failed")
    until(lambda: "Post-rollout check after passed" in outside.events()[before:], "the post-rollout hook")
    assert "Rollback check back passed" in outside.events()[before:]


def test_nobody_else_in_the_mesh_may_have_commands_run(release: Release) -> None:
    """The workload that is released asks from its own pod's address, through its sidecar."""
    web = release.mesh.pods("web-primary")[0]
    answer = request(web.ip, 4140, "POST", f"{TESTER}/gate/approve", PAYLOAD)
    assert answer.status == 403, answer
