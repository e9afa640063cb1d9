"""What the scenes play on: the mesh, the visitors, the watch, and what has been noted for the verdict so far."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from control.canary.declared.spec import duration
from meshproxy.demo.breakage import Break
from meshproxy.demo.ledger import ServiceLedger
from meshproxy.demo.load import Load
from meshproxy.demo.mesh import Mesh, Pod, Stalled
from meshproxy.demo.observed import Intrusion, Kill, Observed, Recording
from meshproxy.demo.relay import Relay
from meshproxy.demo.scratch import Scratch
from meshproxy.demo.view import View
from meshproxy.demo.watch import Watch

SHOP = "http://web.shop/"


@dataclass(slots=True)
class Noted:
    """What the scenes saw themselves; the ledgers and the timeline say the rest."""

    slow_pod: str = ""
    prices_pods: tuple[str, ...] = ()
    slow_window: tuple[float, float] = (0.0, 0.0)
    kill: Kill | None = None
    intrusions: list[Intrusion] = field(default_factory=list)
    stalled: str = ""  # a scene that did not come to its end


class Stage:
    """Made before the mesh is up; `open` and `close` bracket the scenes."""

    def __init__(self, home: Path, name: str, rate: float, view: View, breakage: Break = Break.NOTHING) -> None:
        """Args:
        home: a directory for this run: manifests, ledgers, the recording, the mesh's output.
        name: of the mesh.
        rate: requests a second.
        breakage: what is to be wrong on purpose; see breakage.py.
        """
        self.home = home
        self.rate = rate
        self.view = view
        self.breakage = breakage
        self.marker = f"marker-{secrets.token_hex(8)}"
        self.ledger = ServiceLedger(home / "services.jsonl")
        self.scratch = Scratch.copy(home / "shop", self.ledger.path)
        breakage.apply(self.scratch)
        self.mesh = Mesh(name, self.scratch.directory, home)
        self.watch = Watch(self.mesh)
        self.noted = Noted()
        self.load: Load | None = None
        self.relay: Relay | None = None
        self.interval, self.steps = _analysis(self.scratch)
        self._tasks: list[asyncio.Task[None]] = []

    # -- opening and closing

    async def open(self) -> None:
        """Start the mesh.  Raises MeshFailed, Stalled."""
        await self.mesh.start()
        self._spawn(self.watch.run(), "watch")

    def visitors(self, prefix: str = "r") -> Load:
        """Let visitors in; `prefix` is that of their request ids."""
        self.load = Load(self.mesh.gateway, SHOP, self.rate, self.marker, self.home / "client.jsonl", prefix)
        self._spawn(self.load.run(), "visitors")
        return self.load

    async def last_visitors(self) -> None:
        """Let no more in, and wait until those inside have left."""
        if self.load is not None:
            self.load.stop()
            await asyncio.gather(*(task for task in self._tasks if task.get_name() == "visitors"), return_exceptions=True)

    async def close(self) -> None:
        """End all of it, whatever state it is in."""
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.relay is not None:
            await self.relay.close()
        await self.mesh.end()
        for result in results:
            if isinstance(result, Exception):  # a cancelled task is none
                raise result

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def check(self) -> None:
        """Raise what ended a task of ours early, rather than play on without it."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    # -- for scenes

    async def until(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Wait for a condition.  Raises Stalled, MeshFailed, and what ended a task of ours."""

        def checked() -> bool:
            self.check()
            return condition()

        await self.mesh.until(checked, deadline_s, what)

    def replicas(self, app: str) -> list[Pod]:
        """Pods of an app that are fit for traffic."""
        return [pod for pod in self.mesh.pods() if pod.app == app and pod.ready and not pod.terminating]

    async def counted(self, number: int, deadline_s: float) -> None:
        """Wait until so many more requests have been answered."""
        load = self.load
        assert load is not None, "no visitors yet"
        wanted = len(load.requests) + number
        await self.until(lambda: len(load.requests) >= wanted, deadline_s, f"{number} more answers")

    def observed(self) -> Observed:
        """All that is known now."""
        noted = self.noted
        return Observed(
            trust_domain=self.mesh.info.trust_domain,
            interval=self.interval,
            steps=self.steps,
            requests=self.load.requests if self.load else [],
            handled=self.ledger.read(),
            timeline=self.watch.timeline,
            marker=self.marker,
            slow_pod=noted.slow_pod,
            prices_pods=noted.prices_pods,
            slow_window=noted.slow_window,
            kill=noted.kill,
            recording=self.relay.recording if self.relay else Recording(),
            intrusions=noted.intrusions,
        )


def _analysis(scratch: Scratch) -> tuple[float, tuple[int, ...]]:
    """Interval in seconds and steps in percent, as the Canary of the manifests has them."""
    for document in yaml.safe_load_all((scratch.directory / "catalogue.yaml").read_text()):
        if document["kind"] == "Canary":
            analysis = document["spec"]["analysis"]
            return duration(analysis["interval"], "analysis.interval", 60.0), tuple(analysis["stepWeights"])
    raise Stalled("the shop's manifests have no Canary")
