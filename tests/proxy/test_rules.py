"""Rules attached to a Service, through a real proxy: who gets the request, as what, and what the client is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from proxy_house import total
from proxy_peers import read_head, request, until

from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.declared import BackendSpec, RouteSpec, ServiceSpec
from meshproxy.policy.filters import HeaderChanges, NewPath, Redirect, Rewrite
from meshproxy.policy.match import EXACT, PREFIX, Match, Value
from meshproxy.policy.retry import NO_RETRY, RetryPolicy, parse_policy
from meshproxy.policy.service import EndpointEntry
from meshproxy.policy.tables import Tables, build_tables
from meshproxy.proxy.mirror import BEHIND_BYTES, NoClient
from meshproxy.proxy.outbound import Outbound
from meshproxy.proxy.tls import Credentials
from meshproxy.wire.message import CACHES

NAMES = ("web", "v1", "v2")


class Web:
    """A backend for each name, which answers with its name.  `heads`: what each was asked.  `answers`: statuses, in turn.
    `silent`: those that take a request and say nothing."""

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.ports: dict[str, int] = {}
        self.heads: dict[str, list[str]] = {name: [] for name in NAMES}
        self.answers: dict[str, list[int]] = {}
        self.silent: dict[str, int] = {}  # how many requests get no answer
        self.never = asyncio.Event()
        self.bodies = 0  # bytes of body that each request has

    async def start(self) -> None:
        for name in NAMES:
            self.ports[name] = (await self.peer(self.script(name))).port

    def script(self, name: str) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                self.heads[name].append((await read_head(reader)).decode())
                self.heads[name][-1] += (await reader.readexactly(self.bodies)).decode()
                if self.silent.get(name, 0) > 0:
                    self.silent[name] -= 1
                    await self.never.wait()
                left = self.answers.get(name) or [200]
                status = left.pop(0) if len(left) > 1 else left[0]
                body = name.encode()
                writer.write(
                    b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nX-Own: 1\r\nX-Served-By: app\r\n\r\n%s" % (status, len(body), body)
                )
                await writer.drain()

        return serve

    def tables(self, *rules: tuple[Match, RouteSpec], absent: str = "", **service: Any) -> Tables:
        """Rules of the Service web in order of precedence."""
        matches: list[tuple[Match, tuple[int, ...]]] = []
        for number, (match, _) in enumerate(rules):
            matches.append((Match(number, match.path, match.methods, match.headers, match.query), ()))
        endpoints = {
            f"shop/{name}": [EndpointEntry("127.0.0.1", 80, port)] for name, port in self.ports.items() if name != absent
        }
        services = [
            ServiceSpec("shop", "web", [(80, 1)], routes=[spec for _, spec in rules], matches=matches, **service),
            ServiceSpec("shop", "v1", [(80, 1)]),
            ServiceSpec("shop", "v2", [(80, 1)]),
        ]
        return build_tables(1, services, endpoints)

    @property
    def seen(self) -> Counter[str]:
        return Counter({name: len(heads) for name, heads in self.heads.items() if heads})


@pytest.fixture
async def web(peer: Any) -> Web:
    found = Web(peer)
    await found.start()
    return found


async def outbound(house: Any, tables: Tables) -> Any:
    side = Outbound(house.ctx, Credentials(), "shop", frozenset())
    side.apply(tables)
    return await house.listen(side)


def ask(target: str = "GET /", **headers: str) -> bytes:
    lines = [f"{target} HTTP/1.1", "Host: web.shop", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def to(*names: str, weights: tuple[int, ...] = (), **more: Any) -> RouteSpec:
    shares = weights or (1,) * len(names)
    backends = [BackendSpec(f"shop/{name}", weight) for name, weight in zip(names, shares, strict=True)]
    return RouteSpec("HTTPRoute shop/r rule 0", backends, **more)


ALL = Match(0)
CANARY = Match(0, headers=(Value(EXACT, "always", "x-canary"),))


async def bodies(door: Any, raw: bytes, times: int) -> Counter[str]:
    return Counter([(await request(door.port, raw))[2].decode() for _ in range(times)])


async def test_a_request_goes_where_the_first_rule_that_fits_says_and_else_to_the_service(houses: Any, web: Web) -> None:
    house = houses()
    door = await outbound(house, web.tables((CANARY, to("v2")), (Match(0, methods=(b"PUT",)), to("v1"))))
    assert (await request(door.port, ask(x_canary="always")))[2] == b"v2"
    assert (await request(door.port, ask("PUT /")))[2] == b"v1"
    assert (await request(door.port, ask()))[2] == b"web"


async def test_shares_of_a_rule_are_exact_over_a_block_and_a_zero_gets_nothing(houses: Any, web: Web) -> None:
    door = await outbound(houses(), web.tables((ALL, to("web", "v1", "v2", weights=(0, 19, 1)))))
    assert await bodies(door, ask(), 40) == {"v1": 38, "v2": 2}


async def test_a_block_goes_on_over_an_update_with_the_same_weights(houses: Any, web: Web) -> None:
    door = await outbound(houses(), web.tables((ALL, to("v1", "v2", weights=(19, 1)))))
    counted: Counter[str] = Counter()
    for _ in range(4):
        counted += await bodies(door, ask(), 5)
        door.side.apply(web.tables((ALL, to("v1", "v2", weights=(19, 1)))))
    assert counted == {"v1": 19, "v2": 1}


async def test_a_sticky_split_keeps_a_client_with_its_backend(houses: Any, web: Web) -> None:
    rule = to("v1", "v2", weights=(1, 1), sticky=HashKey("cookie=user"))
    door = await outbound(houses(), web.tables((ALL, rule)))
    found = {}
    for user in ("ann", "bob", "cid", "dan", "eve", "fay"):
        (found[user],) = await bodies(door, ask(cookie=f"a=b; user={user}"), 4)
    assert set(found.values()) == {"v1", "v2"}
    assert await bodies(door, ask(), 8) == {"v1": 4, "v2": 4}


async def test_a_split_of_the_service_itself_can_be_sticky_too(houses: Any, web: Web) -> None:
    tables = web.tables(backends=[("shop/v1", 1), ("shop/v2", 1)], sticky=HashKey("header=x-user"))
    door = await outbound(houses(), tables)
    assert len(await bodies(door, ask(x_user="ann"), 6)) == 1


@pytest.mark.parametrize(
    ("spec", "status", "reason"),
    [
        (RouteSpec("none", refuse=404), 404, b"no_rule"),
        (RouteSpec("cors", refuse=500), 500, b"rule_invalid"),
        (RouteSpec("gone", [BackendSpec("shop/gone", 1, 80, 500)]), 500, b"backend_invalid"),
        (to("v1", weights=(0,)), 503, b"no_backend"),
    ],
)
async def test_what_a_rule_refuses_names_itself(houses: Any, web: Web, spec: RouteSpec, status: int, reason: bytes) -> None:
    house = houses()
    door = await outbound(house, web.tables((ALL, spec)))
    answer = await request(door.port, ask())
    assert (answer[0], answer[1][b"mesh-error"]) == (status, reason)
    route = next(iter(door.side.rules.values()))
    assert total(route.series, status=status) == 1
    assert web.seen == {}


async def test_a_grpc_client_is_told_in_its_own_way(houses: Any, web: Web) -> None:
    door = await outbound(houses(), web.tables((ALL, RouteSpec("none", refuse=404))))
    _, fields, _ = await request(door.port, ask("POST /a.B/C", content_type="application/grpc"))
    assert fields[b"grpc-status"] == b"12"


async def test_a_backend_without_endpoints_keeps_its_share_and_answers_503(houses: Any, web: Web) -> None:
    door = await outbound(houses(), web.tables((ALL, to("v1", "v2")), absent="v2"))
    answers = [await request(door.port, ask()) for _ in range(10)]
    assert Counter(status for status, _, _ in answers) == {200: 5, 503: 5}
    assert {fields.get(b"mesh-error") for status, fields, _ in answers if status == 503} == {b"no_endpoints"}
    page = door.side.ctx.registry.render().decode()
    assert 'meshproxy_backend_empty_total{backend="shop/v2:80"} 5' in page


async def test_its_share_goes_to_the_others_where_that_is_asked_for(houses: Any, web: Web) -> None:
    rule = (ALL, to("v1", "v2", redistribute=True))
    door = await outbound(houses(), web.tables(rule, absent="v2"))
    assert await bodies(door, ask(), 10) == {"v1": 10}
    assert 'meshproxy_backend_redistributed{backend="shop/v2:80"} 1.0' in door.side.ctx.registry.render().decode()
    door.side.apply(web.tables(rule))
    assert await bodies(door, ask(), 10) == {"v1": 5, "v2": 5}
    assert 'meshproxy_backend_redistributed{backend="shop/v2:80"} 0.0' in door.side.ctx.registry.render().decode()


async def test_a_path_that_can_be_read_in_two_ways_is_refused_where_rules_are_on_paths(houses: Any, web: Web) -> None:
    door = await outbound(houses(), web.tables((Match(0, Value(PREFIX, "/a")), to("v1"))))
    status, fields, _ = await request(door.port, ask("GET /a%2fb"))
    assert (status, fields[b"mesh-error"]) == (400, b"ambiguous_path")
    assert (await request(door.port, ask("GET /x/..//a/%62")))[2] == b"v1"
    assert web.heads["v1"][0].startswith("GET /a/b HTTP/1.1\r\n"), "sent as it was judged"


async def test_headers_path_and_host_are_changed_on_the_way_there(houses: Any, web: Web) -> None:
    spec = to(
        "v1",
        request_headers=HeaderChanges((("x-set", "new"),), (("x-add", "2"),), ("x-gone",)),
        rewrite=Rewrite("books.shop", NewPath(False, "/v2")),
    )
    door = await outbound(houses(), web.tables((Match(0, Value(PREFIX, "/a")), spec)))
    raw = ask("GET /a/b?q=1", x_set="old", x_add="1", x_gone="1", x_kept="1")
    for _ in range(2):  # the second time from what the first has left at the head
        await request(door.port, raw)
    for head in web.heads["v1"]:
        lines = head.lower().split("\r\n")
        assert lines[0] == "get /v2/b?q=1 http/1.1"
        assert "host: books.shop" in lines
        assert [line for line in lines if line.startswith("x-") and not line.startswith("x-request-id")] == [
            "x-add: 1",
            "x-kept: 1",
            "x-set: new",
            "x-add: 2",
        ]


async def test_without_caches_a_head_is_judged_each_time(houses: Any, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CACHES, "enabled", False)
    door = await outbound(houses(), web.tables((CANARY, to("v2")), (ALL, to("v1"))))
    assert await bodies(door, ask(x_canary="always"), 3) == {"v2": 3}


async def test_headers_of_the_answer_are_changed_by_the_rule_and_by_the_backend_that_was_drawn(houses: Any, web: Web) -> None:
    leaf = BackendSpec("shop/v1", 1, 0, 0, HeaderChanges((("x-leaf", "1"),)), HeaderChanges(add=(("x-from", "v1"),)))
    spec = RouteSpec("r", [leaf], response_headers=HeaderChanges((("x-served-by", "mesh"),), (), ("x-own",)))
    door = await outbound(houses(), web.tables((ALL, spec)))
    status, fields, body = await request(door.port, ask())
    assert (status, body) == (200, b"v1")
    assert fields[b"x-served-by"] == b"mesh"
    assert fields[b"x-from"] == b"v1"
    assert b"x-own" not in fields
    assert "x-leaf: 1" in web.heads["v1"][0]


async def test_a_redirect_is_answered_by_the_proxy(houses: Any, web: Web) -> None:
    house = houses()
    spec = RouteSpec("r", redirect=Redirect(308, "https", "shop.example", 0, NewPath(True, "/new")))
    door = await outbound(house, web.tables((ALL, spec)))
    status, fields, body = await request(door.port, ask("POST /old?q=1", content_length="5") + b"hello")
    assert (status, fields[b"location"], body) == (308, b"https://shop.example/new?q=1", b"")
    assert web.seen == {}
    assert total(next(iter(door.side.rules.values())).series, status=308) == 1
    await house.quiet()


async def test_a_rule_has_its_own_timeout_for_the_whole_request(houses: Any, web: Web) -> None:
    web.silent = {"v1": 1, "web": 1}
    door = await outbound(houses(), web.tables((ALL, to("v1", timeout_s=0.05)), timeout_s=20.0))
    status, fields, _ = await request(door.port, ask())
    assert (status, fields[b"mesh-error"]) == (504, b"request_timeout")


@pytest.mark.parametrize("word", ["504", "try-timeout"])
async def test_an_attempt_that_takes_too_long_is_tried_again_where_the_rule_says_so(houses: Any, web: Web, word: str) -> None:
    web.silent = {"v1": 1}
    spec = to("v1", try_timeout_s=0.05, retry=parse_policy([word], 1))
    house = houses()
    door = await outbound(house, web.tables((ALL, spec)))
    assert (await request(door.port, ask()))[0] == 200
    assert web.seen == {"v1": 2}
    await house.quiet()


TOLD = [("GET /", RetryPolicy()), ("POST /", parse_policy(["504"], 1)), ("GET /", NO_RETRY)]


@pytest.mark.parametrize(("target", "retry"), TOLD)
async def test_and_else_the_client_is_told_which_timer_it_was(houses: Any, web: Web, target: str, retry: RetryPolicy) -> None:
    web.silent = {"v1": 1}
    house = houses()
    door = await outbound(house, web.tables((ALL, to("v1", try_timeout_s=0.05, retry=retry))))
    status, fields, _ = await request(door.port, ask(target, content_length="0"))
    assert (status, fields[b"mesh-error"]) == (504, b"try_timeout")
    assert web.seen == {"v1": 1}
    await house.quiet()


async def test_attempts_that_answer_in_time_leave_no_timer_behind(houses: Any, web: Web) -> None:
    house = houses()
    door = await outbound(house, web.tables((ALL, to("v1", try_timeout_s=20.0, timeout_s=30.0))))
    assert (await request(door.port, ask()))[0] == 200
    await house.quiet()
    assert [len(queue.waiting) for queue in house.ctx.deadlines.queues.values()] == [0, 0]


async def test_a_retry_waits_as_long_as_the_rule_says_and_stays_with_its_backend(houses: Any, web: Web) -> None:
    web.answers = {"v1": [503, 503, 200]}
    retry = parse_policy(["503"], 2, backoff_s=0.02)
    house = houses()
    door = await outbound(house, web.tables((ALL, to("v1", "v2", weights=(1, 0), retry=retry))))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await request(door.port, ask()))[::2] == (200, b"v1")
    assert loop.time() - began >= 0.06, "0.02 s and then 0.04 s, at least"
    assert web.seen == {"v1": 3}
    await house.quiet()


async def test_where_none_is_declared_a_retry_of_an_answer_waits_25_ms_and_more_without_a_rule_too(
    houses: Any, web: Web
) -> None:
    web.answers = {"web": [503, 503, 200]}
    house = houses()
    door = await outbound(house, web.tables(retry=parse_policy(["503"], 2)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert (await request(door.port, ask()))[::2] == (200, b"web")
    assert loop.time() - began >= 0.075, "25 ms and then 50 ms, at least"
    assert web.seen == {"web": 3}
    await house.quiet()


@pytest.mark.parametrize(("any_method", "size", "seen"), [(True, 10, 2), (False, 10, 1), (True, 100_000, 1)])
async def test_a_post_is_tried_again_with_its_body_where_that_is_declared_and_the_body_was_kept(
    houses: Any, web: Web, any_method: bool, size: int, seen: int
) -> None:
    web.answers, web.bodies = {"v1": [503, 200]}, size
    retry = parse_policy(["503"], any_method=any_method)
    house = houses()
    door = await outbound(house, web.tables((ALL, to("v1", retry=retry))))
    status, _, _ = await request(door.port, ask("POST /", content_length=str(size)) + b"x" * size)
    assert (status, web.seen["v1"]) == (200 if seen == 2 else 503, seen)
    assert all(head.endswith("x" * size) for head in web.heads["v1"])
    await house.quiet()


async def test_a_client_that_leaves_while_a_retry_waits_is_forgotten(houses: Any, web: Web) -> None:
    web.answers = {"v1": [503]}
    retry = parse_policy(["503"], 1, backoff_s=9.0)
    house = houses()
    door = await outbound(house, web.tables((ALL, to("v1", retry=retry))))
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(ask().replace(b"Connection: close\r\n", b""))

    async def refused() -> bool:
        return web.seen == {"v1": 1}

    await until(refused, "the first attempt")
    writer.close()
    await house.quiet()
    assert web.seen == {"v1": 1}
    del reader


async def test_retries_of_all_rules_are_paid_from_the_services_budget(houses: Any, web: Web) -> None:
    web.answers = {"v1": [503], "v2": [503]}
    retry = RetryPolicy(statuses=frozenset((503,)), budget_ratio=0.0, budget_floor=0.3)
    rules = (CANARY, to("v1", retry=retry)), (ALL, to("v2", retry=retry))
    house = houses()
    door = await outbound(house, web.tables(*rules, retry=retry))
    for raw in (ask(x_canary="always"), ask(), ask(x_canary="always"), ask()):
        assert (await request(door.port, raw))[0] == 503
    assert sum(web.seen.values()) == 4 + 3  # 0.3 a second for ten seconds


async def test_a_rule_that_goes_gives_its_counters_back(houses: Any, web: Web) -> None:
    house = houses()
    door = await outbound(house, web.tables((ALL, to("v1"))))
    (route,) = door.side.rules.values()
    assert dict(route.series.labels)["rt_route"] == "HTTPRoute shop/r rule 0"
    door.side.apply(web.tables())
    assert route.series.owners == 0
    assert (await request(door.port, ask()))[2] == b"web"


async def test_bytes_go_by_the_service_whatever_rules_there_are(houses: Any, web: Web) -> None:
    side = Outbound((house := houses()).ctx, Credentials(), "shop", frozenset())
    side.apply(web.tables((ALL, to("v1"))))
    door = await house.listen(side, "web.shop:80")
    assert door.side.routes[("shop/web:80", True)].routing is None
    assert door.side.routes[("shop/web:80", False)].routing is not None


# ---------------------------------------------------------------- mirrors


def mirrored(numerator: int = 1, denominator: int = 1, backend: str = "v2") -> RouteSpec:
    return to("v1", mirrors=[(BackendSpec(f"shop/{backend}"), numerator, denominator)])


def copies(door: Any) -> Any:
    return next(route.series for key, route in door.side.rules.items() if " mirror " in key)


async def test_a_copy_goes_to_the_mirror_with_its_body_and_the_client_gets_the_originals_answer(houses: Any, web: Web) -> None:
    web.bodies = 5
    house = houses()
    door = await outbound(house, web.tables((ALL, mirrored())))
    status, _, body = await request(door.port, ask("POST /a?b=1", content_length="5", x_kept="1") + b"hello")
    assert (status, body) == (200, b"v1")
    await house.quiet()
    (original,), (copy,) = web.heads["v1"], web.heads["v2"]
    assert copy == original
    assert original.endswith("hello")
    assert total(copies(door), status=200) == 1
    assert dict(copies(door).labels)["rt_route"] == "HTTPRoute shop/r rule 0 mirror"


async def test_of_so_many_requests_so_many_are_copied(houses: Any, web: Web) -> None:
    house = houses()
    door = await outbound(house, web.tables((ALL, mirrored(1, 4))))
    assert await bodies(door, ask(), 12) == {"v1": 12}
    await house.quiet()
    assert web.seen == {"v1": 12, "v2": 3}


async def test_a_mirror_that_fails_or_says_nothing_is_not_the_clients_matter(houses: Any, web: Web) -> None:
    web.answers = {"v2": [500]}
    house = houses()
    door = await outbound(house, web.tables((ALL, mirrored())))
    assert (await request(door.port, ask()))[0] == 200
    await house.quiet()
    assert total(copies(door), status=500) == 1
    web.silent = {"v2": 1}
    assert (await request(door.port, ask()))[0] == 200

    async def two() -> bool:
        return web.seen["v2"] == 2

    await until(two, "two copies")
    assert copies(door).in_flight() == 1
    web.never.set()
    await house.quiet()


async def test_a_mirror_that_is_not_there_is_counted_and_nothing_else(houses: Any, web: Web) -> None:
    house = houses()
    door = await outbound(house, web.tables((ALL, mirrored()), absent="v2"))
    assert (await request(door.port, ask()))[0] == 200
    await house.quiet()
    assert total(copies(door), status=503) == 1


async def test_a_mirror_that_takes_no_more_of_a_body_is_given_up_and_the_original_goes_on(
    houses: Any, web: Web, peer: Any
) -> None:
    size = 8 * 1024 * 1024

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await web.never.wait()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")

    web.ports |= {"v1": (await peer(swallow)).port, "v2": (await peer(deaf)).port}
    house = houses()
    door = await outbound(house, web.tables((ALL, mirrored())))
    status, _, body = await request(door.port, ask("POST /", content_length=str(size)) + b"x" * size)
    assert (status, body) == (200, b"whole")
    await house.quiet()
    assert copies(door).cancelled_total == 1


def test_a_copy_may_be_behind_its_original_so_far_and_no_further() -> None:
    copy = NoClient()
    assert not copy.behind(10 * BEHIND_BYTES), "its backend takes what comes"
    copy.pause()
    assert not copy.behind(BEHIND_BYTES)
    assert copy.behind(1)
    copy.resume()
    copy.pause()
    assert not copy.behind(BEHIND_BYTES)


async def test_a_copy_of_a_request_that_its_client_gives_up_ends_with_it(houses: Any, web: Web) -> None:
    web.bodies = 5
    house = houses()
    door = await outbound(house, web.tables((ALL, mirrored())))
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(ask("POST /", content_length="5") + b"he")

    async def both() -> bool:
        return web.seen == {"v1": 1, "v2": 1}

    await until(both, "the request and its copy")
    writer.transport.abort()
    await house.quiet()
    assert copies(door).cancelled_total == 1
