"""meshproxy proxy: a sidecar."""

from __future__ import annotations

import asyncio
import sys
from itertools import combinations
from pathlib import Path

import click

from meshproxy.cli.forward import ADDRESS, clash, memory_limit_option, refuse_little_memory, workers_option
from meshproxy.proxy.forward import Target

OUTBOUND_PORT, INBOUND_PORT, ADMIN_PORT = 4140, 4143, 4191


@click.command()
@click.option("--namespace", required=True, help="Of the pod.")
@click.option("--pod", required=True, help="Name of the pod.")
@click.option("--service-account", required=True, help="Of the pod; with the namespace it makes the identity.")
@click.option("--pod-ip", required=True, help="The app listens here; so does this proxy, unless told otherwise below.")
@click.option("--trust-domain", required=True, help="Of the mesh, e.g. cluster.local.")
@click.option(
    "--trust-bundle",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM anchors to check the control plane with, until it pushes its own.",
)
@click.option("--control", required=True, metavar="HOST:PORT", help="Configuration stream of the control plane.")
@click.option("--identity", metavar="HOST:PORT", help="Certify of the control plane.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Holds an unused identity token.")
@click.option(
    "--identity-source",
    default="control",
    show_default=True,
    metavar="control|spire:unix:///PATH",
    help="Who certifies: the control plane (--identity, --token-file), or a SPIFFE Workload API, by its socket.",
)
@click.option("--outbound", type=ADDRESS, metavar="HOST:PORT", help=f"Default: POD-IP:{OUTBOUND_PORT}.")
@click.option("--inbound", type=ADDRESS, metavar="HOST:PORT", help=f"Default: POD-IP:{INBOUND_PORT}.")
@click.option("--admin", type=ADDRESS, metavar="HOST:PORT", help=f"Default: POD-IP:{ADMIN_PORT}.")
@click.option("--http2-engine", type=click.Choice(["ours", "h2"]), default="ours", show_default=True)
@click.option(
    "--drain", type=float, default=30.0, show_default=True, metavar="SECONDS", help="For requests in flight at SIGTERM."
)
@memory_limit_option()
@workers_option()
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
def command(
    namespace: str,
    pod: str,
    service_account: str,
    pod_ip: str,
    trust_domain: str,
    trust_bundle: Path,
    control: str,
    identity: str | None,
    token_file: Path | None,
    identity_source: str,
    outbound: Target | None,
    inbound: Target | None,
    admin: Target | None,
    http2_engine: str,
    drain: float,
    memory_limit_mb: int,
    workers: int,
    log_level: str,
) -> None:
    """Run a sidecar: what the pod's app sends and receives goes through here.

    Started by `meshproxy up` for every pod; by hand only to look at one.
    """
    from certs.bundle import BundleError
    from certs.spiffe import SpiffeError
    from meshproxy.admin import AdminSide
    from meshproxy.mesh.identity import IdentitySettings
    from meshproxy.proxy.listener import Listener, ListenError
    from meshproxy.proxy.memory import SIDECAR
    from meshproxy.proxy.run import configure_logging, new_context, run, until_signal
    from meshproxy.proxy.settings import Settings
    from meshproxy.telemetry.registry import Registry

    configure_logging(log_level)
    spire = spire_socket(identity_source)
    if not spire and (identity is None or token_file is None):
        raise click.UsageError("--identity and --token-file are needed, unless --identity-source is a SPIFFE Workload API")
    out = outbound or Target(pod_ip, OUTBOUND_PORT)
    into = inbound or Target(pod_ip, INBOUND_PORT)
    pages = admin or Target(pod_ip, ADMIN_PORT)
    named = ("--outbound", out), ("--inbound", into), ("--admin", pages)
    for one, other in combinations(named, 2):
        if clash(one[1], other[1]):
            raise click.UsageError(f"{one[0]} and {other[0]} are the same address, {one[1].host}:{one[1].port}")
    settings = Settings()
    settings.http2_engine = http2_engine
    settings.drain_s = drain
    settings.memory_limit_bytes = memory_limit_mb << 20
    refuse_little_memory(settings, workers, SIDECAR)

    async def main() -> int:
        stop = asyncio.create_task(until_signal(), name="signal")
        ctx = new_context(settings, Registry())
        who = IdentitySettings(
            *(identity or "", namespace, service_account, pod, trust_domain, trust_bundle, token_file or Path(), spire)
        )
        listen = (out.host, out.port), (into.host, into.port), (pages.host, pages.port)
        try:
            sidecar: Sidecar | SupervisedSidecar
            if workers == 1:
                from meshproxy.mesh.sidecar import Sidecar

                sidecar = Sidecar(ctx, who, control, pod_ip, *listen)
            else:
                from meshproxy.mesh.supervised import SupervisedSidecar

                sidecar = SupervisedSidecar(ctx, who, control, pod_ip, *listen, workers, log_level)
            side = AdminSide(ctx, sidecar)
            sidecar.lifecycle.pages.append(side)
            admin_listener = Listener(ctx, side, pages.host, pages.port)
            await admin_listener.start()
            try:
                return await sidecar.run(stop)
            finally:
                admin_listener.close()
        except (ListenError, BundleError, SpiffeError) as error:
            click.echo(f"error: {error}", err=True)
            return 1
        finally:
            stop.cancel()

    sys.exit(run(main))


def spire_socket(source: str) -> str:
    """The socket of `--identity-source`, "" for the control plane.  Raises click.BadParameter."""
    if source == "control":
        return ""
    kind, _, socket = source.partition(":")
    if kind != "spire" or not socket.startswith("unix:") or not socket.removeprefix("unix:").startswith("/"):
        raise click.BadParameter(
            f"{source!r}: control, or spire:unix:///run/spire/sockets/agent.sock", param_hint="--identity-source"
        )
    return socket
