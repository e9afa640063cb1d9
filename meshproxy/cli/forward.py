"""meshproxy forward: one proxy, one route, no control plane."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from meshproxy.admin import AdminSide, Status
from meshproxy.proxy.context import Context, memory_limit
from meshproxy.proxy.forward import Target
from meshproxy.proxy.listener import Lifecycle, Listener, ListenError
from meshproxy.proxy.memory import FORWARD, Footprint
from meshproxy.proxy.run import configure_logging, new_context, run, until_signal
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.via import Via
from meshproxy.telemetry.registry import Registry
from meshproxy.workers.plan import ForwardPlan, forward_side

if TYPE_CHECKING:
    from certs.material import Material

F = TypeVar("F", bound=Callable[..., Any])
MAX_WORKERS: Final = 64  # far above what one proxy needs; a typing mistake must not start a thousand processes


class Address(click.ParamType[Target]):
    """HOST:PORT, [V6]:PORT or :PORT (all of 127.0.0.1)."""

    name = "host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        if isinstance(value, Target):
            return value
        host, colon, digits = str(value).rpartition(":")
        if not colon or not digits.isdigit() or int(digits) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8080", param, ctx)
        if "/" in host:
            self.fail(f"{value!r} is a URL; HOST:PORT is expected, for example 127.0.0.1:8080", param, ctx)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        return Target(host or "127.0.0.1", int(digits))


ADDRESS = Address()
_EVERYWHERE: Final = frozenset(("0.0.0.0", "::", "*"))


def clash(one: Target, other: Target) -> bool:
    """Could not both be listened on here: the same port of the same address, or of all addresses.  (Names other than
    localhost are not looked up.)"""
    if one.port != other.port or one.port == 0:
        return False
    hosts = {"127.0.0.1" if host.lower() == "localhost" else host.lower() for host in (one.host, other.host)}
    return len(hosts) == 1 or bool(hosts & _EVERYWHERE)


DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


class WorkerCount(click.ParamType[int]):
    """A number of processes, or auto: one for each core that this process may use."""

    name = "n|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "auto":
            return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
        if not str(value).isdigit() or not 1 <= int(value) <= MAX_WORKERS:
            self.fail(f"{value!r} is neither a number from 1 to {MAX_WORKERS} nor auto", param, ctx)
        return int(value)


def workers_option() -> Callable[[F], F]:
    return click.option(
        "--workers", type=WorkerCount(), default=1, show_default=True, help="Processes to share the work; auto: one a core."
    )


def memory_limit_option() -> Callable[[F], F]:
    return click.option(
        "--memory-limit-mb",
        type=click.IntRange(min=0),
        default=0,
        metavar="MIB",
        help="Shed load before this much is resident; a tighter cgroup limit wins.  0: the cgroup's alone.",
    )


def refuse_little_memory(settings: Settings, workers: int, footprint: Footprint) -> None:
    """Raises click.ClickException if the limit in force is below what the proxy needs when it does nothing: it would shed all
    load for ever."""
    if mistake := footprint.too_little(memory_limit(settings), workers):
        raise click.ClickException(mistake)


def material(directory: Path, need_ca: bool) -> Material:
    """cert.pem, key.pem and ca.pem of a directory.  Raises click.ClickException naming file and fault."""
    from certs.material import MaterialError, read_material

    try:
        found = read_material(directory, time.time(), need_ca=need_ca)
    except MaterialError as error:
        raise click.ClickException(str(error)) from error
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    return found


@click.command()
@click.argument("listen", type=ADDRESS)
@click.argument("targets", type=ADDRESS, nargs=-1, required=True, metavar="TARGET...")
@click.option(
    "--upstream",
    type=click.Choice(["http1", "http2", "auto", "tcp"]),
    default="http1",
    show_default=True,
    help="What TARGET speaks; auto: the request's own version, application/grpc always http2; tcp: bytes, nothing is read.",
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
@click.option(
    "--timeout", type=click.FloatRange(min=0.0), default=0.0, metavar="SECONDS", help="Whole request; 504 after it.  0: none."
)
@click.option("--via", "via", metavar="NAME", default="", help="Add 'Via: 1.1 NAME' (2 NAME) to requests and answers.")
@click.option("--forwarded-for", is_flag=True, help="Add the client's address to requests as x-forwarded-for.")
@memory_limit_option()
@workers_option()
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
    memory_limit_mb: int,
    workers: int,
    log_level: str,
) -> None:
    """Forward HTTP/1.1 and HTTP/2 from LISTEN to the TARGETs, balancing by latency.

    Both versions are accepted on LISTEN by detection, anything else is passed on as bytes; with --mtls or --forwarded-for it is
    refused, so that TARGET can believe mesh-client-id and the last x-forwarded-for.  --upstream tcp passes on all as bytes.  Of
    two TARGETs drawn at random the one with the lower latency times requests in flight is taken: one request at a time mostly
    goes to the faster one, shares even out under load.

    \b
    meshproxy forward 127.0.0.1:8000 127.0.0.1:9001 127.0.0.1:9002 --admin 127.0.0.1:4191
    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:4191/metrics

    SIGTERM: new connections are taken for another half second (callers learn late), what is in flight has 30 s.  SIGINT is the
    same, but an idle proxy ends at once.  Exit status: 0 after an orderly end, 1 if it could not start or something had to be
    cut, 2 for a mistake in the command; a second signal ends it at once, with 130 (SIGINT) or 143 (SIGTERM).
    """
    if tls and mtls:
        raise click.UsageError("--tls and --mtls exclude each other: --mtls is TLS that also demands a client certificate")
    if any((target.host, target.port) == (listen.host, listen.port) for target in targets):
        raise click.UsageError(f"TARGET {listen.host}:{listen.port} is LISTEN itself: requests would go round in a circle")
    if admin is not None and clash(admin, listen):
        raise click.UsageError(
            f"--admin {admin.host}:{admin.port} and LISTEN {listen.host}:{listen.port} are the same address: "
            "give the admin pages another port"
        )
    if upstream_identity and not upstream_mtls:
        raise click.UsageError("--upstream-identity needs --upstream-mtls: without TLS nobody proves an identity")
    if upstream_identity:
        from certs.spiffe import SpiffeError, SpiffeId

        try:
            upstream_identity = str(SpiffeId.parse(upstream_identity))
        except SpiffeError as error:
            raise click.UsageError(f"--upstream-identity: {error}") from error
    if upstream == "tcp":
        for option, given in (("--via", via), ("--forwarded-for", forwarded_for), ("--timeout", timeout)):
            if given:
                raise click.UsageError(f"{option} is about requests: with --upstream tcp nothing is read, all is bytes")
    if via:
        try:
            Via(via)
        except ValueError as error:
            raise click.UsageError(f"--via: {error}") from error
    plan = ForwardPlan([(target.host, target.port) for target in targets], upstream, timeout)
    if directory := tls or mtls:
        serve_with = material(directory, need_ca=mtls is not None)
        plan.chain_pem, plan.key_pem = serve_with.chain_pem, serve_with.key_pem
        plan.client_ca_pem = (serve_with.ca_pem or b"") if mtls else b""
    if upstream_mtls:
        connect_with = material(upstream_mtls, need_ca=True)
        plan.upstream_chain_pem, plan.upstream_key_pem = connect_with.chain_pem, connect_with.key_pem
        plan.upstream_ca_pem = connect_with.ca_pem or b""
        plan.upstream_identity = upstream_identity
    configure_logging(log_level)
    if upstream_mtls and not upstream_identity:
        click.echo(f"note: no --upstream-identity: any identity under {upstream_mtls / 'ca.pem'} is accepted", err=True)
    settings = Settings()
    settings.http2_engine = http2_engine
    settings.via_name = via
    settings.forwarded_for = forwarded_for
    settings.memory_limit_bytes = memory_limit_mb << 20
    refuse_little_memory(settings, workers, FORWARD)

    where = f"{', '.join(f'{target.host}:{target.port}' for target in targets)}"
    config = {
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
        "workers": workers,
    }

    async def main() -> int:
        ctx = new_context(settings, Registry())
        carried = One(ctx, plan, config) if workers == 1 else Several(ctx, plan, config, workers, log_level)
        pages = AdminSide(ctx, carried)
        carried.lifecycle.pages.append(pages)
        admin_listener = Listener(ctx, pages, admin.host, admin.port) if admin is not None else None
        try:
            port = await carried.start(listen)
            if admin_listener is not None:
                await admin_listener.start()
        except ListenError as error:
            click.echo(f"error: {error}", err=True)
            await carried.stop()
            return 1
        said = f"forwarding {listen.host}:{port} -> {where}"
        if admin_listener is not None:
            said += f", admin on http://{admin_listener.host}:{admin_listener.port}/metrics"
        if workers > 1:
            said += f", {workers} workers"
        stopped = asyncio.create_task(until_signal(), name="signal")
        ready = asyncio.create_task(carried.ready(), name="ready")
        try:
            await asyncio.wait((stopped, ready), return_when=asyncio.FIRST_COMPLETED)
            if ready.done() and (why := ready.result()):
                click.echo(f"error: {why}", err=True)
                await carried.stop()
                return 1
            if ready.done():
                click.echo(said, err=True)
            linger = await stopped != "SIGINT"  # somebody at a terminal: no list of endpoints lags behind
            finished = await carried.stop(linger)
        finally:
            stopped.cancel()
            ready.cancel()
        if admin_listener is not None:
            admin_listener.close()
        return 0 if finished else 1

    sys.exit(run(main))


class One(Status):
    """This process carries the traffic itself."""

    def __init__(self, ctx: Context, plan: ForwardPlan, config: dict[str, Any]) -> None:
        self.values = config
        self.lifecycle = Lifecycle(ctx)
        self.side = forward_side(ctx, plan)
        self.lifecycle.sides.append(self.side)

    async def start(self, listen: Target) -> int:
        """Returns the port.  Raises ListenError."""
        listener = Listener(self.side.ctx, self.side, listen.host, listen.port)
        self.lifecycle.listeners.append(listener)
        await self.lifecycle.start()
        return listener.port

    async def ready(self) -> str:
        return ""

    def config(self) -> dict[str, Any]:
        return self.values

    async def stop(self, linger: bool = True) -> bool:
        return await self.lifecycle.stop(linger)


class Several(Status):
    """Workers carry it; this process has the admin pages."""

    def __init__(self, ctx: Context, plan: ForwardPlan, config: dict[str, Any], count: int, log_level: str) -> None:
        self.values = config
        from meshproxy.workers.supervisor import Supervisor

        self.lifecycle = Lifecycle(ctx)
        self.supervisor = Supervisor(ctx, count, plan, log_level)

    async def start(self, listen: Target) -> int:
        """Returns the port.  Raises ListenError."""
        port = self.supervisor.listen("forward", "outbound", listen.host, listen.port)
        await self.lifecycle.start()
        self.supervisor.start()
        return port

    async def ready(self) -> str:
        return await self.supervisor.until_ready()

    def unready(self) -> str:
        return self.supervisor.unready()

    def config(self) -> dict[str, Any]:
        return {**self.values, "worker_processes": self.supervisor.config()}

    def page(self, names: frozenset[str] | None) -> Coroutine[Any, Any, bytes]:
        return self.supervisor.page(names)

    async def stop(self, linger: bool = True) -> bool:
        finished = await self.supervisor.stop(linger)
        await self.lifecycle.stop()
        return finished
