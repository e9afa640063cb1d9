"""`meshproxy identity`: what vouches for everybody in the mesh, and how to change it while everything runs.

rotate: new root and issuer into trust/ --> the control plane announces, switches, has proxies renew --> old root kept
retire: old roots out of trust/root.pem --> the control plane lets them go when no proxy needs them
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from meshproxy.cli.common import columns, duration, fail, find_mesh, mesh_option, open_store

if TYPE_CHECKING:
    from control.runtime.meshes import Mesh

PATIENCE = 2.0  # s, for one page
POLL = 0.25  # s between looks while waiting


@click.group()
def command() -> None:
    """Look after trust anchors, the issuer and certificates.

    \b
    meshproxy identity status            anchors, issuer, and every proxy's certificate
    meshproxy identity rotate            a new root and issuer; the old root stays trusted
    meshproxy identity retire            stop trusting old roots, once nobody needs them
    meshproxy identity rotate --retire   both

    Nothing fails meanwhile: docs/identity.md says why, and how an issuer of cert-manager is used.
    """


@command.command()
@mesh_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Output form.")
def status(mesh: str | None, output: str) -> None:
    """Show anchors, issuer, and every proxy's certificate.

    ISSUER is `current`, or `old` until the proxy has renewed; ANCHORS is how many of those in force it holds.  A pod that
    does not answer has `-`.
    """
    found = find_mesh(mesh)
    page = _authority(found)
    proxies = _proxies(found)
    if output == "json":
        click.echo(json.dumps({**page, "pods": proxies}, indent=4))
        return
    now = time.time()
    owner = "somebody else's" if page["external"] else "the mesh's own"
    click.echo(f"trust domain {page['trust_domain']}; the issuer is {owner}, in {page['source']}; {page['phase']}")
    rows = [[a["sha256"], _state(a, page), _left(a["not_after"], now), a["subject"]] for a in page["anchors"]]
    issuer = page["issuer"]
    click.echo("\n" + columns(["ANCHOR", "STATE", "EXPIRES IN", "SUBJECT"], rows))
    row = [issuer["key_id"][:16], _left(issuer["not_after"], now), issuer["subject"]]
    click.echo("\n" + columns(["ISSUER", "EXPIRES IN", "SUBJECT"], [row]))
    held = {anchor["sha256"] for anchor in page["anchors"]}
    pods = [_row(pod, issuer["key_id"], held, now) for pod in proxies]
    click.echo("\n" + columns(["NAMESPACE", "POD", "IDENTITY", "EXPIRES IN", "ISSUER", "ANCHORS"], pods))
    _warn(page, now)


@command.command()
@mesh_option
@click.option("--retire", "and_retire", is_flag=True, help="Then stop trusting the old root: takes a minute more.")
@click.option("--timeout", type=click.FloatRange(min=1), default=180.0, show_default=True, metavar="SECONDS")
def rotate(mesh: str | None, and_retire: bool, timeout: float) -> None:
    """Replace root and issuer while everything runs.

    Returns when the new issuer issues and every connected proxy has a certificate of it (about half a minute).  The old root
    stays trusted until `retire`: also proxies that are away now find their way back.
    """
    from certs.authority import AuthorityError, load_authority, replace_authority

    found = find_mesh(mesh)
    before = _authority(found)
    _own(before)
    if before["problem"]:
        raise fail(f"the authority on disk is not usable: {before['problem']}")
    if before["phase"] != "settled":
        raise fail(f"a rotation is under way ({before['phase']}); see `meshproxy identity status`")
    directory, trust_domain = found.layout.trust, str(before["trust_domain"])
    try:
        replace_authority(directory, trust_domain, time.time())
        new = load_authority(directory, trust_domain, time.time())
    except AuthorityError as error:
        raise fail(str(error)) from None
    key_id = new.key_id.hex()
    end = time.monotonic() + timeout
    click.echo(f"new root and issuer are in {directory}")
    _wait(found, end, lambda page: page["issuer"]["key_id"] == key_id, "the new issuer to be in force")
    click.echo("every connected proxy trusts the new root; the new issuer issues")

    def renewed(page: dict[str, Any]) -> bool:
        return bool(page["proxies"]["renewed"] == page["proxies"]["connected"])

    page = _wait(found, end, renewed, "every connected proxy to renew")
    click.echo(f"{page['proxies']['renewed']} proxies have certificates of the new issuer")
    if and_retire:
        _retire(found, end)
    else:
        click.echo("the old root is still trusted; `meshproxy identity retire` ends that")


@command.command()
@mesh_option
@click.option("--timeout", type=click.FloatRange(min=1), default=180.0, show_default=True, metavar="SECONDS")
def retire(mesh: str | None, timeout: float) -> None:
    """Stop trusting all roots but the one that the issuer is under.

    They go when every connected proxy has had a certificate of the present issuer for a minute.  A proxy that is away has
    to get a new certificate when it returns; peers refuse its old one.
    """
    found = find_mesh(mesh)
    _own(_authority(found))
    _retire(found, time.monotonic() + timeout)


def _retire(mesh: Mesh, end: float) -> None:
    from certs.authority import AuthorityError, retire_anchors

    page = _authority(mesh)
    try:
        gone = retire_anchors(mesh.layout.trust, str(page["trust_domain"]), time.time())
    except AuthorityError as error:
        raise fail(str(error)) from None
    if not gone and len(page["anchors"]) == 1:
        click.echo("one root is trusted, the one that the issuer is under: nothing to retire")
        return
    click.echo(f"{len(gone)} old roots are out of root.pem; they are let go when no proxy needs them")
    _wait(mesh, end, lambda page: len(page["anchors"]) == 1, "the old roots to be let go")
    click.echo("one root is trusted")


# ---------------------------------------------------------------- pages


def _authority(mesh: Mesh) -> dict[str, Any]:
    page = _fetch(mesh.info.control_admin, "/identity")
    if page is None:
        raise fail(f'the control plane of mesh "{mesh.name}" does not answer; see {mesh.layout.control_log}')
    return page


def _own(page: dict[str, Any]) -> None:
    if page["external"]:
        raise fail(f"the issuer is somebody else's: replace ca.crt, tls.crt and tls.key in {page['source']}, in any order")


def _proxies(mesh: Mesh) -> list[dict[str, Any]]:
    from control.runtime.layout import ADMIN_PORT
    from meshproxy.cli.stat import pods_of

    found = []
    for pod in pods_of(open_store(mesh)):
        if not pod.meshed or not pod.running or not pod.address:
            continue
        namespace, _, name = pod.key.partition("/")
        config = _fetch(f"{pod.address}:{ADMIN_PORT}", "/config") or {}
        entry = {"namespace": namespace, "pod": name, "identity": config.get("identity")}
        entry |= {key: config.get(key) for key in ("certificate_expires_unix", "certificate_issuer", "trust_anchors")}
        found.append(entry)
    return found


def _fetch(address: str, path: str) -> dict[str, Any] | None:
    import http.client

    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        found = json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None


def _wait(mesh: Mesh, end: float, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    while True:
        page = _fetch(mesh.info.control_admin, "/identity")  # it may be starting again just now
        if page is not None and condition(page):
            return page
        if time.monotonic() >= end:
            trouble = f" ({page['problem']})" if page is not None and page["problem"] else ""
            raise fail(f"waited in vain for {what}{trouble}; it goes on by itself, see `meshproxy identity status`")
        time.sleep(POLL)


# ---------------------------------------------------------------- printing


def _state(anchor: dict[str, Any], page: dict[str, Any]) -> str:
    if anchor["sha256"] == page["issuer"]["anchor"]:
        return "issuing"
    return "kept" if anchor["kept"] else "trusted"


def _left(not_after: float | None, now: float) -> str:
    if not_after is None:
        return "-"
    return duration(not_after - now) if not_after > now else "expired"


def _row(pod: dict[str, Any], key_id: str, held: set[str], now: float) -> list[object]:
    issuer, anchors = pod["certificate_issuer"], pod["trust_anchors"]
    return [
        pod["namespace"],
        pod["pod"],
        pod["identity"] or "-",
        _left(pod["certificate_expires_unix"], now),
        "-" if issuer is None else "current" if issuer == key_id else "old",
        "-" if anchors is None else f"{len(held & set(anchors))}/{len(held)}",
    ]


def _warn(page: dict[str, Any], now: float) -> None:
    if page["problem"]:
        click.echo(f"\nwarning: the files are not usable, the last good ones are in force: {page['problem']}", err=True)
    if page["issuer"]["not_after"] - now < page["leaf_lifetime"]:
        click.echo("\nwarning: the issuer, or a certificate above it, ends before new leaves would: replace it", err=True)
