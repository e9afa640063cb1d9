"""An exchange whose Service declares more times than one for the whole request.

    begin ---------------------------- idle: nothing moves, in either direction -----------------------> end
      attempt: choose --> SENT --> the request is sent whole --response_start--> answer begins --> its end
                                                 `-------------------response----------------------------^

**response_start** and **response** begin where the endpoint's turn does: when all of the request has been handed on.  An upload
takes as long as its client takes, and a call that streams both ways ends its request last; neither says anything about the
endpoint.  (Linkerd and Envoy count from there, too.)  An answer that begins earlier starts **response** itself.
Both belong to the attempt, and are tried again as a try's timeout is.

**idle** is the exchange's: what moves takes one store, and the timer finds out when it fires.  A client that takes no more of
its answer is not told by it but by the stall timeout, which sees every byte that the socket takes.

Routes that declare none of this have plain exchanges: they pay one attribute test, where a request is given its exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshproxy.policy.deadline import ServiceTimes
from meshproxy.policy.retry import Failure
from meshproxy.proxy.context import Context
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.outcome import DONE, RESPONDING, SENT
from meshproxy.proxy.refusals import IDLE_TIMEOUT, RESPONSE_START_TIMEOUT, RESPONSE_TIMEOUT, Refusal
from meshproxy.proxy.requester import Requester
from meshproxy.wire.engine import CANCEL, Stream
from meshproxy.wire.message import Field, Head

if TYPE_CHECKING:
    from meshproxy.proxy.route import Route
    from meshproxy.proxy.timers import DeadlineQueue


class Times:
    """What a Service declares, ready to use.  Queues: None without that time; idle_s: 0.0 without."""

    def __init__(self, ctx: Context | None, declared: ServiceTimes) -> None:
        self.idle_s = declared.idle_s
        self.propagate = declared.propagate
        self.response_start: DeadlineQueue | None = None
        self.response: DeadlineQueue | None = None
        if ctx is not None:
            if declared.response_start_s > 0.0:
                self.response_start = ctx.deadlines.queue(declared.response_start_s)
            if declared.response_s > 0.0:
                self.response = ctx.deadlines.queue(declared.response_s)


NO_TIMES: Final = Times(None, ServiceTimes())


class AnswerTimer(Requester):
    """Stands in a queue for what an attempt's answer may take."""

    def __init__(self, exchange: TimedExchange, queue: DeadlineQueue, refusal: Refusal) -> None:
        self.exchange = exchange
        self.queue = queue
        self.refusal = refusal

    def timed_out(self) -> None:
        self.exchange.answer_late(self)


class IdleTimer(Requester):
    """Stands in the wheel for the exchange's silence."""

    def __init__(self, exchange: TimedExchange) -> None:
        self.exchange = exchange

    def timed_out(self) -> None:
        self.exchange.look_idle(self)


class TimedExchange(Exchange):
    start_timer: AnswerTimer | None = None
    response_timer: AnswerTimer | None = None
    idle_timer: IdleTimer | None = None
    moved: float = 0.0  # when something moved last (monotonic seconds)

    def __init__(self, ctx: Context, down: Stream, head: Head, direction: str, times: Times) -> None:
        super().__init__(ctx, down, head, direction, False)
        self.times = times

    # ---------------------------------------------------------------- the way there

    def begin(self, route: Route, extra: list[Field], end: bool) -> None:
        times = self.times
        if times.propagate and route.deadlines is not None:
            self.until = self.started + route.deadlines.duration_s
        if times.idle_s > 0.0:
            self.moved = now = self.ctx.now
            self.idle_timer = timer = IdleTimer(self)
            self.ctx.deadlines.wheel.add(timer, now + times.idle_s, now)
        super().begin(route, extra, end)

    def attached(self, stream: Stream) -> None:
        self.moved = self.ctx.now
        super().attached(stream)
        if self.up is stream and self.request_ended:  # it was neither refused nor lost meanwhile
            self.await_answer()

    def request_data(self, data: bytes, end: bool) -> None:
        self.moved = self.ctx.now
        super().request_data(data, end)
        if end:
            self.await_answer()

    def request_trailers(self, fields: list[Field]) -> None:
        self.moved = self.ctx.now
        super().request_trailers(fields)
        self.await_answer()

    def request_unblocked(self) -> None:
        self.moved = self.ctx.now
        super().request_unblocked()

    def await_answer(self) -> None:
        """All of the request is sent, or the answer has begun: from here on it is the endpoint's time."""
        if self.tunnel or (self.state != SENT and self.state != RESPONDING):
            return
        times = self.times
        now = self.ctx.now
        if times.response_start is not None and self.start_timer is None and self.state == SENT:
            self.start_timer = timer = AnswerTimer(self, times.response_start, RESPONSE_START_TIMEOUT)
            times.response_start.add(timer, now)
        if times.response is not None and self.response_timer is None:
            self.response_timer = timer = AnswerTimer(self, times.response, RESPONSE_TIMEOUT)
            times.response.add(timer, now)

    def retry(self, otherwise: Refusal, failure: Failure) -> None:
        self.stop_start()
        self.stop_response()
        super().retry(otherwise, failure)

    # ---------------------------------------------------------------- the way back

    def response_interim(self, head: Head) -> None:
        self.moved = self.ctx.now
        super().response_interim(head)

    def response_head(self, head: Head, end: bool) -> None:
        self.moved = self.ctx.now
        super().response_head(head, end)
        if self.state == RESPONDING:
            self.stop_start()
            self.await_answer()  # its end, where the request has none yet

    def response_data(self, data: bytes, end: bool) -> None:
        self.moved = self.ctx.now
        super().response_data(data, end)

    def response_unblocked(self) -> None:
        self.moved = self.ctx.now
        super().response_unblocked()

    def tunnel_granted(self, head: Head) -> bool:
        granted = super().tunnel_granted(head)
        if self.tunnel:  # how long it lives, and is silent, is the matter of its ends
            self.stop_response()
            self.stop_idle()
        return granted

    # ---------------------------------------------------------------- time is up

    def answer_late(self, timer: AnswerTimer) -> None:
        if timer is self.start_timer:
            self.start_timer = None
        elif timer is self.response_timer:
            self.response_timer = None
        else:
            return
        self.attempt_timed_out(timer.refusal)

    def look_idle(self, timer: IdleTimer) -> None:
        """It was set when something moved: has it been silent since?"""
        if timer is not self.idle_timer or self.state == DONE:
            return
        now = self.ctx.now
        if self.stalled:
            self.moved = now
        idle_s = self.times.idle_s
        if self.moved + idle_s > now:
            self.ctx.deadlines.wheel.add(timer, self.moved + idle_s, now)
            return
        self.idle_timer = None
        try:
            self.leave_endpoint("timeout", self.request_ended)  # who waits for more of the request is not to blame
            self.end(IDLE_TIMEOUT, CANCEL)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("look_idle")

    # ---------------------------------------------------------------- the end

    def finish(self) -> Route | None:
        self.stop_start()
        self.stop_response()
        self.stop_idle()
        return super().finish()

    def stop_start(self) -> None:
        timer = self.start_timer
        if timer is not None:
            self.start_timer = None
            timer.queue.remove(timer)

    def stop_response(self) -> None:
        timer = self.response_timer
        if timer is not None:
            self.response_timer = None
            timer.queue.remove(timer)

    def stop_idle(self) -> None:
        timer = self.idle_timer
        if timer is not None:
            self.idle_timer = None
            self.ctx.deadlines.wheel.remove(timer)
