"""What a connection of the reference engine receives: h2's events, and the GOAWAY that h2 is not given.

    h2 event --on_event()--> on_request, on_response, on_data ... --> Host.on_request, Sink.request_data, ...
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
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from meshproxy.wire.engine import PROTOCOL_ERROR, REFUSED_STREAM, said_by_peer
from meshproxy.wire.h2_adapter.outbound import LARGEST_STREAM_ID, H2Outbound
from meshproxy.wire.h2_adapter.stream import H2Stream
from meshproxy.wire.http2.heads import expected_body, request_head, response_head, trailer_fields
from meshproxy.wire.message import Field, MalformedField


class H2Inbound(H2Outbound):
    """The receiving half of a connection."""

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
                if not self.server:
                    code = said_by_peer(code, stream.method == b"CONNECT")
                self.abandon(stream, code, code == REFUSED_STREAM)
        elif isinstance(event, WindowUpdated):
            self.write_waiting()
        elif isinstance(event, RemoteSettingsChanged):
            self.h2.encoder.header_table_size = min(4096, self.h2.remote_settings.header_table_size)
            self.write_waiting()
            if not self.ready:
                self.ready = True
                if not self.server:
                    self.host.on_ready()
            elif not self.server:
                self.host.on_capacity()

    def on_request(self, event: RequestReceived) -> None:
        self.last_id = event.stream_id
        if self.refusing:
            self.write_reset(event.stream_id, REFUSED_STREAM)
            return
        end = event.stream_ended is not None
        try:
            head = request_head(to_fields(event.headers))
            if end and expected_body(head, b"") > 0:
                raise MalformedField("content-length without a body")
        except MalformedField:
            self.host.on_violation("h2_malformed")
            self.write_reset(event.stream_id, PROTOCOL_ERROR)
            return
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
            try:
                head = response_head(to_fields(event.headers))
            except MalformedField:
                self.malformed(stream)
                return
            stream.sink.response_interim(head)

    def on_response(self, event: ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is None:
            return
        end = event.stream_ended is not None
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
            if stream.expected > 0:
                raise MalformedField("the body is shorter than its content-length")
            fields = trailer_fields(to_fields(event.headers))
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
            stream.begun = True
            stream.silent_since = 0.0
            self.moved = True
            if self.server:
                sink.request_data(data, end)
            else:
                sink.response_data(data, end)
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

    def malformed(self, stream: H2Stream) -> None:
        self.host.on_violation("h2_malformed")
        self.write_reset(stream.stream_id, PROTOCOL_ERROR)
        self.abandon(stream, PROTOCOL_ERROR, False)

    def remote_ended(self, stream: H2Stream) -> None:
        stream.remote_open = False
        self.settle(stream)


def to_fields(headers: list[tuple[bytes, bytes]]) -> list[Field]:
    """Raises MalformedField."""
    return [Field(bytes(name), bytes(value)) for name, value in headers]
