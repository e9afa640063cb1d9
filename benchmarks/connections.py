"""Client connections for load generators: non-blocking sockets on one epoll, no event loop, no timers of 1 ms.

    Reactor.wait(s) --readable--> Connection.received() --an answer is whole--> done(key, failed)
                                  Connection.ask(key, ...) --> socket

asyncio's and uvloop's timers count milliseconds; a generator that is to fire 2,000 times a second needs better.  Here the
epoll descriptor itself is waited for with select(2), whose timeout is in microseconds, after telling the kernel that we
want our timers exact (it rounds them up by 50 us otherwise).
"""

from __future__ import annotations

import ctypes
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

from meshproxy.wire.engine import NO_FIELDS, Host, Sink, Stream
from meshproxy.wire.http2 import Http2Client
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head

PR_SET_TIMERSLACK: Final = 29
READ_BYTES: Final = 256 * 1024

Done = Callable[[int, bool], None]


def exact_timers() -> None:
    """Ask for timers without slack for this thread.  Where the kernel refuses they are 50 us late, which is reported."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)


class Reactor:
    """The connections of one generator."""

    def __init__(self) -> None:
        exact_timers()
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}

    def wait(self, seconds: float) -> None:
        """Handle what is ready; wait for it at most `seconds` (0: only look)."""
        ready = self.epoll.poll(0)
        if not ready and seconds > 0:
            select.select([self.epoll], [], [], seconds)
            ready = self.epoll.poll(0)
        for fd, events in ready:
            connection = self.connections.get(fd)
            if connection is None:
                continue
            if events & select.EPOLLOUT:
                connection.writable()
            if events & ~select.EPOLLOUT:
                connection.readable()

    def close(self) -> None:
        for connection in list(self.connections.values()):
            connection.close()
        self.epoll.close()


class Connection:
    """One socket.  `done(key, failed)` is called once for every ask(), also when the connection breaks."""

    def __init__(self, reactor: Reactor, address: tuple[str, int], done: Done) -> None:
        self.reactor = reactor
        self.done = done
        self.unsent = b""
        self.open = True
        self.socket = socket.create_connection(address, 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.fd = self.socket.fileno()
        reactor.connections[self.fd] = self
        reactor.epoll.register(self.fd, select.EPOLLIN)

    def send(self, data: bytes) -> None:
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self.unsent = data[sent:]
            self.reactor.epoll.modify(self.fd, select.EPOLLIN | select.EPOLLOUT)

    def writable(self) -> None:
        data, self.unsent = self.unsent, b""
        if self.open:
            self.reactor.epoll.modify(self.fd, select.EPOLLIN)
            if data:
                self.send(data)

    def readable(self) -> None:
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.received(data)
        else:
            self.close()

    def close(self) -> None:
        """Also what a broken connection comes to: every request in flight has failed."""
        if self.open:
            self.open = False
            del self.reactor.connections[self.fd]
            self.reactor.epoll.unregister(self.fd)
            self.socket.close()
            self.ended()

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    def ended(self) -> None:
        raise NotImplementedError

    def room(self) -> int:
        """How many more requests it takes now."""
        raise NotImplementedError


class Http1Connection(Connection):
    """One request at a time.  Understands answers with a content-length, which is what the backends here send."""

    def __init__(self, reactor: Reactor, address: tuple[str, int], done: Done) -> None:
        super().__init__(reactor, address, done)
        self.key = -1
        self.head = b""
        self.left = -1  # bytes of the body to come; -1 = the head is not complete
        self.failed = False

    def room(self) -> int:
        return 1 if self.key < 0 and self.open else 0

    def ask(self, key: int, request: bytes) -> None:
        self.key = key
        self.left = -1
        self.head = b""
        self.send(request)

    def received(self, data: bytes) -> None:
        if self.key < 0:
            self.close()  # nothing was asked
            return
        if self.left < 0:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.head[:end].lower()
            self.failed = head[9:12] != b"200"
            at = head.find(b"\r\ncontent-length:")
            if at < 0:
                self.close()
                return
            data = self.head[end + 4 :]
            self.left = int(head[at + 17 :].split(b"\r\n", 1)[0])
        self.left -= len(data)
        self.part(data)
        if self.left <= 0:
            key, self.key = self.key, -1
            self.done(key, self.failed or self.left < 0)

    def part(self, data: bytes) -> None:
        """A piece of the body, for those who look at it."""

    def ended(self) -> None:
        if self.key >= 0:
            key, self.key = self.key, -1
            self.done(key, True)


class Answer(Sink):
    """One exchange over HTTP/2.  gRPC's status is in the trailers, or in the head of an answer that has nothing else."""

    def __init__(self, connection: Http2Connection, key: int) -> None:
        super().__init__()
        self.connection = connection
        self.key = key
        self.grpc = connection.grpc
        self.failed = False

    def response_head(self, head: Head, end: bool) -> None:
        self.failed = head.status != 200
        if end:
            self.finish(self.failed or (self.grpc and head.grpc_status != b"0"))

    def response_data(self, data: bytes, end: bool) -> None:
        if end:
            self.finish(self.failed or self.grpc)  # gRPC never ends without trailers

    def response_trailers(self, fields: list[Field]) -> None:
        status = b"" if self.grpc else b"0"
        for field in fields:
            if field.name == b"grpc-status":
                status = field.value
        self.finish(self.failed or status != b"0")

    def response_reset(self, code: int, unprocessed: bool) -> None:
        self.finish(True)

    def finish(self, failed: bool) -> None:
        self.connection.in_flight -= 1
        self.connection.done(self.key, failed)


