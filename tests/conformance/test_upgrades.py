"""HTTP/1.1 Upgrade where it has to cross HTTP/2: it arrives as it was asked, or it is declined, and never something else.

one hop          client -> forward -> backend
sidecars         client -> outbound ==mesh mTLS, h2==> inbound -> backend        (both engines)
http2 between    client -> forward ==h2c==> forward -> backend                   two that do not know each other
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forward_chains import end_chain, make_forwards
from forward_process import Forward, Reader, Sidecars, connect
from http2_peer import Http2Client
from scripted_backend import Connection, Http2Connection, Http2Script, ScriptedBackend

OURS = ["one hop", "http1 between", "sidecars", "sidecars of h2"]
ENABLE_CONNECT_PROTOCOL = (8, 1)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n"


class Heads:
    """The heads that a backend was sent, by path."""

    def __init__(self) -> None:
        self.seen: dict[str, list[bytes]] = {}

    def note(self, connection: Connection) -> None:
        self.seen.setdefault(connection.head.split(b" ")[1].decode(), []).append(connection.head)

    def of(self, path: str) -> tuple[bytes, dict[bytes, bytes]]:
        """The request line, and the fields; each came once."""
        (head,) = self.seen[path]
        line, *lines = head.split(b"\r\n")
        pairs = [(name.lower(), value) for name, _, value in (each.partition(b": ") for each in lines)]
        assert len(dict(pairs)) == len(pairs), pairs
        return line, dict(pairs)


class Site:
    def __init__(self, name: str, directory: Path) -> None:
        self.heads = Heads()
        self.backend = ScriptedBackend(
            {
                **{f"/switch/{method}": self.switches for method in ("GET", "POST", "PURGE")},
                **{f"/page/{method}": self.page for method in ("GET", "POST", "PUT")},
                "/switch/forged": self.switches,
                "/plain": self.page,
                "/id/1": self.page,
                "/id/2": self.page,
                "/HEAD": self.page,
                "/OPTIONS": self.page,
                "/chunked": self.answers(b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n"),
                "/nothing": self.answers(b"204 No Content\r\n\r\n"),
                "/created": self.answers(b"201 Created\r\nContent-Length: 4\r\n\r\npage"),
                "/501": self.answers(b"501 Not Implemented\r\nmesh-status: 200\r\nContent-Length: 4\r\n\r\npage"),
                "/403": self.answers(b"403 Forbidden\r\nContent-Length: 4\r\n\r\npage"),
            }
        )
        self.forwards: list[Forward] = []
        try:
            if name == "sidecars of h2":
                self.forwards = [Sidecars(self.backend.port, str(directory / "authority"), "h2")]
            else:
                self.forwards = make_forwards("http1 backend" if name == "one hop" else name, self.backend.port, directory)
        except BaseException:
            self.backend.stop()
            raise
        self.port = self.forwards[0].port

    def switches(self, connection: Connection) -> None:
        """101, and everything back in capitals."""
        self.heads.note(connection)
        if b"\r\nupgrade:" not in connection.head.lower():
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            return
        connection.send(SWITCHED + b"first")
        data, connection.data = connection.data, b""
        while True:
            if data:
                connection.send(data.upper())
            data = connection.read()

    def page(self, connection: Connection) -> None:
        self.heads.note(connection)
        body = b"" if connection.head.startswith(b"HEAD") else b"page"
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-App: 1\r\n\r\n" + body)

    def answers(self, answer: bytes):
        def script(connection: Connection) -> None:
            self.heads.note(connection)
            connection.send(b"HTTP/1.1 " + answer)

        return script

    def stop(self) -> None:
        end_chain(self.forwards, self.backend)


@pytest.fixture(scope="module", params=OURS)
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(request.param, tmp_path_factory.mktemp("upgrades"))
    yield site
    site.stop()


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site("http2 between", tmp_path_factory.mktemp("strangers"))
    yield site
    site.stop()


def upgrade(path: str, method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: svc.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{more}\r\n".encode()


@pytest.mark.parametrize("method", ["GET", "POST", "PURGE"])
def test_an_upgrade_arrives_with_the_method_it_was_asked_with(ours: Site, method: str) -> None:
    """RFC 9110 7.8 knows no method for it; docker attach and exec, and kubectl's SPDY, ask with POST."""
    path = f"/switch/{method}"
    with connect(ours.port) as sock:
        sock.sendall(upgrade(path, method, "Content-Length: 0\r\nmesh-upgrade: DELETE\r\n" if method == "POST" else ""))
        reader = Reader(sock)
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.fields[b"upgrade"]) == (101, b"tcp")
        assert reader.take(5) == b"first"
        sock.sendall(b"hello")
        assert reader.take(5) == b"HELLO"
    line, fields = ours.heads.of(path)
    assert line == f"{method} {path} HTTP/1.1".encode()
    assert (fields[b"connection"], fields[b"upgrade"]) == (b"upgrade", b"tcp")
    assert fields.get(b"content-length") == (b"0" if method == "POST" else None)
    assert not [name for name in fields if name.startswith(b"mesh-up")]


