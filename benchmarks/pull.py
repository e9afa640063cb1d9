"""`make bench-pull`: how long does a bad canary go on being asked, once its evidence is in?

    threads --> [client's sidecar] --50 %--> web-primary     every round another revision of web that fails one
    threads --> [client's sidecar] --50 %--> web-canary      request in five, judged by evidence (docs/canary/evidence.md)
    ...                                                      at an interval of ten seconds: what pulls it is a look, not a tick

Of each round, by one clock: from the moment the 15th failed answer was there, at whichever client, to the moment each client
sent the last request that the canary answered.  A client that had sent its last before that counts as 0.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import yaml

from benchmarks import measure
from benchmarks.measure import NotReady
from control.runtime.layout import Layout
from control.store.files import FileStore
from control.store.store import Key

HERE = Path(__file__).parent
MESH, NAMESPACE, HOST = "pull", "pull", "web.pull"
CANARY = Key("flagger.app", "Canary", NAMESPACE, "web")
PROXY_PORT = 4140  # of a sidecar, for requests in absolute form
FAIL_EVERY = 5
NTH = 15  # failed answer from which is measured
USERS = 4  # of each client, a connection each
READY_S = 180.0
ROUND_S = 180.0
AFTER = 20  # answers that each client must have had since the release was Failed, before a round is over


# ---------------------------------------------------------------- what is measured


@dataclass(frozen=True)
class Answer:
    """`sent` and `at` (when it was there) by this process' monotonic clock.  `pod` "": nobody answered."""

    client: str
    sent: float
    at: float
    status: int
    pod: str = ""

    @property
    def of_canary(self) -> bool:
        return self.pod.startswith("web-") and not self.pod.startswith("web-primary-")


@dataclass(frozen=True)
class Reading:
    """One round.  `seconds`: client -> from the NTH failed answer to its last canary request."""

    failed: int
    asked: int  # requests that the canary answered
    after: int  # of these, sent after the NTH failed answer
    seconds: dict[str, float]

    @property
    def complete(self) -> bool:
        """Were there as many failures at all?  Else it was pulled before, and there is nothing to measure from."""
        return self.failed >= NTH


def reading(answers: Sequence[Answer], clients: Sequence[str]) -> Reading:
    """Of one round's answers."""
    canary = [answer for answer in answers if answer.of_canary]
    failed = sorted(answer.at for answer in canary if answer.status == 500)
    if len(failed) < NTH:
        return Reading(len(failed), len(canary), 0, dict.fromkeys(clients, 0.0))
    begin = failed[NTH - 1]
    last = {client: max((answer.sent for answer in canary if answer.client == client), default=begin) for client in clients}
    after = sum(answer.sent > begin for answer in canary)
    return Reading(len(failed), len(canary), after, {client: max(0.0, at - begin) for client, at in last.items()})


def report(readings: Sequence[Reading]) -> str:
    """A table of the rounds, and the median and the maximum over all clients and rounds."""
    lines = [
        f"{'round':>5}  {'canary requests':>15}  {'failed':>6}  {f'after the {NTH}th':>14}  last canary request, s, by client"
    ]
    for number, one in enumerate(readings, 1):
        seconds = "  ".join(f"{value:.2f}" for value in one.seconds.values())
        note = seconds if one.complete else f"pulled before {NTH} requests had failed"
        lines.append(f"{number:>5}  {one.asked:>15}  {one.failed:>6}  {one.after:>14}  {note}")
    measured = [value for one in readings if one.complete for value in one.seconds.values()]
    if not measured:
        return "\n".join([*lines, "nothing to measure: give more load (--rate, --clients)"])
    most = max(one.after for one in readings)
    lines.append(
        f"from the {NTH}th failed answer to the last canary request: median {statistics.median(measured):.2f} s, "
        f"maximum {max(measured):.2f} s (at most {most} requests)"
    )
    return "\n".join(lines)


# ---------------------------------------------------------------- the mesh


def manifests(revision: int, clients: int) -> dict[str, list[dict[str, Any]]]:
    """File -> objects.  Revision 0 is good."""
    arm = [sys.executable, "-S", str(HERE / "pull_arm.py"), "$(POD_IP)", "$(POD_NAME)", str(FAIL_EVERY if revision else 0)]
    wait = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
    names = [("POD_IP", "status.podIP"), ("POD_NAME", "metadata.name")]
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in names]
    env.append({"name": "REVISION", "value": str(revision)})
    ready = {"ports": [{"name": "main", "containerPort": 8080}], "readinessProbe": {"tcpSocket": {"port": "main"}}}
    analysis = {"interval": "10s", "threshold": 1000, "stepWeights": [50]}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    spec = {"targetRef": target, "service": {"port": 80, "targetPort": "main"}, "analysis": analysis}
    metadata = {"name": "web", "namespace": NAMESPACE}
    return {
        "web": _workload("web", 1, {"command": arm, "env": env, **ready}),
        "clients": _workload("client", clients, {"command": wait}),
        "release": [
            {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata, "spec": spec},
            {"apiVersion": "meshproxy.dev/v1alpha1", "kind": "ReleasePolicy", "metadata": metadata, "spec": {"evidence": {}}},
        ],
    }


def _workload(name: str, replicas: int, container: dict[str, Any]) -> list[dict[str, Any]]:
    metadata, labels = {"name": name, "namespace": NAMESPACE}, {"app": name}
    pod = {"serviceAccountName": name, "containers": [{"name": "app", "image": "pull", **container}]}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 3, **pod}},
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
    ]


