"""TLS as a thin layer between a socket and an engine: `ssl.SSLObject` over two memory BIOs.

    socket bytes -> receive() -> plaintext for the engine
    engine bytes -> seal()    -> socket bytes       pull(): what the handshake, an alert or the end adds

Why not the event loop's own TLS: first bytes must be seen before TLS is chosen (detection, passthrough), every new
connection must take the *current* context (certificates and roots change live), and uvloop allocates 256 KiB a read.
Measured equal in CPU to uvloop's best path, 23.7 kB an idle connection against 31.0.

    HANDSHAKE --done--> OPEN --error--> CLOSED
                        eof:  the peer's close_notify came, it sends no more      (each direction ends on its own,
                        shut: ours is out, we send no more                         RFC 8446 6.1)

A handshake proves who the peer was at that moment.  So that a connection does not outlive the proof, it ends with the
certificates it was opened with (`due`):

    client   STAY ------------ 90 % of what was left at the handshake --> LEAVE ---+
    server   STAY --------------------------------- certificate ended --> LEAVE ---+-- ended, and a grace --> END
             LEAVE: nothing new is asked here; what is under way may finish (GOAWAY)          END: cut
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any, Final

from meshproxy.wire.native import mypyc_attr

HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSED: Final = 2

# What `due` says.
STAY: Final = 0
LEAVE: Final = 1
END: Final = 2

NEVER: Final = float("inf")
# The client leaves first, so that exchanges that take long are not cut: its next connection shows certificates renewed by
# then (at 70 % of their life).  Of what is left, not of the life: who cannot renew would leave each new connection at once.
LEAVE_AT: Final = 0.9

# One buffer for all connections, for what one read of the socket can hold: SSL_read gives one record at a time (16 KiB), and
# what they make together is copied out once.
_RECORD: Final = 16 * 1024
_BUFFER_BYTES: Final = 20 * _RECORD
_VIEW: Final[Any] = memoryview(bytearray(_BUFFER_BYTES))


class TlsFailure(Exception):
    """The handshake or the record layer failed; `reason` is a short label for the metric, `str()` is for people, `cause` what
    OpenSSL said (an attribute: mypyc leaves `__cause__` out)."""

    def __init__(self, reason: str, text: str, cause: ssl.SSLError | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.cause = cause


@mypyc_attr(allow_interpreted_subclasses=True)  # the mesh's are
class Credentials:
    """What a side needs for TLS; subclassed by whoever holds certificates.  Contexts are asked for on every connection,
    so a swap takes effect with the next one."""

    def server_context(self) -> ssl.SSLContext:
        raise NotImplementedError

    def client_context(self) -> ssl.SSLContext:
        raise NotImplementedError

    def verify(self, leaf_der: bytes) -> str:
        """The SPIFFE ID in the peer's certificate.  Raises TlsFailure for one that no mesh peer may show."""
        raise NotImplementedError

    def check_alpn(self, protocol: str) -> None:
        """Client role: what the server chose ("" if nothing).  Raises TlsFailure where that matters."""

    def until(self, leaf_der: bytes) -> float:
        """When our certificate or the peer's ends, whichever is first (Unix seconds).  NEVER: connections outlive them."""
        return NEVER


