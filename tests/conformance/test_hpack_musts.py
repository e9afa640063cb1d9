"""RFC 7541: every MUST and MUST NOT that the other end of a connection can observe, played against a whole server, a whole
client, and one behind the other (what came never-indexed must leave so)."""

from __future__ import annotations

import hpack
import pytest
from http2_differences import CLIENTS, SERVERS, expected, strangers
from http2_harness import (
    END_HEADERS,
    GET,
    GOAWAY,
    HEADERS,
    Raw,
    Recorder,
    block,
    frame,
    literal,
    number,
    request,
    response,
    settings,
)
from http2_rows import FINE, WHOLE, Asked, Outcome, connect, outcome, serve

from meshproxy.wire.engine import COMPRESSION_ERROR
from meshproxy.wire.limits import Limits

LOST: Outcome = ("goaway", COMPRESSION_ERROR)
REQUEST = block(GET)


def size_update(size: int) -> bytes:
    return number(size, 5, 0x20)


def indexed(index: int) -> bytes:
    return number(index, 7, 0x80)


def added(name: bytes, value: bytes) -> bytes:
    """A literal with incremental indexing."""
    return b"\x40" + literal(name, value)[1:]


A, AMPERSAND, EOS = "00011", "11111000", "1" * 30  # code words (Appendix B)


