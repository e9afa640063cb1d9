"""What a tick costs where there are many Canaries: it reads what its own Canary has, and little of all the others'."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
from canary_cluster import Cluster, deployment, ticks, until
from canary_plays import canary_object
from test_canary_controller import Numbers, running

from control.canary.controller import Controller
from control.canary.declared.fields import SpecError
from control.canary.declared.spec import NO_FLAGS
from control.canary.machine.status import Phase
from control.canary.measuring.source import Subject
from control.canary.register import Register
from control.resources import traffic
from control.store.files import FileStore
from control.store.store import Objects


class CountingStore(FileStore):
    """Remembers which kinds were read whole, and tells who waits for it."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.listed: list[tuple[str, str]] = []
        self._news = asyncio.Event()
        super().__init__(*args, **more)

    def list(self, group: str, kind: str, namespace: str | None = None) -> Objects:
        self.listed.append((group, kind))
        self._news.set()
        return super().list(group, kind, namespace)

    async def until_listed(self, kind: tuple[str, str], times: int) -> None:
        """So often from now on."""
        self.listed = []
        async with asyncio.timeout(20):
            while self.listed.count(kind) < times:
                self._news.clear()
                await self._news.wait()


class CountingCluster(Cluster):
    canary_store = CountingStore


@pytest.mark.parametrize("phase", [Phase.INITIALIZED, Phase.PROGRESSING])
async def test_all_routing_of_a_namespace_is_read_only_for_a_release(tmp_path: Path, phase: Phase):
    cluster = CountingCluster(tmp_path)
    cluster.begin()
    await cluster.roll_out()
    await ticks(cluster, 3)
    if phase is Phase.PROGRESSING:
        cluster.write(deployment("v2"))
        await until(cluster, phase)
    cluster.store.listed = []
    cluster.decide()
    routing = {kind for kind in cluster.store.listed if kind in traffic.KINDS}
    assert routing == (set(traffic.KINDS) if phase is Phase.PROGRESSING else set())


async def test_ticks_of_those_at_rest_do_not_go_through_all(tmp_path: Path):
    cluster = CountingCluster(tmp_path)
    cluster.begin(analysis={"interval": "1s", "threshold": 2, "stepWeight": 10, "maxWeight": 50})
    await cluster.roll_out()
    await ticks(cluster, 3)
    assert cluster.status().phase is Phase.INITIALIZED
    async with running(Controller(cluster.store, Numbers())):
        await cluster.store.until_listed(POLICIES, 2)  # a tick: who it is released with, and what holds for it
        await cluster.store.until_listed(POLICIES, 4)
    assert CANARIES not in cluster.store.listed


CANARIES, POLICIES = ("flagger.app", "Canary"), ("meshproxy.dev", "ReleasePolicy")


# ---------------------------------------------------------------- the register


def canary(name: str, phase: str = "", target: str = "web") -> dict[str, Any]:
    made = canary_object(targetRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": target})
    made["metadata"]["name"] = name
    return {**made, "status": {"phase": phase}}


def test_a_canary_is_read_again_only_where_it_has_changed():
    register, before = Register(NO_FLAGS), canary("web")
    assert register.parse(before) is register.parse(before)
    after = copy.deepcopy(before)
    after["spec"]["analysis"]["threshold"] = 7
    assert (register.parse(before).threshold, register.parse(after).threshold) == (2, 7)


def test_one_that_cannot_be_read_says_so_each_time_and_its_release_goes_on_as_it_was_meant():
    register, good = Register(NO_FLAGS), canary("web", "Progressing")
    bad = {**good, "spec": {**good["spec"], "targetRef": {}}}
    spec = register.parse(good)
    for _ in range(2):
        with pytest.raises(SpecError):
            register.parse(bad)
    subject = Subject.of(spec)
    assert register.running([good], lambda key: None) == {subject}
    assert register.running([bad], lambda key: spec) == {subject}
    assert register.running([{**bad, "status": {"phase": "Failed"}}], lambda key: spec) == set()
    assert register.running([{**good, "status": {"phase": "Odd"}}], lambda key: None) == set()


def test_a_target_belongs_to_who_moves_it_already_and_else_to_the_first_by_name():
    register = Register(NO_FLAGS)
    owners = register.targets([canary("a"), canary("b", "Succeeded"), canary("c", target="api"), canary("d", target="api")])
    assert {target.name: owner.name for target, owner in owners.items()} == {"web": "b", "api": "c"}
