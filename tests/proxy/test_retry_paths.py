"""What happens to a request that has to be sent again, times out, is answered early, or meets a fault of ours."""

from __future__ import annotations

import asyncio

import pytest
from proxy_house import total
from proxy_http2_peer import STREAMS, WINDOW, answers_ok
from proxy_peers import DEADLINE_S, free_port, parse, read_head, request, until
from raw_grpc_client import connect

from meshproxy.policy.balancer import LEAST_REQUEST
from meshproxy.policy.breaker import BreakerPolicy
from meshproxy.policy.chooser import MAGLEV, RING_HASH, BalancerPolicy, Chooser
from meshproxy.policy.consistent_hash import HashKey
from meshproxy.policy.ejection import Ejection
from meshproxy.policy.retry import parse_policy
from meshproxy.policy.split import Split
from meshproxy.telemetry.series import HttpSeries

GET = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def refuses_once_then(handler):
    """REFUSED_STREAM to the first request, `handler` for the others."""
    refused = []

    def handle(asked):
        if refused:
            handler(asked)
        else:
            refused.append(asked)
            asked.refuse()

    return handle


async def arrived(backend, count: int) -> None:
    async def enough() -> bool:
        return len(backend.asked) >= count

    await until(enough, f"{count} requests at the backend")


async def test_a_body_with_trailers_is_sent_again_whole(houses, http2_peer):
    backend = await http2_peer(refuses_once_then(lambda asked: None))
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    raw += b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n"
    answer = asyncio.create_task(request(side.port, raw))
    await arrived(backend, 2)
    again = backend.asked[1]
    await asyncio.wait_for(again.ended.wait(), DEADLINE_S)
    assert (again.body, again.trailers) == (b"abcde", {"x-sum": "7"})
    again.respond(200, b"ok")
    assert (await answer)[0] == 200
    await house.quiet()
    assert side.route.series.retry_total == 1
    assert (side.endpoints[0].series.request_total, total(side.endpoints[0].series, error="reset")) == (2, 1)


async def test_a_retry_lets_a_paused_client_go_on(houses, http2_peer):
    """The first endpoint grants 10 bytes, so the client is paused; then it refuses the stream.  The second has room."""

    def grants_no_more(asked):
        asked.session.refill = False

    tight, wide = await http2_peer(grants_no_more, settings={WINDOW: 10}), await http2_peer()
    house = houses()
    side = await house.forward(tight.port, wide.port, upstream="http2")
    side.endpoints[1].available = False
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n" + b"x" * 1000)
    await arrived(tight, 1)
    exchange = await the_exchange(side)
    await until(lambda: paused(exchange), "the client is held")
    side.endpoints[1].available = True
    tight.asked[0].refuse()
    await arrived(wide, 1)
    writer.write(b"y" * 1000)
    await asyncio.wait_for(wide.asked[0].ended.wait(), DEADLINE_S)
    assert wide.asked[0].body == b"x" * 1000 + b"y" * 1000
    wide.asked[0].respond(200, b"ok")
    assert parse(await reader.read(-1))[0] == 200
    writer.close()
    await house.quiet()


async def test_a_large_body_that_waited_for_a_stream_still_feels_its_window(houses, http2_peer):
    backend = await http2_peer(late=True)
    house = houses(connect_timeout_s=DEADLINE_S)
    side = await house.forward(backend.port, upstream="http2")
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    size = 64 * 1024 * 1024
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
    sent = 0

    async def upload():
        nonlocal sent
        chunk = b"x" * 65536
        while sent < size:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)

    uploading = asyncio.create_task(upload())

    async def dialled() -> bool:
        return bool(side.endpoints[0].http2.waiting) and next(iter(side.endpoints[0].http2.waiting)).held

    await until(dialled, "the client is held while its request waits")
    session = backend.sessions[0]
    session.refill = False
    session.begin()
    await arrived(backend, 1)
    exchange = await the_exchange(side)
    await until(lambda: paused(exchange), "the client is held again: the window is spent")
    assert exchange.body is None  # not kept: it will not be sent again
    assert sent < size
    uploading.cancel()
    backend.asked[0].respond(413, b"")
    assert parse(await reader.readuntil(b"\r\n\r\n"))[0] == 413
    writer.transport.abort()
    await house.quiet()


async def the_exchange(side):
    (connection,) = side.connections
    return connection.engine.stream.sink


async def paused(exchange) -> bool:
    return exchange.held and exchange.up is not None


