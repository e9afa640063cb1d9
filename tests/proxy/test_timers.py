"""The wheel of deadlines: nobody early, nobody forgotten, nothing kept."""

from __future__ import annotations

from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from meshproxy.proxy.context import Context
from meshproxy.proxy.requester import Requester
from meshproxy.proxy.settings import Settings
from meshproxy.proxy.timers import SLOTS, TICK_S, DeadlineWheel
from meshproxy.telemetry.registry import Registry


class Timer:
    def cancel(self) -> None:
        pass


class Loop:
    """Timers that never fire: these tests turn the wheel themselves."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    def call_later(self, delay: float, callback: object) -> Timer:
        self.delays.append(delay)
        return Timer()


def wheel() -> DeadlineWheel:
    return DeadlineWheel(Context(Loop(), Settings(), Registry(), 1, b"x-"))


# What happens: an item of this many ticks is added; the nth item leaves; so much time passes.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3 * SLOTS)),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.one_of(st.integers(0, 40), st.integers(0, 3 * SLOTS))),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(steps, st.integers(0, 10**7))
def test_each_is_late_exactly_when_its_time_is_up(plan: list[tuple[str, int]], start: int) -> None:
    made, tick = wheel(), start
    waiting: dict[Requester, int] = {}
    for what, amount in plan:
        now = (tick + 0.5) * TICK_S
        if what == "add":
            item = Requester()
            deadline = now + amount * TICK_S
            made.add(item, deadline, now)
            waiting[item] = max(ceil(deadline / TICK_S), tick + 1)
        elif what == "remove" and waiting:
            item = list(waiting)[amount % len(waiting)]
            made.remove(item)
            del waiting[item]
        elif what == "pass":
            tick += amount
            due = {item for item, at in waiting.items() if at <= tick}
            assert set(made.turn(tick)) == due
            for item in due:
                del waiting[item]
        assert made.waiting == len(waiting)
        assert sum(map(len, made.slots)) == len(waiting)
        if waiting:
            assert tick < made.next_in_use() <= min(waiting.values())
    assert all((item.slot >= 0) for item in waiting)


def test_one_that_has_left_is_not_there_and_may_leave_again() -> None:
    made, item = wheel(), Requester()
    made.add(item, 5.0, 1.0)
    made.remove(item)
    made.remove(item)
    assert (made.waiting, item.slot, any(made.slots)) == (0, -1, False)


def test_the_timer_is_set_again_only_for_an_earlier_deadline() -> None:
    made = wheel()
    for deadline in (9.0, 10.0, 8.0, 100_000.0):
        made.add(Requester(), deadline, 1.0)
    assert [round(delay) for delay in made.ctx.loop.delays] == [8, 7]
