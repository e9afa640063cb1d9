"""From decoded fields to a validated Head (RFC 9113 section 8), and from a Head to the pseudo fields that start a block.

    [Field, Field, ...]  --request_head()-->   Head      every rule of RFC 9113 8.2 and 8.3, RFC 8441 4, RFC 9110 4.2 and 7.2
                         --response_head()-->  Head
                         --trailer_fields()--> [Field]   what RFC 9110 6.5.1 forbids in trailers is dropped

Both HTTP/2 engines use these functions, so what a request must look like is said once.  They know no stream and no
connection: a MalformedField means "this message is malformed" (RFC 9113 8.1.1), which is an error of one stream only.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.hpack.static import MALFORMED
from meshproxy.wire.message import (
    ALIAS,
    CONNECTION,
    CONTENT_LENGTH,
    FORBIDDEN_TRAILERS,
    HOP,
    HOST,
    MESH,
    PLAIN,
    PSEUDO,
    TCHAR,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    VOLATILE,
    Field,
    Head,
    MalformedField,
    add_field,
    carries_requests,
    same_authority,
    valid_authority,
    valid_destination,
    valid_path,
    without_empty_port,
)

# Between our own proxies: the method of a request with an Upgrade, and how much content it has (proxy/upgrade.py).
MESH_UPGRADE: Final = b"mesh-upgrade"

SCHEME: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-."


class MissingAuthority(MalformedField):
    """Neither :authority nor Host: answered with 400, as an HTTP/1.1 request without Host is (RFC 9112 3.2)."""


def request_head(fields: list[Field]) -> Head:
    """The head of a request.  Raises MalformedField (MissingAuthority for that one case)."""
    head = Head()
    head.version = 20
    head.scheme = b""
    method: Field | None = None
    scheme: Field | None = None
    path: Field | None = None
    authority: Field | None = None
    protocol: Field | None = None
    host: Field | None = None
    regular = False
    for field in fields:
        kind = field.kind
        if kind in (PLAIN, VOLATILE):
            regular = True
            head.fields.append(field)
        elif kind == PSEUDO:
            if regular:
                raise MalformedField("a pseudo field after a regular field")
            name = field.name
            if name == b":path":
                if path is not None:
                    raise MalformedField(":path twice")
                path = field
            elif name == b":method":
                if method is not None:
                    raise MalformedField(":method twice")
                method = field
            elif name == b":authority":
                if authority is not None:
                    raise MalformedField(":authority twice")
                authority = field
                head.authority = field.value
            elif name == b":scheme":
                if scheme is not None:
                    raise MalformedField(":scheme twice")
                scheme = field
            elif name == b":protocol":
                if protocol is not None:
                    raise MalformedField(":protocol twice")
                protocol = field
            else:
                raise MalformedField("a pseudo field that requests do not have")
        else:
            regular = True
            if kind == HOST:
                host = field
            else:
                check_allowed(field)
            add_field(head, field)
    if method is None or not method.value or method.value.translate(None, TCHAR):
        raise MalformedField(":method is missing or not a token")
    head.method = method.value
    head.guarded = came_guarded(method, authority, scheme, path, protocol)
    if method.value == b"CONNECT" and head.content_length >= 0:
        # A tunnel has no content (RFC 9110 9.3.6).  Passed on over HTTP/1.1, the length would make the request after a
        # declined tunnel the content that was announced and never came.
        if head.content_length > 0:
            raise MalformedField("CONNECT with a content-length")
        head.fields = [field for field in head.fields if field.kind != CONTENT_LENGTH]
        head.content_length = -1
    if protocol is not None:
        check_protocol(head, protocol.value)
    elif head.method == b"CONNECT":
        if scheme is not None or path is not None:
            raise MalformedField("CONNECT with :scheme or :path")
        if authority is None or not head.authority:
            raise MissingAuthority("CONNECT without :authority")
        if not valid_destination(head.authority):
            raise MalformedField(":authority of CONNECT is not host:port")
        if host is not None and not same_authority(host.value, head.authority, b""):
            raise MalformedField(":authority and host differ")
        return head
    if scheme is None or path is None:
        raise MalformedField(":scheme or :path is missing")
    check_scheme(scheme.value)
    check_path(head.method, path.value)
    head.scheme = scheme.value
    head.path = path.value
    if not head.authority:
        raise MissingAuthority("neither :authority nor host")
    if not valid_authority(head.authority):
        head.authority = without_empty_port(head.authority)
    if not head.authority:
        raise MalformedField(":authority is not host or host:port")
    if host is not None and not same_authority(host.value, head.authority, head.scheme.lower()):
        raise MalformedField(":authority and host differ")
    return head


def response_head(fields: list[Field]) -> Head:
    """The head of a response, interim ones included.  Raises MalformedField."""
    head = Head()
    head.version = 20
    regular = False
    for field in fields:
        kind = field.kind
        if kind == PLAIN:
            regular = True
            head.fields.append(field)
        elif kind == VOLATILE:
            regular = True
            head.fields.append(field)
            if field.name == b"date":
                head.dated = True
        elif kind == PSEUDO:
            if regular or head.status or field.name != b":status":
                raise MalformedField("a pseudo field out of place in a response")
            head.status = parse_status(field.value)
            head.guarded = field.literal != b""
        else:
            regular = True
            check_allowed(field)
            if kind != HOST:
                add_field(head, field)
    if not head.status:
        raise MalformedField(":status is missing")
    return head


def trailer_fields(fields: list[Field]) -> list[Field]:
    """Trailers fit to be forwarded.  Raises MalformedField for what makes the whole message malformed."""
    kept: list[Field] = []
    for field in fields:
        kind = field.kind
        if kind == PSEUDO:
            raise MalformedField("a pseudo field in trailers")
        if kind != PLAIN:
            check_allowed(field)
            if kind in (MESH, ALIAS):
                continue
        if field.name not in FORBIDDEN_TRAILERS:
            kept.append(field)
    return kept


def came_guarded(
    method: Field, authority: Field | None, scheme: Field | None, path: Field | None, protocol: Field | None
) -> bool:
    """Whether one of the pseudo fields came never-indexed: only then does the decoder give one a `literal`."""
    return (
        method.literal != b""
        or (path is not None and path.literal != b"")
        or (authority is not None and authority.literal != b"")
        or (scheme is not None and scheme.literal != b"")
        or (protocol is not None and protocol.literal != b"")
    )


def check_allowed(field: Field) -> None:
    """Connection-specific fields are malformed in HTTP/2, te: trailers excepted (RFC 9113 8.2.2)."""
    kind = field.kind
    if kind == MALFORMED:
        raise MalformedField("a field name or value with characters that are not allowed")
    if kind == TE:
        if field.value.lower() != b"trailers":
            raise MalformedField("te is not trailers")
    elif kind in (CONNECTION, TRANSFER_ENCODING, UPGRADE, HOP):
        raise MalformedField("a connection-specific field")


def check_protocol(head: Head, protocol: bytes) -> None:
    """Extended CONNECT (RFC 8441 4)."""
    if head.method != b"CONNECT":
        raise MalformedField(":protocol without CONNECT")
    if not protocol or protocol.translate(None, TCHAR + b"/"):
        raise MalformedField(":protocol is not a protocol name")
    if carries_requests(protocol):
        raise MalformedField(":protocol would carry requests past us")
    head.protocol = protocol.lower()


def check_scheme(scheme: bytes) -> None:
    if scheme == b"http" or scheme == b"https":
        return
    if scheme.translate(None, SCHEME) or not scheme[:1].isalpha():
        raise MalformedField(":scheme is not a scheme")


def check_path(method: bytes, path: bytes) -> None:
    if not valid_path(path) and (path != b"*" or method != b"OPTIONS"):
        raise MalformedField(":path is not a path")


def parse_status(value: bytes) -> int:
    """Three digits, 100 to 599; 101 does not exist in HTTP/2 (RFC 9113 8.6)."""
    if len(value) != 3 or not value.isdigit():
        raise MalformedField(":status is not three digits")
    status = int(value)
    if status < 100 or status > 599 or status == 101:
        raise MalformedField(":status out of range")
    return status


def body_allowed(status: int, method: bytes) -> bool:
    """Whether a response has a body: not to HEAD, not with 1xx, 204 or 304 (RFC 9110 6.4.1)."""
    return method != b"HEAD" and status >= 200 and status != 204 and status != 304


def expected_body(head: Head, method: bytes) -> int:
    """How many DATA bytes must follow, -1 when the head does not say (RFC 9113 8.1.1).

    For a response `method` is the request's; a tunnel's length means nothing (RFC 9110 9.3.6)."""
    if head.status:
        if method == b"CONNECT" and head.status < 300:
            return -1
        return head.content_length if body_allowed(head.status, method) else 0
    return -1 if head.method == b"CONNECT" else head.content_length


def carries_upgrade(head: Head, extra: list[Field], content: bool) -> bool:
    """Whether extended CONNECT says all of a request with an Upgrade over HTTP/1.1.  It stands for a GET (RFC 8441 5); another
    method is kept by a mesh peer that is told of it in `extra`.  Everybody else would make a GET of it, and of its content
    what the tunnel begins with.  `content`: the peer has said that it takes some, when it is told how much."""
    size = head.content_length
    if size > 0:
        told = b" %d" % size
        return content and any(field.name == MESH_UPGRADE and field.value.endswith(told) for field in extra)
    return head.method == b"GET" or any(field.name == MESH_UPGRADE for field in extra)


def request_pseudo(head: Head) -> list[tuple[bytes, bytes]]:
    """The pseudo fields of a request.  An upgrade, whichever version asked for it, is extended CONNECT here."""
    if head.protocol:
        return [
            (b":method", b"CONNECT"),
            (b":protocol", head.protocol),
            (b":scheme", head.scheme),
            (b":authority", head.authority),
            (b":path", head.path),
        ]
    if head.method == b"CONNECT":
        return [(b":method", b"CONNECT"), (b":authority", head.authority)]
    return [
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":authority", head.authority),
        (b":path", head.path),
    ]
