"""An attempt: what one endpoint does for an exchange.  The part of an exchange that deals with endpoints.

    choose --> WAITING --attached--> SENT --response head--> ...      proxy/exchange.py: the client's side of it
      ^           |                    |
      |           | unreachable        | lost, or an answer that is retried
      +---------- may_retry? <---------+
                  | no
                  +--> refuse (the exchange's): why the last attempt failed

What has been sent is kept as long as it may have to be sent again (`body`): up to a bound, and until an answer begins.

Sending can call back: a stream may refuse its head, or be answered, before `send_head` returns.  Whoever sends therefore
looks at the state again afterwards.
"""

from __future__ import annotations

from math import inf
from time import monotonic
from typing import Final

from meshproxy.policy.balancer import Target, pick
from meshproxy.policy.chooser import Chooser
from meshproxy.policy.classify import GRPC_DEADLINE_EXCEEDED, NO_GRPC
from meshproxy.policy.deadline import with_timeout
from meshproxy.policy.ejection import is_out
from meshproxy.policy.retry import BROKEN, CONNECT_FAILED, REASONS, RETRY, Failure, decide, is_idempotent
from meshproxy.policy.retry import TIMED_OUT as TIMED_OUT_KIND
from meshproxy.policy.retry import TRY_TIMED_OUT as TRY_TIMED_OUT_KIND
from meshproxy.proxy.endpoint import SPEAKS_MESH, Endpoint
from meshproxy.proxy.outcome import DONE, RESPONDING, SENT, WAITING, Outcome
from meshproxy.proxy.refusals import (
    CIRCUIT_OPEN,
    DEADLINE_EXCEEDED,
    UPSTREAM_RESET,
    Refusal,
    ended_by,
)
from meshproxy.proxy.requester import Requester
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.timers import DeadlineQueue
from meshproxy.wire.engine import CANCEL, CONNECT_ERROR, NO_FIELDS, NULL_SINK, Stream
from meshproxy.wire.message import Field, Head
from meshproxy.wire.pieces import join

UNREACHED: Final = Failure(CONNECT_FAILED)
_BROKEN: Final = Failure(BROKEN)

_TIMED_OUT: Final = Failure(TIMED_OUT_KIND)
_TIMED_OUT_GRPC: Final = Failure(TIMED_OUT_KIND, 0, GRPC_DEADLINE_EXCEEDED)
_TRY_TIMED_OUT: Final = Failure(TRY_TIMED_OUT_KIND)
_TRY_TIMED_OUT_GRPC: Final = Failure(TRY_TIMED_OUT_KIND, 0, GRPC_DEADLINE_EXCEEDED)

# What the other ends do about a deadline can arrive before our own timer fires: their clocks began with their own request,
# the wheel's tick is 10 ms, and grpc's libraries round what they send up, by as much as 1 %.
_DEADLINE_SLACK_S: Final = 0.02  # but no more than a quarter of it all
_DEADLINE_ROUNDING: Final = 0.01
# Less time than this in the proxy is not taken off: the head can then be sent on as it is, memoised bytes and all.
_UNNOTICED_S: Final = 0.001


class TryTimer(Requester):
    """What stands in the queue for an attempt's own timeout, so that the exchange can stand in others."""

    def __init__(self, attempt: Attempt, tries: DeadlineQueue) -> None:
        self.attempt = attempt
        self.tries = tries

    def timed_out(self) -> None:
        attempt = self.attempt
        if attempt.try_timer is self:
            attempt.try_timer = None
            attempt.try_timed_out()


