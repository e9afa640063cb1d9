"""meshproxy forward: one proxy, one route, no control plane."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from meshproxy.admin import AdminSide
from meshproxy.proxy.forward import FixedCredentials, ForwardSide, ForwardStatus, Target
from meshproxy.proxy.listener import Lifecycle, Listener, ListenError
from meshproxy.proxy.run import configure_logging, new_context, run, until_signal
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import TlsFailure
from meshproxy.proxy.via import Via
from meshproxy.telemetry.registry import Registry


class Address(click.ParamType[Target]):
    """HOST:PORT, [V6]:PORT or :PORT (all of 127.0.0.1)."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        if isinstance(value, Target):
            return value
        host, colon, digits = str(value).rpartition(":")
        if not colon or not digits.isdigit() or int(digits) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8080", param, ctx)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        return Target(host or "127.0.0.1", int(digits))


ADDRESS = Address()
DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


def identify(leaf_der: bytes) -> str:
    """A peer's identity, from its certificate (whose chain OpenSSL has checked).  Raises TlsFailure."""
    from certs.verify import PeerRefused, check_any_leaf

    try:
        return str(check_any_leaf(leaf_der))
    except PeerRefused as refusal:
        raise TlsFailure(refusal.reason, refusal.detail) from refusal


def credentials(server: Path | None, demand: bool, client: Path | None, alpn: tuple[str, ...]) -> FixedCredentials | None:
    """Contexts from a directory with cert.pem, key.pem, ca.pem.  Raises click.ClickException naming file and fault."""
    directory = server or client
    if directory is None:
        return None
    from certs.context import client_context, server_context
    from certs.material import MaterialError, read_material

    try:
        material = read_material(directory, time.time(), need_ca=demand or client is not None)
    except MaterialError as error:
        raise click.ClickException(str(error)) from error
    for warning in material.warnings:
        click.echo(f"warning: {warning}", err=True)
    if server is not None:
        context = server_context(material.chain_pem, material.key_pem, material.ca_pem if demand else None)
        return FixedCredentials(context, None, identify)
    assert material.ca_pem is not None
    context = client_context(material.chain_pem, material.key_pem, material.ca_pem, alpn)
    return FixedCredentials(None, context, identify)


@click.command()
@click.argument("listen", type=ADDRESS)
@click.argument("targets", type=ADDRESS, nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--upstream",
    type=click.Choice(["http1", "http2", "auto"]),
    default="http1",
    show_default=True,
    help="What TARGET speaks; auto: the request's own version, application/grpc always http2.",
)
@click.option("--admin", type=ADDRESS, metavar="HOST:PORT", help="Serve /metrics /ready /live /config here.")
@click.option(
    "--tls", "tls", type=DIRECTORY, help="Serve TLS with DIR/cert.pem and key.pem; no client certificate is asked for."
)
@click.option("--mtls", "mtls", type=DIRECTORY, help="Serve TLS and demand a client certificate under DIR/ca.pem.")
@click.option("--upstream-mtls", type=DIRECTORY, help="Speak TLS to TARGET with this certificate; it must be under DIR/ca.pem.")
@click.option("--upstream-identity", metavar="SPIFFE-ID", default="", help="The identity TARGET must prove.")
@click.option(
    "--http2-engine", type=click.Choice(["ours", "h2"]), default="ours", show_default=True, help="h2: the reference engine."
)
@click.option("--timeout", type=float, default=0.0, metavar="SECONDS", help="Whole request; 504 after it.  0: none.")
@click.option("--via", "via", metavar="NAME", default="", help="Add 'Via: 1.1 NAME' (2 NAME) to requests and answers.")
@click.option("--forwarded-for", is_flag=True, help="Add the client's address to requests as x-forwarded-for.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
def command(
    listen: Target,
    targets: tuple[Target, ...],
    upstream: str,
    admin: Target | None,
    tls: Path | None,
    mtls: Path | None,
    upstream_mtls: Path | None,
    upstream_identity: str,
    http2_engine: str,
    timeout: float,
    via: str,
    forwarded_for: bool,
    log_level: str,
) -> None:
    """Forward HTTP/1.1 and HTTP/2 from LISTEN to the TARGETs, balancing by latency.

    Both versions are accepted on LISTEN by detection, anything else is passed on as bytes.  Of two TARGETs drawn at random the
    one with the lower latency times requests in flight is taken: one request at a time mostly goes to the faster one, shares
    even out under load.

    \b
    meshproxy forward 127.0.0.1:8000 127.0.0.1:9001 127.0.0.1:9002 --admin 127.0.0.1:4191
    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:4191/metrics
    """
    if tls and mtls:
        raise click.UsageError("--tls and --mtls exclude each other: --mtls is TLS that also demands a client certificate")
    if upstream_identity and not upstream_mtls:
        raise click.UsageError("--upstream-identity needs --upstream-mtls: without TLS nobody proves an identity")
    if upstream_identity:
        from certs.spiffe import SpiffeError, SpiffeId

        try:
            upstream_identity = str(SpiffeId.parse(upstream_identity))
        except SpiffeError as error:
            raise click.UsageError(f"--upstream-identity: {error}") from error
    alpn = {"http1": ("http/1.1",), "http2": ("h2",), "auto": ("h2", "http/1.1")}[upstream]
    if via:
        try:
            Via(via)
        except ValueError as error:
            raise click.UsageError(f"--via: {error}") from error
    serve_with = credentials(tls or mtls, mtls is not None, None, ())
    connect_with = credentials(None, False, upstream_mtls, alpn)
    configure_logging(log_level)
    if upstream_mtls and not upstream_identity:
        click.echo(f"note: no --upstream-identity: any identity under {upstream_mtls / 'ca.pem'} is accepted", err=True)
    settings = Settings()
    settings.http2_engine = http2_engine
    settings.via_name = via
    settings.forwarded_for = forwarded_for

    async def main() -> int:
        registry = Registry()
        ctx = new_context(settings, registry)
        side = ForwardSide(ctx, list(targets), upstream, timeout, serve_with, mtls is not None, connect_with, upstream_identity)
        lifecycle = Lifecycle(ctx)
        lifecycle.sides.append(side)
        listener = Listener(ctx, side, listen.host, listen.port)
        lifecycle.listeners.append(listener)
        status = ForwardStatus(
            {
                "listen": f"{listen.host}:{listen.port}",
                "targets": [f"{target.host}:{target.port}" for target in targets],
                "upstream": upstream,
                "tls": "mtls" if mtls else "tls" if tls else "none",
                "upstream_tls": upstream_mtls is not None,
                "upstream_identity": upstream_identity,
                "http2_engine": http2_engine,
                "timeout_s": timeout,
                "via_name": via,
                "forwarded_for": forwarded_for,
            }
        )
        admin_listener = None
        if admin is not None:
            pages = AdminSide(ctx, status)
            lifecycle.pages.append(pages)
            admin_listener = Listener(ctx, pages, admin.host, admin.port)
        try:
            await lifecycle.start()
            if admin_listener is not None:
                await admin_listener.start()
        except ListenError as error:
            click.echo(f"error: {error}", err=True)
            return 1
        where = f"forwarding {listener.host}:{listener.port} -> {', '.join(f'{t.host}:{t.port}' for t in targets)}"
        if admin_listener is not None:
            where += f", admin on http://{admin_listener.host}:{admin_listener.port}/metrics"
        click.echo(where, err=True)
        await until_signal()
        finished = await lifecycle.stop()
        if admin_listener is not None:
            admin_listener.close()
        return 0 if finished else 1

    sys.exit(run(main))
