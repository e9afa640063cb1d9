"""An app that does what it is asked, and remembers what it was asked: HTTP/1.1 at 8080, gRPC at 9090, lines at 7000.

/do, /api…   by the query, or else as its mood is:   id=X      how often X came, with body and headers, is in /seen
                                                      status=503   retry-after=1   times=N: only the first N of this id
                                                      hold=1    until /release (or its client is gone); ms=T   T ms later
/mood        POST (on the pod's own port) {"status", "ms", "every"}: from now on, for all, or each `every`-th
/seen        {"asked", "ids": {X: [{"at", "sha256", "headers", ...}]}, "gone": [X]}      /reset   forgets, is in no mood
e2e.Puppet/Do    {"id", "code", "times", "hold"} in, the pod's name out       port 7000    the pod's name for each line
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from typing import Any

import grpc
from aiohttp import web

POD = os.environ["POD_NAME"]
MOST = 5000  # requests remembered


class Puppet:
    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.mood: dict[str, int] = {}
        self.asked = 0
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self.gone: list[str] = []
        self.release()

    def release(self) -> None:
        self.let_go.set()
        self.let_go = asyncio.Event()

    def note(self, name: str, **facts: Any) -> int:
        """How often `name` has come, this time included."""
        self.asked += 1
        if len(self.seen) < MOST:
            self.seen.setdefault(name, []).append({"at": time.monotonic(), **facts})
        return len(self.seen.get(name, ()))

    async def wait(self, name: str, hold: bool, ms: int) -> None:
        try:
            if hold:
                await self.let_go.wait()
            if ms:
                await asyncio.sleep(ms / 1000)
        except asyncio.CancelledError:
            self.gone.append(name)
            raise


async def do(request: web.Request) -> web.Response:
    puppet: Puppet = request.app[PUPPET]
    query, name = request.query, request.query.get("id", "")
    body = await request.read()
    fields = {field.lower(): value for field, value in request.headers.items()}
    facts = {"method": request.method, "path": request.raw_path, "headers": fields}
    times = puppet.note(name, bytes=len(body), sha256=hashlib.sha256(body).hexdigest(), **facts)
    told: dict[str, Any] = {}
    if not puppet.mood or puppet.asked % puppet.mood.get("every", 1) == 0:
        told.update(puppet.mood)
    if times <= int(query.get("times", 1 << 30)):
        told.update(query)
    await puppet.wait(name, "hold" in told, int(told.get("ms", 0)))
    more = {"retry-after": told["retry-after"]} if "retry-after" in told else {}
    return web.json_response({"pod": POD, "id": name}, status=int(told.get("status", 200)), headers=more)


async def mood(request: web.Request) -> web.Response:
    request.app[PUPPET].mood = await request.json()
    return web.Response()


async def seen(request: web.Request) -> web.Response:
    puppet: Puppet = request.app[PUPPET]
    return web.json_response({"asked": puppet.asked, "ids": puppet.seen, "gone": puppet.gone})


async def reset(request: web.Request) -> web.Response:
    request.app[PUPPET].reset()
    return web.Response()


async def release(request: web.Request) -> web.Response:
    request.app[PUPPET].release()
    return web.Response()


async def ready(request: web.Request) -> web.Response:
    return web.Response()


def calls(puppet: Puppet) -> grpc.GenericRpcHandler:
    async def called(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        told = json.loads(request)
        left = context.time_remaining()
        times = puppet.note(told["id"], left=None if left is None or left > 1e6 else left)
        if times <= told.get("times", 1 << 30):
            await puppet.wait(told["id"], told.get("hold", False), 0)
            if told.get("code"):
                await context.abort(grpc.StatusCode[told["code"]], "as told")
        return POD.encode()

    return grpc.method_handlers_generic_handler("e2e.Puppet", {"Do": grpc.unary_unary_rpc_method_handler(called)})


async def lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readline():
        writer.write(f"{POD}\n".encode())
        await writer.drain()
    writer.close()


PUPPET = web.AppKey("puppet", Puppet)


async def main() -> None:
    puppet, ip = Puppet(), os.environ["POD_IP"]
    app = web.Application(client_max_size=1 << 24)
    app[PUPPET] = puppet
    app.router.add_post("/mood", mood)
    for path, handler in (("/seen", seen), ("/reset", reset), ("/release", release), ("/ready", ready)):
        app.router.add_get(path, handler)
    app.router.add_route("*", "/do", do)
    app.router.add_route("*", "/api{rest:.*}", do)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((calls(puppet),))
    server.add_insecure_port(f"{ip}:9090")
    await server.start()
    await asyncio.start_server(lines, ip, 7000)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=2)
    await runner.setup()
    await web.TCPSite(runner, ip, 8080).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
