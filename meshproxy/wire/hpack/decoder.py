"""The HPACK decoder (RFC 7541 3 and 6).

    1xxxxxxx  indexed field                     -> the very Field of the table
    01xxxxxx  literal, added to the table       -> a Field, interned in LITERALS
    001xxxxx  size update (only first in block)
    0001xxxx  literal, never indexed            -> a Field that the encoder will not index either (6.2.3)
    0000xxxx  literal, not indexed

Interning: raw literals whose name is static or spelled out mean the same on every connection, so LITERALS maps their
bytes to the validated Field.  (With it a proxied request cost 9.7 us instead of 15, compiled; 17.6 instead of 28 not.)

A block over the list limits is still decoded to its end, so the table stays right for the next request; its fields are
dropped as soon as the running size or count says so, before anything is copied.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.hpack.huffman import huffman_decode
from meshproxy.wire.hpack.integers import HpackError, decode_integer, encode_string
from meshproxy.wire.hpack.static import STATIC, STATIC_LENGTH, make_field
from meshproxy.wire.message import CACHES, Field

FIRST_DYNAMIC: Final = STATIC_LENGTH + 1
DEFAULT_TABLE_BYTES: Final = 4096  # RFC 9113 6.5.2

# At most 2,048 fields of at most 256 bytes: about 2 MB for the process.
LITERALS: Final[dict[bytes, Field]] = {}
LITERALS_MAX: Final = 2048
LITERAL_BYTES_MAX: Final = 256


class Decoder:
    """One direction of one connection.

    limit     the largest table size the peer may choose: our SETTINGS_HEADER_TABLE_SIZE, once acknowledged
    changed   the last block changed the table (memos of blocks are void then)
    overflow  the last block was over the list limits; decode() returned what fitted
    """

    def __init__(self, max_bytes: int, max_fields: int) -> None:
        """`max_bytes` counts as SETTINGS_MAX_HEADER_LIST_SIZE does: name + value + 32 each."""
        self.max_bytes = max_bytes
        self.max_fields = max_fields
        self.limit = DEFAULT_TABLE_BYTES
        self.max_size = DEFAULT_TABLE_BYTES
        self.size = 0
        self.table: list[Field] = []  # the newest last: at most 128 entries, so eviction's `del` is cheap
        self.changed = False
        self.overflow = False

    def decode(self, data: bytes) -> list[Field]:
        """The fields of a whole block.  Raises HpackError."""
        self.changed = False
        self.overflow = False
        try:
            return self.fields(data)
        except IndexError:
            raise HpackError("a block ends inside a field") from None

    def fields(self, data: bytes) -> list[Field]:
        at = self.size_updates(data)
        end = len(data)
        table = self.table
        fields: list[Field] = []
        left = self.max_bytes
        room = self.max_fields
        while at < end:
            byte = data[at]
            if byte >= 0x80:
                at += 1
                index = byte & 0x7F
                if index == 0x7F:
                    index, at = decode_integer(data, at, 0x7F)
                if index <= STATIC_LENGTH:
                    if index == 0:
                        raise HpackError("index 0")
                    field = STATIC[index]
                else:
                    index -= STATIC_LENGTH
                    if index > len(table):
                        raise HpackError("an index beyond the table")
                    field = table[-index]
            elif 0x20 <= byte < 0x40:
                raise HpackError("a size update after the first field")
            else:
                stop = self.literal_end(data, at, 0x3F if byte >= 0x40 else 0x0F)
                if stop > end:
                    raise HpackError("a string ends after its block")
                field = self.literal(data, at, stop)
                at = stop
                if byte >= 0x40:
                    self.add(field)
            left -= field.size
            room -= 1
            if left >= 0 and room >= 0:
                fields.append(field)
            elif not self.overflow:
                self.overflow = True
                fields = []
        return fields

    def size_updates(self, data: bytes) -> int:
        """Apply the size updates a block may begin with (4.2); where the first field is."""
        at = 0
        while at < len(data) and 0x20 <= data[at] < 0x40:
            size = data[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = decode_integer(data, at, 0x1F)
            if size > self.limit:
                raise HpackError("a size update above our limit")
            self.max_size = size
            self.changed = True
            self.evict()
        if self.max_size > self.limit:
            raise HpackError("no size update although our limit went down")
        return at

    def literal_end(self, data: bytes, at: int, mask: int) -> int:
        """Where the literal that starts at `at` ends, by its lengths alone."""
        index = data[at] & mask
        at += 1
        if index == mask:
            index, at = decode_integer(data, at, mask)
        if index == 0:
            length = data[at] & 0x7F
            at += 1
            if length == 0x7F:
                length, at = decode_integer(data, at, 0x7F)
            at += length
        length = data[at] & 0x7F
        at += 1
        if length == 0x7F:
            length, at = decode_integer(data, at, 0x7F)
        return at + length

    def literal(self, data: bytes, at: int, stop: int) -> Field:
        """The field in data[at:stop], interned if its bytes mean the same everywhere."""
        raw = data[at:stop]
        known = LITERALS.get(raw)
        if known is not None:
            return known
        first = raw[0]
        mask = 0x3F if first >= 0x40 else 0x0F
        index = first & mask
        at = 1
        if index == mask:
            index, at = decode_integer(raw, at, mask)
        if index == 0:
            name, at = read_string(raw, at)
        elif index <= STATIC_LENGTH:
            name = STATIC[index].name
        else:
            if index - STATIC_LENGTH > len(self.table):
                raise HpackError("a name index beyond the table")
            name = self.table[STATIC_LENGTH - index].name
        value, at = read_string(raw, at)
        field = make_field(name, value)
        if 0x10 <= first < 0x20:
            # An intermediary must not index it either (6.2.3); such fields are secrets, so they are not kept here.
            field.literal = b"\x10" + encode_string(name) + encode_string(value)
        elif index <= STATIC_LENGTH and len(raw) <= LITERAL_BYTES_MAX and CACHES.enabled:
            if len(LITERALS) >= LITERALS_MAX:
                LITERALS.clear()
            LITERALS[raw] = field
        return field

    def add(self, field: Field) -> None:
        """A new entry evicts the oldest ones; one larger than the table empties it (4.4)."""
        self.changed = True
        self.table.append(field)
        self.size += field.size
        self.evict()

    def evict(self) -> None:
        count = 0
        while self.size > self.max_size:
            self.size -= self.table[count].size
            count += 1
        if count:
            del self.table[:count]


def read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string literal (5.2) and where it ends.  `data` was measured by literal_end()."""
    first = data[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = decode_integer(data, at, 0x7F)
    value = data[at : at + length]
    if first >= 0x80:
        value = huffman_decode(value)
    return value, at + length
