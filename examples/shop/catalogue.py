"""catalogue: what there is to buy.  HTTP/1.1 in, gRPC out to prices.  This is the service that gets released.

grpc honours `grpc_proxy` (or `http_proxy`) by CONNECT to the sidecar, and speaks HTTP/2 inside the tunnel.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import grpc
from aiohttp import web

from examples.shop import prices_pb2, prices_pb2_grpc
from examples.shop.app import NOTE, PEER, REQUEST_ID, Faults, Hop, Ledger, Settings
from examples.shop.web import ready

ATTEMPT_S = 5.0
PRODUCT = "lamp"
# grpc sends a call again by itself when the server certainly did not see it.  Here only the mesh may do that.
OPTIONS = [("grpc.enable_retries", 0)]


class Catalogue:
    def __init__(self, settings: Settings, prices: str) -> None:
        self.settings = settings
        self.faults = Faults(settings)
        self.ledger = Ledger(settings)
        self.prices = prices  # host:port
        self.stub: prices_pb2_grpc.PricesStub | None = None

    async def channel(self, app: web.Application) -> AsyncIterator[None]:
        async with grpc.aio.insecure_channel(self.prices, options=OPTIONS) as channel:
            self.stub = prices_pb2_grpc.PricesStub(channel)  # type: ignore[no-untyped-call]
            yield

    async def product(self, request: web.Request) -> web.Response:
        request_id = request.headers.get(REQUEST_ID, "")
        note = request.headers.get(NOTE, "")
        peer = request.headers.get(PEER, "")
        path = [self.settings.hop(peer)]
        reply: dict[str, object]
        if await self.faults.strike():
            status, reply = 500, {"error": f"catalogue {self.settings.version} was told to fail"}
        else:
            status, reply, further = await self.ask_prices(request_id, note)
            path += further
        self.ledger.write(request_id, status, peer, note)
        return web.json_response({"id": request_id, "path": path, **reply}, status=status)

    async def ask_prices(self, request_id: str, note: str) -> tuple[int, dict[str, object], list[Hop]]:
        assert self.stub is not None
        question = prices_pb2.QuoteRequest(product=PRODUCT, note=note)
        metadata = ((REQUEST_ID, request_id), (NOTE, note))
        try:
            quote = await self.stub.Quote(question, metadata=metadata, timeout=ATTEMPT_S)
        except grpc.aio.AioRpcError as error:
            return 503, {"error": f"prices: {error.code().name}: {error.details()}"}, []
        hop = {"service": quote.service, "version": quote.version, "pod": quote.pod, "peer": quote.peer}
        return 200, {"product": PRODUCT, "cents": quote.cents, "note": quote.note}, [hop]


def application(settings: Settings, prices: str) -> web.Application:
    shop = Catalogue(settings, prices)
    app = web.Application()
    app.cleanup_ctx.append(shop.channel)
    app.router.add_get("/product", shop.product)
    app.router.add_get("/ready", ready)
    return app


def main() -> None:
    settings = Settings.of("catalogue", port=8080)
    app = application(settings, os.environ.get("PRICES_TARGET") or "prices.shop:9090")
    web.run_app(app, host=settings.host, port=settings.port, shutdown_timeout=10, access_log=None, print=None)


if __name__ == "__main__":
    main()
