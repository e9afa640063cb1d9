"""`meshproxy up DIR`: run manifests as local processes with sidecars, until Ctrl-C (or, with -d, until `meshproxy down`).

foreground   this process is the supervisor
-d           this process starts one in a session of its own and waits on a pipe until it says "ready" or ends
"""

from __future__ import annotations

import asyncio
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from meshproxy.cli.canary_flags import CanaryOptions, canary_options
from meshproxy.cli.common import fail

if TYPE_CHECKING:
    from control.runtime.layout import Layout, MeshInfo

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def _mesh_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _NAME.match(value):
        raise click.BadParameter(f"{value!r}: expected lower-case letters, digits and '-' (at most 63)")
    return value


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--name", default="default", show_default=True, callback=_mesh_name, envvar="MESHPROXY_NAME", help="Name of the mesh."
)
@click.option("-d", "--detach", is_flag=True, help="Go to the background once everything is ready; `meshproxy down` ends it.")
@click.option("--gateway-port", type=click.IntRange(1, 65535), help="Port of the gateway on 127.0.0.1.  [default: a free one]")
@click.option(
    "--wait", "patience", default=120.0, show_default=True, help="With -d: seconds to wait until everything is ready."
)
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
    help="An issuer that somebody else renews: DIR's tls.crt, tls.key and ca.crt, read again on change (docs/identity.md).",
)
@click.option(
    "--metrics-server",
    default="",
    metavar="URL",
    help="A Prometheus that Canaries are judged by (docs/canary/metrics.md).  [default: the mesh's own numbers]",
)
@click.option("--ready-fd", type=int, hidden=True)
@canary_options
def command(
    directory: Path,
    name: str,
    detach: bool,
    gateway_port: int | None,
    patience: float,
    leaf_lifetime: float,
    identity_issuer: Path | None,
    metrics_server: str,
    ready_fd: int | None,
    canary: CanaryOptions,
) -> None:
    """Run the manifests of DIRECTORY as local processes with sidecars.

    The same files `kubectl apply -f DIRECTORY` takes: each replica becomes a process of its own (the container's command;
    `python3` is this Python, relative paths begin in DIRECTORY) with a sidecar and an address in 127.0.0.0/8.  Edits take
    effect as they are saved; a file with a mistake is refused with its line, and the last good one stays in force.

    Reach your services through the gateway, whose address is printed:

    \b
        meshproxy up examples/shop/manifests
        curl -x http://127.0.0.1:PORT http://web.shop/

    Ctrl-C ends everything in order, a second one at once.  Exit status 0 after an orderly end, 1 if it could not start
    (or, with -d, was not ready in time: it goes on, `meshproxy get pods -A` shows why).
    """
    from control.canary.declared.fields import SpecError
    from control.canary.measuring.promql import server_url
    from control.runtime.addresses import AddressError
    from control.runtime.layout import Layout
    from control.runtime.meshes import MeshError
    from control.runtime.preflight import find_manifests
    from control.runtime.supervisor import Supervisor
    from control.store.store import StoreError

    if metrics_server:
        try:
            server_url(metrics_server, "--metrics-server")
        except SpecError as error:
            raise click.UsageError(str(error)) from None
    if detach:
        options = canary.arguments()
        _detach(
            directory, name, gateway_port, patience, leaf_lifetime, identity_issuer, metrics_server, options, Layout.of(name)
        )
        return
    try:
        find_manifests(directory)
        supervisor = Supervisor(
            *(directory, name),
            gateway_port=gateway_port,
            leaf_lifetime=leaf_lifetime,
            identity_issuer=identity_issuer,
            metrics_server=metrics_server,
            canary_options=canary.arguments(),
            say=_say,
        )
        asyncio.run(supervisor.run(lambda info: _ready(info, ready_fd)))
    except (MeshError, AddressError, StoreError) as error:
        raise fail(str(error)) from None


def _say(line: str) -> None:
    # Who reads this may be gone (a closed pipe): the mesh goes on.
    with suppress(OSError):
        click.echo(line)


def _ready(info: MeshInfo, ready_fd: int | None) -> None:
    _say(_summary(info))
    if ready_fd is not None:
        with suppress(OSError):
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)


