"""A server that does what a gRPC server should not: the negative HTTP/2 interop cases, and answers that are not gRPC's.

The method's name says what happens (`Session.<name>`); every request is read to its end first.  One stream at a time
(SETTINGS_MAX_CONCURRENT_STREAMS 1), and the `h2` package holds the client to it: a second one ends the connection.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

GRPC = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]


def framed(size: int) -> bytes:
    return struct.pack(">BI", 0, size) + bytes(size)


class Session(asyncio.Protocol):
    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        limits = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1, h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 65535}
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=limits)
        self.doing: dict[int, Callable[[int], None]] = {}
        self.rest: dict[int, bytes] = {}  # of a body that waits for window
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.flush()
            self.transport.close()
            return
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                path = dict(event.headers)[":path"]
                self.doing[event.stream_id] = getattr(self, path.rpartition("/")[2])
            elif isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.doing.pop(event.stream_id)(event.stream_id)
            elif isinstance(event, h2.events.WindowUpdated):
                for stream_id in list(self.rest):
                    self.push(stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.rest.pop(event.stream_id, None)
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def head(self, stream: int, fields: list[tuple[str, str]], end: bool = False) -> None:
        self.h2.send_headers(stream, fields, end_stream=end)

    def body(self, stream: int, size: int) -> None:
        """A whole message and OK behind it, as window allows."""
        self.head(stream, GRPC)
        self.rest[stream] = framed(size)
        self.push(stream)

    def push(self, stream: int) -> None:
        rest = self.rest[stream]
        while rest and (room := min(self.h2.local_flow_control_window(stream), 16384)) > 0:
            self.h2.send_data(stream, rest[:room])
            rest = rest[room:]
        self.rest[stream] = rest
        if not rest:
            del self.rest[stream]
            self.head(stream, OK, end=True)

    # -- gRPC's negative HTTP/2 cases

    def max_streams(self, stream: int) -> None:
        self.body(stream, 300_000)

    def goaway(self, stream: int) -> None:
        """An answer, and the end of the connection for all further calls."""
        self.body(stream, 1000)
        self.flush()
        self.transport.write(b"\0\0\x08\x07\0\0\0\0\0" + struct.pack(">II", stream, 0))  # h2 would stop at its own GOAWAY

    def ping(self, stream: int) -> None:
        self.h2.ping(b"before..")
        self.head(stream, GRPC)
        self.h2.ping(b"headers.")
        self.h2.send_data(stream, framed(100))
        self.h2.ping(b"data....")
        self.head(stream, OK, end=True)
        self.h2.ping(b"after...")

    def rst_after_header(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.reset_stream(stream)

    def rst_during_data(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.send_data(stream, framed(1000)[:500])
        self.h2.reset_stream(stream)

    def rst_after_data(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.send_data(stream, framed(1000))
        self.h2.reset_stream(stream)

    # -- other ends of streams and connections

    def cancelled_at_once(self, stream: int) -> None:
        self.h2.reset_stream(stream, 8)

    def exhausted_at_once(self, stream: int) -> None:
        self.h2.reset_stream(stream, 11)

    def refused(self, stream: int) -> None:
        self.h2.reset_stream(stream, 7)

    def cancelled_in_the_middle(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.send_data(stream, framed(10))
        self.h2.reset_stream(stream, 8)

    def lost_at_once(self, stream: int) -> None:
        self.transport.abort()

    def lost_in_the_middle(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.send_data(stream, framed(10))
        self.flush()
        self.transport.close()

    # -- answers that are not gRPC's

    def page(self, stream: int, status: int) -> None:
        self.head(stream, [(":status", str(status)), ("content-type", "text/html"), ("content-length", "5")])
        self.h2.send_data(stream, b"<p>..", end_stream=True)

    def bare(self, stream: int, status: int) -> None:
        self.head(stream, [(":status", str(status)), ("content-length", "0")], end=True)

    def http_502(self, stream: int) -> None:
        self.bare(stream, 502)

    def http_503(self, stream: int) -> None:
        self.bare(stream, 503)

    def http_404(self, stream: int) -> None:
        self.bare(stream, 404)

    def http_401(self, stream: int) -> None:
        self.bare(stream, 401)

    def http_403(self, stream: int) -> None:
        self.bare(stream, 403)

    def html_502(self, stream: int) -> None:
        self.page(stream, 502)

    def html_200(self, stream: int) -> None:
        self.page(stream, 200)

    def no_status(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.send_data(stream, framed(10), end_stream=True)

    def head_alone(self, stream: int) -> None:
        self.head(stream, GRPC, end=True)

    def trailers_without_status(self, stream: int) -> None:
        self.head(stream, GRPC)
        self.h2.send_data(stream, framed(10))
        self.head(stream, [("x", "y")], end=True)

    def status_of_no_number(self, stream: int) -> None:
        self.head(stream, [*GRPC, ("grpc-status", "many"), ("grpc-message", "x")], end=True)

    def status_99(self, stream: int) -> None:
        self.head(stream, [*GRPC, ("grpc-status", "99")], end=True)

    def status_in_http_500(self, stream: int) -> None:
        self.head(stream, [(":status", "500"), GRPC[1], ("grpc-status", "9")], end=True)


async def main(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Session, host, port)
    print(f"serving {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main("127.0.0.1", 0) if len(sys.argv) > 1 else main(os.environ["POD_IP"], 9090))
