"""`meshproxy demo`: the shop, a release that is promoted and one that is taken back, and the proof by counting."""

from __future__ import annotations

import sys

import click


@click.command
@click.option("--step", is_flag=True, help="Explain each scene and wait for a key before it.")
@click.option("--keep/--no-keep", default=None, help="Stay up at the end until a key is pressed.  [default: on a terminal]")
@click.option("--name", default="demo", show_default=True, help="Name of the mesh that is started.")
@click.option(
    "--rate", type=click.FloatRange(20, 500), default=40.0, show_default=True, help="Requests a second that visitors send."
)
@click.option("--plain", is_flag=True, help="Lines only, no live picture.")
def command(step: bool, keep: bool | None, name: str, rate: float, plain: bool) -> None:
    """A shop on this machine: one canary promoted, one rolled back, proved by counting.

    Starts web -> catalogue -> prices as local processes with sidecars, sends real requests through the gateway, and plays
    seven scenes in about a minute.  Nothing listens beyond loopback; nothing is left running, also after Ctrl-C.

    Exit status: 0 if everything that was claimed was observed, 1 if not, 130 when interrupted.
    """
    from meshproxy.demo.run import Options, main

    if step and not sys.stdin.isatty():
        raise click.UsageError("--step waits for keys, so it needs a terminal")
    sys.exit(main(Options(name=name, rate=rate, step=step, keep=keep, plain=plain)))
