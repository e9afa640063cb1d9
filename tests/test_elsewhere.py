"""The installed package works from any directory, compiled or not: pods do not run in the repository's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meshproxy import pure


@pytest.mark.parametrize("switch", ["", "1"])
def test_the_data_path_is_found_from_another_directory(tmp_path: Path, switch: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment[pure.SWITCH] = switch
    program = "import meshproxy.mesh.sidecar; import meshproxy.proxy.exchange as e; print(e.__file__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    compiled = bool(pure.extensions()) and not switch
    assert done.stdout.strip().endswith(".so" if compiled else ".py")
