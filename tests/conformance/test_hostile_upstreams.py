"""Backends that break HTTP/1.1, in front of clients of both versions (the catalogue's RS rows).

Whatever a backend does, a client sees a whole answer, a named refusal, or an end that cannot be taken for a whole answer;
and no other request ever reads what was left over.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator

import pytest
from forward_chains import make_forwards
from forward_process import Forward, Reader, ask, connect, send
from http2_peer import Http2Client, get
from scripted_backend import Connection, Ended, ScriptedBackend

KEEP, FIN, RST = "keep", "fin", "rst"
OK = b"HTTP/1.1 200 OK\r\n"
SMUGGLED = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"

REFUSED = "refused"  # 502 that names itself
CUT = "cut"  # begun, and visibly not complete


class Case:
    """answer   the backend's bytes, and how its connection goes on
    outcome  REFUSED, CUT, or the (status, body) that a client gets
    reused   whether the connection may carry another request
    """

    def __init__(self, answer: bytes, then: str, outcome: object, reused: bool = False, method: bytes = b"GET") -> None:
        self.answer = answer
        self.then = then
        self.outcome = outcome
        self.reused = reused
        self.method = method

    def script(self, connection: Connection) -> None:
        connection.send(self.answer)
        if self.then == FIN:
            connection.fin()
        elif self.then == RST:
            connection.rst()


def head(*lines: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked"
CASES: dict[str, Case] = {
    "RS-01 length and chunked": Case(head(b"Content-Length: 3", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", KEEP, (200, b"hello")),
    "RS-02 two different lengths": Case(head(b"Content-Length: 2", b"Content-Length: 3") + b"abc", KEEP, REFUSED),
    "RS-02 a length that is none": Case(head(b"Content-Length: +3") + b"abc", KEEP, REFUSED),
    "RS-04 gzip": Case(head(b"Transfer-Encoding: gzip") + b"abc", FIN, REFUSED),
    "RS-04 chunked twice": Case(head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", KEEP, REFUSED),
    "RS-04 chunked in two fields": Case(head(CHUNKED, CHUNKED) + b"0\r\n\r\n", KEEP, REFUSED),
    "RS-04 chunked, then gzip": Case(head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n", KEEP, REFUSED),
    "RS-05 no last chunk, FIN": Case(head(CHUNKED) + b"5\r\nhello\r\n", FIN, CUT),
    "RS-05 no last chunk, RST": Case(head(CHUNKED) + b"5\r\nhello\r\n", RST, CUT),
    "RS-05 half a chunk": Case(head(CHUNKED) + b"50\r\nhello", FIN, CUT),
    "RS-05 no end of trailers": Case(head(CHUNKED) + b"5\r\nhello\r\n0\r\n", FIN, CUT),
    "RS-05 a chunk that is none": Case(head(CHUNKED) + b"5\r\nhello\r\nxyz\r\n", KEEP, CUT),
    "RS-06 half of its length, FIN": Case(head(b"Content-Length: 100") + b"x" * 50, FIN, CUT),
    "RS-06 half of its length, RST": Case(head(b"Content-Length: 100") + b"x" * 50, RST, CUT),
    "RS-06 a length and nothing": Case(head(b"Content-Length: 100"), FIN, CUT),
    "RS-07 a second answer": Case(head(b"Content-Length: 2") + b"ok" + SMUGGLED, KEEP, (200, b"ok")),
    "RS-07 a second answer, chunked": Case(head(CHUNKED) + b"2\r\nok\r\n0\r\n\r\n" + SMUGGLED, KEEP, (200, b"ok")),
    "RS-07 line ends": Case(head(b"Content-Length: 2") + b"ok\r\n\r\n", KEEP, (200, b"ok")),
    "RS-11 101 unasked": Case(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", KEEP, REFUSED),
    "RS-11 101 without Upgrade": Case(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", KEEP, REFUSED),
    "RS-12 204 with a body": Case(b"HTTP/1.1 204 No Content\r\nContent-Length: 8\r\n\r\nsmuggled", KEEP, (204, b"")),
    "RS-12 204 chunked": Case(b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n\r\n0\r\n\r\n", KEEP, (204, b"")),
    "RS-12 304 with a body": Case(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\nsmuggled", KEEP, (304, b"")),
    "RS-12 304 with a length": Case(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\n", KEEP, (304, b""), True),
    "RS-12 HEAD with a body": Case(head(b"Content-Length: 8") + b"smuggled", KEEP, (200, b""), method=b"HEAD"),
    "RS-12 HEAD with a length": Case(head(b"Content-Length: 8"), KEEP, (200, b""), True, method=b"HEAD"),
    "RS-12 HEAD chunked": Case(head(CHUNKED), KEEP, (200, b""), True, method=b"HEAD"),
    "RS-13 a field of 1 MiB": Case(head(b"X: " + b"a" * (1 << 20), b"Content-Length: 0"), KEEP, REFUSED),
    "RS-13 10,000 fields": Case(head(*[b"X-%d: 1" % i for i in range(10_000)], b"Content-Length: 0"), KEEP, REFUSED),
    "RS-13 a head without end": Case(OK + b"X: " + b"a" * (1 << 20), KEEP, REFUSED),
    "RS-14 space before colon": Case(head(b"Content-Length : 2", b"X : 1") + b"ok", KEEP, REFUSED),
    "RS-14 NUL": Case(head(b"X: a\0b", b"Content-Length: 2") + b"ok", KEEP, REFUSED),
    "RS-14 bare CR": Case(head(b"X: a\rb", b"Content-Length: 2") + b"ok", KEEP, REFUSED),
    "RS-14 bare LF": Case(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", FIN, REFUSED),
    "RS-14 empty name": Case(head(b": x", b"Content-Length: 2") + b"ok", KEEP, REFUSED),
    "RS-14 no colon": Case(head(b"nonsense", b"Content-Length: 2") + b"ok", KEEP, REFUSED),
    "RS-14 not HTTP": Case(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", KEEP, REFUSED),
    "RS-14 status of two digits": Case(b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok", KEEP, REFUSED),
    "RS-14 status 999": Case(b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok", KEEP, REFUSED),
    "RS-14 HTTP/2.0": Case(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", KEEP, REFUSED),
    "RS-16 to the end, HTTP/1.0": Case(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", FIN, (200, b"until the end")),
    "RS-16 to the end, HTTP/1.1": Case(head() + b"until the end", FIN, (200, b"until the end")),
    "RS-16 to the end, RST": Case(head() + b"until the end", RST, CUT),
    "nothing at all, FIN": Case(b"", FIN, REFUSED),
    "nothing at all, RST": Case(b"", RST, REFUSED),
    "half a head": Case(OK + b"Content-Le", FIN, REFUSED),
    "100 without end": Case(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, KEEP, REFUSED),
    "100, then the answer": Case(
        b"HTTP/1.1 100 Continue\r\n\r\n" + head(b"Content-Length: 2") + b"ok", KEEP, (200, b"ok"), True
    ),
}
PATHS = {name: f"/{i}" for i, name in enumerate(CASES)}


@pytest.fixture(scope="module")
def backend() -> Iterator[ScriptedBackend]:
    made = ScriptedBackend({PATHS[name]: case.script for name, case in CASES.items()})
    yield made
    made.stop()


@pytest.fixture(scope="module", params=["http1 backend", "http1 between", "mtls between", "sidecars"])
def forward(request: pytest.FixtureRequest, backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The proxy that the client speaks to; `named`: whether a refusal of the last proxy keeps its name on the way (a
    `forward` does not pass on a stranger's mesh-error, a sidecar does pass on its peer's)."""
    chain = make_forwards(request.param, backend.port, tmp_path_factory.mktemp("chain"))
    chain[0].named = request.param in ("http1 backend", "sidecars")
    yield chain[0]
    for made in chain:
        made.stop()


