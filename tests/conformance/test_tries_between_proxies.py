"""How often a request reaches an app that fails, and how many 1xx its client gets, through several proxies that may each try
again: their tries and their limits must not multiply or add up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from forward_chains import end_chain, make_forwards
from forward_process import Forward, Reader, Sidecars, ask, connect, send
from scripted_backend import Connection, ScriptedBackend

from meshproxy.wire.limits import Limits

SHAPES = ["http1 backend", "http1 between", "http2 between", "sidecars", "sidecars of h2"]
INTERIM = Limits().interim_responses
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


class App(ScriptedBackend):
    """/hints[/n]    ten 103 a try, and only the second try ends with 200
    /continue[/n]  so many 103 as may be and the end; the second try asks for the content
    /dies          the end, each time
    /speaks        103 and the end, each time
    /meet          200, when two of them are there
    what comes on a connection after /meet: the end
    """

    def __init__(self) -> None:
        self.tries: dict[str, int] = {}
        self.met = threading.Barrier(2)
        self.ending: set[int] = set()
        scripts = {f"/hints/{n}": self.hints for n in range(4)}
        scripts |= {f"/continue/{n}": self.asks for n in range(4)}
        super().__init__({**scripts, "/dies": self.dies, "/speaks": self.speaks, "/meet": self.meet, "/last": self.last})

    def first(self, connection: Connection) -> bool:
        path = connection.head.split(b" ")[1].decode()
        self.tries[path] = self.tries.get(path, 0) + 1
        return self.tries[path] == 1

    def hints(self, connection: Connection) -> None:
        connection.send(HINT * 10)
        if self.first(connection):
            connection.fin()
        connection.send(OK)

    def asks(self, connection: Connection) -> None:
        if self.first(connection):
            connection.send(HINT * INTERIM)
            connection.fin()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body()
        connection.send(OK)

    def dies(self, connection: Connection) -> None:
        connection.fin()

    def speaks(self, connection: Connection) -> None:
        connection.send(HINT)
        connection.fin()

    def meet(self, connection: Connection) -> None:
        self.met.wait(20)
        self.ending.add(connection.number)
        connection.send(OK)

    def last(self, connection: Connection) -> None:
        if connection.number in self.ending:
            connection.fin()
        connection.send(OK)

    def count(self, path: str) -> int:
        return [served for _, served in self.served].count(path)


class Chain:
    def __init__(self, name: str, directory: Path) -> None:
        self.app = App()
        self.forwards: list[Forward] = []
        try:
            if name == "sidecars of h2":
                self.forwards = [Sidecars(self.app.port, str(directory / "authority"), "h2")]
            else:
                self.forwards = make_forwards(name, self.app.port, directory)
        except BaseException:
            self.app.stop()
            raise
        self.port = self.forwards[0].port

    def stop(self) -> None:
        end_chain(self.forwards, self.app)


@pytest.fixture(scope="module", params=SHAPES)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    made = Chain(request.param, tmp_path_factory.mktemp("tries"))
    yield made
    made.stop()


@pytest.fixture(scope="module", params=["sidecars", "sidecars of h2"])
def sidecars(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    made = Chain(request.param, tmp_path_factory.mktemp("sidecars"))
    yield made
    made.stop()


def heads(reader: Reader) -> list[int]:
    """The statuses up to the first that the client has to do something about."""
    found = []
    while not found or found[-1] == 103:
        while b"\r\n\r\n" not in reader.data:
            assert reader.more()
        head, _, reader.data = reader.data.partition(b"\r\n\r\n")
        found.append(int(head.split(b" ")[1]))
    return found


def test_the_1xx_of_several_tries_are_passed_on_up_to_the_limit_of_one_answer(chain: Chain) -> None:
    """The try that works is not ended because of what one before it has said."""
    with connect(chain.port) as sock:
        send(sock, b"GET /hints/0 HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        assert heads(Reader(sock)) == [103] * INTERIM + [200]
    assert chain.app.count("/hints/0") == 2


def test_a_client_that_waits_for_100_gets_it_whatever_number_of_1xx_came_before(chain: Chain) -> None:
    with connect(chain.port) as sock:
        reader = Reader(sock)
        send(sock, b"PUT /continue/0 HTTP/1.1\r\nHost: svc.test\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert heads(reader) == [103] * (INTERIM - 1) + [100]
        send(sock, b"hi")
        assert heads(reader) == [200]
    assert chain.app.count("/continue/0") == 2


@pytest.mark.parametrize("path", ["/dies", "/speaks"])
@pytest.mark.parametrize("reused", [False, True], ids=["new connection", "reused connection"])
def test_a_request_that_an_app_fails_reaches_it_as_often_as_one_proxy_tries(sidecars: Chain, path: str, reused: bool) -> None:
    if reused:
        assert ask(sidecars.port, "/page") is not None
    before = sidecars.app.count(path)
    answer = ask(sidecars.port, path)
    assert answer is not None
    assert (answer.status, answer.fields[b"mesh-error"]) == (502, b"upstream_reset")
    # Nobody can tell an app that dies of a request from one that closes an idle connection: once more, on a reused one.
    assert sidecars.app.count(path) - before == (3 if reused and path == "/dies" else 2)


def test_a_connection_to_the_app_that_closes_as_it_is_reused_costs_its_caller_no_try(sidecars: Chain) -> None:
    """Two of them: each proxy alone would have given up at the second."""
    with connect(sidecars.port) as one, connect(sidecars.port) as other:
        for sock in (one, other):
            send(sock, b"GET /meet HTTP/1.1\r\nHost: svc.test\r\n\r\n")
        for sock in (one, other):
            answer = Reader(sock).answer()
            assert answer is not None
            assert answer.status == 200
    answer = ask(sidecars.port, "/last")
    assert answer is not None
    assert (answer.status, answer.body) == (200, b"ok")
    assert sidecars.app.count("/last") == 3
