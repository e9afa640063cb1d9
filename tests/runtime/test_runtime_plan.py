"""The planner, on simulated time: what a Deployment does next, and what it says about itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.runtime.plan import PodFact, plan_deployment, rolling_bounds, template_hash

NOW = 1_800_000_000.0


def deployment(replicas: int = 4, version: str = "v2", status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    obj = {
        "metadata": {"name": "web", "namespace": "shop", "generation": 2},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"version": version}}, "spec": {}}, **spec},
    }
    return obj | ({"status": status} if status else {})


NEW = template_hash(deployment()["spec"]["template"])
OLD = template_hash(deployment(version="v1")["spec"]["template"])


def pod(name: str, hash_: str = NEW, *, ready: bool = True, age: float = 100.0, **more: Any) -> PodFact:
    since = NOW - age if ready else None
    return PodFact(name, hash_, NOW - age, ready, since, more.pop("running", True), **more)


@pytest.mark.parametrize(
    ("strategy", "replicas", "expected"),
    [
        ({}, 4, (1, 1)),
        ({}, 10, (3, 2)),  # 25 %: surge rounded up, unavailable down
        ({}, 1, (1, 0)),
        ({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}, 3, (0, 1)),
        ({"rollingUpdate": {"maxSurge": "0%", "maxUnavailable": "10%"}}, 3, (0, 1)),
        ({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": "50%"}}, 5, (2, 2)),
        ({"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": 9}}, 2, (2, 2)),
    ],
)
def test_surge_rounds_up_and_unavailable_rounds_down(
    strategy: dict[str, Any], replicas: int, expected: tuple[int, int]
) -> None:
    assert rolling_bounds(strategy, replicas) == expected


def test_a_new_deployment_creates_all_replicas_at_once() -> None:
    plan = plan_deployment(deployment(3), [], NOW)
    assert (plan.create, plan.delete, plan.template_hash) == (3, (), NEW)
    assert plan.status["conditions"][1]["reason"] == "NewReplicaSetCreated"
    assert plan.status["conditions"][0]["status"] == "False"


def test_replicas_default_to_one_and_zero_means_zero() -> None:
    one = deployment()
    del one["spec"]["replicas"]
    assert plan_deployment(one, [], NOW).create == 1
    assert plan_deployment(deployment(0), [], NOW).create == 0


def test_a_rolling_update_first_surges_and_ends_what_may_be_unavailable() -> None:
    pods = [pod(f"old{i}", OLD) for i in range(4)]
    plan = plan_deployment(deployment(4), pods, NOW)
    assert plan.create == 1
    assert len(plan.delete) == 1


def test_old_pods_that_serve_nobody_go_first() -> None:
    pods = [pod("a", OLD), pod("b", OLD, ready=False), pod("c", OLD), pod("d", OLD)]
    assert plan_deployment(deployment(4), pods, NOW).delete == ("b",)


def test_no_old_pod_ends_while_the_new_ones_are_not_available() -> None:
    strategy = {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    pods = [pod("a", OLD), pod("b", OLD), pod("n", ready=False)]
    plan = plan_deployment(deployment(2, strategy=strategy), pods, NOW)
    assert (plan.create, plan.delete) == (0, ())
    pods[2] = pod("n")
    assert len(plan_deployment(deployment(2, strategy=strategy), pods, NOW).delete) == 1


def test_recreate_waits_until_the_old_ones_are_gone() -> None:
    spec = deployment(2, strategy={"type": "Recreate"})
    plan = plan_deployment(spec, [pod("a", OLD), pod("b", OLD)], NOW)
    assert (plan.create, set(plan.delete)) == (0, {"a", "b"})
    assert plan_deployment(spec, [pod("a", OLD, terminating=True)], NOW).create == 0
    assert plan_deployment(spec, [], NOW).create == 2


def test_scaling_down_ends_the_unready_then_the_youngest_in_readiness() -> None:
    pods = [pod("old", age=500), pod("young", age=5), pod("unready", ready=False), pod("middle", age=50)]
    assert plan_deployment(deployment(1), pods, NOW).delete == ("unready", "young", "middle")


def test_a_paused_deployment_is_not_rolled() -> None:
    plan = plan_deployment(deployment(2, paused=True), [pod("a", OLD), pod("b", OLD)], NOW)
    assert (plan.create, plan.delete) == (0, ())
    assert plan.status["conditions"][1]["reason"] == "DeploymentPaused"


def test_min_ready_seconds_delay_availability_and_ask_for_another_look() -> None:
    spec = deployment(1, minReadySeconds=30)
    plan = plan_deployment(spec, [pod("a", age=10)], NOW)
    assert (plan.status["readyReplicas"], plan.status["availableReplicas"]) == (1, 0)
    assert plan.due_at == NOW + 20
    assert plan_deployment(spec, [pod("a", age=30)], NOW).status["availableReplicas"] == 1


def test_status_counts_and_reasons_when_all_is_well() -> None:
    status = plan_deployment(deployment(2), [pod("a"), pod("b")], NOW).status
    assert status["observedGeneration"] == 2
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas")
    assert [status[name] for name in names] == [2, 2, 2, 2, 0]
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [
        ("Available", "True", "MinimumReplicasAvailable"),
        ("Progressing", "True", "NewReplicaSetAvailable"),
    ]
    assert status["conditions"][1]["message"] == f'ReplicaSet "web-{NEW}" has successfully progressed.'


def test_a_rollout_without_progress_exceeds_its_deadline_and_recovers_when_it_moves() -> None:
    spec = deployment(1, progressDeadlineSeconds=60)
    waiting = [pod("a", ready=False)]
    spec["status"] = plan_deployment(spec, waiting, NOW).status
    plan = plan_deployment(spec, waiting, NOW + 59)
    assert plan.status["conditions"][1]["status"] == "True"
    assert plan.due_at == NOW + 60
    spec["status"] = plan_deployment(spec, waiting, NOW + 60).status
    progressing = spec["status"]["conditions"][1]
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert plan_deployment(spec, waiting, NOW + 300).status == spec["status"]
    moved = plan_deployment(spec, [PodFact("a", NEW, NOW, True, NOW + 301, True)], NOW + 301).status
    assert moved["conditions"][1]["reason"] == "NewReplicaSetAvailable"


def test_progress_starts_the_deadline_again() -> None:
    spec = deployment(2, progressDeadlineSeconds=60)
    spec["status"] = plan_deployment(spec, [pod("a", ready=False), pod("b", ready=False)], NOW).status
    spec["status"] = plan_deployment(spec, [pod("a"), pod("b", ready=False)], NOW + 50).status
    later = plan_deployment(spec, [pod("a"), pod("b", ready=False)], NOW + 100).status
    assert later["conditions"][1]["reason"] == "ReplicaSetUpdated"


def test_a_complete_rollout_that_loses_a_pod_is_unavailable_but_not_without_progress() -> None:
    spec = deployment(1)
    spec["status"] = plan_deployment(spec, [pod("a")], NOW).status
    status = plan_deployment(spec, [pod("a", ready=False)], NOW + 5000).status
    assert [(c["type"], c["status"]) for c in status["conditions"]] == [("Available", "False"), ("Progressing", "True")]
    assert status["unavailableReplicas"] == 1


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(0, 8),
    surge=st.integers(0, 4),
    unavailable=st.integers(0, 4),
    old=st.integers(0, 8),
    order=st.randoms(use_true_random=False),
)
def test_every_rollout_ends_within_its_bounds(replicas: int, surge: int, unavailable: int, old: int, order: Any) -> None:
    """Pods become ready one at a time, in any order; the plan is followed at once."""
    spec = deployment(replicas, strategy={"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
    most_surge, most_unavailable = rolling_bounds(spec["spec"]["strategy"], replicas)
    pods = {f"old{i}": pod(f"old{i}", OLD) for i in range(min(old, replicas))}
    began_whole = len(pods) == replicas
    made = 0
    for _ in range(200):
        plan = plan_deployment(spec, list(pods.values()), NOW)
        for name in plan.delete:
            del pods[name]
        for _ in range(plan.create):
            made += 1
            pods[f"new{made}"] = pod(f"new{made}", ready=False)
        assert len(pods) <= replicas + most_surge
        if began_whole:
            assert sum(fact.ready for fact in pods.values()) >= replicas - most_unavailable
        unready = [name for name, fact in pods.items() if not fact.ready]
        if unready:
            name = order.choice(unready)
            pods[name] = pod(name, pods[name].template_hash)
        elif not plan.create and not plan.delete:
            break
    assert sorted(fact.template_hash for fact in pods.values()) == [NEW] * replicas
