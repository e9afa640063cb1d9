"""A refused edit of a manifest is seen as an Event, once, and so is its cure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control.serve import manifest_events
from control.serve.manifest_events import ManifestEvents
from control.store.files import FileStore
from control.store.store import Key

KEY = Key("", "ConfigMap", "default", "a")
GOOD = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: "1"}\n'
BAD = GOOD.replace('"1"', "1")


class Mesh:
    def __init__(self, directory: Path) -> None:
        self.manifests = directory / "manifests"
        self.manifests.mkdir()
        self.state = directory / "state"
        self.now = 1_000_000.0
        self.start()

    def start(self) -> None:
        self.store = FileStore(self.manifests, self.state, "canary", accepting=True, clock=lambda: self.now)
        self.events = ManifestEvents(self.store)

    async def edit(self, text: str | None, name: str = "a.yaml") -> list[tuple[str, str, int]]:
        """What the events about the object are then: (type, reason, count)."""
        if text is None:
            (self.manifests / name).unlink()
        else:
            (self.manifests / name).write_text(text)
        for _ in range(3):
            self.now += 2.0
            self.store.refresh()
            await self.events.look()
        return [(event["type"], event["reason"], event["count"]) for event in self.store.events(KEY)]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize("bad", [BAD, GOOD + "  - [", "kind: ["], ids=["field", "file", "nothing left"])
async def test_a_refused_edit_is_one_warning_and_its_cure_one_event(mesh: Mesh, bad: str) -> None:
    assert await mesh.edit(GOOD) == []
    assert await mesh.edit(bad) == [("Warning", "ManifestRefused", 1)]
    (event,) = mesh.store.events(KEY)
    assert event["message"].startswith(f"{mesh.manifests}/a.yaml:")
    assert await mesh.edit(GOOD) == [("Warning", "ManifestRefused", 1), ("Normal", "ManifestAccepted", 1)]


async def test_the_same_mistake_is_not_told_again(mesh: Mesh) -> None:
    await mesh.edit(BAD)
    assert await mesh.edit("# a line more\n" + BAD) == [("Warning", "ManifestRefused", 1)]
    await mesh.edit(BAD)
    mesh.store.close()
    mesh.start()  # another process
    assert await mesh.edit(BAD) == [("Warning", "ManifestRefused", 1)]
    assert len(await mesh.edit(BAD.replace("x: 1", "x: true"))) == 2


async def test_a_manifest_that_is_removed_is_not_accepted(mesh: Mesh) -> None:
    await mesh.edit(GOOD.replace("name: a", "name: b"), "b.yaml")
    await mesh.edit(BAD)
    assert await mesh.edit(None) == [("Warning", "ManifestRefused", 1)]


async def test_many_mistakes_are_bounded(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_events, "MAX_TOLD", 5)
    await mesh.edit("---\n".join(BAD.replace("name: a", f"name: a{number}") for number in range(20)))
    assert len(mesh.store.events()) == 5
