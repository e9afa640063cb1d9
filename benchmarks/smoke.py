"""`make bench-smoke`: CPU microseconds a request, of `forward` and of each sidecar on the two-hop path, in seconds.

    forward     load --HTTP/1.1--> [forward] --> backend
    two hops    load --HTTP/1.1--> [sidecar A] ==mTLS, HTTP/2==> [sidecar B] --> backend

The proxies share one core, load generator and backend the other.  What is read is the proxy process's own time on a core
(/proc/<pid>/task/*/schedstat), so the load generator's speed does not enter.  Rounds are interleaved: interpreted, compiled
(if built), and again; the median is printed with the smallest and the largest.  Absolute figures depend on the machine and
its mood; compare only within one table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from benchmarks.load import load
from meshproxy import pure

HERE = Path(__file__).parent
REQUEST = (
    b"GET %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    b"Accept-Language: en\r\nX-Trace: 0123456789abcdef\r\n\r\n"
)


def cpu_seconds(pid: int) -> float:
    """All threads' time on a core, from the scheduler's own count (nanoseconds; /proc/<pid>/stat counts in 10 ms ticks)."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def pin(pid: int, core: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cores[core]})


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_port(host: str, port: int) -> None:
    import socket

    end = monotonic() + 20
    while True:
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            if monotonic() > end:
                raise
            sleep(0.02)


def measure(host: str, port: int, request: bytes, pids: list[int], requests: int, connections: int) -> list[float]:
    """CPU microseconds a request for each pid."""

    async def run() -> tuple[float, int]:
        await load(host, port, request, connections, requests // 5)  # warm: pools, caches, tables
        before = [cpu_seconds(pid) for pid in pids]
        seconds, failed = await load(host, port, request, connections, requests)
        after.extend(cpu_seconds(pid) - was for pid, was in zip(pids, before, strict=True))
        return seconds, failed

    after: list[float] = []
    import uvloop

    _, failed = uvloop.run(run())
    if failed:
        raise SystemExit(f"{failed} of {requests} requests failed: this is no measurement")
    return [seconds * 1e6 / requests for seconds in after]


def forward_round(environment: dict[str, str], backend: int, requests: int, connections: int) -> float:
    port = free_port()
    with process(
        ["-m", "meshproxy", "forward", f"127.0.0.1:{port}", f"127.0.0.1:{backend}", "--log-level", "error"], environment
    ) as proxy:
        wait_port("127.0.0.1", port)
        pin(proxy.pid, 0)
        return measure("127.0.0.1", port, REQUEST % (b"/", b"bench"), [proxy.pid], requests, connections)[0]


@contextmanager
def mesh(environment: dict[str, str]) -> Iterator[tuple[int, dict[str, int]]]:
    """A mesh of one app; yields the gateway's port and the pids of the two sidecars."""
    state = tempfile.mkdtemp(prefix="meshproxy-bench-")
    environment = {**environment, "MESHPROXY_STATE_HOME": state}
    manifests = Path(state) / "manifests"
    manifests.mkdir()
    text = (HERE / "mesh" / "bench.yaml").read_text().replace("BACKEND", str(HERE / "backend.py"))
    (manifests / "bench.yaml").write_text(text)
    command = [sys.executable, "-m", "meshproxy"]
    try:
        subprocess.run(
            [*command, "up", str(manifests), "--name", "bench", "-d"],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        info = json.loads((Path(state) / "bench" / "mesh.json").read_text())
        yield int(info["gateway"].rpartition(":")[2]), sidecar_pids(state)
    finally:
        subprocess.run([*command, "down", "--name", "bench"], env=environment, check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(state, ignore_errors=True)


def sidecar_pids(state: str) -> dict[str, int]:
    """Sidecars of our mesh, by name of pod: our own children's children, found by their command line."""
    found: dict[str, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if "proxy" in words and any(word.startswith(state) for word in words) and "--pod" in words:
            found[words[words.index("--pod") + 1]] = int(entry.name)
    return found


def two_hop_round(environment: dict[str, str], requests: int, connections: int) -> tuple[float, float]:
    with mesh(environment) as (port, pids):
        for pid in pids.values():
            pin(pid, 0)
        gateway = pids["gateway"]
        other = next(pid for name, pid in pids.items() if name != "gateway")
        request = REQUEST % (b"http://bench.bench/", b"bench.bench")
        used = measure("127.0.0.1", port, request, [gateway, other], requests, connections)
        return used[0], used[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    modes = {"interpreted": {**os.environ, pure.SWITCH: "1"}}
    if pure.extensions():
        modes["compiled"] = {key: value for key, value in os.environ.items() if key != pure.SWITCH}
    results: dict[tuple[str, str], list[float]] = {}
    backend_port = free_port()
    with process(["-m", "benchmarks.backend", "127.0.0.1", str(backend_port)], dict(os.environ)) as backend:
        wait_port("127.0.0.1", backend_port)
        pin(backend.pid, 1)
        pin(os.getpid(), 1)
        for _ in range(options.rounds):
            for mode, environment in modes.items():
                used = forward_round(environment, backend_port, options.requests, options.connections)
                results.setdefault(("forward", mode), []).append(used)
                a, b = two_hop_round(environment, options.requests, options.connections)
                results.setdefault(("two hops: sidecar A (outbound)", mode), []).append(a)
                results.setdefault(("two hops: sidecar B (inbound)", mode), []).append(b)
    print(f"CPU us a request, median [min-max] of {options.rounds} rounds of {options.requests} requests, ")
    print(f"{options.connections} connections, Python {sys.version.split()[0]}\n")
    for (what, mode), values in sorted(results.items()):
        print(f"{what:34} {mode:12} {statistics.median(values):7.1f} [{min(values):.1f}-{max(values):.1f}]")
    if "compiled" not in modes:
        print("\ncompiled: not built (make build)")


if __name__ == "__main__":
    main()
