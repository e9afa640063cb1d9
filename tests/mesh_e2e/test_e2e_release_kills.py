"""The control plane is killed, three times, in every phase of a release: the next one goes on from what is written down.

              gate            before the 1st kill   the 2nd              the 3rd                 in the end
    early     (its primary)   Initializing          aborted at 30        -                       Failed
    middle    each weight     Progressing at 30     Progressing at 60    Finalising              Succeeded
    late      rollout, the    Waiting               WaitingPromotion     Promoting (its          Succeeded
              promotion                                                  primary)

Each is held where it is by a gate, so that no weight can pass unseen: what splits said, one after the other, is compared whole.
Users ask all the time, and never notice.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mesh_arms import CANARY, PRIMARY, Users, arms, workload
from mesh_release import Gates, Release, View
from mesh_run import MeshRun, until

NAMES = ("early", "middle", "late")
CONFIRM = {"middle": "traffic-increase", "late": "rollout,promotion", "early": "traffic-increase"}
WEIGHTS = {"early": [30, 60], "middle": [30, 60, 90], "late": [50]}


class Killed:
    def __init__(self, mesh: MeshRun, view: View, gates: Gates) -> None:
        self.mesh = mesh
        self.view = view
        self.early, self.middle, self.late = (Release(mesh, view, gates, name) for name in NAMES)
        self.all = (self.early, self.middle, self.late)

    def canary(self, release: Release, interval: str = "1s") -> None:
        name = release.namespace
        confirm = {"meshproxy.dev/confirm": CONFIRM[name]}
        release.canary(interval=interval, stepWeights=WEIGHTS[name], annotations=confirm)

    def unready(self, release: Release, revision: str) -> Path:
        """While this file exists, the primary of this revision is not ready."""
        path = self.mesh.ledger / f"{release.namespace}.primary.{revision}.unready"
        path.touch()
        return path

    def kill(self, **phases: str) -> None:
        """Kill the control plane while the releases are in these phases; returns when the next one works."""
        before = self.mesh.recorded()["control plane"]
        assert {name: getattr(self, name).phase for name in phases} == phases
        os.kill(before, signal.SIGKILL)
        until(lambda: self.mesh.recorded().get("control plane", before) != before, "the next control plane")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    mesh = MeshRun(tmp_path_factory.mktemp("killed"), "killed")
    mesh.write("clients", *workload(mesh, "e2e", "client", replicas=2))
    gates = Gates()
    try:
        mesh.start()
        view = View(mesh)
        try:
            yield Killed(mesh, view, gates)
        finally:
            view.end()
    finally:
        gates.end()
        mesh.end()


def test_a_controller_that_is_killed_in_any_phase_is_gone_on_from(killed: Killed) -> None:
    early, middle, late = killed.all
    not_yet = killed.unready(early, "1")
    for release in killed.all:
        release.write("1")
        killed.canary(release)
    for release in (middle, late):
        release.begins()
    with ExitStack() as asking:
        users: dict[str, Users] = {r.namespace: asking.enter_context(r.users(8)) for r in (middle, late)}
        for release in (middle, late):
            release.write("2")
        late.reaches("Waiting")
        approved(middle, (30, 70))
        early.reaches("Initializing")
        killed.kill(early="Initializing", middle="Progressing", late="Waiting")
        assert arms(middle.count(20)) == {(CANARY, "2", 200): 6, (PRIMARY, "1", 200): 14}  # also while nobody controls

        not_yet.unlink()
        early.begins()
        users["early"] = asking.enter_context(early.users(8))
        early.write("2")
        approved(early, (30, 70))
        approved(middle, (60, 40))
        late.order("approve")
        late.reaches("WaitingPromotion")
        late.shares((50, 50))
        early.order("abort")
        killed.kill(middle="Progressing", late="WaitingPromotion")
        early.reaches("Failed")
        early.shares((0, 100))
        assert arms(middle.count(20)) == {(CANARY, "2", 200): 12, (PRIMARY, "1", 200): 8}

        waits = [killed.unready(release, "2") for release in (middle, late)]
        late.order("approve")
        middle.order("promote")
        middle.reaches("Promoting")
        late.reaches("Promoting")
        killed.canary(middle, interval="4s")  # so long it will be Finalising
        middle.says("web-primary.middle not ready")
        waits[0].unlink()
        middle.reaches("Finalising")
        killed.kill(middle="Finalising", late="Promoting")
        middle.reaches("Succeeded")
        assert late.phase == "Promoting"
        assert arms(late.count(20)) == {(CANARY, "2", 200): 10, (PRIMARY, "1", 200): 10}
        waits[1].unlink()
        late.reaches("Succeeded")
        for release in (middle, late):
            release.shares((0, 100))
            assert arms(release.count(10)) == {(PRIMARY, "2", 200): 10}
        assert arms(early.count(10)) == {(PRIMARY, "1", 200): 10}
    assert {name: one.failures for name, one in users.items()} == {name: [] for name in NAMES}
    for release in killed.all:
        executed = release.executed()
        assert {tuple(executed[one.id]) for one in users[release.namespace].said if one.status == 200} <= {
            (CANARY,),
            (PRIMARY,),
        }  # each once


def test_weights_were_at_every_moment_a_hundred_and_went_by_their_steps(killed: Killed) -> None:
    assert {release.namespace: release.seen().shares for release in killed.all} == {
        "early": [(0, 100), (30, 70), (0, 100)],
        "middle": [(0, 100), (30, 70), (60, 40), (0, 100)],
        "late": [(0, 100), (50, 50), (0, 100)],
    }


def test_phases_went_forward_only(killed: Killed) -> None:
    begin = ["Initializing", "Initialized"]
    end = ["Promoting", "Finalising", "Succeeded"]
    phases = {release.namespace: [phase for phase in release.seen().phases if phase] for release in killed.all}
    assert phases == {
        "early": [*begin, "Progressing", "Failed"],
        "middle": [*begin, "Progressing", *end],
        "late": [*begin, "Waiting", "Progressing", "WaitingPromotion", *end],
    }


def approved(release: Release, shares: tuple[int, int]) -> None:
    """The gate before this weight is opened once the release waits at it."""
    release.until(lambda: release.status.get("phase") == "Progressing", "the release to begin")
    release.says("waiting for traffic increase approval at weight")
    weight = release.status["canaryWeight"]
    release.says(f"waiting for traffic increase approval at weight {weight}")
    release.order("approve")
    release.shares(shares)
