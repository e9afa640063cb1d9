"""One container of a pod: its app or its sidecar.  Pure: what happened and `now` in, what to do out.

                       start()                 exited
    WAITING ---------------------> RUNNING ---------------> WAITING (CrashLoopBackOff, until `retry_at`)
       ^                              |  liveness or startup probe says no, or stop()        |
       |                              v                                                      |  restart policy says no,
       |                          STOPPING  SIGTERM; SIGKILL after the grace                 |  or stop() was asked
       `--- exited, restart ----------+--- exited, no restart ---> ENDED <-------------------'

The transitions are in `_MOVES`; anything else raises.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

from control.runtime.probes import Backoff, Probe, Prober
from control.runtime.process import Exit

ProbeKind = Literal["startup", "readiness", "liveness"]


# Seconds between questions until a readiness probe says yes for the first time: ten (Kubernetes' default period) would
# be most of a demo, and a no has no consequence then.
EAGER_READINESS = 0.25
# Seconds for which a no of a readiness probe that never said yes is nobody's news: an app takes its time to start.  Later
# diagnosis.py says what is missing, once for all replicas.
STARTING_S = 10.0
# Seconds that an app which no probe vouches for must run until its mesh is called ready, once more for each time it ended:
# one that cannot start has a process, too, for its first milliseconds.
PROVEN_S = 1.0


class Phase(enum.Enum):
    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


_MOVES = {
    Phase.WAITING: {Phase.RUNNING, Phase.WAITING, Phase.ENDED},
    Phase.RUNNING: {Phase.STOPPING, Phase.WAITING, Phase.ENDED},
    Phase.STOPPING: {Phase.WAITING, Phase.ENDED},
    Phase.ENDED: set(),
}


class IllegalMove(RuntimeError):
    """A container cannot go from one phase to the other: a mistake of ours."""


@dataclass(frozen=True, slots=True)
class Run:
    """One life of the process that ended."""

    exit: Exit
    started: float
    finished: float

    @property
    def reason(self) -> str:
        return self.exit.reason or ("Completed" if self.exit.code == 0 else "Error")


# What the shell is asked to do.
@dataclass(frozen=True, slots=True)
class Start:
    container: Container


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the group."""

    container: Container


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the group."""

    container: Container


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a probe's question; the answer goes to `Container.answered` with the same prober."""

    container: Container
    kind: ProbeKind
    prober: Prober


@dataclass(frozen=True, slots=True)
class AskCallers:
    """Do all callers know that the pod ends, and who serves instead?  The answer goes to `PodMachine.callers_know`."""


@dataclass(frozen=True, slots=True)
class Note:
    """An Event about the pod."""

    kind: str  # Normal | Warning
    reason: str
    message: str


Action = Start | Terminate | Kill | Ask | AskCallers | Note


