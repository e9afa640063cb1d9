"""What a proxy counts, and the page it is read from.

    endpoint, route, listener --http(), tcp(), counter()--> handles   (same labels, same handle)
    GET /metrics              --render()-----------------> text       (built from the handles at that moment)

Handles are made when an endpoint or a route is, and held; a request only adds.  The number of label sets is bounded: what
comes after the bound is counted together, under `other`, and `meshproxy_series_folded_total` says that this happened.
A handle that its owners have released goes away when it has been idle for a while (`sweep`), as Linkerd's do, so that a
fleet whose pods come and go does not fill the bound with the dead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeVar

from meshproxy.telemetry.families import (
    ATTEMPTS,
    CERT_EXPIRATION,
    COUNTER,
    EXCHANGES,
    FINE,
    FOLDED,
    GAUGE,
    INBOUND,
    LABEL_NAMES,
    REFUSED,
    SUM,
    Family,
    HttpFamilies,
    Labels,
)
from meshproxy.telemetry.series import OTHER, Counter, Gauge, HttpSeries, TcpSeries

__all__ = ["Counter", "Gauge", "HttpSeries", "Registry", "TcpSeries"]

MAX_SERIES: Final = 1000  # 1,000 label sets are about 7 MB and a page of some MB: more is a mistake of configuration
IDLE_S: Final = 600.0  # Linkerd's metrics retention

_ORDER: Final = {name: place for place, name in enumerate(LABEL_NAMES)}

S = TypeVar("S", HttpSeries, TcpSeries)
C = TypeVar("C", Counter, Gauge)


class Registry:
    """All series of one process.

    common      labels of the pod this proxy serves (namespace, deployment, pod), written on every HTTP and TCP series
    max_series  bound on label sets, separately for HTTP, TCP and each plain family
    """

    def __init__(self, common: Labels = (), max_series: int = MAX_SERIES) -> None:
        if max_series < 1:
            raise ValueError(f"max_series must be at least 1, not {max_series}")
        self.common = common
        self.max_series = max_series
        self.https: dict[tuple[str, Labels], HttpSeries] = {}
        self.tcps: dict[Labels, TcpSeries] = {}
        self.families: dict[str, Family] = {}
        self.plain: dict[str, dict[Labels, Counter | Gauge]] = {}
        self.fine: dict[int, int] | None = None  # series.fine_place -> inbound successes; None until somebody asks
        self._released: dict[int, tuple[HttpSeries | TcpSeries, float, int]] = {}
        self._hooks: list[Callable[[], None]] = []
        self.folded = self.counter(FOLDED.name, FOLDED.help)

    def set_common(self, common: Labels) -> None:
        """The pod's own labels became known or changed."""
        self.common = common

    # ---------------------------------------------------------------- handles

    def http(self, direction: str, labels: Labels = ()) -> HttpSeries:
        """The series of attempts (inbound: of requests) with these labels.  Pair with `release` when its owner goes.

        Raises ValueError for a label name that families.LABEL_NAMES does not list.
        """
        return self._http(ATTEMPTS, direction, labels)

    def route(self, direction: str, labels: Labels = ()) -> HttpSeries:
        """The series of exchanges with these labels: what clients saw, written as `route_*`."""
        return self._http(EXCHANGES, direction, labels)

    def _http(self, families: HttpFamilies, direction: str, labels: Labels) -> HttpSeries:
        labels = _ordered(direction, labels)
        key = (families.requests.name, labels)
        series = self.https.get(key)
        if series is None:
            if len(self.https) >= self.max_series:
                labels = self._fold(labels)
                key = (families.requests.name, labels)
                series = self.https.get(key)
            if series is None:
                series = self.https[key] = HttpSeries(labels, families)
                self._refine(series)
        return self._acquire(series)

    def refine(self) -> dict[int, int]:
        """From now on count inbound successes in 2 % buckets too (families.FINE).  Returns the buckets."""
        if self.fine is None:
            self.fine = {}
            for series in self.https.values():
                self._refine(series)
        return self.fine

    def _refine(self, series: HttpSeries) -> None:
        if series.families is ATTEMPTS and ("direction", INBOUND) in series.labels:
            series.fine = self.fine

    def tcp(self, direction: str, labels: Labels = ()) -> TcpSeries:
        """The series of connections with these labels."""
        labels = _ordered(direction, labels)
        series = self.tcps.get(labels)
        if series is None:
            if len(self.tcps) >= self.max_series:
                labels = self._fold(labels)
                series = self.tcps.get(labels)
            if series is None:
                series = self.tcps[labels] = TcpSeries(labels)
        return self._acquire(series)

    def counter(self, name: str, help: str, labels: Labels = ()) -> Counter:
        """A held counter: `.value += 1`.  The name ends in _total; the same name always means the same help text."""
        if not name.endswith("_total"):
            raise ValueError(f"a counter's name ends in _total: {name}")
        return self._plain(Family(name, COUNTER, help), labels, Counter)

    def gauge(self, name: str, help: str, labels: Labels = (), across: str = SUM) -> Gauge:
        """A held gauge: `.value = x`.  `across`: what several workers' values make together, families.SUM or MAX."""
        return self._plain(Family(name, GAUGE, help, across), labels, Gauge)

    def refused(self, reason: str, direction: str) -> Counter:
        return self.counter(REFUSED.name, REFUSED.help, (("direction", direction), ("reason", reason)))

    def cert_expiration(self) -> Gauge:
        return self.gauge(CERT_EXPIRATION.name, CERT_EXPIRATION.help, across=CERT_EXPIRATION.across)

    def on_scrape(self, hook: Callable[[], None]) -> None:
        """Call `hook` before each page, to set gauges that are cheaper to read than to keep."""
        self._hooks.append(hook)

    # ---------------------------------------------------------------- the end of a handle

    def release(self, series: HttpSeries | TcpSeries, now: float) -> None:
        """One owner of a handle is gone (`now`: monotonic seconds).  What was counted stays readable for IDLE_S."""
        series.owners -= 1
        if series.owners <= 0:
            self._released[id(series)] = (series, now, _activity(series))

    def sweep(self, now: float) -> None:
        """Forget handles that were released and saw nothing for IDLE_S.  Call it every minute or so."""
        for key, (series, since, activity) in list(self._released.items()):
            if series.owners > 0:
                del self._released[key]
            elif _activity(series) != activity or series_open(series):
                self._released[key] = (series, now, _activity(series))
            elif now - since >= IDLE_S:
                del self._released[key]
                if isinstance(series, HttpSeries):
                    self.https.pop((series.families.requests.name, series.labels), None)
                else:
                    self.tcps.pop(series.labels, None)

    # ---------------------------------------------------------------- the page

    def measure(self) -> None:
        """Have the hooks set what is read and not kept."""
        for hook in self._hooks:
            hook()

    def render(self, names: Collection[str] | None = None) -> bytes:
        """The page in Prometheus' text format; with `names`, only these families (as `/metrics?name[]=...` asks)."""
        from meshproxy.telemetry.render import render  # prometheus_client, 5 MB: needed at the first scrape, not before

        self.measure()
        if names is not None and FINE.name in names:
            self.refine()
        return render(self, names)

    # ---------------------------------------------------------------- helpers

    def _acquire(self, series: S) -> S:
        series.owners += 1
        return series

    def _fold(self, labels: Labels) -> Labels:
        self.folded.value += 1
        return tuple((name, value if name == "direction" else OTHER) for name, value in labels)

    def _plain(self, family: Family, labels: Labels, make: type[C]) -> C:
        known = self.families.setdefault(family.name, family)
        if known.kind != family.kind:
            raise ValueError(f"{family.name} is already a {known.kind}")
        handles = self.plain.setdefault(family.name, {})
        labels = tuple(sorted(labels))
        handle = handles.get(labels)
        if handle is None and len(handles) >= self.max_series:
            labels = tuple((name, OTHER) for name, _ in labels)
            self.folded.value += 1
            handle = handles.get(labels)
        if handle is None:
            handle = handles[labels] = make(labels)
        assert isinstance(handle, make)
        return handle


def _ordered(direction: str, labels: Labels) -> Labels:
    """Direction first, then in the order of LABEL_NAMES; empty values left out."""
    for name, _ in labels:
        if name not in _ORDER:
            raise ValueError(f"unknown metric label {name!r}; add it to telemetry.families.LABEL_NAMES if it is bounded")
    given = [pair for pair in labels if pair[1] and pair[0] != "direction"]
    given.sort(key=lambda pair: _ORDER[pair[0]])
    return (("direction", direction), *given)


def _activity(series: HttpSeries | TcpSeries) -> int:
    if isinstance(series, HttpSeries):
        return series.request_total
    return series.open_total + series.read_bytes + series.write_bytes


def series_open(series: HttpSeries | TcpSeries) -> bool:
    """Is something still under way that will be counted here?"""
    if isinstance(series, HttpSeries):
        return series.in_flight() > 0
    return series.open_connections > 0
