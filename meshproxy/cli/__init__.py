"""The command line.  One file a verb (`meshproxy/cli/<verb>.py`, attribute `command`), imported only when it is called,
so that `meshproxy --help` and `meshproxy forward` stay near Python's own start-up time."""

from __future__ import annotations

import importlib

import click

from meshproxy import __version__

# verb -> (module, one-line help shown by `meshproxy --help` without importing the module)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "A shop on this machine: one canary promoted, one rolled back, proved by counting."),
    "up": ("up", "Run the manifests of a directory as local processes with sidecars."),
    "down": ("down", "End a running mesh and everything it started."),
    "get": ("get", "Show objects, as kubectl does."),
    "logs": ("logs", "Print the logs of a pod's app or sidecar."),
    "lint": ("lint", "Check manifests without running anything."),
    "stat": ("stat", "Golden metrics: success rate, request rate, latency percentiles."),
    "explain": ("explain", "What would become of one request, and why: rule, shares, scores, access."),
    "canary": ("canary", "Releases: status, approve, pause, resume, abort, retry, promote, history, simulate."),
    "loadtester": ("loadtester", "Gates and load for the webhooks of Canaries (runs commands that it is sent)."),
    "identity": ("identity", "Trust anchors, issuer and certificates: status, rotate, retire."),
    "forward": ("forward", "One proxy, one route, no control plane."),
    "proxy": ("proxy", "Run a sidecar (started by the runtime or the injector, rarely by hand)."),
    "control": ("control", "Run the control plane (started by `up`, rarely by hand)."),
    "version": ("version", "Versions, and whether the data path is compiled."),
}


class Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"meshproxy.cli.{VERBS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        verb = args[0]
        if verb not in VERBS and not verb.startswith("-") and not ctx.resilient_parsing:
            import difflib  # 5 ms, for a mistake only

            near = difflib.get_close_matches(verb, VERBS, n=1)
            ctx.fail(f"No such command {verb!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="meshproxy %(version)s", help="The version alone; `meshproxy version` says more.")
def main() -> None:
    """meshproxy: a lightweight service mesh in Python.

    Begin with `meshproxy demo`, then `meshproxy up DIR` on manifests of your own.
    """
