"""What one pod's proxy counted, over time: series added up reset-safe, in a bounded ring of samples; pure.

    a page of /metrics -> increments since the last page, per series -> running totals -> ring[(time, totals)]
    over(now, window)  -> totals at the end minus totals at the window's beginning

Adding increments at the time of the scrape (not subtracting pages later) makes restarts harmless: a counter that fell began
again at zero, so all of its new value is new.  A series that was not on the last page had been zero.  The first page of
a pod is a baseline, unless the pod is younger than our watching: then everything on it is new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isnan

from control.canary.measuring.exposition import samples

RESPONSES = "response_total"
LATENCY = "response_latency_ms_bucket"
FINE = "meshproxy_inbound_success_latency_total"  # meshproxy.telemetry.families.FINE: counted because we ask for it
FAMILIES = (RESPONSES, LATENCY, FINE)
BOUNDS = {LATENCY: "le", FINE: "upto_ms"}  # the label that has a bucket's upper bound

SPACING_S = 0.9  # samples closer than this are one
LIMIT = 660  # samples kept for a pod: an eleven-minute window at one a second; older windows are cut to this

# (namespace, deployment, pod, service) of a failed outbound attempt; an endpoint that was never chosen has no pod.
Destination = tuple[str, str, str, str]


@dataclass(slots=True)
class Totals:
    """Running sums since the pod was first seen."""

    success: float = 0.0  # inbound responses
    failure: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)  # upper bound in ms -> cumulative count, inbound
    failed_to: dict[Destination, float] = field(default_factory=dict)  # outbound failures
    good: dict[float, float] = field(default_factory=dict)  # as `buckets`, of what was not answered with 5xx
    # Of one page's increments only (the ring needs none): upper bound in ms, 2 % each -> successes of just this bucket.
    fine: dict[float, float] = field(default_factory=dict)

    def copy(self) -> Totals:
        return Totals(self.success, self.failure, dict(self.buckets), dict(self.failed_to), dict(self.good))

    def minus(self, earlier: Totals) -> Totals:
        return Totals(
            self.success - earlier.success,
            self.failure - earlier.failure,
            {le: count - earlier.buckets.get(le, 0.0) for le, count in self.buckets.items()},
            {to: count - earlier.failed_to.get(to, 0.0) for to, count in self.failed_to.items()},
            {le: count - earlier.good.get(le, 0.0) for le, count in self.good.items()},
        )

    def add(self, other: Totals) -> None:
        self.success += other.success
        self.failure += other.failure
        for le, count in other.buckets.items():
            self.buckets[le] = self.buckets.get(le, 0.0) + count
        for to, count in other.failed_to.items():
            self.failed_to[to] = self.failed_to.get(to, 0.0) + count
        for le, count in other.good.items():
            self.good[le] = self.good.get(le, 0.0) + count


class PodWindow:
    """The recent past of one pod.  `newborn`: the pod is younger than our watching, so its first page starts from zero."""

    def __init__(self, *, newborn: bool) -> None:
        self._last: dict[str, float] | None = {} if newborn else None
        self._totals = Totals()
        self._ring: deque[tuple[float, Totals]] = deque(maxlen=LIMIT)

    @property
    def last_seen(self) -> float | None:
        """When the last page came (Unix seconds)."""
        return self._ring[-1][0] if self._ring else None

    def page(self, now: float, text: str) -> Totals:
        """Take in one scrape.  Returns what was counted since the last one (nothing, on a page that is the baseline)."""
        if self._last is not None and not self._ring:
            self._ring.append((now, self._totals.copy()))  # a newborn's beginning: all zero
        values: dict[str, float] = {}
        totals, increments = self._totals, Totals()
        for name, series, labels, value in samples(text, FAMILIES):
            if name in BOUNDS and not _is_number(labels.get(BOUNDS[name], "inf")):
                continue
            values[series] = value
            if self._last is None:
                continue
            before = self._last.get(series, 0.0)
            gained = value - before if value >= before else value
            if gained:
                tally(increments, name, labels, gained)
            elif name == LATENCY and labels.get("direction") == "inbound":
                totals.buckets.setdefault(float(labels.get("le", "inf")), 0.0)
        self._last = values
        totals.add(increments)
        if len(self._ring) > 1 and self._ring[-1][0] - self._ring[-2][0] < SPACING_S:
            self._ring.pop()  # pages may come faster; the newest always counts, one a second stays
        self._ring.append((now, totals.copy()))
        return increments

    def over(self, now: float, window_s: float) -> Totals | None:
        """What was counted in the last `window_s` seconds; None before there are two samples to compare."""
        if len(self._ring) < 2:
            return None
        begin = now - window_s
        start = self._ring[0]
        for sample in reversed(self._ring):
            if sample[0] <= begin:
                start = sample
                break
        return self._ring[-1][1].minus(start[1])


def _is_number(text: str) -> bool:
    try:
        return not isnan(float(text))
    except ValueError:
        return False


def tally(totals: Totals, name: str, labels: Mapping[str, str], gained: float) -> None:
    """Add the increment of one series of FAMILIES."""
    inbound = labels.get("direction") == "inbound"
    if name == FINE:
        bound = float(labels.get("upto_ms", "inf"))
        totals.fine[bound] = totals.fine.get(bound, 0.0) + gained
        return
    if name == LATENCY:
        if inbound:
            le = float(labels.get("le", "inf"))
            totals.buckets[le] = totals.buckets.get(le, 0.0) + gained
            if not labels.get("status_code", "").startswith("5"):
                totals.good[le] = totals.good.get(le, 0.0) + gained
        return
    failed = labels.get("classification") == "failure"
    if inbound:
        if failed:
            totals.failure += gained
        else:
            totals.success += gained
    elif failed:
        to = (
            labels.get("dst_namespace", ""),
            labels.get("dst_deployment", ""),
            labels.get("dst_pod", ""),
            labels.get("dst_service", ""),
        )
        totals.failed_to[to] = totals.failed_to.get(to, 0.0) + gained


def quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float | None:
    """Prometheus' histogram_quantile: linear inside the bucket; the last finite bound if it falls in +Inf.

    Args:
        buckets: (upper bound, cumulative count).
    Returns: None when nothing was observed.
    """
    ordered = sorted(buckets)
    total = ordered[-1][1] if ordered else 0.0
    if total <= 0:
        return None
    rank = q * total
    below, lower = 0.0, 0.0
    for bound, count in ordered:
        if count >= rank:
            if bound == float("inf"):
                return lower
            return bound if count == below else lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return lower
