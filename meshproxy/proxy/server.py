"""A downstream connection: server role.  It finds out what the client speaks, then lets an engine speak it.

    SNIFFING --TLS hello--> HANDSHAKE --peer checked--> SNIFFING (inside TLS; SERVING if ALPN says HTTP/2)
     |  |  \\
     |  |   +--HTTP/1.1, HTTP/2 or opaque--> SERVING --drain--> DRAINING --> ENDED
     |  +--refused, too late--------------------------------------------------^
     +--one word, none of HTTP's, and no more for too long--> SERVING (opaque, watched)
     +--silence: perhaps the server speaks first--> ASKING --the server spoke, or the client no HTTP--> SERVING (opaque)
                                                           --the client spoke HTTP--> SERVING (HTTP; the tunnel is dropped)

What is allowed here (TLS or not, opaque or not) and where requests go is the side's to say (proxy/side.py).
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any, Final

from meshproxy.proxy.answer import refuse
from meshproxy.proxy.carrier import LOST, OPEN, Carrier
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.engines import KIND_HTTP1, KIND_HTTP2, KIND_OPAQUE, server_engine
from meshproxy.proxy.pressure import CALM, NORMAL, REFUSE_NEW
from meshproxy.proxy.question import Question
from meshproxy.proxy.refusals import OVERLOADED
from meshproxy.proxy.side import PASS_THROUGH, TERMINATE, Side
from meshproxy.proxy.tls import END, STAY, TlsFailure, TlsLayer
from meshproxy.wire import detect
from meshproxy.wire.engine import AWAITING_BODY, AWAITING_HEAD, AWAITING_NOTHING, INTERNAL_ERROR, Stream
from meshproxy.wire.message import Field, Head

SNIFFING: Final = 0
HANDSHAKE: Final = 1
SERVING: Final = 2
DRAINING: Final = 3
ENDED: Final = 4
ASKING: Final = 5

HTTP2_ALPN: Final = ("h2", "meshproxy/1")


class Accepted(Carrier):
    """client_id    the peer's verified SPIFFE ID, "" without one
    destination  where the listener or the CONNECT that carries us leads ("host:port"), "" if the requests say it
    client_extra fields added to every request of this connection (`mesh-client-id`), built once
    opaque       it carries bytes that are not read: its one "request" is to connect
    """

    # What few connections need is here and not in __init__: with more than 30 attributes of its own an interpreted object
    # has a dict that it shares with no other, and an idle connection costs 5.3 kB instead of 2.1.
    watched: bool = False  # its bytes may yet turn out to be HTTP (proxy/watched.py)
    half_close: Any = None  # once the client has closed its side: the timer that ends the wait for the answer that is due

    def __init__(self, ctx: Context, side: Side, destination: str = "") -> None:
        super().__init__(ctx, side.tcp)
        self.side = side
        self.phase = SNIFFING
        self.head = b""  # bytes seen while sniffing
        self.client_id = ""
        self.destination = destination
        self.client_extra: list[Field] = []
        self.opaque = False
        self.opened_at = ctx.now  # what detect_timeout_s and handshake_timeout_s count from
        self.silence: Any = None  # the timer that ends the wait for a client's first byte
        self.question: Question | None = None
        self.unread = 0  # bytes that waited in the socket's buffer at the last sweep ...
        self.unread_since = 0.0  # ... and since when they are as many
        self.input_ended = False  # the client closed its sending side
        self.head_since = 0.0  # when a sweep first found a request head incomplete

    def opened(self) -> None:
        self.opened_at = self.active_at
        self.side.opened(self)
        if not self.nested and not self.side.essential:
            self.ctx.pressure.opened()
        if self.side.allows_clear(self):
            self.await_first()

    # -- sniffing

    def first_bytes(self, data: bytes) -> None:
        if self.phase != SNIFFING and self.phase != ASKING:
            return
        if self.silence is not None:
            self.silence.cancel()
            self.silence = None
        if self.head:
            data = self.head + data
        elif self.phase == ASKING:
            self.opened_at = self.active_at  # silence was allowed for any time; what has begun must go on
        kind = detect.detect(data)
        if kind == detect.NEED_MORE:
            self.head = data
            return
        if kind == detect.TLS and not self.secured:
            self.hello(data)
            return
        self.head = b""
        if not self.secured and not self.side.allows_clear(self):
            self.ctx.refused("plaintext", self.side.direction)
            self.finish()
            return
        if kind == detect.OPAQUE or kind == detect.TLS:
            self.serve_opaque(data)
            return
        if self.question is not None:
            self.unask(True)
        self.serve(KIND_HTTP1 if kind == detect.HTTP1 else KIND_HTTP2, data)

    def hello(self, data: bytes) -> None:
        alpn = detect.client_hello_alpn(data)
        if alpn is None:  # the ClientHello is not complete (detect bounds how much of it is waited for)
            self.head = data
            return
        verdict = self.side.on_hello(self, alpn)
        self.head = b""
        if verdict == TERMINATE:
            self.unask(False)
            credentials = self.side.credentials
            assert credentials is not None
            self.phase = HANDSHAKE
            try:
                self.tls = TlsLayer(credentials.server_context(), True, None)
            except TlsFailure as failure:
                self.tls_failed(failure)
                return
            self.ciphertext(self.tls, data)
        elif verdict == PASS_THROUGH:
            self.serve_opaque(data)
        else:
            self.ctx.refused("tls_refused", self.side.direction)
            self.finish()

    def tls_opened(self) -> None:
        assert self.tls is not None
        leaf = self.tls.peer_leaf()
        self.side.on_secured(self, leaf)
        credentials = self.side.credentials
        if leaf is not None and credentials is not None:
            self.tls.expires(credentials.until(leaf), True, self.ctx.wall)
        self.phase = SNIFFING
        if self.tls.alpn() in HTTP2_ALPN:  # agreed on: whatever else comes is an error, not another protocol (RFC 9113 3.3)
            self.serve(KIND_HTTP2, b"")
        else:
            self.await_first()

    def tls_failed(self, failure: TlsFailure) -> None:
        self.ctx.tls_failed(failure.reason, self.side.direction, str(failure), self.peer)
        self.finish()

    def bytes_allowed(self) -> bool:
        """Could it become a tunnel, also without having said anything?"""
        return self.side.opaque_authority(self) != b"" and (self.secured or self.side.allows_clear(self))

    def may_be_silent(self) -> bool:
        """Is one that has said nothing idle, and not late?"""
        return self.bytes_allowed() or (self.side.only_http(self) and (self.secured or self.side.allows_clear(self)))

    def serve_opaque(self, data: bytes) -> None:
        if self.question is not None:
            self.adopt(self.question, data)
            return
        authority = self.side.opaque_authority(self)
        if not authority:
            self.ctx.refused("not_http" if self.side.only_http(self) else "unknown_protocol", self.side.direction)
            self.finish()
            return
        self.opaque = True
        self.serve(KIND_OPAQUE, data, authority)

    def serve(self, kind: int, data: bytes, authority: bytes = b"") -> None:
        self.phase = SERVING
        mesh = self.client_id != ""
        self.engine = engine = server_engine(self, kind, self.ctx.settings, authority, mesh, self.side.own_app)
        engine.start()
        if data:
            engine.receive(data, self.ctx.now)
        if self.ctx.draining:
            self.drain()

    # -- a server that speaks first (proxy/question.py)

    def await_first(self) -> None:
        if self.side.declared_opaque(self):
            self.serve_opaque(b"")
        else:
            self.await_client()

    def await_client(self) -> None:
        """Nothing has arrived yet.  Where bytes may go the client gets `server_first_s` to speak, and no time at all where
        the server is known to speak first."""
        destination = self.side.opaque_authority(self)
        if not destination:
            return
        if self.side.server_first.speaks_first(destination):
            self.ask(destination)
        else:
            self.silence = self.ctx.loop.call_later(self.ctx.settings.server_first_s, self.silent)

    def silent(self) -> None:
        self.silence = None
        if self.phase != SNIFFING or self.head or self.state != OPEN:
            return
        ctx = self.ctx
        ctx.now = monotonic()
        self.side.server_first.timeouts.value += 1
        destination = self.side.opaque_authority(self)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("client of %s said nothing for %.1f s", destination.decode(), ctx.settings.server_first_s)
        try:
            self.ask(destination)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("silent")

    def ask(self, destination: bytes) -> None:
        """Open the tunnel and wait for whoever speaks first."""
        memory = self.side.server_first
        if memory.ask(destination):
            self.phase = ASKING
            self.opaque = self.watched = True
            self.question = question = Question(self, memory, destination)
            question.engine.start()

    def server_spoke(self) -> None:
        """The server's first bytes or its end; or it could not be reached, and the engine closes."""
        question = self.question
        if question is None:
            return
        if question.speaks_http2():
            self.unask(True)
            self.phase = SNIFFING
            return
        head = self.head
        if not head:
            question.learn()
        self.head = b""
        self.adopt(question, head)
        self.wake()

    def adopt(self, question: Question, data: bytes) -> None:
        """It is bytes: the tunnel is this connection's from now on.  `data`: what the client said so far."""
        self.question = None
        self.engine = engine = question.hand_over()
        self.phase = SERVING
        if data:
            engine.receive(data, self.ctx.now)
        if self.ctx.draining:
            self.drain()

    def undecided(self) -> None:
        """One word came, and nothing else.  It is passed on, perhaps all its server waits for; what follows is watched."""
        self.side.server_first.timeouts.value += 1
        self.watched = True
        head = self.head
        self.head = b""
        self.serve_opaque(head)

    def unask(self, http: bool) -> None:
        question = self.question
        if question is not None:
            self.question = None
            self.opaque = self.watched = False
            question.drop(http)

    # -- serving

    def end_of_input(self) -> None:
        if self.question is not None or (self.head and self.phase == SNIFFING and self.bytes_allowed()):
            head = self.head  # too little to tell what it is, and all there is: bytes
            self.head = b""
            self.serve_opaque(head)
        super().end_of_input()
        self.input_ended = True
        engine = self.engine
        if engine is not None and engine.unanswered():
            self.await_answer()

    def await_answer(self) -> None:
        if self.half_close is not None:
            self.half_close.cancel()
        self.half_close = self.ctx.loop.call_later(self.ctx.settings.half_close_s, self.half_closed)

    def half_closed(self) -> None:
        engine = self.engine
        if self.state == OPEN and engine is not None and engine.unanswered():
            self.abort()

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        try:
            if not end:
                self.active_at = self.ctx.now  # it may have been read long ago, and have waited behind another
            if self.input_ended:
                self.await_answer()  # a pipelined one: its time begins now
            if self.ctx.pressure.level != CALM and not self.side.essential and not self.admit(stream, head):
                return
            self.side.request(self, stream, head, end)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this request only
            self.ctx.escaped("on_request")
            stream.sink.request_reset(INTERNAL_ERROR)
            stream.reset(INTERNAL_ERROR)

    def admit(self, stream: Stream, head: Head) -> bool:
        """Under pressure: False if the answer is a refusal.  Where memory is short the connection ends after its answer."""
        pressure = self.ctx.pressure
        if pressure.memory != NORMAL:
            self.drain()
        if pressure.level < REFUSE_NEW:
            return True
        refuse(self.ctx, stream, head, self.side.direction, OVERLOADED, self.client_id != "")
        return False

    # -- ending

    def idle(self) -> bool:
        """Nobody loses anything but the way here if it is closed now."""
        engine = self.engine
        if self.nested or self.state != OPEN:
            return False
        if engine is None:
            return not self.head and (self.phase == SNIFFING or self.phase == ASKING)
        return self.phase == SERVING and engine.awaiting() == AWAITING_NOTHING

    def drain(self) -> None:
        """Finish what is in flight; take nothing new."""
        engine = self.engine
        if engine is None:
            if self.state == OPEN and not self.head and (self.phase == SNIFFING or self.phase == ASKING):
                self.finish()  # nothing was ever asked
            return
        if self.phase == SERVING:
            self.phase = DRAINING
            engine.drain()
            self.wake()

    def drain_finish(self) -> None:
        if self.phase == DRAINING and self.engine is not None:
            self.engine.drain_finish()
            self.wake()

    def finish(self) -> None:
        self.phase = ENDED
        self.close()

    def gone(self) -> None:
        self.phase = ENDED
        if self.silence is not None:
            self.silence.cancel()
            self.silence = None
        if self.half_close is not None:
            self.half_close.cancel()
        self.unask(False)
        self.side.ended(self)
        if not self.nested and not self.side.essential:
            self.ctx.pressure.closed()

    def stands_still(self, now: float) -> bool:
        """Whether the client has taken nothing of what waits for it for too long, also when it is all that is left to do."""
        if self.nested or self.transport is None:
            return False
        waiting: int = self.transport.get_write_buffer_size()
        if waiting == 0 or waiting != self.unread:
            self.unread = waiting
            self.unread_since = now
            return False
        return now - self.unread_since > self.ctx.settings.stall_timeout_s

    def sweep(self, now: float) -> None:
        """Called once a second: close what kept us waiting too long (the limits are in proxy/settings.py)."""
        if self.state == LOST:
            return
        if self.held and self.reset_unseen():
            self.abort()
            return
        settings = self.ctx.settings
        tls = self.tls
        if tls is not None and (due := tls.due(self.ctx.wall, now, settings.expired_grace_s)) != STAY:
            if due == END:
                self.ctx.certificate_ended("cut", self.side.direction, self.peer)
                self.abort()
                return
            if self.state == OPEN and self.phase == SERVING:
                self.ctx.certificate_ended("drained", self.side.direction, self.peer)
                self.drain()
        if self.phase == ASKING and not self.head:
            return  # it is a tunnel as far as anyone knows, and a tunnel may be silent for hours
        if self.phase == SNIFFING or self.phase == HANDSHAKE or self.phase == ASKING:
            limit = settings.handshake_timeout_s if self.phase == HANDSHAKE else settings.detect_timeout_s
            if now - self.opened_at > limit:
                if self.head and detect.foreign_word(self.head) and self.bytes_allowed():
                    self.undecided()
                    return
                if self.phase == SNIFFING and not self.head and self.may_be_silent():
                    # Nobody is asked here, or too many were silent (server_first.ASKED): an idle connection like any other.
                    if now - self.opened_at > settings.idle_timeout_s:
                        self.finish()
                    return
                self.ctx.violation("slow_handshake" if self.phase == HANDSHAKE else "slow_start")
                self.abort()
            return
        engine = self.engine
        if engine is None:
            return
        if self.phase == DRAINING:
            self.drain_finish()  # the second GOAWAY, one sweep (more than a round-trip) after the first
        http = engine.sweep(now, settings.stall_timeout_s, 0.0 if self.held else settings.body_idle_timeout_s)
        if http and self.stands_still(now):
            self.ctx.violation("slow_reader")
            self.abort()
            return
        if http and self.input_ended and self.unread == 0 and now - self.moved_at() > settings.half_closed_idle_s:
            # Perhaps nobody is there any more, and nothing is said that would find out.  (Bytes that wait for a slow reader
            # would: TCP asks for room until it answers, or resets.)
            self.abort()
            return
        awaiting = engine.awaiting()
        if awaiting == AWAITING_HEAD:
            # The clock runs from the head's first byte, which only the engine saw: `head_since` is set by the first sweep
            # that finds it open, so the limit is kept to within one sweep.
            if self.head_since == 0.0:
                self.head_since = now
            elif now - self.head_since > settings.head_timeout_s:
                self.ctx.violation("slow_head")
                self.abort()
            return
        self.head_since = 0.0
        if awaiting == AWAITING_BODY and now - self.active_at > settings.body_idle_timeout_s and not self.held:
            self.ctx.violation("slow_body")
            self.abort()
        elif awaiting == AWAITING_NOTHING and now - self.moved_at() > settings.idle_timeout_s:
            self.drain()
