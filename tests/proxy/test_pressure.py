"""What the proxy does when memory, held bytes or connections are at their bounds."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import h2.config
import h2.connection
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_house import total
from proxy_peers import DEADLINE_S, parse, read_head, request, until

from meshproxy.admin import Status
from meshproxy.proxy.memory import give_back, resident_bytes
from meshproxy.proxy.pressure import (
    CALM,
    CLOSE_AFTER,
    NORMAL,
    REFUSE_NEW,
    SHEDDING,
    TIGHT,
    Pressure,
    connection_share,
    judge,
)
from meshproxy.proxy.settings import Settings
from meshproxy.telemetry.registry import Registry

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def echo(reader, writer):
    while True:
        await read_head(reader)
        writer.write(OK)


# ---------------------------------------------------------------- the machine


@pytest.mark.parametrize(
    ("state", "percent", "then"),
    [
        (NORMAL, 91.9, NORMAL),
        (NORMAL, 92.0, TIGHT),
        (NORMAL, 95.0, SHEDDING),  # a second is long
        (TIGHT, 90.0, TIGHT),
        (TIGHT, 89.9, NORMAL),
        (TIGHT, 94.9, TIGHT),
        (TIGHT, 95.0, SHEDDING),
        (SHEDDING, 93.0, SHEDDING),
        (SHEDDING, 92.9, TIGHT),
        (SHEDDING, 89.0, NORMAL),
    ],
)
def test_memory_states_rise_at_once_and_fall_late(state: int, percent: float, then: int) -> None:
    assert judge(state, round(percent * 1000), 100_000) == then


@pytest.mark.parametrize("state", [NORMAL, TIGHT, SHEDDING])
def test_without_a_limit_memory_is_normal(state: int) -> None:
    assert judge(state, 1 << 40, 0) == NORMAL


def test_descriptors_are_shared_between_both_kinds_of_connections() -> None:
    assert connection_share(256, 64) == 96
    assert connection_share(10, 64) == 1


def pressure(**changed: int) -> Pressure:
    settings = Settings()
    for name, value in changed.items():
        setattr(settings, name, value)
    return Pressure(settings, Registry(), 100_000, 1000)


@given(st.lists(st.integers(-400, 400), max_size=60), st.lists(st.integers(80_000, 100_000), max_size=10))
def test_the_level_follows_from_memory_and_held_bytes_alone(changes: list[int], resident: list[int]) -> None:
    """Whatever the order: REFUSE_NEW exactly while held bytes are full or memory sheds; all goes back when all is released."""
    made = pressure(process_held_bytes=1000)
    calls = []
    made.relief = lambda: calls.append(made.held)
    held = 0
    for step in range(max(len(changes), len(resident))):
        if step < len(changes) and held + changes[step] >= 0:
            held += changes[step]
            made.hold(changes[step])
        if step < len(resident):
            made.look(resident[step])
        assert made.held == held
        assert made.full or held <= 1000
        assert not made.full or held >= 500
        assert made.keep_bodies == (held <= 500)
        refusing = made.full or made.memory == SHEDDING
        assert made.level == (REFUSE_NEW if refusing else CLOSE_AFTER if made.memory == TIGHT else CALM)
    assert all(seen > 1250 for seen in calls)
    made.hold(-held)
    made.look(1)
    assert (made.level, made.full, made.keep_bodies) == (CALM, False, True)


# ---------------------------------------------------------------- memory


def set_memory(house, part: float) -> None:
    """As if this process, as large as it is, were at this part of its limit."""
    give_back()
    house.ctx.pressure.memory_limit = int(resident_bytes() / part)


async def memory_is(house, state: int) -> None:
    async def reached() -> bool:
        return house.ctx.pressure.memory == state

    await until(reached, f"memory state {state}")


async def test_when_memory_is_tight_connections_end_after_their_answer(houses, peer):
    backend = await peer(echo)
    house = houses(sweep_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    assert parse(await read_head(reader))[0] == 200
    await reader.readexactly(2)
    set_memory(house, 0.935)
    await memory_is(house, TIGHT)
    writer.write(GET)
    status, fields, body = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"connection"], body) == (200, b"close", b"ok")
    house.ctx.pressure.memory_limit = 1 << 40
    await memory_is(house, NORMAL)
    writer.close()


def frame_kinds(data: bytes) -> list[int]:
    """The types of the frames in `data`, in order."""
    found = []
    while data:
        found.append(data[3])
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return found


async def test_when_memory_is_tight_http2_clients_get_goaway_and_their_answer(houses, peer):
    backend = await peer(echo)
    house = houses(sweep_s=0.02)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    set_memory(house, 0.935)
    await memory_is(house, TIGHT)
    client.send_headers(1, [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")], end_stream=True)
    writer.write(client.data_to_send())
    data = await asyncio.wait_for(reader.read(-1), DEADLINE_S)
    kinds = frame_kinds(data)
    assert kinds.index(7) < kinds.index(1) < kinds.index(0)  # GOAWAY at once, then HEADERS and DATA of the answer
    assert (
        b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00" in data
    )  # last id 1, NO_ERROR: one sweep later
    writer.close()


async def test_when_memory_is_short_requests_are_refused_and_the_admin_answers(houses, peer):
    backend = await peer(echo)
    house = houses(sweep_s=0.02)
    side = await house.forward(backend.port)
    admin = await house.admin(Status())
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    assert parse(await read_head(reader))[0] == 200
    await reader.readexactly(2)
    set_memory(house, 0.985)
    await memory_is(house, SHEDDING)
    writer.write(GET)
    status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"mesh-error"], fields[b"connection"]) == (503, b"overloaded", b"close")
    waiting = await asyncio.open_connection("127.0.0.1", side.port)  # the kernel's queue takes it
    waiting[1].write(LAST_GET)
    status, _, body = await request(admin.port, b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert (status, body) == (503, b"not ready: memory is short\n")
    _, _, page = await request(admin.port, b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"meshproxy_memory_state 2.0" in page
    assert b"meshproxy_accept_paused 1.0" in page
    assert b'meshproxy_refused_total{direction="outbound",reason="overloaded"} 1.0' in page
    assert backend.connections == 1
    house.ctx.pressure.memory_limit = 1 << 40
    status, _, body = parse(await asyncio.wait_for(waiting[0].read(-1), DEADLINE_S))  # served as soon as there is room
    assert (status, body) == (200, b"ok")
    status, _, _ = await request(admin.port, b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert status == 200
    writer.close()
    waiting[1].close()


async def test_a_mesh_peer_is_refused_by_a_reset_so_that_it_may_ask_another_endpoint(houses, peer):
    backend = await peer(echo)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    writer.write(client.data_to_send())
    await asyncio.wait_for(reader.readexactly(9), DEADLINE_S)
    for connection in side.connections:
        connection.client_id = "spiffe://cluster.local/ns/shop/sa/web"
    house.ctx.pressure.hold(house.ctx.pressure.held_max + 1)
    client.send_headers(1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "a")], end_stream=True)
    writer.write(client.data_to_send())
    seen = b""
    reset = b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07"  # RST_STREAM of stream 1: REFUSED_STREAM
    while reset not in seen:
        data = await asyncio.wait_for(reader.read(65536), DEADLINE_S)
        assert data, seen
        seen += data
    house.ctx.pressure.hold(-house.ctx.pressure.held_max - 1)
    assert backend.connections == 0
    writer.close()


# ---------------------------------------------------------------- held bytes


class Stalled:
    """An HTTP/2 client that asks for `streams` bodies and grants no more window than everyone has at first."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.engine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.resets: dict[int, int] = {}
        self.status: dict[int, str] = {}
        self.errors: dict[int, str] = {}

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.engine.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.engine.data_to_send())

    def ask(self, stream_id: int) -> None:
        fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
        self.engine.send_headers(stream_id, fields, end_stream=True)
        self.flush()

    async def read(self) -> None:
        data = await asyncio.wait_for(self.reader.read(65536), DEADLINE_S)
        assert data
        for event in self.engine.receive_data(data):
            name = type(event).__name__
            if name == "StreamReset":
                self.resets[event.stream_id] = int(event.error_code)
            elif name == "ResponseReceived":
                fields = dict(event.headers)
                self.status[event.stream_id] = fields[":status"]
                self.errors[event.stream_id] = fields.get("mesh-error", "")
        self.flush()


