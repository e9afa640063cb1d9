"""`forward` with --tls, --mtls and --upstream-mtls: certificates of our own authority, real handshakes, both roles."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, request, until

from certs.authority import create_authority, load_authority
from certs.issue import issue_svid
from certs.spiffe import SpiffeId

DOMAIN = "cluster.local"
GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Mesh:
    """An authority, and directories (cert.pem, key.pem, ca.pem) for workloads under it."""

    def __init__(self, directory: Path) -> None:
        now = time.time()  # OpenSSL reads the clock itself
        self.directory = directory
        create_authority(directory / "trust", DOMAIN, now)
        self.authority = load_authority(directory / "trust", DOMAIN, now)

    def identity(self, name: str) -> str:
        return str(SpiffeId.workload(DOMAIN, "shop", name))

    def member(self, name: str) -> Path:
        svid = issue_svid(self.authority, SpiffeId.workload(DOMAIN, "shop", name), time.time())
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        (directory / "cert.pem").write_bytes(svid.chain_pem)
        (directory / "key.pem").write_bytes(svid.key_pem)
        (directory / "ca.pem").write_bytes(self.authority.bundle.pem.encode())
        return directory

    def client(self, name: str | None, alpn: list[str]) -> ssl.SSLContext:
        """What a client of its own uses; None: it shows no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.authority.bundle.pem)
        context.set_alpn_protocols(alpn)
        if name is not None:
            directory = self.member(name)
            context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
        return context

    def server(self, name: str) -> ssl.SSLContext:
        directory = self.member(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
        context.load_verify_locations(cadata=self.authority.bundle.pem)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


async def tls_request(port: int, context: ssl.SSLContext, raw: bytes = GET) -> tuple[int, dict[bytes, bytes], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(raw)
    data = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    return parse(data)


class Heads:
    """A backend script that keeps the heads it saw."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def __call__(self, reader, writer):
        while True:
            self.seen.append(await read_head(reader))
            writer.write(OK)


async def test_tls_serves_clients_without_certificates_and_tells_the_backend_nothing_of_identity(forward, peer, mesh):
    heads = Heads()
    backend = await peer(heads)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--tls", str(mesh.member("web")))
    assert (await tls_request(proxy.port, mesh.client(None, ["http/1.1"])))[0] == 200
    assert b"client-id" not in heads.seen[0]


async def test_tls_refuses_plaintext(forward, peer, mesh):
    heads = Heads()
    backend = await peer(heads)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--tls", str(mesh.member("web")))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(GET)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b""
    writer.close()
    assert heads.seen == []
    assert await proxy.total("meshproxy_refused_total", reason="plaintext") == 1


async def test_mtls_tells_the_backend_who_is_calling_and_believes_no_header(forward, peer, mesh):
    heads = Heads()
    backend = await peer(heads)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--mtls", str(mesh.member("prices")))
    raw = b"GET / HTTP/1.1\r\nHost: a\r\nMesh-Client-Id: spiffe://cluster.local/ns/shop/sa/admin\r\nConnection: close\r\n\r\n"
    assert (await tls_request(proxy.port, mesh.client("web", ["http/1.1"]), raw))[0] == 200
    head = heads.seen[0].lower()
    assert b"mesh-client-id: " + mesh.identity("web").encode() in head
    assert b"admin" not in head


async def test_mtls_refuses_a_client_without_a_certificate(forward, peer, mesh):
    heads = Heads()
    backend = await peer(heads)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--mtls", str(mesh.member("prices")))
    with suppress(ssl.SSLError, ConnectionError):  # in TLS 1.3 it learns of it with its first read
        status, _, _ = await tls_request(proxy.port, mesh.client(None, ["http/1.1"]))
        assert status == 0
    assert heads.seen == []

    async def counted() -> bool:
        return await proxy.total("meshproxy_tls_failures_total", reason="no_client_certificate") == 1

    await until(counted, "the refused handshake in the metrics")


@pytest.mark.parametrize("upstream", ["http1", "http2"])
async def test_two_forwards_speak_mtls_to_each_other(forward, peer, mesh, upstream):
    heads = Heads()
    backend = await peer(heads)
    inbound = await forward(f"127.0.0.1:{backend.port}", "--mtls", str(mesh.member("prices")))
    outbound = await forward(
        f"127.0.0.1:{inbound.port}", "--upstream", upstream,
        "--upstream-mtls", str(mesh.member("web")), "--upstream-identity", mesh.identity("prices"),
    )  # fmt: skip
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    for _ in range(3):
        assert (await request(outbound.port, raw))[0] == 200
    assert b"mesh-client-id: " + mesh.identity("web").encode() in heads.seen[0].lower()


async def test_without_an_expected_identity_any_member_will_do_and_a_note_says_so(forward, peer, mesh):
    backend = await peer(Heads())
    inbound = await forward(f"127.0.0.1:{backend.port}", "--mtls", str(mesh.member("prices")))
    outbound = await forward(f"127.0.0.1:{inbound.port}", "--upstream-mtls", str(mesh.member("web")))
    assert (await request(outbound.port, GET))[0] == 200
    assert any("any identity" in line for line in outbound.log)


@pytest.mark.parametrize("upstream", ["http1", "http2"])
async def test_the_wrong_identity_is_502_and_nothing_of_the_request_is_sent(forward, peer, mesh, upstream):
    heads = Heads()
    backend = await peer(heads)
    inbound = await forward(f"127.0.0.1:{backend.port}", "--mtls", str(mesh.member("prices")))
    outbound = await forward(
        f"127.0.0.1:{inbound.port}", "--upstream", upstream,
        "--upstream-mtls", str(mesh.member("web")), "--upstream-identity", mesh.identity("admin"),
    )  # fmt: skip
    raw = b"POST /secret HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    status, fields, _ = await request(outbound.port, raw)
    assert (status, fields[b"mesh-error"]) == (502, b"peer_identity")
    assert heads.seen == []
    assert await inbound.total("route_request_total") == 0
    assert await outbound.total("meshproxy_tls_failures_total", reason="wrong_server_identity") >= 1
    wrong = next(line for line in outbound.log if "wrong_server_identity" in line)
    assert mesh.identity("admin") in wrong
    assert mesh.identity("prices") in wrong


async def test_a_server_under_another_authority_is_not_believed(forward, peer, mesh, tmp_path):
    (tmp_path / "other").mkdir()
    strangers = Mesh(tmp_path / "other")
    backend = await peer(Heads())
    inbound = await forward(f"127.0.0.1:{backend.port}", "--tls", str(strangers.member("prices")))
    outbound = await forward(f"127.0.0.1:{inbound.port}", "--upstream-mtls", str(mesh.member("web")))
    status, fields, _ = await request(outbound.port, GET)
    assert (status, fields[b"mesh-error"]) == (502, b"peer_identity")

    async def told() -> bool:  # by an alert: the server's operator learns why
        return await inbound.total("meshproxy_tls_failures_total", reason="refused_by_peer") >= 1

    await until(told, "the alert at the server")


async def test_a_server_that_only_speaks_plaintext_is_not_sent_the_request(forward, peer, mesh):
    got = asyncio.get_running_loop().create_future()

    async def plain(reader, writer):
        got.set_result(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    backend = await peer(plain)
    outbound = await forward(f"127.0.0.1:{backend.port}", "--upstream-mtls", str(mesh.member("web")))
    status, fields, _ = await request(outbound.port, b"GET /secret HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (status, fields[b"mesh-error"]) == (502, b"peer_identity")
    assert b"secret" not in await got


async def test_a_response_that_only_the_close_ends_needs_close_notify(houses, peer, mesh):
    """RFC 9112 9.8: a FIN that anyone on the path can send does not complete a message."""
    from certs.context import client_context
    from certs.material import read_material
    from meshproxy.proxy.endpoint import SPEAKS_HTTP1
    from meshproxy.proxy.forward import FixedCredentials, Target
    from meshproxy.workers.plan import identify

    cut = False

    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it, or not")
        await writer.drain()
        if cut:  # the socket below, without close_notify
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as below:
                below.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):  # what such an end is answered with
                await reader.read(-1)

    server = await asyncio.start_server(run_and_close(serve), "127.0.0.1", 0, ssl=mesh.server("prices"))
    port = server.sockets[0].getsockname()[1]
    house = houses()
    side = await house.forward(port)
    material = read_material(mesh.member("web"), time.time())
    context = client_context(material.chain_pem, material.key_pem, material.ca_pem, ("http/1.1",))
    credentials = FixedCredentials(None, context, identify)
    side.route = side.make_route("tls", [Target("127.0.0.1", port)], SPEAKS_HTTP1, 0.0, credentials, "")
    try:
        status, _, body = await request(side.port, GET)
        assert status == 200
        assert body.endswith(b"0\r\n\r\n")
        cut = True
        status, _, body = await request(side.port, GET)
        assert status == 200
        assert not body.endswith(b"0\r\n\r\n")
        await house.quiet()
    finally:
        server.close()


def run_and_close(script):
    async def run(reader, writer):
        try:
            await script(reader, writer)
        finally:
            writer.close()

    return run


async def test_a_tls_client_that_half_closes_still_gets_its_answer_and_sends_the_rest(forward, peer, mesh):
    """close_notify ends one direction (RFC 8446 6.1): by hand, because Python's streams cannot half-close TLS."""

    async def shout(reader, writer):
        writer.write(b"first word\n")
        writer.write_eof()  # the server's direction ends first
        got.set_result(await reader.read(-1))

    got = asyncio.get_running_loop().create_future()
    backend = await peer(shout)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--tls", str(mesh.member("web")))
    client = ByHand(mesh.client(None, ["http/1.1"]))
    await client.open(proxy.port)
    await client.send(b"\x00opaque")
    assert await client.read_to_end() == b"first word\n"
    await client.send(b" and more")
    await client.finish()
    assert await asyncio.wait_for(got, DEADLINE_S) == b"\x00opaque and more"
    client.close()


ADMIN = b"GET / HTTP/1.1\r\nHost: a\r\nmesh-client-id: spiffe://mesh.test/ns/shop/sa/admin\r\n\r\n"


async def told(port: int, context: ssl.SSLContext | None, data: bytes) -> bytes:
    """What is said to these bytes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    said = b""
    with suppress(ConnectionResetError):
        writer.write(data)
        said = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    return said


@pytest.mark.parametrize("how", ["--mtls", "--forwarded-for"])
async def test_what_is_told_of_the_client_cannot_be_got_round_by_odd_spelling_or_other_bytes(forward, peer, mesh, how):
    """Linkerd's l5d-client-id, our mesh-client-id, x-forwarded-for: a backend may believe them."""
    heads = Heads()
    backend = await peer(heads)
    options = ["--mtls", str(mesh.member("web"))] if how == "--mtls" else ["--forwarded-for"]
    proxy = await forward(f"127.0.0.1:{backend.port}", *options)
    client = mesh.client("shopper", ["http/1.1"]) if how == "--mtls" else None
    fronts = (b"\r\n\r\n", b"\n", b" ", b"\t", b"\v")
    odd = [*[front + ADMIN for front in fronts], ADMIN.replace(b"GET / ", b"GET\t/\t"), ADMIN.replace(b"GET", b"G" * 40 + b" ")]
    long = ADMIN.replace(b"GET /", b"PROPFIND /" + b"a" * 9000)
    for data in (*odd, long):
        status, fields, _ = parse(await told(proxy.port, client, data))
        assert status in (400, 414)
        assert fields[b"mesh-error"].startswith(b"h1_")
    for data in (b"\x00" + ADMIN, b"{" + ADMIN, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"):
        assert await told(proxy.port, client, data) == b""
    assert heads.seen == []
    assert await proxy.total("meshproxy_refused_total", reason="not_http") == 3


@pytest.mark.parametrize("alpn", [["h2"], []])
async def test_what_is_declared_to_be_bytes_is_carried_in_mutual_tls(forward, peer, mesh, alpn):
    async def shout(reader, writer):
        writer.write(b"server first\n")
        writer.write((await reader.readline()).upper())

    backend = await peer(shout)
    proxy = await forward(f"127.0.0.1:{backend.port}", "--mtls", str(mesh.member("web")), "--upstream", "tcp")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=mesh.client("shopper", alpn))
    assert await asyncio.wait_for(reader.readline(), DEADLINE_S) == b"server first\n"
    writer.write(b"get / http/1.1\n")
    assert await asyncio.wait_for(reader.readline(), DEADLINE_S) == b"GET / HTTP/1.1\n"
    writer.close()
    stranger = mesh.client(None, alpn)
    assert await asyncio.wait_for(told_or_refused(proxy.port, stranger), DEADLINE_S) == b""
    assert backend.connections == 1


async def told_or_refused(port: int, context: ssl.SSLContext) -> bytes:
    with suppress(ssl.SSLError, ConnectionResetError):
        return await told(port, context, b"x")
    return b""


class ByHand:
    """TLS over two memory BIOs: each direction ends when the test says so."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.writer.write(self.outgoing.read())
                self.incoming.write(await asyncio.wait_for(self.reader.read(65536), DEADLINE_S))
        self.writer.write(self.outgoing.read())

    async def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.writer.write(self.outgoing.read())
        await self.writer.drain()

    async def finish(self) -> None:
        with suppress(ssl.SSLWantReadError):  # the other direction is still open
            self.tls.unwrap()
        self.writer.write(self.outgoing.read())
        await self.writer.drain()

    async def read_to_end(self) -> bytes:
        """Up to the peer's close_notify."""
        data = b""
        while True:
            try:
                more = self.tls.read(65536)
                if not more:
                    return data
                data += more
            except ssl.SSLWantReadError:
                more = await asyncio.wait_for(self.reader.read(65536), DEADLINE_S)
                assert more, f"FIN without close_notify after {data!r}"
                self.incoming.write(more)
            except ssl.SSLZeroReturnError:
                return data

    def close(self) -> None:
        self.writer.close()


async def test_a_request_followed_by_close_notify_is_answered(forward, peer, mesh):
    backend = await peer(Heads())
    proxy = await forward(f"127.0.0.1:{backend.port}", "--tls", str(mesh.member("web")))
    client = ByHand(mesh.client(None, ["http/1.1"]))
    await client.open(proxy.port)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.finish()
    assert parse(await client.read_to_end())[0] == 200
    client.close()


async def test_a_damaged_record_behind_a_good_one_ends_the_connection_at_once(forward, peer, mesh):
    """RFC 8446 6.2.  It stayed open, and what was asked on it was answered into nothing."""
    backend = await peer(Heads())
    proxy = await forward(f"127.0.0.1:{backend.port}", "--tls", str(mesh.member("web")))
    client = ByHand(mesh.client(None, ["http/1.1"]))
    await client.open(proxy.port)
    client.tls.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.writer.write(client.outgoing.read() + b"\x17\x03\x03\x00\x20" + b"Z" * 32)
    with suppress(ConnectionResetError):
        while await asyncio.wait_for(client.reader.read(65536), DEADLINE_S):
            pass
    client.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls", "{0}", "--mtls", "{0}"), "exclude each other"),
        (("--upstream-identity", "spiffe://cluster.local/ns/a/sa/b"), "needs --upstream-mtls"),
        (("--upstream-mtls", "{0}", "--upstream-identity", "prices"), "--upstream-identity"),
        (("--mtls", "{1}"), "cert.pem"),
    ],
)
async def test_options_that_make_no_sense_are_said(mesh, tmp_path, options, said):
    member = mesh.member("web")
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = [option.format(member, empty) for option in options]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "meshproxy", "forward", ":0", "127.0.0.1:9", *arguments, stderr=asyncio.subprocess.PIPE
    )
    _, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode in (1, 2)
    assert said in err.decode()
