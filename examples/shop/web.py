"""web: what a visitor sees.  HTTP/1.1 in, HTTP/1.1 out to the catalogue.

`trust_env=True` makes aiohttp honour `http_proxy`, which is how a plain client is led through its sidecar where nothing
redirects connections.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from examples.shop.app import NOTE, PEER, REQUEST_ID, Faults, Hop, Ledger, Settings, once

ATTEMPT_S = 8.0  # longer than any delay the shop is set to; a visitor's patience ends here


class Web:
    def __init__(self, settings: Settings, catalogue: str) -> None:
        self.settings = settings
        self.faults = Faults(settings)
        self.ledger = Ledger(settings)
        self.catalogue = catalogue  # base URL
        self.client: aiohttp.ClientSession | None = None

    async def session(self, app: web.Application) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_S)
        async with aiohttp.ClientSession(trust_env=True, timeout=timeout, middlewares=(once,)) as self.client:
            yield

    async def index(self, request: web.Request) -> web.Response:
        request_id = request.headers.get(REQUEST_ID, "")
        note = request.headers.get(NOTE, "")
        peer = request.headers.get(PEER, "")
        path = [self.settings.hop(peer)]
        reply: dict[str, object]
        if await self.faults.strike():
            status, reply = 500, {"error": "web was told to fail"}
        else:
            status, reply, further = await self.ask_catalogue(request_id, note)
            path += further
        self.ledger.write(request_id, status, peer, note)
        return web.json_response({"id": request_id, "path": path, **reply}, status=status)

    async def ask_catalogue(self, request_id: str, note: str) -> tuple[int, dict[str, object], list[Hop]]:
        """Status for the visitor, what to tell, the hops beyond this one.  Asked once: no answer is asked for twice."""
        assert self.client is not None
        headers = {REQUEST_ID: request_id, NOTE: note}
        try:
            async with self.client.get(f"{self.catalogue}/product", headers=headers) as response:
                body = await response.text()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            return 502, {"error": f"catalogue: {type(error).__name__}: {error}"}, []
        try:
            answer = json.loads(body)
            further: list[Hop] = answer.pop("path")
        except (ValueError, KeyError, AttributeError):  # an answer, but not the catalogue's
            return 502, {"error": f"catalogue answered {status}: {body[:200]}"}, []
        if status != 200:
            return 502, {"error": f"catalogue answered {status}: {answer.get('error', '')}"}, further
        return 200, {"product": answer.get("product"), "cents": answer.get("cents"), "note": answer.get("note")}, further


async def ready(request: web.Request) -> web.Response:
    return web.Response(text="ready\n")


def application(settings: Settings, catalogue: str) -> web.Application:
    shop = Web(settings, catalogue)
    app = web.Application()
    app.cleanup_ctx.append(shop.session)
    app.router.add_get("/", shop.index)
    app.router.add_get("/ready", ready)
    return app


def main() -> None:
    settings = Settings.of("web", port=8080)
    app = application(settings, os.environ.get("CATALOGUE_URL") or "http://catalogue.shop")
    web.run_app(app, host=settings.host, port=settings.port, shutdown_timeout=10, access_log=None, print=None)


if __name__ == "__main__":
    main()
