"""A connection of the reference engine, in both roles: its bytes, its life and its end.

    start() -> receive() ... -> drain(): GOAWAY -> drain_finish(): the final one -> closing, once no stream is left
                  `--> fail(): an error of the connection; h2's GOAWAY goes out and every stream is reset

A client's drain is short: it opens no more, and is closing once what it has is answered.
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
from meshproxy.wire.http2.settings import MESH_UPGRADE_CONTENT
from meshproxy.wire.limits import Limits

FRAME_HEADER_BYTES: Final = 9
GOAWAY_FRAME: Final = 7
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
                    self.h2.close_connection(FRAME_SIZE_ERROR)  # h2 would wait for all of it first
                    self.fail(FRAME_SIZE_ERROR)
                    return
                stop = at + FRAME_HEADER_BYTES + length
                if stop > end:
                    break
                frame = buffer[at:stop]
                at = stop
                if frame[3] == GOAWAY_FRAME and length >= 8 and frame[5:9] == b"\0\0\0\0":
                    self.on_goaway_frame(frame)
                else:
                    for event in self.h2.receive_data(frame):
                        self.on_event(event)
        except PEER_ERRORS as error:
            self.fail(getattr(error, "error_code", PROTOCOL_ERROR))
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
        self.end_streams(CANCEL if self.server else CONNECT_ERROR, unsent)

    def fail(self, code: int) -> None:
        """The connection is beyond repair: h2 has written its GOAWAY already, where it could."""
        self.host.on_violation("h2_protocol_error")
        self.out.append(self.h2.data_to_send())
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

    def __init__(self, host: Host, limits: Limits, mesh: bool = False) -> None:
        super().__init__(host, limits, True, mesh)


class H2Client(H2Engine):
    """The client role.  A stream gets its number when its head is sent: numbers must go out in order (RFC 9113 5.1.1)."""

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, False, False)

    def open(self) -> Stream:
        stream = H2Stream(self, 0)
        self.unnumbered += 1
        return stream

    def capacity(self) -> int:
        if not self.ready or self.goaway_received or self.draining or self.closing:
            return 0
        return max(0, int(self.h2.remote_settings.max_concurrent_streams) - self.active())
