"""Our own drivers as processes: gRPC (benchmarks.grpc_load) and open loop (benchmarks.pace).  They print one line of JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.load.measured import PERCENTILES, Ask, Load

REPOSITORY = Path(__file__).parent.parent.parent
PACE_WARM = 200  # requests benchmarks.pace sends before it counts


def grpc(ask: Ask, calls: int, stream: bool) -> Load:
    """`calls` unary calls, or messages; ask.streams of them in flight, over ask.connections in all.  Raises LoadFailed."""
    words = ["-m", "benchmarks.grpc_load", ask.address, "--authority", ask.authority, "--warm", "0", "--calls", str(calls)]
    words += ["--connections", str(ask.connections), "--concurrency", str(ask.streams)]
    words += ["--stream"] if stream else []
    words += [] if ask.varied else ["--identical"]
    return _run(words, 60)


def pace(ask: Ask, rate: int) -> Load:
    """Raises LoadFailed."""
    host, port = measure.split(ask.address)
    words = [
        "-m",
        "benchmarks.pace",
        host,
        str(port),
        "--rate",
        str(rate),
        "--seconds",
        f"{ask.seconds:g}",
        "--authority",
        ask.authority,
    ]
    words += ["--connections", str(ask.connections)] + (["--varied"] if ask.varied else [])
    return _run(words, ask.seconds + 40, PACE_WARM)


def _run(words: list[str], timeout: float, warm: int = 0) -> Load:
    said = measure.on_load_core([sys.executable, *words], timeout, cwd=REPOSITORY)
    try:
        found: dict[str, Any] = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        requests, errors = int(found["requests"]), int(found["errors"])
        latency = {name: float(found["latency_us"][name]) for name in PERCENTILES if name in found["latency_us"]}
    except (StopIteration, ValueError, KeyError, TypeError) as error:
        raise measure.LoadFailed(f"{words[1]} gave no result: {said.strip()[-500:]}") from error
    known = {"requests", "seconds", "errors", "latency_us"}
    extra = {name: value for name, value in found.items() if name not in known}
    return Load(requests, float(found.get("seconds", 0.0)), errors, latency, warm, extra)
