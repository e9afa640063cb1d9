"""Head -> the bytes of an HTTP/1.1 head (RFC 9112 3 to 6).

    start line, host, end-to-end fields     a function of the head alone: kept in head.memo_h1
    extra fields                            this hop's, never in a memo
    framing and connection fields, CRLF     a function of the exchange: the engine chooses, `tail` below

The memo never holds what depends on the `end` flag or on the peer, so one memo is right for every exchange of a head.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.http1.chunked import trailer_allowed
from meshproxy.wire.http1.head import PHRASES
from meshproxy.wire.message import CACHES, CONTENT_LENGTH, Field, Head

# A head that is remembered keeps its bytes.  In HTTP/2 fifty bytes of index may mean 60 kB of them, and a connection remembers
# 64 heads.
START_BYTES_MAX: Final = 4096

STATUS_LINES: Final[dict[int, bytes]] = {code: b"HTTP/1.1 %d %b\r\n" % (code, phrase) for code, phrase in PHRASES.items()}

CRLF: Final = b"\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
NO_CONTENT: Final = b"content-length: 0\r\n"
CLOSE: Final = b"connection: close\r\n"
KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
# Methods that anticipate content: without any, the length 0 is said (RFC 9110 8.6), or some servers answer 411.
WITH_CONTENT: Final = frozenset((b"POST", b"PUT", b"PATCH"))


def request_start(head: Head) -> bytes:
    """Request line, Host and end-to-end fields, and what the head itself asks of the next hop; without the final CRLF."""
    known = head.memo_h1
    if known is not None and CACHES.enabled:
        return known
    method = head.method
    target = head.path
    base = head.base
    if base is not None and not head.trailers_ok and not head.expect_continue and CACHES.enabled:
        rest = base.memo_h1  # of a base, which is never sent itself: what comes after the path
        if rest is None:
            rest = b" HTTP/1.1\r\nhost: " + base.authority + CRLF + field_lines(base.fields)
            if len(rest) <= START_BYTES_MAX:
                base.memo_h1 = rest
        start = method + b" " + target + rest + field_lines(head.own)
        if len(start) <= START_BYTES_MAX:
            head.memo_h1 = start
        return start
    if method == b"CONNECT":
        target = head.authority
        if head.protocol:  # RFC 8441's extended CONNECT is HTTP/1.1's Upgrade
            method = b"GET"
            target = head.path
    parts = [method, b" ", target, b" HTTP/1.1\r\nhost: ", head.authority, CRLF]
    if method == b"CONNECT" or head.protocol:
        parts.extend([f.line for f in head.fields if f.kind != CONTENT_LENGTH])  # what follows is a tunnel's, if it is granted
    else:
        parts.extend([f.line for f in head.fields])
    if head.protocol:
        parts.append(b"connection: upgrade\r\nupgrade: " + head.protocol + CRLF)
    elif head.trailers_ok:
        parts.append(b"connection: te\r\nte: trailers\r\n")
    if head.expect_continue:
        parts.append(b"expect: 100-continue\r\n")
    start = b"".join(parts)
    if CACHES.enabled and len(start) <= START_BYTES_MAX:
        head.memo_h1 = start
    return start


def response_start(head: Head) -> bytes:
    """Status line and end-to-end fields, without the final CRLF.  The reason phrase is the server's own, if it came over
    HTTP/1.x and gave one, else the standard one."""
    known = head.memo_h1
    if known is not None and CACHES.enabled:
        return known
    parts = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason) if head.reason else status_line(head.status)]
    if head.status == 204 or head.status < 200:
        parts.extend([f.line for f in head.fields if f.kind != CONTENT_LENGTH])  # RFC 9110 8.6: MUST NOT
    else:
        parts.extend([f.line for f in head.fields])
    if head.status == 426 and head.protocol:  # 426 must name the protocol it wants (RFC 9110 15.5.22)
        parts.append(b"connection: upgrade\r\nupgrade: " + head.protocol + CRLF)
    start = b"".join(parts)
    if CACHES.enabled and len(start) <= START_BYTES_MAX:
        head.memo_h1 = start
    return start


def tunnel_start(head: Head, protocol: bytes) -> bytes:
    """The response that turns the connection into a tunnel, whole: 101 with `protocol`, or (b"") a 2xx to CONNECT."""
    parts = [status_line(101 if protocol else head.status)]
    parts.extend([f.line for f in head.fields if f.kind != CONTENT_LENGTH])  # RFC 9110 9.3.6: MUST NOT in a 2xx
    if protocol:
        parts.append(b"connection: upgrade\r\nupgrade: " + protocol + CRLF)
    return b"".join(parts)


def status_line(status: int) -> bytes:
    line = STATUS_LINES.get(status)
    return b"HTTP/1.1 %d \r\n" % status if line is None else line


def field_lines(fields: list[Field]) -> bytes:
    if len(fields) == 1:
        return fields[0].line
    return b"".join([f.line for f in fields])


def trailer_section(fields: list[Field]) -> bytes:
    """The last chunk with trailers.  What trailers may not carry is left out."""
    return b"0\r\n" + b"".join([f.line for f in fields if trailer_allowed(f)]) + CRLF


def refusal(status: int, label: str, text: str, extra: list[Field]) -> bytes:
    """A whole small response, after which the connection closes."""
    body = f"{label}: {text}\n".encode("ascii", "replace")
    return (
        b"%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\nmesh-error: %b\r\n%b\r\n%b"
        % (
            status_line(status),
            len(body),
            label.encode("ascii"),
            field_lines(extra),
            body,
        )
    )
