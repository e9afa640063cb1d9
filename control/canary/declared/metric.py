"""What a release is judged by: one entry of analysis.metrics, as the checks it asks for.

    spec.analysis.metrics -> parse_metrics() -> built-in and inline ones in list order, then those of templates in list order

That is Flagger's order of checking.  An entry may ask for more than one check there (a built-in name with a `query`, or with a
`templateRef`, is both); here each is a Metric of its own, so that a measurement belongs to exactly one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from control.canary.declared.fields import SpecError, duration, items, mapping, number, pairs, text

SUCCESS_RATE = "request-success-rate"  # percent; `threshold` is a minimum
DURATION = "request-duration"  # p99 in milliseconds; `threshold` is a maximum
BUILT_IN = (SUCCESS_RATE, DURATION)

DEFAULT_INTERVAL_S = 60.0  # Flagger's "1m"
MAX_METRICS = 64  # of one Canary: each is a query a tick
MAX_QUERY = 16 << 10  # characters: it travels in a URL


class Kind(Enum):
    BUILT_IN = "built-in"
    QUERY = "query"  # PromQL in the Canary itself; deprecated in Flagger, still run
    TEMPLATE = "template"  # a MetricTemplate


@dataclass(frozen=True, slots=True)
class Metric:
    """One thing to measure, and what is allowed.  `minimum`/`maximum` are in the metric's own unit (percent, ms, a query's).

    `interval_s`: the window that is looked at.  `template`: (namespace, name) of a MetricTemplate.  `variables`: what a
    template may ask for as `{{ variables.name }}`.  At most one of `query` and `template` is given; neither: a built-in."""

    name: str
    interval_s: float = DEFAULT_INTERVAL_S
    minimum: float | None = None
    maximum: float | None = None
    query: str = ""
    template: tuple[str, str] | None = None
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def kind(self) -> Kind:
        if self.template is not None:
            return Kind.TEMPLATE
        return Kind.QUERY if self.query else Kind.BUILT_IN


def parse_metrics(value: object, where: str, namespace: str) -> tuple[Metric, ...]:
    """All checks a list of metrics asks for, in the order they are made.  `namespace`: the Canary's.  Raises SpecError."""
    entries = items(value, where)
    if len(entries) > MAX_METRICS:
        raise SpecError(f"{where}: expected at most {MAX_METRICS} metrics, found {len(entries)}")
    found = [m for i, entry in enumerate(entries) for m in _parse(mapping(entry, f"{where}[{i}]"), f"{where}[{i}]", namespace)]
    return tuple(sorted(found, key=lambda metric: metric.kind is Kind.TEMPLATE))  # sorted() keeps the order of equals


def _parse(entry: Mapping[str, Any], where: str, namespace: str) -> list[Metric]:
    name = text(entry.get("name"), f"{where}.name")
    interval_s = duration(entry.get("interval"), f"{where}.interval", DEFAULT_INTERVAL_S)
    if interval_s <= 0:
        raise SpecError(f"{where}.interval: expected more than 0, found {entry.get('interval')!r}")
    variables = pairs(entry.get("templateVariables"), f"{where}.templateVariables")
    found: list[Metric] = []
    if name in BUILT_IN:
        found.append(Metric(name, interval_s, *_limits(entry, where, name)))
    if query := entry.get("query"):
        if len(text(query, f"{where}.query")) > MAX_QUERY:
            raise SpecError(f"{where}.query: expected at most {MAX_QUERY} characters, found {len(query)}")
        limits = _limits(entry, where, "")
        found.append(Metric(name, interval_s, *limits, query=query, variables=variables))
    if ref := mapping(entry.get("templateRef"), f"{where}.templateRef"):
        named = text(ref.get("name"), f"{where}.templateRef.name")
        template = (ref.get("namespace") or namespace, named)
        found.append(Metric(name, interval_s, *_limits(entry, where, ""), template=template, variables=variables))
    if not found:
        expected = " or ".join(BUILT_IN)
        raise SpecError(f"{where}: {name!r} is not a built-in metric; expected {expected}, or a query, or a templateRef")
    return found


def _limits(entry: Mapping[str, Any], where: str, built_in: str) -> tuple[float | None, float | None]:
    """(minimum, maximum).  Flagger keeps whole milliseconds of a duration, and a threshold that is absent is 0."""
    bounds = entry.get("thresholdRange")
    if bounds is None:
        limit = number(entry.get("threshold"), f"{where}.threshold") or 0.0
        if built_in == SUCCESS_RATE:
            return limit, None
        return None, float(int(limit)) if built_in == DURATION else limit
    bounds = mapping(bounds, f"{where}.thresholdRange")
    minimum = number(bounds.get("min"), f"{where}.thresholdRange.min")
    maximum = number(bounds.get("max"), f"{where}.thresholdRange.max")
    if built_in == DURATION:
        minimum, maximum = (None if limit is None else float(int(limit)) for limit in (minimum, maximum))
    return minimum, maximum
