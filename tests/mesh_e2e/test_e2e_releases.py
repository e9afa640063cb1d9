"""Releases under load, from the first request to the last: who is given which version, counted where it matters.

In every play users ask all the time, and unless the new version itself is bad, none of them ever sees a failure.  A webhook
holds a release at a weight for as long as a test counts there; a split is exact, so 100 requests at 20 % are 20.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from mesh_arms import CANARY, PRIMARY, Users, arms, ledger
from mesh_manifests import Object, service
from mesh_release import INCREASE, PROMOTION, Lanes, Release, Stage
from mesh_run import until

INSIDER = {"x-canary": "insider"}
MATCH = [{"headers": {"x-canary": {"exact": "insider"}}}]
SUCCESS = {"name": "request-success-rate", "interval": "5s", "thresholdRange": {"min": 99}}
DURATION = {"name": "request-duration", "interval": "5s", "thresholdRange": {"max": 500}}

LANES = Lanes()
lane = LANES.lane


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    chosen = {item.name for item in request.session.items}
    with LANES.performed(tmp_path_factory.mktemp("releases"), "releases", chosen) as found:
        yield found


def only(users: Users, arm: str) -> None:
    """Nobody of them met the other arm, or a failure."""
    assert users.said
    assert {(one.arm, one.status) for one in users.said if not one.starved} == {(arm, 200)}, arms(users.said)


# ---------------------------------------------------------------- by weights


@lane("weights")
def test_users_move_to_a_new_revision_by_its_weights_and_a_pause_holds_them(release: Release) -> None:
    release.write("1", replicas=1)
    release.canary(INCREASE, stepWeights=[20, 60], metrics=[SUCCESS])
    release.begins()
    release.shares((0, 100))
    with release.users() as users:
        assert arms(release.count(10)) == {(PRIMARY, "1", 200): 10}
        release.write("2", replicas=1)
        release.let(INCREASE)
        release.shares((20, 80))
        assert arms(release.count(100)) == {(CANARY, "2", 200): 20, (PRIMARY, "1", 200): 80}
        release.order("pause")
        release.let(INCREASE)
        release.says("is paused at weight 20")
        assert release.shares_at(release.clients[1]) == [(20, 80)]
        assert arms(release.count(50)) == {(CANARY, "2", 200): 10, (PRIMARY, "1", 200): 40}
        release.order("resume")
        release.let(INCREASE)  # the one before was used up, or it was not: one more step is all there is
        release.shares((60, 40))
        assert arms(release.count(100)) == {(CANARY, "2", 200): 60, (PRIMARY, "1", 200): 40}
        release.let(INCREASE, 9)
        release.reaches("Succeeded")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
    assert users.failures == []
    executed = release.executed()
    assert {tuple(executed[one.id]) for one in users.said if one.status == 200} <= {(CANARY,), (PRIMARY,)}  # each once
    assert release.seen().shares == [(0, 100), (20, 80), (60, 40), (0, 100)]


def bad(release: Release, metric: Object, why: str, **env: int) -> Users:
    """A revision that is bad in this way is pulled; returns who asked meanwhile."""
    # More than what it takes, for a busy machine may be late with the first numbers
    release.canary(stepWeights=[50], metrics=[metric], threshold=6)
    release.write("bad", **env)
    with release.users(20) as users:
        release.says(f"Halt web.bad advancement {why} ")
        release.reaches("Failed")
        release.shares((0, 100))
        assert arms(release.count(20)) == {(PRIMARY, "1", 200): 20}
    return users


@lane("bad")
def test_a_revision_that_fails_is_rolled_back(release: Release) -> None:
    release.write("1")
    release.canary(stepWeights=[50])
    release.begins()
    users = bad(release, SUCCESS, "success rate", STATUS=500)
    assert users.failures
    assert {(one.arm, one.status) for one in users.failures} == {(CANARY, 500)}


@lane("bad")
def test_a_revision_that_is_slow_is_rolled_back(release: Release) -> None:
    users = bad(release, DURATION, "request duration", DELAY_MS=900)
    assert users.failures == []
    assert {one.arm for one in users.said} == {CANARY, PRIMARY}


# ---------------------------------------------------------------- by who asks


def only_insiders_meet_it(release: Release) -> None:
    """Both sorts of users, from the first iteration on for as long as it is held."""
    with release.users() as everyone:
        release.write("2")
        release.shares((100, 0), (0, 100)) if release.namespace == "split" else release.shares((100, 0))
        assert arms(release.count(30, INSIDER)) == {(CANARY, "2", 200): 30}
        assert arms(release.count(30)) == {(PRIMARY, "1", 200): 30}
        assert arms(release.count(10, {"x-canary": "outsider"})) == {(PRIMARY, "1", 200): 10}
        release.says("canary iteration 2/100")
    only(everyone, PRIMARY)


@lane("split")
def test_in_an_ab_test_by_splits_only_who_matches_meets_the_canary(release: Release) -> None:
    release.write("1")
    release.canary(provider="linkerd", iterations=100, match=MATCH)
    release.begins()
    only_insiders_meet_it(release)


@lane("split")
def test_promoted_by_hand_it_is_everyones(release: Release) -> None:
    with release.users() as everyone, release.users(headers=INSIDER) as insiders:
        release.order("promote", "--reason", "insiders are happy")
        release.reaches("Succeeded")
        assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
        assert arms(release.count(10, INSIDER)) == {(PRIMARY, "2", 200): 10}
    only(everyone, PRIMARY)
    assert insiders.failures == []
    assert {one.revision for one in insiders.said} == {"2"}  # never back to the old one


@lane("split")
def test_a_release_that_is_not_approved_reaches_nobody(release: Release) -> None:
    release.canary(provider="linkerd", iterations=1, annotations={"meshproxy.dev/confirm": "rollout"})
    with release.users() as everyone, release.users(headers=INSIDER) as insiders:
        release.write("3")
        release.reaches("Waiting")
        release.order("abort", "--reason", "not on a Friday")
        release.reaches("Failed")
        assert arms(release.count(10, INSIDER)) == {(PRIMARY, "2", 200): 10}
    only(everyone, PRIMARY)
    only(insiders, PRIMARY)
    assert {one.revision for one in insiders.said} == {"2"}


@lane("split")
def test_a_release_that_is_approved_begins(release: Release) -> None:
    release.write("4")
    release.reaches("Waiting")
    release.order("approve")
    release.reaches("Succeeded")
    assert arms(release.count(10)) == {(PRIMARY, "4", 200): 10}


@lane("route")
def test_in_an_ab_test_by_routes_only_who_matches_meets_the_canary(release: Release) -> None:
    release.write("1")
    release.canary(provider="gatewayapi:v1", iterations=100, match=MATCH)
    release.begins()
    only_insiders_meet_it(release)


@lane("route")
def test_aborted_by_hand_everyone_is_back(release: Release) -> None:
    with release.users() as everyone, release.users(headers=INSIDER) as insiders:
        release.order("abort", "--reason", "insiders complain", "--by", "ann")
        release.reaches("Failed")
        release.until(lambda: not release.mesh_pods("web"), "the canary's pods to be gone")
        assert arms(release.count(10, INSIDER)) == {(PRIMARY, "1", 200): 10}
    only(everyone, PRIMARY)
    assert insiders.failures == []
    assert "aborted by hand (by ann: insiders complain)" in release.order("history")


@lane("route")
def test_who_has_met_the_canary_once_stays_with_it_until_its_release_ends(release: Release) -> None:
    release.canary(INCREASE, stepWeights=[50], sessionAffinity={"cookieName": "arm"})
    release.write("3")
    release.let(INCREASE)
    release.until(lambda: (50, 50) in release.shares_at(release.clients[1]), "half of them")
    fresh = release.count(40)
    assert arms(fresh) == {(CANARY, "3", 200): 20, (PRIMARY, "1", 200): 20}
    assert {one.cookie.partition("=")[0] for one in fresh if one.arm == CANARY} == {"arm"}
    assert {one.cookie for one in fresh if one.arm == PRIMARY} == {""}
    mine = {"cookie": "theme=dark; " + next(one.cookie for one in fresh if one.arm == CANARY).partition(";")[0]}
    assert arms(release.count(30, mine)) == {(CANARY, "3", 200): 30}
    release.order("abort")
    release.reaches("Failed")
    release.until(lambda: release.count(1, mine)[0].arm == PRIMARY, "the way back")
    last = release.count(10, mine)
    assert arms(last) == {(PRIMARY, "1", 200): 10}
    assert all("Max-Age=-1" in one.cookie for one in last)


# ---------------------------------------------------------------- blue/green


@lane("colours")
def test_blue_green_shows_the_new_version_to_nobody_until_it_is_approved(release: Release) -> None:
    release.write("1")
    release.canary(PROMOTION, iterations=2, metrics=[SUCCESS])
    release.begins()
    with release.users() as users:
        release.write("2")
        release.says("Starting canary analysis")
        release.until(lambda: release.count(1, host="web-canary.colours")[0].arm == CANARY, "the canary to be reached")
        with Users(release.clients[1], "web-canary.colours", prefix="test") as testers:
            release.reaches("WaitingPromotion")
            asked = release.gates.asked("colours", PROMOTION)
            release.until(lambda: release.gates.asked("colours", PROMOTION) > asked + 1, "the gate to be asked again")
            only(users, PRIMARY)
            assert {one.revision for one in users.said} == {"1"}
            release.let(PROMOTION)
            release.shares((100, 0))
            assert arms(release.count(30)) == {(CANARY, "2", 200): 30}
        only(testers, CANARY)
        release.let(PROMOTION)
        release.reaches("Succeeded")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
    assert users.failures == []


@lane("colours")
def test_a_mirrored_canary_gets_a_copy_of_each_request_and_answers_nobody(release: Release) -> None:
    release.canary(iterations=100, mirror=True)
    release.write("3")
    release.says("canary iteration 1/100")
    probes = release.count(1)

    def copied() -> bool:
        probes.extend(release.count(1))
        executed = release.executed()
        return any(sorted(executed.get(one.id, [])) == [CANARY, PRIMARY] for one in probes)

    release.until(copied, "copies")
    said = release.count(30)
    assert arms(said) == {(PRIMARY, "2", 200): 30}

    def executed() -> list[list[str]]:
        found = release.executed()
        return [sorted(found[one.id]) for one in said]

    release.until(lambda: executed() == [[CANARY, PRIMARY]] * 30, "one copy of each")
    release.order("abort")
    release.reaches("Failed")
    release.until(lambda: not release.mesh_pods("web"), "the canary's pods to be gone")
    assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}


# ---------------------------------------------------------------- what people do meanwhile

# A share whose pods are gone is given to the other arm, until the controller has heard of it
SHARED = {"port": 80, "targetPort": "main", "apex": {"annotations": {"meshproxy.dev/empty-backend": "redistribute"}}}
FROM_CONFIG = {"configMapKeyRef": {"name": "web", "key": "revision"}}


@lane("config")
def test_a_changed_config_map_is_released_like_a_changed_template(release: Release) -> None:
    release.config(revision="green")
    release.write("", REVISION=FROM_CONFIG)
    release.canary(INCREASE, stepWeights=[50])
    release.begins()
    with release.users() as users:
        assert arms(release.count(10)) == {(PRIMARY, "green", 200): 10}
        release.config(revision="blue")
        release.let(INCREASE)
        release.shares((50, 50))
        assert arms(release.count(20)) == {(CANARY, "blue", 200): 10, (PRIMARY, "green", 200): 10}
        release.let(INCREASE)
        release.reaches("Succeeded")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "blue", 200): 10}
    assert users.failures == []


@lane("config")
def test_a_suspended_canary_releases_nothing_until_it_is_resumed(release: Release) -> None:
    release.canary(INCREASE, stepWeights=[50], spec={"suspend": True})
    release.says("skipping canary run as object is suspended")
    release.config(revision="red")
    before = release.often("skipping canary run as object is suspended")
    release.says("skipping canary run as object is suspended", more_than=before + 1)
    assert release.phase == "Succeeded"
    release.until(lambda: not release.mesh_pods("web"), "the last canary's pods to be gone")
    assert arms(release.count(10)) == {(PRIMARY, "blue", 200): 10}
    release.canary(INCREASE, stepWeights=[50], spec={"service": SHARED})
    release.let(INCREASE)
    release.shares((50, 50))
    assert arms(release.count(10)) == {(CANARY, "red", 200): 5, (PRIMARY, "blue", 200): 5}


@lane("config")
def test_a_target_that_is_deleted_in_the_middle_leaves_everyone_with_the_primary(release: Release) -> None:
    with release.users() as users:
        release.until(lambda: CANARY in {one.arm for one in list(users.said)}, "somebody at the canary")
        release.remove("web")
        release.reaches("Failed")
        release.shares((0, 100))
        assert arms(release.count(10)) == {(PRIMARY, "blue", 200): 10}
    assert users.failures == []
    release.says("Rolling back web.config the target is gone")


# ---------------------------------------------------------------- evidence


@lane("proof")
def test_evidence_pulls_a_canary_that_fails_one_request_in_five(release: Release) -> None:
    """At half of the traffic; by no threshold, for it has no metrics; and not when the next interval begins, but when the
    evidence is there: two seconds after the 15th failure are 50 requests here, and a busy machine may take twice that."""
    release.write("1", replicas=1)
    release.mesh.write("proof-service", {**service("web"), "metadata": {"name": "web", "namespace": "proof"}})
    release.canary(INCREASE, stepWeights=[50], spec={"revertOnDeletion": True})
    release.policy(evidence={})
    release.begins()
    pulled: dict[str, float] = {}

    def pulled_at(proxy: str) -> None:
        until(lambda: release.shares_at(proxy) == [(50, 50)], "half of them")
        until(lambda: release.shares_at(proxy) == [(0, 100)], "none of them")
        pulled[proxy] = time.time()

    with release.users(25) as some, release.users(25, client=1) as others:
        proxies = release.clients
        watching = [threading.Thread(target=pulled_at, args=(proxy,), daemon=True) for proxy in proxies]
        for thread in watching:
            thread.start()
        release.canary(INCREASE, stepWeights=[50], interval="8s", spec={"revertOnDeletion": True})
        release.write("2", replicas=1, STATUS=500, FAIL_EVERY=5)
        release.let(INCREASE)
        release.reaches("Failed")
        for thread in watching:
            thread.join(60)
        assert arms(release.count(20)) == {(PRIMARY, "1", 200): 20}
    assert pulled.keys() == set(proxies)
    failures = [*some.failures, *others.failures]
    assert {(one.arm, one.status) for one in failures} == {(CANARY, 500)}
    at_canary = [line for line in ledger(release.mesh, "proof") if line.arm == CANARY and line.id.startswith("u")]
    failed = [line for line in at_canary if line.status == 500]
    fifteenth = failed[min(14, len(failed) - 1)].at  # it may be pulled before that
    after = sum(line.at > fifteenth for line in at_canary)
    seconds = max(pulled.values()) - fifteenth
    print(f"weight 0 at every client {seconds:.2f} s after the 15th failed request; {after} more requests at the canary")
    assert after <= 100, f"{after} of {len(at_canary)} requests after the 15th failure, {seconds:.2f} s"
    release.says("evidence of harm: ")
    assert "failures" in release.order("history")
    release.canary(INCREASE, stepWeights=[50], spec={"revertOnDeletion": True})


@lane("proof")
def test_steps_of_a_policy_begin_below_a_percent_and_wait_for_approval(release: Release) -> None:
    release.policy(steps=[{"weight": 0.5, "pause": True}, {"weight": 50, "pause": True}])
    release.let(INCREASE, 2)
    release.write("3", replicas=1)
    release.shares((0.5, 99.5))
    assert arms(release.count(400)) == {(CANARY, "3", 200): 2, (PRIMARY, "1", 200): 398}
    release.until(lambda: "approval of step 1" in str(release.status), "the pause")
    release.order("approve")
    release.shares((50, 50))
    assert arms(release.count(20)) == {(CANARY, "3", 200): 10, (PRIMARY, "1", 200): 10}


@lane("proof")
def test_a_canary_with_revert_on_deletion_gives_everything_back_in_the_middle_of_a_release(release: Release) -> None:
    with release.users() as users:
        release.until(lambda: CANARY in {one.arm for one in list(users.said)}, "somebody at the canary")
        release.remove("canary")
        release.until(lambda: release.view.get("flagger.app", "Canary", "proof", "web") is None, "the Canary to be gone")
        release.until(lambda: not release.mesh_pods("web-primary"), "the primary's pods to be gone")
        assert arms(release.count(20)) == {(CANARY, "3", 200): 20}
    assert users.failures == []
    assert release.view.get("split.smi-spec.io", "TrafficSplit", "proof", "web") is None
    apex = release.view.get("", "Service", "proof", "web")
    assert apex is not None
    assert apex["spec"]["selector"] == {"app": "web"}
