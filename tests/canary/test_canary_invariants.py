"""What holds whatever happens: random worlds, random numbers, random people."""

from __future__ import annotations

from dataclasses import replace

from canary_plays import Play, canary_spec, stuck, waiting
from hypothesis import given, settings
from hypothesis import strategies as st

from control.canary.declared.commands import Commands
from control.canary.declared.hooks import HookResult
from control.canary.declared.spec import DURATION, SUCCESS_RATE
from control.canary.facts import READY, Workload
from control.canary.machine import strategy
from control.canary.machine.analysis import Measurement, Outcome, analyse
from control.canary.machine.decision import PromoteTemplate, ScaleToZero, SetRouting
from control.canary.machine.routing import TO_PRIMARY, Routing
from control.canary.machine.status import ANALYSED, TRANSITIONS, Phase
from control.canary.objects.manifests import stamp_for

MEASUREMENTS = st.one_of(
    st.builds(Measurement, st.floats(0, 100), st.integers(0, 40).map(float)),
    st.just(Measurement(100.0, 40.0)),
    st.just(Measurement(reason="silence")),
    st.just(Measurement(reason="starting", warming=True)),
    st.just(Measurement(reason="down", error=True)),
    st.just(Measurement(float("nan"), 0.0)),
)
MATCH = [{"headers": {"x-canary": {"exact": "insider"}}}]
STEPS = st.one_of(
    st.just({"stepWeight": 10, "maxWeight": 50}),
    st.builds(lambda s, m: {"stepWeight": s, "maxWeight": m}, st.integers(1, 100), st.integers(1, 100)),
    st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(
        lambda steps: {"stepWeight": 0, "stepWeights": sorted(steps)}
    ),
)
ANALYSES = st.builds(
    lambda steps, mirror: {**steps, "mirror": mirror},
    st.one_of(
        STEPS,
        st.integers(1, 4).map(lambda n: {"stepWeight": 0, "iterations": n}),
        st.integers(1, 4).map(lambda n: {"stepWeight": 0, "iterations": n, "match": MATCH}),
    ),
    st.booleans(),
)
HOOKS = [
    {"type": kind, "name": kind, "url": "http://gate.test/"}
    for kind in ("confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion", "rollback")
]
WORLDS = ["waiting", "stuck", "primary", "routing", "early", "config", "hooks", "gone", "scaled", "apex", "unaccepted", "lost"]
# (ticks in which all goes well, what is odd then and for how long, how)
MOVES = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(["measure", "edit", "order", "strategy", "hooks", *WORLDS]),
        st.integers(1, 3),
        MEASUREMENTS,
        MEASUREMENTS,
        st.integers(0, 63),
    ),
    max_size=12,
)


def good_world(play: Play) -> None:
    """Everything that a move may have made odd, and that goes by itself, is over."""
    play.target = replace(play.target or Workload("v9", 0, READY), readiness=READY)
    if play.primary is not None:
        play.primary = replace(play.primary, readiness=READY, replicas=2)
    play.measure()
    play.due = True
    play.hooks = {}
    play.routing_problem = ""
    play.commands = Commands()


def make_odd(play: Play, move: str, success: Measurement, duration: Measurement, number: int, other: dict) -> None:
    match move:
        case "measure":
            play.seen = {SUCCESS_RATE: success, DURATION: duration}
        case "edit":
            play.edit(f"v{number % 4}")
        case "order":
            play.order(("abort", "promote", "retry", "approve")[number % 4], gate="promotion")
        case "strategy":
            play.spec = canary_spec({**other, "webhooks": HOOKS})
        case "waiting" | "stuck":
            play.target = replace(play.target, readiness=waiting() if move == "waiting" else stuck())
        case "primary" if play.primary is not None:
            odd = {"replicas": 0} if number % 3 == 2 else {"readiness": stuck() if number % 2 else waiting()}
            play.primary = replace(play.primary, **odd)
        case "lost":
            play.primary = None
            if number % 4 == 0:
                play.kept = ""
        case "routing":
            play.routing = Routing(number) if number else None
        case "early":
            play.due = False
        case "config":
            play.tracked = {"configmap/x": str(number)}
        case "hooks":
            if number < 48:  # one of them says the unusual
                name = HOOKS[number % len(HOOKS)]["name"]
                play.hooks = {name: HookResult(name == "rollback")}
            else:
                play.hooks = {hook["name"]: HookResult(bool(number >> i & 1)) for i, hook in enumerate(HOOKS)}
        case "gone":
            play.delete_target()
        case "scaled":
            play.target = replace(play.target, replicas=number % 4)
        case "apex":
            play.apex_ok = False
        case "unaccepted":
            play.routing_problem = "HTTPRoute podinfo.test is not ready"


