"""Steps that want a number of requests, when the source could not count as the step began."""

from __future__ import annotations

from canary_plays import canary_spec
from test_canary_steps_invariants import ByPolicy

from control.canary.declared.policy import PolicyStep, ReleasePolicy


def test_a_step_that_began_before_its_source_could_count_counts_from_the_first_total_that_is_known():
    play = ByPolicy(canary_spec({"metrics": []}))
    play.policy = ReleasePolicy("test", "podinfo", (PolicyStep(1.0, 0.0, 100), PolicyStep(50.0)))
    play.tick()
    play.tick()
    play.edit("v2")
    play.tick()
    play.tick()  # the first weight, with no total
    assert play.status.canary_weight == 1
    for total, weight in ((40, 1), (139, 1), (140, 50)):
        play.served(total)
        play.tick()
        assert play.status.canary_weight == weight, total


def test_a_total_that_is_lost_for_a_look_costs_nothing_but_that_look():
    play = ByPolicy(canary_spec({"metrics": []}))
    play.policy = ReleasePolicy("test", "podinfo", (PolicyStep(1.0, 0.0, 100), PolicyStep(50.0)))
    play.served(1000)
    play.tick()
    play.tick()
    play.edit("v2")
    play.tick()
    play.tick()
    for total, weight in ((1060, 1), (None, 1), (1099, 1), (1100, 50)):
        if total is None:
            play.arms = None
        else:
            play.served(total)
        play.tick()
        assert play.status.canary_weight == weight, total
