"""`meshproxy canary`: watch and steer releases.

status    read Canary objects, watch them, wait      canary_status.py
history   read the decisions kept beside them        (here)
simulate  walk one through modelled metrics          simulate.py
approve pause resume abort retry promote             canary_orders.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshproxy.cli import canary_objects, canary_orders
from meshproxy.cli.canary_rows import check
from meshproxy.cli.canary_status import status
from meshproxy.cli.common import (
    columns,
    dump,
    find_mesh,
    mesh_option,
    namespace_options,
    open_store,
    output_option,
)
from meshproxy.cli.simulate import command as simulate

if TYPE_CHECKING:
    from control.store.store import Store


@click.group()
def command() -> None:
    """Watch and steer releases.

    \b
    meshproxy canary status -n shop              where every release is
    meshproxy canary status catalogue -n shop --wait succeeded --timeout 5m
    meshproxy canary pause catalogue -n shop     hold the weight (checks go on); resume lets go
    meshproxy canary abort catalogue -n shop --reason "customers complain"
    meshproxy canary history catalogue -n shop   every decision, and the numbers it was made on
    meshproxy canary simulate release.yaml       what it would do, before it matters
    """


@command.command()
@click.argument("name", required=False)
@mesh_option
@namespace_options
@output_option
def history(name: str | None, mesh: str | None, namespace: str | None, output: str) -> None:
    """Show the decisions about a release, oldest first, with the numbers they were made on (the last hundred).

    Without NAME: which canaries there are to ask about.
    """
    from control.canary.history import decisions, policy_key

    if name is None and output in ("json", "yaml"):
        raise click.UsageError(f"-o {output} needs NAME")
    store = open_store(find_mesh(mesh, down_too=True))
    if name is None:
        click.echo(_askable(store, namespace, canary_objects.of_mesh(mesh)))
        return
    canary = canary_objects.one(store, namespace, name)
    found = decisions(store.get(policy_key(canary["metadata"]["namespace"], name)))
    if output in ("json", "yaml"):
        click.echo(dump(found, output))
        return
    if not found:
        click.echo(f"Nothing has been decided about {name} yet.", err=True)
        return
    header = ["TIME", "PHASE", "WEIGHT", "FAILED", "REVISION", "MESSAGE", "CHECKS"]
    rows = [
        [
            entry["time"],
            entry["phase"],
            entry["canaryWeight"],
            entry["failedChecks"],
            entry["revision"][:8],
            entry["message"] + (f" ({entry['count']} times, until {entry['lastTime']})" if "count" in entry else ""),
            ", ".join(check(one) for one in entry.get("checks") or ()),
        ]
        for entry in found
    ]
    click.echo(columns(header, rows))


def _askable(store: Store, namespace: str | None, mesh: str) -> str:
    """The commands that show a history: of the canaries of the namespace, of all if it has none."""
    found = store.list("flagger.app", "Canary", namespace) or store.list("flagger.app", "Canary")
    if not found:
        return "No canaries found."
    names = sorted((obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in found)
    commands = [f"  meshproxy canary history {name} -n {ns}{mesh}" for ns, name in names]
    return "\n".join(["The history of which canary?", *commands])


command.add_command(status, "status")
command.add_command(simulate, "simulate")
canary_orders.register(command)