async def test_a_body_beyond_the_replay_bound_is_not_sent_twice(houses, http2_peer):
    backend = await http2_peer()
    house = houses(replay_bytes=1000)
    side = await house.forward(backend.port, upstream="http2")
    raw = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\nConnection: close\r\n\r\n" + b"x" * 2000
    answer = asyncio.create_task(request(side.port, raw))
    await arrived(backend, 1)
    await asyncio.wait_for(backend.asked[0].ended.wait(), DEADLINE_S)
    backend.asked[0].refuse()
    status, fields, _ = await answer
    assert (status, fields[b"mesh-error"]) == (502, b"upstream_reset")
    assert side.route.series.skipped == {"not_replayable": 1}
    assert len(backend.asked) == 1
    await house.quiet()


async def test_a_declared_failure_is_tried_again_and_both_attempts_are_counted(houses, http2_peer):
    statuses = [503, 200]
    backend = await http2_peer(lambda asked: asked.respond(statuses.pop(0), b"some text"))
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    side.route.retry = parse_policy(["5xx"])
    side.route.retry_responses = True
    assert (await request(side.port, GET))[0] == 200
    await house.quiet()
    attempts = side.endpoints[0].series
    assert (attempts.request_total, total(attempts, status=503), total(attempts, status=200)) == (2, 1, 1)
    assert (side.route.series.request_total, total(side.route.series, status=200)) == (1, 1)


@pytest.mark.parametrize(
    ("word", "named", "other"),
    [("retriable-4xx", 409, 429), ("429", 429, 404), ("404", 404, 409), ("gateway-error", 502, 404)],
)
async def test_an_answer_that_metrics_count_as_a_success_is_tried_again_where_it_is_declared(
    houses, http2_peer, word, named, other
):
    statuses = [named, other]
    backend = await http2_peer(lambda asked: asked.respond(statuses.pop(0), b"some text"))
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    side.route.retry = parse_policy([word])
    side.route.retry_responses = True
    assert (await request(side.port, GET))[0] == other
    await house.quiet()
    assert (len(backend.asked), side.route.series.skipped) == (2, {})


@pytest.mark.parametrize("in_trailers", [False, True])
@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("cancelled", 1),
        ("unknown", 2),
        ("deadline-exceeded", 4),
        ("resource-exhausted", 8),
        ("aborted", 10),
        ("internal", 13),
        ("unavailable", 14),
    ],
)
async def test_a_grpc_code_that_is_declared_is_tried_again_while_nothing_of_the_answer_is_sent(
    houses, http2_peer, word, code, in_trailers
):
    codes = [code, 0]
    grpc = {"content-type": "application/grpc"}

    def answer(asked):
        status = ("grpc-status", str(codes.pop(0)))
        if in_trailers:
            asked.respond(200, None, **grpc)
            asked.session.head(asked.stream_id, [status], True)
        else:
            asked.session.head(asked.stream_id, [(":status", "200"), *grpc.items(), status], True)

    backend, house = await http2_peer(answer), houses()
    side = await house.forward(backend.port, upstream="http2")
    side.route.retry = parse_policy([word])
    side.route.retry_responses = True
    client = await connect(side.port)
    call = await client.call().end()
    if in_trailers:  # its head has gone out: nothing can be taken back
        assert (call.trailers["grpc-status"], len(backend.asked)) == (str(code), 1)
    else:
        assert (call.head["grpc-status"], len(backend.asked)) == ("0", 2)


@pytest.mark.parametrize(
    ("endpoints", "backoff_s", "asked", "skipped"),
    [
        (1, 0.0, 1, {"retry_after": 1}),
        (2, 0.0, 2, {"retry_after": 1}),
        (3, 0.0, 3, {"retry_after": 1}),
        (1, 7.0, 1, {"deadline": 1}),  # it could be asked again as late, but there is no time to
    ],
)
async def test_an_answer_that_says_when_to_come_back_is_tried_again_elsewhere_or_as_late_or_not_at_all(
    houses, peer, endpoints, backoff_s, asked, skipped
):
    seen = []

    async def busy(reader, writer):
        await read_head(reader)
        seen.append(1)
        writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    house = houses()
    side = await house.forward(*[(await peer(busy)).port for _ in range(endpoints)], timeout_s=6.0 if backoff_s else 0.0)
    side.route.retry = parse_policy(["5xx"], attempts=5, backoff_s=backoff_s)
    side.route.retry_responses = True
    status, fields, _ = await request(side.port, GET)
    assert (status, fields[b"retry-after"]) == (503, b"7")
    assert (len(seen), side.route.series.skipped) == (asked, skipped)
    await house.quiet()


