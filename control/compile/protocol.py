"""appProtocol of a Service port -> what the proxies expect on it."""

from __future__ import annotations

from control.api import mesh_pb2
from control.resources.core import OPAQUE_PROTOCOLS

# Kubernetes' own names, Linkerd's, and the IANA service names people write.
_KNOWN: dict[str, mesh_pb2.Protocol] = {
    "": mesh_pb2.DETECT,
    "http": mesh_pb2.HTTP1,
    "kubernetes.io/ws": mesh_pb2.HTTP1,  # begins as HTTP/1.1
    "kubernetes.io/h2c": mesh_pb2.HTTP2,
    "h2c": mesh_pb2.HTTP2,
    "http2": mesh_pb2.HTTP2,
    "grpc": mesh_pb2.HTTP2,
    **dict.fromkeys(OPAQUE_PROTOCOLS, mesh_pb2.OPAQUE),
}


def protocol(app_protocol: str) -> mesh_pb2.Protocol | None:
    """None for a name we do not know: the caller detects, and says so."""
    return _KNOWN.get(app_protocol.lower())
