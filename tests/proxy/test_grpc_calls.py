"""gRPC calls through one proxy, on the wire: deadlines, refusals, what is counted."""

from __future__ import annotations

import asyncio

import pytest
from proxy_house import total
from proxy_http2_peer import Asked
from proxy_peers import DEADLINE_S, free_port, until
from raw_grpc_client import connect

from meshproxy.policy.deadline import parse_timeout
from meshproxy.proxy import refusals
from meshproxy.proxy.answer import refuse
from meshproxy.proxy.refusals import Refusal, ended_by, percent_encode
from meshproxy.proxy.side import Side
from meshproxy.wire.engine import APP_FAILED, CONNECT_ERROR, INTERNAL_ERROR, said_by_peer

GRPC = {"content-type": "application/grpc"}
REFUSALS = [value for value in vars(refusals).values() if isinstance(value, Refusal)]


def seconds(text: str) -> float:
    return parse_timeout(text.encode())


async def arrived(backend, count: int = 1) -> Asked:
    async def enough() -> bool:
        return len(backend.asked) >= count

    await until(enough, f"{count} requests at the backend")
    return backend.asked[count - 1]


# ---------------------------------------------------------------- deadlines


async def test_a_call_that_is_not_answered_in_its_time_ends_with_deadline_exceeded_and_is_cancelled(houses, http2_peer):
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = await client.call(("grpc-timeout", "50m")).end()
    assert (call.head[":status"], call.head["grpc-status"], call.head["mesh-error"]) == ("200", "4", "deadline_exceeded")
    assert call.head["content-type"] == "application/grpc"
    assert (call.body, call.trailers, call.code) == (b"", None, None)
    await asyncio.wait_for((await arrived(backend)).gone.wait(), DEADLINE_S)
    await house.quiet()
    assert total(side.route.series, grpc_status=4, success=False) == 1
    assert total(side.endpoints[0].series, error="deadline_exceeded") == 1


async def test_in_the_middle_of_an_answer_the_status_comes_in_trailers(houses, http2_peer):
    def begins(asked: Asked) -> None:
        asked.respond(200, None, **GRPC)
        asked.session.data(asked.stream_id, b"\0\0\0\0\x01x", False)

    backend, house = await http2_peer(begins), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = await client.call(("grpc-timeout", "100m"), end=False).end()
    assert (call.body, call.code) == (b"\0\0\0\0\x01x", None)
    assert call.trailers is not None
    assert call.trailers["grpc-status"] == "4"
    assert "deadline_exceeded" in call.trailers["grpc-message"]
    await asyncio.wait_for(backend.asked[0].gone.wait(), DEADLINE_S)
    await house.quiet()
    assert total(side.route.series, status=200, grpc_status=4, success=False) == 1


async def test_a_deadline_that_has_passed_already_is_told_at_once_and_to_nobody_else(houses, http2_peer):
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = await client.call(("grpc-timeout", "0S")).end()
    assert call.head["grpc-status"] == "4"
    await house.quiet()
    assert not backend.asked


async def test_the_routes_timeout_ends_a_call_whose_own_is_longer(houses, http2_peer):
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2", timeout_s=0.05)
    client = await connect(side.port)
    call = await client.call(("grpc-timeout", "1H")).end()
    assert (call.head["grpc-status"], call.head["mesh-error"]) == ("4", "request_timeout")
    await house.quiet()


@pytest.mark.parametrize("value", ["1x", "123456789S", "-1S", "", "1 S"])
async def test_what_is_no_timeout_binds_nobody_and_goes_on_as_it_came(houses, http2_peer, value):
    backend, house = await http2_peer(lambda asked: asked.respond(200, b"", **GRPC)), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = await client.call(("grpc-timeout", value)).end()
    assert call.head[":status"] == "200"
    assert backend.asked[0].headers["grpc-timeout"] == value


async def test_a_call_that_goes_on_at_once_keeps_its_timeout_and_one_that_waited_has_what_is_left(houses, http2_peer):
    def answers(asked: Asked) -> None:
        asked.respond(200, b"", **GRPC)

    backend, house = await http2_peer(answers, late=True), houses(connect_timeout_s=DEADLINE_S)
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    first = client.call(("grpc-timeout", "20S"))

    async def waits() -> bool:  # a while passes: the call waits for a connection
        return bool(backend.sessions) and bool(side.endpoints[0].http2.waiting)

    await until(waits, "the call to wait")
    waiting = next(iter(side.endpoints[0].http2.waiting))

    async def long_enough() -> bool:
        return asyncio.get_running_loop().time() > since + 0.05

    since = asyncio.get_running_loop().time()
    await until(long_enough, "time to pass")
    backend.sessions[0].begin()
    await first.end()
    assert 0.0 < seconds(backend.asked[0].headers["grpc-timeout"]) < 20.0 - 0.04
    assert waiting.head.grpc_timeout == b"20S"  # the shared head is what it was
    await client.call(("grpc-timeout", "20S")).end()
    assert backend.asked[1].headers["grpc-timeout"] == "20S"


