"""Proxies in front of a backend, in the shapes that tests ask for.

http1 backend      client -> forward -> backend
tls client         client ==TLS==> forward -> backend
http2 backend      client -> forward -> HTTP/2 backend
http1 between      client -> forward -> forward -> backend
http2 between      client -> forward ==h2c==> forward -> backend
mtls between       client -> forward ==mTLS, h2==> forward -> backend
sidecars           client -> outbound ==mesh mTLS==> inbound -> backend
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from forward_process import TLS_PORTS, Forward, Sidecars

from certs.authority import Authority, open_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId

CHAINS = ["http1 backend", "tls client", "http2 backend", "http1 between", "http2 between", "mtls between", "sidecars"]


def certificates(authority: Authority, directory: Path, name: str) -> str:
    """A directory as `--mtls` and `--upstream-mtls` take it."""
    svid = issue_svid(authority, SpiffeId.parse(f"spiffe://mesh.test/ns/shop/sa/{name}"), time.time())
    made = directory / name
    made.mkdir()
    (made / "cert.pem").write_bytes(svid.chain_pem)
    (made / "key.pem").write_bytes(svid.key_pem)
    (made / "key.pem").chmod(0o600)
    (made / "ca.pem").write_text(authority.bundle.pem)
    return str(made)


class Backend(Protocol):
    def stop(self) -> None: ...


def end_chain(forwards: Sequence[Forward], backend: Backend) -> None:
    """The proxies, then what is behind them, whatever the proxies' end is like."""
    with ExitStack() as ends:
        ends.callback(backend.stop)
        for forward in reversed(forwards):
            ends.callback(forward.stop)


def make_forwards(name: str, backend: int, directory: Path) -> list[Forward]:
    """The proxies of a chain in front of the port `backend`, the client's first."""
    if name == "http1 backend":
        return [Forward(backend)]
    if name == "http2 backend":
        return [Forward(backend, "--upstream", "http2")]
    if name == "sidecars":
        return [Sidecars(backend, str(directory / "authority"))]
    authority = open_authority(directory / "authority", "mesh.test", time.time())
    if name == "tls client":
        made = Forward(backend, "--tls", certificates(authority, directory, "svc"))
        TLS_PORTS.add(made.port)
        return [made]
    if name == "mtls between":
        inner = Forward(backend, "--mtls", certificates(authority, directory, "svc"))
        outer = Forward(inner.port, "--upstream", "http2", "--upstream-mtls", certificates(authority, directory, "web"))
        return [outer, inner]
    inner = Forward(backend)
    return [Forward(inner.port, "--upstream", "http2" if name == "http2 between" else "http1"), inner]
