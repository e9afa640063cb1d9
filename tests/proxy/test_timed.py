"""What a Service declares of times, in simulated time: when each timer begins, what ends it, and what the client is told.

The streams are stand-ins; queues, wheel, pools, retries and books are the real ones.
"""

from __future__ import annotations

from typing import Any

import pytest
from proxy_house import total
from test_exchange_machine import Loop, Spoken, request_head, response_head

from meshproxy.policy.budget import Budget
from meshproxy.policy.deadline import ServiceTimes, parse_timeout
from meshproxy.policy.retry import parse_policy
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_HTTP2, Endpoint
from meshproxy.proxy.outcome import DONE
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.timed import TimedExchange, Times
from meshproxy.proxy.timers import TICK_S
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.engine import CANCEL

EXPECTED = b"x-envoy-expected-rq-timeout-ms"


class Call:
    """One exchange with one endpoint; time goes on when it is told to."""

    def __init__(
        self,
        times: ServiceTimes,
        end: bool = True,
        grpc: bool = False,
        expected: bytes = b"",
        timeout: bytes = b"",
        route_timeout: float = 0.0,
        retry: tuple[str, ...] = (),
        backoff_s: float | None = 0.0,
        seed: int = 1,
    ) -> None:
        self.loop = Loop()
        self.ctx = ctx = Context(self.loop, Settings(), Registry(), seed, b"x-")
        ctx.now = 1000.0
        self.endpoint = Endpoint(ctx, "127.0.0.1", 1, SPEAKS_HTTP2, ctx.registry.http("outbound", (("target_addr", "a:1"),)))
        self.thought = self.endpoint.load.estimate
        deadlines = ctx.deadlines.queue(route_timeout) if route_timeout else None
        backend = Backend("b", [self.endpoint])
        policy = parse_policy(list(retry), attempts=1, backoff_s=backoff_s)
        self.route = Route("r", [backend], None, policy, Budget(), deadlines, ctx.registry.route("outbound"))
        self.down = Spoken(over_when_said=True)
        self.ups: list[Spoken] = []
        head = request_head(grpc, timeout, b"GET", 20, expected)
        self.exchange = TimedExchange(ctx, self.down, head, "outbound", Times(ctx, times))
        self.down.sink = self.exchange
        self.exchange.begin(self.route, [], end)

    def attach(self) -> Spoken:
        pool = next(pool for pool in (self.endpoint.http1, self.endpoint.http2) if pool.waiting)
        stream = Spoken(over_when_said=False)
        self.ups.append(stream)
        stream.sink = requester = pool.next_requester()
        requester.attached(stream)
        return stream

    def after(self, seconds: float) -> Call:
        """In steps, as the timers of a loop would fire."""
        ctx = self.ctx
        end = ctx.now + seconds
        while ctx.now < end:
            ctx.now = min(ctx.now + TICK_S, end)
            late: list[Any] = ctx.deadlines.wheel.turn(int(ctx.now / TICK_S + 1e-6))
            for queue in ctx.deadlines.queues.values():
                due = [item for item, deadline in queue.waiting.items() if deadline <= ctx.now + 1e-9]
                for item in due:
                    del queue.waiting[item]
                late += due
            for item in late:
                item.timed_out()
        return self

    @property
    def told(self) -> tuple[int, str]:
        """Status and `mesh-error` of what the client got; (0, "") as long as there is nothing."""
        head = self.down.head
        if head is None:
            return 0, ""
        return head.status, (head.field(b"mesh-error") or b"").decode()

    def waiting(self) -> int:
        deadlines = self.ctx.deadlines
        return deadlines.wheel.waiting + sum(len(queue.waiting) for queue in deadlines.queues.values())

    @property
    def blamed(self) -> bool:
        """Does the balancer think less of the endpoint than it did?"""
        return self.endpoint.load.estimate > self.thought

    def over(self) -> bool:
        return self.exchange.state == DONE and self.waiting() == 0


# ---------------------------------------------------------------- a wait between two tries


