"""Plays for the HTTP/1.1 engines: feeding in pieces, an answering host, and a proxy of two engines without sockets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recorder import Recorder, RecordingSink, Request, response

from meshproxy.wire.engine import Sink, Stream
from meshproxy.wire.http1 import Http1Client, Http1Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def halves(data: bytes) -> Iterator[list[bytes]]:
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


class Answering(Recorder):
    """A server host that answers every request as soon as it is complete: 200, the request's path and body as the body."""

    def __init__(self) -> None:
        super().__init__(self.answer)
        self.answered = 0

    def answer(self, request: Request) -> None:
        if request.complete and not request.sink.named("answered"):
            request.sink.events.append(("answered",))
            body = b"echo " + request.head.path + b" " + request.sink.body
            request.stream.send_head(response(200, (b"Content-Length", b"%d" % len(body))), [], False)
            request.stream.send_data(body, True)
            self.answered += 1

    def feed(self, pieces: Iterable[bytes]) -> bytes:
        """Feeds the pieces as a socket would (not past `closing`), answering on the way.  Returns what was sent."""
        assert self.engine is not None
        for piece in pieces:
            if self.engine.closing:
                break
            self.engine.receive(piece, 0.0)
            before = -1
            while before != self.answered:  # answering may bring the next pipelined request
                before = self.answered
                for request in self.requests:
                    self.answer(request)
        return self.take()

    @property
    def complete(self) -> list[Request]:
        return [request for request in self.requests if request.complete]


def server(limits: Limits | None = None) -> tuple[Http1Server, Recorder]:
    host = Recorder()
    engine = Http1Server(host, limits or Limits())
    host.attach(engine)
    return engine, host


def answering(limits: Limits | None = None) -> tuple[Http1Server, Answering]:
    host = Answering()
    engine = Http1Server(host, limits or Limits())
    host.attach(engine)
    return engine, host


def client(limits: Limits | None = None) -> tuple[Http1Client, Recorder]:
    host = Recorder()
    engine = Http1Client(host, limits or Limits())
    host.attach(engine)
    return engine, host


def exchange(engine: Http1Client) -> tuple[Stream, RecordingSink]:
    """A new stream with a recording sink."""
    stream = engine.open()
    sink = RecordingSink()
    stream.sink = sink
    return stream, sink


def split_head(data: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """The first message in `data`: start line, fields by lower-case name (repeated ones joined), the rest."""
    head, _, rest = data.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        value = value.strip()
        fields[name] = fields[name] + b", " + value if name in fields else value
    return start, fields, rest


class Relay(Sink):
    """An exchange that passes everything on: what a proxy does, without policy."""

    def __init__(self, down: Stream, up: Stream) -> None:
        self.down = down
        self.up = up

    def request_data(self, data: bytes, end: bool) -> None:
        self.up.send_data(data, end)

    def request_trailers(self, fields: list[Field]) -> None:
        self.up.send_trailers(fields)

    def request_reset(self, code: int) -> None:
        self.up.reset(code)

    def request_blocked(self) -> None:
        self.down.pause()

    def request_unblocked(self) -> None:
        self.down.resume()

    def response_interim(self, head: Head) -> None:
        self.down.send_interim(head)

    def response_head(self, head: Head, end: bool) -> None:
        self.down.send_head(head, [], end)

    def response_data(self, data: bytes, end: bool) -> None:
        self.down.send_data(data, end)

    def response_trailers(self, fields: list[Field]) -> None:
        self.down.send_trailers(fields)

    def response_reset(self, code: int, unprocessed: bool) -> None:
        self.down.reset(code)

    def response_blocked(self) -> None:
        self.up.pause()

    def response_unblocked(self) -> None:
        self.up.resume()


class Proxy:
    """client bytes <-> Http1Server <-> Relay <-> Http1Client <-> server bytes.  The upstream one is replaced when closed."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.down_host = Recorder(self.forward)
        self.down = Http1Server(self.down_host, self.limits)
        self.down_host.attach(self.down)
        self.connect()

    def connect(self) -> None:
        self.up_host = Recorder()
        self.up = Http1Client(self.up_host, self.limits)
        self.up_host.attach(self.up)

    def forward(self, request: Request) -> None:
        if self.up.capacity() == 0:
            self.connect()
        up = self.up.open()
        relay = Relay(request.stream, up)
        request.stream.sink = relay
        up.sink = relay
        up.send_head(request.head, [], request.end)

    def from_client(self, data: bytes) -> bytes:
        """Returns what goes to the server because of it."""
        self.down.receive(data, 0.0)
        return self.up_host.take()

    def from_server(self, data: bytes) -> bytes:
        """Returns what goes to the client because of it."""
        self.up.receive(data, 0.0)
        return self.down_host.take()
