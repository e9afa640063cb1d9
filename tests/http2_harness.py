"""What the HTTP/2 tests need: a host and a sink that write down what happens, a wire between two engines, raw frames."""

from __future__ import annotations

from collections.abc import Callable

import hpack

from meshproxy.wire.engine import Engine, Host, Sink, Stream
from meshproxy.wire.message import Field, Head, add_field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 1, 1, 4, 8, 32

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"svc.test")]
POST = [(b":method", b"POST"), *GET[1:]]


class Log(Sink):
    """Writes events down as tuples; joins body bytes.  Heads are written as (status, fields)."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.body = b""
        self.ended = False
        self.reset: tuple[int, bool] | None = None
        self.head: Head | None = None
        self.interim: list[Head] = []
        self.trailers: list[tuple[bytes, bytes]] | None = None
        self.trailer_fields: list[Field] = []
        self.chunks: list[int] = []

    def note(self, *event: object) -> None:
        assert not self.ended or event[0] in UNBLOCKING, f"{event} after the end"
        assert self.reset is None, f"{event} after the reset"
        self.events.append(event)

    def data(self, data: bytes, end: bool) -> None:
        self.note("data", data, end)
        self.body += data
        self.chunks.append(len(data))
        self.ended = end

    def request_data(self, data: bytes, end: bool) -> None:
        self.data(data, end)

    def request_trailers(self, fields: list[Field]) -> None:
        self.note("trailers", pairs(fields))
        self.trailers = pairs(fields)
        self.trailer_fields = fields
        self.ended = True

    def request_reset(self, code: int) -> None:
        self.note_reset(code, False)

    def note_reset(self, code: int, unprocessed: bool) -> None:
        assert self.reset is None
        self.events.append(("reset", code, unprocessed))
        self.reset = (code, unprocessed)

    def request_blocked(self) -> None:
        self.note("blocked")

    def request_unblocked(self) -> None:
        self.note("unblocked")

    def response_interim(self, head: Head) -> None:
        self.note("interim", head.status)
        self.interim.append(head)

    def response_head(self, head: Head, end: bool) -> None:
        self.note("head", head.status, end)
        assert self.head is None
        self.head = head
        self.ended = end

    def response_data(self, data: bytes, end: bool) -> None:
        self.data(data, end)

    def response_trailers(self, fields: list[Field]) -> None:
        self.request_trailers(fields)

    def response_reset(self, code: int, unprocessed: bool) -> None:
        self.note_reset(code, unprocessed)

    def response_blocked(self) -> None:
        self.note("blocked")

    def response_unblocked(self) -> None:
        self.note("unblocked")

    def names(self) -> list[object]:
        return [event[0] for event in self.events]


UNBLOCKING = ("blocked", "unblocked")


class Seen:
    """One request as the server side saw it."""

    def __init__(self, stream: Stream, head: Head, end: bool) -> None:
        self.stream = stream
        self.head = head
        self.log = Log()
        self.log.ended = end


class Recorder(Host):
    """A host that answers nothing by itself, unless `handler` is set."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.violations: list[str] = []
        self.ready = 0
        self.goaways: list[int] = []
        self.wakes = 0
        self.held = False
        self.waiting = 0  # bytes that on_held told of
        self.capacities = 0
        self.handler: Callable[[Seen], None] | None = None

    def wake(self) -> None:
        self.wakes += 1

    def hold_reading(self) -> None:
        self.held = True

    def resume_reading(self) -> None:
        self.held = False

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        seen = Seen(stream, head, end)
        stream.sink = seen.log
        self.requests.append(seen)
        if self.handler is not None:
            self.handler(seen)

    def on_ready(self) -> None:
        self.ready += 1

    def on_goaway(self, code: int) -> None:
        self.goaways.append(code)

    def on_capacity(self) -> None:
        self.capacities += 1

    def on_held(self, change: int) -> None:
        assert change != 0, "nothing changed"
        self.waiting += change
        assert self.waiting >= 0

    def on_violation(self, reason: str) -> None:
        self.violations.append(reason)


