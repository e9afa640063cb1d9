"""Canary (flagger.app/v1beta1): every field of Flagger's CRD, typed; durations in seconds through properties.

Fields of other meshes and ingresses are carried untyped: Flagger's objects must be taken as they are.
"""

# ruff: noqa: RUF012 - msgspec copies an empty default

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from control.resources.core import Count, IntOrString, ObjectMeta, PortNumber
from control.resources.documents import Path, without_nulls
from control.resources.quantity import seconds
from control.resources.shape import Report, Shape, words
from control.store.store import Object

GROUP = "flagger.app"
SUCCESS_RATE = "request-success-rate"  # the built-in metric whose threshold is a minimum
VERSIONS = ("v1beta1",)

Percent = Annotated[int, Meta(ge=0, le=100)]
Duration = Annotated[str, Meta(extra={"expected": "a duration such as 10s or 1m"})]


class ObjectRef(Shape, frozen=True, kw_only=True):
    api_version: str = ""
    kind: str = ""
    name: Annotated[str, Meta(min_length=1)]
    namespace: str = ""


class TargetRef(Shape, frozen=True, kw_only=True):
    api_version: str = ""
    kind: Literal["Deployment", "DaemonSet", "Service"]
    name: Annotated[str, Meta(min_length=1)]


class AutoscalerRef(Shape, frozen=True, kw_only=True):
    api_version: str = ""
    kind: Literal["HorizontalPodAutoscaler", "ScaledObject"]
    name: str
    primary_scaler_queries: dict[str, str] = {}
    primary_scaler_replicas: Any = None


class ApexMetadata(Shape, frozen=True, kw_only=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class CanaryService(Shape, frozen=True, kw_only=True):
    unread = words(
        "backends backendTimeout corsPolicy delegation gatewayRefs gateways headers hosts match meshName mirror retries rewrite"
        " timeout trafficDistribution trafficPolicy unmanagedMetadata"
    )
    name: str = ""  # of the apex Service; absent: the target's name
    port: PortNumber
    port_name: str = "http"
    target_port: IntOrString | None = None  # absent: port
    app_protocol: str = ""
    port_discovery: bool = False
    headless: bool = False
    apex: ApexMetadata = ApexMetadata()
    primary: ApexMetadata = ApexMetadata()
    canary: ApexMetadata = ApexMetadata()


class ThresholdRange(Shape, frozen=True, kw_only=True):
    min: float | None = None
    max: float | None = None


class Metric(Shape, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1)]
    interval: Duration = "1m"
    threshold: float | None = None  # deprecated twin of thresholdRange
    threshold_range: ThresholdRange | None = None
    query: str = ""
    template_ref: ObjectRef | None = None
    template_variables: dict[str, str] = {}

    @property
    def interval_seconds(self) -> float:
        return seconds(self.interval)


class Webhook(Shape, frozen=True, kw_only=True):
    unread = words("disableTLS retries")
    name: Annotated[str, Meta(min_length=1)]
    type: Literal[
        "",
        "rollout",
        "pre-rollout",
        "post-rollout",
        "confirm-rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "event",
        "rollback",
    ] = ""
    url: str
    timeout: Duration = "10s"
    mute_alert: bool = False
    metadata: dict[str, str] = {}


class Alert(Shape, frozen=True, kw_only=True):
    name: str
    severity: Literal["", "info", "warn", "error"] = "info"  # "": info too
    provider_ref: ObjectRef


class Analysis(Shape, frozen=True, kw_only=True):
    unread = words("sessionAffinity")
    interval: Duration = "60s"
    threshold: Count = 1  # failed checks before rollback
    max_weight: Percent = 100
    step_weight: Percent = 0
    step_weights: tuple[Percent, ...] = ()
    step_weight_promotion: Percent = 0
    iterations: Count = 0
    match: tuple[dict[str, Any], ...] = ()
    mirror: bool = False
    mirror_weight: Percent = 0
    primary_ready_threshold: Percent = 100
    canary_ready_threshold: Percent = 100
    metrics: tuple[Metric, ...] = ()
    webhooks: tuple[Webhook, ...] = ()
    alerts: tuple[Alert, ...] = ()

    @property
    def interval_seconds(self) -> float:
        return seconds(self.interval)


class CanarySpec(Shape, frozen=True, kw_only=True):
    provider: str = ""
    metrics_server: str = ""
    target_ref: TargetRef
    autoscaler_ref: AutoscalerRef | None = None
    ingress_ref: ObjectRef | None = None
    route_ref: ObjectRef | None = None
    upstream_ref: ObjectRef | None = None
    service: CanaryService
    analysis: Analysis | None = None
    canary_analysis: Analysis | None = None  # deprecated twin of analysis
    progress_deadline_seconds: Count = 600
    skip_analysis: bool = False
    revert_on_deletion: bool = False
    suspend: bool = False


