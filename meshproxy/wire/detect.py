"""What a connection speaks, from its first bytes (and what a TLS client offers, from its ClientHello).

    b"\\x16\\x03"                                     -> TLS
    b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"             -> HTTP2
    known method SP "/", "*" or "http"               -> HTTP1    at once, so that what follows cannot slip by as opaque
    token SP ... SP "HTTP/" digit ... CRLF           -> HTTP1    any method, once the line is whole
    token, or token SP ..., longer than DETECT_BYTES -> HTTP1    nobody waits for the end of such a line: 414
    "PRI * HTTP/2.0", then no preface                -> HTTP2    whose engine says what is wrong with it
    token SP word SP word CRLF CRLF, in one read     -> HTTP2    an invalid preface (RFC 9113 3.4): refused, not passed on
    4 hex digits that count what is there, and NUL   -> OPAQUE   git's pkt-line, which has no end of line
    anything else                                    -> OPAQUE
    a prefix of one of these                         -> NEED_MORE

HTTP/1.1 is recognised in every spelling that some server reads as HTTP (RFC 9112 2.2, 3): with white space in front, and
SP, HT, VT, FF or bare CR between the words.  The engine refuses those; passed on as bytes they would be requests that no
rule was applied to.

The decision needs at most DETECT_BYTES of white space and as many after it; the host adds a time limit (protocols whose
server speaks first never decide).
"""

from __future__ import annotations

import re
from typing import Final

NEED_MORE: Final = 0
TLS: Final = 1
HTTP1: Final = 2
HTTP2: Final = 3
OPAQUE: Final = 4

HANDSHAKE: Final = 0x16  # TLSPlaintext.type (RFC 8446 5.1)
DETECT_BYTES: Final = 8 * 1024  # a longer first line is HTTP if it began like it: the engine answers 414
METHOD_BYTES: Final = 8  # the longest of METHODS and a space
SPACES: Final = b" \t\v\f\r"  # what a lenient server takes for the SP between the words of a request line (RFC 9112 3)
WHITE: Final = b" \t\v\f\r\n"  # ... and skips in front of it
CR: Final = 13
TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*")
BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
HEX4: Final = re.compile(rb"[0-9a-fA-F]{4}")
HTTP_VERSION: Final = re.compile(rb"(?i:http)/[0-9]")
FOREIGN_VERSION: Final = re.compile(rb"(?!(?i:http)/)[A-Za-z]+/[0-9]")  # RTSP/1.0, SIP/2.0, ICAP/1.0: like HTTP, and not it
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))

HOST_NAME: Final = b"-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
HELLO_BYTES: Final = 16 * 1024  # of one ClientHello; with post-quantum key shares about 2 KiB are usual


def detect(data: bytes) -> int:
    """One of NEED_MORE, TLS, HTTP1, HTTP2, OPAQUE for the first bytes of a connection."""
    if not data:
        return NEED_MORE
    first = data[0]
    if first == HANDSHAKE:  # then legacy_record_version 0x03XX
        if len(data) == 1:
            return NEED_MORE
        return TLS if data[1] == 3 else OPAQUE
    if data[:24] == PREFACE:
        return HTTP2
    if len(data) < 24 and PREFACE.startswith(data):
        return NEED_MORE
    if data[:14] == PREFACE[:14]:
        return HTTP2
    space = data.find(b" ", 0, METHOD_BYTES)
    if space > 0 and data[:space] in METHODS and data[space + 1 : space + 2] == b"/":
        return HTTP1  # what nearly all of them are
    return spelt_oddly(data)


def foreign_word(data: bytes) -> bool:
    """Undecided as it is, is it one word that begins none of HTTP's: what a client may say that sends no end of line?"""
    found = TOKEN.match(data)
    if found is None or found.end() != len(data) or PREFACE.startswith(data):
        return False
    return not any(method.startswith(data) for method in METHODS)


def packet_line(data: bytes) -> bool:
    """Is it `0033git-upload-pack /a.git\\0host=b\\0` (gitprotocol-pack, "Git Transport")?"""
    size = HEX4.match(data)
    return size is not None and b"\0" in data[: int(size.group(), 16)] and int(size.group(), 16) <= len(data)


def server_preface(data: bytes) -> bool:
    """Is it what a server of HTTP/2 may say before its client does: SETTINGS, and no acknowledgement (RFC 9113 3.4)?"""
    return len(data) >= 9 and data[0] == 0 and data[3:9] == b"\x04\x00\x00\x00\x00\x00"


def spelt_oddly(data: bytes) -> int:
    """`data` is neither TLS nor HTTP/2's preface, nor a prefix of it."""
    length = len(data)
    data = data.lstrip(WHITE)
    if length - len(data) >= DETECT_BYTES:
        return HTTP1
    if not data:
        return NEED_MORE
    found = TOKEN.match(data)
    assert found is not None
    space = found.end()
    if space == len(data):
        return NEED_MORE if space < DETECT_BYTES else HTTP1
    if space == 0 or data[space] not in SPACES:
        return OPAQUE
    if data[space] == CR and data[space + 1 : space + 2] in (b"", b"\n"):
        return OPAQUE if len(data) > space + 1 else NEED_MORE  # a line of one word
    return http1_line(data, space, data[:space] in METHODS)


