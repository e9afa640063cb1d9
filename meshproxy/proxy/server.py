"""A downstream connection: server role.  It finds out what the client speaks, then lets an engine speak it.

    SNIFFING --TLS hello--> HANDSHAKE --peer checked--> SNIFFING (inside TLS; SERVING if ALPN says HTTP/2)
        |  \\
        |   +--HTTP/1.1, HTTP/2 or opaque--> SERVING --drain--> DRAINING --> ENDED
        +--refused, too late--------------------------------------------------^

What is allowed here (TLS or not, opaque or not) and where requests go is the *side's* to say: forward, outbound, inbound.
"""

from __future__ import annotations

from typing import Final

from meshproxy.proxy.carrier import LOST, OPEN, Carrier
from meshproxy.proxy.context import Context
from meshproxy.proxy.engines import KIND_HTTP1, KIND_HTTP2, KIND_OPAQUE, server_engine
from meshproxy.proxy.tls import Credentials, TlsFailure, TlsLayer
from meshproxy.wire import detect
from meshproxy.wire.engine import AWAITING_BODY, AWAITING_HEAD, AWAITING_NOTHING, INTERNAL_ERROR, Stream
from meshproxy.wire.message import Field, Head
from meshproxy.wire.native import mypyc_attr

SNIFFING: Final = 0
HANDSHAKE: Final = 1
SERVING: Final = 2
DRAINING: Final = 3
ENDED: Final = 4

# What a side wants done with a TLS ClientHello.
TERMINATE: Final = 1
PASS_THROUGH: Final = 2  # opaque bytes
REFUSE: Final = 3

HTTP2_ALPN: Final = ("h2", "meshproxy/1")


@mypyc_attr(allow_interpreted_subclasses=True)  # the admin side is one
class Side:
    """What kind of listener a connection came in by.  `direction` is the metric label."""

    def __init__(self, ctx: Context, direction: str) -> None:
        self.ctx = ctx
        self.direction = direction
        self.connections: dict[Accepted, None] = {}
        self.credentials: Credentials | None = None
        self.tcp = ctx.registry.tcp(direction, (("peer", "src"),))

    def on_hello(self, connection: Accepted, alpn: list[bytes]) -> int:
        """A ClientHello arrived: TERMINATE, PASS_THROUGH or REFUSE."""
        raise NotImplementedError

    def on_secured(self, connection: Accepted, leaf: bytes | None) -> None:
        """The handshake is done; `leaf` is the client's certificate (DER).  Raises TlsFailure to refuse it."""

    def allows_clear(self, connection: Accepted) -> bool:
        """May this connection go on without TLS?"""
        return True

    def declared_opaque(self, connection: Accepted) -> bool:
        """Is it known before the first byte that this connection carries opaque bytes?  Where the server speaks first
        (MySQL, SMTP) there is no first byte to wait for."""
        return False

    def opaque_authority(self, connection: Accepted) -> bytes:
        """Where opaque bytes of this connection go (host:port), b"" if nowhere."""
        return b""

    def request(self, connection: Accepted, stream: Stream, head: Head, end: bool) -> None:
        """Handle a request: give `stream` its sink and begin."""
        raise NotImplementedError

    def opened(self, connection: Accepted) -> None:
        self.connections[connection] = None

    def ended(self, connection: Accepted) -> None:
        self.connections.pop(connection, None)


