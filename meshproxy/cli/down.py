"""`meshproxy down`: end a mesh and everything it started, also what a killed supervisor left behind."""

from __future__ import annotations

import click

from meshproxy.cli.common import fail


@click.command()
@click.option("--name", envvar="MESHPROXY_NAME", help='Which mesh; by default the only one that is up, else "default".')
@click.option("--all", "everything", is_flag=True, help="All meshes of this user.")
@click.option("--purge", is_flag=True, help="Also forget its state: accepted manifests, the root of its identities, logs.")
@click.option("--ignore-not-found", is_flag=True, help="No error if no mesh of that name was ever up here.")
def command(name: str | None, everything: bool, purge: bool, ignore_not_found: bool) -> None:
    """End a running mesh and everything it started.

    Apps end before their sidecars, sidecars before the control plane; returns when all are gone.  If it has ended already
    there is nothing to end, and that is no error; a name that nobody knows is one (exit status 1).  State is kept, so that the
    next `up` has the same identities and goes on with a release where it was; --purge forgets it.
    """
    from control.runtime import meshes
    from control.runtime.ending import end_mesh
    from control.runtime.ending import purge as forget

    known = meshes.known()
    if everything:
        chosen = known
    elif name is not None:
        chosen = [mesh for mesh in known if mesh.name == name]
        if not chosen and not ignore_not_found:
            names = ", ".join(mesh.name for mesh in known)
            raise fail(f'no mesh named "{name}" here ({f"there are: {names}" if names else "there is none"})')
    else:
        running = [mesh for mesh in known if mesh.up]
        chosen = running if len(running) <= 1 else [mesh for mesh in running if mesh.name == "default"]
        if len(running) > 1 and not chosen:
            names = ", ".join(mesh.name for mesh in running)
            raise fail(f"several meshes are up: {names}; choose one with --name, or --all", 2)
        if not running:  # leftovers of one that was killed, and --purge, concern meshes that are down
            chosen = [mesh for mesh in known if len(known) == 1 or mesh.name == "default"]
    ended = False
    for mesh in chosen:
        try:
            lines = end_mesh(mesh.layout)
        except meshes.MeshError as error:
            raise fail(str(error)) from None
        for line in lines:
            click.echo(line)
        ended = ended or bool(lines)
        if purge:
            forget(mesh.layout)
            click.echo(f'forgot mesh "{mesh.name}" ({mesh.layout.root})')
    if not ended:
        click.echo("nothing to end")
