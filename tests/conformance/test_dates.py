"""Date (RFC 9110 6.6.1): a response that comes without one goes on with one, and what a proxy answers itself has one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from forward_chains import end_chain, make_forwards
from forward_process import Answer, Forward, Reader, connect
from http2_peer import Http2Client, RawClient, get
from scripted_backend import Connection, Http2Connection, Http2Script, ScriptedBackend

THEIRS = b"Tue, 15 Nov 1994 08:12:31 GMT"
CALL = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


def answers(data: bytes):
    def script(connection: Connection) -> None:
        connection.read_body()
        connection.send(b"HTTP/1.1 " + data)

    return script


def tunnels(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n")
    connection.until_closed()


def dated(peer: Http2Connection, stream_id: int) -> None:
    peer.head(stream_id, (b"date", THEIRS), end=True)


def undated(peer: Http2Connection, stream_id: int) -> None:
    peer.head(stream_id, end=True)


def interim(peer: Http2Connection, stream_id: int) -> None:
    peer.head(stream_id, (b"link", b"</a>"), status=b"103")
    peer.head(stream_id, end=True)


class Site:
    def __init__(self, name: str, directory) -> None:
        self.backend: ScriptedBackend
        if name == "http2 backend":
            self.backend = Http2Script({"/dated": dated, "/undated": undated, "/not modified": undated, "/interim": interim})
        else:
            self.backend = ScriptedBackend(
                {
                    "/dated": answers(b"200 OK\r\nDate: " + THEIRS + b"\r\nContent-Length: 0\r\n\r\n"),
                    "/undated": answers(b"200 OK\r\nContent-Length: 0\r\n\r\n"),
                    "/hop": answers(b"200 OK\r\nConnection: date\r\nDate: x\r\nContent-Length: 0\r\n\r\n"),
                    "/interim": answers(b"103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
                    "/tunnel": tunnels,
                }
            )
        self.forwards: list[Forward] = []
        try:
            self.forwards = make_forwards(name, self.backend.port, directory)
        except BaseException:
            self.backend.stop()
            raise
        self.name = name
        self.port = self.forwards[0].port

    def stop(self) -> None:
        end_chain(self.forwards, self.backend)


OF_HTTP1 = [
    "http1 backend",
    "http2 between",
    "sidecars",
]  # where the answer comes from a server that has Connection and Upgrade


@pytest.fixture(scope="module", params=[*OF_HTTP1, "http2 backend"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(request.param, tmp_path_factory.mktemp("dates"))
    yield made
    made.stop()


def dates(head: bytes) -> list[bytes]:
    return [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"date:")]


def ours(values: list[bytes], since: float) -> None:
    """One, in the form of RFC 9110 5.6.7, and of now."""
    (value,) = values
    text = value.decode()
    made = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert made.strftime("%a, %d %b %Y %H:%M:%S GMT") == text
    assert int(since) - 1 <= made.timestamp() <= time.time()


def ask1(port: int, path: str, more: str = "", method: str = "GET") -> Answer:
    with connect(port) as sock:
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: svc.test\r\n{more}\r\n".encode())
        answer = Reader(sock).answer(method.encode())
    assert answer is not None
    return answer


def test_an_answer_without_a_date_gets_one(site: Site) -> None:
    since = time.time()
    for _ in range(3):  # the third is one whose head is remembered
        ours(dates(ask1(site.port, "/undated").head), since)
        with RawClient(site.port) as client:
            client.request(1, get(b"/undated"))
            client.wait(1)
            ours([client.fields[1][b"date"]], since)


def test_an_answer_with_a_date_keeps_it(site: Site) -> None:
    for _ in range(3):
        assert dates(ask1(site.port, "/dated").head) == [THEIRS]
        with Http2Client(site.port) as client:
            assert client.ask(get(b"/dated")).fields[b"date"] == THEIRS


@pytest.mark.parametrize("site", OF_HTTP1, indirect=True)
def test_a_date_for_one_hop_is_none(site: Site) -> None:
    ours(dates(ask1(site.port, "/hop").head), time.time())


def test_an_interim_answer_gets_none(site: Site) -> None:
    with connect(site.port) as sock:
        sock.sendall(b"GET /interim HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        said = b""
        while said.count(b"\r\n\r\n") < 2:
            said += sock.recv(65536)
    early, late, *_ = said.split(b"\r\n\r\n")
    assert early.startswith(b"HTTP/1.1 103")
    assert dates(early) == []
    assert len(dates(late)) == 1


@pytest.mark.parametrize("site", OF_HTTP1, indirect=True)
def test_what_opens_a_tunnel_gets_none(site: Site) -> None:
    answer = ask1(site.port, "/tunnel", "Connection: upgrade\r\nUpgrade: tcp\r\n")
    assert (answer.status, dates(answer.head)) == (101, [])


def test_what_the_proxy_answers_itself_has_one(site: Site) -> None:
    since = time.time()
    refused = {
        400: ask1(site.port, "/", "A B: x\r\n"),
        431: ask1(site.port, "/", "A: " + "x" * 70000 + "\r\n"),
        200: ask1(site.port, "/", "Max-Forwards: 0\r\n", "OPTIONS"),
        405: ask1(site.port, "/", "Max-Forwards: 0\r\n", "TRACE"),
    }
    assert {status: answer.status for status, answer in refused.items()} == {status: status for status in refused}
    for answer in refused.values():
        ours(dates(answer.head), since)
    with RawClient(site.port) as client:
        client.request(1, get(b"/", *[(b"x-%d" % number, b"") for number in range(200)]))
        client.request(3, [field for field in get(b"/") if field[0] != b":authority"])
        client.request(5, get(b"/", (b"max-forwards", b"x"), *CALL, method=b"OPTIONS"))
        for stream_id, status in ((1, 431), (3, 400), (5, 200)):
            client.wait(stream_id)
            assert client.status[stream_id] == status
            ours([client.fields[stream_id][b"date"]], since)


def test_an_answer_of_an_endpoint_that_is_not_there_has_one() -> None:
    forward = Forward(1)
    try:
        since = time.time()
        answer = ask1(forward.port, "/")
        assert answer.status == 502
        ours(dates(answer.head), since)
    finally:
        forward.stop()
