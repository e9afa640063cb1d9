"""An exchange that something is to happen to, on purpose: delayed, aborted, or both.

    request --drawn--> FaultyExchange --delay_s--> begins as any other
                                     \\--(delay_s)--> answered with the declared status, `mesh-error: fault_injected`

While it is delayed it is an exchange in flight: its client can go, its body is kept as that of a request that waits for a
connection (settings.replay_bytes, then the client is paused).  A route's request timeout begins after the delay; a gRPC call's
own deadline began with the call.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from meshproxy.policy.fault import Fault, FaultPolicy
from meshproxy.proxy.context import Context
from meshproxy.proxy.refusals import Refusal
from meshproxy.proxy.route import Route
from meshproxy.proxy.timed import NO_TIMES, TimedExchange
from meshproxy.wire.engine import NO_FIELDS, Stream
from meshproxy.wire.message import Field, Head

TEXT: Final = "this fault is injected, as declared on the Service"


class Injection:
    """What a Service declares, ready to use."""

    def __init__(self, ctx: Context, policy: FaultPolicy) -> None:
        self.ctx = ctx
        self.policy = policy
        self.refusal = Refusal("fault_injected", policy.status, policy.grpc_status, TEXT)
        self.delayed = ctx.registry.counter("meshproxy_faults_delayed_total", "Requests that an injected fault has delayed.")

    def draw(self, route: Route, head: Head, end: bool) -> Fault | None:
        """What happens to this request; None: nothing, as to most."""
        if head.protocol or head.method == b"CONNECT" or not self.policy.matches(head):
            return None
        fault = self.policy.draw(self.ctx.rng)
        if fault is not None and fault.delay_s > 0.0 and not end and route.rule is not None and route.rule.mirrors is not None:
            return None  # copies of its body are made while it comes, and it would wait here
        return fault


class FaultyExchange(TimedExchange):
    timer: Any = None
    begun_by: Route | None = None
    added: list[Field] = NO_FIELDS

    def __init__(self, ctx: Context, down: Stream, head: Head, direction: str, injection: Injection, fault: Fault) -> None:
        super().__init__(ctx, down, head, direction, NO_TIMES)
        self.injection = injection
        self.fault = fault

    def begin(self, route: Route, extra: list[Field], end: bool) -> None:
        if route.times is not None:
            self.times = route.times
        if self.fault.delay_s <= 0.0:
            self.happen(route, extra, end)
            return
        self.injection.delayed.value += 1
        self.begun_by = self.route = route  # an exchange of this route from now on, also if its client does not wait
        route.series.request_total += 1
        self.added = extra
        self.request_ended = end
        if (self.head.expected_ms or (self.head.grpc_timeout and self.head.grpc)) and self.too_late(self.started):
            return
        self.timer = self.ctx.loop.call_later(self.fault.delay_s, self.go)

    def go(self) -> None:
        """The delay is over."""
        self.timer = None
        self.ctx.now = monotonic()
        route = self.begun_by
        if route is None:
            return
        try:
            route.series.request_total -= 1  # `happen` counts it, and watches the deadline
            self.ctx.deadlines.wheel.remove(self)
            self.happen(route, self.added, self.request_ended)
        except Exception:  # noqa: BLE001 - counted and logged by `escaped`; ends this exchange only
            self.broken("go")

    def happen(self, route: Route, extra: list[Field], end: bool) -> None:
        if self.fault.status == 0:
            TimedExchange.begin(self, route, extra, end)
            return
        self.route = route
        self.request_ended = end
        route.series.request_total += 1
        self.refuse(self.injection.refusal)

    def finish(self) -> Route | None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return super().finish()
