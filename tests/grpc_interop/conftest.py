"""One interop server in each place, and the ways to it: directly, through `forward`, through two sidecars of a real mesh, and
through two on the reference engine.

Every case runs all ways with the same expectation, so that the direct way proves what is expected of the others.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from interop_ways import HERE, Process, Way, Ways, channel_to
from loopback_ports import free_port

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh_e2e"))  # its meshes are ours too

from mesh_manifests import account, deployment, service
from mesh_run import MeshRun


def served(app: str) -> Iterator[str]:
    """The address of a server of its own process."""
    process = Process(str(HERE / f"{app}.py"), "127.0.0.1:0", word="serving")
    yield f"127.0.0.1:{process.said.split()[1]}"
    process.stop()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    yield from served("interop_app")


@pytest.fixture(scope="session")
def misbehaving() -> Iterator[str]:
    yield from served("negative_app")


def forwarded(target: str) -> Iterator[Way]:
    port, admin = free_port(), free_port()
    process = Process(
        "-m", "meshproxy", "forward", f"127.0.0.1:{port}", target, "--upstream", "http2", "--admin", f"127.0.0.1:{admin}",
        word="forwarding", errors=True,
    )  # fmt: skip
    yield Way("forward", f"127.0.0.1:{port}", f"127.0.0.1:{admin}")
    said = process.stop()
    assert not [line for line in said if "internal error" in line or "Traceback" in line], "\n".join(said)


@pytest.fixture(scope="session")
def forward(server: str) -> Iterator[Way]:
    yield from forwarded(server)


@pytest.fixture(scope="session")
def forward_to_misbehaving(misbehaving: str) -> Iterator[Way]:
    yield from forwarded(misbehaving)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshRun]:
    """Two sidecars on the way: the client's service listener, mTLS, the server's inbound."""
    run = MeshRun(tmp_path_factory.mktemp("interop"), "interop")
    run.write("client", account("client"), deployment("client", "echo_app", 8080, run.ledger))
    for name, app in (("interop", "interop_app"), ("negative", "negative_app")):
        made = deployment(name, app, 9090, run.ledger)
        made["spec"]["template"]["spec"]["containers"][0]["command"] = ["python3", str(HERE / f"{app}.py")]
        run.write(name, account(name), made, service(name, 9090, app_protocol="grpc"))
    try:
        run.start()
        yield run
        for name in ("client", "interop", "negative"):
            assert run.metrics(run.pod(name).ip).total("meshproxy_internal_errors_total") == 0
    finally:
        run.end()


def listener(run: MeshRun, service_name: str) -> Way:
    client = run.pod("client")
    around = run.environment_of(client)
    name = service_name.upper()
    return Way("mesh", f"{around[f'{name}_SERVICE_HOST']}:{around[f'{name}_SERVICE_PORT']}", f"{client.ip}:4191")


@pytest.fixture(scope="session")
def mesh(running: MeshRun) -> Way:
    return listener(running, "interop")


@pytest.fixture(scope="session")
def reference(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Two sidecars' data paths, both on the reference engine (`--http2-engine h2`)."""
    port = free_port()
    directory = tmp_path_factory.mktemp("reference") / "authority"
    pair = str(HERE.parent / "conformance" / "sidecar_pair.py")
    target = server.rpartition(":")[2]
    process = Process(pair, str(port), target, str(directory), "h2", word="forwarding", errors=True)
    yield Way("reference", f"127.0.0.1:{port}")
    said = process.stop()
    assert not [line for line in said if "internal error" in line or "Traceback" in line], "\n".join(said)


@pytest.fixture(params=["direct", "forward", "mesh", "reference"])
def way(request: pytest.FixtureRequest, server: str) -> Way:
    if request.param == "direct":
        return Way("direct", server)
    found: Way = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def channel(way: Way) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to(way.address) as opened:
        yield opened


@pytest.fixture(params=["forward", "mesh"])
def negative(request: pytest.FixtureRequest, misbehaving: str) -> Ways:
    if request.param == "forward":
        way = request.getfixturevalue("forward_to_misbehaving")
    else:
        way = listener(request.getfixturevalue("running"), "negative")
    return Ways(way.name, misbehaving, way.address, way.admin)
