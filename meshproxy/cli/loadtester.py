"""`meshproxy loadtester`: gates and commands for the webhooks of Canaries."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click


class _Duration(click.ParamType[float]):
    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from control.canary.declared.fields import SpecError, duration

        if isinstance(value, float):
            return value
        try:
            return duration(value, "", 3600.0)
        except SpecError as error:
            self.fail(str(error).removeprefix(": "), param, ctx)


@click.command(
    epilog="It runs the commands that it is sent, as the user who started it: let nobody reach it but the control plane "
    "(docs/canary/hooks.md)."
)
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="Where it listens.")
@click.option(
    "--address",
    envvar="POD_IP",
    default="127.0.0.1",
    metavar="IP",
    help="Where it listens; the pod's own address ($POD_IP), else 127.0.0.1.",
)
@click.option("--timeout", type=_Duration(), default="1h", show_default=True, help="A command is ended after this.")
@click.option("--namespace-regexp", metavar="REGEX", help="Serve only Canaries of namespaces that match.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What is logged.",
)
def command(port: int, address: str, timeout: float, namespace_regexp: str | None, log_level: str) -> None:
    """Gates and load for Canaries, with the paths of Flagger's load tester.

    \b
    /gate/approve /gate/halt              always yes, always no
    /gate/check  /gate/open  /gate/close  a gate for each Canary, closed at first
    /rollback/check /open /close          the same, to signal a rollback
    POST /                                metadata.type cmd (in the background) or bash (waits), metadata.cmd

    \b
    curl -d '{"name":"podinfo","namespace":"test"}' http://flagger-loadtester.test/gate/open

    In a pod of embedded mode, or where there is no program of that name, `hey` in a command is a small one of our own.
    """
    logging.basicConfig(
        stream=sys.stdout,
        level=log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        namespaces = re.compile(namespace_regexp) if namespace_regexp else None
    except re.error as error:
        raise click.BadParameter(str(error), param_hint="--namespace-regexp") from None
    try:
        asyncio.run(_serve(address, port, timeout, namespaces))
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address}:{port}: {error.strerror}") from None


async def _serve(address: str, port: int, timeout_s: float, namespaces: re.Pattern[str] | None) -> None:
    from aiohttp import web

    from control.loadtester.app import LoadTester
    from control.loadtester.tasks import Tasks

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with _environment() as environment:
        runner = web.AppRunner(LoadTester(Tasks(timeout_s, environment), namespaces).application(), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, port).start()
            logging.getLogger("meshproxy.loadtester").info("load tester on %s:%d", address, port)
            await stop.wait()
        finally:
            await runner.cleanup()


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """Of commands: ours, with our hey first where the way into the mesh is http_proxy, which the real one does not read."""
    environment = dict(os.environ)
    if not environment.get("http_proxy") and shutil.which("hey") is not None:
        yield environment
        return
    import control.loadtester

    root = Path(control.loadtester.__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="meshproxy-loadtester-") as programs:
        script = Path(programs, "hey")
        python, path = shlex.quote(sys.executable), shlex.quote(str(root))
        script.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {python} -m control.loadtester.hey "$@"\n')
        script.chmod(0o755)
        yield {**environment, "PATH": f"{programs}{os.pathsep}{environment.get('PATH', os.defpath)}"}
