"""`make soak`: ten minutes at full load, then memory and the books.  Exit code 0: flat, no error, and everybody agrees.

    load --+--> [caller's sidecar] ==mTLS==> [sidecar] --> app          two pods of it
           `--> [gateway] ===========mTLS==> [sidecar] --> app

Memory of each proxy is judged after a warm-up (a third of the time): a line fitted through it must not rise by more than 5 %
over the rest.  A run of less than three minutes shows it and does not judge it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from time import monotonic, sleep
from urllib.request import urlopen

from benchmarks import measure
from benchmarks.measure import NotReady
from benchmarks.soak import books
from benchmarks.soak.app import COUNTS_PORT, PORTS
from benchmarks.soak.load import Address, Traffic
from meshproxy.telemetry.golden import Page, deltas, parse

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
READY_S = 120.0
JUDGED_S = 180.0  # shorter runs are all warm-up
GROWTH = 0.05
SAMPLES = 200


@dataclass(frozen=True)
class Proxy:
    pod: str
    pid: int
    ip: str

    def page(self) -> Page:
        with urlopen(f"http://{self.ip}:4191/metrics", timeout=10) as answer:
            return parse(answer.read().decode())


@dataclass(frozen=True)
class Mesh:
    caller: Proxy
    gateway: Proxy
    apps: list[Proxy]
    addresses: dict[str, Address]
    gateway_address: Address

    @property
    def proxies(self) -> list[Proxy]:
        return [self.caller, self.gateway, *self.apps]

    def counts(self) -> dict[str, int]:
        """What reached the apps, by port."""
        total: dict[str, int] = {}
        for proxy in self.apps:
            with urlopen(f"http://{proxy.ip}:{COUNTS_PORT}/", timeout=10) as answer:
                for port, count in json.load(answer).items():
                    total[port] = total.get(port, 0) + count
        return total


@contextmanager
def mesh() -> Iterator[Mesh]:
    """Raises NotReady."""
    with tempfile.TemporaryDirectory(prefix="meshproxy-soak-") as directory:
        home = Path(directory)
        where, manifests = home / "listeners.json", home / "manifests"
        manifests.mkdir()
        text = Template((HERE / "soak.yaml").read_text()).substitute(
            app=json.dumps(["/bin/sh", "-c", f'cd {REPOSITORY} && exec {sys.executable} -m benchmarks.soak.app "$POD_IP"']),
            caller=json.dumps([sys.executable, str(HERE / "caller.py"), str(where)]),
        )
        (manifests / "soak.yaml").write_text(text)
        environment = {**os.environ, "MESHPROXY_STATE_HOME": str(home / "state")}
        up = [sys.executable, "-m", "meshproxy", "up", str(manifests), "--name", "soak"]
        try:
            with measure.process(up, environment, cwd=REPOSITORY) as supervisor:
                yield _wait(supervisor, home, where)
        finally:
            down = [sys.executable, "-m", "meshproxy", "down", "--name", "soak"]
            subprocess.run(down, env=environment, check=False, capture_output=True, cwd=REPOSITORY)
            shutil.rmtree(home / "state", ignore_errors=True)


def _wait(supervisor: subprocess.Popen[bytes], home: Path, where: Path) -> Mesh:
    end = monotonic() + READY_S
    while monotonic() < end:
        if supervisor.poll() is not None:
            raise NotReady(f"meshproxy up ended with status {supervisor.returncode}")
        proxies = _proxies(supervisor.pid)
        apps = [proxy for proxy in proxies if proxy.pod.startswith("app-")]
        caller = next((proxy for proxy in proxies if proxy.pod.startswith("caller-")), None)
        gateway = next((proxy for proxy in proxies if proxy.pod.startswith("gateway")), None)
        info = home / "state" / "soak" / "mesh.json"
        if len(apps) == 2 and caller and gateway and where.exists() and info.exists() and _answers(apps):
            told = json.loads(where.read_text())
            host = told["SOAK_SERVICE_HOST"]
            addresses = {name: (host, int(told[f"SOAK_SERVICE_PORT_{name.upper()}"])) for name in PORTS}
            address = measure.split(json.loads(info.read_text())["gateway"])
            return Mesh(caller, gateway, apps, addresses, address)
        sleep(0.2)
    raise NotReady(f"the mesh was not ready in {READY_S:.0f} s")


def _proxies(supervisor: int) -> list[Proxy]:
    """The sidecars among the supervisor's descendants."""
    found = []
    for pid in measure.tree(supervisor):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "proxy" in words and "--pod" in words:
            found.append(Proxy(words[words.index("--pod") + 1], pid, words[words.index("--pod-ip") + 1]))
    return found


