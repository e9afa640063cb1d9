"""Processes end, whatever happens to who started them; what they said is kept, within bounds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_support import until, until_sync

from control.runtime.logfile import LogFile
from control.runtime.meshes import alive, start_time
from control.runtime.process import Exit, SpawnError, reap, reap_abandoned, records_of, spawn

ENVIRONMENT = {"PATH": os.environ["PATH"]}


async def test_a_process_is_logged_recorded_and_its_end_reported(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    log = LogFile(tmp_path / "out.log")
    ends: list[Exit] = []
    process = spawn(
        ["sh", "-c", "echo said; echo complained >&2; exit 7"],
        name="one",
        environment=ENVIRONMENT,
        directory=None,
        log=log,
        on_exit=ends.append,
        records=records,
    )
    assert json.loads((records / str(process.pid)).read_text())["name"] == "one"
    await until(lambda: ends, "its end")
    assert ends == [Exit(7)]
    assert (tmp_path / "out.log").read_text() == "said\ncomplained\n"
    assert list(records.iterdir()) == []
    process.signal(signal.SIGKILL)  # nobody is hit
    log.close()


async def test_what_a_process_started_ends_with_it(tmp_path: Path) -> None:
    ends: list[Exit] = []
    log = LogFile(tmp_path / "out.log")
    spawn(
        ["sh", "-c", "sleep 300 & echo $!; exit 0"],
        name="parent",
        environment=ENVIRONMENT,
        directory=None,
        log=log,
        on_exit=ends.append,
    )
    await until(lambda: ends, "its end")
    grandchild = int((tmp_path / "out.log").read_text())
    await until(lambda: not start_time(grandchild), "the grandchild gone")
    log.close()


@pytest.mark.parametrize(
    ("argv", "directory", "message"),
    [
        (["no-such-program-here"], None, "no such program in PATH"),
        (["sh"], Path("/no/such/directory"), "working directory /no/such/directory does not exist"),
        (["/dev/null"], None, "Permission denied"),
    ],
)
async def test_what_cannot_be_started_says_why(argv: list[str], directory: Path | None, message: str, tmp_path: Path) -> None:
    log = LogFile(tmp_path / "out.log")
    with pytest.raises(SpawnError, match=message):
        spawn(argv, name="x", environment=ENVIRONMENT, directory=directory, log=log, on_exit=lambda _: None)
    log.close()


async def test_spawning_from_another_thread_is_refused(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "out.log")
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(spawn, ["true"], name="x", environment={}, directory=None, log=log, on_exit=lambda _: None)
    log.close()


def test_a_log_keeps_two_files_of_its_limit_at_most(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a" / "app.log", limit=100)
    for number in range(50):
        log.write(f"line {number:04}\n".encode())
    log.close()
    newest, older = (tmp_path / "a" / "app.log").read_text(), (tmp_path / "a" / "app.log.1").read_text()
    assert (older + newest).splitlines() == [f"line {number:04}" for number in range(30, 50)]
    assert len(newest) == len(older) == 100
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["app.log", "app.log.1"]


# A parent that starts a child which starts a grandchild, and prints all three pids, then waits.
PARENT = """
import asyncio, os, sys
from pathlib import Path
from control.runtime.logfile import LogFile
from control.runtime.process import spawn
from control.runtime.guard import start_guard
records = Path(sys.argv[1])
records.mkdir(parents=True)
async def main():
    guard = start_guard(records)
    log = LogFile(records.parent / "child.log")
    child = spawn(["sh", "-c", "sleep 300 & echo $!; wait"], name="child", environment=dict(os.environ), directory=None,
                  log=log, on_exit=lambda _: None, records=records)
    print(os.getpid(), guard.pid, child.pid, flush=True)
    await asyncio.sleep(300)
asyncio.run(main())
"""


def test_children_grandchildren_and_guard_end_when_the_parent_is_killed(tmp_path: Path, ended: list[int]) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), str(tmp_path / "records")], stdout=subprocess.PIPE) as parent:
        ended.append(parent.pid)
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        ended += pids
        log = tmp_path / "child.log"
        until_sync(lambda: log.exists() and log.read_text().endswith("\n"), "the grandchild")
        grandchild = int(log.read_text())
        ended.append(grandchild)
        assert all(start_time(pid) for pid in [*pids, grandchild])
        os.kill(parent.pid, signal.SIGKILL)
        until_sync(lambda: not any(start_time(pid) for pid in [*pids, grandchild]), "all of them gone")


def test_leftovers_are_reaped_by_pid_and_start_time(tmp_path: Path) -> None:
    left = subprocess.Popen(["sleep", "300"], process_group=0)
    innocent = subprocess.Popen(["sleep", "300"], process_group=0)
    try:
        records = records_of(tmp_path, 999_999_999, "123")
        records.mkdir()
        (records / str(left.pid)).write_text(json.dumps({"pid": left.pid, "start": start_time(left.pid), "name": "left"}))
        # The same pid with another start time is somebody else.
        (records / str(innocent.pid)).write_text(json.dumps({"pid": innocent.pid, "start": "1", "name": "reused"}))
        (records / "broken").write_text("not json")
        assert reap_abandoned(tmp_path) == ["left"]
        assert left.wait(10) == -signal.SIGKILL
        assert innocent.poll() is None
        assert not records.exists()
        assert reap_abandoned(tmp_path) == []
    finally:
        for process in (left, innocent):
            process.kill()
            process.wait()


def test_what_a_living_supervisor_started_is_left_alone(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "300"], process_group=0)
    try:
        records = records_of(tmp_path, os.getpid(), start_time(os.getpid()))
        records.mkdir()
        (records / str(child.pid)).write_text(json.dumps({"pid": child.pid, "start": start_time(child.pid), "name": "mine"}))
        assert reap_abandoned(tmp_path) == []
        assert child.poll() is None
        assert reap(records) == ["mine"]
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()


def test_a_process_is_known_by_pid_and_start_time() -> None:
    child = subprocess.Popen(["sleep", "300"])
    start = start_time(child.pid)
    assert start
    assert alive(child.pid, start)
    assert not alive(child.pid, str(int(start) + 1))
    child.kill()
    until_sync(lambda: start_time(child.pid) == "", "dead, though not waited for: a zombie is no process")
    child.wait()
    assert not alive(child.pid, start)
    assert not alive(0, "")
