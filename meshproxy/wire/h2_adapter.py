"""HTTP/2 by the `h2` package, behind the interface of `wire/engine.py`: the reference engine.

    socket bytes -> one frame at a time -> h2.H2Connection -> its events -> Host and Sink
    Stream.send_*() -> H2Connection, or the stream's queue while windows are spent -> out

It exists to be compared with: the shared test suite and differential fuzzing run on it and on `wire/http2`, and
`--http2-engine=h2` puts it on the wire.  It costs about 300 us of CPU a proxied request, and it lacks what `h2` lacks:
limits against floods, and errors of one stream where a field is malformed (h2 ends the connection).  The table of
differences is in tests/wire/test_http2_frames.py.

Two things are done here because h2 cannot do them: frames are fed singly (h2 discards the events of good frames when a
later one in the same read is bad), and GOAWAY is read and written here (h2 ends the connection at the first one,
so streams in flight could not finish, RFC 9113 6.8).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
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
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings

from meshproxy.wire.engine import (
    AWAITING_HEAD,
    AWAITING_NOTHING,
    AWAITING_US,
    CANCEL,
    CONNECT_ERROR,
    FRAME_SIZE_ERROR,
    HTTP_1_1_REQUIRED,
    INTERNAL_ERROR,
    NO_ERROR,
    NULL_SINK,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    Engine,
    Host,
    Stream,
    is_overdue,
)
from meshproxy.wire.hpack.encoder import restored_fields
from meshproxy.wire.http2.connection import FIELD_OVERHEAD, HOP_FIELDS, PSEUDO_FIELDS
from meshproxy.wire.http2.heads import (
    expected_body,
    request_head,
    request_pseudo,
    response_head,
    trailer_fields,
)
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import Field, Head, MalformedField

PREFACE_BYTES: Final = 24
FRAME_HEADER_BYTES: Final = 9
GOAWAY_FRAME: Final = 7
NOTHING_UNSENT: Final = -1  # no turn has this number
LARGEST_STREAM_ID: Final = 0x7FFFFFFF

# What bytes from a peer can make h2 and hpack raise.  H2Error covers what h2 means to raise; the others are what
# mutated input was seen to bring out of it and its codecs.
PEER_ERRORS: Final = (H2Error, ValueError, KeyError, IndexError, AssertionError, OverflowError)


class H2Stream(Stream):
    """One stream.  `queue` holds what windows do not allow yet; `remote_open` and `local_open` are the two directions."""

    def __init__(self, engine: H2Engine, stream_id: int) -> None:
        super().__init__()
        self.engine = engine
        self.stream_id = stream_id
        self.local_open = True
        self.remote_open = True
        self.closed = False
        self.head_sent = False
        self.head_received = False
        self.method = b""
        self.tunnel = False  # CONNECT that was accepted: the directions end on their own
        self.expected = -1  # DATA bytes still to come by content-length, -1 if not declared
        self.queue: list[tuple[bytes, bool]] = []
        self.trailers: list[Field] | None = None  # wait behind the queue
        self.blocked = False
        self.paused = False
        self.received = 0  # bytes not yet returned as window
        self.batch = 0  # the turn in which the request was written
        self.silent_since = 0.0  # when a sweep found the request's body standing still; 0 again as soon as any of it comes
        self.begun = False  # some of the body came, 100 (Continue) went out, or has been waited for long enough

    def send_interim(self, head: Head) -> None:
        if not self.closed and self.local_open:
            self.engine.write_head(self, [(b":status", b"%d" % head.status)], head, [], False)
            if head.status == 100:
                self.begun = True
                self.silent_since = 0.0

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        engine = self.engine
        if self.closed or not self.local_open:
            return
        if head.status:
            status = head.status
            if status == 101:  # how HTTP/1.1 accepts what is extended CONNECT here (RFC 8441 5)
                status = 200
            self.tunnel = self.method == b"CONNECT" and status < 300
            pseudo = [(b":status", b"%d" % status)]
        else:
            self.method = b"CONNECT" if head.protocol else head.method
            gone = engine.closing or engine.goaway_received
            if gone or (head.protocol and not engine.peer_takes_extended_connect()):
                engine.finish(self)
                self.sink.response_reset(CANCEL if gone else HTTP_1_1_REQUIRED, True)
                return
            engine.number(self)
            pseudo = request_pseudo(head)
        self.head_sent = True
        engine.write_head(self, pseudo, head, extra, end)
        if end:
            self.local_open = False
            engine.settle(self)

    def send_data(self, data: bytes, end: bool) -> None:
        if self.closed or not self.local_open:
            return
        self.queue.append((data, end))
        if end:
            self.local_open = False
        engine = self.engine
        if not self.blocked:
            engine.write_queue(self)
            if self.queue:
                engine.block(self)
            else:
                engine.settle(self)
        engine.flush()

    def send_trailers(self, fields: list[Field]) -> None:
        if self.closed or not self.local_open:
            return
        self.local_open = False
        self.trailers = fields
        if not self.queue:
            self.engine.write_queue(self)
            self.engine.settle(self)
        self.engine.flush()

    def reset(self, code: int) -> None:
        if self.closed:
            return
        engine = self.engine
        self.sink = NULL_SINK
        if code == NO_ERROR and engine.server and self.queue and not self.local_open:
            self.tunnel = False  # everything is said and goes first; with it the stream ends, whatever the client does
            return
        if self.stream_id:
            engine.write_reset(self.stream_id, code)
        engine.finish(self)
        engine.flush()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        if not self.closed:
            self.engine.credit(self)
            self.engine.flush()


class H2Engine(Engine):
    """What both roles share."""

    def __init__(self, host: Host, limits: Limits, server: bool) -> None:
        super().__init__(host, server)
        self.limits = limits
        self.streams: dict[int, H2Stream] = {}
        self.waiting: dict[int, H2Stream] = {}  # streams whose queue is not empty, in the order of their turn
        self.unnumbered = 0  # streams opened whose head is not yet sent
        self.buffer = b""
        self.preface_left = PREFACE_BYTES if server else 0
        self.ready = False
        self.draining = False
        self.refusing = False  # server: the final GOAWAY is out, later streams are refused
        self.goaway_received = False  # client: the server takes no new streams
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
        )
        self.h2 = H2Connection(config)
        # With the room that connection.py leaves: a head that one proxy lets in must get through the next.
        head_bytes = limits.head_bytes + FIELD_OVERHEAD * (limits.head_fields + PSEUDO_FIELDS + HOP_FIELDS)
        values = {
            SettingCodes.HEADER_TABLE_SIZE: limits.table_bytes,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window,
            SettingCodes.MAX_FRAME_SIZE: limits.frame_bytes,
            SettingCodes.MAX_HEADER_LIST_SIZE: head_bytes,
        }
        if server:
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = limits.streams
            values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        else:
            values[SettingCodes.ENABLE_PUSH] = 0
        self.h2.local_settings = Settings(client=not server, initial_values=values)
        self.h2.decoder.max_header_list_size = head_bytes

    # -- the connection

    def start(self) -> None:
        self.h2.initiate_connection()
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

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            first = not self.out
            if first:
                self.batch += 1
            self.out.append(data)
            if first:
                self.host.wake()

    def active(self) -> int:
        return len(self.streams) + self.unnumbered

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

    def check_drained(self) -> None:
        if self.draining and not self.active() and not self.closing and (self.refusing or not self.server):
            self.closing = True
            self.host.wake()

    def write_goaway(self, last_id: int, code: int) -> None:
        self.flush()
        first = not self.out
        self.out.append(b"\0\0\x08\x07\0\0\0\0\0" + last_id.to_bytes(4, "big") + code.to_bytes(4, "big"))
        if first:
            self.batch += 1
            self.host.wake()

    # -- events

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
                self.abandon(stream, int(event.error_code), int(event.error_code) == REFUSED_STREAM)
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

    # -- streams

    def malformed(self, stream: H2Stream) -> None:
        self.host.on_violation("h2_malformed")
        self.write_reset(stream.stream_id, PROTOCOL_ERROR)
        self.abandon(stream, PROTOCOL_ERROR, False)

    def abandon(self, stream: H2Stream, code: int, unprocessed: bool) -> None:
        if stream.closed:
            return
        self.finish(stream)
        if self.server:
            stream.sink.request_reset(code)
        else:
            stream.sink.response_reset(code, unprocessed)

    def remote_ended(self, stream: H2Stream) -> None:
        stream.remote_open = False
        self.settle(stream)

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
        self.waiting.pop(stream.stream_id, None)
        if stream.stream_id:
            self.streams.pop(stream.stream_id, None)
        elif not self.server:
            self.unnumbered -= 1
        if not self.server:
            self.host.on_capacity()
        self.check_drained()

    def credit(self, stream: H2Stream) -> None:
        if stream.received and stream.remote_open and not self.closing:
            with suppress(ProtocolError):  # h2 may have closed the stream already
                self.h2.increment_flow_control_window(stream.received, stream.stream_id)
            stream.received = 0

    def write_head(
        self, stream: H2Stream, pseudo: list[tuple[bytes, bytes]], head: Head, extra: list[Field], end: bool
    ) -> None:
        fields = pseudo + [(field.name, field.value) for field in head.fields + restored_fields(head) + extra]
        try:
            self.h2.send_headers(stream.stream_id, fields, end_stream=end)
        except ProtocolError:
            self.refused_by_h2(stream)
            return
        self.flush()
        stream.batch = self.batch

    def refused_by_h2(self, stream: H2Stream) -> None:
        """h2 will not send it: the message breaks its rules, or the stream is gone by its books."""
        self.write_reset(stream.stream_id, INTERNAL_ERROR)
        self.abandon(stream, INTERNAL_ERROR, False)
        self.flush()

    def write_reset(self, stream_id: int, code: int) -> None:
        with suppress(ProtocolError):  # closed on both sides already: there is nothing to reset
            self.h2.reset_stream(stream_id, code)

    def write_queue(self, stream: H2Stream) -> None:
        """Write as much of the queue as windows, the frame size and the socket allow."""
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
                else:
                    if data or end:
                        self.h2.send_data(stream.stream_id, data, end_stream=end)
                    stream.queue.pop(0)
            if stream.trailers is not None:
                fields = [(field.name, field.value) for field in stream.trailers]
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

    def peer_takes_extended_connect(self) -> bool:
        return self.h2.remote_settings.enable_connect_protocol == 1

    def number(self, stream: H2Stream) -> None:
        stream.stream_id = self.h2.get_next_available_stream_id()
        self.unnumbered -= 1
        self.streams[stream.stream_id] = stream


class H2Server(H2Engine):
    """The server role."""

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, True)


class H2Client(H2Engine):
    """The client role.  A stream gets its number when its head is sent: numbers must go out in order (RFC 9113 5.1.1)."""

    def __init__(self, host: Host, limits: Limits) -> None:
        super().__init__(host, limits, False)

    def open(self) -> Stream:
        stream = H2Stream(self, 0)
        self.unnumbered += 1
        return stream

    def capacity(self) -> int:
        if not self.ready or self.goaway_received or self.draining or self.closing:
            return 0
        return max(0, int(self.h2.remote_settings.max_concurrent_streams) - self.active())


def to_fields(headers: list[tuple[bytes, bytes]]) -> list[Field]:
    """Raises MalformedField."""
    return [Field(bytes(name), bytes(value)) for name, value in headers]
