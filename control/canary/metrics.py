"""The canary controller's own numbers, under Flagger's names, as a prometheus_client collector.

    registry.register(controller.metrics)        then every scrape of the control plane's admin page asks collect()

Label `name` is the target's name, as in Flagger.  Series of a Canary that is gone go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.canary.declared.spec import CanarySpec
from control.canary.machine import strategy
from control.canary.machine.status import Phase, Status
from meshproxy import __version__

# Seconds a tick takes: memory reads and a few file writes here, API requests in Kubernetes.
TICK_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0)


@dataclass(slots=True)
class _Release:
    spec: CanarySpec
    status: Status
    analysis: dict[str, float] = field(default_factory=dict)  # metric name -> its last value
    buckets: list[int] = field(default_factory=lambda: [0] * (len(TICK_BUCKETS) + 1))
    seconds: float = 0.0
    finished: dict[tuple[str, str], int] = field(default_factory=dict)  # (strategy, how) -> releases


class CanaryMetrics(Collector):
    """What the controller reports to; plain dictionaries, turned into families at a scrape."""

    def __init__(self) -> None:
        self._releases: dict[tuple[str, str], _Release] = {}
        self.errors: dict[str, int] = {}  # exception name -> ticks it ended

    def seen(self, spec: CanarySpec, status: Status) -> None:
        release = self._releases.setdefault((spec.namespace, spec.name), _Release(spec, status))
        release.spec, release.status = spec, status

    def ticked(self, spec: CanarySpec, seconds: float, finished: str) -> None:
        release = self._releases.get((spec.namespace, spec.name))
        if release is None:
            return
        release.buckets[next((i for i, le in enumerate(TICK_BUCKETS) if seconds <= le), len(TICK_BUCKETS))] += 1
        release.seconds += seconds
        if finished:
            ended = (strategy.strategy(spec).value, finished)
            release.finished[ended] = release.finished.get(ended, 0) + 1

    def analysed(self, spec: CanarySpec, metric: str, value: float) -> None:
        """The last value of a metric, as Flagger gives it: in the metric's unit, a built-in duration in seconds."""
        if release := self._releases.get((spec.namespace, spec.name)):
            release.analysis[metric] = value

    def error(self, error: BaseException) -> None:
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1

    def keep_only(self, keys: Iterable[tuple[str, str]]) -> None:
        alive = set(keys)
        for key in [key for key in self._releases if key not in alive]:
            del self._releases[key]

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("flagger_info", "Version and mesh provider.", labels=["version", "mesh_provider"])
        info.add_metric([__version__, "meshproxy"], 1)
        yield info
        total = GaugeMetricFamily("flagger_canary_total", "Number of canaries by namespace.", labels=["namespace"])
        for namespace in sorted({namespace for namespace, _ in self._releases}):
            total.add_metric([namespace], sum(1 for key in self._releases if key[0] == namespace))
        yield total
        status = GaugeMetricFamily(
            "flagger_canary_status", "0 progressing, 1 otherwise, 2 failed.", labels=["name", "namespace"]
        )
        weight = GaugeMetricFamily("flagger_canary_weight", "Percent of the traffic.", labels=["workload", "namespace"])
        analysis = GaugeMetricFamily(
            "flagger_canary_metric_analysis", "Last result of a metric's analysis.", labels=["name", "namespace", "metric"]
        )
        duration = HistogramMetricFamily(
            "flagger_canary_duration_seconds", "Seconds a tick took.", labels=["name", "namespace"]
        )
        ended = ["name", "namespace", "deployment_strategy", "analysis_status"]
        successes = CounterMetricFamily("flagger_canary_successes", "Releases promoted.", labels=ended)
        failures = CounterMetricFamily("flagger_canary_failures", "Releases rolled back.", labels=ended)
        for release in self._releases.values():
            spec, labels = release.spec, [release.spec.target, release.spec.namespace]
            status.add_metric(labels, {Phase.PROGRESSING: 0, Phase.FAILED: 2}.get(release.status.phase, 1))
            routing = strategy.routing(spec, release.status)
            weight.add_metric([spec.target, spec.namespace], routing.canary)
            weight.add_metric([spec.primary, spec.namespace], routing.primary)
            if routing.baseline:
                weight.add_metric([spec.baseline, spec.namespace], routing.baseline)
            for metric, value in sorted(release.analysis.items()):
                analysis.add_metric([*labels, metric], value)
            count, buckets = 0, []
            for bound, number in zip([*map(str, TICK_BUCKETS), "+Inf"], release.buckets, strict=True):
                count += number
                buckets.append((bound, float(count)))
            duration.add_metric(labels, buckets, release.seconds)
            # Those of the present strategy from the start, at zero: a rate needs a first value.
            present = strategy.strategy(spec).value
            for name, how in sorted({(present, how) for how in ("completed", "skipped", "failed")} | release.finished.keys()):
                number = release.finished.get((name, how), 0)
                if how == "failed":
                    failures.add_metric([*labels, name, "completed"], number)
                else:
                    successes.add_metric([*labels, name, how], number)
        yield from (status, weight, analysis, duration, successes, failures)
        errors = CounterMetricFamily("meshproxy_canary_errors", "Ticks that ended in an exception.", labels=["error"])
        for name, number in sorted(self.errors.items()):
            errors.add_metric([name], number)
        yield errors
