"""A connection of the reference engine, in both roles: its bytes, its life and its end.

    start() -> receive() ... -> drain(): GOAWAY -> drain_finish(): the final one -> closing, once no stream is left
                  `--> fail(): an error of the connection; GOAWAY goes out and every stream is reset

A client's drain is short: it opens no more, and is closing once what it has is answered.  What a peer may cost us is judged
here as in our own engine (`http2/floods.py`): h2 has no such limits.
"""

from __future__ import annotations

from typing import Final

from h2.exceptions import H2Error

from meshproxy.wire.engine import (
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    CONNECT_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    Host,
    Stream,
    is_overdue,
)
from meshproxy.wire.h2_adapter.inbound import H2Inbound
from meshproxy.wire.h2_adapter.outbound import LARGEST_STREAM_ID
from meshproxy.wire.h2_adapter.stream import H2Stream
from meshproxy.wire.http2.frames import LABELS, ConnectionFault
from meshproxy.wire.http2.settings import MESH_UPGRADE_CONTENT
from meshproxy.wire.limits import Limits

FRAME_HEADER_BYTES: Final = 9
GOAWAY_HEADER: Final = b"\0\0\x08\x07\0\0\0\0\0"  # h2's has no debug data
GOAWAY_BYTES: Final = 17
NOTHING_UNSENT: Final = -1  # no turn has this number

# What bytes from a peer can make h2 and hpack raise.  H2Error covers what h2 means to raise; the others are what
# mutated input was seen to bring out of it and its codecs.
PEER_ERRORS: Final = (H2Error, ValueError, KeyError, IndexError, AssertionError, OverflowError)


