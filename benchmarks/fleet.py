"""Proxies and backends of a run: started when first needed, kept to its end.

    need(peer, workload) --running--> Running
         |  not yet, or ended                      NotReady, Unsupported
         ` start: backend of the kind, then peer.one_hop or two_hops
    drop(peer, workload)              after a failed measurement: the next one gets a fresh process

Kept, because starting a mesh for each measurement would take longer than measuring; those that wait cost next to nothing (they
have no connections of their own).  Memory readings take processes of their own (`fresh`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

from benchmarks import measure
from benchmarks.nginx_backend import neighbours
from benchmarks.peers.peer import Backend, Peer, Running
from benchmarks.workloads import Workload

HERE = Path(__file__).parent
Key = tuple[str, int, str]  # peer, hops, kind


class Fleet:
    """`work` takes every file.  A context manager: at its end everything has ended."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.backends: dict[tuple[str, int], list[Backend]] = {}
        self.running: dict[Key, tuple[ExitStack, Running]] = {}
        self.stack = ExitStack()

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            for stack, _ in self.running.values():
                self.stack.push(stack)  # one that does not end leaves the others to be ended
            self.running.clear()
        finally:
            self.stack.close()

    def backend(self, kind: str, count: int = 1) -> list[Backend]:
        """`count` addresses of one server for this kind, running.  Raises NotReady."""
        served = {"grpc": "grpc", "h2": "h2"}.get(kind, "h1")
        found = self.backends.get((served, count))
        if found is None:
            if served == "grpc":
                program = (sys.executable, str(HERE / "grpc_backend.py"))
                address = measure.free_address()
            else:
                program = (sys.executable, str(HERE / "nginx_backend.py"), served, str(self.work))
                address = measure.free_address("127.0.0.1" if count == 1 else "127.1.0.1")
            words = [*program, address, *([str(count)] if count > 1 else [])]
            environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
            self.stack.enter_context(measure.process(words, environment, on_core=measure.LOAD_CORE, ready=address))
            found = [Backend(each, program) for each in neighbours(address, count)]
            self.backends[served, count] = found
        return found

    def need(self, peer: Peer, workload: Workload) -> Running:
        """Raises NotReady, Unsupported."""
        key = (peer.name, workload.hops, workload.kind)
        held = self.running.get(key)
        if held is not None:
            if all(alive(pid) for pid in held[1].pids.values()):
                return held[1]
            self.drop(peer, workload)
        stack = ExitStack()
        with stack:
            found = stack.enter_context(self.fresh(peer, workload))
            self.running[key] = (stack.pop_all(), found)
        return found

    def drop(self, peer: Peer, workload: Workload) -> None:
        held = self.running.pop((peer.name, workload.hops, workload.kind), None)
        if held is not None:
            held[0].close()

    @contextmanager
    def fresh(self, peer: Peer, workload: Workload) -> Iterator[Running]:
        """A process (or two) for one measurement.  Raises NotReady, Unsupported."""
        backends = self.backend(workload.kind, workload.endpoints)
        # One that is started anew, after a failed measurement, finds nothing of the one before.
        home = Path(mkdtemp(prefix=f"{peer.name}-{workload.hops}-{workload.kind}-{workload.tool}-", dir=self.work))
        start = peer.one_hop if workload.hops == 1 else peer.two_hops
        with start(workload.kind, measure.free_address(), backends, home) as running:
            yield running


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
