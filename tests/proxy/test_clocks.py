"""From when silence counts: from the last byte, and from when we began to wait for the next if that was later.

Time is simulated: what happened is moved into the past, and the sweep is told what time it is.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, request, until

from meshproxy.proxy.upstream import Upstream

NEVER = 1e6  # for sweeps: the test calls them
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Backend:
    """Takes the first connection and says what the test tells it to say."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.reader: Any = None
        self.writer: Any = None
        self.over = asyncio.Event()

    async def script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.reader is None:  # another was dialled, and the first got free before it was there
            self.reader, self.writer = reader, writer
            await read_head(reader)
            self.asked.set()
        await self.over.wait()

    async def request(self) -> None:
        await asyncio.wait_for(self.asked.wait(), DEADLINE_S)

    def say(self, data: bytes) -> None:
        self.writer.write(data)


class Client:
    """A connection through the proxy, and the proxy's end of it."""

    def __init__(self, house: Any, side: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.house = house
        self.side = side
        self.reader = reader
        self.writer = writer

    @property
    def carrier(self) -> Any:
        (carrier,) = self.side.connections
        return carrier

    @property
    def upstream(self) -> Upstream:
        (upstream,) = self.side.endpoints[0].http1.connections
        return upstream

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hears(self, wanted: bytes) -> bytes:
        """All up to `wanted`."""
        return await asyncio.wait_for(self.reader.readuntil(wanted), DEADLINE_S)

    async def ends(self) -> bytes:
        data = b""
        try:
            while more := await asyncio.wait_for(self.reader.read(65536), DEADLINE_S):
                data += more
        except ConnectionError:
            pass
        return data

    def time_passes(self, seconds: float) -> None:
        """What happened so far is `seconds` further in the past."""
        carrier = self.carrier
        carrier.active_at -= seconds
        carrier.wrote_at -= seconds

    def sweep(self, later: float) -> None:
        self.carrier.sweep(monotonic() + later)


@pytest.fixture
async def scene(houses, peer):
    backend = Backend()
    house = houses(sweep_s=NEVER)
    side = await house.forward((await peer(backend.script)).port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    yield backend, Client(house, side, reader, writer)
    backend.over.set()
    writer.close()


async def test_a_body_is_waited_for_from_when_100_asks_for_it(scene):
    backend, client = scene
    limit = client.house.ctx.settings.body_idle_timeout_s
    client.say(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    await backend.request()
    client.time_passes(limit + 1.0)
    client.sweep(0.0)
    backend.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    await client.hears(b"100 Continue\r\n\r\n")
    client.sweep(limit - 1.0)
    client.say(b"hello")
    assert await asyncio.wait_for(backend.reader.readexactly(5), DEADLINE_S) == b"hello"
    backend.say(OK)
    assert parse(await client.hears(b"ok"))[0] == 200


async def test_a_body_that_does_not_come_after_100_ends_its_connection(scene):
    backend, client = scene
    client.say(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
    await backend.request()
    backend.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    await client.hears(b"100 Continue\r\n\r\n")
    client.sweep(client.house.ctx.settings.body_idle_timeout_s + 1.0)
    assert await client.ends() == b""
    assert client.house.ctx.violations["slow_body"].value == 1


@pytest.mark.parametrize(("after", "late"), [(-1.0, False), (1.0, True)])
async def test_a_sender_that_we_paused_has_its_time_from_when_it_may_go_on(scene, after, late):
    backend, client = scene
    limit = client.house.ctx.settings.body_idle_timeout_s
    client.say(POST + b"h")
    await backend.request()
    await asyncio.wait_for(backend.reader.readexactly(1), DEADLINE_S)
    upstream = client.upstream
    upstream.pause_writing()  # as the event loop does when the server takes no more
    assert client.carrier.held
    client.time_passes(limit + 1.0)
    client.sweep(0.0)
    client.house.ctx.now -= limit + 1.0  # the last that happened was long ago
    upstream.resume_writing()
    assert not client.carrier.held
    client.sweep(limit + after)
    if late:
        assert await client.ends() == b""
    else:
        client.say(b"ello")
        assert await asyncio.wait_for(backend.reader.readexactly(4), DEADLINE_S) == b"ello"
        backend.say(OK)
        assert parse(await client.hears(b"ok"))[0] == 200
    assert ("slow_body" in client.house.ctx.violations) == late


async def test_a_pipelined_body_has_its_time_from_when_its_request_is_read(scene):
    backend, client = scene
    client.say(GET + POST + b"h")
    await backend.request()

    async def here() -> bool:
        return len(client.carrier.engine.buffer) > len(POST)

    await until(here, "the second request")
    client.time_passes(client.house.ctx.settings.body_idle_timeout_s + 1.0)
    backend.say(OK)
    await client.hears(b"ok")
    await read_head(backend.reader)
    client.sweep(1.0)
    client.say(b"ello")
    assert await asyncio.wait_for(backend.reader.readexactly(5), DEADLINE_S) == b"hello"
    backend.say(OK)
    assert parse(await client.hears(b"ok"))[0] == 200


async def test_a_connection_is_idle_from_the_end_of_an_answer_that_took_long(scene):
    backend, client = scene
    limit = client.house.ctx.settings.idle_timeout_s
    client.say(GET)
    await backend.request()
    client.time_passes(limit + 1.0)
    client.sweep(0.0)
    backend.say(OK)
    await client.hears(b"ok")
    client.house.lifecycle.relief.close_idle(monotonic())  # nor is it what is closed first where there are too many
    client.sweep(limit - 1.0)
    client.say(GET)
    await read_head(backend.reader)
    backend.say(OK)
    await client.hears(b"ok")
    client.sweep(limit + 1.0)
    assert await client.ends() == b""


HALF_HEAD = b"HTTP/1.1 200 OK\r\nX: "


async def test_an_answer_that_stops_in_its_head_is_given_up(scene):
    backend, client = scene
    ctx = client.house.ctx
    limit = ctx.settings.head_timeout_s
    client.say(POST + b"hello")
    await backend.request()
    backend.say(HALF_HEAD)

    async def begun() -> bool:
        return client.upstream.engine.buffer == HALF_HEAD

    await until(begun, "half a head")
    endpoint = client.side.endpoints[0]
    for later in (0.0, limit - 1.0, limit + 1.0):
        assert "slow_response_head" not in ctx.violations
        endpoint.sweep(monotonic() + later)
    status, fields, _ = parse(await client.hears(b"\r\n\r\n"))
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_malformed")
    assert ctx.violations["slow_response_head"].value == 1
    assert await asyncio.wait_for(backend.reader.read(-1), DEADLINE_S) == b"hello"  # and its connection is closed


async def test_the_time_of_a_head_begins_with_it_and_not_with_one_before(scene):
    backend, client = scene
    ctx = client.house.ctx
    limit = ctx.settings.head_timeout_s
    endpoint = client.side.endpoints[0]
    later = 0.0
    for body in (b"a\n", b"b\n"):
        client.say(GET)
        await (backend.request() if later == 0.0 else read_head(backend.reader))
        endpoint.sweep(monotonic() + later)
        backend.say(HALF_HEAD)

        async def begun() -> bool:
            return client.upstream.engine.buffer == HALF_HEAD

        await until(begun, "half a head")
        endpoint.sweep(monotonic() + later)
        later += limit - 1.0
        endpoint.sweep(monotonic() + later)
        backend.say(b"1\r\nContent-Length: 2\r\n\r\n" + body)
        assert parse(await client.hears(body))[0] == 200
    assert "slow_response_head" not in ctx.violations


@pytest.mark.parametrize("said", [b"hello world", b"S", b"HTTP/2", b"\r\nHTTP/1.1 200 OK\r\n"])
async def test_what_cannot_become_an_answer_is_not_waited_for(scene, said):
    backend, client = scene
    client.say(POST + b"hello")
    await backend.request()
    backend.say(said)
    status, fields, _ = parse(await client.hears(b"\r\n\r\n"))
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_malformed")
    assert client.house.ctx.violations["h1_status_line"].value == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n\r\nhe", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"])
async def test_a_refusal_of_ours_before_the_request_is_whole_says_that_it_closes(houses, peer, framing):
    house = houses(sweep_s=NEVER)
    gone = await peer(Backend().script)
    gone.server.close()
    await gone.server.wait_closed()
    side = await house.forward(gone.port)
    status, fields, body = await request(side.port, b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
    assert (status, fields[b"mesh-error"], fields[b"connection"]) == (502, b"connect_failed", b"close")
    assert len(body) == int(fields[b"content-length"])


async def test_an_answer_that_refuses_before_the_request_is_whole_says_that_it_closes(scene):
    backend, client = scene
    client.say(POST + b"he")
    await backend.request()
    backend.say(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    status, fields, body = parse(await client.ends())
    assert (status, fields[b"connection"], body) == (413, b"close", b"no")


async def test_an_answer_that_streams_while_the_request_does_leaves_the_connection_open(scene):
    backend, client = scene
    client.say(POST + b"he")
    await backend.request()
    backend.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    head = await client.hears(b"o")
    assert b"onnection: close" not in head
    client.say(b"llo")
    assert await asyncio.wait_for(backend.reader.readexactly(5), DEADLINE_S) == b"hello"
    backend.say(b"k")
    await client.hears(b"k")
    client.say(GET)
    await read_head(backend.reader)
    backend.say(OK)
    assert parse(await client.hears(b"ok"))[0] == 200
