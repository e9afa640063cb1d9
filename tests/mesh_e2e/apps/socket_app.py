"""WebSocket: /echo at 8080 sends every message back as its kind; 8082 every byte behind the 101 as it came."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from contextlib import suppress

from aiohttp import WSMsgType, web

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def echo(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse(max_msg_size=64 << 20, autoping=False, autoclose=False, compress=True)
    await response.prepare(request)
    while not response.closed:
        message = await response.receive()
        if message.type == WSMsgType.TEXT:
            await response.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await response.send_bytes(message.data)
        elif message.type == WSMsgType.PING:
            await response.pong(message.data)
        elif message.type == WSMsgType.CLOSE:
            await response.close(code=message.data, message=b"echoed")
    return response


async def raw(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handshake, then the bytes as they come."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        key = next(line.partition(":")[2].strip() for line in head if line.startswith("sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1((key + MAGIC.lower()).encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Accept: {accept}"]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main() -> None:
    app = web.Application()
    app.router.add_get("/echo", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    ip = os.environ["POD_IP"]
    await asyncio.start_server(raw, ip, 8082)
    await web.TCPSite(runner, ip, 8080).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