class H2Engine(H2Inbound):
    """What both roles share."""

    def start(self) -> None:
        self.h2.initiate_connection()
        if self.mesh:
            # hyperframe writes the low byte of a setting's number.  What a server has said so far is one SETTINGS frame.
            settings = self.h2.data_to_send()
            size = len(settings) - FRAME_HEADER_BYTES + 6
            self.out.append(size.to_bytes(3, "big") + settings[3:] + MESH_UPGRADE_CONTENT.to_bytes(2, "big") + b"\0\0\0\1")
            self.host.wake()
        self.h2.increment_flow_control_window(self.limits.connection_window - 65535)
        self.flush()

    def receive(self, data: bytes, now: float) -> None:
        if self.closing:
            return
        self.floods.now = now
        buffer = self.buffer + data
        at = 0
        end = len(buffer)
        try:
            if self.preface_left:
                at = min(self.preface_left, end)
                self.preface_left -= at
                self.h2.receive_data(buffer[:at])
            while end - at >= FRAME_HEADER_BYTES and not self.closing:
                length = int.from_bytes(buffer[at : at + 3], "big")
                if length > self.limits.frame_bytes:
                    raise ConnectionFault(FRAME_SIZE_ERROR)  # h2 would wait for all of it first
                stop = at + FRAME_HEADER_BYTES + length
                if stop > end:
                    break
                frame = buffer[at:stop]
                at = stop
                self.on_frame(frame)
                if self.socket_full:
                    self.floods.acknowledge(self.flush())
        except ConnectionFault as fault:
            self.fail(fault.code, fault.label)
            return
        except PEER_ERRORS as error:
            code = int(getattr(error, "error_code", PROTOCOL_ERROR))
            self.fail(code, LABELS.get(code, "h2_protocol_error") if self.ready else "h2_preface")
            return
        self.buffer = buffer[at:]
        self.check_drained()
        self.flush()

    def receive_eof(self) -> None:
        self.lost()
        self.closing = True
        self.host.wake()

    def lost(self) -> None:
        self.closing = True
        unsent = self.batch if self.out else NOTHING_UNSENT
        self.out.clear()
        self.release_unsent()
        self.end_streams(CANCEL if self.server else CONNECT_ERROR, unsent)

    def fail(self, code: int, label: str) -> None:
        """The connection is beyond repair.  The GOAWAY is ours: h2 has one only for some of its errors, and names the last
        stream it saw, not the last that was taken (RFC 9113 6.8: it may not go up again)."""
        self.host.on_violation(label)
        data = self.h2.data_to_send()
        if data[-GOAWAY_BYTES:].startswith(GOAWAY_HEADER):
            data = data[:-GOAWAY_BYTES]
        if data:
            self.out.append(data)
        self.write_goaway(self.last_id, code)
        self.closing = True
        self.end_streams(code, NOTHING_UNSENT)
        self.host.wake()

    def end_streams(self, code: int, unsent: int) -> None:
        """Every stream is reset; those written in the turn `unsent` were never handed to the socket."""
        streams = list(self.streams.values())
        self.streams = {}
        self.waiting = {}
        for stream in streams:
            stream.closed = True
            stream.queue = []
            self.hold(stream, -stream.held)
            if self.server:
                stream.sink.request_reset(code)
            else:
                stream.sink.response_reset(code, stream.batch == unsent)

    def awaiting(self) -> int:
        if self.preface_left or not self.ready:
            return AWAITING_HEAD
        return AWAITING_US if self.streams else AWAITING_NOTHING

    def sweep(self, now: float, stall_s: float, body_s: float) -> bool:
        if self.moved:
            self.moved = False
            self.moved_at = now
        if self.server:
            for stream in list(self.streams.values()):
                if stream.remote_open and not stream.head_sent and not stream.closed and stream.method != b"CONNECT":
                    self.await_body(stream, now, body_s)
        return True

    def await_body(self, stream: H2Stream, now: float, body_s: float) -> None:
        if stream.paused or body_s == 0.0:
            stream.silent_since = 0.0
        elif stream.silent_since == 0.0:
            stream.silent_since = now
        elif is_overdue(stream.silent_since, self.moved_at, now, body_s):
            stream.silent_since = now
            begun = stream.begun
            stream.begun = True
            if not stream.sink.request_silent(begun):
                self.host.on_violation("slow_body")
                self.write_reset(stream.stream_id, CANCEL)
                self.abandon(stream, CANCEL, False)
                self.flush()

    def ping(self) -> None:
        if not self.closing:
            self.h2.ping(b"meshping")
            self.flush()

    def socket_blocked(self) -> None:
        self.socket_full = True

    def socket_unblocked(self) -> None:
        self.socket_full = False
        self.floods.ack_bytes = 0
        self.release_unsent()
        self.write_waiting()
        self.flush()

    def drain(self) -> None:
        if self.draining or self.closing:
            return
        self.draining = True
        if self.server:
            self.write_goaway(LARGEST_STREAM_ID, NO_ERROR)
        else:
            self.check_drained()

    def drain_finish(self) -> None:
        if self.server and self.draining and not self.closing:
            self.write_goaway(self.last_id, NO_ERROR)
            self.refusing = True
            self.check_drained()


class H2Server(H2Engine):
    """The server role."""

    def __init__(self, host: Host, limits: Limits, mesh: bool = False, vouched: bool = False) -> None:
        super().__init__(host, limits, True, mesh, mesh or vouched)


class H2Client(H2Engine):
    """The client role.  A stream gets its number when its head is sent: numbers must go out in order (RFC 9113 5.1.1)."""

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, False, False, False)

    def open(self) -> Stream:
        stream = H2Stream(self, 0)
        self.unnumbered += 1
        return stream

    def capacity(self) -> int:
        if not self.ready or self.goaway_received or self.draining or self.closing or self.unsent > self.held_max:
            return 0
        return max(0, int(self.h2.remote_settings.max_concurrent_streams) - self.active())

    def release_unsent(self) -> None:
        full = self.unsent > self.held_max
        super().release_unsent()
        if full and not self.closing and not self.draining:
            self.host.on_capacity()
