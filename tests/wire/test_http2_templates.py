"""Memos of header blocks change speed, never outcome: the same frames to an engine with caches and to one without."""

from __future__ import annotations

import hpack
import pytest
from http2_harness import END_HEADERS, END_STREAM, HEADERS, Log, Raw, Recorder, frame, literal, number, pairs, request, settings
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from meshproxy.wire.hpack import Encoder
from meshproxy.wire.http1.serialize import request_start
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Head

# What a client whose table has filled writes: entries 62 to 64 are from the first request.
FILL = b"\x82\x86\x04\x01/\x41" + number(8, 7) + b"svc.test" + b"\x40\x03x-a\x01A" + b"\x40\x06cookie\x03c=1"
AUTHORITY, X_A, COOKIE = b"\xc0", b"\xbf", b"\xbe"


def never(name: bytes, value: bytes) -> bytes:
    coded: bytes = literal(name, value)
    return b"\x10" + coded[1:]


def path(value: bytes) -> bytes:
    length: bytes = number(len(value), 7)
    return b"\x04" + length + value


# Mostly one and the same: only what has been seen before is taken from a memo.
LINES = st.sampled_from(
    [
        *[b"\x82\x86" + AUTHORITY] * 12,
        b"\x83\x87" + AUTHORITY,
        b"\x82" + AUTHORITY,  # no :scheme
        b"\x86" + AUTHORITY + b"\x82\x82",  # :method twice
        b"\x82\x86" + AUTHORITY + X_A,  # a regular field before the path
        b"",
    ]
)
PATHS = st.one_of(
    st.sampled_from([b"/", b"/a", b"/\x04", b"*", b"", b"/" + b"p" * 200, b"/caf\xc3\xa9", b"//", b"/a b"]),
    st.integers(0, 10**6).map(lambda n: b"/items/%d" % n),
)
MIDDLES = st.sampled_from([*[X_A] * 12, X_A + COOKIE, b"", X_A + X_A, AUTHORITY, b"\x90", b"\xc5"])
SPECIAL = [
    literal(b"x-request-id", b"7"),
    literal(b"x-request-id", b"8"),
    never(b"cookie", b"a=1"),
    literal(b"cookie", b"b=2"),
    b"\x40\x03x-b\x01B",  # enters the table: everything known about blocks is void
    literal(b"content-length", b"3"),
    literal(b"content-length", b"+3"),
    literal(b"te", b"trailers"),
    literal(b"te", b"gzip"),
    literal(b"expect", b"100-continue"),
    literal(b"host", b"svc.test"),
    literal(b"host", b"other.test"),
    literal(b"connection", b"close"),
    literal(b"mesh-target-port", b"80"),
    literal(b"content-type", b"application/grpc"),
    literal(b"grpc-timeout", b"1S"),
    literal(b"x-envoy-expected-rq-timeout-ms", b"5"),
    literal(b"x-envoy-expected-rq-timeout-ms", b"0"),
    literal(b"max-forwards", b"3"),
    literal(b":authority", b"svc.test"),
    literal(b"X-Upper", b"1"),
    literal(b"x-bad", b"a\nb"),
    X_A,
    b"\x00",  # cut off
]
OWN = st.lists(st.sampled_from([*[literal(b"x-b", b"B")] * 12, *SPECIAL]), max_size=3)
BLOCKS = st.lists(st.tuples(LINES, PATHS, MIDDLES, OWN, st.booleans()), min_size=4, max_size=12)


def shown(head: Head) -> tuple[object, ...]:
    return (
        head.method, head.scheme, head.authority, head.path, head.version, head.protocol, head.content_length, head.grpc,
        head.expect_continue, head.trailers_ok, head.request_id, head.grpc_timeout, head.expected_ms, head.guarded,
        head.max_forwards,
        pairs(head.fields), pairs(head.mesh),
    )  # fmt: skip


def heard(blocks: list[tuple[bytes, bool]], caches: bool) -> tuple[list[object], list[object], list[str]]:
    """What a server makes of the blocks, what it answers, and what the next hop would read of each request."""
    CACHES.enabled = caches
    try:
        host = Recorder()
        raw = Raw(Http2Server(host, Limits()))
        for number_, (block, end) in enumerate([(FILL, True), *blocks]):
            raw.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), 2 * number_ + 1, block))
        onward, next_hop = Encoder(), hpack.Decoder()
        asked: list[object] = []
        for seen in host.requests:
            fields = next_hop.decode(onward.head(seen.head, []), raw=True)
            asked.append((shown(seen.head), [tuple(field) for field in fields]))
        return asked, [answer[:3] for answer in raw.read()], host.violations
    finally:
        CACHES.enabled = True


