"""Requests that differ in little: the header lines that those of a connection begin with are judged once (a memo; it may
change speed, never outcome).

    GET /items/7?page=3 HTTP/1.1 | Host: a   User-Agent: b   Accept: */* | X-Request-Id: 4711   Cookie: ...
    its own                      | the same in every request             | its own

What a request costs then is its path, its own lines, and one Head (`Head.with_path`).  Encoders and serialisers recognise it by
`Head.base`: what the lines in common are written as they know too.  Anything unusual is left to `request_head`.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.http1.head import BadMessage, file_fields, request_head
from meshproxy.wire.message import PATH, Head, MalformedField

# All of the process: connections of one client software begin alike, and what encoders know of a base they know for all.
TEMPLATES: Final[dict[bytes, Template]] = {}
TEMPLATES_MAX: Final = 256
TEMPLATE_BYTES_MAX: Final = 1024
LINES_MIN: Final = 2  # fewer are looked up sooner than compared


class Template:
    """method  of its requests
    lines   the header lines they have in common, as found behind the request line: b"\\r\\nHost: a\\r\\nAccept: */*"
    count   of these lines
    base    the head they make, with the path "/"
    """

    def __init__(self, method: bytes, lines: bytes, count: int, base: Head) -> None:
        self.method = method
        self.lines = lines
        self.count = count
        self.base = base

    def head(self, data: bytes, lines_max: int, keep: bool) -> Head | None:
        """The head of a request that begins like the others; None if it does not, or for request_head() to judge."""
        at = data.find(b"\r\n")
        lines = self.lines
        if not data.startswith(lines, at):
            return None
        parts = data[:at].split(b" ")
        if len(parts) != 3:
            return None
        method, path, version = parts
        if method != self.method or version != b"HTTP/1.1" or path[:1] != b"/" or path.translate(None, PATH):
            return None
        head = self.base.with_path(path)
        at += len(lines)
        if at < len(data):
            if data[at : at + 2] != b"\r\n":
                return None  # the last of the lines goes on here
            own = data[at + 2 :].split(b"\r\n")
            if self.count + len(own) > lines_max:
                return None
            try:
                file_fields(head, own, keep)
            except MalformedField:
                return None
            if head.host_seen or head.connection is not None or head.chunked or head.protocol:
                return None  # these are judged together with all the others
            head.settle()
        return head


def template(head: Head, before: list[bytes], lines: list[bytes]) -> Template | None:
    """The template of this request and one `before` it, by their header lines; None if they have too little in common."""
    count = 0
    for line in lines:
        if count == len(before) or before[count] != line:
            break
        count += 1
    common = b"\r\n".join(lines[:count])
    if b"expect:" in common.lower():
        return None  # whether it counts is decided by the content, which another line may announce
    if count < LINES_MIN or len(common) > TEMPLATE_BYTES_MAX:
        return None
    key = head.method + b" " + common
    known = TEMPLATES.get(key)
    if known is not None:
        return known
    try:
        base = request_head([head.method + b" / HTTP/1.1", *lines[:count]], False)
    except (BadMessage, MalformedField):
        return None  # Host comes later, or it is no method for a path
    if base.chunked or (base.connection is not None and base.connection != [b"keep-alive"]):
        return None
    if len(TEMPLATES) >= TEMPLATES_MAX:
        TEMPLATES.clear()
    TEMPLATES[key] = made = Template(head.method, b"\r\n" + common, count, base)
    return made
