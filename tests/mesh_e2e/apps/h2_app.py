"""An app that speaks HTTP/2 without TLS and nothing else (by the h2 package): echoes heads and body sizes as JSON."""

from __future__ import annotations

import asyncio
import json
import os

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset


class Speaker(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.heads: dict[int, list[tuple[str, str]]] = {}
        self.sizes: dict[int, int] = {}
        self.send()

    def send(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self.heads[event.stream_id] = list(event.headers)
                self.sizes[event.stream_id] = 0
            elif isinstance(event, DataReceived):
                self.sizes[event.stream_id] += len(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.answer(event.stream_id)
            elif isinstance(event, StreamReset):
                self.heads.pop(event.stream_id, None)
        self.send()

    def answer(self, stream: int) -> None:
        told = {"http": "2", "headers": self.heads.pop(stream), "bytes": self.sizes.pop(stream)}
        body = json.dumps(told).encode()
        self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
        self.h2.send_data(stream, body, end_stream=True)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Speaker, os.environ["POD_IP"], 8081)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
