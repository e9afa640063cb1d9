"""grpc-timeout: how long a call may take, as its client says it (gRPC over HTTP/2, "Timeout").

    "1S" --parse_timeout--> 1.0 s   ... time passes in this proxy ...   0.75 s --format_timeout--> "750000u"

One to eight ASCII digits and a unit: H hours, M minutes, S seconds, m milliseconds, u microseconds, n nanoseconds.
What is written otherwise binds nobody here and goes on as it came, as with Envoy: the server judges it (grpc-go answers
INTERNAL), so that its client sees what it would see without the mesh.  Zero is well-formed and means: too late already.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from meshproxy.wire.message import GRPC_TIMEOUT, Field, Head

MALFORMED: Final = -1.0

_UNITS: Final[dict[bytes, float]] = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LARGEST: Final = 99_999_999  # eight digits


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


def with_timeout(head: Head, seconds: float) -> Head:
    """A copy of a request's head with this grpc-timeout in the place of its own (heads are shared: see wire/message.py)."""
    value = format_timeout(seconds)
    fields: list[Field] = []
    replaced = False
    for field in head.fields:
        if field.kind != GRPC_TIMEOUT:
            fields.append(field)
        elif not replaced:
            replaced = True
            fields.append(Field(b"grpc-timeout", value))
    copy = head.copied(fields)
    copy.grpc_timeout = value
    return copy
