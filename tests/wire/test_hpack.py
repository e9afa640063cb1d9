"""HPACK against the `hpack` package, both ways, and what RFC 7541 says about tables, secrets and bad input."""

from __future__ import annotations

import hpack
import pytest
from http2_harness import literal, number, pairs, request, response
from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.wire.hpack import Decoder, Encoder, HpackError
from meshproxy.wire.hpack.decoder import LITERALS
from meshproxy.wire.hpack.huffman import code_words, huffman_decode
from meshproxy.wire.hpack.static import MALFORMED, STATIC
from meshproxy.wire.message import CACHES, CONTROLS, Field

NAMES = st.sampled_from(
    [b"accept", b"cookie", b"x-a", b"x-b", b"x-long-name", b"cache-control", b":path", b"date", b"authorization"]
)
VALUES = st.one_of(
    st.sampled_from([b"", b"1", b"no-cache", b"v" * 40, b"w" * 900]),
    st.binary(max_size=30).map(lambda raw: raw.translate(None, CONTROLS).strip(b" \t")),
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


def decoder() -> Decoder:
    return Decoder(60 * 1024, 128)


def contents(entries: list[Field]) -> list[tuple[bytes, bytes]]:
    return list(reversed(pairs(entries)))


@pytest.fixture(params=[True, False], ids=["caches", "no-caches"])
def caches(request: pytest.FixtureRequest) -> object:
    CACHES.enabled = request.param
    LITERALS.clear()
    yield
    CACHES.enabled = True


@settings(max_examples=150, deadline=None)
@given(blocks=st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, None, 0, 64, 200, 4096])), max_size=8))
def test_blocks_of_the_hpack_package_decode_to_the_same_fields_and_table(
    blocks: list[tuple[list[tuple[bytes, bytes]], bool, int | None]],
) -> None:
    theirs = hpack.Encoder()
    ours = decoder()
    for fields, huffman, size in blocks:
        if size is not None:
            theirs.header_table_size = size
        data = theirs.encode(fields, huffman=huffman)
        assert pairs(ours.decode(data)) == fields
        assert contents(ours.table) == list(theirs.header_table.dynamic_entries)
        assert ours.size == theirs.header_table._current_size


@settings(max_examples=150, deadline=None)
@given(blocks=st.lists(st.tuples(FIELDS, st.sampled_from([None, None, 0, 64, 200, 4096, 100_000])), max_size=12))
def test_blocks_of_ours_decode_in_the_hpack_package_to_the_same_fields_and_table(
    blocks: list[tuple[list[tuple[bytes, bytes]], int | None]],
) -> None:
    ours = Encoder()
    theirs = hpack.Decoder()
    theirs.max_allowed_table_size = 4096
    for fields, size in blocks:
        if size is not None:
            ours.limit(size)
        data = ours.trailers([Field(name, value) for name, value in fields])
        assert [tuple(field) for field in theirs.decode(data, raw=True)] == fields
        assert contents(list(ours.entries)) == list(theirs.header_table.dynamic_entries)
        assert ours.size <= ours.max_size


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"/", b"/a", b"/b"]), FIELDS.map(tuple)), max_size=10), st.booleans())
def test_heads_sent_again_and_again_decode_the_same_with_and_without_caches(
    heads: list[tuple[bytes, tuple[tuple[bytes, bytes], ...]]], enabled: bool
) -> None:
    CACHES.enabled = enabled
    try:
        ours, theirs, again = Encoder(), hpack.Decoder(), decoder()
        made = [request(path=path, fields=tuple(f for f in fields if f[0][:1] != b":")) for path, fields in heads]
        extra = [Field(b"mesh-x", b"1")]
        for head in made * 4:
            expected = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"svc.test"), (b":path", head.path)]
            expected += pairs(head.fields) + pairs(extra)
            data = ours.head(head, extra)
            assert [tuple(field) for field in theirs.decode(data, raw=True)] == expected
            assert pairs(again.decode(data)) == expected
    finally:
        CACHES.enabled = True


@given(st.binary(max_size=200))
def test_huffman_strings_of_the_hpack_package_decode_to_their_text(text: bytes) -> None:
    encoder = hpack.huffman.HuffmanEncoder(hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH)
    assert huffman_decode(encoder.encode(text)) == text


