"""One endpoint's breaker: what opens it, how long, and who tries it again."""

from __future__ import annotations

import pytest

from meshproxy.policy.breaker import (
    CLOSED,
    FAILURE,
    LIMITED,
    NO_VERDICT,
    NOTHING,
    OPEN,
    PROBING,
    RECOVERED,
    RELAPSED,
    SUCCESS,
    TRIPPED,
    UNDECIDED,
    Breaker,
    BreakerPolicy,
    IllegalTransition,
    Window,
    verdict_of,
)


def tripped(policy: BreakerPolicy | None = None, now: float = 0.0, chance: float = 0.0) -> Breaker:
    breaker = Breaker(policy or BreakerPolicy())
    for i in range(7):
        assert breaker.record(FAILURE, now, now) == (TRIPPED if i == 6 else NOTHING)
    breaker.open(now, chance)
    return breaker


# ---------------------------------------------------------------- what opens it


def test_seven_failures_in_a_row_trip_it_and_a_success_between_them_starts_anew() -> None:
    breaker = Breaker(BreakerPolicy())
    verdicts = [FAILURE] * 6 + [SUCCESS] + [FAILURE] * 6
    assert [breaker.record(verdict, 0.0, 0.0) for verdict in verdicts] == [NOTHING] * 13
    assert breaker.record(FAILURE, 0.0, 0.0) == TRIPPED


def test_what_clients_gave_up_and_what_asks_for_less_are_no_failures_in_a_row() -> None:
    breaker = Breaker(BreakerPolicy())
    for _ in range(6):
        breaker.record(FAILURE, 0.0, 0.0)
    assert breaker.record(NO_VERDICT, 0.0, 0.0) == NOTHING
    assert breaker.failures == 6
    assert breaker.record(LIMITED, 0.0, 0.0) == NOTHING
    assert breaker.failures == 0


@pytest.mark.parametrize("bad", [FAILURE, LIMITED])
def test_a_success_rate_below_four_fifths_of_the_last_ten_seconds_trips_it(bad: int) -> None:
    breaker = Breaker(BreakerPolicy(consecutive=0, success_rate=0.8))
    found = [breaker.record(bad if i % 4 == 0 else SUCCESS, 0.0, i * 0.1) for i in range(5)]
    assert found == [NOTHING, NOTHING, NOTHING, NOTHING, TRIPPED]  # the fifth makes it a rate: 3 of 5
    breaker = Breaker(BreakerPolicy(consecutive=0, success_rate=0.8))
    assert all(breaker.record(bad if i % 5 == 4 else SUCCESS, 0.0, i * 0.1) == NOTHING for i in range(100))  # 4 of 5


def test_old_failures_leave_the_window() -> None:
    window = Window(10.0)
    for i in range(10):
        window.add(True, i * 0.1)
    window.add(False, 5.0)
    assert (window.bad, window.total) == (10, 11)
    window.add(False, 11.0)
    assert (window.bad, window.total) == (0, 2)
    window.add(False, 500.0)
    assert (window.bad, window.total) == (0, 1)


@pytest.mark.parametrize(
    ("success", "status", "grpc_status", "verdict"),
    [
        (True, 200, -1, SUCCESS),
        (True, 404, -1, SUCCESS),
        (False, 503, -1, FAILURE),
        (True, 429, -1, LIMITED),
        (True, 200, 8, LIMITED),
        (False, 200, 14, FAILURE),
    ],
)
def test_answers_are_judged_as_linkerd_judges_them(success: bool, status: int, grpc_status: int, verdict: int) -> None:
    assert verdict_of(success, status, grpc_status) == verdict


# ---------------------------------------------------------------- how long, and who tries it


