"""A question: the tunnel of a silent client, in which nobody has spoken yet.  Whoever speaks first decides what it becomes.

    begin --the server speaks, or ends--> handed to the connection     (learnt, but for HTTP's words: server_first.py)
          --the client speaks, no HTTP--> handed to the connection
          --the client speaks HTTP------> dropped, and what was learnt is forgotten; so where the server speaks HTTP/2
          --the client leaves-----------> dropped

The connection that asks is `Accepted` (server.py), in its phase ASKING.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshproxy.proxy.engines import KIND_OPAQUE, server_engine
from meshproxy.proxy.server_first import ServerFirst
from meshproxy.wire import detect
from meshproxy.wire.engine import Engine, Host, Stream
from meshproxy.wire.message import Head

if TYPE_CHECKING:
    from meshproxy.proxy.server import Accepted


class Question(Host):
    """Carries the tunnel's engine while nothing may leave it; `memory` has counted it in (`ServerFirst.ask`)."""

    def __init__(self, connection: Accepted, memory: ServerFirst, destination: bytes) -> None:
        self.connection = connection
        self.memory = memory
        self.destination = destination
        self.engine: Engine = server_engine(self, KIND_OPAQUE, connection.ctx.settings, destination)

    def wake(self) -> None:
        self.connection.server_spoke()

    def on_request(self, stream: Stream, head: Head, end: bool) -> None:
        self.connection.on_request(stream, head, end)

    def hold_reading(self) -> None:
        self.connection.hold_reading()

    def resume_reading(self) -> None:
        self.connection.resume_reading()

    def said(self) -> bytes:
        """The server's first bytes; b"" if it has ended, or could not be reached."""
        out = self.engine.out
        return out[0] if out else b""

    def speaks_http2(self) -> bool:
        """A server of HTTP/2 may say its SETTINGS first, and yet it is for its client to begin."""
        return detect.server_preface(self.said())

    def learn(self) -> None:
        """The client had said nothing.  A web server may say 408 before it closes an idle connection: that is no protocol in
        which it speaks first."""
        said = self.said()
        if said and not said.startswith(b"HTTP/"):
            self.memory.learn(self.destination)

    def hand_over(self) -> Engine:
        """The tunnel is the connection's own from now on."""
        self.memory.over(self.destination)
        self.engine.host = self.connection
        return self.engine

    def drop(self, http: bool) -> None:
        """Nothing was said in it.  `http`: its client speaks first, so its server does not."""
        self.memory.over(self.destination)
        if http:
            self.memory.forget(self.destination)
        self.engine.lost()
