"""The smallest honest HTTP/1.1 server: reads whole requests, answers 100 bytes.  `python backend.py HOST:PORT`.

It knows GETs, and POSTs with a content-length, one at a time; nothing else, so that what is measured is the proxy.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

BODY = b"x" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + BODY


class Answering(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.buffer = b""
        self.left = 0  # bytes of the body that are to come

    def data_received(self, data: bytes) -> None:
        if self.left:
            self.body(len(data))
            return
        if self.buffer:
            data = self.buffer + data
        if data.startswith(b"POST "):
            head, _, body = data.partition(b"\r\n\r\n")
            if head == data:
                self.buffer = data  # it is not whole yet
                return
            self.buffer = b""
            at = head.lower().index(b"\r\ncontent-length:") + 17
            self.left = int(head[at:].split(b"\r\n", 1)[0])
            self.body(len(body))
            return
        heads = data.count(b"\r\n\r\n")
        self.buffer = data[data.rfind(b"\r\n\r\n") + 4 :] if heads else data
        if heads:
            self.transport.write(ANSWER * heads)

    def body(self, size: int) -> None:
        self.left -= size
        if self.left == 0:
            self.transport.write(ANSWER)
        elif self.left < 0:  # pipelined: not known here
            self.transport.abort()


async def main(address: str) -> None:
    host, _, port = address.rpartition(":")
    server = await asyncio.get_running_loop().create_server(Answering, host, int(port), backlog=1024)
    print(f"backend on {address}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main(sys.argv[1]))
    except KeyboardInterrupt:
        pass
