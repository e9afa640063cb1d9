"""An upstream connection: client role, owned by a pool.

    DIALLING --TCP--> [HANDSHAKE --peer verified-->] SETTLING --engine ready--> READY --GOAWAY/drain--> LEAVING --> LOST
        |                  |                            |
        +------------------+----------------------------+--> FAILED   connect_failed, connect_timeout,
                                                                             name_not_found, peer_identity

LEAVING finishes the streams it has, then closes.

READY only after the peer's SETTINGS on HTTP/2: with TLS 1.3 a client can finish its handshake before the server has
refused its certificate; a POST sent into that gap would look sent although nobody acted on it.
"""

from __future__ import annotations

from socket import gaierror
from time import monotonic
from typing import Any, Final

from meshproxy.proxy.carrier import OPEN, Carrier
from meshproxy.proxy.context import Context, log
from meshproxy.proxy.descriptors import OURS
from meshproxy.proxy.engines import KIND_HTTP2, client_engine
from meshproxy.proxy.keepalive import keep_alive
from meshproxy.proxy.refusals import CONNECT_FAILED, CONNECT_TIMEOUT, NAME_NOT_FOUND, NO_DESCRIPTORS, PEER_REFUSED, Refusal
from meshproxy.proxy.requester import Requester
from meshproxy.proxy.tls import END, STAY, Credentials, TlsFailure, TlsLayer
from meshproxy.telemetry.series import TcpSeries
from meshproxy.wire.engine import AWAITING_HEAD

DIALLING: Final = 0
SETTLING: Final = 1
READY: Final = 2
LEAVING: Final = 3
ENDED: Final = 4


class Owner:
    """What a pool hears from its connections."""

    def ready(self, upstream: Upstream) -> None:
        """It can take streams now, for the first time."""

    def failed(self, upstream: Upstream, refusal: Refusal) -> None:
        """It never became ready."""

    def free(self, upstream: Upstream) -> None:
        """It can take a stream (again)."""

    def leaving(self, upstream: Upstream) -> None:
        """It takes no new streams."""

    def lost(self, upstream: Upstream) -> None:
        """It is gone."""


