"""Cancelled calls by the thousand through one connection of the mesh: no other request is lost (what a count of resets would
have cost), while the same from a stranger ends its connection."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forward_process import Forward, until
from http2_peer import (
    CANCEL,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    HEADERS,
    RST_STREAM,
    Http2Client,
    RawClient,
    frame,
    get,
    literals,
    u32,
)
from recorders import Http2Recorder, RecordingBackend
from scripted_backend import Connection, ScriptedBackend

from certs.authority import Authority, open_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId


class Mesh:
    """Workloads under one authority: a directory each, with cert.pem, key.pem and ca.pem."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority: Authority = open_authority(directory / "authority", "mesh.test", time.time())

    def member(self, name: str) -> Path:
        svid = issue_svid(self.authority, SpiffeId.parse(f"spiffe://mesh.test/ns/shop/sa/{name}"), time.time())
        directory = self.directory / name
        directory.mkdir()
        (directory / "cert.pem").write_bytes(svid.chain_pem)
        (directory / "key.pem").write_bytes(svid.key_pem)
        (directory / "key.pem").chmod(0o600)
        (directory / "ca.pem").write_bytes(self.authority.bundle.pem.encode())
        return directory


def client_tls(member: Path | None, protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    if member is not None:
        context.load_cert_chain(member / "cert.pem", member / "key.pem")
    return context


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


class Backend(ScriptedBackend):
    """/hang works until it is cut off; everything else is answered."""

    def __init__(self) -> None:
        super().__init__({"/hang": self.hang})
        self.working = 0
        self.lock = threading.Lock()

    def hang(self, connection: Connection) -> None:
        with self.lock:
            self.working += 1
        try:
            connection.until_closed()
            connection.fin()
        finally:
            with self.lock:
                self.working -= 1


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.stop()


def hanging(stream_id: int) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, literals(get(b"/hang")))


def cancelled(stream_id: int) -> bytes:
    return frame(RST_STREAM, 0, stream_id, u32(CANCEL))


def test_a_peer_that_cancels_without_end_loses_nothing_else(mesh: Mesh, backend: Backend) -> None:
    """800 calls cancelled while they are worked on, 20 at a time, as fast as it goes; between them calls that count."""
    member = mesh.member("web")
    forward = Forward(backend.port, "--mtls", str(mesh.member("prices")))
    try:
        with RawClient(forward.port, tls=client_tls(member, "meshproxy/1")) as client:
            assert client.settings[3] == 1000
            stream_id = 1
            for _ in range(40):
                working = range(stream_id, stream_id + 40, 2)
                stream_id += 42
                client.send(b"".join(map(hanging, working)))
                until(lambda: backend.working > 0, "the backend is at work")
                client.request(stream_id - 2, get(b"/counts"))
                client.send(b"".join(map(cancelled, working)))
                client.wait(stream_id - 2)
                assert client.status[stream_id - 2] == 200
            assert client.resets == {}
            assert client.alive()
            until(lambda: backend.working == 0, "every cancelled call was cut off at the backend")
    finally:
        forward.stop()


def test_control_a_stranger_that_does_it_is_cut_off(mesh: Mesh, backend: Backend) -> None:
    forward = Forward(backend.port, "--tls", str(mesh.member("prices")))
    try:
        with RawClient(forward.port, tls=client_tls(None, "h2")) as client:
            assert client.settings[3] == 100
            for stream_id in range(1, 2000, 2):
                if not client.send(hanging(stream_id) + cancelled(stream_id)):
                    break
            assert client.until_killed() in (ENHANCE_YOUR_CALM, -1)
    finally:
        forward.stop()


def test_many_clients_cancelling_through_two_proxies_lose_no_request_of_another(mesh: Mesh) -> None:
    """Ten connections of apps, 180 cancelled calls each, become one connection between the proxies."""
    recorder = RecordingBackend(Http2Recorder)
    inbound = Forward(recorder.port, "--upstream", "http2", "--mtls", str(mesh.member("prices")))
    outbound = Forward(inbound.port, "--upstream", "http2", "--upstream-mtls", str(mesh.member("web")))
    try:
        with Http2Client(outbound.port) as honest:
            long = honest.start(get(b"/long", method=b"POST"), end=False)
            honest.flush()
            for number in range(10):
                with RawClient(outbound.port) as client:
                    for stream_id in range(1, 361, 2):
                        client.send(hanging(stream_id) + cancelled(stream_id))
                    assert client.alive()
                assert honest.ask(get(b"/%d" % number)).status == 200
            honest.engine.send_data(long, b"the end", end_stream=True)
            honest.flush()
            assert honest.wait(long).body == b"echo POST /long 7"
        recorder.settle()
        assert len(recorder.recorders) == 1, "one connection carried it all to the end"
        assert [one.faults for one in recorder.recorders] == [[]]
    finally:
        outbound.stop()
        inbound.stop()
        recorder.stop()
