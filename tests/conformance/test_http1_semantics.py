"""What HTTP/1.1 means, through one proxy, through two with HTTP/2 and mTLS between, and through two sidecars: order, 1xx,
Expect, trailers, HTTP/1.0, ends of input, names and phrases, and heads at their limits."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import h2.events
import pytest
from forward_chains import make_forwards
from forward_process import Forward, Reader, connect, send, until
from http2_peer import Http2Client, get
from recorders import RecordingBackend, Request
from scripted_backend import Connection, ScriptedBackend

from meshproxy.wire.limits import Limits

SHAPES = ["http1 backend", "mtls between", "sidecars"]
LIMITS = Limits()
GO = threading.Event()  # lets "/slow" be answered


def slow(connection: Connection) -> None:
    assert GO.wait(20)
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")


def answers(data: bytes) -> Callable[[Connection], None]:
    def script(connection: Connection) -> None:
        connection.read_body()
        connection.send(data)

    return script


def refuses_unread(connection: Connection) -> None:
    """The final answer instead of 100 (Continue); the body is never read."""
    connection.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
    connection.fin()


def continues(connection: Connection) -> None:
    assert b"\r\nexpect: 100-continue" in connection.head.lower()
    assert connection.data == b""
    connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    connection.read_body()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntook")


def until_closed(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")
    connection.fin()


def cut(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n\r\nto the")
    assert GO.wait(20)
    connection.rst()


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
SCRIPTS = {
    "/slow": slow,
    "/missing": answers(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"),
    "/head": answers(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
    "/hints": answers(b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS + HINTS + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    "/named-trailers": answers(
        b"HTTP/1.1 200 OK\r\nConnection: X-T, x-gone\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nx-t: 1\r\nX-Sum: 1\r\nX-Gone: 2\r\n\r\n"
    ),
    "/trailers": answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
    ),
    "/refuses": refuses_unread,
    "/continues": continues,
    "/close": until_closed,
    "/cut": cut,
    "/chunked": answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
    "/old": answers(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nold"),
    "/older": answers(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nolder"),
    "/named": answers(b"HTTP/1.1 200 Quite Fine\r\nX-MiXed-Case: A\r\ncontent-LENGTH: 2\r\n\r\nok"),
    "/folded": answers(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok"),
    "/fields": answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"X: 1\r\n" * (LIMITS.head_fields - 1) + b"\r\nok"),
    "/a field more": answers(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"X: 1\r\n" * LIMITS.head_fields + b"\r\nok"),
}
SCRIPTS["/over"] = SCRIPTS.pop("/a field more")


class Way:
    def __init__(self, shape: str, forwards: list[Forward], backend: ScriptedBackend | RecordingBackend) -> None:
        self.shape = shape
        self.forwards = forwards
        self.backend = backend
        self.port = forwards[0].port
        self.alone = shape == "http1 backend"  # HTTP/1.1 all the way

    def stop(self) -> None:
        for forward in self.forwards:
            forward.stop()
        self.backend.stop()


@pytest.fixture(scope="module", params=SHAPES)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """To a backend that answers by script."""
    backend = ScriptedBackend(SCRIPTS)
    made = Way(request.param, make_forwards(request.param, backend.port, tmp_path_factory.mktemp("way")), backend)
    yield made
    made.stop()


@pytest.fixture(scope="module", params=SHAPES)
def seen_way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    """To a backend that records."""
    backend = RecordingBackend()
    made = Way(request.param, make_forwards(request.param, backend.port, tmp_path_factory.mktemp("way")), backend)
    yield made
    made.stop()


def say(method: str, path: str, *lines: str, version: str = "1.1") -> bytes:
    return "".join(line + "\r\n" for line in (f"{method} {path} HTTP/{version}", "Host: svc.test", *lines, "")).encode()


def one(way: Way, data: bytes, method: bytes = b"GET") -> tuple[bytes, list[bytes], bytes]:
    """Status line, header lines and body of the answer to `data`, whatever came after it ignored."""
    with connect(way.port) as sock:
        send(sock, data)
        answer = Reader(sock).answer(method)
    assert answer is not None
    first, *lines = answer.head.split(b"\r\n")
    return first, lines, answer.body


def arrived(way: Way, data: bytes) -> Request:
    assert isinstance(way.backend, RecordingBackend)
    mark = way.backend.mark()
    first, _, _ = one(way, data)
    assert first == b"HTTP/1.1 200 OK"
    way.backend.settle()
    (request,) = way.backend.since(mark)
    return request


# -- order


def test_pipelined_requests_are_answered_in_order_however_slow_the_first_is(way: Way) -> None:
    GO.clear()
    with connect(way.port) as sock:
        send(sock, say("GET", "/slow") + say("HEAD", "/head") + say("GET", "/missing") + say("GET", "/plain"))
        assert isinstance(way.backend, ScriptedBackend)
        until(lambda: way.backend.served[-1:] != [] and way.backend.served[-1][1] == "/slow", "the slow request at the backend")
        GO.set()
        reader = Reader(sock)
        got = [reader.answer(method) for method in (b"GET", b"HEAD", b"GET", b"GET")]
    assert [(answer.status, answer.body) for answer in got] == [(200, b"slow"), (200, b""), (404, b"gone"), (200, b"/plain")]
    assert got[1].fields[b"content-length"] == b"99"


def test_a_bad_request_in_a_pipeline_is_the_last_that_is_answered(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/1") + say("GET", "/2") + b"GET /3 HTTP/1.1\r\n\r\n" + say("GET", "/4"))
        reader = Reader(sock)
        got = [reader.answer() for _ in range(3)]
        assert [(answer.status, answer.body) for answer in got[:2]] == [(200, b"/1"), (200, b"/2")]
        assert (got[2].status, got[2].fields[b"connection"]) == (400, b"close")
        assert reader.at_end()


# -- 1xx and Expect


def test_interim_answers_pass_in_order(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/hints"))
        data = b""
        while not data.endswith(b"ok"):
            part = sock.recv(65536)
            assert part
            data += part
    heads = [part.split(b" ")[1] for part in data.split(b"\r\n\r\n")[:-1]]
    assert heads == [b"102", b"103", b"103", b"200"]
    assert data.lower().count(b"\r\nlink: </a>\r\n") == 2


class Hinted(Http2Client):
    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.interim: list[dict[bytes, bytes]] = []

    def take(self, event: object) -> None:
        if isinstance(event, h2.events.InformationalResponseReceived):
            self.interim.append(dict(event.headers))
        super().take(event)


def test_interim_answers_pass_to_an_http2_client(way: Way) -> None:
    with Hinted(way.port) as client:
        answer = client.ask(get(b"/hints"))
        assert (answer.status, answer.body) == (200, b"ok")
        assert [fields[b":status"] for fields in client.interim] == [b"102", b"103", b"103"]
        assert client.interim[1][b"link"] == b"</a>"


def test_a_1_0_client_gets_no_interim_answer(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/hints", version="1.0"))
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_body_that_waits_for_100_is_sent_when_it_comes(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("POST", "/continues", "Expect: 100-continue", "Content-Length: 5"))
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        send(sock, b"hello")
        answer = Reader(sock).answer()
        assert (answer.status, answer.body) == (200, b"took")
    with Hinted(way.port) as client:
        stream_id = client.start(
            get(b"/continues", (b"expect", b"100-continue"), (b"content-length", b"5"), method=b"POST"), end=False
        )
        while not client.interim:
            client.read()
        client.engine.send_data(stream_id, b"hello", end_stream=True)
        client.flush()
        assert client.wait(stream_id).body == b"took"


def test_a_refusal_instead_of_100_arrives_without_the_body_and_ends_the_connection(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("POST", "/refuses", "Expect: 100-continue", "Content-Length: 5"))
        reader = Reader(sock)
        answer = reader.answer()
        assert (answer.status, answer.body) == (417, b"no")
        assert answer.fields[b"connection"] == b"close"
        send(sock, b"hello" + say("GET", "/never"))
        assert reader.at_end()
    with Http2Client(way.port) as client:
        stream_id = client.start(
            get(b"/refuses", (b"expect", b"100-continue"), (b"content-length", b"5"), method=b"POST"), end=False
        )
        assert client.wait(stream_id).status == 417
        assert client.ask(get(b"/still")).body == b"/still"
    assert isinstance(way.backend, ScriptedBackend)
    assert "/never" not in [path for _, path in way.backend.served]


def test_an_empty_port_is_left_out(seen_way: Way) -> None:
    data = b"GET /up HTTP/1.1\r\nHost: svc.test:\r\n\r\n"
    assert arrived(seen_way, data).values(b"host") == [b"svc.test"]


# -- trailers


@pytest.mark.parametrize("te", [(), ("TE: trailers", "Connection: TE")])
def test_trailers_of_an_answer_pass(way: Way, te: tuple[str, ...]) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/trailers", *te))
        data = b""
        while not data.endswith(b"\r\n\r\n") or b"\r\n0\r\n" not in data:
            part = sock.recv(65536)
            assert part
            data += part
    assert b"\r\ntrailer: x-sum\r\n" in data.lower()
    assert data.lower().endswith(b"2\r\nok\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n")
    with Http2Client(way.port) as client:
        answer = client.ask(get(b"/trailers", (b"te", b"trailers")))
        assert (answer.body, answer.trailers) == (b"ok", {b"x-sum": b"1", b"x-more": b"2"})


def test_trailers_of_an_answer_that_connection_names_end_at_this_hop(way: Way) -> None:
    """RFC 9110 7.6.1: a field that Connection names is removed, "any header or trailer field(s)"."""
    with connect(way.port) as sock:
        send(sock, say("GET", "/named-trailers"))
        data = b""
        while b"\r\n0\r\n" not in data or not data.endswith(b"\r\n\r\n"):
            part = sock.recv(65536)
            assert part
            data += part
    assert data.lower().endswith(b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n")
    with Http2Client(way.port) as client:
        answer = client.ask(get(b"/named-trailers", (b"te", b"trailers")))
        assert (answer.body, answer.trailers) == (b"ok", {b"x-sum": b"1"})


def test_trailers_of_a_request_that_connection_names_end_at_this_hop(seen_way: Way) -> None:
    chunked = b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nX-T: 1\r\nx-gone: 2\r\n\r\n"
    for _ in range(2):  # the second time the head is known already
        head = say("POST", "/up", "Transfer-Encoding: chunked", "Connection: x-t", "Connection: keep-alive, X-Gone")
        assert arrived(seen_way, head + chunked).trailers == [(b"x-sum", b"1")]
    head = say("POST", "/up", "Transfer-Encoding: chunked", "Connection: keep-alive")
    assert arrived(seen_way, head + chunked).trailers == [(b"x-sum", b"1"), (b"x-t", b"1"), (b"x-gone", b"2")]


def test_trailers_of_a_request_pass_and_so_does_the_wish_for_them(seen_way: Way) -> None:
    chunked = b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n"
    request = arrived(
        seen_way,
        say("POST", "/up", "Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers", "Connection: TE") + chunked,
    )
    assert (request.body, request.trailers) == (b"hi", [(b"x-sum", b"1")])
    assert request.values(b"te") == [b"trailers"]
    assert request.values(b"trailer") == [b"X-Sum"]
    assert arrived(seen_way, say("GET", "/down")).values(b"te") == []


# -- HTTP/1.0, and ends


def test_a_1_0_client_keeps_its_connection_where_it_asks_and_the_answer_has_a_length(way: Way) -> None:
    with connect(way.port) as sock:
        reader = Reader(sock)
        for path in ("/a", "/b"):
            send(sock, say("GET", path, "Connection: keep-alive", version="1.0"))
            answer = reader.answer()
            assert (answer.body, answer.fields[b"connection"]) == (path.encode(), b"keep-alive")
        send(sock, say("GET", "/c", version="1.0"))
        answer = reader.answer()
        assert (answer.body, answer.fields[b"connection"]) == (b"/c", b"close")
        assert reader.at_end()


def test_a_1_0_client_that_names_no_host_means_whom_it_connected_to(seen_way: Way) -> None:
    request = arrived(seen_way, b"GET /bare HTTP/1.0\r\n\r\n")
    assert request.target == b"/bare"
    assert isinstance(seen_way.backend, RecordingBackend)
    (host,) = request.values(b"host")
    assert host == (b"svc.shop:80" if seen_way.shape == "sidecars" else b"127.0.0.1:%d" % seen_way.forwards[0].target)


def test_a_1_0_client_gets_a_chunked_answer_plain_and_to_the_end(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/chunked", "Connection: keep-alive", version="1.0"))
        reader = Reader(sock)
        answer = reader.answer()
        assert b"transfer-encoding" not in answer.fields
        assert (answer.body, answer.complete, answer.fields[b"connection"]) == (b"ok", True, b"close")


def test_an_answer_that_ends_with_the_connection_is_whole_to_each_client(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/close") + say("GET", "/next"))
        reader = Reader(sock)
        answer = reader.answer()
        assert (answer.body, answer.complete) == (b"to the end", True)
        assert answer.fields[b"transfer-encoding"] == b"chunked"
        assert reader.answer().body == b"/next"
    with connect(way.port) as sock:
        send(sock, say("GET", "/close", version="1.0"))
        answer = Reader(sock).answer()
        assert (answer.body, answer.complete) == (b"to the end", True)
    with Http2Client(way.port) as client:
        answer2 = client.ask(get(b"/close"))
        assert (answer2.body, answer2.complete) == (b"to the end", True)


def test_an_answer_that_is_cut_by_a_reset_is_whole_to_no_client(way: Way) -> None:
    """A 1.0 client has nothing but the end of the connection to go by: it must be an RST."""
    for version in ("1.1", "1.0"):
        GO.clear()
        with connect(way.port) as sock:
            send(sock, say("GET", "/cut", version=version))
            reader = Reader(sock)
            while b"to the" not in reader.data:
                assert reader.more()
            GO.set()
            answer = reader.answer()
            assert (answer.status, answer.complete) == (200, False)
            assert reader.reset or version == "1.1"
    GO.clear()
    with Http2Client(way.port) as client:
        stream_id = client.start(get(b"/cut"))
        while client.answers[stream_id].body != b"to the":
            client.read()
        GO.set()
        answer2 = client.wait(stream_id)
        assert not answer2.complete
        assert answer2.reset >= 0


def test_a_1_0_server_keeps_its_connection_only_where_it_says_so(way: Way) -> None:
    assert isinstance(way.backend, ScriptedBackend)
    for path, kept in (("/old", True), ("/older", False)):
        with connect(way.port) as sock:
            reader = Reader(sock)
            for asked in (path, "/then"):
                send(sock, say("GET", asked))
                answer = reader.answer()
                assert answer.body == asked[1:].encode() or asked == "/then"
                assert b"close" not in answer.fields.get(b"connection", b"")
        assert way.backend.reused_after(path) is kept


def test_a_client_that_closes_its_sending_side_gets_all_its_answers(way: Way) -> None:
    with connect(way.port) as sock:
        send(sock, say("GET", "/1") + say("POST", "/2", "Content-Length: 2") + b"hi")
        sock.shutdown(socket.SHUT_WR)
        reader = Reader(sock)
        assert [reader.answer().body for _ in range(2)] == [b"/1", b"/2"]
        assert reader.at_end()


# -- what is said as it was said


def test_phrase_and_names_keep_their_spelling_over_http1_and_lose_it_over_http2(way: Way) -> None:
    first, lines, body = one(way, say("GET", "/named"))
    assert body == b"ok"
    if way.alone:
        assert first == b"HTTP/1.1 200 Quite Fine"
        assert b"X-MiXed-Case: A" in lines
        assert b"content-LENGTH: 2" in lines
    else:
        assert first == b"HTTP/1.1 200 OK"
        assert b"x-mixed-case: A" in lines


def test_names_of_a_request_keep_their_spelling_over_http1(seen_way: Way) -> None:
    assert isinstance(seen_way.backend, RecordingBackend)
    mark = seen_way.backend.mark()
    one(seen_way, say("GET", "/", "X-MiXed-Case: A", "ACCEPT: b"))
    seen_way.backend.settle()
    raw = b"".join(bytes(recorder.raw)[mark.get(recorder, (0, 0))[0] :] for recorder in seen_way.backend.recorders)
    if seen_way.alone:
        assert b"\r\nX-MiXed-Case: A\r\nACCEPT: b\r\n" in raw
    else:
        assert b"\r\nx-mixed-case: A\r\naccept: b\r\n" in raw


@pytest.mark.parametrize("method", ["BREW", "get", "M-SEARCH", "PROPFIND", "A!#$%&'*+-.^_`|~9", "x" * 32])
def test_a_method_that_nobody_knows_passes_as_it_is(way: Way, method: str) -> None:
    first, _, body = one(way, say(method, "/as-is"))
    assert (first, body) == (b"HTTP/1.1 200 OK", b"/as-is")


def test_asterisk_form_reaches_the_server(seen_way: Way) -> None:
    request = arrived(seen_way, say("OPTIONS", "*"))
    assert (request.method, request.target) == (b"OPTIONS", b"*")


def test_a_folded_answer_is_no_answer(way: Way) -> None:
    first, _, _ = one(way, say("GET", "/folded"))
    assert first.startswith(b"HTTP/1.1 502 ")


# -- heads at their limits


def test_a_request_line_may_be_as_long_as_the_limit_and_no_longer(seen_way: Way) -> None:
    room = LIMITS.request_line_bytes - len(b"GET / HTTP/1.1")
    assert arrived(seen_way, say("GET", "/" + "a" * room)).target == b"/" + b"a" * room
    first, _, _ = one(seen_way, say("GET", "/" + "a" * (room + 1)))
    assert first.startswith(b"HTTP/1.1 414 ")


def head_of(size: int, fields: int = 20) -> bytes:
    """A request whose head has this many bytes without the empty line at its end."""
    start = b"GET /big HTTP/1.1\r\nHost: svc.test\r\nX-Request-ID: 1\r\n"
    lines = [b"X-%02d: " % i for i in range(fields)]
    left = size - len(start) - sum(len(line) + 2 for line in lines) + 2
    each, rest = divmod(left, fields)
    return start + b"".join(line + b"a" * (each + (rest if i == 0 else 0)) + b"\r\n" for i, line in enumerate(lines)) + b"\r\n"


def test_a_head_may_be_as_large_as_the_limit_and_no_larger(seen_way: Way) -> None:
    """What the first proxy takes the second takes, though HTTP/2 counts more and the first has added to it."""
    exact = head_of(LIMITS.head_bytes)
    assert len(exact) == LIMITS.head_bytes + 4
    assert arrived(seen_way, exact).target == b"/big"
    first, lines, _ = one(seen_way, head_of(LIMITS.head_bytes + 1))
    assert first.startswith(b"HTTP/1.1 431 ")
    assert b"mesh-error: h1_head_too_large" in lines


def test_a_request_may_have_as_many_fields_as_the_limit_and_no_more(seen_way: Way) -> None:
    most = LIMITS.head_fields - 1  # Host is one
    assert len(arrived(seen_way, say("GET", "/", *["X: 1"] * most)).values(b"x")) == most
    first, _, _ = one(seen_way, say("GET", "/", *["X: 1"] * (most + 1)))
    assert first.startswith(b"HTTP/1.1 431 ")


def test_an_answer_may_have_as_many_fields_as_the_limit_and_no_more(way: Way) -> None:
    first, lines, body = one(way, say("GET", "/fields"))
    assert (first, body) == (b"HTTP/1.1 200 OK", b"ok")
    assert sum(line.lower() == b"x: 1" for line in lines) == LIMITS.head_fields - 1
    first, _, _ = one(way, say("GET", "/over"))
    assert first.startswith(b"HTTP/1.1 502 ")
