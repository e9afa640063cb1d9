"""The counters of all workers, those that died included, as one page.

    Measured --> live[worker] --- died / forgot an idle series ---> ended
                      |                                               |
    own registry -----+------------------- page() --------------------'

Totals never go down: what a worker had counted when it was last heard of stays when it dies.  It is asked every second, so
that a killed worker takes less than a second of counting with it.  Its requests that had begun and not ended at that moment
are counted as ended by the error `worker_lost`: every request ends in one outcome.

Gauges are the living's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from meshproxy.telemetry.families import COUNTER, Labels
from meshproxy.telemetry.registry import IDLE_S, Registry
from meshproxy.telemetry.snapshot import Http, Outcome, Plain, Snapshot, Tcp, add, add_fine, add_http, add_plain, add_tcp, take

WORKER_LOST: Final = "worker_lost"


class Totals:
    """`own`: the parent's registry."""

    def __init__(self, own: Registry) -> None:
        self.own = own
        self.live: dict[int, Snapshot] = {}
        self.ended = Registry()
        self._idle_since: dict[tuple[object, Labels], float] = {}

    def take(self, worker: int, snapshot: Snapshot) -> None:
        """What a worker counts now.  A series that it has forgotten (idle for long) stays in the sum while another worker
        still counts it; otherwise the sum would seem to go down."""
        before = self.live.get(worker)
        self.live[worker] = snapshot
        if before is not None:
            https = {http.key for http in snapshot.https}
            tcps = {tcp.labels for tcp in snapshot.tcps}
            self._bury(
                [http for http in before.https if http.key not in https], [t for t in before.tcps if t.labels not in tcps], []
            )

    def died(self, worker: int) -> None:
        last = self.live.pop(worker, None)
        if last is None:
            return
        for http in last.https:
            lost = http.in_flight()
            if lost > 0:
                http.outcomes.append(Outcome(0, -1, False, WORKER_LOST, lost, [], 0.0))
        add_fine(self.ended, last.fine)
        self._bury(last.https, last.tcps, last.plain)

    def _bury(self, https: list[Http], tcps: list[Tcp], plain: list[Plain]) -> None:
        for http in https:
            add_http(self.ended, http)
        for tcp in tcps:
            tcp.close_total[WORKER_LOST] = tcp.close_total.get(WORKER_LOST, 0) + tcp.open_connections
            if not tcp.open_connections:
                del tcp.close_total[WORKER_LOST]
            tcp.open_connections = 0
            add_tcp(self.ended, tcp)
        for family in plain:
            if family.kind == COUNTER:
                add_plain(self.ended, family)

    def sweep(self, now: float) -> None:
        """Forget what no worker has counted for IDLE_S."""
        https = {http.key for snapshot in self.live.values() for http in snapshot.https}
        tcps = {tcp.labels for snapshot in self.live.values() for tcp in snapshot.tcps}
        idle = self._idle_since
        for name, series in list(self.ended.https.items()):
            if (bool(name[0] == "request_total"), series.labels) in https:
                idle.pop(name, None)
            elif now - idle.setdefault(name, now) >= IDLE_S:
                del self.ended.https[name], idle[name]
        for labels in list(self.ended.tcps):
            if labels in tcps:
                idle.pop(("tcp", labels), None)
            elif now - idle.setdefault(("tcp", labels), now) >= IDLE_S:
                del self.ended.tcps[labels], idle["tcp", labels]

    def sum(self) -> Registry:
        """All of it as one registry."""
        whole = Registry(self.own.common, self.own.max_series)
        for part in (take(self.own), take(self.ended), *self.live.values()):
            add(whole, part)
        return whole

    def page(self, names: Collection[str] | None, pids: Collection[int]) -> bytes:
        """Prometheus' text; `pids`: of the living, whose memory and CPU are added too."""
        from meshproxy.telemetry.render import render

        return render(self.sum(), names, pids)
