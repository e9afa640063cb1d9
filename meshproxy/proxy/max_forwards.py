"""Max-Forwards: how many proxies a request may still pass (RFC 9110 7.6.2).

    OPTIONS, TRACE     n > 0 --> forwarded with n - 1
                       0 ------> answered here: OPTIONS by 200 with Allow, TRACE by 405
                       else ---> 400: what cannot be read cannot be kept, and a later hop may read it otherwise
    other methods      it means nothing, and passes as it came

Each proxy is a hop, so two sidecars take two off: 0 is answered by the caller's, 1 by that of the pod, 2 reaches the app.
Access rules come first: only who would have been forwarded is answered.

TRACE is not reflected (9.3.8 has a SHOULD for it): the request would come back with what scripts cannot read in a browser, and
with what proxies before this one added to it.  Without the field TRACE is forwarded as every method is; the server decides.
"""

from __future__ import annotations

from typing import Final

from meshproxy.proxy.answer import refuse
from meshproxy.proxy.context import Context
from meshproxy.proxy.refusals import BAD_MAX_FORWARDS, TRACE_REFUSED
from meshproxy.wire.engine import Sink, Stream
from meshproxy.wire.message import MAX_FORWARDS, Field, Head

MOST: Final = 0x7FFFFFFF  # more goes on as this (7.6.2: "the recipient's maximum supported value for Max-Forwards")

# What has a use on the way behind this proxy, which forwards any method; which of them a server takes only it can say.
ALLOW: Final = Field(b"allow", b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH")
TRACE_REFUSED.head.fields.append(ALLOW)


def _options() -> Head:
    head = Head()
    head.status = 200
    head.content_length = 0
    head.fields = [ALLOW, Field(b"content-length", b"0"), Field(b"server", b"meshproxy")]
    return head


OPTIONS_HERE: Final = _options()


def forwards_left(value: bytes) -> int:
    """The value of the field, at most MOST + 1; -1 if it is none."""
    if not value.isdigit():
        return -1
    return min(int(value), MOST + 1) if len(value) <= 18 else MOST + 1  # int() raises on some thousand digits


def within_max_forwards(ctx: Context, stream: Stream, head: Head, direction: str, meshed: bool) -> Head | None:
    """A request with Max-Forwards as it may be forwarded; None: it has been answered."""
    method = head.method
    if method != b"OPTIONS" and method != b"TRACE":
        return head
    lines = [field for field in head.fields if field.kind == MAX_FORWARDS]
    left = forwards_left(lines[0].value) if len(lines) == 1 else -1
    if left < 0:
        refuse(ctx, stream, head, direction, BAD_MAX_FORWARDS, meshed)
        return None
    if left == 0:
        if method == b"TRACE":
            refuse(ctx, stream, head, direction, TRACE_REFUSED, meshed)
        else:
            stream.sink = Sink()
            stream.send_head(OPTIONS_HERE, ctx.dated(), True)
        return None
    line = lines[0]
    less = Field(line.name, b"%d" % (left - 1), line.line[: len(line.name)])  # spelt as it came
    return head.copied([less if field is line else field for field in head.fields])
