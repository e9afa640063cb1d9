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

from meshproxy.wire.hpack.encoder import SECRETS, encode_literal
from meshproxy.wire.hpack.huffman import huffman_decode
from meshproxy.wire.hpack.integers import HpackError, decode_integer
from meshproxy.wire.hpack.static import STATIC, STATIC_LENGTH, malformed_field
from meshproxy.wire.message import CACHES, COOKIE, PSEUDO, Field, MalformedField

DEFAULT_TABLE_BYTES: Final = 4096  # RFC 9113 6.5.2

# At most 2,048 fields of at most 256 bytes: about 2 MB for the process.
LITERALS: Final[dict[bytes, Field]] = {}
LITERALS_MAX: Final = 2048
LITERAL_BYTES_MAX: Final = 256
SECRETS_MAX: Final = 16  # a connection


class Decoder:
    """One direction of one connection.

    limit     the largest table size the peer may choose: our SETTINGS_HEADER_TABLE_SIZE, once acknowledged
    changed   the last block changed the table (memos of blocks are void then)
    dynamic   the last block referred to the dynamic table, or resized it: elsewhere its bytes may mean something else
    inserted  what the last block added to the table
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
        self.end = 0
        self.changed = False
        self.dynamic = False
        self.inserted: list[Field] = []
        self.secrets: dict[bytes, Field] = {}  # literals never to be indexed: the client's cookie, its token
        self.overflow = False

    def decode(self, data: bytes) -> list[Field]:
        """The fields of a whole block.  Raises HpackError."""
        self.changed = False
        self.dynamic = False
        self.overflow = False
        try:
            return self.fields(data, self.size_updates(data), self.max_bytes, self.max_fields)
        except IndexError:
            raise HpackError("a block ends inside a field") from None

    def rest(self, data: bytes, at: int, size: int, count: int) -> list[Field]:
        """The fields from data[at:] on, where those before are known: `count` fields of `size` bytes.  Raises HpackError."""
        self.changed = False
        self.overflow = size > self.max_bytes or count > self.max_fields
        if at == len(data):
            return []
        try:
            return self.fields(data, at, self.max_bytes - size, self.max_fields - count)
        except IndexError:
            raise HpackError("a block ends inside a field") from None

    def fields(self, data: bytes, at: int, left: int, room: int) -> list[Field]:
        end = len(data)
        table = self.table
        fields: list[Field] = []
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
                    self.dynamic = True
            elif 0x20 <= byte < 0x40:
                raise HpackError("a size update after the first field")
            else:
                field = self.literal(data, at)
                at = self.end
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
            self.dynamic = True
            self.change()
            self.evict()
        if self.max_size > self.limit:
            raise HpackError("no size update although our limit went down")
        return at

    def literal(self, data: bytes, at: int) -> Field:
        """The field that begins at `at`, interned if its bytes mean the same everywhere; `end` is where it ends."""
        first = data[at]
        mask = 0x3F if first >= 0x40 else 0x0F
        index = first & mask
        at_name = at + 1
        if index == mask:
            index, at_name = decode_integer(data, at_name, mask)
        end_name = at_name
        name_length = 0
        if index == 0:
            name_length = data[at_name]
            at_name += 1
            size = name_length & 0x7F
            if size == 0x7F:
                size, at_name = decode_integer(data, at_name, 0x7F)
            end_name = at_name + size
        value_length = data[end_name]
        at_value = end_name + 1
        size = value_length & 0x7F
        if size == 0x7F:
            size, at_value = decode_integer(data, at_value, 0x7F)
        end = at_value + size
        if end > len(data):
            raise HpackError("a string ends after its block")
        self.end = end
        raw = data[at:end]
        known = LITERALS.get(raw)
        if known is not None:
            return known
        secret = 0x10 <= first < 0x20
        if secret:
            known = self.secrets.get(raw)
            if known is not None:
                return known
        if index == 0:
            name = data[at_name:end_name]
            if name_length >= 0x80:
                name = huffman_decode(name)
        elif index <= STATIC_LENGTH:
            name = STATIC[index].name
        else:
            if index - STATIC_LENGTH > len(self.table):
                raise HpackError("a name index beyond the table")
            name = self.table[STATIC_LENGTH - index].name
            self.dynamic = True
        value = data[at_value:end]
        if value_length >= 0x80:
            value = huffman_decode(value)
        try:
            field = Field(name, value)
            if len(value.strip(b" \t")) != len(value):
                field = malformed_field(name, value)
        except MalformedField:
            field = malformed_field(name, value)
        memo = index <= STATIC_LENGTH and len(raw) <= LITERAL_BYTES_MAX and CACHES.enabled
        if secret:
            # An intermediary must not index it either (6.2.3).  Remembered for this connection alone.
            field.literal = raw if index <= STATIC_LENGTH else encode_literal(field, 0x10, 0x0F)
            if memo:
                if len(self.secrets) >= SECRETS_MAX:
                    self.secrets = {}
                self.secrets[raw] = field
        elif memo:
            if first < 0x10 and field.kind != PSEUDO and field.kind != COOKIE and name not in SECRETS:
                field.literal = raw  # its sender, too, held it for nothing that repeats: it may leave as it came
            if len(LITERALS) >= LITERALS_MAX:
                LITERALS.clear()
            LITERALS[raw] = field
        return field

    def change(self) -> None:
        """The table changes.  What is added is noted anew: who remembers a block keeps the list that was."""
        self.changed = True
        self.inserted = []

    def add(self, field: Field) -> None:
        """A new entry evicts the oldest ones; one larger than the table empties it (4.4)."""
        if not self.changed:
            self.change()
        self.inserted.append(field)
        self.table.append(field)
        self.size += field.size
        if self.size > self.max_size:
            self.evict()

    def repeat(self, inserted: list[Field]) -> None:
        """A block came again that refers to nothing in the dynamic table: what it adds to it is known."""
        self.table += inserted
        for field in inserted:
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
    """A string literal (5.2) and where it ends.  IndexError where the data end before its length does."""
    first = data[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = decode_integer(data, at, 0x7F)
    value = data[at : at + length]
    if first >= 0x80:
        value = huffman_decode(value)
    return value, at + length
