"""Deadlines that cost two dict operations a request: an insertion-ordered dict for each duration.

With one duration, insertion order is deadline order, so the head of the dict is the next to fire and a finished request
leaves by `pop`: nothing outlives its request (a queue that kept finished exchanges for their 15 s made p99 13-118 ms).

    add --------------> waiting --remove--> gone
                           |
                           +--deadline--> timed_out()
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from meshproxy.proxy.requester import Requester

if TYPE_CHECKING:
    from meshproxy.proxy.context import Context


class Deadlines:
    """All deadlines of one proxy.  Durations come from configuration, so there are few distinct ones (bounded: above 256
    the further ones are rounded up to whole seconds)."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.queues: dict[float, DeadlineQueue] = {}

    def queue(self, duration_s: float) -> DeadlineQueue:
        q = self.queues.get(duration_s)
        if q is None:
            if len(self.queues) >= 256:
                duration_s = float(int(duration_s) + 1)
                if duration_s in self.queues:
                    return self.queues[duration_s]
            q = self.queues[duration_s] = DeadlineQueue(self.ctx, duration_s)
        return q


class DeadlineQueue:
    def __init__(self, ctx: Context, duration_s: float) -> None:
        self.ctx = ctx
        self.duration_s = duration_s
        self.waiting: dict[Requester, float] = {}
        self.scheduled = False

    def add(self, item: Requester, now: float) -> None:
        self.waiting[item] = now + self.duration_s
        if not self.scheduled:
            self.scheduled = True
            self.ctx.loop.call_later(self.duration_s, self.fire)

    def remove(self, item: Requester) -> None:
        self.waiting.pop(item, None)

    def fire(self) -> None:
        self.scheduled = False
        self.ctx.now = now = monotonic()
        late: list[Requester] = []
        for item, deadline in self.waiting.items():
            # uvloop's clock has a resolution of 1 ms: without the margin the timer would fire once more for nothing
            if deadline > now + 0.001:
                break
            late.append(item)
        for item in late:
            del self.waiting[item]
        if self.waiting and not self.scheduled:
            self.scheduled = True
            first = next(iter(self.waiting.values()))
            self.ctx.loop.call_later(max(first - now, 0.001), self.fire)
        for item in late:
            item.timed_out()
