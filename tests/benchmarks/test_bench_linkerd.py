"""linkerd2-proxy with the stub as its control plane: it must really do what it is measured doing."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from benchmarks import backend, measure
from benchmarks.linkerd import pair, stub
from benchmarks.network import Network
from benchmarks.peers.linkerd import Linkerd
from benchmarks.peers.peer import Backend

needs_linkerd = pytest.mark.skipif(bool(pair.missing()), reason=pair.missing())


APP = (sys.executable, str(Path(backend.__file__)))


def get(network: Network, authority: str) -> bytes:
    with network.inside(), socket.create_connection(measure.split(pair.SERVICE), 10) as client:
        client.sendall(f"GET /x HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer


def metric(text: str, name: str, *labels: str) -> float:
    """The sum of the series of `name` that have all these labels."""
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and all(label in line for label in labels)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@needs_linkerd
def test_linkerd_carries_a_request_over_mutual_tls_between_two_proxies(tmp_path: Path) -> None:
    with pair.two_hops(APP, tmp_path) as (a, b):
        answer = get(a.network, pair.AUTHORITY)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(backend.BODY)
        identity = 'server_id="b.bench.serviceaccount.identity.linkerd.cluster.local"'
        assert metric(a.metrics(), "request_total", 'direction="outbound"', 'tls="true"', identity) == 1
        caller = 'client_id="spiffe://bench.example/ns/bench/sa/a"'
        assert metric(b.metrics(), "request_total", 'direction="inbound"', 'tls="true"', caller) == 1
        assert metric(b.metrics(), "inbound_http_authz_allow_total", 'authz_kind="AuthorizationPolicy"', caller) == 1


@needs_linkerd
def test_linkerd_as_one_hop_is_the_outbound_proxy_alone(tmp_path: Path) -> None:
    with Linkerd().one_hop("h1", "", [Backend("", APP)], tmp_path) as running:
        assert running.network is not None
        assert get(running.network, running.authority).endswith(backend.BODY)
        assert set(running.pids) == {"A"}


def test_without_a_binary_linkerd_is_reported_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(pair.BINARY, raising=False)
    assert pair.BINARY in Linkerd().missing()
    monkeypatch.setenv(pair.BINARY, "/nowhere/linkerd2-proxy")
    assert "/nowhere/linkerd2-proxy" in Linkerd().missing()


def test_the_stub_speaks_the_public_apis_names() -> None:
    """A service under another name would be UNIMPLEMENTED to the proxy."""
    from benchmarks.linkerd.api import destination_pb2, identity_pb2, inbound_pb2, outbound_pb2

    services = {
        service.full_name: [method.name for method in service.methods]
        for module in (destination_pb2, identity_pb2, inbound_pb2, outbound_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert services == {
        "io.linkerd.proxy.destination.Destination": ["Get", "GetProfile"],
        "io.linkerd.proxy.identity.Identity": ["Certify"],
        "io.linkerd.proxy.inbound.InboundServerPolicies": ["GetPort", "WatchPort"],
        "io.linkerd.proxy.outbound.OutboundPolicies": ["Get", "Watch"],
    }


def test_an_unknown_destination_has_no_endpoints() -> None:
    table = stub.Table("", "x", "10.0.0.1:80", "a.b:80", ["10.0.1.1:8080"], "server", {}, [], [])
    assert stub.endpoints(table, "other:80").no_endpoints.exists is False
    known = stub.endpoints(table, "a.b:80").add.addrs
    assert [(endpoint.addr.ip.ipv4, endpoint.addr.port) for endpoint in known] == [(0x0A000101, 8080)]
    assert known[0].tls_identity.dns_like_identity.name == "server"
