"""The HPACK encoder (RFC 7541 6), with a policy for what enters the table.

    static table has it         -> 1 byte
    dynamic table has it        -> 1 or 2 bytes
    secret                      -> literal, never indexed: an attacker who shares the connection could guess it from the
                                   sizes (7.1.3); also what arrived so (6.2.3), for pseudo fields said by Head.guarded
    differs in every message    -> literal, not indexed
    came as a literal that is   -> as it came: its sender, too, knew that it would not repeat
      not indexed (6.2.2)
    seen for the first time     -> literal, not indexed; the second time it enters the table

The last rule keeps fields that never repeat from pushing out those that do, and from voiding the peer's memos: a table
that does not change lets both ends memoise.  Three memos do that here, all by identity (heads and fields are immutable and
shared), all dropped when the table changes:

    blocks   Head -> its whole block
    parts    Head.base -> what comes before the path, and what comes after it up to the head's own fields
    coded    Field -> its representation

The path comes last of the pseudo fields and literals that vary come last of all: the receiver's memos ask for it
(wire/http2/templates.py).

Strings are not Huffman-coded: it saves a quarter of the literal bytes and costs more time than anything else here.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from meshproxy.wire.hpack.integers import ONE_BYTE, encode_integer, encode_string
from meshproxy.wire.hpack.static import STATIC_LENGTH, STATIC_LINES, STATIC_NAMES
from meshproxy.wire.message import (
    CACHES,
    CONTENT_LENGTH,
    COOKIE,
    EXPECTED_TIMEOUT,
    GRPC_TIMEOUT,
    NAME_BYTES_MAX,
    REQUEST_ID,
    VOLATILE,
    Field,
    Head,
)

TABLE_BYTES_MAX: Final = 4096  # whatever the peer offers: h2-rs caps its encoder likewise since 0.4.17
ENTRY_BYTES_MAX: Final = 1024  # an entry larger than a quarter of the table pushes out more than it saves
BLOCKS_MAX: Final = 64  # memoised blocks a connection ...
BLOCK_BYTES_MAX: Final = 4096  # ... of at most so many bytes: fields that a few bytes of index repeat make 60 kB of them
SEEN_MAX: Final = 128  # fields remembered as seen once
CODED_MAX: Final = 128  # representations remembered: as many as a table of 4 KiB can have entries
CODE_BYTES_MAX: Final = 256  # cookies are among them
AUTHORITIES_MAX: Final = 256

NOT_INDEXED: Final = frozenset((VOLATILE, CONTENT_LENGTH, REQUEST_ID, GRPC_TIMEOUT, EXPECTED_TIMEOUT))
SECRETS: Final = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))

# How the literals of a name begin, by their representation.
BEGINNINGS: Final[dict[int, dict[bytes, bytes]]] = {0x00: {}, 0x10: {}, 0x40: {}}
BEGINNINGS_MAX: Final = 512

TE_TRAILERS: Final = Field(b"te", b"trailers")
EXPECT_CONTINUE: Final = Field(b"expect", b"100-continue")

AUTHORITIES: Final[dict[bytes, Field]] = {}
STATUSES: Final[dict[int, bytes]] = {}


class Encoder:
    """One direction of one connection."""

    def __init__(self) -> None:
        self.max_size = TABLE_BYTES_MAX
        self.size = 0
        self.entries: deque[Field] = deque()  # the oldest first
        self.inserted = 0  # entries ever added; an entry's number is `inserted` when it was added
        self.numbers: dict[bytes, int] = {}  # line -> number, of what the table holds
        self.seen: dict[bytes, bool] = {}
        self.blocks: dict[Head, bytes] = {}
        self.parts: dict[Head, tuple[bytes, bytes]] = {}
        self.coded: dict[Field, bytes] = {}
        self.pending_sizes: list[int] = []  # size updates to be written at the next block's start (4.2)
        self.settled = True  # nothing in this block will be written differently next time

    def limit(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE, in bytes."""
        size = min(size, TABLE_BYTES_MAX)
        if size == self.max_size:
            return
        lowest = min(self.pending_sizes, default=size)
        self.pending_sizes = [lowest, size] if lowest < size else [size]  # the lowest on the way is to be said too
        self.max_size = size
        self.evict()
        self.forget()

    def forget(self) -> None:
        """The table has changed, and with it the numbers of its entries."""
        self.blocks = {}
        self.parts = {}
        self.coded = {}

    def head(self, head: Head, extra: list[Field]) -> bytes:
        """The block of a head: pseudo fields, its fields, what its attributes stand for, then `extra`."""
        base = head.base
        out: list[bytes]
        if self.pending_sizes:
            out = [self.size_updates(), self.block(head)]
        elif base is not None:
            parts = self.parts.get(base)
            if parts is None:
                parts = self.base_parts(base)
            path = head.path
            size = len(path)
            if size < 0x7F:
                out = [parts[0], ONE_BYTE[size], path, parts[1]]
            else:
                out = [parts[0], encode_integer(size, 0x7F, 0), path, parts[1]]
            for field in head.own:
                self.put(out, field)
        else:
            block = self.blocks.get(head)
            if block is None:
                block = self.block(head)
            if not extra:
                return block
            out = [block]
        for field in extra:
            code = self.coded.get(field)
            if code is not None:
                out.append(code)
            else:
                self.put(out, field)
        return b"".join(out)

    def block(self, head: Head) -> bytes:
        """The block of a head alone."""
        before = self.inserted
        self.settled = True
        out: list[bytes] = []
        if head.guarded:
            guarded_line(out, head)
        elif head.status:
            out.append(encode_status(head.status))
        else:
            self.request_line(out, head)
            if head.path and (head.method != b"CONNECT" or head.protocol):
                path_literal(out, head.path)
        fields = head.fields
        if 0 < head.status < 200 or head.status == 204:
            fields = [field for field in fields if field.kind != CONTENT_LENGTH]  # RFC 9110 8.6: MUST NOT
        for field in fields:
            code = self.coded.get(field)
            if code is not None:
                out.append(code)
            else:
                self.put(out, field)
        for field in restored_fields(head):
            self.put(out, field)
        block = b"".join(out)
        if self.settled and before == self.inserted and len(block) <= BLOCK_BYTES_MAX and CACHES.enabled:
            if len(self.blocks) >= BLOCKS_MAX:
                self.blocks = {}
            self.blocks[head] = block
        return block

    def base_parts(self, base: Head) -> tuple[bytes, bytes]:
        """What the blocks of all heads with this base have in common: the bytes before and after the path."""
        before = self.inserted
        self.settled = True
        line: list[bytes] = []
        self.request_line(line, base)
        line.append(b"\x04")
        out: list[bytes] = []
        for field in base.fields:
            self.put(out, field)
        for field in restored_fields(base):
            self.put(out, field)
        parts = (b"".join(line), b"".join(out))
        if self.settled and before == self.inserted and len(parts[1]) <= BLOCK_BYTES_MAX and CACHES.enabled:
            if len(self.parts) >= BLOCKS_MAX:
                self.parts = {}
            self.parts[base] = parts
        return parts

    def trailers(self, fields: list[Field]) -> bytes:
        out = [self.size_updates()] if self.pending_sizes else []
        for field in fields:
            self.put(out, field)
        return b"".join(out)

    def request_line(self, out: list[bytes], head: Head) -> None:
        """The pseudo fields of a request but the path."""
        method = b"CONNECT" if head.protocol else head.method
        if method == b"GET":
            out.append(b"\x82")
        elif method == b"POST":
            out.append(b"\x83")
        else:
            out.append(b"\x02" + encode_string(method))
        if head.protocol:
            out.append(b"\x00\x09:protocol" + encode_string(head.protocol))
        if method != b"CONNECT" or head.protocol:
            if head.scheme == b"http":
                out.append(b"\x86")
            elif head.scheme == b"https":
                out.append(b"\x87")
            else:
                out.append(b"\x06" + encode_string(head.scheme))
        if head.authority:
            self.put(out, authority_field(head.authority))

    def put(self, out: list[bytes], field: Field) -> None:
        literal = field.literal
        if literal:
            out.append(literal)
            return
        kind = field.kind
        if kind and kind in NOT_INDEXED:
            literal = encode_literal(field, 0, 0x0F)
            field.literal = literal
            out.append(literal)
            return
        line = field.line
        number = self.numbers.get(line, -1)
        if number >= 0:
            code = encode_integer(STATIC_LENGTH + self.inserted - number + 1, 0x7F, 0x80)
        else:
            index = STATIC_LINES.get(line, 0)
            if index:
                code = ONE_BYTE[0x80 | index]
            elif kind == COOKIE or field.name in SECRETS:
                code = encode_literal(field, 0x10, 0x0F)
            elif field.size > ENTRY_BYTES_MAX or field.size > self.max_size:
                code = encode_literal(field, 0, 0x0F)
            elif line in self.seen:
                del self.seen[line]
                out.append(encode_literal(field, 0x40, 0x3F))
                self.add(field)
                return
            else:
                if len(self.seen) >= SEEN_MAX:
                    self.seen = {}
                self.seen[line] = True
                self.settled = False
                out.append(encode_literal(field, 0, 0x0F))
                return
        out.append(code)
        if len(code) <= CODE_BYTES_MAX and CACHES.enabled:
            if len(self.coded) >= CODED_MAX:
                self.coded = {}
            self.coded[field] = code

    def add(self, field: Field) -> None:
        self.entries.append(field)
        self.inserted += 1
        self.numbers[field.line] = self.inserted
        self.size += field.size
        self.evict()
        self.forget()

    def evict(self) -> None:
        while self.size > self.max_size:
            oldest = self.entries.popleft()
            self.size -= oldest.size
            del self.numbers[oldest.line]

    def size_updates(self) -> bytes:
        updates = b"".join([encode_integer(size, 0x1F, 0x20) for size in self.pending_sizes])
        self.pending_sizes = []
        return updates


