"""Who looks at the two arms: each takes half a second's Counts and says whether the canary is to be rolled back now.

evidence      what we do (control/canary/evidence), with the part of alpha that failures have; latency would have the rest
sequences     a confidence sequence for each arm (beta-binomial mixture), over all since the beginning: the difference of bounds
threshold     Flagger's: success rate of the last minute below 99 %, once a minute; rolled back at the check after the fifth
              failed one
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from benchmarks.evidence.streams import LOOKS
from control.canary.evidence.interval import bounds
from control.canary.evidence.judge import FAILURES, Terms
from control.canary.evidence.sequence import Comparison, Counts, add

TERMS = Terms()
ALPHA, MARGIN = TERMS.alpha_of(FAILURES), TERMS.failure_margin


class Method(ABC):
    title = ""

    @abstractmethod
    def look(self, counts: Counts) -> str:
        """ "harm", "safe" (the canary may be promoted as far as this goes) or ""."""


class Evidence(Method):
    title = "evidence"

    def __init__(self) -> None:
        self.comparison = Comparison.of(MARGIN)
        self.open = Counts(0, 0, 0, 0)  # a block ends when both arms had requests (evidence/standing.py)
        self.looks = 0

    def look(self, counts: Counts) -> str:
        self.looks += 1
        self.open = add(self.open, counts)
        if not (self.open.canary and self.open.primary) and self.looks < 20:
            return ""
        self.comparison = self.comparison.observe(self.open, TERMS.safe_goal, self.looks / LOOKS)
        self.open, self.looks = Counts(0, 0, 0, 0), 0
        if self.comparison.log_harm >= TERMS.harm_goal(FAILURES):
            return "harm"
        return "safe" if self.comparison.log_safe >= TERMS.safe_goal else ""


class Sequences(Method):
    title = "confidence sequences"

    def __init__(self) -> None:
        self.f1 = self.n1 = self.f0 = self.n0 = 0

    def look(self, counts: Counts) -> str:
        self.f1 += counts.canary_failed
        self.n1 += counts.canary
        self.f0 += counts.primary_failed
        self.n0 += counts.primary
        low1, high1 = bounds(self.f1, self.n1, ALPHA / 2)  # two arms
        low0, high0 = bounds(self.f0, self.n0, ALPHA / 2)
        if low1 - high0 > MARGIN:
            return "harm"
        return "safe" if high1 - low0 < MARGIN else ""


class Threshold(Method):
    title = "threshold, 99 %"

    def __init__(self) -> None:
        self.window: deque[tuple[int, int]] = deque(maxlen=60 * LOOKS)
        self.failed_checks = self.looks = 0

    def look(self, counts: Counts) -> str:
        self.window.append((counts.canary_failed, counts.canary))
        self.looks += 1
        if self.looks % (60 * LOOKS):
            return ""
        if self.failed_checks >= 5:
            return "harm"
        failed, requests = (sum(column) for column in zip(*self.window, strict=True))
        if not requests or 1.0 - failed / requests < 0.99:
            self.failed_checks += 1
        return ""


METHODS: tuple[type[Method], ...] = (Evidence, Sequences, Threshold)
