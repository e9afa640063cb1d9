"""Every kind of traffic at once, each as fast as it is answered, on one reactor.

    http      HTTP/1.1 keep-alive, GET and POST, 0 B to 1 MiB         socket   Upgrade, then bytes both ways, then a clean end
    gateway   the same through the mesh's gateway                     bytes    no HTTP at all, half-close at the end
    h2        the same over HTTP/2, many streams                      cancel   HTTP/2: reset when the answer has begun
    grpc      unary calls       stream   ping-pong of messages        leave    HTTP/1.1: gone when the answer has begun

Every byte that comes back is compared with what it must be.  A kind counts `begun` when its request is handed to the socket and
then exactly one of `answered`, `cancelled` (by us, on purpose) and `failed`; on a connection that failed it begins again.
"""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from benchmarks.connections import (
    Answer,
    Connection,
    Http1Connection,
    Http2Connection,
    Reactor,
    request_head,
    wait_ready,
)
from benchmarks.soak.app import PATTERN, PORTS
from meshproxy.wire.engine import CANCEL, NULL_SINK, Stream
from meshproxy.wire.message import Head

Address = tuple[str, int]

# Mostly small, as in life, but every size class: nothing, one segment, more than a window, more than a socket buffer.
SIZES: Final = (0, 1, 100, 100, 100, 1_000, 1_000, 16_384, 65_536, 100_001, 1 << 20)
MESSAGES: Final = (0, 1, 100, 100, 1_000, 16_380, 70_000)
ROUNDS: Final = 20  # of a WebSocket or byte conversation
TALK: Final = 50  # messages of a stream
CANCELS_PER_SECOND: Final = 25  # of each kind: below what a stranger may (Limits.resets_per_second, and a connection has 200)
DRAIN_S: Final = 30.0


@dataclass
class Book:
    """What one kind did.  `port`: of the app."""

    port: int
    begun: int = 0
    answered: int = 0
    cancelled: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def fail(self, why: str) -> None:
        self.failed += 1
        if len(self.errors) < 20 or why in self.errors:
            self.errors[why] += 1


class Traffic:
    """The connections of all kinds.  `run()` returns when the time is up and everything in flight has ended."""

    def __init__(self, addresses: dict[str, Address], gateway: Address | None, seed: int, scale: float = 1.0) -> None:
        """addresses  kind of port (app.PORTS) -> where the caller's sidecar listens for it
        gateway    where absolute-form requests go
        scale      of the number of connections"""
        self.reactor = Reactor()
        self.addresses = addresses
        self.gateway = gateway
        self.chance = random.Random(seed)
        self.stopping = False
        self.books: dict[str, Book] = {}
        self.idle: list[Callable[[], None]] = []  # what begins anew, outside the callbacks of what ended
        self.due: dict[str, float] = {}
        self.scale = scale

    def count(self, number: int) -> int:
        return max(1, round(number * self.scale))

    def start(self) -> None:
        """Open everything.  Raises OSError, TimeoutError."""
        kinds = {"http": "http", "h2": "h2", "grpc": "grpc", "stream": "grpc", "socket": "http", "bytes": "bytes"}
        self.books = {kind: Book(PORTS[port]) for kind, port in (kinds | {"cancel": "cancel", "leave": "leave"}).items()}
        if self.gateway is not None:
            self.books["gateway"] = Book(PORTS["http"])
            for _ in range(self.count(6)):
                Requests(self, "gateway", self.gateway).next()
        for _ in range(self.count(10)):
            Requests(self, "http", self.addresses["http"]).next()
        for _ in range(self.count(3)):
            Streams(self, "h2", self.addresses["h2"], 8).connect()
            Streams(self, "grpc", self.addresses["grpc"], 8).connect()
            Streams(self, "stream", self.addresses["grpc"], 4).connect()
        for _ in range(self.count(4)):
            Conversation(self, "socket", self.addresses["http"])
            Conversation(self, "bytes", self.addresses["bytes"])
        Streams(self, "cancel", self.addresses["cancel"], 50).connect()

    def run(self, seconds: float, tick: Callable[[], None]) -> None:
        """`tick` about 20 times a second.  What has not ended DRAIN_S after the end has failed."""
        end = monotonic() + seconds
        while monotonic() < end:
            self.turn(tick)
        self.stopping = True
        end = monotonic() + DRAIN_S
        while self.in_flight() and monotonic() < end:
            self.turn(tick)
        for book in self.books.values():
            left = book.begun - book.answered - book.cancelled - book.failed
            if left:
                book.failed += left
                book.errors["not ended when all else had"] += left

    def turn(self, tick: Callable[[], None]) -> None:
        self.reactor.wait(0.02)
        waiting, self.idle = self.idle, []
        for begin in waiting:
            begin()
        if self.may("leave"):
            Leaving(self, self.addresses["leave"])
        if self.may("tick", 20):
            tick()

    def may(self, what: str, per_second: float = CANCELS_PER_SECOND) -> bool:
        """At most so often, and never to catch up."""
        if self.stopping and what != "tick":
            return False
        now = monotonic()
        if now < self.due.get(what, 0.0):
            return False
        self.due[what] = now + 1 / per_second
        return True

    def in_flight(self) -> int:
        return sum(book.begun - book.answered - book.cancelled - book.failed for book in self.books.values())

    def later(self, begin: Callable[[], None]) -> None:
        self.idle.append(begin)

    def close(self) -> None:
        self.reactor.close()