class Container:
    def __init__(
        self,
        name: str,
        *,
        restart: str = "Always",
        probes: dict[ProbeKind, Probe] | None = None,
        grace: float = 30.0,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.restart = restart  # Always | OnFailure | Never
        self.grace = grace
        self.phase = Phase.WAITING
        self.reason = "ContainerCreating"
        self.message = ""
        self.restarts = 0
        self.started_at = 0.0
        self.run: Run | None = None  # how the last life ended
        self.retry_at: float | None = None  # when to start again
        self._probes = probes or {}
        self._probers: dict[ProbeKind, Prober] = {}
        self._backoff = backoff or Backoff()
        self._kill_at: float | None = None
        self._blocked = ("", "")  # why it could not be started the last time: said once
        self._stopping = False  # asked to stop for good

    # -- what it is

    @property
    def started(self) -> bool:
        """Running, and its startup probe (if any) said yes."""
        startup = self._probers.get("startup")
        return self.phase is Phase.RUNNING and (startup is None or startup.verdict is True)

    @property
    def ready(self) -> bool:
        """Fit for traffic: started, and its readiness probe (if any) says yes."""
        readiness = self._probers.get("readiness")
        return self.started and (readiness is None or readiness.verdict is True)

    def proven(self, now: float) -> bool:
        """Ready, and that says more than that it was started: a probe said yes, or it has run for a while (`PROVEN_S`)."""
        vouched = any(kind != "liveness" for kind in self._probers)
        return self.ready and (vouched or now - self.started_at >= PROVEN_S * (1 + self.restarts))

    @property
    def alive(self) -> bool:
        """There is a process."""
        return self.phase in (Phase.RUNNING, Phase.STOPPING)

    @property
    def state(self) -> tuple[object, ...]:
        """All that its part of the pod's status is made of."""
        return (self.phase, self.started, self.ready, self.reason, self.message, self.restarts, self.started_at, self.run)

    @property
    def unready_probe(self) -> tuple[ProbeKind, Prober] | None:
        """The probe that keeps a running container from being ready, if there is one."""
        kind: ProbeKind = "readiness" if self.started else "startup"
        prober = self._probers.get(kind)
        return (kind, prober) if prober is not None and prober.verdict is not True else None

    # -- what happened

    def start(self, now: float) -> list[Action]:
        """Begin a life; the shell answers with `failed` or, later, `exited`."""
        if self.run is not None:
            self.restarts += 1
        self._move(Phase.RUNNING)
        self.started_at = now
        self.retry_at = None
        self.reason = self.message = ""
        self._probers = {
            kind: Prober(probe, now, eager=EAGER_READINESS if kind == "readiness" else None)
            for kind, probe in self._probes.items()
        }
        return [Start(self)]

    def blocked(self, reason: str, message: str, retry_at: float) -> list[Action]:
        """It cannot be started yet (a ConfigMap is missing, a port is taken): say why, look again later."""
        if self.phase is Phase.RUNNING and self.run is not None:
            self.restarts -= 1  # that was no life
        self._move(Phase.WAITING)
        news = self._blocked != (reason, message)
        self._blocked = (reason, message)
        self.reason, self.message, self.retry_at = reason, message, retry_at
        return [Note("Warning", "Failed", f"{self.name}: {message}")] if news else []

    def exited(self, exit_: Exit, now: float) -> list[Action]:
        """The process is gone."""
        if not self.alive:
            raise IllegalMove(f"container {self.name} ended while {self.phase.value}")
        self.run = Run(exit_, self.started_at, now)
        self._blocked = ("", "")
        self._kill_at = None
        self._probers = {}
        if self._stopping or self.restart == "Never" or (self.restart == "OnFailure" and exit_.code == 0):
            self._move(Phase.ENDED)
            return []
        delay = self._backoff.next_delay(now - self.started_at)
        self._move(Phase.WAITING)
        self.retry_at = now + delay
        if not delay:
            self.reason, self.message = "ContainerCreating", ""
            return [Note("Warning", "Ended", f"{self.name} ended ({exit_}); it starts again at once")]
        self.reason = "CrashLoopBackOff"
        self.message = f"back-off {delay:g}s restarting container {self.name}: it ended with {exit_}"
        return [Note("Warning", "BackOff", f"{self.name} ended ({exit_}); it starts again in {delay:g} s")]

    def answered(self, kind: ProbeKind, prober: Prober, ok: bool, now: float, message: str = "") -> list[Action]:
        """The answer to an `Ask`; of an earlier life it is ignored."""
        changed = prober.answer(ok, now, message)
        if self._probers.get(kind) is not prober or self.phase is not Phase.RUNNING:
            return []
        if not changed:
            return []
        if ok or (kind == "readiness" and not prober.said_yes and now - self.started_at < STARTING_S):
            return []
        notes: list[Action] = [Note("Warning", "Unhealthy", f"{self.name}: {kind} probe failed: {message}")]
        if kind == "readiness":
            return notes
        grace = prober.probe.grace if prober.probe.grace is not None else self.grace
        notes.append(Note("Normal", "Killing", f"{self.name} failed its {kind} probe; it is ended and started again"))
        return notes + self._terminate(now, grace)

    def stop(self, now: float, grace: float) -> list[Action]:
        """End it for good: SIGTERM now, SIGKILL after `grace` seconds."""
        self._stopping = True
        if self.phase is Phase.WAITING:
            self._move(Phase.ENDED)
        elif self.phase is Phase.RUNNING:
            return self._terminate(now, grace)
        elif self.phase is Phase.STOPPING:
            self._kill_at = min(self._kill_at if self._kill_at is not None else now + grace, now + grace)
        return []

    def tick(self, now: float) -> list[Action]:
        """What is due: questions to ask, patience that ended.  (Restarts are the pod's to order: see pod.py.)"""
        if self.phase is Phase.STOPPING and self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            return [Kill(self)]
        if self.phase is not Phase.RUNNING:
            return []
        actions: list[Action] = []
        for kind, prober in self._due_probers():
            due = prober.due_at()
            if due is not None and now >= due:
                prober.begin(now)
                actions.append(Ask(self, kind, prober))
        return actions

    def due_at(self) -> float | None:
        """When `tick` has something to do, or a restart is due."""
        times: list[float | None]
        if self.phase is Phase.WAITING:
            times = [self.retry_at]
        elif self.phase is Phase.STOPPING:
            times = [self._kill_at]
        else:
            times = [prober.due_at() for _, prober in self._due_probers()]
        return min((time for time in times if time is not None), default=None)

    # -- within

    def _due_probers(self) -> list[tuple[ProbeKind, Prober]]:
        """The startup probe alone until it said yes; then it has done its work."""
        if self.phase is Phase.RUNNING and not self.started:
            return [("startup", self._probers["startup"])]
        return [(kind, prober) for kind, prober in self._probers.items() if kind != "startup"]

    def _terminate(self, now: float, grace: float) -> list[Action]:
        self._move(Phase.STOPPING)
        self._kill_at = now + grace
        return [Terminate(self)]

    def _move(self, phase: Phase) -> None:
        if phase not in _MOVES[self.phase]:
            raise IllegalMove(f"container {self.name}: {self.phase.value} -> {phase.value}")
        self.phase = phase
