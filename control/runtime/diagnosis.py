"""Why a pod does not become ready, said to a person within seconds and with what is needed to go on.

    crash loop           its last lines, and the command that shows the rest
    sidecar not ready    what its /ready says
    app not ready        what its probe said, what it listens on, its last lines
    app listens wrongly  on another address than its pod's, or on all of them

Looked at twice in a container's life (`LOOKS`), and whenever it is in a crash loop; each cause is said once for all
replicas of a Deployment, and again when it comes back after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from control.runtime import listening, logfile, probe_io
from control.runtime.container import Container, Note, Phase
from control.runtime.layout import ADMIN_PORT, DEFAULT_MESH
from control.runtime.listening import Socket
from control.runtime.pods import Pod, PodKey
from control.runtime.probes import HttpGet
from control.runtime.worker import PodWorker

LOOKS = (3.0, 10.0)  # seconds after a container started; a mistake that is certain is said at the first, the rest at the last
INTERVAL = 0.5
_FORGOTTEN = 60.0  # seconds without a cause until it is news again
_LAST_LINES = 10
_MAX_WIDTH = 200  # characters of such a line
_MARGIN = "    | "
_READY_PATIENCE = 2.0
_IN_USE = ("Address already in use", "address already in use", "EADDRINUSE")  # Python, Go, Node


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a pod is not as it should be."""

    reason: str  # of the Event, as Kubernetes words them: CrashLoopBackOff, SidecarNotReady, ...
    message: str  # one line
    container: str  # "app" or "sidecar", as `meshproxy logs -c` names it
    log: bool = True  # its last lines help


class Diagnosis:
    """`await run()` beside the controller."""

    def __init__(
        self,
        mesh: str,
        pods: Mapping[PodKey, Pod],
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
        record: Callable[[PodWorker, Note], None],
    ) -> None:
        """
        Args:
            mesh: its name, for the commands that are recommended.
            pods: those that run, as they are at each look.
            record: makes an Event of a cause.
        """
        self._named = "" if mesh == DEFAULT_MESH else f" --name {mesh}"
        self._pods = pods
        self._clock = clock
        self._say = say
        self._record = record
        self._said: dict[tuple[str, ...], float] = {}  # cause -> when it was last seen
        self._looked: dict[PodKey, tuple[float, int]] = {}  # pod -> (start of the life looked at, looks so far)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """One look at every pod."""
        now = self._clock()
        for key, pod in list(self._pods.items()):
            cause = None if pod.ending else await self._cause(key, pod.worker, now)
            if cause is not None:
                self._tell(pod, cause, now)
        self._said = {cause: seen for cause, seen in self._said.items() if now - seen < _FORGOTTEN}
        self._looked = {key: looked for key, looked in self._looked.items() if key in self._pods}

    async def _cause(self, key: PodKey, worker: PodWorker, now: float) -> Cause | None:
        app, sidecar = worker.machine.app, worker.machine.sidecar
        for container, name in ((sidecar, "sidecar"), (app, "app")):
            if container is not None and (loop := crash_loop(container, name)) is not None:
                return loop
        if sidecar is not None and not sidecar.ready:
            number = self._due(key, sidecar, now)
            return await self._sidecar(worker, now - sidecar.started_at) if number == len(LOOKS) else None
        if app is None:
            return None
        number = self._due(key, app, now)
        return self._app(worker, app, now - app.started_at, last=number == len(LOOKS)) if number else None

    def _due(self, key: PodKey, container: Container, now: float) -> int:
        """Which look at this life of the container is due now, from 1; 0: none."""
        if container.phase is not Phase.RUNNING:
            return 0
        started, looks = self._looked.get(key, (0.0, 0))
        if started != container.started_at:
            looks = 0
        if looks == len(LOOKS) or now - container.started_at < LOOKS[looks]:
            return 0
        self._looked[key] = (container.started_at, looks + 1)
        return looks + 1

    async def _sidecar(self, worker: PodWorker, seconds: float) -> Cause:
        ok, answer = await probe_io.text(HttpGet(ADMIN_PORT, "/ready"), worker.ip, _READY_PATIENCE)
        answer = answer.removeprefix("not ready: ") or "no reason given"
        where = f"(http://{worker.ip}:{ADMIN_PORT}/ready)"
        if ok:
            message = f"the sidecar took {seconds:.0f} s to be ready {where}: this machine may be busy"
        else:
            message = f"the sidecar is not ready after {seconds:.0f} s: {answer} {where}"
        return Cause("SidecarNotReady", message, "sidecar")

    def _app(self, worker: PodWorker, app: Container, seconds: float, *, last: bool) -> Cause | None:
        pid = worker.pids().get(app.name)
        if pid is None:
            return None
        held = listening.of_group(pid)
        if (wrong := misplaced(worker.ip, worker.tcp_ports, held)) is not None:
            return wrong
        if last and not app.ready and (failing := app.unready_probe) is not None:
            kind, prober = failing
            where = ", ".join(str(socket) for socket in held) or "nothing yet"
            why = prober.message or "no answer yet"
            return Cause("NotReady", f"not ready after {seconds:.0f} s: {kind} probe: {why}; the app listens on {where}", "app")
        if last and app.ready and (silent := [port for port in worker.tcp_ports if not _answered(held, worker.ip, port)]):
            message = f"nothing listens on {worker.ip}:{silent[0]} (containerPort); requests to it fail"
            return Cause("NotListening", message, "app")
        return None

    def _tell(self, pod: Pod, cause: Cause, now: float) -> None:
        worker = pod.worker
        whose = (pod.owner, pod.template_hash) if pod.owner else (worker.identity.name,)
        key = (worker.identity.namespace, *whose, cause.reason, cause.container)
        news = key not in self._said
        self._said[key] = now
        if not news:
            return
        lines = last_lines(worker.directory / f"{cause.container}.log") if cause.log else []
        said = f"; it last said: {lines[-1].removeprefix(_MARGIN)}" if lines else ""
        self._record(worker, Note("Warning", cause.reason, cause.message + said))
        self._say("\n".join([f"{worker.what}: {cause.message}" + (", its last lines:" if lines else ""), *lines]))
        if cause.container == "app" and any(word in line for line in lines for word in _IN_USE):
            self._say(f"    an app binds POD_IP (here {worker.ip}): every pod of the mesh lives on this machine")
        if cause.log:
            container = " -c sidecar" if cause.container == "sidecar" and worker.machine.app is not None else ""
            pod_name = worker.identity.name
            self._say(f"    more: meshproxy logs {pod_name} -n {worker.identity.namespace}{container}{self._named}")


