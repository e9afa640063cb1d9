"""A real mesh under load while its root and issuer are replaced, its control plane is away for longer than a certificate
lives, and proxies start without it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mesh_intruder import call, certificate, client_context
from mesh_load import Load
from mesh_manifests import account, deployment, service
from mesh_run import MeshRun, request, until_async

from certs.authority import load_authority

LIFETIME = 6  # s, of leaves
ALPN = ("meshproxy/1",)
CLIENT = "spiffe://cluster.local/ns/e2e/sa/client"
FIELDS = (("mesh-target-port", "8080"), ("mesh-orig-proto", "HTTP/1.1"))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    found = MeshRun(tmp_path_factory.mktemp("identity"), "identity")
    found.write("client", account("client"), deployment("client", "echo_app", 8080, found.ledger))
    found.write("web", account("web"), deployment("web", "echo_app", 8080, found.ledger), service("web"))
    try:
        found.start("--leaf-lifetime", str(LIFETIME))
        yield found
    finally:
        with suppress(KeyError, ProcessLookupError):
            os.kill(found.recorded()["control plane"], signal.SIGCONT)
        found.end()


def table(mesh: MeshRun) -> dict[str, object]:
    said = mesh.verb("identity", "status", "--name", mesh.name, "-o", "json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert isinstance(found, dict)
    return found


async def test_root_and_issuer_are_replaced_under_load_without_an_error(mesh: MeshRun, tmp_path: Path) -> None:  # ID-48
    client, web = mesh.pod("client"), mesh.pod("web")
    old = load_authority(mesh.layout.trust, "cluster.local", time.time())
    stolen = client_context(tmp_path, certificate(old, uris=(CLIENT,)), ALPN)
    assert (await call(web.ip, stolen, "/work?id=before", FIELDS)).status == 200
    async with Load(client.ip, "http://web.e2e/work", 40.0, prefix="rotation", ms=20) as load:
        await load.more(20)
        done = await asyncio.to_thread(mesh.verb, "identity", "rotate", "--retire", "--name", mesh.name)
        await load.more(40)
    assert done.returncode == 0, done.stderr
    assert load.failures == []
    assert done.stdout.splitlines()[-1] == "one root is trusted"

    new = load_authority(mesh.layout.trust, "cluster.local", time.time())
    assert new.bundle.anchors == (new.anchor,)
    assert new.anchor != old.anchor
    assert (await call(web.ip, stolen, "/work?id=after", FIELDS)).refused
    assert "after" not in mesh.executions()
    page = table(mesh)
    assert page["phase"] == "settled"
    assert [pod["certificate_issuer"] for pod in page["pods"]] == [new.key_id.hex()] * len(page["pods"])  # type: ignore[attr-defined]
    assert mesh.layout.trust_bundle.read_text() == new.bundle.pem
    for ip in (client.ip, web.ip):
        metrics = mesh.metrics(ip)
        assert metrics.total("identity_trust_anchors") == 1
        assert metrics.total("identity_cert_refreshes_total", result="error") == 0
        assert metrics.total("meshproxy_internal_errors_total") == 0
        for name in ("identity_cert", "identity_issuer", "identity_trust_anchor"):
            assert metrics.total(f"{name}_expiration_timestamp_seconds") > time.time()


def test_the_status_for_people(mesh: MeshRun) -> None:
    said = mesh.verb("identity", "status", "--name", mesh.name)
    lines = said.stdout.splitlines()
    assert lines[0].startswith("trust domain cluster.local; the issuer is the mesh's own")
    (web,) = [line.split() for line in lines if line.startswith("e2e ") and " web-" in line]
    assert (web[2], web[4:]) == ("spiffe://cluster.local/ns/e2e/sa/web", ["current", "1/1"])


def test_nothing_to_retire_is_said(mesh: MeshRun) -> None:
    said = mesh.verb("identity", "retire", "--name", mesh.name)
    assert (said.returncode, "nothing to retire" in said.stdout) == (0, True)


async def test_a_control_plane_away_for_longer_than_a_certificate_lives(mesh: MeshRun) -> None:  # ID-45, MF-02
    """Traffic goes on until the end of the certificates and then fails closed; a proxy that starts meanwhile is not ready and
    says why; after the return everything is as before, within 10 s."""
    client, web = mesh.pod("client"), mesh.pod("web")
    control = mesh.recorded()["control plane"]

    def answer() -> tuple[int, str]:
        found = request(client.ip, 4140, "GET", "http://web.e2e/echo")
        return found.status, found.headers.get("mesh-error", "")

    def ready(ip: str) -> tuple[int, str]:
        found = request(ip, 4191, "GET", "/ready")
        return found.status, found.body.decode()

    os.kill(control, signal.SIGSTOP)
    assert answer() == (200, "")  # nobody notices
    os.kill(web.pids["sidecar"], signal.SIGKILL)  # the next one starts without a control plane
    try:
        stopped = time.time()
        expires = mesh.metrics(client.ip).total("identity_cert_expiration_timestamp_seconds")
        await until_async(lambda: _ready(web.ip)[0] == 503, "the new proxy to say that it is not ready")
        assert "no certificate yet" in ready(web.ip)[1]
        status, reason = answer()
        assert status in (502, 503, 504), reason  # at once, and not by a plaintext connection
        await until_async(lambda: time.time() > expires, "the certificates to end")
        await until_async(lambda: ready(client.ip)[0] == 503, "the old proxy to say that it is not ready")
        assert "the certificate has expired" in ready(client.ip)[1]
        assert answer()[0] in (502, 503, 504)
        assert time.time() - stopped < 60
    finally:
        os.kill(control, signal.SIGCONT)
    back = time.monotonic()
    await until_async(lambda: _ready(client.ip)[0] == _ready(web.ip)[0] == 200, "both proxies to be ready again")
    await until_async(lambda: answer() == (200, ""), "requests to be served again")
    assert time.monotonic() - back < 30  # 8 s of back-off at most, on a machine that may be busy
    page = table(mesh)
    assert all(pod["certificate_issuer"] == page["issuer"]["key_id"] for pod in page["pods"])  # type: ignore[index,attr-defined]


def _ready(ip: str) -> tuple[int, str]:
    try:
        found = request(ip, 4191, "GET", "/ready")
    except OSError:
        return 0, ""
    return found.status, found.body.decode()
