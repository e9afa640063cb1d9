"""HTTP/2 pools: streams that run short, peers that allow none, bulk on connections of its own, idle and dead connections."""

from __future__ import annotations

import asyncio

import pytest
from proxy_house import total
from proxy_http2_peer import CONNECT_PROTOCOL, STREAMS, answers_ok
from proxy_peers import DEADLINE_S, parse, read_head, request, until

from meshproxy.proxy.endpoint import SPEAKS_MESH

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
NEVER = 3600.0


def client(port: int, raw: bytes = GET):
    return asyncio.create_task(request(port, raw))


async def arrived(backend, count: int) -> None:
    async def enough() -> bool:
        return len(backend.asked) >= count

    await until(enough, f"{count} requests at the backend")


async def meshed(house, port: int):
    """A forward that speaks to its target as to a mesh peer (in clear: TLS is not the point here)."""
    side = await house.forward(port, upstream="http2")
    side.endpoints[0].speaks = SPEAKS_MESH
    side.endpoints[0].sole_pool = None  # its head says which pool a request goes to
    return side


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("streams", [1, 2])
async def test_never_more_streams_than_the_peer_allows_and_no_more_connections_than_we_do(houses, http2_peer, streams):
    running: dict[object, int] = {}
    most = 0

    def handler(asked):
        nonlocal most
        session = asked.session
        running[session] = running.get(session, 0) + 1
        most = max(most, running[session])

        def answer() -> None:
            running[session] -= 1
            asked.respond(200)

        house.loop.call_soon(answer)

    backend = await http2_peer(handler, settings={STREAMS: streams})
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    answers = await asyncio.gather(*[client(side.port) for _ in range(60)])
    assert {status for status, _, _ in answers} == {200}
    assert most == streams
    assert 1 <= len(backend.sessions) <= house.ctx.settings.http2_connections
    await house.quiet()


async def test_a_peer_that_allows_no_streams_is_not_waited_for_for_ever(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 0})
    house = houses(connect_timeout_s=0.3, queue_timeout_s=NEVER, sweep_s=0.05)
    side = await house.forward(backend.port, upstream="http2")
    for _ in range(2):
        status, fields, _ = await asyncio.wait_for(request(side.port, GET), DEADLINE_S)
        assert (status, fields[b"mesh-error"]) == (503, b"no_capacity")
    assert 1 <= len(backend.sessions) <= house.ctx.settings.http2_connections
    assert total(side.endpoints[0].series, error="no_capacity") == 2
    await house.quiet()


async def test_another_endpoint_is_tried_when_one_allows_no_streams(houses, http2_peer):
    closed = await http2_peer(settings={STREAMS: 0})
    open_one = await http2_peer(answers_ok)
    house = houses(connect_timeout_s=0.3, queue_timeout_s=NEVER, sweep_s=0.05)
    side = await house.forward(closed.port, open_one.port, upstream="http2")
    for _ in range(20):
        assert (await asyncio.wait_for(request(side.port, GET), DEADLINE_S))[0] == 200
        if closed.sessions:
            break
    assert closed.sessions
    await house.quiet()


async def test_when_long_exchanges_hold_every_connection_those_who_wait_are_refused_in_the_end(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 1})
    house = houses(http2_connections=1, sweep_s=NEVER)
    side = await house.forward(backend.port, upstream="http2")
    pool = side.endpoints[0].http2
    first = client(side.port)
    await arrived(backend, 1)
    second = client(side.port)

    async def waits() -> bool:
        return len(pool.waiting) == 1

    await until(waits, "the second request waiting")
    settings = house.ctx.settings
    pool.sweep(pool.progress_at + settings.connect_timeout_s + 0.5)  # the connection carries something: be patient
    assert len(pool.waiting) == 1
    pool.sweep(pool.progress_at + settings.queue_timeout_s + 0.1)
    status, fields, _ = await second
    assert (status, fields[b"mesh-error"]) == (503, b"no_capacity")
    backend.asked[0].respond(200)
    assert (await first)[0] == 200
    await house.quiet()


