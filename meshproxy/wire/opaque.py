"""Bytes that are no HTTP, behind the same interface: one connection is one stream, and there is no framing.

    server role   start --> on_request(CONNECT authority, end=False); bytes --> request_data
                  2xx to it writes nothing; any other response closes the connection: there is nobody to tell
    client role   send_head writes nothing and reports 200 at once; bytes --> response_data

    each direction   OPEN --end of input / end=True--> ENDED        both ENDED, or reset --> closing

The end of one direction is a half-close: `half_close` asks the host to write_eof after flushing.  A reset aborts, so that
the other end is not told of a clean end that was none.
"""

from __future__ import annotations

from meshproxy.wire.engine import (
    AWAITING_NOTHING,
    AWAITING_US,
    CONNECT_ERROR,
    Engine,
    Host,
    Stream,
)
from meshproxy.wire.message import Field, Head
from meshproxy.wire.pieces import join


def granted() -> Head:
    """The 200 a client-role stream reports: the connection is up."""
    head = Head()
    head.status = 200
    return head


class OpaqueStream(Stream):
    def __init__(self, engine: OpaqueEngine) -> None:
        super().__init__()
        self.engine = engine

    def send_interim(self, head: Head) -> None:
        """There is no way to say it."""

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        if self.engine.stream is self:
            self.engine.send_head(self, head, end)

    def send_data(self, data: bytes, end: bool) -> None:
        if self.engine.stream is self:
            self.engine.send_data(self, data, end)

    def send_trailers(self, fields: list[Field]) -> None:
        self.send_data(b"", True)

    def reset(self, code: int) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.abort = True
            engine.close()

    def pause(self) -> None:
        engine = self.engine
        if engine.stream is self and not engine.holding and not engine.input_ended:
            engine.holding = True
            engine.host.hold_reading()

    def resume(self) -> None:
        engine = self.engine
        if engine.stream is self and engine.holding:
            engine.holding = False
            engine.host.resume_reading()


