"""One real mesh of a test: `meshproxy up` as a child, looked at from outside as `meshproxy get` and a browser would.

The child is killed by the kernel if the test process is, and its guard ends the rest.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from control.runtime.layout import Layout, MeshInfo
from control.runtime.meshes import read_info, start_time
from control.store.files import FileStore

DEADLINE = 60.0  # seconds for anything that is waited for; a busy machine starts a process in some seconds
NAMESPACE = "e2e"

# Sets the parent-death signal (PR_SET_PDEATHSIG) and becomes `meshproxy`.  Not by preexec_fn: this process has used grpc, whose
# fork handlers start threads in the forked child that abort it when its descriptors are closed.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-m", "meshproxy", *sys.argv[2:]])
"""

Object = dict[str, Any]


def until(condition: Callable[[], Any], what: str | Callable[[], str], deadline: float = DEADLINE) -> Any:
    """The first true value of `condition`.  `what` it is waited for, or a function that says what there is instead."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.05)
    return value


async def until_async(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        await asyncio.sleep(0.05)
    return value


@dataclass(frozen=True)
class Pod:
    """`pids`: "app" and "sidecar", of those that run."""

    name: str
    ip: str
    ready: bool
    restarts: int
    pids: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    name: str
    labels: dict[str, str]
    value: float


class Page(list[Sample]):
    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples that have these labels; 0 if there are none."""
        return sum(s.value for s in self if s.name == name and labels.items() <= s.labels.items())

    def values(self, name: str, label: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for sample in self:
            if sample.name == name:
                key = sample.labels.get(label, "")
                found[key] = found.get(key, 0.0) + sample.value
        return found


class MeshRun:
    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.name = name
        self.manifests = home / "manifests"
        self.ledger = home / "ledger"
        self.manifests.mkdir(parents=True)
        self.ledger.mkdir()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("MESHPROXY_")}
        self.environment["MESHPROXY_STATE_HOME"] = str(home / "state")
        for variable in ("http_proxy", "HTTP_PROXY", "grpc_proxy", "no_proxy", "NO_PROXY", "no_grpc_proxy"):
            self.environment.pop(variable, None)
        self.layout = Layout(home / "state" / name)
        self.output = home / "up.out"
        self.process: subprocess.Popen[bytes] | None = None
        self._store: FileStore | None = None

    # -- life

    def verb(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A verb as a user types it."""
        return subprocess.run(
            [sys.executable, "-m", "meshproxy", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *options: str) -> None:
        """In the foreground, as a child; returns when everything is ready."""
        self.output.write_bytes(b"")
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(os.getpid()), "up", str(self.manifests), "--name", self.name, *options],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        process = self.process

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"`up` ended with {process.returncode}:\n{self.said()}")
            return f'mesh "{self.name}" is ready' in self.said()

        try:
            until(ready, "the mesh to be ready", 120.0)
        except AssertionError as failure:
            raise AssertionError(
                f"{failure}\n{self.said()}\n{self.verb('get', 'pods', '-A', '--name', self.name).stdout}"
            ) from None
        self._store = None

    def end(self) -> None:
        """End everything, whatever state it is in."""
        process, self.process = self.process, None
        try:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        finally:
            self.verb("down", "--name", self.name, "--ignore-not-found")
        assert self.processes() == {}

    def said(self) -> str:
        """What `up` printed."""
        return self.output.read_text(errors="replace")

    def processes(self) -> dict[int, str]:
        """pid -> command line of every process that has this mesh's directory in its command line or environment."""
        found = {}
        mark = str(self.home).encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == os.getpid() or not start_time(int(entry)):
                continue
            try:
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
                surroundings = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if mark in command or mark in surroundings:
                found[int(entry)] = command.replace(b"\0", b" ").decode(errors="replace")
        return found

    # -- the manifests

    def write(self, name: str, *objects: Object) -> None:
        """By rename, as an editor saves."""
        self.write_text(name, yaml.safe_dump_all(objects, sort_keys=False))

    def write_text(self, name: str, text: str) -> None:
        temporary = self.manifests / f".{name}.tmp"
        temporary.write_text(text)
        temporary.rename(self.manifests / f"{name}.yaml")

    # -- looking

    @property
    def info(self) -> MeshInfo:
        found = read_info(self.layout)
        assert found is not None
        return found

    @property
    def gateway(self) -> tuple[str, int]:
        host, _, port = self.info.gateway.rpartition(":")
        return host, int(port)

    def recorded(self) -> dict[str, int]:
        """Name -> pid of what the supervisor runs: "e2e/<pod>/app", "e2e/<pod>/sidecar", "control plane"."""
        found = {}
        for path in self.layout.processes.glob("*/*"):
            try:
                record = json.loads(path.read_text())
            except (OSError, ValueError):
                continue  # it ended just now
            if start_time(record["pid"]) == record["start"]:
                found[record["name"]] = record["pid"]
        return found

    def pods(self, prefix: str) -> list[Pod]:
        """Of the Deployment of this name, by name."""
        if self._store is None:
            self._store = FileStore(None, self.layout.objects, "e2e")
        self._store.refresh()
        recorded = self.recorded()
        found = []
        for obj in self._store.list("", "Pod", NAMESPACE):
            name = obj["metadata"]["name"]
            if not re.fullmatch(rf"{re.escape(prefix)}-[^-]+-[^-]+", name):
                continue
            status = obj.get("status") or {}
            conditions = {item["type"]: item["status"] for item in status.get("conditions") or []}
            pids = {
                part: recorded[f"{NAMESPACE}/{name}/{part}"]
                for part in ("app", "sidecar")
                if f"{NAMESPACE}/{name}/{part}" in recorded
            }
            restarts = sum(item.get("restartCount", 0) for item in status.get("containerStatuses") or [])
            found.append(Pod(name, status.get("podIP", ""), conditions.get("Ready") == "True", restarts, pids))
        return found

    def pod(self, prefix: str) -> Pod:
        (found,) = self.pods(prefix)
        return found

    def metrics(self, address: str) -> Page:
        """The page of a proxy, by its address (admin port 4191)."""
        page = Page()
        for line in fetch(address, 4191, "/metrics").splitlines():
            match = re.match(r"([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)", line)
            if line.startswith("#") or match is None:
                continue
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
            page.append(Sample(match.group(1), labels, float(match.group(3))))
        return page

    def config(self, address: str) -> Object:
        found = json.loads(fetch(address, 4191, "/config"))
        assert isinstance(found, dict)
        return found

    def weights(self, address: str, service: str) -> dict[str, int]:
        """What a proxy splits a Service by: backend -> weight."""
        for resource in self.config(address)["resources"]:
            content = resource["content"].get("service")
            if resource["name"] == f"{NAMESPACE}/{service}" and content is not None:
                return {
                    backend["service"].partition("/")[2]: int(backend.get("weightMilli", 0)) // 1000
                    for backend in content.get("backends", [])
                }
        return {}

    def executions(self) -> dict[str, list[str]]:
        """Request id -> the pods that began it, one entry for each time."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.ledger.glob("*.log")):
            for line in path.read_text().splitlines():
                found.setdefault(line, []).append(path.stem)
        return found

    def environment_of(self, pod: Pod) -> dict[str, str]:
        """What the app of this pod was started with."""
        return dict(json.loads(fetch(pod.ip, 8080, "/env")))

    def run_in(self, pod: Pod, *argv: str) -> Object:
        """As if typed in a shell of the pod: {"code", "out", "error"}."""
        answer = request(pod.ip, 8080, "POST", "/run", json.dumps({"argv": argv}).encode())
        assert answer.status == 200, answer
        found = json.loads(answer.body)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    host: str, port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """One request on a connection of its own, no proxy; `path` may be absolute-form."""
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def fetch(host: str, port: int, path: str) -> str:
    answer = request(host, port, "GET", path)
    assert answer.status == 200, answer
    return answer.body.decode()
