"""Finds the heads in the input of a connection, and parses no more of them than is new.

    input --cut--> b"GET / HTTP/1.1\\r\\nHost: a" --+--- memo of whole heads ---+--> Head
                                                +--- template (requests) ----+
                                                +--- request_head, ... ------+   remembers: lines, names; learns a template

Of what is new one head in 16, drawn by lot, is kept with its lines (Caches.draw).
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.http1.head import BadMessage, request_head, response_head
from meshproxy.wire.http1.templates import Template, template
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Head, MalformedField

# Memo bounds.  Entries x bytes is what an ill-meaning peer can make us hold: 1 MiB.
MEMO_HEADS: Final = 512
MEMO_HEAD_BYTES: Final = 2048
MEMO_HEAD_FIELDS: Final = 64

REQUEST_MEMO: Final[dict[bytes, Head]] = {}
RESPONSE_MEMO: Final[dict[bytes, Head]] = {}


class HeadReader:
    """Finds where a head ends, in input cut anywhere, and keeps it within bounds.  One per connection."""

    def __init__(self, limits: Limits, request: bool) -> None:
        self.request = request
        self.line_bytes = limits.request_line_bytes
        self.head_bytes = limits.head_bytes
        self.head_fields = limits.head_fields
        self.short = min(self.line_bytes, self.head_bytes)  # of such a head there is nothing to measure
        self.scanned = 0  # bytes of the incomplete head already searched
        self.template: Template | None = None
        self.misses = 0  # requests parsed without it
        self.lines: list[bytes] | None = None  # of the last of them, if the next one is to be compared with it
        # A memo may change speed, never outcome: with limits below its bounds it would let through what they refuse.
        self.memo = (
            limits.request_line_bytes >= MEMO_HEAD_BYTES
            and limits.head_bytes >= MEMO_HEAD_BYTES
            and limits.head_fields >= MEMO_HEAD_FIELDS
        )

    def cut(self, data: bytes) -> int:
        """The length of the head that `data` begins with, without its final CRLF CRLF; -1 if it is not all there.

        Raises BadMessage when it is too long, or (so that the peer gets an answer and not a timeout) when a line of the
        incomplete head ends with a bare LF.
        """
        scanned = self.scanned
        end = data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0)
        if 0 <= end <= self.short:
            self.scanned = 0
            return end
        size = end if end >= 0 else len(data)
        if size > self.line_bytes:
            line = data.find(b"\r\n", 0, self.line_bytes + 2)
            if line < 0 or line > self.line_bytes:
                if self.request:
                    raise BadMessage(414, "h1_uri_too_long", f"the request line is longer than {self.line_bytes} bytes")
                raise BadMessage(502, "h1_head_too_large", f"the status line is longer than {self.line_bytes} bytes")
            if size > self.head_bytes:
                raise BadMessage(431, "h1_head_too_large", f"the head is longer than {self.head_bytes} bytes")
        if end >= 0:
            self.scanned = 0
            return end
        if data.count(b"\n", scanned) != data.count(b"\r\n", scanned - 1 if scanned else 0):
            raise BadMessage(400, "h1_line_end", "a line of the head ends with LF instead of CR LF")
        self.scanned = size
        return -1

    def parse(self, data: bytes) -> Head:
        """`data` is what `cut` found.  Raises BadMessage."""
        memo = REQUEST_MEMO if self.request else RESPONSE_MEMO
        keep = CACHES.enabled
        if not keep:
            return self.parse_new(data, False)
        if self.memo:
            known = memo.get(data)
            if known is not None:
                return known
        keep = CACHES.draw()
        template = self.template
        head = None if template is None else template.head(data, self.head_fields, keep)
        if head is None:
            head = self.parse_new(data, keep)
        if keep and self.memo and len(data) <= MEMO_HEAD_BYTES and data.count(b"\r\n") <= MEMO_HEAD_FIELDS:
            if len(memo) >= MEMO_HEADS:
                memo.clear()
            memo[data] = head
        return head

    def parse_new(self, data: bytes, keep: bool) -> Head:
        lines = data.split(b"\r\n")
        if len(lines) - 1 > self.head_fields:
            raise BadMessage(431, "h1_too_many_fields", f"the head has more than {self.head_fields} fields")
        try:
            if not self.request:
                return response_head(lines, keep)
            head = request_head(lines, keep)
        except MalformedField as error:
            raise BadMessage(400, "h1_field", str(error)) from None
        if CACHES.enabled and len(data) <= MEMO_HEAD_BYTES:
            self.learn(head, lines)
        return head

    def learn(self, head: Head, lines: list[bytes]) -> None:
        """Look for a template in two misses on end: the first two, then the 3rd and 4th, the 7th and 8th … of the connection,
        so that what has no template costs nothing in the long run."""
        misses = self.misses = self.misses + 1
        before = self.lines
        if before is not None:
            self.template = template(head, before, lines) or self.template
        self.lines = lines if misses & (misses + 1) == 0 else None
