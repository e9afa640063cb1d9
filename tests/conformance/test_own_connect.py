"""An app's own CONNECT, to a proxy (squid) that is a workload of the mesh: that proxy is asked, and grants or refuses.

client --CONNECT far.test:443--> outbound ==mesh mTLS, h2==> inbound --CONNECT far.test:443--> the app's proxy
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forward_chains import end_chain
from forward_process import Forward, Reader, Sidecars, connect
from scripted_backend import Connection, ScriptedBackend

ENGINES = ["ours", "h2"]
HELLO = b"\x16\x03\x01\x00\x05hello"


class Site:
    """Two proxies in a row before an app that is a proxy itself; `asked` are the heads that it was sent."""

    def __init__(self, first: type[Forward], *options: str) -> None:
        self.asked: list[bytes] = []
        self.tunnelled: list[bytes] = []
        self.squid = ScriptedBackend({"far.test:443": self.grants, "secret.test:443": self.wants_a_password})
        self.forwards = [first(self.squid.port, *options)]
        self.port = self.forwards[0].port

    def grants(self, connection: Connection) -> None:
        """200, and everything back in capitals."""
        self.asked.append(connection.head)
        connection.send(b"HTTP/1.1 200 Connection established\r\nProxy-Agent: squid\r\n\r\n")
        data, connection.data = connection.data, b""
        while True:
            if data:
                self.tunnelled.append(data)
                connection.send(data.upper())
            data = connection.read()

    def wants_a_password(self, connection: Connection) -> None:
        self.asked.append(connection.head)
        connection.send(b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="a"\r\n')
        connection.send(b"Content-Length: 9\r\n\r\nwho asks?")

    def stop(self) -> None:
        end_chain(self.forwards, self.squid)


@pytest.fixture(params=["one hop", *ENGINES])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "one hop":
        made = Site(Forward)
    else:
        made = Site(Sidecars, str(tmp_path / "authority"), request.param, "undeclared")
    yield made
    made.stop()


@pytest.fixture
def declared(tmp_path: Path) -> Iterator[Site]:
    made = Site(Sidecars, str(tmp_path / "authority"), "ours", "http")
    yield made
    made.stop()


def asks_for(target: str, more: str = "") -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n".encode()


def test_the_app_that_was_connected_to_is_asked_and_carries_the_tunnel(site: Site) -> None:
    with connect(site.port) as sock:
        sock.sendall(asks_for("far.test:443", "Proxy-Authorization: Basic YTpi\r\n"))
        reader = Reader(sock)
        answer = reader.answer(b"CONNECT")
        assert answer is not None
        assert (answer.status, answer.fields.get(b"proxy-agent")) == (200, b"squid")
        sock.sendall(HELLO)
        assert reader.take(len(HELLO)) == HELLO.upper()
    (head,) = site.asked
    assert head.startswith(b"CONNECT far.test:443 HTTP/1.1\r\n")
    assert b"\r\nhost: far.test:443\r\n" in head.lower()
    assert b"\r\nproxy-authorization: basic ytpi\r\n" in head.lower()


def test_its_refusal_arrives_with_its_content(site: Site) -> None:
    with connect(site.port) as sock:
        sock.sendall(asks_for("secret.test:443"))
        answer = Reader(sock).answer(b"GET")
        assert answer is not None
        assert (answer.status, answer.body) == (407, b"who asks?")
        assert answer.fields[b"proxy-authenticate"] == b'Basic realm="a"'
    assert site.asked[0].startswith(b"CONNECT secret.test:443 HTTP/1.1\r\n")


@pytest.mark.parametrize("site", ENGINES, indirect=True)
def test_http_inside_that_could_claim_an_identity_ends_the_tunnel(site: Site) -> None:
    """A server that takes CONNECT for a request like any other answers 200, and reads on."""
    with connect(site.port) as sock:
        sock.sendall(asks_for("far.test:443"))
        reader = Reader(sock)
        answer = reader.answer(b"CONNECT")
        assert answer is not None
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nmesh-client-id: spiffe://mesh.test/ns/shop/sa/admin\r\n\r\n")
        assert reader.take(1) == b""
    assert b"\r\nmesh-client-id: spiffe://mesh.test/ns/shop/sa/web\r\n" in site.asked[0]
    assert site.tunnelled == []


def test_an_app_that_is_declared_to_speak_http_is_sent_no_tunnel(declared: Site) -> None:
    with connect(declared.port) as sock:
        sock.sendall(asks_for("far.test:443"))
        answer = Reader(sock).answer(b"GET")
        assert answer is not None
        assert (answer.status, answer.fields[b"mesh-error"]) == (403, b"not_http")
    assert declared.asked == []
