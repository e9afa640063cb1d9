"""The life of an HTTP/2 connection and of its streams (RFC 9113 3, 5.1, 5.4, 6.8).

    Outbound (outbound.py)     what is sent, and in which order
      Http2Connection          how connections and streams begin, fail and end          <- here
        Inbound (inbound.py)   what arrives: the frame loop
          Http2Server (server.py), Http2Client (client.py)   what a header block means to each role

    start() -> PREFACE (server) -> SETTINGS -> open -> draining -> closing

Two kinds of error, as the RFC has them: a ConnectionFault raised anywhere below receive() becomes GOAWAY and the end of
every stream; stream_error() resets one stream, counts what it wasted, and the connection goes on.
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import (
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    COMPRESSION_ERROR,
    CONNECT_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    Host,
    Stream,
)
from meshproxy.wire.hpack.decoder import Decoder
from meshproxy.wire.hpack.integers import HpackError
from meshproxy.wire.http2.frames import (
    DEFAULT_WINDOW,
    LABELS,
    PREFACE,
    RESET_BYTES,
    STREAM_ID_MAX,
    ConnectionFault,
    goaway_frame,
    ping_frame,
    settings_frame,
    window_update_frame,
)
from meshproxy.wire.http2.outbound import Outbound
from meshproxy.wire.http2.settings import head_limits, our_settings
from meshproxy.wire.http2.stream import ENDED, Http2Stream
from meshproxy.wire.http2.windows import ROUND_TRIP, Growth, ReceiveWindow
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head

# Memoised header blocks a connection: 64 of at most 512 bytes, whose heads keep 4 KiB each of what they are elsewhere
# (http1/serialize.py), so a hostile peer can make it keep about 300 kB.
BLOCKS_MAX: Final = 64
BLOCK_BYTES_MAX: Final = 512

NOTHING_UNSENT: Final = -1  # no turn has this number


class Http2Connection(Outbound):
    """What begins, fails and ends.  The methods that raise NotImplementedError are what the two roles do differently."""

    def __init__(self, host: Host, limits: Limits, server: bool, mesh: bool, vouched: bool) -> None:
        super().__init__(host, limits, server, mesh, vouched)
        self.streams_max = limits.mesh_streams if vouched else limits.streams
        head_bytes, head_fields = head_limits(limits, mesh or not server)
        self.decoder = Decoder(head_bytes, head_fields)
        self.blocks: dict[bytes, Head] = {}  # header block -> its head, while the dynamic table stays as it is
        self.streams: dict[int, Http2Stream] = {}
        self.last_id = 0  # the highest stream the peer opened
        self.final_id = STREAM_ID_MAX  # what our last GOAWAY said: it may not go up again (6.8)
        self.block_stream = 0  # whose header block is incomplete; 0 if none is
        # Until the peer has acknowledged our settings it may send what the default lets it send.
        self.window = ReceiveWindow(limits.connection_window, limits.connection_window, limits.connection_window)
        self.stream_window = max(limits.stream_window, DEFAULT_WINDOW)
        self.growth = Growth(limits)
        self.acknowledged = False
        self.draining = False
        self.leaving = False  # client: the server takes no new streams

    def start(self) -> None:
        if not self.server:
            self.write(PREFACE)
        self.write(settings_frame(our_settings(self.limits, self.server, self.streams_max, self.mesh)))
        self.write(window_update_frame(0, self.limits.connection_window - DEFAULT_WINDOW))

    def fail(self, code: int, label: str) -> None:
        """A connection error: GOAWAY, every stream ends, nothing is read any more (5.4.1)."""
        self.write(goaway_frame(min(self.last_id, self.final_id), code))
        self.closing = True
        self.host.on_violation(label)
        self.end_streams(code, NOTHING_UNSENT)  # what is in `out` will still be flushed
        self.host.wake()

    def receive_eof(self) -> None:
        self.lost()
        self.host.wake()

    def lost(self) -> None:
        """What is still in `out` will not be sent: a request that is whole in there was certainly not processed."""
        self.closing = True
        unsent = self.batch if self.out else NOTHING_UNSENT
        self.out.clear()
        self.release_unsent()
        self.end_streams(CANCEL if self.server else CONNECT_ERROR, unsent)

    def end_streams(self, code: int, unsent: int) -> None:
        """Every stream is reset; those written in the turn `unsent` were never handed to the socket."""
        streams = self.streams
        self.streams = {}
        self.round.clear()
        for stream in list(streams.values()):
            if not stream.closed:
                stream.closed = True
                self.drop_queue(stream)
                self.tell_reset(stream, code, stream.batch == unsent)

    def active(self) -> int:
        return len(self.streams)

    def heaviest(self) -> Stream | None:
        found: Http2Stream | None = None
        for stream in self.streams.values():
            if stream.held and (found is None or stream.held > found.held):
                found = stream
        return found

    def awaiting(self) -> int:
        if self.peer.received == 0 or self.block_stream:
            return AWAITING_HEAD
        return AWAITING_US if self.streams else AWAITING_NOTHING

    def ping(self) -> None:
        if not self.closing:
            self.write(ping_frame(b"meshping", False))

    # -- header blocks

    def decode(self, block: bytes) -> list[Field]:
        """The block's fields; `decoder.overflow` says if they were too many.  Must see every block, in order (4.3)."""
        try:
            fields = self.decoder.decode(block)
        except HpackError:
            raise ConnectionFault(COMPRESSION_ERROR) from None
        if self.decoder.changed:
            self.forget_blocks()
        return fields

    def decode_rest(self, block: bytes, at: int, size: int, count: int) -> list[Field]:
        """The same for a block of which `count` fields of `size` bytes, up to `at`, are known."""
        try:
            fields = self.decoder.rest(block, at, size, count)
        except HpackError:
            raise ConnectionFault(COMPRESSION_ERROR) from None
        if self.decoder.changed:
            self.forget_blocks()
        return fields

    def forget_blocks(self) -> None:
        """The dynamic table has changed: blocks may mean something else now."""
        if self.blocks:
            self.blocks = {}

    def remember_block(self, block: bytes, head: Head) -> None:
        if not self.decoder.changed and len(block) <= BLOCK_BYTES_MAX and CACHES.enabled:
            if len(self.blocks) >= BLOCKS_MAX:
                self.blocks = {}
            self.blocks[block] = head

    # -- what the roles do differently

    def on_block(self, stream_id: int, end: bool, block: bytes) -> None:
        raise NotImplementedError

    def on_goaway(self, last_id: int, code: int) -> None:
        raise NotImplementedError

    def tell_reset(self, stream: Http2Stream, code: int, unprocessed: bool) -> None:
        """Tell the sink of a stream that has just been closed."""
        raise NotImplementedError

    def idle(self, stream_id: int) -> bool:
        """Whether no one has opened this stream yet."""
        raise NotImplementedError

    def on_reset(self, stream: Http2Stream, code: int) -> None:
        raise NotImplementedError

    def number(self, stream: Http2Stream) -> None:
        """Client role: give a stream its number."""
        raise NotImplementedError

    # -- the life of a stream

    def on_closed_stream(self, stream_id: int, data_bytes: int) -> None:
        """A frame for a stream that is no more: fine if we reset it and the peer could not know, or else an error of the
        connection (5.1).  `data_bytes`: what a DATA frame took from the stream's window."""
        left = self.reset_ids.get(stream_id, -1) - data_bytes
        if left < 0:
            raise ConnectionFault(PROTOCOL_ERROR if self.idle(stream_id) else STREAM_CLOSED)
        if data_bytes:
            self.reset_ids[stream_id] = left
        else:
            self.floods.late()

    def credit(self, stream: Http2Stream, grow: bool) -> None:
        """Grant the peer more window, if it is time to."""
        window = stream.window
        if window is None:
            return
        granted = window.credit(grow)
        if not granted or stream.closed or self.closing:
            return
        if grow and self.growth.wants(window, self.floods.now):
            self.write(ping_frame(ROUND_TRIP, False))
        self.write(window_update_frame(stream.stream_id, granted))
        if self.socket_full:
            self.floods.acknowledge(RESET_BYTES)

    def on_peer_settings(self) -> None:
        """Settings were applied."""

    def on_settings_acknowledged(self) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            if self.decoder.limit != self.limits.table_bytes:
                self.decoder.limit = self.limits.table_bytes
                self.forget_blocks()  # the next block has to begin with a size update (RFC 7541 4.2), whatever it meant before
            change = self.limits.stream_window - self.stream_window
            self.stream_window += change
            if change:
                for stream in self.streams.values():
                    if stream.window is not None:
                        stream.window.available += change

    def malformed(self, stream: Http2Stream) -> None:
        self.stream_error(stream, PROTOCOL_ERROR, "h2_malformed")

    def stream_error(self, stream: Http2Stream, code: int, label: str = "") -> None:
        """An error that the peer made on one stream: it is reset, and the work it wasted is counted (5.4.2)."""
        self.host.on_violation(label or LABELS.get(code, "h2_protocol_error"))
        wasted = stream.sent != ENDED
        self.write_reset(stream.stream_id, code, max(0, stream.granted()))
        self.finish(stream)
        self.tell_reset(stream, code, False)
        if wasted:
            self.floods.reset()

    def remote_ended(self, stream: Http2Stream) -> None:
        """END_STREAM was received."""
        stream.received = ENDED
        if stream.sent == ENDED:
            self.finish(stream)
        elif not self.server and not stream.tunnel:
            self.ended(stream)

    def ended(self, stream: Http2Stream) -> None:
        """The exchange is complete: both directions, or the response alone (see stream.py)."""
        if stream.received != ENDED:
            self.write_reset(stream.stream_id, NO_ERROR, stream.granted())
        elif stream.sent != ENDED:
            self.write_reset(stream.stream_id, CANCEL, 0)
        self.finish(stream)

    def finish(self, stream: Http2Stream) -> None:
        """Forget a stream.  Everything that ends one comes through here (or through end_streams)."""
        if stream.closed:
            return
        stream.closed = True
        if stream.queue is not None or stream.held:
            self.drop_queue(stream)
        if stream.tiny:
            self.floods.tiny -= stream.tiny
        self.streams.pop(stream.stream_id, None)
        self.on_finished(stream)

    def drop_queue(self, stream: Http2Stream) -> None:
        stream.queue = None
        stream.trailers = None
        if stream.held:
            size = stream.held
            stream.held = 0
            self.hold(-size)

    def on_finished(self, stream: Http2Stream) -> None:
        """A stream is gone: there may be room for another, or a drain is complete."""
