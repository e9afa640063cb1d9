"""What a Canary object asks for, typed, with what we cannot honour yet named instead of half-run.

    Canary object -> parse() -> CanarySpec          everything the machine needs, defaults filled in as Flagger does
                             -> .refused non-empty  the machine does nothing but say so

Field names, defaults and meanings: flagger.app/v1beta1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from control.canary.declared.alerts import AlertRef, parse_alerts
from control.canary.declared.commands import ANNOTATION_CONFIRM, ANNOTATION_MINIMUM_REQUESTS
from control.canary.declared.fields import SpecError, duration, flag, integer, items, mapping, text
from control.canary.declared.hooks import Webhook, parse_webhooks
from control.canary.declared.metric import BUILT_IN, DURATION, SUCCESS_RATE, Metric, parse_metrics
from control.canary.declared.service import NONE, ServiceSpec, parse_service

__all__ = ["BUILT_IN", "DURATION", "SUCCESS_RATE", "CanarySpec", "Metric", "SpecError", "duration", "parse"]

GROUP = "flagger.app"
API_VERSION = "flagger.app/v1beta1"
KIND = "Canary"

GATES = ("rollout", "traffic-increase", "promotion")  # webhook types confirm-<gate>, here opened by `meshproxy canary approve`
KUBERNETES_ITERATIONS = 10  # of provider kubernetes, when the Canary says no number (Flagger's)
SELECTOR_LABELS = ("app", "name", "app.kubernetes.io/name")  # Flagger's -selector-labels default, first found wins


@dataclass(frozen=True, slots=True)
class Flags:
    """What the control plane is started with and holds for all its Canaries."""

    selector_labels: tuple[str, ...] = SELECTOR_LABELS  # that may tell target from primary, first found wins
    label_prefixes: tuple[str, ...] = ()  # of the target's labels and annotations that the primary has too; "*": all
    tracks_configs: bool = True  # is a changed ConfigMap or Secret a release, and has the primary copies of its own?


NO_FLAGS = Flags()


@dataclass(frozen=True, slots=True)
class CanarySpec:
    """A Canary object with its defaults.  `apex`, `primary_service` and `canary_service` are Service names."""

    namespace: str
    name: str
    uid: str
    target: str  # Deployment
    apex: str
    port: int
    port_name: str = "http"
    target_port: int | str = 0  # 0: the same as `port`
    app_protocol: str = ""
    port_discovery: bool = False
    interval_s: float = 60.0
    threshold: int = 1
    max_weight: int = 100
    step_weight: int = 0
    step_weights: tuple[int, ...] = ()
    step_weight_promotion: int = 0
    metrics: tuple[Metric, ...] = ()
    iterations: int = 0  # > 0: blue/green, with `match` A/B
    match: tuple[Mapping[str, Any], ...] = ()  # analysis.match as written: whose requests see the canary
    mirror: bool = False
    webhooks: tuple[Webhook, ...] = ()
    alerts: tuple[AlertRef, ...] = ()
    provider: str = ""  # spec.provider, as written
    metrics_server: str = ""  # spec.metricsServer: URL of the Prometheus that answers built-in metrics and inline queries
    progress_deadline_s: float = 600.0
    primary_ready_threshold: int = 100  # percent of updated replicas that must be available
    canary_ready_threshold: int = 100
    skip_analysis: bool = False
    suspend: bool = False
    minimum_requests: int = 1  # fewer in the window is "no data"; annotation meshproxy.dev/minimum-requests
    gates: frozenset[str] = frozenset()  # of GATES; annotation meshproxy.dev/confirm
    refused: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    service_metadata: Mapping[str, Any] = field(default_factory=dict)  # {"apex"|"primary"|"canary": {labels, annotations}}
    routes: ServiceSpec = field(default_factory=ServiceSpec)  # spec.service and the routing parts of spec.analysis, typed
    target_kind: str = "Deployment"
    autoscaler: Mapping[str, Any] = field(default_factory=dict)  # spec.autoscalerRef as written; {}: none
    revert_on_deletion: bool = False
    flags: Flags = NO_FLAGS  # not the object's: the control plane's

    @property
    def primary(self) -> str:
        return f"{self.target}-primary"

    @property
    def primary_service(self) -> str:
        return f"{self.apex}-primary"

    @property
    def canary_service(self) -> str:
        return f"{self.apex}-canary"

    @property
    def baseline(self) -> str:
        return f"{self.target}-baseline"

    @property
    def baseline_service(self) -> str:
        return f"{self.apex}-baseline"

    @property
    def full_target(self) -> str:
        """`<target>.<namespace>`, as Flagger's events say it."""
        return f"{self.target}.{self.namespace}"

    @property
    def full_name(self) -> str:
        return f"{self.name}.{self.namespace}"

    @property
    def routed(self) -> bool:
        """Do objects share requests out?  Not with provider kubernetes."""
        return self.routes.kind != NONE

    @property
    def top_weight(self) -> int:
        """The weight at which a release is complete enough to promote: the last of stepWeights where there are any, also
        where stepWeight says how to get there."""
        if self.step_weights:
            return min(100, self.step_weights[-1])
        return self.max_weight

    def next_weight(self, weight: float) -> int:
        """The step after `weight`, 0..100.  With stepWeights a value that is not in the list jumps to 100, as Flagger."""
        if self.step_weight > 0:
            return min(100, int(weight) + self.step_weight)
        if weight == 0:
            return min(100, self.step_weights[0])
        for here, after in zip(self.step_weights, self.step_weights[1:], strict=False):
            if here == weight:
                return min(100, after)
        return 100