def check_refused(forward: Forward, fields: dict[bytes, bytes]) -> None:
    if forward.named or b"mesh-error" in fields:  # the first proxy may also find the fault itself: too many 1xx, passed on
        assert fields[b"mesh-error"] in (b"upstream_malformed", b"upstream_reset")


def controls(forward: Forward, after: str) -> None:
    """Requests that must get their own answers, over as many connections as a leftover could be waiting on."""
    for i in range(3):
        answer = ask(forward.port, f"/control{after}/{i}")
        assert answer is not None
        assert (answer.status, answer.body) == (200, f"/control{after}/{i}".encode())


@pytest.mark.parametrize("name", CASES)
def test_an_http1_client_sees_a_whole_answer_a_refusal_or_a_cut(forward: Forward, backend: ScriptedBackend, name: str) -> None:
    case, path = CASES[name], PATHS[name]
    with connect(forward.port) as sock:
        send(sock, b"%b %b HTTP/1.1\r\nHost: svc.test\r\n\r\n" % (case.method, path.encode()))
        reader = Reader(sock)
        answer = reader.answer(case.method)
        assert answer is not None
        if case.outcome == REFUSED:
            assert (answer.status, answer.complete) == (502, True)
            check_refused(forward, answer.fields)
        elif case.outcome == CUT:
            assert (answer.status, answer.complete) == (200, False)
            assert reader.at_end()
        else:
            assert (answer.status, answer.body) == case.outcome
            assert answer.complete
            if b"transfer-encoding" in answer.fields:
                assert b"content-length" not in answer.fields
            send(sock, b"GET /next%b HTTP/1.1\r\nHost: svc.test\r\nConnection: close\r\n\r\n" % path.encode())
            follower = reader.answer()
            assert follower is not None
            assert follower.body == b"/next" + path.encode()
            assert reader.at_end()
    controls(forward, path)
    assert backend.reused_after(path) <= case.reused


