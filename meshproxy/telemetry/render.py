"""The page: what a registry's handles hold, as Prometheus' text format.  Built at a scrape, by prometheus_client.

    Registry --collect()--> metrics with samples --generate_latest--> text/plain; version=0.0.4

Histograms become cumulative here and not when they are counted.  A proxy of several processes has one page: its memory, CPU
and descriptors are those of all of them.
"""

from __future__ import annotations

import platform
import resource
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric

import meshproxy
from meshproxy.telemetry.families import (
    ATTEMPTS,
    BUCKETS_MS,
    BUILD_INFO,
    EXCHANGES,
    FINE,
    SERIES,
    TCP_CLOSE,
    TCP_OPEN,
    TCP_OPEN_CONNECTIONS,
    TCP_READ,
    TCP_WRITE,
    Family,
    HttpFamilies,
    Labels,
)
from meshproxy.telemetry.registry import Registry
from meshproxy.telemetry.series import Cell, HttpSeries, fine_bound

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_BOUNDS: Final = [*map(str, BUCKETS_MS), "+Inf"]
_PROCESS: Final = ProcessCollector(registry=None)
_ADDED: Final = frozenset(  # of these the workers' own are added to the parent's
    ("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds")
)


class _Metric(Metric):
    """A family being written; skips samples nobody asked for."""

    def __init__(self, family: Family) -> None:
        # prometheus_client adds _total to counters itself.
        name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
        super().__init__(name, family.help, family.kind)
        self.full = family.name

    def put(self, labels: dict[str, str], value: float) -> None:
        self.add_sample(self.full, labels, value)

    def histogram(self, labels: dict[str, str], buckets: list[int], total: float) -> None:
        count = 0
        for bound, number in zip(_BOUNDS, buckets, strict=True):
            count += number
            self.add_sample(self.full + "_bucket", {**labels, "le": bound}, count)
        self.add_sample(self.full + "_count", labels, count)
        self.add_sample(self.full + "_sum", labels, total)


class Page:
    """A prometheus_client collector over a Registry.  `workers`: pids of processes that count here too."""

    def __init__(self, registry: Registry, names: Collection[str] | None, workers: Collection[int] = ()) -> None:
        self.registry = registry
        self.names = names
        self.workers = workers

    def collect(self) -> Iterable[Metric]:
        for metric in self._all():
            if self.names is None or metric.full in self.names:
                yield metric
        for one in processes(self.workers):
            if self.names is None or one.name in self.names:
                yield one

    def _all(self) -> Iterator[_Metric]:
        registry = self.registry
        for families in (ATTEMPTS, EXCHANGES):
            series = [one for one in registry.https.values() if one.families is families]
            if series:
                yield from self._http(families, series)
        if registry.tcps:
            yield from self._tcp()
        for name, handles in registry.plain.items():
            metric = _Metric(registry.families[name])
            for labels, handle in handles.items():
                metric.put(dict(labels), handle.value)
            yield metric
        if self.names is not None and FINE.name in self.names:
            fine = _Metric(FINE)
            for place, count in sorted((registry.fine or {}).items()):
                fine.put({"direction": "inbound", **dict(registry.common), "upto_ms": f"{fine_bound(place):.6g}"}, count)
            yield fine
        held = _Metric(SERIES)
        held.put({}, len(registry.https) + len(registry.tcps))
        yield held
        build = _Metric(BUILD_INFO)
        build.put({"version": meshproxy.__version__, "python": platform.python_version()}, 1)
        yield build

    def _labels(self, own: Labels) -> dict[str, str]:
        labels = dict(own[:1])  # direction first
        labels.update(self.registry.common)
        labels.update(own)
        return labels

    def _http(self, families: HttpFamilies, series: list[HttpSeries]) -> Iterator[_Metric]:
        requests, responses = _Metric(families.requests), _Metric(families.responses)
        latency, duration = _Metric(families.latency), _Metric(families.duration)
        cancelled, retries, skipped = _Metric(families.cancelled), _Metric(families.retries), _Metric(families.skipped)
        for one in series:
            labels = self._labels(one.labels)
            requests.put(labels, one.request_total)
            cancelled.put(labels, one.cancelled_total)
            by_status: dict[int, list[Cell]] = {}
            for cell in [*one.cells.values(), *one.errors.values()]:
                responses.put({**labels, **_outcome(cell)}, cell.count)
                if cell.status and (cell.count or cell.status == 200):
                    by_status.setdefault(cell.status, []).append(cell)
            for status, cells in by_status.items():
                buckets = [sum(column) for column in zip(*(cell.buckets for cell in cells), strict=True)]
                latency.histogram({**labels, "status_code": str(status)}, buckets, sum(cell.sum_ms for cell in cells))
            duration.histogram(labels, one.duration_buckets, one.duration_sum_ms)
            if one.retry_total or one.skipped:
                retries.put(labels, one.retry_total)
            for reason, count in one.skipped.items():
                skipped.put({**labels, "reason": reason}, count)
        yield from (requests, responses, latency, duration, cancelled, retries, skipped)

    def _tcp(self) -> Iterator[_Metric]:
        opened, closed, now_open = _Metric(TCP_OPEN), _Metric(TCP_CLOSE), _Metric(TCP_OPEN_CONNECTIONS)
        read, written = _Metric(TCP_READ), _Metric(TCP_WRITE)
        for one in self.registry.tcps.values():
            labels = self._labels(one.labels)
            opened.put(labels, one.open_total)
            now_open.put(labels, one.open_connections)
            read.put(labels, one.read_bytes)
            written.put(labels, one.write_bytes)
            for errno, count in one.close_total.items():
                closed.put({**labels, "errno": errno} if errno else labels, count)
        yield from (opened, closed, now_open, read, written)


def _outcome(cell: Cell) -> dict[str, str]:
    labels = {"classification": "success" if cell.success else "failure"}
    if cell.status:
        labels["status_code"] = str(cell.status)
    if cell.grpc_status >= 0:
        labels["grpc_status"] = str(cell.grpc_status)
    if cell.error:
        labels["error"] = cell.error
    return labels


def processes(workers: Collection[int]) -> Iterable[Metric]:
    """What the system counts of this process and its workers."""
    metrics = list(_PROCESS.collect())
    if workers:
        found: dict[str, float] = {}
        for pid in workers:
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                if metric.name in _ADDED:
                    found[metric.name] = found.get(metric.name, 0.0) + metric.samples[0].value
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # workers that died: their CPU was spent all the same
        found["process_cpu_seconds"] = found.get("process_cpu_seconds", 0.0) + ended.ru_utime + ended.ru_stime
        for metric in metrics:
            if metric.name in _ADDED:
                metric.samples = [
                    sample._replace(value=sample.value + found.get(metric.name, 0.0)) for sample in metric.samples
                ]
    return metrics


def render(registry: Registry, names: Collection[str] | None = None, workers: Collection[int] = ()) -> bytes:
    """The whole page, or only the families in `names`."""
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(Page(registry, names, workers))
    return generate_latest(collectors)
