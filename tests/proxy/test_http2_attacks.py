"""Rows of the attack catalogue that are about time: heads that never end (H2A-12), answers that nobody takes (H2A-15, -27),
and a limit on streams seen from the client's side (H2A-33).  Time limits are short here; that one is kept is what counts."""

from __future__ import annotations

import asyncio

import pytest
from http2_harness import (
    CONTINUATION,
    DATA,
    GET,
    HEADERS,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    block,
    frame,
    settings,
)
from proxy_peers import DEADLINE_S, read_head, request

ASK = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CANCEL = 8


async def answers(reader, writer):
    """/large gives 4 MiB, everything else two bytes."""
    while True:
        head = await read_head(reader)
        body = bytes(4 << 20) if b"/large" in head else b"ok"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


class Client:
    """Frames by hand, over a socket; everything that comes back is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.got: list[tuple[int, int, int, bytes]] = []
        self.ended = False

    @classmethod
    async def open(cls, port: int, *values: tuple[int, int]) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.send(PREFACE + settings(*values))
        return client

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self) -> None:
        try:
            head = await asyncio.wait_for(self.reader.readexactly(9), DEADLINE_S)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended = True
            return
        self.got.append((head[3], head[4], int.from_bytes(head[5:9], "big"), payload))

    async def until(self, kind: int, stream_id: int) -> bytes:
        while not self.ended:
            for seen, _, sid, payload in self.got:
                if (seen, sid) == (kind, stream_id):
                    return payload
            await self.read()
        raise AssertionError(f"the connection ended before {kind} on stream {stream_id}")

    async def until_end(self) -> None:
        while not self.ended:
            await self.read()

    def close(self) -> None:
        self.writer.close()


def get(path: bytes, stream_id: int = 1) -> bytes:
    fields = [(name, path if name == b":path" else value) for name, value in GET]
    return frame(HEADERS, 5, stream_id, block(fields))


async def named(house, reason: str) -> None:
    """Wait until the violation is counted."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while violations(house, reason) == 0:
        assert loop.time() < end, reason
        await asyncio.sleep(0.005)


def violations(house, reason: str) -> int:
    counter = house.ctx.violations.get(reason)
    return 0 if counter is None else counter.value


@pytest.fixture
async def place(houses, peer):
    """A proxy whose patience is short, and its backend."""
    backend = await peer(answers)
    house = houses(head_timeout_s=0.3, stall_timeout_s=1.0, sweep_s=0.05)
    side = await house.forward(backend.port)
    yield house, side
    assert (await request(side.port, ASK))[0] == 200  # the others go on
    await house.quiet()


NO_END = frame(HEADERS, 1, 1, block(GET)[:7])
HALF = get(b"/")[:20]


@pytest.mark.parametrize(
    ("start", "more"),
    [(NO_END, b""), (NO_END, frame(CONTINUATION, 0, 1)), (HALF, b""), (HALF, b"\0")],
    ids=["no END_HEADERS", "no END_HEADERS, empty frames", "half a frame", "half a frame, a byte now and then"],
)
async def test_a_head_that_never_ends_is_given_up_and_other_connections_are_not(place, start, more):
    """H2A-12."""
    house, side = place
    beside = await Client.open(side.port)
    client = await Client.open(side.port)
    client.send(start)
    beside.send(get(b"/"))
    await beside.until(HEADERS, 1)

    async def dribble() -> None:
        for _ in range(7):
            await asyncio.sleep(0.06)
            if not client.ended:
                client.send(more)

    task = asyncio.create_task(dribble())
    await client.until_end()
    await task
    await named(house, "slow_head")
    beside.send(get(b"/", 3))
    await beside.until(HEADERS, 3)
    client.close()
    beside.close()


async def test_an_answer_that_is_taken_byte_by_byte_lives_and_one_that_is_not_taken_ends_alone(place):
    """H2A-27, and the stalled streams of H2A-15."""
    house, side = place
    client = await Client.open(side.port, (4, 0))
    client.send(get(b"/large", 1) + get(b"/large", 3))
    await client.until(HEADERS, 1)
    await client.until(HEADERS, 3)
    while not any((kind, sid) == (RST_STREAM, 3) for kind, _, sid, _ in client.got):
        client.send(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")))
        taken = sum(len(payload) for kind, _, sid, payload in client.got if kind == DATA and sid == 1)
        while sum(len(payload) for kind, _, sid, payload in client.got if kind == DATA and sid == 1) == taken:
            await client.read()
    assert not any((kind, sid) == (RST_STREAM, 1) for kind, _, sid, _ in client.got)
    assert (RST_STREAM, 0, 3, CANCEL.to_bytes(4, "big")) in client.got
    assert violations(house, "h2_stalled") == 1
    await client.until(RST_STREAM, 1)  # now nothing is taken of it either
    assert violations(house, "h2_stalled") == 2
    assert house.ctx.pressure.held == 0
    client.send(get(b"/", 5))
    client.send(frame(WINDOW_UPDATE, 0, 5, (100).to_bytes(4, "big")))
    await client.until(DATA, 5)
    client.close()


async def test_a_client_that_reads_nothing_at_all_is_cut_off(place):
    house, side = place
    _, writer = await asyncio.open_connection("127.0.0.1", side.port, limit=1024)
    writer.transport.pause_reading()
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    await named(house, "slow_reader")
    writer.close()


async def test_control_a_client_that_reads_slowly_gets_it_all(place):
    house, side = place
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port, limit=1024)
    writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    size = 0
    while data := await asyncio.wait_for(reader.read(65536), DEADLINE_S):
        size += len(data)
        await asyncio.sleep(0.03)  # longer in all than the limit on standing still
    assert size > 4 << 20
    assert violations(house, "slow_reader") == 0
    writer.close()
