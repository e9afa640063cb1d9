"""What each arm of a release did since it is watched: running totals that outlive pods; pure.

    a page's increments (window.py, or Prometheus)  ->  Ledger.counted(pod's Deployment, pod, increments)  ->  Ledger.arms()

    successes = inbound successes of the arm's pods; their latency in 2 % buckets once both arms' proxies count them, else
                in Linkerd's
    failures  = per pod, the larger of what it counted itself and what its callers saw fail at it; plus what found no pod
                (embedded.py: a failure that both sides saw is one failure; both only grow, so the larger only grows)

An arm's pods may come and go: what they counted stays.  `begin_anew` says that something may have been missed: totals from
before and after are not to be compared (ArmCounts.epoch).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from control.canary.evidence.arms import ArmCounts, Histogram
from control.canary.measuring.source import Arms, Subject
from control.canary.measuring.window import Totals

MAX_PODS = 1000  # of an arm, told apart; a Deployment that crashes for a day makes some dozens


@dataclass(slots=True)
class _Arm:
    deployment: str
    service: str
    success: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)  # successes: upper bound in ms -> cumulative
    fine: dict[float, float] = field(default_factory=dict)  # successes: upper bound in ms -> in just this bucket
    own: dict[str, float] = field(default_factory=dict)  # pod -> failures it counted
    seen: dict[str, float] = field(default_factory=dict)  # pod -> failures its callers saw
    rest: float = 0.0  # failures without a pod, and those of pods that are no longer told apart

    @property
    def failures(self) -> float:
        pods = self.own.keys() | self.seen.keys()
        return self.rest + sum(max(self.own.get(pod, 0.0), self.seen.get(pod, 0.0)) for pod in pods)

    def bound(self) -> None:
        for pods in (self.own, self.seen):
            while len(pods) > MAX_PODS:
                pod = next(iter(pods))  # the oldest
                self.rest += max(self.own.pop(pod, 0.0), self.seen.pop(pod, 0.0))

    def histogram(self, fine: bool) -> Histogram:
        if fine:
            return tuple((bound, round(count)) for bound, count in sorted(self.fine.items()))
        ordered = sorted(self.buckets.items())
        shares = [(b, count - below) for (_, below), (b, count) in pairwise([(0.0, 0.0), *ordered])]
        return tuple((bound, max(0, round(count))) for bound, count in shares)


class Ledger:
    """Of one release.  `now` is Unix seconds."""

    def __init__(self, subject: Subject, now: float) -> None:
        self._namespace = subject.namespace
        self._canary = _Arm(subject.deployment, subject.service)
        self._primary = _Arm(subject.primary, subject.primary_service)
        self._baseline = _Arm(subject.baseline, subject.baseline_service)
        self._epoch = now

    def begin_anew(self, now: float) -> None:
        self._epoch = now

    def counted(self, namespace: str, deployment: str, pod: str, gained: Totals) -> None:
        """Take in what a pod's proxy, of either arm or of a caller, counted since it was last asked."""
        if namespace == self._namespace:
            for arm in self._all:
                if deployment == arm.deployment:
                    arm.success += gained.success
                    if gained.failure:
                        arm.own[pod] = arm.own.get(pod, 0.0) + gained.failure
                    for bound, count in gained.good.items():
                        arm.buckets[bound] = arm.buckets.get(bound, 0.0) + count
                    for bound, count in gained.fine.items():
                        arm.fine[bound] = arm.fine.get(bound, 0.0) + count
        for (to_namespace, to_deployment, to_pod, service), failures in gained.failed_to.items():
            if to_namespace == self._namespace:
                for arm in self._all:
                    if to_deployment == arm.deployment or (not to_deployment and service == arm.service):
                        if to_pod:
                            arm.seen[to_pod] = arm.seen.get(to_pod, 0.0) + failures
                        else:
                            arm.rest += failures
        for arm in self._all:
            arm.bound()

    @property
    def _all(self) -> tuple[_Arm, _Arm, _Arm]:
        return self._canary, self._primary, self._baseline

    def arms(self, *, baseline: bool = False) -> Arms:
        """`baseline`: there is one, and its pods are known."""
        # The same bounds in all: shares beyond a mark are compared.
        fine = bool(self._canary.fine and self._primary.fine and (self._baseline.fine or not self._baseline.buckets))
        beside = self._counts(self._baseline, fine) if baseline else None
        return Arms(self._counts(self._canary, fine), self._counts(self._primary, fine), beside)

    def _counts(self, arm: _Arm, fine: bool) -> ArmCounts:
        return ArmCounts(round(arm.success), round(arm.failures), arm.histogram(fine), self._epoch)
