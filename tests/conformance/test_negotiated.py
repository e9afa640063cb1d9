"""What TLS agreed on is binding (RFC 9113 3.3): after ALPN h2 nothing but HTTP/2 is spoken."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forward_process import Forward, Reader, connect
from http2_peer import GOAWAY, PROTOCOL_ERROR
from recorders import RecordingBackend

from certs.authority import open_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Forward, RecordingBackend]]:
    authority = open_authority(tmp_path / "authority", "mesh.test", time.time())
    svid = issue_svid(authority, SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/web"), time.time())
    served = tmp_path / "web"
    served.mkdir()
    (served / "cert.pem").write_bytes(svid.chain_pem)
    (served / "key.pem").write_bytes(svid.key_pem)
    (served / "key.pem").chmod(0o600)
    backend = RecordingBackend()
    forward = Forward(backend.port, "--tls", str(served))
    yield forward, backend
    forward.stop()
    backend.stop()


def agreed(port: int, *protocols: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(connect(port))


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: svc.test\r\n\r\n", b"\x00\x01 a protocol of its own, long enough"])
def test_after_h2_was_agreed_on_other_bytes_are_a_connection_error(tls: tuple[Forward, RecordingBackend], data: bytes) -> None:
    forward, backend = tls
    with agreed(forward.port, "h2") as sock:
        assert sock.selected_alpn_protocol() == "h2"
        sock.sendall(data)
        said = b""
        while part := receive(sock):
            said += part
    at = 0
    frames = []
    while at < len(said):
        size = int.from_bytes(said[at : at + 3], "big")
        frames.append((said[at + 3], said[at + 9 : at + 9 + size]))
        at += 9 + size
    kind, payload = frames[-1]
    assert (kind, int.from_bytes(payload[4:8], "big")) == (GOAWAY, PROTOCOL_ERROR)
    backend.settle()
    assert [bytes(recorder.raw) for recorder in backend.recorders] == []


def receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except (ConnectionError, ssl.SSLEOFError):
        return b""


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_without_h2_http1_is_served(tls: tuple[Forward, RecordingBackend], protocols: tuple[str, ...]) -> None:
    forward, _ = tls
    with agreed(forward.port, *protocols) as sock:
        sock.sendall(b"GET /it HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        answer = Reader(sock).answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"echo GET /it 0")
