"""The client role of HTTP/1.1: one request out, its response in, then the next (never pipelined: RFC 9112 9.3.2 lets a
server close after any response, and a request behind it would be lost in doubt).

    idle --open, send_head--> waiting --1xx--> waiting --head--> body --end--> idle (on_capacity), or close
                                       101 / 2xx to CONNECT --> tunnel
    Upgrade with content: that goes at once, what follows it waits for 101.  Declined: the rest of it goes, and nothing else

The connection is used again only if the response was self-delimited, said nothing of closing, left no bytes behind, and
the request was sent whole.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import (
    AWAITING_BODY,
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CONNECT_ERROR,
    INTERNAL_ERROR,
    NO_ERROR,
    NULL_SINK,
    PROTOCOL_ERROR,
    Host,
    Stream,
)
from meshproxy.wire.http1.chunked import ChunkedDecoder
from meshproxy.wire.http1.connection import (
    R_CHUNKED,
    R_COMPLETE,
    R_ENDED,
    R_HEAD,
    R_LENGTH,
    R_TUNNEL,
    R_UNTIL_CLOSE,
    W_CHUNKED,
    W_HEAD,
    W_IDLE,
    W_LENGTH,
    W_NOTHING,
    W_SENT,
    W_TUNNEL,
    W_UNDECIDED,
    Http1Connection,
)
from meshproxy.wire.http1.head import BadMessage
from meshproxy.wire.http1.serialize import CHUNKED, CRLF, NO_CONTENT, WITH_CONTENT, field_lines, request_start
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head

VERSION: Final = b"HTTP/1."  # what every answer begins with


class ClientStream(Stream):
    """One request and its response.  Does nothing once its exchange is over."""

    def __init__(self, engine: Http1Client) -> None:
        self.sink = NULL_SINK  # what Stream.__init__ does, without the call: one for each request
        self.engine = engine

    def send_interim(self, head: Head) -> None:
        """Servers send 1xx, clients do not."""

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        engine = self.engine
        if engine.stream is self and engine.writing == W_HEAD:
            engine.send_request(head, extra, end)

    def send_data(self, data: bytes, end: bool) -> None:
        engine = self.engine
        if engine.stream is self:
            if engine.writing == W_UNDECIDED:
                engine.withhold(data, end)
            else:
                engine.write_data(data, end)

    def send_trailers(self, fields: list[Field]) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.write_trailers(fields)

    def reset(self, code: int) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.give_up()

    def pause(self) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.pause()

    def resume(self) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.resume()


class Http1Client(Http1Connection):
    declined: bool = False  # an Upgrade is, while its content is still to come; here, because few are

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, False)
        self.stream: ClientStream | None = None
        self.ready = False
        self.request: Head | None = None
        self.request_out: list[bytes] | None = None  # the `out` list the request head went into
        self.withheld: list[bytes] = []  # tunnel bytes waiting for 101 or 2xx
        self.withheld_bytes = 0
        self.withheld_end = False
        self.keep_alive = True
        self.interim = 0

    def start(self) -> None:
        self.ready = True
        self.host.on_ready()

    # -- the request

    def open(self) -> Stream:
        """Raises RuntimeError when capacity() is 0: a mistake of ours, not of the peer."""
        if self.capacity() == 0:
            raise RuntimeError("open() on an HTTP/1.1 connection that has no capacity")
        self.stream = stream = ClientStream(self)
        self.writing = W_HEAD
        self.told_blocked = False
        self.interim = 0
        self.keep_alive = True
        self.request = None
        self.request_out = None
        return stream

    def send_request(self, head: Head, extra: list[Field], end: bool) -> None:
        self.request = head
        tail = CRLF
        if head.method == b"CONNECT" or head.protocol:
            self.writing = W_UNDECIDED
            self.left_out = 0
            if head.content_length > 0 and head.method != b"CONNECT":
                self.left_out = head.content_length
                tail = b"content-length: %d\r\n\r\n" % head.content_length
                if self.declined:
                    self.declined = False
            elif head.method in WITH_CONTENT:
                tail = NO_CONTENT + CRLF
        elif head.content_length >= 0:
            self.writing = W_LENGTH
            self.left_out = head.content_length
        elif end:
            self.writing = W_NOTHING
            if head.method in WITH_CONTENT:
                tail = NO_CONTENT + CRLF
        else:
            self.writing = W_CHUNKED
            tail = CHUNKED + CRLF
        self.request_out = self.out
        self.put(request_start(head) + field_lines(extra) + tail if extra else request_start(head) + tail)
        if end:
            if self.writing == W_NOTHING and self.reading == R_HEAD:
                self.writing = W_SENT  # what write_data() would do, without two calls
            elif self.writing == W_UNDECIDED:
                self.withhold(b"", True)
            else:
                self.write_data(b"", True)

    def withhold(self, data: bytes, end: bool) -> None:
        """Bytes for a tunnel that is not granted yet: sent now, a server that declines would take them for a request.  Before
        them comes the content of the request, if it has any."""
        left = self.left_out
        if left > 0:
            size = len(data)
            if end and size < left:
                self.sent_wrong()
                return
            if size:
                self.put(data[:left] if size > left else data)
            if size <= left:
                self.left_out = left - size
                data = b""
            else:
                self.left_out = 0
                data = data[left:]
            if self.declined and self.left_out == 0:
                self.writing = W_SENT
                return
            if not data and not end:
                if self.blocked and not self.told_blocked:
                    self.told_blocked = True
                    self.say_blocked()
                return
        if data:
            self.withheld.append(data)
            self.withheld_bytes += len(data)
            self.host.on_held(len(data))
        if end:
            self.withheld_end = True
        elif not self.told_blocked:
            self.told_blocked = True
            self.say_blocked()

    def unsent(self) -> bool:
        """Nothing of the request was handed to the socket: the host has not taken the list its head is in."""
        return self.request is None or (self.request_out is self.out and len(self.out) > 0)

    # -- the response

    def read_head(self) -> bool:
        stream = self.stream
        request = self.request
        if stream is None or request is None or (self.request_out is self.out and self.out):  # the last is unsent()
            # An answer nobody asked for: a late 408, or the rest of a response that lied about its length.
            raise BadMessage(502, "h1_unasked_response", "the server sent bytes while no request was in progress")
        end = self.heads.cut(self.buffer)
        if end < 0:
            if not VERSION.startswith(self.buffer[: len(VERSION)]):  # what it will never become is not waited for
                raise BadMessage(502, "h1_status_line", "the answer does not begin with HTTP/1.1 or HTTP/1.0")
            return False
        head = self.heads.parse(self.buffer[:end])
        self.buffer = self.buffer[end + 4 :]
        status = head.status
        if status < 200:
            if status != 101:
                self.interim += 1
                if self.interim > self.limits.interim_responses:
                    raise BadMessage(502, "h1_too_many_interim", "too many 1xx responses before the final one")
                stream.sink.response_interim(head)
                return True
            # RFC 9110 7.8: only to a protocol that the request named.
            if not request.protocol or head.protocol != request.protocol:
                raise BadMessage(502, "h1_unexpected_101", "101 to a protocol that the request did not ask for")
            self.begin_tunnel(stream, head)
            return True
        if request.method == b"CONNECT" and not request.protocol and status <= 299:
            self.begin_tunnel(stream, head)
            return True
        if self.writing == W_UNDECIDED:  # declined: the request was complete as it stood, or is when its content is
            self.drop_withheld()
            if self.left_out == 0:
                self.writing = W_SENT
            else:
                self.declined = True
        if head.close:
            self.keep_alive = False
            self.host.on_goaway(NO_ERROR)
        ended = False
        if request.method == b"HEAD" or status == 204 or status == 304 or head.content_length == 0:
            ended = True
            self.reading = R_COMPLETE
        elif head.chunked:
            self.reading = R_CHUNKED
            self.chunks = ChunkedDecoder(self.limits, head.connection)
        elif head.content_length > 0:
            self.reading = R_LENGTH
            self.left_in = head.content_length
        else:
            self.reading = R_UNTIL_CLOSE
            if self.keep_alive:
                self.keep_alive = False
                self.host.on_goaway(NO_ERROR)
        if self.stream is not stream:
            return True
        if ended:
            reusable = self.finish()
            stream.sink.response_head(head, True)
            if reusable:
                self.offer()
        else:
            stream.sink.response_head(head, False)
        return True

    def begin_tunnel(self, stream: ClientStream, head: Head) -> None:
        self.reading = R_TUNNEL
        self.writing = W_TUNNEL
        self.keep_alive = False
        self.host.on_goaway(NO_ERROR)
        if self.stream is stream:
            stream.sink.response_head(head, False)
        if self.stream is not stream:
            return
        withheld = self.withheld
        ended = self.withheld_end
        self.drop_withheld()
        for data in withheld:
            self.write_data(data, False)
        if ended:
            self.write_data(b"", True)
        elif self.told_blocked and not self.blocked:
            self.told_blocked = False
            self.say_unblocked()

    def drop_withheld(self) -> None:
        if self.withheld:
            size = self.withheld_bytes
            self.withheld = []
            self.withheld_bytes = 0
            self.host.on_held(-size)
        self.withheld_end = False

    def body(self, data: bytes) -> None:
        stream = self.stream
        if stream is not None:
            stream.sink.response_data(data, False)

    def body_end(self, data: bytes, trailers: list[Field]) -> None:
        stream = self.stream
        if stream is None:
            return
        if trailers and data:
            stream.sink.response_data(data, False)
            if self.stream is not stream:
                return
        # The connection is free before the sink hears of the end: it may open the next stream at once.
        reusable = self.finish()
        if trailers:
            stream.sink.response_trailers(trailers)
        else:
            stream.sink.response_data(data, True)
        if reusable:
            self.offer()

    def finish(self) -> bool:
        """The response is complete; True if the connection can take another request."""
        whole = self.writing == W_SENT or (self.writing == W_LENGTH and self.left_out == 0)
        self.end_stream()
        if self.buffer:
            # RFC 9112 6.3: what follows a complete response belongs to nobody (response splitting, a wrong length).
            self.host.on_violation("h1_extra_bytes")
            self.close()
            return False
        if not whole or not self.keep_alive or self.draining:
            self.linger = not whole
            self.close()
            return False
        self.reading = R_HEAD
        self.writing = W_IDLE
        if self.holding:
            self.adjust_reading()
        return True

    def offer(self) -> None:
        if self.stream is None and not self.closing:
            self.host.on_capacity()

    def bad(self, error: BadMessage) -> None:
        self.host.on_violation(error.label)
        self.fail(PROTOCOL_ERROR, self.unsent())

    def head_overdue(self) -> None:
        if self.awaiting() == AWAITING_HEAD:
            self.bad(BadMessage(502, "slow_response_head", "the rest of the answer's head did not come in time"))

    def fail(self, code: int, unprocessed: bool) -> None:
        """The response will not come, or not be complete."""
        stream = self.stream
        if self.blocked:
            self.abort = True  # as in give_up()
        self.end_stream()
        self.close()
        if stream is not None:
            stream.sink.response_reset(code, unprocessed)

    def receive_eof(self) -> None:
        if self.input_ended or self.closing:
            return
        self.input_ended = True
        stream = self.stream
        if stream is not None and self.reading == R_UNTIL_CLOSE:
            self.end_stream()
            self.close()
            stream.sink.response_data(b"", True)
        elif stream is not None and self.reading == R_TUNNEL:
            self.reading = R_ENDED
            over = self.writing == W_SENT
            if over:
                self.end_stream()
                self.close()
            stream.sink.response_data(b"", True)
        else:  # idle; or the response is missing or cut short: never a clean end (RFC 9112 8)
            self.fail(CONNECT_ERROR, self.unsent())

    def lost(self) -> None:
        self.fail(CONNECT_ERROR, self.unsent())
        self.release_output()

    # -- endings

    def sent(self) -> None:
        if self.reading == R_TUNNEL:
            self.half_close = True
            self.host.wake()
        elif self.reading == R_ENDED:
            self.end_stream()
            self.close()

    def sent_wrong(self) -> None:
        self.fail(INTERNAL_ERROR, False)

    def give_up(self) -> None:
        if self.request is None:  # nothing was written: the connection is as good as before
            self.end_stream()
            self.writing = W_IDLE
            if self.draining:
                self.close()
            self.offer()
            return
        if self.writing == W_TUNNEL or self.reading == R_TUNNEL or self.blocked:
            self.abort = True  # blocked: a server that takes nothing would keep what is unsent, and the connection, for ever
        self.end_stream()
        self.close()

    def end_stream(self) -> None:
        self.stream = None
        self.request = None
        self.request_out = None
        self.paused = False
        self.told_blocked = False
        if self.withheld or self.withheld_end:
            self.drop_withheld()

    def say_blocked(self) -> None:
        stream = self.stream
        if stream is not None:
            stream.sink.request_blocked()

    def say_unblocked(self) -> None:
        stream = self.stream
        if stream is not None:
            stream.sink.request_unblocked()

    def socket_unblocked(self) -> None:
        if self.writing == W_UNDECIDED and self.withheld:
            self.blocked = False  # what waits for the tunnel keeps the sender waiting; begin_tunnel() lets it go on
            self.release_output()
        else:
            super().socket_unblocked()

    # -- the connection

    def capacity(self) -> int:
        usable = self.ready and self.stream is None and not self.closing and not self.draining and not self.input_ended
        return 1 if usable else 0

    def active(self) -> int:
        return 0 if self.stream is None else 1

    def heaviest(self) -> Stream | None:
        return self.stream

    def drain(self) -> None:
        self.draining = True
        if self.stream is None:
            self.close()

    def awaiting(self) -> int:
        """How long a response may take to begin is the exchange's matter (timeouts of routes), not the connection's."""
        if self.closing or self.stream is None:
            return AWAITING_NOTHING
        if self.reading == R_HEAD and self.buffer:
            return AWAITING_HEAD
        body = self.reading == R_LENGTH or self.reading == R_CHUNKED or self.reading == R_UNTIL_CLOSE
        return AWAITING_BODY if body and not self.paused else AWAITING_US
