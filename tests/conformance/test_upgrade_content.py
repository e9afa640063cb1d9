"""An Upgrade whose request has content, as `docker exec` asks: the server reads all of it, then switches (RFC 9110 7.8).

    client  POST /exec, Content-Length: 41, Upgrade: tcp, 41 bytes  -->  app
            <-- 101 ------------------------------------------------
            <== bytes ==============================================>

one hop            client -> forward -> app
http1 between      client -> forward -> forward -> app
sidecars           client -> outbound ==mesh mTLS, h2==> inbound -> app      (both engines)
strangers          client -> forward ==h2==> forward -> app                  goes on without the Upgrade
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forward_chains import end_chain, make_forwards
from forward_process import DEADLINE_S, Forward, Reader, Sidecars, connect, free_port, until
from http2_peer import CANCEL, DATA, END_STREAM, INTERNAL_ERROR, PROTOCOL_ERROR, RawClient, frame
from scripted_backend import Connection, Ended, ScriptedBackend

from certs.authority import open_authority
from certs.context import mesh_contexts
from certs.issue import issue_svid
from certs.spiffe import SpiffeId

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nContent-Type: application/vnd.docker.raw-stream\r\n"
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
)
MESH_UPGRADE_CONTENT = 0xF055
BODY = json.dumps({"Detach": False, "Tty": True}).encode()
NEXT = b"GET /next HTTP/1.1\r\nHost: svc.test\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: svc.test\r\n\r\n"


class Taken:
    """What the app got of one request."""

    def __init__(self, head: bytes) -> None:
        self.line, *lines = head.split(b"\r\n")
        pairs = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
        self.fields = dict(pairs)
        assert len(self.fields) == len(pairs), pairs
        self.length = int(self.fields.get(b"content-length", b"0"))
        self.body = b""
        self.after = b""  # what came behind the body
        self.over = False  # and is all


class App(ScriptedBackend):
    """Paths say how it behaves; what comes after them is the test's own."""

    def __init__(self) -> None:
        self.taken: dict[str, Taken] = {}
        super().__init__({})

    def serve(self, connection: Connection) -> None:
        while True:
            path = connection.read_head().split(b" ")[1].decode()
            self.served.append((connection.number, path))
            taken = self.taken[path] = Taken(connection.head)
            getattr(self, path.split("/")[1].replace("smuggled", "page").replace("next", "page"))(connection, taken)

    def times(self, path: str) -> int:
        return [served for _, served in self.served].count(path)

    def read_body(self, connection: Connection, taken: Taken) -> None:
        try:
            while len(taken.body) < taken.length:
                taken.body += connection.data or connection.read()
                connection.data = b""
        except Ended:
            taken.over = True
            raise
        connection.data = taken.body[taken.length :]
        taken.body = taken.body[: taken.length]

    def read_rest(self, connection: Connection, taken: Taken) -> None:
        with contextlib.suppress(Ended):
            while True:
                taken.after += connection.data or connection.read()
                connection.data = b""
        taken.over = True

    def page(self, connection: Connection, taken: Taken, status: bytes = b"200 OK") -> None:
        self.read_body(connection, taken)
        connection.send(b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\npage" % status)

    def missing(self, connection: Connection, taken: Taken) -> None:
        self.page(connection, taken, b"404 Not Found")

    def chunks(self, connection: Connection, taken: Taken) -> None:
        self.read_body(connection, taken)
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n")

    def exec(self, connection: Connection, taken: Taken) -> None:
        """Docker: all of the request, then 101; everything back in capitals; a last word when the client has said its own."""
        if b"expect" in taken.fields:
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.read_body(connection, taken)
        if b"upgrade" not in taken.fields:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            return
        connection.send(SWITCHED + b"$ ")
        self.speak(connection, taken)

    def early(self, connection: Connection, taken: Taken) -> None:
        """101 before the request is whole."""
        connection.send(SWITCHED)
        self.speak(connection, taken)

    def speak(self, connection: Connection, taken: Taken) -> None:
        with contextlib.suppress(Ended):
            while True:
                data = connection.data or connection.read()
                connection.data = b""
                taken.after += data
                connection.send(data.upper())
        taken.over = True
        connection.send(b"exit")
        raise Ended

    def large(self, connection: Connection, taken: Taken) -> None:
        """413 before the request is whole; what comes all the same is read."""
        connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        self.read_rest(connection, taken)
        raise Ended

    def forbidden(self, connection: Connection, taken: Taken) -> None:
        """403 instead of 100."""
        connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        self.read_rest(connection, taken)
        raise Ended

    def lost(self, connection: Connection, taken: Taken) -> None:
        """The first connection ends when the request is there, unanswered; a second one serves."""
        self.read_body(connection, taken)
        if self.times(taken.line.split(b" ")[1].decode()) == 1:
            connection.rst()
        connection.send(SWITCHED)
        self.speak(connection, taken)


class Site:
    def __init__(self, name: str, directory: Path) -> None:
        self.app = App()
        self.forwards: list[Forward] = []
        self.authority = directory / "authority"
        try:
            if name == "sidecars of h2":
                self.forwards = [Sidecars(self.app.port, str(self.authority), "h2")]
            else:
                self.forwards = make_forwards("http1 backend" if name == "one hop" else name, self.app.port, directory)
        except BaseException:
            self.app.stop()
            raise
        self.port = self.forwards[0].port

    def next_works(self, reader: Reader, sock: socket.socket) -> None:
        sock.sendall(NEXT)
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"page")

    def got_body(self, path: str, body: bytes) -> None:
        until(lambda: path in self.app.taken and len(self.app.taken[path].body) >= len(body), f"the body of {path}")

    def stop(self) -> None:
        end_chain(self.forwards, self.app)


