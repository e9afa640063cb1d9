"""The control plane's admin listener: /metrics, /ready, /live, /identity (the authority in force, JSON), /sd (discovery.py).

Nothing on it changes anything, and nothing is secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

Ready = Callable[[], tuple[bool, str]]


async def serve_admin(
    host: str,
    port: int,
    registry: CollectorRegistry,
    ready: Ready,
    identity: Callable[[], dict[str, Any]],
    targets: Callable[[], list[dict[str, Any]]] = list,
) -> tuple[web.AppRunner, int]:
    """Listen; `ready()` says whether, and why (not); `identity()` and `targets()` are pages, JSON-ready.  Returns what to
    `cleanup()`, and the port.  Raises OSError."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def is_ready(request: web.Request) -> web.Response:
        good, line = ready()
        return web.Response(text=line + "\n", status=200 if good else 503)

    async def is_live(request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def authority(request: web.Request) -> web.Response:
        return web.json_response(identity())

    async def discovery(request: web.Request) -> web.Response:
        return web.json_response(targets())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/ready", is_ready), web.get("/live", is_live)])
    app.add_routes([web.get("/identity", authority), web.get("/sd", discovery)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_address=True)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, int(runner.addresses[0][1])
