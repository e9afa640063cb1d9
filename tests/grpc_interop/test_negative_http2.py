"""What a client sees of a server that misbehaves: the same through the mesh as without it.

`goaway`, `rst_*`, `ping` and `max_streams` are gRPC's negative HTTP/2 cases (doc/negative-http2-interop-test-descriptions).
The HTTP answers are gRPC's http-grpc-status-mapping.
"""

from __future__ import annotations

import asyncio

import grpc
import pytest
from interop_ways import PATIENCE_S, Ways, channel_to, ended

C = grpc.StatusCode
Channel = grpc.aio.Channel

# method -> how the call may end: more than one where grpc itself reads a message and an error in either order.
ENDS = {
    "rst_after_header": {C.INTERNAL},
    "rst_during_data": {C.INTERNAL},
    "rst_after_data": {C.INTERNAL},
    "cancelled_at_once": {C.CANCELLED},
    "exhausted_at_once": {C.RESOURCE_EXHAUSTED},
    "refused": {C.UNAVAILABLE},
    "cancelled_in_the_middle": {C.CANCELLED},
    "lost_at_once": {C.UNAVAILABLE},
    "lost_in_the_middle": {C.UNAVAILABLE},
    "http_502": {C.UNAVAILABLE},
    "http_503": {C.UNAVAILABLE},
    "http_404": {C.UNIMPLEMENTED},
    "http_401": {C.UNAUTHENTICATED},
    "http_403": {C.PERMISSION_DENIED},
    "html_502": {C.UNAVAILABLE, C.UNKNOWN},
    "html_200": {C.UNKNOWN, C.INTERNAL},
    "no_status": {C.UNKNOWN, C.INTERNAL},
    "head_alone": {C.UNKNOWN, C.INTERNAL},
    "trailers_without_status": {C.UNKNOWN, C.INTERNAL},
    "status_of_no_number": {C.UNKNOWN, C.INTERNAL},
    "status_99": {C.UNKNOWN},
    "status_in_http_500": {C.FAILED_PRECONDITION},
}
# What was sent before the connection closed may be dropped by the client with it, with or without a mesh.
EITHER_WAY = {"lost_in_the_middle", "html_502", "html_200"}


async def outcome(channel: Channel, method: str) -> tuple[C, list[int]]:
    call = channel.unary_stream(f"/interop.Negative/{method}")(b"x", timeout=PATIENCE_S)
    came = []
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            came.append(len(message))
    except grpc.aio.AioRpcError:
        pass
    return (await ended(call))[0], came


@pytest.mark.parametrize("method", ENDS)
async def test_a_call_ends_as_it_does_without_the_mesh(negative: Ways, method: str) -> None:
    async with channel_to(negative.direct) as channel:
        expected = await outcome(channel, method)
    assert expected[0] in ENDS[method]
    async with channel_to(negative.address) as channel:
        found = await outcome(channel, method)
        assert found[0] in ENDS[method]
        assert found == expected or method in EITHER_WAY
        assert await outcome(channel, "ping") == (C.OK, [100])  # and the next call is none the worse


async def test_ping_frames_around_every_part_of_an_answer_do_no_harm(negative: Ways) -> None:
    async with channel_to(negative.address) as channel:
        for _ in range(20):
            assert await outcome(channel, "ping") == (C.OK, [100])


async def test_after_goaway_calls_go_on_on_another_connection(negative: Ways) -> None:
    async with channel_to(negative.address) as channel:
        for _ in range(10):
            assert await outcome(channel, "goaway") == (C.OK, [1000])


async def test_max_streams_is_respected_however_many_call_at_once(negative: Ways) -> None:
    async with channel_to(negative.address) as channel:
        outcomes = await asyncio.gather(*(outcome(channel, "max_streams") for _ in range(50)))
    assert outcomes == [(C.OK, [300_000])] * 50
