"""The bench's gRPC server: echoes messages, unary or streamed.  `python -m benchmarks.grpc_backend HOST:PORT`

    request data --> the same bytes as response data, at once;   end of the request --> trailers with grpc-status 0

A message's bytes are its own frame, so an echo of bytes is an echo of messages, however they are cut.  On our own engine:
a grpcio server would cost several times what the proxies cost that are to be measured.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from time import monotonic
from typing import Any, Final

from meshproxy.wire.engine import NO_FIELDS, Host, Sink, Stream
from meshproxy.wire.http2 import Http2Server
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head

OK: Final = [Field(b"grpc-status", b"0")]


def _head() -> Head:
    head = Head()
    head.version = 20
    head.status = 200
    head.fields = [Field(b"content-type", b"application/grpc")]
    return head


HEAD: Final = _head()


class Echo(Sink):
    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream
        self.begun = False

    def request_data(self, data: bytes, end: bool) -> None:
        if not self.begun:
            self.begun = True
            self.stream.send_head(HEAD, NO_FIELDS, False)
        if data:
            self.stream.send_data(data, False)
        if end:
            self.stream.send_trailers(OK)

    def request_trailers(self, fields: list[Field]) -> None:
        self.request_data(b"", True)

    def response_blocked(self) -> None:
        self.stream.pause()

    def response_unblocked(self) -> None:
        self.stream.resume()


class Serving(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        limits = Limits()
        limits.streams = 1000
        limits.stream_window = limits.stream_window_max
        limits.resets_burst = limits.control_burst = 1_000_000  # no stranger comes here
        self.transport = transport
        self.engine = Http2Server(Side(), limits)
        self.engine.start()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.engine.receive(data, monotonic())
        self.flush()
        if self.engine.closing:
            self.transport.close()

    def flush(self) -> None:
        out = self.engine.out
        if out:
            self.engine.out = []
            self.transport.write(b"".join(out))

    def connection_lost(self, error: Exception | None) -> None:
        self.engine.lost()

    def pause_writing(self) -> None:
        self.engine.socket_blocked()

    def resume_writing(self) -> None:
        self.engine.socket_unblocked()
        self.flush()


class Side(Host):
    def wake(self) -> None: ...

    def hold_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        stream.sink = Echo(stream)
        if end:
            stream.sink.request_data(b"", True)


async def main(address: str) -> None:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Serving, host, int(port), backlog=1024)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1]))
