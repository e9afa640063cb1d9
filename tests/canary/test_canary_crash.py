"""A crash at any single point of a release changes nothing about how it ends.

On facts alone: after each action of each tick, in every strategy.  On a real store: at each single write (an action may be
several: the primary's ConfigMaps, the objects of a router), events and status among them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
from canary_cluster import APEX, PRIMARY, TARGET, Cluster, deployment
from canary_plays import Play, canary_spec

from control.canary.declared.hooks import HookResult
from control.canary.declared.spec import DURATION, SUCCESS_RATE
from control.canary.machine.analysis import Measurement
from control.canary.machine.decision import PromoteTemplate
from control.canary.machine.routing import Routing
from control.canary.machine.status import Phase
from control.store.files import FileStore

BAD = {SUCCESS_RATE: Measurement(50.0, 50), DURATION: Measurement(12.0, 50)}
MATCH = [{"headers": {"x-canary": {"exact": "insider"}}}]
STRATEGIES = {
    "weights": {},
    "back by steps": {"stepWeight": 50, "stepWeightPromotion": 20},
    "weights, mirrored": {"mirror": True, "stepWeight": 25},
    "weights, affinity": {"sessionAffinity": {"cookieName": "c", "primaryCookieName": "p"}},
    "a/b": {"stepWeight": 0, "iterations": 3, "match": MATCH},
    "blue/green": {"stepWeight": 0, "iterations": 3},
    "blue/green, mirrored": {"stepWeight": 0, "iterations": 3, "mirror": True},
}
HOOKS = [
    {"type": kind, "name": kind, "url": "http://gate.test/"}
    for kind in ("confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase", "confirm-promotion", "rollback")
]
NO = HookResult(False, "no")


def life(analysis: dict[str, object], *, bad_from: int | None, crash: tuple[int, int] | None, **spec: object) -> Play:
    """From the first manifest to the end of the release of v2.  `crash`: (tick, after how many of its actions)."""
    play = Play(canary_spec({**analysis, "webhooks": HOOKS}, **spec))
    play.hooks = {"confirm-rollout": NO, "confirm-promotion": NO}
    for number in range(40):
        if number == 4:
            play.edit("v2")
        if number == 7:
            play.hooks.pop("confirm-rollout", None)
        if number == 16:
            play.hooks.pop("confirm-promotion", None)
        if bad_from is not None and number >= bad_from:
            play.seen = BAD
        copied = play.primary.revision if play.primary else ""
        decision = play.tick(crash[1] if crash and crash[0] == number else None)
        if play.primary and play.primary.revision != copied and copied:
            assert any(isinstance(action, PromoteTemplate) for action in decision.actions)
    return play


def points(analysis: dict[str, object], bad_from: int | None, **spec: object) -> list[tuple[int, int]]:
    """Every (tick, number of actions) at which a crash differs from none."""
    play = life(analysis, bad_from=bad_from, crash=None, **spec)
    return [(number, after) for number, one in enumerate(play.decisions) for after in range(len(one.actions) + 1)]


@pytest.mark.parametrize("provider", ["", "kubernetes"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_good_release_is_promoted_wherever_it_crashed(name, provider):
    analysis = STRATEGIES[name]
    spec = {"provider": provider} if provider else {}
    for crash in points(analysis, None, **spec):
        play = life(analysis, bad_from=None, crash=crash, **spec)
        seen = (play.status.phase, play.primary.revision, play.target.replicas, play.routing)
        assert seen == (Phase.SUCCEEDED, "v2", 0, Routing(0)), crash
        assert (play.status.failed_checks, play.status.last_promoted) == (0, "v2"), crash


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_bad_release_is_rolled_back_wherever_it_crashed(name):
    analysis = STRATEGIES[name]
    for crash in points(analysis, 10):
        play = life(analysis, bad_from=10, crash=crash)
        seen = (play.status.phase, play.primary.revision, play.target.replicas, play.routing)
        assert seen == (Phase.FAILED, "v1", 0, Routing(0)), crash


def test_crashes_are_tried_after_every_kind_of_action():
    tried = {
        type(action).__name__
        for analysis in STRATEGIES.values()
        for bad_from in (None, 10)
        for decision in life(analysis, bad_from=bad_from, crash=None, revertOnDeletion=True).decisions
        for action in decision.actions
    }
    assert tried == {
        *("EnsureServices", "EnsureApex", "CreatePrimary", "PromoteTemplate", "SetRouting", "ScaleToZero", "ScaleUp"),
        "KeepUntilReverted",
    }


# ---------------------------------------------------------------- on a real store


class Crash(Exception):
    """The process ends here."""


class FragileStore(FileStore):
    """Ends the process at its n-th write."""

    left = count()  # never reaches -1
    writes = 0

    def _write(self) -> None:
        type(self).writes += 1
        if next(type(self).left) == -1:
            raise Crash

    async def apply(self, obj):
        self._write()
        return await super().apply(obj)

    async def status(self, key, status):
        self._write()
        await super().status(key, status)

    async def delete(self, key):
        self._write()
        await super().delete(key)

    async def event(self, about, kind, reason, message):
        self._write()
        await super().event(about, kind, reason, message)


class FragileCluster(Cluster):
    canary_store = FragileStore


async def stored_life(cluster: Cluster, analysis: dict[str, object], crash_at: int | None, *, bad: bool = False) -> int:
    """The same on files, with a crash at one write; returns how many there were.  Fails if it did not crash."""
    FragileStore.writes = 0
    FragileStore.left = count() if crash_at is None else iter(range(crash_at - 1, -(10**6), -1))
    cluster.begin(analysis=analysis)
    await cluster.roll_out()
    crashes = 0
    for number in range(11):
        if number == 3:
            cluster.write(deployment("v2"))
        if bad and number >= 5:
            cluster.measurements = BAD
        try:
            await cluster.tick()
        except Crash:
            crashes += 1
            cluster.open()
            await cluster.roll_out()
    assert crashes == (crash_at is not None)
    return FragileStore.writes


async def crashed_at(
    path: Path, every: int, analysis: dict[str, object], *, bad: bool = False, kind: type[FragileCluster] = FragileCluster
) -> AsyncIterator[tuple[FragileCluster, int | None]]:
    """What is left of a life without a crash (None), and of one that crashed at each `every`th write."""
    total = at = None
    while at is None or at < total:
        home = path / f"{at} of {total}"
        home.mkdir()
        cluster = kind(home)
        writes = await stored_life(cluster, analysis, at, bad=bad)
        yield cluster, at
        cluster.store.close()
        if total is None:
            total = writes
        at = 0 if at is None else at + every
    assert total > 20


ON_FILES = {
    "weights": {"stepWeight": 50},
    "a/b": {"stepWeight": 0, "iterations": 1, "match": MATCH},
    "blue/green, mirrored": {"stepWeight": 0, "iterations": 1, "mirror": True},
    "weights, affinity": {"stepWeight": 50, "sessionAffinity": {"cookieName": "c"}},
}


@pytest.mark.parametrize("name", ON_FILES)
async def test_on_files_a_good_release_is_promoted_whatever_write_it_crashed_at(name, tmp_path):
    async for cluster, at in crashed_at(tmp_path, 1 if name == "weights" else 4, ON_FILES[name]):
        status = cluster.status()
        assert (status.phase, status.failed_checks) == (Phase.SUCCEEDED, 0), at
        assert cluster.image(PRIMARY) == cluster.image(TARGET) == "podinfo:v2", at
        assert (cluster.replicas(TARGET), cluster.replicas(PRIMARY)) == (0, 2), at
        assert cluster.store.get(APEX)["spec"]["selector"] == {"app": "podinfo-primary"}, at


async def test_on_files_a_bad_release_is_rolled_back_whatever_write_it_crashed_at(tmp_path):
    async for cluster, at in crashed_at(tmp_path, 3, {"stepWeight": 10}, bad=True):
        assert (cluster.status().phase, cluster.image(PRIMARY)) == (Phase.FAILED, "podinfo:v1"), at
        assert (cluster.weights(), cluster.replicas(TARGET)) == ((0, 100), 0), at


async def test_numbers_that_turn_bad_between_the_copy_and_its_status_do_not_roll_back_onto_the_new_revision(cluster):
    cluster.begin()
    await cluster.roll_out()
    for _ in range(2):
        await cluster.tick()
    cluster.write(deployment("v2"))
    while cluster.image(PRIMARY) == "podinfo:v1":
        copying = any(type(action).__name__ == "PromoteTemplate" for action in cluster.decide().actions)
        await cluster.tick(1 if copying else None)
    assert cluster.status().phase is Phase.PROGRESSING
    cluster.measurements = {SUCCESS_RATE: Measurement(0.0, 50), DURATION: Measurement(12.0, 50)}
    for _ in range(4):
        await cluster.tick()
    assert cluster.status().phase is Phase.SUCCEEDED
    assert cluster.status().last_promoted == cluster.status().last_applied