def _answers(proxies: Sequence[Proxy]) -> bool:
    for proxy in proxies:
        try:
            with urlopen(f"http://{proxy.ip}:4191/ready", timeout=1), urlopen(f"http://{proxy.ip}:{COUNTS_PORT}/", timeout=1):
                pass
        except OSError:
            return False
    return True


@dataclass
class Memory:
    """Resident bytes of one proxy over time."""

    pod: str
    samples: list[tuple[float, int]]

    def growth(self) -> float:
        return books.growth(self.samples[len(self.samples) // 3 :])


def soak(seconds: float, seed: int, scale: float) -> int:
    with mesh() as running:
        traffic = Traffic(running.addresses, running.gateway_address, seed, scale)
        try:
            _warm(running, seed)
            before = {proxy.pod: proxy.page() for proxy in running.proxies}
            counted = running.counts()
            memory = [Memory(proxy.pod, []) for proxy in running.proxies]
            started = monotonic()

            def tick() -> None:
                now = monotonic() - started
                if not memory[0].samples or now - memory[0].samples[-1][0] >= seconds / SAMPLES:
                    for one, proxy in zip(memory, running.proxies, strict=True):
                        one.samples.append((now, measure.rss_bytes(proxy.pid)))

            traffic.start()
            traffic.run(seconds, tick)
            elapsed = monotonic() - started
        finally:
            traffic.close()
        found = _settled(running, before, counted, traffic)
    return _report(found, memory, traffic, elapsed)


def _warm(running: Mesh, seed: int) -> None:
    """Each proxy knows each pod by a connection before anything is counted: what is cancelled while a connection is being
    made was counted by the sender and never sent, and that is no disagreement."""
    first = Traffic(running.addresses, running.gateway_address, seed + 1, 0.3)
    try:
        first.start()
        first.run(1.0, lambda: None)
    finally:
        first.close()


def _settled(running: Mesh, before: dict[str, Page], counted: dict[str, int], traffic: Traffic) -> books.Facts:
    """The counts, once nothing moves any more: a proxy's last words arrive a moment after the client's."""
    end = monotonic() + 15
    while True:
        grown = {proxy.pod: deltas(before[proxy.pod], proxy.page()) for proxy in running.proxies}
        app = {port: count - counted.get(port, 0) for port, count in running.counts().items()}
        facts = books.Facts(
            traffic.books,
            [grown[running.caller.pod], grown[running.gateway.pod]],
            [grown[proxy.pod] for proxy in running.apps],
            app,
        )
        if monotonic() > end or all(line.agrees for line in books.audit(facts)):
            return facts
        sleep(0.5)


def _report(facts: books.Facts, memory: Sequence[Memory], traffic: Traffic, seconds: float) -> int:
    print(f"{'':10}{'begun':>10}{'answered':>10}{'cancelled':>10}{'failed':>8}{'per second':>12}")
    for kind, book in traffic.books.items():
        print(f"{kind:10}{book.begun:10}{book.answered:10}{book.cancelled:10}{book.failed:8}{book.begun / seconds:12.0f}")
        for why, count in book.errors.items():
            print(f"{'':12}{count} x {why}")
    print()
    for row in books.table(facts):
        print("".join(f"{cell:>10}" if i else f"{cell:10}" for i, cell in enumerate(row)))
    lines = books.audit(facts)
    differ = [line for line in lines if not line.agrees]
    print(f"\n{len(lines) - len(differ)} of {len(lines)} checks of the books agree")
    for line in differ:
        print(f"DIFFERS  {line.what}: {line.said}")
    print()
    flat = True
    for one in memory:
        first, last = one.samples[0][1], one.samples[-1][1]
        grown = one.growth()
        judged = seconds >= JUDGED_S
        bad = judged and grown > GROWTH
        flat = flat and not bad
        verdict = ("GROWS" if bad else "flat") if judged else "too short to judge"
        print(f"{one.pod:28} {first / 1e6:6.1f} MB -> {last / 1e6:6.1f} MB, {grown:+.1%} after warm-up: {verdict}")
        print(f"{'':28} " + " ".join(f"{size / 1e6:.0f}" for _, size in one.samples[:: max(1, len(one.samples) // 20)]))
    failed = sum(book.failed for book in traffic.books.values())
    good = flat and not failed and all(line.agrees for line in lines)
    print(f"\n{'good' if good else 'NOT GOOD'}: {sum(b.begun for b in traffic.books.values())} exchanges in {seconds:.0f} s")
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of connections (%(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    print(subprocess.run([sys.executable, "-m", "meshproxy", "version"], capture_output=True, text=True, check=False).stdout)
    try:
        return soak(options.minutes * 60, options.seed, options.scale)
    except NotReady as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