class Attempt(Outcome):
    backend: Backend | None = None
    extra: list[Field] = NO_FIELDS
    attempts: int = 0
    deadline: float = 0.0  # when the time that its client gave it is up (monotonic seconds), 0.0: never
    until: float = 0.0  # when it is up for whom it is sent to: that, or the route's timeout where that goes on; 0.0: never
    # the request, beside its body
    trailers: list[Field] | None = None
    request_ended: bool = False
    replayable: bool = True
    held: bool = False  # downstream is paused: the request waits for a stream, or upstream takes no more of it
    try_timer: TryTimer | None = None
    told: list[Target] | None = None  # who told this request to wait, longer than it would: at most one for each attempt

    # -- the exchange's

    def refuse(self, refusal: Refusal) -> None:
        raise NotImplementedError

    def broken(self, where: str) -> None:
        raise NotImplementedError

    def try_timed_out(self) -> None:
        raise NotImplementedError

    # ---------------------------------------------------------------- the way there

    def attempt(self, failed: Endpoint | None, otherwise: Refusal) -> None:
        """Choose an endpoint of the drawn backend (a retry stays within it, and avoids the endpoint that `failed`; who told
        this request to wait does not get it again).
        With no one left to ask the answer is `otherwise`: for a retry, why the attempt before it failed."""
        ctx = self.ctx
        backend = self.backend
        assert backend is not None
        now = ctx.now
        endpoint = backend.sole
        if endpoint is None or failed is not None:
            endpoints = backend.endpoints
            if backend.chooser is None:
                if failed is not None and self.told is not None:
                    endpoint = pick([one for one in endpoints if one not in self.told], ctx.rng, now, failed)
                else:
                    endpoint = pick(endpoints, ctx.rng, now, failed)
            else:
                endpoint = self.choose(backend.chooser, failed)
            if endpoint is None:
                if not backend.endpoints:
                    ctx.backend_empty(backend.name)
                if not endpoints or failed is not None:
                    self.refuse(otherwise)
                    return
                if backend.chooser is not None:
                    endpoints = [one for one in endpoints if not is_out(one)]
                    if not endpoints:
                        self.refuse(CIRCUIT_OPEN)  # failfast, until a probe succeeds
                        return
                # Every endpoint is in its back-off.  Trying one anyway costs one refused connect, gives the client the true
                # reason, and finds an endpoint that came back at once.
                endpoint = endpoints[ctx.rng.below(len(endpoints))]
            if failed is not None and self.route is not None:
                self.route.series.retried()
        self.endpoint = endpoint
        self.attempts += 1
        self.attempt_started = now
        endpoint.load.pending += 1
        self.pending = True
        endpoint.series.request_total += 1
        self.enter(WAITING)
        pool = endpoint.sole_pool
        if pool is None:
            pool = endpoint.pool(self.head)
        pool.acquire(self)

    def choose(self, chooser: Chooser, failed: Endpoint | None) -> Endpoint | None:
        """As the backend declares: its breaker, its balancer, by a key of the request where that has a say."""
        key = chooser.policy.key
        chosen = chooser.pick(self.ctx.now, failed, key.of(self.head) if key is not None else None, self.told)
        assert chosen is None or isinstance(chosen, Endpoint)
        return chosen

    def attached(self, stream: Stream) -> None:
        """Send the request, or what there is of it, on a stream that was just opened for it."""
        try:
            self.up = stream
            self.enter(SENT)
            if self.held:  # before anything is sent: what is sent may be too much for upstream, and pause downstream again
                self.held = False
                self.down.resume()
            head = self.head
            extra = self.extra
            endpoint = self.endpoint
            if endpoint is not None and endpoint.speaks == SPEAKS_MESH:
                added = endpoint.extra(head)
                extra = extra + added if extra else added
            if self.until > 0.0:
                head = self.telling(head)
            body = self.body  # these as they are now: the answer may be here before `send_head` returns
            trailers = self.trailers
            whole = self.request_ended and trailers is None
            if body is None:
                stream.send_head(head, extra, whole)
            else:
                stream.send_head(head, extra, False)
                if not self.send_body(stream, body, whole):
                    return
            if trailers is not None:
                stream.send_trailers(trailers)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("attached")

    def telling(self, head: Head) -> Head:
        """The head with the time that is left: another one if it waited for a stream, or is sent again."""
        now = self.ctx.now
        if self.until == self.deadline and now - self.started <= _UNNOTICED_S:
            return head
        return with_timeout(head, self.until - now)

    def send_body(self, stream: Stream, body: list[bytes], whole: bool) -> bool:
        """Send what has been kept; `whole`: that is all.  False if the stream refused the head, and the request waits for
        another one already."""
        last = len(body) - 1
        for i, data in enumerate(body):
            stream.send_data(data, whole and i == last)
        if self.up is not stream:
            return False
        if self.body_bytes > self.ctx.settings.replay_bytes or not self.ctx.pressure.keep_bodies:
            self.not_replayable()
        return True

    def keep(self, data: bytes, end: bool) -> None:
        """More of the body, while it may have to be sent (again)."""
        if self.body is None:
            self.body = []
        join(self.body, data)
        size = len(data)
        self.body_bytes += size
        pressure = self.ctx.pressure
        pressure.hold(size)
        if self.body_bytes > self.ctx.settings.replay_bytes or not pressure.keep_bodies:
            if self.up is not None:
                self.not_replayable()
            elif not self.held and not end:  # no stream yet: keep it, and stop the client from sending more
                self.held = True
                self.down.pause()

    def not_replayable(self) -> None:
        self.replayable = False
        self.drop_body()

    # ---------------------------------------------------------------- what can go wrong

    def unreachable(self, refusal: Refusal) -> None:
        if self.state != WAITING:
            return
        try:
            self.attempt_failed(refusal.reason, not refusal.ours)
            if not refusal.ours and self.may_retry(UNREACHED, True):
                self.retry(refusal, UNREACHED)
            else:
                self.refuse(DEADLINE_EXCEEDED if self.deadline_passed() else refusal)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("unreachable")

    def lost_unanswered(self, code: int, unprocessed: bool) -> None:
        """The upstream stream ended, and no answer had begun."""
        if self.deadline_passed():
            self.deadline_failed()
            self.refuse(DEADLINE_EXCEEDED)
            return
        self.attempt_failed("reset")
        grpc = self.head.grpc
        endpoint = self.endpoint
        meshed = endpoint is not None and endpoint.speaks == SPEAKS_MESH
        refusal = UPSTREAM_RESET if unprocessed else ended_by(code, grpc, meshed)
        failure = Failure(BROKEN, 0, refusal.grpc) if grpc else _BROKEN  # to a gRPC client: as it would see it
        if not unprocessed and self.meshed and self.left_to_peer(code):
            self.refuse(refusal)
        elif self.may_retry(failure, unprocessed):
            self.retry(refusal, failure)
        else:
            self.refuse(refusal)

    def left_to_peer(self, code: int) -> bool:
        """Is it the mesh peer's to decide about another attempt?  It has other endpoints, and its tries and ours would
        multiply.  Ours is a connection to the app that was closed at the moment of reuse: nobody else can know of that."""
        if not is_idempotent(self.head.method) or (code == CONNECT_ERROR and not self.unraced):
            return False
        assert self.route is not None
        self.route.series.retry_skipped("left_to_peer")
        return True

    def overdue(self, by_rule: bool) -> Failure:
        """The failure of an attempt that took too long; `by_rule`: longer than its rule gives each."""
        if self.head.grpc:
            return _TRY_TIMED_OUT_GRPC if by_rule else _TIMED_OUT_GRPC
        return _TRY_TIMED_OUT if by_rule else _TIMED_OUT

    def may_retry(self, failure: Failure, unprocessed: bool) -> bool:
        route = self.route
        assert route is not None
        if self.deadline_passed() or self.ends_before(route, failure):
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

    def retry(self, otherwise: Refusal, failure: Failure) -> None:
        failed = self.endpoint
        self.up = None
        self.unraced = False
        route = self.route
        assert route is not None
        if route.rule is not None:
            self.stop_try()
        policy = route.retry
        if not policy.waits_after(failure):
            self.again(failed, otherwise)
            return
        # No endpoint is asked meanwhile.  The timer finds out by itself if the exchange has ended.
        self.endpoint = None
        self.enter(WAITING)
        wait = policy.wait_s(self.attempts, self.ctx.rng)
        if self.ctx.now + wait >= self.over_at(route):  # what chance adds is not worth the try: see `ends_before`
            wait = policy.least_wait(self.attempts)
        self.ctx.loop.call_later(wait, self.waited, failed, otherwise)

    def waited(self, failed: Endpoint | None, otherwise: Refusal) -> None:
        if self.state != WAITING:
            return
        self.ctx.now = monotonic()
        try:
            self.again(failed, otherwise)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("waited")

    def again(self, failed: Endpoint | None, otherwise: Refusal) -> None:
        """Try again now."""
        route = self.route
        rule = route.rule if route is not None else None
        if rule is not None and rule.tries is not None:
            self.time_try(rule.tries)
        self.attempt(failed, otherwise)

    def time_try(self, tries: DeadlineQueue) -> None:
        """The next attempt may take so long."""
        self.try_timer = timer = TryTimer(self, tries)
        tries.add(timer, self.ctx.now)

    def stop_try(self) -> None:
        timer = self.try_timer
        if timer is not None:
            self.try_timer = None
            timer.tries.remove(timer)

    def deadline_passed(self) -> bool:
        """Is it over, or so nearly over that whoever else watches the deadline may be acting on it?"""
        deadline = self.deadline
        if deadline == 0.0:
            return False
        whole = deadline - self.started
        rounding = whole * _DEADLINE_ROUNDING if self.head.grpc else 0.0
        return self.ctx.now >= deadline - min(_DEADLINE_SLACK_S, whole / 4.0) - rounding

    def over_at(self, route: Route) -> float:
        """When all of its time is up: by the deadline that its client set, or the route's timeout (monotonic seconds)."""
        over = self.deadline if self.deadline > 0.0 else inf
        deadlines = route.deadlines
        return over if deadlines is None else min(over, self.started + deadlines.duration_s)

    def ends_before(self, route: Route, failure: Failure) -> bool:
        """Would its time be up while the next try waits?  Then there is none: what is known is told."""
        policy = route.retry
        return policy.waits_after(failure) and self.ctx.now + policy.least_wait(self.attempts) >= self.over_at(route)

    # ---------------------------------------------------------------- leaving an endpoint

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

    def deadline_failed(self) -> None:
        """The attempt ended because of the deadline that the client set.  Anybody can set one over plain HTTP, also who comes
        in by a gateway, and as short as he likes: no endpoint is thought less of for that."""
        self.attempt_failed("deadline_exceeded", self.head.grpc)

    def leave_endpoint(self, error: str, blame: bool = True) -> None:
        """End the current attempt from our side.  `blame`: as `attempt_failed`'s."""
        endpoint = self.endpoint
        if self.state == WAITING and endpoint is not None:
            endpoint.pool(self.head).cancel(self)
        up = self.up
        self.up = None
        if up is not None:
            up.sink = NULL_SINK
            up.reset(CANCEL)
        if endpoint is not None and self.state != DONE:
            self.attempt_failed(error, blame)
