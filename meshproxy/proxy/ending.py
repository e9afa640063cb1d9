"""How an exchange ends where no answer ends it: what goes wrong at either side, and what its client is told.

    what happened                    nothing of an answer is out             part of it is
    the endpoint's stream ended      another attempt, or refused             reset; a gRPC answer: status in trailers
    a timeout, a deadline            refused: 504, DEADLINE_EXCEEDED         the same
    an attempt took too long         another attempt, or refused             the same
    too much held, a silent body     refused: 503, 408                       the same
    the client went away             the endpoint's stream is cancelled, and nobody is told
    a fault of ours                  refused: 500                            the same

**A request's own deadline** (`grpc-timeout`, `x-envoy-expected-rq-timeout-ms`) ends it here as a route's timeout does, and goes
on less the time it spent here.  Client, server and every proxy between watch the same deadline, and any may be first;
`deadline_passed` is how what the others do at that moment is read as what it is, so that the client always gets 504 or
DEADLINE_EXCEEDED and the books say so.

A fault of ours in a callback ends this exchange and no other (`broken`).
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.classify import GRPC_DEADLINE_EXCEEDED, NO_GRPC
from meshproxy.proxy.answer import send_refusal
from meshproxy.proxy.attempt import Attempt
from meshproxy.proxy.outcome import DONE, RESPONDING, SENT, WAITING
from meshproxy.proxy.refusals import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    OVERLOADED,
    REQUEST_TIMEOUT,
    SLOW_BODY,
    TRY_TIMEOUT,
    UPSTREAM_RESET,
    Refusal,
)
from meshproxy.wire.engine import CANCEL, CONNECT_ERROR, ENHANCE_YOUR_CALM, INTERNAL_ERROR, NO_ERROR

_CONNECT_STREAM: Final = b"application/connect+"  # Connect's streaming calls; its unary ones are ordinary requests


class Ending(Attempt):
    tunnel: bool = False
    response_ended: bool = False  # a tunnel's far end has closed its half
    answers_grpc: bool = False  # a gRPC answer is under way to a client that can be told how it ended: in trailers
    stalled: bool = False  # downstream takes no more of the answer

    # -- the exchange's

    def complete(self) -> None:
        raise NotImplementedError

    # ---------------------------------------------------------------- the endpoint's side ended

    def response_reset(self, code: int, unprocessed: bool) -> None:
        try:
            self.lost(code, unprocessed)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_reset")

    def lost(self, code: int, unprocessed: bool) -> None:
        """The upstream stream ended before the answer was complete."""
        self.up = None
        if self.state == SENT:
            self.lost_unanswered(code, unprocessed)
        elif self.response_ended and code == NO_ERROR:
            # A tunnel whose far end has closed altogether: all that it said is on its way, and it wants no more.
            down = self.down
            self.complete()
            down.reset(NO_ERROR)
        elif self.state == RESPONDING:
            # Part of the answer is out: the client must see that it is not complete (RFC 9112 8), never a clean end.
            if self.deadline_passed():
                self.deadline_failed()
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

    # ---------------------------------------------------------------- the client's side ended, or time did

    def request_reset(self, code: int) -> None:
        """The client went away: cancel upstream at once, so that no one works for nobody."""
        if self.state == DONE:
            return
        if self.deadline_passed():  # its own timer was faster than ours
            self.leave_endpoint("deadline_exceeded", self.head.grpc)
            if self.head.grpc:
                self.record_exchange(200, GRPC_DEADLINE_EXCEEDED)
            else:
                self.record_exchange(DEADLINE_EXCEEDED.status, NO_GRPC)
            return
        self.leave_endpoint("")
        route = self.finish()
        if route is not None:
            route.series.cancelled()

    def request_silent(self, begun: bool) -> bool:
        """A call that streams both ways may be silent for hours before the server's first word, and who expects 100 (Continue)
        waits for it once."""
        head = self.head
        if self.state == DONE or self.state == RESPONDING or head.grpc or (head.expect_continue and not begun):
            return True
        if (head.field(b"content-type") or b"").startswith(_CONNECT_STREAM):
            return True
        try:
            self.ctx.violation("slow_body")
            self.leave_endpoint("")
            self.end(SLOW_BODY, CANCEL)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("request_silent")
        return True

    def overloaded(self) -> None:
        if self.state == DONE:
            return
        self.leave_endpoint("")
        self.end(OVERLOADED, ENHANCE_YOUR_CALM)

    def timed_out(self) -> None:
        if self.state == DONE:
            return
        try:
            if self.deadline_passed():
                self.leave_endpoint("deadline_exceeded", self.head.grpc)
                self.end(DEADLINE_EXCEEDED, CANCEL)
            else:
                self.leave_endpoint("timeout")
                self.end(REQUEST_TIMEOUT, CANCEL)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("timed_out")

    def try_timed_out(self) -> None:
        self.attempt_timed_out(TRY_TIMEOUT)

    def attempt_timed_out(self, refusal: Refusal) -> None:
        """The current attempt took longer than an attempt may; `refusal` names the timer."""
        try:
            state = self.state
            if state == RESPONDING:
                self.leave_endpoint("timeout")
                self.end(refusal, CANCEL)
            elif state in (WAITING, SENT):
                self.leave_endpoint("timeout")
                failure = self.overdue(refusal is TRY_TIMEOUT)
                if self.may_retry(failure, state == WAITING):
                    self.retry(refusal, failure)
                else:
                    self.refuse(refusal)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("attempt_timed_out")

    # ---------------------------------------------------------------- how it is told

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

    def cut(self, refusal: Refusal) -> None:
        """End a tunnel that may not go on, whatever its state."""
        if self.state == RESPONDING:
            self.ctx.refused(refusal.reason, self.direction)
        self.leave_endpoint("")
        self.end(refusal, CANCEL)

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
        send_refusal(down, head, refusal, self.ctx.dated())
