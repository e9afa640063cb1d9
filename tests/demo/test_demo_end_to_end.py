"""The demonstration itself, as a user runs it: what it says, its exit status, and that nothing is left of it.

About a minute each: real processes, real intervals.  The runs that are broken on purpose go on at the same time.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from meshproxy.demo.breakage import VARIABLE

DEADLINE_S = 280.0
pytestmark = pytest.mark.timeout(DEADLINE_S + 20)


class Demo:
    """`meshproxy demo` as a child.  State and scratch files are below `home`, so what it started can be told by that."""

    def __init__(self, home: Path, breakage: str = "", *options: str, terminal: bool = False) -> None:
        self.home = home
        self.lines: list[str] = []
        temporary = home / "tmp"
        temporary.mkdir(parents=True)
        env = os.environ | {"MESHPROXY_STATE_HOME": str(home / "state"), "TMPDIR": str(temporary), VARIABLE: breakage}
        name = f"demo-{os.getpid()}" + (f"-{breakage}" if breakage else "")
        command = [sys.executable, "-m", "meshproxy", "demo", "--name", name, *options]
        if terminal:
            self.master, self.slave = os.openpty()
            env |= {"TERM": "xterm", "COLUMNS": "140", "LINES": "50"}
            self.process = subprocess.Popen(command, env=env, stdin=self.slave, stdout=self.slave, stderr=self.slave)
            output = self.master
        else:
            self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert self.process.stdout is not None
            output = self.process.stdout.fileno()
        self._reader = threading.Thread(target=self._read, args=(output,), daemon=True)
        self._reader.start()

    def _read(self, output: int) -> None:
        rest = ""
        while data := os.read(output, 65536):
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", rest + data.decode(errors="replace"))
            *whole, rest = text.split("\n")
            self.lines += [line.rstrip() for line in whole]

    def said(self, words: str) -> None:
        """Wait until it said this."""
        give_up = time.monotonic() + DEADLINE_S
        while not any(words in line for line in self.lines):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < give_up, f"never said {words!r}:\n{self.text}"
            time.sleep(0.1)

    def wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self._reader.join(10)
        return code

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def claims(self) -> dict[str, bool]:
        """Claim -> did it hold, of the final verdict."""
        start = next(i for i, line in enumerate(self.lines) if line.startswith("What was observed"))
        found = re.findall(r"^  (ok    |FAILED|\?     )  (.*)$", "\n".join(self.lines[start:]), re.MULTILINE)
        return {text: mark == "ok    " for mark, text in found}

    def failed(self) -> str:
        return "\n".join(text for text, held in self.claims().items() if not held)

    def processes(self) -> list[str]:
        """Everything that runs with a path below `home` in its arguments or environment (state, ledger, TMPDIR)."""
        mark = str(self.home).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                argv, env = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:  # ended just now, or another user's
                continue
            if mark in argv or mark in env:
                found.append(f"{entry.name}: {argv.replace(bytes(1), b' ').decode(errors='replace')}")
        return found

    def gone(self) -> None:
        """Wait until nothing is left."""
        give_up = time.monotonic() + 30
        while left := self.processes():
            assert time.monotonic() < give_up, "\n".join(left)
            time.sleep(0.1)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)


@pytest.fixture
def demo(tmp_path):
    started = []

    def start(breakage="", *options, terminal=False):
        started.append(Demo(tmp_path, breakage, *options, terminal=terminal))
        return started[-1]

    yield start
    for running in started:
        running.end()


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run for each breakage, all at once: what they wait for is the release's intervals."""
    home = tmp_path_factory.mktemp("broken")
    started = {}
    try:
        for breakage in ("v3-healthy", "mtls-off", "split-ignored"):
            started[breakage] = Demo(home / breakage, breakage, "--rate", "20")
        yield started
    finally:
        for running in started.values():
            running.end()


def test_everything_that_is_claimed_is_observed_and_nothing_is_left(demo):
    running = demo()
    code = running.wait()
    claims = running.claims()
    assert code == 0, running.text
    assert len(claims) == 11
    assert all(claims.values())
    running.gone()


def test_a_v3_that_is_healthy_makes_it_fail(broken):
    running = broken["v3-healthy"]
    assert running.wait() == 1, running.text
    assert "catalogue v3 was rolled back" in running.failed()
    running.gone()


def test_without_mtls_it_fails(broken):
    running = broken["mtls-off"]
    assert running.wait() == 1, running.text
    failed = running.failed()
    assert "a recorded hop shows nothing" in failed
    assert "every app saw its caller's verified identity" in failed
    assert "plaintext and a forged certificate were refused" in failed
    running.gone()


def test_with_the_split_ignored_it_fails(broken):
    running = broken["split-ignored"]
    assert running.wait() == 1, running.text
    assert "catalogue v2: its share of requests followed its weight" in running.failed()
    running.gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_everything_it_started(demo, number):
    running = demo()
    running.said("Scene 2 of 7")
    assert len(running.processes()) > 15
    running.process.send_signal(number)
    assert running.wait() == 130, running.text
    running.gone()


def test_killed_it_leaves_nothing_behind(demo):
    running = demo()
    running.said("Scene 2 of 7")
    running.process.kill()
    running.wait()
    running.gone()


def test_on_a_terminal_each_scene_waits_for_a_key_and_the_terminal_is_left_as_it_was(demo):
    running = demo("", "--step", terminal=True)
    before = termios.tcgetattr(running.slave)
    running.said("(any key)")
    assert "the sidecars get short-lived certificates" in running.text
    assert "meshproxy up" not in running.text
    os.write(running.master, b" ")
    running.said("Scene 2 of 7")
    assert "SIDECAR" in running.text
    assert termios.tcgetattr(running.slave) != before
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(DEADLINE_S) == 130, running.text
    assert termios.tcgetattr(running.slave) == before
    running.gone()


def test_a_mesh_of_that_name_that_is_up_already_is_left_alone(demo, tmp_path):
    running = demo()
    running.said("Scene 2 of 7")
    other = tmp_path / "other"
    other.mkdir()
    env = os.environ | {"MESHPROXY_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(other)}
    command = [sys.executable, "-m", "meshproxy", "demo", "--name", f"demo-{os.getpid()}"]
    second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "is up already" in second.stdout
    assert "--name" in second.stdout
    assert len(running.processes()) > 15
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 130
    running.gone()
