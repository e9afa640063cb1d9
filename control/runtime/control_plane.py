"""The control plane's process: a child of the supervisor, started again with back-off whenever it ends.

    start -> ready (its admin port answers 200 on /ready) -> ended -> start again at once, then after 0.5 s, 1 s ... 15 s

It goes on from its state directory; proxies keep what they know meanwhile, and traffic does not notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from control.runtime import probe_io
from control.runtime.environment import of_the_control_plane
from control.runtime.logfile import LogFile
from control.runtime.probes import Backoff, HttpGet
from control.runtime.process import Exit, Process, spawn
from control.runtime.sidecar import Settings

_GRACE = 10.0  # seconds between SIGTERM and SIGKILL

Say = Callable[[str], None]


def control_command(settings: Settings, admin: str) -> list[str]:
    """The command line of the control plane."""
    return [
        *(sys.executable, "-m", "meshproxy", "control"),
        *("--state", str(settings.layout.root), "--manifests", str(settings.directory)),
        *("--listen", settings.control, "--admin", admin, "--trust-domain", settings.trust_domain),
        *("--leaf-lifetime", f"{settings.leaf_lifetime:g}"),
        *(("--identity-issuer", str(settings.identity_issuer)) if settings.identity_issuer is not None else ()),
        *(("--gateway", settings.gateway) if settings.gateway else ()),
        *(("--metrics-server", settings.metrics_server) if settings.metrics_server else ()),
        *settings.canary_options,
    ]


class ControlPlane:
    """The control plane's process, started again with back-off whenever it ends."""

    def __init__(self, settings: Settings, admin: str, say: Say) -> None:
        self._settings = settings
        self._admin = admin
        self._say = say
        self._log = LogFile(settings.layout.control_log)
        self._backoff = Backoff(base=0.5, limit=15.0, reset=60.0)
        self._process: Process | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started = 0.0
        self._stopping = False
        self._ended = asyncio.Event()
        self.restarts = 0
        self.last: Exit | None = None

    @property
    def pid(self) -> int:
        """0 while it waits to be started again."""
        return self._process.pid if self._process is not None and self._process.running else 0

    def start(self) -> None:
        self._timer = None
        self._started = time.monotonic()
        self._log.mark_start()
        self._process = spawn(
            control_command(self._settings, self._admin),
            name="control plane",
            environment={**self._settings.own_environment, **of_the_control_plane(os.environ)},
            directory=None,
            log=self._log,
            on_exit=self._on_exit,
            records=self._settings.records,
        )

    async def ready(self) -> bool:
        host, _, port = self._admin.rpartition(":")
        ok, _ = await probe_io.ask(HttpGet(int(port), "/ready"), probe_io.Target(host), 2.0)
        return ok

    async def stop(self) -> None:
        """SIGTERM, after a grace SIGKILL."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self._process is None or not self._process.running:
            return
        for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, 5.0)):
            self._process.signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._ended.wait()
                return

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None:
            self._process.signal(signal.SIGKILL)

    def _on_exit(self, exit_: Exit) -> None:
        self.last = exit_
        if self._stopping:
            self._ended.set()
            return
        delay = self._backoff.next_delay(time.monotonic() - self._started)
        self.restarts += 1
        when = f"in {delay:g} s" if delay else "now"
        self._say(f"control plane ended ({exit_}); it starts again {when}; proxies keep what they know")
        self._timer = asyncio.get_running_loop().call_later(delay, self.start)
