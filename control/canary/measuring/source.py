"""Where measurements come from: one question, many sources.

    Query (metric, whose, over which window) -> MetricSource.measure -> Measurement

The embedded source (embedded.py) looks at the proxies itself, Prometheus (prometheus.py) is asked by PromQL; which one it is
for a metric is chosen in sources.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

from control.canary.declared.metric import Metric
from control.canary.declared.spec import CanarySpec
from control.canary.evidence.arms import ArmCounts
from control.canary.machine.analysis import Measurement


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whose traffic: the pods of a Deployment, and the Service by which callers reach them in the split."""

    namespace: str
    deployment: str  # targetRef.name
    service: str  # the canary's, `<apex>-canary`
    canary: str = ""  # name of the Canary object
    apex: str = ""
    provider: str = ""  # spec.provider
    metrics_server: str = ""  # spec.metricsServer, "" for the control plane's own choice

    @property
    def primary(self) -> str:
        """The primary's Deployment."""
        return f"{self.deployment}-primary"

    @property
    def baseline(self) -> str:
        """The Deployment of its baseline (baseline.py), which may not be there."""
        return f"{self.deployment}-baseline"

    @property
    def baseline_service(self) -> str:
        return f"{self.apex}-baseline"

    @property
    def primary_service(self) -> str:
        return f"{self.apex}-primary"

    @classmethod
    def of(cls, spec: CanarySpec) -> Subject:
        return cls(spec.namespace, spec.target, spec.canary_service, spec.name, spec.apex, spec.provider, spec.metrics_server)


@dataclass(frozen=True, slots=True)
class Query:
    metric: Metric
    subject: Subject
    window_s: float
    of_primary: bool = False  # a built-in metric of the primary's pods instead

    @property
    def whose(self) -> tuple[str, str]:
        """Deployment and Service that a built-in metric is about."""
        subject = self.subject
        return (subject.primary, subject.primary_service) if self.of_primary else (subject.deployment, subject.service)


@dataclass(frozen=True, slots=True)
class Arms:
    """What both arms of a release did so far, as of one moment."""

    canary: ArmCounts
    primary: ArmCounts
    baseline: ArmCounts | None = None  # None: there is none, or it is not known


class MetricSource(ABC):
    @abstractmethod
    async def measure(self, query: Query) -> Measurement:
        """What was seen in the last `window_s` seconds.  Never raises for want of data: that is an answer."""

    def watch(self, subjects: Collection[Subject]) -> None:  # noqa: B027  # a source that keeps no state need not care
        """From now on these will be asked about (and no others): a source that gathers by itself begins, or rests."""

    def hurry(self, subjects: Collection[Subject]) -> None:  # noqa: B027  # a source that is asked when it is asked cannot
        """Of these, evidence is gathered: a source that gathers by itself does so more often."""

    async def counts(self, subject: Subject) -> Arms | None:
        """Running totals of both arms since `subject` is watched, as of one moment.  May be asked several times a second.
        None: not known (the source cannot count, does not answer, or has just begun).  The same as at the last look:
        nothing new has come in.  Never raises."""
        return None

    async def problem(self, subject: Subject, metrics: Collection[Metric]) -> str:
        """Why the sources of these metrics cannot be asked at all, "" if they can.  Never raises."""
        return ""
