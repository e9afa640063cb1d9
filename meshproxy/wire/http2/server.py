"""The server role: header blocks are requests.

a new stream   refused if we are full, hold too much or are leaving (REFUSED_STREAM: certainly not processed, safe to send
               again)
               answered here if its head is too large (431), its path too long (414), or it names no host (400)
               reset if malformed: that stream only, the HPACK state stays right
               otherwise host.on_request()
an open one    trailers
"""

from __future__ import annotations

from typing import Final

from meshproxy.wire.engine import (
    CANCEL,
    COMPRESSION_ERROR,
    NO_ERROR,
    NO_FIELDS,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Host,
    is_overdue,
)
from meshproxy.wire.hpack.decoder import read_string
from meshproxy.wire.hpack.integers import HpackError
from meshproxy.wire.http2.frames import RESET_BYTES, STREAM_ID_MAX, ConnectionFault, goaway_frame
from meshproxy.wire.http2.heads import MissingAuthority, request_head, trailer_fields
from meshproxy.wire.http2.inbound import Inbound
from meshproxy.wire.http2.stream import BODY, ENDED, HEAD, Http2Stream
from meshproxy.wire.http2.templates import Template, Templates
from meshproxy.wire.limits import Limits
from meshproxy.wire.message import CACHES, Field, Head, MalformedField, without_expectation


def refusal(status: int, reason: bytes) -> Head:
    head = Head()
    head.version = 20
    head.status = status
    head.content_length = 0
    head.fields = [Field(b"content-length", b"0"), Field(b"mesh-error", reason)]
    return head


TOO_LARGE: Final = refusal(431, b"h2_head_too_large")
# Whether it was a gRPC call is in the part that was not kept.  A gRPC client reads its own status, whatever HTTP's says (8:
# RESOURCE_EXHAUSTED, as a gRPC server answers metadata that are too large); other clients pass over it.
TOO_LARGE.fields += [Field(b"grpc-status", b"8"), Field(b"grpc-message", b"meshproxy: h2_head_too_large")]
TOO_LONG: Final = refusal(414, b"h2_uri_too_long")
LINE_OVERHEAD: Final = len(b"  HTTP/1.1")  # what a request line has beside method and path
PATH_OVERHEAD: Final = len(b":path") + 32  # RFC 7541 4.1

NO_AUTHORITY: Final = refusal(400, b"h2_no_authority")