async def test_a_date_to_come_back_at_is_left_to_the_client_where_nobody_else_can_be_asked(houses, peer):
    asked = []

    async def busy(reader, writer):
        await read_head(reader)
        asked.append(1)
        when = b"Sun, 06 Nov 1994 08:49:4%d GMT" % (4 if len(asked) == 2 else 0)
        writer.write(b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % when)

    house = houses()
    house.ctx.clock = lambda: 784111780.5  # Sun, 06 Nov 1994 08:49:40 GMT, and a half
    side = await house.forward((await peer(busy)).port)
    side.route.retry = parse_policy(["5xx"], attempts=5, backoff_s=0.0)
    side.route.retry_responses = True
    status, fields, _ = await request(side.port, GET)
    assert (status, fields[b"retry-after"]) == (503, b"Sun, 06 Nov 1994 08:49:44 GMT")
    assert (len(asked), side.route.series.skipped) == (2, {"retry_after": 1}), "the first date had passed: asked again"
    await house.quiet()


@pytest.mark.parametrize("balancer", [None, LEAST_REQUEST, MAGLEV, RING_HASH, "zone"])
async def test_who_told_a_request_to_wait_does_not_get_it_again_whoever_failed_since(houses, peer, balancer):
    """Two of three endpoints name a time; the third fails without, and is tried as often as there are attempts."""
    asked = []

    def busy(number, more):
        async def script(reader, writer):
            while True:
                await read_head(reader)
                asked.append(number)
                writer.write(b"HTTP/1.1 503 Busy\r\n%sContent-Length: 0\r\n\r\n" % more)

        return script

    more = [b"Retry-After: 7\r\n", b"Retry-After: 7\r\n", b""]
    house = houses()
    side = await house.forward(*[(await peer(busy(*one))).port for one in enumerate(more)])
    side.route.retry = parse_policy(["5xx"], attempts=5, backoff_s=0.0)
    side.route.retry_responses = True
    if balancer is not None:
        how = LEAST_REQUEST if balancer == "zone" else balancer
        key = HashKey("header=host") if how in (MAGLEV, RING_HASH) else None
        (backend,) = side.route.backends
        for endpoint, zone in zip(backend.endpoints, ("a", "a", "b"), strict=True):
            endpoint.zone = zone
        policy = BalancerPolicy(how, key, zone="a" if balancer == "zone" else "", breaker=BreakerPolicy(consecutive=100))
        ejection = Ejection(policy.breaker, house.ctx.rng)
        ejection.update(list(backend.endpoints), policy.breaker, house.ctx.now)
        backend.chooser = Chooser(list(backend.endpoints), [b"%d" % n for n in range(3)], policy, house.ctx.rng, ejection)
        backend.sole = None
    for _ in range(10):
        asked.clear()
        status, fields, _ = await request(side.port, GET)
        assert (status, b"retry-after" in fields) == (503, False)
        assert sorted(asked) == [0, 1, 2, 2, 2, 2]
    await house.quiet()


def pushes_back(value: str, status: str = "14"):
    """A server that refuses every call and says when to come back: trailers-only, as a busy gRPC server does."""
    said = [("grpc-status", status), *([("grpc-retry-pushback-ms", value)] if value else [])]

    def answer(asked):
        asked.session.head(asked.stream_id, [(":status", "200"), ("content-type", "application/grpc"), *said], True)

    return answer


@pytest.mark.parametrize(
    ("value", "backoff_s", "asked", "skipped"),
    [
        ("1000", 0.0, 1, {"retry_after": 1}),
        ("30", 0.05, 3, {"attempts": 1}),  # no longer than it waits anyway
        ("0", 0.0, 3, {"attempts": 1}),
        ("", 0.0, 3, {"attempts": 1}),
        ("-1", 0.05, 1, {"retry_after": 1}),
        ("soon", 0.05, 1, {"retry_after": 1}),
    ],
)
async def test_a_grpc_call_that_was_pushed_back_waits_so_long_or_is_not_tried_again(
    houses, http2_peer, value, backoff_s, asked, skipped
):
    backend, house = await http2_peer(pushes_back(value)), houses()
    side = await house.forward(backend.port, upstream="http2")
    side.route.retry = parse_policy(["unavailable"], attempts=2, backoff_s=backoff_s)
    side.route.retry_responses = True
    call = await (await connect(side.port)).call().end()
    assert (call.head["grpc-status"], call.head.get("grpc-retry-pushback-ms", "")) == ("14", value)
    assert (len(backend.asked), side.route.series.skipped) == (asked, skipped)
    await house.quiet()


