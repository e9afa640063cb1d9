"""An exchange at a pod that takes only so many at once.

    request --admit(class)--> LimitedExchange --finish, however it ends--> release(time to first response data)
                \\--> 503 / UNAVAILABLE concurrency_limit, Retry-After: 1

The class comes from the request's `priority` field (RFC 9218).  The refusal is an answer and no reset, also to a mesh peer: its
client is to learn when to come back, and other pods of the service may be as busy (where retries of it are declared, one of
them is asked: `told_to_wait`).
"""

from __future__ import annotations

from typing import Final

from meshproxy.policy.concurrency import CLASS_NAMES, Concurrency, Gradient, class_of
from meshproxy.proxy.context import Context
from meshproxy.proxy.exchange import Exchange
from meshproxy.proxy.refusals import Refusal
from meshproxy.proxy.route import Route
from meshproxy.wire.engine import Stream
from meshproxy.wire.message import Head

OVER_LIMIT: Final = Refusal(
    "concurrency_limit", 503, 14, "the pod works on as many requests as it takes at once", retry_after_s=1
)

START: Final = 20.0  # where an adaptive limit begins: low, so that the first times it sees are those of an idle app
LEAST: Final = 4  # and it never goes below: less would say more about chance than about load

_UNAVAILABLE: Final = 14
_RESOURCE_EXHAUSTED: Final = 8


class LimitedExchange(Exchange):
    """`gate` has admitted it, in class `cls`."""

    late: bool = False  # its time was up

    def __init__(
        self, ctx: Context, down: Stream, head: Head, direction: str, meshed: bool, gate: Concurrency, cls: int
    ) -> None:
        super().__init__(ctx, down, head, direction, meshed)
        self.gate: Concurrency | None = gate
        self.cls = cls

    def timed_out(self) -> None:
        # A deadline over plain HTTP is anybody's to set, as short as he likes: the limit learns nothing from it.
        self.late = self.head.grpc or not self.deadline_passed()
        super().timed_out()

    def finish(self) -> Route | None:
        gate = self.gate
        if gate is not None:
            self.gate = None
            now = self.ctx.now
            first = self.first_byte_s
            dropped = self.late or self.status == 503 or self.grpc_status in (_UNAVAILABLE, _RESOURCE_EXHAUSTED)
            rtt = self.attempt_started - self.started + first if first >= 0.0 else now - self.started
            gate.release(self.cls, now, rtt, dropped, first >= 0.0 or dropped)
        return super().finish()


class Limit:
    """The gate of a pod that declares one, with its metrics.  `gate` None: it no longer does."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.gate: Concurrency | None = None
        self.greatest = 0
        self.adaptive = False
        registry = ctx.registry
        self.limit = registry.gauge(
            "meshproxy_concurrency_limit", "Requests that the pod takes at once, as of now; 0: no limit."
        )
        self.in_flight = registry.gauge("meshproxy_concurrency_in_flight", "Requests in flight that count for the limit.")
        self.shed = [
            registry.counter("meshproxy_shed_total", "Requests turned away by the limit, by class.", (("class", name),))
            for name in CLASS_NAMES
        ]
        registry.on_scrape(self.measure)

    def declare(self, greatest: int, adaptive: bool) -> None:
        """So many at once, or (adaptive) at most so many; 0: any number.  What the limit has learnt stays if nothing changes;
        what is in flight leaves the gate it came through."""
        if (greatest, adaptive) == (self.greatest, self.adaptive):
            return
        self.greatest = greatest
        self.adaptive = adaptive
        if greatest <= 0:
            self.gate = None
            return
        mine = max(1, greatest // self.ctx.settings.workers)  # the app is one, and so many workers send to it
        self.gate = Concurrency(mine, Gradient(START, min(LEAST, mine), mine) if adaptive else None)

    def measure(self) -> None:
        gate = self.gate
        self.limit.value = 0.0 if gate is None else float(gate.limit)
        self.in_flight.value = 0.0 if gate is None else float(gate.total)

    def admit(self, gate: Concurrency, head: Head) -> int:
        """The request's class if it may go on, -1 if not."""
        cls = class_of(head.field(b"priority"))
        if gate.admit(cls, self.ctx.now):
            return cls
        self.shed[cls].value += 1
        return -1
