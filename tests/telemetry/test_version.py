"""`meshproxy version`: compiled, interpreted, or stale."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import meshproxy
from meshproxy.cli import main
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


def test_the_top_command_tells_its_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"meshproxy {meshproxy.__version__}\n")


@pytest.mark.parametrize(("verb", "said"), [("stats", "Did you mean 'stat'?"), ("lnit", "Did you mean 'lint'?")])
def test_a_verb_with_a_typing_error_gets_the_nearest_one(verb: str, said: str) -> None:
    result = CliRunner().invoke(main, [verb])
    assert result.exit_code == 2
    assert f"No such command '{verb}'. {said}" in result.output


def test_a_verb_like_no_other_gets_no_suggestion() -> None:
    result = CliRunner().invoke(main, ["xyzzy"])
    assert "No such command 'xyzzy'.\n" in result.output
