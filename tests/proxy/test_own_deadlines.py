"""x-envoy-expected-rq-timeout-ms, and the times of a Service, through a real proxy: what a client says, what an app sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from proxy_house import total
from proxy_peers import read_head, request, until

from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.declared import ServiceSpec
from meshproxy.policy.fault import MILLION, FaultPolicy
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import Credentials

NAME = "x-envoy-expected-rq-timeout-ms"


def get(*lines: str, path: str = "/") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: web.shop", "Connection: close", *lines, "", ""]).encode()


class Web:
    """Remembers what it was sent; says nothing to /silent, and only the beginning to /half."""

    def __init__(self) -> None:
        self.heads: list[list[str]] = []
        self.gone = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await read_head(reader)).decode()
            self.heads.append([line for line in head.lower().split("\r\n") if "expected" in line])
            if "GET /ok " in head or "GET / " in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            elif "GET /half " in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await writer.drain()
            if "GET /silent " in head or "GET /half " in head:
                await reader.read()
                self.gone += 1


@pytest.fixture
async def web(peer: Any) -> Any:
    found: Any = Web()
    found.port = (await peer(found.serve)).port
    return found


async def outbound(house: Any, web: Any, **declared: Any) -> Any:
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    spec = ServiceSpec("shop", "web", [(80, 1)], **declared)
    side.apply(build_tables(1, [spec], {"shop/web": [EndpointEntry("127.0.0.1", 80, web.port)]}))
    return await house.listen(side)


async def cancelled(web: Any) -> None:
    async def gone() -> bool:
        return bool(web.gone)

    await until(gone, "the app's request to be cancelled")


async def test_a_request_ends_when_its_client_said_by_name_and_is_cancelled_at_the_app(houses: Any, web: Any) -> None:
    house = houses()
    side = await house.forward(web.port)
    status, fields, body = await request(side.port, get(f"{NAME}: 60", path="/silent"))
    assert (status, fields[b"mesh-error"]) == (504, b"deadline_exceeded")
    assert b"client" in body
    [[told]] = web.heads
    assert 0 < int(told.removeprefix(f"{NAME}: ")) <= 60  # less what was used on the way
    await cancelled(web)
    await house.quiet()
    assert total(side.route.series, status=504, success=False) == 1
    assert total(side.endpoints[0].series, error="deadline_exceeded") == 1


BAD = ["0", "-5", "+5", "1.5", "1_0", "5 ms", "0x10", "2147483648", "99999999999", "010", "٣", ""]


@pytest.mark.parametrize("value", BAD)
async def test_what_says_no_time_binds_nobody_and_does_not_go_on(houses: Any, web: Any, value: str) -> None:
    house = houses()
    side = await house.forward(web.port)
    assert (await request(side.port, get(f"{NAME}: {value}", "x-other: expected")))[0] == 200
    assert web.heads == [["x-other: expected"]]
    await house.quiet()


@pytest.mark.parametrize("value", ["1000", "2147483647"])
async def test_what_says_one_goes_on_once(houses: Any, web: Any, value: str) -> None:
    house = houses()
    side = await house.forward(web.port)
    assert (await request(side.port, get(f"{NAME}: {value}", f"{NAME.title()}: 9")))[0] == 200
    [[told]] = web.heads
    assert int(value) - 1000 < int(told.removeprefix(f"{NAME}: ")) <= int(value)  # less what was used on the way
    await house.quiet()


@pytest.mark.parametrize(
    ("times", "name", "path"),
    [
        (ServiceTimes(response_start_s=0.06), b"response_start_timeout", "/silent"),
        (ServiceTimes(response_s=0.06), b"response_timeout", "/silent"),
        (ServiceTimes(idle_s=0.06), b"idle_timeout", "/silent"),
        (ServiceTimes(response_s=0.06), b"", "/half"),
        (ServiceTimes(idle_s=0.06), b"", "/half"),
    ],
)
async def test_the_answer_names_the_timer_or_is_seen_to_be_cut(
    houses: Any, web: Any, times: ServiceTimes, name: bytes, path: str
) -> None:
    house = houses()
    door = await outbound(house, web, times=times)
    if name:
        status, fields, _ = await request(door.port, get(path=path))
        assert (status, fields[b"mesh-error"]) == (504, name)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(get(path=path))
        try:
            answer = await asyncio.wait_for(reader.read(), 10)
        except ConnectionResetError:
            answer = b""
        assert not answer.endswith(b"ok")
        writer.close()
    await cancelled(web)
    await house.quiet()


async def test_requests_in_time_leave_no_timer_behind(houses: Any, web: Any) -> None:
    house = houses()
    door = await outbound(house, web, timeout_s=30.0, times=ServiceTimes(20.0, 20.0, 20.0, True))
    for _ in range(3):
        assert (await request(door.port, get(f"{NAME}: 25000")))[0] == 200
    assert [len(lines) for lines in web.heads] == [1, 1, 1]
    await house.quiet()


async def test_a_service_whose_timeout_goes_on_tells_its_app(houses: Any, web: Any) -> None:
    house = houses()
    door = await outbound(house, web, timeout_s=30.0, times=ServiceTimes(propagate=True))
    assert (await request(door.port, get()))[0] == 200
    (line,) = web.heads[0]
    assert 1 <= int(line.partition(": ")[2]) <= 30_000
    await house.quiet()


async def test_a_delay_on_purpose_comes_out_of_the_clients_time_and_the_other_times_begin_after_it(
    houses: Any, web: Any
) -> None:
    house = houses()
    fault = FaultPolicy(delay_s=0.1, delay_ppm=MILLION)
    door = await outbound(house, web, fault=fault, times=ServiceTimes(response_start_s=0.05))
    status, fields, _ = await request(door.port, get(f"{NAME}: 50"))
    assert (status, fields[b"mesh-error"], web.heads) == (504, b"deadline_exceeded", [])
    assert (await request(door.port, get(f"{NAME}: 20000")))[0] == 200
    assert int(web.heads[0][0].partition(": ")[2]) <= 19_900
    status, fields, _ = await request(door.port, get(path="/silent"))
    assert (status, fields[b"mesh-error"]) == (504, b"response_start_timeout")
    await house.quiet()
