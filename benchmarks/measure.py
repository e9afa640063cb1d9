"""What every benchmark here stands on: processes that end, cores, ports, and the two readings, CPU and memory.

    core 0   the proxy under test (both of a two-hop path)
    core 1   load generator, backend, everything else

CPU is the scheduler's own count per thread (/proc/<pid>/task/*/schedstat, nanoseconds), summed over a process and its
descendants: a proxy that forks a worker is measured with it.  Nothing here depends on how fast the load generator is.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

PROXY_CORE, LOAD_CORE = 0, 1
READY_S = 20.0  # an interpreted proxy imports in about a second, on a busy machine in some
STOP_S = 15.0  # longer than any proxy's drain of connections that carry nothing
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)  # loaded before any fork


class LoadFailed(Exception):
    """A load generator could not run or said something we cannot read; `str()` says what."""


class NotReady(Exception):
    """A process ended or did not listen in time; `str()` holds the end of what it said."""


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


_ALL_CORES = cores()  # before this process pins itself


def core(index: int) -> set[int]:
    """The affinity mask for our core number `index`; with a single core all share it (and the results say so)."""
    return {_ALL_CORES[min(index, len(_ALL_CORES) - 1)]}


def raise_open_files() -> int:
    """As many descriptors as this process may have, for itself and what it starts; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def core_count() -> int:
    return len(_ALL_CORES)


def tree(pid: int) -> list[int]:
    """`pid` and its living descendants."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for task in _tasks(parent):
            with suppress(OSError):
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Time on a core of all threads of `pid` and of its descendants, in seconds.  Raises ProcessLookupError if it is gone."""
    total = 0
    for member in tree(pid):
        for task in _tasks(member):
            with suppress(OSError):  # a thread that ends between listing and reading
                total += int((task / "schedstat").read_text().split()[0])
    if not Path(f"/proc/{pid}").exists():
        raise ProcessLookupError(f"process {pid} is gone")
    return total / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory of `pid` and its descendants: all private pages, and the shared ones (code, mostly) once."""
    private, shared = 0, 0
    for member in tree(pid):
        fields = _status(member)
        private += fields.get("RssAnon", 0)
        shared = max(shared, fields.get("RssFile", 0) + fields.get("RssShmem", 0))
    if not private:
        raise ProcessLookupError(f"process {pid} is gone")
    return (private + shared) * 1024


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _status(pid: int) -> dict[str, int]:
    fields = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.startswith("Rss"):
                fields[name] = int(value.split()[0])  # kB
    return fields


def pin(pid: int, index: int) -> None:
    """All threads of `pid` and its descendants to our core number `index`; what they start later inherits it."""
    for member in tree(pid):
        for task in _tasks(member):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), core(index))


_LATELY: deque[int] = deque(maxlen=100)  # ports given out, which may not be bound yet


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, from below the range of outgoing connections: it stays free until it is bound."""
    for _ in range(1000):
        port = random.randrange(10_000, 32_000)
        if port in _LATELY:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _LATELY.append(port)
        return port
    raise OSError(f"no free port on {host}")


def free_address(host: str = "127.0.0.1") -> str:
    return f"{host}:{free_port(host)}"


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@contextmanager
def process(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    on_core: int | None = None,
    ready: str | Sequence[str] = (),
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that dies with us.  `ready`: addresses that must take a connection first.  Raises NotReady.

    It ends by SIGTERM, after STOP_S by SIGKILL.  What it says goes to a file, so that a pipe nobody reads cannot stop it."""
    mask = core(on_core) if on_core is not None else None
    parent = os.getpid()

    def before_exec() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        if mask is not None:
            os.sched_setaffinity(0, mask)

    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(
            list(arguments),
            env=None if environment is None else dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            preexec_fn=before_exec,
        )
        try:
            for address in [ready] if isinstance(ready, str) else ready:
                try:
                    wait_port(*split(address), running)
                except OSError as error:
                    said.seek(max(0, said.seek(0, os.SEEK_END) - 2000))
                    tail = said.read().decode(errors="replace").strip()
                    raise NotReady(f"{arguments[0]} does not listen on {address}: {error}\n{tail}") from error
            yield running
        finally:
            end(running)


def on_load_core(arguments: Sequence[str], timeout: float, cwd: Path | None = None, interrupt_after: float = 0.0) -> str:
    """Run a load generator to its end, or SIGINT after so many seconds; what it wrote, stderr last.

    Raises LoadFailed if it fails or takes longer than `timeout` seconds."""
    mask = core(LOAD_CORE)
    try:
        running = subprocess.Popen(
            list(arguments),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, mask),
        )
    except FileNotFoundError as error:
        raise LoadFailed(f"there is no {arguments[0]}") from error
    with running:
        try:
            if interrupt_after:
                with suppress(subprocess.TimeoutExpired):
                    running.wait(interrupt_after)
                running.send_signal(signal.SIGINT)
            said, complaints = running.communicate(timeout=timeout)
        except BaseException as error:
            running.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LoadFailed(f"{arguments[0]} was not done after {timeout:.0f} s") from error
            raise
    if running.returncode:
        raise LoadFailed(f"{arguments[0]} ended with status {running.returncode}: {(said + complaints).strip()[-500:]}")
    return said + complaints


def end(running: subprocess.Popen[bytes]) -> None:
    running.terminate()
    try:
        running.wait(STOP_S)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


def wait_port(host: str, port: int, running: subprocess.Popen[bytes] | None = None, seconds: float = READY_S) -> None:
    """Return when the port takes a connection.  Raises OSError after `seconds`, or if the process has ended."""
    deadline = monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            if running is not None and running.poll() is not None:
                raise OSError(f"it ended with status {running.returncode}") from None
            if monotonic() > deadline:
                raise
            sleep(0.02)
