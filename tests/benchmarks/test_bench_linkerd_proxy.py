"""linkerd2-proxy with the stub as its control plane: it must really do what it is measured doing.

Collected only where LINKERD2_PROXY_BIN names a binary (conftest.py): no registry of packages has one.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from benchmarks import backend, measure
from benchmarks.linkerd import pair
from benchmarks.network import Network
from benchmarks.peers.linkerd import Linkerd
from benchmarks.peers.peer import Backend

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


def test_linkerd_as_one_hop_is_the_outbound_proxy_alone(tmp_path: Path) -> None:
    with Linkerd().one_hop("h1", "", [Backend("", APP)], tmp_path) as running:
        assert running.network is not None
        assert get(running.network, running.authority).endswith(backend.BODY)
        assert set(running.pids) == {"A"}
