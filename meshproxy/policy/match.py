"""Which rule a request is for: the first match that fits, in the order the control plane gave.

    head --request_method, normal_path, query--> does path, method, every header, every parameter fit?  next, next, ...
         --> Match (and its rule)        the first
         --> NO_MATCH                    none: as if the Service had no routes
         --> UNSAFE                      a rule is on paths, and this path can be read in more than one way: refuse

Order is decided where the rules are known (control/resources/attach.py); here it is a list.  Linear in the number of matches,
and linear in the bytes of the request for each (policy/regex.py); the caller may remember what one head led to: it depends on
nothing else.  A Service without routes never gets here.
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.access import host_of, request_method
from meshproxy.policy.path import normal_path
from meshproxy.policy.regex import Regex
from meshproxy.wire.message import Head

# How a path or a value is compared; numbers as in mesh.proto.
EXACT: Final = 0
PREFIX: Final = 1
REGEX: Final = 2
REGEX_START: Final = 3

MAX_PARAMETERS: Final = 256  # of a query looked at; later ones are not there for a match


class Value:
    """A header, a query parameter (`name`) or a path, and what it must be.  Raises ValueError for a pattern that is none.

    PREFIX is of a path, without its final slash, and means whole segments: /a fits /a and /a/b, not /ab."""

    __slots__ = ("how", "name", "regex", "text", "under")

    def __init__(self, how: int, text: str, name: str = "") -> None:
        self.how = how
        self.name = name.encode()
        self.text = text.encode()
        self.under = self.text + b"/"
        self.regex: Regex | None = None
        if how in (REGEX, REGEX_START):
            self.regex = Regex(text, how == REGEX)
        elif how not in (EXACT, PREFIX):
            raise ValueError(f"way {how} of comparing is not known")

    def fits(self, value: bytes) -> bool:
        if self.how == EXACT:
            return value == self.text
        regex = self.regex
        if regex is not None:
            return regex.matches(value)
        return value == self.text or value.startswith(self.under)

    def __repr__(self) -> str:
        return f"Value({('=', 'under ', '~ ', '~ ^')[self.how]}{self.text.decode('utf-8', 'replace')})"


class Match:
    """One kind of request, and `route`, the number of the rule it leads to.

    methods  none: any     path  None: any     headers, query  all of them
    """

    __slots__ = ("headers", "methods", "path", "query", "route")

    def __init__(
        self,
        route: int,
        path: Value | None = None,
        methods: tuple[bytes, ...] = (),
        headers: tuple[Value, ...] = (),
        query: tuple[Value, ...] = (),
    ) -> None:
        self.route = route
        self.path = path
        self.methods = methods
        self.headers = headers
        self.query = query

    def misfit(self, head: Head, path: bytes, parameters: dict[bytes, bytes]) -> str:
        """The first thing that does not fit: "path", "method", "header <name>", "query <name>"; "" if all does.
        `path`: in normal form."""
        wanted = self.path
        if wanted is not None and not wanted.fits(path):
            return "path"
        if self.methods and request_method(head) not in self.methods:
            return "method"
        for header in self.headers:
            value = header_value(head, header.name)
            if value is None or not header.fits(value):
                return "header " + header.name.decode("ascii", "replace")
        for parameter in self.query:
            value = parameters.get(parameter.name)
            if value is None or not parameter.fits(value):
                return "query " + parameter.name.decode("utf-8", "replace")
        return ""


UNSAFE: Final = Match(-2)
NO_MATCH: Final = Match(-1)


class Matches:
    """The matches of one Service port, in order of precedence."""

    __slots__ = ("all", "on_paths", "on_query")

    def __init__(self, matches: list[Match]) -> None:
        self.all = matches
        self.on_paths = False
        self.on_query = False
        for match in matches:
            if match.path is not None:
                self.on_paths = True
            if match.query:
                self.on_query = True

    def find(self, head: Head) -> Match:
        """The first that fits; NO_MATCH; or UNSAFE."""
        path = head.path
        if self.on_paths:
            normal = normal_path(path)
            if normal is None:
                return UNSAFE
            path = normal
        parameters = parse_query(head.path) if self.on_query else NO_PARAMETERS
        for match in self.all:
            if not match.misfit(head, path, parameters):
                return match
        return NO_MATCH


NO_PARAMETERS: Final[dict[bytes, bytes]] = {}


def header_value(head: Head, name: bytes) -> bytes | None:
    """The value of a request's header; of several lines of it, joined by "," (RFC 9110 5.2); None if it is absent.
    `host` is the authority, lower case, without port and final dot."""
    found: bytes | None = None
    for field in head.fields:
        if field.name == name:
            found = field.value if found is None else found + b"," + field.value
    if found is None and name == b"host":
        return host_of(head.authority)
    return found


def parse_query(target: bytes) -> dict[bytes, bytes]:
    """The parameters of a path's query, percent-decoded, "+" for a space (WHATWG URL 5.1); of a name given twice the first
    value counts.  What is no percent-encoding is left as it is."""
    _, mark, query = target.partition(b"?")
    found: dict[bytes, bytes] = {}
    if not mark:
        return found
    for part in query.split(b"&", MAX_PARAMETERS)[:MAX_PARAMETERS]:
        if part:
            name, _, value = part.partition(b"=")
            found.setdefault(decoded(name), decoded(value))
    return found


_HEX: Final = b"0123456789abcdefABCDEF"


def decoded(text: bytes) -> bytes:
    """Percent-decoding as forms do it."""
    if b"+" in text:
        text = text.replace(b"+", b" ")
    if b"%" not in text:
        return text
    parts = text.split(b"%")
    out = [parts[0]]
    for part in parts[1:]:
        digits = part[:2]
        if len(digits) == 2 and not digits.translate(None, _HEX):
            out.append(bytes((int(digits, 16),)) + part[2:])
        else:
            out.append(b"%" + part)
    return b"".join(out)
