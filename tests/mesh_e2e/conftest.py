"""Meshes of the end-to-end tests.  Each is started once and used by the modules that name its fixture."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mesh_manifests import account, deployment, service
from mesh_run import MeshRun


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client, web (two replicas), h2 and greeter: what callers and intruders meet.  Nothing of it is ever killed."""
    mesh = MeshRun(tmp_path_factory.mktemp("shop"), "shop")
    mesh.write("client", account("client"), deployment("client", "echo_app", 8080, mesh.ledger))
    mesh.write("web", account("web"), deployment("web", "echo_app", 8080, mesh.ledger, replicas=2), service("web"))
    mesh.write("h2", account("h2"), deployment("h2", "h2_app", 8081, mesh.ledger), service("h2"))
    greeter = deployment("greeter", "grpc_app", 9090, mesh.ledger)
    mesh.write("greeter", account("greeter"), greeter, service("greeter", 9090, app_protocol="grpc"))
    mesh.write("victim", service("victim", selector={}))
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.end()
