"""How a row of the HTTP/2 conformance tables is played: an engine against a peer that writes frames by hand.

    before(raw)  ->  raw.send(frames)  ->  outcome(raw, stream)  ==  what the RFC says

An outcome is FINE, ("reset", code), ("goaway", code) or ("status", code).  Every table is played against both engines; what the
`h2` package does otherwise is in http2_differences.py.
"""

from __future__ import annotations

from typing import Any, Final

from http2_differences import CLIENTS, FINE, SERVERS, Outcome
from http2_harness import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    POST,
    RST_STREAM,
    Log,
    Raw,
    Recorder,
    Seen,
    block,
    frame,
    request,
    response,
)

from meshproxy.wire.engine import CANCEL, Stream
from meshproxy.wire.h2_adapter.connection import H2Engine
from meshproxy.wire.limits import Limits

WHOLE: Final = END_HEADERS | END_STREAM
STATUS_200: Final = block([(b":status", b"200")])


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def serve(which: str, *values: tuple[int, int], limits: Limits | None = None) -> tuple[Raw, Recorder]:
    """A server of that engine; the client's preface and SETTINGS (`values`) are exchanged and forgotten."""
    host = Recorder()
    raw = Raw(SERVERS[which](host, limits or Limits()), *values)
    raw.settle()
    return raw, host


def connect(which: str, *values: tuple[int, int], limits: Limits | None = None) -> tuple[Raw, Recorder]:
    """A client of that engine; the server's SETTINGS (`values`) likewise."""
    host = Recorder()
    raw = Raw(CLIENTS[which](host, limits or Limits()), *values)
    raw.settle()
    return raw, host


def host_of(raw: Raw) -> Recorder:
    host = raw.engine.host
    assert isinstance(host, Recorder)
    return host


def outcome(raw: Raw, stream_id: int = 1) -> Outcome:
    seen = raw.read()
    for kind, _, _, payload in seen:
        if kind == GOAWAY:
            assert raw.engine.closing, "GOAWAY with an error, and the connection goes on (5.4.1)"
            return ("goaway", int.from_bytes(payload[4:8], "big"))
    assert not raw.engine.closing
    for kind, _, sid, payload in seen:
        if kind == RST_STREAM and sid == stream_id:
            return ("reset", int.from_bytes(payload, "big"))
        if kind == HEADERS and sid == stream_id:
            return ("status", int(dict(raw.decoder.decode(payload, raw=True))[b":status"]))
    return FINE


# -- server role: what happened on stream 1


def nothing(raw: Raw) -> None:
    """It is idle."""


def opened(raw: Raw) -> None:
    raw.headers(1, POST, end=False)
    raw.read()


def half_closed_remote(raw: Raw) -> None:
    raw.headers(1, GET)
    raw.read()


def answered(raw: Raw) -> None:
    """Closed by END_STREAM both ways."""
    half_closed_remote(raw)
    host_of(raw).requests[0].stream.send_head(response(), [], True)
    raw.read()


def reset_by_peer(raw: Raw) -> None:
    half_closed_remote(raw)
    raw.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
    raw.read()


def reset_by_us(raw: Raw) -> None:
    opened(raw)
    host_of(raw).requests[0].stream.reset(CANCEL)
    raw.read()


def passed_over(raw: Raw) -> None:
    """Stream 3 was opened first, which closes the lower idle ones (5.1.1)."""
    raw.headers(3, POST, end=False)
    raw.read()


def tunnel(raw: Raw) -> None:
    raw.headers(1, [(b":method", b"CONNECT"), (b":authority", b"svc.test:80")], end=False)
    host_of(raw).requests[0].stream.send_head(response(), [], False)
    raw.read()


# -- client role: what happened on stream 1


class Asked:
    """One request of our client."""

    def __init__(self, raw: Raw, method: bytes = b"GET", end: bool = True, protocol: bytes = b"") -> None:
        self.stream: Stream = raw.engine.open()
        self.log = Log()
        self.stream.sink = self.log
        self.stream.send_head(request(method, protocol=protocol), [], end)


def ask_open(raw: Raw) -> Asked:
    asked = Asked(raw, b"POST", end=False)
    raw.read()
    return asked


def ask(raw: Raw) -> Asked:
    """Half-closed (local)."""
    asked = Asked(raw)
    raw.read()
    return asked


def ask_answered(raw: Raw) -> Asked:
    asked = ask(raw)
    raw.send(frame(HEADERS, WHOLE, 1, STATUS_200))
    assert asked.log.ended
    raw.read()
    return asked


def ask_reset_by_peer(raw: Raw) -> Asked:
    asked = ask(raw)
    raw.send(frame(RST_STREAM, 0, 1, u32(CANCEL)))
    raw.read()
    return asked


def ask_reset_by_us(raw: Raw) -> Asked:
    asked = ask(raw)
    asked.stream.reset(CANCEL)
    raw.read()
    return asked


def ask_nothing(raw: Raw) -> None:
    """Stream 1 is idle."""


def next_request_is_served(raw: Raw, stream_id: int = 101) -> Seen:
    """The connection goes on and its HPACK state is right: what an error of one stream has to leave behind."""
    raw.headers(stream_id, [*GET, (b"x-next", b"yes")])
    seen = host_of(raw).requests[-1]
    assert seen.head.field(b"x-next") == b"yes"
    return seen


def windows(raw: Raw) -> tuple[int, int]:
    """The connection's windows: what we may send, what the peer may."""
    engine: Any = raw.engine
    if isinstance(engine, H2Engine):
        return engine.h2.outbound_flow_control_window, engine.h2.inbound_flow_control_window
    return engine.send_window, engine.window.available


def data_frames(raw: Raw) -> list[tuple[int, int]]:
    """(stream, bytes) of the DATA frames since the last look."""
    return [(sid, len(payload)) for kind, _, sid, payload in raw.read() if kind == DATA]
