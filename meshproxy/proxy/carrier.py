"""A carrier: the bytes between a transport and an engine, in clear or through TLS.

    transport --data_received--> [TlsLayer] --> Engine.receive          (subclasses say what an engine-less start means)
    transport <-----write------- [TlsLayer] <-- Engine.out   gathered, once a loop turn

The transport is a socket of the event loop, or the stream of a tunnel that looks like one (proxy/tunnel.py): a CONNECT
can carry anything a socket can.

    OPEN --engine.closing flushed / close()--> CLOSING --connection_lost--> LOST
"""

from __future__ import annotations

import errno
import select
import struct
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from time import monotonic
from typing import Any, Final

from meshproxy.proxy.context import Context, Flushable
from meshproxy.proxy.settings import SOCKET_HIGH_BYTES, SOCKET_LOW_BYTES
from meshproxy.proxy.tls import OPEN as TLS_OPEN
from meshproxy.proxy.tls import TlsFailure, TlsLayer
from meshproxy.telemetry.series import TcpSeries
from meshproxy.wire.engine import Engine
from meshproxy.wire.message import Field

OPEN: Final = 0
CLOSING: Final = 1
LOST: Final = 2

# A read of this size is written on at once, not at the end of the loop turn: the event loop reads a socket up to 32 times in
# a turn, and only a write tells that the other side does not keep up.  Measured with a stalled reader: 1 MiB held, now 0.25.
BULK_BYTES: Final = 64 * 1024

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
# What is left of a write keeps the whole of it in memory, and one read is 256,000 bytes.  So the first bytes of a connection
# are written in pieces of BULK_BYTES, more of them than the kernel's buffers take: a peer that does not read is found out while
# that lasts.  Copying costs 5 % of a bulk transfer's CPU, hence not for ever.
PROVEN_BYTES: Final = 8 * 1024 * 1024
WHOLE_BYTES: Final = BULK_BYTES + 16 * 1024  # not cut: 64 KiB with a head before it, or in frames

LINGER_S: Final = 1.0  # enough for an answer to cross the world; lingering connections are dropped after it


