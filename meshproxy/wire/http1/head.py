"""Bytes of an HTTP/1.1 head -> a validated Head, or BadMessage (RFC 9112 2 to 6).

    b"GET / HTTP/1.1\\r\\nHost: a" --split--> lines --request_head / response_head--> Head      (who finds them: reader.py)

Strict on purpose: whatever two parsers could read differently (bare LF, folding, a space before the colon, both
lengths, an odd Host) is refused, not repaired.  Header lines that repeat are parsed once.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from meshproxy.wire.message import (
    CACHES,
    COOKIE,
    HOST,
    PATH,
    PLAIN,
    TCHAR,
    VOLATILE,
    Field,
    Head,
    MalformedField,
    add_field,
    carries_requests,
    valid_authority,
    valid_destination,
    valid_path,
    without_empty_port,
)

# Memo bounds.  Entries x bytes is what an ill-meaning peer can make us hold: 1 MiB of lines.
MEMO_LINES: Final = 4096
MEMO_LINE_BYTES: Final = 256

LINE_MEMO: Final[dict[bytes, Field]] = {}


CR: Final = 13
METHODS: Final = frozenset((b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS"))  # no token check needed
PHRASES: Final[dict[int, bytes]] = {s.value: s.phrase.encode() for s in HTTPStatus}  # the standard reason phrases
REASON: Final = bytes((9, *range(0x20, 0x7F), *range(0x80, 0x100)))  # what a reason phrase may consist of (RFC 9112 4)


class BadMessage(Exception):
    """The peer sent what we refuse.  `status`: what a server answers; `label`: short and fixed, for metrics and the
    `mesh-error` header; `text`: one sentence for people."""

    def __init__(self, status: int, label: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.label = label
        self.text = text


def parse_field(line: bytes) -> Field:
    """One header or trailer line without its CRLF (RFC 9112 5).  Raises MalformedField."""
    field = LINE_MEMO.get(line)
    if field is not None and CACHES.enabled:
        return field
    return new_field(line, CACHES.draw())


def new_field(line: bytes, keep: bool) -> Field:
    """parse_field() of a line that is not in the memo."""
    name, colon, value = line.partition(b":")
    if not colon or not name:
        raise MalformedField("a header line has no name")
    if line[0] <= 32 and (line[0] == 32 or line[0] == 9):
        raise MalformedField("a header line is folded or begins with a space")
    # a space before the colon is no token character: refused by Field (RFC 9112 5.1)
    field = Field(name.lower(), value.strip(b" \t"), name)
    if keep and len(line) <= MEMO_LINE_BYTES and CACHES.enabled:
        if len(LINE_MEMO) >= MEMO_LINES:
            LINE_MEMO.clear()
        LINE_MEMO[line] = field
    return field


def file_fields(head: Head, lines: list[bytes], keep: bool) -> bool:
    """Files all header lines, then takes away what Connection names (RFC 9110 7.6.1).  False if Host is not host[:port].
    Raises MalformedField."""
    valid = True
    cached = CACHES.enabled
    for line in lines:
        field = LINE_MEMO.get(line)
        if field is None or not cached:
            field = new_field(line, keep)
        kind = field.kind
        if not kind:  # PLAIN
            head.fields.append(field)
        else:
            add_field(head, field)
            if kind == HOST and not field.number:
                valid = False
    tokens = head.connection
    if tokens is not None:
        for token in tokens:
            if token != b"close" and token != b"keep-alive" and token != b"upgrade" and token != b"te":
                # Connection may name away only what has no meaning to a proxy: never host, lengths, x-request-id, mesh-*
                # (Connection: content-length would otherwise be a way to smuggle).  Those tokens are ignored.
                head.fields = [f for f in head.fields if not (f.kind in (PLAIN, VOLATILE, COOKIE) and f.name in tokens)]
                head.dated = head.dated and b"date" not in tokens
                break
    return valid


def persistence(head: Head) -> None:
    """Sets `close` and settles `protocol` from the Connection tokens (RFC 9112 9.3, RFC 9110 7.8)."""
    tokens = head.connection
    if tokens is None:
        head.close = head.version == 10
        head.protocol = b""
        return
    head.close = b"close" in tokens or (head.version == 10 and b"keep-alive" not in tokens)
    if head.protocol and (b"upgrade" not in tokens or head.version == 10):
        head.protocol = b""


def request_head(lines: list[bytes], keep: bool) -> Head:
    """The head of a request from its lines.  Raises BadMessage, MalformedField."""
    parts = lines.pop(0).split(b" ")
    if len(parts) != 3:
        raise BadMessage(400, "h1_request_line", "the request line is not: method SP target SP version")
    method, target, version = parts
    head = Head()
    if version != b"HTTP/1.1":
        head.version = minor_version(version)
    if method not in METHODS and (not method or method.translate(None, TCHAR)):
        raise BadMessage(400, "h1_request_line", "the method is not a token")
    head.method = method
    if target[:1] == b"/" and method != b"CONNECT" and not target.translate(None, PATH):
        head.path = target
    else:
        request_target(head, target)
    if not file_fields(head, lines, keep):  # it must be valid even where the target overrides it (RFC 9112 3.2)
        raise BadMessage(400, "h1_host", "the Host field is not host[:port]")
    if not head.host_seen and head.version == 11:
        raise BadMessage(400, "h1_host", "a Host field is missing")
    if head.connection is None and head.version == 11:
        head.protocol = b""  # Upgrade without Connection: upgrade (RFC 9110 7.8)
    else:
        persistence(head)
    if head.expect_continue and (head.version == 10 or (head.content_length <= 0 and not head.chunked)):
        head.expect_continue = False  # such a client does not wait, or has nothing to wait with (RFC 9110 10.1.1)
    if head.chunked and (head.content_length >= 0 or head.version == 10):
        # RFC 9112 6.1: allowed to answer "chunked wins"; refusing is what leaves nothing to smuggle.
        raise BadMessage(400, "h1_framing", "transfer-encoding together with content-length or HTTP/1.0")
    if method == b"CONNECT":
        head.protocol = b""
        if head.chunked or head.content_length > 0:
            raise BadMessage(400, "h1_framing", "a CONNECT request has no content")
    elif head.protocol:
        # With content of unknown length we serve the request and decline the upgrade (a server may always do so): who carries
        # both could not say where the one ends and the other begins.
        head.protocol = b"" if head.chunked else upgrade_token(head.protocol)
    return head


def minor_version(version: bytes) -> int:
    """10 or 11.  Raises BadMessage."""
    if version == b"HTTP/1.0":
        return 10
    if len(version) == 8 and version[:7] == b"HTTP/1." and version[7:].isdigit():
        return 11  # a later minor version: answered as 1.1 (RFC 9110 2.5)
    if len(version) == 8 and version[:5] == b"HTTP/" and version[5:6].isdigit() and version[6:7] == b".":
        raise BadMessage(505, "h1_version", "the HTTP version is not 1.0 or 1.1")
    raise BadMessage(400, "h1_request_line", "the request line does not end with an HTTP version")


def request_target(head: Head, target: bytes) -> None:
    """Splits the four forms of a target (RFC 9112 3.2).  Raises BadMessage."""
    if target[:1] == b"/" and head.method != b"CONNECT":
        if not valid_path(target):
            raise BadMessage(400, "h1_target", "the path has a character that must be percent-encoded")
        head.path = target
    elif head.method == b"CONNECT":
        if not valid_destination(target):
            raise BadMessage(400, "h1_target", "the target of CONNECT is not host:port")
        head.authority = target
    elif target == b"*":
        if head.method != b"OPTIONS":
            raise BadMessage(400, "h1_target", "the target * is for OPTIONS only")
        head.path = target
    else:
        absolute_form(head, target)


def absolute_form(head: Head, target: bytes) -> None:
    """scheme "://" authority [path] [?query]; the authority wins over Host (RFC 9112 3.2.2).  Raises BadMessage."""
    scheme, separator, rest = target.partition(b"://")
    scheme = scheme.lower()
    if not separator or (scheme != b"http" and scheme != b"https"):
        raise BadMessage(400, "h1_target", "the target is neither a path nor an http(s) URI")
    slash = rest.find(b"/")
    query = rest.find(b"?")
    end = len(rest)
    if slash >= 0:
        end = slash
    if 0 <= query < end:
        end = query
    authority = rest[:end]
    path = rest[end:]
    if not valid_authority(authority):
        authority = without_empty_port(authority)
    if not authority:
        raise BadMessage(400, "h1_target", "the authority in the target is not host[:port]")
    if not path:
        path = b"*" if head.method == b"OPTIONS" else b"/"  # RFC 9112 3.2.4
    elif path[:1] == b"?":
        path = b"/" + path
    if path != b"*" and not valid_path(path):
        raise BadMessage(400, "h1_target", "the path has a character that must be percent-encoded")
    head.scheme = scheme
    head.authority = authority
    head.path = path


def upgrade_token(value: bytes) -> bytes:
    """The first protocol of an Upgrade field that we may pass on."""
    for token in value.split(b","):
        token = token.strip(b" \t")
        if token and not carries_requests(token) and not token.translate(None, TCHAR + b"/"):
            return token
    return b""


def response_head(lines: list[bytes], keep: bool) -> Head:
    """The head of a response from its lines.  Raises BadMessage (status 502), MalformedField."""
    line = lines.pop(0)
    head = Head()
    if line[:9] == b"HTTP/1.0 ":
        head.version = 10
    elif line[:7] != b"HTTP/1." or not line[7:8].isdigit() or line[8:9] != b" ":
        raise BadMessage(502, "h1_status_line", "the status line does not begin with HTTP/1.1 or HTTP/1.0")
    code = line[9:12]
    # Some servers leave out the space before an empty reason phrase.
    if len(code) != 3 or not code.isdigit() or (len(line) > 12 and line[12] != 32) or 10 in line or CR in line or 0 in line:
        raise BadMessage(502, "h1_status_line", "the status line is not: version SP three digits SP reason")
    head.status = int(code)
    if head.status < 100 or head.status > 599:
        raise BadMessage(502, "h1_status_line", "the status is not within 100 to 599")
    reason = line[13:]
    if reason != PHRASES.get(head.status, b"") and not reason.translate(None, REASON):
        head.reason = reason
    file_fields(head, lines, keep)
    protocol = head.protocol
    persistence(head)
    if head.status == 101 or head.status == 426:
        head.protocol = protocol
    if head.chunked:
        if head.content_length >= 0:
            # RFC 9112 6.3 (3): chunked wins, the length goes, and what follows on this connection is not trusted.
            head.fields = [f for f in head.fields if f.name != b"content-length"]
            head.content_length = -1
            head.close = True
        elif head.version == 10:
            head.close = True  # RFC 9112 6.1: framing of this sender is suspect
    return head
