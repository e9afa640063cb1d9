"""Which meshes exist on this machine, and which of them run: read by every verb, written by the supervisor only.

    state root/
        default/mesh.json   supervisor's pid and start time still match -> up
        demo/mesh.json      they do not                                -> down (its objects can still be read)

A pid alone proves nothing, since pids are reused; a pid with its start time (field 22 of /proc/<pid>/stat, in clock
ticks since boot) names one process for as long as the machine runs.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from control.runtime.layout import DEFAULT_MESH, Layout, MeshInfo, state_root


class MeshError(Exception):
    """No mesh, or not the right one; `str()` says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """One mesh found on this machine.  `others` names the other running ones."""

    layout: Layout
    info: MeshInfo
    up: bool
    others: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.info.name


def start_time(pid: int) -> str:
    """When a process started, as /proc tells it; "" if there is no such process (a zombie is none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    # The command in parentheses may hold spaces and parentheses itself: count from the last one.
    rest = stat[stat.rindex(")") + 2 :].split()
    return "" if rest[0] in "ZX" else rest[19]


def alive(pid: int, start: str) -> bool:
    """Is this very process still there?"""
    return pid > 0 and start != "" and start_time(pid) == start


def read_info(layout: Layout) -> MeshInfo | None:
    """mesh.json, or None if there is none (or one that nobody can read: as good as none)."""
    try:
        found = json.loads(layout.info.read_text())
        return MeshInfo(**{field.name: found[field.name] for field in fields(MeshInfo)})
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def write_info(layout: Layout, info: MeshInfo) -> None:
    """By rename, so that a reader sees all of it or the one before."""
    temporary = layout.info.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(asdict(info), indent=2) + "\n")
    temporary.rename(layout.info)


def known() -> list[Mesh]:
    """Every mesh that has state here, up or down, by name."""
    root = state_root()
    meshes = []
    for entry in sorted(root.iterdir()) if root.is_dir() else []:
        layout = Layout(entry)
        if info := read_info(layout):
            meshes.append(Mesh(layout, info, alive(info.supervisor_pid, info.supervisor_start)))
    return meshes


def find(name: str | None = None, *, down_too: bool = False) -> Mesh:
    """The mesh a verb speaks to: the one named, else the only one up, else the one called "default".

    Raises:
        MeshError: there is none, it is not up (and `down_too` is false), or several are up and none is named.
    """
    meshes = known()
    running = [mesh for mesh in meshes if mesh.up]
    if name is not None:
        chosen = next((mesh for mesh in meshes if mesh.name == name), None)
        if chosen is None:
            raise MeshError(f'no mesh named "{name}" here{_known(meshes)}; start it with `meshproxy up DIR --name {name}`')
    elif len(running) == 1:
        chosen = running[0]
    elif running:
        chosen = next((mesh for mesh in running if mesh.name == DEFAULT_MESH), None)
        if chosen is None:
            raise MeshError(f"several meshes are up: {', '.join(mesh.name for mesh in running)}; choose one with --name")
    elif down_too and meshes:
        # Nothing runs: the one that ran last is the one people ask about.
        chosen = max(meshes, key=lambda mesh: mesh.info.started_unix)
    else:
        raise MeshError(f"no mesh is up{_known(meshes)}; start one with `meshproxy up DIR`")
    if not chosen.up and not down_too:
        raise MeshError(
            f'mesh "{chosen.name}" is not up; start it with `meshproxy up {chosen.info.directory} --name {chosen.name}`'
        )
    others = tuple(mesh.name for mesh in running if mesh.name != chosen.name)
    return Mesh(chosen.layout, chosen.info, chosen.up, others)


def _known(meshes: list[Mesh]) -> str:
    return f" (known: {', '.join(mesh.name for mesh in meshes)})" if meshes else ""
