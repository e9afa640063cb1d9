"""A server in the place of a Prometheus that says what a test tells it to; and a real one (Debian's)."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from control.canary.measuring.promql import Server


@dataclass
class Said:
    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes after which the connection is dropped
    wait: asyncio.Event | None = None  # before anything is said


def vector(*values: str, at: float | None = None) -> bytes:
    """An instant vector as Prometheus answers one."""
    when = time.time() if at is None else at
    result = [{"metric": {"pod": str(i)}, "value": [when, value]} for i, value in enumerate(values)]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def elements(*found: tuple[dict[str, str], float]) -> bytes:
    """An instant vector with labels."""
    result = [{"metric": labels, "value": [time.time(), str(value)]} for labels, value in found]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


class Scripted:
    """`says` is said to everybody; a function is asked with the query."""

    def __init__(self) -> None:
        self.says: Said = Said(b"", status=404)
        self.answers: dict[str, Said] = {}  # a part of the query -> what is said to it
        self.requests: list[web.Request] = []
        self.server = Server("")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        query = request.query.get("query", "")
        said = next((answer for part, answer in self.answers.items() if part in query), self.says)
        if said.wait is not None:
            await said.wait.wait()
        answer = web.StreamResponse(status=said.status, headers={"Content-Type": "application/json", **said.headers})
        answer.content_length = len(said.body)
        await answer.prepare(request)
        if said.cut is not None:
            await answer.write(said.body[: said.cut])
            assert request.transport is not None
            request.transport.abort()
            return answer
        await answer.write(said.body)
        await answer.write_eof()
        return answer


@asynccontextmanager
async def scripted(context: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    made = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    made.server = Server(f"{'https' if context else 'http'}://127.0.0.1:{port}")
    try:
        yield made
    finally:
        await runner.cleanup()
