"""The standard interop cases, each the same without a mesh, through one proxy, and through two sidecars: on our HTTP/2 engine,
and on the reference engine.

Names and expectations are those of gRPC's interop-test-descriptions.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest
from interop_ways import PATIENCE_S, Way, channel_to, ended, message, until

SERVICE = "/interop.Test/"
LARGE_IN, LARGE_OUT = 271828, 314159
SIZES_IN, SIZES_OUT = [27182, 8, 1828, 45904], [31415, 9, 2653, 58979]
MIB = 1024 * 1024

Channel = grpc.aio.Channel


def unary(channel: Channel, request: bytes, method: str = "Unary", **more: Any) -> Any:
    return channel.unary_unary(SERVICE + method)(request, **{"timeout": PATIENCE_S, **more})


async def fed(sizes: list[int]) -> AsyncIterator[bytes]:
    for size in sizes:
        yield bytes(size)


async def seen(channel: Channel, name: str) -> Any:
    return json.loads(await unary(channel, message(name=name), "Seen"))


def name_of(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


# ---------------------------------------------------------------- unary


async def test_empty_unary(channel: Channel) -> None:
    assert await unary(channel, b"", "Empty") == b""


async def test_large_unary(channel: Channel) -> None:
    assert await unary(channel, message(LARGE_IN, size=LARGE_OUT)) == bytes(LARGE_OUT)


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 4 * MIB, 32 * MIB])
async def test_messages_of_every_size_both_ways(channel: Channel, size: int) -> None:
    request = bytes(size) if size < 100 else message(size - len(message(size=size)), size=size)
    if size < 100:
        assert await channel.stream_unary(SERVICE + "Input")(iter([request]), timeout=PATIENCE_S) == b"%d" % size
    else:
        assert len(request) == size
        assert len(await unary(channel, request)) == size


async def test_client_compressed_unary(channel: Channel) -> None:
    call = unary(channel, message(LARGE_IN, size=LARGE_OUT), compression=grpc.Compression.Gzip)
    assert await call == bytes(LARGE_OUT)


async def test_server_compressed_unary(channel: Channel) -> None:
    assert await unary(channel, message(LARGE_IN, size=LARGE_OUT, gzip=True)) == bytes(LARGE_OUT)


async def test_concurrent_large_unary(way: Way) -> None:
    """With the retries that grpc does by itself: a connection whose client leaves 4 MiB unread takes no new streams for a
    moment (REFUSED_STREAM), and 100 such answers can be that."""
    async with channel_to(way.address, **{"grpc.enable_retries": 1}) as channel:
        calls = [unary(channel, message(LARGE_IN, size=LARGE_OUT + i)) for i in range(100)]
        assert [len(answer) for answer in await asyncio.gather(*calls)] == [LARGE_OUT + i for i in range(100)]


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_client_streaming(channel: Channel, compression: grpc.Compression) -> None:
    call = channel.stream_unary(SERVICE + "Input")(fed(SIZES_IN), timeout=PATIENCE_S, compression=compression)
    assert await call == b"%d" % sum(SIZES_IN)


@pytest.mark.parametrize("gzip", [False, True])
async def test_server_streaming(channel: Channel, gzip: bool) -> None:
    call = channel.unary_stream(SERVICE + "Output")(message(sizes=SIZES_OUT, gzip=gzip), timeout=PATIENCE_S)
    assert [len(part) async for part in call] == SIZES_OUT


async def test_ping_pong(channel: Channel) -> None:
    call = channel.stream_stream(SERVICE + "Duplex")(timeout=PATIENCE_S)
    for size_in, size_out in zip(SIZES_IN, SIZES_OUT, strict=True):
        await call.write(message(size_in, size=size_out))
        assert await call.read() == bytes(size_out)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_empty_stream(channel: Channel) -> None:
    call = channel.stream_stream(SERVICE + "Duplex")(timeout=PATIENCE_S)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_long_lived_stream_on_which_the_server_speaks_when_it_likes(
    channel: Channel, request: pytest.FixtureRequest
) -> None:
    name = name_of(request)
    call = channel.unary_stream(SERVICE + "Push")(message(name=name), timeout=PATIENCE_S)
    assert await call.read() == b"ready"
    for size in (1, 100_000, 3):  # each only when the one before has arrived: nothing on the way waits for more
        await unary(channel, message(name=name, size=size), "Poke")
        assert await call.read() == bytes(size)
    await unary(channel, message(name=name, size=0), "Poke")
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


# ---------------------------------------------------------------- status and metadata


async def test_custom_metadata(channel: Channel) -> None:
    sent = [("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab\x00")]
    call = unary(channel, message(LARGE_IN, size=LARGE_OUT), metadata=sent)
    assert sent[0] in tuple(await call.initial_metadata())
    assert await call == bytes(LARGE_OUT)
    assert sent[1] in tuple(await call.trailing_metadata())
    chat = channel.stream_stream(SERVICE + "Duplex")(timeout=PATIENCE_S, metadata=sent)
    await chat.write(message(LARGE_IN, size=LARGE_OUT))
    assert sent[0] in tuple(await chat.initial_metadata())
    assert await chat.read() == bytes(LARGE_OUT)
    await chat.done_writing()
    assert await chat.code() is grpc.StatusCode.OK
    assert sent[1] in tuple(await chat.trailing_metadata())


async def test_a_hundred_keys_text_and_binary(channel: Channel) -> None:
    sent = [(f"x-key-{i}", f"value {i}, \x20~") for i in range(50)] + [(f"x-key-{i}-bin", bytes(range(i))) for i in range(50)]
    call = unary(channel, message(echo=True), metadata=sent)
    await call
    assert set(sent) <= set(await call.trailing_metadata())


async def test_metadata_up_to_what_a_proxy_takes(channel: Channel) -> None:
    sent = [(f"x-{i}", "v" * 5000) for i in range(3)]  # echoed in trailers, where 16 KiB is the bound
    call = unary(channel, message(echo=True), metadata=sent)
    await call
    assert set(sent) <= set(await call.trailing_metadata())
    assert await unary(channel, message(), metadata=[("x-large", "v" * 58_000)]) == b""  # 60 KiB with everything else


@pytest.mark.parametrize("code", [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
async def test_status_code_and_message(channel: Channel, code: int) -> None:
    wanted = {"code": code, "message": "test status message"}
    status, details = await ended(unary(channel, message(status=wanted)))
    assert (status.value[0], details) == (code, "test status message")
    chat = channel.stream_stream(SERVICE + "Duplex")(timeout=PATIENCE_S)
    await chat.write(message(size=3))
    assert await chat.read() == bytes(3)
    await chat.write(message(status=wanted))
    status, details = await ended(chat)
    assert (status.value[0], details) == (code, "test status message")


async def test_special_status_message(channel: Channel) -> None:
    text = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈 100 %\t\n"
    status = await ended(unary(channel, message(status={"code": 2, "message": text})))
    assert status == (grpc.StatusCode.UNKNOWN, text)


@pytest.mark.parametrize("path", ["/interop.Test/Unimplemented", "/interop.Unimplemented/Unary"])
async def test_unimplemented_method_and_service(channel: Channel, path: str) -> None:
    status, _ = await ended(channel.unary_unary(path)(b"", timeout=PATIENCE_S))
    assert status is grpc.StatusCode.UNIMPLEMENTED


# ---------------------------------------------------------------- deadlines and cancellation


async def test_timeout_on_sleeping_server(channel: Channel) -> None:
    call = channel.stream_stream(SERVICE + "Duplex")(timeout=0.05)
    await call.write(message(27182, size=1, sleep=3600))
    status, _ = await ended(call)
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_deadline_in_the_middle_of_an_answer(channel: Channel, request: pytest.FixtureRequest) -> None:
    name = name_of(request)
    call = channel.stream_stream(SERVICE + "Wait")(timeout=1.0)
    await call.write(message(name=name, first=True))
    assert await call.read() == b"first"
    status, _ = await ended(call)
    assert status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await until(lambda: is_cancelled(channel, name), "the server's call to end") == ["begun", "cancelled"]


async def test_many_short_deadlines_end_as_deadlines_and_as_nothing_else(channel: Channel) -> None:
    """Client, server and proxies watch the same moment: whoever is first, the client is told the one truth."""
    calls = []
    for i in range(100):
        call = channel.stream_stream(SERVICE + "Duplex")(timeout=0.1 + i / 1000)
        calls.append(call)
        with suppress(grpc.aio.AioRpcError):  # on a busy machine it is over already; `ended` says how
            await call.write(message(size=1, sleep=3600))
    assert {status for status, _ in await asyncio.gather(*map(ended, calls))} == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_the_server_is_told_the_deadline(channel: Channel, request: pytest.FixtureRequest) -> None:
    await unary(channel, message(name=name_of(request)), timeout=25.0)
    ((_, left),) = await seen(channel, name_of(request))
    assert 0.0 < left <= 25.3  # grpc rounds up what it sends, by at most 1 %


async def is_cancelled(channel: Channel, name: str) -> Any:
    events = await seen(channel, name)
    return events if "cancelled" in events else None


async def test_cancel_after_begin(channel: Channel) -> None:
    call = channel.stream_unary(SERVICE + "Input")(timeout=PATIENCE_S)
    await call.write(b"begun")
    call.cancel()
    status, _ = await ended(call)
    assert status is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("first", [False, True])
async def test_cancellation_reaches_the_server(channel: Channel, request: pytest.FixtureRequest, first: bool) -> None:
    name = name_of(request)
    call = channel.stream_stream(SERVICE + "Wait")(timeout=PATIENCE_S)
    await call.write(message(name=name, first=first))
    if first:  # cancel_after_first_response
        assert await call.read() == b"first"
    await until(lambda: has_begun(channel, name), "the server's call to begin")
    call.cancel()
    assert (await ended(call))[0] is grpc.StatusCode.CANCELLED
    assert await until(lambda: is_cancelled(channel, name), "the server's call to end") == ["begun", "cancelled"]


async def has_begun(channel: Channel, name: str) -> Any:
    return await seen(channel, name)


async def test_head_over_the_limit_names_the_limit(way: Way) -> None:
    """Without a mesh the server takes it; a proxy's bound is answered as RESOURCE_EXHAUSTED, and the channel lives on."""
    async with channel_to(way.address) as channel:
        status, details = await ended(unary(channel, message(), metadata=[("x-large", "v" * 80_000)]))
        if way.name == "direct":
            assert status is grpc.StatusCode.OK
        else:
            assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "h2_head_too_large" in details
        assert await unary(channel, b"", "Empty") == b""
