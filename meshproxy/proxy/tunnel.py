"""A tunnel that looks like a socket: the stream of a CONNECT carries a connection of its own.

    client --CONNECT prices.shop:80--> outer engine --Stream--> StreamTransport --> Accepted (sniffs again)

An app that knows a proxy by `http_proxy`/`grpc_proxy` opens its HTTP/2 (gRPC) connections this way.  What is inside is
treated exactly as a redirected connection to that name would be: detection, routing, balancing a request at a time.
"""

from __future__ import annotations

from typing import Any

from meshproxy.proxy.server import Accepted
from meshproxy.wire.engine import CANCEL, NO_ERROR, NULL_SINK, Sink, Stream
from meshproxy.wire.message import Field


class TunnelSink(Sink):
    """What the outer stream tells, passed to the inner connection as a socket would."""

    def __init__(self, inner: Accepted, transport: StreamTransport) -> None:
        self.inner = inner
        self.transport = transport

    def request_data(self, data: bytes, end: bool) -> None:
        if data:
            self.inner.data_received(data)
        if end and not self.inner.eof_received():
            self.transport.close()

    def request_trailers(self, fields: list[Field]) -> None:
        self.request_data(b"", True)  # a tunnel has no trailers (RFC 9113 8.5); the end is the end

    def request_reset(self, code: int) -> None:
        self.transport.lost()

    def response_blocked(self) -> None:
        self.inner.pause_writing()

    def response_unblocked(self) -> None:
        self.inner.resume_writing()


class StreamTransport:
    """The part of asyncio's transport interface that Carrier uses, over a stream.

    OPEN --close()--> CLOSED      as with a socket, what was written still arrives
         --abort()-->             and here it does not
         --reset by the client-->
    """

    def __init__(self, stream: Stream, peer: str, loop: Any) -> None:
        """`peer` is "address:port" of the outer connection's client."""
        self.stream = stream
        self.peer = peer
        self.loop = loop
        self.inner: Accepted | None = None
        self.closed = False

    def carry(self, inner: Accepted) -> None:
        """Begin: events of the stream go to `inner` from now on."""
        self.inner = inner
        inner.nested = True
        self.stream.sink = TunnelSink(inner, self)
        inner.connection_made(self)

    def get_extra_info(self, name: str) -> Any:
        if name != "peername" or not self.peer:
            return None
        host, _, port = self.peer.rpartition(":")
        return host, port

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """The outer engine bounds what it holds for a stream."""

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.stream.send_data(data, False)

    def writelines(self, pieces: list[Any]) -> None:
        self.write(b"".join(pieces))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self.closed:
            self.stream.send_data(b"", True)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.stream.pause()

    def resume_reading(self) -> None:
        self.stream.resume()

    def close(self) -> None:
        if self.closed:
            return
        self.stream.send_data(b"", True)
        self.end(NO_ERROR)  # the engine sends what is written before it gives the stream up

    def abort(self) -> None:
        if not self.closed:
            self.end(CANCEL)

    def end(self, code: int) -> None:
        self.closed = True
        self.stream.sink = NULL_SINK
        self.stream.reset(code)
        # As a socket does: connection_lost comes later, never from inside close().
        self.loop.call_soon(self.lost)

    def lost(self) -> None:
        self.closed = True
        inner = self.inner
        if inner is not None:
            self.inner = None
            inner.connection_lost(None)
