"""An HTTP/1.1 app that says what it was asked, counts what it did, and runs commands in its own surroundings.

/echo    what arrived, as JSON                       /work?id=N&ms=T   one line in the ledger, T ms later the answer
/begin   says its pod and never ends (?length: with a content-length, otherwise chunked)
/run     POST {"argv": [...]}: as if typed in a shell of this pod       /bytes/N   N bytes
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from aiohttp import web

POD = os.environ["POD_NAME"]
LEDGER = os.open(Path(os.environ["LEDGER"]) / f"{POD}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def echo(request: web.Request) -> web.Response:
    body = await request.read()
    told = {
        "pod": POD,
        "method": request.method,
        "path": request.raw_path,
        "http": f"{request.version.major}.{request.version.minor}",
        "peer": f"{request.transport.get_extra_info('peername')}" if request.transport else "",
        "headers": [[name.lower(), value] for name, value in request.headers.items()],
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return web.json_response(told, headers={"mesh-forged": "by the app", "x-app": POD})


async def work(request: web.Request) -> web.Response:
    # Written before anything else, with one system call: what is in the ledger was begun, also if this process is killed.
    os.write(LEDGER, f"{request.query['id']}\n".encode())
    await asyncio.sleep(int(request.query.get("ms", "0")) / 1000)
    return web.Response(text=os.environ.get("VERSION", ""))


async def some_bytes(request: web.Request) -> web.Response:
    return web.Response(body=b"x" * int(request.match_info["count"]))


async def begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    if "length" in request.query:
        response.content_length = 1_000_000
    await response.prepare(request)
    await response.write(f"{POD}\n".encode())
    await asyncio.Event().wait()
    return response


async def run(request: web.Request) -> web.Response:
    asked = await request.json()
    child = await asyncio.create_subprocess_exec(
        *asked["argv"], stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await child.communicate()
    return web.json_response({"code": child.returncode, "out": out.decode(), "error": error.decode()})


async def environment(request: web.Request) -> web.Response:
    return web.json_response(dict(os.environ))


async def ready(request: web.Request) -> web.Response:
    return web.Response(text="ready")


def main() -> None:
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/echo", echo)
    app.router.add_route("*", "/work", work)
    app.router.add_get("/begin", begin)
    app.router.add_get("/bytes/{count}", some_bytes)
    app.router.add_post("/run", run)
    app.router.add_get("/env", environment)
    app.router.add_get("/ready", ready)
    web.run_app(app, host=os.environ["POD_IP"], port=8080, print=None, shutdown_timeout=2, access_log=None)


if __name__ == "__main__":
    main()
