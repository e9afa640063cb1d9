"""A registry's values as plain data, and back: how the counters of several worker processes become one page.

    worker: Registry --take()--> Snapshot ~~channel~~> parent: add(Registry, Snapshot), one for each worker --> one page

Counters and histograms are summed.  A gauge is summed or the largest is taken, as its family says (`across`): connections
open add up, a certificate's end does not.
"""

from __future__ import annotations

import msgspec

from meshproxy.telemetry.families import ATTEMPTS, GAUGE, MAX, Labels
from meshproxy.telemetry.registry import Registry
from meshproxy.telemetry.series import MAX_NAMES, OTHER, Cell, HttpSeries, TcpSeries


class Outcome(msgspec.Struct, array_like=True):
    """A Cell."""

    status: int
    grpc_status: int
    success: bool
    error: str
    count: int
    buckets: list[int]
    sum_ms: float


class Http(msgspec.Struct, array_like=True):
    """An HttpSeries.  `attempts` False: exchanges."""

    attempts: bool
    labels: Labels
    request_total: int
    cancelled_total: int
    retry_total: int
    skipped: dict[str, int]
    outcomes: list[Outcome]
    duration_buckets: list[int]
    duration_sum_ms: float

    @property
    def key(self) -> tuple[bool, Labels]:
        return self.attempts, self.labels

    def in_flight(self) -> int:
        return self.request_total - self.cancelled_total - sum(outcome.count for outcome in self.outcomes)


class Tcp(msgspec.Struct, array_like=True):
    """A TcpSeries."""

    labels: Labels
    open_total: int
    open_connections: int
    read_bytes: int
    write_bytes: int
    close_total: dict[str, int]


class Plain(msgspec.Struct, array_like=True):
    """A family of counters or gauges."""

    name: str
    kind: str
    help: str
    across: str
    values: list[tuple[Labels, float]]


class Snapshot(msgspec.Struct, array_like=True):
    https: list[Http]
    tcps: list[Tcp]
    plain: list[Plain]
    fine: dict[int, int] | None = None  # Registry.fine


def take(registry: Registry) -> Snapshot:
    """What `registry` holds now."""
    registry.measure()
    return Snapshot(
        [_http(series) for series in registry.https.values()],
        [_tcp(series) for series in registry.tcps.values()],
        [
            Plain(
                name, family.kind, family.help, family.across, [(labels, h.value) for labels, h in registry.plain[name].items()]
            )
            for name, family in registry.families.items()
        ],
        registry.fine,
    )


def _http(series: HttpSeries) -> Http:
    return Http(
        series.families is ATTEMPTS,
        series.labels,
        series.request_total,
        series.cancelled_total,
        series.retry_total,
        series.skipped,
        [
            Outcome(cell.status, cell.grpc_status, cell.success, cell.error, cell.count, cell.buckets, cell.sum_ms)
            for cell in (*series.cells.values(), *series.errors.values())
        ],
        series.duration_buckets,
        series.duration_sum_ms,
    )


def _tcp(series: TcpSeries) -> Tcp:
    return Tcp(
        series.labels,
        series.open_total,
        series.open_connections,
        series.read_bytes,
        series.write_bytes,
        series.close_total,
    )


def add(registry: Registry, snapshot: Snapshot) -> None:
    """Add everything of `snapshot` to `registry`, whose bound on series holds for the sum too."""
    for http in snapshot.https:
        add_http(registry, http)
    for tcp in snapshot.tcps:
        add_tcp(registry, tcp)
    for plain in snapshot.plain:
        add_plain(registry, plain)
    add_fine(registry, snapshot.fine)


def add_fine(registry: Registry, fine: dict[int, int] | None) -> None:
    if fine is not None:
        buckets = registry.refine()
        for place, count in fine.items():
            buckets[place] = buckets.get(place, 0) + count


def add_http(registry: Registry, http: Http) -> HttpSeries:
    direction = dict(http.labels)["direction"]
    series = registry.http(direction, http.labels) if http.attempts else registry.route(direction, http.labels)
    series.request_total += http.request_total
    series.cancelled_total += http.cancelled_total
    series.retry_total += http.retry_total
    for reason, count in http.skipped.items():
        series.skipped[reason] = series.skipped.get(reason, 0) + count
    for outcome in http.outcomes:
        cell = _cell(series, outcome)
        cell.count += outcome.count
        cell.sum_ms += outcome.sum_ms
        for place, count in enumerate(outcome.buckets):
            if count:
                cell.buckets[place] += count
    for place, count in enumerate(http.duration_buckets):
        if count:
            series.duration_buckets[place] += count
    series.duration_sum_ms += http.duration_sum_ms
    return series


def _cell(series: HttpSeries, outcome: Outcome) -> Cell:
    """The cell that counts this outcome, as series.py itself would choose it."""
    if outcome.status:
        return series._cell(outcome.status, outcome.grpc_status, outcome.success)
    if outcome.error == OTHER and outcome.success:  # folded there: it keeps its own place
        return series.cells.setdefault(-2 - outcome.success, Cell(0, -1, True, OTHER))
    name = outcome.error
    if name not in series.errors and len(series.errors) >= MAX_NAMES:
        name = OTHER
    return series.errors.setdefault(name, Cell(0, -1, outcome.success, name))


def add_tcp(registry: Registry, tcp: Tcp) -> TcpSeries:
    series = registry.tcp(dict(tcp.labels)["direction"], tcp.labels)
    series.open_total += tcp.open_total
    series.open_connections += tcp.open_connections
    series.read_bytes += tcp.read_bytes
    series.write_bytes += tcp.write_bytes
    for errno, count in tcp.close_total.items():
        series.close_total[errno] = series.close_total.get(errno, 0) + count
    return series


def add_plain(registry: Registry, plain: Plain) -> None:
    for labels, value in plain.values:
        if plain.kind == GAUGE:
            gauge = registry.gauge(plain.name, plain.help, labels, plain.across)
            gauge.value = max(gauge.value, value) if plain.across == MAX else gauge.value + value
        else:
            registry.counter(plain.name, plain.help, labels).value += int(value)
