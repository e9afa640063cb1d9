"""Servers that do to a gRPC client what it must survive: raw sockets, frames not made by the engine that reads them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hpack

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(*fields: tuple[str, str], end: bool = False, stream: int = 1) -> bytes:
    """As literals that touch no table: blocks may be made in any order."""
    block = b"".join(b"\0" + bytes([len(name)]) + name.encode() + string(value.encode()) for name, value in fields)
    return h2_frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


def string(value: bytes) -> bytes:
    assert len(value) < 127
    return bytes([len(value)]) + value


def data(payload: bytes, end: bool = False, stream: int = 1) -> bytes:
    return h2_frame(DATA, END_STREAM if end else 0, stream, payload)


def message(payload: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(payload).to_bytes(4, "big") + payload


HELLO = h2_frame(SETTINGS, 0, 0)
HEAD = headers((":status", "200"), ("content-type", "application/grpc"))
GOOD = headers(("grpc-status", "0"), end=True)


@dataclass
class Seen:
    """What one connection brought: the request's fields, its DATA, and every frame."""

    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader
    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def count(self, kind: int) -> int:
        return sum(1 for frame in self.frames if frame[0] == kind)


Act = Callable[[Seen], Awaitable[None]]


class Peer:
    """Listens on a socket file, or on loopback with TLS; `act` is called when a request's first DATA has come, or with
    `raw` as soon as the connection is there."""

    def __init__(self, act: Act, raw: bool = False, answer_pings: bool = True, windows: bool = False) -> None:
        self.act, self.raw, self.answer_pings, self.windows = act, raw, answer_pings, windows
        self.target = ""
        self.seen: list[Seen] = []
        self.ended = 0  # connections the client closed
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        seen = Seen(writer, reader)
        self.seen.append(seen)
        try:
            if self.raw:
                await self.act(seen)
            else:
                await self.speak(seen)
            while await reader.read(65536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
            pass  # it was ended: by the client, or by `listening`
        finally:
            self.ended += 1
            self._tasks.discard(task)
            writer.close()

    async def speak(self, seen: Seen) -> None:
        assert await seen.reader.readexactly(len(PREFACE)) == PREFACE
        settings = b"\0\4" + (100).to_bytes(4, "big") if self.windows else b""  # SETTINGS_INITIAL_WINDOW_SIZE: 100 bytes
        seen.writer.write(h2_frame(SETTINGS, 0, 0, settings))
        acting: asyncio.Task[None] | None = None
        try:
            while True:
                start = await seen.reader.readexactly(9)
                size, kind, flags = int.from_bytes(start[:3], "big"), start[3], start[4]
                payload = await seen.reader.readexactly(size)
                seen.frames.append((kind, flags, int.from_bytes(start[5:], "big"), payload))
                if kind == SETTINGS and not flags & ACK:
                    seen.writer.write(h2_frame(SETTINGS, ACK, 0))
                elif kind == PING and not flags & ACK and self.answer_pings:
                    seen.writer.write(h2_frame(PING, ACK, 0, payload))
                elif kind == HEADERS:
                    seen.fields = {str(name): str(value) for name, value in hpack.Decoder().decode(payload)}
                elif kind == DATA:
                    seen.body += payload
                    if acting is None:
                        acting = asyncio.ensure_future(self.act(seen))
        finally:
            if acting is not None:
                acting.cancel()
                await asyncio.gather(acting, return_exceptions=True)

    @asynccontextmanager
    async def listening(self, where: Path | ssl.SSLContext | None) -> AsyncIterator[Peer]:
        """`where`: a directory for a socket file; or a TLS context, or None for clear text, on loopback."""
        if isinstance(where, Path):
            self.target = f"unix://{where / 'peer.sock'}"
            server = await asyncio.start_unix_server(self.serve, where / "peer.sock")
        else:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=where)
            self.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def says(seen: Seen, *what: bytes) -> None:
    seen.writer.write(b"".join(what))
    await seen.writer.drain()
