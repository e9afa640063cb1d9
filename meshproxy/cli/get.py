"""`meshproxy get`: objects as kubectl shows them, from the mesh's state; also of a mesh that is not up.

words on the command line --request()--> kinds and names --find()--> objects, and what was not found --> show() --> text
                                                                         ^                                        |
                                                                         `-- changes(): -w, what differs since ---'
"""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from meshproxy.cli import selector
from meshproxy.cli.common import (
    OUTPUTS,
    dump,
    fail,
    find_mesh,
    mesh_option,
    namespace_options,
    open_store,
    watch_option,
)
from meshproxy.cli.printers import ALL, KINDS, Kind, Told, table

if TYPE_CHECKING:
    from control.store.files import FileStore
    from control.store.store import Key, Object, Store

SYSTEM_NAMESPACE = "meshproxy"  # control.runtime.layout's, which is imported with the rest of control: late

Found = list[tuple[Kind, list["Object"]]]
Standing = Mapping["Key", Sequence[Told]]  # what is wrong with objects that have no status


@dataclass(slots=True)
class Request:
    """What to show: kinds in the order they were asked for, and of each which names; no names: all of them."""

    names: dict[str, list[str]]  # plural -> names
    namespace: str | None = None  # None: all
    matches: Callable[[Mapping[str, str]], bool] | None = None  # -l
    kinds: list[Kind] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = [KINDS[plural] for plural in self.names]

    @property
    def single(self) -> bool:
        """One object was asked for by name."""
        return sum(len(names) for names in self.names.values()) == 1 and len(self.names) == 1


@click.command(epilog="Exit status: 0 shown (or nothing there), 1 something named was not found, 2 wrong usage.")
@click.argument("words", metavar="KIND[,KIND...] [NAME...]", nargs=-1, required=True)
@mesh_option
@namespace_options
@click.option("-l", "--selector", "labels", metavar="LABELS", help="Only objects with these labels: app=web,version!=v2.")
@click.option("--show-labels", is_flag=True, help="A last column with the labels.")
@click.option("--no-headers", is_flag=True, help="Rows only.")
@click.option("-o", "--output", type=click.Choice((*OUTPUTS, "name")), default="table", show_default=True, help="Output form.")
@watch_option
def command(
    words: tuple[str, ...],
    mesh: str | None,
    namespace: str | None,
    labels: str | None,
    show_labels: bool,
    no_headers: bool,
    output: str,
    watch: bool,
) -> None:
    """Show objects: meshproxy get KIND[,KIND...] [NAME...], or KIND/NAME...

    KIND is pods (po), deployments (deploy), services (svc), endpointslices, trafficsplits (ts), httproutes, grpcroutes,
    httproutegroups (htr), traffictargets (tt), canaries (cd), events (ev), configmaps (cm), secrets, serviceaccounts (sa),
    namespaces (ns), or all.  Columns are kubectl's; READY of a pod counts the sidecar too; STATUS of SMI's objects is `ok`, or
    the reasons of what contradicts them (-o wide: in words).  Works read-only on a mesh that is not up, and says so.

    \b
        meshproxy get pods -A -o wide
        meshproxy get ts,canaries,svc -n shop
        meshproxy get deploy/web svc/web -n shop -o yaml
        meshproxy get pods -n shop -l app=web --show-labels
        meshproxy get ev -n shop -w
    """
    request = parse_request(words, namespace, labels)
    found = find_mesh(mesh, down_too=True)
    store = open_store(found)
    missing = not_found(store, request)
    for line in missing:
        click.echo(line, err=True)

    def text(objects: Found, *, headers: bool) -> str:
        said = standing(store, request)
        return show(objects, request, output, labels=show_labels, headers=headers, standing=said)

    there = find(store, request)
    nothing = not any(objects for _, objects in there)
    if missing and nothing:
        sys.exit(1)
    if nothing and output in ("table", "wide", "name"):
        click.echo(nothing_found(store, request), err=True)
    else:
        click.echo(text(there, headers=not no_headers))
    if watch:
        redrawn = sys.stdout.isatty() and output not in ("json", "yaml")
        try:
            for now, changed in changes(store, request, there):
                if redrawn:
                    click.clear()
                    click.echo(text(now, headers=not no_headers))
                else:
                    click.echo(text(changed, headers=nothing and not no_headers))
                nothing = False
        except KeyboardInterrupt:
            pass
    if missing:
        sys.exit(1)


# ---------------------------------------------------------------- what is asked for


def parse_request(words: Sequence[str], namespace: str | None = None, labels: str | None = None) -> Request:
    """From the words of the command line.  Raises Failure (exit status 2)."""
    names: dict[str, list[str]] = {}
    if any("/" in word for word in words):
        for word in words:
            kind, slash, name = word.partition("/")
            if not (slash and kind and name):
                raise fail(f"{word!r}: with KIND/NAME every word is one, as in: get deploy/web svc/web", 2)
            wanted = names.setdefault(_kind(kind).names[0], [])
            wanted += [name] if name not in wanted else []
    else:
        for word in words[0].split(","):
            plurals = ALL if word == "all" else (_kind(word).names[0],)
            names.update({plural: list(dict.fromkeys(words[1:])) for plural in plurals})
    if labels is not None and any(names.values()):
        raise fail("names and --selector exclude each other", 2)
    try:
        matches = selector.parse(labels) if labels is not None else None
    except selector.SelectorError as error:
        raise fail(str(error), 2) from None
    return Request(names, namespace, matches)


