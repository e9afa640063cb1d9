"""A gRPC client that keeps no deadline of its own and believes nothing: what it was sent, field by field."""

from __future__ import annotations

import asyncio
from typing import Any

import h2.config
import h2.connection
import h2.events
from proxy_peers import DEADLINE_S


class Call:
    """head, trailers   fields by name; trailers None: none came (trailers-only: the head ended the stream)
    code             of RST_STREAM, None without one
    """

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.head: dict[str, str] = {}
        self.body = b""
        self.trailers: dict[str, str] | None = None
        self.code: int | None = None
        self.over = asyncio.Event()

    async def end(self) -> Call:
        await asyncio.wait_for(self.over.wait(), DEADLINE_S)
        return self


class RawClient(asyncio.Protocol):
    def __init__(self) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.calls: dict[int, Call] = {}
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def call(self, *fields: tuple[str, str], content_type: str = "application/grpc", end: bool = True) -> Call:
        stream_id = self.h2.get_next_available_stream_id()
        made = self.calls[stream_id] = Call(stream_id)
        head = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "svc.test")]
        self.h2.send_headers(stream_id, [*head, ("content-type", content_type), ("te", "trailers"), *fields])
        if end:
            self.h2.send_data(stream_id, b"\0\0\0\0\0", end_stream=True)
        self.flush()
        return made

    def cancel(self, call: Call) -> None:
        self.h2.reset_stream(call.stream_id, 8)
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            call = self.calls.get(getattr(event, "stream_id", 0) or 0)
            if call is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                call.head = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                call.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, call.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                call.trailers = dict(event.headers)
            elif isinstance(event, h2.events.StreamReset):
                if not call.over.is_set():  # RST_STREAM(NO_ERROR) behind a complete answer is part of it (RFC 9113 8.1)
                    call.code = int(event.error_code)
                call.over.set()
            elif isinstance(event, h2.events.StreamEnded):
                call.over.set()
        self.flush()


async def connect(port: int) -> RawClient:
    _, client = await asyncio.get_running_loop().create_connection(RawClient, "127.0.0.1", port)
    return client
