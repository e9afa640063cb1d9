"""What an HTTP/2 connection receives: the frame loop and the rules of each frame (RFC 9113 4 and 6).

    bytes --read_frames()--> on_data, on_headers, on_continuation ...  --> Sink
                                         |
                                         v  the block is complete
                                     on_block() of the role             --> Host, Sink

The loop reads whole frames out of what arrived; only an incomplete one is kept, and its announced size is checked first.
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.wire.engine import (
    AWAITING_HEAD,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    Host,
)
from meshproxy.wire.http2.connection import Http2Connection
from meshproxy.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
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
    ping_frame,
    unpack_header,
    window_update_frame,
)
from meshproxy.wire.http2.stream import BODY, ENDED
from meshproxy.wire.http2.windows import ROUND_TRIP
from meshproxy.wire.limits import Limits

ORDINARY_FLAGS: Final = END_HEADERS | PADDED | WITH_PRIORITY  # of HEADERS: those that matter to how a block is read

# DATA frames of at least so many bytes may be handed on together, up to about so many at a time.  Smaller ones are looked at
# each for itself, as floods are made of them.
RUN_BYTES: Final = 1024
RUN_BYTES_MAX: Final = 64 * 1024


def missing(begun: bytes) -> int:
    """How many bytes the frame that `begun` begins lacks; 0 if that is not to be seen yet."""
    if len(begun) < HEADER_BYTES:
        return 0
    return HEADER_BYTES + int.from_bytes(begun[:3], "big") - len(begun)


class Inbound(Http2Connection):
    """The receiving half of a connection."""

    def __init__(self, host: Host, limits: Limits, server: bool, mesh: bool, vouched: bool) -> None:
        super().__init__(host, limits, server, mesh, vouched)
        self.buffer = b""  # the start of a frame that is not complete
        self.incomplete = 0  # counts such frames ...
        self.swept = 0  # ... as the last sweep found it
        self.swept_bytes = 0  # ... and how much of the last one was there
        self.stuck = False  # it found the same one again, and that it is no DATA
        self.arriving = 0  # the stream of the DATA frame of which it found more than before
        self.moved_at = 0.0  # the last sweep before which DATA came, of any stream.  No frame pays for that: the window tells,
        self.swept_window = self.window.available  # ... which is another than it found, or ...
        self.credited = False  # ... was granted again
        self.preface_left = len(PREFACE) if server else 0
        self.frame_bytes_max = max(FRAME_BYTES_MIN, limits.frame_bytes)
        self.block_flags = 0
        self.block_parts: list[bytes] = []

    def receive(self, data: bytes, now: float) -> None:
        if self.closing:
            return
        self.floods.now = now
        fresh = True
        at = 0
        begun = self.buffer
        if begun:
            fresh = False
            self.buffer = b""
            at = missing(begun)
            if at == 0 or at > len(data):
                data = begun + data
                begun = b""
                at = 0
        try:
            if begun:  # its frame only: what follows is not copied for the sake of what came before
                self.read_frames(begun + data[:at], 0)
            elif self.preface_left:
                at = self.read_preface(data)
            if not self.closing:
                at = self.read_frames(data, at)
        except ConnectionFault as fault:
            self.fail(fault.code, fault.label)
            return
        if at < len(data) and not self.closing:
            self.buffer = data[at:]
            if fresh or at:
                self.incomplete += 1

    def sweep(self, now: float, stall_s: float, body_s: float) -> bool:
        """A frame that stays incomplete from one sweep to the next is a peer that owes us its rest, as half a head is."""
        buffer = self.buffer
        size = len(buffer)
        same = self.incomplete == self.swept
        data = buffer[3:4] == b"\0"
        self.stuck = size != 0 and same and not data
        grown = data and size > HEADER_BYTES and not (same and size == self.swept_bytes)
        self.arriving = int.from_bytes(buffer[5:9], "big") & STREAM_ID_MAX if grown else 0
        self.swept = self.incomplete
        self.swept_bytes = size
        window = self.window.available
        if grown or self.credited or window != self.swept_window:
            self.moved_at = now
        self.swept_window = window
        self.credited = False
        return True

    def awaiting(self) -> int:
        return AWAITING_HEAD if self.stuck and self.buffer else super().awaiting()

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
                if length >= RUN_BYTES and flags == 0 and size - end >= HEADER_BYTES:
                    at = self.read_run(stream_id, data, start, end)
                else:
                    self.on_data(stream_id, flags, data[start:end])
            elif kind == HEADERS and self.block_stream == 0 and self.peer.received:
                if flags & ORDINARY_FLAGS == END_HEADERS and stream_id & 1:
                    self.on_block(stream_id, flags & END_STREAM != 0, data[start:end])
                else:
                    self.on_headers(stream_id, flags, data[start:end])
            else:
                self.on_other(kind, stream_id, flags, data[start:end])
            if self.closing:
                break
        return at

    def read_run(self, stream_id: int, data: bytes, start: int, end: int) -> int:
        """A DATA frame with the payload data[start:end], and those of its stream that follow, as if they had come in one:
        peers cut what they send into frames of 8 or 16 KiB, and what a piece costs on its way does not depend on its size.
        Returns where the last one ends."""
        view: Any = memoryview(data)
        parts = [view[start:end]]
        first = start
        flags = 0
        size = len(data)
        while flags == 0 and size - end >= HEADER_BYTES and end - first < RUN_BYTES_MAX:
            high, low, kind, flags, next_id = unpack_header(data, end)
            length: int = high << 8 | low
            start = end + HEADER_BYTES
            if (
                kind != DATA
                or next_id & STREAM_ID_MAX != stream_id
                or flags & ~END_STREAM
                or (length < RUN_BYTES and flags == 0)
                or length > self.frame_bytes_max
                or start + length > size
            ):
                flags = 0
                break
            end = start + length
            parts.append(view[start:end])
        self.on_data(stream_id, flags, data[first:end] if len(parts) == 1 else b"".join(parts))
        return end

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
            if int.from_bytes(payload[start : start + 4], "big") & STREAM_ID_MAX == stream_id:
                raise ConnectionFault(PROTOCOL_ERROR)  # depends on itself (RFC 7540 5.3.1)
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

    # -- bodies

    def on_data(self, stream_id: int, flags: int, data: bytes) -> None:
        length = len(data)
        window = self.window
        window.available -= length
        if window.available < 0:
            raise ConnectionFault(FLOW_CONTROL_ERROR)
        if window.available * 2 <= window.size:
            self.credited = True
            self.write(window_update_frame(0, window.credit(False)))
        stream = self.streams.get(stream_id)
        if stream is None:
            if stream_id == 0:
                raise ConnectionFault(PROTOCOL_ERROR)
            self.on_closed_stream(stream_id, length)
            return
        if flags & PADDED:
            if length == 0 or data[0] >= length:
                raise ConnectionFault(PROTOCOL_ERROR)
            data = data[1 : length - data[0]]
        if stream.received != BODY:
            self.stream_error(stream, STREAM_CLOSED if stream.received == ENDED else PROTOCOL_ERROR)
            return
        end = flags & END_STREAM != 0
        size = len(data)
        if not end or stream.window is not None or length > FRAME_BYTES_MIN:  # a first frame is within it, frames may not be
            stream_window = stream.receive_window()
            stream_window.available -= length
            if stream_window.available < 0:
                self.stream_error(stream, FLOW_CONTROL_ERROR)
                return
        elif length > self.stream_window:
            self.stream_error(stream, FLOW_CONTROL_ERROR)
            return
        if stream.expected >= 0:
            stream.expected -= size
            if stream.expected < 0 or (end and stream.expected):
                self.malformed(stream)  # content-length and DATA disagree (8.1.1)
                return
        if end:
            self.floods.without_progress = 0.0
            sink = stream.sink
            self.remote_ended(stream)
            if self.server:
                sink.request_data(data, True)
            else:
                sink.response_data(data, True)
            return
        if size == 0:
            self.floods.control()
            if not stream.paused:
                self.credit(stream, False)  # padding uses the window as well (6.1, 6.9.1)
            return
        self.floods.without_progress = 0.0
        stream.silent_since = 0.0
        if stream.paused:
            stream.tiny += self.floods.small_data(size)
        if self.server:
            stream.sink.request_data(data, False)
        else:
            stream.sink.response_data(data, False)
        if not stream.paused:
            self.credit(stream, True)

    # -- the other frames

    def on_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR)
        increment = int.from_bytes(payload, "big") & WINDOW_MAX
        self.floods.update()
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
            self.floods.late()
            return
        self.on_reset(stream, int.from_bytes(payload, "big"))

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
        self.encoder.limit(self.peer.header_table_low)
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

    def on_ping(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(PROTOCOL_ERROR)
        if len(payload) != 8:
            raise ConnectionFault(FRAME_SIZE_ERROR)
        self.floods.control()
        if not flags & ACK:
            self.acknowledge(ping_frame(payload, True))
        elif payload == ROUND_TRIP:
            self.growth.measured(self.floods.now)

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
            elif stream_id not in self.reset_ids:
                raise ConnectionFault(code)  # an idle stream cannot be reset (5.1)