def site(name: str, factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(name, factory.mktemp("content"))
    yield made
    made.stop()


@pytest.fixture(scope="module", params=["one hop", "http1 between", "sidecars", "sidecars of h2"])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from site(request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=["http2 between", "mtls between"])
def strangers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from site(request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=["sidecars", "sidecars of h2"])
def peers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from site(request.param, tmp_path_factory)


def asks(path: str, length: int = len(BODY), more: str = "", method: str = "POST") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: svc.test\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
        f"Upgrade: tcp\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


# -- granted


def test_docker_exec_works_as_without_the_mesh(ours: Site) -> None:
    """As docker's Python client does: http.client sends the request, and its socket is taken over after 101."""
    client = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=DEADLINE_S)
    try:
        fields = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
        client.request("POST", "/exec/1", BODY, fields)
        assert client.sock is not None
        sock = client.sock
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.fields[b"upgrade"]) == (101, b"tcp")
        assert answer.fields[b"content-type"] == b"application/vnd.docker.raw-stream"
        assert reader.take(2) == b"$ "
        sock.sendall(b"ls\n")
        assert reader.take(3) == b"LS\n"
        sock.shutdown(socket.SHUT_WR)  # docker's CloseWrite: no more input, the output still comes
        assert reader.take(4) == b"exit"
        assert reader.at_end()
    finally:
        client.close()
    taken = ours.app.taken["/exec/1"]
    assert taken.line == b"POST /exec/1 HTTP/1.1"
    assert (taken.fields[b"connection"].lower(), taken.fields[b"upgrade"]) == (b"upgrade", b"tcp")
    assert (taken.length, taken.body, taken.after) == (len(BODY), BODY, b"ls\n")
    assert b"transfer-encoding" not in taken.fields
    assert not [name for name in taken.fields if name.startswith(b"mesh-up")]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_content_that_comes_in_pieces_and_late_is_whole_before_anything_is_answered(ours: Site, method: str) -> None:
    path = f"/exec/pieces/{method}"
    with connect(ours.port) as sock:
        reader = Reader(sock)
        sock.sendall(asks(path, method=method))
        until(lambda: path in ours.app.taken, "the head of the request")
        for at in range(0, len(BODY), 7):
            sock.sendall(BODY[at : at + 7])
            ours.got_body(path, BODY[: at + 7])  # it is not gathered on the way
        answer = reader.answer()
        assert answer is not None
        assert answer.status == 101
        assert reader.take(2) == b"$ "
    assert ours.app.taken[path].line.startswith(method.encode())


def test_what_a_client_says_in_the_hope_of_101_comes_after_its_content(ours: Site) -> None:
    with connect(ours.port) as sock:
        sock.sendall(asks("/exec/eager") + BODY + SMUGGLED)
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert answer.status == 101
        assert reader.take(2 + len(SMUGGLED)) == b"$ " + SMUGGLED.upper()
    taken = ours.app.taken["/exec/eager"]
    assert (taken.body, taken.after) == (BODY, SMUGGLED)


