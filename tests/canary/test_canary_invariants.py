"""What holds whatever happens: random worlds, random numbers, random people."""

from __future__ import annotations

from dataclasses import replace

from canary_plays import Play, canary_spec, stuck, waiting
from hypothesis import given, settings
from hypothesis import strategies as st

from control.canary import strategy
from control.canary.analysis import Measurement, Outcome, analyse
from control.canary.decision import PromoteTemplate, ScaleToZero, SetRouting
from control.canary.facts import READY
from control.canary.routing import TO_PRIMARY, Routing
from control.canary.spec import DURATION, SUCCESS_RATE
from control.canary.status import ANALYSED, TRANSITIONS, Phase

MEASUREMENTS = st.one_of(
    st.builds(Measurement, st.floats(0, 100), st.integers(0, 40).map(float)),
    st.just(Measurement(100.0, 40.0)),
    st.just(Measurement(reason="silence")),
    st.just(Measurement(reason="starting", warming=True)),
    st.just(Measurement(reason="down", error=True)),
    st.just(Measurement(float("nan"), 0.0)),
)
STEPS = st.one_of(
    st.just({"stepWeight": 10, "maxWeight": 50}),
    st.builds(lambda s, m: {"stepWeight": s, "maxWeight": m}, st.integers(1, 100), st.integers(1, 100)),
    st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
        lambda steps: {"stepWeight": 0, "stepWeights": sorted(steps)}
    ),
)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["good", "good", "good", "measure", "edit", "waiting", "stuck", "primary", "split", "early", "config"]),
        MEASUREMENTS,
        MEASUREMENTS,
        st.integers(1, 4),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(0, 30), MOVES)
def test_weights_sum_to_100_phases_follow_the_table_and_nothing_is_promoted_on_a_bad_or_missing_number(
    analysis, step_back, moves
):
    play = Play.initialised(canary_spec({**analysis, "stepWeightPromotion": step_back}))
    for move, success, duration, number in moves:
        play.target = replace(play.target, readiness=READY)
        play.primary = replace(play.primary, readiness=READY)
        play.seen = {SUCCESS_RATE: Measurement(100.0, 50), DURATION: Measurement(10.0, 50)}
        play.due = move != "early"
        if move == "measure":
            play.seen = {SUCCESS_RATE: success, DURATION: duration}
        elif move == "edit":
            play.edit(f"v{number}")
        elif move == "waiting":
            play.target = replace(play.target, readiness=waiting())
        elif move == "stuck":
            play.target = replace(play.target, readiness=stuck())
        elif move == "primary":
            play.primary = replace(play.primary, readiness=stuck())
        elif move == "split":
            play.routing = None if number == 1 else Routing(number)
        elif move == "config":
            play.tracked = {"configmap/x": str(number)}
        facts, before = play.facts(), play.status
        measured = {metric: play.seen[metric.name] for metric in play.spec.metrics}
        primary_before = play.primary.revision
        decision = play.tick()

        assert play.routing.canary + play.routing.primary == 100
        assert play.routing == strategy.routing(play.spec, play.status)
        assert play.status.phase is before.phase or play.status.phase in TRANSITIONS[before.phase]
        for action in decision.actions:
            if isinstance(action, PromoteTemplate):
                assert before.phase in (*ANALYSED, Phase.PROMOTING)
                assert action.revision == before.last_applied == facts.target.revision
                if before.phase in ANALYSED:
                    assert before.canary_weight >= play.spec.top_weight
                    assert before.failed_checks < play.spec.threshold
                    assert analyse(play.spec, measured).outcome is Outcome.PASSED
                    assert facts.due
            if isinstance(action, SetRouting) and action.routing.canary > before.canary_weight and before.phase in ANALYSED:
                assert before.canary_weight == 0 or analyse(play.spec, measured).outcome is Outcome.PASSED
            if isinstance(action, ScaleToZero):
                assert play.routing == TO_PRIMARY  # nobody is sent to pods that go
        if play.primary.revision != primary_before:
            assert any(isinstance(action, PromoteTemplate) for action in decision.actions)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_a_release_whose_checks_all_pass_always_ends_promoted(analysis):
    play = Play.initialised(canary_spec(analysis))
    play.edit("v2")
    play.until(Phase.SUCCEEDED, limit=110)
    assert play.primary.revision == "v2"


@settings(max_examples=200, deadline=None)
@given(MEASUREMENTS, MEASUREMENTS)
def test_an_analysis_passes_only_with_a_good_number_for_every_metric(success, duration):
    spec = canary_spec()
    verdict = analyse(spec, dict(zip(spec.metrics, (success, duration), strict=True)))
    good = (
        success.value is not None
        and success.value >= 99
        and success.requests >= 1
        and duration.value is not None
        and duration.value < 501
        and duration.requests >= 1
    )
    assert (verdict.outcome is Outcome.PASSED) == good


def test_a_metric_that_was_not_measured_fails_the_analysis():
    assert analyse(canary_spec(), {}).outcome is Outcome.FAILED
