"""A request that asks to be explained: `mesh-explain: 1` from the pod's own app, where its pod lets it ask.

    app --mesh-explain: 1--> Outbound.begin --asks?--> Explainer.explain: the trail, as of now
                                                       Explained stands in for the client's stream
    app <--mesh-explain-trail: ...-- Explained.send_head <-- whatever answers: endpoint, refusal, redirect, fault

The trail is of this very request: what was decided is told as it stood before the draw, what came of it (endpoint, attempts) as
the answer begins.  Nothing of it travels: mesh-* fields of an app are never sent on, nor those of an answer given back.

A sidecar whose pod is not annotated pays one attribute test a request.
"""

from __future__ import annotations

from typing import Final

from meshproxy.proxy.context import Context
from meshproxy.proxy.exchange import Exchange
from meshproxy.wire.engine import Sink, Stream
from meshproxy.wire.message import Field, Head
from meshproxy.wire.native import mypyc_attr

MAX_TRAIL: Final = 2048  # bytes of the field: clients commonly take 8 KiB of a head, all fields together
NAME: Final = b"mesh-explain-trail"
CUT: Final = b"cut"  # the last item of a trail that would have been longer


@mypyc_attr(allow_interpreted_subclasses=True)
class Explainer:
    """Makes trails; the one there is: meshproxy/explain/header.py."""

    def explain(self, head: Head) -> list[bytes]:
        """Items of a Structured Fields dictionary (RFC 9651 3.2), the most important ones first.  Changes nothing."""
        raise NotImplementedError


def asks(head: Head) -> bool:
    for field in head.mesh:
        if field.name == b"mesh-explain":
            return field.value == b"1"
    return False


def unasked(head: Head) -> Head:
    """The same request, which does not ask."""
    copy = head.copied(head.fields)
    copy.mesh = []
    return copy


class Explained(Stream):
    """Stands in for a client's stream: passes everything on, and adds the trail to the answer's head.

    exchange    what carries the request; None: it was answered at once
    """

    def __init__(self, ctx: Context, real: Stream, explainer: Explainer, head: Head) -> None:
        super().__init__()
        self.real = real
        self.exchange: Exchange | None = None
        self.items: list[bytes] = []
        real.sink = Relay(self)
        try:
            self.items = explainer.explain(head)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the request goes on without its trail
            ctx.escaped("explain")

    def trail(self) -> Field:
        exchange = self.exchange
        items = self.items
        if exchange is not None and exchange.endpoint is not None:
            endpoint = exchange.endpoint
            where = f'took="{endpoint.address}:{endpoint.target_port or endpoint.port}";attempts={exchange.attempts}'
            items = [where.encode(), *items]
        return Field(NAME, bounded(items))

    def send_interim(self, head: Head) -> None:
        self.real.send_interim(head)

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        self.real.send_head(head, [*extra, self.trail()], end)

    def send_data(self, data: bytes, end: bool) -> None:
        self.real.send_data(data, end)

    def send_trailers(self, fields: list[Field]) -> None:
        self.real.send_trailers(fields)

    def reset(self, code: int) -> None:
        self.real.reset(code)

    def pause(self) -> None:
        self.real.pause()

    def resume(self) -> None:
        self.real.resume()


class Relay(Sink):
    """What the client's stream tells goes to whoever listens to its stand-in."""

    def __init__(self, explained: Explained) -> None:
        self.explained = explained

    def request_data(self, data: bytes, end: bool) -> None:
        self.explained.sink.request_data(data, end)

    def request_trailers(self, fields: list[Field]) -> None:
        self.explained.sink.request_trailers(fields)

    def request_reset(self, code: int) -> None:
        self.explained.sink.request_reset(code)

    def request_silent(self, begun: bool) -> bool:
        return self.explained.sink.request_silent(begun)

    def response_blocked(self) -> None:
        self.explained.sink.response_blocked()

    def response_unblocked(self) -> None:
        self.explained.sink.response_unblocked()


def bounded(items: list[bytes]) -> bytes:
    """As many of them as fit, the first ones."""
    size = len(CUT)
    kept: list[bytes] = []
    for item in items:
        size += len(item) + 2
        if size > MAX_TRAIL:
            kept.append(CUT)
            break
        kept.append(item)
    return b", ".join(kept)
