"""The verdict: what the evidence of a release says so far, metric by metric, and all together.

    begin_step(primary's latency)   freezes where "slow" begins
    observe(block)                  a second of both arms -> the next Evidence
    judge(evidence, terms)          HARM   one metric is certainly worse than its margin allows: roll back, now
                                    SAFE   every metric is certainly within its margin: may be promoted
                                    OPEN   neither: go on (a step needs no more than the absence of harm), or hold, and say
                                           how many more requests it takes

Alpha is the chance that a canary within its margins is rolled back, at any time of the release; so it is divided over the
metrics: FAILURES_SHARE for failures, the rest equally over the shares slower than the primary's p50, p90 and p99.  Failures
have more of it because seconds count there; it costs latency some 6 % more requests.  Alpha also is the chance that one which
is worse than a margin passes.  There it need not be divided: who passes has passed in every metric, also in the one that is
bad (an intersection-union test; Berger 1982).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import log

from control.canary.evidence.arms import Block, Histogram, Marks, freeze
from control.canary.evidence.interval import bounds
from control.canary.evidence.sequence import LOOK_S, Comparison, Counts

FAILURES = "failures"
QUANTILES = (0.5, 0.9, 0.99)
FAILURES_SHARE = 0.7


class Finding(StrEnum):
    HARM = "harm"
    SAFE = "safe"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Terms:
    """What is put up with.  Shares of 1."""

    alpha: float = 0.01
    failure_margin: float = 0.01
    slow_margin: float = 0.02
    # As people are told: which arm is judged, and what it is compared with (primary or baseline; in a promotion the new
    # primary with the canary).
    judged: str = "canary"
    beside: str = "primary"

    def alpha_of(self, metric: str) -> float:
        """The metric's part of the chance to roll back in vain."""
        return self.alpha * (FAILURES_SHARE if metric == FAILURES else (1.0 - FAILURES_SHARE) / len(QUANTILES))

    def harm_goal(self, metric: str) -> float:
        """Logarithm of the coins that prove harm (sequence.py)."""
        return -log(self.alpha_of(metric))

    @property
    def safe_goal(self) -> float:
        """Logarithm of the coins that prove safety, of each metric."""
        return -log(self.alpha)


