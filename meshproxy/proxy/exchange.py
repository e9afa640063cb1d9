"""An exchange: one request of a client and the one answer it gets, whatever happens in between.

                     +---------------------- retry (budget, policy) -----------------------+
                     v                                                                     |
    ROUTED --pick--> WAITING --attached--> SENT --response head--> RESPONDING --end--> DONE
       |                |                    |                         |                ^
       |                | unreachable        | reset                   | reset          |
       +--no backend----+--------------------+----refuse(reason)-------+---reset--------+
                        (client gone, deadline passed: from any state)

An **exchange** is what the client saw; an **attempt** is what one endpoint did.  They are counted apart: the route's
series counts exchanges, each endpoint's series counts attempts (proxy/outcome.py keeps the states and the books).

Driven by callbacks, never by a task: requests come from the downstream stream (`request_*`), answers from the upstream
stream (`response_*`), back-pressure crosses over (`…_blocked` of one side pauses the other).

**A gRPC call's own deadline** (`grpc-timeout`) ends it here as a route's timeout does, and goes on less the time it spent
here.  Client, server and every proxy between watch the same deadline, and any may be first; `deadline_passed` is how what the
others do at that moment is read as what it is, so that the client always gets DEADLINE_EXCEEDED and the books say so.

Sending can call back: a stream may refuse its head, or be answered, before `send_head` returns.  Whoever sends therefore
looks at the state again afterwards.  A fault of ours in a callback ends this exchange and no other (`broken`).
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.balancer import pick
from meshproxy.policy.classify import GRPC_DEADLINE_EXCEEDED, NO_GRPC, is_success, parse_grpc_status
from meshproxy.policy.deadline import parse_timeout, with_timeout
from meshproxy.policy.retry import BROKEN, CONNECT_FAILED, REASONS, RESPONDED, RETRY, Failure, decide, is_idempotent
from meshproxy.proxy import websocket
from meshproxy.proxy.answer import send_refusal
from meshproxy.proxy.context import Context
from meshproxy.proxy.endpoint import SPEAKS_MESH, Endpoint
from meshproxy.proxy.outcome import DONE, RESPONDING, SENT, WAITING, Outcome
from meshproxy.proxy.refusals import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    NO_BACKEND,
    NO_ENDPOINTS,
    OVERLOADED,
    REQUEST_TIMEOUT,
    UPGRADE_DECLINED,
    UPSTREAM_CANCELLED,
    UPSTREAM_EXHAUSTED,
    UPSTREAM_MALFORMED,
    UPSTREAM_RESET,
    Refusal,
)
from meshproxy.proxy.route import Backend, Route
from meshproxy.wire.engine import (
    CANCEL,
    CONNECT_ERROR,
    ENHANCE_YOUR_CALM,
    INTERNAL_ERROR,
    NO_ERROR,
    NO_FIELDS,
    NULL_SINK,
    PROTOCOL_ERROR,
    Stream,
)
from meshproxy.wire.message import GRPC_STATUS, Field, Head

_UNREACHED: Final = Failure(CONNECT_FAILED)
_BROKEN: Final = Failure(BROKEN)
_BROKEN_GRPC: Final = Failure(BROKEN, 0, 14)  # UNAVAILABLE, as its caller would see it

# How a stream's end is told when no answer has begun, by its code; every other one is UPSTREAM_RESET.
_ENDED_BY: Final = {
    PROTOCOL_ERROR: UPSTREAM_MALFORMED,
    CANCEL: UPSTREAM_CANCELLED,
    ENHANCE_YOUR_CALM: UPSTREAM_EXHAUSTED,
}

# What the other ends do about a deadline can arrive before our own timer fires: their clocks began with their own request,
# the wheel's tick is 10 ms, and grpc's libraries round what they send up, by as much as 1 %.
_DEADLINE_SLACK_S: Final = 0.02  # but no more than a quarter of it all
_DEADLINE_ROUNDING: Final = 0.01
# Less time than this in the proxy is not taken off: the head can then be sent on as it is, memoised bytes and all.
_UNNOTICED_S: Final = 0.001


class Exchange(Outcome):
    # What only some have: in the class body, so that the others do not pay.
    deadline: float = 0.0  # when a gRPC call's own time is up (monotonic seconds), 0.0: never
    answers_grpc: bool = False  # a gRPC answer is under way to a client that can be told how it ended: in trailers
    stalled: bool = False  # downstream takes no more of the answer

    def __init__(self, ctx: Context, down: Stream, head: Head, direction: str, meshed: bool) -> None:
        """`meshed`: the client is a mesh peer, so what fails here is told by a reset and not by an answer (see `refuse`)."""
        super().__init__(ctx, down, head)
        self.direction = direction
        self.meshed = meshed
        self.backend: Backend | None = None
        self.extra: list[Field] = NO_FIELDS
        self.attempts = 0
        # the request, kept as long as it may have to be sent (again)
        self.body: list[bytes] | None = None
        self.body_bytes = 0
        self.trailers: list[Field] | None = None
        self.request_ended = False
        self.replayable = True
        self.held = False  # downstream is paused: the request waits for a stream, or upstream takes no more of it
        # the answer
        self.tunnel = False
        self.response_ended = False

    # ---------------------------------------------------------------- the way there

    def begin(self, route: Route, extra: list[Field], end: bool) -> None:
        """Send the request on its way.  `extra`: fields this proxy adds, whatever the endpoint."""
        self.route = route
        self.extra = extra
        self.request_ended = end
        route.series.request()
        now = self.ctx.now
        deadlines = route.deadlines
        if deadlines is not None:
            deadlines.add(self, now)
        if self.head.grpc_timeout and self.head.grpc and self.too_late(now):
            return
        route.budget.deposit(now)
        self.backend = backend = route.draw()
        if backend is None:
            self.refuse(NO_BACKEND)
        else:
            self.attempt(None, NO_ENDPOINTS)

    def too_late(self, now: float) -> bool:
        """Note the deadline of a gRPC call.  True if it has passed already (`0m`): then the call has been answered."""
        timeout = parse_timeout(self.head.grpc_timeout)
        if timeout < 0.0:
            return False  # malformed: the server's to judge
        self.deadline = deadline = self.started + timeout
        if deadline <= now:
            self.timed_out()
            return True
        self.ctx.deadlines.wheel.add(self, deadline, now)
        return False

    def deadline_passed(self) -> bool:
        """Is it over, or so nearly over that whoever else watches the deadline may be acting on it?"""
        deadline = self.deadline
        if deadline == 0.0:
            return False
        whole = deadline - self.started
        return self.ctx.now >= deadline - min(_DEADLINE_SLACK_S, whole / 4.0) - whole * _DEADLINE_ROUNDING

    def attempt(self, failed: Endpoint | None, otherwise: Refusal) -> None:
        """Choose an endpoint of the drawn backend (a retry stays within it, and avoids the endpoint that `failed`).
        With no one left to ask the answer is `otherwise`: for a retry, why the attempt before it failed."""
        ctx = self.ctx
        backend = self.backend
        assert backend is not None
        now = ctx.now
        endpoint = pick(backend.endpoints, ctx.rng, now, failed)
        if endpoint is None:
            endpoints = backend.endpoints
            if not endpoints or failed is not None:
                self.refuse(otherwise)
                return
            # Every endpoint is in its back-off.  Trying one anyway costs one refused connect, gives the client the true
            # reason, and finds an endpoint that came back at once.
            endpoint = endpoints[ctx.rng.below(len(endpoints))]
        self.endpoint = endpoint
        self.attempts += 1
        if failed is not None and self.route is not None:
            self.route.series.retried()
        self.attempt_started = now
        endpoint.load.start(now)
        self.pending = True
        endpoint.series.request()
        self.enter(WAITING)
        endpoint.acquire(self, self.head)

    def attached(self, stream: Stream) -> None:
        try:
            self.send(stream)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("attached")

    def send(self, stream: Stream) -> None:
        """Send the request, or what there is of it, on a stream that was just opened for it."""
        endpoint = self.endpoint
        assert endpoint is not None
        self.up = stream
        self.enter(SENT)
        if self.held:  # before anything is sent: what is sent may be too much for upstream, and pause downstream again
            self.held = False
            self.down.resume()
        extra = self.extra
        added = endpoint.extra(self.head)
        if added:
            extra = extra + added if extra else added
        body = self.body
        trailers = self.trailers
        ended = self.request_ended
        head = self.head
        if self.deadline > 0.0 and self.ctx.now - self.started > _UNNOTICED_S:  # it waited for a stream, or is sent again
            head = with_timeout(head, self.deadline - self.ctx.now)
        if body is None:
            stream.send_head(head, extra, ended and trailers is None)
        else:
            stream.send_head(head, extra, False)
            last = len(body) - 1
            for i, data in enumerate(body):
                stream.send_data(data, ended and trailers is None and i == last)
            if self.up is not stream:
                return  # the stream refused the head, and the request waits for another one already
            if self.body_bytes > self.ctx.settings.replay_bytes or not self.ctx.pressure.keep_bodies:
                self.not_replayable()
        if trailers is not None:
            stream.send_trailers(trailers)

    def request_data(self, data: bytes, end: bool) -> None:
        if end:
            self.request_ended = True
        up = self.up
        if self.replayable:
            if self.body is None:
                self.body = []
            self.body.append(data)
            size = len(data)
            self.body_bytes += size
            pressure = self.ctx.pressure
            pressure.hold(size)
            if self.body_bytes > self.ctx.settings.replay_bytes or not pressure.keep_bodies:
                if up is not None:
                    self.not_replayable()
                elif not self.held and not end:  # no stream yet: keep it, and stop the client from sending more
                    self.held = True
                    self.down.pause()
        if up is not None:
            up.send_data(data, end)
        if end and self.tunnel and self.response_ended:
            self.complete()

    def request_trailers(self, fields: list[Field]) -> None:
        self.request_ended = True
        self.trailers = fields
        if self.up is not None:
            self.up.send_trailers(fields)
        if self.tunnel and self.response_ended:
            self.complete()

    def not_replayable(self) -> None:
        self.replayable = False
        self.drop_body()

    def drop_body(self) -> None:
        if self.body is not None:
            self.body = None
            self.ctx.pressure.hold(-self.body_bytes)

    # ---------------------------------------------------------------- the way back

    def response_interim(self, head: Head) -> None:
        self.down.send_interim(head)

    def response_head(self, head: Head, end: bool) -> None:
        try:
            if self.state == SENT:
                self.answer(head, end)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_head")

    def answer(self, head: Head, end: bool) -> None:
        """The endpoint's answer begins: pass it on, unless the route says to try again."""
        route = self.route
        assert route is not None
        status = head.status
        request = self.head
        if request.grpc:
            self.answers_grpc = head.grpc and request.version == 20  # an HTTP/1 client may not get to see trailers
            if head.grpc_status:
                self.grpc_status = parse_grpc_status(head.grpc_status)
        if route.retry_responses and not is_success(status, self.grpc_status):
            self.status = status
            if self.may_retry(Failure(RESPONDED, status, self.grpc_status), False):
                self.abandon()
                self.retry(UPSTREAM_RESET)
                return
        self.status = status
        if (status < 300 and (request.method == b"CONNECT" or request.protocol)) and not self.tunnel_granted(head):
            return
        self.enter(RESPONDING)
        self.not_replayable()
        extra = NO_FIELDS
        endpoint = self.endpoint
        if head.mesh and endpoint is not None and endpoint.speaks == SPEAKS_MESH:
            extra = [field for field in head.mesh if field.name == b"mesh-error"]
        if route.via is not None:
            extra = [*extra, route.via.field(head)]
        if self.tunnel and request.protocol:
            extra = [*extra, *websocket.granting(request, head)]
            head = websocket.granted(request, head)
        self.down.send_head(head, extra, end)
        if end:
            self.response_over()

    def tunnel_granted(self, head: Head) -> bool:
        """A 101 or 2xx to a request for a tunnel.  False if that cannot go to the client: it was refused instead."""
        request = self.head
        if request.protocol and head.status != 101 and head.version != 20:
            # A 2xx from HTTP/1.1 declines an Upgrade.  An HTTP/1.1 client reads it so; to an HTTP/2 client, which asked by
            # extended CONNECT, the same 2xx would grant the tunnel (RFC 8441 5), so it may not get there.
            if request.method != b"CONNECT":
                return True
            self.abandon()
            self.refuse(UPGRADE_DECLINED)
            return False
        self.tunnel = True
        route = self.route
        if route is not None and route.deadlines is not None:
            route.deadlines.remove(self)  # the answer is here; how long a tunnel lives is the matter of its ends
        return True

    def response_data(self, data: bytes, end: bool) -> None:
        try:
            if self.first_byte_s < 0.0:
                self.first_byte()
            self.down.send_data(data, end)
            if end:
                self.response_over()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_data")

    def response_trailers(self, fields: list[Field]) -> None:
        try:
            for field in fields:
                if field.kind == GRPC_STATUS and self.head.grpc:  # judged by what was asked for, as Linkerd does
                    self.grpc_status = parse_grpc_status(field.value)
            self.down.send_trailers(fields)
            self.response_over()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_trailers")

    def response_over(self) -> None:
        if self.tunnel and not self.request_ended:
            self.response_ended = True  # half-closed; the other direction goes on
            return
        self.complete()

    def complete(self) -> None:
        if self.first_byte_s < 0.0:
            self.first_byte()
        up = self.up
        self.record_attempt(self.status, self.grpc_status)
        self.record_exchange(self.status, self.grpc_status)
        if up is not None and not self.request_ended:
            # The answer came before the request was complete: the rest of it is not wanted (RFC 9113 8.1)
            up.reset(NO_ERROR)

    # ---------------------------------------------------------------- what can go wrong

    def unreachable(self, refusal: Refusal) -> None:
        if self.state != WAITING:
            return
        try:
            self.attempt_failed(refusal.reason, not refusal.ours)
            if not refusal.ours and self.may_retry(_UNREACHED, True):
                self.retry(refusal)
            else:
                self.refuse(DEADLINE_EXCEEDED if self.deadline_passed() else refusal)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("unreachable")

    def response_reset(self, code: int, unprocessed: bool) -> None:
        try:
            self.lost(code, unprocessed)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_reset")

    def lost(self, code: int, unprocessed: bool) -> None:
        """The upstream stream ended before the answer was complete."""
        self.up = None
        if self.state == SENT:
            if self.deadline_passed():
                self.attempt_failed("deadline_exceeded")
                self.refuse(DEADLINE_EXCEEDED)
                return
            self.attempt_failed("reset")
            refusal = UPSTREAM_RESET if unprocessed else _ENDED_BY.get(code, UPSTREAM_RESET)
            if self.may_retry(_BROKEN_GRPC if self.head.grpc else _BROKEN, unprocessed):
                self.retry(refusal)
            else:
                self.refuse(refusal)
        elif self.response_ended and code == NO_ERROR:
            # A tunnel whose far end has closed altogether: all that it said is on its way, and it wants no more.
            down = self.down
            self.complete()
            down.reset(NO_ERROR)
        elif self.state == RESPONDING:
            # Part of the answer is out: the client must see that it is not complete (RFC 9112 8), never a clean end.
            if self.deadline_passed():
                self.attempt_failed("deadline_exceeded")
                self.end(DEADLINE_EXCEEDED, CANCEL)
                return
            self.attempt_failed("reset")
            gone = code == CONNECT_ERROR and not self.tunnel
            if gone and self.answers_grpc:
                self.end(UPSTREAM_RESET, INTERNAL_ERROR)  # UNAVAILABLE: what its client says of a connection of its own
                return
            down = self.down
            self.record_exchange_failed("upstream_reset")
            down.reset(INTERNAL_ERROR if gone or code == NO_ERROR else code)

    def may_retry(self, failure: Failure, unprocessed: bool) -> bool:
        route = self.route
        assert route is not None
        if self.deadline_passed():
            route.series.retry_skipped("deadline")
            return False
        verdict = decide(
            route.retry,
            route.budget,
            self.ctx.now,
            self.attempts,
            failure,
            is_idempotent(self.head.method),
            unprocessed,
            self.replayable,
            self.state == RESPONDING,
        )
        if verdict == RETRY:
            return True
        route.series.retry_skipped(REASONS[verdict])
        return False

    def retry(self, otherwise: Refusal) -> None:
        failed = self.endpoint
        self.up = None
        self.attempt(failed, otherwise)

    def abandon(self) -> None:
        """Leave the current attempt: its answer is not the one the client gets."""
        up = self.up
        self.up = None
        if up is not None:
            up.sink = NULL_SINK
            up.reset(CANCEL)
        self.first_byte()
        self.first_byte_s = -1.0
        self.record_attempt(self.status, self.grpc_status)
        self.grpc_status = NO_GRPC

    def request_reset(self, code: int) -> None:
        """The client went away: cancel upstream at once, so that no one works for nobody."""
        if self.state == DONE:
            return
        if self.deadline_passed():  # its own timer was faster than ours
            self.leave_endpoint("deadline_exceeded")
            self.record_exchange(200, GRPC_DEADLINE_EXCEEDED)
            return
        self.leave_endpoint("")
        route = self.finish()
        if route is not None:
            route.series.cancelled()

    def overloaded(self) -> None:
        if self.state == DONE:
            return
        self.leave_endpoint("")
        self.end(OVERLOADED, ENHANCE_YOUR_CALM)

    def finish(self) -> Route | None:
        if self.body is not None:
            self.drop_body()
        return super().finish()

    def timed_out(self) -> None:
        if self.state == DONE:
            return
        try:
            if self.deadline_passed():
                self.leave_endpoint("deadline_exceeded")
                self.end(DEADLINE_EXCEEDED, CANCEL)
            else:
                self.leave_endpoint("timeout")
                self.end(REQUEST_TIMEOUT, CANCEL)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("timed_out")

    def broken(self, where: str) -> None:
        """An exception inside a callback: a fault of ours.  The exchange ends here and now, whatever state it was in; the
        connections that carry it, and all other exchanges, go on."""
        ctx = self.ctx
        ctx.escaped(where)
        down = self.down
        if self.state != DONE:
            try:
                self.leave_endpoint("internal_error")
            except Exception:  # noqa: BLE001 - counted and logged by `escaped`; the client is answered all the same
                ctx.escaped(where)
            try:
                self.end(INTERNAL, INTERNAL_ERROR)
            except Exception:  # noqa: BLE001 - counted and logged by `escaped`; `reset` below ends what is left
                ctx.escaped(where)
                self.finish()
        down.reset(INTERNAL_ERROR)  # does nothing if an answer is complete

    def end(self, refusal: Refusal, code: int) -> None:
        """End the exchange: refused if nothing of an answer is out yet, else reset with `code`; a gRPC answer ends with a
        status in trailers, unless its client takes nothing more (they would wait behind what it does not read)."""
        if self.state == RESPONDING:
            down = self.down
            if self.answers_grpc and not self.stalled:
                self.ctx.refused(refusal.reason, self.direction)
                self.record_exchange(self.status, refusal.grpc)
                down.send_trailers(refusal.grpc_trailers)
                return
            self.record_exchange_failed(refusal.reason)
            down.reset(code)
        else:
            self.refuse(refusal)

    def leave_endpoint(self, error: str) -> None:
        """End the current attempt from our side."""
        endpoint = self.endpoint
        if self.state == WAITING and endpoint is not None:
            endpoint.pool(self.head).cancel(self)
        up = self.up
        self.up = None
        if up is not None:
            up.sink = NULL_SINK
            up.reset(CANCEL)
        if endpoint is not None and self.state != DONE:
            self.attempt_failed(error)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in the endpoint's place.  Names itself in the status, `mesh-error`, a counter and the log."""
        if self.state == DONE or self.state == RESPONDING:
            return
        self.ctx.refused(refusal.reason, self.direction)
        down = self.down
        head = self.head
        if self.meshed and refusal.reset != NO_ERROR:
            # The peer's proxy decides what its client gets: it may have another endpoint, and it knows from the code
            # whether this one can have acted on the request.
            self.record_exchange_failed(refusal.reason)
            down.reset(refusal.reset)
            return
        if head.grpc:
            self.record_exchange(200, refusal.grpc)
        else:
            self.record_exchange(refusal.status, NO_GRPC)
        send_refusal(down, head, refusal)

    # ---------------------------------------------------------------- back-pressure

    def request_blocked(self) -> None:
        if not self.request_ended:
            self.held = True
            self.down.pause()

    def request_unblocked(self) -> None:
        self.held = False
        self.down.resume()

    def response_blocked(self) -> None:
        self.stalled = True
        if self.up is not None:
            self.up.pause()

    def response_unblocked(self) -> None:
        self.stalled = False
        if self.up is not None:
            self.up.resume()
