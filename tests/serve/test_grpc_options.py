"""grpc ignores an option whose name it does not know, without a word."""

from __future__ import annotations

from pathlib import Path

from grpc._cython import cygrpc

from control.serve.server import _OPTIONS
from meshproxy.mesh.channel import KEEPALIVE_S


def test_grpc_knows_every_option_that_it_is_given() -> None:
    library = Path(cygrpc.__file__).read_bytes()
    unknown = [name for name, _ in _OPTIONS if name.encode() + b"\0" not in library]
    assert unknown == []
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms" not in library  # as its constant in C is called


def test_the_server_allows_the_pings_that_proxies_send() -> None:
    """It ends the connection ("Too many pings") for the third that comes too early."""
    assert dict(_OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"] < KEEPALIVE_S * 1000
