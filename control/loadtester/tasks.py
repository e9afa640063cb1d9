"""Commands of webhooks, run with bounds on time, number and output.

    cmd   start(): 202 at once --> runs by itself, its end is logged      one at a time of each (Canary, command)
    bash  run():  the webhook waits ----------------------------> Ended   its output or error is the answer

    started --exit--> Ended          --time is up, or we end--> SIGTERM to the process group, 2 s, SIGKILL --> Ended

A command has a process group of its own, so that what it starts ends with it; should this process be killed outright the
kernel kills the command (PR_SET_PDEATHSIG), but not what that may have started itself.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

log = logging.getLogger("meshproxy.loadtester")

MAX_OUTPUT_BYTES = 64 * 1024  # kept of a command's output: the end, where errors are
MAX_RUNNING = 100  # commands at once; a Canary's webhook starts one each tick at most
GRACE_S = 2.0  # between SIGTERM and SIGKILL

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Busy(Exception):
    """There are MAX_RUNNING commands already."""


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is the exit status, negative for a signal; `timed_out`: we ended it."""

    code: int
    output: bytes
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.timed_out

    def __str__(self) -> str:
        if self.timed_out:
            return "time is up"
        return f"exit status {self.code}" if self.code >= 0 else f"signal {-self.code}"


class Tasks:
    """`timeout_s` for each command; `environment` is theirs."""

    def __init__(self, timeout_s: float = 3600.0, environment: Mapping[str, str] | None = None) -> None:
        self._timeout_s = timeout_s
        self._environment = dict(os.environ if environment is None else environment)
        self._running: dict[tuple[str, str], asyncio.Task[Ended]] = {}
        self._count = 0
        self.started = 0
        self.failed = 0

    def start(self, canary: str, command: str, show_output: bool) -> bool:
        """Runs `command` by itself in sh; False if the same is running for this Canary.  Raises Busy."""
        key = (canary, command)
        if key in self._running:
            log.info("%s: command skipped, it is already running: %s", canary, command)
            return False
        if len(self._running) >= MAX_RUNNING:
            raise Busy
        task = asyncio.get_running_loop().create_task(self.run(canary, "sh", command, show_output), name=f"{canary} {command}")
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))
        return True

    async def run(self, canary: str, shell: str, command: str, show_output: bool = True) -> Ended:
        """Runs `command` in `shell` to its end.  Raises Busy."""
        if self._count >= MAX_RUNNING:
            raise Busy
        self._count += 1
        self.started += 1
        log.info("%s: command starting: %s", canary, command)
        try:
            ended = await self._run(shell, command)
        except OSError as error:  # no such shell, no more processes
            ended = Ended(127, str(error).encode())
        finally:
            self._count -= 1
        if not ended.ok:
            self.failed += 1
            log.warning("%s: command failed (%s): %s: %s", canary, ended, command, text(ended.output))
        else:
            log.info("%s: command finished: %s%s", canary, command, f": {text(ended.output)}" if show_output else "")
        return ended

    async def close(self) -> None:
        """Ends what runs."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, shell: str, command: str) -> Ended:
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        process = await asyncio.create_subprocess_exec(
            *(shell, "-c", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            process_group=0,
            preexec_fn=die_with_parent,
        )
        output = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                await _gather(process, output)
                code = await process.wait()
        except TimeoutError:
            return Ended(await _end(process), bytes(output), timed_out=True)
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            _signal(process, signal.SIGKILL)  # what it left behind in its group
        return Ended(code, bytes(output))


def text(output: bytes) -> str:
    return output.decode("utf-8", "replace").strip()


async def _gather(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None
    while part := await process.stdout.read(MAX_OUTPUT_BYTES):
        output += part
        del output[:-MAX_OUTPUT_BYTES]


async def _end(process: asyncio.subprocess.Process) -> int:
    _signal(process, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_S):
            return await process.wait()
    _signal(process, signal.SIGKILL)
    return await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # the group is gone
        os.killpg(process.pid, number)
