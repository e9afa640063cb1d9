"""How many requests may be in flight, what the adaptive limit learns, and who is shed first."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.concurrency import CLASSES, CRITICAL, ORDINARY, SHEDDABLE, Concurrency, Gradient, class_of


def steady(gradient: Gradient, rtt: float, in_flight: int, seconds: float, start: float = 0.0, dropped: bool = False) -> float:
    """`in_flight` requests at a time, each of `rtt`, for a while; returns when it ended."""
    now = start
    while now < start + seconds:
        now += rtt / in_flight
        gradient.sample(now, rtt, in_flight, dropped)
    return now


# ---------------------------------------------------------------- fixed


def test_a_fixed_limit_admits_as_many_and_one_more_when_one_is_over() -> None:
    gate = Concurrency(3)
    assert [gate.admit(ORDINARY, 0.0) for _ in range(4)] == [True, True, True, False]
    gate.release(ORDINARY, 1.0, 1.0)
    assert gate.admit(ORDINARY, 1.0)
    assert gate.rejected == [0, 1, 0]


def test_ending_a_request_twice_is_an_error() -> None:
    gate = Concurrency(3)
    gate.admit(ORDINARY, 0.0)
    gate.release(ORDINARY, 0.0, 0.1)
    with pytest.raises(RuntimeError, match="ended twice"):
        gate.release(ORDINARY, 0.0, 0.1)


# ---------------------------------------------------------------- adaptive


def test_the_limit_grows_while_more_in_flight_is_answered_no_slower() -> None:
    gradient = Gradient(initial=20.0)
    now = 0.0
    for _ in range(60):
        now = steady(gradient, 0.010, int(gradient.limit), 0.5, now)
    assert gradient.limit > 100


def test_the_limit_shrinks_when_answers_take_much_longer_than_usual() -> None:
    gradient = Gradient(initial=100.0)
    now = steady(gradient, 0.010, 100, 10.0)
    grown = gradient.limit
    steady(gradient, 0.100, 100, 5.0, now)
    assert gradient.limit < grown / 4


def test_a_limit_that_is_not_used_stays() -> None:
    gradient = Gradient(initial=100.0)
    steady(gradient, 0.010, 20, 30.0)
    assert gradient.limit == 100.0


def test_an_overload_that_lasts_is_not_learnt_as_the_usual() -> None:
    gradient = Gradient(initial=50.0)
    now = steady(gradient, 0.010, 30, 10.0)
    for _ in range(600):  # ten minutes
        now = steady(gradient, 0.200, max(1, int(gradient.limit)), 1.0, now)
    assert gradient.long_rtt < 0.020
    assert gradient.limit < 10


def test_requests_that_run_out_of_time_shrink_it_whatever_the_others_took() -> None:
    gradient = Gradient(initial=100.0)
    steady(gradient, 0.010, 100, 5.0, dropped=True)
    assert gradient.limit < 20


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100), st.integers(0, 2000), st.booleans()), max_size=200))
def test_the_limit_stays_within_its_bounds(samples: list[tuple[float, float, int, bool]]) -> None:
    gradient = Gradient(initial=20.0, least=5, greatest=50)
    now = 0.0
    for step, rtt, in_flight, dropped in samples:
        now += step
        gradient.sample(now, rtt, in_flight, dropped)
        assert 5 <= gradient.limit <= 50


@pytest.mark.parametrize("wrong", [{"least": 0}, {"least": 10, "greatest": 5}, {"tolerance": 0.5}])
def test_bounds_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="concurrency limit"):
        Gradient(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="concurrency limit"):
        Concurrency(0)


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("priority", "cls"),
    [
        (None, ORDINARY),
        (b"u=0", CRITICAL),
        (b"u=1, i", CRITICAL),
        (b"i", ORDINARY),
        (b"i, u=2", ORDINARY),
        (b"u=4;x", ORDINARY),
        (b"u=5", SHEDDABLE),
        (b"u=7", SHEDDABLE),
        (b"u=8", ORDINARY),
        (b"u=-1", ORDINARY),
        (b"u=", ORDINARY),
        (b"", ORDINARY),
        (b"v=0", ORDINARY),
    ],
)
def test_the_urgency_of_rfc_9218_is_a_class(priority: bytes | None, cls: int) -> None:
    assert class_of(priority) == cls


def test_where_nobody_uses_classes_nobody_loses_a_slot_to_them() -> None:
    gate = Concurrency(10)
    assert sum(gate.admit(SHEDDABLE, 0.0) for _ in range(20)) == 10


def test_slots_that_a_higher_class_lately_used_are_kept_for_it() -> None:
    gate = Concurrency(10)
    for _ in range(4):
        assert gate.admit(CRITICAL, 0.0)
    for _ in range(3):
        gate.release(CRITICAL, 0.1, 0.1)
    assert sum(gate.admit(SHEDDABLE, 0.2) for _ in range(20)) == 6  # of nine: three are kept
    assert sum(gate.admit(CRITICAL, 0.3) for _ in range(20)) == 3


def burst(limit: int, critical: int) -> Concurrency:
    """So many critical ones at once, at 0; then none."""
    gate = Concurrency(limit)
    for _ in range(critical):
        assert gate.admit(CRITICAL, 0.0)
    for _ in range(critical):
        gate.release(CRITICAL, 0.1, 0.1)
    return gate


def left(gate: Concurrency, now: float) -> int:
    """How many ordinary ones are let in at once."""
    admitted = sum(gate.admit(ORDINARY, now) for _ in range(100))
    for _ in range(admitted):
        gate.release(ORDINARY, now, 0.1)
    return admitted


def test_what_a_higher_class_needed_is_kept_ever_less_and_after_minutes_not_at_all() -> None:
    gate = burst(100, 40)
    assert [left(gate, now) for now in (5.0, 60.0, 120.0, 240.0, 299.0, 310.0)] == [60, 71, 80, 90, 92, 100]
    gate = burst(10, 4)
    assert [left(gate, now) for now in (5.0, 60.0, 120.0, 240.0, 299.0, 310.0)] == [6, 7, 8, 9, 9, 10]


def test_what_is_kept_after_a_peak_is_half_of_the_limit_at_most() -> None:
    assert [left(burst(10, 10), now) for now in (5.0, 11.0)] == [0, 5]
    assert [left(burst(1, 1), now) for now in (5.0, 11.0)] == [0, 1]


def overloaded(gate: Concurrency, seconds: float, every: float, at_once: int, seed: int) -> tuple[int, int, int]:
    """Half as much again of sheddable requests as the limit takes, of 1 s each, and `at_once` critical ones `every` so many
    seconds: (critical refused, critical, sheddable served)."""
    chance = random.Random(seed)
    now, next_critical = 0.0, every
    ends: list[tuple[float, int]] = []
    refused = asked = served = 0
    while now < seconds:
        now = min(now + chance.expovariate(1.5 * gate.limit), next_critical)
        while ends and ends[0][0] <= now:
            end, cls = heapq.heappop(ends)
            gate.release(cls, end, 1.0)
        if now == next_critical:
            next_critical += every
            for _ in range(at_once):
                asked += 1
                if gate.admit(CRITICAL, now):
                    heapq.heappush(ends, (now + 1.0, CRITICAL))
                else:
                    refused += 1
        elif gate.admit(SHEDDABLE, now):
            served += 1
            heapq.heappush(ends, (now + 1.0, SHEDDABLE))
    return refused, asked, served


@pytest.mark.parametrize("every", [0.5, 9.0, 11.0, 30.0, 100.0, 290.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_class_that_asks_now_and_then_is_served_while_a_lower_one_is_shed(every: float, seed: int) -> None:
    seconds = max(200.0, 8 * every)
    refused, asked, served = overloaded(Concurrency(10), seconds, every, 1, seed)
    assert asked >= 7
    assert refused <= 1  # the first, of which nobody could know
    assert served >= 0.7 * 10 * seconds  # nine slots, and chance


def test_a_class_that_asks_for_several_at_once_every_half_minute_is_served() -> None:
    refused, asked, served = overloaded(Concurrency(20), 600.0, 30.0, 5, 1)
    assert asked == 100
    assert refused <= 5  # the first time, of which nobody could know
    assert served >= 0.65 * 20 * 600


def test_slots_that_are_kept_do_not_teach_the_adaptive_limit_that_a_queue_is_usual() -> None:
    """One critical request a minute, and sheddable ones without end: what is admitted is less than the limit, yet the limit
    is what binds."""
    gradient = Gradient(initial=8.0, greatest=8)
    gate = Concurrency(8, gradient)
    steady(gradient, 0.010, 4, 10.0)
    now, asked = 20.0, 0.0
    for _ in range(24_000):  # ten minutes
        if now >= asked:
            asked = now + 60.0
            if gate.admit(CRITICAL, now):
                gate.release(CRITICAL, now, 0.010, sampled=False)
        while gate.admit(SHEDDABLE, now):
            pass
        now += 0.025
        for _ in range(gate.in_flight[SHEDDABLE]):
            gate.release(SHEDDABLE, now, 0.100)
    assert gradient.long_rtt < 0.020


def test_a_higher_class_that_finds_everything_taken_gets_the_next_slot() -> None:
    gate = Concurrency(5)
    for _ in range(5):
        assert gate.admit(SHEDDABLE, 0.0)
    assert not gate.admit(CRITICAL, 0.1)
    gate.release(SHEDDABLE, 0.2, 0.2)
    assert not gate.admit(SHEDDABLE, 0.3)
    assert gate.admit(CRITICAL, 0.3)


@given(st.integers(1, 8), st.lists(st.tuples(st.booleans(), st.integers(0, CLASSES - 1), st.floats(0, 5)), max_size=120))
def test_never_more_in_flight_than_the_limit_and_every_slot_comes_back(
    limit: int, steps: list[tuple[bool, int, float]]
) -> None:
    gate = Concurrency(limit)
    now = 0.0
    flying = [0] * CLASSES
    for arrives, cls, step in steps:
        now += step
        if arrives:
            flying[cls] += gate.admit(cls, now)
        elif flying[cls]:
            gate.release(cls, now, 0.1)
            flying[cls] -= 1
        assert gate.in_flight == flying
        assert gate.total == sum(flying) <= limit
    for cls in range(CLASSES):
        for _ in range(flying[cls]):
            gate.release(cls, now, 0.1)
    assert gate.total == 0
    assert gate.admit(CRITICAL, now)
