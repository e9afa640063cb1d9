"""The objects that count: one for each label set, held by whoever counts, so that the data path never looks a label up.

    endpoint --holds--> HttpSeries  request_total, cells {outcome: Cell}, duration buckets
                                                             |
                                              count, latency buckets, latency sum

Counting is an integer addition on a held object (0.06 us; prometheus_client's own `labels().observe()` costs 3.3).  What a
scrape needs is put together when there is one (telemetry/render.py).

Most exchanges take one attempt, which ends as they do.  So who counts an answer says which outcome and which buckets it
belongs to (`key_of`, BOUNDS), once, and then counts it in both series.

**Every request ends in one outcome.**  request_total - sum of response_total - cancelled_total = requests in flight.
"""

from __future__ import annotations

from bisect import bisect_left
from math import log
from typing import Final

from meshproxy.telemetry.families import ATTEMPTS, BUCKETS_MS, FINE_GROWTH, FINE_LEAST_MS, HttpFamilies, Labels
from meshproxy.wire.native import mypyc_attr

# An application may answer with any status; 64 different outcomes of one label set is plenty, the rest is one more.
MAX_OUTCOMES: Final = 64
MAX_NAMES: Final = 32  # error names, reasons, errnos of one series: fixed labels of ours, so this is a guard only

BOUNDS: Final = [float(bound) for bound in BUCKETS_MS]  # a value's bucket: bisect_left(BOUNDS, milliseconds)
_SIZE: Final = len(BOUNDS) + 1
OTHER: Final = "other"

_FINE_SCALE: Final = 1.0 / log(FINE_GROWTH)
_FINE_MOST: Final = 999  # 11 hours; a bound on what one histogram can hold


def key_of(status: int, grpc_status: int, success: bool) -> int:
    """An outcome as one number: what `HttpSeries.cells` is keyed by.  `grpc_status` -1 .. 16."""
    return (status * 32 + grpc_status) * 2 + success


def fine_place(latency_ms: float) -> int:
    """The bucket of a fine histogram that a latency is in: 0 up to FINE_LEAST_MS, then 2 % each."""
    if latency_ms <= FINE_LEAST_MS:
        return 0
    return min(int(log(latency_ms / FINE_LEAST_MS) * _FINE_SCALE) + 1, _FINE_MOST)


def fine_bound(place: int) -> float:
    """Its upper bound, milliseconds."""
    return float(FINE_LEAST_MS * FINE_GROWTH**place)


class Counter:
    """`counter.value += 1`."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.value = 0


class Gauge:
    """`gauge.value = 12.5`."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: Labels = ()) -> None:
        self.labels = labels
        self.value = 0.0


class Cell:
    """Responses of one outcome (status, gRPC status, classification) and how long they took."""

    __slots__ = ("buckets", "count", "error", "grpc_status", "status", "success", "sum_ms")

    def __init__(self, status: int, grpc_status: int, success: bool, error: str = "") -> None:
        """`status` 0: no response, `error` says why not."""
        self.status = status
        self.grpc_status = grpc_status
        self.success = success
        self.error = error
        self.count = 0
        self.buckets = [0] * _SIZE  # not cumulative: a scrape adds them up
        self.sum_ms = 0.0