async def test_past_the_bound_of_held_bytes_requests_are_refused_and_the_heaviest_streams_reset(houses, peer):
    size = 1 << 20

    async def large(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        with suppress(ConnectionError):
            await reader.read()

    backend = await peer(large)
    house = houses(process_held_bytes=1 << 20)
    side = await house.forward(backend.port)
    pressure = house.ctx.pressure
    client = Stalled(side.port)
    await client.open()
    for number in range(20):  # all admitted before the first answer
        client.ask(2 * number + 1)
    while not client.resets:
        await client.read()
    assert set(client.resets.values()) == {11}  # ENHANCE_YOUR_CALM
    assert house.ctx.refusals["held_bytes outbound"].value >= len(client.resets)
    assert total(side.route.series, error="overloaded") >= len(client.resets)

    async def stalled() -> bool:
        return pressure.held <= pressure.held_reset

    await until(stalled, "held bytes below the bound")
    client.ask(41)
    while 41 not in client.status:
        await client.read()
    refused = pressure.full  # there may be room again, by a little
    assert (client.status[41], client.errors[41]) == (("503", "overloaded") if refused else ("200", ""))
    client.writer.close()  # with the connection everything it held goes
    await house.quiet()
    assert pressure.level == CALM
    answer = await request(side.port, LAST_GET.replace(b"GET", b"HEAD"))
    assert answer[0] == 200


async def test_a_full_process_refuses_and_takes_requests_again_when_there_is_room(houses, peer):
    backend = await peer(echo)
    house = houses()
    side = await house.forward(backend.port)
    pressure = house.ctx.pressure
    pressure.hold(pressure.held_max + 1)
    status, fields, _ = await request(side.port, LAST_GET)
    assert (status, fields[b"mesh-error"]) == (503, b"overloaded")
    pressure.hold(-pressure.held_max // 20)
    assert (await request(side.port, LAST_GET))[0] == 503  # not yet: it would go back and forth
    pressure.hold(-pressure.held)
    assert (await request(side.port, LAST_GET))[0] == 200


async def test_bodies_are_not_kept_for_a_retry_when_much_is_held(houses, peer):
    async def hangs_up(reader, writer):
        await read_head(reader)
        await reader.readexactly(5)

    backend = await peer(hangs_up)
    house = houses()
    side = await house.forward(backend.port)
    pressure = house.ctx.pressure
    series = side.route.series
    # idempotent: sent again, if its body is there
    put = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    pressure.hold(pressure.replay_max + 1)
    assert (await request(side.port, put))[0] == 502
    assert (series.retry_total, series.skipped) == (0, {"not_replayable": 1})
    pressure.hold(-pressure.held)
    assert (await request(side.port, put))[0] == 502
    assert series.retry_total > 0


async def test_bodies_of_requests_that_wait_for_a_connection_are_bounded_for_the_process(houses):
    """Nobody answers the dial.  What clients send meanwhile is held; when it is too much the last to come are refused."""
    bound = 512 * 1024
    house = houses(process_held_bytes=bound, connect_timeout_s=2.0)
    with socket.socket() as full:  # a queue with no room: SYNs are dropped
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        side = await house.forward(port)
        pressure = house.ctx.pressure
        clients = []
        most = 0
        for _ in range(24):
            reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
            writer.write(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(100_000))
            clients.append((reader, writer))

            async def taken() -> bool:
                counter = house.ctx.refusals.get("overloaded outbound")
                refused = 0 if counter is None else counter.value
                return refused + len(side.endpoints[0].http1.waiting) == len(clients)

            await until(taken, "the request waits or is refused")
            most = max(most, pressure.held)
        answers = [parse(await read_head(reader)) for reader, _ in clients if not reader.at_eof() and reader._buffer]
        assert answers
        assert {(status, fields[b"mesh-error"]) for status, fields, _ in answers} == {(503, b"overloaded")}
        assert most <= bound * 1.25 + 256_000
        for _, writer in clients:
            writer.close()
        for filler in fillers:
            filler.close()
        await house.quiet()
        assert pressure.held == 0


# ---------------------------------------------------------------- connections


async def test_at_the_bound_of_connections_accepting_pauses_and_goes_on_when_one_ends(houses, peer):
    backend = await peer(echo)
    house = houses(max_connections=3, server_first_s=DEADLINE_S)
    side = await house.forward(backend.port)
    admin = await house.admin(Status())
    held = [await asyncio.open_connection("127.0.0.1", side.port) for _ in range(3)]
    for _, writer in held:
        writer.write(b"GET / HTTP/1.1\r\n")  # begun, so not idle
    pressure = house.ctx.pressure

    async def paused() -> bool:
        return pressure.paused

    await until(paused, "the pause")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(LAST_GET)
    page = b"GET /metrics?name[]=meshproxy_accept_paused HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert b"meshproxy_accept_paused 1.0" in (await request(admin.port, page))[2]
    assert len(side.connections) == 3
    held[0][1].close()
    assert parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))[0] == 200
    assert b"meshproxy_accept_paused 0.0" in (await request(admin.port, page))[2] or pressure.paused
    for _, other in [*held[1:], (reader, writer)]:
        other.close()


