"""The app of the soak: `python app.py POD_IP`.  Answers every kind of traffic and counts, by port, what reached it.

    8080 http    /bytes/N: N bytes; POST: an echo; Upgrade: an echo of bytes      8083 bytes   an echo; "bye" at the end
    8081 h2      the same over HTTP/2                                             8084 cancel  /slow: begins to answer (HTTP/2)
    8082 grpc    an echo of messages                                              8085 leave   the same (HTTP/1.1)
    8079         {"8080": 123, ...}: the counts; no Service leads here

On our own engines, as cheap as can be: it shares its cores with the proxies under load.  That other people's clients and
servers get on with ours is proved elsewhere (tests/); here it is about numbers, counted where a head is complete.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from time import monotonic
from typing import Any, Final

from meshproxy.wire.engine import NO_FIELDS, Engine, Host, Sink, Stream
from meshproxy.wire.http1 import Http1Server
from meshproxy.wire.http2 import Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head

PORTS: Final = {"http": 8080, "h2": 8081, "grpc": 8082, "bytes": 8083, "cancel": 8084, "leave": 8085}
COUNTS_PORT: Final = 8079
PATTERN: Final = bytes(range(251)) * 4200  # 251 is prime: a piece that is out of place does not match
SLOW_BYTES: Final = 1000
OK: Final = [Field(b"grpc-status", b"0")]
GRPC: Final = [Field(b"content-type", b"application/grpc")]


class Answering(Sink):
    def __init__(self, stream: Stream, head: Head) -> None:
        super().__init__()
        self.stream = stream
        self.head = head
        self.echoes = False

    def begin(self, end: bool) -> None:
        head, answer = self.head, Head()
        answer.version = head.version
        answer.status = 200
        if head.protocol:
            answer.status = 101 if head.version < 20 else 200
            answer.protocol = head.protocol
            self.start_echo(answer)
        elif head.grpc:
            answer.fields = GRPC
            self.start_echo(answer)
        elif head.path.startswith(b"/slow"):
            self.stream.send_head(answer, NO_FIELDS, False)
            self.stream.send_data(PATTERN[:SLOW_BYTES], False)  # and never the rest
        elif head.method == b"POST":
            if head.content_length >= 0:
                answer.content_length = head.content_length
                answer.fields = [Field(b"content-length", b"%d" % head.content_length)]
            self.start_echo(answer)
        else:
            size = int(head.path.rpartition(b"/")[2] or b"0")
            answer.content_length = size
            answer.fields = [Field(b"content-length", b"%d" % size)]
            self.stream.send_head(answer, NO_FIELDS, size == 0)
            if size:
                self.stream.send_data(PATTERN[:size], True)
        if end and self.echoes:
            self.request_data(b"", True)

    def start_echo(self, answer: Head) -> None:
        self.echoes = True
        self.stream.send_head(answer, NO_FIELDS, False)

    def request_data(self, data: bytes, end: bool) -> None:
        if not self.echoes:
            return
        if end and self.head.grpc:
            if data:
                self.stream.send_data(data, False)
            self.stream.send_trailers(OK)
        elif data or end:
            self.stream.send_data(data, end)

    def request_trailers(self, fields: list[Field]) -> None:
        self.request_data(b"", True)

    def response_blocked(self) -> None:
        self.stream.pause()

    def response_unblocked(self) -> None:
        self.stream.resume()


class Serving(asyncio.Protocol):
    """A connection with an engine."""

    def __init__(self, counts: dict[str, int], port: int, h2: bool) -> None:
        self.counts = counts
        self.port = str(port)
        self.h2 = h2

    def connection_made(self, transport: Any) -> None:
        limits = Limits()
        limits.streams = 1000
        limits.resets_burst = limits.control_burst = 10_000_000  # its own sidecar may cancel as much as it likes
        self.transport = transport
        host = Side(self)
        self.engine: Engine = Http2Server(host, limits) if self.h2 else Http1Server(host, limits)
        self.engine.start()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.engine.receive(data, monotonic())
        self.flush()

    def eof_received(self) -> bool:
        self.engine.receive_eof()
        self.flush()
        return not self.engine.closing  # half-closed: it may still be answered

    def flush(self) -> None:
        engine = self.engine
        out = engine.out
        if out:
            engine.out = []
            self.transport.write(b"".join(out))
        if engine.half_close:
            engine.half_close = False
            self.transport.write_eof()
        if engine.closing:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.engine.lost()

    def pause_writing(self) -> None:
        self.engine.socket_blocked()

    def resume_writing(self) -> None:
        self.engine.socket_unblocked()
        self.flush()


class Side(Host):
    def __init__(self, connection: Serving) -> None:
        super().__init__()
        self.connection = connection

    def wake(self) -> None:
        """flush() follows every call into the engine."""

    def hold_reading(self) -> None:
        self.connection.transport.pause_reading()

    def resume_reading(self) -> None:
        self.connection.transport.resume_reading()

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        counts, port = self.connection.counts, self.connection.port
        counts[port] = counts.get(port, 0) + 1
        answering = stream.sink = Answering(stream, head)
        answering.begin(end)

    def on_violation(self, reason: str) -> None:
        self.connection.counts["violations"] = self.connection.counts.get("violations", 0) + 1
        print(f"port {self.connection.port}: the sidecar broke the protocol: {reason}", file=sys.stderr, flush=True)


class Echo(asyncio.Protocol):
    """Bytes back, and "bye" after the other side has ended."""

    def __init__(self, counts: dict[str, int], port: int) -> None:
        self.counts = counts
        self.port = str(port)
        self.seen = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.seen:  # not counted: a probe that connects and leaves
            self.seen = True
            self.counts[self.port] = self.counts.get(self.port, 0) + 1
        self.transport.write(data)

    def eof_received(self) -> bool:
        if self.seen:
            self.transport.write(b"bye")
        return False  # close, after what is written


class Counts(asyncio.Protocol):
    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        body = json.dumps(self.counts).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self.transport.close()


async def main(host: str) -> None:
    counts: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    for name, port in PORTS.items():
        if name == "bytes":
            await loop.create_server(lambda port=port: Echo(counts, port), host, port)  # type: ignore[misc]
        else:
            h2 = name in ("h2", "grpc", "cancel")
            await loop.create_server(lambda port=port, h2=h2: Serving(counts, port, h2), host, port)  # type: ignore[misc]
    await loop.create_server(lambda: Counts(counts), host, COUNTS_PORT)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1]))