class Upstream(Carrier):
    answered_at: float = 0.0  # when the last PING was
    head_since: float = 0.0  # when a sweep first found an answer's head incomplete; here, because few are (proxy/server.py)

    def __init__(
        self,
        ctx: Context,
        owner: Owner,
        kind: int,
        tcp: TcpSeries,
        credentials: Credentials | None,
        identity: str,
        server_name: str,
    ) -> None:
        super().__init__(ctx, tcp)
        self.owner = owner
        self.kind = kind
        self.credentials = credentials
        self.identity = identity  # expected
        self.server_name = server_name
        self.phase = DIALLING
        self.deadline: Any = None
        self.dialling: Any = None  # the task that waits for TCP
        self.pinged_at = 0.0
        self.idle_since = 0.0  # when a sweep first found it without a stream; 0: it has carried one since

    # -- becoming ready

    def dial(self, address: str, port: int) -> None:
        """Begin; one deadline covers name, TCP, TLS and SETTINGS.  Ends in `owner.ready` or `owner.failed`."""
        ctx = self.ctx
        self.deadline = ctx.loop.call_later(ctx.settings.connect_timeout_s, self.too_late)
        self.dialling = ctx.spawn(self.connect(address, port), "connect")

    async def connect(self, address: str, port: int) -> None:
        pressure = self.ctx.pressure
        if not pressure.dialling():
            self.dialling = None
            self.short_of_descriptors(f"{pressure.dialled} connections are dialled")
            return
        try:
            await self.ctx.loop.create_connection(self.itself, address, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot hold ("a..b", a label of 64)
            log.debug("connect to %s:%d failed: %s", address, port, error)
            self.dialling = None
            self.ctx.now = monotonic()
            if isinstance(error, OSError) and error.errno in OURS:
                self.short_of_descriptors(error.strerror or str(error))
            else:
                self.fail(NAME_NOT_FOUND if isinstance(error, (gaierror, UnicodeError)) else CONNECT_FAILED)
        finally:
            self.dialling = None
            if self.transport is None:  # otherwise `gone` will come
                pressure.undialled()

    def short_of_descriptors(self, why: str) -> None:
        log.debug("no connection to the endpoint: %s", why)
        self.fail(NO_DESCRIPTORS)

    def itself(self) -> Upstream:
        return self

    def opened(self) -> None:
        keep_alive(self.transport.get_extra_info("socket"), self.ctx.settings)
        if self.phase != DIALLING:  # too late: the deadline passed while TCP was connecting
            self.abort()
            return
        self.phase = SETTLING
        credentials = self.credentials
        if credentials is None:
            self.begin()
            return
        try:
            self.tls = TlsLayer(credentials.client_context(), False, self.server_name)
            self.tls.start()
        except TlsFailure as failure:
            self.tls_failed(failure)
            return
        self.write(self.tls.pull())

    def tls_opened(self) -> None:
        assert self.tls is not None
        assert self.credentials is not None
        leaf = self.tls.peer_leaf()
        if leaf is None:
            raise TlsFailure("no_server_certificate", "the server showed no certificate")
        seen = self.credentials.verify(leaf)
        if self.identity and seen != self.identity:
            raise TlsFailure("wrong_server_identity", f"expected {self.identity}, the certificate says {seen}")
        self.credentials.check_alpn(self.tls.alpn())
        self.tls.expires(self.credentials.until(leaf), False, self.ctx.wall)
        self.begin()

    def tls_failed(self, failure: TlsFailure) -> None:
        self.ctx.tls_failed(failure.reason, "outbound", str(failure), self.peer)
        if self.phase == DIALLING or self.phase == SETTLING:
            self.close()  # and not abort(): the alert says to the peer what it did wrong
            self.fail(PEER_REFUSED)
        else:
            self.abort()  # a broken record, or an alert: nothing that was asked here will be answered

    def begin(self) -> None:
        self.engine = engine = client_engine(self, self.kind, self.ctx.settings)
        engine.start()

    def first_bytes(self, data: bytes) -> None:
        raise AssertionError("a client has its engine before the first byte")

    def on_ready(self) -> None:
        if self.phase != SETTLING:
            return
        self.phase = READY
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        self.owner.ready(self)

    def too_late(self) -> None:
        self.deadline = None
        self.ctx.now = monotonic()
        self.fail(CONNECT_TIMEOUT)

    def fail(self, refusal: Refusal) -> None:
        if self.phase != DIALLING and self.phase != SETTLING:
            return
        self.phase = ENDED
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        dialling = self.dialling
        if dialling is not None and self.transport is None:
            dialling.cancel()  # the kernel would go on for two minutes, with a descriptor each
        if self.state == OPEN:
            self.abort()
        self.owner.failed(self, refusal)

    # -- carrying

    def capacity(self) -> int:
        engine = self.engine
        if self.phase != READY or engine is None:
            return 0
        return engine.capacity()

    def take(self, requester: Requester) -> bool:
        """Give `requester` a stream.  False if there is none to give now."""
        engine = self.engine
        if self.phase != READY or engine is None or engine.capacity() <= 0:
            return False
        self.idle_since = 0.0
        stream = engine.open()
        stream.sink = requester
        requester.attached(stream)
        return True

    def on_capacity(self) -> None:
        if self.phase == READY:
            self.owner.free(self)

    def on_goaway(self, code: int) -> None:
        if self.phase == READY:
            self.phase = LEAVING
            assert self.engine is not None
            self.engine.drain()  # closes after the last stream: a peer that says GOAWAY need not be the one to close
            self.owner.leaving(self)

    def keepalive(self, now: float, interval: float, again: float, timeout: float) -> None:
        """HTTP/2 PING when nothing was heard for `interval`, or, since the answer to the last one, for `again`.  No answer
        within `timeout` more means the peer is dead (half-open: it went without FIN)."""
        engine = self.engine
        if engine is None or self.kind != KIND_HTTP2 or (self.phase != READY and self.phase != LEAVING):
            return
        silence = now - self.active_at
        if silence < interval:
            if self.pinged_at != 0.0:
                self.pinged_at = 0.0
                self.answered_at = self.active_at
        elif self.pinged_at == 0.0:
            if silence >= again or self.active_at != self.answered_at:
                self.pinged_at = now
                engine.ping()
        elif now - self.pinged_at >= timeout:
            log.warning("no answer to PING from %s for %.0f s: connection closed", self.peer, timeout)
            self.abort()

    def age(self, now: float) -> None:
        """Leave before a certificate of this connection ends, and cut what is still under way a while after."""
        tls = self.tls
        if tls is None or (self.phase != READY and self.phase != LEAVING):
            return
        due = tls.due(self.ctx.wall, now, self.ctx.settings.expired_grace_s)
        if due == END:
            self.ctx.certificate_ended("cut", "outbound", self.peer)
            self.abort()
        elif due != STAY and self.phase == READY:
            self.ctx.certificate_ended("drained", "outbound", self.peer)
            self.drain()

    def await_head(self, now: float, limit: float) -> None:
        """HTTP/1.1: an answer's head that has begun must be whole within `limit` seconds, to within a sweep."""
        engine = self.engine
        if engine is None or self.held or engine.awaiting() != AWAITING_HEAD:
            if self.head_since != 0.0:
                self.head_since = 0.0
        elif self.head_since == 0.0:
            self.head_since = now
        elif now - self.head_since > limit:
            engine.head_overdue()

    def idle(self, now: float) -> float:
        """Seconds without a stream, to within a sweep.  Not `active_at`: a PING's answer is no work."""
        engine = self.engine
        if self.phase != READY or engine is None or engine.active():
            self.idle_since = 0.0
        elif self.idle_since == 0.0:
            self.idle_since = now
        else:
            return now - self.idle_since
        return 0.0

    # -- ending

    def drain(self) -> None:
        """Take nothing new; close when the last exchange is over."""
        if self.phase == READY:
            self.phase = LEAVING
            assert self.engine is not None
            self.engine.drain()
            self.owner.leaving(self)

    def gone(self) -> None:
        self.ctx.pressure.undialled()
        phase = self.phase
        if phase == SETTLING:
            self.fail(CONNECT_FAILED)
        elif phase in (READY, LEAVING):
            self.phase = ENDED
            self.owner.lost(self)
