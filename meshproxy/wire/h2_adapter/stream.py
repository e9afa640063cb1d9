"""One stream of the reference engine: what our side does with it.

    send_head() --> h2      send_data() --> queue --as windows allow--> h2      send_trailers() wait behind the queue

A client's stream has no number until its head is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshproxy.wire.engine import CANCEL, HTTP_1_1_REQUIRED, INTERNAL_ERROR, NO_ERROR, NULL_SINK, Stream
from meshproxy.wire.http2.heads import carries_upgrade, request_pseudo
from meshproxy.wire.message import Field, Head, without_length, without_upgrade

if TYPE_CHECKING:
    from meshproxy.wire.h2_adapter.outbound import H2Outbound


SMALL_BYTES: Final = 1024  # smaller pieces that wait are joined: each costs about 150 bytes besides


class H2Stream(Stream):
    """One stream.  `queue` holds what windows do not allow yet; `remote_open` and `local_open` are the two directions."""

    def __init__(self, engine: H2Outbound, stream_id: int) -> None:
        super().__init__()
        self.engine = engine
        self.stream_id = stream_id
        self.local_open = True
        self.remote_open = True
        self.closed = False
        self.head_sent = False
        self.head_received = False
        self.method = b""
        self.interims = 0  # 1xx that came
        self.tunnel = False  # CONNECT that was accepted: the directions end on their own
        self.expected = -1  # DATA bytes still to come by content-length, -1 if not declared
        self.queue: list[tuple[bytes, bool]] = []
        self.trailers: list[Field] | None = None  # wait behind the queue
        self.held = 0  # bytes of the queue
        self.tiny = 0  # overhead counted for small pieces that came while it was paused
        self.blocked = False
        self.paused = False
        self.received = 0  # bytes not yet returned as window
        self.batch = 0  # the turn in which the request was written
        self.silent_since = 0.0  # when a sweep found the request's body standing still; 0 again as soon as any of it comes
        self.left = 0  # of the content of a request whose Upgrade was left out: it ends there, and what follows is dropped
        self.begun = False  # some of the body came, 100 (Continue) went out, or has been waited for long enough

    def send_interim(self, head: Head) -> None:
        if not self.closed and self.local_open:
            self.engine.write_head(self, [(b":status", b"%d" % head.status)], head, [], False)
            if head.status == 100:
                self.begun = True
                self.silent_since = 0.0

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        engine = self.engine
        if self.closed or not self.local_open:
            return
        if head.status:
            status = head.status
            if status == 101:  # how HTTP/1.1 accepts what is extended CONNECT here (RFC 8441 5)
                status = 200
            self.tunnel = self.method == b"CONNECT" and status < 300
            pseudo = [(b":status", b"%d" % status)]
        else:
            gone = engine.closing or engine.goaway_received
            takes = engine.peer_takes_extended_connect()
            content = engine.peer_takes_upgrade_content()
            if head.protocol and head.method != b"CONNECT" and not (takes and carries_upgrade(head, extra, content)):
                head = without_upgrade(head)  # from HTTP/1.1, and its content has a length, or there is none
                self.left = max(head.content_length, 0)
                end = self.left == 0
            self.method = head.method
            if head.protocol:
                self.method = b"CONNECT"
                head = without_length(head)
            if gone or (head.protocol and not takes):
                engine.finish(self)
                self.sink.response_reset(CANCEL if gone else HTTP_1_1_REQUIRED, True)
                return
            engine.number(self)
            pseudo = request_pseudo(head)
        self.head_sent = True
        engine.write_head(self, pseudo, head, extra, end)
        if end:
            self.local_open = False
            engine.settle(self)
            engine.flush()

    def asked_tunnel(self) -> bool:
        return self.method == b"CONNECT"

    def send_data(self, data: bytes, end: bool) -> None:
        if self.closed or not self.local_open:
            return
        if self.left:
            if len(data) >= self.left:
                data = data[: self.left]
                end = True
            elif end:
                sink = self.sink
                self.reset(CANCEL)
                sink.response_reset(INTERNAL_ERROR, False)
                return
            self.left -= len(data)
        if self.blocked and self.queue and len(self.queue[-1][0]) < SMALL_BYTES:
            self.queue[-1] = (self.queue[-1][0] + data, end)
        else:
            self.queue.append((data, end))
        if end:
            self.local_open = False
        engine = self.engine
        if not self.blocked:
            engine.write_queue(self)
            if self.queue:
                engine.block(self)
            else:
                engine.settle(self)
        else:
            engine.hold(self, len(data))
        engine.flush()

    def send_trailers(self, fields: list[Field]) -> None:
        if self.closed or not self.local_open:
            return
        self.local_open = False
        self.trailers = fields
        if not self.queue:
            self.engine.write_queue(self)
            self.engine.settle(self)
        self.engine.flush()

    def reset(self, code: int) -> None:
        if self.closed:
            return
        engine = self.engine
        self.sink = NULL_SINK
        if code == NO_ERROR and engine.server and self.queue and not self.local_open:
            self.tunnel = False  # everything is said and goes first; with it the stream ends, whatever the client does
            return
        if self.stream_id:
            engine.write_reset(self.stream_id, code)
        engine.finish(self)
        engine.flush()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self.engine.floods.tiny -= self.tiny
        self.tiny = 0
        if not self.closed:
            self.engine.credit(self)
            self.engine.flush()
