"""Metrics as they were recorded, for a simulation that asks "what would this policy have done then?".

    {"metrics": {"request-success-rate": [[0, 100], [60, 97.5], [120, null]],        seconds since the first weight, value
                 "request-duration":     {"requests": 40, "values": [[0, 120]]},     and how many requests it is made of
                 "error-rate":           <answer of Prometheus' /api/v1/query_range>}}  its first series; its first moment is 0

A value holds until the next, but not longer than the metric's interval (the window it is measured over): what is older is no
data, as it would be on a real source.  null is no data.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.canary.declared.metric import Metric
from control.canary.machine.analysis import Measurement

MAX_BYTES = 16 * 1024 * 1024
MAX_SAMPLES = 200_000  # of one metric: two days at one a second


class ReplayError(ValueError):
    """The recording cannot be read; `str()` names file and place."""


@dataclass(frozen=True, slots=True)
class Series:
    times: tuple[float, ...]
    values: tuple[float | None, ...]
    requests: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    series: Mapping[str, Series]

    def measure(self, metric: Metric, elapsed_s: float) -> Measurement:
        """What the recording says `elapsed_s` after the first weight."""
        found = self.series.get(metric.name)
        if found is None:
            return Measurement(error=True, reason=f"the recording has no metric {metric.name}")
        index = bisect_right(found.times, elapsed_s) - 1
        if index < 0 or elapsed_s - found.times[index] > metric.interval_s:
            return Measurement(reason="nothing was recorded then")
        value = found.values[index]
        return Measurement(value, found.requests, "" if value is not None else "no data was recorded then")


def load(path: Path) -> Recording:
    """Raises ReplayError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ReplayError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
        whole = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        if isinstance(error, ReplayError):
            raise
        raise ReplayError(f"{path}: {error}") from None
    metrics = whole.get("metrics") if isinstance(whole, dict) else None
    if not isinstance(metrics, dict) or not metrics:
        raise ReplayError(f'{path}: expected {{"metrics": {{NAME: [[seconds, value], ...]}}}}')
    return Recording({str(name): _series(found, f"{path}: metrics.{name}") for name, found in metrics.items()})


def _series(found: Any, where: str) -> Series:
    requests = None
    start = 0.0
    if isinstance(found, dict) and "data" in found:
        result = (found.get("data") or {}).get("result") or []
        if not result or "values" not in result[0]:
            raise ReplayError(f"{where}: the answer of Prometheus has no series with values (ask /api/v1/query_range)")
        found = result[0]["values"]
        start = _number(found[0][0], where) if found else 0.0
    elif isinstance(found, dict):
        requests = None if found.get("requests") is None else _number(found["requests"], f"{where}.requests")
        found = found.get("values")
    if not isinstance(found, list) or len(found) > MAX_SAMPLES:
        raise ReplayError(f"{where}: expected a list of at most {MAX_SAMPLES} [seconds, value] pairs")
    times: list[float] = []
    values: list[float | None] = []
    for index, pair in enumerate(found):
        here = f"{where}[{index}]"
        if not isinstance(pair, list) or len(pair) != 2:
            raise ReplayError(f"{here}: found {json.dumps(pair):.40}, expected [seconds, value]")
        times.append(_number(pair[0], here) - start)
        values.append(None if pair[1] is None else _value(pair[1], here))
        if index and times[-1] <= times[-2]:
            raise ReplayError(f"{here}: its time is not after the one before")
    return Series(tuple(times), tuple(values), requests)


def _number(value: Any, where: str) -> float:
    number = _value(value, where)
    if number is None:
        raise ReplayError(f"{where}: found {value!r}, expected a finite number")
    return number


def _value(value: Any, where: str) -> float | None:
    """A sample as JSON or as Prometheus' string; NaN and infinities are no data."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ReplayError(f"{where}: found {value!r:.40}, expected a number or null")
    try:
        number = float(value)
    except ValueError:
        raise ReplayError(f"{where}: found {value!r:.40}, expected a number or null") from None
    return number if math.isfinite(number) else None
