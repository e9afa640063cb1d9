"""Why a pod is not ready is said, with what is needed to go on: real apps that do what beginners' apps do."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from runtime_support import LocalMesh, container, deployment, until

from control.runtime import listening
from control.runtime.addresses import free_port
from control.runtime.controller import steady_clock
from control.runtime.diagnosis import Diagnosis, misplaced
from control.runtime.listening import Socket
from control.runtime.sidecar import PodIdentity, Settings
from control.store.store import Key

SERVE = 'import http.server as h; h.ThreadingHTTPServer(("{address}", {port}), h.SimpleHTTPRequestHandler).serve_forever()'


@asynccontextmanager
async def diagnosed(mesh: LocalMesh, *, ahead: float = 0.0) -> AsyncIterator[list[str]]:
    """What a Diagnosis beside the mesh's controller says, with a clock that is `ahead` seconds ahead."""
    said: list[str] = []
    clock = steady_clock()
    pods = mesh.controller.pods.running
    diagnosis = Diagnosis("test", pods, clock=lambda: clock() + ahead, say=said.append, record=mesh.controller.record)
    task = asyncio.ensure_future(diagnosis.run())
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def app(*command: str, probe: bool = False, port: int = 8080) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": "app", "command": [*command], "ports": [{"containerPort": port}]}
    if probe:
        spec["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 1}
    return spec


def said_with(said: list[str], text: str) -> str | None:
    return next((line for line in said if text in line), None)


async def test_a_crash_loop_is_said_once_for_all_replicas_with_the_last_lines(mesh: LocalMesh) -> None:
    broken = app("sh", "-c", "echo cannot reach the database; exit 3")
    mesh.write("web", deployment("web", broken, replicas=2))
    mesh.start(backoff_base=60.0)
    async with diagnosed(mesh) as said:
        text = await until(lambda: said_with(said, "ended 2 times, last with exit code 3"), "the crash loop")
        assert text.splitlines()[1:] == ["    | cannot reach the database"]
        await until(lambda: said_with(said, "    more: meshproxy logs web-"), "the command for more")
        assert said_with(said, " -n shop --name test")
        both = [worker.machine.app for worker in mesh.workers("web-")]
        await until(lambda: all(app and app.reason == "CrashLoopBackOff" for app in both), "both in a crash loop")
        keys = [Key("", "Pod", "shop", worker.identity.name) for worker in mesh.workers("web-")]
        wanted = "app ended 2 times, last with exit code 3; it last said: cannot reach the database"
        await until(
            lambda: any(event["message"] == wanted for key in keys for event in mesh.store.events(key)),
            "the Event with the last line of its log",
        )
    assert len([line for line in said if "ended 2 times" in line]) == 1


async def test_an_app_on_the_wrong_address_is_told_which_to_bind(mesh: LocalMesh) -> None:
    port = free_port("127.0.0.1")
    serve = SERVE.format(address="127.0.0.1", port=port)
    mesh.write("web", deployment("web", app("python3", "-c", serve, probe=True, port=port)))
    mesh.start()
    await until(lambda: mesh.workers("web-") and mesh.workers("web-")[0].pids().get("app"), "the app running")
    (worker,) = mesh.workers("web-")
    await until(lambda: listening.of_group(worker.pids()["app"]), "the app listening")
    expected = f"nothing listens on {worker.ip}:{port}; the app listens on 127.0.0.1:{port}: it must bind POD_IP ({worker.ip})"
    async with diagnosed(mesh, ahead=5.0) as said:
        await until(lambda: said_with(said, expected), "the advice")


async def test_the_pod_that_holds_the_port_of_another_is_named(mesh: LocalMesh) -> None:
    second = f"{mesh.network.prefix}.11"  # addresses are given in order
    mesh.write("a", deployment("a", app("python3", "-c", SERVE.format(address=second, port=8080))))
    mesh.start()
    await until(lambda: mesh.workers("a-") and mesh.workers("a-")[0].pids().get("app"), "the first pod running")
    (holder,) = mesh.workers("a-")
    await until(lambda: listening.of_group(holder.pids()["app"]), "the first app listening")
    mesh.write("b", deployment("b", app("python3", "-c", SERVE.format(address=second, port=8080))))
    expected = f"port 8080 of {second} is taken: {holder.identity}/app listens on {second}:8080"
    await until(lambda: said_with(mesh.said, expected), "who has the port")
    (blocked,) = [worker.machine.app for worker in mesh.workers("b-")]
    assert blocked is not None
    assert (blocked.reason, blocked.restarts) == ("PortBusy", 0)


async def test_an_app_that_never_listens_is_described_by_its_probe_and_its_log(mesh: LocalMesh) -> None:
    mesh.write("web", deployment("web", app("sh", "-c", "echo waiting for godot; sleep 300", probe=True)))
    mesh.start()
    await until(lambda: mesh.workers("web-") and mesh.workers("web-")[0].pids().get("app"), "the app running")
    (worker,) = mesh.workers("web-")
    await until(lambda: "waiting for godot" in (worker.directory / "app.log").read_text(), "its line")
    await until(lambda: "Connect call failed" in worker.why_unready(), "the probe's first no")
    async with diagnosed(mesh, ahead=11.0) as said:
        text = await until(lambda: said_with(said, "readiness probe: Connect call failed"), "why it is not ready")
        assert "the app listens on nothing yet" in text
        assert text.splitlines()[1:] == ["    | waiting for godot"]


async def test_a_healthy_pod_is_not_talked_about(mesh: LocalMesh, app_file: Path) -> None:
    mesh.write("web", deployment("web", container(app_file), replicas=2))
    mesh.start()
    await mesh.ready()
    pods = mesh.controller.pods.running
    said: list[str] = []
    clock = steady_clock()
    for ahead in (0.0, 4.0, 11.0, 30.0):
        later = Diagnosis(
            "test", pods, clock=lambda ahead=ahead: clock() + ahead, say=said.append, record=mesh.controller.record
        )
        await later.look()
        await later.look()
    assert said == []


UNREADY_SIDECAR = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"not ready: no certificate yet: the token was refused\\n"
        self.send_response(503); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *arguments): pass