async def test_requests_that_are_not_grpc_have_no_deadline(houses, http2_peer):
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = client.call(("grpc-timeout", "1m"), content_type="application/grpc-web+proto")
    asked = await arrived(backend)
    assert house.ctx.deadlines.wheel.waiting == 0
    asked.respond(200, b"page", **{"content-type": "application/grpc-web+proto"})
    assert (await call.end()).body == b"page"


async def test_calls_end_in_the_order_of_their_deadlines(houses, http2_peer):
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    order = []

    async def ends(text: str) -> None:
        await client.call(("grpc-timeout", text)).end()
        order.append(text)

    await asyncio.gather(*map(ends, ("90m", "20000u", "150m", "50000000n")))
    assert order == ["20000u", "50000000n", "90m", "150m"]


async def test_a_deadline_leaves_with_its_call(houses, http2_peer):
    backend, house = await http2_peer(lambda asked: asked.respond(200, b"", **GRPC)), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    for _ in range(20):
        await client.call(("grpc-timeout", "99999999H")).end()
    wheel = house.ctx.deadlines.wheel
    assert (wheel.waiting, any(wheel.slots)) == (0, False)


async def test_a_server_that_gives_up_at_the_deadline_is_heard_as_the_deadline(houses, http2_peer):
    """It resets the stream with CANCEL a moment before our own timer, as grpc's servers do."""
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = client.call(("grpc-timeout", "200m"))
    asked = await arrived(backend)
    exchange = next(iter(house.ctx.deadlines.wheel.slots[slot_in_use(house)]))
    house.ctx.now = exchange.deadline - 0.005
    exchange.response_reset(8, False)
    assert (await call.end()).head["grpc-status"] == "4"
    assert asked.stream_id == 1
    await house.quiet()


def slot_in_use(house) -> int:
    return next(i for i, slot in enumerate(house.ctx.deadlines.wheel.slots) if slot)


async def test_nothing_is_tried_again_at_the_deadline_and_the_client_hears_of_nothing_else(houses, http2_peer):
    backend, house = await http2_peer(late=True), houses(connect_timeout_s=DEADLINE_S)
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = client.call(("grpc-timeout", "20S"))
    pool = side.endpoints[0].http2

    async def waits() -> bool:
        return bool(pool.waiting)

    await until(waits, "the call to wait")
    exchange = pool.next_requester()
    house.ctx.now = exchange.deadline - 0.005
    exchange.unreachable(refusals.CONNECT_FAILED)
    assert (await call.end()).head["grpc-status"] == "4"
    await house.quiet()
    series = side.route.series
    assert (series.retry_total, series.skipped) == (0, {"deadline": 1})


async def test_a_client_that_cancels_at_its_deadline_is_counted_as_late_and_before_it_as_gone(houses, http2_peer):
    backend, house = await http2_peer(), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    late, gone = client.call(("grpc-timeout", "20S")), client.call(("grpc-timeout", "20S"))
    await arrived(backend, 2)
    first, second = sorted((e for slot in house.ctx.deadlines.wheel.slots for e in slot), key=lambda e: e.down.stream_id)
    house.ctx.now = first.deadline - 0.005
    first.request_reset(8)
    client.cancel(gone)
    await house.quiet()
    assert late.stream_id == first.down.stream_id
    series = side.route.series
    assert (total(series, grpc_status=4), series.cancelled_total, second.state) == (1, 1, first.state)
    client.cancel(late)


# ---------------------------------------------------------------- refusals


class Refuses(Side):
    """Refuses each request for the reason that its path names."""

    def request(self, connection, stream, head, end) -> None:
        reason = head.field(b"x-reason").decode()
        refuse(self.ctx, stream, head, "outbound", next(r for r in REFUSALS if r.reason == reason))


def test_there_is_a_table_of_refusals_and_its_reasons_differ():
    assert len(REFUSALS) > 15
    assert len({refusal.reason for refusal in REFUSALS}) == len(REFUSALS)


