"""Clients that take their time (the catalogue's SL-01, SL-02, SL-04): each is ended at its bound, and nobody else notices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from proxy_peers import DEADLINE_S, parse, read_head, until
from raw_grpc_client import RawClient
from test_tls_forward import Mesh

from meshproxy.proxy.forward import ForwardSide, Target
from meshproxy.proxy.tls import Credentials

LAST_GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def echo(reader, writer):
    while True:
        await read_head(reader)
        writer.write(OK)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the end of the connection, FIN or RST."""
    data = b""
    try:
        while more := await asyncio.wait_for(reader.read(65536), DEADLINE_S):
            data += more
    except ConnectionError:
        pass
    return data


async def test_500_clients_that_never_finish_their_heads_are_ended_and_a_fresh_one_is_served(houses, peer):
    """SL-01"""
    backend = await peer(echo)
    house = houses(head_timeout_s=0.5, sweep_s=0.05)
    side = await house.forward(backend.port)
    slow = [await asyncio.open_connection("127.0.0.1", side.port) for _ in range(500)]
    served = 0
    over = asyncio.gather(*(ended(reader) for reader, _ in slow))
    at = 0
    while not over.done():  # a byte now and then: silence alone does not save them, progress does not either
        for _, writer in slow:
            if writer.is_closing():
                continue
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: "[at : at + 1] or b"y")
        at += 1
        assert parse(await ended_request(side.port))[0] == 200
        served += 1
        assert at < 10_000
    assert served > 0
    assert set(over.result()) == {b""}
    assert house.ctx.violations["slow_head"].value + house.ctx.violations.get("slow_start", Zero()).value == 500
    for _, writer in slow:
        writer.close()


class Zero:
    value = 0