class OpaqueEngine(Engine):
    """What both roles share."""

    def __init__(self, host: Host, server: bool) -> None:
        super().__init__(host, server)
        self.stream: OpaqueStream | None = None
        self.input_ended = False
        self.output_ended = False
        self.holding = False
        self.blocked = False
        self.told_blocked = False
        self.held = 0  # bytes the host was told of: given to a socket that was full, or read before there was a stream
        self.draining = False

    # -- what the roles decide

    def send_head(self, stream: OpaqueStream, head: Head, end: bool) -> None:
        raise NotImplementedError

    def data(self, stream: OpaqueStream, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def gone(self, stream: OpaqueStream) -> None:
        """The transport was lost."""
        raise NotImplementedError

    def say_blocked(self, stream: OpaqueStream) -> None:
        raise NotImplementedError

    def say_unblocked(self, stream: OpaqueStream) -> None:
        raise NotImplementedError

    # -- input

    def receive(self, data: bytes, now: float) -> None:
        stream = self.stream
        if stream is not None and data and not self.input_ended:
            self.data(stream, data, False)

    def receive_eof(self) -> None:
        stream = self.stream
        if self.input_ended or self.closing:
            return
        self.input_ended = True
        if stream is None:
            self.close()
            return
        over = self.output_ended
        if over:
            self.close()
        self.data(stream, b"", True)

    def lost(self) -> None:
        stream = self.stream
        self.close()
        self.hold(-self.held)
        if stream is not None:
            self.gone(stream)

    # -- output

    def send_data(self, stream: OpaqueStream, data: bytes, end: bool) -> None:
        if self.output_ended:
            return
        if data and self.blocked:
            join(self.out, data)
            self.hold(len(data))
        elif data:
            self.out.append(data)
            if len(self.out) == 1:
                self.host.wake()
        if end:
            self.output_ended = True
            if self.input_ended:
                self.close()
            else:
                self.half_close = True
                self.host.wake()
        elif self.blocked and not self.told_blocked:
            self.told_blocked = True
            self.say_blocked(stream)

    def socket_blocked(self) -> None:
        self.blocked = True
        stream = self.stream
        if stream is not None and not self.told_blocked and not self.output_ended:
            self.told_blocked = True
            self.say_blocked(stream)

    def hold(self, change: int) -> None:
        if change:
            self.held += change
            self.host.on_held(change)

    def socket_unblocked(self) -> None:
        self.blocked = False
        self.hold(-self.held)
        if self.out:
            self.host.wake()
        stream = self.stream
        if self.told_blocked:
            self.told_blocked = False
            if stream is not None:
                self.say_unblocked(stream)

    # -- the connection

    def close(self) -> None:
        self.stream = None
        if self.holding:
            self.holding = False
            self.host.resume_reading()
        if not self.closing:
            self.closing = True
            self.host.wake()

    def active(self) -> int:
        return 0 if self.stream is None else 1

    def heaviest(self) -> Stream | None:
        return self.stream

    def drain(self) -> None:
        self.draining = True
        if self.stream is None:
            self.close()

    def drain_finish(self) -> None:
        """Nothing to add to drain()."""

    def sweep(self, now: float, stall_s: float, body_s: float) -> bool:
        return False

    def awaiting(self) -> int:
        """A tunnel may be silent for hours: never a peer's debt."""
        return AWAITING_NOTHING if self.stream is None else AWAITING_US


class OpaqueServer(OpaqueEngine):
    """A connection taken from a workload whose protocol is not for us to read; `authority` is where it is to go."""

    def __init__(self, host: Host, authority: bytes) -> None:
        super().__init__(host, True)
        self.authority = authority
        self.granted = False

    def start(self) -> None:
        head = Head()
        head.method = b"CONNECT"
        head.version = 0
        head.authority = self.authority
        self.stream = stream = OpaqueStream(self)
        self.host.on_request(stream, head, False)

    def send_head(self, stream: OpaqueStream, head: Head, end: bool) -> None:
        if self.granted:
            return
        if not 200 <= head.status <= 299:
            if head.status >= 200:
                self.close()  # and with it the stream: the body of a refusal is for those who speak HTTP
            return
        self.granted = True
        if end:
            self.send_data(stream, b"", True)

    def data(self, stream: OpaqueStream, data: bytes, end: bool) -> None:
        stream.sink.request_data(data, end)

    def gone(self, stream: OpaqueStream) -> None:
        stream.sink.request_reset(CONNECT_ERROR)

    def say_blocked(self, stream: OpaqueStream) -> None:
        stream.sink.response_blocked()

    def say_unblocked(self, stream: OpaqueStream) -> None:
        stream.sink.response_unblocked()

    def capacity(self) -> int:
        return 0

    def open(self) -> Stream:
        raise RuntimeError("open() is for the client role")


class OpaqueClient(OpaqueEngine):
    """A connection to a workload, for one tunnel."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, False)
        self.ready = False
        self.used = False
        self.begun = False
        self.early: list[bytes] = []  # a server may speak first, before the stream is opened; bounded by holding the reader

    def start(self) -> None:
        self.ready = True
        self.host.on_ready()

    def capacity(self) -> int:
        return 1 if self.ready and not self.used and not self.closing and not self.draining else 0

    def open(self) -> Stream:
        """Raises RuntimeError when capacity() is 0: a mistake of ours, not of the peer."""
        if self.capacity() == 0:
            raise RuntimeError("open() on an opaque connection that has no capacity")
        self.used = True
        self.stream = stream = OpaqueStream(self)
        return stream

    def send_head(self, stream: OpaqueStream, head: Head, end: bool) -> None:
        """Writes nothing; 200 is reported before this returns, then what the server said already."""
        if self.begun:
            return
        self.begun = True
        stream.sink.response_head(granted(), False)
        early = self.early
        self.early = []
        self.hold(-self.held)
        if early and self.stream is stream:
            stream.resume()
            stream.sink.response_data(b"".join(early), False)
        if self.input_ended and self.stream is stream:
            stream.sink.response_data(b"", True)
        if end and self.stream is stream:
            self.send_data(stream, b"", True)

    def receive(self, data: bytes, now: float) -> None:
        if self.begun or self.closing or self.input_ended:
            super().receive(data, now)
        elif data:
            self.early.append(data)
            self.hold(len(data))
            if not self.holding:
                self.holding = True
                self.host.hold_reading()

    def receive_eof(self) -> None:
        if self.begun or (self.stream is None and not self.early):
            super().receive_eof()
        else:
            self.input_ended = True

    def data(self, stream: OpaqueStream, data: bytes, end: bool) -> None:
        stream.sink.response_data(data, end)

    def gone(self, stream: OpaqueStream) -> None:
        stream.sink.response_reset(CONNECT_ERROR, not self.begun)

    def say_blocked(self, stream: OpaqueStream) -> None:
        stream.sink.request_blocked()

    def say_unblocked(self, stream: OpaqueStream) -> None:
        stream.sink.request_unblocked()
