"""`meshproxy version`: compiled, interpreted, or stale."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import meshproxy
from meshproxy.cli.version import DATA_PATH, inspect


def package(directory: Path, *files: tuple[str, int]) -> Path:
    """Files with modification times, in seconds."""
    root = directory / "data_path"
    for name, modified in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (modified, modified))
    return root


def test_a_package_of_sources_is_interpreted(tmp_path: Path) -> None:
    build = inspect("p", package(tmp_path, ("__init__.py", 1), ("a.py", 1), ("sub/b.py", 1)))
    assert (build.compiled, build.interpreted, build.stale) == (0, 2, [])
    assert str(build) == "interpreted"


def test_a_package_with_newer_extensions_is_compiled(tmp_path: Path) -> None:
    build = inspect("p", package(tmp_path, ("a.py", 1), ("a.cpython-311-x86_64-linux-gnu.so", 2), ("b.py", 1)))
    assert (build.compiled, build.interpreted, build.stale) == (1, 1, [])
    assert str(build) == "compiled (1 of 2 modules interpreted)"


def test_an_extension_older_than_its_source_is_stale(tmp_path: Path) -> None:
    build = inspect("p", package(tmp_path, ("sub/a.py", 5), ("sub/a.cpython-311-x86_64-linux-gnu.so", 4)))
    assert build.stale == ["data_path/sub/a.py"]
    assert str(build) == "compiled, STALE"


def test_an_extension_whose_source_is_gone_is_stale(tmp_path: Path) -> None:
    build = inspect("p", package(tmp_path, ("a.py", 1), ("gone.cpython-311-x86_64-linux-gnu.so", 4)))
    assert build.stale == ["data_path/gone.py"]
    assert "STALE" in str(build)


def test_the_command_tells_versions_and_each_package_of_the_data_path() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "meshproxy", "version", "-o", "json"], capture_output=True, text=True, timeout=60, check=False
    )
    document = json.loads(run.stdout)
    assert document["meshproxy"] == meshproxy.__version__
    assert document["python"] == platform.python_version()
    assert [build["package"] for build in document["data_path"]] == list(DATA_PATH)
    stale = [name for build in document["data_path"] for name in build["stale"]]
    assert run.returncode == (1 if stale else 0), run.stderr
