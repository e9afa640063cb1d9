"""h2's connection with what RFC 7541 and RFC 9113 ask beyond it.

H2Codec (H2Connection)   the stream above the limit reaches the adapter, which refuses that one (RFC 9113 5.1.2);
                         h2 would end the connection
  BoundedDecoder         a broken block is COMPRESSION_ERROR (RFC 7541 2.3.3 and others); h2 calls it PROTOCOL_ERROR
  BoundedEncoder         a table no larger than ours, and every size update that is due (RFC 7541 4.2); hpack forgets
                         one that is followed by the same size again

Field.literal / NeverIndexedHeaderTuple      what came never to be indexed, and secrets, leave so (RFC 7541 6.2.3, 7.1.3)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import Decoder, Encoder, HeaderTuple, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError

from meshproxy.wire.hpack.encoder import SECRETS, TABLE_BYTES_MAX, encode_literal
from meshproxy.wire.message import Field, MalformedField

SPACE: Final = (b" ", b"\t")


class CompressionFault(ProtocolError):
    """A header block that cannot be decoded."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class BoundedDecoder(Decoder):
    """hpack's, whose errors have their own code."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """Raises CompressionFault; OversizedHeaderListError stays what it is, h2 knows it."""
        try:
            return super().decode(data, raw)
        except OversizedHeaderListError:
            raise
        except (HPACKError, IndexError) as error:
            raise CompressionFault(str(error)) from error


class BoundedEncoder(Encoder):
    """hpack's, with our bound on the table; size changes wait for the next block, at most two of them."""

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        table = self.header_table
        waiting = table.resized
        size = min(TABLE_BYTES_MAX, value)
        table.maxsize = size
        if table.resized:
            lowest = min([*self.table_size_changes, size])
            self.table_size_changes = [lowest, size] if lowest < size else [size]
        table.resized = table.resized or waiting

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """As hpack's, but a secret is a literal also where a table has it (RFC 7541 6.2.3)."""
        if sensitive:
            return encode_literal(Field(*to_add), 0x10, 0x0F)
        return super().add(to_add, sensitive, huffman)


class H2Codec(H2Connection):
    """h2's connection."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.encoder = BoundedEncoder()
        self.decoder = BoundedDecoder()

    @property
    def open_inbound_streams(self) -> int:
        """Never so many that h2 would refuse another: its refusal is an error of the connection."""
        return min(super().open_inbound_streams, self.local_settings.max_concurrent_streams - 1)


def to_fields(headers: Iterable[tuple[bytes, bytes]]) -> list[Field]:
    """What h2 decoded, as our fields.  Raises MalformedField."""
    fields = []
    for header in headers:
        if header[1][:1] in SPACE or header[1][-1:] in SPACE:
            raise MalformedField("a field value begins or ends with white space")  # RFC 9113 8.2.1
        field = Field(bytes(header[0]), bytes(header[1]))
        if isinstance(header, NeverIndexedHeaderTuple):
            field.literal = encode_literal(field, 0x10, 0x0F)
        fields.append(field)
    return fields


def to_header(field: Field) -> tuple[bytes, bytes]:
    """A field as h2 is to write it."""
    if field.name in SECRETS or (field.literal and field.literal[0] & 0xF0 == 0x10):
        return NeverIndexedHeaderTuple(field.name, field.value)
    return (field.name, field.value)


def to_pseudo(pseudo: list[tuple[bytes, bytes]], guarded: bool) -> list[tuple[bytes, bytes]]:
    """Pseudo fields as h2 is to write them.  `guarded`: one of them came never to be indexed (Head.guarded)."""
    return [NeverIndexedHeaderTuple(*each) for each in pseudo] if guarded else pseudo
