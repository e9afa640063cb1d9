"""The parent of N workers: starts them, feeds them, counts with them, stops them.

listen() --bind N sockets--> worker i gets socket i of each           kept here: the port is never closed
worker silent --> HUNG: its sockets lent to one that serves --> heard again, or killed
worker dies --> counters kept, its sockets lent to one that serves --> started again (restart.py) --> lending ends
stop()   --> Drain to all --> all ended, or killed at drain_s + 2 s
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Final

from meshproxy.proxy.context import Context
from meshproxy.proxy.memory import FORWARD, SIDECAR
from meshproxy.telemetry.families import FINE
from meshproxy.telemetry.snapshot import Snapshot
from meshproxy.workers.messages import Listen, Start, Unlisten
from meshproxy.workers.plan import ForwardPlan, SidecarPlan, plain_values
from meshproxy.workers.process import DEAD, ENDED, HUNG, SERVING, WorkerProcess
from meshproxy.workers.restart import Restarts
from meshproxy.workers.sockets import bind
from meshproxy.workers.totals import Totals

log = logging.getLogger("meshproxy.workers")

SCRAPE_S: Final = 1.0  # how long a scrape waits for a worker's counters; then those of its last answer are used
# A worker is asked for its counters once a second; that is also its heartbeat.
HUNG_S: Final = 3.0  # who has answered nothing for so long hangs: /ready says so, and another accepts from its sockets
SILENCE_S: Final = 15.0  # and is then ended, and started again
START_S: Final = 30.0  # the same for one that has not served yet: nobody waits for it
KILL_AFTER_S: Final = 2.0  # past drain_s


class Bound:
    """One address: how it is told to workers, and its sockets for each of them."""

    def __init__(self, message: Listen, sockets: list[list[socket.socket]]) -> None:
        self.message = message
        self.sockets = sockets

    def tell(self, worker: WorkerProcess, owner: int) -> None:
        """Have `worker` accept from the sockets of worker `owner` (its own, or lent)."""
        message = self.message
        key = message.key if owner == worker.index else f"{message.key}#{owner}"
        worker.send(
            Listen(key, message.side, message.host, message.port, message.destination),
            [sock.fileno() for sock in self.sockets[owner]],
        )

    def close(self) -> None:
        for sockets in self.sockets:
            for sock in sockets:
                sock.close()


class Supervisor:
    """`greet(worker)` brings a new worker up to date, before it is told to listen; called at every start of one."""

    def __init__(
        self,
        ctx: Context,
        count: int,
        plan: ForwardPlan | SidecarPlan,
        log_level: str,
        greet: Callable[[WorkerProcess], None] = lambda worker: None,
    ) -> None:
        if count < 2:
            raise ValueError(f"{count} workers: one needs no supervisor")
        self.ctx = ctx
        self.count = count
        self.plan = plan
        self.log_level = log_level
        self.greet = greet
        self.totals = Totals(ctx.registry)
        self._fine = False  # somebody asks for latencies in fine buckets
        ctx.pressure.carries_nothing()
        self.workers: list[WorkerProcess] = []
        self.restarts = [Restarts() for _ in range(count)]
        self.lent: dict[int, WorkerProcess] = {}  # index of a worker that does not serve -> who accepts for it
        self.bound: dict[str, Bound] = {}
        self.hung_s = HUNG_S
        self.silence_s = SILENCE_S
        self.stopping = False
        self.changed = asyncio.Event()  # some worker's state did
        self._gathering: asyncio.Task[None] | None = None
        self._poller: Any = None
        self.worker_settings = plain_values(ctx.settings)
        self.worker_settings["workers"] = count
        if limit := ctx.pressure.memory_limit:
            # What is left is the workers'.  (Each takes 1/N of the tighter of this and its cgroup's, and this is tighter.)
            own = (FORWARD if isinstance(plan, ForwardPlan) else SIDECAR).own
            self.worker_settings["memory_limit_bytes"] = max(count, limit - own)
            ctx.pressure.limit_gauge.value = float(own)
        ctx.registry.gauge("meshproxy_workers", "Worker processes that serve.")
        ctx.registry.on_scrape(self._measure)
        self._restarted = ctx.registry.counter(
            "meshproxy_worker_restarts_total", "Worker processes started again after one died."
        )
        self._late = ctx.registry.counter(
            "meshproxy_worker_late_total", "Times a worker's counters did not come in time and its last ones were used."
        )
        self._hung = ctx.registry.counter("meshproxy_worker_hung_total", "Times a worker answered nothing for 3 s.")

    # ---------------------------------------------------------------- starting

    def start(self) -> None:
        """Start all workers; they become ready later (`until_ready`)."""
        self.workers = [self._spawn(index) for index in range(self.count)]
        self._poller = self.ctx.spawn(self._poll(), "workers' counters")

    async def until_ready(self) -> str:
        """ "" when every worker serves; why not, if one ended before it ever did."""
        while True:
            self.changed.clear()
            if all(worker.state == SERVING for worker in self.workers):
                return ""
            for worker in self.workers:
                if worker.state in (DEAD, ENDED) and not worker.served:
                    return f"worker {worker.index} ended before it was ready ({worker.why}); what it said is above"
            await self.changed.wait()

    def _spawn(self, index: int) -> WorkerProcess:
        worker = WorkerProcess(index, self._on_change, self._on_count)
        forward = self.plan if isinstance(self.plan, ForwardPlan) else None
        sidecar = self.plan if isinstance(self.plan, SidecarPlan) else None
        worker.send(Start(index, self.log_level, self.worker_settings, forward, sidecar))
        self.greet(worker)
        for bound in self.bound.values():
            bound.tell(worker, index)
        return worker

    # ---------------------------------------------------------------- listening

    def listen(self, key: str, side: str, host: str, port: int, destination: str = "") -> int:
        """Bind an address and have every worker accept there; returns the port.  Raises ListenError."""
        sockets = bind(host, port, self.count)
        port = sockets[0][0].getsockname()[1]
        bound = self.bound[key] = Bound(Listen(key, side, host, port, destination), sockets)
        for worker in self.workers:
            if worker.alive:
                bound.tell(worker, worker.index)
        for owner, borrower in self.lent.items():
            bound.tell(borrower, owner)
        return port

    def unlisten(self, key: str) -> None:
        self.bound.pop(key).close()
        for worker in self.workers:
            worker.send(Unlisten(key))
        for owner, borrower in self.lent.items():
            borrower.send(Unlisten(f"{key}#{owner}"))

    def _lend(self) -> None:
        """Nobody waits for a worker that is not there: one that serves accepts from its sockets too, until it is back."""
        serving = [worker for worker in self.workers if worker.state == SERVING]
        for worker in self.workers:
            index = worker.index
            had = self.lent.get(index)
            if had is not None and (worker.state == SERVING or had.state != SERVING):
                del self.lent[index]
                for key in self.bound:
                    had.send(Unlisten(f"{key}#{index}"))
            if worker.state in (DEAD, HUNG) and serving and index not in self.lent:
                self.lent[index] = borrower = serving[index % len(serving)]
                for bound in self.bound.values():
                    bound.tell(borrower, index)

    # ---------------------------------------------------------------- events

    def _on_change(self, worker: WorkerProcess) -> None:
        self.changed.set()
        if worker.state == DEAD:
            self.totals.died(worker.index)
        if self.stopping or worker not in self.workers:
            return
        if worker.state == DEAD:
            delay = self.restarts[worker.index].died(monotonic() - worker.started_at)
            log.error("worker %d (pid %d) ended: %s; started again in %.1f s", worker.index, worker.pid, worker.why, delay)
            self.ctx.loop.call_later(delay, self._restart, worker.index)
        self._lend()

    def _restart(self, index: int) -> None:
        if self.stopping:
            return
        self._restarted.value += 1
        previous = self.workers[index]
        self.workers[index] = self._spawn(index)
        log.info("worker %d is pid %d, was %d", index, self.workers[index].pid, previous.pid)

    def _on_count(self, worker: WorkerProcess, snapshot: Snapshot) -> None:
        self.totals.take(worker.index, snapshot)

    # ---------------------------------------------------------------- what they say

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers if worker.alive]

    def unready(self) -> str:
        """ "" when all of them serve."""
        for worker in self.workers:
            if worker.state != SERVING:
                return f"worker {worker.index}: {worker.why or worker.state}"
        return "" if self.workers else "no workers yet"

    def config(self) -> list[dict[str, Any]]:
        return [{"worker": w.index, "pid": w.pid, "state": w.state, "why": w.why} for w in self.workers]

    async def gather(self) -> None:
        """Ask every worker for its counters; at most SCRAPE_S.  Whoever asks meanwhile waits for the same answers."""
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather(), name="counters")
        await asyncio.shield(self._gathering)

    async def page(self, names: Collection[str] | None) -> bytes:
        self._fine = self._fine or (names is not None and FINE.name in names)
        await self.gather()
        return self.totals.page(names, self.pids())

    async def _gather(self) -> None:
        asked = [worker for worker in self.workers if worker.alive]
        answers = await asyncio.gather(*(worker.measure(SCRAPE_S, self._fine) for worker in asked))
        self._late.value += sum(not answered and worker.alive for worker, answered in zip(asked, answers, strict=True))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self.ctx.settings.sweep_s)
            await self.gather()
            now = monotonic()
            self.totals.sweep(now)
            for worker in self.workers:
                if worker.alive and not self.stopping:
                    self._listen_for(worker, now - worker.heard_at)

    def _listen_for(self, worker: WorkerProcess, silence: float) -> None:
        """Its heartbeat came `silence` seconds ago."""
        if worker.state == SERVING and silence > self.hung_s:
            self._hung.value += 1
            log.error("worker %d (pid %d) has answered nothing for %.0f s", worker.index, worker.pid, silence)
            worker.silent(f"has answered nothing for {self.hung_s:g} s (pid {worker.pid})")
        if silence > (self.silence_s if worker.served else START_S):
            log.error("worker %d (pid %d) has answered nothing for %.0f s and is ended", worker.index, worker.pid, silence)
            worker.kill()

    def _measure(self) -> None:
        gauge = self.ctx.registry.gauge("meshproxy_workers", "Worker processes that serve.")
        gauge.value = float(sum(worker.state == SERVING for worker in self.workers))

    async def explain(self, inbound: bool, query: str) -> dict[str, Any]:
        """A trail by the state of the first worker that serves, and which one that is.  Raises ValueError."""
        worker = next((worker for worker in self.workers if worker.state == SERVING), None)
        if worker is None:
            raise ValueError(f"no worker serves now: {self.unready()}")
        explained = await worker.explain(inbound, query, SCRAPE_S)
        if explained is None:
            raise ValueError(f"worker {worker.index} gave no trail within {SCRAPE_S:g} s")
        if not explained.trail:
            raise ValueError(explained.problem or "there are no trails of what carries no mesh traffic")
        trail: dict[str, Any] = json.loads(explained.trail)
        return {**trail, "worker": worker.index, "workers": self.count}

    # ---------------------------------------------------------------- stopping

    async def stop(self, linger: bool = True) -> bool:
        """Drain every worker (`linger`: see Lifecycle.stop).  True if everything in flight finished in time.  Nothing of them
        is left afterwards."""
        self.stopping = True
        self.ctx.draining = True
        if self._poller is not None:
            self._poller.cancel()
        for bound in self.bound.values():
            bound.close()  # the workers' own copies are the last: they empty the queues and close them
        for worker in self.workers:
            if worker.alive:
                worker.drain(linger)
        ending = [asyncio.create_task(worker.over.wait()) for worker in self.workers]
        try:
            if ending:
                await asyncio.wait(ending, timeout=self.ctx.settings.drain_s + KILL_AFTER_S)
        finally:
            for worker in self.workers:
                worker.kill()
            await asyncio.gather(*ending)
        return all(worker.finished for worker in self.workers if worker.state == ENDED)