async def test_waiting_starts_again_whenever_someone_gets_a_stream(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 1})
    house = houses(http2_connections=1, sweep_s=NEVER)
    side = await house.forward(backend.port, upstream="http2")
    pool = side.endpoints[0].http2
    clients = [client(side.port)]
    await arrived(backend, 1)
    clients += [client(side.port), client(side.port)]

    async def both() -> bool:
        return len(pool.waiting) == 2

    await until(both, "two requests waiting")
    began = pool.progress_at
    backend.asked[0].respond(200)
    await arrived(backend, 2)
    assert pool.progress_at > began
    pool.sweep(began + house.ctx.settings.queue_timeout_s)
    assert len(pool.waiting) == 1
    backend.asked[1].respond(200)
    await arrived(backend, 3)
    backend.asked[2].respond(200)
    assert [answer[0] for answer in await asyncio.gather(*clients)] == [200] * 3
    await house.quiet()


# ---------------------------------------------------------------- bulk


async def test_a_tunnel_that_stands_still_holds_up_no_request(houses, http2_peer):
    def handler(asked):
        if asked.headers.get(":protocol"):
            asked.session.refill = False  # takes what fits into its windows, and no more
            asked.respond(200, None)
        else:
            asked.respond(200)

    backend = await http2_peer(handler, settings={CONNECT_PROTOCOL: 1})
    house = houses()
    side = await meshed(house, backend.port)
    assert (await request(side.port, GET))[0] == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE)
    assert parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))[0] == 101
    writer.write(bytes(4 << 20))

    async def stalled() -> bool:
        return backend.sessions[1].received >= 65535

    await until(stalled, "the tunnel's window spent")
    backend.sessions[1].transport.pause_reading()  # not even a PING gets through on that connection
    answers = await asyncio.gather(*[client(side.port) for _ in range(20)])
    assert {status for status, _, _ in answers} == {200}
    assert len(backend.sessions) == 2
    assert {bool(a.headers.get(":protocol")) for a in backend.sessions[0].asked.values()} == {False}
    backend.sessions[1].transport.resume_reading()
    next(iter(backend.sessions[1].asked.values())).refuse()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    writer.close()
    await house.quiet()


@pytest.mark.parametrize(("length", "connections"), [(1024 * 1024, 1), (1024 * 1024 + 1, 2)])
async def test_a_large_upload_goes_by_a_connection_of_its_own(houses, http2_peer, length, connections):
    def handler(asked):
        if asked.headers[":method"] == "GET":
            asked.respond(200)
        else:
            uploads.append(asked)

    uploads: list = []
    backend = await http2_peer(handler)
    house = houses()
    side = await meshed(house, backend.port)
    assert (await request(side.port, GET))[0] == 200
    upload = client(
        side.port, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length + bytes(length)
    )

    async def begun() -> bool:
        return len(uploads) == 1

    await until(begun, "the upload")
    await asyncio.wait_for(uploads[0].ended.wait(), DEADLINE_S)
    uploads[0].respond(200)
    assert (await upload)[0] == 200
    assert len(uploads[0].body) == length
    assert len(backend.sessions) == connections
    await house.quiet()


async def test_tunnels_that_wait_for_a_connection_can_leave_and_are_refused_when_it_fails(houses, http2_peer):
    backend = await http2_peer(late=True, settings={CONNECT_PROTOCOL: 1})
    house = houses(connect_timeout_s=0.5)
    side = await meshed(house, backend.port)
    _, leaver = await asyncio.open_connection("127.0.0.1", side.port)
    leaver.write(UPGRADE)
    endpoint = side.endpoints[0]

    async def waits() -> bool:
        return endpoint.bulk is not None and len(endpoint.bulk.waiting) == 1

    await until(waits, "the tunnel waiting")
    leaver.transport.abort()

    async def left() -> bool:
        return not endpoint.bulk.waiting

    await until(left, "the tunnel gone")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE)
    status, fields, _ = parse(await asyncio.wait_for(read_head(reader), DEADLINE_S))
    assert (status, fields[b"mesh-error"]) == (504, b"connect_timeout")
    writer.close()
    await house.quiet()


