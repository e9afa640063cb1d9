"""Every bound the engines keep, with its unit, default and reason.  Read once at start; documented in docs/limits.md."""

from __future__ import annotations


class Limits:
    """Bounds on what one peer may ask of us.  Plain attributes, changed before the first connection or not at all."""

    def __init__(self) -> None:
        # -- heads (both versions)
        self.request_line_bytes = 8 * 1024  # 414 above; nginx's and Apache's figure
        self.head_bytes = 60 * 1024  # 431 above; Envoy's default
        self.head_fields = 128  # 431 above; Envoy 100, but 90 cookie crumbs plus 15 others must pass
        self.trailer_bytes = 16 * 1024
        # -- HTTP/1.1
        self.chunk_line_bytes = 1024  # size and extensions of one chunk line
        self.pipelined_bytes = 64 * 1024  # unread pipelined input before we stop reading
        self.interim_responses = 16  # 1xx before one final response; a server that sends only those holds a stream for ever
        # -- HTTP/2
        self.streams = 100  # SETTINGS_MAX_CONCURRENT_STREAMS we advertise to strangers (RFC 9113 5.1.2 advises >= 100)
        self.mesh_streams = 1000  # ... and to authenticated peers: one connection carries what a whole workload asks
        self.frame_bytes = 16 * 1024  # SETTINGS_MAX_FRAME_SIZE we advertise: the default
        self.table_bytes = 4096  # SETTINGS_HEADER_TABLE_SIZE, both directions
        # Initial receive window of a stream.  Not the protocol's own 65,535: the last byte of a 64 KiB body would wait for a
        # WINDOW_UPDATE and cost a round-trip and a frame (a quarter of the body's CPU); and gRPC puts 5 bytes before a message.
        self.stream_window = 65 * 1024
        self.stream_window_held = 256 * 1024  # it doubles to this while the far side drains: what a stalled stream may hold
        self.stream_window_max = 1024 * 1024  # ... and on to this only where the round-trip makes it necessary
        self.stream_window_rtt_s = 0.002  # a shorter round-trip never does: 256 KiB in 2 ms are 1 Gbit/s a stream
        self.connection_window = 16 * 1024 * 1024  # returned on receipt, so one stalled stream cannot hold the others
        # What waits for window or socket.  Above it no new stream is taken.  A stranger may have all 100 streams wait with the
        # first 64 KiB of their answers; between peers one connection carries the slow readers of a whole workload (128 stalled
        # streams), and they must not stop the others.
        self.connection_held = 8 * 1024 * 1024
        self.mesh_connection_held = 32 * 1024 * 1024
        self.continuation_frames = 8  # per header block; nghttp2's figure
        self.resets_burst = 200  # strangers: resets (by either side) whose work was still running ...
        self.resets_per_second = 100  # ... and the rate they are forgiven at (the host passes time in)
        self.control_burst = 1000  # SETTINGS, PING, PRIORITY, empty DATA: frames without progress in a row ...
        self.control_per_second = 100  # ... and the rate they are forgiven at: keepalive on a quiet connection is no attack
        self.control_out_bytes = 64 * 1024  # unsent acknowledgements; above it: ENHANCE_YOUR_CALM
