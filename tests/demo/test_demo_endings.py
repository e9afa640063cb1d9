"""What is left of the mesh's state after a run, by how the run ended."""

from __future__ import annotations

import asyncio
import io
import os
import time

import pytest
from rich.console import Console

from control.runtime.layout import Layout, MeshInfo
from control.runtime.meshes import start_time, write_info
from meshproxy.demo import run, verdict
from meshproxy.demo.mesh import Mesh
from meshproxy.demo.verdict import Finding
from meshproxy.demo.view import PlainView


class Stage:
    """A stage on which nothing is played; its mesh counts how often it is forgotten."""

    def __init__(self):
        self.view = PlainView(Console(file=io.StringIO()))
        self.watch = None
        self.mesh = self
        self.name = "demo"
        self.load = object()
        self.did = []

    async def last_visitors(self): ...

    def visitors(self, prefix): ...

    def check(self): ...

    def observed(self): ...

    async def close(self):
        self.did.append("ended")

    async def forget(self):
        self.did.append("forgotten")


@pytest.fixture
def play(monkeypatch):
    async def play(stage, held, *, interrupt=""):
        async def scenes(*_):
            if interrupt == "scenes":
                raise asyncio.CancelledError
            return True

        class Keys:
            what = "Ctrl-C"

            async def wait(self):
                assert stage.did == []  # as long as it stays up, it is there
                if interrupt == "stay":
                    raise asyncio.CancelledError

        async def pictures(_): ...

        monkeypatch.setattr(run, "_scenes", scenes)
        monkeypatch.setattr(run, "_pictures", pictures)
        monkeypatch.setattr(verdict, "judge", lambda _: [Finding("it", held, "so")])
        try:
            return await run._play(stage, False, interrupt != "", Keys())
        except asyncio.CancelledError:
            return 130

    return play


@pytest.mark.parametrize(
    ("held", "interrupt", "code", "forgotten"),
    [
        (True, "", 0, True),
        (False, "", 1, False),
        (True, "scenes", 130, True),
        (True, "stay", 130, True),
        (False, "stay", 130, False),
    ],
)
async def test_the_state_goes_unless_the_run_failed(play, held, interrupt, code, forgotten):
    stage = Stage()
    assert await play(stage, held, interrupt=interrupt) == code
    assert stage.did == (["ended", "forgotten"] if forgotten else ["ended"])


async def test_only_what_the_run_started_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("MESHPROXY_STATE_HOME", str(tmp_path / "state"))
    layout = Layout.of("demo")
    layout.objects.mkdir(parents=True)
    mesh = Mesh("demo", tmp_path, tmp_path)
    await mesh.forget()  # it was never started
    assert layout.objects.exists()
    mesh._process = object()
    pid = os.getpid()
    write_info(layout, MeshInfo("demo", str(tmp_path), "127.83.4", "t", "g:1", "c:1", "c:2", pid, start_time(pid), time.time()))
    await mesh.forget()  # somebody else's is up
    assert layout.objects.exists()