def test_much_content_arrives_whole_and_the_connection_is_a_tunnel_afterwards(ours: Site) -> None:
    """More than is kept for a retry, than a window, and than a socket takes at once."""
    body = bytes(range(256)) * 8192
    said = b"x" * 300_000
    with connect(ours.port) as sock:
        sock.sendall(asks("/exec/much", len(body)) + body)
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert answer.status == 101
        assert reader.take(2) == b"$ "
        sock.sendall(said)
        assert reader.take(len(said)) == said.upper()
    assert ours.app.taken["/exec/much"].body == body


def test_a_client_that_expects_100_is_asked_for_its_content(ours: Site) -> None:
    with connect(ours.port) as sock:
        sock.sendall(asks("/exec/expect", more="Expect: 100-continue\r\n"))
        reader = Reader(sock)
        while b"\r\n\r\n" not in reader.data:
            assert reader.more()
        assert reader.data == b"HTTP/1.1 100 Continue\r\n\r\n"
        reader.data = b""
        sock.sendall(BODY)
        answer = reader.answer()
        assert answer is not None
        assert answer.status == 101
        assert reader.take(2) == b"$ "
    assert ours.app.taken["/exec/expect"].body == BODY


def test_an_app_that_grants_before_the_content_is_whole_gets_all_of_it_as_it_was_sent(ours: Site) -> None:
    """Without a proxy between them it would: what follows is for its two ends to read."""
    with connect(ours.port) as sock:
        sock.sendall(asks("/early/1") + BODY[:10])
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert answer.status == 101
        sock.sendall(BODY[10:] + b"more")
        sock.shutdown(socket.SHUT_WR)
        assert reader.take(len(BODY) + 8) == BODY.upper() + b"MOREexit"
        assert reader.at_end()
    assert ours.app.taken["/early/1"].after == BODY + b"more"


# -- declined


@pytest.mark.parametrize(("path", "status"), [("/page/1", 200), ("/missing/1", 404), ("/chunks/1", 200)])
def test_an_app_that_declines_is_heard_and_the_connection_goes_on(ours: Site, path: str, status: int) -> None:
    with connect(ours.port) as sock:
        reader = Reader(sock)
        for _ in range(2):
            sock.sendall(asks(path) + BODY)
            answer = reader.answer()
            assert answer is not None
            assert (answer.status, answer.body, answer.complete) == (status, b"page", True)
            assert not [name for name in answer.fields if name.startswith(b"mesh-")]
            taken = ours.app.taken[path]
            assert (taken.length, taken.body, taken.fields[b"upgrade"]) == (len(BODY), BODY, b"tcp")
        ours.next_works(reader, sock)
    assert ours.app.reused_after(path)  # the app's connection is as good as before


@pytest.mark.parametrize("late", [False, True])
def test_what_a_client_says_in_the_hope_of_101_is_no_request_where_that_does_not_come(ours: Site, late: bool) -> None:
    before = len(ours.app.served)
    path = f"/large/{late}" if late else "/page/eager"
    with connect(ours.port) as sock:
        reader = Reader(sock)
        sock.sendall(asks(path) + (BODY[:10] if late else BODY + SMUGGLED))
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.complete) == (413 if late else 200, True)
        with contextlib.suppress(ConnectionError):
            sock.sendall(BODY[10:] + SMUGGLED if late else SMUGGLED)
        assert reader.at_end()
    until(lambda: not late or ours.app.taken[path].over, "the end of the app's connection")
    taken = ours.app.taken[path]
    assert BODY.startswith(taken.after)
    with connect(ours.port) as sock:
        ours.next_works(Reader(sock), sock)
    assert "/smuggled" not in [path for _, path in ours.app.served[before:]]


def test_a_client_that_expects_100_and_gets_an_answer_sends_no_content(ours: Site) -> None:
    with connect(ours.port) as sock:
        sock.sendall(asks("/forbidden/1", more="Expect: 100-continue\r\n"))
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.complete) == (403, b"no", True)
        assert reader.at_end()
    until(lambda: ours.app.taken["/forbidden/1"].over, "the end of the app's connection")
    assert ours.app.taken["/forbidden/1"].after == b""


