"""HTTP messages as every engine and the proxy see them (RFC 9110).

    Field   one header field, validated once, interned, immutable; it already knows what every hop needs
    Head    the start of a request or a response: its control data and its end-to-end fields

A head is **immutable after parsing**: whole heads are memoised by their bytes and shared between requests, so nobody
may change one.  What a hop adds (a request id, `mesh-client-id`) travels beside it as `extra` fields.
What a hop must not forward never gets into `Head.fields`: `add_field` files each field by its kind, in one place for
both HTTP versions:

    end-to-end (also content-length, cookie …)  -> fields
    hop-by-hop (connection, te, upgrade …)      -> dropped; their meaning is kept in attributes
    content_length, mesh_client_id …            -> dropped: an app could take it for what we vouch for
    host / :authority                           -> authority
    mesh-*, l5d-*                               -> mesh        (never forwarded unless the proxy says so)

Caches here are bounded and change only speed, never outcome: `CACHES.enabled = False` turns all of them off.
"""

from __future__ import annotations

import re
from typing import Final

# What a field means to a proxy.  PLAIN first: the hot path tests `kind == 0` and is done.
PLAIN: Final = 0
CONTENT_LENGTH: Final = 1
TRANSFER_ENCODING: Final = 2
HOST: Final = 3
CONNECTION: Final = 4
HOP: Final = 5  # keep-alive, proxy-connection, http2-settings: removed, no further meaning
TE: Final = 6
UPGRADE: Final = 7
EXPECT: Final = 8
COOKIE: Final = 9
MESH: Final = 10  # mesh-* and l5d-*
REQUEST_ID: Final = 11  # x-request-id
CONTENT_TYPE: Final = 12
GRPC_TIMEOUT: Final = 13
GRPC_STATUS: Final = 14
VOLATILE: Final = 15  # end-to-end, but differs in every message: not worth an HPACK table entry
PSEUDO: Final = 16
EXPECTED_TIMEOUT: Final = 17  # x-envoy-expected-rq-timeout-ms
MAX_FORWARDS: Final = 18
ALIAS: Final = 19  # content_length, mesh_* ...: see ALIASES

KINDS: Final[dict[bytes, int]] = {
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"host": HOST,
    b"connection": CONNECTION,
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"http2-settings": HOP,
    b"te": TE,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"cookie": COOKIE,
    b"x-request-id": REQUEST_ID,
    b"content-type": CONTENT_TYPE,
    b"grpc-timeout": GRPC_TIMEOUT,
    b"grpc-status": GRPC_STATUS,
    b"x-envoy-expected-rq-timeout-ms": EXPECTED_TIMEOUT,
    b"max-forwards": MAX_FORWARDS,
    b"traceparent": VOLATILE,
    b"date": VOLATILE,
    b"etag": VOLATILE,
    b"last-modified": VOLATILE,
    b"age": VOLATILE,
    b"location": VOLATILE,
}

# WSGI and CGI servers read "_" as "-".  These, and what looks like mesh-* or l5d-*, would become there what frames a message,
# ends at a hop or says who asks, and these we take off or write ourselves: nobody may say them by another name.  All other
# names with "_" are names like any (gRPC metadata has many): who may say x-request-id gains nothing by x_request_id.
ALIASES: Final = frozenset((b"content_length", b"transfer_encoding", b"keep_alive", b"proxy_connection", b"http2_settings"))

# RFC 9110 5.6.2 tchar, as bytes.translate()'s delete argument: what remains after deleting these is illegal.
TCHAR: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

# What a field value may not contain (RFC 9110 5.5): every control character but the tab.
CONTROLS: Final = bytes((*range(9), *range(10, 32), 127))

# What a path and query may consist of: visible ASCII but "#", which would begin a fragment (RFC 9112 3.2.1).  RFC 3986 is
# narrower (no "|", "{" ...), but browsers send those; bytes from 0x80 on must arrive percent-encoded, as HAProxy has it.
PATH: Final = bytes(c for c in range(0x21, 0x7F) if c != 0x23)

# host [":" port] (RFC 9110 7.2) with the host limited to unreserved characters and bracketed IPv6.  RFC 3986's reg-name
# would also allow "," "&" "%40" ...: no name in DNS has them, and two hops may read them differently.
AUTHORITY: Final = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

# Trailers must not carry what frames, routes or authenticates a message (RFC 9110 6.5.1).
FORBIDDEN_TRAILERS: Final = frozenset(
    (
        b"content-length",
        b"transfer-encoding",
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"content-encoding",
        b"content-type",
        b"content-range",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"max-forwards",
        b"cache-control",
        b"x-request-id",
    )
)


