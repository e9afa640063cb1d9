"""A release beside a baseline, on facts alone: wherever it crashes and whatever happens none is left, weights sum to 100."""

from __future__ import annotations

from dataclasses import replace

import pytest
from canary_cluster import TARGET, Cluster, deployment
from canary_plays import Play, canary_object, canary_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from router_world import asked, shares
from test_canary_crash import FragileCluster, crashed_at
from test_canary_policy import policy, policy_object

from control.canary.declared.fields import SpecError
from control.canary.declared.spec import DURATION, SUCCESS_RATE, parse
from control.canary.facts import READY, Facts, Readiness, collect
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import Action, EnsureBaseline, RemoveBaseline, SetRouting
from control.canary.machine.routing import Routing
from control.canary.machine.status import ANALYSED, BASELINE, Phase, Status
from control.canary.objects import manifests
from control.canary.objects.baseline import Baseline, unfit
from control.canary.objects.workloads import baseline_workload
from control.store.store import Key, Object

BAD = {SUCCESS_RATE: Measurement(50.0, 50), DURATION: Measurement(12.0, 50)}
WITH = policy(evidence={"baseline": True})


GONE = ("Failed", "canary 0, primary 100", "")


class Beside(Play):
    """The status goes through its stored form at every tick, as after a restart."""

    policy = WITH
    baseline: tuple[str, int] | None = None  # revision and replicas
    baseline_ready: Readiness = READY

    def facts(self) -> Facts:
        self.status = Status.of(self.status.to_object())
        seen = None
        if self.baseline is not None:
            right = self.target is not None and self.baseline == (self.primary.revision, self.target.replicas)
            seen = Baseline(self.baseline_ready, right)
        return replace(super().facts(), policy=self.policy, baseline=seen)

    def do(self, action: Action) -> None:
        match action:
            case EnsureBaseline():
                self.baseline = self.primary.revision, self.target.replicas
            case RemoveBaseline():
                assert not self.routing.baseline, "it is removed while it has requests"
                self.baseline = None
            case SetRouting(routing=routing):
                assert not routing.baseline or self.baseline is not None, "requests go where nobody is"
                super().do(action)
            case _:
                super().do(action)

    def at(self) -> tuple[str, str, str]:
        there = "" if self.baseline is None else f"baseline of {self.baseline[0]} x {self.baseline[1]}"
        return self.status.phase.value, str(self.routing), there


def begun(analysis: dict[str, object] | None = None) -> Beside:
    play = Beside.initialised(canary_spec({"maxWeight": 20, **(analysis or {})}))
    play.edit("v2")
    return play


def walked(play: Beside, ticks: int) -> list[tuple[str, str, str]]:
    found = []
    for _ in range(ticks):
        play.tick()
        found.append(play.at())
    return found


# ---------------------------------------------------------------- golden timelines


def test_a_good_revision_is_promoted_beside_a_baseline_that_goes_before_the_primary_takes_over():
    assert walked(begun(), 7) == [
        ("Progressing", "canary 0, primary 100", "baseline of v1 x 2"),
        ("Progressing", "canary 10, primary 80, baseline 10", "baseline of v1 x 2"),
        ("Progressing", "canary 20, primary 60, baseline 20", "baseline of v1 x 2"),
        ("Promoting", "canary 20, primary 80", "baseline of v1 x 2"),
        ("Finalising", "canary 0, primary 100", ""),
        ("Succeeded", "canary 0, primary 100", ""),
        ("Succeeded", "canary 0, primary 100", ""),
    ]


def test_beyond_half_of_the_requests_the_baseline_has_what_the_canary_leaves():
    seen = walked(begun({"stepWeight": 0, "stepWeights": [30, 50, 70, 100], "maxWeight": 100}), 5)
    assert [routing for _, routing, _ in seen[1:]] == [
        "canary 30, primary 40, baseline 30",
        "canary 50, primary 0, baseline 50",
        "canary 70, primary 0, baseline 30",
        "canary 100, primary 0",
    ]


def test_a_bad_revision_takes_its_baseline_with_it():
    play = begun()
    walked(play, 2)
    play.seen = BAD
    assert walked(play, 4)[-2:] == [("Failed", "canary 0, primary 100", "baseline of v1 x 2"), GONE]


