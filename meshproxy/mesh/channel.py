"""A connection to a gRPC server, on our own HTTP/2 engine: the control plane's by TLS, a SPIFFE agent's socket in clear.

    IDLE --start()--> CONNECTING --TCP--> [TLS, certificate checked] --SETTINGS--> READY --GOAWAY--> (calls go on) --+
                          |                                                          |                               |
                          +-- refused, not trusted, too late ------------------------+-- cut, silent, a rule broken -+--> CLOSED

A channel is used for one call or a few and closed; who wants another connection opens another channel.  So there is no
reconnecting here, no pool and no queue: watch.py, identity.py and spire.py try again, each by its own schedule.

The address is dialled, a name is checked: the control plane's certificate says CONTROL_DNS_NAME wherever it runs.  TLS is
`proxy/tls.py`, as between proxies: the event loop's own allocates 256 KiB a connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Final

from certs.bundle import TrustBundle
from certs.context import client_context
from certs.svid import Svid
from control.api.names import CONTROL_DNS_NAME
from meshproxy.mesh.call import Call
from meshproxy.mesh.reasons import os_reason, tls_reason
from meshproxy.mesh.rpc import Method, Request, Response, RpcError, StatusCode, http2_code, request_head
from meshproxy.proxy.settings import SOCKET_HIGH_BYTES, SOCKET_LOW_BYTES
from meshproxy.proxy.tls import OPEN as TLS_OPEN
from meshproxy.proxy.tls import TlsFailure, TlsLayer
from meshproxy.wire.engine import Host
from meshproxy.wire.http2 import Http2Client
from meshproxy.wire.limits import Limits

CONNECT_S: Final = 5.0  # s, for name, TCP, TLS and SETTINGS; a call's own deadline may be shorter
KEEPALIVE_S: Final = 20.0  # s of silence, then a PING; the control plane allows one every 10 s
KEEPALIVE_ANSWER_S: Final = 10.0  # s for its answer: a machine that vanished says nothing at all
CLOSE_S: Final = 1.0  # s for the last bytes to leave a connection that is closed

IDLE: Final = 0
CONNECTING: Final = 1
READY: Final = 2
CLOSED: Final = 3


def open_channel(target: str, bundle: TrustBundle, svid: Svid | None = None) -> Channel:
    """A channel to the control plane at `target` (host:port), showing `svid` if there is one.  Connects on first use; the
    caller closes it (`async with`)."""
    chain, key = (None, None) if svid is None else (svid.chain_pem, svid.key_pem)
    context = client_context(chain, key, bundle.pem.encode(), ("h2",))
    context.check_hostname = True
    return Channel(target, CONTROL_DNS_NAME, context, KEEPALIVE_S)


def open_local_channel(socket: str) -> Channel:
    """A channel in clear to a socket file, "unix:///path".  No keepalive: the kernel tells when a process ends, and agents
    take PINGs every 20 s for abuse (grpc-go's servers allow one in five minutes)."""
    return Channel(socket, "localhost", None, None)


def _limits() -> Limits:
    """Windows do not grow beyond what needs no measuring: the engine's PINGs would count against us (grpc allows two without
    data between them)."""
    limits = Limits()
    limits.stream_window_max = limits.stream_window_held
    return limits


class Channel(Host):
    """`target` is host:port or unix:///path; `authority` the name that is asked for, and checked where there is TLS.
    `keepalive_s`: None for none."""

    def __init__(
        self,
        target: str,
        authority: str,
        context: ssl.SSLContext | None,
        keepalive_s: float | None,
        keepalive_answer_s: float = KEEPALIVE_ANSWER_S,
        connect_s: float = CONNECT_S,
    ) -> None:
        self._target, self._authority, self._context = target, authority, context
        self._keepalive_s, self._keepalive_answer_s, self._connect_s = keepalive_s, keepalive_answer_s, connect_s
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._tls: TlsLayer | None = None
        self._engine: Http2Client | None = None
        self._state = IDLE
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0  # monotonic
        self._pinged = False
        self._flushing = False
        self._goaway = ""  # the server's reason for leaving
        self.failure: RpcError | None = None  # why the connection is no more
        self.violation = ""  # the rule that the server broke last, until its stream takes the blame

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- calls

    async def unary(self, method: Method[Request, Response], message: Request, deadline_s: float) -> Response:
        """One message there, one back, all within `deadline_s` seconds.  Raises RpcError."""
        call: Call[Request, Response] | None = None
        try:
            async with asyncio.timeout(deadline_s):
                call = await self.start(method, deadline_s)
                await call.write(message, last=True)
                answer = await call.read()
                if answer is None or await call.read() is not None:
                    wrong = "no message" if answer is None else "more than one message"
                    raise RpcError(StatusCode.INTERNAL, f"the server answered with {wrong}; one was expected")
                return answer
        except TimeoutError:
            what = "connection" if call is None else "answer"
            raise RpcError(StatusCode.DEADLINE_EXCEEDED, f"no {what} within {deadline_s:g} s") from None
        finally:
            if call is not None:
                call.cancel()

    async def start(
        self,
        method: Method[Request, Response],
        deadline_s: float | None = None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> Call[Request, Response]:
        """Connect if need be, and begin a call.  `deadline_s` is only told to the server; the caller keeps it.
        Raises RpcError."""
        if self._state == IDLE:
            await self._connect()
        if self.failure is not None:
            raise self.failure.again()
        engine = self._engine
        if self._state != READY or engine is None or engine.capacity() <= 0:
            raise RpcError(StatusCode.UNAVAILABLE, self._goaway or "the server takes no calls on this connection")
        scheme = "http" if self._context is None else "https"
        head = request_head(method.path, scheme, self._authority, deadline_s, metadata)
        return Call(self, engine.open(), method, head)

    async def close(self) -> None:
        """End what is under way and close; waits until the last bytes have left, at most CLOSE_S."""
        self._fail(RpcError(StatusCode.CANCELLED, "the channel was closed here"))
        if self._transport is not None and not self._gone.done():
            await asyncio.wait((self._gone,), timeout=CLOSE_S)
            if not self._gone.done():
                self._transport.abort()

    # -- becoming ready

    async def _connect(self) -> None:
        self._state = CONNECTING
        try:
            async with asyncio.timeout(self._connect_s):
                await self._dial()
                await asyncio.shield(self._ready)
        except TimeoutError:
            self._fail(RpcError(StatusCode.UNAVAILABLE, f"connect: nobody answers within {self._connect_s:g} s"))
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot hold
            self._fail(RpcError(StatusCode.UNAVAILABLE, f"connect: {os_reason(error)}"))
        except ValueError as error:
            self._fail(RpcError(StatusCode.UNAVAILABLE, str(error)))
        except asyncio.CancelledError:
            self._fail(RpcError(StatusCode.CANCELLED, "cancelled while connecting"))
            raise

    async def _dial(self) -> None:
        target = self._target
        if target.startswith("unix:"):
            path = target.removeprefix("unix:")
            await self._loop.create_unix_connection(self._itself, "/" + path.lstrip("/") if path.startswith("//") else path)
            return
        host, _, port = target.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"{target!r} is no address; host:port was expected")
        await self._loop.create_connection(self._itself, host.removeprefix("[").removesuffix("]"), int(port))

    def _itself(self) -> Any:  # asyncio's Protocol by shape: `Host` is a native class
        return self

    def on_ready(self) -> None:
        if self._state == CONNECTING:
            self._state = READY
            self._probe_in(self._keepalive_s)
            self._ready.set_result(None)

    # -- asyncio's Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        if self._state != CONNECTING:  # too late
            transport.abort()
            return
        self._heard_at = monotonic()
        transport.set_write_buffer_limits(SOCKET_HIGH_BYTES, SOCKET_LOW_BYTES)
        if self._context is None:
            self._begin()
            return
        self._tls = TlsLayer(self._context, False, self._authority)
        self._tls.start()
        self._write(self._tls.pull())

    def data_received(self, data: bytes) -> None:
        if self._state == CLOSED:
            return
        self._heard_at = monotonic()
        if self._pinged:
            self._pinged = False
            self._probe_in(self._keepalive_s)
        tls = self._tls
        if tls is not None:
            try:
                data = tls.receive(data)
            except TlsFailure as failure:
                self._write(tls.pull())  # the alert
                self._fail(RpcError(StatusCode.UNAVAILABLE, tls_reason(failure)))
                return
            if tls.state == TLS_OPEN and self._engine is None:
                if tls.alpn() != "h2":
                    self._fail(RpcError(StatusCode.UNAVAILABLE, "TLS: the server does not offer HTTP/2 (ALPN h2)"))
                    return
                self._begin()
            self._write(tls.pull())
        engine = self._engine
        if engine is not None and data:
            if self._state == CONNECTING and data.startswith(b"HTTP/1."):
                self._fail(RpcError(StatusCode.UNAVAILABLE, "the server answers in HTTP/1.x; is that a gRPC port?"))
                return
            engine.receive(data, self._heard_at)
        if tls is not None and tls.eof:
            self._ended("closed by the server")

    def eof_received(self) -> bool:
        self._ended("closed by the server")
        return False

    def connection_lost(self, error: BaseException | None) -> None:
        self._ended("closed by the server" if error is None else f"connection lost: {os_reason(error)}")
        # Engine and channel hold each other, and the collector looks rarely (proxy/run.py): a proxy that tries again for a day
        # would keep what is left of each attempt.
        self._engine = self._tls = None
        if not self._gone.done():
            self._gone.set_result(None)

    def pause_writing(self) -> None:
        if self._engine is not None:
            self._engine.socket_blocked()

    def resume_writing(self) -> None:
        if self._engine is not None:
            self._engine.socket_unblocked()

    # -- the engine's host

    def wake(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def on_goaway(self, code: int) -> None:
        self._goaway = f"the server says GOAWAY ({http2_code(code)})"

    def on_violation(self, reason: str) -> None:
        if self._engine is not None and self._engine.closing:
            said = "the server does not speak HTTP/2" if self._state == CONNECTING else "the server broke HTTP/2's rules"
            self.failure = self.failure or RpcError(StatusCode.UNAVAILABLE, f"{said}: {reason}")
        else:
            self.violation = reason

    def _begin(self) -> None:
        self._engine = Http2Client(self, _limits())
        self._engine.start()

    def _flush(self) -> None:
        self._flushing = False
        engine = self._engine
        if engine is None or self._state == CLOSED:
            return
        self._send(engine)
        if engine.closing:
            self._fail(RpcError(StatusCode.UNAVAILABLE, self._goaway or "the connection has ended"))

    def _send(self, engine: Http2Client) -> None:
        if engine.out:
            data, engine.out = b"".join(engine.out), []
            self._write(data if self._tls is None else self._tls.seal(data))

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # -- ending

    def _probe_in(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._probe)

    def _probe(self) -> None:
        """Nobody has spoken for a while, or not answered our PING; or somebody has meanwhile, and there is time."""
        assert self._keepalive_s is not None
        wait = self._keepalive_s - (monotonic() - self._heard_at)
        if self._pinged:
            self._fail(RpcError(StatusCode.UNAVAILABLE, f"no answer to a PING within {self._keepalive_answer_s:g} s"))
        elif wait > 0:
            self._probe_in(wait)
        elif self._engine is not None:
            self._pinged = True
            self._engine.ping()
            self._probe_in(self._keepalive_answer_s)

    def _ended(self, how: str) -> None:
        """The server ended the connection; what it said before is why, if it said anything."""
        if self._state == CONNECTING:
            if self._tls is None:
                how += " before it answered"
            elif self._engine is None:
                how += " during the handshake"
            else:  # we were done with the handshake (TLS 1.3), and then it looked at what we are
                how += " after the handshake; it may not believe our certificate, or want one"
        elif self._goaway:
            how = f"{how}: {self._goaway}"
        self._fail(RpcError(StatusCode.UNAVAILABLE, how))

    def _fail(self, error: RpcError) -> None:
        """The one way to CLOSED: what was written still leaves, calls learn of it through the engine."""
        if self._state == CLOSED:
            return
        self._state = CLOSED
        self.failure = self.failure or error
        self._probe_in(None)
        engine, tls, transport = self._engine, self._tls, self._transport
        if transport is not None:
            if engine is not None:
                self._send(engine)
            if tls is not None:
                tls.close()
                self._write(tls.pull())
            transport.close()
        if engine is not None:
            engine.lost()
        if not self._ready.done():
            self._ready.set_result(None)
