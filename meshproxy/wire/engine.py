"""What an engine is: the one interface behind which HTTP/1.1, HTTP/2 (ours and the `h2` package's) and raw bytes look alike.

            socket bytes                                          events
    host ----------------> Engine.receive() ----------------> Sink (the exchange)
    host <---------------- Engine.out        <---------------- Stream.send_*()

An engine does no I/O and knows no clock.  It never raises on bad input: it answers as its RFC says (400, RST_STREAM,
GOAWAY), puts that into `out`, sets `closing` if the connection is finished, and names the violation to its host.

Three parties, three abstract classes.  They are plain native classes, not `typing.Protocol`: under mypyc a call through
a Protocol costs 35 ns, through a native base class 2.  Calls on a sink and not returned event objects: 0.55 us a
request against 2.4, interpreted.

    Host    the connection that carries the engine   (proxy/carrier.py)
    Stream  one request and its response on it       (made by the engine)
    Sink    who handles that exchange                (proxy/exchange.py)

**Back-pressure.**  `Stream.send_data` always takes what it is given.  When a stream cannot pass it on (flow-control
window spent, or the socket is full) it says so once: `request_blocked` (a client-role stream cannot take more of the
request) or `response_blocked` (a server-role stream cannot take more of the response).  The sink then calls `pause()`
on the *other* side's stream, which stops reading there (HTTP/1.1) or stops granting window (HTTP/2), so the sender
stops.  `…_unblocked` undoes it.  What an engine holds for one stream is therefore bounded by what was in flight; it tells
its host of every change (`on_held`), who bounds the sum for the connection and for the process.

**The end of a stream.**  Exactly one of: both directions ended; the response ended before the request did (HTTP/1.1: the
connection is then closed); `request_reset` / `response_reset` told the sink; the owner called `reset()`.  After that the
engine makes no more calls on that sink.
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.wire.message import Field, Head
from meshproxy.wire.native import mypyc_attr

NO_FIELDS: Final[list[Field]] = []

# Why a stream ended early.  HTTP/2's own codes (RFC 9113 7); HTTP/1.1 uses the nearest.
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
SETTINGS_TIMEOUT: Final = 0x4
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
CONNECT_ERROR: Final = 0xA
ENHANCE_YOUR_CALM: Final = 0xB
INADEQUATE_SECURITY: Final = 0xC
HTTP_1_1_REQUIRED: Final = 0xD

# Between our own proxies, where INTERNAL_ERROR says that the app was lost: the app's own server ended the stream, and for one
# of the reasons that gRPC calls INTERNAL.  To others an unknown code means INTERNAL_ERROR (RFC 9113 7).
APP_FAILED: Final = 0x6D657368  # "mesh"


def said_by_peer(code: int, tunnel: bool) -> int:
    """The code of an RST_STREAM as a sink hears it.  There CONNECT_ERROR means that our connection was lost; a server means
    one of its own by it, which is an internal matter, save in a tunnel (RFC 9113 7)."""
    return INTERNAL_ERROR if code == CONNECT_ERROR and not tunnel else code


@mypyc_attr(allow_interpreted_subclasses=True)
class Sink:
    """Receives what happens to one exchange.  Request events come from the downstream (server-role) stream, response
    events from the upstream (client-role) stream.  The default methods do nothing: `Sink()` swallows late events."""

    def request_data(self, data: bytes, end: bool) -> None:
        """Request body bytes (may be b"" with end=True).  In a tunnel: bytes from the client, end = half-close.  Of a request
        with `protocol` and a content_length: its content, and then what is the tunnel's, without an end between."""

    def request_trailers(self, fields: list[Field]) -> None:
        """The request ended with trailers."""

    def request_reset(self, code: int) -> None:
        """The client went away, reset the stream or broke the protocol.  Nothing can be sent to it any more."""

    def request_silent(self, begun: bool) -> bool:
        """HTTP/2: for too long (`Engine.sweep`) nothing of the request's body has come, and no answer has begun.  `begun`: some
        of it came before, 100 (Continue) went out, or this was asked before: a client may not wait for 100 for ever (RFC 9110
        10.1.1).  Whoever handles the exchange answers, or lets the client take its time; False: nobody does, and the stream is
        reset.  Asked again after as long."""
        return False

    def request_blocked(self) -> None:
        """Upstream takes no more of the request for now: pause downstream."""

    def request_unblocked(self) -> None:
        """Upstream takes request bytes again: resume downstream."""

    def response_interim(self, head: Head) -> None:
        """A 1xx response other than 101."""

    def response_head(self, head: Head, end: bool) -> None:
        """The final response head (also 101, and 2xx to CONNECT: from there on the stream is a tunnel)."""

    def response_data(self, data: bytes, end: bool) -> None:
        """Response body bytes (may be b"" with end=True)."""

    def response_trailers(self, fields: list[Field]) -> None:
        """The response ended with trailers."""

    def response_reset(self, code: int, unprocessed: bool) -> None:
        """The response will not come or not be complete.  `unprocessed`: the server certainly did not act on the request
        (REFUSED_STREAM, above GOAWAY's last id, or nothing of it was ever handed to the socket): safe to send again."""

    def response_blocked(self) -> None:
        """Downstream takes no more of the response for now: pause upstream."""

    def response_unblocked(self) -> None:
        """Downstream takes response bytes again: resume upstream."""