class CanaryShape(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind")
    metadata: ObjectMeta
    spec: CanarySpec
    status: dict[str, Any] = {}


class Canary(CanaryShape, frozen=True):
    """The typed view.  `analysis` is None if there is nothing to analyse (Flagger: promote at once)."""

    @property
    def analysis(self) -> Analysis | None:
        return self.spec.analysis or self.spec.canary_analysis

    @property
    def apex(self) -> str:
        """Name of the Service callers address; `-primary` and `-canary` are appended for the other two."""
        return self.spec.service.name or self.spec.target_ref.name


def parse(obj: Object) -> Canary:
    """The typed view of an accepted object.  Raises msgspec.ValidationError (a ValueError) on one never checked."""
    return msgspec.convert(without_nulls(obj), Canary)


_BY_ROUTE = ("match", "headers", "rewrite", "timeout", "backendTimeout", "retries", "mirror")


def shared_by_split(obj: Object) -> bool:
    """Does a TrafficSplit carry this Canary's weights, rather than an HTTPRoute or nothing?"""
    # By the rules of control/canary/declared/service.py.
    spec = obj["spec"]
    provider, analysis = str(spec.get("provider") or ""), spec.get("analysis") or spec.get("canaryAnalysis") or {}
    if provider == "kubernetes" or provider.startswith("gatewayapi:"):
        return False
    asked = [spec["service"].get(name) for name in _BY_ROUTE] + [analysis.get("mirror"), analysis.get("sessionAffinity")]
    return not any(asked)


def check_canary(obj: Object, report: Report) -> None:
    """What the shape cannot say."""
    spec = obj["spec"]
    _rewrite(spec, report)
    name = "analysis" if spec.get("analysis") is not None else "canaryAnalysis"
    analysis = spec.get(name)
    if analysis is None:
        if not spec.get("skipAnalysis"):
            report.error(("spec", "analysis"), "is missing, expected a map", "or say skipAnalysis: true")
        return
    path: Path = ("spec", name)
    _duration(analysis, "interval", path, report)
    steps = analysis.get("stepWeights") or []
    for index in range(1, len(steps)):
        if steps[index] <= steps[index - 1]:
            report.error(
                (*path, "stepWeights", index), f"found {steps[index]} after {steps[index - 1]}, expected ascending weights"
            )
    chosen = [field for field in ("iterations", "stepWeight", "stepWeights") if analysis.get(field)]
    if not chosen:
        report.error(
            path,
            "none of stepWeight, stepWeights, iterations is given: the release would never advance",
            "e.g. stepWeight: 10; Flagger's CRD wants one of them also where a ReleasePolicy has steps, which then count",
        )
    elif len(chosen) > 1:
        report.warning(
            (*path, chosen[1]),
            f"{' and '.join(chosen)} are given; Flagger's CRD wants one",
            "stepWeight says how far each step goes, the last of stepWeights where they end",
        )
    if "maxWeight" in analysis and steps:
        report.warning((*path, "maxWeight"), "is ignored when stepWeights is given")
    for index, metric in enumerate(analysis.get("metrics") or []):
        where: Path = (*path, "metrics", index)
        _duration(metric, "interval", where, report)
        limits = metric.get("thresholdRange") or {}
        if metric.get("thresholdRange") is not None:
            if limits.get("min") is None and limits.get("max") is None:
                report.warning((*where, "thresholdRange"), "has neither min nor max: every value passes", "give one of them")
        elif metric.get("threshold") is None:  # Flagger: 0, which is a minimum of the success rate and a maximum else
            least = metric["name"] == SUCCESS_RATE and not metric.get("query") and not metric.get("templateRef")
            means = (
                "at least 0 is wanted, so every value passes" if least else "at most 0 is wanted, so every value above 0 fails"
            )
            report.warning(where, f"has no threshold: {means}", "give thresholdRange with min or max")
        if limits.get("min") is not None and limits.get("max") is not None and limits["min"] > limits["max"]:
            report.error((*where, "thresholdRange"), f"min {limits['min']} is above max {limits['max']}")
    for index, hook in enumerate(analysis.get("webhooks") or []):
        if len(hook.get("timeout") or "") > 1 and hook["timeout"] not in ("0s", "0m"):  # Flagger: its default, and no limit
            _duration(hook, "timeout", (*path, "webhooks", index), report)


def _rewrite(spec: Object, report: Report) -> None:
    """Written for Istio, `rewrite: {uri: /}` changes nothing; Flagger's Gateway API router makes / of every path."""
    rewrite, match = spec["service"].get("rewrite"), spec["service"].get("match")
    if not str(spec.get("provider") or "").startswith("gatewayapi:") or not isinstance(rewrite, dict):
        return
    if rewrite.get("type") or rewrite.get("uri") != "/":
        return
    paths = [one.get("uri") for one in match if isinstance(one, dict)] if isinstance(match, list) and match else [None]
    if any(not path or (isinstance(path, dict) and path.get("prefix")) for path in paths):
        report.warning(
            ("spec", "service", "rewrite", "uri"),
            "makes / of every path: with this provider the whole path is replaced",
            "leave it out, or say type: ReplacePrefixMatch, or ReplaceFullPath if it is meant",
        )


def _duration(holder: Object, field: str, path: Path, report: Report) -> None:
    value = holder.get(field)
    if value is None:
        return
    try:
        if seconds(value) <= 0:
            report.error((*path, field), f"found {value}, expected more than 0")
    except ValueError as mistake:
        report.error((*path, field), f"found {mistake}")
