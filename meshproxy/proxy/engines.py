"""Which engine for which connection: the one place where engines are named."""

from __future__ import annotations

from typing import Final

from meshproxy.proxy.settings import Settings
from meshproxy.wire.engine import Engine, Host
from meshproxy.wire.http1 import Http1Client, Http1Server
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.opaque import OpaqueClient, OpaqueServer

KIND_HTTP1: Final = 1
KIND_HTTP2: Final = 2
KIND_OPAQUE: Final = 3


def client_engine(host: Host, kind: int, settings: Settings) -> Engine:
    if kind == KIND_HTTP1:
        return Http1Client(host, settings.limits)
    if kind == KIND_OPAQUE:
        return OpaqueClient(host)
    if settings.http2_engine == "h2":
        from meshproxy.wire.h2_adapter import H2Client  # the reference engine is not imported unless asked for

        return H2Client(host, settings.limits)
    return Http2Client(host, settings.limits)


def server_engine(
    host: Host, kind: int, settings: Settings, authority: bytes = b"", mesh: bool = False, vouched: bool = False
) -> Engine:
    """`authority` is where opaque bytes are to go; `mesh`: the client has a verified identity; `vouched`: that, or it is the
    pod's own app."""
    if kind == KIND_HTTP1:
        return Http1Server(host, settings.limits)
    if kind == KIND_OPAQUE:
        return OpaqueServer(host, authority)
    if settings.http2_engine == "h2":
        from meshproxy.wire.h2_adapter import H2Server

        return H2Server(host, settings.limits, mesh, vouched)
    return Http2Server(host, settings.limits, mesh, vouched)
