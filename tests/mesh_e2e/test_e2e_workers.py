"""A pod whose sidecar has two workers: nobody notices, also when one is killed, renewed or told something new."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mesh_load import Load
from mesh_manifests import Object, account, deployment, service
from mesh_run import MeshRun, fetch, request, until, until_async

LIFETIME = 5  # seconds, of certificates
CONNECTIONS = 24  # the kernel deals them out by hash: that all go to one of two workers happens once in 2 ** 23


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    found = MeshRun(tmp_path_factory.mktemp("workers"), "workers")
    for name in ("client", "web"):
        found.write(name, account(name), two_workers(deployment(name, "echo_app", 8080, found.ledger)), service(name))
    found.write("quiet", service("quiet", selector={"app": "web"}))
    try:
        found.start("--leaf-lifetime", str(LIFETIME))
        yield found
    finally:
        found.end()


def two_workers(obj: Object) -> Object:
    obj["spec"]["template"]["metadata"]["annotations"] = {"meshproxy.dev/workers": "2", "meshproxy.dev/explain": "true"}
    return obj


def workers(mesh: MeshRun, ip: str) -> dict[int, str]:
    """pid -> state of a sidecar's workers, as it says itself."""
    return {worker["pid"]: worker["state"] for worker in mesh.config(ip)["worker_processes"]}


def read(path: str) -> str:
    return Path(path).read_text(errors="replace")


def total(mesh: MeshRun, ip: str, name: str, **labels: str) -> float:
    return mesh.metrics(ip).total(name, **labels)


def test_every_connection_is_served_whichever_worker_takes_it_and_all_are_counted(mesh: MeshRun) -> None:
    client, web = mesh.pod("client"), mesh.pod("web")
    assert list(workers(mesh, client.ip).values()) == ["serving", "serving"]
    before = total(mesh, client.ip, "route_request_total", dst_service="web")
    served = total(mesh, web.ip, "request_total", direction="inbound", client_id="spiffe://cluster.local/ns/e2e/sa/client")
    for _ in range(CONNECTIONS):
        assert request(client.ip, 4140, "GET", "http://web.e2e/echo").status == 200
    assert total(mesh, client.ip, "route_request_total", dst_service="web") == before + CONNECTIONS
    assert (
        total(mesh, web.ip, "request_total", direction="inbound", client_id="spiffe://cluster.local/ns/e2e/sa/client")
        == served + CONNECTIONS
    )
    assert total(mesh, client.ip, "meshproxy_workers") == 2
    assert len(mesh.metrics(client.ip).values("process_resident_memory_bytes", "")) == 1


def test_workers_are_children_and_nobody_has_loaded_grpc(mesh: MeshRun) -> None:
    client = mesh.pod("client")
    parent = client.pids["sidecar"]
    for pid in (parent, *workers(mesh, client.ip)):
        loaded = read(f"/proc/{pid}/maps")
        assert "_upb" in loaded or "google/protobuf" in loaded  # it shows what was imported: this they need
        assert "cygrpc" not in loaded
    for pid in workers(mesh, client.ip):
        assert read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1] == str(parent)


def test_a_service_that_is_new_is_known_to_every_worker(mesh: MeshRun) -> None:
    client = mesh.pod("client")
    assert request(client.ip, 4140, "GET", "http://late.e2e/echo").status == 404
    mesh.write("late", service("late", selector={"app": "web"}))
    until(lambda: request(client.ip, 4140, "GET", "http://late.e2e/echo").status == 200, "the new service")
    statuses = [request(client.ip, 4140, "GET", "http://late.e2e/echo").status for _ in range(CONNECTIONS)]
    # One worker may be a moment behind the other; when the first knew it, it was on its way to both.
    assert statuses[CONNECTIONS // 2 :] == [200] * (CONNECTIONS // 2)


async def test_a_killed_worker_takes_only_its_own_requests_with_it(mesh: MeshRun) -> None:
    client = mesh.pod("client")
    parent = client.pids["sidecar"]
    mine = lambda: total(mesh, client.ip, "route_request_total", dst_service="web")  # noqa: E731
    first = workers(mesh, client.ip)
    async with Load(client.ip, "http://web.e2e/work", 120.0, prefix="killed", ms=25) as load:
        await load.more(60)
        victim = next(iter(first))
        counted = mine()
        os.kill(victim, signal.SIGKILL)
        await until_async(
            lambda: victim not in workers(mesh, client.ip) and set(workers(mesh, client.ip).values()) == {"serving"},
            "another worker in its place",
        )
        await load.more(60)
        assert mine() >= counted  # what it had counted stays
    # 120 a second of 25 ms each are three at a time; a connection that was idle then fails the request that finds it closed.
    broken = [outcome for outcome in load.failures if outcome.status == 0]
    assert broken == load.failures
    assert len(broken) <= 20
    assert set(first) - {victim} < set(workers(mesh, client.ip))
    assert mesh.pod("client").pids["sidecar"] == parent
    assert total(mesh, client.ip, "meshproxy_worker_restarts_total") == 1
    assert total(mesh, client.ip, "meshproxy_internal_errors_total") == 0
    assert fetch(client.ip, 4191, "/ready").startswith("ready")


def test_explaining_names_the_worker_whose_state_it_is_and_a_request_can_ask_its_own(mesh: MeshRun) -> None:
    client, web = mesh.pod("client"), mesh.pod("web")
    ran = mesh.verb("explain", "GET", "http://web/echo", "--from", "client.e2e", "--name", mesh.name, "-o", "json")
    assert ran.returncode == 0, ran.stderr
    trail = json.loads(ran.stdout)
    assert (trail["workers"], trail["worker"] in (0, 1)) == (2, True)
    (endpoint,) = trail["backends"][0]["endpoints"]
    assert (endpoint["address"], endpoint["access"]["allowed"]) == (web.ip, True)
    answer = request(client.ip, 4140, "GET", "http://web.e2e/echo", headers={"mesh-explain": "1"})
    assert answer.headers["mesh-explain-trail"].startswith(f'took="{web.ip}:8080";attempts=1, service="e2e/web:80"')
    assert b"mesh-explain" not in answer.body, "what the app was sent"


def test_both_workers_use_a_renewed_certificate(mesh: MeshRun) -> None:
    client, web = mesh.pod("client"), mesh.pod("web")
    name = "identity_cert_expiration_timestamp_seconds"
    ends = max(total(mesh, ip, name) for ip in (client.ip, web.ip))
    until(lambda: min(total(mesh, ip, name) for ip in (client.ip, web.ip)) > ends + LIFETIME / 2, "renewals")
    until(lambda: time.time() > ends, "the end of the certificates that were")
    # A Service that nobody has called: each worker shakes hands anew, with what it has now.
    for _ in range(CONNECTIONS):
        assert request(client.ip, 4140, "GET", "http://quiet.e2e/echo").status == 200
    for ip in (client.ip, web.ip):
        assert total(mesh, ip, "meshproxy_tls_failures_total") == 0


def test_workers_end_with_a_parent_that_is_killed(mesh: MeshRun) -> None:
    web = mesh.pod("web")
    pids = workers(mesh, web.ip)
    os.kill(web.pids["sidecar"], signal.SIGKILL)
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the workers' end")
    until(lambda: mesh.pod("web").ready and set(workers(mesh, mesh.pod("web").ip).values()) == {"serving"}, "the pod again")
