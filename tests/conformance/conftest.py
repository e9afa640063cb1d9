"""Chains of real proxies; one per test module and shape.

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
from collections.abc import Iterator
from pathlib import Path

import pytest
from forward_process import TLS_PORTS, Forward, Sidecars
from recorders import Http1Recorder, Http2Recorder, RecordingBackend

from certs.authority import Authority, open_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId

CHAINS = ["http1 backend", "tls client", "http2 backend", "http1 between", "http2 between", "mtls between", "sidecars"]


class Chain:
    """Client -> forward [-> forward] -> recorder."""

    def __init__(self, name: str, forwards: list[Forward], backend: RecordingBackend) -> None:
        self.name = name
        self.forwards = forwards
        self.backend = backend
        self.port = forwards[0].port

    def stop(self) -> None:
        try:
            for forward in self.forwards:
                forward.stop()
        finally:
            self.backend.stop()


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


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    backend = RecordingBackend(Http2Recorder if request.param == "http2 backend" else Http1Recorder)
    made = Chain(request.param, make_forwards(request.param, backend.port, tmp_path_factory.mktemp("chain")), backend)
    yield made
    made.stop()
