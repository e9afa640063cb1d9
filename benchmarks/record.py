"""Results JSON, written: a run adds to it and writes it whole after every measurement, so an interrupted run keeps what it has.

    {"machine":   {"cpu", "cores", "kernel", "python", "versions": {peer: text}, "commit", "dirty", "load_average", ...},
     "peers":     {peer: {"title", "version", "settings"}},
     "workloads": {id: {"title", "group", "hops", "kind", "tool", "connections", "streams", "seconds", "varied", ...}},
     "missing":   {peer: why},
     "skipped":   [{"workload", "peer", "why"}],                              what a peer cannot do
     "rounds":    [{"workload", "peer", "round", "requests", "seconds", "errors",
                    "cpu_us": {"A": a request, "B": ...}, "rss": {"A": bytes, ...},
                    "latency_us": {"p50", "p90", "p99", "p999"},
                    "invalid": why}],                                         with errors only, then one at least
     "finished":  true or false, "took_s": seconds}

Memory rounds have "connections" (how many were held), "rss_before" and "rss" instead of CPU.  Everything else is computed from
this (benchmarks/results.py reads it, benchmarks/report.py writes the page).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.peers.peer import Peer
from benchmarks.workloads import Workload

REPOSITORY = Path(__file__).parent.parent


class Record:
    """Append-only, in the file `path`."""

    def __init__(self, path: Path, peers: Sequence[Peer], workloads: Sequence[Workload]) -> None:
        self.path = path
        self.started = time.monotonic()
        missing = {peer.name: why for peer in peers if (why := peer.missing())}
        versions = {peer.name: peer.version() for peer in peers if peer.name not in missing}
        self.data: dict[str, Any] = {
            "machine": machine(versions),
            "peers": {
                peer.name: {"title": peer.title, "version": versions.get(peer.name, ""), "settings": peer.settings}
                for peer in peers
            },
            "workloads": {each.id: {**asdict(each), "group": each.group} for each in workloads},
            "missing": missing,
            "skipped": [],
            "rounds": [],
            "finished": False,
            "took_s": 0.0,
        }

    def skip(self, workload: Workload, peer: Peer, why: str) -> None:
        self.data["skipped"].append({"workload": workload.id, "peer": peer.name, "why": why})

    def add(self, entry: dict[str, Any]) -> None:
        self.data["rounds"].append(entry)
        self.save()

    def save(self, finished: bool = False) -> None:
        self.data["finished"] = finished
        self.data["took_s"] = round(time.monotonic() - self.started, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps(self.data, indent=1) + "\n")
        new.replace(self.path)  # whole or not at all


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """What a reader must know of where this was measured."""
    return {
        "cpu": cpu_model(),
        "cores": measure.core_count(),
        "pinned": measure.core_count() > 1,
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "kernel": platform.release().partition("-")[0],  # the rest names who built it
        "python": python_build(),
        "open_files": measure.raise_open_files(),
        "versions": versions,
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "load_average": round(os.getloadavg()[0], 2),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def python_build() -> str:
    """Version, and how the interpreter is linked: one in a shared library calls itself through a table.  Compiled, two hops
    cost 6 % more with it (docs/performance.md)."""
    shared = "libpython" in Path("/proc/self/maps").read_text()
    return f"{platform.python_version()}, {'a shared libpython' if shared else 'linked into the executable'}"


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()  # ARM's cpuinfo has no model name


def git(*words: str) -> str:
    """ "" where this is no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
