"""How long a request may take: as its client says, and as its Service declares.

**grpc-timeout** (gRPC over HTTP/2, "Timeout") is a call's:

    "1S" --parse_timeout--> 1.0 s   ... time passes in this proxy ...   0.75 s --format_timeout--> "750000u"

One to eight ASCII digits and a unit: H hours, M minutes, S seconds, m milliseconds, u microseconds, n nanoseconds.
What is written otherwise binds nobody here and goes on as it came, as with Envoy: the server judges it (grpc-go answers
INTERNAL), so that its client sees what it would see without the mesh.  Zero is well-formed and means: too late already.

**x-envoy-expected-rq-timeout-ms** is any request's: the milliseconds that are left (wire/message.py `parse_expected`).  The
name is Envoy's, because proxies and apps that propagate deadlines over HTTP know it.  Of both the shorter binds a call.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from meshproxy.wire.message import EXPECTED_TIMEOUT, GRPC_TIMEOUT, Field, Head

MALFORMED: Final = -1.0

_UNITS: Final[dict[bytes, float]] = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LARGEST: Final = 99_999_999  # eight digits
_LARGEST_MS: Final = 0x7FFFFFFF


class ServiceTimes:
    """What a Service, or a rule in its stead, declares of times, beside that of the whole request.  Seconds, 0.0: none.

    response_start_s  each attempt: from the end of the request to the beginning of the answer
    response_s        each attempt: from the end of the request to the end of the answer
    idle_s            how long nothing may move, in either direction
    propagate         the request timeout goes on with requests, less what was used
    """

    __slots__ = ("idle_s", "propagate", "response_s", "response_start_s")

    def __init__(
        self, response_start_s: float = 0.0, response_s: float = 0.0, idle_s: float = 0.0, propagate: bool = False
    ) -> None:
        self.response_start_s = response_start_s
        self.response_s = response_s
        self.idle_s = idle_s
        self.propagate = propagate

    def if_any(self) -> ServiceTimes | None:
        """None where nothing is declared."""
        return self if self.response_start_s or self.response_s or self.idle_s or self.propagate else None


def parse_timeout(value: bytes) -> float:
    """Seconds, 0.0 to 3.6e11; MALFORMED for what is no grpc-timeout."""
    digits = value[:-1]
    seconds = _UNITS.get(value[-1:])
    if seconds is None or not 1 <= len(digits) <= 8 or not digits.isdigit():
        return MALFORMED
    return int(digits) * seconds


def format_timeout(seconds: float) -> bytes:
    """The finest unit from microseconds up in which it fits, rounded up; never 0: what is left of no time is "1u"."""
    microseconds = max(ceil(seconds * 1e6), 1)
    if microseconds <= _LARGEST:
        return b"%du" % microseconds
    milliseconds = -(-microseconds // 1000)
    if milliseconds <= _LARGEST:
        return b"%dm" % milliseconds
    whole = -(-milliseconds // 1000)
    if whole <= _LARGEST:
        return b"%dS" % whole
    minutes = -(-whole // 60)
    if minutes <= _LARGEST:
        return b"%dM" % minutes
    return b"%dH" % min(-(-minutes // 60), _LARGEST)


def own_timeout(head: Head) -> float:
    """How long its client gives a request, seconds; MALFORMED: its client does not say."""
    timeout = head.expected_ms / 1000.0 if head.expected_ms else MALFORMED
    if head.grpc and head.grpc_timeout:
        calls = parse_timeout(head.grpc_timeout)
        if calls >= 0.0 and (timeout < 0.0 or calls < timeout):
            return calls
    return timeout


def with_timeout(head: Head, seconds: float) -> Head:
    """A copy of a request's head that says so many seconds, where it says a time already; one that says none says it in the
    field of its kind (heads are shared: see wire/message.py).  A grpc-timeout that is none stays as it is."""
    calls = b""
    if head.grpc and (parse_timeout(head.grpc_timeout) >= 0.0 if head.grpc_timeout else not head.expected_ms):
        calls = format_timeout(seconds)
    any_requests = 0
    if head.expected_ms or not head.grpc:
        any_requests = min(max(ceil(seconds * 1e3), 1), _LARGEST_MS)
    fields: list[Field] = []
    copy = head.copied(fields)
    said_call = said = False
    for field in head.fields:
        kind = field.kind
        if kind == GRPC_TIMEOUT and calls:
            if said_call:
                continue
            said_call = True
            fields.append(Field(b"grpc-timeout", calls))
        elif kind == EXPECTED_TIMEOUT:  # there is no second one
            said = True
            fields.append(_expected(any_requests))
        else:
            fields.append(field)
    if calls:
        copy.grpc_timeout = calls
        if not said_call:
            fields.append(Field(b"grpc-timeout", calls))
    if any_requests:
        copy.expected_ms = any_requests
        if not said:
            fields.append(_expected(any_requests))
    return copy


def _expected(milliseconds: int) -> Field:
    return Field(b"x-envoy-expected-rq-timeout-ms", b"%d" % milliseconds)
