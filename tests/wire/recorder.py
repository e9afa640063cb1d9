"""A host and a sink that write down what an engine tells them: the other half of every sans-IO test.

    engine = Http1Server(host := Recorder(), Limits())
    host.attach(engine)                       # start() is called
    engine.receive(b"GET / ...", 0.0)
    host.requests[0].head, .end, .stream, .sink.events
    host.take()                               # what went to the socket, as one bytes; empties `out` as a real host does

Sink events are tuples whose first item is the method's name: ("request_data", b"abc", True), ("response_head", head, False),
("response_trailers", [(name, value), ...]), ("response_reset", code, unprocessed), ("request_blocked",) …
Host events likewise, in `host.events`: ("hold_reading",), ("on_violation", "label"), ("on_ready",) …
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshproxy.wire.engine import Engine, Host, Sink, Stream
from meshproxy.wire.message import Field, Head

Event = tuple[Any, ...]


def pairs(fields: list[Field]) -> list[tuple[bytes, bytes]]:
    return [(f.name, f.value) for f in fields]


class RecordingSink(Sink):
    """Collects events in order.  `body`, `ended` and friends answer the usual questions about them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def request_data(self, data: bytes, end: bool) -> None:
        self.events.append(("request_data", data, end))

    def request_trailers(self, fields: list[Field]) -> None:
        self.events.append(("request_trailers", pairs(fields)))

    def request_reset(self, code: int) -> None:
        self.events.append(("request_reset", code))

    def request_blocked(self) -> None:
        self.events.append(("request_blocked",))

    def request_unblocked(self) -> None:
        self.events.append(("request_unblocked",))

    def response_interim(self, head: Head) -> None:
        self.events.append(("response_interim", head))

    def response_head(self, head: Head, end: bool) -> None:
        self.events.append(("response_head", head, end))

    def response_data(self, data: bytes, end: bool) -> None:
        self.events.append(("response_data", data, end))

    def response_trailers(self, fields: list[Field]) -> None:
        self.events.append(("response_trailers", pairs(fields)))

    def response_reset(self, code: int, unprocessed: bool) -> None:
        self.events.append(("response_reset", code, unprocessed))

    def response_blocked(self) -> None:
        self.events.append(("response_blocked",))

    def response_unblocked(self) -> None:
        self.events.append(("response_unblocked",))

    # -- questions

    def names(self) -> list[str]:
        return [event[0] for event in self.events]

    def named(self, name: str) -> list[Event]:
        return [event for event in self.events if event[0] == name]

    @property
    def body(self) -> bytes:
        """All bytes of the message this sink received (requests and responses: whichever the engine reports)."""
        return b"".join(event[1] for event in self.events if event[0] in ("request_data", "response_data"))

    @property
    def ended(self) -> bool:
        """The message ended cleanly: by an end flag or by trailers."""
        return any(
            event[0] in ("request_trailers", "response_trailers")
            or (event[0] in ("request_data", "response_data", "response_head") and event[2])
            for event in self.events
        )

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        for event in self.events:
            if event[0] in ("request_trailers", "response_trailers"):
                fields: list[tuple[bytes, bytes]] = event[1]
                return fields
        return []

    @property
    def head(self) -> Head | None:
        """The final response head, if it came."""
        for event in self.events:
            if event[0] == "response_head":
                head: Head = event[1]
                return head
        return None


class Request:
    """A request the server-role engine reported."""

    def __init__(self, stream: Stream, head: Head, end: bool, sink: RecordingSink) -> None:
        self.stream = stream
        self.head = head
        self.end = end
        self.sink = sink

    @property
    def complete(self) -> bool:
        return self.end or self.sink.ended


class Recorder(Host):
    """`on_request_do(request)`, if given, runs inside on_request: the way a proxy answers at once."""

    def __init__(self, on_request_do: Callable[[Request], None] | None = None) -> None:
        self.requests: list[Request] = []
        self.events: list[Event] = []
        self.wakes = 0
        self.holding = False
        self.waiting = 0  # bytes that on_held told of
        self.engine: Engine | None = None
        self.on_request_do = on_request_do

    def attach(self, engine: Engine) -> None:
        self.engine = engine
        engine.start()

    def take(self) -> bytes:
        """What a real host would write now.  It takes the list and leaves a new one."""
        assert self.engine is not None
        taken, self.engine.out = self.engine.out, []
        return b"".join(taken)

    def wake(self) -> None:
        self.wakes += 1

    def hold_reading(self) -> None:
        assert not self.holding, "hold_reading twice without resume_reading"
        self.holding = True
        self.events.append(("hold_reading",))

    def resume_reading(self) -> None:
        assert self.holding, "resume_reading without hold_reading"
        self.holding = False
        self.events.append(("resume_reading",))

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        stream.sink = sink = RecordingSink()
        request = Request(stream, head, end, sink)
        self.requests.append(request)
        if self.on_request_do is not None:
            self.on_request_do(request)

    def on_ready(self) -> None:
        self.events.append(("on_ready",))

    def on_capacity(self) -> None:
        self.events.append(("on_capacity",))

    def on_goaway(self, code: int) -> None:
        self.events.append(("on_goaway", code))

    def on_held(self, change: int) -> None:
        assert change != 0, "nothing changed"
        self.waiting += change
        assert self.waiting >= 0

    def on_violation(self, reason: str) -> None:
        self.events.append(("on_violation", reason))

    @property
    def violations(self) -> list[str]:
        return [event[1] for event in self.events if event[0] == "on_violation"]


def response(status: int = 200, *fields: tuple[bytes, bytes], version: int = 11) -> Head:
    """A response head as the proxy would hand it to a server-role stream."""
    from meshproxy.wire.message import add_field

    head = Head()
    head.status = status
    head.version = version
    for name, value in fields:
        add_field(head, Field(name.lower(), value, name))
    return head


def request(
    method: bytes = b"GET", path: bytes = b"/", authority: bytes = b"svc.test", *fields: tuple[bytes, bytes], version: int = 11
) -> Head:
    """A request head as the proxy would hand it to a client-role stream."""
    from meshproxy.wire.message import add_field

    head = Head()
    head.method = method
    head.path = path
    head.authority = authority
    head.version = version
    for name, value in fields:
        add_field(head, Field(name.lower(), value, name))
    return head
