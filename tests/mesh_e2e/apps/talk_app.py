"""What is not a request and an answer: WebSocket at 8080, lines of text at 7000, the same inside the app's own TLS at 7443."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

from aiohttp import web


async def socket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for message in response:
        await response.send_str(f"{request.headers.get('mesh-client-id')} said {message.data}")
    return response


async def page(request: web.Request) -> web.Response:
    return web.Response(text="a page")


async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(b"echo " + line)
        await writer.drain()
    writer.write(b"bye")  # a half-closed connection still carries the other way
    await writer.drain()
    writer.close()


async def main() -> None:
    app = web.Application()
    app.router.add_get("/socket", socket)
    app.router.add_get("/page", page)
    runner = web.AppRunner(app)
    await runner.setup()
    ip = os.environ["POD_IP"]
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    directory = Path(os.environ["LEDGER"])
    own.load_cert_chain(directory / "talk.pem", directory / "talk.key")
    await asyncio.start_server(lines, ip, 7000)
    await asyncio.start_server(lines, ip, 7443, ssl=own)
    await web.TCPSite(runner, ip, 8080).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
