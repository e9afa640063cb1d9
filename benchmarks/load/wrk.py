"""wrk (Debian: wrk): HTTP/1.1, closed loop, one thread."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import measure
from benchmarks.load.measured import PERCENTILES, Ask, Load

SCRIPT = Path(__file__).parent / "varied.lua"


def command(ask: Ask, work: Path) -> list[str]:
    """wrk knows whole seconds only: it is told one more, and interrupted (run), upon which it reports as at its end."""
    file = ""
    if ask.varied:
        target = work / f"paths-{abs(hash(tuple(ask.paths))):x}"
        if not target.exists():
            target.write_text("\n".join(ask.paths) + "\n")
        file = str(target)
    url = f"http://{ask.address}{ask.paths[0]}"
    words = ["wrk", "-t1", f"-c{ask.connections}", f"-d{int(ask.seconds) + 1}s", "--timeout", "5s", "-s", str(SCRIPT)]
    return [*words, url, "--", ask.authority, file, str(ask.body)]


def parse(said: str) -> Load:
    """From what varied.lua's done() writes.  Raises LoadFailed."""
    line = next((line for line in said.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise measure.LoadFailed(f"wrk gave no result: {said.strip()[-500:]}")
    found = json.loads(line.removeprefix("RESULT "))
    latency = {name: float(found[name]) for name in PERCENTILES}
    return Load(found["requests"], found["us"] / 1e6, found["errors"] + found["status"], latency)


def run(ask: Ask, work: Path) -> Load:
    """Raises LoadFailed."""
    return parse(measure.on_load_core(command(ask, work), ask.seconds + 30, interrupt_after=ask.seconds))
