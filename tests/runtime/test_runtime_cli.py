"""What the verbs print: kubectl's columns, ages, namespaces, logs that rotate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from control.runtime import meshes
from control.runtime.layout import Layout, MeshInfo
from meshproxy.cli import common
from meshproxy.cli.logs import LogReader
from meshproxy.cli.logs import command as logs
from meshproxy.cli.printers import KINDS, table

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def info(name: str, pid: int, start: str, started: float = 0.0) -> MeshInfo:
    return MeshInfo(
        name, "/m", "127.8.9", "cluster.local", "127.0.0.1:1", "127.8.9.1:8086", "127.8.9.1:9990", pid, start, started
    )


def write(name: str, *, up: bool, started: float = 0.0) -> None:
    layout = Layout.of(name)
    layout.root.mkdir(parents=True)
    start = meshes.start_time(os.getpid()) if up else "1"
    meshes.write_info(layout, info(name, os.getpid(), start, started))


# ---------------------------------------------------------------- which mesh


def test_the_only_mesh_that_is_up_is_meant(state_home: Path) -> None:
    write("default", up=False)
    write("demo", up=True)
    assert meshes.find().name == "demo"
    assert meshes.find().others == ()


def test_default_is_meant_when_several_are_up_and_the_others_are_named(state_home: Path) -> None:
    write("default", up=True)
    write("demo", up=True)
    found = meshes.find()
    assert (found.name, found.others) == ("default", ("demo",))
    assert meshes.find("demo").name == "demo"


def test_what_cannot_be_found_says_what_there_is(state_home: Path) -> None:
    with pytest.raises(meshes.MeshError, match="no mesh is up; start one with `meshproxy up DIR`"):
        meshes.find()
    write("a", up=True)
    write("b", up=True)
    write("c", up=False)
    with pytest.raises(meshes.MeshError, match="several meshes are up: a, b; choose one with --name"):
        meshes.find()
    with pytest.raises(meshes.MeshError, match='"c" is not up'):
        meshes.find("c")
    with pytest.raises(meshes.MeshError, match=r'no mesh named "d" here \(known: a, b, c\)'):
        meshes.find("d")


def test_a_mesh_that_is_down_can_be_read_and_the_last_one_is_meant(state_home: Path) -> None:
    write("old", up=False, started=1.0)
    write("new", up=False, started=2.0)
    found = meshes.find(down_too=True)
    assert (found.name, found.up) == ("new", False)


def test_a_damaged_mesh_file_is_no_mesh(state_home: Path) -> None:
    write("a", up=True)
    Layout.of("a").info.write_text("{")
    assert meshes.known() == []


def test_the_verb_says_on_stderr_which_mesh_it_speaks_to(state_home: Path) -> None:
    write("default", up=True)
    write("demo", up=True)

    @click.command()
    @common.mesh_option
    def verb(mesh: str | None) -> None:
        click.echo(common.find_mesh(mesh).name)

    result = CliRunner().invoke(verb, [])
    assert result.stdout == "default\n"
    assert 'mesh "default" (also up: demo; choose with --name)' in result.stderr
    assert CliRunner().invoke(verb, ["--name", "demo"]).output == "demo\n"


def test_all_namespaces_win_over_one(state_home: Path) -> None:
    @click.command()
    @common.namespace_options
    def verb(namespace: str | None) -> None:
        click.echo(repr(namespace))

    outputs = [CliRunner().invoke(verb, arguments).output for arguments in ([], ["-n", "a"], ["-A"], ["-n", "a", "-A"])]
    assert outputs == ["'default'\n", "'a'\n", "None\n", "None\n"]


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (599, "9m59s"),
        (700, "11m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"),
        (50 * 3600, "2d2h"),
        (30 * 86400, "30d"),
    ],
)
def test_durations_read_as_kubectl_writes_them(seconds: float, text: str) -> None:
    assert common.duration(seconds) == text


def test_age_counts_from_a_kubernetes_timestamp() -> None:
    assert common.age("2027-01-15T07:59:00Z", NOW) == "60s"
    assert common.age(None) == "<unknown>"


def pod(**status: Any) -> dict[str, Any]:
    metadata = {"name": "web-1", "namespace": "shop", "creationTimestamp": "2027-01-15T07:59:00Z"}
    return {"metadata": metadata, "spec": {"containers": [], "nodeName": "localhost"}, "status": status}


def container(ready: bool, restarts: int = 0, **state: Any) -> dict[str, Any]:
    last = {"terminated": {"finishedAt": "2027-01-15T07:59:50Z"}} if restarts else {}
    return {"ready": ready, "restartCount": restarts, "state": state or {"running": {}}, "lastState": last}


def test_pod_rows_count_containers_and_show_what_keeps_them() -> None:
    cells = KINDS["po"].cells
    healthy = pod(phase="Running", podIP="127.8.9.10", containerStatuses=[container(True), container(True)])
    assert cells(healthy, True, NOW) == ["web-1", "2/2", "Running", "0", "60s", "127.8.9.10", "localhost"]
    looping = [container(False, 3, waiting={"reason": "CrashLoopBackOff"}), container(True)]
    assert cells(pod(phase="Running", containerStatuses=looping), False, NOW)[1:4] == ["1/2", "CrashLoopBackOff", "3 (10s ago)"]
    done = [container(False, terminated={"reason": "Completed", "exitCode": 0})]
    assert cells(pod(phase="Succeeded", containerStatuses=done), False, NOW)[2] == "Completed"
    healthy["metadata"]["annotations"] = {"meshproxy.dev/terminating-since": "x"}
    assert cells(healthy, False, NOW)[2] == "Terminating"


def test_a_table_has_kubectls_columns_and_a_namespace_when_there_are_several() -> None:
    service = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}], "selector": {"app": "web"}},
    }
    text = table(KINDS["svc"], [service], wide=True, namespaces=True, prefix=True)
    header, row = text.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert row.split() == ["shop", "service/web", "ClusterIP", "<none>", "<none>", "80/TCP,53/UDP", "<unknown>", "app=web"]
    assert header.index("TYPE") == row.index("ClusterIP")


def test_canaries_have_flaggers_columns_in_its_order() -> None:
    """Those of its CRD: the wide ones stand before the last; what an object does not say is empty."""
    analysis = {"interval": "15s", "mirror": True, "stepWeights": [5, 50], "maxWeight": 50}
    status = {"phase": "Progressing", "canaryWeight": 5, "failedChecks": 1, "iterations": 0, "lastTransitionTime": "2027-01-15"}
    one = {"metadata": {"name": "podinfo"}, "spec": {"suspend": False, "analysis": analysis}, "status": status}
    kind = KINDS["canaries"]
    assert kind.headers(False) == ["NAME", "STATUS", "WEIGHT", "LASTTRANSITIONTIME"]
    assert kind.cells(one, False) == ["podinfo", "Progressing", "5", "2027-01-15"]
    assert dict(zip(kind.headers(True), kind.cells(one, True), strict=True)) == {
        "NAME": "podinfo",
        "STATUS": "Progressing",
        "WEIGHT": "5",
        "SUSPENDED": "false",
        "FAILEDCHECKS": "1",
        "INTERVAL": "15s",
        "MIRROR": "true",
        "STEPWEIGHT": "",
        "STEPWEIGHTS": "[5,50]",
        "MAXWEIGHT": "50",
        "LASTTRANSITIONTIME": "2027-01-15",
    }
    assert list(kind.headers(True))[-1] == "LASTTRANSITIONTIME"
    new = {"metadata": {"name": "podinfo"}, "spec": {"canaryAnalysis": {"interval": "1m"}}}
    assert kind.cells(new, True) == ["podinfo", *[""] * 10]


def test_every_kind_prints_an_object_that_says_little() -> None:
    for kind in {id(kind): kind for kind in KINDS.values()}.values():
        template: dict[str, Any] = {"spec": {}}
        obj = {"metadata": {"name": "x"}, "spec": {"template": template}}
        assert len(kind.cells(obj, True, NOW)) == len(kind.headers(True))


# ---------------------------------------------------------------- logs


def test_a_log_is_followed_across_its_rotation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from control.runtime.logfile import LogFile

    log = LogFile(tmp_path / "app.log", limit=40)
    for number in range(3):
        log.write(f"line {number}\n".encode())
    reader = LogReader(tmp_path / "app.log", "[web] ")
    reader.print_kept(2)
    assert capsys.readouterr().out == "[web] line 1\n[web] line 2\n"
    log.write(b"half a ")
    reader.print_new()
    assert capsys.readouterr().out == ""
    log.write(b"line\n")
    for number in range(3, 6):
        log.write(f"line {number}\n".encode())
    assert (tmp_path / "app.log.1").exists()
    reader.print_new()
    assert capsys.readouterr().out == "[web] half a line\n[web] line 3\n[web] line 4\n[web] line 5\n"
    log.close()
    reader.close()


def test_the_tail_of_a_log_reaches_into_the_older_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "app.log.1").write_text("1\n2\n3\n")
    (tmp_path / "app.log").write_text("4\n5\n")
    for tail, expected in ((0, ""), (3, "3\n4\n5\n"), (None, "1\n2\n3\n4\n5\n"), (99, "1\n2\n3\n4\n5\n")):
        reader = LogReader(tmp_path / "app.log", "")
        reader.print_kept(tail)
        reader.close()
        assert capsys.readouterr().out == expected


def test_a_log_without_lines_says_so_on_stderr(state_home: Path) -> None:
    write("default", up=True)
    folder = Layout.of("default").pod("shop", "web-1")
    folder.mkdir(parents=True)
    (folder / "app.log").touch()
    runner = CliRunner()
    result = runner.invoke(logs, ["web-1", "-n", "shop"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no lines yet\n")
    (folder / "app.log").write_text("a line\n")
    result = runner.invoke(logs, ["web-1", "-n", "shop"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "a line\n", "")
    assert runner.invoke(logs, ["web-1", "-n", "shop", "--tail", "0"]).output == ""