def http1_line(data: bytes, space: int, known: bool) -> int:
    """`data` begins with a token and white space."""
    if known:
        target = data[space : space + DETECT_BYTES].lstrip(SPACES)[:4].lower()
        if target[:1] == b"/" or target[:1] == b"*" or target == b"http":
            return HTTP1
    if packet_line(data):
        return OPAQUE
    end = data.find(b"\n", 0, DETECT_BYTES)
    if data[space] != 32 and BINARY.search(data, space, end if end >= 0 else len(data)) is not None:
        return OPAQUE  # a number, not white space: 0x30 0x0c begins an LDAP bind
    if end < 0:
        return NEED_MORE if len(data) < DETECT_BYTES else HTTP1
    line = data[:end].rstrip(SPACES)
    words = line.split()
    version = words[-1]
    if len(words) > 1 and (HTTP_VERSION.match(version) is not None or HTTP_VERSION.match(version[-8:]) is not None):
        return HTTP1
    three = len(words) == 3 and line.count(b" ") == 2 and line.isascii() and FOREIGN_VERSION.match(version) is None
    if three and data[end - 1 : end + 3] == b"\r\n\r\n":
        # An empty line after three words is the end of a head.  It is looked for only in what is here: protocols of lines
        # (Redis, memcached) wait for an answer after the first.
        return HTTP1 if known else HTTP2
    return OPAQUE


class ClientHello:
    """What a TLS client says about itself before anything is secret.

    server_name  SNI host name, lower case, b"" if none
    alpn         protocols in the client's order
    """

    def __init__(self, server_name: bytes, alpn: list[bytes]) -> None:
        self.server_name = server_name
        self.alpn = alpn


def client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello in the first bytes of a TLS connection, gathered over records; None: more bytes are needed.

    Never raises.  What is malformed or longer than HELLO_BYTES gives an empty hello: it offers nothing we serve, and it is
    for the TLS library of whoever gets the bytes to refuse it properly.
    """
    try:
        message = handshake_message(data)
        if message is None:
            return None
        return parse_hello(message)
    except Malformed:
        return ClientHello(b"", [])


def client_hello_alpn(data: bytes) -> list[bytes] | None:
    """The ALPN protocols offered; [] if none; None: more bytes are needed."""
    hello = client_hello(data)
    return None if hello is None else hello.alpn


class Malformed(Exception):
    """The bytes are no ClientHello."""


class Reader:
    """Reads length-prefixed fields within one slice.  Raises Malformed past its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise Malformed
        part = self.data[self.position : end]
        self.position = end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """A field preceded by its length in `size` bytes."""
        return self.take(self.number(size))

    def more(self) -> bool:
        return self.position < len(self.data)


def handshake_message(data: bytes) -> bytes | None:
    """The body of the first handshake message, a ClientHello; None: more records are needed.  Raises Malformed."""
    parts: list[bytes] = []
    gathered = 0
    needed = 4
    position = 0
    while gathered < needed:
        header = data[position : position + 5]
        if (header and header[0] != HANDSHAKE) or (len(header) > 1 and header[1] != 3):
            raise Malformed
        if len(header) < 5:
            return None
        length = int.from_bytes(header[3:5], "big")
        if length == 0 or length > 16384:  # RFC 8446 5.1: no empty handshake fragments, at most 2^14 bytes
            raise Malformed
        part = data[position + 5 : position + 5 + length]
        parts.append(part)
        gathered += len(part)
        if gathered >= 4 and needed == 4:
            start = b"".join(parts)
            if start[0] != 1:  # client_hello
                raise Malformed
            needed = 4 + int.from_bytes(start[1:4], "big")
            if needed > HELLO_BYTES:
                raise Malformed
        if len(part) < length and gathered < needed:
            return None
        position += 5 + length
    return b"".join(parts)[4:needed]


def parse_hello(message: bytes) -> ClientHello:
    """RFC 8446 4.1.2.  Raises Malformed."""
    reader = Reader(message)
    reader.take(2 + 32)  # legacy_version, random
    if len(reader.vector(1)) > 32:  # legacy_session_id
        raise Malformed
    reader.vector(2)  # cipher_suites
    reader.vector(1)  # legacy_compression_methods
    server_name = b""
    alpn: list[bytes] = []
    if not reader.more():  # TLS 1.2 allows a hello without extensions
        return ClientHello(server_name, alpn)
    extensions = Reader(reader.vector(2))
    if reader.more():
        raise Malformed
    seen: set[int] = set()
    while extensions.more():
        kind = extensions.number(2)
        body = extensions.vector(2)
        if kind in seen:  # RFC 8446 4.2: MUST NOT; two readers could choose differently
            raise Malformed
        seen.add(kind)
        if kind == 0:
            server_name = parse_server_name(body)
        elif kind == 16:
            alpn = parse_alpn(body)
    return ClientHello(server_name, alpn)


def parse_server_name(body: bytes) -> bytes:
    """RFC 6066 3: the one host_name in the list.  Raises Malformed."""
    outer = Reader(body)
    names = Reader(outer.vector(2))
    if outer.more() or not names.more():
        raise Malformed
    found = b""
    while names.more():
        kind = names.number(1)
        name = names.vector(2)
        if kind == 0:
            if found or not name or len(name) > 255 or name.translate(None, HOST_NAME):
                raise Malformed
            found = name.lower()
    return found


def parse_alpn(body: bytes) -> list[bytes]:
    """RFC 7301 3.1.  Raises Malformed."""
    outer = Reader(body)
    names = Reader(outer.vector(2))
    if outer.more() or not names.more():
        raise Malformed
    found: list[bytes] = []
    while names.more():
        name = names.vector(1)
        if not name:
            raise Malformed
        found.append(name)
    return found