@mypyc_attr(allow_interpreted_subclasses=True)  # tests bring faults in by them
class HttpSeries:
    """HTTP requests of one label set.

    labels      sorted as they are written; without those of the pod itself, which the registry adds
    families    the names it is written under: attempts or exchanges

    `request_total += 1` when a request begins; then exactly one of `response` (or `answered`), `failed`, `cancelled`.
    """

    __slots__ = (
        "cancelled_total", "cells", "duration_buckets", "duration_sum_ms", "errors", "families", "fine", "labels", "owners",
        "request_total", "retry_total", "skipped",
    )  # fmt: skip

    def __init__(self, labels: Labels, families: HttpFamilies = ATTEMPTS) -> None:
        self.labels = labels
        self.families = families
        self.owners = 0  # the registry's: how many hold this handle
        self.fine: dict[int, int] | None = None  # the registry's too, when somebody asks for it: fine_place -> successes
        self.request_total = 0
        self.cancelled_total = 0
        self.retry_total = 0
        self.skipped: dict[str, int] = {}
        self.errors: dict[str, Cell] = {}
        self.duration_buckets = [0] * _SIZE
        self.duration_sum_ms = 0.0
        self.cells: dict[int, Cell] = {}
        # There from the start, at zero: a rate over a series that appears with its first failure misses that failure.
        # 502, 503 and 504 are what the mesh itself answers with.
        self._cell(200, -1, True)
        for status in (500, 502, 503, 504):
            self._cell(status, -1, False)

    def request(self) -> None:
        """A request began."""
        self.request_total += 1

    def response(self, status: int, grpc_status: int, success: bool, latency_ms: float, duration_ms: float) -> None:
        """It ended with a response.  `grpc_status` -1: none.  `latency_ms` to first data, `duration_ms` to the end."""
        self.answered(
            key_of(status, grpc_status, success),
            latency_ms,
            bisect_left(BOUNDS, latency_ms),
            duration_ms,
            bisect_left(BOUNDS, duration_ms),
        )

    def answered(self, key: int, latency_ms: float, latency_bucket: int, duration_ms: float, duration_bucket: int) -> None:
        """`response`, for who knows the key and the buckets already."""
        cell = self.cells.get(key)
        if cell is None:
            outcome = (key >> 1) + 1  # status * 32, and 0 .. 17 for a gRPC status of -1 .. 16
            cell = self._cell(outcome >> 5, (outcome & 31) - 1, key & 1 == 1)
        cell.count += 1
        cell.buckets[latency_bucket] += 1
        cell.sum_ms += latency_ms
        self.duration_buckets[duration_bucket] += 1
        self.duration_sum_ms += duration_ms
        fine = self.fine
        if fine is not None and key & 1:
            place = fine_place(latency_ms)
            fine[place] = fine.get(place, 0) + 1

    def failed(self, error: str, duration_ms: float) -> None:
        """It ended without a complete response.  `error` is one of a small fixed set of names ("reset", "timeout")."""
        cell = self.errors.get(error)
        if cell is None:
            if len(self.errors) >= MAX_NAMES:
                error = OTHER
            cell = self.errors.setdefault(error, Cell(0, -1, False, error))
        cell.count += 1
        self.duration_buckets[bisect_left(BOUNDS, duration_ms)] += 1
        self.duration_sum_ms += duration_ms

    def cancelled(self) -> None:
        """The client gave it up: neither success nor failure of the service, so counted apart from both."""
        self.cancelled_total += 1

    def retried(self) -> None:
        """One more attempt was sent."""
        self.retry_total += 1

    def retry_skipped(self, reason: str) -> None:
        """An attempt failed and was not tried again (policy.retry.REASONS)."""
        if reason not in self.skipped and len(self.skipped) >= MAX_NAMES:
            reason = OTHER
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def in_flight(self) -> int:
        ended = sum(cell.count for cell in self.cells.values()) + sum(cell.count for cell in self.errors.values())
        return self.request_total - ended - self.cancelled_total

    def _cell(self, status: int, grpc_status: int, success: bool) -> Cell:
        """A new outcome: rare.  The first gRPC answer brings gRPC's usual outcomes with it, at zero."""
        if grpc_status >= 0 and not any(cell.grpc_status >= 0 for cell in self.cells.values()):
            self._add(200, 0, True)
            self._add(200, 14, False)
        return self._add(status, grpc_status, success)

    def _add(self, status: int, grpc_status: int, success: bool) -> Cell:
        key = key_of(status, grpc_status, success)
        cell = self.cells.get(key)
        if cell is None:
            if len(self.cells) >= MAX_OUTCOMES:  # fold: keeps success and failure apart, forgets which
                status, grpc_status = 0, -1
                key = -2 - success
                if key in self.cells:
                    return self.cells[key]
            cell = self.cells[key] = Cell(status, grpc_status, success, OTHER if status == 0 else "")
        return cell


# Of an endpoint whose attempts are not counted apart, because they are the exchanges: nobody reads it.
NOT_COUNTED: Final = HttpSeries(())


class TcpSeries:
    """Connections of one label set."""

    __slots__ = ("close_total", "labels", "open_connections", "open_total", "owners", "read_bytes", "write_bytes")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.owners = 0
        self.open_total = 0
        self.open_connections = 0
        self.read_bytes = 0
        self.write_bytes = 0
        self.close_total: dict[str, int] = {"": 0}

    def opened(self) -> None:
        self.open_total += 1
        self.open_connections += 1

    def closed(self, errno: str = "") -> None:
        """`errno`: "" for an orderly end, else a name ("ECONNRESET")."""
        self.open_connections -= 1
        if errno not in self.close_total and len(self.close_total) >= MAX_NAMES:
            errno = OTHER
        self.close_total[errno] = self.close_total.get(errno, 0) + 1
