"""The static table (RFC 7541 Appendix A) as Fields, and what stands for a field that is none."""

from __future__ import annotations

from typing import Final

from meshproxy.wire.message import Field

STATIC_LENGTH: Final = 61

# The kind of a field that the constructor of Field refused.  It stays in the HPACK table (the state must remain right)
# and spoils every message that contains it.
MALFORMED: Final = 255

_PAIRS: Final = (
    b":authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|:status 200|:status 204|"
    b":status 206|:status 304|:status 400|:status 404|:status 500|accept-charset|accept-encoding gzip, deflate|"
    b"accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|"
    b"content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|"
    b"cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|"
    b"last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|"
    b"server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)


def malformed_field(name: bytes, value: bytes) -> Field:
    """A field that RFC 9113 8.2.1 forbids: the block must still be decoded to its end, and the table must hold what the
    peer's table holds."""
    field = Field(b"malformed", b"")
    field.name = name
    field.value = value
    field.line = b""
    field.kind = MALFORMED
    field.size = len(name) + len(value) + 32
    return field


def build() -> list[Field]:
    table = [malformed_field(b"", b"")]  # index 0 does not exist
    for entry in _PAIRS.split(b"|"):
        name, _, value = entry.partition(b" ")
        # content-length without a value says nothing as a field; it is there for its name
        table.append(malformed_field(name, value) if name == b"content-length" else Field(name, value))
    return table


STATIC: Final[list[Field]] = build()

# Where the encoder finds them: by whole line ("name: value\r\n"), and the first entry of a name.
STATIC_LINES: Final[dict[bytes, int]] = {}
STATIC_NAMES: Final[dict[bytes, int]] = {}
for _index in range(STATIC_LENGTH, 0, -1):
    STATIC_NAMES[STATIC[_index].name] = _index
    if STATIC[_index].value:
        STATIC_LINES[STATIC[_index].line] = _index
