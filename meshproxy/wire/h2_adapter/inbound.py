"""What a connection of the reference engine receives: h2's events, and the GOAWAY that h2 is not given.

    h2 event --on_event()--> on_request, on_response, on_data ... --> Host.on_request, Sink.request_data, ...
                             |--too large--> answered here (414, 431), as http2/server.py does
                             `--malformed--> its stream is reset, and that is counted (RFC 9113 8.1.1)

Credit for the connection goes back on receipt, for a stream when it is read: a stream that stalls stalls itself only.
"""

from __future__ import annotations

from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from meshproxy.wire.engine import (
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    said_by_peer,
)
from meshproxy.wire.h2_adapter.codec import to_fields
from meshproxy.wire.h2_adapter.outbound import LARGEST_STREAM_ID, H2Outbound
from meshproxy.wire.h2_adapter.stream import H2Stream
from meshproxy.wire.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADER_BYTES,
    HEADERS,
    LABELS,
    PADDED,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFault,
)
from meshproxy.wire.http2.heads import MissingAuthority, expected_body, request_head, response_head, trailer_fields
from meshproxy.wire.http2.server import LINE_OVERHEAD, NO_AUTHORITY, TOO_LARGE, TOO_LONG
from meshproxy.wire.http2.settings import FIELD_OVERHEAD
from meshproxy.wire.message import MalformedField, without_expectation