@examples(max_examples=300, deadline=None)
@given(made=BLOCKS)
def test_requests_that_differ_in_little_mean_the_same_with_and_without_caches(
    made: list[tuple[bytes, bytes, bytes, list[bytes], bool]],
) -> None:
    blocks = [(line + path(where) + middle + b"".join(own), end) for line, where, middle, own, end in made]
    blocks += blocks  # again: what was remembered is used
    assert heard(blocks, True) == heard(blocks, False)


DAMAGE = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 40), st.just(0)),
    st.tuples(st.sampled_from(["put", "insert"]), st.integers(0, 40), st.integers(0, 255)),
)


def damaged(block: bytes, how: tuple[str, int, int]) -> bytes:
    kind, at, byte = how
    at %= len(block)
    if kind == "cut":
        return block[:at]
    return block[:at] + bytes([byte]) + block[at + (kind == "put") :]


@examples(max_examples=400, deadline=None)
@given(how=st.lists(DAMAGE, min_size=1, max_size=4), own=OWN, middle=MIDDLES)
def test_damaged_blocks_mean_the_same_with_and_without_caches(
    how: list[tuple[str, int, int]], own: list[bytes], middle: bytes
) -> None:
    line = b"\x82\x86" + AUTHORITY
    good = [line + path(b"/%d" % n) + middle + b"".join(own) for n in range(3)]
    blocks = [(block, True) for block in good] + [(damaged(good[n % 3], each), True) for n, each in enumerate(how)]
    assert heard(blocks, True) == heard(blocks, False)


@pytest.mark.parametrize("middle", [X_A, X_A + COOKIE], ids=["plain", "cookie"])
@pytest.mark.parametrize("own", SPECIAL, ids=range(len(SPECIAL)))
def test_what_a_request_adds_to_a_known_one_is_judged_as_if_all_of_it_were_new(own: bytes, middle: bytes) -> None:
    line = b"\x82\x86" + AUTHORITY
    known = [(line + path(b"/%d" % n) + middle, True) for n in range(2)]
    blocks = [*known, (line + path(b"/3") + middle + own, True), (line + path(b"/4") + middle + own + own, True), *known]
    assert heard(blocks, True) == heard(blocks, False)


@pytest.mark.parametrize("length", [4, 200], ids=["short", "long"])
@pytest.mark.parametrize("cut", range(1, 5))
def test_a_block_that_ends_inside_its_path_breaks_the_connection_also_where_its_beginning_is_known(
    cut: int, length: int
) -> None:
    line = b"\x82\x86" + AUTHORITY
    known = [(line + path(b"/%d" % n), True) for n in range(2)]
    blocks = [*known, ((line + path(b"/" * length))[: -cut if cut < 4 else -length], True), *known]
    asked, answers, violations = heard(blocks, True)
    assert (asked, answers, violations) == heard(blocks, False)
    assert violations == ["h2_compression"]
    assert len(asked) == 3


def test_what_repeats_is_recognised_and_what_does_not_is_the_requests_own() -> None:
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()))
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, FILL))
    for n in range(1, 4):
        block = b"\x82\x86" + AUTHORITY + path(b"/items/%d" % n) + X_A + literal(b"x-request-id", b"%d" % n)
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, block))
    _, first, second, third = [seen.head for seen in host.requests]
    assert first.base is None
    assert second.base is not None
    assert third.base is second.base
    assert (third.path, pairs(third.own), third.request_id) == (b"/items/3", [(b"x-request-id", b"3")], b"3")
    assert pairs(third.fields) == [(b"x-a", b"A"), (b"x-request-id", b"3")]