def test_content_of_unknown_length_goes_without_the_upgrade(ours: Site) -> None:
    with connect(ours.port) as sock:
        head = asks("/exec/chunked").replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
        sock.sendall(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) + NEXT)
        reader = Reader(sock)
        for _ in range(2):
            answer = reader.answer()
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"page")
    assert b"upgrade" not in ours.app.taken["/exec/chunked"].fields


# -- broken off


def test_a_client_that_leaves_in_its_content_is_gone_for_the_app_too(ours: Site) -> None:
    for leave in (socket.SHUT_WR, socket.SHUT_RDWR):
        path = f"/exec/gone/{leave}"
        with connect(ours.port) as sock:
            sock.sendall(asks(path) + BODY[:10])
            ours.got_body(path, BODY[:10])
            sock.shutdown(leave)
            until(lambda path=path: ours.app.taken[path].over, "the end of the app's connection")
        assert ours.app.taken[path].body == BODY[:10]


@pytest.mark.parametrize(("method", "status", "times"), [("POST", 502, 1), ("GET", 101, 2)])
def test_a_request_is_sent_again_whole_or_not_at_all(ours: Site, method: str, status: int, times: int) -> None:
    """A POST the app may have acted on (RFC 9110 9.2.2)."""
    path = f"/lost/{method}"
    with connect(ours.port) as sock:
        sock.sendall(asks(path, method=method) + BODY + b"raw")
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert answer.status == status
        assert status != 101 or reader.take(3) == b"RAW"
    assert (ours.app.times(path), ours.app.taken[path].body) == (times, BODY)


def test_where_one_endpoint_is_gone_another_gets_the_whole_request(ours: Site) -> None:
    forward = Forward(ours.app.port, f"127.0.0.1:{free_port()}")
    try:
        for each in range(4):
            path = f"/exec/another/{each}"
            with connect(forward.port) as sock:
                sock.sendall(asks(path) + BODY)
                answer = Reader(sock).answer()
                assert answer is not None
                assert answer.status == 101
            assert ours.app.taken[path].body == BODY
    finally:
        forward.stop()


# -- strangers


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_between_strangers_the_request_goes_without_its_upgrade_and_with_its_content_alone(
    strangers: Site, method: str
) -> None:
    before = len(strangers.app.served)
    path = f"/exec/{method}"
    with connect(strangers.port) as sock:
        reader = Reader(sock)
        sock.sendall(asks(path, method=method) + BODY[:10])
        strangers.got_body(path, BODY[:10])
        sock.sendall(BODY[10:])
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.complete) == (200, b"page", True)
        strangers.next_works(reader, sock)
        sock.sendall(asks(path, method=method) + BODY + SMUGGLED)
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.complete) == (200, True)
        assert reader.at_end()
    taken = strangers.app.taken[path]
    assert (taken.line, taken.length, taken.body) == (f"{method} {path} HTTP/1.1".encode(), len(BODY), BODY)
    assert not {b"upgrade", b"connection"} & set(taken.fields)
    assert "/smuggled" not in [path for _, path in strangers.app.served[before:]]


# -- peers in the mesh


