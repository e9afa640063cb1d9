"""One pod's processes: does what its PodMachine says, and tells it what happened.

    machine.tick(now) -> actions -> spawn, signal, ask, note
         ^                              |
         `---- exited, answered, time --'      all on the event loop; nothing here decides

The sidecar is `python -m meshproxy proxy ...`; its token file is kept fresh by the controller.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from control.runtime import environment, listening, probe_io
from control.runtime.addresses import busy_ports
from control.runtime.container import Action, Ask, AskCallers, Container, Note, ProbeKind, Start, Terminate
from control.runtime.environment import ConfigError, Lookup, ServiceListener
from control.runtime.layout import (
    ADMIN_PORT,
    INBOUND_PORT,
    OUTBOUND_PORT,
)
from control.runtime.logfile import LogFile
from control.runtime.pod import PodMachine, Stage
from control.runtime.podstatus import pod_status
from control.runtime.probes import Backoff, HttpGet, Probe
from control.runtime.process import Exit, Process, SpawnError, process_names, spawn
from control.runtime.sidecar import (
    SIDECAR,
    PodIdentity,
    Settings,
    SidecarCommand,
    sidecar_command,
    wants_sidecar,
    workers_arguments,
)

Object = dict[str, Any]
CallersKnow = Callable[
    [str], Awaitable[bool]
]  # of the pod with this address, which ends: do all know it, and who serves instead?

_RETRY = 2.0  # seconds until a container that is blocked is looked at again
_MAX_TURNS = 1000  # actions that lead to actions; more would be a loop of ours
_NEVER = 1 << 30


class PodWorker:
    """A pod that is being run.  `changed` is called whenever its status may have changed."""

    def __init__(
        self,
        pod: Object,
        ip: str,
        settings: Settings,
        *,
        lookup: Lookup,
        clock: Callable[[], float],
        changed: Callable[[PodWorker], None],
        note: Callable[[PodWorker, Note], None],
        listeners: Sequence[ServiceListener] = (),
        command: SidecarCommand = sidecar_command,
        callers_know: CallersKnow,
        sidecar_only: bool = False,
        sidecar_arguments: Sequence[str] = (),
    ) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        account = spec.get("serviceAccountName") or "default"
        self.pod = pod
        self.identity = PodIdentity(metadata.get("namespace") or "default", metadata["name"], account, ip)
        self.ip = ip
        self.listeners = list(listeners)
        self.directory = settings.layout.pod(self.identity.namespace, self.identity.name)
        self.token_file = self.directory / "token"
        self._settings = settings
        self._lookup = lookup
        self._clock = clock
        self._changed = changed
        self._note = note
        self._command = command
        self._callers_know = callers_know
        self._extra = list(sidecar_arguments)
        self._spec: Object = spec["containers"][0]
        self._target = probe_io.Target(ip)
        self._processes: dict[str, Process] = {}
        self._logs: dict[str, LogFile] = {}
        self._asks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        app = None if sidecar_only else self._app_container(spec)
        sidecar = self._sidecar_container() if sidecar_only or wants_sidecar(pod) else None
        self._state: object = None
        self.machine = PodMachine(app, sidecar, created=clock(), drain=settings.drain, sidecar_grace=settings.sidecar_grace)

    # -- for the controller

    @property
    def key(self) -> tuple[str, str]:
        return (self.identity.namespace, self.identity.name)

    @property
    def what(self) -> str:
        """As a person is told of it."""
        return "gateway" if self.machine.app is None else f"pod {self.identity}"

    @property
    def reached_at(self) -> str:
        """Where people find it: its address, or where the gateway takes requests."""
        return self._extra[-1] if self.machine.app is None else self.ip

    @property
    def gone(self) -> bool:
        return self.machine.stage is Stage.GONE

    @property
    def container_ports(self) -> dict[str, int]:
        """Named container ports."""
        return {p["name"]: int(p["containerPort"]) for p in self._spec.get("ports") or [] if p.get("name")}

    @property
    def tcp_ports(self) -> list[int]:
        """The app's container ports."""
        return [int(p["containerPort"]) for p in self._spec.get("ports") or [] if p.get("protocol", "TCP") == "TCP"]

    def status(self) -> Object:
        images = {self._spec["name"]: str(self._spec.get("image") or ""), SIDECAR: "meshproxy"}
        return pod_status(self.machine, self._clock(), pod_ip=self.ip, images=images)

    def why_unready(self) -> str:
        """The containers that are not ready, each with what is known of why."""
        reasons = []
        for container in self.machine.containers:
            if container.ready:
                continue
            if container.alive and (failing := container.unready_probe) is not None:
                kind, prober = failing
                detail = f"{kind} probe: {prober.message or 'no answer yet'}"
            else:
                detail = container.message or container.reason or container.phase.value
            reasons.append(f"{container.name}: {detail}")
        return "; ".join(reasons) or "not ready"

    def pids(self) -> dict[str, int]:
        """Container name -> pid of those that run."""
        return {name: process.pid for name, process in self._processes.items() if process.running}

    def start(self) -> None:
        self._turn([])

    def delete(self, *, drain: float | None = None, grace: float | None = None) -> None:
        """End it in order; again with less patience to hurry."""
        self._turn(self.machine.delete(self._clock(), drain=drain, grace=grace))

    def kill(self) -> None:
        """End it at once."""
        self.delete(drain=0.0, grace=0.0)
        for process in self._processes.values():
            process.signal(signal.SIGKILL)

    # -- the loop

    def _turn(self, actions: list[Action]) -> None:
        """Perform actions until the machine has nothing more to do now; then set the clock for the next time."""
        queue = deque(actions)
        for _ in range(_MAX_TURNS):
            if not queue:
                queue.extend(self.machine.tick(self._clock()))
            if not queue:
                break
            queue.extend(self._perform(queue.popleft()))
        else:
            raise RuntimeError(f"pod {self.identity}: no end of actions, next {list(queue)[:3]}")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.gone:
            self._close()
        elif (due := self.machine.due_at()) is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._clock()), self._turn, [])
        state = self.machine.state
        if state != self._state:  # most turns are a probe that got the same answer again
            self._state = state
            self._changed(self)

    def _perform(self, action: Action) -> list[Action]:
        if isinstance(action, Note):
            self._note(self, action)
            return []
        if isinstance(action, Ask | AskCallers):
            task = asyncio.ensure_future(self._ask(action) if isinstance(action, Ask) else self._ask_callers())
            self._asks.add(task)
            task.add_done_callback(self._asks.discard)
            return []
        if isinstance(action, Start):
            return self._start(action.container)
        process = self._processes.get(action.container.name)
        if process is not None:
            process.signal(signal.SIGTERM if isinstance(action, Terminate) else signal.SIGKILL)
        return []

    def _start(self, container: Container) -> list[Action]:
        now = self._clock()
        try:
            if container is self.machine.sidecar:
                argv, variables, directory = self._sidecar_start()
                ports, log = [OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT], "sidecar"
                if self._extra:
                    ports = [INBOUND_PORT, ADMIN_PORT]
            else:
                argv, variables, directory = self._app_start()
                ports, log = self.tcp_ports, "app"
        except ConfigError as error:
            return container.blocked("CreateContainerConfigError", str(error), now + _RETRY)
        if busy := busy_ports(self.ip, ports):
            return container.blocked("PortBusy", self._port_busy(busy[0]), now + _RETRY)

        def ended(exit_: Exit) -> None:
            self._turn(container.exited(exit_, self._clock()))

        self._log(log).mark_start()
        try:
            self._processes[container.name] = spawn(
                argv,
                name=f"{self.identity}/{log}",
                environment=variables,
                directory=directory,
                log=self._log(log),
                on_exit=ended,
                records=self._settings.records,
            )
        except SpawnError as error:
            self._log(log).write(f"{error}\n".encode())
            return container.exited(Exit(128, reason="StartError", message=str(error)), now)
        return []

    def _port_busy(self, port: int) -> str:
        """Who has it, if it is one of ours."""
        names = process_names(self._settings.records)
        found = listening.holder(self.ip, port, names.keys())
        if found is None:
            return f"port {port} of {self.ip} is taken by another program (`ss -ltnp sport = :{port}` shows it)"
        socket, group = found
        advice = ", every address of this machine; it must bind POD_IP" if socket.everywhere else ""
        return f"port {port} of {self.ip} is taken: {names[group]} listens on {socket}{advice}"

    def _app_start(self) -> tuple[list[str], dict[str, str], Path]:
        outbound = f"{self.ip}:{OUTBOUND_PORT}" if self.machine.sidecar else None
        base = {
            **self._settings.environment,
            **environment.mesh_environment(self.identity.name, self.ip, outbound),
        }
        if self.pod["spec"].get("enableServiceLinks", True):
            base |= environment.service_environment(self.listeners, self.identity.namespace)
        variables = environment.container_environment(self._spec, self.pod, self.ip, self._lookup, base)
        directory = self._settings.directory / str(self._spec.get("workingDir") or "")
        self._target = probe_io.Target(self.ip, self.container_ports, variables, directory, self._settings.records)
        return environment.command_line(self._spec, variables), variables, directory

    def _sidecar_start(self) -> tuple[list[str], dict[str, str], Path]:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        extra = [*workers_arguments(self.pod), *self._extra]
        argv = self._command(self._settings, self.identity, self.token_file, extra)
        return argv, dict(self._settings.own_environment), self.directory

    async def _ask(self, ask: Ask) -> None:
        target = self._target if ask.container is self.machine.app else probe_io.Target(self.ip)
        probe = ask.prober.probe
        ok, message = await probe_io.ask(probe.check, target, probe.timeout)
        if not self.gone:
            self._turn(ask.container.answered(ask.kind, ask.prober, ok, self._clock(), message))

    async def _ask_callers(self) -> None:
        yes = await self._callers_know(self.ip)
        if not self.gone:
            self._turn(self.machine.callers_know(yes, self._clock()))

    def _log(self, name: str) -> LogFile:
        if name not in self._logs:
            self._logs[name] = LogFile(self.directory / f"{name}.log")
        return self._logs[name]

    def _close(self) -> None:
        for task in self._asks:
            task.cancel()
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    # -- what to run

    def _app_container(self, spec: Object) -> Container:
        container = self._spec
        kinds: tuple[tuple[ProbeKind, str], ...] = (
            ("startup", "startupProbe"),
            ("readiness", "readinessProbe"),
            ("liveness", "livenessProbe"),
        )
        probes = {kind: probe for kind, name in kinds if (probe := Probe.parse(container.get(name))) is not None}
        grace = spec.get("terminationGracePeriodSeconds")
        return Container(
            container["name"],
            restart=spec.get("restartPolicy") or "Always",
            probes=probes,
            grace=30.0 if grace is None else float(grace),
            backoff=Backoff(self._settings.backoff_base),
        )

    def _sidecar_container(self) -> Container:
        ready = HttpGet(ADMIN_PORT, "/ready")
        # Asked often until it is there, because the app waits for it; then once a second.
        probes: dict[ProbeKind, Probe] = {
            "startup": Probe(ready, period=0.1, timeout=2.0, failure_threshold=_NEVER),
            "readiness": Probe(ready, period=1.0, timeout=2.0),
        }
        return Container(
            SIDECAR, probes=probes, grace=self._settings.sidecar_grace, backoff=Backoff(self._settings.backoff_base)
        )
