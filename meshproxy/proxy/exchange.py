"""An exchange: one request of a client and the one answer it gets, whatever happens in between.

                     +---------------------- retry (budget, policy) -----------------------+
                     v                                                                     |
    ROUTED --pick--> WAITING --attached--> SENT --response head--> RESPONDING --end--> DONE
       |                |                    |                         |                ^
       |                | unreachable        | reset                   | reset          |
       +--no backend----+--------------------+----refuse(reason)-------+---reset--------+
                        (client gone, deadline passed: from any state)

An **exchange** is what the client saw; an **attempt** is what one endpoint did.  They are counted apart: the route's
series counts exchanges, each endpoint's series counts attempts.  One object is both; it is told in four files:

    exchange.py   the client's side: what it asked for, what it gets           Exchange
    ending.py     how it ends, and is told, where no answer ends it               is an Ending
    attempt.py    one endpoint's: choosing it, sending, trying another              is an Attempt
    outcome.py    the states and the books                                            is an Outcome

Driven by callbacks, never by a task: requests come from the downstream stream (`request_*`), answers from the upstream
stream (`response_*`), back-pressure crosses over (`…_blocked` of one side pauses the other).
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.classify import NO_GRPC, is_success, parse_grpc_status
from meshproxy.policy.deadline import own_timeout
from meshproxy.policy.retry import RESPONDED, Failure, pushback_asked, wait_asked
from meshproxy.proxy import websocket
from meshproxy.proxy.ending import Ending
from meshproxy.proxy.endpoint import SPEAKS_MESH
from meshproxy.proxy.mirror import Mirror, NoClient
from meshproxy.proxy.outcome import DONE, RESPONDING, SENT
from meshproxy.proxy.refusals import NO_BACKEND, NO_ENDPOINTS, UPGRADE_DECLINED, UPSTREAM_RESET
from meshproxy.proxy.route import Backend, Route
from meshproxy.proxy.rule import Leaf, Rule, redirect_head
from meshproxy.proxy.upgrade import DECLINED, declined, undeclined
from meshproxy.wire.engine import CANCEL, NO_ERROR, NO_FIELDS
from meshproxy.wire.message import GRPC_STATUS, Field, Head

_OVER_LIMIT: Final = b"concurrency_limit"  # of proxy/limited.py, which imports this module
_ANSWERED: Final = Failure(RESPONDED)
_RETRY_AFTER: Final = b"retry-after"
_PUSHBACK: Final = b"grpc-retry-pushback-ms"


class Exchange(Ending):
    copies: list[Exchange] | None = None  # of a request whose body is still coming: for mirrors
    leaf: Leaf | None = None  # what is special about the backend that a rule has drawn
    interims: int = 0  # 1xx that were passed on, of all attempts

    # ---------------------------------------------------------------- the way there

    def begin(self, route: Route, extra: list[Field], end: bool) -> None:
        """Send the request on its way.  `extra`: fields this proxy adds, whatever the endpoint."""
        self.route = route
        self.extra = extra
        self.request_ended = end
        route.series.request_total += 1
        now = self.started
        deadlines = route.deadlines
        if deadlines is not None:
            deadlines.add(self, now)
        head = self.head
        if (head.expected_ms or (head.grpc_timeout and head.grpc)) and self.too_late(now):
            return
        route.budget.deposit(now)
        backend = route.sole
        if backend is None:
            backend = route.draw() if route.rule is None else self.by_rule(route, route.rule)
        self.backend = backend
        if backend is None:
            self.refuse(NO_BACKEND)
        else:
            self.attempt(None, NO_ENDPOINTS)

    def by_rule(self, route: Route, rule: Rule) -> Backend | None:
        """The backend a rule wants for this request, which is made ready for it; None if there is none, or the rule refuses."""
        if rule.mirrors is not None:
            self.copy_to(rule.mirrors)
        refusal = rule.refusal
        leaf: Leaf | None = None
        index = -1
        if refusal is None:
            index = rule.draw(route.split, self.head)
            if index < 0:
                return None
            leaf = rule.leaves[index]
            refusal = leaf.refusal
        if leaf is None or refusal is not None:
            self.refuse(refusal if refusal is not None else NO_BACKEND)
            return None
        self.leaf = leaf
        if leaf.request_headers is not None:
            self.head = self.head.copied(leaf.request_headers.apply(self.head.fields))
        if rule.tries is not None:
            self.time_try(rule.tries)
        return route.backends[index]

    def copy_to(self, mirrors: list[Mirror]) -> None:
        """Begin copies of the request.  Whatever becomes of them is not this exchange's matter."""
        if self.head.protocol or self.head.method == b"CONNECT":
            return  # a tunnel is no request
        copies: list[Exchange] = []
        for mirror in mirrors:
            if not mirror.due():
                continue
            client = NoClient()
            copy = Exchange(self.ctx, client, self.head, self.direction, False)
            client.sink = copy
            try:
                copy.begin(mirror.route, self.extra, self.request_ended)
            except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends the copy only
                copy.broken("copy_to")
            copies.append(copy)
        if copies and not self.request_ended:
            self.copies = copies

    def feed_copies(self, data: bytes, end: bool, trailers: list[Field] | None) -> None:
        """More of the request, for its copies; those that cannot take it are given up."""
        for copy in self.copies or ():
            client = copy.down
            if copy.state == DONE:
                continue
            try:
                if isinstance(client, NoClient) and client.behind(len(data)):
                    copy.request_reset(CANCEL)
                elif trailers is not None:
                    copy.request_trailers(trailers)
                else:
                    copy.request_data(data, end)
            except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends the copy only
                copy.broken("feed_copies")

    def leave_rule(self) -> None:
        self.stop_try()
        copies = self.copies
        if copies is not None:
            self.copies = None
            if not self.request_ended:  # they would wait for what does not come
                for copy in copies:
                    copy.request_reset(CANCEL)

    def redirect(self, route: Route, location: bytes) -> None:
        """Send the client elsewhere, as the rule of `route` says; instead of `begin`."""
        rule = route.rule
        status = rule.spec.redirect.status if rule is not None and rule.spec.redirect is not None else 302
        self.route = route
        route.series.request_total += 1
        down = self.down
        self.record_exchange(status, NO_GRPC)
        down.send_head(redirect_head(status, location), self.ctx.dated(), True)

    def too_late(self, now: float) -> bool:
        """Note the deadline that its client has set.  True if it has passed already (`0m`): then it has been answered."""
        head = self.head
        timeout = own_timeout(head)
        if timeout < 0.0:
            return False  # malformed: the server's to judge
        self.deadline = deadline = self.started + timeout
        until = self.until
        route = self.route
        if until == 0.0 and head.expected_ms and route is not None and route.deadlines is not None:
            until = self.started + route.deadlines.duration_s
        self.until = until if 0.0 < until < deadline else deadline
        if deadline <= now:
            self.timed_out()
            return True
        self.ctx.deadlines.wheel.add(self, deadline, now)
        return False

    def request_data(self, data: bytes, end: bool) -> None:
        if end:
            self.request_ended = True
        if self.copies is not None:
            self.feed_copies(data, end, None)
        if self.replayable:
            self.keep(data, end)
        up = self.up
        if up is not None:
            up.send_data(data, end)
        if end and self.tunnel and self.response_ended:
            self.complete()

    def request_trailers(self, fields: list[Field]) -> None:
        self.request_ended = True
        self.trailers = fields
        if self.copies is not None:
            self.feed_copies(b"", True, fields)
        if self.up is not None:
            self.up.send_trailers(fields)
        if self.tunnel and self.response_ended:
            self.complete()

    # ---------------------------------------------------------------- the way back

    def response_interim(self, head: Head) -> None:
        """Passed on, up to the limit of one answer: to the next proxy those of several attempts are of one answer.  One place
        is kept for the 100 (Continue) that a client waits for."""
        self.unraced = True
        most = self.ctx.settings.limits.interim_responses
        if head.status != 100 and self.head.expect_continue:
            most -= 1
        if self.interims < most:
            self.interims += 1
            self.down.send_interim(head)

    def response_head(self, head: Head, end: bool) -> None:
        """The endpoint's answer begins: pass it on, unless the route says to try again."""
        if self.state != SENT:
            return
        try:
            route = self.route
            assert route is not None
            request = self.head
            status = head.status
            if request.grpc:
                self.answers_grpc = head.grpc and request.version == 20  # an HTTP/1 client may not get to see trailers
                if head.grpc_status:
                    self.grpc_status = parse_grpc_status(head.grpc_status)
                    if self.grpc_status > 0:
                        self.asked_to_wait(head.fields)
            self.status = status
            if status >= 429:
                if status == DECLINED and request.protocol:
                    head = self.carried(head)
                    self.status = status = head.status
                if status == 429 or status == 503:
                    self.asked_to_wait(head.fields)
                elif status == 504 and self.deadline_passed():  # the proxy behind was faster than our timer
                    self.timed_out()
                    return
            if (
                route.retry_responses
                and route.retry.asks(status, self.grpc_status)
                and not self.told_to_wait(route, head)
                and not self.last_resort(route)
                and self.may_retry(Failure(RESPONDED, status, self.grpc_status), False)
            ):
                if head.mesh:
                    self.limited = self.limits(head)
                self.abandon()
                self.limited = False
                self.retry(UPSTREAM_RESET, _ANSWERED)
                return
            if status < 300 and (request.protocol or request.method == b"CONNECT"):
                if not self.tunnel_granted(head):
                    return
                if not self.tunnel:
                    head = declined(request, head)
            self.state = RESPONDING  # it was SENT: see above
            self.replayable = False
            if self.body is not None:
                self.drop_body()
            if head.mesh or route.alters or self.tunnel:
                self.send_changed_head(head, end)
            elif head.dated:
                self.down.send_head(head, NO_FIELDS, end)
            else:
                self.down.send_head(head, self.ctx.dated(), end)
            if end:
                self.response_over()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_head")

    def send_changed_head(self, head: Head, end: bool) -> None:
        """Pass on an answer's head with what this hop has to add."""
        extra = NO_FIELDS
        endpoint = self.endpoint
        if head.mesh and endpoint is not None and endpoint.speaks == SPEAKS_MESH:
            extra = [field for field in head.mesh if field.name == b"mesh-error"]
            self.limited = self.limits(head)
        route = self.route
        if route is not None and route.via is not None:
            extra = [*extra, route.via.field(head)]
        if route is not None and route.rule is not None and not self.tunnel:
            head = route.rule.answer(head, self.leaf)
        if not self.tunnel and not head.dated and head.field(b"date") is None:  # a rule can have set one
            extra = [*extra, *self.ctx.dated()]
        if self.tunnel and self.head.protocol:
            extra = [*extra, *websocket.granting(self.head, head)]
            head = websocket.granted(self.head, head)
        self.down.send_head(head, extra, end)

    def limits(self, head: Head) -> bool:
        """Does the pod's own sidecar say that it takes no more requests at once?  An app cannot say it: its sidecar takes
        `mesh-*` fields off."""
        endpoint = self.endpoint
        if endpoint is None or endpoint.speaks != SPEAKS_MESH:
            return False
        return any(field.name == b"mesh-error" and field.value == _OVER_LIMIT for field in head.mesh)

    def wait_asked(self, fields: list[Field]) -> float:
        """Seconds after which the endpoint wants to be asked again: Retry-After, and of a gRPC call its pushback.  0.0: it does
        not say; NEVER."""
        found: bytes | None = None
        for field in fields:
            if field.name == _PUSHBACK and self.head.grpc:
                return pushback_asked(field.value)
            if field.name == _RETRY_AFTER and found is None:
                found = field.value
        return wait_asked(found, self.ctx.clock()) if found is not None else 0.0

    def asked_to_wait(self, fields: list[Field]) -> None:
        """The endpoint may say how long: that is for its breaker, if it has one."""
        endpoint = self.endpoint
        breaker = endpoint.breaker if endpoint is not None else None
        if breaker is None:
            return
        seconds = self.wait_asked(fields)
        if seconds > 0.0:
            breaker.ask(seconds, self.ctx.now)

    def told_to_wait(self, route: Route, head: Head) -> bool:
        """Does an answer that could be tried again say when to come back, while there is nobody else to ask; or never to?  Then
        its client gets it, and knows.  Else its endpoint is not asked again.  A pod at its concurrency limit may be replaced by
        one other, for the others may be as busy: a request is not to go round all of them."""
        seconds = self.wait_asked(head.fields)
        retry = route.retry
        if 0.0 <= seconds <= retry.least_wait(self.attempts):
            return False
        if not retry.matches(Failure(RESPONDED, self.status, self.grpc_status), False):
            return False
        endpoint = self.endpoint
        backend = self.backend
        told = self.told
        if seconds > 0.0 and endpoint is not None and backend is not None and not (told is not None and self.limits(head)):
            told = [endpoint] if told is None else [*told, endpoint]
            if backend.somebody(None, self.ctx.now, told):
                self.told = told
                return False
        route.series.retry_skipped("retry_after")
        return True

    def last_resort(self, route: Route) -> bool:
        """Is it an answer that metrics count as a success (409, 429), with nobody to ask instead?  Then its client gets it:
        once left it cannot be had again, and what the client would get is 502.  (Who waits before it tries again may find that
        everybody went meanwhile.)"""
        backend = self.backend
        if (
            backend is None
            or not is_success(self.status, self.grpc_status)
            or backend.somebody(self.endpoint, self.ctx.now, self.told)
        ):
            return False
        route.series.retry_skipped("no_endpoint")
        return True

    def carried(self, head: Head) -> Head:
        """What a 501 to an Upgrade stands for: an answer that declines it, if a mesh peer says so."""
        endpoint = self.endpoint
        return undeclined(head) if endpoint is not None and endpoint.speaks == SPEAKS_MESH else head

    def tunnel_granted(self, head: Head) -> bool:
        """A 101 or 2xx to a request for a tunnel; `tunnel` says afterwards if it is one.  False if that cannot go to the
        client: it was refused instead."""
        request = self.head
        up = self.up
        if request.protocol and head.status != 101 and (head.version != 20 or (up is not None and not up.asked_tunnel())):
            # A 2xx from HTTP/1.1 declines an Upgrade.  An HTTP/1.1 client reads it so, also behind a mesh peer that knows
            # (proxy/upgrade.py); to an HTTP/2 client, which asked by extended CONNECT, the same 2xx would grant the tunnel
            # (RFC 8441 5), so it may not get there.
            if request.method != b"CONNECT":
                return True
            self.abandon()
            self.refuse(UPGRADE_DECLINED)
            return False
        self.tunnel = True
        route = self.route
        if route is not None and route.deadlines is not None:
            route.deadlines.remove(self)  # the answer is here; how long a tunnel lives is the matter of its ends
        if self.slot >= 0:
            self.ctx.deadlines.wheel.remove(self)
        self.deadline = 0.0
        return True

    def response_data(self, data: bytes, end: bool) -> None:
        try:
            if self.first_byte_s < 0.0:
                self.first_byte()
            self.down.send_data(data, end)
            if end:
                if self.tunnel:
                    self.response_over()
                else:
                    self.complete()
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("response_data")

    def response_trailers(self, fields: list[Field]) -> None:
        try:
            for field in fields:
                if field.kind == GRPC_STATUS and self.head.grpc:  # judged by what was asked for, as Linkerd does
                    self.grpc_status = parse_grpc_status(field.value)
            if self.grpc_status > 0:
                self.asked_to_wait(fields)
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
        if self.state != RESPONDING:
            return  # passing on the last of it has ended the exchange already: the client's stream was reset
        if self.first_byte_s < 0.0:
            self.first_byte()
        self.record_answered()
        up = self.up
        if up is not None and not self.request_ended:
            # The answer came before the request was complete: the rest of it is not wanted (RFC 9113 8.1)
            up.reset(NO_ERROR)

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
