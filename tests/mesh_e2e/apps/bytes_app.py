"""Protocols that are no HTTP, each on a port of its own.

2525   mail: the server speaks first (SMTP as smtplib speaks it), keeps what it was sent
7003   sends `count` bytes while it takes what comes; the digest of that after the client's half-close
7004   "reset": the server resets; otherwise tells the ledger how the connection ended
7005   everything back as it came
7443   the app's own TLS: a page by HTTP/1.1
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import struct
from pathlib import Path

LEDGER = Path(os.environ["LEDGER"])
PIECE = 1 << 18


def stream_of(seed: bytes, count: int) -> list[bytes]:
    """`count` bytes that no compressor or cache makes smaller, the same for the same seed."""
    block = hashlib.shake_256(seed).digest(PIECE)
    return [block] * (count // PIECE) + [block[: count % PIECE]]


async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.e2e ready\r\n")
    while line := await reader.readline():
        verb = line[:4].upper().strip()
        if verb == b"DATA":
            writer.write(b"354 go on\r\n")
            body = await reader.readuntil(b"\r\n.\r\n")
            with (LEDGER / "mail").open("ab") as file:
                file.write(body)
            writer.write(b"250 taken\r\n")
        elif verb == b"QUIT":
            writer.write(b"221 bye\r\n")
            await writer.drain()
            break
        else:
            writer.write(b"250 ok\r\n")
    writer.close()


async def both_ways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    count = struct.unpack(">Q", await reader.readexactly(8))[0]
    digest = hashlib.sha256()

    async def take() -> None:
        while data := await reader.read(PIECE):
            digest.update(data)

    taking = asyncio.create_task(take())
    for piece in stream_of(b"server", count):
        writer.write(piece)
        await writer.drain()
    await taking  # the client has closed its direction; ours is still open
    writer.write(digest.digest())
    await writer.drain()
    writer.close()


async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    name = (await reader.readline()).strip().decode()
    if name == "reset":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return
    writer.write(b"go on\n")
    try:
        ended = "eof" if await reader.read() == b"" else "bytes"
    except ConnectionResetError:
        ended = "reset"
    (LEDGER / f"ended-{name}").write_text(ended)
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()
    writer.close()


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret")
    await writer.drain()
    writer.close()


async def main() -> None:
    ip = os.environ["POD_IP"]
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(LEDGER / "own.pem", LEDGER / "own.key")
    await asyncio.start_server(mail, ip, 2525)
    await asyncio.start_server(both_ways, ip, 7003)
    await asyncio.start_server(ends, ip, 7004)
    await asyncio.start_server(echo, ip, 7005)
    await asyncio.start_server(page, ip, 7443, ssl=own)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
