"""What a connection speaks, from its first bytes (and what a TLS client offers, from its ClientHello).

    b"\\x16\\x03"                                     -> TLS
    b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"             -> HTTP2
    known method SP "/", "*" or "http"               -> HTTP1    at once, so that what follows cannot slip by as opaque
    token SP ... SP "HTTP/" digit "." digit CRLF     -> HTTP1    any method, once the line is whole
    "PRI * HTTP/2.0", then no preface                -> HTTP2    whose engine says what is wrong with it
    token SP word SP word CRLF CRLF, in one read     -> HTTP2    an invalid preface (RFC 9113 3.4): refused, not passed on
    anything else                                    -> OPAQUE
    a prefix of one of these                         -> NEED_MORE

The decision needs at most DETECT_BYTES; the host adds a time limit (protocols whose server speaks first never decide).
"""

from __future__ import annotations

import re
from typing import Final

from meshproxy.wire.message import TCHAR

NEED_MORE: Final = 0
TLS: Final = 1
HTTP1: Final = 2
HTTP2: Final = 3
OPAQUE: Final = 4

DETECT_BYTES: Final = 8 * 1024  # a longer first line is HTTP if it began like it: the engine answers 414
METHOD_BYTES: Final = 32  # the longest registered method has 17 (UPDATEREDIRECTREF)
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
    if first == 0x16:  # TLSPlaintext.type handshake, legacy_record_version 0x03XX (RFC 8446 5.1)
        if len(data) == 1:
            return NEED_MORE
        return TLS if data[1] == 3 else OPAQUE
    if data[:24] == PREFACE:
        return HTTP2
    if len(data) < 24 and PREFACE.startswith(data):
        return NEED_MORE
    if data[:14] == PREFACE[:14]:
        return HTTP2
    if first == 13:  # one empty line may precede a request (RFC 9112 2.2)
        if len(data) <= 2:
            return NEED_MORE if data == b"\r" or data == b"\r\n" else OPAQUE
        if data[1] != 10:
            return OPAQUE
        data = data[2:]
    space = data.find(b" ", 0, METHOD_BYTES + 1)
    method = data[: space if space >= 0 else METHOD_BYTES + 1]
    if space == 0 or len(method) > METHOD_BYTES or method.translate(None, TCHAR):
        return OPAQUE
    if space < 0:
        return NEED_MORE
    return http1_line(data, space, method in METHODS)


def http1_line(data: bytes, space: int, known: bool) -> int:
    """`data` begins with a token and a space."""
    if known:
        target = data[space + 1 : space + 5].lower()
        if target[:1] == b"/" or target[:1] == b"*" or target == b"http":
            return HTTP1
    end = data.find(b"\n", 0, DETECT_BYTES)
    if end < 0:
        if len(data) < DETECT_BYTES:
            return NEED_MORE
        return HTTP1 if known else OPAQUE
    line = data[:end].rstrip(b"\r")
    version = line[-8:]
    if version[:5] == b"HTTP/" and version[5:6].isdigit() and version[6:7] == b"." and version[7:8].isdigit():
        return HTTP1
    if data[end - 1 : end + 3] == b"\r\n\r\n" and line.count(b" ") == 2 and line.isascii():
        # An empty line after three words is the end of a head.  It is looked for only in what is here: protocols of lines
        # (Redis, memcached) wait for an answer after the first.
        word = line[line.rfind(b" ") + 1 :]
        if word and line[space + 1] != 32 and FOREIGN_VERSION.match(word) is None:
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
        if (header and header[0] != 0x16) or (len(header) > 1 and header[1] != 3):
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
