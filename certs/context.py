"""ssl.SSLContexts for our uses: between proxies (mTLS), and for `forward` (a user's own certificates).

    Svid + TrustBundle   -> mesh_contexts()                          TLS 1.3, ALPN meshproxy/1, both sides certified
    Material             -> server_context(), client_context()       TLS 1.3, ALPN h2 and http/1.1

No context checks host names: a peer is its URI SAN, which OpenSSL does not compare.  After the handshake the caller
asks `certs.verify.check_leaf` and compares the answer with the identity expected for the endpoint.
Session tickets are off: a resumed session would outlive the certificate that opened it, and the anchors' rotation.

The stdlib loads keys from file names only.  Ours are written to a memfd, which has a name under /proc and no disk below it.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from certs.bundle import TrustBundle
from certs.svid import Svid

MESH_ALPN: Final = "meshproxy/1"
HTTP_ALPN: Final = ("h2", "http/1.1")
CACHED: Final = 8  # context pairs: current and previous leaf, before and after a rotation; the rest is slack


@dataclass(frozen=True, slots=True)
class MeshContexts:
    """What a proxy uses for new connections: `server` inbound, `client` outbound."""

    server: ssl.SSLContext
    client: ssl.SSLContext


_cache: dict[tuple[bytes, str], MeshContexts] = {}


def mesh_contexts(svid: Svid, bundle: TrustBundle) -> MeshContexts:
    """The two contexts for an identity and the anchors its peers must chain to; the same objects for equal arguments.

    Raises ssl.SSLError if OpenSSL refuses the material (it was checked when made, so that is a bug)."""
    key = (hashlib.sha256(svid.leaf_der).digest(), bundle.digest)
    found = _cache.get(key)
    if found is None:
        found = MeshContexts(
            _context(ssl.PROTOCOL_TLS_SERVER, svid.chain_pem, svid.key_pem, bundle.pem, (MESH_ALPN,), strict=True),
            _context(ssl.PROTOCOL_TLS_CLIENT, svid.chain_pem, svid.key_pem, bundle.pem, (MESH_ALPN,), strict=True),
        )
        if len(_cache) >= CACHED:
            del _cache[next(iter(_cache))]  # oldest first
        _cache[key] = found
    return found


def server_context(
    chain_pem: bytes, key_pem: bytes, client_ca_pem: bytes | None, alpn: Sequence[str] = HTTP_ALPN
) -> ssl.SSLContext:
    """Serve TLS 1.3 with this certificate; with `client_ca_pem` demand one from the client.  Raises ssl.SSLError."""
    anchors = None if client_ca_pem is None else client_ca_pem.decode("ascii", "ignore")
    return _context(ssl.PROTOCOL_TLS_SERVER, chain_pem, key_pem, anchors, alpn)


def client_context(
    chain_pem: bytes | None, key_pem: bytes | None, ca_pem: bytes, alpn: Sequence[str] = HTTP_ALPN
) -> ssl.SSLContext:
    """Speak TLS 1.3 to servers under `ca_pem`, showing a certificate if there is one.  Names are not compared.
    Raises ssl.SSLError."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, chain_pem, key_pem, ca_pem.decode("ascii", "ignore"), alpn)


def _context(
    protocol: int,
    chain_pem: bytes | None,
    key_pem: bytes | None,
    anchors_pem: str | None,
    alpn: Sequence[str],
    strict: bool = False,
) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if anchors_pem is None else ssl.CERT_REQUIRED
    if strict:  # RFC 5280 to the letter; only for certificates of our own making
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    if anchors_pem is not None:
        context.load_verify_locations(cadata=anchors_pem)
    if chain_pem is not None and key_pem is not None:
        with _as_file(chain_pem + b"\n" + key_pem) as path:
            context.load_cert_chain(path)
    context.set_alpn_protocols(list(alpn))
    context.options |= ssl.OP_NO_TICKET
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    return context


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """A name under which OpenSSL can read `data` while the block runs, in memory on Linux."""
    memfd = _memfd(data)
    if memfd is not None:
        try:
            yield f"/proc/self/fd/{memfd}"
        finally:
            os.close(memfd)
        return
    # No memfd or no /proc: a 0600 file, on tmpfs where there is one, gone when the block ends.
    import tempfile  # here because it is 0.6 MB (shutil, bz2, lzma) that a sidecar on Linux never needs

    shm = "/dev/shm"
    descriptor, path = tempfile.mkstemp(prefix="meshproxy-", dir=shm if os.access(shm, os.W_OK) else None)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield path
    finally:
        os.unlink(path)


def _memfd(data: bytes) -> int | None:
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    except OSError:  # a seccomp filter may forbid it
        return None
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return descriptor
