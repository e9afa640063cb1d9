"""Answers the proxy gives by itself on a stream: refusals before there is a route, admin pages, CONNECT's 200."""

from __future__ import annotations

from typing import Final

from meshproxy.proxy.context import Context
from meshproxy.proxy.refusals import Refusal
from meshproxy.wire.engine import NO_ERROR, NO_FIELDS, Sink, Stream
from meshproxy.wire.message import Field, Head


def refuse(ctx: Context, stream: Stream, head: Head, direction: str, refusal: Refusal, meshed: bool = False) -> None:
    """Refuse a request that has no exchange (yet).  What the client still sends of it is dropped.  `meshed`: the client is a
    mesh peer, which is told by a reset where the refusal has one, and may try another endpoint."""
    ctx.refused(refusal.reason, direction)
    stream.sink = Sink()
    if meshed and refusal.reset != NO_ERROR:
        stream.reset(refusal.reset)
        return
    send_refusal(stream, head, refusal, ctx.dated())


def send_refusal(stream: Stream, head: Head, refusal: Refusal, dated: list[Field]) -> None:
    """Put a refusal of the request `head` on its stream, in the form that its client reads.  `dated`: `Context.dated`."""
    if head.grpc:
        content_type = head.field(b"content-type")
        if content_type is None or content_type == b"application/grpc":
            stream.send_head(refusal.grpc_head, dated, True)
        else:  # application/grpc+proto: the answer is of the type that was asked for
            stream.send_head(refusal.grpc_answer(content_type), dated, True)
    elif head.method == b"HEAD":
        stream.send_head(refusal.head, dated, True)
    else:
        stream.send_head(refusal.head, dated, False)
        stream.send_data(refusal.body, True)


def reply(stream: Stream, request: Head, status: int, content_type: bytes, body: bytes, extra: list[Field] = NO_FIELDS) -> None:
    """A complete answer of our own."""
    head = Head()
    head.status = status
    head.content_length = len(body)
    head.fields = [Field(b"content-type", content_type), Field(b"content-length", b"%d" % len(body))]
    stream.sink = Sink()
    if request.method == b"HEAD" or not body:
        stream.send_head(head, extra, True)
    else:
        stream.send_head(head, extra, False)
        stream.send_data(body, True)


def _connected() -> Head:
    head = Head()
    head.status = 200
    return head


CONNECTED: Final = _connected()  # the answer to a CONNECT that we take ourselves
