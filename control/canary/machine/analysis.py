"""Is the canary good enough?  Measurements against the thresholds of its metrics; pure.

    metrics of the spec, in their order  x  measurements  ->  the checks made, up to and with the first that failed

No data is a failed check: a release that nobody uses, or that nobody can measure, is not known to be good.  The one
exception is a source that has only just begun to look ("warming"): that is our ignorance, not the canary's silence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from control.canary.declared.metric import DURATION, SUCCESS_RATE, Kind, Metric
from control.canary.declared.spec import CanarySpec


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    WARMING = "warming"  # neither: do not advance, do not count


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a source saw for one metric.  `value` in the metric's unit; None is "no data", with the reason."""

    value: float | None = None
    requests: float | None = None  # how many requests it is made of; None: the source cannot say
    reason: str = ""
    warming: bool = False  # no value because the source began less than a window ago
    error: bool = False  # no value because the source failed
    provider: str = ""  # of an error: what was asked ("Prometheus"), "" for the mesh's own numbers


NOT_MEASURED = Measurement(reason="it was not measured")


@dataclass(frozen=True, slots=True)
class Check:
    """One metric looked at once: what was seen, what was allowed, and the Event text if it failed."""

    metric: str
    outcome: Outcome
    value: float | None
    requests: float | None
    minimum: float | None
    maximum: float | None
    text: str = ""
    too_few: bool = False  # it failed for want of requests: the source knows that there were not enough


@dataclass(frozen=True, slots=True)
class Verdict:
    outcome: Outcome
    checks: tuple[Check, ...]

    @property
    def too_few(self) -> bool:
        """Did it fail for nothing but want of requests?"""
        return bool(self.checks) and self.outcome is Outcome.FAILED and self.checks[-1].too_few

    @property
    def why(self) -> str:
        """The same, without what an Event begins with."""
        return self.text.removeprefix("Halt ").partition("advancement ")[2].strip() or self.text

    @property
    def text(self) -> str:
        """The Event text of the check that decided, "" if all passed."""
        return self.checks[-1].text if self.checks else ""


def analyse(
    spec: CanarySpec,
    measurements: Mapping[Metric, Measurement],
    besides: Sequence[Metric] = (),
    *,
    built_in: bool = True,
) -> Verdict:
    """Check every metric of the spec in list order, then those besides; stop at the first that does not pass.  `built_in`
    False: without the built-in ones of the spec, which evidence judges instead; those besides are asked for beside it."""
    checks: list[Check] = []
    held = [metric for metric in spec.metrics if built_in or metric.kind is not Kind.BUILT_IN]
    for metric in (*held, *besides):
        check = _check(spec, metric, measurements.get(metric, NOT_MEASURED))
        checks.append(check)
        if check.outcome is not Outcome.PASSED:
            return Verdict(check.outcome, tuple(checks))
    return Verdict(Outcome.PASSED, tuple(checks))


def _check(spec: CanarySpec, metric: Metric, seen: Measurement) -> Check:
    few = seen.requests is not None and seen.requests < spec.minimum_requests

    def result(outcome: Outcome, text: str = "", *, too_few: bool = False) -> Check:
        return Check(metric.name, outcome, seen.value, seen.requests, metric.minimum, metric.maximum, text, too_few)

    if seen.warming:
        return result(Outcome.WARMING, f"Halt {spec.full_name} advancement: {seen.reason or 'the metric source is starting'}")
    if seen.error:
        return result(Outcome.FAILED, _failed(metric, seen))
    if seen.value is None or seen.value != seen.value:  # NaN: 0 of 0
        return result(Outcome.FAILED, f"{_silent(spec, metric)}: {seen.reason or 'no values found'}", too_few=few)
    if math.isinf(seen.value):
        return result(Outcome.FAILED, f"{_silent(spec, metric)}: the value is infinite")
    if few:
        text = f"{seen.requests:.0f} requests, fewer than the minimum of {spec.minimum_requests}"
        return result(Outcome.FAILED, f"{_silent(spec, metric)}: {text}", too_few=True)
    # Flagger truncates durations to whole ms
    value = float(int(seen.value)) if metric.name == DURATION and metric.kind is Kind.BUILT_IN else seen.value
    if metric.minimum is not None and value < metric.minimum:
        return result(Outcome.FAILED, _halt(spec, metric, value, "<", metric.minimum))
    if metric.maximum is not None and value > metric.maximum:
        return result(Outcome.FAILED, _halt(spec, metric, value, ">", metric.maximum))
    return result(Outcome.PASSED)


def _silent(spec: CanarySpec, metric: Metric) -> str:
    match metric.kind:
        case Kind.QUERY:
            return f"Halt advancement no values found for metric: {metric.name}"
        case Kind.TEMPLATE:
            return f"Halt advancement no values found for custom metric: {metric.name}"
    return (
        f"Halt advancement no values found for mesh metric {metric.name} probably {spec.full_target} is not receiving traffic"
    )


def _failed(metric: Metric, seen: Measurement) -> str:
    if seen.provider and metric.kind is not Kind.TEMPLATE:
        return f"{seen.provider} query failed{f' for {metric.name}' if metric.kind is Kind.QUERY else ''}: {seen.reason}"
    return f"Metric query failed for {metric.name}: {seen.reason}"


def _halt(spec: CanarySpec, metric: Metric, value: float, sign: str, limit: float) -> str:
    if metric.kind is not Kind.BUILT_IN:
        return f"Halt {spec.full_name} advancement {metric.name} {value:.2f} {sign} {plain(limit)}"
    if metric.name == SUCCESS_RATE:
        return f"Halt {spec.full_name} advancement success rate {value:.2f}% {sign} {plain(limit)}%"
    return f"Halt {spec.full_name} advancement request duration {go_duration(value)} {sign} {go_duration(limit)}"


def plain(value: float) -> str:
    """A number as Go's %v prints it: no trailing zeros."""
    return f"{value:g}"


def go_duration(ms: float) -> str:
    """Milliseconds as Go's time.Duration prints them: 500ms, 1.2s, 1m30s."""
    ms = int(ms)
    if ms == 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return seconds
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{seconds}"
