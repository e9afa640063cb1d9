"""Evidence as it is kept in an object's status, so that another controller goes on where one was killed.

    Evidence <-> {"failures": {...}, "marks": {...}}      about 1 kB; numbers only

What happened between the last record and the crash is lost, for both arms alike: that costs requests, not correctness.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from control.canary.evidence.arms import Marks
from control.canary.evidence.judge import FAILURES, QUANTILES, Evidence, slow
from control.canary.evidence.sequence import HARM_PAPER, HARM_STAKES, SAFE_STAKES, Comparison, Counts

_METRICS = {FAILURES: FAILURES, **{slow(quantile): f"slow-p{quantile * 100:g}" for quantile in QUANTILES}}


def to_object(evidence: Evidence) -> dict[str, Any]:
    return {
        "metrics": {_METRICS[metric]: _comparison(one) for metric, one in evidence.comparisons.items()},
        "marks": {f"{quantile:g}": bound for quantile, bound in evidence.marks.at.items()},
        "latency": evidence.has_latency,
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    total = one.total
    return {
        "margin": one.margin,
        "expected": one.expected,
        "harm": [round(log, 4) for log in one.harm],
        "safe": [round(log, 4) for log in one.safe],
        "paper": [round(log, 4) for log in one.paper],
        "peakHarm": round(one.peak_harm, 4),
        "blocks": one.blocks,
        "recent": [round(count, 3) for count in one.recent],
        "total": [total.canary_failed, total.canary, total.primary_failed, total.primary],
    }


def from_object(obj: Mapping[str, Any]) -> Evidence:
    """Raises ValueError on what `to_object` cannot have written (another version's, or edited by hand): begin anew then."""
    try:
        return Evidence(
            {metric: _read(obj["metrics"][key]) for metric, key in _METRICS.items() if key in obj["metrics"]},
            Marks({float(quantile): float(bound) for quantile, bound in obj["marks"].items()}),
            bool(obj["latency"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of evidence: {type(error).__name__}: {error}") from error


def _read(obj: Mapping[str, Any]) -> Comparison:
    """A record without `paper` (of a release that an older controller began): all bet again, until they have lost."""
    harm, safe = (tuple(map(float, obj[key])) for key in ("harm", "safe"))
    paper = tuple(map(float, obj.get("paper", HARM_PAPER)))
    recent = tuple(map(float, obj["recent"]))
    peak = float(obj["peakHarm"])
    if len(harm) != len(HARM_STAKES) or len(safe) != len(SAFE_STAKES) or len(paper) != len(HARM_PAPER):
        raise ValueError("not a record of evidence: another number of bettors")
    if len(recent) != 4:
        raise ValueError("not a record of evidence: not the counts of two arms")
    if not all(map(isfinite, (*harm, *safe, *paper, *recent, peak))):
        raise ValueError("not a record of evidence: numbers that are not finite")
    made = Comparison.of(float(obj["margin"]), float(obj["expected"]))
    total = Counts(*map(int, obj["total"]))
    rates = recent[0], recent[1], recent[2], recent[3]
    return Comparison(made.margin, made.expected, harm, safe, paper, peak, int(obj["blocks"]), rates, total)
