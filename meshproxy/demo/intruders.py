"""Two calls to a pod's inbound port that must be refused, made as an attacker on the same machine would.

    plaintext   a request that claims an identity in a header              -> no answer of the app
    forged      TLS with a certificate for the right name, by a wrong CA   -> no byte of application data

Refused means that the peer said no: it closed, reset, sent a TLS alert or an HTTP error.  Silence is not a refusal.
Whether the app was reached is known from the ledger as well: the request ids here are not among those sent by clients.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
import time
from pathlib import Path

from certs.authority import open_authority
from certs.context import MESH_ALPN
from certs.issue import issue_svid
from certs.spiffe import SpiffeId
from meshproxy.demo.observed import Intrusion

PATIENCE_S = 5.0
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # and empty SETTINGS


async def plaintext(address: str, port: int, claimed: str) -> Intrusion:
    """Ask for a product without TLS, claiming to be `claimed`."""
    what = "plaintext"
    request = (
        f"GET /product HTTP/1.1\r\nHost: catalogue.shop\r\nx-request-id: intruder-plaintext\r\n"
        f"mesh-client-id: {claimed}\r\nl5d-client-id: {claimed}\r\nConnection: close\r\n\r\n"
    )
    try:
        answer = await asyncio.wait_for(_exchange(address, port, request.encode(), None), PATIENCE_S)
    except TimeoutError:
        return Intrusion(what, False, f"{address}:{port} neither answered nor refused in {PATIENCE_S:g} s")
    except ConnectionRefusedError:
        return Intrusion(what, False, f"nobody listens on {address}:{port}")
    except OSError as error:
        return Intrusion(what, True, f"connection broken off ({error.strerror or error})")
    if not answer:
        return Intrusion(what, True, "connection closed without a word")
    status = answer.split(b"\r\n", 1)[0].decode("ascii", "replace")
    number = status.split(" ")[1] if status.startswith("HTTP/1.") and " " in status else ""
    return Intrusion(what, number in ("400", "401", "403"), status)


async def forged(address: str, port: int, trust_domain: str, claimed: SpiffeId) -> Intrusion:
    """Call with a certificate that names `claimed` but was issued by an authority of our own making."""
    what = "forged certificate"
    with tempfile.TemporaryDirectory(prefix="meshproxy-forger-") as directory:
        context = _forge(Path(directory), trust_domain, claimed)
    try:
        answer = await asyncio.wait_for(_exchange(address, port, HTTP2_PREFACE, context), PATIENCE_S)
    except TimeoutError:
        return Intrusion(what, False, f"{address}:{port} neither answered nor refused in {PATIENCE_S:g} s")
    except ConnectionRefusedError:
        return Intrusion(what, False, f"nobody listens on {address}:{port}")
    except ssl.SSLError as error:
        return Intrusion(what, True, f"TLS alert: {(error.reason or str(error)).lower().replace('_', ' ')}")
    except OSError as error:
        return Intrusion(what, True, f"connection broken off ({error.strerror or error})")
    if not answer:
        return Intrusion(what, True, "connection closed without a word")
    return Intrusion(what, False, f"got {len(answer)} bytes of application data")


def _forge(directory: Path, trust_domain: str, claimed: SpiffeId) -> ssl.SSLContext:
    now = time.time()
    svid = issue_svid(open_authority(directory / "authority", trust_domain, now), claimed, now)
    # The keys of this authority are worth nothing, so unlike the mesh's own they may touch the disk.
    (directory / "chain.pem").write_bytes(svid.chain_pem)
    (directory / "key.pem").write_bytes(svid.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an attacker does not mind whom it talks to
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([MESH_ALPN])
    context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    return context


async def _exchange(address: str, port: int, request: bytes, context: ssl.SSLContext | None) -> bytes:
    """Send, and read what comes until the peer ends or 4 KiB are there.  Raises OSError (ssl.SSLError is one)."""
    reader, writer = await asyncio.open_connection(address, port, ssl=context)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read(4096)
    finally:
        writer.transport.abort()