def mesh_client(site: Site) -> RawClient:
    """Another workload's proxy, which does what it likes, at the inbound side."""
    authority = open_authority(site.authority, "mesh.test", time.time())
    svid = issue_svid(authority, SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/other"), time.time())
    (line,) = [line for line in site.forwards[0].log if "forwarding " in line]
    tls: ssl.SSLContext = mesh_contexts(svid, authority.bundle).client
    return RawClient(int(line.split(" -> ")[1].rpartition(":")[2]), tls=tls)


def extended(site: Site, path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    pseudo = [(b":method", b"CONNECT"), (b":protocol", b"tcp"), (b":scheme", b"http"), (b":path", path)]
    target = (b"mesh-target-port", b"%d" % site.app.port)
    return [*pseudo, (b":authority", b"svc.test"), target, (b"mesh-orig-proto", b"HTTP/1.1"), *more]


def told(length: int) -> tuple[bytes, bytes]:
    return (b"mesh-upgrade", b"POST %d" % length)


def test_only_peers_in_the_mesh_are_invited_to_send_content(peers: Site) -> None:
    with mesh_client(peers) as peer, RawClient(peers.port) as stranger:
        assert peer.settings[MESH_UPGRADE_CONTENT] == 1
        assert MESH_UPGRADE_CONTENT not in stranger.settings


def test_a_tunnel_begins_with_the_content_that_a_peer_has_declared(peers: Site) -> None:
    with mesh_client(peers) as peer:
        peer.request(1, extended(peers, b"/exec/peer", told(5)), b"helloraw", end=False)
        peer.until(lambda: peer.bodies.get(1) == b"$ RAW")
        assert peer.status[1] == 200
    taken = peers.app.taken["/exec/peer"]
    assert (taken.line, taken.length, taken.body, taken.after) == (b"POST /exec/peer HTTP/1.1", 5, b"hello", b"raw")


def test_what_a_peer_sends_beside_declared_content_is_no_request(peers: Site) -> None:
    before = len(peers.app.served)
    with mesh_client(peers) as peer:
        peer.request(1, extended(peers, b"/page/beside", told(5)), b"hello" + SMUGGLED, end=False)
        peer.request(3, extended(peers, b"/large/beside", told(10)), b"hello", end=False)
        peer.wait(1)
        peer.wait(3)
        peer.send(frame(DATA, 0, 3, b"world" + SMUGGLED))
        assert (peer.status[1], peer.fields[1][b"mesh-status"], peer.bodies[1]) == (501, b"200", b"page")
        assert peer.status[3] == 413
    until(lambda: peers.app.taken["/large/beside"].over, "the end of the app's connection")
    assert b"hello".startswith(peers.app.taken["/large/beside"].after)
    assert sorted(path for _, path in peers.app.served[before:]) == ["/large/beside", "/page/beside"]


@pytest.mark.parametrize("body", [b"", b"he"])
def test_content_that_a_peer_does_not_finish_is_never_whole(peers: Site, body: bytes) -> None:
    path = b"/exec/short/%d" % len(body)
    with mesh_client(peers) as peer:
        peer.request(1, extended(peers, path, told(5)), body, end=False)
        until(lambda: path.decode() in peers.app.taken, "the head of the request")
        peers.got_body(path.decode(), body)
        peer.send(frame(DATA, END_STREAM, 1))
        peer.wait(1)
        assert 1 not in peer.status
        assert peer.resets[1] in (CANCEL, INTERNAL_ERROR)
        assert peer.alive()
    until(lambda: peers.app.taken[path.decode()].over, "the end of the app's connection")
    assert peers.app.taken[path.decode()].body == body


@pytest.mark.parametrize(
    "more", [[], [(b"mesh-upgrade", b"POST")], [(b"mesh-upgrade", b"POST 05")], [(b"mesh-upgrade", b"POST x")]]
)
def test_of_a_peer_that_declares_no_content_nothing_is_taken_for_it(peers: Site, more: list[tuple[bytes, bytes]]) -> None:
    with mesh_client(peers) as peer:
        peer.request(1, extended(peers, b"/exec/undeclared", *more), b"hello", end=False)
        peer.until(lambda: peer.bodies.get(1) == b"$ HELLO")
    taken = peers.app.taken["/exec/undeclared"]
    assert (taken.length, taken.body, taken.after) == (0, b"", b"hello")


@pytest.mark.parametrize("more", [[], [(b"mesh-upgrade", b"POST 5")]])
def test_a_content_length_of_connect_is_refused_from_peers_as_from_anybody(
    peers: Site, more: list[tuple[bytes, bytes]]
) -> None:
    before = len(peers.app.served)
    with mesh_client(peers) as peer:
        peer.request(1, extended(peers, b"/exec/length", (b"content-length", b"5"), *more), end=False)
        peer.wait(1)
        assert peer.resets == {1: PROTOCOL_ERROR}
    assert peers.app.served[before:] == []


def test_nobody_else_can_declare_content(ours: Site) -> None:
    with RawClient(ours.port) as client:
        client.request(1, extended(ours, b"/exec/forged", told(5)), b"hello", end=False)
        client.until(lambda: client.bodies.get(1) == b"$ HELLO")
    taken = ours.app.taken["/exec/forged"]
    assert (taken.line, taken.length, taken.after) == (b"GET /exec/forged HTTP/1.1", 0, b"hello")
