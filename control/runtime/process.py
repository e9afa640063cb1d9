"""Starting a process, and being sure that it ends.

    supervisor (main thread) --fork--> prctl(PDEATHSIG, KILL), parent still there? --exec--> program
        | pidfd readable: it ended -> the rest of its group is killed -> on_exit(Exit)
        | pipe readable: what it said -> its log (control.runtime.logfile)
        ` records/<pid>: pid, start time, name -> who comes after a crash knows what to end

Three nets, each for what falls through the one before: an orderly end; the kernel's parent-death signal, when the
supervisor is killed; and for grandchildren (which have no such signal) the guard, a process that waits for the
supervisor's end on a pipe and then kills the recorded groups (control.runtime.guard).

PDEATHSIG is tied to the parent *thread*, so everything is spawned from the main thread.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from control.runtime.meshes import alive, start_time

_READ = 64 << 10
_DRAIN_LIMIT = 1 << 20  # bytes still read after a process ended: more than a pipe holds
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded before any fork: between fork and exec only the call itself happens


class SpawnError(Exception):
    """The program could not be started; `str()` says which and why."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with a code, or by a signal (then code is 128 + signal, as Kubernetes shows it)."""

    code: int
    signal: int = 0
    reason: str = ""  # "" means the usual: Completed or Error
    message: str = ""

    @classmethod
    def of(cls, returncode: int) -> Exit:
        return cls(returncode) if returncode >= 0 else cls(128 - returncode, -returncode)

    def __str__(self) -> str:
        if self.message:
            return self.message
        return f"killed by {signal.Signals(self.signal).name}" if self.signal else f"exit code {self.code}"


class Sink(Protocol):
    """Takes what a process says."""

    def write(self, data: bytes, /) -> object: ...


class Process:
    """A child in a process group of its own.  Made by `spawn`, on the event loop of the main thread."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, record: Path | None) -> None:
        self._popen = popen
        self._record = record
        self.name = name
        self.pid = popen.pid
        self.start = start_time(popen.pid)
        self.exit: Exit | None = None

    @property
    def running(self) -> bool:
        return self.exit is None

    def signal(self, number: int) -> None:
        """To the whole group; nothing happens if it ended already."""
        if self.exit is None:  # not reaped yet, so neither the pid nor the group can be somebody else's
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _ended(self, returncode: int) -> Exit:
        # As when process 1 of a container ends: what it started goes with it.  The group's number cannot have been
        # given away while one of its members lives; with none left this is an error we ignore.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.exit = Exit.of(returncode)
        if self._record is not None:
            self._record.unlink(missing_ok=True)
        return self.exit


def spawn(
    argv: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str],
    directory: Path | None,
    log: Sink,
    on_exit: Callable[[Exit], None],
    records: Path | None = None,
) -> Process:
    """Start a program; it dies with this process, whatever happens to it.

    Args:
        argv: the program and its arguments; looked up in the environment's PATH.
        environment: all of it; nothing is inherited.
        log: where its output goes, both streams.
        on_exit: called once, on the event loop, after the process and its group are gone.
        records: directory for the record of this process.

    Raises:
        SpawnError: no such program, not executable, no such working directory.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("processes are spawned from the main thread: the parent-death signal is tied to it")
    loop = asyncio.get_running_loop()
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(125)

    try:
        popen = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            process_group=0,
            preexec_fn=die_with_parent,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        raise SpawnError(f"cannot start {argv[0]!r}: {_why(error, argv[0], directory)}") from None
    record = records / str(popen.pid) if records is not None else None
    process = Process(popen, name, record)
    if record is not None:
        record.write_text(json.dumps({"pid": process.pid, "start": process.start, "name": name}))
    assert popen.stdout is not None
    pipe = popen.stdout.fileno()
    os.set_blocking(pipe, False)
    loop.add_reader(pipe, _pump, loop, pipe, log)
    descriptor = os.pidfd_open(popen.pid)

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        exit_ = process._ended(popen.wait())
        loop.remove_reader(pipe)
        for _ in range(_DRAIN_LIMIT // _READ):
            if not _pump(loop, pipe, log):
                break
        assert popen.stdout is not None
        popen.stdout.close()
        on_exit(exit_)

    loop.add_reader(descriptor, ended)
    return process


def _pump(loop: asyncio.AbstractEventLoop, pipe: int, log: Sink) -> bool:
    try:
        data = os.read(pipe, _READ)
    except BlockingIOError:
        return False
    if not data:
        loop.remove_reader(pipe)
        return False
    log.write(data)
    return True


def _why(error: OSError | ValueError, program: str, directory: Path | None) -> str:
    if directory is not None and not directory.is_dir():
        return f"its working directory {directory} does not exist"
    if isinstance(error, FileNotFoundError):
        return f"no such program in PATH; give the command of the container ({program!r} was looked up)"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


# ---------------------------------------------------------------- what a killed supervisor left


def records_of(processes: Path, pid: int, start: str) -> Path:
    """The directory in which one supervisor records what it started: no other one ever mistakes it for its own."""
    return processes / f"{pid}-{start}"


def process_names(records: Path) -> dict[int, str]:
    """Process group -> name of all that is recorded."""
    names = {}
    for path in records.iterdir() if records.is_dir() else []:
        with suppress(OSError, ValueError, KeyError, TypeError):
            names[int(path.name)] = str(json.loads(path.read_text())["name"])
    return names


def reap_abandoned(processes: Path) -> list[str]:
    """Kill what supervisors that are no more left running; returns the names of what was killed."""
    killed: list[str] = []
    for records in sorted(processes.iterdir()) if processes.is_dir() else []:
        pid, _, start = records.name.partition("-")
        if not (pid.isdigit() and alive(int(pid), start)):
            killed += reap(records)
    return killed


def reap(records: Path) -> list[str]:
    """Kill every recorded group that is still there, and forget the records; returns the names of what was killed."""
    killed = []
    groups = _groups()
    for path in sorted(records.iterdir()) if records.is_dir() else []:
        try:
            record = json.loads(path.read_text())
            pid, start, name = int(record["pid"]), str(record["start"]), str(record["name"])
        except (OSError, ValueError, KeyError, TypeError):
            pid, start, name = 0, "", ""
        # A leader with another start time is another process that was given the number.
        if pid > 1 and pid in groups and start_time(pid) in ("", start):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
                killed.append(name)
        path.unlink(missing_ok=True)
    with suppress(OSError):
        records.rmdir()
    return killed


def _groups() -> set[int]:
    """The numbers of all process groups that have a member (zombies excepted)."""
    groups = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                state, _, group = stat[stat.rindex(")") + 2 :].split()[:3]
                if state not in "ZX":
                    groups.add(int(group))
    return groups
