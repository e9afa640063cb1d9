"""A gRPC app of all kinds of calls, on plain bytes: service e2e.Echo.

Unary     echoes message and metadata           Fail     an error without a message (trailers-only)
Collect   stream in, total size out             Wait     until it is cancelled; the ledger says how it began and ended
Spread    "count size" in, that many out        Chat     echoes each message as it comes
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

LEDGER = os.open(Path(os.environ["LEDGER"]) / f"{os.environ['POD_NAME']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note(line: str) -> None:
    os.write(LEDGER, f"{line}\n".encode())


async def unary(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    asked = [(key, value) for key, value in context.invocation_metadata() if key.startswith(("x-", "mesh-", "l5d-"))]
    await context.send_initial_metadata([("x-began", "yes")])
    context.set_trailing_metadata([(f"x-saw-{key}", value) for key, value in asked])
    return request


async def collect(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
    count = total = 0
    async for message in requests:
        count, total = count + 1, total + len(message)
    return f"{count} {total}".encode()


async def spread(request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    count, size = map(int, request.split())
    for number in range(count):
        yield bytes([number % 256]) * size


async def chat(requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    async for message in requests:
        yield message


async def fail(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    context.set_trailing_metadata([("x-why", "because")])
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: ½ of it, 100 %")
    raise AssertionError


async def wait(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    left = context.time_remaining()
    note(f"{request.decode()} begun {'without' if left is None or left > 1e6 else left}")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        note(f"{request.decode()} cancelled")
        raise
    return b""


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Spread": grpc.unary_stream_rpc_method_handler(spread),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Wait": grpc.unary_unary_rpc_method_handler(wait),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("e2e.Echo", handlers),))
    server.add_insecure_port(f"{os.environ['POD_IP']}:9090")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
