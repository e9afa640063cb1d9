"""How large a request's head may be over HTTP/2, at both engines: what is over it is answered, and the connection goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from http2_harness import Raw, Recorder, frame

from meshproxy.wire.h2_adapter import H2Client, H2Server
from meshproxy.wire.hpack.encoder import encode_literal
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.http2.frames import PREFACE
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field

HEADERS, SETTINGS, CONTINUATION = 1, 4, 9
END_STREAM, END_HEADERS = 1, 4
MAX_HEADER_LIST_SIZE = 6
ENGINES: dict[str, Any] = {"ours": Http2Server, "h2": H2Server}
CLIENTS: dict[str, Any] = {"ours": Http2Client, "h2": H2Client}
LIMITS = Limits()
Fields = list[tuple[bytes, bytes]]


class Served:
    """A server engine and what it told a client of its limit."""

    def __init__(self, engine: Any, mesh: bool = False) -> None:
        self.host = Recorder()
        self.engine = engine(self.host, Limits(), mesh)
        self.engine.start()
        self.advertised = advertised(b"".join(self.engine.out))
        self.raw = Raw(self.engine)
        self.stream_id = -1

    def ask(self, fields: Fields, end: bool = True) -> tuple[bytes, bytes]:
        """Status and mesh-error of the answer; (b"", b"") if the request went on."""
        self.stream_id += 2
        before = len(self.host.requests)
        data = b"".join(encode_literal(Field(name, value), 0, 0x0F) for name, value in fields)
        parts = [data[at : at + 16_000] for at in range(0, len(data), 16_000)]
        last = len(parts) - 1
        self.raw.read()
        for i, part in enumerate(parts):
            flags = (END_STREAM if end and i == 0 else 0) | (END_HEADERS if i == last else 0)
            self.raw.send(frame(CONTINUATION if i else HEADERS, flags, self.stream_id, part))
        answers = [
            payload for kind, _, stream_id, payload in self.raw.read() if kind == HEADERS and stream_id == self.stream_id
        ]
        assert not self.engine.closing
        assert len(self.host.requests) - before + len(answers) == 1
        if not answers:
            return b"", b""
        answer = dict(self.raw.decoder.decode(answers[0], raw=True))
        return answer[b":status"], answer[b"mesh-error"]


def advertised(data: bytes) -> int:
    """The MAX_HEADER_LIST_SIZE in the SETTINGS frame with which an engine begins."""
    data = data.removeprefix(PREFACE)
    assert data[3] == SETTINGS
    found = {}
    for at in range(9, 9 + int.from_bytes(data[:3], "big"), 6):
        found[int.from_bytes(data[at : at + 2], "big")] = int.from_bytes(data[at + 2 : at + 6], "big")
    return found[MAX_HEADER_LIST_SIZE]


def request(path: bytes = b"/", *more: tuple[bytes, bytes], method: bytes = b"GET") -> Fields:
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path), *more]


def list_size(fields: Fields) -> int:
    """RFC 9113 6.5.2."""
    return sum(len(name) + len(value) + 32 for name, value in fields)


def of_size(size: int) -> Fields:
    fields = request(b"/", (b"x", b""))
    return [*fields[:-1], (b"x", b"v" * (size - list_size(fields)))]


@pytest.fixture(params=list(ENGINES))
def serve(request: pytest.FixtureRequest) -> Callable[..., Served]:
    return lambda mesh=False: Served(ENGINES[request.param], mesh)


@pytest.mark.parametrize("mesh", [False, True], ids=["stranger", "mesh peer"])
def test_a_head_may_be_as_large_as_was_advertised_and_no_larger(serve: Callable[..., Served], mesh: bool) -> None:
    served = serve(mesh)
    most = served.advertised
    assert served.ask(of_size(most)) == (b"", b"")
    assert served.ask(of_size(most + 1)) == (b"431", b"h2_head_too_large")
    assert served.ask(of_size(most)) == (b"", b"")
    assert served.host.violations == ["h2_head_too_large"]


def test_what_a_stranger_may_send_fits_into_a_head_of_http1_and_a_mesh_peer_has_room_for_any_such_head(
    serve: Callable[..., Served],
) -> None:
    assert serve().advertised == LIMITS.head_bytes
    assert serve(mesh=True).advertised >= LIMITS.head_bytes + 32 * LIMITS.head_fields


def test_a_request_may_have_as_many_fields_as_over_http1_where_host_is_one(serve: Callable[..., Served]) -> None:
    served = serve()
    most = LIMITS.head_fields - 1  # :authority is Host; the other pseudo fields are the request line
    assert served.ask(request(b"/", *[(b"x", b"1")] * most)) == (b"", b"")
    assert served.ask(request(b"/", *[(b"x", b"1")] * (most + 1))) == (b"431", b"h2_head_too_large")
    assert serve(mesh=True).ask(request(b"/", *[(b"x", b"1")] * (most + 1))) == (b"", b"")  # a proxy adds some


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("caches", [True, False], ids=["caches", "no-caches"])
@pytest.mark.parametrize("end", [True, False], ids=["whole", "with a body"])
def test_a_path_may_be_as_long_as_a_request_line_of_http1_has_room_for(
    serve: Callable[..., Served], method: bytes, caches: bool, end: bool
) -> None:
    room = LIMITS.request_line_bytes - len(b" / HTTP/1.1") - len(method)
    CACHES.enabled = caches
    try:
        served = serve()
        for more in ((), ((b"x-a", b"1"),)):
            assert served.ask(request(b"/" + b"p" * room, *more, method=method), end) == (b"", b"")
            assert served.ask(request(b"/" + b"p" * (room + 1), *more, method=method), end) == (b"414", b"h2_uri_too_long")
        assert served.ask(request(b"/" + b"p" * 50_000, method=method), end) == (b"414", b"h2_uri_too_long")
    finally:
        CACHES.enabled = True
    assert served.host.violations == ["h2_uri_too_long"] * 3


def test_a_path_that_is_too_long_is_noticed_also_where_the_rest_of_the_head_is_known() -> None:
    served = Served(Http2Server)
    served.raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x41\x01a\x82\x86\x84"))  # :authority enters the table
    line = b"\x82\x86\xbe"
    for stream_id, size in ((3, 10), (5, 11), (7, 9000), (9, 12)):
        path = b"/" + b"p" * size
        block = line + encode_literal(Field(b":path", path), 0, 0x0F)
        served.raw.send(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
    assert [len(seen.head.path) for seen in served.host.requests] == [1, 11, 12, 13]
    assert served.host.requests[-1].head.base is not None
    assert served.host.violations == ["h2_uri_too_long"]


@pytest.mark.parametrize("engine", list(CLIENTS))
def test_an_answers_head_has_the_room_that_a_mesh_peer_has(engine: str) -> None:
    made = CLIENTS[engine](Recorder(), Limits())
    made.start()
    assert advertised(b"".join(made.out)) == Served(Http2Server, True).advertised
