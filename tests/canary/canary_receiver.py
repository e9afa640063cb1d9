"""A real HTTP server that plays the other side of webhooks and alerts: scripted answers, and every request kept."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = web.StreamResponse | Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    json: Any


@dataclass
class Receiver:
    """`async with Receiver() as receiver`: serves within the block.

    `answers` are given in order, the last one for ever; a callable is asked with the request.  `context`: of its TLS, if any.
    """

    answers: list[Answer | Callable[[], web.StreamResponse]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    context: ssl.SSLContext | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Receiver:
        app = web.Application(client_max_size=1 << 20)
        app.router.add_route("*", "/{rest:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.context)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"{'https' if self.context else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Before the end of the block, where a test wants nobody to listen."""
        await self._runner.cleanup()

    async def saw(self, number: int) -> None:
        """Until so many requests came."""
        while len(self.seen) < number:
            self._news.clear()
            await self._news.wait()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        try:
            body = json.loads(text) if text else None
        except ValueError:
            body = text
        self.seen.append(Seen(request.method, request.path_qs, dict(request.headers), body))
        self._news.set()
        answer = self.answers[min(len(self.seen), len(self.answers)) - 1] if self.answers else None
        if answer is None:
            return web.Response(text="OK")
        made = answer(request)
        return await made


def says(status: int, text: str = "", **headers: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An answer; underscores in the names of headers stand for hyphens."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


async def hangs_up(request: web.Request) -> web.StreamResponse:
    """The connection breaks before an answer began."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def never_answers(request: web.Request) -> web.StreamResponse:
    """Until the server is stopped or the client leaves."""
    await asyncio.Event().wait()
    return web.Response()
