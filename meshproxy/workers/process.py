"""One worker as its parent sees it: a process, a channel, and where it is in its life.

STARTING --Ready("")--> SERVING --Ready(why)--> STARTING (it runs and cannot serve)
    |                      |  ^
    |                 silent  heard          HUNG: another accepts for it; silent for longer, it is killed (supervisor.py)
    |                      v  |
    |                     HUNG
    |                      |
    +------- Drain --------+--> DRAINING --> ENDED
    |                      |
    +------- died ---------+--> DEAD --restart.py--> (a new WorkerProcess)
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

import meshproxy
from meshproxy.telemetry.snapshot import Snapshot
from meshproxy.workers.channel import Channel
from meshproxy.workers.messages import Ask, Drain, Drained, Explain, Explained, Measured, Ready, ToParent

STARTING: Final = "starting"
SERVING: Final = "serving"
HUNG: Final = "hung"
DRAINING: Final = "draining"
DEAD: Final = "dead"
ENDED: Final = "ended"

_NEXT: Final = {
    STARTING: {STARTING, SERVING, DRAINING, DEAD},
    SERVING: {SERVING, STARTING, HUNG, DRAINING, DEAD},
    HUNG: {SERVING, STARTING, DRAINING, DEAD},
    DRAINING: {DRAINING, ENDED},
    DEAD: {DEAD},
    ENDED: {ENDED},
}


class WorkerProcess:
    """`changed(self)` is called at each change of `state` or `why`, `counted(self, snapshot)` for each snapshot.

    sent   what the owner has told it, for whoever sends differences (key -> version)
    """

    def __init__(
        self,
        index: int,
        changed: Callable[[WorkerProcess], None],
        counted: Callable[[WorkerProcess, Snapshot], None],
    ) -> None:
        self.index = index
        self.state = STARTING
        self.why = "starting"
        self.sent: dict[Any, str] = {}
        self.started_at = monotonic()
        self.heard_at = self.started_at
        self.served = False  # it has been ready once
        self._ready = ""  # what its last Ready said
        self.finished = False  # Drained said so
        self.over: asyncio.Event = asyncio.Event()  # the process is reaped
        self._changed = changed
        self._counted = counted
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._explaining: dict[int, asyncio.Future[Explained | None]] = {}
        self._asks = 0
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            # The same code that runs here, wherever this process was started.
            root = str(Path(meshproxy.__file__).parents[1])
            path = os.environ.get("PYTHONPATH")
            environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
            self._popen = subprocess.Popen(  # no preexec_fn: with threads about nothing may run between fork and exec
                [sys.executable, "-m", "meshproxy.workers", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
            )
        self.pid = self._popen.pid
        self.channel = Channel(loop, ours, ToParent, self._take, self._lost)
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._exited)

    @property
    def alive(self) -> bool:
        return self.state in (STARTING, SERVING, HUNG, DRAINING) and not self.over.is_set()

    @property
    def exit_status(self) -> str:
        code = self._popen.returncode
        if code is None:
            return "still running"
        return f"exit status {code}" if code >= 0 else f"killed by signal {-code}"

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Raises nothing: a worker that is gone has its end reported by `changed`."""
        self.channel.send(message, descriptors)

    def drain(self, linger: bool = True) -> None:
        self._become(DRAINING, "draining")
        self.send(Drain(linger))

    def silent(self, why: str) -> None:
        """It has not answered for long."""
        self._become(HUNG, why)

    def kill(self) -> None:
        if not self.over.is_set():
            self._popen.kill()

    async def measure(self, timeout_s: float, fine: bool = False) -> bool:
        """Ask for its counters; False if they did not come in time.  `fine`: see Ask."""
        if not self.alive:
            return False
        self._asks += 1
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked[self._asks] = answered
        number = self._asks
        self.send(Ask(number, fine))
        try:
            await asyncio.wait_for(answered, timeout_s)
        except TimeoutError:
            return False
        finally:
            self._asked.pop(number, None)
        return True

    async def explain(self, inbound: bool, query: str, timeout_s: float) -> Explained | None:
        """A trail by its live state (Status.explain); None if it did not come in time, or the worker ended."""
        if not self.alive:
            return None
        self._asks += 1
        number = self._asks
        answered: asyncio.Future[Explained | None] = asyncio.get_running_loop().create_future()
        self._explaining[number] = answered
        self.send(Explain(number, inbound, query))
        try:
            return await asyncio.wait_for(answered, timeout_s)
        except TimeoutError:
            return None
        finally:
            self._explaining.pop(number, None)

    # -- events

    def _take(self, message: Any, descriptors: list[int]) -> None:
        for descriptor in descriptors:  # a worker sends none
            os.close(descriptor)
        self.heard_at = monotonic()
        if self.state == HUNG:
            self._become(STARTING if self._ready else SERVING, self._ready)
        if isinstance(message, Ready):
            self._ready = message.why
            if self.state in (STARTING, SERVING):
                self.served = self.served or not message.why
                self._become(STARTING if message.why else SERVING, message.why)
        elif isinstance(message, Measured):
            self._counted(self, message.snapshot)
            answered = self._asked.get(message.number)
            if answered is not None and not answered.done():
                answered.set_result(None)
        elif isinstance(message, Explained):
            explaining = self._explaining.get(message.number)
            if explaining is not None and not explaining.done():
                explaining.set_result(message)
        elif isinstance(message, Drained):
            self.finished = message.finished

    def _lost(self, why: str) -> None:
        # It ends by itself when it finds its channel closed.  One that cannot even do that is ended.
        self.kill()

    def _exited(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.channel.drain_input()
        self._popen.wait()
        self.over.set()
        self.channel.close()
        for answered in self._asked.values():
            if not answered.done():
                answered.set_result(None)
        for explaining in self._explaining.values():
            if not explaining.done():
                explaining.set_result(None)
        self._become(ENDED if self.state == DRAINING else DEAD, self.exit_status)

    def _become(self, state: str, why: str) -> None:
        """The one place where the state changes.  Raises ValueError for a step that is not in the drawing."""
        if state not in _NEXT[self.state]:
            raise ValueError(f"worker {self.index}: {self.state} cannot become {state}")
        self.state, self.why = state, why
        self._changed(self)
