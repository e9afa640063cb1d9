"""The client role: header blocks are responses.

    received: HEAD --1xx--> HEAD --head--> BODY --data ...--> trailers or END_STREAM

A stream that the server certainly did not work on says so (`unprocessed`), because only then may a request that is not
idempotent be sent again: REFUSED_STREAM, a stream above GOAWAY's last id (RFC 9113 6.8, 8.7), or nothing of it was ever
handed to the socket.
"""

from __future__ import annotations

from meshproxy.wire.engine import NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, STREAM_CLOSED, Host, Stream, said_by_peer
from meshproxy.wire.http2.connection import BLOCK_BYTES_MAX, BLOCKS_MAX
from meshproxy.wire.http2.frames import STREAM_ID_MAX, goaway_frame
from meshproxy.wire.http2.heads import expected_body, response_head, trailer_fields
from meshproxy.wire.http2.inbound import Inbound
from meshproxy.wire.http2.stream import BODY, ENDED, HEAD, Http2Stream
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head, MalformedField


class Contained:
    """What a block means whatever the dynamic table holds: its head, and what it adds to the table."""

    def __init__(self, head: Head, inserted: list[Field]) -> None:
        self.head = head
        self.inserted = inserted


class Http2Client(Inbound):
    """HTTP/2, client role, behind the interface of `wire/engine.py`."""

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, False, False, False)
        self.next_id = 1
        self.unnumbered = 0  # streams opened whose head is not yet sent
        # Blocks that add to the table and refer to nothing in it: nginx writes every answer so.
        self.contained: dict[bytes, Contained] = {}

    def open(self) -> Stream:
        if self.peer.received == 0 or self.leaving or self.draining or self.closing:
            raise RuntimeError("open() called although capacity() is 0")
        self.unnumbered += 1
        return Http2Stream(self)

    def capacity(self) -> int:
        """None, too, while heads and resets pile up before a full socket: requests then wait in the pool, where those that
        are cancelled leave nothing behind.  Bodies do not count: they are bounded, and stall only themselves."""
        if self.peer.received == 0 or self.leaving or self.draining or self.closing or self.unsent > self.held_max:
            return 0
        room = self.peer.max_concurrent_streams - len(self.streams) - self.unnumbered
        return room if room > 0 else 0

    def active(self) -> int:
        return len(self.streams) + self.unnumbered

    def number(self, stream: Http2Stream) -> None:
        stream.stream_id = self.next_id
        stream.send_window = self.peer.initial_window_size
        self.next_id += 2
        self.unnumbered -= 1
        self.streams[stream.stream_id] = stream
        if self.next_id > STREAM_ID_MAX and not self.leaving:
            self.leaving = True  # a new connection is needed (5.1.1)
            self.host.on_goaway(NO_ERROR)

    def on_block(self, stream_id: int, end: bool, block: bytes) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self.on_closed_stream(stream_id, 0)
            self.decode(block)
            return
        if stream.received == HEAD:
            self.on_response(stream, end, block)
            return
        fields = self.decode(block)
        if stream.received == ENDED:
            self.stream_error(stream, STREAM_CLOSED)
            return
        if self.decoder.overflow or sum([field.size for field in fields]) > self.limits.trailer_bytes:
            self.too_large(stream)
            return
        try:
            if not end or stream.expected > 0 or stream.tunnel:  # in a tunnel there is DATA alone (8.5)
                raise MalformedField("trailers do not end the stream, the body is short, or it is a tunnel")
            kept = trailer_fields(fields)
        except MalformedField:
            self.malformed(stream)
            return
        sink = stream.sink
        self.remote_ended(stream)
        sink.response_trailers(kept)

    def on_response(self, stream: Http2Stream, end: bool, block: bytes) -> None:
        head = self.blocks.get(block)
        if head is None:
            contained = self.contained.get(block)
            if contained is not None:
                self.decoder.repeat(contained.inserted)
                self.forget_blocks()
                head = contained.head
        if head is None:
            fields = self.decode(block)
            if self.decoder.overflow:
                self.too_large(stream)
                return
            try:
                head = response_head(fields)
            except MalformedField:
                self.malformed(stream)
                return
            self.remember_block(block, head)
            self.remember_contained(block, head)
        sink = stream.sink
        if head.status < 200:
            stream.interims += 1
            if end or stream.interims > self.limits.interim_responses:
                self.malformed(stream)
            else:
                self.floods.control()
                sink.response_interim(head)
            return
        if head.status == 200 and stream.method == b"GET":
            stream.expected = head.content_length
        else:
            stream.expected = expected_body(head, stream.method)
        if end and stream.expected > 0:
            self.malformed(stream)
            return
        self.floods.without_progress = 0.0
        stream.received = BODY
        stream.tunnel = stream.method == b"CONNECT" and head.status < 300
        if end:
            self.remote_ended(stream)
        sink.response_head(head, end)

    def remember_contained(self, block: bytes, head: Head) -> None:
        decoder = self.decoder
        if decoder.changed and not decoder.dynamic and len(block) <= BLOCK_BYTES_MAX and CACHES.enabled:
            if len(self.contained) >= BLOCKS_MAX:
                self.contained = {}
            self.contained[block] = Contained(head, decoder.inserted)

    def too_large(self, stream: Http2Stream) -> None:
        self.stream_error(stream, PROTOCOL_ERROR, "h2_head_too_large")

    def on_reset(self, stream: Http2Stream, code: int) -> None:
        self.finish(stream)
        stream.sink.response_reset(said_by_peer(code, stream.method == b"CONNECT"), code == REFUSED_STREAM)

    def tell_reset(self, stream: Http2Stream, code: int, unprocessed: bool) -> None:
        stream.sink.response_reset(code, unprocessed)

    def idle(self, stream_id: int) -> bool:
        return stream_id >= self.next_id or not stream_id & 1

    def on_goaway(self, last_id: int, code: int) -> None:
        first = not self.leaving
        self.leaving = True
        for stream in list(self.streams.values()):
            if stream.stream_id > last_id:
                self.finish(stream)
                stream.sink.response_reset(code, True)
        if first:
            self.host.on_goaway(code)

    def on_peer_settings(self) -> None:
        if self.peer.received == 1:
            self.host.on_ready()
        else:
            self.host.on_capacity()

    def on_finished(self, stream: Http2Stream) -> None:
        if stream.stream_id == 0 and not self.closing:
            self.unnumbered -= 1
        if self.draining:
            self.check_drained()
        else:
            self.host.on_capacity()

    def on_settings_acknowledged(self) -> None:
        super().on_settings_acknowledged()
        self.contained = {}  # likewise

    def release_unsent(self) -> None:
        full = self.unsent > self.held_max
        super().release_unsent()
        if full and not self.closing and not self.draining:
            self.host.on_capacity()

    def drain(self) -> None:
        if not self.draining and not self.closing:
            self.draining = True
            self.check_drained()

    def check_drained(self) -> None:
        if self.active() == 0 and not self.closing:
            self.write(goaway_frame(0, NO_ERROR))
            self.closing = True
            self.host.wake()

    def drain_finish(self) -> None:
        """A client's drain needs no second step."""

    def end_streams(self, code: int, unsent: int) -> None:
        self.unnumbered = 0
        super().end_streams(code, unsent)