@pytest.mark.parametrize("name", CASES)
def test_an_http2_client_sees_a_whole_answer_a_refusal_or_a_cut(forward: Forward, backend: ScriptedBackend, name: str) -> None:
    case, path = CASES[name], PATHS[name]
    with Http2Client(forward.port) as client:
        other = client.start(get(b"/beside" + path.encode()))
        answer = client.ask(get(path.encode(), method=case.method))
        if case.outcome == REFUSED:
            assert (answer.status, answer.complete) == (502, True)
            check_refused(forward, answer.fields)
        elif case.outcome == CUT:
            assert not answer.complete
            assert answer.reset >= 0
        else:
            assert (answer.status, answer.body) == case.outcome
            assert answer.complete
        assert client.wait(other).body == b"/beside" + path.encode()
        assert client.ask(get(b"/next" + path.encode())).body == b"/next" + path.encode()
    controls(forward, path)


def alone(script: Callable[[Connection], None], test: Callable[[Forward, ScriptedBackend], None], *options: str) -> None:
    """Run `test` with a proxy and a backend of its own; "/it" is the scripted path."""
    backend = ScriptedBackend({"/it": script})
    try:
        forward = Forward(backend.port, *options)
        try:
            test(forward, backend)
        finally:
            forward.stop()
    finally:
        backend.stop()


def closes_when_reused(connection: Connection) -> None:
    """RS-09: the connection ends at the moment of its second request."""
    if connection.requests > 1:
        connection.rst()
    connection.send(head(b"Content-Length: 2") + b"ok")


def test_an_idempotent_request_survives_a_pooled_connection_that_closes_as_it_is_reused() -> None:
    def test(forward: Forward, backend: ScriptedBackend) -> None:
        for _ in range(4):
            answer = ask(forward.port, "/it")
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"ok")
        assert len(backend.connections) == 4
        with Http2Client(forward.port) as client:
            assert client.ask(get(b"/it")).body == b"ok"

    alone(closes_when_reused, test)


