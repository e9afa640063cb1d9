"""`make bench-smoke`: CPU microseconds a request, of `forward` and of each sidecar on the two-hop path, in seconds.

    forward     load --HTTP/1.1--> [forward] --> backend                        small requests; uploads of 64 KiB
    two hops    load --HTTP/1.1--> [sidecar A] ==mTLS, HTTP/2==> [sidecar B] --> backend

Needs nothing installed: load generator and backend are our own.  `make bench` has the peers, and more loads.
The proxies share one core, load generator and backend the other.  Rounds are interleaved: interpreted, compiled (if
built), and again; the median is printed with the smallest and the largest.  Absolute figures depend on the machine and
its mood; compare only within one table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import measure
from benchmarks.load.closed import load
from benchmarks.peers.ours import Ours
from benchmarks.peers.peer import Backend, Running

HERE = Path(__file__).parent
REQUEST = (
    "%s / HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Language: en\r\nX-Trace: 0123456789abcdef\r\n"
)
UPLOAD = 1 << 16  # bytes


def request_for(authority: str, body: int) -> bytes:
    """A GET, or a POST with `body` bytes."""
    if not body:
        return (REQUEST % ("GET", authority)).encode() + b"\r\n"
    return (REQUEST % ("POST", authority)).encode() + b"Content-Length: %d\r\n\r\n" % body + b"x" * body


def cpu_us(running: Running, requests: int, connections: int, body: int = 0) -> dict[str, float]:
    """CPU microseconds a request, by role.  Ends the program if a request fails: that is no measurement."""
    host, port = measure.split(running.address)
    request = request_for(running.authority, body)

    async def run() -> int:
        await load(host, port, request, connections, requests // 5)  # warm: pools, caches, tables
        before.update({role: measure.cpu_seconds(pid) for role, pid in running.pids.items()})
        _, failed = await load(host, port, request, connections, requests)
        after.update({role: measure.cpu_seconds(pid) for role, pid in running.pids.items()})
        return failed

    before: dict[str, float] = {}
    after: dict[str, float] = {}
    import uvloop

    if failed := uvloop.run(run()):
        raise SystemExit(f"{failed} of {requests} requests failed: this is no measurement")
    return {role: (after[role] - before[role]) * 1e6 / requests for role in before}


@contextmanager
def backend() -> Iterator[Backend]:
    program = (sys.executable, str(HERE / "backend.py"))
    running = Backend(measure.free_address(), program)
    with measure.process(running.command(running.address), on_core=measure.LOAD_CORE, ready=running.address):
        yield running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    modes = [peer for peer in (Ours("interpreted"), Ours("compiled")) if not peer.missing()]
    names = {"A": "two hops: sidecar A (outbound)", "B": "two hops: sidecar B (inbound)"}
    results: dict[tuple[str, str], list[float]] = {}
    os.sched_setaffinity(0, measure.core(measure.LOAD_CORE))
    with tempfile.TemporaryDirectory(prefix="meshproxy-bench-") as work, backend() as behind:
        for _ in range(options.rounds):
            for peer in modes:
                with peer.one_hop("h1", measure.free_address(), [behind], Path(work)) as running:
                    used = cpu_us(running, options.requests, options.connections)
                    results.setdefault(("forward", peer.mode), []).append(used["A"])
                    used = cpu_us(running, max(5, options.requests // 10), options.connections, UPLOAD)
                    results.setdefault(("forward, uploads of 64 KiB", peer.mode), []).append(used["A"])
                with peer.two_hops("h1", "", [behind], Path(work)) as running:
                    for role, value in cpu_us(running, options.requests, options.connections).items():
                        results.setdefault((names[role], peer.mode), []).append(value)
    print(f"CPU us a request, median [min-max] of {options.rounds} rounds of {options.requests} requests, ")
    print(f"{options.connections} connections, Python {sys.version.split()[0]}\n")
    for (what, mode), values in sorted(results.items()):
        print(f"{what:34} {mode:12} {statistics.median(values):7.1f} [{min(values):.1f}-{max(values):.1f}]")
    if len(modes) < 2:
        print("\ncompiled: not built (make build)")


if __name__ == "__main__":
    main()
