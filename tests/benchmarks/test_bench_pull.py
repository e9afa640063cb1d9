"""What `benchmarks.pull` reads out of the answers of a round.  (That a bad canary is pulled at all: tests/mesh_e2e.)"""

from __future__ import annotations

from benchmarks.pull import NTH, Answer, reading, report

CANARY, PRIMARY = "web-5d9-x", "web-primary-7f2-y"


def failed(number: int, client: str = "a") -> list[Answer]:
    """One a second from second 1 on, each answered after a tenth."""
    return [Answer(client, at, at + 0.1, 500, CANARY) for at in range(1, number + 1)]


def test_seconds_run_from_the_fifteenth_failed_answer_to_the_last_request_each_client_sent_to_the_canary():
    late = [
        Answer("a", 15.6, 15.7, 200, CANARY),
        Answer("b", 16.1, 19.0, 200, CANARY),
        Answer("b", 90.0, 91.0, 200, PRIMARY),
        Answer("a", 90.0, 91.0, 500, PRIMARY),
        Answer("a", 91.0, 92.0, 0),
    ]
    found = reading([*late, *failed(NTH)], ["a", "b", "c"])
    assert (found.complete, found.failed, found.asked, found.after) == (True, NTH, NTH + 2, 2)
    assert {client: round(value, 3) for client, value in found.seconds.items()} == {"a": 0.5, "b": 1.0, "c": 0.0}


def test_a_canary_that_was_pulled_before_is_no_measurement():
    early = reading(failed(NTH - 1), ["a"])
    assert not early.complete
    assert "nothing to measure" in report([early])
    slow = reading([*failed(NTH), Answer("a", 17.1, 17.2, 200, CANARY)], ["a"])
    assert "median 2.00 s, maximum 2.00 s (at most 1 requests)" in report([early, slow])