class H2Inbound(H2Outbound):
    """The receiving half of a connection."""

    def on_frame(self, frame: bytes) -> None:
        """One whole frame.  Raises ConnectionFault for what h2 lets pass, or gives the wrong code."""
        length = len(frame) - HEADER_BYTES
        kind = frame[3]
        ack = frame[4] & ACK != 0
        stream_id = int.from_bytes(frame[5:9], "big") & LARGEST_STREAM_ID
        if not self.ready and (kind != SETTINGS or ack):
            raise ConnectionFault(PROTOCOL_ERROR, "h2_preface")  # RFC 9113 3.4
        if kind in (DATA, HEADERS, RST_STREAM):
            if stream_id not in self.streams:
                if kind == RST_STREAM and self.is_idle(stream_id):
                    raise ConnectionFault(PROTOCOL_ERROR)  # 6.4; h2 ignores it
                if not self.is_idle(stream_id) and not (kind == DATA and length):  # DATA may cross our answer
                    self.floods.control()
        elif kind != CONTINUATION:
            self.floods.control()
        if kind == SETTINGS and stream_id == 0:
            if ack and length:
                raise ConnectionFault(FRAME_SIZE_ERROR)  # 6.5
            if not ack:
                self.shrink_table(frame)
        elif kind == HEADERS:
            if not self.server and self.is_idle(stream_id):
                raise ConnectionFault(PROTOCOL_ERROR)  # 5.1.1: push is off
            both = frame[4] & PADDED and frame[4] & WITH_PRIORITY
            if both and length > 5 and frame[HEADER_BYTES] > length - 6:
                raise ConnectionFault(PROTOCOL_ERROR)  # 6.2: padding over the priority
        elif kind == WINDOW_UPDATE and length == 4 and frame[HEADER_BYTES] & 0x80:
            bare = bytes((frame[HEADER_BYTES] & 0x7F,))
            frame = frame[:HEADER_BYTES] + bare + frame[HEADER_BYTES + 1 :]  # the bit is reserved (6.9)
        if kind == GOAWAY and length >= 8 and stream_id == 0 and not self.in_block:
            self.on_goaway_frame(frame)
            return
        if kind in (HEADERS, PUSH_PROMISE, CONTINUATION):
            self.in_block = not frame[4] & END_HEADERS
            self.continuations = self.continuations + 1 if kind == CONTINUATION else 0
            if self.continuations > self.limits.continuation_frames:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "h2_continuation_flood")
        for event in self.h2.receive_data(frame):
            self.on_event(event)

    def is_idle(self, stream_id: int) -> bool:
        """Nobody has opened this stream yet; the even ones stay so, push is off."""
        highest = self.h2.highest_inbound_stream_id if self.server else self.next_id - 2
        return stream_id > highest or not stream_id & 1

    def shrink_table(self, frame: bytes) -> None:
        """Every HEADER_TABLE_SIZE on the way is due to our encoder (RFC 7541 4.2); h2 sees the last of one frame only."""
        for at in range(HEADER_BYTES, len(frame) - 5, 6):
            if frame[at : at + 2] == b"\0\x01":
                self.h2.encoder.header_table_size = int.from_bytes(frame[at + 2 : at + 6], "big")

    def on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self.on_data(event)
        elif isinstance(event, RequestReceived):
            self.on_request(event)
        elif isinstance(event, ResponseReceived):
            self.on_response(event)
        elif isinstance(event, InformationalResponseReceived):
            self.on_interim(event)
        elif isinstance(event, TrailersReceived):
            self.on_trailers(event)
        elif isinstance(event, StreamReset):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                code = int(event.error_code)
                if not event.remote_reset:
                    self.host.on_violation(LABELS.get(code, "h2_protocol_error"))
                if not self.server:
                    code = said_by_peer(code, stream.method == b"CONNECT")
                self.abandon(stream, code, code == REFUSED_STREAM)
                self.floods.reset()
        elif isinstance(event, WindowUpdated):
            self.write_waiting()
        elif isinstance(event, RemoteSettingsChanged):
            self.write_waiting()
            if not self.ready:
                self.ready = True
                if not self.server:
                    self.host.on_ready()
            elif not self.server:
                self.host.on_capacity()
        elif isinstance(event, SettingsAcknowledged):
            self.h2.decoder.max_allowed_table_size = self.limits.table_bytes

    def on_request(self, event: RequestReceived) -> None:
        full = len(self.streams) >= self.streams_max
        if self.refusing or full or self.held > self.held_max:
            self.floods.refused()
            if not self.refusing:
                self.host.on_violation("h2_stream_limit" if full else "h2_connection_held")
            self.write_reset(event.stream_id, REFUSED_STREAM)
            return
        self.last_id = event.stream_id
        end = event.stream_ended is not None
        if self.too_large(event.headers):
            self.answer(event.stream_id, end, TOO_LARGE, "h2_head_too_large")
            return
        try:
            head = request_head(to_fields(event.headers))
            if end and expected_body(head, b"") > 0:
                raise MalformedField("content-length without a body")
        except MissingAuthority:
            self.answer(event.stream_id, end, NO_AUTHORITY, "h2_no_authority")
            return
        except MalformedField:
            self.host.on_violation("h2_malformed")
            self.write_reset(event.stream_id, PROTOCOL_ERROR)
            self.floods.reset()
            return
        if len(head.path) + len(head.method) + LINE_OVERHEAD > self.limits.request_line_bytes:
            self.answer(event.stream_id, end, TOO_LONG, "h2_uri_too_long")
            return
        if head.expect_continue and (end or head.content_length == 0):
            head = without_expectation(head)
        self.floods.without_progress = 0.0
        stream = H2Stream(self, event.stream_id)
        stream.method = head.method
        stream.expected = expected_body(head, b"")
        stream.head_received = True
        stream.remote_open = not end
        self.streams[event.stream_id] = stream
        self.host.on_request(stream, head, end)

    def on_interim(self, event: InformationalResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.interims += 1
            try:
                if stream.interims > self.limits.interim_responses or self.too_large(event.headers):
                    raise MalformedField("more than we take")
                head = response_head(to_fields(event.headers))
            except MalformedField:
                self.malformed(stream)
                return
            self.floods.control()
            stream.sink.response_interim(head)

    def on_response(self, event: ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        end = event.stream_ended is not None
        if self.too_large(event.headers):
            self.malformed(stream, "h2_head_too_large")
            return
        try:
            head = response_head(to_fields(event.headers))
            if end and expected_body(head, stream.method) > 0:
                raise MalformedField("content-length without a body")
        except MalformedField:
            self.malformed(stream)
            return
        stream.head_received = True
        stream.expected = expected_body(head, stream.method)
        stream.tunnel = stream.method == b"CONNECT" and head.status < 300
        sink = stream.sink
        if end:
            self.remote_ended(stream)
        sink.response_head(head, end)

    def on_trailers(self, event: TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        try:
            if stream.expected > 0 or stream.tunnel or (self.server and stream.method == b"CONNECT"):
                raise MalformedField("the body is shorter than its content-length, or it is a tunnel")
            received = to_fields(event.headers)
            if self.too_large(event.headers) or sum([field.size for field in received]) > self.limits.trailer_bytes:
                self.malformed(stream, "h2_head_too_large")
                return
            fields = trailer_fields(received)
        except MalformedField:
            self.malformed(stream)
            return
        sink = stream.sink
        self.remote_ended(stream)
        if self.server:
            sink.request_trailers(fields)
        else:
            sink.response_trailers(fields)

    def on_data(self, event: DataReceived) -> None:
        # Connection credit is returned on receipt, so one stalled stream cannot hold the others.
        self.received += event.flow_controlled_length
        if self.received >= self.limits.connection_window // 2:
            self.h2.increment_flow_control_window(self.received)
            self.received = 0
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        end = event.stream_ended is not None
        stream.received += event.flow_controlled_length
        data = bytes(event.data)
        if stream.expected >= 0:
            stream.expected -= len(data)
            if stream.expected < 0 or (end and stream.expected):
                self.malformed(stream)
                return
        sink = stream.sink
        if end:
            self.remote_ended(stream)
        if data or end:
            self.floods.without_progress = 0.0
            if stream.paused and not end:
                stream.tiny += self.floods.small_data(len(data))
            stream.begun = True
            stream.silent_since = 0.0
            self.moved = True
            if self.server:
                sink.request_data(data, end)
            else:
                sink.response_data(data, end)
        else:
            self.floods.control()
        if not end and not stream.paused and stream.received >= self.limits.stream_window // 2:
            self.credit(stream)

    def on_goaway_frame(self, frame: bytes) -> None:
        if self.server:
            return  # a client's GOAWAY is about pushes, which there are none of
        last_id = int.from_bytes(frame[9:13], "big") & LARGEST_STREAM_ID
        code = int.from_bytes(frame[13:17], "big")
        first = not self.goaway_received
        self.goaway_received = True
        for stream in list(self.streams.values()):
            if stream.stream_id > last_id:
                self.abandon(stream, code, True)
        if first:
            self.host.on_goaway(code)

    def too_large(self, headers: list[tuple[bytes, bytes]]) -> bool:
        size = sum([len(name) + len(value) + FIELD_OVERHEAD for name, value in headers])
        return size > self.head_bytes or len(headers) > self.head_fields

    def malformed(self, stream: H2Stream, label: str = "h2_malformed") -> None:
        self.host.on_violation(label)
        self.write_reset(stream.stream_id, PROTOCOL_ERROR)
        self.abandon(stream, PROTOCOL_ERROR, False)
        self.floods.reset()

    def remote_ended(self, stream: H2Stream) -> None:
        stream.remote_open = False
        self.settle(stream)
