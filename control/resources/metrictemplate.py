"""MetricTemplate (flagger.app/v1beta1): its shape, and what the shape cannot say.  `canary.measuring.template` runs it."""

# ruff: noqa: RUF012 - msgspec copies an empty default

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from control.canary.declared.fields import SpecError
from control.canary.measuring.promql import server_url
from control.canary.measuring.template import PROMETHEUS, check_query, parse_template
from control.resources.canary import ObjectRef
from control.resources.core import ObjectMeta
from control.resources.shape import Report, Shape, words
from control.store.store import Object

# Flagger's list.  One that we cannot ask is told by a warning: the object may be there for Flagger's use.
PROVIDERS = words("prometheus influxdb datadog externalmetrics stackdriver cloudwatch newrelic graphite dynatrace keptn splunk")


class Provider(Shape, frozen=True, kw_only=True):
    type: Annotated[str, Meta(min_length=1)]
    address: str = ""
    headers: dict[str, Any] = {}
    secret_ref: ObjectRef | None = None
    region: str = ""
    insecure_skip_verify: bool = False


class TemplateSpec(Shape, frozen=True, kw_only=True):
    provider: Provider
    query: Annotated[str, Meta(min_length=1)]


class TemplateShape(Shape, frozen=True, kw_only=True):
    unread = words("apiVersion kind status")
    metadata: ObjectMeta
    spec: TemplateSpec


def check_template(obj: Object, report: Report) -> None:
    """What the shape cannot say."""
    provider = obj["spec"]["provider"]
    kind = provider["type"]
    if kind not in PROVIDERS:
        report.error(("spec", "provider", "type"), f"found {kind}, expected {PROMETHEUS}")
        return
    if kind != PROMETHEUS:
        report.warning(
            ("spec", "provider", "type"),
            f"{kind} cannot be asked: a Canary that uses it is never promoted",
            f"use {PROMETHEUS}",
        )
        return
    try:
        server_url(provider.get("address") or "", "")
    except SpecError as mistake:
        report.error(("spec", "provider", "address"), str(mistake).removeprefix(": "))
    try:
        check_query(parse_template(obj).query)
    except SpecError as mistake:
        report.error(("spec",), str(mistake))
