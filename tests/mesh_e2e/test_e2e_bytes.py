"""Bytes through two sidecars: servers that speak first, both directions at once, half-close, resets, an app's own TLS."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import smtplib
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable

import pytest
from mesh_run import MeshRun, Pod, until, until_async

PATIENCE = 30.0
BULK = 100 << 20
PIECE = 1 << 18


def stream_of(seed: bytes, count: int) -> list[bytes]:
    """What apps/bytes_app.py sends for the seed b"server"."""
    block = hashlib.shake_256(seed).digest(PIECE)
    return [block] * (count // PIECE) + [block[: count % PIECE]]


@pytest.fixture(scope="module")
def client(bytes_mesh: MeshRun) -> Pod:
    return bytes_mesh.pod("client")


@pytest.fixture(scope="module")
def around(bytes_mesh: MeshRun, client: Pod) -> dict[str, str]:
    return bytes_mesh.environment_of(client)


Way = Callable[[str, int], socket.socket]


@pytest.fixture(params=["service host", "connect"])
def way(request: pytest.FixtureRequest, client: Pod, around: dict[str, str]) -> Way:
    """Opens a connection to a port of the Service `bytes`, by the name and number it has there."""

    def by_host(name: str, number: int) -> socket.socket:
        suffix = f"_{name.upper()}" if f"BYTES_SERVICE_PORT_{name.upper()}" in around else ""
        return socket.create_connection((around["BYTES_SERVICE_HOST"], int(around[f"BYTES_SERVICE_PORT{suffix}"])), PATIENCE)

    def by_connect(name: str, number: int) -> socket.socket:
        opened = socket.create_connection((client.ip, 4140), PATIENCE)
        opened.sendall(b"CONNECT bytes.e2e:%d HTTP/1.1\r\nHost: bytes.e2e:%d\r\n\r\n" % (number, number))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = opened.recv(1)
            assert byte, head
            head += byte
        assert head.startswith(b"HTTP/1.1 200 "), head
        return opened

    return by_host if request.param == "service host" else by_connect


# ---------------------------------------------------------------- servers that speak first


def send_mail(connection: socket.socket, text: str) -> None:
    """smtplib speaks only when it was greeted."""

    class Client(smtplib.SMTP):
        def _get_socket(self, host, port, timeout):
            return connection

    with Client("mail.e2e", 25, timeout=PATIENCE) as client:
        client.sendmail("a@e2e", ["b@e2e"], f"Subject: test\r\n\r\n{text}\r\n")


def heard_first(mesh: MeshRun, pod: Pod) -> tuple[float, float]:
    """(silences waited for, connections that did not wait) at the client's sidecar."""
    page = mesh.metrics(pod.ip)
    return (
        page.total("meshproxy_detect_timeouts_total", direction="outbound"),
        page.total("meshproxy_server_first_total", direction="outbound", event="used"),
    )


def test_mail_goes_to_a_server_that_speaks_first_and_only_the_first_connection_waits(
    bytes_mesh: MeshRun, client: Pod, way: Way, request: pytest.FixtureRequest
) -> None:
    label = request.node.name
    before = heard_first(bytes_mesh, client)
    for number in range(3):
        send_mail(way("mail", 2525), f"letter {number} of {label}")
    waited, known = heard_first(bytes_mesh, client)
    assert (waited - before[0], known - before[1]) == (1, 2)
    letters = (bytes_mesh.ledger / "mail").read_text()
    assert [f"letter {number} of {label}" in letters for number in range(3)] == [True] * 3


def test_where_the_port_is_declared_nobody_waits(bytes_mesh: MeshRun, client: Pod, way: Way) -> None:
    before = heard_first(bytes_mesh, client)
    send_mail(way("declared", 25), "declared")
    assert heard_first(bytes_mesh, client) == before


# ---------------------------------------------------------------- bytes


