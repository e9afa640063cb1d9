"""What is checked before anything runs, each with its way out: manifests, lock, gateway's port.

find_manifests -> MeshLock -> refuse_nonsense -> gateway_address -> (supervisor.py) the way up
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from control.runtime.addresses import busy_ports, free_port
from control.runtime.layout import Layout
from control.runtime.meshes import MeshError, read_info

SHOWN = 50  # lines about manifests at a time; `meshproxy lint` has all
_SUFFIXES = (".yaml", ".yml", ".json")
_GATEWAY = "127.0.0.1"


class UpError(MeshError):
    """The mesh cannot be started; `str()` says why and what to do."""


def up_already(layout: Layout) -> str:
    """Why a mesh cannot be started twice, and what to do."""
    info, name = read_info(layout), layout.name
    who = f" (supervisor pid {info.supervisor_pid}, manifests {info.directory})" if info else ""
    return (
        f'mesh "{name}" is up already{who}; end it with `meshproxy down --name {name}`, '
        f"or start this one beside it with --name OTHER"
    )


class MeshLock:
    """Held by the supervisor of a mesh; the kernel gives it back however it ends.  If nothing came of the mesh (there is no
    mesh.json, so that no verb would find it), no directory is left."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        """Raises UpError: the mesh is up already."""
        try:
            while True:
                self._layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._file = self._layout.lock.open("a+")
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _same(self._file, self._layout.lock):
                    break
                self._file.close()  # it was removed by another `up` that ended between our two calls
        except BlockingIOError:
            assert self._file is not None
            self._file.close()
            raise UpError(up_already(self._layout)) from None

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            if not self._layout.info.exists():
                self._layout.lock.unlink(missing_ok=True)  # while it is held: nobody else has it
                forget_nothing(self._layout)
            self._file.close()


def _same(file: IO[str], path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(file.fileno())
    return (held.st_dev, held.st_ino) == (found.st_dev, found.st_ino)


def forget_nothing(layout: Layout) -> None:
    """Remove the directory of a mesh that never came to be; one that holds anything stays."""
    for directory in (layout.processes, layout.root):
        with contextlib.suppress(OSError):  # not empty, or not there
            directory.rmdir()


def find_manifests(directory: Path) -> list[Path]:
    """The manifests of a directory (or the one file that was named).

    Raises:
        UpError: there are none.
    """
    if directory.is_file():
        return [directory]
    if not directory.is_dir():
        raise UpError(f"{directory}: no such directory; give the directory that holds your manifests (*.yaml)")
    found = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES and path.name[0] != ".")
    if not found:
        raise UpError(f"no manifests in {directory}: expected *.yaml, *.yml or *.json files; folders in it are not searched")
    return found


def refuse_nonsense(directory: Path, files: int, layout: Layout, say: Callable[[str], None]) -> None:
    """Raises UpError if nothing of the manifests can be run, not even what was accepted the last time."""
    from control.resources.validate import review
    from control.store.userfiles import UserFiles

    user = UserFiles(directory)
    user.scan()
    found = review(user.files)
    if found.accepted or _accepted(layout):
        return
    problems = [*user.problems, *found.diagnostics]
    for diagnostic in problems[:SHOWN]:
        say(str(diagnostic))
    if len(problems) > SHOWN:
        say(f"... and {len(problems) - SHOWN} more: `meshproxy lint {directory}`")
    count = f"{files} file{'s' if files != 1 else ''}"
    raise UpError(f"all manifests of {directory} were refused ({count}); nothing was started")


def moved(directory: Path, layout: Layout) -> str:
    """A line for who starts the mesh with other manifests than it had the last time, "" for who does not."""
    before = read_info(layout)
    if before is None or Path(before.directory) == directory or not _accepted(layout):
        return ""
    return f"it had the manifests of {before.directory} before: what is not in {directory} is removed"


def _accepted(layout: Layout) -> bool:
    """Is there anything that was accepted the last time?"""
    kept = layout.objects / "accepted"
    return kept.is_dir() and any(kept.glob("*/*/*.yaml"))


def gateway_address(port: int | None) -> str:
    """host:port for the gateway; a free port if none was asked for.

    Raises:
        UpError: the port is taken.
    """
    if port is None:
        return f"{_GATEWAY}:{free_port(_GATEWAY)}"
    if busy_ports(_GATEWAY, [port]):
        raise UpError(
            f"the gateway's port {port} on {_GATEWAY} is taken by another program "
            f"(`ss -ltnp sport = :{port}` shows it); choose another with --gateway-port"
        )
    return f"{_GATEWAY}:{port}"
