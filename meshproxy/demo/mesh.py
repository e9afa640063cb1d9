"""The mesh under the demonstration: `meshproxy up` as a child process, and what can be read of it from outside.

    absent --start--> starting --mesh.json of our child--> up --end--> absent
                         |                                  |
                         `------- child ended: MeshFailed --'

The demonstration uses no back door: manifests go in through the directory, everything else is read as `meshproxy get`
reads it, from the store.  If the demonstration is killed, the kernel ends the child, and the child's guard the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control.runtime.layout import LABEL_DEPLOYMENT, Layout, MeshInfo
from control.runtime.logfile import LogFile
from control.runtime.meshes import alive, read_info
from control.runtime.podobjects import ANNOTATION_TERMINATING
from control.runtime.process import Exit, Process, records_of, spawn
from control.store.files import FileStore
from control.store.store import Key, Object

START_S = 60.0  # some twenty Python processes on a machine that may have two slow cores
END_S = 45.0  # drain and grace periods of all pods, with room
POLL_S = 0.1


class MeshFailed(Exception):
    """The mesh did not come up, or ended by itself; `str()` has the end of its output."""


class Stalled(Exception):
    """Something that should have happened did not; `str()` says what was waited for, and how long."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the store has it.  `pids`: container name (app, sidecar) -> process, of those that run."""

    namespace: str
    name: str
    ip: str
    app: str  # label app, without the canary controller's suffix
    version: str
    deployment: str
    ready: bool
    terminating: bool
    pids: dict[str, int] = field(default_factory=dict)