def write(home: Path, revision: int, clients: int) -> None:
    """What differs from what is there."""
    for name, objects in manifests(revision, clients).items():
        path, text = home / "manifests" / f"{name}.yaml", yaml.safe_dump_all(objects)
        if not path.exists() or path.read_text() != text:
            draft = path.with_suffix(".new")
            draft.write_text(text)
            draft.replace(path)


class Mesh:
    """One that runs, looked at as `meshproxy get` does."""

    def __init__(self, home: Path, supervisor: subprocess.Popen[bytes], clients: int) -> None:
        self._home = home
        self._supervisor = supervisor
        self._clients = clients
        self._objects = Layout(home / "state" / MESH).objects
        self._store: FileStore | None = None

    def release(self, revision: int) -> None:
        write(self._home, revision, self._clients)

    def until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Raises NotReady."""
        end = monotonic() + seconds
        while not condition():
            if self._supervisor.poll() is not None:
                raise NotReady(f"meshproxy up ended with status {self._supervisor.returncode}")
            if monotonic() > end:
                raise NotReady(f"not within {seconds:.0f} s: {what}; the Canary is {self.phase or 'new'}")
            sleep(0.05)

    @property
    def phase(self) -> str:
        found = self._view.get(CANARY) if self._objects.exists() else None
        return str(((found or {}).get("status") or {}).get("phase") or "")

    def clients(self) -> list[str]:
        """Addresses of those that are ready."""
        pods = self._view.list("", "Pod", NAMESPACE) if self._objects.exists() else []
        ready = [
            pod["status"]["podIP"]
            for pod in pods
            if pod["metadata"]["name"].startswith("client-")
            and any(c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or ())
        ]
        return sorted(ready)

    @property
    def _view(self) -> FileStore:
        if self._store is None:
            self._store = FileStore(None, self._objects, "benchmark")
        self._store.refresh()
        return self._store


@contextmanager
def mesh(clients: int) -> Iterator[Mesh]:
    """Raises NotReady."""
    with tempfile.TemporaryDirectory(prefix="meshproxy-pull-") as directory:
        home = Path(directory)
        (home / "manifests").mkdir()
        environment = {**os.environ, "MESHPROXY_STATE_HOME": str(home / "state")}
        up = [sys.executable, "-m", "meshproxy", "up", str(home / "manifests"), "--name", MESH]
        try:
            write(home, 0, clients)
            with measure.process(up, environment, cwd=HERE.parent) as supervisor:
                running = Mesh(home, supervisor, clients)
                running.until(lambda: running.phase == "Initialized", "the Canary to be initialized", READY_S)
                running.until(lambda: len(running.clients()) == clients, f"{clients} clients", READY_S)
                yield running
        finally:
            down = [sys.executable, "-m", "meshproxy", "down", "--name", MESH]
            subprocess.run(down, env=environment, check=False, capture_output=True, cwd=HERE.parent)


@dataclass
class Users:
    """They ask through every client until the block ends."""

    clients: Sequence[str]
    rate: float  # requests a second of each client
    answers: list[Answer] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Users:
        for client in self.clients:
            for _ in range(USERS):
                self._threads.append(threading.Thread(target=self._ask, args=(client,), daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)

    def since(self, moment: float) -> dict[str, int]:
        """Client -> answers to what it sent since then."""
        found = dict.fromkeys(self.clients, 0)
        for answer in self.answers[:]:
            if answer.sent >= moment:
                found[answer.client] += 1
        return found

    def _ask(self, client: str) -> None:
        connection = http.client.HTTPConnection(client, PROXY_PORT, timeout=30)
        pause, due = USERS / self.rate, monotonic()
        while not self._ended.wait(max(0.0, due - monotonic())):
            due = max(due + pause, monotonic() - 1.0)  # what a busy machine made late is not sent all at once
            sent = monotonic()
            try:
                connection.request("GET", f"http://{HOST}/", headers={"Host": HOST})
                answer = connection.getresponse()
                pod = answer.read().decode()
                self.answers.append(Answer(client, sent, monotonic(), answer.status, pod))
            except (OSError, http.client.HTTPException):
                connection.close()
                self.answers.append(Answer(client, sent, monotonic(), 0))
        with suppress(OSError):
            connection.close()


def play(running: Mesh, users: Users, revision: int) -> Reading:
    """One round: a bad revision comes, and is pulled."""
    begun = monotonic()
    running.release(revision)
    running.until(lambda: running.phase == "Progressing", "the release to begin", ROUND_S)
    running.until(lambda: running.phase != "Progressing", "the canary to be pulled", ROUND_S)
    if running.phase != "Failed":
        raise NotReady(f"the bad canary is {running.phase}")
    failed = monotonic()
    running.until(lambda: min(users.since(failed).values()) >= AFTER, "answers of the primary", ROUND_S)
    return reading([answer for answer in users.answers[:] if answer.sent >= begun], users.clients)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--clients", type=int, default=4, help="client pods, a sidecar each (%(default)s)")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second of each client (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the readings here too")
    options = parser.parse_args()
    if min(options.rounds, options.clients) < 1 or options.rate <= 0:
        parser.error("--rounds and --clients from 1, --rate above 0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was started is ended
    print(subprocess.run([sys.executable, "-m", "meshproxy", "version"], capture_output=True, text=True, check=False).stdout)
    print(f"{options.clients} clients, {options.rate:g} requests a second each, half of them to the canary\n")
    try:
        with mesh(options.clients) as running, Users(running.clients(), options.rate) as users:
            readings = [play(running, users, number) for number in range(1, options.rounds + 1)]
    except NotReady as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(readings))
    if options.json is not None:
        found = [
            {"failed": r.failed, "asked": r.asked, "after": r.after, "seconds": list(r.seconds.values())} for r in readings
        ]
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