def test_nobody_but_our_own_proxy_can_say_the_method(ours: Site) -> None:
    fields = [(b":method", b"CONNECT"), (b":protocol", b"tcp"), (b":scheme", b"http"), (b":path", b"/switch/forged")]
    with Http2Client(ours.port) as client:
        stream_id = client.start([*fields, (b":authority", b"svc.test"), (b"mesh-upgrade", b"DELETE")], end=False)
        while not client.answers[stream_id].status:
            client.read()
        assert client.answers[stream_id].status == 200
    assert ours.heads.of("/switch/forged")[0] == b"GET /switch/forged HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_an_app_that_passes_over_an_upgrade_is_heard_as_without_the_mesh(ours: Site, method: str) -> None:
    """RFC 9110 7.8: a server may ignore it.  The connection goes on with the next request."""
    path = f"/page/{method}"
    with connect(ours.port) as sock:
        reader = Reader(sock)
        sock.sendall(upgrade(path, method))
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.fields[b"x-app"], answer.complete) == (200, b"page", b"1", True)
        assert not [name for name in answer.fields if name.startswith(b"mesh-")]
        sock.sendall(b"GET /next HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"/next")
    assert ours.heads.of(path)[0] == f"{method} {path} HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chunked", (200, b"page")),
        ("/nothing", (204, b"")),
        ("/created", (201, b"page")),
        ("/403", (403, b"page")),
        ("/501", (501, b"page")),  # what an app says about itself in mesh-status is nothing
    ],
)
def test_an_answer_that_declines_keeps_its_status_and_content(ours: Site, path: str, expected: tuple[int, bytes]) -> None:
    with connect(ours.port) as sock:
        sock.sendall(upgrade(path, "POST"))
        answer = Reader(sock).answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.complete) == (*expected, True)
        assert b"mesh-status" not in answer.fields


def test_an_upgrade_has_one_request_id_however_it_is_asked_for(ours: Site) -> None:
    fields = [(b":method", b"CONNECT"), (b":protocol", b"tcp"), (b":scheme", b"http"), (b":authority", b"svc.test")]
    with Http2Client(ours.port) as client:
        client.wait(client.start([*fields, (b":path", b"/id/1")], end=False))
        client.wait(client.start([*fields, (b":path", b"/id/2"), (b"x-request-id", b"mine")], end=False))
    assert ours.heads.of("/id/1")[1][b"x-request-id"]
    assert ours.heads.of("/id/2")[1][b"x-request-id"] == b"mine"


def test_a_page_does_not_grant_what_extended_connect_asked_for(ours: Site) -> None:
    """RFC 8441 5: there a 2xx would."""
    fields = [(b":method", b"CONNECT"), (b":protocol", b"tcp"), (b":scheme", b"http"), (b":path", b"/plain")]
    with Http2Client(ours.port) as client:
        answer = client.wait(client.start([*fields, (b":authority", b"svc.test"), (b"mesh-upgrade", b"GET")], end=False))
        assert (answer.status, answer.fields[b"mesh-error"]) == (502, b"upgrade_declined")
        assert b"mesh-status" not in answer.fields


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_what_extended_connect_cannot_carry_is_asked_without_the_upgrade(ours: Site, method: str) -> None:
    """What an answer to HEAD announces does not come; an OPTIONS may be answered by a proxy, whose 200 would grant."""
    with connect(ours.port) as sock:
        sock.sendall(upgrade(f"/{method}", method))
        answer = Reader(sock).answer(method.encode())
        assert answer is not None
        assert (answer.status, answer.fields[b"content-length"], answer.complete) == (200, b"4", True)
    assert ours.heads.of(f"/{method}")[0] == f"{method} /{method} HTTP/1.1".encode()