def test_an_answer_is_not_given_up_for_a_try_that_would_come_after_the_clients_deadline() -> None:
    call = Call(ServiceTimes(idle_s=9.0), expected=b"100", retry=("503",), backoff_s=None).after(0.05)
    call.attach().sink.response_head(response_head(503, False, b""), True)
    assert call.told == (0, ""), "it waits 25 ms"
    assert call.after(0.06).told == (504, "deadline_exceeded")
    call = Call(ServiceTimes(idle_s=9.0), expected=b"100", retry=("503",), backoff_s=None).after(0.08)
    call.attach().sink.response_head(response_head(503, False, b""), True)
    assert call.told == (503, "")
    assert call.route.series.skipped == {"deadline": 1}
    assert call.over()


def test_an_answer_is_not_given_up_for_a_try_that_would_come_after_the_routes_timeout() -> None:
    for retried_at, told in ((0.05, (504, "request_timeout")), (0.08, (503, ""))):
        call = Call(ServiceTimes(), route_timeout=0.1, retry=("503",), backoff_s=None).after(retried_at)
        call.attach().sink.response_head(response_head(503, False, b""), True)
        assert call.after(0.06).told == told
        assert call.route.series.skipped == ({} if told[0] == 504 else {"deadline": 1}), "25 ms are left, or are not"
        assert call.over()


def test_a_try_that_took_too_long_is_told_at_once_where_the_next_would_come_after_the_routes_timeout() -> None:
    call = Call(ServiceTimes(response_start_s=0.1), route_timeout=0.3, retry=("504",), backoff_s=0.25)
    call.attach()
    assert call.after(0.11).told == (504, "response_start_timeout")
    assert call.route.series.skipped == {"deadline": 1}
    assert call.over()


def test_the_sooner_of_the_clients_deadline_and_the_routes_timeout_says_if_there_is_time_to_wait() -> None:
    for expected, route_timeout in ((b"100", 9.0), (b"9000", 0.1)):
        call = Call(ServiceTimes(), expected=expected, route_timeout=route_timeout, retry=("503",), backoff_s=None).after(0.08)
        call.attach().sink.response_head(response_head(503, False, b""), True)
        assert call.told == (503, "")
        assert call.over()


def test_chance_does_not_make_a_wait_outlast_the_time_that_its_least_length_fits_into() -> None:
    for seed in range(20):
        call = Call(ServiceTimes(), route_timeout=0.25, retry=("503",), backoff_s=0.2, seed=seed)
        call.attach().sink.response_head(response_head(503, False, b""), True)
        (wait,) = call.loop.delays
        assert 0.2 <= wait < 0.25


# ---------------------------------------------------------------- the beginning of the answer

START = ServiceTimes(response_start_s=0.5)


def test_an_answer_that_does_not_begin_in_time_is_504_by_name_and_cancelled() -> None:
    call = Call(START)
    up = call.attach()
    assert call.after(0.48).told == (0, "")
    assert call.after(0.04).told == (504, "response_start_timeout")
    assert (up.over, up.code) == (True, CANCEL)
    assert call.over()
    assert total(call.endpoint.series, error="timeout") == 1
    assert call.blamed
    assert call.ctx.refusals["response_start_timeout outbound"].value == 1


def test_it_counts_from_the_end_of_the_request_however_long_that_takes() -> None:
    call = Call(START, end=False)
    call.after(2.0)  # no stream yet
    call.attach()
    call.after(2.0).exchange.request_data(b"half", False)
    assert call.after(2.0).told == (0, "")
    call.exchange.request_data(b"rest", True)
    assert call.after(0.48).told == (0, "")
    assert call.after(0.04).told == (504, "response_start_timeout")
    assert call.over()


def test_a_request_that_ends_with_trailers_has_ended() -> None:
    call = Call(START, end=False, grpc=True)
    call.attach()
    call.exchange.request_trailers([])
    call.after(0.52)
    assert call.over()
    head = call.down.head
    assert head is not None
    assert head.grpc_status == b"4"
    assert b"response_start_timeout" in (head.field(b"grpc-message") or b"")


def test_the_rest_of_an_answer_has_all_the_time_and_interim_answers_are_no_beginning() -> None:
    call = Call(START)
    up = call.attach()
    call.after(0.4)
    up.sink.response_interim(response_head(103, False, b""))
    up.sink.response_head(response_head(200, False, b""), False)
    assert call.waiting() == 0
    call.after(5.0)
    up.sink.response_data(b"x", True)
    assert call.over()
    assert call.told == (200, "")

    call = Call(START)
    up = call.attach()
    call.after(0.4)
    up.sink.response_interim(response_head(103, False, b""))
    assert call.after(0.12).told == (504, "response_start_timeout")