class Mesh:
    """`home` is where the child's output goes; `manifests` is what it runs."""

    def __init__(self, name: str, manifests: Path, home: Path) -> None:
        self.name = name
        self.manifests = manifests
        self.layout = Layout.of(name)
        self.log = home / "up.log"
        self.exit: Exit | None = None
        self._over = asyncio.Event()
        self._process: Process | None = None
        self._info: MeshInfo | None = None
        self._store: FileStore | None = None

    # -- life

    async def start(self) -> None:
        """Forget an earlier run of this name, start, and return once the mesh can be spoken to.  Raises MeshFailed."""
        earlier = read_info(self.layout)
        if earlier and alive(earlier.supervisor_pid, earlier.supervisor_start):
            raise MeshFailed(
                f'a mesh named "{self.name}" is up already; end it (meshproxy down --name {self.name}), '
                "or give this one another name (meshproxy demo --name NAME)"
            )
        await self._verb("down", "--purge", "--ignore-not-found")
        self._process = spawn(
            [sys.executable, "-m", "meshproxy", "up", str(self.manifests), "--name", self.name],
            name="demo/up",
            environment=os.environ,
            directory=None,
            log=LogFile(self.log),
            on_exit=self._ended,
        )
        await self.until(self._ours, START_S, "the mesh to start")
        self._store = FileStore(None, self.layout.objects, "demo")

    async def end(self) -> None:
        """End it in order; by force if it takes too long."""
        process = self._process
        if process is None:
            return
        process.signal(signal.SIGTERM)
        if not await self._gone(END_S):
            process.signal(signal.SIGKILL)
            await self._gone(END_S)
        await self._verb("down", "--ignore-not-found")  # reaps what an end by force may have left

    async def forget(self) -> None:
        """Remove the state of this run, once it has ended; never that of a mesh somebody else has up under this name."""
        if self._process is None:
            return
        other = read_info(self.layout)
        if other and alive(other.supervisor_pid, other.supervisor_start):
            return
        await self._verb("down", "--purge", "--ignore-not-found")

    def _ended(self, exit_: Exit) -> None:
        self.exit = exit_
        self._over.set()

    def _ours(self) -> bool:
        info = read_info(self.layout)
        if info is None or self._process is None or info.supervisor_pid != self._process.pid:
            return False
        self._info = info
        return True

    async def _gone(self, deadline_s: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), deadline_s)
        return self.exit is not None

    async def _verb(self, *words: str) -> None:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meshproxy", *words, "--name", self.name),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await child.communicate()
        if child.returncode:
            raise MeshFailed(
                f"meshproxy {' '.join(words)} ended with {child.returncode}: {output.decode(errors='replace').strip()}"
            )

    async def until(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Wait for a condition.  Raises Stalled after `deadline_s`, MeshFailed as soon as the mesh is gone."""
        give_up = time.monotonic() + deadline_s
        while not condition():
            if self.exit is not None:
                raise MeshFailed(f"the mesh ended by itself ({self.exit}):\n{self.tail()}")
            if time.monotonic() > give_up:
                raise Stalled(f"waited {deadline_s:g} s for {what}")
            await asyncio.sleep(POLL_S)

    def tail(self, lines: int = 20) -> str:
        """The end of what `up` said."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    # -- looking

    @property
    def info(self) -> MeshInfo:
        assert self._info is not None, "the mesh has not been started"
        return self._info

    @property
    def gateway(self) -> str:
        """URL for clients outside."""
        return f"http://{self.info.gateway}"

    @property
    def store(self) -> FileStore:
        """As of the last `refresh`."""
        assert self._store is not None, "the mesh has not been started"
        return self._store

    def refresh(self) -> None:
        self.store.refresh()

    def get(self, group: str, kind: str, name: str, namespace: str = "shop") -> Object:
        """An object, {} if there is none."""
        return self.store.get(Key(group, kind, namespace, name)) or {}

    def pods(self, namespace: str | None = "shop") -> list[Pod]:
        """By name.  None: also the gateway."""
        pids = self._pids()
        return [_pod(pod, pids) for pod in self.store.list("", "Pod", namespace)]

    def settled(self) -> bool:
        """Every Deployment has the replicas it wants, of the template it wants, and they are available."""
        self.refresh()
        deployments = self.store.list("apps", "Deployment", "shop")
        return bool(deployments) and all(map(_settled, deployments))

    def explain(self, events: int = 10) -> list[str]:
        """What is not as wanted right now, and what was said last: for whoever has to find out why nothing happens."""
        if self._store is None:  # it never came up; its own output says why
            return self.tail().splitlines()
        self.refresh()
        lines = []
        for deployment in self.store.list("apps", "Deployment", "shop"):
            if not _settled(deployment):
                status = deployment.get("status") or {}
                counts = {name: status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
                wanted = (deployment.get("spec") or {}).get("replicas", 1)
                lines.append(f"deployment {deployment['metadata']['name']}: {wanted} wanted, {counts}")
        for pod in self.store.list("", "Pod", "shop"):
            containers = (pod.get("status") or {}).get("containerStatuses") or []
            unready = [container for container in containers if not container.get("ready")]
            lines += [f"pod {pod['metadata']['name']}, {one['name']} is not ready: {one.get('state')}" for one in unready]
        for event in self.store.events()[-events:]:
            about = event.get("involvedObject") or event.get("regarding") or {}
            lines.append(f"event {about.get('kind')} {about.get('name')}: {event.get('reason')}: {event.get('message')}")
        return lines

    def _pids(self) -> dict[tuple[str, str], dict[str, int]]:
        """(namespace, pod) -> what runs, from the supervisor's records."""
        found: dict[tuple[str, str], dict[str, int]] = {}
        records = records_of(self.layout.processes, self.info.supervisor_pid, self.info.supervisor_start)
        for record in records.iterdir() if records.is_dir() else []:
            try:
                entry = json.loads(record.read_text())
            except (OSError, ValueError):  # it ended just now, or is being written
                continue
            parts = str(entry.get("name", "")).split("/")
            if len(parts) == 3:
                found.setdefault((parts[0], parts[1]), {})[parts[2]] = int(entry["pid"])
        return found


def _pod(pod: Object, pids: dict[tuple[str, str], dict[str, int]]) -> Pod:
    metadata: dict[str, Any] = pod["metadata"]
    status: dict[str, Any] = pod.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or []}
    namespace, name = metadata.get("namespace", "default"), metadata["name"]
    return Pod(
        namespace=namespace,
        name=name,
        ip=status.get("podIP", ""),
        app=str(labels.get("app", name)).removesuffix("-primary"),
        version=str(labels.get("version", "")),
        deployment=str(labels.get(LABEL_DEPLOYMENT, "")),
        ready=conditions.get("Ready") == "True",
        terminating="deletionTimestamp" in metadata or ANNOTATION_TERMINATING in (metadata.get("annotations") or {}),
        pids=pids.get((namespace, name), {}),
    )


def _settled(deployment: Object) -> bool:
    wanted = (deployment.get("spec") or {}).get("replicas", 1)
    status = deployment.get("status") or {}
    generation = deployment["metadata"].get("generation", 0)
    return bool(
        status.get("observedGeneration", 0) >= generation
        and status.get("availableReplicas", 0) == wanted
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )
