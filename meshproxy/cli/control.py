"""`meshproxy control`: run the control plane."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import sys
from pathlib import Path

import click

from meshproxy.cli.canary_flags import CanaryOptions, canary_options

_PR_SET_PDEATHSIG = 1


class Address(click.ParamType[tuple[str, int]]):
    """HOST:PORT, as (host, port); [::1]:8086 for IPv6."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, colon, port = str(value).rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r}: HOST:PORT was expected, for example 127.0.0.1:8086", param, ctx)
        return host, int(port)


@click.command()
@click.option(
    "--state",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The mesh's directory: trust/, tokens/ and objects/ are in it, and made if need be.",
)
@click.option(
    "--manifests",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The user's YAML files.  Read, never written.",
)
@click.option("--listen", required=True, type=Address(), help="Configuration streams (gRPC); Certify is on the port after.")
@click.option("--admin", required=True, type=Address(), help="/metrics, /ready, /live, /sd (HTTP).")
@click.option("--trust-domain", default="cluster.local", show_default=True, help="First part of every identity.")
@click.option(
    "--leaf-lifetime",
    type=click.FloatRange(min=5),
    default=86400,
    show_default=True,
    metavar="SECONDS",
    help="How long a proxy's certificate lives; it is renewed at about 70 % of that.",
)
@click.option(
    "--identity-issuer",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Issue with DIR's tls.crt and tls.key under the roots in ca.crt (as cert-manager writes them), read again on change.",
)
@click.option(
    "--metrics-server",
    default="",
    metavar="URL",
    help="Judge Canaries by this Prometheus, unless spec.metricsServer names another.  [default: the mesh's own numbers]",
)
@click.option(
    "--gateway",
    type=Address(),
    help="The gateway's proxy: the way to webhooks that are Services of the mesh.  [default: none is reached so]",
)
@click.option("--parent-death-signal", is_flag=True, help="End when the process that started this one ends.")
@canary_options
def command(
    state: Path,
    manifests: Path,
    listen: tuple[str, int],
    admin: tuple[str, int],
    trust_domain: str,
    leaf_lifetime: float,
    identity_issuer: Path | None,
    metrics_server: str,
    gateway: tuple[str, int] | None,
    canary: CanaryOptions,
    parent_death_signal: bool,
) -> None:
    """Run the control plane: configuration and identities for proxies, and the canary controller.

    `meshproxy up` starts it.  By hand it is useful to look at: everything it knows is in --state, so it may be killed and
    started again at any moment; proxies keep what they have meanwhile.
    """
    if parent_death_signal:
        end_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the issuer's key
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    from certs.spiffe import SpiffeError, check_trust_domain
    from control.canary.declared.fields import SpecError
    from control.canary.measuring.promql import server_url
    from control.serve.process import ControlError, ControlSettings, run_control

    try:
        check_trust_domain(trust_domain)
        # Plain asyncio: grpc.aio's poller and uvloop have met badly before, and nothing here is hot.
        settings = ControlSettings(
            *(state, manifests, listen, admin, trust_domain, leaf_lifetime, identity_issuer),
            metrics_server=server_url(metrics_server, "--metrics-server") if metrics_server else "",
            cross_namespace_refs=canary.cross_namespace_refs,
            cluster_name=canary.cluster_name,
            canary_flags=canary.flags,
            gateway="{}:{}".format(*gateway) if gateway is not None else "",
            environment=os.environ,
        )
        asyncio.run(run_control(settings))
    except (ControlError, SpiffeError, SpecError) as error:
        raise click.ClickException(str(error)) from None


def end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent's thread that started this process ends (Linux)."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        raise click.ClickException("the process that started this one has ended")
