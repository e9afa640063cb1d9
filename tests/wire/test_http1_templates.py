"""What requests of a connection have in common is judged once: every verdict and every byte sent on is as without that."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from meshproxy.wire.hpack.decoder import Decoder
from meshproxy.wire.hpack.encoder import Encoder
from meshproxy.wire.http1.head import BadMessage
from meshproxy.wire.http1.reader import REQUEST_MEMO, HeadReader
from meshproxy.wire.http1.serialize import request_start
from meshproxy.wire.http1.templates import TEMPLATES, TEMPLATES_MAX
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head

USUAL = [b"Host: a", b"User-Agent: b", b"Accept: */*", b"Accept-Language: en", b"Connection: keep-alive", b"Cookie: a=1"]
LINES = [
    *USUAL,
    b"Host: b",
    b"Host: a b",
    b"Connection: close",
    b"Connection: x-trace",
    b"Connection: keep-alive, upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"TE: trailers",
    b"Expect: 100-continue",
    b"Expect: else",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 05",
    b"Transfer-Encoding: chunked",
    b"Content-Type: application/grpc",
    b"grpc-timeout: 1S",
    b"X-Envoy-Expected-Rq-Timeout-Ms: 5",
    b"x-envoy-expected-rq-timeout-ms: 0",
    b"Max-Forwards: 3",
    b"X-Request-Id: 1",
    b"X-Request-Id: 2",
    b"mesh-target-port: 80",
    b"l5d-client-id: x",
    b"content_length: 3",
    b"X-Trace: 1",
    b"X-Trace:2 ",
    b"X-Tr\xe4ce: 3",
    b"X-Trace: \x01",
    b"X-Trace : 4",
    b" folded",
    b"no colon",
    b": no name",
]
STARTS = [b"GET /%d HTTP/1.1"] * 12 + [
    b"POST /%d HTTP/1.1",
    b"GET /%d HTTP/1.0",
    b"GET /%d HTTP/1.2",
    b"GET  /%d HTTP/1.1",
    b"GET /%d#f HTTP/1.1",
    b"GET http://c/%d HTTP/1.1",
    b"CONNECT c:%d HTTP/1.1",
    b"OPTIONS /%d HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET/%d HTTP/1.1",
    b"/%d",
]
ATTRIBUTES = (
    "method", "scheme", "authority", "path", "status", "version", "protocol", "content_length", "chunked", "close",
    "expect_continue", "trailers_ok", "grpc", "request_id", "grpc_timeout", "expected_ms", "max_forwards",
)  # fmt: skip


@pytest.fixture(autouse=True)
def lots() -> Iterator[None]:
    """Templates are for what no memo knows."""
    CACHES.eager = False
    TEMPLATES.clear()
    REQUEST_MEMO.clear()
    yield
    TEMPLATES.clear()
    REQUEST_MEMO.clear()


def fields(found: list[Field]) -> list[tuple[bytes, bytes, int, bytes]]:
    return [(field.name, field.value, field.kind, field.line) for field in found]


def outcome(reader: HeadReader, data: bytes) -> tuple[object, Head | None]:
    try:
        head = reader.parse(data)
    except BadMessage as error:
        return (error.status, error.label, error.text), None
    block = Encoder().head(head, [])
    # the order of fields with different names means nothing (RFC 9110 5.3), nor does that of several expectations
    said = ((field.name, field.value) for field in Decoder(1 << 16, 1000).decode(block))
    told = sorted(said, key=lambda pair: pair if pair[0] == b"expect" else pair[:1])
    seen = tuple(getattr(head, name) for name in ATTRIBUTES)
    return (seen, fields(head.fields), fields(head.mesh), request_start(head), told), head


def test_requests_of_a_connection_are_what_they_are_alone() -> None:
    rng = random.Random(9112)
    shortened = 0
    kinds = set()
    for _ in range(600):
        reader = HeadReader(Limits(), True)
        host = rng.choice((b"Host: a",) * 9 + (b"Accept: a",))
        common = [host, *rng.sample(USUAL[1:], rng.randint(1, 5)), *rng.sample(LINES, rng.randint(0, 1))]
        for n in range(12):
            lines = common + rng.sample(LINES, rng.choice((0, 0, 1, 1, 2, 3)))
            data = b"\r\n".join([(start % n if b"%d" in (start := rng.choice(STARTS)) else start), *lines])
            with_templates, head = outcome(reader, data)
            CACHES.enabled = False
            try:
                alone, _ = outcome(HeadReader(Limits(), True), data)
            finally:
                CACHES.enabled = True
            assert with_templates == alone, data
            kinds.add(alone[1] if head is None else alone[0][0])  # type: ignore[index]
            if head is not None and head.base is not None:
                shortened += 1
                assert [*head.base.fields, *head.own] == head.fields
    assert shortened > 600
    assert {b"GET", b"POST", b"CONNECT", "h1_field", "h1_host", "h1_framing", "h1_target", "h1_request_line"} <= kinds


def parsed(reader: HeadReader, *lines: bytes) -> Head:
    return reader.parse(b"\r\n".join(lines))


def test_the_third_request_of_a_connection_knows_what_it_has_in_common_with_those_before() -> None:
    reader = HeadReader(Limits(), True)
    heads = [parsed(reader, b"GET /%d HTTP/1.1" % n, *USUAL, b"X-Trace: %d" % n) for n in range(4)]
    assert heads[0].base is None
    assert heads[1].base is None
    assert heads[2].base is not None
    assert heads[2].base is heads[3].base
    assert [field.value for field in heads[3].own] == [b"3"]


def test_another_connection_of_the_same_software_has_the_same_base() -> None:
    bases = []
    for first in (0, 3):
        parsed(HeadReader(Limits(), True), b"POST / HTTP/1.1", *USUAL)
        reader = HeadReader(Limits(), True)
        heads = [parsed(reader, b"GET /%d HTTP/1.1" % n, *USUAL, b"X-Trace: %d" % n) for n in range(first, first + 3)]
        bases.append(heads[-1].base)
    assert bases[0] is not None
    assert bases[0] is bases[1]


def test_a_line_that_only_begins_like_the_last_one_in_common_is_another() -> None:
    reader = HeadReader(Limits(), True)
    for n in range(3):
        parsed(reader, b"GET /%d HTTP/1.1" % n, b"Host: a", b"X-Trace: 1")
    assert reader.template is not None
    head = parsed(reader, b"GET / HTTP/1.1", b"Host: a", b"X-Trace: 1, Cookie: b")
    assert [(field.name, field.value) for field in head.fields] == [(b"x-trace", b"1, Cookie: b")]


def test_methods_have_templates_of_their_own() -> None:
    for method in (b"GET", b"POST"):
        reader = HeadReader(Limits(), True)
        heads = [parsed(reader, method + b" /%d HTTP/1.1" % n, *USUAL, b"X-Trace: %d" % n) for n in range(3)]
        assert heads[-1].base is not None
        assert heads[-1].base.method == method


def test_a_connection_whose_requests_change_learns_anew() -> None:
    reader = HeadReader(Limits(), True)
    for host in (b"Host: a", b"Host: b", b"Host: c"):
        heads = [parsed(reader, b"GET /%d HTTP/1.1" % n, host, b"Accept: */*", b"X-Trace: %d" % n) for n in range(40)]
        assert [head.authority for head in heads] == [host[6:]] * 40
        assert heads[-1].base is not None


def test_templates_are_bounded_and_the_fields_of_a_request_are_still_counted() -> None:
    limits = Limits()
    limits.head_fields = 6
    for n in range(TEMPLATES_MAX * 2):
        reader = HeadReader(limits, True)
        for k in range(3):
            parsed(reader, b"GET /%d HTTP/1.1" % k, b"Host: a%d" % n, b"Accept: */*", b"X-Trace: %d" % k)
        assert len(TEMPLATES) <= TEMPLATES_MAX
    with pytest.raises(BadMessage, match="more than 6 fields"):
        parsed(reader, b"GET / HTTP/1.1", b"Host: a%d" % n, b"Accept: */*", *[b"a: b"] * 5)


def test_nothing_large_is_kept_of_a_request() -> None:
    reader = HeadReader(Limits(), True)
    for n in range(8):
        parsed(reader, b"GET /%d HTTP/1.1" % n, b"Host: a", b"Cookie: " + b"c" * 3000)
        parsed(reader, b"GET /%d HTTP/1.1" % n, b"Host: a", b"Cookie: " + b"c" * 1200)
        assert reader.template is None
        assert reader.lines is None or sum(map(len, reader.lines)) < 2048
