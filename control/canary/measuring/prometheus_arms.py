"""What both arms did, by the counters of a Prometheus: the ledger's question (ledger.py), asked of somebody who scrapes.

    look(): when was each pod scraped last?  -- not all again since the last time -->  the totals of the last time
                                             -- all -->  the counters as they stand -> increments -> Ledger

A Prometheus has news once in its scrape interval, pod by pod.  Arms are compared over what was new between two looks, so a
look that found new numbers of one arm only would compare what did not happen at the same time.  Hence totals change only when
every pod of both arms has been scraped again, whatever the interval is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from control.canary.measuring import promql
from control.canary.measuring.ledger import Ledger
from control.canary.measuring.prometheus import PrometheusClient
from control.canary.measuring.promql import Server
from control.canary.measuring.source import Arms, Subject
from control.canary.measuring.window import LATENCY, RESPONSES, Totals, tally

INTERVAL_S = 1.0  # between questions, however often somebody looks
STALE_S = 90.0  # a pod not scraped for this long is out of sight; usual intervals are 15 to 60 s
MAX_SERIES = 100_000  # remembered; more is begun anew

_Series = tuple[tuple[str, str], ...]


class PrometheusArms:
    """Of one release; counting begins with the first look that is answered.

    `pods()` names those of both arms that exist: one that is not among what was scraped is out of sight."""

    def __init__(self, client: PrometheusClient, server: Server, subject: Subject, pods: Callable[[], Collection[str]]) -> None:
        self._client = client
        self._server = server
        self._subject = subject
        self._pods = pods
        self._names = (subject.deployment, subject.primary, subject.baseline)
        self._ledger: Ledger | None = None
        self._stamps: dict[_Series, float] = {}  # of the last totals
        self._last: dict[_Series, float] = {}
        self._arms: Arms | None = None
        self._asked = float("-inf")
        self._known = False

    async def look(self, now: float) -> Arms | None:
        """As MetricSource.counts.  `now`: Unix seconds."""
        if self._asked <= now < self._asked + INTERVAL_S:
            return self._arms if self._known else None
        self._asked = now
        arms = await self._look(now)
        self._known = arms is not None
        return arms

    async def _look(self, now: float) -> Arms | None:
        namespace = self._subject.namespace
        stamps = await self._ask(promql.arm_stamps(namespace, self._names))
        if stamps is None:
            return None
        seen = {_key("stamp", labels): at for labels, at in stamps}
        scraped = {labels.get("deployment") for labels, _ in stamps}
        if not scraped >= set(self._names[:2]):
            return None  # an arm without a pod that is scraped
        missing = set(self._pods()) - {labels.get("pod") for labels, _ in stamps}
        if missing or max(seen.values()) - min(seen.values()) > STALE_S:
            if self._ledger is not None:  # what callers saw fail there is known, and what succeeded is not
                self._ledger.begin_anew(now)
            return None
        if self._arms is not None and any(at <= self._stamps.get(pod, 0.0) for pod, at in seen.items()):
            return self._arms
        found = await asyncio.gather(
            self._ask(promql.arm_responses(namespace, self._names)),
            self._ask(promql.arm_latency(namespace, self._names)),
            self._ask(promql.arm_callers(namespace)),
        )
        if any(answer is None for answer in found):
            return None
        if self._ledger is None or len(self._last) > MAX_SERIES:
            self._ledger, self._last = Ledger(self._subject, now), {}
            first = True
        else:
            first = False
        for kind, answer in zip(("responses", "latency", "callers"), found, strict=True):
            for labels, value in answer or ():
                self._count(self._ledger, kind, labels, value, first)
        self._stamps, self._arms = seen, self._ledger.arms(baseline=self._subject.baseline in scraped)
        return self._arms

    def _count(self, ledger: Ledger, kind: str, labels: dict[str, str], value: float, first: bool) -> None:
        """As PodWindow: increments, so that a restart is harmless; a series that was not there had been zero."""
        series = _key(kind, labels)
        before = self._last.get(series, 0.0)
        self._last[series] = value
        gained = value - before if value >= before else value
        if first or not gained:
            return
        totals = Totals()
        direction = "outbound" if kind == "callers" else "inbound"
        known = {"classification": "failure", **labels, "direction": direction}
        tally(totals, LATENCY if kind == "latency" else RESPONSES, known, gained)
        namespace = labels.get("namespace", "") if kind == "callers" else self._subject.namespace
        ledger.counted(namespace, labels.get("deployment", ""), labels.get("pod", ""), totals)

    async def _ask(self, query: str) -> list[tuple[dict[str, str], float]] | None:
        return await self._client.vector(self._server, query, STALE_S)


def _key(kind: str, labels: dict[str, str]) -> _Series:
    return (("", kind), *sorted(labels.items()))
