"""Reads what one HTTP/1.1 connection carried, and asserts that there is one way only to read it.

audit(data)             letter by letter: a request is complete, or not there, or an assertion fails
Forgiving(data)         as llhttp reads it, a parser known for what it forgives
same_to_all(data)       both, and h11: the complete requests, the same to all three
"""

from __future__ import annotations

import re

import h11
import httptools

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")
CHUNK = re.compile(rb"[0-9a-fA-F]{1,16}")
HOPWISE = {
    *(b"keep-alive", b"proxy-connection", b"upgrade", b"http2-settings"),
    *(b"transfer_encoding", b"content_length"),
}


class Request:
    def __init__(self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known.lower() == name]

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.target!r}, {self.fields}, {self.body[:60]!r}, {self.trailers})"


def audit(data: bytes) -> list[Request]:
    """The complete requests in what one connection carried.  Asserts that there is one way only to read each of them."""
    requests = []
    while True:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return requests
        lines = head.split(b"\r\n")
        match = REQUEST_LINE.fullmatch(lines[0])
        assert match, f"request line {lines[0]!r}"
        fields = []
        for line in lines[1:]:
            field = FIELD.fullmatch(line)
            assert field, f"field line {line!r}"
            fields.append((field[1].lower(), field[2].strip(b" \t")))
        request = Request(match[1], match[2], fields)
        assert len(request.values(b"host")) == 1, fields
        lengths, codings = request.values(b"content-length"), request.values(b"transfer-encoding")
        assert len(lengths) + len(codings) <= 1, fields
        if request.values(b"te"):  # a hop may ask for trailers, and says that this is between the two (RFC 9110 10.1.4)
            assert (request.values(b"te"), request.values(b"connection")) == ([b"trailers"], [b"te"])
        assert not HOPWISE & {name for name, _ in fields}, fields
        if lengths:
            assert lengths[0].isdigit(), lengths
            size = int(lengths[0])
            if len(rest) < size:
                return requests
            request.body, rest = rest[:size], rest[size:]
        elif codings:
            assert codings == [b"chunked"], codings
            left = dechunk(request, rest)
            if left is None:
                return requests
            rest = left
        requests.append(request)
        data = rest


class Forgiving:
    """The complete requests in `data` as llhttp reads them, which is Node's parser; httptools is its Python face."""

    def __init__(self, data: bytes) -> None:
        self.requests: list[tuple[bytes, bytes, bytes]] = []
        self.target = b""
        self.body = b""
        self.parser = httptools.HttpRequestParser(self)
        self.unknown_method = False  # llhttp stops at a method it has not heard of
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # CONNECT: what follows is no HTTP
        except httptools.HttpParserInvalidMethodError:
            self.unknown_method = True

    def agrees(self, read: list[tuple[bytes, bytes, bytes]]) -> bool:
        return self.requests == (read[: len(self.requests)] if self.unknown_method else read)

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.requests.append((self.parser.get_method(), self.target, self.body))


def dechunk(request: Request, data: bytes) -> bytes | None:
    """What follows the chunked body at the start of `data`; None if it is not complete."""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        assert CHUNK.fullmatch(line), f"chunk line {line!r}"
        size = int(line, 16)
        if size == 0:
            break
        if len(data) < size + 2:
            return None
        request.body += data[:size]
        assert data[size : size + 2] == b"\r\n", data[size : size + 10]
        data = data[size + 2 :]
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return None
        if not line:
            return data
        field = FIELD.fullmatch(line)
        assert field, f"trailer line {line!r}"
        request.trailers.append((field[1].lower(), field[2]))


def strict(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """The complete requests in `data` as h11 reads them: (method, target, body).  Raises what h11 raises."""
    found = []
    peer = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    peer.receive_data(data)
    while True:
        event = peer.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            return found
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            found.append((head.method, head.target, body))
            peer.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            peer.send(h11.EndOfMessage())
            if peer.our_state is h11.MUST_CLOSE:
                return found
            peer.start_next_cycle()


def same_to_all(data: bytes) -> list[Request]:
    requests = audit(data)
    read = [(r.method, r.target, r.body) for r in requests]
    assert Forgiving(data).agrees(read)
    assert strict(data) == read
    return requests