class MalformedField(ValueError):
    """A field or a combination of fields that no hop may forward.  `str()` says which rule."""


class Caches:
    """The switch for every memo in `wire` (tests run both ways; a memo may change speed, never outcome).

    enabled  memos are used
    eager    whatever is new is kept at once, and not when it is drawn (tests)
    """

    def __init__(self) -> None:
        self.enabled = True
        self.eager = False
        self.state = 0

    def draw(self) -> bool:
        """Whether to keep something new: one of 16.  What repeats is drawn soon; what comes once (a path, an id, a session)
        seldom is, and pushes out less of what repeats.  Without a rhythm that traffic could have too: the upper bits of a
        linear congruential generator (one of 16 bits left out every 32nd for 393 times on end).  A head kept but never seen
        again costs 2 us more than one that is let go (measured)."""
        self.state = state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
        return state < 0x10000000 or self.eager


CACHES: Final = Caches()


# What names that were found valid mean: fields differ in their values, seldom in their names.
NAMES: Final[dict[bytes, int]] = {}
NAMES_MAX: Final = 1024
NAME_BYTES_MAX: Final = 64


def judge_name(name: bytes) -> int:
    """The kind of a field by its name.  Raises MalformedField where it is none."""
    kind = KINDS.get(name, PLAIN)
    if name[:1] == b":":
        kind = PSEUDO
    elif not name or name.translate(None, TCHAR) or name != name.lower():
        raise MalformedField("field name is empty, upper-case or not a token")
    elif name[:5] == b"mesh-" or name[:4] == b"l5d-":
        kind = MESH
    elif 95 in name:
        alias = name.replace(b"-", b"_")
        if alias in ALIASES or alias[:5] == b"mesh_" or alias[:4] == b"l5d_":
            kind = ALIAS
    if CACHES.enabled and len(name) <= NAME_BYTES_MAX:
        if len(NAMES) >= NAMES_MAX:
            NAMES.clear()
        NAMES[name] = kind
    return kind


class Field:
    """One header field.

    name    lower-case bytes, without colon (b":path" for a pseudo field)
    value   bytes without surrounding white space; of host: without an empty port
    kind    one of the constants above
    number  for content-length: its value; for host: 1 if it is a valid authority; otherwise 0
    line    how HTTP/1.1 writes it, name case as received: b"Name: value\\r\\n"
    size    RFC 7541 4.1: len(name) + len(value) + 32
    literal memo of the HPACK encoder: literal-without-indexing bytes, b"" until first needed

    Raises MalformedField for what RFC 9110 5.1/5.5 and RFC 9113 8.2.1 forbid.
    """

    __slots__ = ("kind", "line", "literal", "name", "number", "size", "value")

    def __init__(self, name: bytes, value: bytes, original: bytes = b"") -> None:
        """`original` is the name as written (HTTP/1.1 keeps its case); `name` must be lower case already."""
        kind = NAMES.get(name, -1)
        if kind < 0:
            kind = judge_name(name)
        # CR, LF and NUL are dangerous, the other controls invalid (RFC 9110 5.5): parsers differ on whether VT and FF are white
        # space.  Many values that come once are ids and numbers, for which isalnum() says the same in 13 ns instead of 98.
        size = len(value)
        if not value.isalnum() and len(value.translate(None, CONTROLS)) != size:
            raise MalformedField("field value contains a control character")
        number = 0
        if kind == CONTENT_LENGTH:
            number = parse_length(value)
        elif kind == HOST:
            number = 1
            if not valid_authority(value):
                bare = without_empty_port(value)
                if bare:
                    value = bare
                else:
                    number = 0
        self.name = name
        self.value = value
        self.kind = kind
        self.number = number
        self.line = (original or name) + b": " + value + b"\r\n"
        self.size = len(name) + size + 32
        self.literal = b""

    def __repr__(self) -> str:
        return f"Field({self.name!r}, {self.value!r})"


def parse_length(value: bytes) -> int:
    """Content-Length as an int (RFC 9110 8.6).  A list of equal numbers is one number; anything else is malformed.

    `bytes.isdigit` and a digit bound come first: `int()` would take b"+5", b"1_0", and raise on 5,000 digits.
    """
    if value.isdigit() and len(value) <= 18:
        return int(value)
    if b"," in value:
        parts = [part.strip(b" \t") for part in value.split(b",")]
        first = parts[0]
        if first.isdigit() and len(first) <= 18 and all(part == first for part in parts):
            return int(first)
    raise MalformedField("content-length is not one decimal number")