class Requests(Http1Connection):
    """HTTP/1.1, one request after the other."""

    def __init__(self, traffic: Traffic, kind: str, address: Address) -> None:
        super().__init__(traffic.reactor, address, self.over)
        self.traffic = traffic
        self.kind = kind
        self.book = traffic.books[kind]
        self.size = 0
        self.got = 0
        self.address = address

    def next(self) -> None:
        if self.traffic.stopping or not self.open:
            return
        chance = self.traffic.chance
        self.size = chance.choice(SIZES)
        self.got = 0
        self.book.begun += 1
        target = f"http://soak.soak:{PORTS['http']}" if self.kind == "gateway" else ""
        common = f"Host: soak.soak:{PORTS['http']}\r\nX-Trace: {chance.getrandbits(64):016x}\r\n"
        if chance.random() < 0.5:
            self.ask(0, f"GET {target}/bytes/{self.size} HTTP/1.1\r\n{common}\r\n".encode())
        else:
            head = f"POST {target}/echo?{chance.random()} HTTP/1.1\r\n{common}Content-Length: {self.size}\r\n\r\n"
            self.ask(0, head.encode() + PATTERN[: self.size])

    def part(self, data: bytes) -> None:
        if data != PATTERN[self.got : self.got + len(data)]:
            self.failed = True
        self.got += len(data)

    def over(self, key: int, failed: bool) -> None:
        if not failed and self.got == self.size:
            self.book.answered += 1
            self.traffic.later(self.next)
        else:
            self.book.fail(f"{self.got} of {self.size} bytes, {self.head[:60]!r}")
            self.traffic.later(self.again)

    def again(self) -> None:
        self.close()
        if not self.traffic.stopping:
            Requests(self.traffic, self.kind, self.address).next()


