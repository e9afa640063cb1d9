"""Who is around a release in a simulation: webhooks, the metric source, pods that become ready, a store that tells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from control.canary.declared.commands import to_rfc3339
from control.canary.declared.hooks import HookResult, Webhook
from control.canary.declared.metric import Kind
from control.canary.evidence.arms import ArmCounts
from control.canary.machine.analysis import Measurement
from control.canary.measuring.source import Arms, MetricSource, Query, Subject
from control.canary.objects.workloads import DAEMON_SET, replicas
from control.canary.simulate.given import Given
from control.canary.simulate.model import GOOD_LATENCY, Traffic, latency, measure
from control.canary.simulate.timeline import Said, Seen
from control.canary.telling.hook_client import HookClient
from control.store.files import FileStore
from control.store.store import Key, Object

NODES = 3  # of a simulated cluster: pods of a DaemonSet


class Answers(HookClient):
    """Webhooks say yes, except those that are denied; a rollback hook says no, for its yes is a rollback."""

    def __init__(self, denied: dict[str, int | None]) -> None:
        self._denied = denied
        self.said: list[tuple[str, Said]] = []

    async def call(self, hook: Webhook, body: Mapping[str, Any]) -> HookResult:
        named = next((name for name in (hook.name, hook.type) if name in self._denied), "")
        ok = not self.denies(named) if named else hook.type != "rollback"
        if hook.type == "rollback" and named:
            ok = not ok  # "denied" a release, that is: told to roll back
        bad = ok if hook.type == "rollback" else not ok
        answer = f"webhook {hook.name}: {'yes' if ok else 'no'}{', roll back' if bad and ok else ''}"
        self.said.append((f"{body.get('name')}.{body.get('namespace')}", Said(bad, answer)))
        return HookResult(ok, "" if ok else "denied (simulated)")

    def denies(self, name: str) -> bool:
        """Is this one still refused?  Each refusal is counted."""
        left = self._denied.get(name, 0)
        if left is None:
            return True
        self._denied[name] = max(0, left - 1)
        return left > 0

    async def close(self) -> None:
        pass


class TellingStore(FileStore):
    """Remembers events as they are told: the store itself joins equal ones."""

    told: list[tuple[str, Said]]

    async def event(self, about: Key, kind: str, reason: str, message: str) -> None:
        self.told.append((f"{about.name}.{about.namespace}", Said(kind == "Warning", message)))
        await super().event(about, kind, reason, message)


@dataclass(slots=True)
class _Arm:
    """What it answered so far: expectations, so not whole numbers."""

    requests: float = 0.0
    failed: float = 0.0
    latency: dict[float, float] = field(default_factory=dict)  # upper bound in ms -> successes in just this bucket

    def served(self, requests: float, failed: float, took: Iterable[tuple[float, float]]) -> None:
        """`failed`: share of them."""
        self.requests += requests
        self.failed += requests * failed
        for bound, share in took:
            self.latency[bound] = self.latency.get(bound, 0.0) + requests * (1.0 - failed) * share

    def counts(self, epoch: float) -> ArmCounts:
        histogram = tuple((bound, round(count)) for bound, count in sorted(self.latency.items()))
        return ArmCounts(round(self.requests) - round(self.failed), round(self.failed), histogram, epoch)


class ModelledSource(MetricSource):
    """Asked by the controller; answers by the model or the recording."""

    def __init__(
        self,
        given: Given,
        clock: Callable[[], float],
        traffic: Callable[[Subject], Traffic],
        templates: Callable[[], Collection[tuple[str, str]]],
    ) -> None:
        self._given = given
        self._traffic = traffic
        self._templates = templates
        self._clock = clock
        self._totals: dict[str, tuple[float, tuple[_Arm, _Arm, _Arm]]] = {}  # since when; canary, primary, baseline
        self._looked: dict[str, float] = {}
        self.seen: list[tuple[str, Seen]] = []

    async def measure(self, query: Query) -> Measurement:
        measured = self._answer(query)
        metric, subject = query.metric, query.subject
        seen = Seen(metric.name, measured.value, measured.requests, metric.minimum, metric.maximum, measured.reason)
        self.seen.append((f"{subject.canary}.{subject.namespace}", seen))
        return measured

    async def counts(self, subject: Subject) -> Arms | None:
        """Adds up the traffic since the last look, at the weight that was in force."""
        if self._given.recording is not None:
            return None
        now, traffic = self._clock(), self._traffic(subject)
        faults = [fault for name, fault in self._given.faults if name in ("", subject.canary)]
        faults = [fault for fault in faults if fault.applies(traffic.elapsed_s, traffic.weight)]
        if any(fault.kind == "down" for fault in faults):
            return None
        name = f"{subject.canary}.{subject.namespace}"
        begun, arms = self._totals.setdefault(name, (now, (_Arm(), _Arm(), _Arm())))
        passed = now - self._looked.get(name, now)
        self._looked[name] = now
        rate = 0.0 if any(fault.kind == "silent" for fault in faults) else traffic.rate
        share = max((fault.value or 0.0 for fault in faults if fault.kind == "errors"), default=0.0)
        canary, primary, baseline = arms
        canary.served(rate * passed, share, latency(faults))
        primary.served(max(0.0, self._given.rate - traffic.rate - traffic.baseline_rate) * passed, 0.0, GOOD_LATENCY)
        baseline.served(traffic.baseline_rate * passed, 0.0, GOOD_LATENCY)
        return Arms(canary.counts(begun), primary.counts(begun), baseline.counts(begun))

    def _answer(self, query: Query) -> Measurement:
        metric, subject = query.metric, query.subject
        if metric.kind is Kind.TEMPLATE and metric.template not in self._templates():
            namespace, name = metric.template or ("", "")
            return Measurement(error=True, reason=f"MetricTemplate {name}.{namespace} is not among the manifests")
        traffic = self._traffic(subject)
        if self._given.recording is not None:
            return self._given.recording.measure(metric, traffic.elapsed_s)
        faults = [fault for name, fault in self._given.faults if name in ("", subject.canary)]
        if query.of_primary:  # it runs the new revision by then, and has the faults of that from a weight of its own on
            weight = 100.0 - traffic.weight
            traffic = replace(traffic, rate=self._given.rate * weight / 100, weight=weight)
        return measure(metric, faults, traffic)


def rolled_out(workload: Object, now: float, *, ready: bool, since: float) -> Object:
    """The status of a workload that reached what it asks for at once; not `ready`: its pods never become available."""
    if workload["kind"] == DAEMON_SET:
        return _daemon_set(workload, ready=ready)
    return _deployment(workload, now, ready=ready, since=since)


def _daemon_set(workload: Object, *, ready: bool) -> Object:
    count = NODES if replicas(workload) else 0
    numbers = {"desiredNumberScheduled": count, "updatedNumberScheduled": count, "numberAvailable": count if ready else 0}
    return {"observedGeneration": workload["metadata"]["generation"], **numbers}


def _deployment(deployment: Object, now: float, *, ready: bool, since: float) -> Object:
    count = deployment["spec"].get("replicas", 1)
    available = count if ready else 0
    word = ("True", "MinimumReplicasAvailable") if ready else ("False", "MinimumReplicasUnavailable")
    moment = to_rfc3339(now if ready else since)
    conditions = [
        {"type": "Available", "status": word[0], "reason": word[1], "lastUpdateTime": moment, "lastTransitionTime": moment}
    ]
    if not ready:
        deadline = float(deployment["spec"].get("progressDeadlineSeconds", 600))
        over = now - since > deadline
        reason = "ProgressDeadlineExceeded" if over else "ReplicaSetUpdated"
        conditions.append(
            {"type": "Progressing", "status": "False" if over else "True", "reason": reason, "lastUpdateTime": moment}
        )
    else:
        old = {c.get("type"): c for c in (deployment.get("status") or {}).get("conditions") or ()}
        if (before := old.get("Available")) and before.get("status") == "True":
            conditions = [before]
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": count,
        "updatedReplicas": count,
        "readyReplicas": available,
        "availableReplicas": available,
        "conditions": conditions,
    }
