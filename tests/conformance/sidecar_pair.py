"""Two real sidecars' data paths in one process: an outbound side, mesh mTLS, an inbound side; no control plane.

python sidecar_pair.py PORT BACKEND DIRECTORY [ENGINE] [PORT IS]
                                                             listens on 127.0.0.1:PORT as the listener of Service svc.shop:80
                                                             does, and speaks HTTP/1.1 to 127.0.0.1:BACKEND (HTTP/2 for gRPC);
                                                             ENGINE: as --http2-engine has it; PORT IS: what is declared of
                                                             BACKEND, "http" (as if nothing is said here) or "undeclared"
"""

from __future__ import annotations

import ssl
import sys
import time
from pathlib import Path

from certs.authority import Authority, open_authority
from certs.context import mesh_contexts
from certs.issue import issue_svid
from certs.spiffe import SpiffeId
from certs.verify import check_leaf
from meshproxy.policy.retry import RetryPolicy
from meshproxy.policy.service import DETECT, HTTP1, BackendEntry, EndpointEntry, ServiceEntry
from meshproxy.policy.tables import Tables
from meshproxy.proxy.inbound import ALL_AUTHENTICATED, Inbound, InboundPort
from meshproxy.proxy.listener import Lifecycle, Listener
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.run import configure_logging, new_context, run, until_signal
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.tls import Credentials
from meshproxy.telemetry.registry import Registry

DOMAIN = "mesh.test"
SERVER_ID = f"spiffe://{DOMAIN}/ns/shop/sa/svc"
CLIENT_ID = f"spiffe://{DOMAIN}/ns/shop/sa/web"


class Identity(Credentials):
    """An SVID that is never renewed."""

    def __init__(self, authority: Authority, identity: str) -> None:
        self.contexts = mesh_contexts(issue_svid(authority, SpiffeId.parse(identity), time.time()), authority.bundle)

    def server_context(self) -> ssl.SSLContext:
        return self.contexts.server

    def client_context(self) -> ssl.SSLContext:
        return self.contexts.client

    def verify(self, leaf_der: bytes) -> str:
        return str(check_leaf(leaf_der, DOMAIN))


def tables(backend: int, inbound: int) -> Tables:
    endpoint = EndpointEntry("127.0.0.1", 80, backend, SERVER_ID, inbound)
    leaf = BackendEntry("shop", "svc", 80, 1, [endpoint])
    entry = ServiceEntry("shop", "svc", 80, DETECT, [leaf], 0.0, RetryPolicy(), "cluster.local")
    return Tables(1, {entry.key: entry}, {}, ("cluster.local",))


async def main() -> int:
    port, backend = int(sys.argv[1]), int(sys.argv[2])
    authority = open_authority(Path(sys.argv[3]), DOMAIN, time.time())
    lifecycles = []
    settings = Settings()
    settings.http2_engine = sys.argv[4] if len(sys.argv) > 4 else "ours"
    receiving = new_context(settings, Registry())
    inbound = Inbound(receiving, Identity(authority, SERVER_ID), "127.0.0.1")
    declared = DETECT if sys.argv[5:] == ["undeclared"] else HTTP1
    inbound.apply([InboundPort(backend, declared, ())], ALL_AUTHENTICATED)
    between = Listener(receiving, inbound, "127.0.0.1", 0)
    lifecycles.append(lifecycle(receiving, inbound, between))
    await lifecycles[0].start()

    sending = new_context(settings, Registry())
    outbound = Outbound(sending, Identity(authority, CLIENT_ID), "shop", frozenset())
    outbound.apply(tables(backend, between.port))
    lifecycles.append(lifecycle(sending, outbound, Listener(sending, outbound, "127.0.0.1", port, "svc.shop:80")))
    await lifecycles[1].start()
    print(f"forwarding 127.0.0.1:{port} -> 127.0.0.1:{between.port} -> 127.0.0.1:{backend}", file=sys.stderr, flush=True)
    await until_signal()
    ends = [await each.stop(linger=False) for each in reversed(lifecycles)]
    return 0 if all(ends) else 1


def lifecycle(ctx, side, listener: Listener) -> Lifecycle:
    made = Lifecycle(ctx)
    made.sides.append(side)
    made.listeners.append(listener)
    return made


if __name__ == "__main__":
    configure_logging("info")
    sys.exit(run(main))
