"""prices: a gRPC server.  One of its replicas is slow in the demonstration; it is the same program with DELAY_MS set."""

from __future__ import annotations

import asyncio
import signal

import grpc

from examples.shop import prices_pb2, prices_pb2_grpc
from examples.shop.app import PEER, REQUEST_ID, Faults, Ledger, Settings

CENTS = {"lamp": 4900}
GRACE_S = 5.0  # calls in flight may finish for so long after SIGTERM


class Prices(prices_pb2_grpc.PricesServicer):
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults(settings)
        self.ledger = Ledger(settings)

    async def Quote(  # grpc names methods as the .proto does
        self,
        request: prices_pb2.QuoteRequest,
        context: grpc.aio.ServicerContext[prices_pb2.QuoteRequest, prices_pb2.QuoteReply],
    ) -> prices_pb2.QuoteReply:
        metadata = {name: str(value) for name, value in context.invocation_metadata() or ()}
        request_id = metadata.get(REQUEST_ID, "")
        peer = metadata.get(PEER, "")
        failing = await self.faults.strike() or request.product not in CENTS
        # An app knows what it received, not what a proxy wrote beside it: the note is taken from the message itself.
        self.ledger.write(request_id, 500 if failing else 200, peer, request.note)
        if failing:
            await context.abort(grpc.StatusCode.INTERNAL, f"prices {self.settings.version} has no price to give")
        hop = self.settings.hop(peer)
        return prices_pb2.QuoteReply(cents=CENTS[request.product], note=request.note, **hop)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop`, then let the calls in flight finish."""
    # so_reuseport off: a second process on the same address is a mistake that must be seen, not half of the calls.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    prices_pb2_grpc.add_PricesServicer_to_server(Prices(settings), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"{settings.host}:{settings.port}")
    await server.start()
    await stop.wait()
    await server.stop(GRACE_S)


async def run() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(Settings.of("prices", port=9090), stop)


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    main()
