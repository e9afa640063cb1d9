"""The real control plane (`meshproxy control`) and a real member on uvloop, each a process, through kill -9 and back."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from loopback_ports import free_port, free_ports
from plane import DEADLINE

from control.runtime.layout import ANNOTATION_PROXY, Layout
from control.serve.tokens import refresh_token_if_burned
from control.store.files import FileStore
from control.store.store import Key

HERE = Path(__file__).parent
PATIENCE = 2 * DEADLINE  # processes take a second to start, more on a busy machine


def manifest(name: str) -> str:
    spec = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec})


class Program:
    """A process and the lines of its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())

    @property
    def state(self) -> dict[str, Any]:
        """The last JSON line."""
        return next((json.loads(line) for line in reversed(self.lines) if line.startswith("{")), {})

    async def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.returncode is None:
            self.process.send_signal(number)
        await asyncio.wait_for(self.process.wait(), PATIENCE)
        await self._reader
        assert self.process.returncode is not None
        return self.process.returncode


class Mesh:
    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory / "state")
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        (self.manifests / "prices.yaml").write_text(manifest("prices"))
        self.port, self.admin = free_ports(2), free_port()
        self.runtime = FileStore(None, self.layout.objects, "runtime")
        self.programs: list[Program] = []

    async def program(self, *argv: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(HERE.parent.parent)},
        )
        self.programs.append(Program(process))
        return self.programs[-1]

    async def control(self, *more: str) -> Program:
        addresses = ("--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}")
        started = await self.program(
            *("-m", "meshproxy", "control", "--state", str(self.layout.root), "--manifests", str(self.manifests)),
            *addresses,
            *more,
        )
        await self.until(lambda: self.answers(started), "the control plane is ready")
        return started

    async def answers(self, program: Program) -> bool:
        assert program.process.returncode is None, program.lines
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.admin}/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def metrics(self) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.admin}/metrics") as answer:
            return await answer.text()

    async def member(self) -> Program:
        arguments = (f"127.0.0.1:{self.port}", f"127.0.0.1:{self.port + 1}", str(self.layout.root), "shop", "web-1", "web")
        return await self.program(str(HERE / "member.py"), *arguments)

    async def pod(self, name: str, account: str, address: str) -> None:
        """What the runtime writes when it starts a pod with a sidecar."""
        spec = {"serviceAccountName": account, "containers": [{"name": "app", "command": ["app"]}]}
        metadata = {"name": name, "namespace": "shop", "annotations": {ANNOTATION_PROXY: "true"}, "labels": {"app": account}}
        await self.runtime.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await self.runtime.status(Key("", "Pod", "shop", name), {"phase": "Running", "podIP": address})

    async def endpoints(self, service: str, *addresses: str) -> None:
        await self.runtime.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{service}-1",
                    "namespace": "shop",
                    "labels": {"kubernetes.io/service-name": service},
                },
                "addressType": "IPv4",
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
                "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
            }
        )

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            met = condition()
            if asyncio.iscoroutine(met):
                met = await met
            if met:
                return
            if time.monotonic() > end:
                raise AssertionError(
                    f"not within {PATIENCE} s: {what}\n" + "\n".join(p.lines[-1] for p in self.programs if p.lines)
                )
            token = self.layout.pod("shop", "web-1") / "token"
            refresh_token_if_burned(self.layout.tokens, token, "shop", "web", "web-1", 600, time.time())
            await asyncio.sleep(0.02)


