"""`meshproxy logs`: what a pod's app or sidecar said.

app.log.1 (older) + app.log  --tail-->  printed  --follow-->  appended, also across the rotation at 8 MiB
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from meshproxy.cli.common import fail, find_mesh, mesh_option, namespace_options, open_store

if TYPE_CHECKING:
    from control.runtime.meshes import Mesh

_POLL = 0.2


@click.command()
@click.argument("what", metavar="POD|deploy/NAME")
@mesh_option
@namespace_options
@click.option("-c", "--container", type=click.Choice(["app", "sidecar"]), default="app", show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until interrupted.")
@click.option("--tail", type=click.IntRange(0), help="Only the last N lines of each pod.  [default: all that is kept]")
def command(what: str, mesh: str | None, namespace: str | None, container: str, follow: bool, tail: int | None) -> None:
    """Print the logs of a pod, or of all pods of a Deployment (each line then begins with the pod's name).

    At most 16 MiB are kept for each; logs of pods that are gone stay for a while.  -A looks for the pod everywhere.
    The control plane's own log is `meshproxy logs control-plane`.
    """
    found = find_mesh(mesh, down_too=True)
    paths = find_logs(found, what, namespace, container)
    if not paths:
        where = f' in namespace "{namespace}"' if namespace else ""
        raise fail(f'no logs of {what}{where} in mesh "{found.name}"; `meshproxy get pods -A` lists the pods')
    prefixed = len(paths) > 1 or what.startswith(("deploy/", "deployment/", "deployments/"))
    readers = {path: LogReader(path, f"[{path.parent.name}] " if prefixed else "") for path in paths}
    try:
        for reader in readers.values():
            reader.print_kept(tail)
        while follow:
            time.sleep(_POLL)
            for path in find_logs(found, what, namespace, container):
                if path not in readers:  # a new pod of the Deployment: all it said so far
                    readers[path] = LogReader(path, f"[{path.parent.name}] ")
                readers[path].print_new()
    except KeyboardInterrupt:
        return
    finally:
        for reader in readers.values():
            reader.close()


def find_logs(mesh: Mesh, what: str, namespace: str | None, container: str) -> list[Path]:
    """The log files meant, by pod name."""
    if what in ("control-plane", "control"):
        return [mesh.layout.control_log] if mesh.layout.control_log.exists() else []
    word, _, name = what.rpartition("/")
    root = mesh.layout.root / "pods"
    folders = [root / namespace] if namespace else sorted(root.iterdir()) if root.is_dir() else []
    if word in ("deploy", "deployment", "deployments"):
        from control.runtime.layout import LABEL_DEPLOYMENT

        pods = open_store(mesh).list("", "Pod", namespace)
        mine = [pod["metadata"] for pod in pods if (pod["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT) == name]
        paths = [root / meta["namespace"] / meta["name"] / f"{container}.log" for meta in mine]
    elif word in ("", "pod", "pods", "po"):
        paths = [folder / name / f"{container}.log" for folder in folders]
    else:
        raise fail(f"logs of {word!r} cannot be shown: expected POD, pod/POD or deploy/NAME", 2)
    return [path for path in paths if path.exists()]


class LogReader:
    """One log: what is kept, then what is added."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._file: BinaryIO = path.open("rb")
        self._rest = b""

    def print_kept(self, tail: int | None) -> None:
        older = self._path.with_name(self._path.name + ".1")
        data = (older.read_bytes() if older.exists() else b"") + self._file.read()
        lines = data.splitlines(keepends=True)
        if tail is not None:
            lines = lines[len(lines) - tail :] if tail < len(lines) else lines
        self._print(b"".join(lines))

    def print_new(self) -> None:
        self._print(self._file.read())
        try:
            rotated = os.stat(self._path).st_ino != os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return
        if rotated:
            self._print(self._file.read())
            self._file.close()
            self._file = self._path.open("rb")
            self._print(self._file.read())

    def close(self) -> None:
        if self._rest:
            click.echo(self._prefix + self._rest.decode(errors="replace"))
        self._file.close()

    def _print(self, data: bytes) -> None:
        """Whole lines; the beginning of one waits for its end."""
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            text = whole.decode(errors="replace")
            click.echo("\n".join(self._prefix + line for line in text.split("\n")))