class Http2Server(Inbound):
    """HTTP/2, server role, behind the interface of `wire/engine.py`.

    `mesh`      the client has shown that it belongs to the mesh: it relays what many ask
    `vouched`   a peer in the mesh, or the pod's own app at its own sidecar.  It gets more streams, and its resets are judged
                by the work that runs and not by their number (floods.py)
    """

    def __init__(self, host: Host, limits: Limits, mesh: bool = False, vouched: bool = False) -> None:
        super().__init__(host, limits, True, mesh, mesh or vouched)
        self.refusing = False  # the final GOAWAY is out
        self.line_max = limits.request_line_bytes - LINE_OVERHEAD  # of method and path
        self.templates = Templates()

    def on_block(self, stream_id: int, end: bool, block: bytes) -> None:
        if stream_id <= self.last_id:
            self.on_later_block(stream_id, end, block)
            return
        self.last_id = stream_id
        head = self.blocks.get(block)
        template: Template | None = None
        fields = NO_FIELDS
        path = b""
        if head is None:
            templates = self.templates
            template = templates.split(block)
            if template is None:
                fields = self.decode(block)
            else:
                at = templates.path_at
                # In clear and short, as our own encoder writes it, or in another form.
                path = block[at + 2 : templates.path_end] if block[at + 1] < 0x7F else self.path_of(block, at)
                size = template.size + len(path) + PATH_OVERHEAD
                fields = self.decode_rest(block, templates.indexed_end, size, len(template.fields))
        if self.refusing or len(self.streams) >= self.streams_max or self.held > self.held_max:
            self.refuse(stream_id)
            return
        if head is None:
            if self.decoder.overflow:
                self.answer(stream_id, end, TOO_LARGE, "h2_head_too_large")
                return
            try:
                if template is None:
                    head = request_head(fields)
                    if CACHES.enabled and not self.decoder.changed:
                        self.templates.remember(block, fields)
                else:
                    head = template.head(path, fields)
            except MissingAuthority:
                self.answer(stream_id, end, NO_AUTHORITY, "h2_no_authority")
                return
            except MalformedField:
                self.malformed_request(stream_id)
                return
            if len(head.path) + len(head.method) > self.line_max:  # such a head is never remembered
                self.answer(stream_id, end, TOO_LONG, "h2_uri_too_long")
                return
            self.remember_block(block, head)
        expected = -1 if head.method == b"CONNECT" else head.content_length
        if end and expected > 0:
            self.malformed_request(stream_id)
            return
        if head.expect_continue and (end or expected == 0):
            head = without_expectation(head)
        self.floods.without_progress = 0.0
        stream = Http2Stream(self)
        stream.stream_id = stream_id
        stream.method = head.method
        stream.expected = expected
        stream.received = ENDED if end else BODY
        stream.send_window = self.peer.initial_window_size
        self.streams[stream_id] = stream
        self.host.on_request(stream, head, end)

    def path_of(self, block: bytes, at: int) -> bytes:
        try:
            return read_string(block, at + 1)[0]
        except HpackError:
            raise ConnectionFault(COMPRESSION_ERROR) from None

    def forget_blocks(self) -> None:
        super().forget_blocks()
        if self.templates.known:
            self.templates.known = {}

    def on_later_block(self, stream_id: int, end: bool, block: bytes) -> None:
        """Trailers (8.1), or a mistake.  The block is decoded in any case: the table must stay right."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self.on_closed_stream(stream_id, 0)
            self.decode(block)
            return
        fields = self.decode(block)
        if stream.received == ENDED:
            self.stream_error(stream, STREAM_CLOSED)
            return
        if self.decoder.overflow or sum([field.size for field in fields]) > self.limits.trailer_bytes:
            self.stream_error(stream, PROTOCOL_ERROR, "h2_head_too_large")
            return
        try:
            if not end or stream.expected > 0 or stream.method == b"CONNECT":  # in a tunnel there is DATA alone (8.5)
                raise MalformedField("trailers do not end the stream, the body is short, or it is a tunnel")
            kept = trailer_fields(fields)
        except MalformedField:
            self.malformed(stream)
            return
        sink = stream.sink
        self.remote_ended(stream)
        sink.request_trailers(kept)

    def refuse(self, stream_id: int) -> None:
        self.floods.refused()
        if self.socket_full:
            self.floods.acknowledge(RESET_BYTES)
        if not self.refusing:
            full = len(self.streams) >= self.streams_max
            self.host.on_violation("h2_stream_limit" if full else "h2_connection_held")
        self.write_reset(stream_id, REFUSED_STREAM, self.stream_window)

    def answer(self, stream_id: int, end: bool, head: Head, label: str) -> None:
        """Answer a request that the host never sees."""
        self.host.on_violation(label)
        self.write_block(stream_id, self.encoder.head(head, self.host.dated()), True)
        if not end:
            self.write_reset(stream_id, NO_ERROR, self.stream_window)
        self.floods.reset()

    def malformed_request(self, stream_id: int) -> None:
        self.host.on_violation("h2_malformed")
        self.write_reset(stream_id, PROTOCOL_ERROR, self.stream_window)
        self.floods.reset()

    def on_reset(self, stream: Http2Stream, code: int) -> None:
        wasted = stream.sent != ENDED
        self.finish(stream)
        stream.sink.request_reset(code)
        if wasted:
            self.floods.reset()

    def tell_reset(self, stream: Http2Stream, code: int, unprocessed: bool) -> None:
        stream.sink.request_reset(code)

    def idle(self, stream_id: int) -> bool:
        return stream_id > self.last_id or not stream_id & 1

    def on_goaway(self, last_id: int, code: int) -> None:
        """A client's GOAWAY is about pushed streams; its requests in flight are still to be answered (6.8)."""

    def on_finished(self, stream: Http2Stream) -> None:
        if self.refusing:
            self.check_drained()

    def sweep(self, now: float, stall_s: float, body_s: float) -> bool:
        super().sweep(now, stall_s, body_s)
        for stream in list(self.streams.values()):
            if stream.method == b"CONNECT" or stream.closed:  # what became of another may have ended it
                continue
            if stream.received == BODY and stream.sent == HEAD:
                self.await_body(stream, now, body_s)
            elif stream.queue is None:
                continue
            elif stream.stalled_since == 0.0:
                stream.stalled_since = now
            elif now - stream.stalled_since > stall_s:
                self.host.on_violation("h2_stalled")
                self.write_reset(stream.stream_id, CANCEL, max(0, stream.granted()))
                self.finish(stream)
                self.tell_reset(stream, CANCEL, False)
        return True

    def await_body(self, stream: Http2Stream, now: float, body_s: float) -> None:
        if stream.paused or body_s == 0.0 or stream.stream_id == self.arriving:
            stream.silent_since = 0.0
        elif stream.silent_since == 0.0:
            stream.silent_since = now
        elif is_overdue(stream.silent_since, self.moved_at, now, body_s):
            stream.silent_since = now
            begun = stream.window is not None or stream.invited
            stream.invited = True
            if not stream.sink.request_silent(begun):
                self.host.on_violation("slow_body")
                self.write_reset(stream.stream_id, CANCEL, max(0, stream.granted()))
                self.finish(stream)
                self.tell_reset(stream, CANCEL, False)

    def drain(self) -> None:
        if not self.draining and not self.closing:
            self.draining = True
            self.write(goaway_frame(STREAM_ID_MAX, NO_ERROR))

    def drain_finish(self) -> None:
        if self.draining and not self.refusing and not self.closing:
            self.refusing = True
            self.final_id = self.last_id
            self.write(goaway_frame(self.last_id, NO_ERROR))
            self.check_drained()

    def check_drained(self) -> None:
        if not self.streams and not self.closing:
            self.closing = True
            self.host.wake()
