"""Max-Forwards (RFC 9110 7.6.2): each proxy takes one off for OPTIONS and TRACE, and none forwards what has none left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forward_chains import make_forwards
from forward_process import Reader, connect, send
from http2_peer import Http2Client, get
from recorders import Http1Recorder, Http2Recorder, RecordingBackend, Request

# Proxies on the way.
HOPS = {"http1 backend": 1, "http2 backend": 1, "sidecars": 2}

MOST = b"2147483647"
HERE, REFUSED, BAD = 200, 405, 400  # answered without the server

# method, the field's lines, what becomes of it behind one proxy and behind two: a status, or what the server gets to see.
ROWS: list[tuple[bytes, list[bytes], object, object]] = [
    (b"OPTIONS", [b"0"], HERE, HERE),
    (b"OPTIONS", [b"000"], HERE, HERE),
    (b"OPTIONS", [b"1"], [b"0"], HERE),
    (b"OPTIONS", [b"2"], [b"1"], [b"0"]),
    (b"OPTIONS", [b"010"], [b"9"], [b"8"]),
    (b"OPTIONS", [b"2147483648"], [MOST], [b"2147483646"]),
    (b"OPTIONS", [b"9" * 5000], [MOST], [b"2147483646"]),
    (b"TRACE", [b"0"], REFUSED, REFUSED),
    (b"TRACE", [b"1"], [b"0"], REFUSED),
    (b"TRACE", [b"2"], [b"1"], [b"0"]),
    (b"OPTIONS", [], [], []),
    (b"TRACE", [], [], []),
    *[
        (method, [value], BAD, BAD)
        for method in (b"OPTIONS", b"TRACE")
        for value in (b"", b"-1", b"+1", b"1.0", b"1, 2", b"0x1", b"1 1", b"many", b"1_0", "\u0661".encode())
    ],
    (b"OPTIONS", [b"0", b"1"], BAD, BAD),
    (b"OPTIONS", [b"1", b"1"], BAD, BAD),
    *[(method, [value], [value], [value]) for method in (b"GET", b"POST", b"BREW", b"options") for value in (b"0", b"7", b"x")],
    (b"GET", [b"0", b"1"], [b"0", b"1"], [b"0", b"1"]),
]
ERRORS = {REFUSED: b"trace_refused", BAD: b"bad_max_forwards"}


class Way:
    def __init__(self, shape: str, directory) -> None:
        self.hops = HOPS[shape]
        self.backend = RecordingBackend(Http2Recorder if shape == "http2 backend" else Http1Recorder)
        self.forwards = make_forwards(shape, self.backend.port, directory)
        self.port = self.forwards[0].port

    def stop(self) -> None:
        for forward in self.forwards:
            forward.stop()
        self.backend.stop()


@pytest.fixture(scope="module", params=HOPS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    made = Way(request.param, tmp_path_factory.mktemp("way"))
    yield made
    made.stop()


def said(values: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"max-forwards", value) for value in values]


def ask_http1(way: Way, method: bytes, path: bytes, values: list[bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    with connect(way.port) as sock:
        lines = [method + b" " + path + b" HTTP/1.1", b"Host: svc.test", b"Accept: */*", b"Connection: keep-alive"]
        send(sock, b"\r\n".join([*lines, *[b"Max-Forwards: " + value for value in values], b"", b""]))
        reader = Reader(sock)
        answer = reader.answer(method)
        assert answer is not None
        send(sock, b"GET /next HTTP/1.1\r\nHost: svc.test\r\n\r\n")  # the connection goes on
        following = reader.answer()
        assert following is not None
        assert following.body == b"echo GET /next 0"
    return answer.status, answer.fields, answer.body


def ask_http2(way: Way, method: bytes, path: bytes, values: list[bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    with Http2Client(way.port) as client:
        answer = client.ask(get(path, *said(values), method=method))
        assert answer.complete
        assert client.ask(get(b"/next")).body == b"echo GET /next 0"
    return answer.status, answer.fields, answer.body


def seen(way: Way, mark) -> list[Request]:
    way.backend.settle()
    return [request for request in way.backend.since(mark) if request.target != b"/next"]


@pytest.mark.parametrize("ask", [ask_http1, ask_http2])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0].decode()} {b' and '.join(row[1])[:12].decode()}")
def test_a_request_is_forwarded_with_one_less_by_each_proxy_and_answered_by_the_one_that_finds_none_left(way, ask, row) -> None:
    method, values, *expected = row
    becomes = expected[way.hops - 1]
    for path in (b"/a", b"/b", b"/b?c"):  # what comes again differing in its path only is parsed by another way
        mark = way.backend.mark()
        status, fields, body = ask(way, method, path, values)
        arrived = seen(way, mark)
        if isinstance(becomes, list):
            assert [(request.method, request.target) for request in arrived] == [(method, path)]
            assert arrived[0].values(b"max-forwards") == becomes
            assert (status, b"allow" in fields) == (200, False)
            continue
        assert arrived == []
        assert status == becomes
        assert fields.get(b"mesh-error") == ERRORS.get(becomes)
        if becomes != BAD:
            assert fields[b"allow"] == b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"
        if becomes == HERE:
            assert (fields[b"content-length"], body) == (b"0", b"")


def test_a_request_for_all_of_the_server_is_counted_down_too(way: Way) -> None:
    mark = way.backend.mark()
    assert ask_http1(way, b"OPTIONS", b"*", [b"2"])[0] == ask_http2(way, b"OPTIONS", b"*", [b"2"])[0] == 200
    arrived = seen(way, mark)
    assert [(r.target, r.values(b"max-forwards")) for r in arrived] == [(b"*", [b"%d" % (2 - way.hops)])] * 2
    assert ask_http1(way, b"OPTIONS", b"*", [b"0"])[1][b"server"] == b"meshproxy"
    assert seen(way, mark) == arrived


def test_the_field_keeps_its_spelling_over_http1_and_cannot_be_named_away(way: Way) -> None:
    mark = way.backend.mark()
    with connect(way.port) as sock:
        head = [b"OPTIONS / HTTP/1.1", b"Host: svc.test", b"MAX-forwards: 9", b"Connection: Max-Forwards", b"", b""]
        send(sock, b"\r\n".join(head))
        answer = Reader(sock).answer()
    assert answer is not None
    (request,) = seen(way, mark)
    assert request.values(b"max-forwards") == [b"%d" % (9 - way.hops)]
    if way.hops == 1 and way.backend.kind is Http1Recorder:
        assert b"\r\nMAX-forwards: 8\r\n" in b"".join(bytes(recorder.raw) for recorder in way.backend.recorders)


def test_a_request_answered_here_may_have_a_body_that_nobody_reads(way: Way) -> None:
    mark = way.backend.mark()
    with Http2Client(way.port) as client:
        fields = get(b"/", (b"max-forwards", b"0"), (b"content-length", b"5"), method=b"OPTIONS")
        assert client.ask(fields, b"hello").status == 200
        assert client.ask(get(b"/next")).body == b"echo GET /next 0"
    assert seen(way, mark) == []
