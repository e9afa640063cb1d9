"""Runtime tests run real processes on real addresses.  Pods are apps of a few lines; the sidecar's place is taken by a
process that listens on the sidecar's ports and answers /ready, where the sidecar itself is not what is tested."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from control.runtime import meshes
from control.runtime.addresses import Network
from control.runtime.controller import Controller, steady_clock
from control.runtime.layout import Layout, MeshInfo
from control.runtime.process import reap
from control.runtime.sidecar import PodIdentity, Settings, SidecarCommand
from control.runtime.worker import PodWorker
from control.store.files import FileStore
from control.store.store import Key

DEADLINE = 30.0

SIDECAR = """
import http.server, os, pathlib, signal, sys
ip = sys.argv[1]
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = pathlib.Path(__file__).with_name("config.json")
        body = known.read_bytes() if self.path == "/config" and known.exists() else b""
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer((ip, 4191), Answer)
def end(*_):
    print("sidecar ends", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("sidecar starts", flush=True)
server.serve_forever()
"""

# Answers GET with its version; /env?NAME-like paths with its environment; /ready with what the file READY says.
APP = """
import http.server, json, os, signal, sys
def end(*_):
    print("app ends", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status, body = 200, os.environ.get("VERSION", "")
        if self.path == "/env":
            body = json.dumps(dict(os.environ))
        if self.path in ("/ready", "/live"):
            flag = os.environ.get("FLAG" + self.path.replace("/", "_").upper())
            status = 503 if flag and os.path.exists(flag) else 200
        data = body.encode()
        self.send_response(status); self.send_header("content-length", str(len(data))); self.end_headers()
        self.wfile.write(data)
    def log_message(self, *arguments): pass
server = http.server.ThreadingHTTPServer((os.environ["POD_IP"], int(os.environ.get("PORT", "8080"))), Answer)
print("app starts", flush=True)
server.serve_forever()
"""


async def until(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> Any:
    """Wait until `condition` gives something true, and return that."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        await asyncio.sleep(0.02)
    return value


def until_sync(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> Any:
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() >= end:
            raise AssertionError(f"not within {deadline:g} s: {what}")
        time.sleep(0.02)
    return value


def container(app: Path, **more: Any) -> dict[str, Any]:
    """A container that runs APP."""
    fields = {
        "name": "app",
        "image": "example/app:1",
        "command": ["python3", str(app)],
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
    }
    env = fields["env"] + more.pop("env", [])
    return {**fields, **more, "env": env}


def deployment(
    name: str, spec_container: dict[str, Any], replicas: int = 1, namespace: str = "shop", **spec: Any
) -> dict[str, Any]:
    pod = spec.pop("pod", {})
    labels = {"app": name, **spec.pop("labels", {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 5, **pod, "containers": [spec_container]},
            },
            **spec,
        },
    }


def service(name: str, namespace: str = "shop", port: int = 80, target: int | str = "http", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"name": "web", "port": port, "targetPort": target}], **spec},
    }


def mesh_that_is_down() -> Layout:
    """The state directory of the mesh "old", which nobody runs; its home is the test's (`state_home`)."""
    layout = Layout.of("old")
    layout.root.mkdir(parents=True)
    address = "127.8.9.1:8086"
    meshes.write_info(layout, MeshInfo("old", "/m", "127.8.9", "cluster.local", "127.0.0.1:1", address, address, 1, "1", 0.0))
    return layout


@dataclass
class LocalMesh:
    """A controller with its stores, all in this process; pods are real."""

    directory: Path
    layout: Layout
    network: Network
    said: list[str] = field(default_factory=list)
    controller: Controller = field(init=False)
    store: FileStore = field(init=False)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def sidecars_know(self, **services: list[str]) -> None:
        """What every stand-in for a sidecar says in /config: addresses by Service of "shop"."""
        resources = [
            {"name": f"shop/{name}", "content": {"endpoints": {"endpoints": [{"address": ip} for ip in addresses]}}}
            for name, addresses in services.items()
        ]
        temporary = self.directory.parent / "config.tmp"
        temporary.write_text(json.dumps({"resources": resources}))
        temporary.rename(self.directory.parent / "config.json")

    def write(self, name: str, *objects: dict[str, Any]) -> None:
        text = yaml.safe_dump_all(objects, sort_keys=False)
        temporary = self.directory / f".{name}.tmp"
        temporary.write_text(text)
        temporary.rename(self.directory / f"{name}.yaml")

    def start(self, command: SidecarCommand | None = None, **settings: Any) -> None:
        accepting = FileStore(self.directory, self.layout.objects, "control", accepting=True)
        accepting.refresh()
        self.store = FileStore(None, self.layout.objects, "runtime")
        self.store.refresh()
        records = self.layout.processes / f"{os.getpid()}-test"
        records.mkdir(parents=True, exist_ok=True)
        sidecar = self.directory.parent / "sidecar.py"
        sidecar.write_text(textwrap.dedent(SIDECAR))

        def stand_in(settings: Settings, pod: PodIdentity, token_file: Path, extra: Any) -> list[str]:
            return [sys.executable, str(sidecar), pod.ip]

        self.controller = Controller(
            self.store,
            Settings(self.layout, records, self.directory, **{"drain": 0.2, **settings}),
            self.network.prefix,
            clock=steady_clock(),
            say=self.said.append,
            command=command or stand_in,
            seed=1,
        )
        self._accepting = accepting
        self.tasks = [
            asyncio.ensure_future(accepting.run(0.05)),
            asyncio.ensure_future(self.store.run(0.05)),
            asyncio.ensure_future(self.controller.run()),
        ]

    async def stop(self) -> None:
        for task in self.tasks[2:]:
            task.cancel()
        await asyncio.gather(*self.tasks[2:], return_exceptions=True)
        try:
            await self.controller.stop(patience=15.0)
            await self.controller.tidy()
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            reap(self.controller.settings.records)
            self._accepting.close()

    # -- looking

    def get(self, kind: str, name: str, group: str = "", namespace: str = "shop") -> dict[str, Any] | None:
        return self.store.get(Key(group, kind, namespace, name))

    def status(self, name: str) -> dict[str, Any]:
        return (self.get("Deployment", name, "apps") or {}).get("status") or {}

    def workers(self, deployment_name: str = "") -> list[PodWorker]:
        return [w for w in self.controller.workers.values() if w.identity.name.startswith(deployment_name)]

    async def ready(self) -> None:
        def done() -> bool:
            return self.controller.settled and not self.controller.unready()

        try:
            await until(done, "everything ready")
        except AssertionError:
            raise AssertionError(f"not ready: {self.controller.unready()}; said: {self.said}") from None