class Streams(Http2Connection):
    """HTTP/2 with some streams open at all times: requests, unary calls, message streams, or streams to be reset."""

    def __init__(self, traffic: Traffic, kind: str, address: Address, streams: int) -> None:
        super().__init__(traffic.reactor, address, self.over, streams, grpc=kind in ("grpc", "stream"))
        self.traffic = traffic
        self.kind = kind
        self.book = traffic.books[kind]
        self.address = address
        self.wanted = streams

    def open_all(self) -> None:
        if not self.open:
            return
        if self.kind == "cancel":
            if self.traffic.may("cancel"):
                self.begin()
            if not self.traffic.stopping:
                self.traffic.later(self.open_all)
            return
        while self.room() > 0 and not self.traffic.stopping:
            self.begin()

    def begin(self) -> None:
        chance, book = self.traffic.chance, self.book
        book.begun += 1
        authority = b"soak.soak:%d" % book.port
        trace = (b"x-trace", b"%016x" % chance.getrandbits(64))
        if self.kind == "h2":
            size = chance.choice(SIZES)
            if chance.random() < 0.5:
                self.go(Whole(self, size), request_head(b"GET", authority, b"/bytes/%d" % size, [trace]), None)
            else:
                self.go(Whole(self, size), request_head(b"POST", authority, b"/echo", [trace]), PATTERN[:size])
        elif self.kind == "cancel":
            self.go(Cancelled(self), request_head(b"GET", authority, b"/slow", [trace]), None)
        else:
            fields = [(b"content-type", b"application/grpc"), (b"grpc-timeout", b"60S"), trace]
            head = request_head(b"POST", authority, b"/soak.Echo/Unary", fields)
            if self.kind == "grpc":
                body = message(chance.choice(MESSAGES))
                self.go(Message(self, body), head, body)
            else:
                talk = Talk(self, b"")
                self.go(talk, head, None, False)
                talk.say()
        self.flush()

    def go(self, answer: Soaked, head: Head, body: bytes | None, end: bool = True) -> None:
        stream = answer.stream = self.start(answer, head, body is None and end)
        if body is not None:
            stream.send_data(body, True)

    def over(self, key: int, failed: bool) -> None:
        """Each answer keeps its own book: see Soaked."""
        self.traffic.later(self.open_all)

    def ended(self) -> None:
        super().ended()
        if not self.traffic.stopping:
            self.traffic.later(self.again)

    def again(self) -> None:
        if not self.traffic.stopping:
            Streams(self.traffic, self.kind, self.address, self.wanted).connect()

    def connect(self) -> None:
        wait_ready(self.traffic.reactor, [self])
        self.open_all()


class Soaked(Answer):
    """One exchange of a kind.  `done` is called once; what it was goes to the kind's book."""

    stream: Stream

    def __init__(self, connection: Streams) -> None:
        super().__init__(connection, 0)
        self.owner = connection
        self.got = 0
        self.wrong = ""

    def right(self) -> bool:
        raise NotImplementedError

    def response_reset(self, code: int, unprocessed: bool) -> None:
        self.wrong = f"reset with code {code}"
        self.finish(True)

    def finish(self, failed: bool) -> None:
        if not failed and self.right():
            self.owner.book.answered += 1
        else:
            self.owner.book.fail(self.wrong or f"status, trailers or length ({self.got} bytes)")
        super().finish(failed)


class Whole(Soaked):
    """An answer that is a piece of the pattern."""

    def __init__(self, connection: Streams, size: int) -> None:
        super().__init__(connection)
        self.size = size

    def response_data(self, data: bytes, end: bool) -> None:
        if data != PATTERN[self.got : self.got + len(data)]:
            self.wrong = "other bytes than were asked for"
        self.got += len(data)
        super().response_data(data, end)

    def right(self) -> bool:
        return self.got == self.size and not self.wrong


class Message(Soaked):
    """A unary call: the answer is the question."""

    def __init__(self, connection: Streams, body: bytes) -> None:
        super().__init__(connection)
        self.body = body

    def response_data(self, data: bytes, end: bool) -> None:
        if data != self.body[self.got : self.got + len(data)]:
            self.wrong = "another message than was sent"
        self.got += len(data)
        super().response_data(data, end)

    def right(self) -> bool:
        return self.got == len(self.body) and not self.wrong