class TlsLayer:
    """One TLS connection.  `receive` may produce bytes to send (handshake, alerts): call `pull` after it."""

    def __init__(self, context: ssl.SSLContext, server: bool, server_name: str | None) -> None:
        self.incoming: Any = ssl.MemoryBIO()
        self.outgoing: Any = ssl.MemoryBIO()
        self.object: Any = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server, server_hostname=None if server else server_name
        )
        self.state = HANDSHAKE
        self.eof = False  # nothing more is to be read: the peer sent close_notify, or ...
        self.failure: TlsFailure | None = None  # ... this, behind what could be read
        self.shut = False  # we did
        self.leave_at = NEVER  # Unix seconds
        self.ends_at = NEVER
        self.ended_since = 0.0  # monotonic: when a sweep first found it ended

    def expires(self, ends_at: float, server: bool, wall: float) -> None:
        """The handshake was done at `wall` with certificates of which the first ends at `ends_at` (both Unix seconds)."""
        if ends_at != NEVER:
            self.ends_at = ends_at
            self.leave_at = ends_at if server else wall + LEAVE_AT * (ends_at - wall)

    def due(self, wall: float, now: float, grace: float) -> int:
        """STAY, LEAVE or END.  The grace runs by the monotonic clock `now`: a wall clock set forward ends nothing at once."""
        if wall < self.leave_at:
            return STAY
        if wall < self.ends_at:
            return LEAVE
        if self.ended_since == 0.0:
            self.ended_since = now
        return END if now - self.ended_since >= grace else LEAVE

    def start(self) -> None:
        """Client role: put the ClientHello into the outgoing BIO."""
        self._handshake()

    def _handshake(self) -> None:
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            self.state = CLOSED
            raise TlsFailure(_label(error), str(error), error) from error
        self.state = OPEN

    def receive(self, data: bytes) -> bytes:
        """Ciphertext in, plaintext out (b"" if none is complete).  Raises TlsFailure."""
        if self.state == CLOSED or self.eof:
            return b""
        self.incoming.write(data)
        if self.state == HANDSHAKE:
            self._handshake()
            if self.state == HANDSHAKE:
                return b""
        # How much to ask for: plaintext is shorter than its record, so whatever is read short of that is all of the record.
        # And when it is and the BIO is empty, nothing is left: the read that would only raise SSLWantReadError costs 1.7 us.
        size = len(data)
        plain: bytes = b""
        filled = 0
        read: Any = self.object.read
        incoming = self.incoming
        try:
            if 0 < size < _RECORD:  # the usual case, without a detour through the buffer
                plain = read(size)
                count = len(plain)
                if 0 < count < size and not incoming.pending:
                    return plain
                self.eof = count == 0
            while not self.eof:
                count = read(_RECORD, _VIEW[filled:])
                if count == 0:  # close_notify, as long as ours is not out; SSLZeroReturnError after that
                    self.eof = True
                filled += count
                if filled > _BUFFER_BYTES - _RECORD:
                    plain += bytes(_VIEW[:filled])
                    filled = 0
                if not incoming.pending:
                    break
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.eof = True
        except ssl.SSLError as error:
            self.state = CLOSED
            failure = TlsFailure(_label(error), str(error), error)
            if not plain and not filled:
                raise failure from error
            self.eof = True  # what came before is whole; then it is over (RFC 8446 6.2)
            self.failure = failure
        if filled:
            rest = bytes(_VIEW[:filled])
            return plain + rest if plain else rest
        return plain

    def seal(self, data: bytes) -> bytes:
        """Plaintext in, bytes for the socket out."""
        if self.state != OPEN or self.shut:
            return self.pull()
        self.object.write(data)
        sealed: bytes = self.outgoing.read()
        return sealed

    def pull(self) -> bytes:
        """Bytes for the socket."""
        return self.outgoing.read() if self.outgoing.pending else b""

    def close(self) -> None:
        """Send close_notify; the answer is not waited for, and what the peer still sends can be read."""
        if self.state == OPEN and not self.shut:
            self.shut = True
            with suppress(ssl.SSLError):  # SSLWantReadError: the peer's close_notify has not come, and is not needed
                self.object.unwrap()

    def peer_leaf(self) -> bytes | None:
        """DER of the peer's certificate, None if it showed none."""
        leaf: bytes | None = self.object.getpeercert(True)
        return leaf

    def alpn(self) -> str:
        return self.object.selected_alpn_protocol() or ""


_LABELS: Final = {
    "CERTIFICATE_VERIFY_FAILED": "certificate_verify_failed",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_client_certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "no_client_certificate",
    "NO_APPLICATION_PROTOCOL": "alpn_mismatch",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "alpn_mismatch",
    "UNSUPPORTED_PROTOCOL": "tls_version",
    "TLSV1_ALERT_PROTOCOL_VERSION": "tls_version",
    "TLSV1_ALERT_UNKNOWN_CA": "refused_by_peer",
    "SSLV3_ALERT_BAD_CERTIFICATE": "refused_by_peer",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "refused_by_peer",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "refused_by_peer",
}


# X509_V_ERR_* of OpenSSL that say what to do about it: look at the clocks, or at why it was not renewed.
_VERIFY_LABELS: Final = {9: "not_yet_valid", 10: "expired"}


def _label(error: ssl.SSLError) -> str:
    reason = getattr(error, "reason", None) or ""
    if reason == "CERTIFICATE_VERIFY_FAILED":
        label = _VERIFY_LABELS.get(getattr(error, "verify_code", 0))
        if label is not None:
            return label
    return _LABELS.get(str(reason), "tls_error")