async def ended_request(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(LAST_GET)
    data = await ended(reader)
    writer.close()
    return data


async def test_a_body_that_stops_coming_ends_its_connection_and_frees_the_upstream(houses, peer):
    """SL-02, silence"""
    freed = asyncio.Event()

    async def script(reader, writer):
        await read_head(reader)
        await reader.read(-1)
        freed.set()

    backend = await peer(script)
    house = houses(body_idle_timeout_s=0.2, sweep_s=0.05)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx")
    assert await ended(reader) == b""
    await asyncio.wait_for(freed.wait(), DEADLINE_S)
    assert house.ctx.violations["slow_body"].value == 1
    writer.close()


async def test_a_body_that_trickles_in_ends_at_the_requests_timeout_and_frees_the_upstream(houses, peer):
    """SL-02, a byte now and then: never silent for long, so the time for the whole request bounds it."""
    freed = asyncio.Event()

    async def script(reader, writer):
        await read_head(reader)
        await reader.read(-1)
        freed.set()

    backend = await peer(script)
    house = houses(body_idle_timeout_s=0.5, sweep_s=0.05)
    side = await house.forward(backend.port, timeout_s=0.8)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    answer = asyncio.create_task(ended(reader))
    while not answer.done():
        writer.write(b"x")
        await asyncio.wait((answer,), timeout=0.05)
    status, fields, _ = parse(answer.result())
    assert (status, fields[b"mesh-error"]) == (504, b"request_timeout")
    await asyncio.wait_for(freed.wait(), DEADLINE_S)
    assert "slow_body" not in house.ctx.violations
    writer.close()


class Uploader(RawClient):
    def upload(self, *fields: tuple[str, str], content_type: str = "text/plain", data: bytes = b"x"):
        call = self.call(*fields, content_type=content_type, end=False)
        if data:
            self.more(call, data)
        return call

    def more(self, call, data: bytes, end: bool = False) -> None:
        self.h2.send_data(call.stream_id, data, end_stream=end)
        self.flush()


async def uploader(port: int) -> Uploader:
    _, client = await asyncio.get_running_loop().create_connection(Uploader, "127.0.0.1", port)
    return client


@pytest.mark.parametrize("engine", ["ours", "h2"])
async def test_a_body_that_stops_coming_over_http2_ends_its_stream_and_no_other(houses, http2_peer, engine):
    """SL-02 over HTTP/2: silence of one stream, hidden among others that speak"""
    backend = await http2_peer(lambda asked: None)
    house = houses(body_idle_timeout_s=0.5, sweep_s=0.05, http2_engine=engine)
    side = await house.forward(backend.port, upstream="http2")
    client = await uploader(side.port)
    lively, call, sent = client.upload(), client.upload(content_type="application/grpc"), client.upload()
    calls = [call, client.upload(content_type="application/connect+proto")]
    client.more(sent, b"all", end=True)
    silent = client.upload(("content-length", "1000"))
    while not silent.over.is_set():  # the connection itself is never silent
        client.more(lively, b"x")
        await asyncio.wait((asyncio.ensure_future(silent.over.wait()),), timeout=0.05)
    assert (silent.head[":status"], silent.head["mesh-error"]) == ("408", "slow_body")
    assert silent.body.startswith(b"slow_body: ")
    seen = {asked.stream_id: asked for asked in backend.asked}
    await asyncio.wait_for(seen[silent.stream_id].gone.wait(), DEADLINE_S)
    for one in (lively, *calls):
        client.more(one, b"the end", end=True)
    for one in (lively, *calls, sent):
        await asyncio.wait_for(seen[one.stream_id].ended.wait(), DEADLINE_S)
        assert not seen[one.stream_id].gone.is_set()
        seen[one.stream_id].respond(200)
        await one.end()
        assert one.head[":status"] == "200"
    assert house.ctx.violations["slow_body"].value == 1
    assert house.ctx.refusals["slow_body outbound"].value == 1
    client.transport.close()


@pytest.mark.parametrize("engine", ["ours", "h2"])
@pytest.mark.parametrize("invited", [False, True])
async def test_a_body_that_was_not_asked_for_yet_is_given_twice_the_time(houses, http2_peer, engine, invited):
    """Expect: 100-continue; once the server has asked for it, it is like any other"""
    backend = await http2_peer(lambda asked: None)
    house = houses(body_idle_timeout_s=0.4, sweep_s=0.05, http2_engine=engine)
    side = await house.forward(backend.port, upstream="http2")
    client = await uploader(side.port)
    waiting = client.upload(("expect", "100-continue"), data=b"")
    late = client.upload(data=b"")
    await late.end()
    assert late.head[":status"] == "408"
    asked = backend.asked[0]
    assert not waiting.over.is_set()
    if invited:
        asked.session.head(asked.stream_id, [(":status", "100")], end=False)
    await waiting.end()
    assert waiting.head[":status"] == "408"
    await asyncio.wait_for(asked.gone.wait(), DEADLINE_S)
    client.transport.close()


async def test_silent_tls_connections_are_ended_and_handshakes_go_on_meanwhile(houses, peer, tmp_path):
    """SL-04"""
    mesh = Mesh(tmp_path)
    context = mesh.server("web")

    class Served(Credentials):
        def server_context(self):
            return context

    backend = await peer(echo)
    house = houses(detect_timeout_s=0.5, handshake_timeout_s=0.5, sweep_s=0.05)
    target = [Target("127.0.0.1", backend.port)]
    side = await house.listen(ForwardSide(house.ctx, target, "http1", 0.0, Served(), False, None, ""))
    silent = [await asyncio.open_connection("127.0.0.1", side.port) for _ in range(300)]
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # a record that promises 512 bytes
    for _, writer in silent[:100]:
        writer.write(hello)
    over = asyncio.gather(*(ended(reader) for reader, _ in silent))
    served = 0
    while not over.done():
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port, ssl=mesh.client("caller", ["http/1.1"]))
        writer.write(LAST_GET)
        assert parse(await ended(reader))[0] == 200
        writer.close()
        served += 1
        assert served < 10_000
    assert served > 0

    async def gone() -> bool:
        return not side.connections

    await until(gone, "all connections gone")
    assert house.ctx.violations["slow_start"].value == 300
    for _, writer in silent:
        writer.close()