print("sidecar tries", flush=True)
http.server.ThreadingHTTPServer((sys.argv[1], 4191), Answer).serve_forever()
"""


async def test_a_sidecar_that_is_not_ready_says_why_with_its_own_words(mesh: LocalMesh, app_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "unready.py"
    script.write_text(UNREADY_SIDECAR)

    def command(settings: Settings, pod: PodIdentity, token_file: Path, extra: Any) -> list[str]:
        return ["python3", str(script), pod.ip]

    mesh.write("web", deployment("web", container(app_file)))
    mesh.start(command=command)
    await until(lambda: mesh.workers("web-") and "statuscode: 503" in mesh.workers("web-")[0].why_unready(), "its first no")
    async with diagnosed(mesh, ahead=11.0) as said:
        text = await until(lambda: said_with(said, "the sidecar is not ready after"), "why the sidecar is not ready")
        assert "no certificate yet: the token was refused" in text
        assert "    | sidecar tries" in text
        await until(lambda: said_with(said, "-c sidecar"), "the command for more")


# ---------------------------------------------------------------- who listens where


def test_the_kernels_addresses_are_read() -> None:
    assert listening.parse("0A01527F:1F90", 7) == Socket("127.82.1.10", 8080, 7)
    assert listening.parse("00000000:0050", 7) == Socket("0.0.0.0", 80, 7)
    assert listening.parse("00000000000000000000000000000000:0050", 7) == Socket("::", 80, 7)
    assert listening.parse("0000000000000000FFFF00000100007F:0050", 7) == Socket("127.0.0.1", 80, 7)
    assert str(Socket("::", 80, 7)) == "[::]:80"


def test_a_processs_own_listening_sockets_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        mine = os.getpgid(0)
        assert ("127.0.0.1", port) in {(found.address, found.port) for found in listening.of_group(mine)}
        assert listening.holder("127.0.0.1", port, {mine: ""}) is not None
        assert listening.holder("127.0.0.2", port, {mine: ""}) is None
    assert listening.holder("127.0.0.1", port, {mine: ""}) is None


def test_only_the_pods_own_address_is_right() -> None:
    assert misplaced("127.1.1.10", [8080], [Socket("127.1.1.10", 8080, 1)]) is None
    assert misplaced("127.1.1.10", [8080], [Socket("127.1.1.10", 8080, 1), Socket("127.0.0.1", 8080, 2)]) is None
    assert misplaced("127.1.1.10", [8080], [Socket("127.0.0.1", 9090, 1)]) is None  # a port nobody was promised
    everywhere = misplaced("127.1.1.10", [9090, 8080], [Socket("::", 8080, 1)])
    assert everywhere is not None
    assert everywhere.reason == "ListensEverywhere"
    assert "the app listens on [::]:8080, every address of this machine" in everywhere.message
