"""Small plays for the release machine: facts in, a line a tick out.

A `Play` keeps status and the few facts a tick changes (weights, replicas, the primary's revision) the way a willing cluster
would, so that a test states only what is unusual.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from control.canary.declared.commands import Command, Commands
from control.canary.declared.hooks import HookResult
from control.canary.declared.spec import DURATION, SUCCESS_RATE, CanarySpec, parse
from control.canary.facts import READY, Facts, Readiness, Workload
from control.canary.machine import machine
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import (
    Action,
    CreatePrimary,
    Decision,
    EnsureApex,
    EnsureServices,
    KeepUntilReverted,
    PromoteTemplate,
    Release,
    RestorePrimary,
    Revert,
    RevertServices,
    ScaleToZero,
    ScaleUp,
    SetRouting,
)
from control.canary.machine.question import Answer, AskHook, AskMetrics, Question
from control.canary.machine.routing import Routing
from control.canary.machine.status import Phase, Status
from control.canary.objects.manifests import stamp_for

START = 1_800_000_000.0
INTERVAL = 10.0


def canary_object(
    analysis: dict[str, Any] | None = None, *, annotations: dict[str, str] | None = None, **spec: Any
) -> dict[str, Any]:
    """podinfo, as Flagger's tutorial has it: step 10, max 50, threshold 2."""
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "u-1", "annotations": annotations or {}},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 80, "targetPort": "http"},
            "analysis": {
                "interval": "10s",
                "threshold": 2,
                "maxWeight": 50,
                "stepWeight": 10,
                "metrics": [
                    {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                    {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"},
                ],
                **(analysis or {}),
            },
            **spec,
        },
    }


def canary_spec(analysis: dict[str, Any] | None = None, **rest: Any) -> CanarySpec:
    return parse(canary_object(analysis, **rest))


class Play:
    """One release, tick by tick.  After `tick` the world has done what the decision asked."""

    def __init__(self, spec: CanarySpec, *, status: Status | None = None, revision: str = "v1") -> None:
        self.spec = spec
        self.status = status or Status()
        self.now = START
        self.target = Workload(revision, 2, READY)
        self.primary: Workload | None = None
        self.kept = ""  # the stamp that the primary was last promoted with, as objects keep it
        self.routing: Routing | None = None
        self.hooks: dict[str, HookResult] = {}  # by name; those that are not named agree (rollback hooks: do not)
        self.asked: list[str] = []  # of the last tick, in order: names of hooks, "metrics"
        self.tracked: dict[str, str] = {}
        self.commands = Commands()
        self.seen = {SUCCESS_RATE: Measurement(100.0, 50), DURATION: Measurement(12.0, 50)}
        self.services_ok = self.apex_ok = False
        self.deleting = self.finalizer = False
        self.routing_problem = ""
        self.due = True
        self.decisions: list[Decision] = []

    @classmethod
    def initialised(cls, spec: CanarySpec) -> Play:
        """A Canary whose v1 is the primary and whose target is at zero."""
        play = cls(spec)
        play.tick()
        play.tick()
        assert play.status.phase is Phase.INITIALIZED
        return play

    def facts(self) -> Facts:
        return Facts(
            self.target,
            self.primary,
            "" if self.target else "deployment podinfo.test not found",
            services_ok=self.services_ok,
            apex_ok=self.apex_ok,
            routing=self.routing,
            tracked=dict(self.tracked),
            kept=self.kept,
            routing_problem=self.routing_problem,
            deleting=self.deleting,
            finalizer=self.finalizer,
            commands=self.commands,
            due=self.due,
        )

    def tick(self, crash_after: int | None = None) -> Decision:
        """One tick, carried out; time goes on by an interval.  With `crash_after` only so many of its actions happen, and
        nobody remembers that they did."""
        decision = self.decide()
        for action in decision.actions[:crash_after]:
            self.do(action)
        if crash_after is None:
            self.status = decision.status
            self.decisions.append(decision)
        self.now += INTERVAL
        return decision

    def decide(self) -> Decision:
        """What a controller does: ticks until nothing is asked any more."""
        facts, answers = self.facts(), {}
        self.asked = []
        while (decision := machine.tick(self.spec, self.status, replace(facts, answers=answers), self.now)).asks:
            assert (decision.actions, decision.events, decision.records, decision.notices) == ((), (), (), ())
            assert decision.status == self.status
            for question in decision.asks:
                assert question not in answers
                answers[question] = self.answer(question)
        return decision

    def answer(self, question: Question) -> Answer:
        match question:
            case AskHook(hook=hook):
                self.asked.append(hook.name)
                return self.hooks.get(hook.name, HookResult(hook.type != "rollback"))
            case AskMetrics():
                self.asked.append("metrics")
                return {metric: self.seen[metric.name] for metric in self.spec.metrics}

    def do(self, action: Action) -> None:
        match action:
            case EnsureServices():
                self.services_ok = True
            case EnsureApex():
                self.apex_ok = True
            case SetRouting():
                self.routing = action.routing
            case KeepUntilReverted():
                self.finalizer = True
            case Release():
                self.finalizer = False
            case Revert():
                self.target = replace(self.target, replicas=2)
            case RevertServices():
                self.apex_ok = False
            case CreatePrimary() | PromoteTemplate():
                assert action.revision == self.target.revision
                approved = isinstance(action, PromoteTemplate) or action.approved
                self.primary = Workload(stamp_for(action.revision, self.tracked), 2, READY, approved)
                self.kept = self.primary.revision if approved else self.kept
            case RestorePrimary():
                self.primary = Workload(self.kept, 2, READY)
            case ScaleToZero():
                self.target = replace(self.target, replicas=0)
            case ScaleUp():
                self.target = replace(self.target, replicas=2)

    def delete_target(self) -> None:
        self.target = None

    def edit(self, revision: str) -> None:
        """The user applies another template."""
        self.target = replace(self.target, revision=revision)

    def measure(self, success: float | None = 100.0, duration: float = 12.0, requests: float = 50) -> None:
        self.seen = {SUCCESS_RATE: Measurement(success, requests), DURATION: Measurement(duration, requests)}

    def order(self, verb: str, *, revision: str | None = None, gate: str = "", at: float | None = None) -> None:
        command = Command(revision or self.target.revision, self.now if at is None else at, gate)
        self.commands = replace(self.commands, **{verb: command})

    def line(self) -> tuple[str, int, list[str]]:
        """Tick, and say: (phase, canary weight of the split, event texts)."""
        decision = self.tick()
        return self.status.phase.value, self.routing.canary if self.routing else 0, [event.text for event in decision.events]

    def until(self, *phases: Phase, limit: int = 60) -> None:
        for _ in range(limit):
            if self.status.phase in phases:
                return
            self.tick()
        if self.status.phase in phases:
            return
        raise AssertionError(f"still {self.status.phase} after {limit} ticks, wanted {phases}")

    def texts(self) -> list[str]:
        return [event.text for decision in self.decisions for event in decision.events]


def waiting(text: str = "0 out of 2 new replicas have been updated") -> Readiness:
    return Readiness(False, f"waiting for rollout to finish: {text}")


def stuck() -> Readiness:
    return Readiness(False, 'deployment "podinfo" exceeded its progress deadline', stuck=True)
