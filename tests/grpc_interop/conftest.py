"""One interop server in each place, and the ways to it: directly, through `forward`, through two sidecars of a real mesh.

Every case runs all ways with the same expectation, so that the direct way proves what is expected of the others.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from interop_ways import HERE, OPTIONS, Process, Way, channel_to
from loopback_ports import free_port

sys.path.insert(0, str(Path(__file__).parents[1] / "mesh_e2e"))  # its meshes are ours too

from mesh_manifests import account, deployment, service
from mesh_run import MeshRun

__all__ = ["OPTIONS"]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server of its own process."""
    process = Process(str(HERE / "interop_app.py"), "127.0.0.1:0", word="serving")
    yield f"127.0.0.1:{process.said.split()[1]}"
    process.stop()


@pytest.fixture(scope="session")
def forward(server: str) -> Iterator[Way]:
    port, admin = free_port(), free_port()
    process = Process(
        "-m", "meshproxy", "forward", f"127.0.0.1:{port}", server, "--upstream", "http2", "--admin", f"127.0.0.1:{admin}",
        word="forwarding", errors=True,
    )  # fmt: skip
    yield Way("forward", f"127.0.0.1:{port}", f"127.0.0.1:{admin}")
    said = process.stop()
    assert not [line for line in said if "internal error" in line or "Traceback" in line], "\n".join(said)


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """Two sidecars: the client's service listener, mTLS, the server's inbound."""
    run = MeshRun(tmp_path_factory.mktemp("interop"), "interop")
    run.write("client", account("client"), deployment("client", "echo_app", 8080, run.ledger))
    app = deployment("interop", "interop_app", 9090, run.ledger)
    app["spec"]["template"]["spec"]["containers"][0]["command"] = ["python3", str(HERE / "interop_app.py")]
    run.write("interop", account("interop"), app, service("interop", 9090, app_protocol="grpc"))
    try:
        run.start()
        client, pod = run.pod("client"), run.pod("interop")
        around = run.environment_of(client)
        address = f"{around['INTEROP_SERVICE_HOST']}:{around['INTEROP_SERVICE_PORT']}"
        yield Way("mesh", address, f"{client.ip}:4191", f"{pod.ip}:4191")
        for ip in (client.ip, pod.ip):
            assert run.metrics(ip).total("meshproxy_internal_errors_total") == 0
    finally:
        run.end()


@pytest.fixture(params=["direct", "forward", "mesh"])
def way(request: pytest.FixtureRequest, server: str) -> Way:
    if request.param == "direct":
        return Way("direct", server)
    found: Way = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def channel(way: Way) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to(way.address) as opened:
        yield opened
