"""Requests that differ in little: what repeats is decoded and judged once (a memo; it may change speed, never outcome).

A client's header block, once its table has filled, looks like this (RFC 7541 6):

    82 86 be | 04 <length> /items/7?page=3 | c0 bf c2 ... | 00 <x-request-id> <traceparent> ...
    indexed  | :path, a literal            | indexed      | literals, or anything else
    `--------------------- the same in every request     `--- its own

The indexed bytes and the place of the path are the key of a Template, which holds the Head that they make (with the path it
was first seen with: every rule that concerns the other fields has been checked).  What a request costs then is its path,
its own fields, and one Head (with_path).  Encoders and serialisers recognise it by `Head.base`.

An indexed byte means what the dynamic table says, so all templates are dropped when the table changes.
Measured (h2c, paths that never repeat): 48 us a request without templates, 34 with them, interpreted.
"""

from __future__ import annotations

import re
from typing import Final

from meshproxy.wire.hpack.integers import HpackError, decode_integer
from meshproxy.wire.http2.heads import check_allowed, check_path, request_head
from meshproxy.wire.message import COOKIE, HOST, PATH, PSEUDO, REQUEST_ID, Field, Head, MalformedField, add_field

PATH_LITERAL: Final = 4  # 0000 0100: a literal without indexing, its name the fourth of the static table
INDEXED: Final = re.compile(rb"[\x80-\xfe]*")  # one-byte indexed fields: each byte is a field
TEMPLATES_MAX: Final = 32  # a connection; a client has as many as kinds of requests
TEMPLATE_BYTES_MAX: Final = 128  # of a key


class Template:
    """fields  of the block up to where requests differ, the path among them at `at`
    size    of these without the path, counted as SETTINGS_MAX_HEADER_LIST_SIZE does
    base    the head they make
    """

    def __init__(self, fields: list[Field], at: int, base: Head) -> None:
        self.fields = fields
        self.at = at
        self.size = sum([field.size for field in fields]) - fields[at].size
        self.base = base

    def head(self, path: bytes, own: list[Field]) -> Head:
        """The request with this path, and with these fields after the template's.  Raises MalformedField."""
        base = self.base
        head = base.with_path(path)
        if path[:1] != b"/" or path.translate(None, PATH):
            check_path(base.method, path)
        fields = head.fields
        for field in own:
            kind = field.kind
            if not kind:  # PLAIN
                fields.append(field)
            elif kind in (COOKIE, REQUEST_ID):
                add_field(head, field)
            elif kind in (HOST, PSEUDO):  # rare, and judged together with all the others
                first = self.fields
                at = self.at
                return request_head([*first[:at], Field(b":path", path), *first[at + 1 :], *own])
            else:
                check_allowed(field)
                add_field(head, field)
        head.settle()
        return head


class Templates:
    """Those of one connection.  `found` is the answer of the last split()."""

    def __init__(self) -> None:
        self.known: dict[bytes, Template] = {}
        self.path_at = -1  # of the block that split() looked at: its path's literal ...
        self.path_end = -1
        self.indexed_end = -1  # ... and where its own fields begin
        self.key = b""

    def split(self, block: bytes) -> Template | None:
        """Find the template of a block; None if it is not known, or not of that form (`key` is empty then)."""
        self.key = b""
        at = block.find(PATH_LITERAL)
        if at < 0 or at + 2 > len(block):
            return None
        end = at + 2
        length = block[at + 1] & 0x7F
        if length == 0x7F:
            try:
                length, end = decode_integer(block, end, 0x7F)
            except (IndexError, HpackError):
                return None  # whatever it is, the decoder says it
        end += length
        if end > len(block):
            return None
        found = INDEXED.match(block, end)
        assert found is not None  # it also matches nothing
        indexed_end = found.end()
        self.path_at = at
        self.path_end = end
        self.indexed_end = indexed_end
        self.key = key = block[: at + 1] + block[end:indexed_end]
        return self.known.get(key)

    def remember(self, block: bytes, fields: list[Field]) -> None:
        """The block that split() did not find has made a good request of these fields: keep what may repeat of it."""
        key = self.key
        at = self.path_at
        if not key or len(key) > TEMPLATE_BYTES_MAX or INDEXED.fullmatch(block, 0, at) is None:
            return  # the byte found was none that begins a field
        count = at + 1 + self.indexed_end - self.path_end
        first = fields[:count]
        try:
            base = request_head(first)
        except MalformedField:
            return  # what is still missing is among its own fields
        if base.protocol or not base.authority:
            return
        if len(self.known) >= TEMPLATES_MAX:
            self.known = {}
        self.known[key] = Template(first, at, base)