async def test_who_says_by_pushback_that_it_wants_no_retry_is_taken_at_its_word_at_other_endpoints_too(houses, http2_peer):
    backends = [await http2_peer(pushes_back("-1")) for _ in range(2)]
    house = houses()
    side = await house.forward(*[backend.port for backend in backends], upstream="http2")
    side.route.retry = parse_policy(["unavailable"], attempts=2)
    side.route.retry_responses = True
    call = await (await connect(side.port)).call().end()
    assert call.head["grpc-retry-pushback-ms"] == "-1"
    assert sum(len(backend.asked) for backend in backends) == 1
    await house.quiet()


@pytest.mark.parametrize(("word", "status"), [("retriable-4xx", 409), ("429", 429)])
@pytest.mark.parametrize("endpoints", [1, 2])
async def test_an_answer_that_metrics_count_as_a_success_is_passed_on_if_nobody_else_can_be_asked(
    houses, http2_peer, word, status, endpoints
):
    def answer(asked):
        for endpoint in side.endpoints:
            endpoint.available = False
        asked.respond(status, b"why not", **{"content-length": "7"})

    backends = [await http2_peer(answer) for _ in range(endpoints)]
    house = houses()
    side = await house.forward(*[backend.port for backend in backends], upstream="http2")
    side.route.retry = parse_policy([word])
    side.route.retry_responses = True
    got, _, body = await request(side.port, GET)
    assert (got, body) == (status, b"why not")
    await house.quiet()
    assert sum(len(backend.asked) for backend in backends) == 1
    assert (side.route.series.retry_total, side.route.series.skipped) == (0, {"no_endpoint": 1})
    assert total(side.route.series, status=status) == 1


async def test_a_grpc_answer_that_metrics_count_as_a_success_is_passed_on_if_nobody_else_can_be_asked(houses, http2_peer):
    def answer(asked):
        side.endpoints[0].available = False
        fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "10"), ("grpc-message", "clash")]
        asked.session.head(asked.stream_id, fields, True)

    backend, house = await http2_peer(answer), houses()
    side = await house.forward(backend.port, upstream="http2")
    side.route.retry = parse_policy(["aborted"])
    side.route.retry_responses = True
    call = await (await connect(side.port)).call().end()
    assert (call.head["grpc-status"], call.head["grpc-message"], len(backend.asked)) == ("10", "clash", 1)
    assert side.route.series.skipped == {"no_endpoint": 1}


async def test_a_retry_that_finds_no_other_endpoint_is_not_counted_as_sent(houses):
    house = houses()
    side = await house.forward(free_port())
    assert (await request(side.port, GET))[0] == 502
    await house.quiet()
    assert side.endpoints[0].series.request_total == 1
    assert side.route.series.retry_total == 0


async def test_the_time_a_request_waits_for_a_connection_counts(houses, http2_peer):
    backend = await http2_peer(answers_ok, late=True)
    house = houses(connect_timeout_s=DEADLINE_S)
    side = await house.forward(backend.port, upstream="http2", timeout_s=0.2)
    status, fields, _ = await request(side.port, GET)
    assert (status, fields[b"mesh-error"]) == (504, b"request_timeout")
    assert total(side.endpoints[0].series, error="timeout") == 1
    assert side.endpoints[0].series.duration_sum_ms >= 190
    await house.quiet()
    backend.sessions[0].begin()  # the connection nobody waits for any more serves the next request
    assert (await request(side.port, GET))[0] == 200
    assert len(backend.sessions) == 1
    await house.quiet()


async def test_a_timeout_in_the_middle_of_an_answer_cuts_it_visibly(houses, http2_peer):
    backend = await http2_peer(lambda asked: asked.respond(200, None))
    house = houses()
    side = await house.forward(backend.port, upstream="http2", timeout_s=0.2)
    status, _, body = await request(side.port, GET)
    assert status == 200
    assert b"0\r\n\r\n" not in body
    await asyncio.wait_for(backend.asked[0].gone.wait(), DEADLINE_S)
    await house.quiet()
    assert total(side.route.series, error="request_timeout") == 1