def guarded_line(out: list[bytes], head: Head) -> None:
    """The pseudo fields, each a literal never to be indexed: one of them arrived so."""
    if head.status:
        out.append(encode_literal(Field(b":status", b"%d" % head.status), 0x10, 0x0F))
        return
    connect = head.method == b"CONNECT" and not head.protocol
    fields = [(b":method", b"CONNECT" if head.protocol else head.method), (b":protocol", head.protocol)]
    if not connect:
        fields.append((b":scheme", head.scheme))
    fields.append((b":authority", head.authority))
    if not connect:
        fields.append((b":path", head.path))
    for name, value in fields:
        if value:
            out.append(encode_literal(Field(name, value), 0x10, 0x0F))


def restored_fields(head: Head) -> list[Field]:
    """Fields whose meaning a Head keeps in attributes and which go on to an HTTP/2 peer as fields again."""
    restored: list[Field] = []
    if head.status == 0:
        if head.trailers_ok:
            restored.append(TE_TRAILERS)
        if head.expect_continue:
            restored.append(EXPECT_CONTINUE)
    return restored


def path_literal(out: list[bytes], path: bytes) -> None:
    """Never indexed: it varies more than anything else."""
    if path == b"/":
        out.append(b"\x84")
    else:
        out.append(b"\x04")
        out.append(encode_integer(len(path), 0x7F, 0))
        out.append(path)


