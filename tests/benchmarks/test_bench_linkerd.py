"""What can be checked of the Linkerd peer without its binary: the stub's names, and that a missing binary is said."""

from __future__ import annotations

import pytest

from benchmarks.linkerd import pair, stub
from benchmarks.peers.linkerd import Linkerd


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