def slow(quantile: float) -> str:
    """The name of a latency metric: successes slower than the primary's quantile."""
    return f"slower than p{quantile * 100:g}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one revision, canary against primary.  Immutable; it outlives steps and the controller
    (record.py)."""

    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    marks: Marks = field(default_factory=Marks)
    has_latency: bool = False  # the source tells how long requests took

    def begin_step(self, latency: Histogram) -> Evidence:
        """Another weight: "slow" is from now on what lies beyond the quantiles of `latency`, the primary's so far.  Without
        enough of it the marks stay as they were."""
        marks = freeze(latency, QUANTILES)
        return replace(self, marks=marks) if marks.at else self

    def observe(self, block: Block, terms: Terms, seconds: float = LOOK_S) -> Evidence:
        """After one more block of so many seconds.  Blocks of the warm-up are not to be given here; `learn` takes those."""
        after = dict(self.comparisons)
        canary, primary = block.canary, block.primary
        counts = {FAILURES: Counts(canary.failures, canary.requests, primary.failures, primary.requests)}
        for quantile, bound in self.marks.at.items():
            ours, theirs = canary.slower_than(bound), primary.slower_than(bound)
            counts[slow(quantile)] = Counts(*ours, *theirs)
        for metric, count in counts.items():
            after[metric] = (after.get(metric) or _comparison(metric, terms)).observe(count, terms.safe_goal, seconds)
        return replace(self, comparisons=after, has_latency=self.has_latency or bool(primary.latency or canary.latency))

    def learn(self, block: Block, terms: Terms) -> Evidence:
        """A block of which only the primary is believed (warm-up): what its rates are, and nothing about the canary."""
        return self.observe(Block(type(block.canary)(), block.primary), terms)

    @property
    def requests(self) -> int:
        """Of the canary, that count."""
        failures = self.comparisons.get(FAILURES)
        return failures.total.canary if failures else 0


def _comparison(metric: str, terms: Terms) -> Comparison:
    if metric == FAILURES:
        return Comparison.of(terms.failure_margin)
    expected = next(1.0 - quantile for quantile in QUANTILES if slow(quantile) == metric)
    return Comparison.of(terms.slow_margin, expected)


@dataclass(frozen=True, slots=True)
class Assessment:
    """One metric, as people and history see it.  Rates are shares of 1."""

    metric: str
    finding: Finding
    counts: Counts  # over the revision
    margin: float
    proof: float  # of harm, or else of safety: 1.0 is enough, 0 is nothing (a share on the scale of logarithms)
    more: (
        int | None
    )  # OPEN: canary requests that are still needed; None: it cannot be said, or the present rates decide nothing
    canary_bounds: tuple[float, float]
    primary_bounds: tuple[float, float]
    judged: str = "canary"  # whose numbers those of the canary are
    beside: str = "primary"  # whose numbers those of the primary are

    @property
    def text(self) -> str:
        promoting = self.judged != "canary"
        marks = (
            self.beside if promoting else "primary"
        )  # a baseline is as new as the canary: where slow begins the primary says
        what = "failed" if self.metric == FAILURES else f"were {self.metric} of the {marks}"
        whose = f"the {self.judged}'s " if promoting else ""
        c = self.counts
        seen = (
            f"{c.canary_failed} of {whose}{c.canary} requests {what} ({_percent(c.canary_failed, c.canary)}), "
            f"{c.primary_failed} of the {self.beside}'s {c.primary} ({_percent(c.primary_failed, c.primary)})"
        )
        points = f"{self.margin * 100:g}"
        allowed = f"{points} point{'' if points == '1' else 's'}"
        if self.finding is Finding.HARM:
            return f"{seen}: more than {allowed} worse"
        if self.finding is Finding.SAFE:
            return f"{seen}: within {allowed}"
        if self.more is None:
            return f"{seen}: more requests are needed; how many cannot be said"
        return f"{seen}: about {self.more} more requests needed"


@dataclass(frozen=True, slots=True)
class Verdict:
    finding: Finding
    assessments: tuple[Assessment, ...]
    more: int | None = None  # the most of all open metrics; None if one of them cannot say

    @property
    def text(self) -> str:
        """The first metric that decided; of an open one that which needs most."""
        if not self.assessments:
            return "nothing has been compared yet"
        if self.finding is Finding.SAFE:
            return "; ".join(one.text for one in self.assessments)
        those = [one for one in self.assessments if one.finding is self.finding]
        return max(those, key=lambda one: float("inf") if one.more is None else one.more).text


def judge(evidence: Evidence, terms: Terms) -> Verdict:
    """All metrics of the evidence.  A latency that the source has but that could not be compared yet is open; one that it
    does not have is not asked for."""
    found = [_assess(metric, one, terms) for metric, one in evidence.comparisons.items()]
    if any(one.finding is Finding.HARM for one in found):
        return Verdict(Finding.HARM, tuple(found))
    silent = evidence.has_latency and not any(slow(quantile) in evidence.comparisons for quantile in QUANTILES)
    if found and not silent and all(one.finding is Finding.SAFE for one in found):
        return Verdict(Finding.SAFE, tuple(found), 0)
    wanted = [one.more for one in found if one.finding is Finding.OPEN]
    known = [more for more in wanted if more is not None]
    return Verdict(Finding.OPEN, tuple(found), max(known) if known and len(known) == len(wanted) and not silent else None)


def _assess(metric: str, one: Comparison, terms: Terms) -> Assessment:
    finding, more = Finding.OPEN, None
    proof = one.log_safe / terms.safe_goal
    if one.peak_harm >= terms.harm_goal(metric):
        finding, proof = Finding.HARM, one.peak_harm / terms.harm_goal(metric)
    elif proof >= 1.0:
        finding = Finding.SAFE
    else:
        more = one.more_for_safe(terms.safe_goal)
    total, alpha = one.total, terms.alpha_of(metric) / 2.0
    return Assessment(
        metric,
        finding,
        total,
        one.margin,
        max(0.0, proof),
        None if more is None else max(1, more),
        bounds(total.canary_failed, total.canary, alpha),
        bounds(total.primary_failed, total.primary, alpha),
        terms.judged,
        terms.beside,
    )


def _percent(part: int, whole: int) -> str:
    return f"{100.0 * part / whole:.2f} %" if whole else "none"
