"""The server of the interop cases (gRPC's interop-test-descriptions), on plain bytes: service interop.Test.

A request is a line of JSON (what is wanted) and a payload.  A response is as many bytes as were asked for.

Empty      nothing in, nothing out                      Output   unary in; "sizes" out, one message each
Unary      "size" bytes out; "gzip", "status"           Duplex   each message asks for one of "size"; "status" ends it
Input      stream in; the sum of their sizes out        Wait     until it is cancelled; with "first", after one message
Push       one message out each time Poke is called     Seen     what became of the calls that had a "name"

Custom metadata is echoed as the descriptions say: x-grpc-test-echo-initial, x-grpc-test-echo-trailing-bin; others under
`saw` when a Unary asks for "echo".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

LEDGER: dict[str, list[Any]] = {}
PUSHES: dict[str, asyncio.Queue[bytes]] = {}
Context = grpc.aio.ServicerContext


def wish(request: bytes) -> dict[str, Any]:
    line, _, payload = request.partition(b"\n")
    asked = json.loads(line or b"{}")
    asked["payload"] = len(payload)
    return dict(asked)


async def echo_metadata(context: Context, everything: bool = False) -> None:
    trailing = []
    for key, value in context.invocation_metadata():
        if key == "x-grpc-test-echo-initial":
            await context.send_initial_metadata([(key, value)])
        elif key == "x-grpc-test-echo-trailing-bin" or (everything and key.startswith("x-")):
            trailing.append((key, value))
    if trailing:
        context.set_trailing_metadata(trailing)


async def end(context: Context, status: dict[str, Any]) -> None:
    await context.abort(next(code for code in grpc.StatusCode if code.value[0] == status["code"]), status["message"])


async def empty(request: bytes, context: Context) -> bytes:
    return b""


async def unary(request: bytes, context: Context) -> bytes:
    asked = wish(request)
    if asked.get("gzip"):
        context.set_compression(grpc.Compression.Gzip)
    await echo_metadata(context, asked.get("echo", False))
    if "status" in asked:
        await end(context, asked["status"])
    if "name" in asked:
        LEDGER.setdefault(asked["name"], []).append(["left", context.time_remaining()])
    return bytes(asked.get("size", 0))


async def collect(requests: AsyncIterator[bytes], context: Context) -> bytes:
    total = 0
    async for request in requests:
        total += len(request)
    return b"%d" % total


async def output(request: bytes, context: Context) -> AsyncIterator[bytes]:
    asked = wish(request)
    if asked.get("gzip"):
        context.set_compression(grpc.Compression.Gzip)
    for size in asked["sizes"]:
        yield bytes(size)


async def duplex(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    await echo_metadata(context)
    async for request in requests:
        asked = wish(request)
        if "status" in asked:
            await end(context, asked["status"])
        if "sleep" in asked:
            await asyncio.sleep(asked["sleep"])
        yield bytes(asked.get("size", 0))


async def wait(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    asked = wish(await anext(aiter(requests)))
    events = LEDGER.setdefault(asked["name"], [])
    events.append("begun")
    try:
        if asked.get("first"):
            yield b"first"
        await asyncio.Event().wait()
    except (asyncio.CancelledError, GeneratorExit):
        events.append("cancelled")
        raise


async def push(request: bytes, context: Context) -> AsyncIterator[bytes]:
    queue = PUSHES.setdefault(wish(request)["name"], asyncio.Queue(1000))
    yield b"ready"
    while message := await queue.get():
        yield message


async def poke(request: bytes, context: Context) -> bytes:
    asked = wish(request)
    await PUSHES[asked["name"]].put(bytes(asked["size"]))
    return b""


async def seen(request: bytes, context: Context) -> bytes:
    return json.dumps(LEDGER.get(wish(request)["name"], [])).encode()


async def main(address: str) -> None:
    most = 64 * 1024 * 1024
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", most),
            ("grpc.absolute_max_metadata_size", most),
        ]
    )
    handlers = {
        "Empty": grpc.unary_unary_rpc_method_handler(empty),
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Input": grpc.stream_unary_rpc_method_handler(collect),
        "Output": grpc.unary_stream_rpc_method_handler(output),
        "Duplex": grpc.stream_stream_rpc_method_handler(duplex),
        "Wait": grpc.stream_stream_rpc_method_handler(wait),
        "Push": grpc.unary_stream_rpc_method_handler(push),
        "Poke": grpc.unary_unary_rpc_method_handler(poke),
        "Seen": grpc.unary_unary_rpc_method_handler(seen),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("interop.Test", handlers),))
    port = server.add_insecure_port(address)
    await server.start()
    print(f"serving {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else f"{os.environ['POD_IP']}:9090"))
