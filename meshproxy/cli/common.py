"""What all verbs share: which mesh they speak to, namespaces, output forms, watching.

    @click.command
    @mesh_option                 # --name             -> mesh: str | None
    @namespace_options           # -n NS | -A         -> namespace: str | None   (None: everywhere)
    @output_option               # -o table|wide|json|yaml -> output: str
    @watch_option                # -w                 -> watch: bool
    def command(mesh, namespace, output, watch): ...

`find_mesh(mesh)` ends the verb with a clear message and status 1 when there is none.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from control.runtime.meshes import Mesh
    from control.store.files import FileStore
    from control.store.store import Object

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
OUTPUTS = ("table", "wide", "json", "yaml")


class Failure(click.ClickException):
    """Printed as `Error: ...`; the verb ends with `exit_code`."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class


def fail(message: str, code: int = 1) -> Failure:
    """What a verb raises to end with a message and a status: `raise fail("...")`."""
    return Failure(message, code)


# ---------------------------------------------------------------- options


def mesh_option(function: Decorated) -> Decorated:
    """--name NAME, given to the function as `mesh`."""
    return click.option(
        "--name",
        "mesh",
        metavar="NAME",
        envvar="MESHPROXY_NAME",
        help='Which mesh; by default the only one that is up, else "default".',
    )(function)


def _everywhere(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value:
        context.ensure_object(dict)["everywhere"] = True
    return value


def _namespace(context: click.Context, parameter: click.Parameter, value: str) -> str | None:
    return None if context.ensure_object(dict).get("everywhere") else value


def namespace_options(function: Decorated) -> Decorated:
    """-n NS and -A, given to the function as `namespace` (None: all namespaces)."""
    function = click.option(
        "-n", "--namespace", "namespace", default="default", show_default=True, callback=_namespace, help="Namespace."
    )(function)
    return click.option(
        "-A", "--all-namespaces", is_flag=True, is_eager=True, expose_value=False, callback=_everywhere, help="All namespaces."
    )(function)


def output_option(function: Decorated) -> Decorated:
    """-o FORM, given to the function as `output`."""
    return click.option("-o", "--output", type=click.Choice(OUTPUTS), default="table", show_default=True, help="Output form.")(
        function
    )


def watch_option(function: Decorated) -> Decorated:
    """-w, given to the function as `watch`."""
    return click.option("-w", "--watch", is_flag=True, help="Go on and print changes until interrupted.")(function)


# ---------------------------------------------------------------- the mesh


def find_mesh(name: str | None, *, down_too: bool = False) -> Mesh:
    """The mesh to speak to.  When others run beside it, says on stderr which one this is.

    Args:
        name: of --name; None chooses (see control.runtime.meshes.find).
        down_too: also accept one that is not up; a line on stderr says so.
    """
    from control.runtime import meshes

    try:
        mesh = meshes.find(name, down_too=down_too)
    except meshes.MeshError as error:
        raise fail(str(error)) from None
    if not mesh.up:
        click.echo(f'mesh "{mesh.name}" is not up: this is what it knew when it ended', err=True)
    elif mesh.others and name is None:
        click.echo(f'mesh "{mesh.name}" (also up: {", ".join(mesh.others)}; choose with --name)', err=True)
    return mesh


def open_store(mesh: Mesh, manager: str = "cli") -> FileStore:
    """The mesh's objects, as another process than the accepting one sees them; writes go out as `manager`."""
    from control.store.files import FileStore

    store = FileStore(None, mesh.layout.objects, manager)
    store.refresh()
    return store


# ---------------------------------------------------------------- printing


def columns(header: Sequence[str], rows: Iterable[Sequence[object]], *, headers: bool = True) -> str:
    """A table as kubectl prints it: upper-case header, three spaces between columns, nothing drawn."""
    cells = [*([list(header)] if headers else []), *([str(cell) for cell in row] for row in rows)]
    widths = [max((len(row[index]) for row in cells), default=0) for index in range(len(header))]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def age(timestamp: str | None, now: float | None = None) -> str:
    """How long ago a Kubernetes timestamp is, as kubectl says it: 5s, 2m10s, 3h5m, 4d."""
    if not timestamp:
        return "<unknown>"
    then = datetime.datetime.fromisoformat(timestamp).timestamp()
    return duration(max(0.0, (time.time() if now is None else now) - then))


def duration(seconds: float) -> str:
    """kubectl's HumanDuration: 119s, 5m30s, 12m, 3h20m, 12h, 2d4h, 12d."""
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if days < 2:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


def dump(objects: Sequence[Object], output: str, *, single: bool = False) -> str:
    """Objects as json or yaml; several as a `List`, as kubectl does."""
    document: Any = objects[0] if single and len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    if output == "json":
        return json.dumps(document, indent=4)
    import yaml

    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip("\n")
