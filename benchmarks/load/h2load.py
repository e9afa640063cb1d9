"""h2load (Debian: nghttp2-client): HTTP/2 in clear, closed loop, one thread, for a time.

Varied requests differ in path and query: h2load takes a list of them, header fields are the same in all.
Latencies are taken from its log, a line a request: its own summary knows no percentiles.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import measure
from benchmarks.load.measured import Ask, Load, percentiles

_REQUESTS = re.compile(
    r"^requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", re.M
)
_STATUS = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.M)
_FINISHED = re.compile(r"^finished in ([\d.]+)(us|ms|s|m),", re.M)
_UNIT = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
HEADERS = ("user-agent: bench", "accept: */*", "accept-language: en", "x-trace: 0123456789abcdef", "cookie: session=1")


def command(ask: Ask, work: Path) -> list[str]:
    words = [
        "h2load",
        f"-c{ask.connections}",
        f"-m{ask.streams}",
        "-t1",
        "-D",
        f"{round(ask.seconds * 1000)}ms",
        "--warm-up-time=0",
    ]
    words += ["-D", f"{round(ask.seconds * 1000)}ms", "--log-file", str(work / "h2load.log")]
    # Windows: its defaults, 1 GiB, so that the client holds nobody back.
    for field in (f":authority: {ask.authority}", *HEADERS):
        words += ["-H", field]
    if ask.body:
        data = work / f"body-{ask.body}"
        if not data.exists():
            data.write_bytes(b"0123456789abcdef" * (ask.body // 16))
        words += ["-d", str(data)]  # and so POST
    if not ask.varied:
        return [*words, f"http://{ask.address}{ask.paths[0]}"]
    target = work / f"uris-{ask.address}-{abs(hash(tuple(ask.paths))):x}"
    if not target.exists():
        target.write_text("".join(f"http://{ask.address}{path}\n" for path in ask.paths))
    return [*words, "-i", str(target)]


def parse(said: str) -> Load:
    """Without latencies.  Raises LoadFailed."""
    requests, status, finished = _REQUESTS.search(said), _STATUS.search(said), _FINISHED.search(said)
    if requests is None or status is None or finished is None:
        raise measure.LoadFailed(f"h2load gave no result: {said.strip()[-500:]}")
    done, succeeded, failed, errored, timeout = (int(requests[n]) for n in (3, 4, 5, 6, 7))
    bad = max(done - succeeded, failed, errored + timeout, sum(int(status[n]) for n in (2, 3, 4)))
    return Load(done, float(finished[1]) * _UNIT[finished[2]], bad)


def run(ask: Ask, work: Path) -> Load:
    """Raises LoadFailed."""
    log = work / "h2load.log"
    log.unlink(missing_ok=True)
    load = parse(measure.on_load_core(command(ask, work), ask.seconds + 30))
    with log.open() as lines:  # start (us), status, duration (us)
        durations = sorted(float(line.rsplit("\t", 1)[1]) for line in lines if line.count("\t") == 2)
    return Load(load.requests, load.seconds, load.errors, percentiles(durations))