class Http2Connection(Connection):
    """Up to `streams` requests at a time, on our own engine: a client made of grpcio costs more CPU than the proxies it is to
    load.  `grpc`: an answer without grpc-status 0 has failed."""

    def __init__(self, reactor: Reactor, address: tuple[str, int], done: Done, streams: int = 1, grpc: bool = False) -> None:
        super().__init__(reactor, address, done)
        self.streams = streams
        self.grpc = grpc
        self.in_flight = 0
        self.awake = False
        limits = Limits()
        limits.stream_window = limits.stream_window_max  # the load generator is not to be the slow reader
        self.engine = Http2Client(Side(self), limits)
        self.engine.start()
        self.flush()

    def room(self) -> int:
        return min(self.streams - self.in_flight, self.engine.capacity()) if self.open else 0

    def ask(self, key: int, head: Head, body: bytes | None) -> None:
        """`body` None: a request without one."""
        stream = self.start(Answer(self, key), head, body is None)
        if body is not None:
            stream.send_data(body, True)
        self.flush()

    def start(self, answer: Answer, head: Head, end: bool) -> Stream:
        """A stream whose request the caller goes on with."""
        self.in_flight += 1
        stream = self.engine.open()
        stream.sink = answer
        stream.send_head(head, NO_FIELDS, end)
        return stream

    def received(self, data: bytes) -> None:
        self.engine.receive(data, monotonic())
        self.flush()
        if self.engine.closing:
            self.close()

    def flush(self) -> None:
        out = self.engine.out
        if out and self.open:
            self.engine.out = []
            self.send(b"".join(out))

    def ended(self) -> None:
        self.engine.lost()


class Side(Host):
    """What the engine asks of its host; there is nothing to do, for flush() follows every call into the engine."""

    def __init__(self, connection: Http2Connection) -> None:
        super().__init__()
        self.connection = connection

    def wake(self) -> None: ...

    def hold_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def request_head(method: bytes, authority: bytes, path: bytes, fields: list[tuple[bytes, bytes]]) -> Head:
    """A request for Http2Connection.ask()."""
    head = Head()
    head.version = 20
    head.method = method
    head.authority = authority
    head.path = path
    head.fields = [Field(name, value) for name, value in fields]
    head.trailers_ok = True
    return head


def wait_ready(reactor: Reactor, connections: list[Http2Connection], seconds: float = 10.0) -> None:
    """Until every server's SETTINGS are here.  Raises TimeoutError."""
    end = monotonic() + seconds
    while any(connection.room() == 0 for connection in connections):
        if monotonic() > end or not all(connection.open for connection in connections):
            raise TimeoutError("an HTTP/2 connection got no SETTINGS: is this port an HTTP/2 server?")
        reactor.wait(0.05)