@pytest.mark.parametrize(("conditions", "attempts"), [((), 1), (("504",), 2), (("gateway-error",), 2)])
def test_it_is_tried_again_where_a_try_that_is_late_would_be_with_its_whole_time(
    conditions: tuple[str, ...], attempts: int
) -> None:
    call = Call(START, retry=conditions)
    call.attach()
    call.after(0.52)
    if attempts == 2:
        assert call.told == (0, "")
        call.attach()
        assert call.after(0.48).told == (0, "")
        call.after(0.04)
    assert call.told == (504, "response_start_timeout")
    assert len(call.ups) == attempts
    assert call.over()


def test_an_answer_that_is_tried_again_leaves_no_timer_of_its_own() -> None:
    call = Call(ServiceTimes(0.5, 0.8), retry=("5xx",))
    call.attach().sink.response_head(response_head(503, False, b""), True)
    assert call.waiting() == 0
    call.after(3.0)
    up = call.attach()
    assert call.after(0.48).told == (0, "")
    up.sink.response_head(response_head(200, False, b""), True)
    assert call.over()
    assert call.told == (200, "")


# ---------------------------------------------------------------- all of the answer

WHOLE = ServiceTimes(response_s=0.5)


def test_an_answer_that_does_not_end_in_time_is_504_or_cut() -> None:
    call = Call(WHOLE)
    call.attach()
    assert call.after(0.52).told == (504, "response_timeout")
    assert call.over()

    call = Call(WHOLE)
    up = call.attach()
    up.sink.response_head(response_head(200, False, b""), False)
    for _ in range(4):
        call.after(0.12)
        if not call.down.over:
            up.sink.response_data(b"x", False)
    call.after(0.04)
    assert call.over()
    assert (call.down.over, call.down.code) == (True, CANCEL)
    assert up.code == CANCEL
    assert total(call.route.series, error="response_timeout") == 1


def test_an_answer_that_begins_before_its_request_has_ended_is_timed_from_its_beginning() -> None:
    call = Call(WHOLE, end=False)
    up = call.attach()
    call.after(2.0)
    up.sink.response_head(response_head(200, False, b""), False)
    call.after(0.3).exchange.request_data(b"the rest", True)
    call.after(0.18)
    assert not call.down.over
    call.after(0.04)
    assert call.down.over
    assert call.over()


def test_a_grpc_answer_that_is_cut_ends_with_a_status_that_names_the_timer() -> None:
    call = Call(WHOLE, grpc=True)
    up = call.attach()
    up.sink.response_head(response_head(200, True, b""), False)
    call.after(0.52)
    trailers = {field.name: field.value for field in call.down.sent_trailers or []}
    assert (trailers[b"grpc-status"], trailers[b"mesh-error"]) == (b"4", b"response_timeout")
    assert call.over()


# ---------------------------------------------------------------- idle

IDLE = ServiceTimes(idle_s=0.5)


def test_what_moves_is_not_idle_and_what_stands_still_is_ended_by_name() -> None:
    call = Call(IDLE, end=False)
    assert call.after(0.4).told == (0, "")
    call.attach()
    for _ in range(5):
        call.after(0.4).exchange.request_data(b"x", False)
    assert call.after(0.48).told == (0, "")
    assert call.after(0.06).told == (504, "idle_timeout")
    assert call.over()
    assert total(call.endpoint.series, error="timeout") == 1
    assert not call.blamed


def test_it_is_watched_before_there_is_a_stream_and_within_the_answer() -> None:
    assert Call(IDLE).after(0.52).told == (504, "idle_timeout")

    call = Call(IDLE)
    up = call.attach()
    up.sink.response_head(response_head(200, False, b""), False)
    for _ in range(5):
        call.after(0.4)
        up.sink.response_data(b"x", False)
    assert not call.down.over
    call.after(0.52)
    assert (call.down.over, call.down.code, up.code) == (True, CANCEL, CANCEL)
    assert total(call.route.series, error="idle_timeout") == 1
    assert call.over()


def test_a_client_that_reads_slowly_is_not_idle() -> None:
    """What it takes of what has been sent is not seen here; the stall timeout sees it."""
    call = Call(IDLE)
    up = call.attach()
    up.sink.response_head(response_head(200, False, b""), False)
    call.exchange.response_blocked()
    call.after(5.0)
    assert not call.down.over
    call.exchange.response_unblocked()
    call.after(0.4)
    assert not call.down.over
    call.after(0.7)
    assert call.down.over
    assert call.over()