def bits(text: str) -> bytes:
    assert len(text) % 8 == 0
    return int(text, 2).to_bytes(len(text) // 8, "big")


def huffman(data: bytes) -> bytes:
    """A field "x" whose value is these Huffman-coded bytes."""
    return b"\x00\x01x" + number(len(data), 7, 0x80) + data


# What a request's block says: rule -> (block, outcome).
BLOCKS: dict[str, tuple[bytes, Outcome]] = {
    "2.3.3 index 61, the end of the static table": (REQUEST + indexed(61), FINE),
    "2.3.3 index 62 while the dynamic table is empty": (REQUEST + indexed(62), LOST),
    "2.3.3 an index far beyond": (REQUEST + indexed(10_000), LOST),
    "2.3.3 the newest entry is 62": (REQUEST + added(b"a", b"1") + added(b"b", b"2") + indexed(62), FINE),
    "2.3.3 the oldest comes last": (REQUEST + added(b"a", b"1") + added(b"b", b"2") + indexed(63), FINE),
    "2.3.3 and nothing after it": (REQUEST + added(b"a", b"1") + added(b"b", b"2") + indexed(64), LOST),
    "2.3.3 a name index beyond the table": (REQUEST + number(62, 6, 0x40) + b"\x01v", LOST),
    "2.3.3 ... without indexing": (REQUEST + number(62, 4) + b"\x01v", LOST),
    "2.3.3 ... never indexed": (REQUEST + number(62, 4, 0x10) + b"\x01v", LOST),
    "4.2 a size update to 0": (size_update(0) + REQUEST, FINE),
    "4.2 a size update to our limit": (size_update(4096) + REQUEST, FINE),
    "4.2 two size updates, down and up": (size_update(0) + size_update(4096) + REQUEST, FINE),
    "4.2 a size update after the first field": (REQUEST + size_update(0), LOST),
    "4.2 ... right after it": (b"\x82" + size_update(0) + block(GET[1:]), LOST),
    "4.3 what a smaller table evicts is gone": (
        size_update(40) + REQUEST + added(b"a", b"1") + added(b"b", b"2") + indexed(63),
        LOST,
    ),
    "4.4 an entry larger than the table empties it": (
        size_update(40) + REQUEST + added(b"a", b"1") + added(b"long", b"v" * 50) + indexed(62),
        LOST,
    ),
    "4.4 ... and is a field all the same": (size_update(40) + REQUEST + added(b"long", b"v" * 50), FINE),
    "4.4 a name of the entry that its own insertion evicts": (
        size_update(60) + REQUEST + added(b"name", b"v" * 20) + number(62, 6, 0x40) + literal(b"", b"w" * 20)[2:],
        FINE,
    ),
    "5.1 an integer in more bytes than it needs": (REQUEST + b"\x00\x01x\x7f\x80\x80\x00" + b"v" * 127, FINE),
    "5.1 an integer that overflows": (REQUEST + b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", LOST),
    "5.1 an integer without an end": (REQUEST + b"\xff\x80\x80", LOST),
    "5.1 a string length that overflows": (REQUEST + b"\x00\x01x\x7f\xff\xff\xff\xff\xff\xff\x7f", LOST),
    "5.2 a string beyond the block": (REQUEST + b"\x00\x01x\x05ab", LOST),
    "5.2 a name beyond the block": (REQUEST + b"\x00\x05ab", LOST),
    "5.2 Huffman, no padding": (REQUEST + huffman(bits(AMPERSAND)), FINE),
    "5.2 Huffman, 3 bits of padding": (REQUEST + huffman(bits(A + "111")), FINE),
    "5.2 Huffman, 7 bits of padding": (REQUEST + huffman(bits(A * 5 + "1111111")), FINE),
    "5.2 Huffman, 8 bits of padding": (REQUEST + huffman(bits(AMPERSAND + "11111111")), LOST),
    "5.2 Huffman, 11 bits of padding": (REQUEST + huffman(bits(A + "11111111111")), LOST),
    "5.2 Huffman, padding that is not ones": (REQUEST + huffman(bits(A + "000")), LOST),
    "5.2 Huffman, padding that is not all ones": (REQUEST + huffman(bits(A + "110")), LOST),
    "5.2 Huffman, EOS alone": (REQUEST + huffman(bits(EOS + "11")), LOST),
    "5.2 Huffman, EOS inside": (REQUEST + huffman(bits(A + EOS + A)), LOST),
    "5.2 Huffman, empty": (REQUEST + huffman(b""), FINE),
    "6.1 index 0": (REQUEST + b"\x80", LOST),
    "6.2.1 literal with indexing": (REQUEST + added(b"x", b"y"), FINE),
    "6.2.2 literal without indexing": (REQUEST + literal(b"x", b"y"), FINE),
    "6.2.3 literal never indexed": (REQUEST + b"\x10" + literal(b"x", b"y")[1:], FINE),
    "6.3 a size update above our limit": (size_update(4097) + REQUEST, LOST),
    "6.3 ... far above": (size_update(2**27) + REQUEST, LOST),
}


@pytest.mark.parametrize("rule", list(BLOCKS))
def test_server_reads(which: str, rule: str) -> None:
    data, expected = BLOCKS[rule]
    raw, host = serve(which)
    raw.send(frame(HEADERS, WHOLE, 1, data))
    assert outcome(raw) == expected
    assert len(host.requests) == (1 if expected == FINE else 0)
    assert host.violations == ([] if expected == FINE else ["h2_compression"])


@pytest.mark.parametrize("rule", list(BLOCKS))
def test_client_reads(which: str, rule: str) -> None:
    data, expected = BLOCKS[rule]
    raw, _ = connect(which)
    asked = Asked(raw)
    raw.read()
    if rule.startswith("4.2 ... right after"):
        data = data.replace(b"\x82", b"\x88", 1)
    raw.send(frame(HEADERS, WHOLE, 1, data.replace(REQUEST, b"\x88").replace(block(GET[1:]), b"")))
    assert outcome(raw) == expected
    assert asked.log.ended == (expected == FINE)


def test_server_2_2_the_table_lives_as_long_as_the_connection_and_no_longer(which: str) -> None:
    raw, host = serve(which)
    raw.send(frame(HEADERS, WHOLE, 1, REQUEST + added(b"x", b"y")))
    raw.send(frame(HEADERS, WHOLE, 3, REQUEST + indexed(62)))
    assert host.requests[1].head.field(b"x") == b"y"
    raw, host = serve(which)
    raw.send(frame(HEADERS, WHOLE, 1, REQUEST + indexed(62)))
    assert outcome(raw) == LOST


def test_server_2_3_2_the_same_entry_may_be_there_twice(which: str) -> None:
    raw, host = serve(which)
    raw.send(frame(HEADERS, WHOLE, 1, REQUEST + added(b"x", b"y") + added(b"x", b"y") + indexed(62) + indexed(63)))
    assert [f.value for f in host.requests[0].head.fields] == [b"y"] * 4


def test_server_4_2_a_limit_that_we_lowered_must_be_followed_by_a_size_update(which: str) -> None:
    limits = Limits()
    limits.table_bytes = 100
    for first, wanted in ((b"", LOST), (size_update(101), LOST), (size_update(100), FINE), (size_update(0), FINE)):
        host = Recorder()
        raw = Raw(SERVERS[which](host, limits))
        raw.send(frame(HEADERS, WHOLE, 1, REQUEST))
        assert outcome(raw) == FINE, "not yet acknowledged"
        raw.settle()
        raw.send(frame(HEADERS, WHOLE, 3, first + REQUEST))
        assert outcome(raw, 3) == wanted


# -- what we write


class Told:
    """Our server in front of a client whose table is what that client says, read by the `hpack` package."""

    def __init__(self, which: str, role: str) -> None:
        self.raw, self.host = serve(which) if role == "server" else connect(which)
        self.role = role
        self.next = 1

    def says(self, *values: int) -> None:
        self.raw.send(settings(*[(1, value) for value in values]))
        self.raw.read()
        self.raw.decoder.max_allowed_table_size = values[-1]

    def block(self, *fields: tuple[bytes, bytes]) -> bytes:
        if self.role == "server":
            self.raw.headers(self.next)
            self.host.requests[-1].stream.send_head(response(200, fields), [], True)
        else:
            self.raw.engine.open().send_head(request(fields=fields), [], True)
        self.next += 2
        ((_, _, _, payload),) = [f for f in self.raw.read() if f[0] == HEADERS]
        return bytes(payload)


@pytest.fixture(params=["server", "client"])
def told(request: pytest.FixtureRequest, which: str) -> Told:
    return Told(which, request.param)


def test_4_2_a_smaller_table_is_acknowledged_by_a_size_update_in_the_next_block(told: Told) -> None:
    for _ in range(3):
        told.block((b"x", b"y"))
    told.says(50)
    first = told.block((b"x", b"y"))
    assert first.startswith(size_update(50))
    assert not told.block((b"x", b"y")).startswith(size_update(50)), "once"


def test_4_2_the_smallest_size_on_the_way_is_said_before_the_last(told: Told) -> None:
    told.says(100)
    told.says(10)
    told.says(200)
    assert told.block((b"x", b"y")).startswith(size_update(10) + size_update(200))


def test_4_2_also_when_one_settings_frame_says_both(told: Told) -> None:
    for _ in range(4):
        told.block((b"x", b"y"))  # in the table by now
    told.says(0, 4096)
    first = told.block((b"x", b"y"))
    assert first.startswith(size_update(0) + size_update(4096))
    assert (b"x", b"y") in hpack.Decoder().decode(first, raw=True), "nothing is taken from what was evicted"


def test_4_2_a_table_that_only_offers_to_grow_needs_no_word(told: Told) -> None:
    told.says(65_536)
    assert not 0x20 <= told.block((b"x", b"y"))[0] < 0x40


@pytest.mark.parametrize("size", [0, 1, 33, 34, 35, 70, 100, 4096, 2**32 - 1])
def test_4_3_our_table_keeps_to_the_size_that_was_said(told: Told, size: int) -> None:
    decoder = told.raw.decoder
    for i in range(24):
        if i == 12:
            told.says(size)
        fields = [(b"x-%d" % j, b"v%d" % (i // 3)) for j in range(5)]
        assert decoder.decode(told.block(*fields), raw=True)[-5:] == fields
    assert decoder.header_table_size == min(size, 4096)


def test_6_2_3_secrets_are_never_indexed(told: Told) -> None:
    for _ in range(3):
        data = told.block((b"authorization", b"Bearer s3cret"), (b"cookie", b"id=s3cret"))
    assert number(23, 4, 0x10) + number(13, 7) + b"Bearer s3cret" in data
    assert number(32, 4, 0x10) + number(9, 7) + b"id=s3cret" in data


# -- 6.2.3, 7.1.3: an intermediary uses the same representation


def never(name: bytes, value: bytes) -> bytes:
    return b"\x10" + literal(name, value)[1:]


class Reading:
    """Blocks as another hop reads them: the fields of each, and which of them were literals never to be indexed."""

    def __init__(self, blocks: list[bytes]) -> None:
        decoder = hpack.Decoder()
        self.fields: list[list[tuple[bytes, bytes]]] = []
        self.never: list[set[bytes]] = []
        for data in blocks:
            fields = decoder.decode(data, raw=True)
            self.fields.append([(field[0], field[1]) for field in fields])
            self.never.append({field[0] for field in fields if isinstance(field, hpack.NeverIndexedHeaderTuple)})
        self.table = [entry[0] for entry in decoder.header_table.dynamic_entries]


def through(which: str, data: bytes) -> Reading:
    """What our client writes when the same request comes to our server four times (memos and tables have their say)."""
    raw, host = serve(which)
    client = Raw(CLIENTS[which](Recorder(), Limits()), (8, 1))
    client.settle()
    for i in range(4):
        raw.send(frame(HEADERS, WHOLE, 2 * i + 1, data))
        head = host.requests[-1].head
        client.engine.open().send_head(head, [], True)
    return Reading([payload for kind, _, _, payload in client.read() if kind == HEADERS])


FIELDS = [
    (b"x-token", b"s3cret"),
    (b"accept", b"text/html"),
    (b"content-type", b"text/plain"),
    (b"x-request-id", b"abc"),
    (b"date", b"today"),
    (b"grpc-timeout", b"1S"),
    (b"cookie", b"a=1"),
    (b"accept-encoding", b"gzip, deflate"),
]


@pytest.mark.parametrize("name", [name for name, _ in FIELDS], ids=lambda name: name.decode())
def test_6_2_3_a_field_that_came_never_indexed_leaves_so(which: str, name: bytes) -> None:
    value = dict(FIELDS)[name]
    read = through(which, REQUEST + never(name, value))
    assert read.never == [{name}] * 4
    assert all((name, value) in fields for fields in read.fields)
    assert name not in read.table


@pytest.mark.parametrize("guarded", range(4), ids=[name.decode() for name, _ in GET])
def test_6_2_3_a_pseudo_field_that_came_never_indexed_leaves_so(which: str, guarded: int) -> None:
    read = through(which, b"".join(never(*field) if i == guarded else literal(*field) for i, field in enumerate(GET)))
    assert [sorted(fields) for fields in read.fields] == [sorted(GET)] * 4  # in any order: all four are pseudo fields
    assert all(GET[guarded][0] in names for names in read.never)
    assert GET[guarded][0] not in read.table


def test_6_2_3_also_in_extended_connect(which: str) -> None:
    fields = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]
    read = through(which, b"".join(never(*field) for field in fields))
    assert [sorted(each) for each in read.fields] == [sorted(fields)] * 4
    assert read.never == [{name for name, _ in fields}] * 4


def test_6_2_3_also_in_answers_and_trailers(which: str) -> None:
    client, _ = connect(which)
    server, host = serve(which)
    blocks: list[bytes] = []
    for i in range(3):
        asked = Asked(client)
        client.send(frame(HEADERS, END_HEADERS, 2 * i + 1, never(b":status", b"299") + never(b"x-token", b"s3cret")))
        client.send(frame(HEADERS, WHOLE, 2 * i + 1, never(b"x-sum", b"1")))
        assert asked.log.head is not None
        server.headers(2 * i + 1)
        server.read()
        host.requests[-1].stream.send_head(asked.log.head, [], False)
        host.requests[-1].stream.send_trailers(asked.log.trailer_fields)
        blocks += [payload for kind, _, _, payload in server.read() if kind == HEADERS]
    read = Reading(blocks)
    assert read.never == [{b":status", b"x-token"}, {b"x-sum"}] * 3
    assert read.table == []


def test_control_what_came_indexable_is_not_guarded(which: str) -> None:
    read = through(which, REQUEST + b"\x40" + literal(b"x-a", b"1")[1:])
    assert read.never == [set()] * 4
    assert set(read.table) == {b":authority", b"x-a"}


def test_control_what_came_not_indexed_leaves_so_and_takes_no_room_in_the_table(which: str) -> None:
    read = through(which, REQUEST + literal(b"x-a", b"1"))
    assert read.never == [set()] * 4
    assert all((b"x-a", b"1") in fields for fields in read.fields)
    in_table = expected(which, "hpack", "6.2.2 what came not indexed takes no room in the table", True)
    assert (b"x-a" not in read.table) == in_table


def test_every_known_difference_in_hpack_is_one_of_a_row() -> None:
    assert strangers("hpack", ["6.2.2 what came not indexed takes no room in the table"]) == set()


def test_goaway_is_what_a_broken_table_is_answered_with(which: str) -> None:
    raw, _ = serve(which)
    raw.send(frame(HEADERS, WHOLE, 1, b"\x80"))
    ((_, _, _, payload),) = [f for f in raw.read() if f[0] == GOAWAY]
    assert int.from_bytes(payload[4:8], "big") == COMPRESSION_ERROR
