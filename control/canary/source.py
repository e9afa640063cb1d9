"""Where measurements come from: one question, many sources.

    Query (metric, whose, over which window) -> MetricSource.measure -> Measurement

The embedded source (embedded.py) looks at the proxies itself; others (Prometheus by PromQL) answer the same question.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from control.canary.analysis import Measurement


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whose traffic: the pods of a Deployment, and the Service by which callers reach them in the split."""

    namespace: str
    deployment: str
    service: str


@dataclass(frozen=True, slots=True)
class Query:
    metric: str  # control.canary.spec.SUCCESS_RATE (percent) or DURATION (p99, ms)
    subject: Subject
    window_s: float


class MetricSource(ABC):
    @abstractmethod
    async def measure(self, query: Query) -> Measurement:
        """What was seen in the last `window_s` seconds.  Never raises for want of data: that is an answer."""

    def watch(self, subjects: Collection[Subject]) -> None:  # noqa: B027  # a source that keeps no state need not care
        """From now on these will be asked about (and no others): a source that gathers by itself begins, or rests."""

    def problem(self) -> str:
        """Why the source cannot be asked at all, "" if it can."""
        return ""
