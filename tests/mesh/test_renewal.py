"""The schedule in simulated time: days pass in microseconds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.mesh.renewal import RETRY_MAX, RenewalSchedule

NOW = 1_800_000_000.0
LIFETIMES = st.floats(5, 10 * 365 * 86400)


def schedule(seed: int = 1) -> RenewalSchedule:
    return RenewalSchedule(random.Random(seed).uniform)


def test_the_first_attempt_is_due_at_once() -> None:
    assert schedule().wait(NOW) == 0


@given(LIFETIMES, st.integers())
def test_the_renewal_point_is_between_60_and_80_per_cent_of_the_life(lifetime: float, seed: int) -> None:  # ID-44
    plan = schedule(seed)
    plan.succeeded(NOW, NOW + lifetime)
    assert 0.6 * lifetime <= plan.wait(NOW) <= 0.8 * lifetime


@pytest.mark.parametrize("share", [0.0, 5.0])
def test_it_is_never_later_than_80_per_cent_whatever_is_drawn(share: float) -> None:
    plan = RenewalSchedule(lambda a, b: share)
    plan.succeeded(NOW, NOW + 100)
    assert plan.wait(NOW) <= 80


def test_a_thousand_proxies_that_started_together_are_spread_out() -> None:  # ID-47
    draw = random.Random(7).uniform
    waits = []
    for _ in range(1000):
        plan = RenewalSchedule(draw)
        plan.succeeded(NOW, NOW + 86400)
        waits.append(plan.wait(NOW))
    busiest = max(sum(1 for w in waits if start <= w < start + 60) for start in range(55_000, 66_000, 60))
    assert busiest < 30  # evenly over 10 % of the life, 144 minutes: 7 a minute


def test_failures_back_off_to_a_bound_and_never_stop() -> None:
    plan, now, waits = schedule(), NOW, []
    plan.succeeded(now, now + 20)
    now += plan.wait(now)
    for _ in range(500):  # far past the certificate's end
        plan.failed(now)
        waits.append(plan.wait(now))
        now += waits[-1]
    assert waits[0] <= 0.1
    assert all(RETRY_MAX / 2 <= wait <= RETRY_MAX + 1e-6 for wait in waits[10:])


def test_five_attempts_fit_between_the_first_failure_and_the_end_of_a_20_s_life() -> None:
    plan = schedule()
    plan.succeeded(NOW, NOW + 20)
    now = NOW + plan.wait(NOW)
    for _ in range(5):
        plan.failed(now)
        now += plan.wait(now)
    assert now < NOW + 20


@given(LIFETIMES, st.integers(0, 60), st.integers())
def test_after_the_return_of_the_control_plane_the_next_attempt_is_within_10_s(
    lifetime: float, failures: int, seed: int
) -> None:  # ID-45
    plan = schedule(seed)
    plan.succeeded(NOW, NOW + lifetime)
    now = NOW + lifetime
    for _ in range(failures):
        plan.failed(now)
    assert plan.wait(now) <= 10


def test_success_forgets_the_failures() -> None:
    plan = schedule()
    for _ in range(9):
        plan.failed(NOW)
    plan.succeeded(NOW, NOW + 1000)
    assert plan.failures == 0
    assert plan.wait(NOW) > 600


def test_a_certificate_that_has_already_ended_is_renewed_at_once() -> None:
    plan = schedule()
    plan.succeeded(NOW, NOW - 5)
    assert plan.wait(NOW) == 0