def test_an_abort_takes_the_baseline_with_it():
    play = begun()
    walked(play, 2)
    play.order("abort")
    assert walked(play, 2)[1] == GONE


def test_a_deleted_target_takes_the_baseline_with_it():
    play = begun()
    walked(play, 2)
    play.delete_target()
    assert walked(play, 2)[1] == GONE


def test_a_deleted_canary_that_gives_everything_back_leaves_no_baseline():
    play = Beside.initialised(canary_spec(revertOnDeletion=True))
    play.edit("v2")
    walked(play, 2)
    play.deleting = True
    assert walked(play, 2)[1] == ("Terminated", "canary 0, primary 100", "")
    assert not play.finalizer


def test_a_new_revision_in_the_middle_begins_again_beside_the_same_baseline():
    play = begun()
    walked(play, 2)
    play.edit("v3")
    assert walked(play, 2) == [
        ("Progressing", "canary 0, primary 100", "baseline of v1 x 2"),
        ("Progressing", "canary 10, primary 80, baseline 10", "baseline of v1 x 2"),
    ]


def test_no_weight_grows_until_the_baseline_is_ready_and_one_that_is_stuck_rolls_back():
    play = begun()
    play.baseline_ready = Readiness(False, "1 of 2 are available")
    assert {routing for _, routing, _ in walked(play, 5)} == {"canary 0, primary 100"}
    texts = [event.text for event in play.decisions[-1].events]
    assert texts == ["baseline deployment podinfo-baseline.test not ready: 1 of 2 are available"]
    play.baseline_ready = Readiness(False, "exceeded its progress deadline", stuck=True)
    assert walked(play, 2)[1] == GONE


def test_a_baseline_that_somebody_deletes_or_scales_is_put_right():
    play = begun()
    walked(play, 2)
    for broken in (None, ("v1", 1)):
        play.baseline = broken
        assert walked(play, 1) == [("Progressing", "canary 10, primary 80, baseline 10", "baseline of v1 x 2")]
    assert walked(play, 1)[0][1] == "canary 20, primary 60, baseline 20"


def test_a_baseline_whose_name_is_taken_is_waited_for_and_then_given_up():
    play = begun()
    facts = play.facts
    play.facts = lambda: replace(facts(), baseline=Baseline(READY, False, "deployment podinfo-baseline.test is yours"))
    walked(play, 3)
    assert play.status.phase is Phase.PROGRESSING
    play.now += play.spec.progress_deadline_s
    play.tick()
    assert play.status.phase is Phase.FAILED
    assert not any(isinstance(action, RemoveBaseline) for one in play.decisions for action in one.actions)


def test_a_policy_edited_meanwhile_holds_from_the_next_release_on():
    play = begun()
    walked(play, 2)
    play.policy = policy(evidence={})
    assert walked(play, 1)[0][1] == "canary 20, primary 60, baseline 20"
    play.until(Phase.SUCCEEDED)
    play.edit("v3")
    assert walked(play, 2)[1] == ("Progressing", "canary 10, primary 90", "")


def test_weights_of_another_hand_are_put_back_with_the_baselines_share():
    play = begun()
    walked(play, 2)
    play.routing, play.due = Routing(10), False
    play.tick()
    assert str(play.routing) == "canary 10, primary 80, baseline 10"


# ---------------------------------------------------------------- crashes, and whatever happens


def life(crash: tuple[int, int] | None, bad_from: int | None = None) -> Beside:
    play = Beside(canary_spec({"maxWeight": 20, "stepWeightPromotion": 10}))
    for number in range(16):
        if number == 3:
            play.edit("v2")
        if bad_from is not None and number >= bad_from:
            play.seen = BAD
        play.tick(crash[1] if crash and crash[0] == number else None)
    return play


@pytest.mark.parametrize("bad_from", [None, 5])
def test_wherever_it_crashes_it_ends_in_the_same_place_without_a_baseline(bad_from):
    phase = Phase.SUCCEEDED if bad_from is None else Phase.FAILED
    points = [(n, after) for n, one in enumerate(life(None, bad_from).decisions) for after in range(len(one.actions) + 1)]
    for crash in points:
        play = life(crash, bad_from)
        assert (play.status.phase, play.routing, play.baseline) == (phase, Routing(0), None), crash
    assert len(points) > 20