@asynccontextmanager
async def a_mesh(directory: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(directory)
    try:
        yield mesh
    finally:
        for program in mesh.programs:
            await program.end(signal.SIGKILL)


async def test_killing_the_control_plane_changes_nothing_and_new_configuration_flows_once_it_is_back(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as mesh:
        control = await mesh.control("--leaf-lifetime", "10")
        await mesh.pod("web-1", "web", "127.83.4.10")
        member = await mesh.member()
        await mesh.until(lambda: member.state.get("services") == ["shop/prices"], "the first configuration")
        assert member.state["ready"]
        await mesh.endpoints("prices", "127.83.4.11")
        await mesh.until(lambda: member.state["addresses"] == ["127.83.4.11"], "an endpoint")

        assert await control.end(signal.SIGKILL) == -signal.SIGKILL
        await mesh.until(lambda: member.state["stale"], "the member notices")
        assert member.state["ready"]
        assert member.state["addresses"] == ["127.83.4.11"]
        (mesh.manifests / "catalogue.yaml").write_text(manifest("catalogue"))
        (mesh.manifests / "prices.yaml").write_text("kind: [")  # no longer parses: its last good form holds, also restarted

        control = await mesh.control("--leaf-lifetime", "10")
        await mesh.until(lambda: member.state["services"] == ["shop/catalogue", "shop/prices"], "the new service")
        assert not member.state["stale"]
        assert member.state["addresses"] == ["127.83.4.11"]
        renewals = member.state["renewals"]
        await mesh.until(lambda: member.state["renewals"] > renewals, "a renewal by the new process")
        assert member.process.returncode is None

        async def one_stream() -> bool:  # the renewed identity brings a new stream, and the old one takes a moment to end
            return "meshproxy_control_streams 1.0" in await mesh.metrics()

        await mesh.until(one_stream, "one configuration stream")
        text = await mesh.metrics()
        assert "flagger" in text or "meshproxy_canary_errors_total" in text
        assert await control.end() == 0
        output = "\n".join([*control.lines, *member.lines])
        assert "Traceback" not in output
        assert "BlockingIOError" not in output
        assert "PRIVATE KEY" not in output


@pytest.mark.parametrize(("file", "said"), [("issuer.key", "does not belong"), ("issuer.pem", "not a PEM certificate")])
async def test_it_does_not_start_on_bad_material_and_says_which_file(tmp_path: Path, file: str, said: str) -> None:  # ID-43
    from certs.authority import create_authority
    from certs.csr import key_pem, new_key

    async with a_mesh(tmp_path) as mesh:
        create_authority(mesh.layout.trust, "cluster.local", time.time())
        (mesh.layout.trust / file).write_bytes(key_pem(new_key()))
        program = await mesh.program(
            *("-m", "meshproxy", "control", "--state", str(mesh.layout.root), "--manifests", str(mesh.manifests)),
            *("--listen", f"127.0.0.1:{mesh.port}", "--admin", f"127.0.0.1:{mesh.admin}"),
        )
        await asyncio.wait_for(program.process.wait(), PATIENCE)
        assert await program.end() == 1
        assert f"{file}: " in program.lines[-1]
        assert said in program.lines[-1]


async def test_a_taken_port_and_a_second_control_plane_are_named(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as mesh:
        await mesh.control()
        where = ("-m", "meshproxy", "control", "--manifests", str(mesh.manifests), "--admin", "127.0.0.1:0")
        port = free_ports(2)
        second = await mesh.program(*where, "--state", str(mesh.layout.root), "--listen", f"127.0.0.1:{port}")
        await asyncio.wait_for(second.process.wait(), PATIENCE)
        assert await second.end() == 1
        assert "another process accepts the manifests" in second.lines[-1]
        other = await mesh.program(*where, "--state", str(tmp_path / "other"), "--listen", f"127.0.0.1:{mesh.port}")
        await asyncio.wait_for(other.process.wait(), PATIENCE)
        assert await other.end() == 1
        assert f"cannot listen on 127.0.0.1:{mesh.port}" in other.lines[-1]


async def test_it_ends_with_its_parent_when_told_to(tmp_path: Path) -> None:
    async with a_mesh(tmp_path) as mesh:
        arguments = [
            *("-m", "meshproxy", "control", "--state", str(mesh.layout.root), "--manifests", str(mesh.manifests)),
            *("--listen", f"127.0.0.1:{mesh.port}", "--admin", f"127.0.0.1:{mesh.admin}", "--parent-death-signal"),
        ]
        code = (
            f"import subprocess, sys; p = subprocess.Popen([sys.executable, *{arguments!r}]); "
            "print(p.pid, flush=True); p.wait()"
        )
        parent = await mesh.program("-c", code)
        await mesh.until(lambda: parent.lines, "the child's pid")
        child = int(parent.lines[0])
        try:
            await mesh.until(lambda: mesh.answers(parent), "the control plane is ready")
            assert await parent.end(signal.SIGKILL) == -signal.SIGKILL  # and reads to the end of the pipe both write to
            await mesh.until(lambda: _ended(child), "the child ends")
        finally:
            if not _ended(child):
                os.kill(child, signal.SIGKILL)


def _ended(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