def test_a_tunnel_may_be_silent_for_as_long_as_its_ends_like() -> None:
    call = Call(ServiceTimes(0.5, 0.5, 0.5), expected=b"400", end=False)
    call.exchange.head.method, call.exchange.head.protocol = b"CONNECT", b"websocket"  # the head is this test's own
    up = call.attach()
    up.sink.response_head(response_head(200, False, b""), False)
    assert call.waiting() == 0
    call.after(5.0)
    assert not call.down.over
    up.sink.response_data(b"", True)
    call.exchange.request_data(b"", True)
    assert call.over()


def test_a_client_that_leaves_takes_all_timers_along() -> None:
    call = Call(ServiceTimes(0.5, 0.5, 0.5), expected=b"2000", route_timeout=3.0)
    call.attach()
    assert call.waiting() == 5
    call.down.over = True
    call.exchange.request_reset(CANCEL)
    assert call.over()


# ---------------------------------------------------------------- deadlines


def sent(up: Spoken) -> dict[bytes, bytes]:
    assert up.head is not None
    return {field.name: field.value for field in up.head.fields}


def test_a_request_ends_when_its_client_said_and_no_endpoint_is_blamed() -> None:
    call = Call(ServiceTimes(), expected=b"400")
    up = call.attach()
    assert sent(up)[EXPECTED] == b"400"
    assert call.after(0.38).told == (0, "")
    assert call.after(0.04).told == (504, "deadline_exceeded")
    assert up.code == CANCEL
    assert not call.blamed
    assert total(call.route.series, status=504) == 1
    assert call.over()


def test_it_goes_on_less_the_time_that_was_used() -> None:
    call = Call(ServiceTimes(response_start_s=0.5), expected=b"2000", retry=("504",))
    call.after(0.25)
    assert int(sent(call.attach())[EXPECTED]) == pytest.approx(1750, abs=1)
    call.after(0.52)
    assert int(sent(call.attach())[EXPECTED]) == pytest.approx(1230, abs=12)
    assert call.exchange.head.field(EXPECTED) == b"2000"


@pytest.mark.parametrize(("route_timeout", "told", "onwards"), [(0.3, "request_timeout", 300), (3.0, "deadline_exceeded", 400)])
def test_of_the_clients_time_and_the_routes_the_shorter_holds_and_goes_on(
    route_timeout: float, told: str, onwards: int
) -> None:
    call = Call(ServiceTimes(), expected=b"400", route_timeout=route_timeout)
    assert int(sent(call.attach())[EXPECTED]) == pytest.approx(onwards, abs=1)
    assert call.after(0.45).told == (504, told)
    assert call.over()


def test_a_routes_timeout_goes_on_only_where_that_is_declared() -> None:
    assert EXPECTED not in sent(Call(ServiceTimes(idle_s=9.0), route_timeout=2.0).attach())
    assert EXPECTED not in sent(Call(ServiceTimes(propagate=True)).attach())
    call = Call(ServiceTimes(propagate=True), route_timeout=2.0)
    call.after(0.5)
    assert int(sent(call.attach())[EXPECTED]) == pytest.approx(1500, abs=1)
    assert call.after(1.5).told == (504, "request_timeout")


@pytest.mark.parametrize(("timeout", "least", "most"), [(b"", 1.99, 2.0), (b"9S", 1.99, 2.0), (b"1S", 0.99, 1.0)])
def test_a_grpc_call_gets_it_in_its_own_field(timeout: bytes, least: float, most: float) -> None:
    fields = sent(Call(ServiceTimes(propagate=True), grpc=True, timeout=timeout, route_timeout=2.0).attach())
    assert EXPECTED not in fields
    assert least <= parse_timeout(fields[b"grpc-timeout"]) <= most + 1e-5


def test_a_proxy_behind_that_acts_on_the_deadline_first_is_read_as_the_deadline() -> None:
    """And is tried nowhere else."""
    call = Call(ServiceTimes(), expected=b"400", retry=("504",))
    up = call.attach()
    call.after(0.385)
    up.sink.response_head(response_head(504, False, b""), True)
    assert call.told == (504, "deadline_exceeded")
    assert len(call.ups) == 1
    assert call.over()