happenings = st.tuples(
    st.sampled_from(["", "", "", "bad", "good", "v3", "v1", "abort", "promote", "unready", "lost", "hand", "with", "without"]),
    st.sampled_from([None, None, None, 0, 1, 2, 3]),
)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5, unique=True).map(sorted), st.lists(happenings, max_size=40))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_shares_sum_to_100_and_no_end_has_a_baseline(weights, story):
    play = begun({"stepWeight": 0, "stepWeights": weights, "maxWeight": 100})
    for what, crash_after in story:
        play.baseline_ready = Readiness(what != "unready", "", False)
        match what:
            case "bad" | "good":
                play.measure(success=0.0 if what == "bad" else 100.0)
            case "v3" | "v1":
                play.edit(what)
            case "abort" | "promote":
                play.order(what)
            case "lost":
                play.baseline = None if not play.routing.baseline else play.baseline
            case "hand":
                play.routing = Routing(7)
            case "with" | "without":
                play.policy = WITH if what == "with" else policy()
        watched(play, crash_after)
    play.baseline_ready = READY
    play.measure()
    for _ in range(40):
        over = play.status.phase in (Phase.SUCCEEDED, Phase.FAILED) and play.baseline is None
        if over and play.target.revision == play.status.last_applied:
            break
        watched(play, None)
    watched(play, None)
    assert play.status.phase in (Phase.INITIALIZED, Phase.SUCCEEDED, Phase.FAILED)
    assert play.baseline is None
    assert play.routing == Routing(play.status.canary_weight)


def watched(play: Beside, crash_after: int | None) -> None:
    over = play.status.phase not in ANALYSED
    play.tick(crash_after)
    routing = play.routing
    assert sum(routing.weights) in (100, 10_000)
    assert routing.canary + routing.primary + routing.baseline == pytest.approx(100)
    assert routing.baseline in (0, min(routing.canary, 100 - routing.canary))
    if crash_after is None and play.status.phase not in ANALYSED:
        assert play.status.condition(BASELINE) is None
        assert routing.baseline == 0
        assert not over or play.baseline is None


# ---------------------------------------------------------------- what it is made of, and who gets what


def test_the_baseline_is_the_primary_once_more_under_another_label():
    spec, tracked = parse(canary_object()), {"configmap/settings": "h"}
    source = deployment("v1", 7)
    apart = {"labelSelector": {"matchLabels": {"app": "podinfo"}}}
    source["spec"]["template"]["spec"]["affinity"] = {
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    }
    primary = manifests.primary_workload(spec, source, tracked, 7)
    made = baseline_workload(spec, primary, 2)
    assert (made["metadata"]["name"], made["spec"]["replicas"]) == ("podinfo-baseline", 2)
    assert made["metadata"]["ownerReferences"][0]["name"] == "podinfo"
    assert (
        made["spec"]["selector"]["matchLabels"] == made["spec"]["template"]["metadata"]["labels"] == {"app": "podinfo-baseline"}
    )
    assert made["spec"]["template"]["spec"]["containers"] == primary["spec"]["template"]["spec"]["containers"]
    (rule,) = made["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"]["matchLabels"] == {"app": "podinfo-baseline"}
    assert manifests.primary_stamp(made) == manifests.primary_stamp(primary)


@pytest.mark.parametrize("provider", ["", "gatewayapi:v1"])
@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        (0, "podinfo-primary 100"),
        (0.25, "podinfo-primary 99.5, podinfo-canary 0.25, podinfo-baseline 0.25"),
        (20, "podinfo-primary 60, podinfo-canary 20, podinfo-baseline 20"),
        (50, "podinfo-canary 50, podinfo-baseline 50"),
        (80, "podinfo-canary 80, podinfo-baseline 20"),
        (100, "podinfo-canary 100"),
    ],
)
def test_a_clients_proxy_shares_requests_out_among_all_three(provider, canary, expected):
    assert shares(asked(provider=provider), Routing(canary).beside()) == expected


UNFIT = [
    ({"iterations": 3}, {}, "spec.evidence.baseline: analysis.iterations gives the canary all or none"),
    ({"match": [{"headers": {"x": {"exact": "y"}}}]}, {}, "analysis.match chooses who gets the canary"),
    ({"mirror": True}, {}, "analysis.mirror gives the canary copies"),
    ({"sessionAffinity": {"cookieName": "c"}}, {}, "analysis.sessionAffinity keeps users with the canary"),
    ({}, {"provider": "kubernetes"}, "provider kubernetes shares no requests out"),
    ({}, {"targetRef": {"kind": "DaemonSet", "name": "podinfo"}}, "a DaemonSet has a pod on every node"),
]