def parse_expected(value: bytes) -> int:
    """x-envoy-expected-rq-timeout-ms: milliseconds, 1 to 2^31 - 1 (24.8 days) as plain digits; else 0."""
    if value.isdigit() and len(value) <= 10 and value[0] != 0x30:  # someone reads 010 as octal
        number = int(value)
        if number <= 0x7FFFFFFF:
            return number
    return 0


def valid_path(path: bytes) -> bool:
    """Whether `path` is origin-form: "/" and then characters that can stand in a path or query."""
    return path[:1] == b"/" and not path.translate(None, PATH)


def valid_authority(authority: bytes) -> bool:
    """Whether `authority` is a host, or host:port with a port up to 65535.  No user part, no empty host or port."""
    if AUTHORITY.fullmatch(authority) is None:
        return False
    colon = authority.rfind(b":")
    return colon < 0 or authority[-1:] == b"]" or int(authority[colon + 1 :]) <= 65535


def without_empty_port(authority: bytes) -> bytes:
    """`host` where `authority` is `host:` (RFC 3986 3.2.3: a port may be empty, 6.2.3: and is then better left out: whoever
    compares names finds one); b"" for anything else."""
    host = authority[:-1]
    if authority[-1:] != b":" or (b":" in host and host[-1:] != b"]") or not valid_authority(host):
        return b""
    return host


def same_authority(one: bytes, other: bytes, scheme: bytes) -> bool:
    """Whether two authorities of a request are the same: letter case aside, and with or without the default port of the
    scheme, which may be left out (RFC 3986 6.2.2.1, 6.2.3)."""
    return one == other or without_default_port(one.lower(), scheme) == without_default_port(other.lower(), scheme)


def without_default_port(authority: bytes, scheme: bytes) -> bytes:
    port = b":80" if scheme == b"http" else b":443" if scheme == b"https" else b""
    return authority.removesuffix(port) if valid_authority(authority) else authority


def valid_destination(authority: bytes) -> bool:
    """Whether `authority` is what CONNECT asks for: host:port, and a port that can be connected to (RFC 9110 9.3.6)."""
    if not valid_authority(authority) or not authority[-1:].isdigit():
        return False
    colon = authority.rfind(b":")
    return colon >= 0 and int(authority[colon + 1 :]) > 0


def carries_requests(protocol: bytes) -> bool:
    """Whether a connection upgraded to `protocol` would carry HTTP requests past us: unseen by rules, with identity headers
    that nobody takes off.  Such an upgrade is never passed on."""
    name = protocol.lower()
    return name[:3] == b"h2c" or name[:5] == b"http/" or name[:4] == b"tls/"


def without_length(head: Head) -> Head:
    """The same head without content-length, where it may not have one (RFC 9110 8.6, 9.3.6); itself if it has none."""
    if head.content_length < 0:
        return head
    kept = head.copied([field for field in head.fields if field.kind != CONTENT_LENGTH])
    kept.content_length = -1
    return kept


def without_expectation(head: Head) -> Head:
    """The same request, waiting for no 100 (Continue): it has no content to wait with (RFC 9110 10.1.1)."""
    plain = head.copied(head.fields)
    plain.expect_continue = False
    return plain


def without_upgrade(head: Head) -> Head:
    """The same request, asking for no other protocol (RFC 9110 7.8: any hop may leave an Upgrade out)."""
    plain = head.copied(head.fields)
    plain.protocol = b""
    return plain


NOTHING_OF_ITS_OWN: Final[list[Field]] = []


