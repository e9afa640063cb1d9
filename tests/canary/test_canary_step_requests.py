"""Steps that want a number of requests: over a restart of what counts them, and when it could not count."""

from __future__ import annotations

from canary_plays import canary_spec
from test_canary_steps_invariants import ByPolicy

from control.canary.declared.policy import PolicyStep, ReleasePolicy


def begun(total: int | None) -> ByPolicy:
    """At 1 % until it has had 100 requests, then 50 %.  total: known as the step begins; None: nobody could count."""
    play = ByPolicy(canary_spec({"metrics": []}))
    play.policy = ReleasePolicy("test", "podinfo", (PolicyStep(1.0, 0.0, 100), PolicyStep(50.0)))
    if total is not None:
        play.served(total)
    play.tick()
    play.tick()
    play.edit("v2")
    play.tick()
    play.tick()
    assert play.status.canary_weight == 1
    return play


def weights(play: ByPolicy, *totals: int | None) -> list[float]:
    """After each look, with that total known."""
    found = []
    for total in totals:
        if total is None:
            play.arms = None
        else:
            play.served(total)
        play.tick()
        found.append(play.status.canary_weight)
    return found


def test_requests_of_a_step_are_counted_over_a_restart_and_never_too_many():
    assert weights(begun(1000), 1050, 1099, 20, 99, 100) == [1, 1, 1, 1, 50]  # a restart before the third


def test_a_step_that_began_before_its_source_could_count_counts_from_the_first_total_that_is_known():
    assert weights(begun(None), 40, 139, 140) == [1, 1, 50]


def test_a_total_that_is_lost_for_a_look_costs_nothing_but_that_look():
    assert weights(begun(1000), 1060, None, 1099, 1100) == [1, 1, 1, 50]
