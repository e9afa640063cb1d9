"""`meshproxy get`: objects as kubectl shows them, from the mesh's state; also of a mesh that is not up."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from meshproxy.cli.common import (
    dump,
    fail,
    find_mesh,
    mesh_option,
    namespace_options,
    open_store,
    output_option,
    repeat,
    watch_option,
)
from meshproxy.cli.printers import ALL, KINDS, Kind, table

if TYPE_CHECKING:
    from control.store.store import Object, Store


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@mesh_option
@namespace_options
@output_option
@watch_option
def command(kind: str, name: str | None, mesh: str | None, namespace: str | None, output: str, watch: bool) -> None:
    """Show objects: meshproxy get KIND [NAME], or KIND/NAME.

    KIND is pods (po), deployments (deploy), services (svc), endpointslices, trafficsplits (ts), canaries (cd), events (ev),
    configmaps (cm), secrets, serviceaccounts (sa), namespaces (ns), or all.  Columns are kubectl's; READY of a pod counts the
    sidecar too.  Works read-only on a mesh that is not up, and says so.

    \b
        meshproxy get pods -A -o wide
        meshproxy get deploy/web -n shop -o yaml
        meshproxy get ev -n shop -w
    """
    kind, _, after = kind.partition("/")
    if after and name:
        raise fail(f"give the name once: {kind}/{after} or {kind} {name}", 2)
    name = after or name
    kinds = [KINDS[plural] for plural in ALL] if kind == "all" else [_kind(kind)]
    if name and len(kinds) > 1:
        raise fail("a name goes with one kind", 2)
    found = find_mesh(mesh, down_too=True)
    store = open_store(found)

    def look() -> list[tuple[Kind, list[Object]]]:
        return [(item, select(store, item, namespace, name)) for item in kinds]

    def once() -> str:
        return show(store, look(), output, namespace, name)

    def changed() -> object:
        store.refresh()
        return [obj["metadata"].get("resourceVersion") or str(obj) for _, objects in look() for obj in objects]

    if name and not any(objects for _, objects in look()):
        where = f' in namespace "{namespace}"' if namespace else ""
        raise fail(f'{kinds[0].names[0]} "{name}" not found{where} of mesh "{found.name}"')
    repeat(once, watch=watch, changed=changed)


def _kind(word: str) -> Kind:
    found = KINDS.get(word.lower().partition(".")[0])
    if found is None:
        near = difflib.get_close_matches(word.lower(), [*KINDS, "all"], 1)
        plurals = ", ".join(dict.fromkeys(known.names[0] for known in KINDS.values()))
        hint = f"; did you mean {near[0]}?" if near else f"; known: {plurals}, all"
        raise fail(f"no kind {word!r}{hint}", 2)
    return found


def select(store: Store, kind: Kind, namespace: str | None, name: str | None) -> list[Object]:
    """The objects meant, sorted; events by time."""
    if kind.kind == "Event":
        objects = [obj for obj in store.events() if namespace in (None, obj["metadata"].get("namespace"))]
    elif kind.kind == "Namespace":
        objects = store.list(kind.group, kind.kind)
    else:
        objects = store.list(kind.group, kind.kind, namespace)
    return [obj for obj in objects if name in (None, obj["metadata"]["name"])]


def show(store: Store, found: list[tuple[Kind, list[Object]]], output: str, namespace: str | None, name: str | None) -> str:
    if output in ("json", "yaml"):
        return dump([obj for _, objects in found for obj in objects], output, single=name is not None)
    parts = [
        table(
            kind,
            objects,
            wide=output == "wide",
            namespaces=namespace is None and kind.kind != "Namespace",
            prefix=len(found) > 1,
        )
        for kind, objects in found
        if objects
    ]
    if parts:
        return "\n\n".join(parts)
    if namespace is None:
        return "No resources found."
    others = {str(obj["metadata"].get("namespace")) for kind, _ in found for obj in select(store, kind, None, None)} - {
        namespace
    }
    hint = f" (there are some in {', '.join(sorted(others))}: -n NAMESPACE or -A)" if others else ""
    return f"No resources found in {namespace} namespace.{hint}"