def crash_loop(container: Container, name: str) -> Cause | None:
    """It waits to be started again, not for the first time."""
    if container.phase is not Phase.WAITING or container.reason != "CrashLoopBackOff" or container.run is None:
        return None
    times = f"{container.restarts + 1} times"
    return Cause("CrashLoopBackOff", f"{name} ended {times}, last with {container.run.exit}", name)


def misplaced(ip: str, ports: list[int], held: list[Socket]) -> Cause | None:
    """The app listens on a port of its own, but not on its pod's address; or on every address of the machine."""
    for port in ports:
        if any(socket.port == port and socket.address == ip for socket in held):
            continue
        others = [socket for socket in held if socket.port == port]
        everywhere = [socket for socket in others if socket.everywhere]
        if everywhere:
            message = (
                f"the app listens on {everywhere[0]}, every address of this machine, and so on every other pod's: "
                f"it must bind POD_IP ({ip}), or no other pod can have port {port}"
            )
            return Cause("ListensEverywhere", message, "app", log=False)
        if others:
            message = f"nothing listens on {ip}:{port}; the app listens on {others[0]}: it must bind POD_IP ({ip})"
            return Cause("NotListening", message, "app", log=False)
    return None


def last_lines(log: Path) -> list[str]:
    """The end of a container's last life, indented."""
    lines = logfile.tail(log, _LAST_LINES)
    return [f"{_MARGIN}{line[:_MAX_WIDTH]}{'...' if len(line) > _MAX_WIDTH else ''}" for line in lines]


def _answered(held: list[Socket], ip: str, port: int) -> bool:
    return any(socket.answers(ip, port) for socket in held)