class Talk(Message):
    """A stream: the next message when the last one is back, TALK of them."""

    said = 0

    def say(self) -> None:
        if self.said == TALK or self.owner.traffic.stopping:
            self.stream.send_data(b"", True)
            return
        self.said += 1
        self.body = message(self.owner.traffic.chance.choice(MESSAGES))
        self.got = 0
        self.stream.send_data(self.body, False)

    def response_data(self, data: bytes, end: bool) -> None:
        super().response_data(data, end)
        if not end and self.got == len(self.body):
            self.say()
            self.owner.flush()


class Cancelled(Soaked):
    """A stream that is reset when its answer has begun."""

    def response_data(self, data: bytes, end: bool) -> None:
        self.stream.sink = NULL_SINK
        self.stream.reset(CANCEL)
        self.owner.book.cancelled += 1
        self.owner.in_flight -= 1

    def right(self) -> bool:
        return False  # it was never to end


class Conversation(Connection):
    """Bytes there and back, ROUNDS of them, and a clean end: through an Upgrade ("socket") or from the start ("bytes")."""

    def __init__(self, traffic: Traffic, kind: str, address: Address) -> None:
        super().__init__(traffic.reactor, address, lambda key, failed: None)
        self.traffic = traffic
        self.kind = kind
        self.book = traffic.books[kind]
        self.address = address
        self.book.begun += 1
        self.head = b""
        self.upgraded = kind == "bytes"
        self.rounds = 0
        self.sent = 0
        self.got = 0
        self.tail = b""
        self.finished = False
        if self.upgraded:
            self.say()
        else:
            self.send(
                f"GET /socket HTTP/1.1\r\nHost: soak.soak:{PORTS['http']}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )

    def say(self) -> None:
        if self.rounds == ROUNDS or self.traffic.stopping:
            self.finished = True
            self.socket.shutdown(socket.SHUT_WR)
            return
        self.rounds += 1
        self.sent = self.traffic.chance.choice((1, 10, 1_000, 20_000, 200_000))
        self.got = 0
        self.send(PATTERN[: self.sent])

    def received(self, data: bytes) -> None:
        if not self.upgraded:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.head.startswith(b"HTTP/1.1 101"):
                self.give_up(f"no upgrade: {self.head[:60]!r}")
                return
            self.upgraded = True
            data = self.head[end + 4 :]
            self.say()
        if self.finished:
            self.tail += data
            return
        if data != PATTERN[self.got : self.got + len(data)]:
            self.give_up("other bytes than were sent")
            return
        self.got += len(data)
        if self.got == self.sent and not self.unsent:
            self.say()

    def give_up(self, why: str) -> None:
        self.head = why.encode()
        self.finished = False
        self.close()

    def ended(self) -> None:
        bye = b"bye" if self.kind == "bytes" else b""
        if self.finished and self.tail == bye:
            self.book.answered += 1
        else:
            self.book.fail(f"ended in round {self.rounds} with {self.got} of {self.sent} bytes, {self.head[:60]!r}")
        if not self.traffic.stopping:
            self.traffic.later(self.again)

    def again(self) -> None:
        if not self.traffic.stopping:
            Conversation(self.traffic, self.kind, self.address)


class Leaving(Connection):
    """An HTTP/1.1 client that is gone as soon as the answer has begun.  It leaves by RST, as one that was killed with something
    still to read: FIN alone would say that it goes on reading."""

    def __init__(self, traffic: Traffic, address: Address) -> None:
        super().__init__(traffic.reactor, address, lambda key, failed: None)
        self.book = traffic.books["leave"]
        self.book.begun += 1
        self.seen = b""
        self.send(f"GET /slow HTTP/1.1\r\nHost: soak.soak:{PORTS['leave']}\r\n\r\n".encode())

    def received(self, data: bytes) -> None:
        self.seen += data
        if b"\r\n\r\n" in self.seen:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()

    def ended(self) -> None:
        if self.seen.startswith(b"HTTP/1.1 200"):
            self.book.cancelled += 1
        else:
            self.book.fail(f"{self.seen[:60]!r}")


def message(size: int) -> bytes:
    return b"\0" + size.to_bytes(4, "big") + PATTERN[:size]
