"""Fixtures of the runtime's tests; the helpers are in runtime_support.py."""

from __future__ import annotations

import os
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from runtime_support import APP, LocalMesh

from control.runtime.addresses import Network
from control.runtime.layout import Layout


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "state"
    monkeypatch.setenv("MESHPROXY_STATE_HOME", str(home))
    return home


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(textwrap.dedent(APP))
    return path


@pytest.fixture
async def mesh(tmp_path: Path, state_home: Path) -> AsyncIterator[LocalMesh]:
    directory = tmp_path / "manifests"
    directory.mkdir()
    layout = Layout.of("test")
    layout.root.mkdir(parents=True)
    network = Network.take(f"test-{os.getpid()}-{tmp_path.name}")
    found = LocalMesh(directory, layout, network)
    try:
        yield found
    finally:
        if found.tasks:
            await found.stop()
        network.close()


@pytest.fixture
def ended() -> Iterator[list[int]]:
    """Pids that must be gone after the test; killed if they are not."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue
