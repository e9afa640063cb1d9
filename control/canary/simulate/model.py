"""What the metrics say in a simulation: a good canary, one with faults, or what was recorded.

    good          every metric well within its limits
    errors:5%     5 % of the canary's requests fail                       slow:900ms   its p99 (slow alone: twice the limit)
    bad:NAME      a custom metric beyond its limit                         NAME:12.5    a metric that says just that
    silent        the canary has no requests                               down         the metric source does not answer
    unready       its pods never become ready

    ... @2m       from two minutes after the first weight on              ... @20%     from a weight of 20 % on

Values are what is to be expected, without chance: a simulation says the same each time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from control.canary.declared.fields import SpecError, duration
from control.canary.declared.metric import DURATION, SUCCESS_RATE, Metric
from control.canary.machine.analysis import Measurement

DEFAULT_SLOW_FACTOR = 2.0  # of the limit, for "slow" without a number
GOOD_DURATION_MS = 25.0  # or half the limit, where that is less
# Upper bound in ms -> share of an arm's successes below it and above the bound before; a step beyond the p50, p90 and p99, so
# that these are bounds whatever is rounded.  The p99 is GOOD_DURATION_MS.
GOOD_LATENCY = ((10.0, 0.55), (15.0, 0.37), (25.0, 0.075), (50.0, 0.005))

KINDS = ("good", "errors", "slow", "bad", "silent", "down", "unready")
_FORM = re.compile(r"(?P<name>[^:@\s]+)(?::(?P<value>[^@\s]+))?(?:@(?P<since>\S+))?\Z")


class ScenarioError(ValueError):
    """A scenario that cannot be read; `str()` says what was expected."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind`: of KINDS, or "metric".  `value`: share of failures, ms, or the metric's own unit."""

    kind: str
    value: float | None = None
    metric: str = ""
    after_s: float = 0.0  # since the first weight
    from_weight: float = 0.0  # percent

    def applies(self, elapsed_s: float, weight: float) -> bool:
        return elapsed_s >= self.after_s and weight >= self.from_weight


def parse_scenario(text: str) -> Fault:
    """One of the module's examples.  Raises ScenarioError."""
    match = _FORM.match(text)
    if match is None:
        raise ScenarioError(f"{text!r}: expected for instance good, errors:5%, slow:900ms, silent, down, bad:NAME, NAME:12.5")
    name, value, since = match.group("name"), match.group("value"), match.group("since") or ""
    after_s, from_weight = _since(text, since)

    def fault(kind: str, number: float | None = None, metric: str = "") -> Fault:
        return Fault(kind, number, metric, after_s, from_weight)

    match name:
        case "errors":
            return fault("errors", _percent(text, value))
        case "slow":
            return fault("slow", _duration(text, value) * 1000 if value else None)
        case "bad":
            if not value:
                raise ScenarioError(f"{text!r}: expected the name of a metric, for instance bad:error-rate")
            return fault("bad", metric=value)
        case "good" | "silent" | "down" | "unready":
            if value:
                raise ScenarioError(f"{text!r}: {name} takes no value")
            return fault(name)
    near = difflib.get_close_matches(name, KINDS, n=1)
    if value is None or (near and not _is_number(value)):
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ScenarioError(f"{text!r}: no such scenario; expected {', '.join(KINDS)}, or METRIC:VALUE{hint}")
    return fault("metric", _number(text, value), name)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _since(text: str, since: str) -> tuple[float, float]:
    if since.endswith("%"):
        return 0.0, _percent(text, since) * 100
    return (_duration(text, since) if since else 0.0), 0.0


def _percent(text: str, value: str | None) -> float:
    number = _number(text, (value or "").removesuffix("%"))
    if not 0 <= number <= 100:
        raise ScenarioError(f"{text!r}: expected a percentage from 0 to 100")
    return number / 100


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ScenarioError(f"{text!r}: found {value!r}, expected a number") from None
    if not abs(number) < 1e15:
        raise ScenarioError(f"{text!r}: found {value!r}, expected a finite number")
    return number


def _duration(text: str, value: str) -> float:
    try:
        return duration(value, repr(text), 0.0)
    except SpecError as error:
        raise ScenarioError(str(error)) from None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one release at one moment.  `rate`: requests a second that reach the canary; `weight`: percent, for `@20%`;
    `elapsed_s`: since the first weight."""

    rate: float
    weight: float
    elapsed_s: float
    baseline_rate: float = 0.0  # requests a second that reach its baseline (baseline.py)


def measure(metric: Metric, faults: Sequence[Fault], traffic: Traffic) -> Measurement:
    """What the source of this metric would say.  The last fault that applies to it wins."""
    at_work = [fault for fault in faults if fault.applies(traffic.elapsed_s, traffic.weight)]
    if any(fault.kind == "down" for fault in at_work):
        return Measurement(error=True, reason="the metric source does not answer (simulated)")
    requests = traffic.rate * min(metric.interval_s, max(traffic.elapsed_s, 1.0))
    if any(fault.kind == "silent" for fault in at_work) or requests <= 0:
        return Measurement(requests=0.0, reason="no requests (simulated)")
    value = _good(metric)
    for fault in at_work:
        if fault.kind == "metric" and fault.metric == metric.name and fault.value is not None:
            value = fault.value
        elif fault.kind == "bad" and fault.metric == metric.name:
            value = _beyond(metric)
        elif fault.kind == "errors" and metric.name == SUCCESS_RATE and fault.value is not None:
            value = 100.0 * (1.0 - fault.value)
        elif fault.kind == "slow" and metric.name == DURATION:
            limit = metric.maximum if metric.maximum is not None else GOOD_DURATION_MS
            value = fault.value if fault.value is not None else limit * DEFAULT_SLOW_FACTOR
    return Measurement(value, requests)


def latency(faults: Sequence[Fault]) -> tuple[tuple[float, float], ...]:
    """How long successes take, as GOOD_LATENCY says it, of an arm with these faults at work: a slow one's p99 is as told
    (slow alone: twice as good ones'), and all its other requests are slower in proportion."""
    factor = 1.0
    for fault in faults:
        if fault.kind == "slow":
            factor = DEFAULT_SLOW_FACTOR if fault.value is None else fault.value / GOOD_DURATION_MS
    return tuple((round(bound * factor, 3), share) for bound, share in GOOD_LATENCY)


def _good(metric: Metric) -> float:
    if metric.name == SUCCESS_RATE:
        return 100.0
    low, high = metric.minimum, metric.maximum
    if metric.name == DURATION:
        return min(GOOD_DURATION_MS, (high or 2 * GOOD_DURATION_MS) / 2)
    if low is not None and high is not None:
        return (low + high) / 2
    if low is not None:
        return low
    return min(0.0, high) if high is not None else 0.0


def _beyond(metric: Metric) -> float:
    if metric.maximum is not None:
        return metric.maximum + max(1.0, abs(metric.maximum))
    return (metric.minimum or 0.0) - max(1.0, abs(metric.minimum or 0.0))