def take(engine: Engine) -> bytes:
    """What the host would hand to the socket."""
    out = engine.out
    engine.out = []
    return b"".join(out)


def pump(client: Engine, server: Engine, cut: Callable[[bytes], list[bytes]] | None = None, now: float = 0.0) -> None:
    """Carry bytes both ways until both sides are silent."""
    for _ in range(10_000):
        up, down = take(client), take(server)
        if not up and not down:
            return
        for data, engine in ((up, server), (down, client)):
            for piece in cut(data) if cut else [data]:
                if piece:
                    engine.receive(piece, now)
    raise AssertionError("the engines never fall silent")


def request(
    method: bytes = b"GET",
    path: bytes = b"/",
    authority: bytes = b"svc.test",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    protocol: bytes = b"",
) -> Head:
    head = Head()
    head.version = 20
    head.method = method
    head.scheme = b"http"
    head.path = path
    head.authority = authority
    head.protocol = protocol
    for name, value in fields:
        add_field(head, Field(name, value))
    return head


def response(status: int = 200, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Head:
    head = Head()
    head.version = 20
    head.status = status
    for name, value in fields:
        add_field(head, Field(name, value))
    return head


def pairs(fields: list[Field]) -> list[tuple[bytes, bytes]]:
    return [(field.name, field.value) for field in fields]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Split what an engine sent: (type, flags, stream, payload).  A client's preface is skipped."""
    if data.startswith(PREFACE):
        data = data[len(PREFACE) :]
    result = []
    while data:
        length = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + length, "a frame is cut short"
        result.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return result


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in values))


def literal(name: bytes, value: bytes) -> bytes:
    """A literal field without indexing, no Huffman, whatever the bytes are."""
    return b"\x00" + number(len(name), 7) + name + number(len(value), 7) + value


def number(value: int, bits: int, first: int = 0) -> bytes:
    mask = (1 << bits) - 1
    if value < mask:
        return bytes([first | value])
    out = [first | mask]
    value -= mask
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


class Raw:
    """A peer made of raw frames: says what it likes to an engine and reads the answers, with the `hpack` package."""

    def __init__(self, engine: Engine, *values: tuple[int, int]) -> None:
        self.engine = engine
        self.now = 0.0
        self.decoder = hpack.Decoder()
        self.got: list[tuple[int, int, int, bytes]] = []
        self.bytes_sent = 0
        engine.start()
        self.send((PREFACE if engine.server else b"") + settings(*values))

    def send(self, *data: bytes) -> None:
        for piece in data:
            self.bytes_sent += len(piece)
            self.engine.receive(piece, self.now)
        self.got += frames(take(self.engine))

    def headers(self, stream_id: int, fields: list[tuple[bytes, bytes]] = GET, end: bool = True) -> None:
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block(fields)))

    def data(self, stream_id: int, data: bytes, end: bool = False) -> None:
        self.send(frame(DATA, END_STREAM if end else 0, stream_id, data))

    def read(self) -> list[tuple[int, int, int, bytes]]:
        """Frames since the last read."""
        self.got += frames(take(self.engine))
        got, self.got = self.got, []
        return got

    def resets(self) -> dict[int, int]:
        return {sid: int.from_bytes(payload, "big") for kind, _, sid, payload in self.read() if kind == RST_STREAM}

    def goaway(self) -> int | None:
        """The code of the GOAWAY sent since the last read, None if there was none."""
        for kind, _, _, payload in self.read():
            if kind == GOAWAY:
                return int.from_bytes(payload[4:8], "big")
        return None

    def settle(self) -> None:
        """Acknowledge our settings and forget what was said so far."""
        self.send(frame(SETTINGS, ACK, 0))
        self.read()