@settings(max_examples=300, deadline=None)
@given(ANALYSES, ANALYSES, st.integers(0, 30), MOVES)
def test_whatever_happens_nothing_is_promoted_unchecked_nobody_is_sent_to_nobody_and_every_phase_has_an_exit(
    analysis, other, step_back, moves
):
    play = Play.initialised(canary_spec({**analysis, "stepWeightPromotion": step_back, "webhooks": HOOKS}))
    for serial, (quiet, move, lasting, success, duration, number) in enumerate(moves):
        if play.status.phase in (Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED):
            good_world(play)
            play.edit(f"r{serial}")
        for _ in range(quiet):
            good_world(play)
            check_one_tick(play)
        for _ in range(lasting):
            good_world(play)
            make_odd(play, move, success, duration, number, other)
            check_one_tick(play)
    good_world(play)
    play.edit("last")
    play.until(Phase.SUCCEEDED, limit=240)
    # What was released last may still have been on its way: then it is "last"'s turn.
    play.tick()
    play.until(Phase.SUCCEEDED, limit=240)
    assert (play.primary.revision.partition("-")[0], play.routing, play.target.replicas) == ("last", Routing(0), 0)


def check_one_tick(play: Play) -> None:
    facts, before, spec = play.facts(), play.status, play.spec
    measured = {metric: play.seen[metric.name] for metric in spec.metrics}
    primary_before = play.primary or Workload(play.kept, 0, READY)
    decision = play.tick()
    passed = analyse(spec, measured).outcome is Outcome.PASSED and play.hooks.get("rollout", HookResult(True)).ok
    ordered = facts.commands.promote is not None
    analysed = before.phase in ANALYSED

    assert play.routing.canary + play.routing.primary == 100
    if facts.target is not None:
        assert play.routing == strategy.routing(spec, play.status)
    assert play.status.phase is before.phase or play.status.phase in TRANSITIONS[before.phase]
    for action in decision.actions:
        if isinstance(action, PromoteTemplate):
            assert action.revision == facts.target.revision
            if not ordered:
                assert before.phase in (*ANALYSED, Phase.PROMOTING)
                assert action.revision == before.last_applied
            if analysed and not ordered:
                assert isinstance(strategy.next_step(spec, before), strategy.Promote)
                assert before.failed_checks < spec.threshold
                assert passed
                assert facts.due
                assert play.hooks.get("confirm-promotion", HookResult(True)).ok
        if isinstance(action, SetRouting) and analysed and action.routing.canary > before.canary_weight:
            assert strategy.begins(before) or passed or action.routing == strategy.routing(spec, before)
        if isinstance(action, ScaleToZero):
            assert play.routing == TO_PRIMARY  # nobody is sent to pods that go
    if play.target is None:
        assert play.routing.canary == 0 or play.status.phase is Phase.FAILED
    copied = any(isinstance(action, PromoteTemplate) for action in decision.actions)
    if play.primary is not None and play.primary.approved and play.primary.revision != primary_before.revision:
        assert copied or primary_before.revision == ""  # nothing was kept, and the target still was what had been promoted
    if analysed and play.status.phase is Phase.PROMOTING and not copied:
        assert primary_before.approved
        assert primary_before.revision == stamp_for(before.last_applied, before.tracked)


@settings(max_examples=100, deadline=None)
@given(ANALYSES)
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