def test_a_head_over_the_limit_is_refused_also_where_most_of_it_is_known() -> None:
    limits = Limits()
    host = Recorder()
    raw = Raw(Http2Server(host, limits))
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, FILL))
    line = b"\x82\x86" + AUTHORITY
    for n, size in enumerate((10, 20, limits.head_bytes + 40 * limits.head_fields), 1):
        block = line + path(b"/" + b"p" * size) + X_A
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        raw.send(frame(HEADERS, END_STREAM | (END_HEADERS if len(parts) == 1 else 0), 2 * n + 1, parts[0]))
        for i, part in enumerate(parts[1:], 2):
            raw.send(frame(9, END_HEADERS if i == len(parts) else 0, 2 * n + 1, part))
    assert [len(seen.head.path) for seen in host.requests] == [1, 11, 21]
    assert host.violations == ["h2_head_too_large"]


# nginx writes every answer so: literals that enter the table, and no reference to what is in it.
ANSWER = b"\x88\x76\x05nginx\x61\x03now\x0f\x0d\x01\x30"


@pytest.mark.parametrize("caches", [True, False], ids=["caches", "no-caches"])
def test_an_answer_that_refers_to_nothing_keeps_the_table_right_however_often_it_comes(caches: bool) -> None:
    CACHES.enabled = caches
    try:
        raw = Raw(Http2Client(Recorder(), Limits()))
        raw.send(settings())
        theirs = hpack.Decoder()
        for n in range(200):
            stream, log = raw.engine.open(), Log()
            stream.sink = log
            stream.send_head(request(), [], True)
            # Every seventh is another one, which refers to the newest entry: its bytes mean what the table says.
            block = b"\x88\xbe\x0f\x0d\x01\x30" if n % 7 == 6 else ANSWER
            raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, block))
            expected = [tuple(field) for field in theirs.decode(block, raw=True)]
            head = log.head
            assert head is not None
            assert [(b":status", b"%d" % head.status), *pairs(head.fields)] == expected
        decoder = getattr(raw.engine, "decoder")  # noqa: B009 - a base class's, seen through the abstract engine
        assert [(f.name, f.value) for f in reversed(decoder.table)] == [tuple(e) for e in theirs.header_table.dynamic_entries]
        assert decoder.size == theirs.header_table._current_size
    finally:
        CACHES.enabled = True


@pytest.mark.parametrize("caches", [True, False], ids=["caches", "no-caches"])
@pytest.mark.parametrize("role", ["server", "client"])
def test_once_our_limit_is_lower_no_block_may_come_without_its_size_update_however_known(role: str, caches: bool) -> None:
    CACHES.enabled = caches
    limits = Limits()
    limits.table_bytes = 60
    host = Recorder()
    try:
        raw = Raw(Http2Server(host, limits) if role == "server" else Http2Client(host, limits))
        raw.send(settings())
        for n in range(4):
            if role == "server":
                block = FILL if n == 0 else b"\x82\x86" + AUTHORITY + path(b"/%d" % n) + X_A
            else:
                raw.engine.open().send_head(request(), [], True)
                block = ANSWER
            if n == 3:
                assert host.violations == []
                raw.settle()
            raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, block))
        assert host.violations == ["h2_compression"]
    finally:
        CACHES.enabled = True


@pytest.mark.parametrize("authority", [b"\x01\x01a", b"\xbf"], ids=["spelt out", "a template"])
def test_heads_that_are_short_only_in_indices_are_not_remembered_at_length(authority: bytes) -> None:
    """Fourteen bytes of index may mean 55 kB of head, and a connection remembers 64."""
    entry = b"v" * 3900
    host = Recorder()
    raw = Raw(Http2Server(host, Limits()))
    raw.settle()
    table = b"\x41\x01a" + b"\x40\x01x" + number(len(entry), 7) + entry
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x84" + table))
    for i in range(64):
        block = b"\x82\x86" + authority + path(b"/%d" % i) + b"\xbe" * 14
        raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 3, block))
    heads = [seen.head for seen in host.requests]
    assert len(heads) == 65
    assert (heads[-1].base is not None) == (authority == b"\xbf")
    encoder = Encoder()
    for head in heads[1:]:
        assert len(request_start(head)) > 14 * len(entry)
        encoder.head(head, [])
        assert head.memo_h1 is None
        assert head.base is None or head.base.memo_h1 is None
    parts = [len(part) for both in encoder.parts.values() for part in both]
    assert sum(parts) + sum(len(made) for made in encoder.blocks.values()) < 64 * 4096
