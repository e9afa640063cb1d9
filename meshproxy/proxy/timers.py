"""Deadlines that cost next to nothing when nothing goes wrong, and hold nothing of a request that has ended.

    add --------------> waiting --remove--> gone
                           |
                           +--deadline--> timed_out()

Two kinds, for two kinds of duration:

    DeadlineQueue   durations from the configuration: few.  An insertion-ordered dict for each
    DeadlineWheel   durations that clients choose (grpc-timeout): any; and what begins anew with each thing that moves (idle).
                    A timing wheel for all of them

A queue that kept finished exchanges for their 15 s made p99 13-118 ms: both forget at once.
"""

from __future__ import annotations

from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from meshproxy.proxy.requester import Requester

if TYPE_CHECKING:
    from meshproxy.proxy.context import Context

TICK_S: Final = 0.01  # how exactly such a deadline is kept: up to this late, never early
SLOTS: Final = 512  # a turn of the wheel is 5.12 s: most deadlines are within one
_SLEEP_S: Final = 3600.0  # the longest the wheel's timer is set for; what lies further ahead is looked at again then


class Deadlines:
    """All deadlines of one proxy.  Durations come from configuration, so there are few distinct ones (bounded: above 256
    the further ones are rounded up to whole seconds)."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.queues: dict[float, DeadlineQueue] = {}
        self.wheel = DeadlineWheel(ctx)

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
    """With one duration, insertion order is deadline order, so the head of the dict is the next to fire and a finished
    request leaves by `pop`: two dict operations a request."""

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


class DeadlineWheel:
    """A hashed timing wheel (Varghese and Lauck 1987, scheme 6): time in ticks of 10 ms, a dict for each of 512 slots.

              cursor (the last tick that was dealt with)
                 v
        slot ... 6   7   8   9 ...        a deadline at tick t stands in slot t mod 512, with t
                     |       |
                     |      {c: 1033}     a later turn's (1033 = 9 + 2 * 512): looked at once a turn, and stays
                    {a: 7, b: 519}        at tick 7: a is late, b stays

    Adding and removing are O(1) whatever the duration; a removed item leaves nothing behind.  The one timer is set for the
    next slot in use, and not at all when the wheel is empty.  `Requester.slot` says where an item stands.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.slots: list[dict[Requester, int]] = [{} for _ in range(SLOTS)]
        self.waiting = 0
        self.cursor = 0
        self.armed = 0  # the tick the timer is set for, 0 without one
        self.timer: Any = None

    def add(self, item: Requester, deadline: float, now: float) -> None:
        """`deadline`, `now`: monotonic seconds.  `item` must not be in the wheel."""
        if self.waiting == 0:
            self.cursor = int(now / TICK_S)
        tick = max(ceil(deadline / TICK_S), self.cursor + 1)
        slot = tick % SLOTS
        self.slots[slot][item] = tick
        item.slot = slot
        self.waiting += 1
        if self.armed == 0 or tick < self.armed:
            self.arm(tick, now)

    def remove(self, item: Requester) -> None:
        """Does nothing if it is not there."""
        if item.slot >= 0:
            del self.slots[item.slot][item]
            item.slot = -1
            self.waiting -= 1

    def arm(self, tick: int, now: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.armed = tick
        self.timer = self.ctx.loop.call_later(min(max(tick * TICK_S - now, 0.001), _SLEEP_S), self.fire)

    def fire(self) -> None:
        self.timer = None
        self.armed = 0
        self.ctx.now = now = monotonic()
        late = self.turn(int(now / TICK_S))
        if self.waiting:
            self.arm(self.next_in_use(), now)
        for item in late:
            item.timed_out()

    def turn(self, tick: int) -> list[Requester]:
        """Move the cursor to `tick`; take out and return what is late by then, the earliest slot first."""
        late: list[Requester] = []
        for passed in range(max(self.cursor, tick - SLOTS) + 1, tick + 1):
            slot = self.slots[passed % SLOTS]
            if slot:
                late += [item for item, due in slot.items() if due <= tick]
        for item in late:
            self.remove(item)
        self.cursor = max(self.cursor, tick)
        return late

    def next_in_use(self) -> int:
        """The next tick whose slot holds something, of this turn or a later one.  Only when something waits."""
        tick = self.cursor + 1
        while not self.slots[tick % SLOTS]:
            tick += 1
        return tick