def test_the_huffman_code_is_that_of_the_rfc() -> None:
    assert [code for code, _ in code_words()] == hpack.huffman_constants.REQUEST_CODES
    assert [length for _, length in code_words()] == hpack.huffman_constants.REQUEST_CODES_LENGTH


@settings(max_examples=300)
@given(st.binary(max_size=12))
def test_huffman_input_of_any_kind_is_accepted_only_as_the_hpack_package_accepts_it(data: bytes) -> None:
    from hpack.huffman_table import decode_huffman

    try:
        expected: bytes | None = bytes(decode_huffman(data))
    except hpack.HPACKDecodingError:
        expected = None
    try:
        got: bytes | None = huffman_decode(data)
    except HpackError:
        got = None
    assert got == expected


@pytest.mark.parametrize(
    "padding", [b"\xf8\xff", b"\x1f\xff", b"\x18", b"\xff\xff\xff\xff"], ids=["eight ones", "eleven ones", "zeros", "eos"]
)
def test_wrong_huffman_padding_is_an_error(padding: bytes) -> None:
    assert huffman_decode(b"\x1f") == b"a"
    assert huffman_decode(b"\xf8\x1f") == b"&a"
    with pytest.raises(HpackError):
        huffman_decode(padding)


def test_the_static_table_is_that_of_the_rfc() -> None:
    assert tuple(pairs(STATIC[1:])) == hpack.table.HeaderTable.STATIC_TABLE


def test_the_examples_of_the_rfc_decode() -> None:
    """RFC 7541 C.4 and C.6: requests with Huffman coding; responses in a table of 256 bytes, with eviction."""
    ours = decoder()
    assert pairs(ours.decode(bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")))[3] == (b":authority", b"www.example.com")
    assert pairs(ours.decode(bytes.fromhex("828684be5886a8eb10649cbf")))[4] == (b"cache-control", b"no-cache")
    got = ours.decode(bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"))
    assert pairs(got)[4] == (b"custom-key", b"custom-value")
    assert ours.size == 164


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "an index beyond the table"),
        (b"\x7f\x00\x00", "a name index beyond the table"),
        (b"\x00\x05abc", "a block ends inside a field"),
        (b"\x00\x01a\x05abc", "a string ends after its block"),
        (b"\x00", "a block ends inside a field"),
        (b"\xff", "a block ends inside a field"),
        (b"\xff\xff\xff\xff\xff\x01", "an integer of more than 28 bits"),
        (b"\x82\x20", "a size update after the first field"),
        (b"\x3f\xe2\x1f", "a size update above our limit"),
    ],
)
def test_what_cannot_be_decoded_is_an_error_that_says_why(data: bytes, why: str) -> None:
    with pytest.raises(HpackError, match=why):
        decoder().decode(data)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=3))
def test_garbage_raises_nothing_but_an_hpack_error_and_keeps_the_table_bounded(blocks: list[bytes]) -> None:
    ours = decoder()
    for data in blocks:
        try:
            ours.decode(data)
        except HpackError:
            break
        assert ours.size == sum(field.size for field in ours.table) <= ours.max_size <= 4096


def test_a_malformed_field_is_marked_and_the_table_still_holds_it() -> None:
    ours = decoder()
    bad = b"\x40" + literal(b"X-Up", b"1")[1:]
    assert [field.kind for field in ours.decode(bad + literal(b"x", b"y"))] == [MALFORMED, 0]
    again = ours.decode(b"\xbe" + b"\x7e" + b"\x01z")  # the entry itself; its name with another value
    assert [(field.name, field.value) for field in again] == [(b"X-Up", b"1"), (b"X-Up", b"z")]


@pytest.mark.usefixtures("caches")
def test_white_space_around_a_value_is_malformed() -> None:
    for value in (b" a", b"a ", b"\ta", b"a\t"):
        assert decoder().decode(literal(b"x", value))[0].kind == MALFORMED
    assert decoder().decode(literal(b"x", b"a b"))[0].kind == 0


def test_a_block_over_the_size_limit_is_dropped_but_decoded_to_its_end() -> None:
    ours = Decoder(1000, 128)
    data = b"".join(literal(b"x-%d" % i, b"v" * 100) for i in range(20)) + b"\x40" + literal(b"x-last", b"1")[1:]
    assert ours.decode(data) == []
    assert ours.overflow
    assert pairs(ours.decode(b"\xbe")) == [(b"x-last", b"1")]
    assert not ours.overflow


