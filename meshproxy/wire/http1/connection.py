"""What both roles of HTTP/1.1 share: cutting messages out of the input, writing bodies, holding the reader.

    reading     HEAD --> LENGTH | CHUNKED | UNTIL_CLOSE --> COMPLETE --(exchange done)--> HEAD
                HEAD --> COMPLETE (no body, or it is not yet known whether this becomes a tunnel) --> TUNNEL --> ENDED
                any  --> ENDED (end of input, refusal, close)

    writing     IDLE --> HEAD --> LENGTH | CHUNKED | UNTIL_CLOSE | NOTHING --> SENT --(exchange done)--> IDLE
                         HEAD --> UNDECIDED (client role: CONNECT or Upgrade not answered yet) --> TUNNEL --> SENT

A connection carries one exchange at a time.  Input that belongs to a later one stays in `buffer`, where it is bounded:
past `limits.pipelined_bytes` the host stops reading.  What waits (that input, and output for a socket that is full) the host
is told of by `on_held`.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import Engine, Host
from meshproxy.wire.http1.chunked import ChunkedDecoder
from meshproxy.wire.http1.head import BadMessage
from meshproxy.wire.http1.reader import HeadReader
from meshproxy.wire.http1.serialize import CRLF, LAST_CHUNK, trailer_section
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field
from meshproxy.wire.pieces import join

R_HEAD: Final = 0
R_LENGTH: Final = 1
R_CHUNKED: Final = 2
R_UNTIL_CLOSE: Final = 3
R_COMPLETE: Final = 4
R_TUNNEL: Final = 5
R_ENDED: Final = 6

W_IDLE: Final = 0
W_HEAD: Final = 1
W_LENGTH: Final = 2
W_CHUNKED: Final = 3
W_UNTIL_CLOSE: Final = 4
W_NOTHING: Final = 5
W_UNDECIDED: Final = 6
W_TUNNEL: Final = 7
W_SENT: Final = 8


class Http1Connection(Engine):
    """Base of Http1Server and Http1Client, which say what heads, body data and ends mean to them."""

    def __init__(self, host: Host, limits: Limits, server: bool) -> None:
        super().__init__(host, server)
        self.limits = limits
        self.heads = HeadReader(limits, server)
        self.reading = R_HEAD
        self.writing = W_IDLE
        self.buffer = b""  # input not yet consumed
        self.left_in = 0  # of the body with a length that is being read
        self.left_out = 0  # of the one being written
        self.chunks: ChunkedDecoder | None = None
        self.processing = False  # process() is on the stack: whoever changes the state leaves the rest to its loop
        self.paused = False  # the sink asked for it
        self.holding = False  # we told the host
        self.blocked = False  # the socket takes no more
        self.told_blocked = False  # and the stream's sink knows
        self.held_in = 0  # bytes of `buffer` the host was told of
        self.held_out = 0  # bytes given to a socket that was full
        self.input_ended = False  # the peer sent FIN
        self.draining = False

    # -- what the roles decide

    def read_head(self) -> bool:
        """`buffer` is not empty.  True if a head was consumed.  Raises BadMessage."""
        raise NotImplementedError

    def body(self, data: bytes) -> None:
        """Body or tunnel bytes that are not the last."""
        raise NotImplementedError

    def body_end(self, data: bytes, trailers: list[Field]) -> None:
        """The message being read is complete; `data` are its last bytes."""
        raise NotImplementedError

    def bad(self, error: BadMessage) -> None:
        """The peer's message cannot be accepted."""
        raise NotImplementedError

    def sent(self) -> None:
        """Our message is complete (`writing` is SENT)."""
        raise NotImplementedError

    def sent_wrong(self) -> None:
        """Our side gave more or fewer body bytes than its head declared: nothing after it could be trusted."""
        raise NotImplementedError

    def say_blocked(self) -> None:
        raise NotImplementedError

    def say_unblocked(self) -> None:
        raise NotImplementedError

    # -- input

    def receive(self, data: bytes, now: float) -> None:
        if self.reading == R_ENDED:
            return  # lingering, or closed: nothing more is understood
        if self.buffer:
            data = self.buffer + data
        self.buffer = data
        if not self.processing:
            self.process()

    def process(self) -> None:
        """Consumes `buffer` as far as the state allows.  A loop and not recursion: an answer given inside an event starts
        the next pipelined request here, however many there are."""
        self.processing = True
        try:
            while self.buffer:
                if self.reading == R_HEAD:
                    if not self.read_head():
                        break
                elif not self.step():
                    break
        except BadMessage as error:
            self.bad(error)
        finally:
            self.processing = False
        if self.holding or self.paused or self.buffer or self.held_in:
            self.adjust_reading()
            self.count_input()

    def step(self) -> bool:
        """One part of a body or tunnel out of `buffer`, which is not empty.  False: nothing more can be done now."""
        state = self.reading
        if state in (R_COMPLETE, R_ENDED):
            return False
        data = self.buffer
        self.buffer = b""
        if state == R_LENGTH:
            left = self.left_in
            if len(data) < left:
                self.left_in = left - len(data)
                self.body(data)
            else:
                self.left_in = 0
                self.reading = R_COMPLETE
                if len(data) > left:
                    self.buffer = data[left:]
                    data = data[:left]
                self.body_end(data, [])
        elif state == R_CHUNKED:
            chunks = self.chunks
            assert chunks is not None
            data = chunks.feed(data)
            if chunks.done:
                self.buffer = chunks.rest
                self.chunks = None
                self.reading = R_COMPLETE
                self.body_end(data, chunks.trailers)
            elif data:
                self.body(data)
        else:  # R_UNTIL_CLOSE, R_TUNNEL
            self.body(data)
        return True

    def adjust_reading(self) -> None:
        """Hold the host's reading, or let it go on, as `paused` and the unread input demand."""
        hold = not self.closing and (
            self.paused or (self.reading == R_COMPLETE and len(self.buffer) >= self.limits.pipelined_bytes)
        )
        if hold != self.holding:
            self.holding = hold
            if hold:
                self.host.hold_reading()
            else:
                self.host.resume_reading()

    def count_input(self) -> None:
        change = len(self.buffer) - self.held_in
        if change:
            self.held_in += change
            self.host.on_held(change)

    def pause(self) -> None:
        if not self.paused and self.reading != R_ENDED:
            self.paused = True
            self.adjust_reading()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self.adjust_reading()

    # -- output

    def put(self, data: bytes) -> None:
        if self.blocked:
            self.put_back(data)
            return
        out = self.out
        out.append(data)
        if len(out) == 1:
            self.host.wake()

    def put_back(self, data: bytes) -> None:
        """The socket is full: it waits here until that is over."""
        join(self.out, data)
        self.held_out += len(data)
        self.host.on_held(len(data))

    def release_output(self) -> None:
        """The socket took what was written, or is gone."""
        if self.held_out:
            size = self.held_out
            self.held_out = 0
            self.host.on_held(-size)

    def write_data(self, data: bytes, end: bool) -> None:
        """Body bytes in the framing the head chose; in other states they are not ours to send and vanish."""
        state = self.writing
        if state == W_LENGTH:
            self.left_out -= len(data)
            if self.left_out < 0 or (end and self.left_out):
                self.sent_wrong()
                return
            if data:
                self.put(data)
        elif state == W_CHUNKED:
            if data:  # an empty chunk would be the last one
                self.put(b"%x\r\n" % len(data))
                self.put(data)
                self.put(b"\r\n0\r\n\r\n" if end else CRLF)
            elif end:
                self.put(LAST_CHUNK)
        elif state in (W_UNTIL_CLOSE, W_TUNNEL):
            if data:
                self.put(data)
        elif state != W_NOTHING:
            return
        if end:
            self.writing = W_SENT
            self.sent()
        elif self.blocked and not self.told_blocked:
            self.told_blocked = True
            self.say_blocked()

    def write_trailers(self, fields: list[Field]) -> None:
        if self.writing == W_CHUNKED:
            self.put(trailer_section(fields))
            self.writing = W_SENT
            self.sent()
        else:
            self.write_data(b"", True)  # no room for trailers in the other framings (RFC 9112 7.1.2)

    def socket_blocked(self) -> None:
        self.blocked = True
        if not self.told_blocked and W_LENGTH <= self.writing <= W_TUNNEL:
            self.told_blocked = True
            self.say_blocked()

    def socket_unblocked(self) -> None:
        self.blocked = False
        self.release_output()
        if self.out:
            self.host.wake()
        if self.told_blocked:
            self.told_blocked = False
            self.say_unblocked()

    def close(self) -> None:
        """Nothing more is read or written; what is in `out` still goes."""
        self.reading = R_ENDED
        self.writing = W_SENT
        self.buffer = b""
        self.chunks = None
        self.paused = False
        if not self.closing:
            self.closing = True
            self.host.wake()
        self.adjust_reading()
        self.count_input()

    def drain_finish(self) -> None:
        """HTTP/1.1 has nothing to add to drain()."""
