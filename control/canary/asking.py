"""The answers to what a tick asks for: webhooks are called, metrics measured.

AskHook    -> HookClient.call                -> HookResult
AskMetrics -> MetricSource.measure, each     -> {metric: Measurement}
"""

from __future__ import annotations

import asyncio
import logging

from control.canary.declared.hooks import HookResult, checksum, payload
from control.canary.declared.metric import DURATION, Kind, Metric
from control.canary.declared.spec import CanarySpec
from control.canary.machine.analysis import Measurement
from control.canary.machine.question import Answer, AskHook, AskMetrics, Question
from control.canary.machine.status import Status
from control.canary.measuring.source import MetricSource, Query, Subject
from control.canary.metrics import CanaryMetrics
from control.canary.telling.hook_client import HookClient

log = logging.getLogger("meshproxy.canary")


class Asking:
    """`hooks` None: none agrees."""

    def __init__(self, source: MetricSource, hooks: HookClient | None, metrics: CanaryMetrics) -> None:
        self._source = source
        self._hooks = hooks
        self._metrics = metrics

    async def answer(self, spec: CanarySpec, status: Status, question: Question) -> Answer:
        match question:
            case AskHook(hook=hook, phase=phase):
                if self._hooks is None:
                    return HookResult(False, "this controller calls no webhooks")
                said = checksum(status.tracked, status.last_applied)
                body = payload(spec.name, spec.namespace, phase, said, dict(hook.metadata))
                return await self._hooks.call(hook, body)
            case AskMetrics(besides=besides, of_primary=of_primary):
                metrics = tuple(dict.fromkeys(besides if of_primary else (*spec.metrics, *besides)))
                # Side by side: one server that hangs delays none of the others.
                seen = await asyncio.gather(*(self._measure(spec, one, of_primary) for one in metrics))
                return dict(zip(metrics, seen, strict=True))

    async def _measure(self, spec: CanarySpec, metric: Metric, of_primary: bool) -> Measurement:
        try:
            seen = await self._source.measure(Query(metric, Subject.of(spec), metric.interval_s, of_primary))
        except Exception as error:  # noqa: BLE001  # whatever broke: not to know is a failed check, counted, so that it cannot hang a release
            self._metrics.error(error)
            log.warning("canary %s: %s of %s: %s", spec.full_name, type(error).__name__, metric.name, error)
            return Measurement(error=True, reason=f"{type(error).__name__}: {error}")
        if seen.value is not None:
            in_seconds = metric.name == DURATION and metric.kind is Kind.BUILT_IN
            self._metrics.analysed(spec, metric.name, seen.value / 1000.0 if in_seconds else seen.value)
        return seen
