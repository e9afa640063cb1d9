"""gRPC over HTTP/2, the client's half, without I/O: methods, messages, statuses.

    request   Method + deadline + metadata --request_head()--> Head
              message --frame()--> flag, length, bytes
    response  DATA --MessageBuffer.feed()--> take(): message after message
              head, trailers, RST_STREAM, HTTP status --> RpcError, or None where the call ended well

The three calls a proxy makes (Watch, Certify, and SPIRE's FetchX509SVID) need no more of gRPC than this file and call.py: no
compression, no retries, no resolver.  grpcio cost a sidecar 16 MB and 7 threads.
The rules are those of the specification (PROTOCOL-HTTP2.md, http-grpc-status-mapping.md, compression.md of grpc/grpc).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Generic, TypeVar
from urllib.parse import unquote_to_bytes

from google.protobuf.message import DecodeError, Message

from control.api import mesh_pb2
from control.api.names import MAX_MESSAGE_BYTES
from meshproxy import __version__
from meshproxy.policy.deadline import format_timeout
from meshproxy.wire.engine import CANCEL, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY, REFUSED_STREAM, STREAM_CLOSED
from meshproxy.wire.message import Field, Head

PREFIX_BYTES: Final = 5  # of a message: the compressed flag, and a length of four bytes
DETAILS_MAX: Final = 500  # characters of a peer's grpc-message that are kept: it goes into log lines and /ready


class StatusCode(IntEnum):
    """gRPC's codes, by their numbers on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcError(Exception):
    """A call that failed, here or there.  `str()` is a line for a log and for /ready: status and reason, printable, bounded,
    and nothing of the request."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details

    def again(self) -> RpcError:
        """The same, to be raised: who keeps an error that was raised keeps the frames it went through, and they keep him."""
        return RpcError(self.code, self.details)

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details or 'no details'}"


# ---------------------------------------------------------------- methods

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """path      "/package.Service/Name"
    request   the type of what is sent
    response  the type of what comes back, whose messages are at most `largest` bytes"""

    path: str
    request: type[Request]
    response: type[Response]
    largest: int = MAX_MESSAGE_BYTES

    def decode(self, data: bytes) -> Response:
        """Raises RpcError (INTERNAL) for what is no such message."""
        try:
            return self.response.FromString(data)
        except DecodeError:
            name = self.response.DESCRIPTOR.full_name
            raise RpcError(StatusCode.INTERNAL, f"the answer to {self.path} is no {name}") from None


WATCH: Final = Method("/meshproxy.v1.Configuration/Watch", mesh_pb2.Request, mesh_pb2.Update)
CERTIFY: Final = Method("/meshproxy.v1.Identity/Certify", mesh_pb2.CertifyRequest, mesh_pb2.CertifyResponse)
# FetchX509SVID is in spire.py: most proxies never need it, nor its messages.

_FIELDS: Final = [
    Field(b"content-type", b"application/grpc"),
    Field(b"user-agent", f"meshproxy/{__version__}".encode()),
    Field(b"grpc-accept-encoding", b"identity"),
]


def request_head(path: str, scheme: str, authority: str, deadline_s: float | None, metadata: Iterable[tuple[str, str]]) -> Head:
    """The head of a call.  `deadline_s`: None for none.  Raises MalformedField for metadata that no header can hold."""
    head = Head()
    head.version = 20
    head.method = b"POST"
    head.scheme = scheme.encode()
    head.authority = authority.encode()
    head.path = path.encode()
    head.trailers_ok = True
    head.fields = [*_FIELDS, *(Field(name.encode(), value.encode()) for name, value in metadata)]
    if deadline_s is not None:
        head.fields.append(Field(b"grpc-timeout", format_timeout(deadline_s)))
    return head


# ---------------------------------------------------------------- messages


def frame(message: bytes) -> bytes:
    """A message as it travels: not compressed, with its length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageBuffer:
    """The bytes of a response, cut anywhere, and the messages in them.

    Holds what is not taken yet: at most one message of `largest` bytes and what the flow control had granted by the time its
    owner, seeing `ready`, told the peer to stop."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._data = bytearray()
        self._needed = PREFIX_BYTES  # bytes until the next step: the prefix, then all of the message
        self._sized = False  # the prefix is read

    def feed(self, data: bytes) -> None:
        """Raises RpcError if the next message is compressed or too large: before the bytes of it have come."""
        self._data += data
        self._look()

    @property
    def ready(self) -> bool:
        """There is a whole message."""
        return self._sized and len(self._data) >= self._needed

    @property
    def held(self) -> int:
        """Bytes of messages not taken, whole or not."""
        return len(self._data)

    def take(self) -> bytes | None:
        """The next message, None if it is not whole yet.  Raises RpcError as `feed` does, for the one after it that time."""
        self._look()
        if not self.ready:
            return None
        with memoryview(self._data) as view:
            message = bytes(view[PREFIX_BYTES : self._needed])
        if len(self._data) == self._needed:
            self._data = bytearray()  # and not cleared: what a large one took is given back
        else:
            del self._data[: self._needed]
        self._needed, self._sized = PREFIX_BYTES, False
        return message

    def _look(self) -> None:
        if self._sized or len(self._data) < PREFIX_BYTES:
            return
        if self._data[0]:
            flag = "is compressed, which was not offered" if self._data[0] == 1 else f"has the flag {self._data[0]}"
            raise RpcError(StatusCode.INTERNAL, f"a message {flag}")
        size = int.from_bytes(self._data[1:PREFIX_BYTES], "big")
        if size > self._largest:
            raise RpcError(StatusCode.RESOURCE_EXHAUSTED, f"a message of {size} bytes; at most {self._largest} are taken")
        self._needed, self._sized = PREFIX_BYTES + size, True


# ---------------------------------------------------------------- statuses

_OF_HTTP: Final = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}

_OF_RESET: Final = {
    STREAM_CLOSED: StatusCode.UNKNOWN,
    REFUSED_STREAM: StatusCode.UNAVAILABLE,
    CANCEL: StatusCode.CANCELLED,
    ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}

HTTP2_CODES: Final = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)


def http2_code(code: int) -> str:
    """The name of an error code of HTTP/2 (RFC 9113 7)."""
    return HTTP2_CODES[code] if code < len(HTTP2_CODES) else f"error {code}"


def check_head(head: Head, end: bool) -> tuple[bool, RpcError | None]:
    """The head of a response: whether the call is over, and how; None: well."""
    if head.grpc_status:  # trailers-only: whatever the HTTP status, this one is the server's own
        return True, grpc_error(head.grpc_status, head.field(b"grpc-message") or b"")
    if head.status != 200:
        code = _OF_HTTP.get(head.status, StatusCode.UNKNOWN)
        return True, RpcError(code, f"HTTP status {head.status} and no grpc-status; is that a gRPC server?")
    if not head.grpc:
        kind = printable(head.field(b"content-type") or b"none")
        return True, RpcError(StatusCode.UNKNOWN, f"content-type {kind}; application/grpc was expected")
    if end:
        return True, RpcError(StatusCode.UNKNOWN, "the answer ended with its head, and without a grpc-status")
    return False, None


def check_trailers(fields: list[Field]) -> RpcError | None:
    """How a call ended; None: well."""
    status = message = b""
    for field in fields:
        if field.name == b"grpc-status":
            status = field.value
        elif field.name == b"grpc-message":
            message = field.value
    if not status:
        return RpcError(StatusCode.UNKNOWN, "the answer ended without a grpc-status")
    return grpc_error(status, message)


def grpc_error(status: bytes, message: bytes) -> RpcError | None:
    """What a server says by grpc-status and grpc-message; None for OK."""
    if not status.isdigit() or len(status) > 9:
        return RpcError(StatusCode.UNKNOWN, f"grpc-status {printable(status)!r} is no number")
    number = int(status)
    details = printable(unquote_to_bytes(message))
    if number >= len(StatusCode):
        return RpcError(StatusCode.UNKNOWN, f"grpc-status {number}: {details}")
    return None if number == 0 else RpcError(StatusCode(number), details)


def reset_error(code: int, unprocessed: bool, violation: str) -> RpcError:
    """A stream that ended early: by the server's RST_STREAM; by its GOAWAY (`unprocessed`, with that one's code); or by us for
    what it sent, with `violation` (the engine's label)."""
    if violation:
        return RpcError(StatusCode.INTERNAL, f"the server broke HTTP/2's rules: {violation}")
    if unprocessed and code != REFUSED_STREAM:
        return RpcError(StatusCode.UNAVAILABLE, f"the server says GOAWAY ({http2_code(code)})")
    status = _OF_RESET.get(code, StatusCode.INTERNAL if code < len(HTTP2_CODES) else StatusCode.UNKNOWN)
    return RpcError(status, f"the server reset the stream: {http2_code(code)}")


def printable(data: bytes) -> str:
    """What a peer wrote, fit for one line of a log."""
    text = data.decode("utf-8", "replace")[:DETAILS_MAX]
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