class Carrier(Flushable):
    """Common to both roles.  Speaks asyncio's Protocol interface by shape, so that it can be a native class."""

    def __init__(self, ctx: Context, tcp: TcpSeries) -> None:
        super().__init__()
        self.ctx = ctx
        self.tcp = tcp
        self.transport: Any = None
        self.engine: Engine | None = None
        self.tls: TlsLayer | None = None
        self.secured = False
        self.state = OPEN
        self.held = False  # we stopped reading
        self.unproven = PROVEN_BYTES
        self.held_bytes = 0  # what the engine holds back for its streams
        self.nested = False  # carried by a stream of another connection, which is in the middle of receiving when we receive
        self.peer = ""
        self.wrote_at = 0.0
        self.active_at = ctx.now  # since when its silence counts: bytes arrived, or we began to wait for more

    # -- what subclasses decide

    def opened(self) -> None:
        """The transport is there."""
        raise NotImplementedError

    def first_bytes(self, data: bytes) -> None:
        """Bytes arrived and there is no engine yet."""
        raise NotImplementedError

    def tls_opened(self) -> None:
        """The handshake is done: check the peer, choose the engine.  Raises TlsFailure."""
        raise NotImplementedError

    def tls_failed(self, failure: TlsFailure) -> None:
        raise NotImplementedError

    def gone(self) -> None:
        """The transport is gone and the engine was told."""
        raise NotImplementedError

    # -- transport callbacks

    def connection_made(self, transport: Any) -> None:
        self.ctx.now = self.active_at = monotonic()
        self.transport = transport
        self.tcp.opened()
        transport.set_write_buffer_limits(SOCKET_HIGH_BYTES, SOCKET_LOW_BYTES)
        name = transport.get_extra_info("peername")
        if name:
            self.peer = f"{name[0]}:{name[1]}"
        try:
            self.opened()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("connection_made")

    def data_received(self, data: bytes) -> None:
        if self.state != OPEN:
            return  # lingering: read and dropped
        ctx = self.ctx
        ctx.now = self.active_at = now = monotonic()
        self.tcp.read_bytes += len(data)
        try:
            tls = self.tls
            if tls is None:
                engine = self.engine
                if engine is None:
                    self.first_bytes(data)
                else:
                    engine.receive(data, now)
            else:
                self.ciphertext(tls, data)
            if len(data) >= BULK_BYTES and not self.nested:
                ctx.flush_bulk()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("data_received")

    def ciphertext(self, tls: TlsLayer, data: bytes) -> None:
        if tls.eof:
            return  # after close_notify there is nothing to read
        try:
            plain = tls.receive(data)
            if not self.secured and tls.state == TLS_OPEN:
                self.secured = True
                self.tls_opened()
        except TlsFailure as failure:
            self.write(tls.pull())  # the alert
            self.tls_failed(failure)
            return
        if tls.outgoing.pending:
            self.write(tls.pull())
        if plain:
            engine = self.engine
            if engine is None:
                self.first_bytes(plain)
            else:
                engine.receive(plain, self.ctx.now)
        if tls.eof:
            damage = tls.failure
            if damage is None:
                self.end_of_input()
            else:
                self.write(tls.pull())
                self.tls_failed(damage)

    def eof_received(self) -> bool:
        self.ctx.now = monotonic()
        try:
            tls = self.tls
            if tls is None:
                self.end_of_input()
            elif not tls.eof:
                # FIN without close_notify: anyone on the path can send that, so it ends nothing but the connection
                # (RFC 8446 6.1; RFC 9112 9.8: what only the close would complete is not complete).
                self.abort()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("eof_received")
        # True: the transport stays open for our half (half-close); the engine says when it is finished.
        return self.state == OPEN

    def end_of_input(self) -> None:
        engine = self.engine
        if engine is None:
            self.close()
        else:
            engine.receive_eof()

    def connection_lost(self, error: BaseException | None) -> None:
        if self.state == LOST:
            return
        self.state = LOST
        self.ctx.now = monotonic()
        self.tcp.closed("" if error is None else errno.errorcode.get(getattr(error, "errno", 0) or 0, "error"))
        try:
            engine = self.engine
            if engine is not None:
                engine.lost()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the connection is gone already
            self.ctx.escaped("connection_lost")
        self.release_held()
        try:
            self.gone()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the connection is gone already
            self.ctx.escaped("gone")
        # An engine and its carrier hold each other.  Left to the collector, which looks rarely (run.py), the remains of 40
        # short connections a second came to 25 MB.
        self.engine = None

    def pause_writing(self) -> None:
        try:
            if self.engine is not None:
                self.engine.socket_blocked()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("pause_writing")

    def resume_writing(self) -> None:
        self.ctx.now = monotonic()
        try:
            if self.engine is not None:
                self.engine.socket_unblocked()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("resume_writing")

    # -- Host

    def wake(self) -> None:
        if not self.dirty:
            self.dirty = True
            self.ctx.mark(self)

    def flush(self) -> None:
        self.dirty = False
        engine = self.engine
        if engine is None or self.state != OPEN:
            return
        try:
            out = engine.out
            if out:
                engine.out = []
                tls = self.tls
                if tls is not None:
                    self.write(tls.seal(out[0] if len(out) == 1 else b"".join(out)))
                elif len(out) == 1:
                    self.write(out[0])
                elif self.ctx.bulk and self.unproven <= 0:
                    self.write_pieces(out)
                else:
                    self.write(b"".join(out))
            if engine.closing:
                if engine.abort:
                    self.abort()
                elif engine.linger:
                    self.linger()
                else:
                    self.close()
            elif engine.half_close:
                engine.half_close = False
                self.end_output()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this connection only
            self.broken("flush")

    def hold_reading(self) -> None:
        if not self.held and self.state == OPEN:
            self.held = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.held:
            self.held = False
            self.active_at = self.ctx.now  # we kept it from sending
            if self.state != LOST and not self.transport.is_closing():
                self.transport.resume_reading()

    def on_invited(self) -> None:
        self.active_at = self.ctx.now

    def moved_at(self) -> float:
        """When bytes last went either way."""
        return max(self.active_at, self.wrote_at)

    def dated(self) -> list[Field]:
        return self.ctx.dated()

    def on_held(self, change: int) -> None:
        if self.state != LOST:  # afterwards nothing is held: see release_held
            self.held_bytes += change
            self.ctx.pressure.hold(change)

    def release_held(self) -> None:
        """The connection is gone, and with it whatever was held for it, accounted for by its engine or not."""
        held = self.held_bytes
        if held:
            self.held_bytes = 0
            self.ctx.pressure.hold(-held)

    def on_violation(self, reason: str) -> None:
        self.ctx.violation(reason)

    # -- the socket

    def write(self, data: bytes) -> None:
        if data and self.state == OPEN:
            size = len(data)
            self.tcp.write_bytes += size
            self.wrote_at = self.ctx.now
            if size <= WHOLE_BYTES or self.unproven <= 0:
                self.transport.write(data)
            else:
                self.unproven -= size
                for at in range(0, size, BULK_BYTES):
                    self.transport.write(data[at : at + BULK_BYTES])

    def write_pieces(self, pieces: list[Any]) -> None:
        """`write`, without making one piece of them first: one system call takes them all."""
        if self.state == OPEN:
            size = 0
            for piece in pieces:
                size += len(piece)
            self.tcp.write_bytes += size
            self.wrote_at = self.ctx.now
            self.transport.writelines(pieces)

    def end_output(self) -> None:
        """Half-close our sending side (close_notify where there is TLS)."""
        tls = self.tls
        if tls is not None:
            tls.close()
            self.write(tls.pull())
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        """Close after what was written is sent."""
        if self.state != OPEN:
            return
        tls = self.tls
        if tls is not None:
            tls.close()
            self.write(tls.pull())
        self.state = CLOSING
        if self.transport is not None:
            self.transport.close()

    def linger(self) -> None:
        """Close, but let the peer finish reading our answer: it may still be sending, and the kernel answers unread bytes
        with RST, which can destroy the answer on its way (RFC 9112 9.6)."""
        if self.state != OPEN:
            return
        self.end_output()
        self.state = CLOSING
        self.resume_reading()
        self.ctx.loop.call_later(LINGER_S, self.transport.close)

    def abort(self) -> None:
        """Close at once, by RST; unsent bytes are dropped.  The event loop's own abort() sends FIN, which says that what
        arrived was all: a cut answer without a length would look complete, and a tunnel that broke off ended well."""
        if self.state != LOST and self.transport is not None:
            self.state = CLOSING
            raw = self.transport.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):  # it is gone already
                    raw.setsockopt(SOL_SOCKET, SO_LINGER, RESET_ON_CLOSE)
            self.transport.abort()

    def reset_unseen(self) -> bool:
        """Did the peer reset the connection?  While we do not read, the event loop does not look: what waits here for a
        server that stands still would be held for a client that has long gone."""
        raw = self.transport.get_extra_info("socket")
        if raw is None:
            return False
        poll = select.poll()
        poll.register(raw.fileno(), 0)  # errors are reported unasked; a FIN is none, and may have bytes before it
        return any(events & select.POLLERR for _, events in poll.poll(0))

    def broken(self, where: str) -> None:
        self.ctx.escaped(where)
        self.abort()
