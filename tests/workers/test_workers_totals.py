"""The sum of several processes' counters: nothing twice, nothing lost, never less than before."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.telemetry.families import MAX
from meshproxy.telemetry.golden import parse
from meshproxy.telemetry.registry import IDLE_S, Registry
from meshproxy.telemetry.snapshot import Snapshot, add, take
from meshproxy.workers.totals import WORKER_LOST, Totals

NAMES = ("a", "b", "c")


def told(registry: Registry) -> Snapshot:
    """As it arrives: through the channel's encoding."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(take(registry)), type=Snapshot)


class Act:
    """Something a worker counts."""

    def __init__(self, kind: str, name: str, value: int) -> None:
        self.kind, self.name, self.value = kind, name, value

    def on(self, registry: Registry) -> None:
        labels = (("authority", self.name),)
        if self.kind == "answered":
            series = registry.http("outbound", labels)
            series.request()
            series.response(
                (200, 404, 503, 777)[self.value % 4], (-1, 0, 14)[self.value % 3], self.value % 2 == 0, self.value, 9.5
            )
        elif self.kind == "failed":
            series = registry.route("outbound", labels)
            series.request()
            series.failed(f"error {self.value % 5}", 1.0)
        elif self.kind == "cancelled":
            series = registry.http("inbound", labels)
            series.request()
            series.cancelled()
            series.retry_skipped(f"reason {self.value % 3}")
        elif self.kind == "tcp":
            tcp = registry.tcp("outbound", (("peer", "src"), *labels))
            tcp.opened()
            tcp.read_bytes += self.value
            tcp.closed("" if self.value % 2 else "ECONNRESET")
        else:
            registry.refused(self.name, "outbound").value += self.value


ACTS = st.builds(
    Act, st.sampled_from(("answered", "failed", "cancelled", "tcp", "refused")), st.sampled_from(NAMES), st.integers(0, 50)
)


def page(registry: Registry) -> dict[object, float]:
    """Without what is the process' own, and without zeros: they may be there or not."""
    return {
        key: value
        for key, value in parse(registry.render().decode()).items()
        if value and not key[0].startswith(("process_", "meshproxy_series"))
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), ACTS), max_size=60), st.lists(st.integers(0, 59), max_size=6))
def test_workers_that_count_and_die_make_the_same_page_as_one_process(acts: list[tuple[int, Act]], deaths: list[int]) -> None:
    one, totals = Registry(), Totals(Registry())
    workers = [Registry() for _ in range(4)]
    for number, (index, act) in enumerate(acts):
        act.on(one)
        act.on(workers[index])
        if number in deaths:
            totals.take(index, told(workers[index]))
            totals.died(index)
            workers[index] = Registry()
    for index, worker in enumerate(workers):
        totals.take(index, told(worker))
    assert page(totals.sum()) == page(one)


def test_gauges_are_those_of_the_living_summed_or_the_largest_as_the_family_says() -> None:
    totals = Totals(Registry())
    for index, (held, state) in enumerate(((5.0, 1.0), (7.0, 2.0), (100.0, 9.0))):
        worker = Registry()
        worker.gauge("held_bytes", "h").value = held
        worker.gauge("state", "s", across=MAX).value = state
        worker.tcp("outbound").opened()
        totals.take(index, told(worker))
    totals.died(2)
    whole = totals.sum()
    assert whole.gauge("held_bytes", "h").value == 12.0
    assert whole.gauge("state", "s").value == 2.0
    tcp = whole.tcp("outbound")
    assert (tcp.open_total, tcp.open_connections, tcp.close_total[WORKER_LOST]) == (3, 2, 1)


def test_requests_in_flight_when_their_worker_dies_end_in_an_error_of_their_own() -> None:
    totals, worker = Totals(Registry()), Registry()
    series = worker.http("outbound")
    for _ in range(5):
        series.request()
    series.response(200, -1, True, 1.0, 1.0)
    series.cancelled()
    totals.take(0, told(worker))
    assert totals.sum().http("outbound").in_flight() == 3
    totals.died(0)
    after = totals.sum().http("outbound")
    assert (after.request_total, after.in_flight(), after.errors[WORKER_LOST].count) == (5, 0, 3)
    totals.died(0)  # nothing more is known of it
    assert totals.sum().http("outbound").request_total == 5


def test_a_series_that_one_worker_forgot_stays_in_the_sum_while_another_counts_it() -> None:
    totals = Totals(Registry())
    busy, idle = Registry(), Registry()
    for worker, count in ((busy, 3), (idle, 4)):
        series = worker.http("outbound", (("authority", "a"),))
        tcp = worker.tcp("outbound", (("target_addr", "b"),))
        for _ in range(count):
            series.request()
            tcp.opened()
            tcp.closed()
    totals.take(0, told(busy))
    totals.take(1, told(idle))
    totals.take(1, told(Registry()))

    def counted() -> tuple[int, int]:
        whole = totals.sum()
        return (
            sum(series.request_total for series in whole.https.values()),
            sum(series.open_total for series in whole.tcps.values()),
        )

    totals.sweep(1000.0)
    totals.sweep(1000.0 + 10 * IDLE_S)
    assert counted() == (7, 7)
    totals.take(0, told(Registry()))  # now nobody counts it
    totals.sweep(20_000.0)
    assert counted() == (7, 7)
    totals.sweep(20_000.0 + IDLE_S - 1)
    assert counted() == (7, 7)
    totals.sweep(20_000.0 + IDLE_S)
    assert counted() == (0, 0)


def test_the_bound_on_series_holds_for_the_sum() -> None:
    whole = Registry(max_series=3)
    for index in range(4):
        worker = Registry()
        for number in range(3):
            worker.http("outbound", (("authority", f"{index}-{number}"),)).request()
        add(whole, told(worker))
    assert len(whole.https) <= 4  # three and `other`
    assert sum(series.request_total for series in whole.https.values()) == 12


def test_outcomes_that_were_folded_keep_their_counts() -> None:
    worker = Registry()
    series = worker.http("outbound")
    for status in range(200, 300):
        series.request()
        series.response(status, -1, True, 1.0, 1.0)
        series.request()
        series.response(status + 300, -1, False, 1.0, 1.0)
    for number in range(40):
        series.request()
        series.failed(f"error {number}", 1.0)
    totals = Totals(Registry())
    totals.take(0, told(worker))
    totals.take(1, told(worker))
    found = totals.sum().http("outbound")
    assert found.request_total == 2 * 240
    assert found.in_flight() == 0
    assert sum(cell.count for cell in found.cells.values() if cell.success) == 200
