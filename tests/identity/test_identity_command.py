"""`meshproxy identity` where it cannot do what is asked."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from forge import forge_ca
from prometheus_client import CollectorRegistry

from certs.authority import replace_authority
from control.runtime.layout import Layout, MeshInfo
from control.runtime.meshes import start_time, write_info
from control.serve.admin import serve_admin
from control.serve.issuer import CurrentAuthority, describe
from meshproxy.cli.identity import command

NOW = time.time()
TD = "cluster.local"


class ControlPlane:
    """Its authority and its admin pages, without proxies, in a thread; it looks at its files when told to."""

    def __init__(self, layout: Layout, external: Path | None = None) -> None:
        self.authority = CurrentAuthority(layout.trust, TD, NOW, external, 86400, layout.trust_bundle)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.runner, self.port = self.do(self.serve())

    async def serve(self) -> tuple[web.AppRunner, int]:
        page = lambda: describe(self.authority, (), 86400)  # noqa: E731
        return await serve_admin("127.0.0.1", 0, CollectorRegistry(), lambda: (True, "ready"), page)

    async def look(self) -> None:
        self.authority.refresh(time.time())

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def end(self) -> None:
        self.do(self.runner.cleanup())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Mesh:
    """What `up` leaves for other verbs to find; this process stands in for its supervisor."""

    def __init__(self) -> None:
        self.layout = Layout.of("m")
        self.layout.objects.mkdir(parents=True)
        self.plane: ControlPlane | None = None

    def control(self, external: Path | None = None) -> ControlPlane:
        self.plane = ControlPlane(self.layout, external)
        admin = f"127.0.0.1:{self.plane.port}"
        me = (os.getpid(), start_time(os.getpid()), NOW)
        write_info(self.layout, MeshInfo("m", "/", "127.0.0", TD, "127.0.0.1:1", "127.0.0.1:1", admin, *me))
        return self.plane


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    monkeypatch.setenv("MESHPROXY_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("MESHPROXY_NAME", raising=False)
    made = Mesh()
    yield made
    if made.plane is not None:
        made.plane.end()


def issuer(directory: Path, ends: float = 86400.0 * 30) -> Path:
    root = forge_ca(NOW, ends=ends)
    directory.mkdir()
    for name, data in (("ca.crt", root.pem), ("tls.crt", root.pem), ("tls.key", root.key_pem)):
        (directory / name).write_bytes(data)
    return directory


def said(*words: str) -> Result:
    return CliRunner().invoke(command, list(words))


@pytest.mark.parametrize("verb", ["rotate", "retire"])
def test_an_issuer_of_somebody_else_is_not_touched_and_where_it_is_is_said(mesh: Mesh, tmp_path: Path, verb: str) -> None:
    mesh.control(issuer(tmp_path / "issuer"))
    result = said(verb)
    assert result.exit_code == 1
    assert f"replace ca.crt, tls.crt and tls.key in {tmp_path / 'issuer'}" in result.output
    assert "somebody else's, in" in said("status").output


def test_a_second_rotation_waits_for_the_first(mesh: Mesh) -> None:
    plane = mesh.control()
    replace_authority(mesh.layout.trust, TD, NOW)
    plane.do(plane.look())
    before = (mesh.layout.trust / "issuer.pem").read_bytes()
    result = said("rotate")
    assert (result.exit_code, "under way (announcing)" in result.output) == (1, True)
    assert (mesh.layout.trust / "issuer.pem").read_bytes() == before


def test_nothing_is_rotated_on_top_of_unusable_files_and_status_warns_of_them(mesh: Mesh) -> None:
    plane = mesh.control()
    (mesh.layout.trust / "issuer.pem").write_text("nonsense")
    for _ in range(2):
        plane.do(plane.look())
    result = said("rotate")
    assert (result.exit_code, "issuer.pem: not a PEM certificate" in result.output) == (1, True)
    result = said("status")
    assert (result.exit_code, "the last good ones are in force" in result.output) == (0, True)


def test_status_warns_of_an_issuer_that_ends_soon(mesh: Mesh, tmp_path: Path) -> None:
    mesh.control(issuer(tmp_path / "issuer", 3600.0))
    assert "ends before new leaves would" in said("status").output


def test_waiting_in_vain_ends_and_says_for_what(mesh: Mesh) -> None:
    mesh.control()  # and it never looks
    result = said("rotate", "--timeout", "1")
    assert result.exit_code == 1
    assert "waited in vain for the new issuer to be in force" in result.output


def test_a_control_plane_that_does_not_answer_is_named_with_its_log(mesh: Mesh) -> None:
    mesh.control().end()
    mesh.plane = None
    for verb in ("status", "rotate", "retire"):
        result = said(verb)
        assert result.exit_code == 1
        assert str(mesh.layout.control_log) in result.output
