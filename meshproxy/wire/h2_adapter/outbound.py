"""What a connection of the reference engine sends, and when its streams end.

    queue of a stream --windows, frame size, socket--> h2 --flush()--> out       one wake() a turn
                      `--spent--> waiting

The streams in `waiting` have one turn after the other, so that none starves another (RFC 9113 5.2).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from h2.config import H2Configuration
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from meshproxy.wire.engine import CANCEL, INTERNAL_ERROR, NO_ERROR, Engine, Host, Stream
from meshproxy.wire.h2_adapter.codec import H2Codec, to_header, to_pseudo
from meshproxy.wire.h2_adapter.stream import H2Stream
from meshproxy.wire.hpack.encoder import restored_fields
from meshproxy.wire.http2.floods import Floods
from meshproxy.wire.http2.settings import MESH_UPGRADE_CONTENT, head_limits
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head, without_length

PREFACE_BYTES: Final = 24
LARGEST_STREAM_ID: Final = 0x7FFFFFFF
# A head over the limit is refused by itself, as long as it is at most so many times as large; then h2 ends the connection.
DECODED_TIMES: Final = 4


class H2Outbound(Engine):
    """The sending half of a connection, and what both halves share."""

    def __init__(self, host: Host, limits: Limits, server: bool, mesh: bool, vouched: bool) -> None:
        super().__init__(host, server)
        self.limits = limits
        self.mesh = mesh  # server: the client has shown that it belongs to the mesh
        self.floods = Floods(limits, server and not vouched)
        self.streams_max = limits.mesh_streams if vouched else limits.streams
        self.held = 0  # bytes that wait here for a window or the socket
        self.held_max = limits.mesh_connection_held if mesh else limits.connection_held
        self.unsent = 0  # of these: written although the socket is full
        self.streams: dict[int, H2Stream] = {}
        self.waiting: dict[int, H2Stream] = {}  # streams whose queue is not empty, in the order of their turn
        self.next_id = 1  # client: of the next stream
        self.unnumbered = 0  # streams opened whose head is not yet sent
        self.buffer = b""
        self.preface_left = PREFACE_BYTES if server else 0
        self.ready = False  # the peer's SETTINGS have come
        self.in_block = False  # a header block is incomplete
        self.continuations = 0  # frames of it
        self.draining = False
        self.refusing = False  # server: the final GOAWAY is out, later streams are refused
        self.goaway_received = False  # client: the server takes no new streams, or there are no more numbers
        self.received = 0  # bytes not yet returned as connection window
        self.moved = False  # DATA came, of any stream, since the last sweep ...
        self.moved_at = 0.0  # ... and before which one it last did
        self.socket_full = False
        self.batch = 0
        self.last_id = 0
        config = H2Configuration(
            client_side=not server,
            header_encoding=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            normalize_inbound_headers=False,  # it would join cookie crumbs, and move them to the end
            validate_inbound_headers=False,  # http2/heads.py does; h2 would end the connection, and compares `a:80` and `a`
        )
        self.h2 = H2Codec(config)
        self.head_bytes, self.head_fields = head_limits(limits, mesh or not server)
        values = {
            SettingCodes.HEADER_TABLE_SIZE: limits.table_bytes,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_FRAME_SIZE: limits.frame_bytes,
            SettingCodes.MAX_HEADER_LIST_SIZE: self.head_bytes,
        }
        if server:
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = self.streams_max
            values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        else:
            values[SettingCodes.ENABLE_PUSH] = 0
        self.h2.local_settings = Settings(client=not server, initial_values=values)
        self.h2.decoder.max_header_list_size = DECODED_TIMES * self.head_bytes

    def active(self) -> int:
        return len(self.streams) + self.unnumbered

    def number(self, stream: H2Stream) -> None:
        stream.stream_id = self.next_id
        self.next_id += 2
        self.unnumbered -= 1
        self.streams[stream.stream_id] = stream
        if self.next_id > LARGEST_STREAM_ID and not self.goaway_received:
            self.goaway_received = True  # a new connection is needed (RFC 9113 5.1.1)
            self.host.on_goaway(NO_ERROR)

    def peer_takes_extended_connect(self) -> bool:
        return self.h2.remote_settings.enable_connect_protocol == 1

    def peer_takes_upgrade_content(self) -> bool:
        return self.h2.remote_settings.get(MESH_UPGRADE_CONTENT, 0) == 1

    def flush(self) -> int:
        """Hand out what h2 has written; returns its size."""
        data = self.h2.data_to_send()
        if data:
            if self.socket_full:
                self.unsent += len(data)
                self.hold(None, len(data))
            first = not self.out
            if first:
                self.batch += 1
            self.out.append(data)
            if first:
                self.host.wake()
        return len(data)

    def hold(self, stream: H2Stream | None, change: int) -> None:
        """`change` bytes more (negative: fewer) wait here, of `stream` or for the socket."""
        if change:
            if stream is not None:
                stream.held += change
            self.held += change
            self.host.on_held(change)

    def release_unsent(self) -> None:
        """The socket took what was written, or is gone."""
        size = self.unsent
        self.unsent = 0
        self.hold(None, -size)

    def heaviest(self) -> Stream | None:
        found: H2Stream | None = None
        for stream in self.streams.values():
            if stream.held and (found is None or stream.held > found.held):
                found = stream
        return found

    def write_head(
        self, stream: H2Stream, pseudo: list[tuple[bytes, bytes]], head: Head, extra: list[Field], end: bool
    ) -> None:
        if stream.tunnel or 0 < head.status < 200 or head.status == 204:
            head = without_length(head)
        fields = to_pseudo(pseudo, head.guarded) + [to_header(field) for field in head.fields + restored_fields(head) + extra]
        try:
            self.h2.send_headers(stream.stream_id, fields, end_stream=end)
        except ProtocolError:
            self.refused_by_h2(stream)
            return
        self.floods.without_progress = 0.0
        self.flush()
        stream.batch = self.batch

    def answer(self, stream_id: int, end: bool, head: Head, label: str) -> None:
        """Answer a request that the host never sees."""
        self.host.on_violation(label)
        fields = [(field.name, field.value) for field in head.fields + self.host.dated()]
        self.h2.send_headers(stream_id, [(b":status", b"%d" % head.status), *fields], end_stream=True)
        if not end:
            self.write_reset(stream_id, NO_ERROR)
        self.floods.reset()

    def write_reset(self, stream_id: int, code: int) -> None:
        with suppress(ProtocolError):  # closed on both sides already: there is nothing to reset
            self.h2.reset_stream(stream_id, code)

    def refused_by_h2(self, stream: H2Stream) -> None:
        """h2 will not send it: the message breaks its rules, or the stream is gone by its books."""
        self.write_reset(stream.stream_id, INTERNAL_ERROR)
        self.abandon(stream, INTERNAL_ERROR, False)
        self.flush()

    def write_goaway(self, last_id: int, code: int) -> None:
        self.flush()
        first = not self.out
        self.out.append(b"\0\0\x08\x07\0\0\0\0\0" + last_id.to_bytes(4, "big") + code.to_bytes(4, "big"))
        if first:
            self.batch += 1
            self.host.wake()

    def check_drained(self) -> None:
        if self.draining and not self.active() and not self.closing and (self.refusing or not self.server):
            self.closing = True
            self.host.wake()

    # -- bodies, as windows allow

    def write_queue(self, stream: H2Stream) -> None:
        """Write as much of the queue as windows, the frame size and the socket allow."""
        self.write_pieces(stream)
        self.hold(stream, sum([len(data) for data, _ in stream.queue]) - stream.held)

    def write_pieces(self, stream: H2Stream) -> None:
        try:
            while stream.queue:
                data, end = stream.queue[0]
                window = self.h2.local_flow_control_window(stream.stream_id)
                size = min(len(data), window, self.h2.max_outbound_frame_size)
                if data and (size <= 0 or self.socket_full):
                    return
                if size < len(data):
                    self.h2.send_data(stream.stream_id, data[:size])
                    stream.queue[0] = (data[size:], end)
                    self.floods.without_progress = 0.0
                else:
                    if data or end:
                        self.h2.send_data(stream.stream_id, data, end_stream=end)
                    stream.queue.pop(0)
                    self.floods.without_progress = 0.0
            if stream.trailers is not None:
                fields = [to_header(field) for field in stream.trailers]
                stream.trailers = None
                if fields:
                    self.h2.send_headers(stream.stream_id, fields, end_stream=True)
                else:
                    self.h2.send_data(stream.stream_id, b"", end_stream=True)
        except ProtocolError:
            stream.trailers = None
            self.refused_by_h2(stream)

    def block(self, stream: H2Stream) -> None:
        stream.blocked = True
        self.waiting[stream.stream_id] = stream
        if self.server:
            stream.sink.response_blocked()
        else:
            stream.sink.request_blocked()

    def write_waiting(self) -> None:
        for stream in list(self.waiting.values()):
            if stream.closed:
                continue
            self.waiting.pop(stream.stream_id)
            self.write_queue(stream)
            if stream.closed:
                continue
            if stream.queue:
                self.waiting[stream.stream_id] = stream  # to the end: every stream gets its turn
                continue
            stream.blocked = False
            sink = stream.sink
            self.settle(stream)
            if not stream.closed:
                if self.server:
                    sink.response_unblocked()
                else:
                    sink.request_unblocked()

    def credit(self, stream: H2Stream) -> None:
        if stream.received and stream.remote_open and not self.closing:
            with suppress(ProtocolError):  # h2 may have closed the stream already
                self.h2.increment_flow_control_window(stream.received, stream.stream_id)
            stream.received = 0

    # -- how streams end

    def settle(self, stream: H2Stream) -> None:
        """Forget the stream once both directions have ended and nothing of it waits, or once its response is complete
        (http2/stream.py says why); a tunnel half-closes."""
        sent = not stream.local_open and not stream.queue and stream.trailers is None
        if sent and not stream.remote_open:
            self.finish(stream)
        elif not stream.tunnel and (sent if self.server else not stream.remote_open):
            self.write_reset(stream.stream_id, NO_ERROR if self.server else CANCEL)
            self.finish(stream)

    def finish(self, stream: H2Stream) -> None:
        if stream.closed:
            return
        stream.closed = True
        stream.queue = []
        self.hold(stream, -stream.held)
        self.floods.tiny -= stream.tiny
        self.waiting.pop(stream.stream_id, None)
        if stream.stream_id:
            self.streams.pop(stream.stream_id, None)
        elif not self.server:
            self.unnumbered -= 1
        if not self.server:
            self.host.on_capacity()
        self.check_drained()

    def abandon(self, stream: H2Stream, code: int, unprocessed: bool) -> None:
        if stream.closed:
            return
        self.finish(stream)
        if self.server:
            stream.sink.request_reset(code)
        else:
            stream.sink.response_reset(code, unprocessed)
