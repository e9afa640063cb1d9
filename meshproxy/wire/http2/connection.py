"""One side of an HTTP/2 connection (RFC 9113): the frame loop, and what both roles do alike.

    receive() -> frames -> on_data / on_headers / on_... -> Sink, Host           `out` gathers what to send, one write a turn
                              |
                              v  header block complete
                        on_block()     Http2Server (server.py): requests        Http2Client (client.py): responses

    PREFACE (server) -> SETTINGS -> open -> draining -> closing

Two kinds of error, as the RFC has them: a ConnectionFault raised anywhere below receive() becomes GOAWAY and the end of
every stream; stream_error() resets one stream, counts it, and the connection goes on.

Sending with windows spent: a stream waits in its own queue; those that only wait for the connection's window or the socket
stand in `round`, each writing one frame in its turn, so that no stream starves another.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from meshproxy.wire.engine import (
    AWAITING_BODY,
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    Engine,
    Host,
)
from meshproxy.wire.hpack.decoder import Decoder
from meshproxy.wire.hpack.encoder import Encoder
from meshproxy.wire.hpack.integers import HpackError
from meshproxy.wire.http2.floods import Floods
from meshproxy.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MIN,
    GOAWAY,
    HEADER_BYTES,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    STREAM_ID_MAX,
    WINDOW_MAX,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFault,
    frame_header,
    goaway_frame,
    ping_frame,
    rst_frame,
    settings_frame,
    unpack_header,
    window_update_frame,
)
from meshproxy.wire.http2.settings import PeerSettings, our_settings
from meshproxy.wire.http2.stream import BODY, ENDED, HEAD, Http2Stream
from meshproxy.wire.http2.windows import ReceiveWindow
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head

# Streams we reset whose frames may still be on their way: these are dropped without complaint (5.1, "closed").
RESETS_REMEMBERED: Final = 512

# Memoised header blocks a connection: 64 of at most 512 bytes, so a hostile peer can make it keep about 100 kB.
BLOCKS_MAX: Final = 64
BLOCK_BYTES_MAX: Final = 512


class Http2Connection(Engine):
    """What both roles share.  Http2Server and Http2Client say what a header block and a reset mean to them."""

    def __init__(self, host: Host, limits: Limits, server: bool) -> None:
        super().__init__(host, server)
        self.limits = limits
        self.peer = PeerSettings(from_server=not server)
        self.decoder = Decoder(limits.head_bytes, limits.head_fields)
        self.encoder = Encoder()
        self.floods = Floods(limits)
        self.blocks: dict[bytes, Head] = {}  # header block -> its head, while the dynamic table stays as it is
        self.streams: dict[int, Http2Stream] = {}
        self.reset_ids: dict[int, bool] = {}  # the newest last
        self.last_id = 0  # the highest stream the peer opened
        self.now = 0.0
        # reading
        self.buffer = b""
        self.preface_left = len(PREFACE) if server else 0
        self.frame_bytes_max = max(FRAME_BYTES_MIN, limits.frame_bytes)
        self.block_stream = 0  # whose header block is incomplete; 0 if none is
        self.block_flags = 0
        self.block_parts: list[bytes] = []
        # windows.  Until the peer has acknowledged our settings it may send what the default lets it send.
        self.window = ReceiveWindow(limits.connection_window, limits.connection_window, limits.connection_window)
        self.stream_window = max(limits.stream_window, DEFAULT_WINDOW)
        self.acknowledged = False
        self.send_window = DEFAULT_WINDOW
        # sending
        self.round: deque[Http2Stream] = deque()  # streams with a queue and a window of their own
        self.socket_full = False
        self.batch = 0  # counts the turns in which `out` was begun
        self.draining = False
        self.leaving = False  # client: the server takes no new streams

    # -- the connection

    def start(self) -> None:
        if not self.server:
            self.write(PREFACE)
        self.write(settings_frame(our_settings(self.limits, self.server)))
        self.write(window_update_frame(0, self.limits.connection_window - DEFAULT_WINDOW))

    def receive(self, data: bytes, now: float) -> None:
        if self.closing:
            return
        self.now = now
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        try:
            at = self.read_preface(data) if self.preface_left else 0
            at = self.read_frames(data, at)
        except ConnectionFault as fault:
            self.fail(fault.code, fault.label)
            return
        if at < len(data) and not self.closing:
            self.buffer = data[at:]

    def read_preface(self, data: bytes) -> int:
        """The client's first 24 bytes (3.4), compared as they come so that another protocol is noticed at once."""
        done = len(PREFACE) - self.preface_left
        part = data[: self.preface_left]
        if part != PREFACE[done : done + len(part)]:
            raise ConnectionFault(PROTOCOL_ERROR, "h2_preface")
        self.preface_left -= len(part)
        return len(part)

    def read_frames(self, data: bytes, at: int) -> int:
        """Handle the whole frames in data[at:]; where the first incomplete one starts."""
        size = len(data)
        while size - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack_header(data, at)
            length: int = high << 8 | low
            if length > self.frame_bytes_max:
                raise ConnectionFault(FRAME_SIZE_ERROR)
            start = at + HEADER_BYTES
            end = start + length
            if end > size:
                break
            at = end
            stream_id &= STREAM_ID_MAX
            if kind == DATA and self.block_stream == 0 and self.peer.received:
                self.on_data(stream_id, flags, data[start:end])
            elif kind == HEADERS and self.block_stream == 0 and self.peer.received:
                self.on_headers(stream_id, flags, data[start:end])
            else:
                self.on_other(kind, stream_id, flags, data[start:end])
            if self.closing:
                break
        return at

    def on_other(self, kind: int, stream_id: int, flags: int, payload: bytes) -> None:
        if self.block_stream:
            if kind != CONTINUATION or stream_id != self.block_stream:
                raise ConnectionFault(PROTOCOL_ERROR)  # a header block may not be interrupted (6.10)
            self.on_continuation(flags, payload)
        elif self.peer.received == 0 and (kind != SETTINGS or flags & ACK):
            raise ConnectionFault(PROTOCOL_ERROR, "h2_preface")  # SETTINGS come first (3.4)
        elif kind == WINDOW_UPDATE:
            self.on_window_update(stream_id, payload)
        elif kind == RST_STREAM:
            self.on_rst_stream(stream_id, payload)
        elif kind == SETTINGS:
            self.on_settings(stream_id, flags, payload)
        elif kind == PING:
            self.on_ping(stream_id, flags, payload)
        elif kind == GOAWAY:
            if stream_id:
                raise ConnectionFault(PROTOCOL_ERROR)
            if len(payload) < 8:
                raise ConnectionFault(FRAME_SIZE_ERROR)
            self.floods.control()
            self.on_goaway(int.from_bytes(payload[:4], "big") & STREAM_ID_MAX, int.from_bytes(payload[4:8], "big"))
        elif kind == PRIORITY:
            self.on_priority(stream_id, payload)
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise ConnectionFault(PROTOCOL_ERROR)  # push is off (8.4); CONTINUATION without HEADERS (6.10)
        else:
            self.floods.control()  # unknown types are ignored (4.1)

    def fail(self, code: int, label: str) -> None:
        """A connection error: GOAWAY, every stream ends, nothing is read any more (5.4.1)."""
        self.write(goaway_frame(self.last_id, code))
        self.closing = True
        self.host.on_violation(label)
        self.end_streams(code)
        self.host.wake()

    def receive_eof(self) -> None:
        self.lost()
        self.host.wake()

    def lost(self) -> None:
        self.closing = True
        self.end_streams(CANCEL)

    def end_streams(self, code: int) -> None:
        streams = self.streams
        self.streams = {}
        self.round.clear()
        for stream in list(streams.values()):
            if not stream.closed:
                stream.closed = True
                self.tell_reset(stream, code, bool(self.out) and stream.batch == self.batch)

    def write(self, data: bytes) -> None:
        """Append to `out`; the host is woken by the first bytes of a turn only."""
        out = self.out
        if out:
            out.append(data)
        else:
            self.batch += 1
            out.append(data)
            self.host.wake()

    def write_block(self, stream_id: int, block: bytes, end: bool) -> None:
        """HEADERS, with CONTINUATION where the peer's frame size asks for it."""
        largest = self.peer.max_frame_size
        flags = END_STREAM if end else 0
        size = len(block)
        if size <= largest:
            self.write(frame_header(size, HEADERS, flags | END_HEADERS, stream_id) + block)
            return
        self.write(frame_header(largest, HEADERS, flags, stream_id) + block[:largest])
        at = largest
        while at < size:
            part = block[at : at + largest]
            at += largest
            self.out.append(frame_header(len(part), CONTINUATION, END_HEADERS if at >= size else 0, stream_id) + part)

    def active(self) -> int:
        return len(self.streams)

    def awaiting(self) -> int:
        if self.peer.received == 0 or self.block_stream:
            return AWAITING_HEAD
        if not self.streams:
            return AWAITING_NOTHING
        for stream in self.streams.values():
            # A server that has begun to answer is in a conversation; a client waits for the rest of what began.
            due = stream.received == BODY and (not self.server or stream.sent == HEAD)
            if due and not stream.paused and stream.method != b"CONNECT":
                return AWAITING_BODY
        return AWAITING_US

    def ping(self) -> None:
        if not self.closing:
            self.write(ping_frame(b"meshping", False))

    def socket_blocked(self) -> None:
        self.socket_full = True

    def socket_unblocked(self) -> None:
        self.socket_full = False
        self.floods.ack_bytes = 0
        self.write_round()

    # -- header blocks

    def on_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id == 0 or not stream_id & 1:
            raise ConnectionFault(PROTOCOL_ERROR)  # streams are the client's, and odd (5.1.1)
        if flags & (PADDED | WITH_PRIORITY):
            payload = self.unpadded_headers(stream_id, flags, payload)
        if flags & END_HEADERS:
            self.on_block(stream_id, flags & END_STREAM != 0, payload)
        else:
            self.block_stream = stream_id
            self.block_flags = flags
            self.block_parts = [payload]

    def unpadded_headers(self, stream_id: int, flags: int, payload: bytes) -> bytes:
        """The block fragment without padding and priority (6.2)."""
        start = 0
        padding = 0
        if flags & PADDED:
            if not payload:
                raise ConnectionFault(FRAME_SIZE_ERROR)
            padding = payload[0]
            start = 1
        if flags & WITH_PRIORITY:
            if len(payload) < start + 5:
                raise ConnectionFault(FRAME_SIZE_ERROR)
            start += 5
        if start + padding > len(payload):
            raise ConnectionFault(PROTOCOL_ERROR)
        return payload[start : len(payload) - padding]

    def on_continuation(self, flags: int, payload: bytes) -> None:
        parts = self.block_parts
        parts.append(payload)
        if len(parts) > self.limits.continuation_frames + 1:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "h2_continuation_flood")
        if flags & END_HEADERS:
            stream_id = self.block_stream
            self.block_stream = 0
            self.block_parts = []
            self.on_block(stream_id, self.block_flags & END_STREAM != 0, b"".join(parts))

    def decode(self, block: bytes) -> list[Field]:
        """The block's fields; `decoder.overflow` says if they were too many.  Must see every block, in order (4.3)."""
        try:
            fields = self.decoder.decode(block)
        except HpackError:
            raise ConnectionFault(COMPRESSION_ERROR) from None
        if self.decoder.changed and self.blocks:
            self.blocks = {}
        return fields

    def remember_block(self, block: bytes, head: Head) -> None:
        if not self.decoder.changed and len(block) <= BLOCK_BYTES_MAX and CACHES.enabled:
            if len(self.blocks) >= BLOCKS_MAX:
                self.blocks = {}
            self.blocks[block] = head

    def on_block(self, stream_id: int, end: bool, block: bytes) -> None:
        raise NotImplementedError

    def on_goaway(self, last_id: int, code: int) -> None:
        raise NotImplementedError

    def tell_reset(self, stream: Http2Stream, code: int, unprocessed: bool) -> None:
        """Tell the sink of a stream that has just been closed."""
        raise NotImplementedError

    def on_closed_stream(self, stream_id: int) -> None:
        """A frame for a stream that is no more: fine if we reset it, or else an error of the connection (5.1)."""
        if stream_id in self.reset_ids:
            return
        raise ConnectionFault(PROTOCOL_ERROR if self.idle(stream_id) else STREAM_CLOSED)

    def idle(self, stream_id: int) -> bool:
        """Whether no one has opened this stream yet."""
        raise NotImplementedError

    # -- DATA

    def on_data(self, stream_id: int, flags: int, data: bytes) -> None:
        length = len(data)
        window = self.window
        window.available -= length
        if window.available < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR)
        granted = window.credit(False)
        if granted:
            self.write(window_update_frame(0, granted))
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id == 0:
                raise ConnectionFault(PROTOCOL_ERROR)
            self.on_closed_stream(stream_id)
            self.floods.control()
            return
        if flags & PADDED:
            if length == 0 or data[0] >= length:
                raise ConnectionFault(PROTOCOL_ERROR)
            data = data[1 : length - data[0]]
        if stream.received != BODY:
            self.stream_error(stream, STREAM_CLOSED if stream.received == ENDED else PROTOCOL_ERROR)
            return
        stream.window.available -= length
        if stream.window.available < 0:
            self.stream_error(stream, FLOW_CONTROL_ERROR)
            return
        end = flags & END_STREAM != 0
        size = len(data)
        if stream.expected >= 0:
            stream.expected -= size
            if stream.expected < 0 or (end and stream.expected):
                self.malformed(stream)  # content-length and DATA disagree (8.1.1)
                return
        if end:
            self.floods.without_progress = 0
            sink = stream.sink
            self.remote_ended(stream)
            if self.server:
                sink.request_data(data, True)
            else:
                sink.response_data(data, True)
            return
        if size == 0:
            self.floods.control()
            return
        self.floods.without_progress = 0
        if stream.paused:
            stream.tiny += self.floods.small_data(size)
        if self.server:
            stream.sink.request_data(data, False)
        else:
            stream.sink.response_data(data, False)
        if not stream.paused:
            self.credit(stream, True)

    def credit(self, stream: Http2Stream, grow: bool) -> None:
        """Grant the peer more window, if it is time to."""
        granted = stream.window.credit(grow)
        if granted and not stream.closed and not self.closing:
            self.write(window_update_frame(stream.stream_id, granted))

    # -- the other frames

    def on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR)
        increment = int.from_bytes(payload, "big") & WINDOW_MAX
        self.floods.control()
        if stream_id == 0:
            self.send_window += increment
            if increment == 0:
                raise ConnectionFault(PROTOCOL_ERROR)
            if self.send_window > WINDOW_MAX:
                raise ConnectionFault(FLOW_CONTROL_ERROR)
            self.write_round()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.idle(stream_id):
                raise ConnectionFault(PROTOCOL_ERROR)
            return  # it may have crossed the end of the stream (6.9)
        stream.send_window += increment
        if increment == 0:
            self.stream_error(stream, PROTOCOL_ERROR)
        elif stream.send_window > WINDOW_MAX:
            self.stream_error(stream, FLOW_CONTROL_ERROR)
        elif stream.queue is not None:
            self.schedule(stream)
            self.write_round()

    def on_rst_stream(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR)
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id == 0 or self.idle(stream_id):
                raise ConnectionFault(PROTOCOL_ERROR)
            self.floods.control()
            return
        self.on_reset(stream, int.from_bytes(payload, "big"))

    def on_reset(self, stream: Http2Stream, code: int) -> None:
        raise NotImplementedError

    def on_settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR)
        self.floods.control()
        if flags & ACK:
            if payload:
                raise ConnectionFault(FRAME_SIZE_ERROR)
            self.on_settings_acknowledged()
            return
        before = self.peer.initial_window_size
        self.peer.apply(payload)
        self.encoder.limit(self.peer.header_table_size)
        change = self.peer.initial_window_size - before
        if change:
            for stream in list(self.streams.values()):
                stream.send_window += change  # may become negative (6.9.2)
                if stream.send_window > WINDOW_MAX:
                    raise ConnectionFault(FLOW_CONTROL_ERROR)
                if stream.queue is not None:
                    self.schedule(stream)
        self.acknowledge(SETTINGS_ACK)
        self.on_peer_settings()
        self.write_round()

    def on_peer_settings(self) -> None:
        """Settings were applied."""

    def on_settings_acknowledged(self) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            self.decoder.limit = self.limits.table_bytes
            change = self.limits.stream_window - self.stream_window
            self.stream_window += change
            if change:
                for stream in self.streams.values():
                    stream.window.available += change

    def on_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR)
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR)
        self.floods.control()
        if not flags & ACK:
            self.acknowledge(ping_frame(payload, True))

    def acknowledge(self, frame: bytes) -> None:
        self.write(frame)
        if self.socket_full:
            self.floods.acknowledge(len(frame))

    def on_priority(self, stream_id: int, payload: bytes) -> None:
        """Priorities are obsolete (5.3); only the frame's form is checked."""
        if stream_id == 0:
            raise ConnectionFault(PROTOCOL_ERROR)
        self.floods.control()
        bad_size = len(payload) != 5
        if bad_size or int.from_bytes(payload[:4], "big") & STREAM_ID_MAX == stream_id:
            code = FRAME_SIZE_ERROR if bad_size else PROTOCOL_ERROR
            stream = self.streams.get(stream_id)
            if stream is not None:
                self.stream_error(stream, code)
            elif stream_id not in self.reset_ids and bad_size:
                raise ConnectionFault(code)

    # -- the life of a stream

    def malformed(self, stream: Http2Stream) -> None:
        self.host.on_violation("h2_malformed")
        self.stream_error(stream, PROTOCOL_ERROR)

    def stream_error(self, stream: Http2Stream, code: int) -> None:
        """An error that the peer made on one stream: it is reset, and the work it wasted is counted (5.4.2)."""
        wasted = stream.sent != ENDED
        self.write_reset(stream.stream_id, code)
        self.finish(stream)
        self.tell_reset(stream, code, False)
        if wasted:
            self.floods.reset(self.now)

    def write_reset(self, stream_id: int, code: int) -> None:
        if len(self.reset_ids) >= RESETS_REMEMBERED:
            del self.reset_ids[next(iter(self.reset_ids))]
        self.reset_ids[stream_id] = True
        if not self.closing:
            self.write(rst_frame(stream_id, code))

    def remote_ended(self, stream: Http2Stream) -> None:
        """END_STREAM was received."""
        stream.received = ENDED
        if stream.sent == ENDED or (not self.server and stream.method != b"CONNECT"):
            self.ended(stream)

    def ended(self, stream: Http2Stream) -> None:
        """The exchange is complete: both directions, or the response alone (see stream.py)."""
        if stream.received != ENDED:
            self.write_reset(stream.stream_id, NO_ERROR)
        elif stream.sent != ENDED:
            self.write_reset(stream.stream_id, CANCEL)
        self.finish(stream)

    def finish(self, stream: Http2Stream) -> None:
        """Forget a stream.  Everything that ends one comes through here (or through end_streams)."""
        if stream.closed:
            return
        stream.closed = True
        stream.queue = None
        stream.trailers = None
        self.floods.tiny -= stream.tiny
        self.streams.pop(stream.stream_id, None)
        self.on_finished(stream)

    def on_finished(self, stream: Http2Stream) -> None:
        """A stream is gone: there may be room for another, or a drain is complete."""

    def number(self, stream: Http2Stream) -> None:
        """Client role: give a stream its number."""
        raise NotImplementedError

    # -- sending what waits

    def block(self, stream: Http2Stream) -> None:
        """A stream has begun to queue: tell its sink once, and let it take part in the round."""
        if not stream.blocked:
            stream.blocked = True
            if self.server:
                stream.sink.response_blocked()
            else:
                stream.sink.request_blocked()
        if stream.queue is not None:
            self.schedule(stream)
            self.write_round()

    def schedule(self, stream: Http2Stream) -> None:
        if not stream.scheduled and stream.send_window > 0:
            stream.scheduled = True
            self.round.append(stream)

    def write_round(self) -> None:
        """One frame a stream in turn, as long as the connection's window and the socket allow."""
        round_ = self.round
        while round_ and self.send_window > 0 and not self.socket_full and not self.closing:
            stream = round_.popleft()
            stream.scheduled = False
            if stream.queue is None or stream.send_window <= 0:
                continue  # closed meanwhile, or its window shrank
            sink = stream.sink
            stream.write_some()
            if stream.queue is not None:
                self.schedule(stream)
            elif not stream.closed:
                stream.blocked = False
                if self.server:
                    sink.response_unblocked()
                else:
                    sink.request_unblocked()
