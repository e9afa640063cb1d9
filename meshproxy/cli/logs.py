"""`meshproxy logs`: what a pod's app or sidecar said.

words --sources()--> log files --LogReader--> app.log.1 (older) + app.log --tail--> printed --follow--> appended,
                                              also across the rotation at 8 MiB
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from meshproxy.cli import selector
from meshproxy.cli.common import Failure, fail, find_mesh, mesh_option, namespace_options, open_store

if TYPE_CHECKING:
    from control.runtime.meshes import Mesh
    from control.store.files import FileStore
    from control.store.store import Key

_POLL = 0.2
_DEPLOYMENTS = ("deploy", "deployment", "deployments", "deployments.apps", "deployment.apps")
_PODS = ("", "pod", "pods", "po")
CONTROL_PLANE = ("control-plane", "control")
SIDECAR_NAMES = ("sidecar", "meshproxy-proxy")


@dataclass(frozen=True, slots=True)
class Source:
    """One log: of a pod's app or sidecar, or the control plane's."""

    path: Path
    pod: str
    container: str  # app | sidecar
    namespace: str

    @property
    def key(self) -> Key:
        """Of the Pod."""
        from control.store.store import Key

        return Key("", "Pod", self.namespace, self.pod)


@click.command(epilog="Exit status: 0 printed (or nothing was said yet), 1 not found or not started yet, 2 wrong usage.")
@click.argument("what", metavar="POD|deploy/NAME|control-plane", required=False)
@mesh_option
@namespace_options
@click.option("-c", "--container", metavar="NAME", help='"app", "sidecar", or the container\'s name.  [default: app]')
@click.option("--all-containers", is_flag=True, help="App and sidecar.")
@click.option("-l", "--selector", "labels", metavar="LABELS", help="All pods with these labels, instead of one by name.")
@click.option("-p", "--previous", is_flag=True, help="What the container said before it was last started again.")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until interrupted.")
@click.option("--tail", type=click.IntRange(-1), help="Only the last N lines of each log.  [default: all that is kept]")
@click.option("--prefix/--no-prefix", default=None, help="Begin each line with its pod.  [default: if there are several]")
def command(
    what: str | None,
    mesh: str | None,
    namespace: str | None,
    container: str | None,
    all_containers: bool,
    labels: str | None,
    previous: bool,
    follow: bool,
    tail: int | None,
    prefix: bool | None,
) -> None:
    """Print the logs of a pod, or of all pods of a Deployment (each line then begins with the pod's name).

    At most 16 MiB are kept for each, of all the lives of its process; logs of pods that are gone stay for a while.  -A looks
    for the pod everywhere.

    \b
        meshproxy logs deploy/web -n shop -f
        meshproxy logs web-7c9d5-x2x4v -n shop -c sidecar --tail 20
        meshproxy logs deploy/web -n shop --previous
        meshproxy logs control-plane
    """
    if (what is None) == (labels is None):
        raise fail("give a pod, deploy/NAME or control-plane; or -l LABELS", 2)
    if all_containers and container:
        raise fail("-c and --all-containers exclude each other", 2)
    if previous and follow:
        raise fail("--previous is over: there is nothing to follow", 2)
    found = find_mesh(mesh, down_too=True)
    wanted = ["app", "sidecar"] if all_containers else [container or "app"]
    tail = None if tail == -1 else tail

    store = open_store(found)
    first = sources(found, store, what or "", namespace, wanted, labels)
    several = len(first) > 1 or labels is not None or (what or "").partition("/")[0] in _DEPLOYMENTS
    named = several if prefix is None else prefix
    if previous:
        print_previous(first, tail, named)
        return
    if not follow and not any(source.path.exists() for source in first):
        raise fail("; ".join(waiting(store, source) for source in first))
    readers: dict[Path, LogReader] = {}
    try:
        for source in first:
            if source.path.exists():
                readers[source.path] = LogReader(source.path, head(source, named, all_containers))
                readers[source.path].print_kept(tail)
        if tail != 0 and not any(reader.said for reader in readers.values()):
            click.echo(f"no lines yet{': waiting for the first' if follow else ''}", err=True)
        one = not several and first[0].pod != CONTROL_PLANE[0]
        while follow:
            time.sleep(_POLL)
            store.refresh()
            with suppress(Failure):  # none just now: the next one of the Deployment is being made
                first = sources(found, store, what or "", namespace, wanted, labels)
            for source in first:
                if source.path not in readers and source.path.exists():  # a new pod: all it said so far
                    readers[source.path] = LogReader(source.path, head(source, named, all_containers))
            for reader in readers.values():
                reader.print_new()
            if one and store.get(first[0].key) is None:
                return  # the pod is gone: it says no more
    except KeyboardInterrupt:
        return
    finally:
        for reader in readers.values():
            reader.close()


def waiting(store: FileStore, source: Source) -> str:
    """Why there is no log: the container has not been started yet."""
    pod = store.get(source.key) or {}
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        is_sidecar = status["name"] in SIDECAR_NAMES
        if is_sidecar is (source.container == "sidecar") and (state := (status.get("state") or {}).get("waiting")):
            why = state.get("message") or state.get("reason")
            return f'container "{status["name"]}" in pod "{source.pod}" is waiting to start: {why}'
    return f'the {source.container} of pod "{source.pod}" has said nothing yet'


def head(source: Source, named: bool, containers: bool) -> str:
    """What each line of a log begins with."""
    if not named:
        return ""
    return f"[{source.pod}/{source.container}] " if containers else f"[{source.pod}] "


def print_previous(found: Sequence[Source], tail: int | None, named: bool) -> None:
    from control.runtime.logfile import previous_life

    lives = [(source, previous_life(source.path)) for source in found]
    if not any(data is not None for _, data in lives):
        pods = ", ".join(dict.fromkeys(source.pod for source in found))
        raise fail(f"no previous life: the {found[0].container} of {pods} has been started once")
    for source, data in lives:
        if data is not None:
            lines = data.decode(errors="replace").splitlines()
            lines = lines if tail is None else lines[max(0, len(lines) - tail) :]
            for line in lines:
                click.echo(head(source, named, False) + line)


# ---------------------------------------------------------------- which logs


def sources(
    mesh: Mesh, store: FileStore, what: str, namespace: str | None, containers: Sequence[str], labels: str | None = None
) -> list[Source]:
    """The logs meant, by pod name.  Raises Failure: there is nothing of that name, or no such container."""
    if what in CONTROL_PLANE:
        if not mesh.layout.control_log.exists():
            raise fail(f'mesh "{mesh.name}" has no log of its control plane yet')
        return [Source(mesh.layout.control_log, CONTROL_PLANE[0], "app", "")]
    pods = _pods(mesh, store, what, namespace, labels)
    found = [_source(mesh, pod, container) for pod in pods for container in containers]
    return list(dict.fromkeys(found))


def _pods(mesh: Mesh, store: FileStore, what: str, namespace: str | None, labels: str | None) -> list[dict[str, Any]]:
    from control.runtime.layout import LABEL_DEPLOYMENT

    here = store.list("", "Pod", namespace)
    where = f' in namespace "{namespace}"' if namespace else ""
    word, _, name = what.rpartition("/")
    if labels is not None:
        try:
            matches = selector.parse(labels)
        except selector.SelectorError as error:
            raise fail(str(error), 2) from None
        if found := [pod for pod in here if matches(pod["metadata"].get("labels") or {})]:
            return found
        raise fail(f'no pod{where} of mesh "{mesh.name}" has the labels {labels}')
    if word in _DEPLOYMENTS:
        deployments = store.list("apps", "Deployment", namespace)
        found = [pod for pod in here if (pod["metadata"].get("labels") or {}).get(LABEL_DEPLOYMENT) == name]
        if found:
            return found
        if any(item["metadata"]["name"] == name for item in deployments):
            raise fail(f"deployment {name} has no pods now; `meshproxy logs POD` shows the logs of one that is gone")
        others = [item for item in store.list("apps", "Deployment") if item["metadata"]["name"] == name]
        raise fail(f'deployments.apps "{name}" not found{where}{_elsewhere(others)}')
    if word not in _PODS:
        raise fail(f"logs of {word!r} cannot be shown: expected POD, pod/POD or deploy/NAME", 2)
    if found := [pod for pod in here if pod["metadata"]["name"] == name]:
        return found
    if found := _gone(mesh, name, namespace):
        return found
    others = [pod for pod in store.list("", "Pod") if pod["metadata"]["name"] == name]
    hint = _elsewhere(others)
    if not hint and any(item["metadata"]["name"] == name for item in store.list("apps", "Deployment")):
        hint = f"; did you mean deploy/{name}?"
    raise fail(f'pods "{name}" not found{where}{hint or "; `meshproxy get pods -A` lists the pods"}')


def _gone(mesh: Mesh, name: str, namespace: str | None) -> list[dict[str, Any]]:
    """Pods that are gone, whose logs are still here."""
    root = mesh.layout.root / "pods"
    folders = [root / namespace] if namespace else sorted(root.iterdir()) if root.is_dir() else []
    kept = [folder for folder in folders if "/" not in name and name not in ("", ".", "..") and (folder / name).is_dir()]
    return [{"metadata": {"name": name, "namespace": folder.name}} for folder in kept]


def _source(mesh: Mesh, pod: dict[str, Any], container: str) -> Source:
    from control.runtime.podobjects import GATEWAY

    metadata = pod["metadata"]
    names = [item.get("name") for item in (pod.get("spec") or {}).get("containers") or []]
    if container in SIDECAR_NAMES or names == [GATEWAY]:  # the gateway is a sidecar without an app
        kind = "sidecar"
    elif container == "app" or container in names:
        kind = "app"
    else:
        known = ", ".join(["app", "sidecar", *(str(name) for name in names)])
        raise fail(f"pod {metadata['name']} has no container {container!r}; it has: {known}", 2)
    namespace, name = str(metadata.get("namespace") or "default"), str(metadata["name"])
    return Source(mesh.layout.pod(namespace, name) / f"{kind}.log", name, kind, namespace)


def _elsewhere(objects: Sequence[dict[str, Any]]) -> str:
    namespaces = sorted({str(obj["metadata"].get("namespace") or "default") for obj in objects})
    return f" (it is in {', '.join(namespaces)}: -n {namespaces[0]})" if namespaces else ""


# ---------------------------------------------------------------- printing one


class LogReader:
    """One log: what is kept, then what is added."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._file: BinaryIO = path.open("rb")
        self._rest = b""
        self.said = False  # something was there to print

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
        self.said = self.said or bool(data)
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        if newline:
            text = whole.decode(errors="replace")
            click.echo("\n".join(self._prefix + line for line in text.split("\n")))
