"""The mesh as a whole: a mistake in a manifest, a killed supervisor, Ctrl-C, `down`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import yaml
from mesh_manifests import account, deployment, service, split
from mesh_run import MeshRun, Pod, request, until

from control.runtime.meshes import start_time


@pytest.fixture
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client; web split into v1 and v2, one replica each."""
    found = MeshRun(tmp_path_factory.mktemp("lifecycle"), "lifecycle")
    web = {"app": "web"}
    found.write("client", account("client"), deployment("client", "echo_app", 8080, found.ledger))
    found.write(
        "web",
        account("web"),
        *(deployment(f"web-{v}", "echo_app", 8080, found.ledger, labels=web, version=v) for v in ("v1", "v2")),
        *(service(f"web-{v}", selector={**web, "version": v}) for v in ("v1", "v2")),
        service("web"),
    )
    found.write("split", split("web", web_v1=1, web_v2=1))
    try:
        found.start()
        yield found
    finally:
        found.end()


def versions(client: Pod, count: int = 20) -> list[bytes]:
    answers = [request(client.ip, 4140, "GET", "http://web.e2e/work?id=any") for _ in range(count)]
    assert [answer.status for answer in answers] == [200] * count
    return [answer.body for answer in answers]


def test_a_bad_edit_is_refused_with_file_line_and_field_and_the_last_good_one_stays_also_over_a_restart(mesh: MeshRun) -> None:
    client = mesh.pod("client")
    good = {"web-v1": 1, "web-v2": 3}
    mesh.write("split", split("web", web_v1=1, web_v2=3))
    until(lambda: mesh.weights(client.ip, "web") == good, "the good edit")

    text = yaml.safe_dump(split("web", web_v1="many", web_v2=3), sort_keys=False)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "many" in row)
    mesh.write_text("split", text)
    refusal = f"split.yaml:{line}: error: spec.backends[0].weight: found"
    until(lambda: refusal in mesh.said(), "the refusal")
    (told,) = [row for row in mesh.said().splitlines() if refusal in row]
    assert "many" in told
    assert "expected" in told
    lint = mesh.verb("lint", str(mesh.manifests))
    assert (lint.returncode, refusal in lint.stdout + lint.stderr) == (1, True)

    # Everything else goes on: another file is taken, and only then is it certain that the bad one was not.
    mesh.write("more", service("more", selector={"app": "web"}))
    until(lambda: "e2e/more" in str(mesh.config(client.ip)), "the other file")
    assert mesh.weights(client.ip, "web") == good
    assert sorted(versions(client, 8)).count(b"v2") in (5, 6, 7)  # 1:3 in blocks of four, begun anywhere

    process = mesh.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert mesh.processes() == {}
    mesh.start()
    client = mesh.pod("client")
    assert refusal in mesh.said()  # said again: the file is as bad as before
    assert mesh.weights(client.ip, "web") == good
    assert versions(client, 4).count(b"v2") == 3

    mesh.write("split", split("web", web_v1=1, web_v2=0))
    until(lambda: mesh.weights(client.ip, "web") == {"web-v1": 1, "web-v2": 0}, "the mended file")
    assert set(versions(client)) == {b"v1"}


def test_a_file_that_is_no_yaml_keeps_its_objects(mesh: MeshRun) -> None:
    client = mesh.pod("client")
    before = mesh.recorded()
    mesh.write_text("web", (mesh.manifests / "web.yaml").read_text().replace("kind: Service\n", "kind: Service\n  : {[\n", 1))
    until(lambda: "web.yaml:" in mesh.said(), "the refusal")
    assert set(versions(client)) == {b"v1", b"v2"}
    assert mesh.recorded() == before


def test_killing_the_supervisor_leaves_no_process_and_the_next_up_works(mesh: MeshRun) -> None:
    process = mesh.process
    assert process is not None
    running = mesh.processes()
    assert len(running) >= 10  # supervisor, guard, control plane, gateway, three pods of two
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: mesh.processes() == {}, "every process to be gone", 15.0)
    mesh.start()
    assert set(versions(mesh.pod("client"))) == {b"v1", b"v2"}
    assert not set(mesh.processes()) & set(running)


def test_killing_supervisor_and_guard_together_leaves_what_the_next_up_or_down_ends(mesh: MeshRun) -> None:
    process = mesh.process
    assert process is not None
    (guard,) = [pid for pid, command in mesh.processes().items() if "control.runtime.guard" in command]
    for pid in (guard, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    until(lambda: not start_time(guard), "the guard to be gone")
    down = mesh.verb("down", "--name", mesh.name)
    assert down.returncode == 0
    assert mesh.processes() == {}


def test_an_interrupt_ends_everything_and_down_may_be_said_twice(mesh: MeshRun) -> None:
    process = mesh.process
    assert process is not None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert mesh.processes() == {}
    for _ in range(2):
        down = mesh.verb("down", "--name", mesh.name)
        assert (down.returncode, down.stdout, down.stderr) == (0, "nothing to end\n", "")


def test_a_detached_mesh_is_ended_by_down_and_a_second_down_has_nothing_to_do(mesh: MeshRun) -> None:
    process = mesh.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    up = mesh.verb("up", str(mesh.manifests), "--name", mesh.name, "-d", "--leaf-lifetime", "3600")
    assert up.returncode == 0, up.stdout + up.stderr
    assert set(versions(mesh.pod("client"))) == {b"v1", b"v2"}
    for said in (f'mesh "{mesh.name}" ended\n', "nothing to end\n"):
        down = mesh.verb("down", "--name", mesh.name)
        assert (down.returncode, down.stdout) == (0, said)
        assert mesh.processes() == {}
