"""gRPC channels to the control plane: TLS, its DNS name checked against our anchors, silence noticed.

grpc.aio runs on the proxy's own loop, uvloop included.  Its C core polls on a thread of its own and wakes the loop through
a socket pair; the known spurious BlockingIOError (grpc #25364) needs several loops in one process, and a proxy has one.
The alternative, grpc's blocking API on a thread with call_soon_threadsafe, means a thread for each stream and cannot be
cancelled cleanly; it bought nothing in our tests.
"""

from __future__ import annotations

from typing import Final

import grpc

from certs.bundle import TrustBundle
from certs.svid import Svid
from control.api.names import CONTROL_DNS_NAME, MAX_MESSAGE_BYTES

_OPTIONS: Final[list[tuple[str, int | str]]] = [
    ("grpc.ssl_target_name_override", CONTROL_DNS_NAME),  # an address is dialled, a name is checked
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # no connection, and no back-off, shared with an earlier channel
    ("grpc.enable_retries", 0),  # a token is good for one use; the callers retry, with a fresh one
    ("grpc.enable_http_proxy", 0),  # the pod's http_proxy is this very sidecar
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


def open_channel(target: str, bundle: TrustBundle, svid: Svid | None = None) -> grpc.aio.Channel:
    """A channel to `target` (host:port), showing `svid` if there is one.  Connects on first use; the caller closes it."""
    credentials = grpc.ssl_channel_credentials(
        bundle.pem.encode(),
        svid.key_pem if svid is not None else None,
        svid.chain_pem if svid is not None else None,
    )
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


def describe(error: grpc.aio.AioRpcError) -> str:
    """One line for a log and for /ready: status and reason, never request data."""
    return f"{error.code().name}: {error.details() or 'no details'}"[:500]
