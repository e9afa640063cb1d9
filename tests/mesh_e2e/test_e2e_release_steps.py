"""Releases by the steps of a ReleasePolicy, with real proxies and users: a weight below a percent, pauses, promotion steps,
several Canaries as one release, and orders of people with their reasons.

A step that waits for requests, or for a person, lasts until the test gives it those; so what is counted there is exact.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mesh_arms import CANARY, PRIMARY, Users, arms, ask_each, workload
from mesh_manifests import Object
from mesh_release import INCREASE, Lanes, Release, Stage
from mesh_run import until

LANES = Lanes()
lane = LANES.lane


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    chosen = {item.name for item in request.session.items}
    with LANES.performed(tmp_path_factory.mktemp("steps"), "steps", chosen) as found:
        yield found


# ---------------------------------------------------------------- one release

Shares = list[tuple[float, float]]


@contextmanager
def watched(release: Release) -> Iterator[dict[str, Shares]]:
    """Client proxy -> every (canary, primary) it shared out by, in order, until the block ends."""
    found: dict[str, Shares] = {ip: [] for ip in release.clients}
    ended = threading.Event()

    def watch(ip: str) -> None:
        while not ended.wait(0.05):
            for shares in release.shares_at(ip):
                if found[ip][-1:] != [shares]:
                    found[ip].append(shares)

    threads = [threading.Thread(target=watch, args=(ip,), daemon=True) for ip in found]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join(10)


@lane("steps")
def test_a_step_below_a_percent_lasts_until_the_canary_has_answered_its_requests(release: Release) -> None:
    release.write("1")
    release.canary(stepWeight=50)
    release.policy(
        steps=[
            {"weight": 0.5, "duration": "1s", "minRequests": 5},
            {"weight": 20, "pause": True},
            {"weight": 60, "duration": "3s"},
        ],
        # A proxy that hears of it late still hears of it: each lasts longer than the news on a busy machine.
        promotionSteps=[{"weight": 50, "duration": "4s"}, {"weight": 80, "duration": "4s", "pause": True}],
    )
    release.begins()
    release.write("2")
    release.shares((0.5, 99.5))
    assert arms(release.count(400)) == {(CANARY, "2", 200): 2, (PRIMARY, "1", 200): 398}
    wants = "needs 5 requests at weight 0.5"
    release.says(wants, more_than=release.often(wants) + 1)  # looked at twice more
    assert [release.shares_at(ip) for ip in release.clients] == [[(0.5, 99.5)]] * 2
    # Through the other proxy: this one is to be at the beginning of its shares when the next test counts.
    first, number = release.clients[0], itertools.count()
    release.until(
        lambda: ask_each(first, release.host, f"more{next(number)}", 100) and release.status["canaryWeight"] == 20, "20 %"
    )
    release.shares((20, 80))


@lane("steps")
def test_a_paused_step_holds_its_weight_until_it_is_approved(release: Release) -> None:
    release.until(lambda: "approval of step 2" in str(release.status), "the pause")
    halted = "advancement waiting for approval of step 2"
    release.says(halted, more_than=release.often(halted) + 1)
    assert release.phase == "Progressing"
    assert [release.shares_at(ip) for ip in release.clients] == [[(20, 80)]] * 2
    assert arms(release.count(50)) == {(CANARY, "2", 200): 10, (PRIMARY, "1", 200): 40}


@lane("steps")
def test_the_primary_takes_the_traffic_back_by_promotion_steps_and_no_user_sees_a_failure(release: Release) -> None:
    with release.users() as users, watched(release) as seen:
        release.until(lambda: all(seen.values()), "a look at both")
        release.order("approve", "--reason", "nobody complains", "--by", "ann")
        release.until(lambda: "approval of promotion step 2" in str(release.status), "the pause of the promotion")
        assert [release.shares_at(ip) for ip in release.clients] == [[(20, 80)]] * 2
        assert release.phase == "Promoting"
        release.order("approve", "--by", "bob")
        release.reaches("Succeeded")
        release.until(lambda: all(found[-1] == (0, 100) for found in seen.values()), "everyone at the primary")
        assert arms(release.count(20)) == {(PRIMARY, "2", 200): 20}
    for found in seen.values():
        assert found == [(20, 80), (60, 40), (50, 50), (20, 80), (0, 100)]
    assert users.failures == []
    history = release.order("history")
    assert "Step 2 of web.steps approved (by ann: nobody complains)" in history
    assert "Promotion step 2 of web.steps approved (by bob)" in history


# ---------------------------------------------------------------- several as one


def other(release: Release, revision: str, metrics: list[Object] | None = None, **env: int) -> None:
    """The Canary "api" beside "web", and this revision of its target."""
    namespace = release.namespace
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"},
        "service": {"port": 80, "targetPort": "main"},
        # More than what it takes, for a busy machine may be late with the first numbers
        "analysis": {"interval": "1s", "threshold": 6 if metrics else 1000, "stepWeight": 50, "metrics": metrics or []},
    }
    metadata = {"name": "api", "namespace": namespace}
    canary = {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata, "spec": spec}
    release.mesh.write(f"{namespace}-api-canary", canary)
    until(lambda: other_canary(release).get("spec") == spec, "Canary api to be accepted")
    release.mesh.write(f"{namespace}-api", *workload(release.mesh, namespace, "api", **{"REVISION": revision, **env}))


def other_canary(release: Release) -> Object:
    """The Canary "api"."""
    return release.view.get("flagger.app", "Canary", release.namespace, "api") or {}


def stands(release: Release) -> tuple[str, float]:
    status = other_canary(release).get("status") or {}
    return status.get("phase", ""), status.get("canaryWeight", 0)


def of_other(release: Release, verb: str) -> str:
    done = release.mesh.verb("canary", verb, "api", "-n", release.namespace, "--name", release.mesh.name)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def users_of_both(release: Release) -> Iterator[tuple[Users, Users]]:
    with release.users() as users, Users(release.clients[0], f"api.{release.namespace}", prefix="api") as of_api:
        yield users, of_api


@lane("group")
def test_canaries_released_together_take_each_step_together_and_are_both_promoted(release: Release) -> None:
    release.write("1")
    other(release, "1")
    release.canary(stepWeight=50)
    release.policy(members=["api"], steps=[{"weight": 20, "pause": True}, {"weight": 60}])
    release.begins()
    release.until(lambda: stands(release)[0] == "Initialized", "api")
    with users_of_both(release) as (users, of_api):
        release.write("2")
        other(release, "2")
        release.shares((20, 80))
        release.until(lambda: "approval of step 1" in str(release.status), "the pause")
        release.order("approve")
        release.says("waiting for the other members of the release: api")
        release.until(lambda: stands(release) == ("Progressing", 20), "api at its first step")
        assert arms(release.count(20, host="api.group")) == {(CANARY, "2", 200): 4, (PRIMARY, "1", 200): 16}
        assert release.shares_at(release.clients[1]) == [(20, 80)]
        release.until(lambda: "approval of step 1" in str(other_canary(release)), "the pause of api")
        of_other(release, "approve")
        release.reaches("Succeeded")
        release.until(lambda: stands(release) == ("Succeeded", 0), "api promoted")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
        assert arms(release.count(10, host="api.group")) == {(PRIMARY, "2", 200): 10}
    assert users.failures == of_api.failures == []
    assert "All that are released with" in release.order("history") + of_other(release, "history")


@lane("group")
def test_when_one_of_them_fails_all_are_rolled_back(release: Release) -> None:
    release.policy(members=["api"], steps=[{"weight": 50, "duration": "1h"}])
    with users_of_both(release) as (users, of_api):
        release.write("3")
        release.shares((50, 50))
        other(release, "3", [{"name": "request-success-rate", "interval": "5s", "thresholdRange": {"min": 99}}], STATUS=500)
        release.reaches("Failed")
        release.until(lambda: stands(release) == ("Failed", 0), "api rolled back")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
        assert arms(release.count(10, host="api.group")) == {(PRIMARY, "2", 200): 10}
    release.says("Rolling back web.group api.group, released with it, failed")
    assert users.failures == []
    assert CANARY in {one.arm for one in users.said}, "its own canary was good, and asked"
    assert {(one.arm, one.revision, one.status) for one in of_api.failures} == {(CANARY, "3", 500)}


# ---------------------------------------------------------------- by hand


@lane("hands")
def test_a_release_that_was_aborted_is_retried_and_the_history_has_both_reasons(release: Release) -> None:
    release.write("1")
    release.canary(INCREASE, stepWeights=[50])
    release.begins()
    with release.users() as users:
        release.write("2")
        release.let(INCREASE)
        release.shares((50, 50))
        release.order("abort", "--reason", "the log is full of warnings", "--by", "ann")
        release.reaches("Failed")
        release.shares((0, 100))
        release.until(lambda: not release.mesh_pods("web"), "the canary's pods to be gone")
        assert arms(release.count(10)) == {(PRIMARY, "1", 200): 10}
        release.order("retry", "--reason", "they are harmless", "--by", "bob")
        release.let(INCREASE)
        release.shares((50, 50))
        assert arms(release.count(20)) == {(CANARY, "2", 200): 10, (PRIMARY, "1", 200): 10}
        release.let(INCREASE, 9)
        release.reaches("Succeeded")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
    assert users.failures == []
    told = [line for line in release.order("history").splitlines() if "(by " in line or "Promotion completed!" in line]
    assert len(told) == 3, told
    assert "aborted by hand (by ann: the log is full of warnings)" in told[0]
    assert "Scaling up web.hands (by bob: they are harmless)" in told[1]