def _kind(word: str) -> Kind:
    """By any of its names, also with its group: deployments.apps."""
    name, _, group = word.lower().partition(".")
    found = KINDS.get(name)
    if found is None or (group and not f"{found.group}.".startswith(f"{group}.") and group != f"v1.{found.group}".rstrip(".")):
        near = difflib.get_close_matches(word.lower(), [*KINDS, "all"], 1)
        plurals = ", ".join(dict.fromkeys(known.names[0] for known in KINDS.values()))
        hint = f"; did you mean {near[0]}?" if near else f"; known: {plurals}, all"
        raise fail(f'the mesh has no resource type "{word}"{hint}', 2)
    return found


# ---------------------------------------------------------------- what there is


def find(store: Store, request: Request) -> Found:
    """The objects meant, by kind; named ones in the order they were named, others sorted, events by time."""
    found: Found = []
    for kind in request.kinds:
        objects = objects_of(store, kind, request.namespace)
        if names := request.names[kind.names[0]]:
            objects = [obj for name in names for obj in objects if obj["metadata"]["name"] == name]
        if request.matches is not None:
            objects = [obj for obj in objects if request.matches(obj["metadata"].get("labels") or {})]
        found.append((kind, objects))
    return found


def changes(store: FileStore, request: Request, before: Found, interval: float = 1.0) -> Iterator[tuple[Found, Found]]:
    """For ever, looking every `interval` seconds: all that is there, and of it what is new or another than before."""
    seen = _versions(before, standing(store, request))
    while True:
        time.sleep(interval)
        store.refresh()
        now = find(store, request)
        then, seen = seen, _versions(now, standing(store, request))
        changed = [(kind, [obj for obj in objects if then.get(_uid(obj)) != seen[_uid(obj)]]) for kind, objects in now]
        if any(objects for _, objects in changed):
            yield now, changed


def _uid(obj: Object) -> str:
    metadata = obj["metadata"]
    return str(metadata.get("uid") or (obj["kind"], metadata.get("namespace"), metadata["name"]))


def _versions(found: Found, standing: Standing) -> dict[str, tuple[str, Sequence[Told]]]:
    return {
        _uid(obj): (str(obj["metadata"].get("resourceVersion") or obj), told_of(obj, standing))
        for _, objects in found
        for obj in objects
    }


def standing(store: Store, request: Request) -> Standing:
    """What is wrong between objects that have no status, if such are asked for; the reasons are those of Events."""
    kinds = {(kind.group, kind.kind) for kind in request.kinds if kind.told}
    if not kinds:
        return {}
    from control.resources.traffic import standing as now
    from control.serve.manifest_events import REFUSED

    found: dict[Key, list[Told]] = {}
    for one in store.diagnostics():
        if one.severity == "error" and one.key is not None and (one.key.group, one.key.kind) in kinds:
            found.setdefault(one.key, []).append((REFUSED, f"{one.field}: {one.message}" if one.field else one.message))
    for problem in now(store)[1]:
        if (problem.key.group, problem.key.kind) in kinds:
            found.setdefault(problem.key, []).append((problem.reason, problem.message))
    return found


def told_of(obj: Object, standing: Standing) -> Sequence[Told]:
    from control.store.store import Key

    return standing.get(Key.of(obj), ()) if standing else ()


def objects_of(store: Store, kind: Kind, namespace: str | None) -> list[Object]:
    if kind.kind == "Event":
        return [obj for obj in store.events() if namespace in (None, obj["metadata"].get("namespace"))]
    return store.list(kind.group, kind.kind, None if kind.cluster_scoped else namespace)


def not_found(store: Store, request: Request) -> list[str]:
    """A line for each object that was asked for by name and is not there."""
    lines = []
    for kind in request.kinds:
        here = {obj["metadata"]["name"] for obj in objects_of(store, kind, request.namespace)}
        for name in request.names[kind.names[0]]:
            if name not in here:
                others = [obj for obj in objects_of(store, kind, None) if obj["metadata"]["name"] == name]
                where = "" if request.namespace is None or kind.cluster_scoped else f' in namespace "{request.namespace}"'
                lines.append(f'Error from server (NotFound): {kind.plural} "{name}" not found{where}{_elsewhere(others)}')
    return lines


def nothing_found(store: Store, request: Request) -> str:
    if request.namespace is None or all(kind.cluster_scoped for kind in request.kinds):
        return "No resources found"
    everywhere = Request(request.names, None, request.matches)
    others = [obj for _, objects in find(store, everywhere) for obj in objects]
    return f"No resources found in {request.namespace} namespace.{_elsewhere(others)}"


def _elsewhere(objects: Sequence[Object]) -> str:
    """Where they are, the mesh's own namespace last: it is seldom what was meant."""
    found = {str(obj["metadata"].get("namespace") or "default") for obj in objects}
    namespaces = sorted(found, key=lambda name: (name == SYSTEM_NAMESPACE, name))
    return f" (there is some in {', '.join(namespaces)}: -n {namespaces[0]})" if namespaces else ""


# ---------------------------------------------------------------- how it is shown


def show(
    found: Found,
    request: Request,
    output: str,
    *,
    labels: bool = False,
    headers: bool = True,
    standing: Standing = MappingProxyType({}),
) -> str:
    if output in ("json", "yaml"):
        return dump([obj for _, objects in found for obj in objects], output, single=request.single)
    if output == "name":
        return "\n".join(f"{kind.prefix}/{obj['metadata']['name']}" for kind, objects in found for obj in objects)
    tables = [
        table(
            kind,
            objects,
            wide=output == "wide",
            namespaces=request.namespace is None and not kind.cluster_scoped,
            prefix=len(request.kinds) > 1,
            labels=labels,
            headers=headers,
            told=lambda obj: told_of(obj, standing),
        )
        for kind, objects in found
        if objects
    ]
    return ("\n\n" if headers else "\n").join(tables)
