"""What an HTTP/2 connection sends, and in which order.

    Stream.send_*() --windows open--> write()  --> out       one wake() a turn
                    --windows spent-> queue    --> round --> out
                                      held

`held` is what waits here for a window or the socket: the queues of all streams, and, while the socket is full, the heads
and resets written all the same (`unsent`; they are in `out` or the transport, who says only "full" and "not full").  The
host hears of every change (on_held), and above a bound the connection takes no new streams.

A stream that has to wait does so in its own queue; those that wait only for the connection's window or the socket stand in
`round`, each writing one frame in its turn, so that no stream starves another (RFC 9113 5.2).  A stream whose own window
is spent is not in the round: its WINDOW_UPDATE brings it back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from meshproxy.wire.engine import Engine, Host
from meshproxy.wire.hpack.encoder import Encoder
from meshproxy.wire.http2.floods import LATE_FRAMES, Floods
from meshproxy.wire.http2.frames import (
    CONTINUATION,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    RESET_BYTES,
    frame_header,
    rst_frame,
)
from meshproxy.wire.http2.settings import PeerSettings
from meshproxy.wire.limits import Limits

if TYPE_CHECKING:
    from meshproxy.wire.http2.stream import Http2Stream

# Streams we reset whose frames may still be on their way: these are dropped without complaint (5.1, "closed").  As many as
# a mesh connection can carry may be cancelled at one stroke (the app behind them died), twice.
RESETS_REMEMBERED: Final = 2048


class Outbound(Engine):
    """The sending half of a connection."""

    def __init__(self, host: Host, limits: Limits, server: bool, mesh: bool, vouched: bool) -> None:
        super().__init__(host, server)
        self.limits = limits
        self.mesh = mesh  # the peer has shown that it belongs to the mesh
        self.peer = PeerSettings(from_server=not server)
        self.encoder = Encoder()
        self.floods = Floods(limits, server and not vouched)
        self.send_window = DEFAULT_WINDOW
        self.round: deque[Http2Stream] = deque()  # streams with a queue and a window of their own
        self.reset_ids: dict[int, int] = {}  # stream -> bytes that may still arrive on it; the newest last
        self.socket_full = False
        self.held = 0
        self.unsent = 0
        self.held_max = limits.mesh_connection_held if mesh else limits.connection_held
        self.batch = 0  # counts the turns in which `out` was begun

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
        if self.socket_full:
            self.hold_unsent(HEADER_BYTES + size)
        if size <= largest:
            frame = frame_header(size, HEADERS, flags | END_HEADERS, stream_id) + block
            if self.out:
                self.out.append(frame)
            else:
                self.write(frame)
            return
        self.write(frame_header(largest, HEADERS, flags, stream_id) + block[:largest])
        at = largest
        while at < size:
            part = block[at : at + largest]
            at += largest
            self.out.append(frame_header(len(part), CONTINUATION, END_HEADERS if at >= size else 0, stream_id) + part)

    def write_reset(self, stream_id: int, code: int, window: int) -> None:
        """RST_STREAM.  `window` is what the peer may have sent before it learns of it."""
        if len(self.reset_ids) >= RESETS_REMEMBERED:
            del self.reset_ids[next(iter(self.reset_ids))]
        self.reset_ids[stream_id] = window
        self.floods.late_frames += LATE_FRAMES
        if not self.closing:
            if self.socket_full:
                self.hold_unsent(RESET_BYTES)
            self.write(rst_frame(stream_id, code))

    # -- what waits

    def hold(self, change: int) -> None:
        """`change` bytes more (negative: fewer) wait here."""
        self.held += change
        self.host.on_held(change)

    def hold_unsent(self, size: int) -> None:
        self.unsent += size
        self.hold(size)

    def release_unsent(self) -> None:
        """The socket took what was written, or is gone."""
        if self.unsent:
            size = self.unsent
            self.unsent = 0
            self.hold(-size)

    def acknowledge(self, frame: bytes) -> None:
        self.write(frame)
        if self.socket_full:
            self.floods.acknowledge(len(frame))

    def socket_blocked(self) -> None:
        self.socket_full = True

    def socket_unblocked(self) -> None:
        self.socket_full = False
        self.floods.ack_bytes = 0
        self.release_unsent()
        self.write_round()

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
