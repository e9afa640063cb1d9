"""Certificates that live 12 seconds are renewed under load, again and again, and nobody notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from mesh_intruder import certificate, client_context, leaf_of
from mesh_load import Load
from mesh_manifests import account, deployment, service
from mesh_run import MeshRun, request, until_async

from certs.authority import load_authority

LIFETIME = 12
RENEWALS = 2  # at 70 % of the lifetime each: the last certificate of the beginning has long ended by then
ME = "spiffe://cluster.local/ns/e2e/sa/client"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client -> web, and `late`: another Service of the same pods, which nobody calls before the end."""
    found = MeshRun(tmp_path_factory.mktemp("renewal"), "renewal")
    found.write("client", account("client"), deployment("client", "echo_app", 8080, found.ledger))
    web = deployment("web", "echo_app", 8080, found.ledger)
    found.write("web", account("web"), web, service("web"), service("late", selector={"app": "web"}))
    try:
        found.start("--leaf-lifetime", str(LIFETIME))
        yield found
    finally:
        found.end()


async def test_short_lived_certificates_are_renewed_under_load_without_an_error(mesh: MeshRun, tmp_path: Path) -> None:
    client, web = mesh.pod("client"), mesh.pod("web")
    authority = load_authority(mesh.layout.trust, "cluster.local", time.time())
    context = client_context(tmp_path, certificate(authority, uris=(ME,)), ("meshproxy/1",))
    first = await asyncio.to_thread(leaf_of, web.ip, context)
    assert _lifetime(first) <= LIFETIME
    proxies = (client.ip, web.ip)

    def renewed() -> bool:
        pages = [mesh.metrics(ip) for ip in proxies]
        return all(page.total("identity_cert_refresh_count") - 1 >= RENEWALS for page in pages)

    async with Load(client.ip, "http://web.e2e/work", 40.0, prefix="renewal", ms=20) as load:
        await until_async(renewed, f"{RENEWALS} renewals of each", LIFETIME * (RENEWALS + 2))
    assert load.failures == []
    assert len(load.outcomes) > 100

    now = time.time()
    assert first.not_valid_after_utc.timestamp() < now  # what the load began with is worth nothing any more
    last = await asyncio.to_thread(leaf_of, web.ip, context)
    assert last.serial_number != first.serial_number
    assert last.not_valid_after_utc.timestamp() > now
    # A new handshake between the two, with what both of them have now.
    answer = request(client.ip, 4140, "GET", "http://late.e2e/echo")
    assert (answer.status, dict(answer.json["headers"])["mesh-client-id"]) == (200, ME)
    for ip in proxies:
        page = mesh.metrics(ip)
        assert page.total("identity_cert_refresh_failures") == 0
        assert page.total("meshproxy_tls_failures_total") == 0
        assert page.total("meshproxy_internal_errors_total") == 0
        assert page.total("meshproxy_refused_total") == 0
        assert page.total("identity_cert_expiration_timestamp_seconds") > now
        await until_async(lambda ip=ip: mesh.metrics(ip).total("meshproxy_control_connected") == 1, "the stream, renewed too")


def _lifetime(leaf: x509.Certificate) -> float:
    return leaf.not_valid_after_utc.timestamp() - time.time()