async def test_every_refusal_is_a_status_of_grpc_to_a_grpc_client(houses):
    house = houses()
    side = await house.listen(Refuses(house.ctx, "outbound"))
    client = await connect(side.port)
    for refusal in REFUSALS:
        for content_type in ("application/grpc", "application/grpc+proto", "application/grpc;x=y"):
            call = await client.call(("x-reason", refusal.reason), content_type=content_type, end=False).end()
            assert call.head.pop("date")
            assert call.head == {
                ":status": "200",
                "content-type": content_type,
                "grpc-status": str(refusal.grpc),
                "grpc-message": percent_encode(f"meshproxy: {refusal.reason}: {refusal.text}").decode(),
                "mesh-error": refusal.reason,
                **({"grpc-retry-pushback-ms": str(1000 * refusal.retry_after_s)} if refusal.retry_after_s else {}),
            }
            assert (call.body, call.trailers, call.code) == (b"", None, None)
        page = await client.call(("x-reason", refusal.reason), content_type="application/grpc-web").end()
        assert (page.head[":status"], page.head["mesh-error"]) == (str(refusal.status), refusal.reason)
        assert "grpc-status" not in page.head


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("no_endpoints", 14), ("no_backend", 14), ("queue_full", 14), ("connect_failed", 14), ("connect_timeout", 14),
        ("name_not_found", 14),
        ("upstream_reset", 14), ("draining", 14), ("not_ready", 14), ("request_timeout", 4), ("deadline_exceeded", 4),
        ("forbidden", 7), ("not_authenticated", 7), ("port_not_listed", 7), ("upstream_cancelled", 1),
        ("upstream_exhausted", 8), ("no_route", 5), ("loop", 10), ("internal_error", 13), ("upstream_failed", 13),
        ("upstream_malformed", 13), ("upstream_insecure", 7),
    ],
)  # fmt: skip
def test_what_each_refusal_means_to_grpc(reason, code):
    assert next(r for r in REFUSALS if r.reason == reason).grpc == code


@pytest.mark.parametrize("meshed", [False, True])
def test_a_lost_connection_is_unavailable_and_so_is_an_app_that_a_mesh_peer_lost(meshed):
    """RST_STREAM with each code: tests/conformance/test_grpc_resets.py."""
    assert ended_by(CONNECT_ERROR, True, meshed).grpc == 14
    assert ended_by(INTERNAL_ERROR, True, meshed).grpc == (14 if meshed else 13)
    assert ended_by(APP_FAILED, True, meshed).grpc == 13
    assert ended_by(said_by_peer(CONNECT_ERROR, False), True, False).grpc == 13
    assert ended_by(CONNECT_ERROR, False, meshed).reason == ended_by(INTERNAL_ERROR, False, meshed).reason == "upstream_reset"


@pytest.mark.parametrize(
    ("text", "written"),
    [("a b~!", b"a b~!"), ("100 %", b"100 %25"), ("½\r\n\x7f", b"%C2%BD%0D%0A%7F"), ("☺", b"%E2%98%BA")],
)
def test_a_message_is_percent_encoded(text, written):
    assert percent_encode(text) == written


async def test_an_endpoint_that_is_not_there_is_unavailable(houses):
    house = houses()
    side = await house.forward(free_port(), upstream="http2")
    client = await connect(side.port)
    call = await client.call().end()
    assert (call.head[":status"], call.head["grpc-status"], call.head["mesh-error"]) == ("200", "14", "connect_failed")


# ---------------------------------------------------------------- what is counted


async def test_success_is_judged_by_the_grpc_status(houses, http2_peer):
    """In a head of its own or in trailers, alike."""

    def answers(asked: Asked) -> None:
        code = asked.headers["x-code"]
        if "x-trailers" in asked.headers:
            asked.respond(200, None, **GRPC)
            asked.session.head(asked.stream_id, [("grpc-status", code)], True)
        else:
            asked.session.head(asked.stream_id, [(":status", "200"), *GRPC.items(), ("grpc-status", code)], True)

    backend, house = await http2_peer(answers), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    for code in range(17):
        await client.call(("x-code", str(code))).end()
        await client.call(("x-code", str(code)), ("x-trailers", "yes")).end()
        success = code not in (2, 4, 7, 13, 14, 15)
        for series in (side.route.series, side.endpoints[0].series):
            assert total(series, status=200, grpc_status=code, success=success) == 2
            assert total(series, grpc_status=code) == 2


@pytest.mark.parametrize(
    ("status", "fields", "counted"),
    [
        (502, {"content-type": "text/html"}, (502, -1, False)),
        (404, {"content-type": "text/html"}, (404, -1, True)),  # by the HTTP status, as Linkerd does
        (200, {"content-type": "text/html"}, (200, -1, True)),
        (200, {**GRPC, "grpc-status": "many"}, (200, 2, False)),
    ],
)
async def test_answers_that_are_not_grpcs_pass_as_they_are(houses, http2_peer, status, fields, counted):
    backend, house = await http2_peer(lambda asked: asked.respond(status, b"<p>", **fields)), houses()
    side = await house.forward(backend.port, upstream="http2")
    client = await connect(side.port)
    call = await client.call().end()
    assert (call.head.pop(":status"), call.body) == (str(status), b"<p>")
    assert call.head.pop("date")
    assert call.head == fields
    await house.quiet()
    number, grpc_status, success = counted
    assert total(side.route.series, status=number, grpc_status=grpc_status, success=success) == 1