def encode_literal(field: Field, first: int, mask: int) -> bytes:
    """A literal whose representation is in the bits of `first`; the name by the static table where it is there."""
    value = field.value
    size = len(value)
    name = field.name
    begin = BEGINNINGS[first].get(name)
    if begin is None:
        index = STATIC_NAMES.get(name, 0)
        begin = encode_integer(index, mask, first)
        if index == 0:
            begin += encode_string(name)
        if len(name) <= NAME_BYTES_MAX and CACHES.enabled:
            if len(BEGINNINGS[first]) >= BEGINNINGS_MAX:
                BEGINNINGS[first].clear()
            BEGINNINGS[first][name] = begin
    if size < 0x7F:
        return begin + ONE_BYTE[size] + value
    return begin + encode_integer(size, 0x7F, 0) + value


def encode_status(status: int) -> bytes:
    known = STATUSES.get(status)
    if known is not None:
        return known
    value = b"%d" % status
    index = STATIC_LINES.get(b":status: " + value + b"\r\n", 0)
    block = ONE_BYTE[0x80 | index] if index else b"\x08" + encode_string(value)
    if 100 <= status <= 999:  # else not ours to keep: a bound for STATUSES
        STATUSES[status] = block
    return block


def authority_field(authority: bytes) -> Field:
    field = AUTHORITIES.get(authority)
    if field is None:
        field = Field(b":authority", authority)
        if CACHES.enabled:
            if len(AUTHORITIES) >= AUTHORITIES_MAX:
                AUTHORITIES.clear()
            AUTHORITIES[authority] = field
    return field
