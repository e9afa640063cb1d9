"""How an exchange and its attempts end, each in exactly one recorded outcome; and the states an exchange goes through.

    ROUTED --> WAITING <--> SENT --> RESPONDING
       |          |          |           |
       +----------+----------+-----------+--> DONE      (`finish`: the one way in, and only the first time counts)

An exchange is recorded in its route's series, an attempt in its endpoint's; a latency sample goes to the endpoint's load.
What leads from state to state is told in proxy/attempt.py, proxy/exchange.py and proxy/ending.py.

**What a request costs.**  Exchange, Ending, Attempt and Outcome are one object in four files, one noun each: nothing is handed
from one to the other.  What most requests never need is in the class bodies and not in `__init__`.  An answer that went
through is counted for attempt and exchange at once (`record_answered`); all that went otherwise is counted apart, and may
cost more.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from meshproxy.policy.breaker import FAILURE, LIMITED, NO_VERDICT, verdict_of
from meshproxy.policy.classify import NO_GRPC, is_success
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import Endpoint
from meshproxy.proxy.requester import Requester
from meshproxy.proxy.route import Route
from meshproxy.telemetry.series import BOUNDS, NOT_COUNTED
from meshproxy.wire.engine import NULL_SINK, Stream
from meshproxy.wire.message import Head

ROUTED: Final = 0  # it has a route
WAITING: Final = 1  # an endpoint is chosen; waiting for a stream to it
SENT: Final = 2  # on a stream; no answer yet
RESPONDING: Final = 3  # part of the answer is out to the client
DONE: Final = 4

# state -> the states that may follow, as bits.  WAITING follows WAITING when a dial failed and another endpoint is asked.
_NEXT: Final = (
    1 << WAITING | 1 << DONE,
    1 << WAITING | 1 << SENT | 1 << DONE,
    1 << WAITING | 1 << RESPONDING | 1 << DONE,
    1 << DONE,
    0,
)


class IllegalTransition(Exception):
    """An exchange went where its drawing has no arrow: a fault of ours."""


class Outcome(Requester):
    """An exchange's state and books."""

    route: Route | None = None
    # the current attempt
    up: Stream | None = None
    endpoint: Endpoint | None = None
    attempt_started: float = 0.0
    pending: bool = False  # counted in the endpoint's load
    # the answer
    status: int = 0
    grpc_status: int = NO_GRPC
    limited: bool = False  # it is no answer of the app's: the pod takes no more requests at once
    # the request's body, as long as it may have to be sent (again)
    body: list[bytes] | None = None
    body_bytes: int = 0

    def __init__(self, ctx: Context, down: Stream, head: Head, direction: str, meshed: bool) -> None:
        """`meshed`: the client is a mesh peer, so what fails here is told by a reset and not by an answer."""
        self.direction = direction
        self.meshed = meshed
        self.ctx = ctx
        self.down: Stream = down
        self.head = head
        self.state = ROUTED
        self.started = ctx.now
        self.first_byte_s = -1.0  # from the attempt's start to the first response data

    def enter(self, state: int) -> None:
        """Go to `state`.  Raises IllegalTransition."""
        if not (_NEXT[self.state] >> state) & 1:
            raise IllegalTransition(f"from state {self.state} to {state}")
        self.state = state

    # ---------------------------------------------------------------- of an attempt

    def first_byte(self) -> None:
        """The EWMA's sample: dispatch to first response data (or to the end where there is none), as Linkerd."""
        now = self.ctx.now
        latency = now - self.attempt_started
        self.first_byte_s = latency
        endpoint = self.endpoint
        if self.pending and endpoint is not None:
            self.pending = False
            endpoint.load.finish(now, latency)

    def record_attempt(self, status: int, grpc_status: int) -> None:
        """The attempt ended with an answer that is not the client's: enough of one to try another endpoint."""
        endpoint = self.endpoint
        if endpoint is None:
            return
        now = self.ctx.now
        failed = not is_success(status, grpc_status)
        if failed:
            endpoint.load.penalise(now)
        if endpoint.ejection is not None:
            verdict = LIMITED if self.limited else verdict_of(not failed, status, grpc_status)
            endpoint.ejection.record(endpoint, verdict, self.attempt_started, now)
        first = self.first_byte_s
        elapsed = now - self.attempt_started
        endpoint.series.response(
            status, grpc_status, not failed, (first if first >= 0.0 else elapsed) * 1000.0, elapsed * 1000.0
        )

    def attempt_failed(self, error: str, blame: bool = True) -> None:
        """The attempt ended without a complete answer; `error` "" means the client gave it up.  `blame`: that is a reason
        to think less of the endpoint."""
        endpoint = self.endpoint
        if endpoint is None:
            return
        now = self.ctx.now
        if self.pending:
            self.pending = False
            endpoint.load.finish(now, None)
        if endpoint.ejection is not None:
            verdict = FAILURE if error and blame else NO_VERDICT
            endpoint.ejection.record(endpoint, verdict, self.attempt_started, now)
        if error:
            if blame:
                endpoint.load.penalise(now)
            endpoint.series.failed(error, (now - self.attempt_started) * 1000.0)
        else:  # the client's change of mind says nothing about the endpoint
            endpoint.series.cancelled()

    # ---------------------------------------------------------------- of both

    def record_answered(self) -> None:
        """The endpoint's answer is complete, and the client has it: one outcome, of the attempt and of the exchange."""
        endpoint = self.endpoint
        assert endpoint is not None
        now = self.ctx.now
        status = self.status
        grpc_status = self.grpc_status
        success = status < 500 if grpc_status < 0 else is_success(status, grpc_status)
        if not success:
            endpoint.load.penalise(now)
        started = self.attempt_started
        if endpoint.ejection is not None:
            verdict = LIMITED if self.limited else verdict_of(success, status, grpc_status)
            endpoint.ejection.record(endpoint, verdict, started, now)
        key = (status * 32 + grpc_status) * 2 + success  # series.key_of, without the call
        first = self.first_byte_s * 1000.0
        whole = (now - started) * 1000.0
        first_bucket = whole_bucket = bisect_left(BOUNDS, whole)
        if first != whole:  # it did not come in one piece
            first_bucket = bisect_left(BOUNDS, first)
        if endpoint.series is not NOT_COUNTED:
            endpoint.series.answered(key, first, first_bucket, whole, whole_bucket)
        route = self.finish()
        if route is None:
            return
        earlier = started - self.started
        if earlier > 0.0:  # there were attempts before it: the client waited for those too
            first += earlier * 1000.0
            whole += earlier * 1000.0
            first_bucket = bisect_left(BOUNDS, first)
            whole_bucket = bisect_left(BOUNDS, whole)
        route.series.answered(key, first, first_bucket, whole, whole_bucket)

    # ---------------------------------------------------------------- of the exchange

    def record_exchange(self, status: int, grpc_status: int) -> None:
        """The client got this answer, which is not (or not as it came) an endpoint's."""
        route = self.finish()
        if route is None:
            return
        now = self.ctx.now
        first = self.first_byte_s
        elapsed = now - self.started
        route.series.response(
            status,
            grpc_status,
            is_success(status, grpc_status),
            (self.attempt_started - self.started + first if first >= 0.0 else elapsed) * 1000.0,
            elapsed * 1000.0,
        )

    def record_exchange_failed(self, error: str) -> None:
        """The client got no complete answer; `error` is a short fixed label."""
        route = self.finish()
        if route is not None:
            route.series.failed(error, (self.ctx.now - self.started) * 1000.0)

    def finish(self) -> Route | None:
        """The one way into DONE: no deadline, no events, nothing kept alive.  Returns the route that counts the exchange,
        None if it was never routed or is finished already."""
        if self.state == DONE:
            return None
        self.state = DONE  # from every other state there is an arrow to it
        if self.body is not None:
            self.drop_body()
        route = self.route
        if route is not None:
            if route.deadlines is not None:
                route.deadlines.remove(self)
            if route.rule is not None:
                self.leave_rule()
        if self.slot >= 0:
            self.ctx.deadlines.wheel.remove(self)
        self.down.sink = NULL_SINK
        up = self.up
        if up is not None:
            up.sink = NULL_SINK
        return route

    def leave_rule(self) -> None:
        """Forget what a rule had started for the exchange."""

    def drop_body(self) -> None:
        if self.body is not None:
            self.body = None
            self.ctx.pressure.hold(-self.body_bytes)