async def test_a_retired_endpoint_lets_its_tunnel_finish_and_is_then_forgotten(houses, http2_peer):
    backend = await http2_peer(lambda asked: asked.respond(200, None), settings={CONNECT_PROTOCOL: 1})
    house = houses(sweep_s=0.02)
    side = await meshed(house, backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(UPGRADE)
    await asyncio.wait_for(read_head(reader), DEADLINE_S)
    endpoint = side.endpoints[0]
    endpoint.retire()
    endpoint.sweep(house.ctx.now)
    assert endpoint in house.ctx.endpoints
    asked = backend.asked[0]
    asked.session.data(asked.stream_id, b"still here", True)
    assert await asyncio.wait_for(reader.read(-1), DEADLINE_S) == b"still here"
    writer.close()

    async def forgotten() -> bool:
        return endpoint not in house.ctx.endpoints

    await until(forgotten, "the retired endpoint forgotten")
    await house.quiet()


# ---------------------------------------------------------------- idle and dead connections


async def test_an_http2_connection_without_a_stream_is_closed_after_its_time_whatever_its_pings(houses, http2_peer):
    backend = await http2_peer()
    house = houses(sweep_s=NEVER)
    side = await house.forward(backend.port, upstream="http2")
    endpoint = side.endpoints[0]
    answer = client(side.port)
    await arrived(backend, 1)
    now = house.ctx.now
    limit = house.ctx.settings.pool_idle_timeout_s
    for second in (1.0, limit + 5.0):  # busy for long: kept
        (upstream,) = endpoint.http2.connections
        endpoint.sweep(now + second)
        upstream.active_at = now + second  # the answer to a PING
    assert endpoint.http2.size() == 1
    backend.asked[0].respond(200)
    assert (await answer)[0] == 200
    now += limit + 6.0
    for second in (0.0, limit - 1.0):
        (upstream,) = endpoint.http2.connections
        upstream.active_at = now + second
        endpoint.sweep(now + second)
    assert not backend.sessions[0].closed.is_set()
    answer = client(side.port)
    await arrived(backend, 2)
    backend.asked[1].respond(200)
    assert (await answer)[0] == 200
    for second in (limit + 1.0, limit * 2 + 2.0):  # used since: the time begins again
        assert endpoint.http2.size() == 1
        (upstream,) = endpoint.http2.connections
        upstream.active_at = now + second
        endpoint.sweep(now + second)
    await asyncio.wait_for(backend.sessions[0].closed.wait(), DEADLINE_S)
    assert len(backend.sessions) == 1
    await house.quiet()


async def test_a_half_open_connection_is_found_inside_thirteen_seconds_and_not_used_again(houses, http2_peer):
    """MF-09: the link is down, nobody says so; with the defaults, in simulated time."""
    backend = await http2_peer(answers_ok)
    house = houses(sweep_s=NEVER)
    side = await house.forward(backend.port, upstream="http2")
    assert (await request(side.port, GET))[0] == 200
    backend.sessions[0].mute = True
    stuck = client(side.port, GET.replace(b"GET", b"POST"))  # may have been acted on: it must fail, not hang
    endpoint = side.endpoints[0]
    (upstream,) = endpoint.http2.connections

    async def sent() -> bool:
        return upstream.engine.active() == 1

    await until(sent, "the request on the dead connection")
    heard = upstream.active_at
    for second in range(14):
        endpoint.sweep(heard + second)
        assert second == 13 or not upstream.transport.is_closing()
    assert upstream.transport.is_closing()
    status, fields, _ = await stuck
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_reset")
    assert (await request(side.port, GET))[0] == 200
    assert len(backend.sessions) == 2
    await house.quiet()
