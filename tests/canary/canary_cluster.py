"""A real file store with podinfo in it, and the part of Kubernetes a release needs: somebody who rolls Deployments out.

`Cluster.roll_out` writes Deployment status as manager "runtime", the way Kubernetes would once all pods are up.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from canary_plays import START, canary_object

from control.canary.act import Actor
from control.canary.declared.commands import to_rfc3339
from control.canary.declared.hooks import HookResult
from control.canary.declared.spec import DURATION, SUCCESS_RATE, CanarySpec, parse
from control.canary.facts import collect
from control.canary.machine import machine
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import Decision
from control.canary.machine.question import Answer, AskHook, Question
from control.canary.machine.status import Phase, Status
from control.store.files import FileStore
from control.store.store import Key, Object

CANARY = Key("flagger.app", "Canary", "test", "podinfo")
TARGET = Key("apps", "Deployment", "test", "podinfo")
PRIMARY = Key("apps", "Deployment", "test", "podinfo-primary")
APEX = Key("", "Service", "test", "podinfo")
SPLIT = Key("split.smi-spec.io", "TrafficSplit", "test", "podinfo")


def deployment(version: str = "v1", replicas: int | None = 2, **template: Any) -> Object:
    container = {
        "name": "podinfo",
        "image": f"podinfo:{version}",
        "command": ["podinfo"],
        "ports": [{"name": "http", "containerPort": 9898}],
        **template,
    }
    spec: Object = {
        "selector": {"matchLabels": {"app": "podinfo"}},
        "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [container]}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}


def service() -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"selector": {"app": "podinfo"}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec}


class Cluster:
    """User's directory, state directory, and the stores of the canary controller and of the runtime."""

    canary_store = FileStore

    def __init__(self, path: Path, state: Path | None = None) -> None:
        self.now = START
        self.user = path / "manifests"
        self.state = state or path / "state"
        self.user.mkdir(exist_ok=True)
        self.measurements = {SUCCESS_RATE: Measurement(100.0, 50), DURATION: Measurement(12.0, 50)}
        self.hooks: dict[str, HookResult] = {}  # as in Play
        self.open()

    def open(self) -> None:
        """Start over with nothing in memory, as after a crash."""
        if hasattr(self, "store"):
            self.store.close()
        self.store = self.canary_store(self.user, self.state, "canary", accepting=True, clock=lambda: self.now)
        self.runtime = FileStore(None, self.state, "runtime", clock=lambda: self.now)
        self.cli = FileStore(None, self.state, "cli", clock=lambda: self.now)
        self.actor = Actor(self.store)
        self.refresh()

    def refresh(self) -> None:
        for store in (self.store, self.runtime, self.cli):
            store.refresh()

    def write(self, *objects: Object) -> None:
        """The user saves manifests."""
        for obj in objects:
            metadata = {name: value for name, value in obj["metadata"].items() if name != "uid"}
            path = self.user / f"{obj['kind'].lower()}-{obj['metadata']['name']}.yaml"
            draft = path.with_suffix(".tmp")
            draft.write_text(yaml.safe_dump({**copy.deepcopy(obj), "metadata": metadata}))
            os.replace(draft, path)
        self.refresh()

    def begin(self, **canary: Any) -> None:
        self.write(deployment(), service(), canary_object(**canary))

    async def roll_out(self) -> None:
        """Every Deployment reaches what its spec says."""
        self.refresh()
        for obj in self.runtime.list("apps", "Deployment"):
            replicas = obj["spec"].get("replicas", 1)
            status = {
                "observedGeneration": obj["metadata"]["generation"],
                "replicas": replicas,
                "updatedReplicas": replicas,
                "readyReplicas": replicas,
                "availableReplicas": replicas,
                "conditions": [condition("Available", "True", "MinimumReplicasAvailable", self.now)],
            }
            await self.runtime.status(Key.of(obj), status)
        self.refresh()

    def status(self, key: Key = CANARY) -> Status:
        return Status.of((self.store.get(key) or {}).get("status"))

    def weights(self) -> tuple[int, int] | None:
        split = self.store.get(SPLIT)
        return split and tuple(backend["weight"] for backend in split["spec"]["backends"])

    def image(self, key: Key) -> str:
        return self.store.get(key)["spec"]["template"]["spec"]["containers"][0]["image"]

    def replicas(self, key: Key) -> int:
        return self.store.get(key)["spec"]["replicas"]

    def decide(self) -> Decision:
        obj = self.store.get(CANARY)
        spec, status = parse(obj), self.status()
        facts, answers = collect(self.store, spec, status, obj["metadata"], self.now), {}
        while (decision := machine.tick(spec, status, replace(facts, answers=answers), self.now)).asks:
            for question in decision.asks:
                answers[question] = self.answer(question, spec)
        return decision

    def answer(self, question: Question, spec: CanarySpec) -> Answer:
        if isinstance(question, AskHook):
            return self.hooks.get(question.hook.name, HookResult(question.hook.type != "rollback"))
        return {metric: self.measurements[metric.name] for metric in spec.metrics}

    async def tick(self, crash_after: int | None = None) -> int:
        """One tick; with `crash_after`, only that many of its actions happen and then everything in memory is lost.
        Returns how many actions the decision had."""
        decision = self.decide()
        spec = parse(self.store.get(CANARY))
        if crash_after is None:
            await self.actor.carry_out(spec, self.status(), decision)
        else:
            for action in decision.actions[:crash_after]:
                await self.actor.do(spec, action, decision.status)
            self.open()
        self.now += 10
        await self.roll_out()
        return len(decision.actions)


async def ticks(cluster: Cluster, count: int) -> None:
    for _ in range(count):
        await cluster.tick()


async def until(cluster: Cluster, *phases: Phase) -> None:
    """Ticks until it is in one of these."""
    for _ in range(30):
        if cluster.status().phase in phases:
            return
        await cluster.tick()
    raise AssertionError(cluster.status())


def told(cluster: Cluster, kind: str = "Warning") -> str:
    """The Events about the Canary, a line each."""
    return "\n".join(event["message"] for event in cluster.store.events(CANARY) if event["type"] == kind)


def condition(kind: str, status: str, reason: str, at: float) -> Object:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "lastUpdateTime": to_rfc3339(at),
        "lastTransitionTime": to_rfc3339(at),
    }