async def test_many_timeouts_at_once_and_the_streams_they_free_keep_the_books(houses, http2_peer):
    backend = await http2_peer(settings={STREAMS: 2})
    house = houses(http2_connections=1)
    side = await house.forward(backend.port, upstream="http2", timeout_s=0.2)
    answers = await asyncio.gather(*[request(side.port, GET) for _ in range(10)])
    assert {status for status, _, _ in answers} == {504}
    await house.quiet()
    assert total(side.route.series, status=504) == 10


async def test_interim_answers_pass_and_the_final_one_counts(houses, peer):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(2)
        writer.write(OK)

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert parse(await read_head(reader))[0] == 103
    assert parse(await read_head(reader))[0] == 100
    writer.write(b"hi")
    assert parse(await read_head(reader))[0] == 200
    writer.close()
    await house.quiet()
    assert total(side.route.series, status=200) == 1


async def test_an_answer_that_comes_before_the_request_is_complete_ends_both(houses, peer):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.read(-1)

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nonly this")
    status, fields, _ = parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))
    assert (status, fields[b"connection"]) == (413, b"close")
    writer.close()
    await house.quiet()


async def test_a_client_that_breaks_the_protocol_inside_its_body_cancels_upstream(houses, peer):
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(reader, writer):
        await read_head(reader)
        asked.set()
        await reader.read(-1)
        gone.set()

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await asyncio.wait_for(asked.wait(), DEADLINE_S)
    writer.write(b"no chunk\r\n")
    assert parse(await asyncio.wait_for(reader.read(-1), DEADLINE_S))[0] == 400
    writer.close()
    await asyncio.wait_for(gone.wait(), DEADLINE_S)
    await house.quiet()
    assert side.route.series.cancelled_total == 1


# ---------------------------------------------------------------- faults of ours


class FaultyOnce(HttpSeries):
    """Counters that fail the first time a response is counted: the exception comes from deep inside an exchange."""

    failed_once = False

    def answered(self, *args):
        if not self.failed_once:
            type(self).failed_once = True
            raise RuntimeError("a fault, for the test")
        super().answered(*args)


async def test_a_fault_inside_one_exchange_ends_that_one_and_leaves_its_connections_to_the_others(houses, http2_peer):
    backend = await http2_peer()
    house = houses()
    side = await house.forward(backend.port, upstream="http2")
    endpoint = side.endpoints[0]
    FaultyOnce.failed_once = False
    endpoint.series = FaultyOnce(endpoint.series.labels)
    house.faults = 1
    bad = asyncio.create_task(request(side.port, GET))
    await arrived(backend, 1)
    good = asyncio.create_task(request(side.port, GET))
    await arrived(backend, 2)
    backend.asked[0].respond(200, b"ok")
    await bad  # it has some end, whichever
    backend.asked[1].respond(200, b"ok")
    assert (await good)[0] == 200
    assert len(backend.sessions) == 1
    await house.quiet()


class FaultyFailures(HttpSeries):
    """Counters that fail whenever a failed attempt is counted."""

    def failed(self, *args):
        raise RuntimeError("a fault, for the test")


async def test_a_fault_while_a_failed_dial_is_told_still_answers_every_request(houses):
    house = houses()
    side = await house.forward(free_port())
    endpoint = side.endpoints[0]
    endpoint.series = FaultyFailures(endpoint.series.labels)
    answers = await asyncio.gather(*[request(side.port, GET) for _ in range(3)])
    house.faults = house.ctx.internal_errors.value
    assert house.faults >= 3
    assert {status for status, _, _ in answers} == {500}
    assert side.route.series.in_flight() == 0
    assert endpoint.load.pending == 0


async def test_a_fault_when_a_request_begins_ends_it_and_not_the_others_of_its_connection(houses, peer):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(OK)

    backend = await peer(script)
    house = houses()
    side = await house.forward(backend.port)
    front = await house.forward(side.port, upstream="http2")  # so that both requests share a connection
    good = asyncio.create_task(request(front.port, GET))
    assert (await good)[0] == 200
    (connection,) = side.connections
    route = side.route
    backend_of_all = route.sole
    backends = list(route.backends)
    route.backends.clear()
    route.sole, route.split = None, Split([1, 1], house.ctx.rng)  # a fault: it draws backends that are not there
    assert (await request(front.port, GET))[0] == 502
    assert route.series.in_flight() == 0
    route.backends += backends
    route.sole, route.split = backend_of_all, None
    assert (await request(front.port, GET))[0] == 200
    assert list(side.connections) == [connection]
    house.faults = house.ctx.internal_errors.value
    assert house.faults >= 1
    await house.quiet()