def test_a_post_on_a_pooled_connection_that_closes_as_it_is_reused_is_sent_once() -> None:
    def test(forward: Forward, backend: ScriptedBackend) -> None:
        first = ask(forward.port, "/it", "POST", "Content-Length: 2\r\n", b"hi")
        assert first is not None
        assert first.status == 200
        second = ask(forward.port, "/it", "POST", "Content-Length: 2\r\n", b"hi")
        assert second is not None
        assert (second.status, second.fields[b"mesh-error"]) == (502, b"upstream_reset")
        assert [path for _, path in backend.served] == ["/it", "/it"]

    alone(closes_when_reused, test)


@pytest.mark.parametrize("version", [1, 2])
def test_an_early_413_reaches_the_client_and_stops_the_upload(version: int) -> None:
    """RS-17.  The client goes on sending until it is told; the backend closes without reading the rest."""
    total = 100 << 20
    received: list[int] = []

    def refuses(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge")
        received.append(connection.until_closed())
        raise Ended

    def test(forward: Forward, backend: ScriptedBackend) -> None:
        sent = 0
        if version == 1:
            with connect(forward.port) as sock:
                sock.sendall(b"POST /it HTTP/1.1\r\nHost: svc.test\r\nContent-Length: %d\r\n\r\n" % total)
                while sent < total and not select.select([sock], [], [], 0)[0]:  # as clients do that look while they send
                    sock.sendall(bytes(65536))
                    sent += 65536
                answer = Reader(sock).answer()
                assert answer is not None
                assert (answer.status, answer.body) == (413, b"large")
        else:
            with Http2Client(forward.port) as client:
                stream_id = client.start(get(b"/it", (b"content-length", b"%d" % total), method=b"POST"), end=False)
                answer2 = client.answers[stream_id]
                while not answer2.complete and answer2.reset < 0:
                    room = min(client.engine.local_flow_control_window(stream_id), 16384)
                    if room:
                        client.engine.send_data(stream_id, bytes(room))
                        sent += room
                        client.flush()
                    else:
                        client.read()
                assert (answer2.status, answer2.body) == (413, b"large")
                assert client.ask(get(b"/still")).body == b"/still"
        assert sent < total
        assert not backend.reused_after("/it")
        controls(forward, "")

    alone(refuses, test)
    assert received
    assert received[0] < total


def test_a_head_that_drips_is_504_at_the_response_timeout() -> None:
    """RS-19."""
    gone = threading.Event()

    def drips(connection: Connection) -> None:
        connection.sock.settimeout(0.05)
        for byte in OK + b"X: " + b"a" * 10_000:
            connection.send(bytes((byte,)))
            try:
                connection.read()
            except TimeoutError:
                continue
            except Ended:
                gone.set()
                raise
        raise AssertionError("the proxy never gave up")

    def test(forward: Forward, backend: ScriptedBackend) -> None:
        answer = ask(forward.port, "/it")
        assert answer is not None
        assert (answer.status, answer.fields[b"mesh-error"]) == (504, b"request_timeout")
        with Http2Client(forward.port) as client:
            answer2 = client.ask(get(b"/it"))
            assert (answer2.status, answer2.complete) == (504, True)
        assert gone.wait(20)

    alone(drips, test, "--timeout", "0.4")


@pytest.mark.parametrize("version", [1, 2])
def test_fields_that_the_backend_names_in_connection_go_no_further(version: int) -> None:
    """RS-24."""

    def names(connection: Connection) -> None:
        connection.send(
            head(b"Connection: close, X-Internal", b"X-Internal: 1", b"Keep-Alive: timeout=5", b"Content-Length: 2") + b"ok"
        )
        connection.fin()

    def test(forward: Forward, backend: ScriptedBackend) -> None:
        if version == 1:
            with connect(forward.port) as sock:
                send(sock, b"GET /it HTTP/1.1\r\nHost: svc.test\r\n\r\n")
                answer = Reader(sock).answer()
                assert answer is not None
                fields = answer.fields
                assert b"close" not in fields.get(b"connection", b"")  # of that hop, not of this one
        else:
            with Http2Client(forward.port) as client:
                fields = client.ask(get(b"/it")).fields
        assert fields[b"content-length"] == b"2"
        assert not {b"x-internal", b"keep-alive"} & set(fields)

    alone(names, test)