def parse(obj: Mapping[str, Any]) -> CanarySpec:
    """The typed form of a Canary object.  Raises SpecError on the first value that cannot be meant."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    spec = mapping(obj.get("spec"), "spec")
    target = mapping(spec.get("targetRef"), "spec.targetRef")
    service = mapping(spec.get("service"), "spec.service")
    analysis = mapping(spec.get("analysis") or spec.get("canaryAnalysis"), "spec.analysis")
    target_name = text(target.get("name"), "spec.targetRef.name")
    max_weight = integer(analysis.get("maxWeight"), "spec.analysis.maxWeight", 100, 0, 100)
    routes = parse_service(spec)
    matches = items(analysis.get("match"), "spec.analysis.match")
    iterations = integer(analysis.get("iterations"), "spec.analysis.iterations", 0, 0)
    if routes.kind == NONE:  # Flagger's rule: what cannot be routed is blue/green, and nobody is chosen by a header
        iterations, matches = iterations or KUBERNETES_ITERATIONS, []
    return CanarySpec(
        namespace=metadata.get("namespace") or "default",
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        target=target_name,
        apex=service.get("name") or target_name,
        port=integer(service.get("port"), "spec.service.port", None, 1, 65535),
        port_name=service.get("portName") or "http",
        target_port=service.get("targetPort") or 0,
        app_protocol=service.get("appProtocol") or "",
        port_discovery=bool(service.get("portDiscovery")),
        interval_s=duration(analysis.get("interval"), "spec.analysis.interval", 60.0),
        threshold=integer(analysis.get("threshold"), "spec.analysis.threshold", 1, 0) or 1,
        max_weight=max_weight or 100,
        step_weight=integer(analysis.get("stepWeight"), "spec.analysis.stepWeight", 0, 0, 100),
        step_weights=_steps(analysis.get("stepWeights")),
        step_weight_promotion=integer(analysis.get("stepWeightPromotion"), "spec.analysis.stepWeightPromotion", 0, 0, 100),
        iterations=iterations,
        match=tuple(mapping(one, f"spec.analysis.match[{index}]") for index, one in enumerate(matches)),
        mirror=routes.mirror,
        webhooks=parse_webhooks(analysis.get("webhooks")),
        alerts=parse_alerts(analysis.get("alerts"), metadata.get("namespace") or "default"),
        provider=str(spec.get("provider") or ""),
        metrics_server=str(spec.get("metricsServer") or ""),
        metrics=parse_metrics(analysis.get("metrics"), "spec.analysis.metrics", metadata.get("namespace") or "default"),
        progress_deadline_s=float(integer(spec.get("progressDeadlineSeconds"), "spec.progressDeadlineSeconds", 600, 1)),
        primary_ready_threshold=integer(
            analysis.get("primaryReadyThreshold"), "spec.analysis.primaryReadyThreshold", 100, 0, 100
        ),
        canary_ready_threshold=integer(analysis.get("canaryReadyThreshold"), "spec.analysis.canaryReadyThreshold", 100, 0, 100),
        skip_analysis=bool(spec.get("skipAnalysis")),
        suspend=bool(spec.get("suspend")),
        minimum_requests=_minimum_requests(annotations),
        gates=_gates(annotations),
        refused=(*_refusals(spec, target, analysis, iterations), *routes.refused),
        ignored=(*_ignored(spec, analysis, routes), *routes.ignored),
        service_metadata={role: service[role] for role in ("apex", "primary", "canary") if service.get(role)},
        routes=routes,
        target_kind=str(target.get("kind") or "Deployment"),
        autoscaler=mapping(spec.get("autoscalerRef"), "spec.autoscalerRef"),
        revert_on_deletion=flag(spec.get("revertOnDeletion"), "spec.revertOnDeletion"),
    )


def _refusals(spec: Mapping[str, Any], target: Mapping[str, Any], analysis: Mapping[str, Any], iterations: int) -> list[str]:
    """Each thing this version cannot do, in words for an Event.  Empty: all of the object is honoured."""
    found: list[str] = []
    kind = target.get("kind") or "Deployment"
    if kind == "Service":
        found.append(
            "spec.targetRef.kind Service is not supported: what it selects cannot be copied for the primary, nor told apart "
            "in metrics; name the Deployment or DaemonSet behind it"
        )
    elif kind not in ("Deployment", "DaemonSet"):
        found.append(f"spec.targetRef.kind {kind} is not supported; use a Deployment or a DaemonSet")
    # Flagger accepts this and then never advances (flagger.md 1.3): say it instead.
    if not (spec.get("skipAnalysis") or analysis.get("stepWeight") or analysis.get("stepWeights") or iterations):
        found.append("spec.analysis has neither stepWeight nor stepWeights nor iterations: nothing would ever advance")
    return found


def _ignored(spec: Mapping[str, Any], analysis: Mapping[str, Any], routes: ServiceSpec) -> list[str]:
    """What is taken and has no effect, in words for an Event."""
    found: list[str] = []
    if routes.kind == NONE and not analysis.get("iterations"):
        found.append(
            f"spec.analysis: weights, as provider kubernetes routes no requests: iterations is {KUBERNETES_ITERATIONS}"
        )
    return found


def _minimum_requests(annotations: Mapping[str, str]) -> int:
    text = annotations.get(ANNOTATION_MINIMUM_REQUESTS, "1")
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise SpecError(f"metadata.annotations[{ANNOTATION_MINIMUM_REQUESTS}]: {text!r}; expected a whole number from 1")
    return int(text)


def _gates(annotations: Mapping[str, str]) -> frozenset[str]:
    names = [part.strip() for part in annotations.get(ANNOTATION_CONFIRM, "").split(",") if part.strip()]
    for name in names:
        if name not in GATES:
            raise SpecError(f"metadata.annotations[{ANNOTATION_CONFIRM}]: {name!r} is no gate; expected {', '.join(GATES)}")
    return frozenset(names)


def _steps(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    where = "spec.analysis.stepWeights"
    if not isinstance(value, list):
        raise SpecError(f"{where}: expected a list of weights, found {value!r}")
    steps = tuple(integer(step, f"{where}[{i}]", None, 1, 100) for i, step in enumerate(value))
    if list(steps) != sorted(set(steps)):
        raise SpecError(f"{where}: {list(steps)} must rise from step to step")
    return steps
