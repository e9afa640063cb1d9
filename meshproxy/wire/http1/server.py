"""The server role of HTTP/1.1: requests in, responses out, one exchange after the other (RFC 9112 9.3).

    idle --head--> on_request --body--> complete --+--(response sent)--> idle, or close
                                response sent first: close, lingering (the rest of the request is not read)
    CONNECT, Upgrade: complete for now; 2xx / 101 --> tunnel; anything else: an ordinary response
    Upgrade with content: `request_data` has its bytes, then those of the tunnel, and no end between

A refusal is a small whole response that names itself in `mesh-error`, then close.  Pipelined requests wait in the buffer
and are parsed when the response before them is done, so answers cannot change places.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import (
    AWAITING_BODY,
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
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
    W_CHUNKED,
    W_HEAD,
    W_IDLE,
    W_LENGTH,
    W_NOTHING,
    W_SENT,
    W_TUNNEL,
    W_UNTIL_CLOSE,
    Http1Connection,
)
from meshproxy.wire.http1.head import CR, BadMessage
from meshproxy.wire.http1.serialize import (
    CHUNKED,
    CLOSE,
    CRLF,
    KEEP_ALIVE,
    NO_CONTENT,
    field_lines,
    refusal,
    response_start,
    tunnel_start,
)
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head

EMPTY_LINES: Final = 1  # before a request line; some clients send one after a body (RFC 9112 2.2)


class ServerStream(Stream):
    """One request and its response.  Does nothing once its exchange is over."""

    def __init__(self, engine: Http1Server, head: Head) -> None:
        self.sink = NULL_SINK  # what Stream.__init__ does, without the call: one for each request
        self.engine = engine
        self.head = head

    def send_interim(self, head: Head) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.send_interim(head)

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        engine = self.engine
        if engine.stream is self and engine.writing == W_HEAD:
            engine.send_response(self, head, extra, end)

    def send_data(self, data: bytes, end: bool) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.write_data(data, end)

    def send_trailers(self, fields: list[Field]) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.write_trailers(fields)

    def reset(self, code: int) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.give_up(code)

    def pause(self) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.pause()

    def resume(self) -> None:
        engine = self.engine
        if engine.stream is self:
            engine.resume()


class Http1Server(Http1Connection):
    informed: bool = False  # the client was sent a 1xx; here, because few are (see proxy/server.py)

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, True)
        self.stream: ServerStream | None = None
        self.keep_alive = True  # the connection may be used again after this exchange
        self.undecided = False  # the request asks for a tunnel and is not answered yet
        self.expecting = False  # the client waits for 100 (Continue) before it sends the body
        self.empty_lines = 0

    def start(self) -> None:
        """Nothing to say first."""

    # -- the request

    def read_head(self) -> bool:
        data = self.buffer
        while data[0] == CR:
            if len(data) == 1:
                return False
            if data[1] != 10 or self.empty_lines >= EMPTY_LINES:
                raise BadMessage(400, "h1_request_line", "a request does not begin with a method")
            self.empty_lines += 1
            self.buffer = data = data[2:]
            if not data:
                return False
        end = self.heads.cut(data)
        if end < 0:
            return False
        head = self.heads.parse(data[:end])
        self.buffer = data[end + 4 :]
        self.empty_lines = 0
        self.stream = stream = ServerStream(self, head)
        self.writing = W_HEAD
        self.told_blocked = False
        self.keep_alive = not head.close
        self.expecting = False
        if self.informed:
            self.informed = False
        ended = True
        if head.chunked:
            self.reading = R_CHUNKED
            self.chunks = ChunkedDecoder(self.limits, head.connection)
            self.expecting = head.expect_continue
            ended = False
        elif head.content_length > 0:
            self.reading = R_LENGTH
            self.left_in = head.content_length
            self.expecting = head.expect_continue
            if head.protocol:
                self.undecided = True
            ended = False
        else:
            self.reading = R_COMPLETE
            if head.protocol or head.method == b"CONNECT":
                self.undecided = True
                ended = False
        self.host.on_request(stream, head, ended)
        return True

    def body(self, data: bytes) -> None:
        self.expecting = False
        stream = self.stream
        if stream is not None:
            stream.sink.request_data(data, False)

    def body_end(self, data: bytes, trailers: list[Field]) -> None:
        self.expecting = False
        stream = self.stream
        if stream is None:
            return
        if not trailers:
            stream.sink.request_data(data, not self.undecided)
            return
        if data:
            stream.sink.request_data(data, False)
        if self.stream is stream:
            stream.sink.request_trailers(trailers)

    def receive_eof(self) -> None:
        if self.input_ended or self.closing:
            return
        self.input_ended = True
        stream = self.stream
        if stream is None:
            self.close()
        elif self.reading == R_TUNNEL:
            self.reading = R_ENDED
            over = self.writing == W_SENT
            if over:
                self.stream = None
            stream.sink.request_data(b"", True)
            if over:
                self.close()
        elif self.reading != R_COMPLETE:
            self.end_stream()
            self.close()
            stream.sink.request_reset(CANCEL)
        # else: the client sent all it had to say and waits for the answer; `finish` closes afterwards.

    def lost(self) -> None:
        stream = self.stream
        self.end_stream()
        self.close()
        self.release_output()
        if stream is not None:
            stream.sink.request_reset(CANCEL)

    def bad(self, error: BadMessage) -> None:
        self.host.on_violation(error.label)
        self.refuse(error.status, error.label, error.text)

    def refuse(self, status: int, label: str, text: str) -> None:
        """Answers with a small response of our own, if no answer has begun, and closes.  Also for the host's timers: 408."""
        stream = self.stream
        begun = self.writing != W_IDLE and self.writing != W_HEAD
        self.end_stream()
        if not self.closing and not begun:
            self.put(refusal(status, label, text, self.host.dated()))
        self.linger = True
        self.abort = self.writing == W_UNTIL_CLOSE or self.writing == W_TUNNEL  # there FIN would be a clean end
        self.close()
        if stream is not None:
            stream.sink.request_reset(PROTOCOL_ERROR)

    # -- the response

    def send_interim(self, head: Head) -> None:
        if self.writing != W_HEAD or head.status == 101:
            return
        if head.status == 100 and self.expecting:
            self.expecting = False
            self.host.on_invited()
        stream = self.stream
        if stream is not None and stream.head.version != 10:  # RFC 9110 15.2: never to a 1.0 client
            self.informed = True
            self.put(response_start(head) + CRLF)

    def send_response(self, stream: ServerStream, head: Head, extra: list[Field], end: bool) -> None:
        request = stream.head
        status = head.status
        if status < 200 and status != 101:
            self.send_interim(head)
            return
        if self.undecided:
            self.undecided = False
            if self.answer_tunnel(request, head, extra, end):
                return
            # Bytes sent in the hope of a tunnel must not be taken for a request: these, and what may follow the content.
            if self.buffer or self.reading != R_COMPLETE:
                self.keep_alive = False
        elif status == 101:
            self.refuse(502, "h1_unexpected_101", "the upstream switched protocols without being asked")  # RFC 9110 15.2.2
            return
        # What is no success, over before its request, or instead of 100 (Continue), means that the rest is not wanted: whoever
        # answers may end first, and a connection that then closes has to say so with the head (RFC 9112 9.6).  A 2xx may
        # stream while the request does.
        unread = self.reading != R_COMPLETE and (end or self.expecting or status >= 300)
        if self.draining or unread or (self.input_ended and not self.buffer):
            self.keep_alive = False
        tail = b""
        if request.method == b"HEAD" or status == 204 or status == 304:
            self.writing = W_NOTHING
        elif head.content_length >= 0:
            self.writing = W_LENGTH
            self.left_out = head.content_length
        elif end:
            self.writing = W_NOTHING
            tail = NO_CONTENT
        elif request.version != 10:
            self.writing = W_CHUNKED
            tail = CHUNKED
        else:
            self.writing = W_UNTIL_CLOSE
            self.keep_alive = False
        if not self.keep_alive:
            tail += CLOSE
        elif request.version == 10:
            tail += KEEP_ALIVE
        tail += CRLF
        start = head.memo_h1
        if start is None or not CACHES.enabled:
            start = response_start(head)
        self.put(start + field_lines(extra) + tail if extra else start + tail)
        if end:
            self.write_data(b"", True)

    def answer_tunnel(self, request: Head, head: Head, extra: list[Field], end: bool) -> bool:
        """True if this response makes the connection a tunnel."""
        status = head.status
        protocol = request.protocol
        if protocol:
            # 101 from an HTTP/1.1 server; from HTTP/2 extended CONNECT is accepted with 2xx (RFC 8441 5).
            if status != 101 and not (head.version == 20 and 200 <= status <= 299):
                return False
            protocol = head.protocol or protocol
        elif not 200 <= status <= 299:
            return False
        self.put(tunnel_start(head, protocol) + field_lines(extra) + CRLF)
        self.writing = W_TUNNEL
        self.keep_alive = False
        if self.reading == R_COMPLETE or self.reading == R_LENGTH:  # of content whose rest the server did not wait for
            self.reading = R_TUNNEL
            if not self.processing:
                self.process()
            if self.input_ended:
                self.tunnel_input_ended()
        if end:
            self.write_data(b"", True)
        return True

    def tunnel_input_ended(self) -> None:
        """FIN came before the tunnel was granted: the half-close is passed on behind what was waiting."""
        stream = self.stream
        if stream is None or self.reading != R_TUNNEL:
            return
        data = self.buffer
        self.buffer = b""
        self.count_input()
        self.reading = R_ENDED
        stream.sink.request_data(data, True)

    def sent(self) -> None:
        if self.reading == R_COMPLETE:
            self.finish()
        elif self.reading == R_TUNNEL:
            self.half_close = True
            self.host.wake()
        elif self.reading == R_ENDED:
            self.end_stream()
            self.close()
        else:  # the request is still coming: the response stands, the connection does not
            self.end_stream()
            self.linger = True
            self.close()

    def finish(self) -> None:
        """Request and response are complete."""
        self.end_stream()
        if not self.keep_alive or self.draining or (self.input_ended and not self.buffer):
            self.linger = bool(self.buffer)
            self.close()
            return
        self.reading = R_HEAD
        self.writing = W_IDLE
        if not self.processing:
            if self.buffer:
                self.process()
            if self.input_ended and self.stream is None and not self.closing:
                self.close()  # what is left is no whole request
            elif self.holding:
                self.adjust_reading()

    def sent_wrong(self) -> None:
        """The client sees a response shorter than its length, which is what happened."""
        stream = self.stream
        self.end_stream()
        self.close()
        if stream is not None:
            stream.sink.request_reset(CANCEL)

    def give_up(self, code: int) -> None:
        if self.writing == W_SENT and code == NO_ERROR:
            self.linger = True  # a tunnel whose far end closed: everything is said, and has to arrive
        # Where only the end of the connection ends the message, FIN would make half a response look whole.
        elif self.writing == W_UNTIL_CLOSE or self.writing == W_TUNNEL or self.reading == R_TUNNEL:
            self.abort = True
        self.end_stream()
        self.close()

    def end_stream(self) -> None:
        self.stream = None
        self.undecided = False
        self.expecting = False
        self.paused = False
        self.told_blocked = False

    def say_blocked(self) -> None:
        stream = self.stream
        if stream is not None:
            stream.sink.response_blocked()

    def say_unblocked(self) -> None:
        stream = self.stream
        if stream is not None:
            stream.sink.response_unblocked()

    # -- the connection

    def active(self) -> int:
        return 0 if self.stream is None else 1

    def heaviest(self) -> Stream | None:
        return self.stream

    def capacity(self) -> int:
        return 0

    def open(self) -> Stream:
        raise RuntimeError("open() is for the client role")

    def drain(self) -> None:
        self.draining = True
        if self.stream is None and not self.buffer:
            self.close()

    def unanswered(self) -> bool:
        return self.input_ended and self.stream is not None and self.writing == W_HEAD and not self.informed

    def sweep(self, now: float, stall_s: float, body_s: float) -> bool:
        return self.reading != R_TUNNEL and self.writing != W_TUNNEL

    def awaiting(self) -> int:
        if self.closing:
            return AWAITING_NOTHING
        if self.stream is None:
            return AWAITING_HEAD if self.buffer else AWAITING_NOTHING
        if (self.reading == R_LENGTH or self.reading == R_CHUNKED) and not self.paused and not self.expecting:
            return AWAITING_BODY
        return AWAITING_US