def test_the_penalty_doubles_from_one_second_to_sixty() -> None:
    policy = BreakerPolicy()
    assert [policy.penalty(n, 0.0) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert policy.penalty(2, 0.999) == pytest.approx(6.0, abs=0.01)  # and up to half of it more
    assert policy.penalty(10_000, 0.999) == 60.0


def test_who_asks_to_be_left_alone_is_not_probed_before_up_to_the_greatest_penalty() -> None:
    breaker = Breaker(BreakerPolicy(consecutive=1))
    breaker.ask(5.0, 0.0)
    assert breaker.state == CLOSED  # that alone puts nobody out
    assert breaker.record(FAILURE, 0.0, 0.5) == TRIPPED
    assert breaker.open(0.5, 0.0) == 5.0  # and not 1.5
    breaker.ask(9.0, 1.0)  # another answer, of what was under way
    assert breaker.until == 10.0
    breaker.ask(1.0, 2.0)
    assert breaker.until == 10.0  # it is not shortened
    breaker.ask(3600.0, 3.0)
    assert breaker.until == 63.0
    assert tripped(now=100.0).until == 101.0  # what was asked long ago, or of another, says nothing


def test_one_request_probes_and_its_success_closes_the_breaker() -> None:
    breaker = tripped()
    assert not breaker.due(0.99)
    assert breaker.due(1.0)
    breaker.probe(1.0)
    assert breaker.state == PROBING
    assert not breaker.due(1.5)  # no second one beside it
    assert breaker.record(SUCCESS, 1.0, 1.2) == RECOVERED
    breaker.close(1.2)
    assert breaker.state == CLOSED
    assert breaker.failures == 0


def test_a_failed_probe_doubles_the_penalty() -> None:
    breaker = tripped()
    now = 0.0
    for penalty in (1, 2, 4, 8, 16, 32, 60, 60):
        assert breaker.until - now == penalty
        now = breaker.until
        breaker.probe(now)
        assert breaker.record(FAILURE, now, now) == RELAPSED
        breaker.open(now, 0.0)


def test_what_was_under_way_before_the_probe_says_nothing_about_it() -> None:
    breaker = tripped(now=10.0)
    assert breaker.record(SUCCESS, 9.0, 10.5) == NOTHING
    breaker.probe(11.0)
    assert breaker.record(SUCCESS, 9.0, 11.5) == NOTHING
    assert breaker.record(FAILURE, 9.5, 11.5) == NOTHING
    assert breaker.state == PROBING


def test_a_probe_that_its_client_gave_up_leaves_it_to_the_next_request() -> None:
    breaker = tripped()
    breaker.probe(1.0)
    assert breaker.record(NO_VERDICT, 1.0, 1.1) == UNDECIDED
    breaker.wait()
    assert breaker.due(1.1)


def test_a_probe_that_never_ends_is_followed_by_another() -> None:
    """A tunnel lasts for hours, and an endpoint that hangs answers never."""
    breaker = tripped()
    breaker.probe(1.0)
    assert not breaker.due(60.9)
    assert breaker.due(61.0)
    breaker.probe(61.0)
    assert breaker.record(FAILURE, 1.0, 62.0) == NOTHING
    assert breaker.record(SUCCESS, 61.0, 62.0) == RECOVERED


def test_one_that_trips_again_soon_goes_on_with_the_next_penalty() -> None:
    breaker = tripped()
    breaker.probe(1.0)
    breaker.close(1.0)
    for _ in range(7):
        breaker.record(FAILURE, 2.0, 2.0)
    assert breaker.open(2.0, 0.0) == 2.0 + 2.0
    breaker.probe(4.0)
    breaker.close(4.0)
    assert breaker.open(64.0, 0.0) == 64.0 + 1.0  # a minute of good conduct: from the beginning


def test_with_rate_limits_declared_bad_a_limited_probe_fails() -> None:
    for policy, found in ((BreakerPolicy(), RECOVERED), (BreakerPolicy(success_rate=0.8), RELAPSED)):
        breaker = tripped(policy) if not policy.success_rate else Breaker(policy)
        if policy.success_rate:
            breaker.open(0.0, 0.0)
        breaker.probe(1.0)
        assert breaker.record(LIMITED, 1.0, 1.0) == found


def test_what_was_bad_before_it_was_out_is_not_held_against_it_after() -> None:
    breaker = Breaker(BreakerPolicy(success_rate=0.8))
    for _ in range(5):
        breaker.record(FAILURE, 0.0, 0.0)
    breaker.open(0.0, 0.0)
    breaker.probe(1.0)
    breaker.close(1.0)
    assert breaker.record(FAILURE, 1.0, 1.0) == NOTHING


# ---------------------------------------------------------------- what cannot be


def test_a_transition_that_is_not_drawn_raises() -> None:
    breaker = Breaker(BreakerPolicy())
    for illegal in (lambda: breaker.close(0.0), lambda: breaker.probe(0.0), breaker.wait):
        with pytest.raises(IllegalTransition, match="cannot go from closed"):
            illegal()
    breaker.open(0.0, 0.0)
    for illegal in (lambda: breaker.open(0.0, 0.0), breaker.wait):
        with pytest.raises(IllegalTransition, match="cannot go from open"):
            illegal()
    assert breaker.state == OPEN


@pytest.mark.parametrize(
    "wrong",
    [
        {"consecutive": -1},
        {"success_rate": 1.5},
        {"window_s": 0.0},
        {"min_requests": 0},
        {"min_penalty_s": 0.0},
        {"min_penalty_s": 10.0, "max_penalty_s": 5.0},
        {"jitter": -0.5},
        {"max_ejected": 2.0},
    ],
)
def test_a_policy_out_of_range_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"circuit breaker: .* must be"):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]


def test_new_rules_hold_from_the_next_result_and_a_penalty_is_served() -> None:
    breaker = tripped()
    breaker.reconfigure(BreakerPolicy(consecutive=2, success_rate=0.5, min_penalty_s=5.0))
    assert breaker.state == OPEN
    assert breaker.until == 1.0
    breaker.probe(1.0)
    breaker.close(1.0)
    assert [breaker.record(FAILURE, 2.0, 2.0) for _ in range(2)] == [NOTHING, TRIPPED]