def _summary(info: MeshInfo) -> str:
    named = "" if info.name == "default" else f" --name {info.name}"
    return (
        f'mesh "{info.name}" is ready\n'
        f"  gateway   curl -x http://{info.gateway} http://SERVICE.NAMESPACE/\n"
        f"  look      meshproxy get pods -A{named}     meshproxy stat deploy -A{named}     meshproxy logs POD{named}\n"
        f"  end       meshproxy down{named}"
    )


def _detach(
    directory: Path,
    name: str,
    gateway_port: int | None,
    patience: float,
    leaf_lifetime: float,
    identity_issuer: Path | None,
    metrics_server: str,
    canary_options: tuple[str, ...],
    layout: Layout,
) -> None:
    from control.runtime.preflight import forget_nothing, up_already

    if _is_up(layout):  # its log is its own: nothing of this is to be in it
        raise fail(up_already(layout))
    layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    reader, writer = os.pipe()
    options = ["--name", name, "--leaf-lifetime", str(leaf_lifetime), "--ready-fd", str(writer)]
    if gateway_port is not None:
        options += ["--gateway-port", str(gateway_port)]
    if identity_issuer is not None:
        options += ["--identity-issuer", str(identity_issuer.resolve())]
    if metrics_server:
        options += ["--metrics-server", metrics_server]
    options += canary_options
    # A second `up -d` of a running mesh is refused by its lock: it must not cut the log of the first.
    with layout.up_log.open("ab") as log, layout.up_log.open("rb") as shown:
        if log.tell() > 1 << 20 and not _is_up(layout):
            log.truncate(0)
        shown.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            [sys.executable, "-m", "meshproxy", "up", str(directory), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            start_new_session=True,
        )
        os.close(writer)
        with _ended_on_interrupt(child):
            answer = _follow(reader, shown, patience)
    os.close(reader)
    if answer == b"":
        status = child.wait()
        if not layout.info.exists() and not layout.lock.exists():  # it never came to be; all that it said is above
            layout.up_log.unlink(missing_ok=True)
            forget_nothing(layout)
            raise fail(f"the mesh did not start (exit status {status})")
        raise fail(f"the mesh did not start (exit status {status}); its log is {layout.up_log}")
    if answer is None:
        named = "" if name == "default" else f" --name {name}"
        raise fail(
            f"{_not_ready(layout)} after {patience:g} s; the mesh goes on: "
            f"`meshproxy get pods -A{named}` shows what is not, `meshproxy down{named}` ends it"
        )


def _not_ready(layout: Layout) -> str:
    """How far it came, from the Pods as the mesh shows them (the gateway aside)."""
    from control.runtime.layout import SYSTEM_NAMESPACE
    from control.store.files import FileStore
    from meshproxy.cli.printers import pod_state

    store = FileStore(None, layout.objects, "cli")
    store.refresh()
    pods = [pod for pod in store.list("", "Pod") if pod["metadata"].get("namespace") != SYSTEM_NAMESPACE]
    waiting = {}
    for pod in pods:
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        if not statuses or not all(status.get("ready") for status in statuses):
            waiting[f"{pod['metadata'].get('namespace')}/{pod['metadata']['name']}"] = pod_state(pod)
    if not waiting:
        return "not everything is ready"
    shown = ", ".join(f"{name} ({state})" for name, state in list(waiting.items())[:5])
    more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
    return f"{'nothing is' if len(waiting) == len(pods) else 'not everything is'} ready ({shown}{more})"


def _follow(reader: int, shown: BinaryIO, patience: float) -> bytes | None:
    """Print the child's lines until it says something on the pipe (what it said; b"" if it ended) or time is up (None)."""
    deadline = time.monotonic() + patience
    while True:
        readable, _, _ = select.select([reader], [], [], 0.1)
        answer = os.read(reader, 64) if readable else None
        text = shown.read().decode(errors="replace")
        if text:
            click.echo(text, nl=False)
        if answer is not None or time.monotonic() >= deadline:
            return answer


@contextmanager
def _ended_on_interrupt(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C while it is starting: what was started in the background must not stay."""
    try:
        yield
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


def _is_up(layout: Layout) -> bool:
    from control.runtime.meshes import alive, read_info

    info = read_info(layout)
    return info is not None and alive(info.supervisor_pid, info.supervisor_start)
