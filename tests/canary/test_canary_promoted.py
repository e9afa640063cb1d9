"""What was promoted outlives the primary: whoever deletes it, and whenever, it is made again as it was promoted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from canary_cluster import CANARY, PRIMARY, TARGET, Cluster, deployment, service, ticks, told, until
from canary_plays import canary_object
from test_canary_controller import Numbers, running, step, stepper
from test_canary_crash import BAD, Crash, FragileCluster, FragileStore
from test_canary_together import Team

from control.canary.declared.spec import SUCCESS_RATE, Flags, parse
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import PromoteTemplate
from control.canary.machine.status import Phase, Status
from control.canary.objects import promoted
from control.store.store import Key, Object

NEVER = "never approved"


def settings(value: str, name: str = "settings") -> Object:
    metadata = {"name": name, "namespace": "test"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": value}}


def token(value: str) -> Object:
    metadata = {"name": "token", "namespace": "test"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": {"token": value}}


USES = [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "token"}}]


def podinfo(version: str, replicas: int | None = 2) -> Object:
    return deployment(version, replicas, envFrom=USES)


async def initialise(cluster: Cluster, **canary: Any) -> None:
    cluster.write(settings("1"), token("b25l"), podinfo("v1", 3), service(), canary_object(**canary))
    await cluster.roll_out()
    for _ in range(3):
        await cluster.tick()
    assert cluster.status().phase is Phase.INITIALIZED


async def lose(cluster: Cluster, *keys: Key) -> None:
    for key in keys or (PRIMARY,):
        await cluster.store.delete(key)
    await cluster.roll_out()


def config(name: str) -> Key:
    return Key("", "ConfigMap", "test", name)


def kept(cluster: Cluster) -> list[Object]:
    return cluster.store.list("apps", "ControllerRevision", "test")


def served(cluster: Cluster) -> tuple[str, str, str]:
    """What the primary's pods are made of."""
    return (
        cluster.image(PRIMARY),
        cluster.store.get(config("settings-primary"))["data"]["x"],
        cluster.store.get(Key("", "Secret", "test", "token-primary"))["data"]["token"],
    )


# ---------------------------------------------------------------- deleted, at any time


