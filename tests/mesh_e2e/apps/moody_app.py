"""An HTTP/1.1 app that fails on demand.

/broken, /whole    (asked on the pod's own port) from now on 503, or 200 again
/                  says its pod and how many requests it has had, also where it fails
"""

from __future__ import annotations

import os

from aiohttp import web

POD = os.environ["POD_NAME"]
STATE = {"broken": False, "asked": 0}


async def answer(request: web.Request) -> web.Response:
    STATE["asked"] += 1
    return web.json_response({"pod": POD, "asked": STATE["asked"]}, status=503 if STATE["broken"] else 200)


async def asked(request: web.Request) -> web.Response:
    return web.json_response({"asked": STATE["asked"]})


async def change(request: web.Request) -> web.Response:
    STATE["broken"] = request.path == "/broken"
    return web.Response()


def main() -> None:
    app = web.Application()
    app.router.add_get("/", answer)
    app.router.add_get("/asked", asked)
    app.router.add_get("/broken", change)
    app.router.add_get("/whole", change)
    web.run_app(app, host=os.environ["POD_IP"], port=8080, print=None)


if __name__ == "__main__":
    main()