class Told:
    """A backend that answers each request when it is told to; `asked` are the paths it was asked for."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def __call__(self, reader, writer):
        while True:
            self.asked.append((await read_head(reader)).split(b" ")[1])
            while (answer := await self.answers.get()).startswith(b"HTTP/1.1 1"):
                writer.write(answer)
            writer.write(answer)

    async def until_asked(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.asked) == count

        await until(enough, f"{count} requests at the backend")


NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
PIPELINE = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in (1, 2, 3))


async def finished(side, writer) -> Any:
    """Half-close, and wait until the proxy has heard of it."""
    writer.write_eof()

    async def heard() -> bool:
        return [c.input_ended for c in side.connections] == [True]

    await until(heard, "the FIN")
    (connection,) = side.connections
    return connection


async def half_closed(side, data: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(data)
    return reader, writer, await finished(side, writer)


async def test_each_request_that_begins_after_a_half_close_has_the_whole_time(houses, peer):
    backend = Told()
    server = await peer(backend)
    house = houses(half_close_s=3600.0)
    side = await house.forward(server.port)
    reader, writer, connection = await half_closed(side, PIPELINE)
    timers = []
    for number in (1, 2, 3):
        await backend.until_asked(number)
        timers.append(connection.half_close)
        backend.answers.put_nowait(NO_CONTENT)
    assert (await asyncio.wait_for(reader.read(-1), DEADLINE_S)).count(b" 204 ") == 3
    writer.close()
    await house.quiet()
    assert len(set(timers)) == 3
    assert [timer.cancelled() for timer in timers] == [True] * 3
    assert [timer.when() for timer in timers] == sorted(timer.when() for timer in timers)
    assert side.route.series.cancelled_total == 0


async def test_a_later_request_that_is_not_answered_after_a_half_close_is_cancelled_too(houses, peer):
    """At the FIN an answer was on its way, so nothing was waited for then."""
    go = asyncio.Event()

    async def in_two_parts(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf ")
        await go.wait()
        writer.write(b"done")
        await ended(reader)  # the second request, and no answer to it

    server = await peer(in_two_parts)
    house = houses(half_close_s=0.05, half_closed_idle_s=3600.0)
    side = await house.forward(server.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(PIPELINE)
    await asyncio.wait_for(reader.readuntil(b"half "), DEADLINE_S)
    await finished(side, writer)
    go.set()
    assert await ended(reader) == b"done"
    writer.close()
    await house.quiet()
    assert side.route.series.cancelled_total == 1


async def test_an_interim_answer_shows_that_a_half_closed_client_is_served(houses, peer):
    backend = Told()
    server = await peer(backend)
    house = houses(half_close_s=3600.0)
    side = await house.forward(server.port)
    reader, writer, connection = await half_closed(side, PIPELINE)
    backend.answers.put_nowait(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b" 103 "), DEADLINE_S)
    connection.half_closed()  # its time is up
    for _ in range(3):
        backend.answers.put_nowait(NO_CONTENT)
    assert (await asyncio.wait_for(reader.read(-1), DEADLINE_S)).count(b" 204 ") == 3
    writer.close()
    await house.quiet()


async def test_a_client_that_leaves_while_its_answer_stands_still_is_noticed_upstream(houses, peer):
    """Its FIN may be a half-close, and no byte of the answer comes that would find out."""
    gone = asyncio.Event()

    async def half_an_answer(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf ")
        await ended(reader)
        gone.set()

    backend = await peer(half_an_answer)
    house = houses(half_closed_idle_s=0.2, sweep_s=0.05)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"half "), DEADLINE_S)
    writer.close()
    await asyncio.wait_for(gone.wait(), DEADLINE_S)
    assert side.route.series.cancelled_total == 1


async def test_a_half_closed_client_that_reads_slowly_is_known_to_be_there_by_what_waits_for_it(houses, peer):
    """TCP asks it for room again and again, so that its death would be heard; whether it reads at all is the stall's clock."""
    size = 8 << 20

    async def page(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await ended(reader)

    backend = await peer(page)
    house = houses(half_closed_idle_s=10.0, sweep_s=0.05, stall_timeout_s=300.0)
    side = await house.forward(backend.port)
    reader, writer, connection = await half_closed(side, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    seen = []

    async def full() -> bool:
        seen.append((connection.unread, connection.wrote_at, connection.active_at))
        return connection.unread > 0 and seen[-3:] == [seen[-1]] * 3

    await until(full, "an answer that waits")
    connection.sweep(connection.moved_at() + 60.0)
    body = (await asyncio.wait_for(reader.readexactly(size), DEADLINE_S)).partition(b"\r\n\r\n")[2]
    assert len(body) + len(await ended(reader)) == size
    writer.close()
    await house.quiet()
    assert side.route.series.cancelled_total == 0
