"""`meshproxy up`, `down`, `get`, `logs` as a user runs them: real supervisor, control plane, sidecars and apps."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
import yaml
from runtime_support import container, deployment, service, until_sync

from control.runtime.layout import Layout, MeshInfo
from control.runtime.meshes import alive, read_info, start_time, write_info


class Verbs:
    """Runs verbs with a state directory of their own."""

    def __init__(self, home: Path, manifests: Path) -> None:
        self.manifests = manifests
        self.environment = {**os.environ, "MESHPROXY_STATE_HOME": str(home)}
        self.environment.pop("MESHPROXY_NAME", None)
        self.home = home

    def __call__(self, *arguments: str, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meshproxy", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "meshproxy", "up", str(self.manifests), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def layout(self, name: str = "default") -> Layout:
        return Layout(self.home / name)

    def write(self, name: str, *objects: dict[str, Any]) -> None:
        (self.manifests / f"{name}.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False))

    def processes(self, name: str = "default") -> dict[int, str]:
        """pid -> name of all that the supervisor recorded."""
        found = {}
        for path in self.layout(name).processes.glob("*/*"):
            try:
                record = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            found[record["pid"]] = record["name"]
        return found


@pytest.fixture
def verbs(tmp_path: Path) -> Iterator[Verbs]:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    found = Verbs(tmp_path / "state", manifests)
    try:
        yield found
    finally:
        found("down", "--all")


@pytest.fixture
def web(verbs: Verbs, app_file: Path) -> Verbs:
    env = [{"name": "VERSION", "value": "v1"}]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": "shop"}}
    pod = {"serviceAccountName": "web"}
    verbs.write("web", account, deployment("web", container(app_file, env=env), pod=pod), service("web"))
    return verbs


def read_until(process: subprocess.Popen[str], text: str, deadline: float = 60.0) -> list[str]:
    """Lines up to and including the one with `text`."""
    assert process.stdout is not None
    lines: list[str] = []
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        line = process.stdout.readline()
        if not line:
            break
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"{text!r} did not come: {''.join(lines)}")


def get(gateway: str, url: str) -> str:
    opener = build_opener(ProxyHandler({"http": f"http://{gateway}"}))
    with opener.open(url, timeout=10) as response:
        return str(response.read().decode())


def test_up_detached_answers_through_the_gateway_and_down_ends_everything(web: Verbs) -> None:
    up = web("up", str(web.manifests), "-d")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "curl -x http://127.0.0.1:" in up.stdout
    info = read_info(web.layout())
    assert info is not None
    assert alive(info.supervisor_pid, info.supervisor_start)
    assert get(info.gateway, "http://web.shop/") == "v1"
    running = web.processes()
    assert sorted(name.rpartition("/")[2] for name in running.values()) == ["app", "control plane", "sidecar", "sidecar"]

    again = web("up", str(web.manifests), "-d")
    assert again.returncode == 1
    assert 'mesh "default" is up already' in again.stdout + again.stderr
    assert get(info.gateway, "http://web.shop/") == "v1"

    pods = web("get", "pods", "-n", "shop")
    header, row = pods.stdout.splitlines()
    assert header.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[1:4] == ["2/2", "Running", "0"]
    name = row.split()[0]
    assert yaml.safe_load(web("get", f"po/{name}", "-n", "shop", "-o", "yaml").stdout)["status"]["phase"] == "Running"
    assert json.loads(web("get", "all", "-A", "-o", "json").stdout)["kind"] == "List"
    assert web("logs", name, "-n", "shop").stdout == "app starts\n"
    assert web("logs", "deploy/web", "-n", "shop", "--tail", "1").stdout == f"[{name}] app starts\n"
    nobody = web("logs", "nobody", "-n", "shop")
    assert (nobody.returncode, 'pods "nobody" not found in namespace "shop"' in nobody.stderr) == (1, True)

    assert "control plane" in web("logs", "control-plane").stdout

    down = web("down")
    assert (down.returncode, down.stdout) == (0, 'mesh "default" ended\n')
    assert not any(start_time(pid) for pid in [*running, info.supervisor_pid])
    down = web("down")
    assert (down.returncode, down.stdout) == (0, "nothing to end\n")
    later = web("get", "deploy", "-n", "shop")
    assert (later.returncode, "is not up" in later.stderr) == (0, True)
    assert later.stdout.splitlines()[1].split()[0] == "web"


def test_killing_the_supervisor_leaves_no_process_and_the_next_up_keeps_the_state(web: Verbs) -> None:
    process = web.start()
    read_until(process, 'mesh "default" is ready')
    info = read_info(web.layout())
    assert info is not None
    running = web.processes()
    assert len(running) == 4
    root = (web.layout().trust / "root.pem").read_bytes()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until_sync(lambda: not any(start_time(pid) for pid in running), "all processes gone")
    assert process.stdout is not None
    process.stdout.close()

    web.write("web2", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "broken", "namespace": "shop"}, "spec": 3})
    up = web("up", str(web.manifests), "-d")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "web2.yaml" in up.stdout
    assert (web.layout().trust / "root.pem").read_bytes() == root
    info = read_info(web.layout())
    assert info is not None
    assert get(info.gateway, "http://web.shop/") == "v1"


def test_interrupt_ends_everything_in_order(web: Verbs) -> None:
    process = web.start("--name", "fore")
    lines = read_until(process, 'mesh "fore" is ready')
    assert any("pod shop/web-" in line and "is ready at 127." in line for line in lines)
    running = web.processes("fore")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(30) == 0
    assert rest.rstrip().endswith("ended")
    assert not any(start_time(pid) for pid in running)
    (log,) = web.layout("fore").root.glob("pods/shop/*/app.log")
    assert log.read_text() == "app starts\napp ends\n"


def test_a_second_interrupt_is_quick(web: Verbs, tmp_path: Path) -> None:
    stubborn = {"name": "app", "command": ["sh", "-c", "trap '' TERM; while :; do sleep 300; done"]}
    web.write("stubborn", deployment("stubborn", stubborn, pod={"terminationGracePeriodSeconds": 3600}))
    process = web.start()
    read_until(process, 'mesh "default" is ready')
    running = web.processes()
    process.send_signal(signal.SIGINT)
    read_until(process, "ending: apps")
    logs = web.layout().root
    (log,) = logs.glob("pods/shop/web-*/app.log")
    until_sync(lambda: log.read_text() == "app starts\napp ends\n", "the other app ended in order")
    (stubborn_pid,) = [pid for pid, name in running.items() if "stubborn" in name and name.endswith("/app")]
    assert start_time(stubborn_pid)  # it has an hour
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert "ending everything at once" in process.stdout.read()
    process.stdout.close()
    assert process.wait(30) == 0
    assert not any(start_time(pid) for pid in running)


def test_a_killed_control_plane_comes_back_and_new_configuration_flows(web: Verbs, app_file: Path) -> None:
    up = web("up", str(web.manifests), "-d")
    assert up.returncode == 0, up.stdout + up.stderr
    info = read_info(web.layout())
    assert info is not None
    (pid,) = [pid for pid, name in web.processes().items() if name == "control plane"]
    os.kill(pid, signal.SIGKILL)
    assert get(info.gateway, "http://web.shop/") == "v1"
    until_sync(lambda: [p for p, name in web.processes().items() if name == "control plane" and p != pid], "a new one")
    env = [{"name": "VERSION", "value": "v2"}]
    web.write("second", deployment("second", container(app_file, env=env)), service("second"))

    def answer() -> str:
        try:
            return get(info.gateway, "http://second.shop/")
        except OSError:
            return ""

    assert until_sync(answer, "an answer of the new service", 60.0) == "v2"


def test_a_taken_gateway_port_is_named(web: Verbs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        up = web("up", str(web.manifests), "--gateway-port", str(port))
    assert up.returncode == 1
    assert f"the gateway's port {port} on 127.0.0.1 is taken" in up.stderr
    assert "--gateway-port" in up.stderr
    assert list(web.home.iterdir()) == []


def test_down_of_a_mesh_that_never_was_is_an_error_with_the_names_that_are(verbs: Verbs) -> None:
    nobody = verbs("down", "--name", "shpo")
    assert (nobody.returncode, nobody.stderr) == (1, 'Error: no mesh named "shpo" here (there is none)\n')
    verbs.layout("shop").root.mkdir(parents=True)
    write_info(verbs.layout("shop"), MeshInfo("shop", "/x", "127.9.9", "t", "g", "c", "a", 1, "1", 0.0))
    nobody = verbs("down", "--name", "shpo", "--purge")
    assert (nobody.returncode, nobody.stderr) == (1, 'Error: no mesh named "shpo" here (there are: shop)\n')
    assert verbs("down", "--name", "shpo", "--ignore-not-found").returncode == 0
    assert verbs("down", "--name", "shop").stdout == "nothing to end\n"  # it is down already: no error


def test_directories_without_usable_manifests_are_refused(verbs: Verbs) -> None:
    missing = verbs("up", str(verbs.manifests / "none"))
    assert (missing.returncode, "no such directory" in missing.stderr) == (1, True)
    empty = verbs("up", str(verbs.manifests))
    assert (empty.returncode, "no manifests in" in empty.stderr) == (1, True)
    verbs.write("bad", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {}})
    bad = verbs("up", str(verbs.manifests))
    assert (bad.returncode, "were refused" in bad.stderr, "bad.yaml:" in bad.stdout) == (1, True, True)
    detached = verbs("up", str(verbs.manifests), "-d")
    assert (detached.returncode, "did not start" in detached.stderr, "were refused" in detached.stdout) == (1, True, True)
    assert list(verbs.home.iterdir()) == []  # what never came to be leaves nothing


def test_up_with_another_directory_says_once_that_the_first_ones_objects_go_and_no_more_of_them(
    verbs: Verbs, app_file: Path
) -> None:
    analysis = {"interval": "1s", "stepWeight": 50, "maxWeight": 50, "metrics": []}
    canary = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": analysis,
        },
    }
    verbs.write("web", deployment("web", container(app_file)), canary)
    assert verbs("up", str(verbs.manifests), "-d").returncode == 0
    until_sync(lambda: "web-primary" in verbs("get", "deploy", "-n", "shop").stdout, "the Canary to be under way")
    verbs("down")
    first, verbs.manifests = verbs.manifests, verbs.manifests.with_name("others")
    verbs.manifests.mkdir()
    verbs.write("lone", deployment("lone", container(app_file)))
    up = verbs("up", str(verbs.manifests), "-d")
    assert up.returncode == 0, up.stdout + up.stderr
    line = f"it had the manifests of {first} before: what is not in {verbs.manifests} is removed\n"
    assert up.stdout.count(line) == 1
    assert "warning" not in up.stdout
    until_sync(lambda: "web" not in verbs("get", "all", "-A").stdout, "the first one's objects to go")
    verbs("down")
    again = verbs("up", str(verbs.manifests), "-d").stdout
    assert ("is ready" in again, "before" in again) == (True, False)


def test_up_that_is_not_ready_in_time_says_why_within_seconds_and_goes_on(verbs: Verbs) -> None:
    command = ["sh", "-c", "echo no such table: prices; exit 7"]
    verbs.write("shop", deployment("loop", {"name": "app", "command": command}))
    up = verbs("up", str(verbs.manifests), "-d", "--wait", "8")
    assert up.returncode == 1
    assert "app ended 2 times, last with exit code 7, its last lines:\n    | no such table: prices\n" in up.stdout
    (pod,) = verbs("get", "po", "-n", "shop", "-o", "name").stdout.split()
    name = pod.removeprefix("pod/")
    assert f"more: meshproxy logs {name} -n shop\n" in up.stdout
    assert f"nothing is ready (shop/{name} (CrashLoopBackOff)) after 8 s; the mesh goes on" in up.stderr
    assert verbs("logs", pod, "-n", "shop", "--previous").stdout == "no such table: prices\n"


def test_verbs_name_the_mesh_they_speak_to_when_several_are_up(web: Verbs) -> None:
    for name in ("one", "two"):
        up = web("up", str(web.manifests), "-d", "--name", name)
        assert up.returncode == 0, up.stdout + up.stderr
    prefixes = {info.prefix for name in ("one", "two") if (info := read_info(web.layout(name)))}
    assert len(prefixes) == 2
    unclear = web("get", "pods", "-A")
    assert (unclear.returncode, "several meshes are up: one, two" in unclear.stderr) == (1, True)
    assert web("get", "pods", "-A", "--name", "two").returncode == 0
    assert web("down").returncode == 2
    assert web("down", "--name", "one").stdout == 'mesh "one" ended\n'
    assert web("down", "--all").stdout == 'mesh "two" ended\n'
    assert "forgot" in web("down", "--name", "one", "--purge").stdout
    assert not web.layout("one").root.exists()