async def test_a_primary_deleted_in_a_release_is_made_again_as_it_was_promoted_and_the_release_goes_on(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"), settings("2"), token("dHdv"))
    await ticks(cluster, 3)
    assert (cluster.status().phase, cluster.weights()) == (Phase.PROGRESSING, (20, 80))
    await lose(cluster, PRIMARY, config("settings-primary"))
    await cluster.tick()
    assert served(cluster) == ("podinfo:v1", "1", "b25l")
    assert cluster.replicas(PRIMARY) == 3
    assert cluster.status().phase is Phase.PROGRESSING
    assert "podinfo-primary.test is gone; creating it again as it was promoted" in told(cluster)
    await cluster.tick()
    assert (cluster.status().phase, cluster.weights()) == (Phase.PROGRESSING, (30, 70))  # analysed, not taken for promoted
    await until(cluster, Phase.SUCCEEDED)
    assert served(cluster) == ("podinfo:v2", "2", "dHdv")


async def test_what_failed_is_not_served_to_everybody_because_the_primary_was_deleted(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"), settings("2"))
    await ticks(cluster, 3)
    cluster.measurements = BAD
    await until(cluster, Phase.FAILED)
    await lose(cluster)
    await ticks(cluster, 3)
    assert served(cluster) == ("podinfo:v1", "1", "b25l")
    assert (cluster.status().phase, cluster.weights()) == (Phase.FAILED, (0, 100))
    assert NEVER not in told(cluster)


@pytest.mark.parametrize("edited", [False, True])
async def test_between_releases_it_is_made_again_with_its_replicas_and_an_edit_meanwhile_is_a_release(cluster, edited):
    await initialise(cluster)
    if edited:
        cluster.write(podinfo("v2"), settings("2"))
    await lose(cluster)
    await cluster.tick()
    assert (served(cluster), cluster.replicas(PRIMARY)) == (("podinfo:v1", "1", "b25l"), 3)
    await ticks(cluster, 2)
    assert cluster.status().phase is (Phase.PROGRESSING if edited else Phase.INITIALIZED)


async def test_while_promoting_it_is_made_again_as_the_revision_that_was_promoted(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"), settings("2"))
    await until(cluster, Phase.PROMOTING)
    await lose(cluster)
    await cluster.tick()
    assert served(cluster)[:2] == ("podinfo:v2", "2")
    await until(cluster, Phase.SUCCEEDED)
    await lose(cluster)
    await cluster.tick()
    assert served(cluster)[:2] == ("podinfo:v2", "2")


async def test_it_is_made_again_also_where_the_target_is_gone_too(cluster):
    await initialise(cluster)
    (cluster.user / "deployment-podinfo.yaml").unlink()
    cluster.refresh()
    cluster.now += 5
    cluster.refresh()
    await cluster.tick()
    assert not (cluster.store.get(TARGET) or {}).get("spec", {}).get("template")
    await lose(cluster)
    await ticks(cluster, 2)
    assert served(cluster) == ("podinfo:v1", "1", "b25l")


async def test_it_survives_a_controller_that_starts_anew(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"))
    await ticks(cluster, 3)
    await lose(cluster)
    cluster.open()
    await cluster.tick()
    assert cluster.image(PRIMARY) == "podinfo:v1"


# ---------------------------------------------------------------- what is kept


async def test_one_revision_is_kept_owned_by_the_canary_and_no_secret_is_in_it(cluster):
    await initialise(cluster)
    for version in ("v2", "v3"):
        cluster.write(podinfo(version), settings(version), token(version))
        await until(cluster, Phase.PROGRESSING)
        await until(cluster, Phase.SUCCEEDED)
    (one,) = kept(cluster)
    assert one["metadata"]["ownerReferences"][0]["uid"] == cluster.store.get(CANARY)["metadata"]["uid"]
    assert one["revision"] == 3
    assert "v3" in str(one)
    assert "token': 'v3'" not in str(one)
    names = [obj["metadata"]["name"] for kind in ("ConfigMap", "Secret") for obj in cluster.store.list("", kind, "test")]
    assert [name.rstrip("0123456789abcdef") for name in sorted(names)] == [
        *("settings", "settings-primary", "settings-primary-"),
        *("token", "token-primary", "token-primary-"),
    ]


async def test_nothing_of_it_is_left_when_the_canary_is_gone(cluster):
    await initialise(cluster)
    assert kept(cluster)
    (cluster.user / "canary-podinfo.yaml").unlink()
    cluster.refresh()
    for _ in range(5):
        if cluster.store.get(CANARY) is not None:
            await cluster.tick()
        cluster.now += 5
        cluster.refresh()
    assert cluster.store.get(CANARY) is None
    assert kept(cluster) == []
    assert [obj["metadata"]["name"] for obj in cluster.store.list("", "ConfigMap", "test")] == ["settings"]


async def test_what_a_primary_from_before_runs_is_kept_from_the_first_tick_on(cluster):
    await initialise(cluster)
    await lose(cluster, *(Key.of(obj) for obj in kept(cluster)))
    await cluster.tick()
    assert len(kept(cluster)) == 1
    assert await cluster.tick() == 0
    cluster.write(podinfo("v2"), settings("2"))
    await ticks(cluster, 3)
    await lose(cluster)
    await cluster.tick()
    assert served(cluster)[:2] == ("podinfo:v1", "1")


async def test_a_config_that_another_hand_changed_or_took_from_the_primary_is_put_back(cluster):
    await initialise(cluster)
    name = config("settings-primary")
    for spoil in (lambda: cluster.store.apply({**cluster.store.get(name), "data": {"x": "3"}}), lambda: lose(cluster, name)):
        await spoil()
        await cluster.tick()
        assert served(cluster) == ("podinfo:v1", "1", "b25l")
    assert "settings-primary.test is not as it was promoted" in told(cluster)
    assert await cluster.tick() == 0


async def test_labels_of_the_copies_are_kept_too(cluster):
    await initialise(cluster)
    name = config("settings-primary")
    spec = replace(parse(cluster.store.get(CANARY)), flags=Flags(label_prefixes=("team",)))
    labelled = settings("1")
    labelled["metadata"]["labels"] = {"team": "a", "other": "b"}
    cluster.write(labelled)
    await cluster.actor.do(spec, PromoteTemplate(cluster.status().last_applied, cluster.status().tracked), Status())
    assert cluster.store.get(name)["metadata"]["labels"] == {"team": "a"}
    await lose(cluster, name)
    await cluster.tick()
    assert cluster.store.get(name)["metadata"]["labels"] == {"team": "a"}


# ---------------------------------------------------------------- nothing is kept


async def forget(cluster: Cluster) -> None:
    await lose(cluster, PRIMARY, *(Key.of(obj) for obj in kept(cluster)))


async def test_where_nothing_is_kept_what_was_never_approved_is_said_to_be_and_still_analysed(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"))
    await ticks(cluster, 3)
    await forget(cluster)
    await cluster.tick()
    assert (cluster.image(PRIMARY), cluster.status().phase) == ("podinfo:v2", Phase.PROGRESSING)
    assert NEVER in told(cluster)
    await ticks(cluster, 2)
    assert cluster.status().phase is Phase.PROGRESSING
    assert kept(cluster) == []
    assert "already runs the new revision" not in told(cluster, "Normal")
    await until(cluster, Phase.SUCCEEDED)
    assert kept(cluster)
    assert "meshproxy.dev/unapproved" not in cluster.store.get(PRIMARY)["metadata"]["annotations"]
    count = told(cluster).count(NEVER)
    await ticks(cluster, 2)
    assert told(cluster).count(NEVER) == count


async def test_a_crash_between_that_primary_and_the_status_is_no_promotion_either(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"))
    await ticks(cluster, 3)
    await forget(cluster)
    assert await cluster.tick(crash_after=1) >= 1
    assert cluster.image(PRIMARY) == "podinfo:v2"
    await cluster.tick()
    assert cluster.status().phase is Phase.PROGRESSING
    assert cluster.status().last_promoted == ""
    assert NEVER in told(cluster)


async def test_where_nothing_is_kept_a_way_back_to_the_old_revision_is_a_release(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"))
    await ticks(cluster, 3)
    cluster.measurements = BAD
    await until(cluster, Phase.FAILED)
    await forget(cluster)
    await ticks(cluster, 3)
    assert (cluster.image(PRIMARY), cluster.status().phase) == ("podinfo:v2", Phase.FAILED)
    assert NEVER in told(cluster)
    cluster.measurements = {**BAD, SUCCESS_RATE: Measurement(100.0, 50)}
    cluster.write(podinfo("v1"))
    await until(cluster, Phase.SUCCEEDED)
    assert cluster.image(PRIMARY) == "podinfo:v1"


async def test_where_nothing_is_kept_a_way_back_is_a_release_also_if_no_other_began(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"))
    await forget(cluster)
    await cluster.tick()
    assert (cluster.image(PRIMARY), cluster.status().phase) == ("podinfo:v2", Phase.INITIALIZED)
    cluster.write(podinfo("v1", 3))
    await until(cluster, Phase.SUCCEEDED)
    assert cluster.image(PRIMARY) == "podinfo:v1"


async def test_where_nothing_is_kept_and_the_target_still_is_what_was_promoted_all_is_well(cluster):
    await initialise(cluster)
    await forget(cluster)
    await ticks(cluster, 2)
    assert (cluster.status().phase, served(cluster)) == (Phase.INITIALIZED, ("podinfo:v1", "1", "b25l"))
    assert NEVER not in told(cluster)
    assert len(kept(cluster)) == 1


def test_of_several_released_together_what_was_never_approved_is_promoted_too():
    """The status says so first, and the copy is for the next tick: the primary must not count as copied by then."""
    team = Team()
    team.until_begun()
    team.plays["web"].primary = None
    team.run()
    for one in team.plays.values():
        assert (one.primary.revision, one.primary.approved, one.status.last_promoted) == ("v2", True, "v2")


async def test_what_two_primaries_keep_of_one_config_are_two_objects(cluster):
    """Else the one that is promoted next would delete what the other needs."""
    await initialise(cluster)
    spec, primary = parse(cluster.store.get(CANARY)), cluster.store.get(PRIMARY)
    mine, theirs = (
        [Key.of(obj) for obj in promoted.keeping(one, primary, cluster.store.get, None)]
        for one in (spec, replace(spec, target="other"))
    )
    assert sorted(key.kind for key in mine) == ["ConfigMap", "ControllerRevision", "Secret"]
    assert not {*mine} & {*theirs}


# ---------------------------------------------------------------- crashes


async def crashed_promotion(path: Any, at: int | None) -> tuple[FragileCluster, int]:
    """v2 and its settings are promoted; the controller ends at the `at`th write of the tick that copies."""
    cluster = FragileCluster(path)
    await initialise(cluster)
    cluster.write(podinfo("v2"), settings("2"), token("dHdv"))
    for _ in range(20):
        if any(isinstance(action, PromoteTemplate) for action in cluster.decide().actions):
            break
        await cluster.tick()
    FragileStore.writes = 0
    FragileStore.left = iter(range(10**6 if at is None else at - 1, -(10**9), -1))
    try:
        await cluster.tick()
    except Crash:
        assert at is not None
        cluster.open()
        await cluster.roll_out()
    FragileStore.left = iter(range(10**6, 0, -1))
    return cluster, FragileStore.writes


async def each_crash(tmp_path: Any, then: Callable[[FragileCluster], Any]) -> None:
    total, at = None, None
    while at is None or at < total:
        home = tmp_path / str(at)
        home.mkdir()
        cluster, writes = await crashed_promotion(home, at)
        total = total or writes
        try:
            await then(cluster)
        except AssertionError as error:
            raise AssertionError(f"crashed at write {at} of {total}: {error}") from error
        finally:
            cluster.store.close()
        at = 0 if at is None else at + 1
    assert total is not None
    assert total > 8


async def test_a_primary_deleted_after_a_crash_at_any_write_of_a_promotion_is_the_old_or_the_new_revision_whole(tmp_path):
    async def then(cluster: FragileCluster) -> None:
        await lose(cluster)
        await cluster.tick()
        assert served(cluster) in (("podinfo:v1", "1", "b25l"), ("podinfo:v2", "2", "dHdv"))
        await until(cluster, Phase.SUCCEEDED)
        assert served(cluster) == ("podinfo:v2", "2", "dHdv")

    await each_crash(tmp_path, then)


async def test_a_roll_back_after_a_crash_at_any_write_of_a_promotion_leaves_no_mixture(tmp_path):
    async def then(cluster: FragileCluster) -> None:
        cluster.measurements = BAD
        await until(cluster, Phase.FAILED, Phase.SUCCEEDED)
        failed = cluster.status().phase is Phase.FAILED
        assert served(cluster) == (("podinfo:v1", "1", "b25l") if failed else ("podinfo:v2", "2", "dHdv"))

    await each_crash(tmp_path, then)


async def test_the_same_copied_again_is_kept_once(cluster):
    await initialise(cluster)
    cluster.write(podinfo("v2"))
    await until(cluster, Phase.PROMOTING)
    (before,) = kept(cluster)
    spec, status = parse(cluster.store.get(CANARY)), cluster.status()
    await cluster.actor.do(spec, PromoteTemplate(status.last_applied, status.tracked), Status())
    assert kept(cluster) == [before]


async def test_it_is_made_again_at_once_and_not_after_an_interval(cluster):
    cluster.write(deployment(), service(), canary_object({"interval": "10m"}))
    controller = await stepper(cluster, Numbers())
    await step(cluster, controller, 3)
    assert cluster.status().phase is Phase.INITIALIZED
    cluster.now -= 300  # in the middle of an interval
    async with running(controller), asyncio.timeout(10):
        await asyncio.sleep(0)
        made = asyncio.Event()
        cluster.store.watch(lambda changes: made.set() if any(c.key == PRIMARY and c.new for c in changes) else None)
        await cluster.store.delete(PRIMARY)
        await made.wait()
