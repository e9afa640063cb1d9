"""What a peer may cost us without giving us work (attacks: CVE-2023-44487, CVE-2025-8671, CVE-2019-9511 to -9518 ...).

    resets        of strangers: a bucket.  A reset while work was running costs 1, and 1 is forgiven every 1/rate seconds.
                  Who sent the RST_STREAM is the same to us: a client that provokes ours (MadeYouReset) wastes the same work
                  of peers in the mesh, and of the pod's own app: not counted.  A peer relays what its apps do (500 gRPC calls
                  a second may be cancelled by their deadlines, and one app's bad manners must not end the requests of the
                  others), so it is judged by the work it keeps running.  A reset ends the work before it returns
                  (Sink.request_reset cancels upstream), so that is the open streams, at most `mesh_streams`; and a
                  cancellation that cannot reach upstream because its socket is full counts as held bytes there, which
                  close that connection to new streams (Http2Client.capacity)
                  of servers: not counted.  Every one costs a request of our own, so it cannot come more often than we ask
    no progress   a bucket likewise: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, refused streams; a request, a
                  byte of body, or a byte that we could send, empties it
                  not counted is what our own frames have asked for: some WINDOW_UPDATEs for each DATA frame (a receiver may
                  acknowledge each, RFC 9113 6.9), and the rest of an answer, or its RST_STREAM, for each stream we reset
    unread acks   bytes of acknowledgements queued while the socket takes nothing more
    tiny DATA     of strangers, for frames to a stream that is paused: their overhead, counted as 256 bytes each less what
                  they carried, against half the connection window (as h2-rs does); forgiven when the stream is resumed.
                  A server, or a peer in the mesh, sends what others ask for: a dozen readers of small events that stand
                  still are not to end the requests of all.  What waits is joined where it waits (wire/pieces.py)

CONTINUATION is limited per block, by the connection.  Each rule raises ConnectionFault(ENHANCE_YOUR_CALM).
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import ENHANCE_YOUR_CALM
from meshproxy.wire.http2.frames import ConnectionFault
from meshproxy.wire.limits import Limits

UPDATES: Final = 10  # WINDOW_UPDATEs that a DATA frame may bring about: Envoy's
LATE_FRAMES: Final = 3  # of a stream that we reset: the answer's head, its trailers, RST_STREAM
FRAME_OVERHEAD: Final = 256  # bytes of memory a small piece of data costs while it waits


class Floods:
    """The counters of one connection.  `now` is the time of the last receive(), in seconds.  `strict`: the peer is a client
    that nobody vouches for, so its resets and the streams it is refused are counted."""

    def __init__(self, limits: Limits, strict: bool) -> None:
        self.now = 0.0
        self.strict = strict
        self.resets = 0.0
        self.resets_burst = limits.resets_burst
        self.resets_per_second = limits.resets_per_second
        self.resets_since = 0.0
        self.without_progress = 0.0
        self.control_burst = limits.control_burst
        self.control_per_second = limits.control_per_second
        self.control_since = 0.0
        self.ack_bytes = 0
        self.ack_bytes_max = limits.control_out_bytes
        self.tiny_max = limits.connection_window // 2
        self.tiny = 0
        self.updates = 0  # WINDOW_UPDATEs that are due for what we sent
        self.late_frames = 0  # frames that may come yet for streams that we reset

    def reset(self) -> None:
        """A stream was reset, by either side, while it was worked on."""
        if not self.strict:
            return
        forgiven = (self.now - self.resets_since) * self.resets_per_second
        self.resets_since = self.now
        self.resets = max(0.0, self.resets - forgiven) + 1.0
        if self.resets > self.resets_burst:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "h2_rapid_reset")

    def control(self) -> None:
        """A frame that brought nothing."""
        if self.now > self.control_since:
            forgiven = (self.now - self.control_since) * self.control_per_second
            self.control_since = self.now
            self.without_progress = max(0.0, self.without_progress - forgiven)
        self.without_progress += 1.0
        if self.without_progress > self.control_burst:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "h2_control_flood")

    def update(self) -> None:
        """A WINDOW_UPDATE."""
        if self.updates > 0:
            self.updates -= 1
        else:
            self.control()

    def late(self) -> None:
        """A frame for a stream that is no more, of those that may cross our reset (RFC 9113 5.1)."""
        if self.late_frames > 0:
            self.late_frames -= 1
        else:
            self.control()

    def refused(self) -> None:
        """A stream was refused.  A peer in the mesh is not at fault: it knows our limit, and learns of a full connection
        from the refusal."""
        if self.strict:
            self.control()

    def acknowledge(self, size: int) -> None:
        """An acknowledgement, or a window update, of `size` bytes was queued although the socket is full."""
        self.ack_bytes += size
        if self.ack_bytes > self.ack_bytes_max:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "h2_unread_acks")

    def small_data(self, size: int) -> int:
        """DATA of `size` bytes arrived for a paused stream; returns the overhead counted for it."""
        if not self.strict:
            return 0
        overhead = FRAME_OVERHEAD - size
        if overhead <= 0:
            return 0
        self.tiny += overhead
        if self.tiny > self.tiny_max:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "h2_tiny_data")
        return overhead