NULL_SINK: Final = Sink()


@mypyc_attr(allow_interpreted_subclasses=True)
class Stream:
    """One exchange on one connection, made by the engine.  `sink` is where its events go; the owner may replace it at
    any time (NULL_SINK to stop listening).

    Server role: send_head is the response.  Client role: send_head is the request.  Calls after the end are ignored.
    """

    def __init__(self) -> None:
        self.sink: Sink = NULL_SINK

    def send_interim(self, head: Head) -> None:
        """A 1xx response (server role)."""
        raise NotImplementedError

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        """Send `head` followed by the fields of `extra` (not stored in any memo).  Framing fields are the engine's own
        matter: without content_length and with end=False an HTTP/1.1 engine writes chunked (or closes, for HTTP/1.0)."""
        raise NotImplementedError

    def send_data(self, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def send_trailers(self, fields: list[Field]) -> None:
        """Ends the message.  Where the peer cannot take trailers they are dropped and the message still ends."""
        raise NotImplementedError

    def reset(self, code: int) -> None:
        """Give the exchange up: RST_STREAM, or for HTTP/1.1 close the connection.  No further event for this stream.
        NO_ERROR after the end of a response: nothing more is wanted of the client; what was sent still arrives."""
        raise NotImplementedError

    def asked_tunnel(self) -> bool:
        """Client role, of a request with `protocol`: it went out as one.  False: as a plain request, because HTTP/2 could not
        carry the Upgrade; then no answer grants a tunnel."""
        return True

    def pause(self) -> None:
        """Stop the peer from sending on this stream (soon; what is in flight still arrives)."""
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Host:
    """The connection an engine lives in.  Subclassed by proxy/carrier.py and, in tests, by a recorder."""

    def wake(self) -> None:
        """`out` became non-empty or `closing` became true: flush once before this loop turn ends."""
        raise NotImplementedError

    def hold_reading(self) -> None:
        """Stop reading from the socket (HTTP/1.1 back-pressure; HTTP/2 only when buffers hit the connection bound)."""
        raise NotImplementedError

    def resume_reading(self) -> None:
        raise NotImplementedError

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        """Server role: a request arrived.  The host gives the stream its sink before returning."""
        raise NotImplementedError

    def on_invited(self) -> None:
        """HTTP/1.1, server role: 100 (Continue) goes out to a client that waits for it.  From now on its body is owed."""

    def on_ready(self) -> None:
        """Client role: requests may be sent.  HTTP/1.1: at once.  HTTP/2: the peer's SETTINGS arrived (with TLS 1.3 a
        client can finish before the server refused its certificate; without this rule a POST would look sent)."""

    def on_capacity(self) -> None:
        """Client role: `capacity()` grew (a stream ended, SETTINGS raised the limit)."""

    def on_goaway(self, code: int) -> None:
        """Client role: no new streams here (GOAWAY, Connection: close).  Streams in flight below the last id go on; those
        above got response_reset(unprocessed=True) already."""

    def dated(self) -> list[Field]:
        """Server role: what an answer of the engine's own gets beside its fields: Date, where the host has a clock."""
        return NO_FIELDS

    def on_held(self, change: int) -> None:
        """The bytes this engine holds back for its streams (queued for window or socket) grew or, negative, shrank."""

    def on_violation(self, reason: str) -> None:
        """The peer broke the protocol or a limit.  `reason` is a short fixed label (metric value), e.g. "h2_rapid_reset"."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Engine:
    """One side of one connection.

    out       bytes to send, and views of bytes, in order; the host takes the list and leaves a new one
    closing   after flushing `out` the connection is to be closed
    server    role

    How it ends, where a plain close would say the wrong thing (HTTP/1.1 and opaque only):
    half_close  after flushing `out`, close the sending side (write_eof) and go on reading: a tunnel's half-close
    linger      with `closing`: the peer may still be sending.  Close the sending side, read and drop for a moment, then
                close; otherwise the kernel answers the unread bytes with RST and our last response is lost (RFC 9112 9.6)
    abort       with `closing`: close by RST (transport.abort).  FIN would look like the clean end of a message
    """

    def __init__(self, host: Host, server: bool) -> None:
        self.host = host
        self.server = server
        self.out: list[Any] = []
        self.closing = False
        self.half_close = False
        self.linger = False
        self.abort = False

    def start(self) -> None:
        """Called once when the transport is up.  Client HTTP/2 writes its preface; HTTP/1.1 reports on_ready."""
        raise NotImplementedError

    def receive(self, data: bytes, now: float) -> None:
        """Bytes from the peer, cut anywhere.  Never raises on what the peer sent.  `now`: seconds, monotonic; only rates
        of abuse are measured with it."""
        raise NotImplementedError

    def receive_eof(self) -> None:
        """The peer closed its sending side."""
        raise NotImplementedError

    def lost(self) -> None:
        """The transport is gone.  Every open stream gets its reset event (or its clean end, where EOF is one)."""
        raise NotImplementedError

    def open(self) -> Stream:
        """Client role: a new stream.  Only when capacity() > 0."""
        raise NotImplementedError

    def capacity(self) -> int:
        """Client role: how many more streams may be opened now (0 before on_ready and after on_goaway)."""
        raise NotImplementedError

    def active(self) -> int:
        """Streams that have not ended."""
        raise NotImplementedError

    def drain(self) -> None:
        """Take no new streams, finish those in flight, then set `closing`.  HTTP/2 server: GOAWAY(2^31-1) now and the real
        one at `drain_finish`; HTTP/1.1 server: `connection: close` on the next response, at once if idle."""
        raise NotImplementedError

    def drain_finish(self) -> None:
        """HTTP/2: the second GOAWAY with the real last id, one round-trip after drain() (RFC 9113 6.8)."""

    def unanswered(self) -> bool:
        """HTTP/1.1 server: the client closed its sending side and the request that is due has no answer begun, not even
        a 1xx.  Whether it waits (half-close) or has left (a plain close looks the same) only time tells: the host decides
        how long."""
        return False

    def awaiting(self) -> int:
        """What the peer owes us: one of AWAITING_*.  The host's timers use it (header, body and idle timeouts)."""
        raise NotImplementedError

    def head_overdue(self) -> None:
        """HTTP/1.1, client role: the head of an answer (AWAITING_HEAD) has taken too long, by the host's clock.  It ends as one
        that is malformed."""

    def socket_blocked(self) -> None:
        """The transport's write buffer is over its high-water mark: block the streams that send."""
        raise NotImplementedError

    def socket_unblocked(self) -> None:
        raise NotImplementedError

    def heaviest(self) -> Stream | None:
        """The stream that most is held back for (`Host.on_held`); None where nothing is, or it cannot be told."""
        return None

    def ping(self) -> None:
        """HTTP/2 keepalive probe; a no-op for HTTP/1.1."""

    def sweep(self, now: float, stall_s: float, body_s: float) -> bool:
        """To be called once a second or so, before awaiting().  HTTP/2 server: resets streams whose answer has waited
        `stall_s` seconds for the peer's window without a byte of it leaving, and tells the sink of those whose body has been
        silent for `body_s` before any answer (`request_silent`; 0.0: we do not read, so nobody is silent); never a tunnel.
        As long as DATA of others comes a stream may be waiting its turn at the client: PATIENCE times as long then.
        False if the whole connection is a tunnel: its reader may take its time."""
        return True


# A client may send one body after the other over a slow link.  How many times longer than otherwise a request's body may be
# silent while DATA of other streams comes: bounded, or one that trickles would keep all the others open for ever.
PATIENCE: Final = 4.0


def is_overdue(silent_since: float, moved_at: float, now: float, body_s: float) -> bool:
    """Has a request's body been silent for too long?  moved_at: when DATA of any stream last came."""
    return now - max(silent_since, moved_at) > body_s or now - silent_since > body_s * PATIENCE


AWAITING_NOTHING: Final = 0  # idle: no request in progress
AWAITING_HEAD: Final = 1  # bytes of a head have begun but it is not complete (also the connection preface)
AWAITING_BODY: Final = 2  # HTTP/1.1: a message body is being received.  HTTP/2 looks at each stream by itself: `sweep`
AWAITING_US: Final = 3  # the next move is ours (the exchange is being handled)
