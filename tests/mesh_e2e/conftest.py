"""Meshes of the end-to-end tests.  Each is started once and used by the modules that name its fixture."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from mesh_bytes import bytes_mesh as bytes_mesh
from mesh_intruder import certificate
from mesh_manifests import account, deployment, service
from mesh_policy import policy_mesh as policy_mesh
from mesh_policy import world as world
from mesh_run import MeshRun

from certs.authority import open_authority


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client, web (two replicas), h2, greeter and talk: what callers and intruders meet.  Nothing of it is ever killed."""
    mesh = MeshRun(tmp_path_factory.mktemp("shop"), "shop")
    mesh.write("client", account("client"), deployment("client", "echo_app", 8080, mesh.ledger))
    mesh.write("web", account("web"), deployment("web", "echo_app", 8080, mesh.ledger, replicas=2), service("web"))
    mesh.write("h2", account("h2"), deployment("h2", "h2_app", 8081, mesh.ledger), service("h2"))
    greeter = deployment("greeter", "grpc_app", 9090, mesh.ledger)
    mesh.write("greeter", account("greeter"), greeter, service("greeter", 9090, app_protocol="grpc"))
    talk(mesh)
    mesh.write("victim", service("victim", selector={}))
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.end()


def talk(mesh: MeshRun) -> None:
    """An app of several ports; its own TLS has nothing to do with the mesh's."""
    own = open_authority(mesh.home / "own", "talk.example", time.time())
    chain, key = certificate(own, dns=("talk.e2e",))
    (mesh.ledger / "talk.pem").write_bytes(chain)
    (mesh.ledger / "talk.key").write_bytes(key)
    (mesh.ledger / "talk-root.pem").write_text(own.bundle.pem)
    app, svc = deployment("talk", "talk_app", 8080, mesh.ledger), service("talk")
    for name, port, target, protocol in (
        ("lines", 7000, 7000, "tcp"),
        ("detected", 7001, 7000, ""),
        ("secret", 7443, 7443, "tls"),
    ):
        entry = {"name": name, "port": port, "targetPort": target}
        svc["spec"]["ports"].append({**entry, "appProtocol": protocol} if protocol else entry)
    mesh.write("talk", account("talk"), app, svc)
