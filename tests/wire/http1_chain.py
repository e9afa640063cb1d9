"""One proxy, or two in a row with HTTP/2 between them, made of engines alone; and the origin behind, which only reads.

    client bytes -> Http1Server -> [Http2Client -> Http2Server ->] Http1Client -> origin

Bytes are carried until nobody has any left.  The origin answers each complete request with an echo of its target and body.
"""

from __future__ import annotations

from collections.abc import Iterable

import h11
from http1_play import Relay
from recorder import Recorder, Request

from meshproxy.wire.engine import Engine
from meshproxy.wire.http1 import Http1Client, Http1Server
from meshproxy.wire.http2 import Http2Client, Http2Server
from meshproxy.wire.limits import Limits

LIMITS = Limits()


class Origin:
    """One connection to it: everything that came, read by h11."""

    def __init__(self) -> None:
        self.raw = b""
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self.target = b""
        self.method = b""
        self.body = b""
        self.fault = ""

    def feed(self, data: bytes) -> bytes:
        self.raw += data
        out = b""
        try:
            self.parser.receive_data(data)
            while True:
                event = self.parser.next_event()
                if isinstance(event, h11.Request):
                    self.method, self.target, self.body = event.method, event.target, b""
                elif isinstance(event, h11.Data):
                    self.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    body = b"echo %b %b %d" % (self.method, self.target, len(self.body))
                    out += self.parser.send(h11.Response(status_code=200, headers=[("Content-Length", str(len(body)))])) or b""
                    if self.method != b"HEAD":
                        out += self.parser.send(h11.Data(data=body)) or b""
                    self.parser.send(h11.EndOfMessage())
                    if self.parser.our_state is h11.MUST_CLOSE:
                        return out
                    self.parser.start_next_cycle()
                else:
                    return out
        except h11.RemoteProtocolError as error:
            self.fault = str(error)
            return out


class Hop:
    """A server engine and the client engines behind it."""

    def __init__(self, server: type[Engine], client: type[Engine]) -> None:
        self.host = Recorder(self.forward)
        self.server = server(self.host, LIMITS)
        self.host.attach(self.server)
        self.client = client
        self.upstreams: list[Recorder] = []

    def dial(self) -> Engine:
        host = Recorder()
        engine = self.client(host, LIMITS)
        host.attach(engine)
        self.upstreams.append(host)
        return engine

    def forward(self, request: Request) -> None:
        engine = self.upstreams[-1].engine if self.upstreams else None
        if engine is None or engine.capacity() == 0:
            engine = self.dial()
        up = engine.open()
        relay = Relay(request.stream, up)
        request.stream.sink = relay
        up.sink = relay
        up.send_head(request.head, [], request.end)


class Chain:
    def __init__(self, hops: int) -> None:
        self.origins: list[Origin] = []
        if hops == 1:
            self.hops = [Hop(Http1Server, Http1Client)]
        else:
            self.hops = [Hop(Http1Server, Http2Client), Hop(Http2Server, Http1Client)]
            self.hops[0].dial()  # HTTP/2 is ready when the SETTINGS are there
        self.carry()

    @property
    def closing(self) -> bool:
        return self.hops[0].server.closing

    def feed(self, pieces: Iterable[bytes]) -> bytes:
        """What the client gets for sending `pieces`, as far as it is read."""
        first = self.hops[0]
        out = b""
        for piece in pieces:
            if first.server.closing:
                break
            first.server.receive(piece, 0.0)
            self.carry()
            out += first.host.take()
        return out

    def carry(self) -> None:
        """Bytes between the engines, until there are none."""
        for _ in range(1000):
            moved = False
            if len(self.hops) == 2:
                inner = self.hops[1]
                (between,) = self.hops[0].upstreams
                assert between.engine is not None
                there, back = between.take(), inner.host.take()
                if there:
                    inner.server.receive(there, 0.0)
                if back:
                    between.engine.receive(back, 0.0)
                moved = bool(there or back)
            upstreams = self.hops[-1].upstreams
            while len(self.origins) < len(upstreams):
                self.origins.append(Origin())
            for host, origin in zip(upstreams, self.origins, strict=True):
                assert host.engine is not None
                data = host.take()
                if data:
                    moved = True
                    answer = origin.feed(data)
                    if answer:
                        host.engine.receive(answer, 0.0)
                        assert host.violations == []
            if not moved:
                return
        raise AssertionError("the engines never come to rest")
