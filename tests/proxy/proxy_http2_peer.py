"""A scripted HTTP/2 server on the `h2` package: what it does not do by itself a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings


class Asked:
    """One request that arrived."""

    def __init__(self, session: Session, stream_id: int, headers: dict[str, str]) -> None:
        self.session = session
        self.stream_id = stream_id
        self.headers = headers
        self.body = b""
        self.trailers: dict[str, str] = {}
        self.ended = asyncio.Event()
        self.gone = asyncio.Event()  # reset by the client

    def respond(self, status: int, body: bytes | None = b"", **more: str) -> None:
        """The whole answer; body None: the head alone, more will follow."""
        self.session.head(self.stream_id, [(":status", str(status)), *more.items()], end=False)
        if body is not None:
            self.session.data(self.stream_id, body, True)

    def refuse(self) -> None:
        self.session.reset(self.stream_id, 7)


class Session(asyncio.Protocol):
    def __init__(self, peer: Http2Peer) -> None:
        self.peer = peer
        self.transport: Any = None
        self.asked: dict[int, Asked] = {}
        self.closed = asyncio.Event()
        self.started = False
        self.early = b""
        self.mute = False  # no longer answers anything, PING included
        self.refill = True  # grant window for what arrives
        self.received = 0  # body bytes
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.connection = h2.connection.H2Connection(config)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.peer.sessions.append(self)
        self.connection.local_settings = h2.settings.Settings(client=False, initial_values=self.peer.settings)
        if not self.peer.late:
            self.begin()

    def begin(self) -> None:
        self.started = True
        self.connection.initiate_connection()
        self.flush()
        if self.early:
            self.data_received(self.early)

    def flush(self) -> None:
        data = self.connection.data_to_send()
        if data and not self.mute:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.mute:
            return
        if not self.started:
            self.early += data
            return
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                asked = Asked(self, event.stream_id, dict(event.headers))
                self.asked[event.stream_id] = asked
                self.peer.asked.append(asked)
                self.peer.handler(asked)
            elif isinstance(event, h2.events.DataReceived):
                self.asked[event.stream_id].body += event.data
                self.received += len(event.data)
                if self.refill:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.asked[event.stream_id].trailers = dict(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                self.asked[event.stream_id].ended.set()
            elif isinstance(event, h2.events.StreamReset):
                self.asked[event.stream_id].gone.set()
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()

    def head(self, stream_id: int, headers: list[tuple[str, str]], end: bool) -> None:
        self.connection.send_headers(stream_id, headers, end_stream=end)
        self.flush()

    def data(self, stream_id: int, data: bytes, end: bool) -> None:
        self.connection.send_data(stream_id, data, end_stream=end)
        self.flush()

    def reset(self, stream_id: int, code: int) -> None:
        self.connection.reset_stream(stream_id, code)
        self.flush()

    def goaway(self, last_id: int) -> None:
        """GOAWAY as a raw frame: h2 would not let the connection go on after its own."""
        self.transport.write(b"\0\0\x08\x07\0" + b"\0\0\0\0" + last_id.to_bytes(4, "big") + b"\0\0\0\0")


class Http2Peer:
    """handler   called with every request; by default nobody answers
    late      SETTINGS only when a test calls `session.begin()`
    """

    def __init__(self) -> None:
        self.port = 0
        self.sessions: list[Session] = []
        self.asked: list[Asked] = []
        self.handler: Callable[[Asked], None] = lambda asked: None
        self.settings: dict[int, int] = {}
        self.late = False
        self.server: Any = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Session(self), "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self.server.close()
        for session in self.sessions:
            session.transport.abort()


def answers_ok(asked: Asked) -> None:
    asked.respond(200, b"ok")


STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
CONNECT_PROTOCOL = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
