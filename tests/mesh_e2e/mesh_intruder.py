"""Certificates good and bad, and callers that show them: what knocks at an inbound port."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from certs.authority import Authority

PATIENCE = 10.0


def certificate(
    authority: Authority, *, uris: tuple[str, ...] = (), dns: tuple[str, ...] = (), ends: float = 3600.0
) -> tuple[bytes, bytes]:
    """A leaf signed by this authority, with any names: (chain, key) in PEM.  `ends`: seconds from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.fromtimestamp(time.time(), UTC)
    names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(name) for name in dns]
    bits = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=600))
        .not_valid_after(now + timedelta(seconds=ends))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **bits), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    chain = leaf.public_bytes(Encoding.PEM) + authority.issuer.public_bytes(Encoding.PEM)
    return chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def client_context(directory: Path, material: tuple[bytes, bytes] | None, alpn: tuple[str, ...]) -> ssl.SSLContext:
    """A caller that does not mind whom it talks to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _load(context, directory, material, alpn)
    return context


def server_context(directory: Path, material: tuple[bytes, bytes], alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, directory, material, alpn)
    return context


def _load(context: ssl.SSLContext, directory: Path, material: tuple[bytes, bytes] | None, alpn: tuple[str, ...]) -> None:
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if material is not None:
        (directory / "chain.pem").write_bytes(material[0])
        (directory / "key.pem").write_bytes(material[1])
        context.load_cert_chain(directory / "chain.pem", directory / "key.pem")


@dataclass(frozen=True)
class Reply:
    """`refused`: why there was no answer at all ("" if there was one)."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    refused: str = ""

    @property
    def mesh_error(self) -> str:
        return dict(self.headers).get("mesh-error", "")


async def call(
    address: str, context: ssl.SSLContext | None, path: str, headers: tuple[tuple[str, str], ...] = (), port: int = 4143
) -> Reply:
    """One HTTP/2 GET, sent without waiting for anything, as a careless or hostile peer would."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(address, port, ssl=context)
            try:
                return await _exchange(reader, writer, path, headers)
            finally:
                writer.transport.abort()
    except OSError as error:  # ssl.SSLError is one
        return Reply(refused=getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, headers: tuple[tuple[str, str], ...]
) -> Reply:
    h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    h2.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":authority", "web.e2e"), (":path", path), *headers]
    h2.send_headers(1, head, end_stream=True)
    writer.write(h2.data_to_send())
    await writer.drain()
    status, found, body = 0, (), b""
    while data := await reader.read(65536):
        for event in h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                fields = tuple((str(name), str(value)) for name, value in event.headers)
                status, found = int(dict(fields)[":status"]), fields
            elif isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, StreamReset):
                return Reply(refused=f"stream reset {event.error_code}")
            elif isinstance(event, StreamEnded):
                return Reply(status, found, body)
        writer.write(h2.data_to_send())
    return Reply(refused="closed")


def leaf_of(address: str, context: ssl.SSLContext, port: int = 4143) -> x509.Certificate:
    """The certificate a server shows."""
    import socket

    with socket.create_connection((address, port), PATIENCE) as plain, context.wrap_socket(plain) as secured:
        der = secured.getpeercert(True)
    assert der is not None
    return x509.load_der_x509_certificate(der)