class Accepted(Carrier):
    """client_id    the peer's verified SPIFFE ID, "" without one
    destination  where the listener or the CONNECT that carries us leads ("host:port"), "" if the requests say it
    client_extra fields added to every request of this connection (`mesh-client-id`), built once
    opaque       it carries bytes that are not read: its one "request" is to connect
    """

    def __init__(self, ctx: Context, side: Side, destination: str = "") -> None:
        super().__init__(ctx, side.tcp)
        self.side = side
        self.phase = SNIFFING
        self.head = b""  # bytes seen while sniffing
        self.client_id = ""
        self.destination = destination
        self.client_extra: list[Field] = []
        self.opaque = False
        self.opened_at = ctx.now
        self.head_since = 0.0  # when a sweep first found a request head incomplete

    def opened(self) -> None:
        self.opened_at = self.active_at
        self.side.opened(self)
        if self.side.declared_opaque(self):
            self.serve_opaque(b"")

    # -- sniffing

    def first_bytes(self, data: bytes) -> None:
        if self.phase != SNIFFING:
            return
        data = self.head + data if self.head else data
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
        if kind == detect.HTTP1:
            self.serve(KIND_HTTP1, data)
        elif kind == detect.HTTP2:
            self.serve(KIND_HTTP2, data)
        else:
            self.serve_opaque(data)

    def hello(self, data: bytes) -> None:
        alpn = detect.client_hello_alpn(data)
        if alpn is None:  # the ClientHello is not complete (detect bounds how much of it is waited for)
            self.head = data
            return
        verdict = self.side.on_hello(self, alpn)
        self.head = b""
        if verdict == TERMINATE:
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
        self.side.on_secured(self, self.tls.peer_leaf())
        self.phase = SNIFFING
        if self.tls.alpn() in HTTP2_ALPN:  # agreed on: whatever else comes is an error, not another protocol (RFC 9113 3.3)
            self.serve(KIND_HTTP2, b"")

    def tls_failed(self, failure: TlsFailure) -> None:
        self.ctx.tls_failed(failure.reason, self.side.direction, str(failure), self.peer)
        self.finish()

    def serve_opaque(self, data: bytes) -> None:
        authority = self.side.opaque_authority(self)
        if not authority:
            self.ctx.refused("unknown_protocol", self.side.direction)
            self.finish()
            return
        self.opaque = True
        self.serve(KIND_OPAQUE, data, authority)

    def serve(self, kind: int, data: bytes, authority: bytes = b"") -> None:
        self.phase = SERVING
        self.engine = engine = server_engine(self, kind, self.ctx.settings, authority)
        engine.start()
        if data:
            engine.receive(data, self.ctx.now)
        if self.ctx.draining:
            self.drain()

    # -- serving

    def end_of_input(self) -> None:
        super().end_of_input()
        engine = self.engine
        if engine is not None and engine.unanswered():
            self.ctx.loop.call_later(self.ctx.settings.half_close_s, self.half_closed)

    def half_closed(self) -> None:
        engine = self.engine
        if self.state == OPEN and engine is not None and engine.unanswered():
            self.abort()

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        try:
            self.side.request(self, stream, head, end)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this request only
            self.ctx.escaped("on_request")
            stream.sink.request_reset(INTERNAL_ERROR)
            stream.reset(INTERNAL_ERROR)

    # -- ending

    def drain(self) -> None:
        """Finish what is in flight; take nothing new."""
        engine = self.engine
        if engine is None:
            if self.state == OPEN and not self.head and self.phase == SNIFFING:
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
        self.side.ended(self)

    def may_speak_second(self) -> bool:
        """The client has said nothing at all: perhaps its protocol is one in which the server speaks first.  It is then
        passed on as bytes, where bytes may go (as Linkerd does after its detection timeout)."""
        if self.phase != SNIFFING or self.head or not self.side.opaque_authority(self):
            return False
        return self.secured or self.side.allows_clear(self)

    def sweep(self, now: float) -> None:
        """Called once a second: close what kept us waiting too long (the limits are in proxy/settings.py)."""
        if self.state == LOST:
            return
        settings = self.ctx.settings
        if self.phase == SNIFFING or self.phase == HANDSHAKE:
            limit = settings.handshake_timeout_s if self.phase == HANDSHAKE else settings.detect_timeout_s
            if now - self.opened_at > limit:
                if self.may_speak_second():
                    self.serve_opaque(b"")
                    return
                self.ctx.violation("slow_handshake" if self.phase == HANDSHAKE else "slow_start")
                self.abort()
            return
        engine = self.engine
        if engine is None:
            return
        if self.phase == DRAINING:
            self.drain_finish()  # the second GOAWAY, one sweep (more than a round-trip) after the first
        awaiting = engine.awaiting()
        silence = now - self.active_at
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
        if awaiting == AWAITING_BODY and silence > settings.body_idle_timeout_s and not self.held:
            self.ctx.violation("slow_body")
            self.abort()
        elif awaiting == AWAITING_NOTHING and silence > settings.idle_timeout_s:
            self.drain()
