"""The chunked transfer coding, decoded (RFC 9112 7.1).

    SIZE --"5;ext CRLF"--> DATA --5 bytes--> DATA_END --CRLF--> SIZE
      \\--"0 CRLF"--> TRAILERS --lines, CRLF--> done

Input may be cut anywhere.  Only CR LF ends a line (RFC erratum 7633): every "chunk game" of the request smugglers needs a
parser that takes less.  Extensions are checked for control characters and dropped.
"""

from __future__ import annotations

import re
from typing import Any, Final

from meshproxy.wire.http1.head import BadMessage, parse_field
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import ALIAS, FORBIDDEN_TRAILERS, HOP, MESH, PSEUDO, Field, MalformedField

SIZE: Final = 0
DATA: Final = 1
DATA_END: Final = 2
TRAILERS: Final = 3
DONE: Final = 4

HEX: Final = b"0123456789abcdefABCDEF"
HEX_DIGITS: Final = 15  # without leading zeros: 2^60 bytes; and int() is never given what is not plain hex ("0x5", "+5", "0_5")
VIEW_BYTES: Final = 1024  # from here on a view and one copy, of all together, is cheaper than two
CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class ChunkedDecoder:
    """Decodes one message body.

    done      the message is complete
    trailers  then: its trailer fields, without those that trailers may not carry (RFC 9110 6.5.1)
    rest      then: input that follows the message
    """

    def __init__(self, limits: Limits, named: list[bytes] | None) -> None:
        """`named`: what the head's Connection names, which ends here also as a trailer (RFC 9110 7.6.1)."""
        self.named = named
        self.line_bytes = limits.chunk_line_bytes
        self.trailer_bytes = limits.trailer_bytes
        self.trailer_fields = limits.head_fields
        self.state = SIZE
        self.left = 0
        self.partial = b""
        self.done = False
        self.trailers: list[Field] = []
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Decodes what it can and returns the body bytes in it (b"" if none).  Raises BadMessage."""
        if self.partial:
            data = self.partial + data
            self.partial = b""
        out: list[Any] = []
        view: Any = None
        position = 0
        length = len(data)
        while position < length:
            state = self.state
            if state == DATA:
                take = length - position
                if take >= self.left:
                    take = self.left
                    self.state = DATA_END
                self.left -= take
                if take < VIEW_BYTES:
                    out.append(data[position : position + take])
                else:
                    if view is None:
                        view = memoryview(data)
                    out.append(view[position : position + take])
                position += take
            elif state == SIZE:
                end = data.find(b"\r\n", position, position + self.line_bytes + 2)
                if end < 0:
                    self.keep_line(data, position)
                    break
                self.left = chunk_size(data[position:end])
                self.state = DATA if self.left else TRAILERS
                position = end + 2
            elif state == DATA_END:
                if data[position] != 13 or (length - position > 1 and data[position + 1] != 10):
                    raise BadMessage(400, "h1_chunk", "a chunk is longer than its size says")
                if length - position == 1:
                    self.partial = data[position:]
                    break
                position += 2
                self.state = SIZE
            else:
                self.read_trailers(data, position)
                break
        return b"".join(out)  # of bytes alone it is these

    def keep_line(self, data: bytes, position: int) -> None:
        """The chunk line is not all there: keep it, if it can still become one."""
        self.partial = data[position:]
        size = len(self.partial)
        if size > self.line_bytes and (size > self.line_bytes + 1 or self.partial[-1] != 13):  # its CR may be there already
            raise BadMessage(400, "h1_chunk", f"a chunk line is longer than {self.line_bytes} bytes")
        if 10 in self.partial or self.partial[0] not in HEX:
            raise BadMessage(400, "h1_chunk", "a chunk line does not begin with a size or ends with a bare LF")

    def read_trailers(self, data: bytes, position: int) -> None:
        if data[position] == 13:
            if len(data) - position == 1:
                self.partial = data[position:]
                return
            end = position
            skip = 2
        else:
            end = data.find(b"\r\n\r\n", position, position + self.trailer_bytes + 4)
            skip = 4
            if end < 0:
                self.partial = data[position:]
                if len(self.partial) > self.trailer_bytes:
                    raise BadMessage(431, "h1_trailers", f"the trailers are longer than {self.trailer_bytes} bytes")
                if self.partial.count(b"\n") != self.partial.count(b"\r\n"):
                    raise BadMessage(400, "h1_line_end", "a trailer line ends with LF instead of CR LF")
                return
        if data[end : end + 2] != b"\r\n":
            raise BadMessage(400, "h1_line_end", "the trailers end with a bare CR")
        if end > position:
            self.parse_trailers(data[position:end].split(b"\r\n"))
        self.state = DONE
        self.done = True
        self.rest = data[end + skip :]

    def parse_trailers(self, lines: list[bytes]) -> None:
        if len(lines) > self.trailer_fields:
            raise BadMessage(431, "h1_trailers", f"there are more than {self.trailer_fields} trailers")
        try:
            for line in lines:
                field = parse_field(line)
                if trailer_allowed(field) and (self.named is None or field.name not in self.named):
                    self.trailers.append(field)
        except MalformedField as error:
            raise BadMessage(400, "h1_trailers", str(error)) from None


def trailer_allowed(field: Field) -> bool:
    """Whether a hop may pass this field on as a trailer; the others are dropped, in either direction."""
    kind = field.kind
    return kind != MESH and kind != HOP and kind != ALIAS and kind != PSEUDO and field.name not in FORBIDDEN_TRAILERS


def chunk_size(line: bytes) -> int:
    """The size in a chunk line without its CRLF.  Raises BadMessage."""
    if 0 < len(line) <= HEX_DIGITS and not line.translate(None, HEX):
        return int(line, 16)
    match = CHUNK_LINE.fullmatch(line)
    if match is None:
        raise BadMessage(400, "h1_chunk", "a chunk line is not: size in hex [; extension]")
    digits = match.group(1).lstrip(b"0") or b"0"  # RFC 9112 7.1 has no bound for zeros; the line has one
    if len(digits) > HEX_DIGITS:
        raise BadMessage(400, "h1_chunk", f"a chunk size has more than {HEX_DIGITS} digits")
    return int(digits, 16)
