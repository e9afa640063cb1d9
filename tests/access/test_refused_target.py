"""The first version of a TrafficTarget has a mistake: it is refused, and what it was to protect is closed, never open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from access_objects import SETTINGS, account, group, http, pod, request, spiffe, target

from control.compile.snapshot import compile_snapshot
from control.resources.documents import Document
from control.resources.validate import check_document
from control.serve.manifest_events import ManifestEvents
from control.serve.traffic_status import TrafficStatus
from control.store.files import GRACE, FileStore
from control.store.store import Key, Object
from meshproxy.mesh.convert import access_of

KEY = Key("access.smi-spec.io", "TrafficTarget", "shop", "t")
BOOKS = group("books", {"pathRegex": "/books"})
GOOD = target(http("books"))


def changed(**fields: Any) -> Object:
    one = target(http("books"))
    one["spec"].update(fields)
    return one


def misspelt() -> Object:
    """It would allow all of the group if only what is known of it were read."""
    one = target(http("books"))
    one["spec"]["rules"][0]["match"] = ["none-of-them"]
    return one


MISTAKES = {
    "a source that is a Group": changed(sources=[{"kind": "Group", "name": "other"}]),
    "no sources": changed(sources=[]),
    "no rules": changed(rules=[]),
    "a misspelt field of the target": changed(rulez=[]),
    "a misspelt field of a rule": misspelt(),
    "a kind of rule that is none": changed(rules=[{"kind": "Sorcery", "name": "books"}]),
    "sources that are no list": changed(sources="reader"),
    "a port that is none": changed(destination={**account("web"), "port": 0}),
    "a misspelt field of the destination": changed(destination={**account("web"), "prot": 80}),
}


class Mesh:
    """A directory of manifests, and a control plane over it that can be ended and started."""

    def __init__(self, home: Path) -> None:
        self.manifests, self.state = home / "manifests", home / "state"
        self.manifests.mkdir()
        self.now = 1_000_000.0
        self.store = self._opened()

    def _opened(self) -> FileStore:
        return FileStore(self.manifests, self.state, "canary", accepting=True, clock=lambda: self.now)

    def restart(self) -> None:
        self.store.close()
        self.store = self._opened()
        self.store.refresh()

    def say(self, *objects: Object | str, file: str = "access.yaml") -> None:
        texts = [one if isinstance(one, str) else yaml.safe_dump(one) for one in objects]
        (self.manifests / file).write_text("---\n".join(texts))
        self.now += 2 * GRACE
        self.store.refresh()
        self.now += 2 * GRACE
        self.store.refresh()

    def verdict(self, path: str = "/books", client: str = "reader", to: str = "web") -> str:
        made = compile_snapshot([pod(to), *self.store.all()], SETTINGS)
        access = access_of(next(one for (_, name), one in made.resources.items() if name == "shop/web-1").workload)
        if access is None:
            return "not selected"
        decision = access.decide(spiffe(client), 8080, request(f"GET {path}"))
        return "allowed" if decision.allowed else decision.reason

    def errors(self) -> list[str]:
        return [str(one) for one in self.store.diagnostics() if one.severity == "error"]

    def told(self) -> list[str]:
        return [str(one) for one in self.store.diagnostics()]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path)
    try:
        yield mesh
    finally:
        mesh.store.close()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_first_version_that_is_refused_selects_its_pods_and_lets_nobody_in(mesh: Mesh, mistake: str) -> None:
    mesh.say(BOOKS, MISTAKES[mistake])
    assert mesh.errors()
    assert mesh.verdict() == "access_client"
    assert mesh.verdict(client="") == "access_no_identity"


def test_it_stays_so_when_the_control_plane_restarts_and_ends_with_a_good_version(mesh: Mesh) -> None:
    mesh.say(BOOKS, MISTAKES["no rules"])
    mesh.restart()
    assert mesh.verdict() == "access_client"
    mesh.say(BOOKS, GOOD)
    assert mesh.verdict() == "allowed"
    assert mesh.verdict(path="/else") == "access_request"
    assert not [line for line in mesh.told() if "refused" in line]


def test_a_good_version_from_before_stays_whatever_comes_after(mesh: Mesh) -> None:
    mesh.say(BOOKS, GOOD)
    for one in (MISTAKES["no rules"], changed(destination=account("other"), rules=[])):
        mesh.say(BOOKS, one)
        assert mesh.verdict() == "allowed"
        assert mesh.verdict(to="other") == "not selected"
    mesh.restart()
    assert mesh.verdict() == "allowed"


def test_while_it_is_refused_it_selects_whom_its_manifest_names_now(mesh: Mesh) -> None:
    mesh.say(changed(rules=[]))
    mesh.say(changed(rules=[], destination=account("other")))
    assert mesh.verdict() == "not selected"
    assert mesh.verdict(to="other") == "access_client"
    mesh.restart()
    assert mesh.verdict(to="other") == "access_client"


def test_without_its_manifest_it_is_gone(mesh: Mesh) -> None:
    mesh.say(BOOKS, MISTAKES["no rules"])
    mesh.say(BOOKS)
    assert mesh.verdict() == "not selected"


def test_other_targets_still_let_their_sources_in(mesh: Mesh) -> None:
    mesh.say(BOOKS, MISTAKES["no rules"], target(http("books"), name="good"))
    assert mesh.verdict() == "allowed"
    assert mesh.verdict(client="writer") == "access_client"


def test_a_good_target_of_a_file_that_is_broken_elsewhere_protects_too(mesh: Mesh) -> None:
    mesh.say(BOOKS, GOOD, "kind: [")
    assert mesh.verdict() == "access_client"


def test_a_target_in_two_files_protects_too(mesh: Mesh) -> None:
    mesh.say(GOOD, file="a.yaml")
    mesh.restart()
    (mesh.manifests / "a.yaml").unlink()
    mesh.say(BOOKS)
    assert mesh.verdict() == "not selected"
    (mesh.manifests / "a.yaml").write_text(yaml.safe_dump(GOOD))
    mesh.say(GOOD, BOOKS, file="b.yaml")
    assert mesh.verdict() == "access_client"


def test_every_version_is_read_for_whom_it_selects(mesh: Mesh) -> None:
    flat = {
        "apiVersion": "access.smi-spec.io/v1alpha1",
        "kind": "TrafficTarget",
        "metadata": {"name": "t", "namespace": "shop"},
        "destination": {**account("web"), "port": 0},
        "sources": [account("reader")],
        "specs": [http("books")],
    }
    mesh.say(BOOKS, flat)
    assert mesh.verdict() == "access_client"


def test_the_mark_of_a_refused_target_cannot_be_kept_in_a_manifest(mesh: Mesh) -> None:
    """What `get -o yaml` showed may be mended and written back."""
    mesh.say(changed(rules=[]))
    shown = mesh.store.get(KEY)
    assert shown is not None
    mesh.say(BOOKS, {**shown, "spec": GOOD["spec"]})
    assert mesh.verdict() == "allowed"


# ---------------------------------------------------------------- telling


async def test_what_becomes_of_its_pods_is_told_by_up_and_by_an_event(mesh: Mesh) -> None:
    refused, traffic = ManifestEvents(mesh.store), TrafficStatus(mesh.store, lambda: mesh.now)
    mesh.say(BOOKS, changed(rules=[]))
    await refused.look()
    await traffic.look()
    events = [(event["reason"], event["message"]) for event in mesh.store.events(KEY)]
    assert [reason for reason, _ in events] == ["ManifestRefused", "TargetRefused"]
    assert "spec.rules: is missing" in events[0][1]
    words = "was refused (spec.rules: is missing, expected at least one rule), and no version from before is in force"
    assert words in events[1][1]
    assert "the pods of service account web take only what other TrafficTargets allow" in events[1][1]
    assert any(words in line for line in mesh.told())
    mesh.say(BOOKS, GOOD)
    await refused.look()
    await traffic.look()
    assert [event["reason"] for event in mesh.store.events(KEY)][2:] == ["ManifestAccepted", "ProblemResolved"]


async def test_of_an_edit_with_a_mistake_only_the_mistake_is_told(mesh: Mesh) -> None:
    mesh.say(BOOKS, GOOD)
    mesh.say(BOOKS, changed(rules=[]))
    traffic = TrafficStatus(mesh.store, lambda: mesh.now)
    await traffic.look()
    assert mesh.store.events(KEY) == []


def told(one: Object) -> str:
    checked = check_document(Document(one))
    assert checked.obj is None
    return str(next(found for found in checked.diagnostics if found.severity == "error"))


def test_lint_says_that_the_pods_are_closed() -> None:
    assert "service account web is selected all the same" in told(changed(rules=[]))


@pytest.mark.parametrize(
    "one",
    [
        changed(destination=None),
        changed(destination={"kind": "ServiceAccount"}),
        changed(destination={"kind": "ServiceAccount", "name": 7}),
        changed(destination=account("")),
        changed(destination=account("web", "else")),
        {**GOOD, "metadata": {"name": "Not A Name", "namespace": "shop"}},
        {**GOOD, "spec": "nothing"},
    ],
)
def test_where_it_is_not_known_whom_it_selects_the_error_says_that_nothing_is_protected(mesh: Mesh, one: Object) -> None:
    mesh.say(BOOKS, one)
    assert mesh.verdict() == "not selected"
    assert "this target protects nothing" in mesh.errors()[0]
    assert "this target protects nothing" in told(one)