class Head:
    """The start of a message, parsed and validated; shared, so never modified after the parser is done with it.

    Requests: method, scheme, authority, path.  `path` is origin-form (b"/a?b"), b"*" for OPTIONS, b"" for CONNECT.
    Responses: status (100..599), method is b"".
    reason          of a response over HTTP/1.x: its reason phrase where that is not the standard one, else b""
    version         10, 11 or 20: what the peer spoke; 0: bytes that nobody reads (wire/opaque.py)
    protocol        b"" or what the connection is to become: the Upgrade token (lower case) or RFC 8441's :protocol; while a
                    head is parsed, and of 426, the whole list
    fields          end-to-end fields in order, cookie crumbs joined (RFC 9113 8.2.3)
    mesh            mesh-* and l5d-* fields, kept apart
    content_length  -1 when not declared
    chunked         HTTP/1.1: the body is chunked
    close           HTTP/1.x: the sender closes after this message (RFC 9112 9.3)
    expect_continue the client waits for 100 (Continue) with its content
    trailers_ok     te: trailers was there
    grpc            content-type is application/grpc, or that with a suffix (+proto) or parameters; not application/grpc-web
    request_id      value of x-request-id, b"" if absent
    grpc_timeout    value of grpc-timeout, b"" if absent
    expected_ms     how long the client waits for the answer, by x-envoy-expected-rq-timeout-ms; 0: it does not say
    max_forwards    a max-forwards field is among the fields
    grpc_status     value of grpc-status in a head (trailers-only), b"" if absent
    dated           a date field is among the fields
    guarded         HTTP/2: a pseudo field came as a literal never to be indexed, and must leave so (RFC 7541 6.2.3)
    memo_h1         memo of the HTTP/1.1 serialiser
    route           memo of the router: the route this head matched last, and the tables it was matched in
    base            a request that this one repeats but for its path and the last of its fields, or None; shared by all that do
    own             those last fields, where there is a base: `fields` are the base's, then these
    """

    __slots__ = (
        "authority", "base", "chunked", "close", "connection", "content_length", "cookie", "dated", "expect_continue",
        "expected_ms", "fields", "grpc", "grpc_status", "grpc_timeout", "guarded", "host_seen", "max_forwards", "memo_h1",
        "mesh", "method", "own", "path", "protocol", "reason", "request_id", "route", "scheme", "status", "trailers_ok",
        "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.method = b""
        self.scheme = b"http"
        self.authority = b""
        self.path = b""
        self.status = 0
        self.reason = b""
        self.version = 11
        self.protocol = b""
        self.fields: list[Field] = []
        self.mesh: list[Field] = []
        self.content_length = -1
        self.chunked = False
        self.close = False
        self.expect_continue = False
        self.trailers_ok = False
        self.grpc = False
        self.request_id = b""
        self.grpc_timeout = b""
        self.expected_ms = 0
        self.max_forwards = False
        self.grpc_status = b""
        self.dated = False
        self.guarded = False
        # while parsing only
        self.host_seen = False
        self.connection: list[bytes] | None = None  # tokens named by Connection: these fields are hop-by-hop too
        self.cookie = -1  # index of the cookie in `fields`
        # memos of others, kept here because the head is what they are a function of
        self.memo_h1: bytes | None = None
        self.route: object = None
        self.base: Head | None = None
        self.own: list[Field] = NOTHING_OF_ITS_OWN

    def with_path(self, path: bytes) -> Head:
        """A head that is to repeat this one but for its path, and may get fields of its own (`add_field`, `settle`)."""
        head = Head()
        head.method = self.method
        head.scheme = self.scheme
        head.authority = self.authority
        head.path = path
        head.version = self.version
        head.fields = self.fields.copy()
        head.mesh = self.mesh
        head.content_length = self.content_length
        head.grpc = self.grpc
        head.request_id = self.request_id
        head.trailers_ok = self.trailers_ok
        head.cookie = self.cookie
        head.base = self
        if self.grpc_timeout:
            head.grpc_timeout = self.grpc_timeout
        if self.expected_ms:
            head.expected_ms = self.expected_ms
        if self.expect_continue:
            head.expect_continue = True
        if self.max_forwards:
            head.max_forwards = True
        return head

    def settle(self) -> None:
        """All fields are added.  What is not the base's is its own; where one was not simply appended, there is no base."""
        base = self.base
        if base is not None:
            if self.trailers_ok != base.trailers_ok or self.expect_continue != base.expect_continue:
                self.base = None
                if self.version != 20 and self.content_length <= 0:  # there is nothing it could wait with; see http1/head.py
                    self.expect_continue = False
            else:
                self.own = self.fields[len(base.fields) :]

    def field(self, name: bytes) -> bytes | None:
        """The first value of an end-to-end field, or None.  For tests and rare paths: a linear search."""
        for f in self.fields:
            if f.name == name:
                return f.value
        return None

    def copied(self, fields: list[Field]) -> Head:
        """A head to be changed, with these fields and without memos: one that was parsed is shared.  For rare paths."""
        copy = Head()
        copy.method = self.method
        copy.scheme = self.scheme
        copy.authority = self.authority
        copy.path = self.path
        copy.status = self.status
        copy.reason = self.reason
        copy.version = self.version
        copy.protocol = self.protocol
        copy.fields = fields
        copy.mesh = self.mesh
        copy.content_length = self.content_length
        copy.chunked = self.chunked
        copy.close = self.close
        copy.expect_continue = self.expect_continue
        copy.trailers_ok = self.trailers_ok
        copy.grpc = self.grpc
        copy.request_id = self.request_id
        copy.grpc_timeout = self.grpc_timeout
        copy.expected_ms = self.expected_ms
        copy.max_forwards = self.max_forwards
        copy.grpc_status = self.grpc_status
        copy.dated = self.dated
        copy.guarded = self.guarded
        return copy

    def __repr__(self) -> str:
        if self.status:
            return f"Head({self.status}, {self.fields})"
        return f"Head({self.method!r} {self.authority!r} {self.path!r}, {self.fields})"


def add_field(head: Head, field: Field) -> None:
    """File one regular field of a message that is being parsed.  Raises MalformedField on contradictions.

    What HTTP/2 forbids outright (connection, transfer-encoding, te other than trailers: RFC 9113 8.2.2) the HTTP/2
    engine refuses before it calls this.
    """
    kind = field.kind
    if not kind:  # PLAIN
        head.fields.append(field)
    elif kind == VOLATILE:
        head.fields.append(field)
        if field.name == b"date":
            head.dated = True
    elif kind == CONTENT_LENGTH:
        if head.content_length >= 0:
            if head.content_length != field.number:
                raise MalformedField("two different content-length fields")
            return  # the same number twice: forward it once (RFC 9110 8.6)
        head.content_length = field.number
        plain = b"%d" % field.number  # not a list, no leading zeros (someone reads 010 as octal)
        head.fields.append(field if field.value == plain else Field(b"content-length", plain))
    elif kind == HOST:
        if head.host_seen:
            raise MalformedField("two host fields")
        head.host_seen = True
        if not head.authority:  # absolute-form and :authority win over Host (RFC 9112 3.2.2, RFC 9113 8.3.1)
            head.authority = field.value
    elif kind == MESH:
        head.mesh = [*head.mesh, field]
    elif kind == COOKIE:
        if head.cookie >= 0 and head.version == 20:
            before = head.fields[head.cookie].value
            if field.value:  # one that is empty says nothing, and `; b=2` is no cookie-string (RFC 6265 4.2.1)
                head.fields[head.cookie] = Field(b"cookie", before + b"; " + field.value) if before else field
                head.base = None
        else:
            head.cookie = len(head.fields)
            head.fields.append(field)
    elif kind == REQUEST_ID:
        if not head.request_id and field.value:  # one message, one id: the first wins, and an empty one is none
            head.request_id = field.value
            head.fields.append(field)
    elif kind == CONTENT_TYPE:
        # application/grpc-web is ordinary HTTP: its trailers travel in the body
        if field.value.startswith(b"application/grpc") and field.value[16:17] in (b"", b"+", b";"):
            head.grpc = True
        head.fields.append(field)
    elif kind == GRPC_TIMEOUT:
        head.grpc_timeout = field.value
        head.fields.append(field)
    elif kind == GRPC_STATUS:
        head.grpc_status = field.value
        head.fields.append(field)
    elif kind == EXPECTED_TIMEOUT:
        # One message, one time: the first wins.  What says no time binds nobody, and does not go on, where somebody could read
        # it otherwise (Envoy reads 0 as for ever).
        if not head.expected_ms:
            head.expected_ms = parse_expected(field.value)
            if head.expected_ms:
                head.fields.append(field)
    elif kind == MAX_FORWARDS:
        head.max_forwards = True
        head.fields.append(field)
    elif kind == TE:
        for token in field.value.lower().split(b","):
            if token.strip(b" \t") == b"trailers":
                head.trailers_ok = True
    elif kind == EXPECT:
        if field.value.lower() == b"100-continue":
            head.expect_continue = True
        else:
            head.fields.append(field)
    elif kind == TRANSFER_ENCODING:
        if head.chunked:
            raise MalformedField("two transfer-encoding fields")
        if field.value.lower() != b"chunked":
            raise MalformedField("transfer-encoding is not exactly chunked")
        head.chunked = True
    elif kind == CONNECTION:
        if head.connection is None:
            head.connection = []
        for token in field.value.lower().split(b","):
            head.connection.append(token.strip(b" \t"))
    elif kind == UPGRADE:
        # Several lines are one list, in their order (RFC 9110 5.3).  One that repeats another adds nothing.
        value = field.value.lower()
        if value and value != head.protocol:
            head.protocol = head.protocol + b", " + value if head.protocol else value
    # HOP, ALIAS: dropped
