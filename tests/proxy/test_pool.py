"""Connection pools under pressure: limits, failed dials, GOAWAY, retirement.  Every scenario ends with balanced books."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest
from proxy_house import total
from proxy_http2_peer import STREAMS, answers_ok
from proxy_peers import DEADLINE_S, free_port, parse, read_head, request, until

from meshproxy.proxy.endpoint import SPEAKS_HTTP2, SPEAKS_MESH, Endpoint

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Gate:
    """A backend script whose requests are answered one `open()` at a time."""

    def __init__(self) -> None:
        self.waiting = 0
        self.tickets = asyncio.Semaphore(0)

    async def __call__(self, reader, writer):
        while True:
            await read_head(reader)
            self.waiting += 1
            await self.tickets.acquire()
            self.waiting -= 1
            writer.write(OK)

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            self.tickets.release()

    async def asked(self, count: int) -> None:
        async def enough() -> bool:
            return self.waiting >= count

        await until(enough, f"{count} requests at the backend")


def client(port: int) -> asyncio.Task[tuple[int, dict[bytes, bytes], bytes]]:
    return asyncio.create_task(request(port, GET))


async def waiters(pool, count: int) -> None:
    async def enough() -> bool:
        return len(pool.waiting) == count

    await until(enough, f"{count} waiting requests")


# ---------------------------------------------------------------- HTTP/1.1


async def test_requests_above_the_connection_limit_wait_and_are_served(houses, peer):
    gate = Gate()
    backend = await peer(gate)
    house = houses(http1_connections=2)
    side = await house.forward(backend.port)
    clients = [client(side.port) for _ in range(5)]
    await gate.asked(2)
    await waiters(side.endpoints[0].http1, 3)
    gate.open(5)
    assert [answer[0] for answer in await asyncio.gather(*clients)] == [200] * 5
    assert backend.connections == 2
    await house.quiet()


async def test_above_the_queue_the_answer_is_503_at_once(houses, peer):
    gate = Gate()
    backend = await peer(gate)
    house = houses(http1_connections=1, waiting=1)
    side = await house.forward(backend.port)
    first = client(side.port)
    await gate.asked(1)
    second = client(side.port)
    await waiters(side.endpoints[0].http1, 1)
    status, fields, _ = await request(side.port, GET)
    assert (status, fields[b"mesh-error"]) == (503, b"queue_full")
    gate.open(2)
    assert (await first)[0] == (await second)[0] == 200
    await house.quiet()


async def test_a_waiting_client_that_leaves_gives_its_place_up(houses, peer):
    gate = Gate()
    backend = await peer(gate)
    house = houses(http1_connections=1)
    side = await house.forward(backend.port)
    first = client(side.port)
    await gate.asked(1)
    _, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    await waiters(side.endpoints[0].http1, 1)
    writer.transport.abort()
    await waiters(side.endpoints[0].http1, 0)
    gate.open(2)
    assert (await first)[0] == 200
    assert side.route.series.cancelled_total == 1
    await house.quiet()


async def test_a_dial_that_fails_ends_one_request_and_leaves_the_busy_ones_alone(houses, peer):
    gate = Gate()
    backend = await peer(gate)
    house = houses()
    side = await house.forward(backend.port)
    first = client(side.port)
    await gate.asked(1)
    backend.server.close()
    status, fields, _ = await request(side.port, GET)
    assert (status, fields[b"mesh-error"]) == (502, b"connect_failed")
    gate.open()
    assert (await first)[0] == 200
    await house.quiet()
    assert total(side.endpoints[0].series, error="connect_failed") == 1


async def test_a_burst_of_failed_dials_is_one_step_of_the_back_off(houses):
    house = houses()
    side = await house.forward(free_port())
    answers = await asyncio.gather(*[client(side.port) for _ in range(20)])
    assert {status for status, _, _ in answers} == {502}
    await house.quiet()
    assert side.endpoints[0].failures <= 2  # 20 doublings would keep it away for the maximum of 10 s


async def test_an_endpoint_that_comes_back_is_available_again_after_its_back_off(houses, peer):
    port = free_port()
    house = houses(reconnect_min_s=0.01)
    side = await house.forward(port)
    assert (await request(side.port, GET))[0] == 502
    assert not side.endpoints[0].available

    async def available() -> bool:
        return side.endpoints[0].available

    await until(available, "the end of the back-off")
    gate = Gate()
    gate.open(1)
    await peer(gate, port)
    assert (await request(side.port, GET))[0] == 200
    assert side.endpoints[0].failures == 0
    await house.quiet()


async def test_a_dial_into_nowhere_is_504_and_given_up(houses):
    # A full accept queue: the kernel drops what comes, as a firewall does.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        house = houses(connect_timeout_s=0.2)
        side = await house.forward(port)
        status, fields, _ = await request(side.port, GET)
        assert (status, fields[b"mesh-error"]) == (504, b"connect_timeout")
        cell = side.endpoints[0].series.errors["connect_timeout"]
        assert cell.count == 1
        assert side.endpoints[0].series.duration_sum_ms >= 190  # the clock was read when the deadline fired

        async def given_up() -> bool:
            return not house.ctx.tasks

        await until(given_up, "the end of the dial")  # the kernel alone would take two minutes
        for filler in fillers:
            filler.close()


async def test_a_name_that_dns_cannot_hold_is_a_name_not_found_and_that_is_logged(houses, caplog):
    house = houses(connect_timeout_s=DEADLINE_S)
    side = await house.outbound()
    raw = b"GET http://a..b/ HTTP/1.1\r\nHost: a..b\r\nConnection: close\r\n\r\n"
    with caplog.at_level(logging.WARNING, "meshproxy.proxy"):
        status, fields, body = await asyncio.wait_for(request(side.port, raw), 10)
    assert (status, fields[b"mesh-error"]) == (502, b"name_not_found")
    assert body.startswith(b"name_not_found: the endpoint's name has no address")
    assert house.ctx.refusals["name_not_found outbound"].value == 1
    assert [record.message for record in caplog.records if "a..b" in record.message] == [
        "the name a..b has no address, or no name server answered"
    ]
    await house.quiet()


async def test_pipelined_requests_beyond_the_limit_leave_nothing_behind(houses, peer):
    gate = Gate()
    gate.open(50)
    backend = await peer(gate)
    house = houses(http1_connections=1)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    for _ in range(50):
        assert parse(await read_head(reader))[0] == 200
        await reader.readexactly(2)
    writer.close()
    await house.quiet()
    assert side.route.series.request_total == 50


async def test_an_idle_connection_is_closed_after_its_time(houses, peer):
    gate = Gate()
    gate.open(1)
    backend = await peer(gate)
    house = houses(pool_idle_timeout_s=0.05, sweep_s=0.02)
    side = await house.forward(backend.port)
    assert (await request(side.port, GET))[0] == 200

    async def closed() -> bool:
        return side.endpoints[0].connections() == 0

    await until(closed, "the idle connection closed")


# ---------------------------------------------------------------- retirement


async def test_requests_that_wait_when_their_endpoint_is_retired_are_served(houses, peer):
    gate = Gate()
    backend = await peer(gate)
    house = houses(http1_connections=1, sweep_s=0.02)
    side = await house.forward(backend.port)
    endpoint = side.endpoints[0]
    clients = [client(side.port) for _ in range(3)]
    await gate.asked(1)
    await waiters(endpoint.http1, 2)
    endpoint.retire()
    gate.open(3)
    assert [answer[0] for answer in await asyncio.gather(*clients)] == [200] * 3
    await house.quiet()

    async def forgotten() -> bool:
        return endpoint not in house.ctx.endpoints

    await until(forgotten, "the retired endpoint forgotten")
    assert endpoint.connections() == 0


async def test_requests_that_wait_for_a_dial_when_their_endpoint_is_retired_are_served(houses, http2_peer):
    backend = await http2_peer(answers_ok, late=True)
    house = houses(connect_timeout_s=DEADLINE_S, sweep_s=0.02)
    side = await house.forward(backend.port, upstream="http2")
    endpoint = side.endpoints[0]
    clients = [client(side.port) for _ in range(3)]
    await waiters(endpoint.http2, 3)

    async def dialled() -> bool:
        return len(backend.sessions) == 1

    await until(dialled, "the dial")
    endpoint.retire()
    backend.sessions[0].begin()
    assert [answer[0] for answer in await asyncio.gather(*clients)] == [200] * 3
    await asyncio.wait_for(backend.sessions[0].closed.wait(), DEADLINE_S)
    await house.quiet()


async def test_requests_that_wait_for_a_stream_when_their_endpoint_is_retired_are_served(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 1})
    house = houses(http2_connections=1, sweep_s=0.02)
    side = await house.forward(backend.port, upstream="http2")
    endpoint = side.endpoints[0]
    clients = [client(side.port)]
    await arrived(backend, 1)
    clients.append(client(side.port))
    await waiters(endpoint.http2, 1)
    endpoint.retire()
    backend.asked[0].respond(200)
    await arrived(backend, 2)
    backend.asked[1].respond(200)
    assert [answer[0] for answer in await asyncio.gather(*clients)] == [200] * 2
    await asyncio.wait_for(backend.sessions[0].closed.wait(), DEADLINE_S)
    await house.quiet()


async def test_a_retired_endpoint_with_a_dead_peer_is_still_probed(houses, http2_peer):
    backend = await http2_peer()
    house = houses(ping_interval_s=0.05, ping_timeout_s=0.05, sweep_s=0.02)
    side = await house.forward(backend.port, upstream="http2")
    answer = client(side.port)
    await arrived(backend, 1)
    side.endpoints[0].retire()
    backend.sessions[0].mute = True
    status, fields, _ = await answer
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_reset")
    await house.quiet()


# ---------------------------------------------------------------- HTTP/2


async def arrived(backend, count: int) -> None:
    async def enough() -> bool:
        return len(backend.asked) >= count

    await until(enough, f"{count} requests at the backend")


async def test_many_requests_share_one_connection(houses, http2_peer):
    backend = await http2_peer(answers_ok)
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    answers = await asyncio.gather(*[client(side.port) for _ in range(20)])
    assert {status for status, _, _ in answers} == {200}
    assert len(backend.sessions) == 1
    await house.quiet()


async def test_when_streams_run_short_a_further_connection_is_opened(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 1})
    house = houses(http2_connections=2)
    side = await house.forward(backend.port, upstream="http2")
    clients = [client(side.port)]
    await arrived(backend, 1)
    clients.append(client(side.port))
    await arrived(backend, 2)
    assert len(backend.sessions) == 2
    clients.append(client(side.port))  # both are full, and there may be no third
    await waiters(side.endpoints[0].http2, 1)
    backend.asked[1].respond(200)
    await arrived(backend, 3)
    backend.asked[0].respond(200)
    backend.asked[2].respond(200)
    assert [answer[0] for answer in await asyncio.gather(*clients)] == [200] * 3
    assert len(backend.sessions) == 2
    await house.quiet()


async def test_after_goaway_what_waits_gets_a_new_connection_and_the_old_one_closes(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 1})
    house = houses(http2_connections=1)
    side = await house.forward(backend.port, upstream="http2")
    first = client(side.port)
    await arrived(backend, 1)
    second = client(side.port)
    await waiters(side.endpoints[0].http2, 1)
    backend.sessions[0].goaway(1)
    await arrived(backend, 2)
    assert len(backend.sessions) == 2
    backend.asked[1].respond(200)
    assert (await second)[0] == 200
    backend.asked[0].respond(200)  # in flight when the GOAWAY came: it is finished
    assert (await first)[0] == 200
    await asyncio.wait_for(backend.sessions[0].closed.wait(), DEADLINE_S)  # the server leaves that to the client
    await house.quiet()


async def test_streams_above_goaways_last_id_are_sent_again_whatever_their_method(houses, http2_peer):
    backend = await http2_peer()
    other = await http2_peer(answers_ok)
    house = houses()
    side = await house.forward(backend.port, other.port, upstream="http2")
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    for _ in range(50):
        if backend.asked:
            break
        sent = asyncio.create_task(request(side.port, raw))
        done, _ = await asyncio.wait((sent,), timeout=0.05)
        if done:
            assert sent.result()[0] == 200
    assert backend.asked
    backend.sessions[0].goaway(0)
    assert (await sent)[0] == 200
    assert side.route.series.retry_total == 1
    await house.quiet()


async def test_a_peer_that_no_longer_answers_pings_is_left(houses, http2_peer):
    backend = await http2_peer()
    house = houses(ping_interval_s=0.05, ping_timeout_s=0.05, sweep_s=0.02)
    side = await house.forward(backend.port, upstream="http2")
    answer = asyncio.create_task(request(side.port, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    await arrived(backend, 1)
    backend.sessions[0].mute = True
    status, fields, _ = await answer
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_reset")
    await house.quiet()


async def test_a_peer_that_answers_pings_is_kept_however_long_it_takes(houses, http2_peer):
    backend = await http2_peer()
    house = houses(ping_interval_s=0.03, ping_others_s=0.03, ping_timeout_s=0.5, sweep_s=0.01)
    side = await house.forward(backend.port, upstream="http2")
    answer = client(side.port)
    await arrived(backend, 1)
    upstream = next(iter(side.endpoints[0].http2.connections))
    for _ in range(3):
        heard = upstream.active_at

        async def heard_again(heard: float = heard) -> bool:
            return upstream.active_at > heard

        await until(heard_again, "the answer to a PING")
    backend.asked[0].respond(200)
    assert (await answer)[0] == 200
    await house.quiet()


async def test_connections_to_hosts_outside_the_mesh_are_swept_and_closed_at_the_end(houses, peer):
    gate = Gate()
    gate.open(1)
    backend = await peer(gate)
    house = houses(pool_idle_timeout_s=0.05, sweep_s=0.02)
    side = await house.outbound()
    name = b"127.0.0.1:%d" % backend.port
    status, _, _ = await request(side.port, b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (name, name))
    assert status == 200
    (endpoint,) = house.ctx.endpoints
    assert endpoint.connections() == 1

    async def closed() -> bool:
        return endpoint.connections() == 0

    await until(closed, "the idle connection closed")


@pytest.mark.parametrize("engine", ["ours", "h2"])
async def test_both_engines_survive_a_goaway_between_requests(houses, http2_peer, engine):
    backend = await http2_peer(answers_ok)
    house = houses(http2_engine=engine)
    side = await house.forward(backend.port, upstream="http2")
    assert (await request(side.port, GET))[0] == 200
    backend.sessions[0].goaway(1)
    await asyncio.wait_for(backend.sessions[0].closed.wait(), DEADLINE_S)
    assert (await request(side.port, GET))[0] == 200
    assert len(backend.sessions) == 2
    await house.quiet()


@pytest.mark.parametrize("meshed", [True, False], ids=["a mesh peer", "an app"])
async def test_an_app_that_has_nothing_to_say_is_not_asked_for_life_again_and_again(houses, http2_peer, meshed):
    """A gRPC server ends the connection, and every call on it, for PINGs more often than every 5 minutes of silence."""
    backend = await http2_peer()
    house = houses(sweep_s=3600.0)
    side = await house.forward(backend.port, upstream="http2")
    answer = client(side.port)
    await arrived(backend, 1)
    speaks = SPEAKS_MESH if meshed else SPEAKS_HTTP2
    other = Endpoint(house.ctx, "127.0.0.1", free_port(), speaks, side.endpoints[0].series)
    assert other.http2.meshed == meshed
    other.retire()
    pool = side.endpoints[0].http2
    pool.meshed = meshed
    (upstream,) = pool.connections

    async def asked(silence: float) -> bool:
        """Is a PING sent after so long?  If so, it is answered."""
        heard = upstream.active_at
        pool.sweep(heard + silence)
        if upstream.pinged_at == 0.0:
            return False

        async def answered() -> bool:
            return upstream.active_at > heard

        await until(answered, "the answer to a PING")
        pool.sweep(upstream.active_at)
        return True

    assert not await asked(9.0)
    assert await asked(10.0)
    assert await asked(10.0) == meshed
    assert await asked(300.0) == meshed
    assert await asked(330.0)
    heard = upstream.active_at
    backend.asked[0].respond(200, None)

    async def spoke() -> bool:
        return upstream.active_at > heard

    await until(spoke, "the answer's head")
    assert await asked(10.0)
    backend.sessions[0].data(backend.asked[0].stream_id, b"", True)
    assert (await answer)[0] == 200
    await house.quiet()
