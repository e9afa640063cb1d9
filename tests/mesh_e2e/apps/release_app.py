"""An HTTP/1.1 app whose revision decides how it answers: STATUS (of every answer) after DELAY_MS."""

from __future__ import annotations

import asyncio
import os

from aiohttp import web


async def answer(request: web.Request) -> web.Response:
    await asyncio.sleep(int(os.environ.get("DELAY_MS", "0")) / 1000)
    return web.Response(status=int(os.environ.get("STATUS", "200")))


async def ready(request: web.Request) -> web.Response:
    return web.Response()


def main() -> None:
    app = web.Application()
    app.router.add_get("/ready", ready)
    app.router.add_get("/", answer)
    web.run_app(app, host=os.environ["POD_IP"], port=8080, print=None)


if __name__ == "__main__":
    main()