def test_a_bomb_of_references_is_refused_by_running_size_and_by_count() -> None:
    ours = decoder()
    ours.decode(b"\x40" + literal(b"x", b"v" * 3900)[1:])
    assert ours.decode(b"\xbe" * 2000) == []
    assert ours.overflow
    ours.decode(b"\x40" + literal(b"x", b"")[1:])
    assert ours.decode(b"\xbe" * 1500) == []
    assert ours.overflow
    assert len(ours.decode(b"\xbe" * 128)) == 128
    assert not ours.overflow


def test_a_lower_limit_of_ours_must_be_followed_by_a_size_update() -> None:
    ours = decoder()
    ours.limit = 100
    with pytest.raises(HpackError, match="no size update"):
        ours.decode(b"\x82")
    ours = decoder()
    ours.limit = 100
    assert pairs(ours.decode(number(100, 5, 0x20) + b"\x82")) == [(b":method", b"GET")]


@pytest.mark.parametrize("name", [b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"])
def test_secrets_are_never_indexed(name: bytes) -> None:
    ours = Encoder()
    for _ in range(3):
        data = ours.trailers([Field(name, b"secret")])
        assert data[0] & 0xF0 == 0x10
    assert not ours.entries


EXPECTED = b"x-envoy-expected-rq-timeout-ms"


@pytest.mark.parametrize("name", [b"date", b"x-request-id", b"content-length", b"grpc-timeout", b"traceparent", EXPECTED])
def test_what_differs_in_every_message_stays_out_of_the_table(name: bytes) -> None:
    ours = Encoder()
    for _ in range(3):
        assert ours.trailers([Field(name, b"1")])[0] & 0xF0 == 0
    assert not ours.entries


def test_a_field_that_arrived_never_indexed_leaves_so() -> None:
    field = decoder().decode(b"\x10" + literal(b"x-token", b"s3cret")[1:])[0]
    ours = Encoder()
    for _ in range(3):
        data = ours.trailers([field])
        assert data == b"\x10" + literal(b"x-token", b"s3cret")[1:]
    assert not ours.entries
    assert not any(b"s3cret" in raw for raw in LITERALS)


def test_a_field_enters_the_table_the_second_time_it_is_sent() -> None:
    ours = Encoder()
    field = Field(b"x-app", b"shop")
    sizes = [len(ours.trailers([field])) for _ in range(3)]
    assert sizes[2] == 1
    assert [entry.name for entry in ours.entries] == [b"x-app"]


def test_a_huge_table_offered_by_the_peer_stays_capped() -> None:
    ours = Encoder()
    ours.limit(2**32 - 1)
    for i in range(500):
        for _ in range(2):
            ours.trailers([Field(b"x-%d" % i, b"v" * 100)])
    assert ours.size <= 4096


@pytest.mark.usefixtures("caches")
def test_status_lines_and_repeated_heads_are_compact() -> None:
    ours, theirs = Encoder(), hpack.Decoder()
    for status in (200, 201, 404, 503):
        head = response(status, ((b"server", b"s"), (b"x-y", b"z")))
        for _ in range(4):
            data = ours.head(head, [])
            assert theirs.decode(data, raw=True)[0][1] == b"%d" % status
    assert len(ours.head(response(200, ((b"server", b"s"), (b"x-y", b"z"))), [])) == 3


def test_interned_literals_are_bounded() -> None:
    ours = decoder()
    for i in range(5000):
        ours.decode(literal(b"x-%d" % i, b"v"))
    assert len(LITERALS) <= 2048


def test_what_a_block_added_is_never_changed_by_a_later_one() -> None:
    """Whoever remembers a block keeps the list.  One that began with a size update went on with the list of the block before,
    and a block that came again put another's fields into the table."""
    decoder = Decoder(65536, 100)
    decoder.decode(b"\x40\x03x-a\x01b")
    first = decoder.inserted
    for _ in range(3):
        decoder.decode(b"\x3f\xe1\x1f" + b"\x40\x03x-c\x01d")
        assert [field.name for field in decoder.inserted] == [b"x-c"]
    assert [field.name for field in first] == [b"x-a"]