async def test_the_longest_idle_connection_makes_room_for_a_new_one(houses, peer):
    backend = await peer(echo)
    house = houses(max_connections=3, sweep_s=0.05)
    side = await house.forward(backend.port)
    idle = []
    for _ in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(GET)
        assert parse(await read_head(reader))[0] == 200
        await reader.readexactly(2)
        idle.append((reader, writer))
    status, _, _ = await request(side.port, LAST_GET)
    assert status == 200
    assert await asyncio.wait_for(idle[0][0].read(-1), DEADLINE_S) == b""
    assert house.ctx.refusals["connection_limit outbound"].value in (1, 2)  # two: the new one filled it up again
    idle[2][1].write(LAST_GET)
    assert parse(await asyncio.wait_for(idle[2][0].read(-1), DEADLINE_S))[0] == 200
    for _, writer in idle:
        writer.close()


async def test_a_dial_without_a_descriptor_is_not_the_endpoints_fault(houses, peer):
    backend = await peer(echo)
    house = houses()
    side = await house.forward(backend.port)
    house.ctx.pressure.max_dialled = 0
    endpoint = side.endpoints[0]
    before = endpoint.load.estimate
    status, fields, _ = await request(side.port, LAST_GET)
    assert (status, fields[b"mesh-error"]) == (503, b"no_descriptors")
    assert (endpoint.available, endpoint.failures, endpoint.load.estimate) == (True, 0, before)
    assert total(endpoint.series, error="no_descriptors") == 1
    assert side.route.series.retry_total == 0
    house.ctx.pressure.max_dialled = 1
    assert (await request(side.port, LAST_GET))[0] == 200
    assert house.ctx.pressure.dialled == 1


