"""A mesh whose apps speak no HTTP: databases of Debian (where they are installed), mail, bytes, an app's own TLS, WebSocket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mesh_intruder import certificate
from mesh_manifests import Object, account, deployment, service
from mesh_run import MeshRun

from certs.authority import open_authority

REDIS = shutil.which("redis-server")
POSTGRES = max((str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None)


@pytest.fixture(scope="session")
def bytes_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """client, bytes, socket; and redis, postgres if there are any."""
    mesh = MeshRun(tmp_path_factory.mktemp("bytes"), "bytes")
    mesh.write("client", account("client"), deployment("client", "echo_app", 8080, mesh.ledger))
    own = open_authority(mesh.home / "own", "own.example", time.time())
    chain, key = certificate(own, dns=("own.e2e",))
    (mesh.ledger / "own.pem").write_bytes(chain)
    (mesh.ledger / "own.key").write_bytes(key)
    (mesh.ledger / "own-root.pem").write_text(own.bundle.pem)
    ports = [("mail", 2525, 2525, ""), ("declared", 25, 2525, "tcp"), ("both", 7003, 7003, ""), ("ends", 7004, 7004, "")]
    ports += [("echo", 7005, 7005, "tcp"), ("detected", 7006, 7005, ""), ("own", 7443, 7443, "")]
    mesh.write("bytes", account("bytes"), deployment("bytes", "bytes_app", 7005, mesh.ledger), tcp_service("bytes", ports))
    ports = [("main", 80, 8080, "kubernetes.io/ws"), ("raw", 8082, 8082, "kubernetes.io/ws")]
    mesh.write("socket", account("socket"), deployment("socket", "socket_app", 8080, mesh.ledger), tcp_service("socket", ports))
    if REDIS:
        command = [REDIS, "--bind", "$(POD_IP)", "--port", "6379", "--save", "", "--appendonly", "no", "--protected-mode", "no"]
        mesh.write(
            "redis",
            account("redis"),
            program("redis", command, 6379, mesh.ledger),
            tcp_service("redis", [("main", 6379, 6379, "")]),
        )
    data = Path(tempfile.mkdtemp(prefix="mesh-postgres-"))
    try:
        if POSTGRES:
            command = database(data, chain, key)
            app = program("postgres", command, 5432, mesh.ledger)
            mesh.write("postgres", account("postgres"), app, tcp_service("postgres", [("main", 5432, 5432, "")]))
        try:
            mesh.start()
            yield mesh
        finally:
            mesh.end()
    finally:
        shutil.rmtree(data, ignore_errors=True)


def tcp_service(name: str, ports: list[tuple[str, int, int, str]]) -> Object:
    """`ports`: (name, port, targetPort, appProtocol)."""
    made = service(name)
    made["spec"]["ports"] = [
        {"name": name, "port": port, "targetPort": target} | ({"appProtocol": protocol} if protocol else {})
        for name, port, target, protocol in ports
    ]
    return made


def program(name: str, command: list[str], port: int, ledger: Path) -> Object:
    made = deployment(name, "echo_app", port, ledger)
    container = made["spec"]["template"]["spec"]["containers"][0]
    container["command"] = command
    container["env"].append({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    container["readinessProbe"] = {"tcpSocket": {"port": "main"}, "periodSeconds": 1}
    return made


def database(data: Path, chain: bytes, key: bytes) -> list[str]:
    """A PostgreSQL cluster in `data`; the command that serves it.  It refuses to run as root: then it runs as its own user."""
    assert POSTGRES is not None
    (data / "own.pem").write_bytes(chain)
    (data / "own.key").write_bytes(key)
    (data / "own.key").chmod(0o600)
    user: list[str] = []
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        for path in (data, *data.iterdir()):
            os.chown(path, entry.pw_uid, entry.pw_gid)
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    cluster = data / "cluster"
    initdb = [*user, str(Path(POSTGRES).with_name("initdb"))]
    subprocess.run(
        [*initdb, "-D", str(cluster), "-U", "test", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd="/",
    )
    with (cluster / "pg_hba.conf").open("a") as file:
        file.write("host all all 127.0.0.0/8 trust\n")
    options = {
        "listen_addresses": "$(POD_IP)",
        "unix_socket_directories": "",
        "fsync": "off",
        "max_connections": "40",
        "ssl": "on",
        "ssl_cert_file": str(data / "own.pem"),
        "ssl_key_file": str(data / "own.key"),
    }
    return [
        *user,
        POSTGRES,
        "-D",
        str(cluster),
        *[word for name, value in options.items() for word in ("-c", f"{name}={value}")],
    ]
