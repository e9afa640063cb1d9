"""Requests that ask to be explained: `mesh-explain: 1` answered by `mesh-explain-trail`, where the pod lets its app ask."""

from __future__ import annotations

import asyncio

import pytest
from proxy_house import total
from proxy_peers import read_head, request
from proxy_web import Web

from meshproxy.explain.header import LiveExplainer
from meshproxy.policy.declared import BackendSpec, RouteSpec, ServiceSpec
from meshproxy.policy.fault import MILLION, FaultPolicy
from meshproxy.policy.filters import Redirect
from meshproxy.policy.match import EXACT, Match, Value
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import build_tables
from meshproxy.proxy.explained import MAX_TRAIL, Explainer, bounded
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import Credentials

TRAIL = b"mesh-explain-trail"


class Forger(Web):
    """Answers with what it was sent; the first `broken` requests with 503.  It claims a trail of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = 0

    def answer(self, body: bytes) -> bytes:
        said, word = body or b"none", b"200 OK"
        if self.broken:
            self.broken -= 1
            word = b"503 Unavailable"
        return b"HTTP/1.1 %b\r\nmesh-explain-trail: forged\r\nContent-Length: %d\r\n\r\n%b" % (word, len(said), said)


@pytest.fixture
async def web(peer):
    return await Forger().at(peer)


ROUTES = [RouteSpec("rule 0", redirect=Redirect(307, host="else.example")), RouteSpec("rule 1", [BackendSpec("shop/web")])]
MATCHES = [(Match(0, Value(EXACT, "/old")), ()), (Match(1), ())]


async def outbound(house, web: Web, may_ask: bool = True, fault: FaultPolicy | None = None):
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    retry = parse_policy(["503"])
    services = [
        ServiceSpec("shop", "web", [(80, 1)], fault=fault, retry=retry),
        ServiceSpec("shop", "routed", [(80, 1)], routes=ROUTES, matches=MATCHES),
        ServiceSpec("shop", "empty", [(80, 1)]),
    ]
    side.apply(build_tables(1, services, {"shop/web": [EndpointEntry("127.0.0.1", 80, web.port)]}))
    if may_ask:
        side.explainer = LiveExplainer(side)
    return await house.listen(side)


def asking(host: str = "web.shop", path: str = "/", body: bytes = b"", ask: bytes = b"mesh-explain: 1\r\n") -> bytes:
    method = b"PUT" if body else b"GET"
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b%b\r\n%b" % (
        method,
        path.encode(),
        host.encode(),
        ask,
        length,
        body,
    )


async def test_an_answer_says_which_way_its_request_went(houses, web):
    house = houses()
    door = await outbound(house, web)
    status, fields, body = await request(door.port, asking("routed.shop", "/x", b"hello"))
    assert (status, body) == (200, b"hello")
    trail = fields[TRAIL].decode()
    assert trail.startswith(f'took="127.0.0.1:{web.port}";attempts=1, service="shop/routed:80", rule="rule 1", ')
    assert 'not=("rule 0: path is /x, wanted = /old")' in trail
    assert f'endpoints=("127.0.0.1:{web.port}";cost=' in trail
    assert b"mesh-" not in web.heads[0].lower(), "nothing of it travels"
    await house.quiet()


@pytest.mark.parametrize("ask", [b"", b"mesh-explain: 0\r\n", b"mesh-other: 1\r\n"])
async def test_who_does_not_ask_is_told_nothing_and_no_app_can_forge_a_trail(houses, web, ask):
    house = houses()
    door = await outbound(house, web)
    status, fields, _ = await request(door.port, asking(ask=ask))
    assert status == 200
    assert TRAIL not in fields


async def test_an_app_that_may_not_ask_is_told_nothing(houses, web):
    house = houses()
    door = await outbound(house, web, may_ask=False)
    status, fields, _ = await request(door.port, asking())
    assert status == 200
    assert TRAIL not in fields


async def test_a_retry_is_one_of_the_attempts(houses, web):
    house = houses()
    door = await outbound(house, web)
    web.broken = 1
    status, fields, body = await request(door.port, asking(body=b"hello"))
    assert (status, body) == (200, b"hello")
    assert b";attempts=2, " in fields[TRAIL]
    assert len(web.heads) == 2
    await house.quiet()


async def test_what_is_answered_here_is_explained_as_well(houses, web):
    house = houses()
    door = await outbound(house, web)
    status, fields, _ = await request(door.port, asking("routed.shop", "/old"))
    assert (status, b'rule="rule 0"' in fields[TRAIL]) == (307, True)
    status, fields, _ = await request(door.port, asking("empty.shop"))
    assert (status, b'refused="no_endpoints"' in fields[TRAIL]) == (503, True)
    status, fields, _ = await request(door.port, asking("gone.shop"))
    assert (status, fields[b"mesh-error"]) == (404, b"no_route")
    assert fields[TRAIL] == b'name="a name of the mesh, and there is no Service shop/gone", refused="no_route"'
    await house.quiet()


async def test_a_fault_is_explained(houses, web):
    house = houses()
    door = await outbound(house, web, fault=FaultPolicy(status=418, abort_ppm=MILLION))
    status, fields, _ = await request(door.port, asking())
    assert status == 418
    assert fields[TRAIL].endswith(b"fault")
    assert not web.heads


async def test_asking_counts_as_one_request_like_any_other(houses, web):
    house = houses()
    door = await outbound(house, web)
    for raw in (asking(), asking(ask=b"")):
        await request(door.port, raw)
    await house.quiet()
    series = door.routes[("shop/web:80", False)].series
    assert series.request_total == 2
    assert total(series) == 2


class Broken(Explainer):
    def explain(self, head):
        raise RuntimeError("a bug")


async def test_a_fault_of_the_explainer_is_counted_and_the_request_goes_on(houses, web):
    house = houses()
    door = await outbound(house, web)
    door.explainer = Broken()
    status, fields, _ = await request(door.port, asking())
    assert status == 200
    assert fields[TRAIL].startswith(b"took=")
    assert house.ctx.internal_errors.value == 1
    house.faults = 1


async def test_a_client_that_goes_ends_its_explained_request(houses, peer):
    seen = asyncio.Event()
    gone = asyncio.Event()

    async def hang(reader, writer):
        await read_head(reader)
        seen.set()
        assert await reader.read(1) == b""
        gone.set()

    house = houses()
    hung = Web()
    hung.port = (await peer(hang)).port
    door = await outbound(house, hung)
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(asking())
    await asyncio.wait_for(seen.wait(), 10)
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), 10)
    await house.quiet()


def test_a_trail_is_bounded_and_says_that_it_was_cut():
    items = [b"a=%d" % number + b"x" * 90 for number in range(100)]
    made = bounded(items)
    assert len(made) <= MAX_TRAIL
    assert made.endswith(b", cut")
    assert bounded(items[:3]) == b", ".join(items[:3])
