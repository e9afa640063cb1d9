"""Extensions of other sources than those that are there are not used, and that is said once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from meshproxy import pure

# A package like ours, with one module that would be compiled; its "extension" is a real file that no loader accepts.
PROGRAM = "import meshproxy; import meshproxy.wire.head as head; print(head.VALUE)"
Edit = Callable[[Path], object]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "meshproxy"
    (root / "wire").mkdir(parents=True)
    (root / "__init__.py").write_text("from meshproxy import pure\npure.install()\n")
    (root / "pure.py").write_text(Path(pure.__file__).read_text())
    (root / "wire" / "__init__.py").write_text("")
    (root / "wire" / "head.py").write_text("VALUE = 'source'\n")
    (root / "wire" / "tail.py").write_text("VALUE = 'source'\n")
    (root / pure.RECORD).write_text(pure.record(tmp_path, ["meshproxy/wire/head.py", "meshproxy/wire/tail.py"]))
    (root / "wire" / f"head{EXTENSION_SUFFIXES[0]}").write_text("no library")
    (tmp_path / f"{pure.LIBRARY}{EXTENSION_SUFFIXES[0]}").write_text("no library")
    return root


def run(package: Path, switch: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=package.parent,
        env={**environment, pure.SWITCH: switch},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_extensions_of_the_source_that_is_there_are_used(package: Path) -> None:
    assert pure.stale(package) == []
    done = run(package)
    assert "ImportError" in done.stderr  # the extension was tried: here it is none
    assert "head" + EXTENSION_SUFFIXES[0] in done.stderr
    assert run(package, "1").stdout == "source\n"


def test_a_source_that_was_only_touched_is_not_stale(package: Path) -> None:
    os.utime(package / "wire" / "head.py", (1, 1))
    assert pure.stale(package) == []


EDITS: list[tuple[str, Edit, str]] = [
    ("a longer source", lambda p: (p / "wire/head.py").write_text("VALUE = 'source'\n#\n"), "meshproxy/wire/head.py"),
    ("another of the group", lambda p: (p / "wire/tail.py").write_text("VALUE = 'SOURCE'\n"), "meshproxy/wire/tail.py"),
    ("a source that is gone", lambda p: (p / "wire/tail.py").unlink(), "meshproxy/wire/tail.py"),
    ("no record", lambda p: (p / pure.RECORD).unlink(), f"{pure.RECORD} is missing"),
]


@pytest.mark.parametrize(("edit", "named"), [pytest.param(edit, named, id=name) for name, edit, named in EDITS])
def test_stale_extensions_are_passed_over_and_that_is_said_once(package: Path, edit: Edit, named: str) -> None:
    edit(package)
    done = run(package)
    assert (done.returncode, done.stdout) == (0, "source\n")
    assert done.stderr.count("running interpreted") == 1
    assert named in done.stderr
    assert "make build" in done.stderr
    assert run(package, "1").stderr == ""  # asked for: nothing to say


def test_a_same_sized_edit_a_moment_later_is_noticed(package: Path) -> None:
    path = package / "wire" / "head.py"
    before = path.stat()
    path.write_text("VALUE = 'SOURCE'\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert pure.stale(package) == ["meshproxy/wire/head.py"]


def test_without_extensions_there_is_nothing_to_say(package: Path) -> None:
    (package.parent / f"{pure.LIBRARY}{EXTENSION_SUFFIXES[0]}").unlink()
    (package / "wire" / f"head{EXTENSION_SUFFIXES[0]}").unlink()
    (package / "wire" / "head.py").write_text("VALUE = 'edited'\n")
    done = run(package)
    assert (done.stdout, done.stderr) == ("edited\n", "")