async def _both_ways(connection: socket.socket, count: int) -> None:
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 20)
    ours = hashlib.sha256()

    async def send() -> None:
        writer.write(struct.pack(">Q", count))
        for piece in stream_of(b"client", count):
            ours.update(piece)
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    theirs, got, tail = hashlib.sha256(), 0, b""
    while data := await reader.read(1 << 20):
        body = data[: max(0, count - got)]
        theirs.update(body)
        tail += data[len(body) :]
        got += len(body)
    await sending
    writer.close()
    expected = hashlib.sha256()
    for piece in stream_of(b"server", count):
        expected.update(piece)
    assert got == count
    assert theirs.digest() == expected.digest()
    assert tail == ours.digest()  # sent after our half-close


async def test_a_hundred_megabytes_go_both_ways_at_once_and_arrive_as_they_were(way: Way) -> None:
    await asyncio.wait_for(_both_ways(way("both", 7003), BULK), 120)


@pytest.mark.parametrize("count", [0, 1, 65535, 65536, 65537])
async def test_both_directions_end_on_their_own_whatever_was_sent(way: Way, count: int) -> None:
    await asyncio.wait_for(_both_ways(way("both", 7003), count), PATIENCE)


def test_a_reset_by_the_server_reaches_the_client_as_one(way: Way) -> None:
    with way("ends", 7004) as connection:
        connection.sendall(b"reset\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(100)


@pytest.mark.parametrize("how", ["reset", "eof"])
def test_how_the_client_ends_is_what_the_server_sees(
    bytes_mesh: MeshRun, way: Way, how: str, request: pytest.FixtureRequest
) -> None:
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    with way("ends", 7004) as connection:
        connection.sendall(name.encode() + b"\n")
        assert connection.recv(100) == b"go on\n"
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    told = bytes_mesh.ledger / f"ended-{name}"
    until(told.exists, "the server to see the end", PATIENCE)
    until(told.read_text, "what it saw", PATIENCE)
    assert told.read_text() == how


# ---------------------------------------------------------------- the app's own TLS


def test_the_servers_side_gets_the_clients_own_client_hello_byte_for_byte(way: Way) -> None:
    for name, number in (("echo", 7005), ("detected", 7006)):
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        outgoing = ssl.MemoryBIO()
        tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="own.e2e")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        with way(name, number) as connection:
            connection.sendall(hello)
            back = b""
            while len(back) < len(hello):
                data = connection.recv(4096)
                assert data
                back += data
        assert back == hello


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (Debian: curl)")
@pytest.mark.parametrize("by", ["service host", "http_proxy"])
def test_curl_gets_a_page_by_https_and_checks_the_servers_own_certificate(
    bytes_mesh: MeshRun, client: Pod, around: dict[str, str], by: str
) -> None:
    if by == "http_proxy":
        words = ["-x", f"http://{client.ip}:4140", "--connect-to", "own.e2e:443:bytes.e2e:7443", "https://own.e2e/"]
    else:
        place = f"{around['BYTES_SERVICE_HOST']}:{around['BYTES_SERVICE_PORT_OWN']}"
        words = ["--noproxy", "*", "--connect-to", f"own.e2e:443:{place}", "https://own.e2e/"]
    common = ["curl", "-sS", "--fail", "--max-time", "30"]
    done = subprocess.run(
        [*common, "--cacert", str(bytes_mesh.ledger / "own-root.pem"), *words], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("secret", "", 0)
    refused = subprocess.run([*common, *words], capture_output=True, text=True)
    assert refused.returncode == 60, refused  # nobody in between put a certificate of its own there


async def test_a_tunnel_that_nobody_reads_holds_up_no_other(client: Pod, around: dict[str, str]) -> None:
    host = around["BYTES_SERVICE_HOST"]
    _, stuck = await asyncio.open_connection(host, int(around["BYTES_SERVICE_PORT_ECHO"]))
    stuck.transport.pause_reading()
    stuck.write(bytes(32 << 20))

    await until_async(lambda: stuck.transport.get_write_buffer_size() < 32 << 20, "the tunnel taking what it can", PATIENCE)
    for _ in range(10):
        reader, writer = await asyncio.open_connection(host, int(around["BYTES_SERVICE_PORT_ECHO"]))
        writer.write(b"\x00 passes")
        assert await asyncio.wait_for(reader.readexactly(8), PATIENCE) == b"\x00 passes"
        writer.close()
    stuck.transport.abort()
