"""Whether a request is sent again, and the reason if not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshproxy.policy.budget import Budget
from meshproxy.policy.random import Rng
from meshproxy.policy.retry import (
    ATTEMPTS,
    BROKEN,
    CONNECT_FAILED,
    NEVER,
    NO_BUDGET,
    NO_RETRY,
    NOT_IDEMPOTENT,
    NOT_REPLAYABLE,
    NOT_RETRYABLE,
    REASONS,
    RESPONDED,
    RESPONSE_STARTED,
    RETRY,
    TIMED_OUT,
    TRY_TIMED_OUT,
    Failure,
    RetryPolicy,
    decide,
    is_idempotent,
    parse_policy,
    pushback_asked,
    wait_asked,
)


def ask(
    policy: RetryPolicy,
    failure: Failure,
    *,
    budget: Budget | None = None,
    attempt: int = 1,
    method: bytes = b"GET",
    unprocessed: bool = False,
    replayable: bool = True,
    started: bool = False,
) -> str:
    verdict = decide(policy, budget or Budget(), 0.0, attempt, failure, is_idempotent(method), unprocessed, replayable, started)
    return REASONS[verdict] or "retry"


DEFAULT = parse_policy([])
UNREACHED = Failure(CONNECT_FAILED)
LOST = Failure(BROKEN)
LATE = Failure(TIMED_OUT)


def answered(status: int, grpc: int = -1) -> Failure:
    return Failure(RESPONDED, status, grpc)


# ---------------------------------------------------------------- what is retried


def test_by_default_what_certainly_was_not_processed_is_retried_whatever_the_method() -> None:
    for method in (b"GET", b"POST"):
        assert ask(DEFAULT, UNREACHED, method=method) == "retry"
        assert ask(DEFAULT, LOST, method=method, unprocessed=True) == "retry"


def test_by_default_a_broken_attempt_is_retried_if_idempotent_and_an_answer_never() -> None:
    assert ask(DEFAULT, LOST, method=b"GET") == "retry"
    assert ask(DEFAULT, LOST, method=b"POST") == "not_idempotent"
    for failure in (LATE, answered(503), answered(409), answered(200, 14)):
        assert ask(DEFAULT, failure) == "not_retryable"


def test_a_try_that_ran_out_of_its_own_time_is_retried_where_the_rule_declares_retries_or_names_504() -> None:
    late = Failure(TRY_TIMED_OUT)
    assert ask(DEFAULT, late) == "not_retryable"
    for words in (["try-timeout"], ["gateway-error"], ["5xx"], ["504"]):
        assert ask(parse_policy(words), late) == "retry"
        assert ask(parse_policy(words), late, method=b"POST") == "not_idempotent"
    assert ask(parse_policy(["try-timeout"]), LATE) == "not_retryable", "another timer"
    assert ask(parse_policy(["deadline-exceeded"]), Failure(TRY_TIMED_OUT, 0, 4), method=b"POST") == "retry"


def test_refused_streams_are_retried_only_if_the_policy_says_so() -> None:
    assert ask(parse_policy(["connect-failure"]), LOST, unprocessed=True) == "not_retryable"


@pytest.mark.parametrize(
    ("words", "failure", "expected"),
    [
        (["5xx"], answered(500), "retry"),
        (["5xx"], answered(404), "not_retryable"),
        (["5xx"], LOST, "retry"),
        (["5xx"], UNREACHED, "retry"),
        (["gateway-error"], answered(503), "retry"),
        (["gateway-error"], answered(500), "not_retryable"),
        (["gateway-error"], answered(505), "not_retryable"),
        (["gateway-error"], LATE, "retry"),
        (["gateway-error"], LOST, "not_retryable"),
        (["retriable-4xx"], answered(409), "retry"),
        (["retriable-4xx"], answered(429), "not_retryable"),
        (["429"], answered(429), "retry"),
        (["500-502"], answered(502), "retry"),
        (["500-502"], answered(503), "not_retryable"),
        (["reset"], LOST, "retry"),
        (["reset"], UNREACHED, "not_retryable"),
        (["connect-failure"], UNREACHED, "retry"),
        ([" Unavailable "], answered(200, 14), "retry"),
        (["unavailable"], answered(200, 13), "not_retryable"),
        (["unavailable"], answered(200), "not_retryable"),
    ],
)
def test_more_is_retried_by_declaration(words: list[str], failure: Failure, expected: str) -> None:
    assert ask(parse_policy(words), failure) == expected


def test_a_service_may_ask_for_no_retries_at_all() -> None:
    assert ask(NO_RETRY, UNREACHED) == "not_retryable"
    assert ask(parse_policy([], attempts=0), UNREACHED) == "attempts"


def test_an_answer_is_decided_about_if_it_failed_or_the_policy_names_it() -> None:
    none, some = parse_policy([]), parse_policy(["429", "retriable-4xx", "aborted"])
    assert [none.asks(status, -1) for status in (200, 404, 409, 429, 500)] == [False, False, False, False, True]
    assert [some.asks(status, -1) for status in (200, 404, 409, 429, 500)] == [False, False, True, True, True]
    assert [none.asks(200, code) for code in (0, 8, 10, 14)] == [False, False, False, True]
    assert [some.asks(200, code) for code in (0, 8, 10, 14)] == [False, False, True, True]


# ---------------------------------------------------------------- what must not be


def test_a_post_that_may_have_been_acted_on_is_never_sent_again() -> None:
    policy = parse_policy(["5xx", "reset", "409"])
    for failure in (answered(503), answered(409), LOST, LATE):
        assert ask(policy, failure, method=b"POST") == "not_idempotent"
        assert ask(policy, failure, method=b"PUT") == "retry"


def test_an_answer_to_a_post_is_tried_again_where_any_method_is_declared_but_silence_is_not() -> None:
    policy = parse_policy(["5xx", "reset", "409", "try-timeout"], any_method=True)
    assert [ask(policy, answered(status), method=b"POST") for status in (503, 409, 404)] == ["retry", "retry", "not_retryable"]
    for failure in (LOST, LATE, Failure(TRY_TIMED_OUT)):
        assert ask(policy, failure, method=b"POST") == "not_idempotent", "nobody knows what became of it"
        assert ask(policy, failure, method=b"GET") == "retry"
    assert ask(policy, answered(503), method=b"PATCH", replayable=False) == "not_replayable"


def test_listing_grpc_codes_declares_those_calls_repeatable() -> None:
    policy = parse_policy(["unavailable"])
    assert ask(policy, answered(200, 14), method=b"POST") == "retry"
    assert ask(parse_policy(["unavailable", "5xx"]), answered(503), method=b"POST") == "not_idempotent"
    broken = Failure(BROKEN, 0, 14)  # a gRPC caller sees a broken connection as UNAVAILABLE
    assert ask(parse_policy(["unavailable"]), broken, method=b"POST") == "retry"
    assert ask(parse_policy(["internal"]), broken, method=b"POST") == "not_retryable"


def test_nothing_is_retried_once_the_client_has_seen_bytes() -> None:
    assert ask(parse_policy(["5xx", "reset"]), LOST, started=True) == "response_started"
    assert ask(DEFAULT, LOST, unprocessed=True, started=True) == "response_started"


def test_a_body_that_is_gone_cannot_be_sent_again() -> None:
    assert ask(DEFAULT, UNREACHED, replayable=False) == "not_replayable"


def test_a_request_is_retried_as_often_as_the_policy_says() -> None:
    policy = parse_policy(["5xx"], attempts=2)
    assert [ask(policy, answered(503), attempt=n) for n in (1, 2, 3)] == ["retry", "retry", "attempts"]


def test_only_a_granted_retry_draws_on_the_budget() -> None:
    budget = Budget(ratio=0.0, floor_per_second=0.1, ttl=10)  # one retry
    policy = parse_policy(["5xx"])
    for refusal in (
        {"started": True},
        {"replayable": False},
        {"method": b"POST"},
        {"attempt": 2},
    ):
        assert ask(policy, answered(503), budget=budget, **refusal) != "retry"  # type: ignore[arg-type]
    assert ask(policy, answered(503), budget=budget) == "retry"
    assert ask(policy, answered(503), budget=budget) == "no_budget"


@given(
    st.sampled_from([UNREACHED, LOST, LATE, answered(500), answered(503), answered(409), answered(200)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 63),
)
def test_whatever_the_policy_no_request_is_acted_on_twice(
    failure: Failure, unprocessed: bool, replayable: bool, started: bool, attempt: int, conditions: int
) -> None:
    policy = RetryPolicy(conditions, frozenset({500, 503, 409}), attempts=2)
    verdict = decide(policy, Budget(), 0.0, attempt, failure, False, unprocessed, replayable, started)
    if verdict == RETRY:
        assert unprocessed or failure is UNREACHED
        assert replayable
        assert not started
        assert attempt <= 2
    assert verdict in (
        RETRY, NOT_RETRYABLE, NOT_IDEMPOTENT, NOT_REPLAYABLE, RESPONSE_STARTED, ATTEMPTS, NO_BUDGET,
    )  # fmt: skip


# ---------------------------------------------------------------- words


@pytest.mark.parametrize("word", ["", "6xx", "99", "200", "5000", "503-500", "503-", "ok", "٥٠٣"])
def test_an_unknown_word_is_refused_with_what_would_be_accepted(word: str) -> None:
    with pytest.raises(ValueError, match=r"unknown retry condition .*connect-failure.*unavailable.*503") as refused:
        parse_policy(["5xx", word])
    assert repr(word) in str(refused.value)


def test_attempts_have_a_bound() -> None:
    with pytest.raises(ValueError, match="0 to 10"):
        parse_policy([], attempts=11)


# ---------------------------------------------------------------- who is told to wait


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1000", 1.0), (b"20", 0.02), (b"0", 0.0), (b"2147483647", 2147483.647)]
    + [(value, NEVER) for value in (b"-1", b"-", b"", b"soon", b"1.5", b"+5", b"2147483648", b"99999999999999", b"1s")],
)
def test_a_grpc_server_says_in_milliseconds_when_to_come_back_and_by_anything_else_never(value: bytes, seconds: float) -> None:
    assert pushback_asked(value) == seconds


def test_retry_after_is_a_number_of_seconds() -> None:
    values = (b"5", b"0", b"-5", b"", b"1.5", b"soon", b"1000000000")
    assert [wait_asked(value, 0.0) for value in values] == [5.0, *[0.0] * 6]


def test_retry_after_is_a_date_from_now_on_and_one_that_has_passed_asks_for_no_wait() -> None:
    wall = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT
    soon = (b"Sun, 06 Nov 1994 08:50:00 GMT", b"Sunday, 06-Nov-94 08:50:00 GMT", b"Sun Nov  6 08:50:00 1994")
    assert [wait_asked(value, wall + 0.5) for value in soon] == [22.5] * 3
    assert wait_asked(b"Mon, 07 Nov 1994 08:49:37 GMT", wall) == 86400.0
    assert wait_asked(b"Sun, 06 Nov 1994 08:49:37 GMT", wall) == 0.0
    assert wait_asked(b"Fri, 31 Dec 1993 23:59:59 GMT", wall) == 0.0
    assert wait_asked(b"Sun, 06 Nov 1994 08:50:00", wall) == 0.0, "not in a form that HTTP knows"


# ---------------------------------------------------------------- the wait between two tries


def waits(policy: RetryPolicy, tries: int = 10) -> list[float]:
    return [round(policy.least_wait(tried), 6) for tried in range(1, tries + 1)]


def test_where_nothing_is_declared_an_answer_is_followed_by_25_to_250_ms_and_what_nobody_answered_by_nothing() -> None:
    policy = parse_policy(["5xx", "try-timeout"])
    assert waits(policy) == [0.025, 0.05, 0.1, 0.2, *[0.25] * 6]
    assert [policy.waits_after(failure) for failure in (answered(503), LATE, Failure(TRY_TIMED_OUT))] == [True] * 3
    assert not policy.waits_after(UNREACHED), "it goes elsewhere, at once"
    assert not policy.waits_after(LOST)


def test_a_declared_back_off_doubles_up_to_10_s_and_holds_between_any_two_tries() -> None:
    policy = parse_policy(["5xx"], backoff_s=0.1)
    assert waits(policy) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]
    assert waits(parse_policy(["5xx"], backoff_s=60.0), 2) == [10.0, 10.0]
    assert all(policy.waits_after(failure) for failure in (answered(503), UNREACHED, LOST, LATE))


def test_a_declared_back_off_of_nothing_is_none() -> None:
    policy = parse_policy(["5xx"], backoff_s=0.0)
    assert waits(policy, 2) == [0.0, 0.0]
    assert not any(policy.waits_after(failure) for failure in (answered(503), UNREACHED, LOST, LATE))


def test_the_wait_is_up_to_half_as_long_again_by_chance_so_that_clients_fall_out_of_step() -> None:
    policy, rng = parse_policy(["5xx"]), Rng(1)
    for tried in (1, 5):
        least = policy.least_wait(tried)
        drawn = [policy.wait_s(tried, rng) for _ in range(1000)]
        assert least <= min(drawn) < 1.01 * least
        assert 1.49 * least < max(drawn) <= 1.5 * least