async def test_an_idle_upstream_connection_makes_room_for_a_dial(houses, peer):
    first, second = await peer(echo), await peer(echo)
    house = houses()
    one = await house.forward(first.port)
    two = await house.forward(second.port)
    house.ctx.pressure.max_dialled = 1
    for side in (one, two, one):
        assert (await request(side.port, LAST_GET))[0] == 200
    assert (first.connections, second.connections) == (2, 1)


async def test_admin_connections_are_bounded_and_the_oldest_makes_room(houses):
    house = houses(admin_connections=4)
    admin = await house.admin(Status())
    held = [await asyncio.open_connection("127.0.0.1", admin.port) for _ in range(6)]

    async def bounded() -> bool:
        return len(admin.connections) == 4 and house.ctx.refusals["connection_limit admin"].value == 2

    await until(bounded, "the two oldest closed")
    assert (await request(admin.port, b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))[0] == 200
    for _, writer in held:
        writer.close()


async def test_every_socket_has_keepalive_and_a_user_timeout(houses, peer):
    backend = await peer(echo)
    house = houses(tcp_keepalive_s=7.0, tcp_user_timeout_s=21.0)
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(GET)
    assert parse(await read_head(reader))[0] == 200
    accepted = list(side.connections)
    dialled = list(side.endpoints[0].http1.connections)
    assert len(accepted) == len(dialled) == 1
    for connection in (*accepted, *dialled):
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 21_000
    writer.close()
