"""One embedded mesh, from start to end: the only parent of everything that runs.

    lock -> reap what a killed supervisor left -> a /24 -> guard -> control plane ready -> controller: pods -> ready
                                                              |
    SIGINT/SIGTERM: apps, then sidecars, then control plane <-'     a second SIGINT: all at once

The control plane is a child like the others: when it ends it is started again and goes on from its state directory;
traffic does not notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from control.runtime import informed
from control.runtime.addresses import Network
from control.runtime.control_plane import ControlPlane
from control.runtime.controller import Controller, steady_clock
from control.runtime.diagnosis import Diagnosis
from control.runtime.guard import end_guard, start_guard
from control.runtime.layout import CONTROL_ADMIN_PORT, CONTROL_HOST, CONTROL_PORT, Layout, MeshInfo
from control.runtime.meshes import start_time, write_info
from control.runtime.preflight import SHOWN, MeshLock, UpError, find_manifests, gateway_address, moved, refuse_nonsense
from control.runtime.process import reap, reap_abandoned, records_of
from control.runtime.sidecar import LEAF_LIFETIME, Settings, SidecarCommand, sidecar_command

if TYPE_CHECKING:
    from control.store.files import FileStore

TRUST_DOMAIN = "cluster.local"
_CONTROL_PATIENCE = 60.0  # seconds until a control plane that is not ready is a failure of `up`
_SIDECARS_PATIENCE = 10.0
_POLL = 0.1
_REMIND = 30.0  # seconds between lines about what is still not ready

Say = Callable[[str], None]


class Supervisor:
    """Run one with `await Supervisor(...).run(...)`, on the main thread."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        gateway_port: int | None = None,
        leaf_lifetime: float = LEAF_LIFETIME,
        identity_issuer: Path | None = None,
        metrics_server: str = "",
        canary_options: tuple[str, ...] = (),
        say: Say = print,
        command: SidecarCommand = sidecar_command,
    ) -> None:
        """
        Args:
            directory: the user's manifests.
            name: of the mesh.
            gateway_port: on 127.0.0.1; a free one if None.
            leaf_lifetime: of proxies' certificates, seconds.
            identity_issuer: a directory with ca.crt, tls.crt and tls.key; None: the mesh has an authority of its own.
            metrics_server: URL of a Prometheus that Canaries are judged by; "": the mesh's own numbers.
            canary_options: flags of `meshproxy control` that hold for all Canaries, handed on to it.
            say: takes one line after the other.
            command: makes a sidecar's command line.
        """
        self.directory = directory.resolve()
        self.layout = Layout.of(name)
        self.name = name
        self.info: MeshInfo | None = None
        self.controller: Controller | None = None
        self.control: ControlPlane | None = None
        self._gateway_port = gateway_port
        self._leaf_lifetime = leaf_lifetime
        self._identity_issuer = identity_issuer.resolve() if identity_issuer is not None else None
        self._metrics_server = metrics_server
        self._canary_options = canary_options
        self._say = say
        self._command = command
        self._stop = asyncio.Event()
        self._signals = 0

    async def run(self, on_ready: Callable[[MeshInfo], None] = lambda info: None) -> None:
        """Until SIGINT or SIGTERM.

        Args:
            on_ready: called once, when everything is ready for the first time.

        Raises:
            UpError, AddressError: it could not be started; nothing is left running.
        """
        manifests = find_manifests(self.directory)
        with MeshLock(self.layout):
            for name in reap_abandoned(self.layout.processes):
                self._say(f"ended a leftover of the last run: {name}")
            refuse_nonsense(self.directory, len(manifests), self.layout, self._say)
            network = Network.take(self.name)
            guard: subprocess.Popen[bytes] | None = None
            start = start_time(os.getpid())
            records = records_of(self.layout.processes, os.getpid(), start)
            try:
                gateway = gateway_address(self._gateway_port)
                records.mkdir(parents=True)
                guard = start_guard(records)
                await self._run(network, records, start, gateway, on_ready)
            finally:
                if guard is not None:
                    end_guard(guard)
                reap(records)
                network.close()

    def stop(self) -> None:
        """The first call ends everything in order, the second at once."""
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            if self._signals == 2:
                self._say("ending everything at once")
            if self.controller is not None:
                self.controller.kill()
            if self.control is not None:
                self.control.kill()

    # -- the way up and down

    async def _run(
        self, network: Network, records: Path, start: str, gateway: str, on_ready: Callable[[MeshInfo], None]
    ) -> None:
        address = network.host(CONTROL_HOST)
        admin = f"{address}:{CONTROL_ADMIN_PORT}"
        settings = Settings(
            self.layout,
            records,
            self.directory if self.directory.is_dir() else self.directory.parent,
            TRUST_DOMAIN,
            control=f"{address}:{CONTROL_PORT}",
            identity=f"{address}:{CONTROL_PORT + 1}",
            leaf_lifetime=self._leaf_lifetime,
            identity_issuer=self._identity_issuer,
            metrics_server=self._metrics_server,
            canary_options=self._canary_options,
            gateway=gateway,
        )
        self.info = MeshInfo(
            self.name,
            str(self.directory),
            network.prefix,
            TRUST_DOMAIN,
            gateway,
            settings.control,
            admin,
            os.getpid(),
            start,
            time.time(),
        )
        otherwise = moved(self.directory, self.layout)
        write_info(self.layout, self.info)
        self._say(f'mesh "{self.name}" on {network.prefix}.0/24, state in {self.layout.root}')
        if otherwise:
            self._say(otherwise)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        self.control = ControlPlane(settings, admin, self._say)
        tasks: list[asyncio.Task[None]] = []
        try:
            self.control.start()
            if not await self._control_is_ready(self.control):
                return
            self._say(f"control plane is ready at {settings.control}")
            await self._serve(settings, network, gateway, on_ready, tasks)
        finally:
            await self._end(tasks)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _serve(
        self,
        settings: Settings,
        network: Network,
        gateway: str,
        on_ready: Callable[[MeshInfo], None],
        tasks: list[asyncio.Task[None]],
    ) -> None:
        from control.store.files import FileStore

        store = FileStore(None, self.layout.objects, "runtime")
        await self._accepted(store)
        clock = steady_clock()
        self.controller = Controller(store, settings, network.prefix, clock=clock, say=self._say, command=self._command)
        self.controller.serve_gateway(gateway)
        tasks.append(asyncio.ensure_future(store.run()))
        tasks.append(asyncio.ensure_future(self.controller.run()))
        tasks.append(asyncio.ensure_future(self._tell_diagnostics(store)))
        running = self.controller.pods.running
        diagnosis = Diagnosis(self.name, running, clock=clock, say=self._say, record=self.controller.record)
        tasks.append(asyncio.ensure_future(diagnosis.run()))
        for task in tasks[2:]:
            task.add_done_callback(self._report_over)
        ready = asyncio.ensure_future(self._announce(self.controller, on_ready))
        stopped = asyncio.ensure_future(self._wait_for_stop())
        tasks += [ready, stopped]
        watched = {tasks[0], tasks[1], stopped}
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # an error of ours: end everything and show it

    def _report_over(self, task: asyncio.Task[None]) -> None:
        """What only tells people things must not end the mesh, nor end unseen."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say(f"a report ended by a mistake of meshproxy's own, the mesh goes on: {error!r}")

    async def _accepted(self, store: FileStore) -> None:
        """The control plane, which reads the user's directory, has read it since it was started."""
        assert self.info is not None
        deadline = time.monotonic() + _CONTROL_PATIENCE
        while time.monotonic() < deadline and not self._stop.is_set():
            store.refresh()
            if (store.accepted_at or 0.0) >= self.info.started_unix:
                return
            await asyncio.sleep(_POLL)
        if not self._stop.is_set():
            raise UpError(f"the control plane has not read {self.directory} within {_CONTROL_PATIENCE:g} s")

    async def _tell_diagnostics(self, store: FileStore) -> None:
        """What is wrong with the manifests, once, when it appears."""
        told: set[str] = set()
        while True:
            now = [str(diagnostic) for diagnostic in store.diagnostics()]
            fresh = [line for line in now if line not in told]
            for line in fresh[:SHOWN]:
                self._say(line)
            if len(fresh) > SHOWN:
                self._say(f"... and {len(fresh) - SHOWN} more: `meshproxy lint {self.directory}`")
            told = set(now)
            await asyncio.sleep(5 * _POLL)

    async def _wait_for_stop(self) -> None:
        await self._stop.wait()

    async def _announce(self, controller: Controller, on_ready: Callable[[MeshInfo], None]) -> None:
        remind = time.monotonic() + _REMIND
        while not controller.settled or (lines := controller.unready()):
            if time.monotonic() >= remind and controller.settled:
                remind = time.monotonic() + _REMIND
                for line in lines[:20]:
                    self._say(f"not ready yet: {line}")
            await asyncio.sleep(_POLL)
        await self._wait_for_sidecars(controller)
        assert self.info is not None
        on_ready(self.info)

    async def _wait_for_sidecars(self, controller: Controller) -> None:
        """Until every sidecar knows every ready endpoint; not for ever, since a user's own EndpointSlices may differ."""
        deadline = time.monotonic() + _SIDECARS_PATIENCE
        while time.monotonic() < deadline:
            if not await informed.uninformed(controller.sidecars(), controller.ready_addresses()):
                return
            await asyncio.sleep(_POLL)

    async def _control_is_ready(self, control: ControlPlane) -> bool:
        deadline = time.monotonic() + _CONTROL_PATIENCE
        while not self._stop.is_set():
            if await control.ready():
                return True
            if control.restarts >= 3 or time.monotonic() >= deadline:
                reason = (
                    f"it ended {control.restarts} times, last with {control.last}" if control.last else "it does not answer"
                )
                log = self.layout.control_log
                raise UpError(f"the control plane does not start: {reason}; see {log}:\n{_tail(log)}")
            await asyncio.sleep(_POLL)
        return False

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        self._say("ending: apps, then sidecars, then the control plane")
        # The store goes on being read until the last sidecar is gone; the controller's own loop must not create pods.
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks[1:], return_exceptions=True)
        try:
            if self.controller is not None:
                await self.controller.stop()
                await self.controller.tidy()
        finally:
            if self.control is not None:
                await self.control.stop()
            for task in tasks[:1]:
                task.cancel()
            await asyncio.gather(*tasks[:1], return_exceptions=True)
        self._say("ended")


def _tail(path: Path, lines: int = 15) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
