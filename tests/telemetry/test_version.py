"""`meshproxy version`: compiled, interpreted, or stale."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import meshproxy
from meshproxy.cli.version import DATA_PATH, inspect

SUFFIX = "cpython-311-x86_64-linux-gnu.so"


def package(directory: Path, *files: str) -> Path:
    root = directory / "data_path"
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_a_package_of_sources_is_interpreted(tmp_path: Path) -> None:
    build = inspect("p", package(tmp_path, "__init__.py", "a.py", "sub/b.py"), [])
    assert (build.compiled, build.interpreted) == (0, 2)
    assert str(build) == "interpreted"


def test_a_package_whose_extensions_are_in_use_is_compiled(tmp_path: Path) -> None:
    root = package(tmp_path, "a.py", f"a.{SUFFIX}", "b.py", "sub/a.py")
    build = inspect("p", root, [root / f"a.{SUFFIX}"])
    assert (build.compiled, build.interpreted) == (1, 2)
    assert str(build) == "compiled (2 of 3 modules interpreted)"


def test_extensions_that_are_not_in_use_do_not_count(tmp_path: Path) -> None:
    build = inspect("p", package(tmp_path, "a.py", f"a.{SUFFIX}"), [])
    assert str(build) == "interpreted"


def test_the_command_tells_versions_and_each_package_of_the_data_path() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "meshproxy", "version", "-o", "json"], capture_output=True, text=True, timeout=60, check=False
    )
    document = json.loads(run.stdout)
    assert document["meshproxy"] == meshproxy.__version__
    assert document["python"] == platform.python_version()
    assert [build["package"] for build in document["data_path"]] == list(DATA_PATH)
    assert run.returncode == (1 if document["stale"] else 0), run.stderr