@pytest.mark.parametrize(("analysis", "spec", "why"), UNFIT)
def test_what_cannot_have_a_baseline_is_refused_and_says_why(cluster, analysis, spec, why):
    cluster.begin(analysis=analysis, **spec)
    cluster.write(policy_object(evidence={"baseline": True}))
    canary = parse(cluster.store.get(cluster_canary(cluster)))
    with pytest.raises(SpecError, match=r"ReleasePolicy podinfo: spec\.evidence\.baseline: ") as refused:
        collect(cluster.store, canary, Status(), {}, cluster.now)
    assert why in str(refused.value)
    assert unfit(canary) in str(refused.value)


def cluster_canary(cluster: Cluster) -> Key:
    (found,) = cluster.store.list("flagger.app", "Canary")
    return Key.of(found)


# ---------------------------------------------------------------- on a real store


def both(cluster: Cluster) -> list[Object | None]:
    workload, service = (
        replace(TARGET, name="podinfo-baseline"),
        replace(TARGET, group="", kind="Service", name="podinfo-baseline"),
    )
    return [cluster.store.get(workload), cluster.store.get(service)]


async def test_on_files_it_is_there_for_the_analysis_only_and_the_target_can_be_scaled(cluster):
    cluster.begin(analysis={"maxWeight": 20, "stepWeight": 20})
    cluster.write(policy_object(evidence={"baseline": True}))
    await cluster.roll_out()
    for _ in range(2):
        await cluster.tick()
    cluster.write(deployment("v2"))
    await cluster.tick()
    workload, service = both(cluster)
    assert workload["spec"]["template"]["spec"]["containers"][0]["image"] == "podinfo:v1"
    assert service["spec"]["selector"] == {"app": "podinfo-baseline"}
    await cluster.tick()
    assert cluster.weights() == (20, 20, 60)
    cluster.write(deployment("v2", 3))
    await cluster.roll_out()
    await cluster.tick()
    assert both(cluster)[0]["spec"]["replicas"] == 3
    for _ in range(5):
        await cluster.tick()
    assert cluster.status().phase is Phase.SUCCEEDED
    assert both(cluster) == [None, None]
    assert cluster.weights() == (0, 100)


def test_none_is_left_of_a_suspended_release_that_is_aborted():
    play = begun()
    walked(play, 3)
    play.spec = replace(play.spec, suspend=True)
    assert walked(play, 2)[-1] == ("Progressing", "canary 20, primary 60, baseline 20", "baseline of v1 x 2")
    play.order("abort")
    assert walked(play, 2)[-1] == GONE


async def test_on_files_what_somebody_else_made_under_its_name_stays(cluster):
    mine = deployment("mine")
    mine["metadata"]["name"] = "podinfo-baseline"
    cluster.begin()
    cluster.write(policy_object(evidence={"baseline": True}), mine)
    await cluster.roll_out()
    for _ in range(2):
        await cluster.tick()
    cluster.write(deployment("v2"))
    for _ in range(4):
        await cluster.tick()
    assert cluster.weights() == (0, 100)
    assert "is there already" in " ".join(event["message"] for event in cluster.store.events(cluster_canary(cluster)))
    assert cluster.image(replace(TARGET, name="podinfo-baseline")) == "podinfo:mine"


class FragileBeside(FragileCluster):
    def begin(self, **canary: object) -> None:
        super().begin(**canary)
        self.write(policy_object(evidence={"baseline": True}))


@pytest.mark.parametrize("bad", [False, True])
async def test_on_files_it_ends_without_a_baseline_whatever_write_it_crashed_at(tmp_path, bad):
    analysis = {"stepWeight": 10} if bad else {"stepWeight": 40, "maxWeight": 40}
    async for cluster, at in crashed_at(tmp_path, 3, analysis, bad=bad, kind=FragileBeside):
        for _ in range(2):
            await cluster.tick()
        assert cluster.status().phase is (Phase.FAILED if bad else Phase.SUCCEEDED), at
        assert (both(cluster), cluster.weights(), cluster.replicas(TARGET)) == ([None, None], (0, 100), 0), at