def test_a_proxy_that_answers_options_grants_nothing(ours: Site) -> None:
    for forwards in range(3):
        with connect(ours.port) as sock:
            sock.sendall(upgrade("/out", "OPTIONS", f"Max-Forwards: {forwards}\r\n"))
            answer = Reader(sock).answer()
            assert answer is not None
            assert (answer.status, answer.complete) == (200, True)


def test_between_strangers_an_upgrade_that_is_no_get_is_declined_and_stays_what_it_is(strangers: Site) -> None:
    with connect(strangers.port) as sock:
        reader = Reader(sock)
        sock.sendall(upgrade("/switch/POST", "POST") + b"GET /next HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        answer = reader.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.complete) == (200, b"page", True)
        assert reader.at_end()  # what was sent in the hope of a tunnel is no request
    assert "/next" not in [path for _, path in strangers.backend.served]
    line, fields = strangers.heads.of("/switch/POST")
    assert line == b"POST /switch/POST HTTP/1.1"
    assert b"upgrade" not in fields
    with connect(strangers.port) as sock:
        sock.sendall(upgrade("/switch/GET"))
        answer = Reader(sock).answer()
        assert answer is not None
        assert answer.status == 101


def test_between_strangers_a_page_in_answer_to_an_upgrade_by_get_is_refused_and_other_answers_pass(strangers: Site) -> None:
    """Between them it is extended CONNECT, and a 2xx would grant the tunnel (RFC 8441 5)."""
    for path, expected in (("/page/GET", (502, b"upgrade_declined")), ("/403", (403, b"page"))):
        with connect(strangers.port) as sock:
            sock.sendall(upgrade(path))
            answer = Reader(sock).answer()
        assert answer is not None
        assert (answer.status, answer.body.partition(b":")[0], answer.complete) == (*expected, True)


@contextmanager
def http2_server(enabled: bool, seen: list, engine: str) -> Iterator[Forward]:
    class Server(Http2Script):
        def serve(self, connection: Connection) -> None:
            key, value = ENABLE_CONNECT_PROTOCOL
            peer = Http2Connection(connection, key.to_bytes(2, "big") + value.to_bytes(4, "big") if enabled else b"")
            take = peer.decoder.decode

            def decode(block: bytes, raw: bool = False):
                fields = take(block, raw=raw)
                seen.append(dict(fields))
                return fields

            peer.decoder.decode = decode
            while True:
                stream_id, _ = peer.next_request()
                if seen[-1][b":method"] == b"CONNECT":
                    peer.head(stream_id)
                    peer.body(stream_id, b"first", False)
                    peer.until(lambda stream_id=stream_id: stream_id in peer.ended or stream_id in peer.resets)
                    peer.body(stream_id, b"", True)
                else:
                    peer.until(lambda stream_id=stream_id: stream_id in peer.ended)
                    peer.answer(stream_id, b"page")

    backend = Server({})
    try:
        forward = Forward(backend.port, "--upstream", "http2", "--http2-engine", engine)
        try:
            yield forward
        finally:
            forward.stop()
    finally:
        backend.stop()


@pytest.mark.parametrize("engine", ["ours", "h2"])
def test_an_http2_server_is_asked_for_an_upgrade_only_in_words_it_knows(engine: str) -> None:
    """Without SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3), or with another method than GET, it gets the request without."""
    for enabled, method, expected in ((False, "GET", 200), (False, "POST", 200), (True, "POST", 200), (True, "GET", 101)):
        seen: list[dict[bytes, bytes]] = []
        with http2_server(enabled, seen, engine) as forward, connect(forward.port) as sock:
            sock.sendall(upgrade("/it", method))
            reader = Reader(sock)
            answer = reader.answer()
            assert answer is not None
            assert answer.status == expected, (enabled, method)
            if expected == 101:
                assert reader.take(5) == b"first"
                assert (seen[0][b":method"], seen[0][b":protocol"]) == (b"CONNECT", b"tcp")
                continue
            assert (answer.body, answer.complete) == (b"page", True)
            assert seen[0][b":method"] == method.encode()
            assert not {b":protocol", b"upgrade", b"connection"} & set(seen[0])
            sock.sendall(b"GET /next HTTP/1.1\r\nHost: svc.test\r\n\r\n")
            answer = reader.answer()
            assert answer is not None
            assert answer.body == b"page"
