"""An exchange in any order of events: exactly one outcome, nothing said after the end, nothing left behind.

The streams are stand-ins that keep an engine's promises (wire/engine.py): events go to whoever is the sink, and to nobody
after the end.  Pools, budgets, the wheel of deadlines and the counters are the real ones; time is simulated.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshproxy.policy.budget import Budget
from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.retry import RetryPolicy, parse_policy
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_HTTP2, Endpoint
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.outcome import DONE, WAITING
from meshproxy.proxy.refusals import CONNECT_FAILED, CONNECT_TIMEOUT, QUEUE_FULL
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.timed import TimedExchange, Times
from meshproxy.proxy.timers import TICK_S
from meshproxy.telemetry.registry import Registry
from meshproxy.wire.engine import NULL_SINK, Stream
from meshproxy.wire.message import Field, Head, add_field

RESET_CODES = (0, 1, 2, 7, 8, 10, 11)


class Handle:
    """A timer that does not fire, or a task that does not run."""

    def cancel(self) -> None:
        pass

    def add_done_callback(self, callback: object) -> None:
        pass


class Loop:
    def __init__(self) -> None:
        self.waits: list[tuple[Any, ...]] = []  # of exchanges, between two tries: what to call, with what
        self.delays: list[float] = []  # how long they are

    def call_later(self, delay: float, callback: object, *args: object) -> Handle:
        if args:
            self.waits.append((callback, *args))
            self.delays.append(delay)
        return Handle()

    def call_soon(self, callback: object) -> Handle:
        return Handle()

    def create_task(self, coroutine: Any, name: str = "") -> Handle:
        coroutine.close()
        return Handle()


class Spoken(Stream):
    """What was said on a stream, in order; wrong orders fail at once.  `over`: no more events come from it."""

    def __init__(self, over_when_said: bool) -> None:
        super().__init__()
        self.over_when_said = over_when_said  # a server's stream ends with its response, a client's does not with its request
        self.begun = self.said = self.over = False
        self.breaks = False  # the next data it is given is what its engine cannot send
        self.sent_trailers: list[Field] | None = None
        self.head: Head | None = None
        self.code = -1

    def ends(self) -> None:
        self.said = True
        if self.over_when_said:
            self.over = True

    def send_interim(self, head: Head) -> None:
        assert not self.begun

    def send_head(self, head: Head, extra: list[Field], end: bool) -> None:
        assert not self.over
        assert not self.begun, "two heads"
        self.begun, self.head = True, head
        if end:
            self.ends()

    def send_data(self, data: bytes, end: bool) -> None:
        if self.over:
            return
        if self.breaks:
            self.over = True
            self.sink.request_reset(8)
            return
        assert self.begun, "a body before its head"
        assert not self.said, "a body after the end"
        if end:
            self.ends()

    def send_trailers(self, fields: list[Field]) -> None:
        if self.over:
            return
        assert self.begun, "trailers before the head"
        assert not self.said, "trailers after the end"
        self.sent_trailers = fields
        self.ends()

    def reset(self, code: int) -> None:
        if not self.over:
            self.over, self.code = True, code
            self.sink = NULL_SINK

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


def request_head(grpc: bool, timeout: bytes, method: bytes, version: int, expected: bytes = b"") -> Head:
    head = Head()
    head.method, head.authority, head.path, head.version = method, b"svc", b"/", version
    if grpc:
        add_field(head, Field(b"content-type", b"application/grpc+proto"))
    if timeout:
        add_field(head, Field(b"grpc-timeout", timeout))
    if expected:
        add_field(head, Field(b"x-envoy-expected-rq-timeout-ms", expected))
    return head


def response_head(status: int, grpc: bool, grpc_status: bytes) -> Head:
    head = Head()
    head.status, head.version = status, 20
    if grpc:
        add_field(head, Field(b"content-type", b"application/grpc"))
    if grpc_status:
        add_field(head, Field(b"grpc-status", grpc_status))
    return head


class AnyOrder(RuleBasedStateMachine):
    @initialize(
        grpc=st.sampled_from([True, True, True, False]),
        timeout=st.sampled_from([b"9S", b"1S", b"20m", b"0m", b"1x", b""]),
        method=st.sampled_from([b"POST", b"GET"]),
        version=st.sampled_from([20, 20, 20, 11]),
        end=st.booleans(),
        meshed=st.booleans(),
        retry=st.sampled_from([[], ["5xx", "unavailable", "deadline-exceeded", "refused-stream"], ["connect-failure"]]),
        route_timeout=st.sampled_from([0.0, 0.5, 5.0]),
        replay=st.sampled_from([0, 10, 65536]),
        expected=st.sampled_from([b"", b"", b"15", b"2000", b"0"]),
        backoff_s=st.sampled_from([0.0, None, 0.05]),
        times=st.sampled_from([None, ServiceTimes(0.5, 2.0, 1.0, True), ServiceTimes(0.2), ServiceTimes(0.0, 0.6, 0.4)]),
    )
    def begin(
        self,
        grpc: bool,
        timeout: bytes,
        method: bytes,
        version: int,
        end: bool,
        meshed: bool,
        retry: list[str],
        route_timeout: float,
        replay: int,
        expected: bytes = b"",
        backoff_s: float | None = 0.0,
        times: ServiceTimes | None = None,
    ) -> None:
        chosen = Settings()
        chosen.replay_bytes = replay
        self.ctx = ctx = Context(Loop(), chosen, Registry(), 1, b"x-")
        ctx.now = 1000.0
        policy: RetryPolicy = parse_policy(retry, attempts=3, backoff_s=backoff_s)
        self.endpoints = [
            Endpoint(ctx, "127.0.0.1", port, SPEAKS_HTTP2, ctx.registry.http("outbound", (("target_addr", f"a:{port}"),)))
            for port in (1, 2)
        ]
        self.queue = ctx.deadlines.queue(route_timeout) if route_timeout else None
        backend = Backend("b", list(self.endpoints))
        self.route = Route("r", [backend], None, policy, Budget(), self.queue, ctx.registry.route("outbound"))
        self.down = Spoken(over_when_said=True)
        self.ups: list[Spoken] = []
        self.client_left = False
        self.request_ended = end
        head = request_head(grpc, timeout, method, version, expected)
        if times is None:
            self.exchange = Exchange(ctx, self.down, head, "outbound", meshed)
        else:
            self.exchange = TimedExchange(ctx, self.down, head, "outbound", Times(ctx, times))
        self.down.sink = self.exchange
        self.exchange.begin(self.route, [], end)

    # -- who can act

    def pools(self) -> list[Any]:
        return [pool for endpoint in self.endpoints for pool in (endpoint.http1, endpoint.http2)]

    def waits(self) -> Any:
        return next((pool for pool in self.pools() if pool.waiting), None)

    def up(self) -> Spoken | None:
        return self.ups[-1] if self.ups and not self.ups[-1].over else None

    # -- the pool

    @precondition(lambda self: self.waits())
    @rule()
    def a_stream_is_free(self) -> None:
        stream = Spoken(over_when_said=False)
        self.ups.append(stream)
        self.answered = False
        stream.sink = requester = self.waits().next_requester()
        requester.attached(stream)

    @precondition(lambda self: self.waits())
    @rule(refusal=st.sampled_from([CONNECT_FAILED, CONNECT_TIMEOUT, QUEUE_FULL]))
    def no_stream_will_come(self, refusal: Any) -> None:
        self.waits().next_requester().unreachable(refusal)

    @precondition(lambda self: self.ctx.loop.waits)
    @rule()
    def a_wait_is_over(self) -> None:
        callback, *args = self.ctx.loop.waits.pop(0)
        now = self.ctx.now
        callback(*args)
        self.ctx.now = now  # it looks at the real clock

    # -- the endpoint

    @precondition(lambda self: self.up() and not self.answered)
    @rule(
        status=st.sampled_from([200, 200, 404, 503, 504]),
        grpc=st.sampled_from([True, True, True, False]),
        grpc_status=st.sampled_from([b"", b"", b"", b"0", b"4", b"14", b"x"]),
        end=st.sampled_from([False, False, True]),
    )
    def the_answer_begins(self, status: int, grpc: bool, grpc_status: bytes, end: bool) -> None:
        up = self.up()
        assert up is not None
        self.answered = True
        up.over = end
        up.sink.response_head(response_head(status, grpc, grpc_status), end)

    @precondition(lambda self: self.up() and not self.answered)
    @rule()
    def an_interim_answer(self) -> None:
        up = self.up()
        assert up is not None
        up.sink.response_interim(response_head(103, False, b""))

    @precondition(lambda self: self.up() and self.answered)
    @rule(size=st.integers(0, 100), end=st.booleans(), breaks=st.sampled_from([False, False, False, True]))
    def the_answer_goes_on(self, size: int, end: bool, breaks: bool) -> None:
        up = self.up()
        assert up is not None
        self.down.breaks = breaks
        up.over = end
        up.sink.response_data(bytes(size), end)

    @precondition(lambda self: self.up() and self.answered)
    @rule(grpc_status=st.sampled_from([b"", b"0", b"4", b"14"]))
    def the_answer_ends_with_trailers(self, grpc_status: bytes) -> None:
        up = self.up()
        assert up is not None
        up.over = True
        up.sink.response_trailers([Field(b"grpc-status", grpc_status)] if grpc_status else [])

    @precondition(lambda self: self.up())
    @rule(code=st.sampled_from(RESET_CODES), unprocessed=st.booleans())
    def the_endpoint_gives_up(self, code: int, unprocessed: bool) -> None:
        up = self.up()
        assert up is not None
        up.over = True
        up.sink.response_reset(code, unprocessed or code == 7)

    @precondition(lambda self: self.up())
    @rule(blocked=st.booleans())
    def the_way_there_is_full(self, blocked: bool) -> None:
        up = self.up()
        assert up is not None
        if blocked:
            up.sink.request_blocked()
        else:
            up.sink.request_unblocked()

    # -- the client

    @precondition(lambda self: not self.down.over and not self.request_ended)
    @rule(size=st.integers(0, 100), end=st.booleans())
    def more_of_the_request(self, size: int, end: bool) -> None:
        self.request_ended = end
        self.down.sink.request_data(bytes(size), end)

    @precondition(lambda self: not self.down.over and not self.request_ended)
    @rule()
    def the_request_ends_with_trailers(self) -> None:
        self.request_ended = True
        self.down.sink.request_trailers([Field(b"x", b"y")])

    @precondition(lambda self: not self.down.over)
    @rule(code=st.sampled_from(RESET_CODES))
    def the_client_leaves(self, code: int) -> None:
        self.client_left = self.down.over = True
        self.down.sink.request_reset(code)

    @precondition(lambda self: not self.down.over)
    @rule(blocked=st.booleans())
    def the_way_back_is_full(self, blocked: bool) -> None:
        if blocked:
            self.down.sink.response_blocked()
        else:
            self.down.sink.response_unblocked()

    # -- the proxy

    @rule(seconds=st.sampled_from([0.0001, 0.012, 0.3, 0.9, 4.0]))
    def time_passes(self, seconds: float) -> None:
        ctx = self.ctx
        ctx.now += seconds
        late: list[Any] = ctx.deadlines.wheel.turn(int(ctx.now / TICK_S))
        for queue in ctx.deadlines.queues.values():
            due = [item for item, deadline in queue.waiting.items() if deadline <= ctx.now]
            for item in due:
                del queue.waiting[item]
            late += [item for item in due if item not in late]
        for item in late:
            item.timed_out()

    @precondition(lambda self: self.ctx.now < self.exchange.deadline - 0.005)
    @rule()
    def the_deadline_is_near(self) -> None:
        """Whoever acts now may be acting on it.  (The route's own timeout is not looked at: it may be late.)"""
        self.ctx.now = self.exchange.deadline - 0.005

    @rule()
    def memory_is_short(self) -> None:
        self.exchange.overloaded()

    # -- what must be true

    @invariant()
    def one_outcome_and_nothing_left(self) -> None:
        exchange, ctx = self.exchange, self.ctx
        done = exchange.state == DONE
        assert ctx.internal_errors.value == 0
        assert self.route.series.request_total == 1
        assert self.route.series.in_flight() == (0 if done else 1)
        attempts = [endpoint.series.in_flight() for endpoint in self.endpoints]
        assert min(attempts) >= 0
        waits = exchange.state == WAITING and exchange.endpoint is None  # between two tries
        assert sum(attempts) == (0 if done or waits else 1)
        assert not waits or len(self.ctx.loop.waits) > 0, "it waits for nothing"
        pending = sum(endpoint.load.pending for endpoint in self.endpoints)
        assert 0 <= pending <= (0 if done else 1)
        assert sum(len(pool.waiting) for pool in self.pools()) <= (0 if done else 1)
        assert sum(not up.over and up.sink is exchange for up in self.ups) <= (0 if done else 1)
        assert ctx.deadlines.wheel.waiting == sum(map(len, ctx.deadlines.wheel.slots)) <= (0 if done else 2)
        if done:
            assert not any(queue.waiting for queue in ctx.deadlines.queues.values())
            assert ctx.pressure.held == 0
            assert self.down.over, "the client waits for ever"
            assert self.down.sink is NULL_SINK or self.client_left
            assert all(up.over or up.said or up.sink is NULL_SINK for up in self.ups)
        else:
            assert not self.down.over, "the client has its answer, and the exchange goes on"

    @invariant()
    def a_call_never_runs_past_its_deadline(self) -> None:
        exchange = self.exchange
        if exchange.deadline and exchange.state != DONE:
            assert self.ctx.now < exchange.deadline + 2 * TICK_S

    def teardown(self) -> None:
        if hasattr(self, "exchange"):
            if not self.down.over:
                self.the_client_leaves(8)
            assert self.exchange.state == DONE
            self.one_outcome_and_nothing_left()


def test_an_answer_whose_end_cannot_be_passed_on_is_counted_once() -> None:
    machine = AnyOrder()
    machine.begin(
        grpc=False, timeout=b"", method=b"GET", version=20, end=True, meshed=False, retry=[], route_timeout=0.0, replay=0
    )  # fmt: skip
    machine.a_stream_is_free()
    machine.the_answer_begins(200, False, b"", False)
    machine.the_answer_goes_on(3, True, True)
    assert machine.exchange.state == DONE
    machine.one_outcome_and_nothing_left()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=200, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
