"""What a Canary object asks for, typed, with what we cannot honour yet named instead of half-run.

    Canary object -> parse() -> CanarySpec          everything the machine needs, defaults filled in as Flagger does
                             -> .refused non-empty  the machine does nothing but say so

Field names, defaults and meanings: flagger.app/v1beta1.  Later work removes entries from `_refusals`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from control.canary.alerts import AlertRef, parse_alerts
from control.canary.commands import ANNOTATION_CONFIRM, ANNOTATION_MINIMUM_REQUESTS
from control.canary.fields import SpecError, duration, flag, integer, items, mapping, text
from control.canary.hooks import Webhook, parse_webhooks
from control.canary.metric import BUILT_IN, DURATION, SUCCESS_RATE, Metric, parse_metrics
from control.canary.service import SPLIT, ServiceSpec, parse_service

__all__ = ["BUILT_IN", "DURATION", "SUCCESS_RATE", "CanarySpec", "Metric", "SpecError", "duration", "parse"]

GROUP = "flagger.app"
API_VERSION = "flagger.app/v1beta1"
KIND = "Canary"

GATES = ("rollout", "traffic-increase", "promotion")  # webhook types confirm-<gate>, here opened by `meshproxy canary approve`
SELECTOR_LABELS = ("app", "name", "app.kubernetes.io/name")  # Flagger's -selector-labels default, first found wins


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
    mirror_weight: int = 100  # percent of the requests that are copied
    session_affinity: Mapping[str, Any] = field(default_factory=dict)  # as written; {}: none
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
    service: Mapping[str, Any] = field(default_factory=dict)  # spec.service as written, for the routers
    routes: ServiceSpec = field(default_factory=ServiceSpec)  # spec.service and the routing parts of spec.analysis, typed
    target_kind: str = "Deployment"
    autoscaler: Mapping[str, Any] = field(default_factory=dict)  # spec.autoscalerRef as written; {}: none
    revert_on_deletion: bool = False

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
    def full_target(self) -> str:
        """`<target>.<namespace>`, as Flagger's events say it."""
        return f"{self.target}.{self.namespace}"

    @property
    def full_name(self) -> str:
        return f"{self.name}.{self.namespace}"

    @property
    def top_weight(self) -> int:
        """The weight at which a release is complete enough to promote."""
        if self.step_weight <= 0 and self.step_weights:
            return min(100, self.step_weights[-1])
        return self.max_weight

    def next_weight(self, weight: int) -> int:
        """The step after `weight`, 0..100.  With stepWeights a value that is not in the list jumps to 100, as Flagger."""
        if self.step_weight > 0:
            return min(100, weight + self.step_weight)
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
        iterations=integer(analysis.get("iterations"), "spec.analysis.iterations", 0, 0),
        match=tuple(
            mapping(m, f"spec.analysis.match[{i}]") for i, m in enumerate(items(analysis.get("match"), "spec.analysis.match"))
        ),
        mirror=flag(analysis.get("mirror"), "spec.analysis.mirror"),
        mirror_weight=integer(analysis.get("mirrorWeight"), "spec.analysis.mirrorWeight", 100, 0, 100),
        session_affinity=mapping(analysis.get("sessionAffinity"), "spec.analysis.sessionAffinity"),
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
        refused=(*_refusals(spec, target, routes, analysis), *routes.refused),
        ignored=(
            *(("spec.autoscalerRef (replicas are the Deployments' own)",) if spec.get("autoscalerRef") else ()),
            *routes.ignored,
        ),
        service_metadata={role: service[role] for role in ("apex", "primary", "canary") if service.get(role)},
        service=service,
        routes=routes,
        target_kind=str(target.get("kind") or "Deployment"),
        autoscaler=mapping(spec.get("autoscalerRef"), "spec.autoscalerRef"),
        revert_on_deletion=flag(spec.get("revertOnDeletion"), "spec.revertOnDeletion"),
    )


def _refusals(
    spec: Mapping[str, Any], target: Mapping[str, Any], routes: ServiceSpec, analysis: Mapping[str, Any]
) -> list[str]:
    """Each thing this version cannot do, in words for an Event.  Empty: all of the object is honoured."""
    found: list[str] = []
    kind = target.get("kind", "Deployment")
    if kind != "Deployment":
        found.append(f"spec.targetRef.kind {kind} is not supported yet; use a Deployment")
    if routes.kind != SPLIT:
        found.append(f"spec.provider {spec.get('provider')} is not supported yet; leave it out, or use smi:v1alpha2 or linkerd")
    if spec.get("revertOnDeletion"):
        found.append("spec.revertOnDeletion is not supported yet")
    if int(analysis.get("iterations") or 0) > 0:
        found.append("spec.analysis.iterations (A/B and blue/green) is not supported yet; use stepWeight or stepWeights")
    if analysis.get("match"):
        found.append("spec.analysis.match (A/B) is not supported yet")
    if routes.needs_route and not (routes.mirror or routes.affinity or routes.trial):
        found.append("spec.service: match, headers, rewrite, timeout, retries and mirror are not supported yet")
    if analysis.get("mirror"):
        found.append("spec.analysis.mirror is not supported yet")
    if analysis.get("sessionAffinity"):
        found.append("spec.analysis.sessionAffinity is not supported yet")
    if hooks := analysis.get("webhooks"):
        names = ", ".join(str(h.get("name") or h.get("type") or "?") for h in hooks)
        found.append(
            f"spec.analysis.webhooks ({names}) are not supported yet; for manual gates use the annotation {ANNOTATION_CONFIRM}"
        )
    if analysis.get("alerts"):
        found.append("spec.analysis.alerts are not supported yet")
    # Flagger accepts this and then never advances (flagger.md 1.3): say it instead.
    if not (spec.get("skipAnalysis") or analysis.get("stepWeight") or analysis.get("stepWeights") or found):
        found.append("spec.analysis has neither stepWeight nor stepWeights: nothing would ever advance")
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
