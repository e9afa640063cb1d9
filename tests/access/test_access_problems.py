"""What is wrong with a TrafficTarget, told where people look: `lint`, Events, `get`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from access_objects import account, group, http, pod, ports, target, tcp

from control.resources.crosscheck import crosscheck
from control.resources.documents import Document
from control.resources.refused import Refused
from control.resources.validate import check_document
from control.serve.traffic_status import TrafficStatus
from control.store.files import FileStore
from control.store.store import Key
from meshproxy.cli.printers import KINDS, table

TARGET = Key("access.smi-spec.io", "TrafficTarget", "shop", "t")
BOOKS = group("books", {"pathRegex": "/books"})
PEOPLE = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}}
    for name in ("web", "reader")
]


@pytest.mark.parametrize(
    ("objects", "field", "words"),
    [
        (
            [target(http("nowhere"))],
            "spec.rules[0]",
            "HTTPRouteGroup nowhere does not exist: the target allows nothing until it does",
        ),
        ([target(http("books", "nope")), BOOKS], "spec.rules[0]", "HTTPRouteGroup books has no match nope"),
        ([target(http("books"), tcp("nowhere")), BOOKS], "spec.rules[1]", "TCPRoute nowhere does not exist"),
        ([target(http("g")), group("g")], "spec.rules", "have no matches: the target allows nothing"),
        (
            [target({"kind": "UDPRoute", "name": "u"}, http("books")), BOOKS],
            "spec.rules[0]",
            "UDP does not go through the mesh",
        ),
        (
            [target(http("books"), to=account("nobody")), BOOKS],
            "spec.destination.name",
            "no pod has the service account nobody",
        ),
        (
            [target(http("books"), sources=(account("ghost"),)), BOOKS],
            "spec.sources",
            "ServiceAccount shop/ghost does not exist",
        ),
    ],
)
def test_lint_names_the_field_and_what_comes_of_it(objects: list[Any], field: str, words: str) -> None:
    (told,) = crosscheck([pod(), *PEOPLE, *objects])
    assert (told.severity, told.key, told.field) == ("warning", TARGET, field)
    assert words in told.message


def test_a_target_with_all_it_needs_is_nothing_to_tell() -> None:
    assert crosscheck([pod(), *PEOPLE, target(http("books"), tcp("p")), BOOKS, ports("p", 8080)]) == []


def test_a_group_that_was_refused_is_told_by_its_own_error_alone() -> None:
    refused = check_document(Document(group("books", {"pathRegex": "(?=x)"}))).diagnostics
    assert [one.severity for one in refused] == ["error"]
    assert crosscheck([pod(), *PEOPLE, target(http("books"))], refused=Refused.of(refused)) == []


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"rules": []}, "spec.rules", "is missing, expected at least one rule"),
        ({"sources": []}, "spec.sources", "expected at least one source"),
        (
            {"rules": [{"kind": "Sorcery", "name": "g"}]},
            "spec.rules[0].kind",
            "expected one of HTTPRouteGroup, TCPRoute, UDPRoute",
        ),
        (
            {"destination": {"kind": "ServiceAccount", "name": "web", "namespace": "else"}},
            "spec.destination.namespace",
            "own namespace",
        ),
        (
            {"destination": {"kind": "ServiceAccount", "name": "web", "port": 0}},
            "spec.destination.port",
            "a port from 1 to 65535",
        ),
        ({"destination": {"kind": "Group", "name": "web"}}, "spec.destination.kind", "ServiceAccount"),
        ({"destination": None}, "spec.destination", "is missing"),
    ],
)
def test_a_target_that_says_too_little_is_refused_with_its_reason(changed: dict[str, Any], field: str, words: str) -> None:
    one = target(http("books"))
    one["spec"].update(changed)
    checked = check_document(Document(one))
    assert checked.obj is None
    (told,) = [one for one in checked.diagnostics if one.severity == "error"]
    assert told.field == field
    assert words in told.message


@pytest.mark.parametrize(
    ("obj", "where"),
    [
        (pod(annotations={"meshproxy.dev/access": "adit"}), "access"),
        (
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "shop", "annotations": {"meshproxy.dev/access": "adit"}},
            },
            "access",
        ),
        ({**BOOKS, "metadata": {**BOOKS["metadata"], "annotations": {"meshproxy.dev/path-match": "ful"}}}, "path-match"),
    ],
)
def test_a_word_that_an_annotation_does_not_know_is_refused(obj: dict[str, Any], where: str) -> None:
    checked = check_document(Document(obj))
    assert checked.obj is None
    assert any(f"meshproxy.dev/{where}" in one.field and one.severity == "error" for one in checked.diagnostics)


@pytest.mark.parametrize("flat", [False, True])
def test_get_shows_a_target_of_any_version_in_one_line(flat: bool) -> None:
    one = target(http("books", "read"), tcp("p"), sources=(account("reader"), account("cron", "jobs")))
    if flat:
        spec = one.pop("spec")
        one |= {"destination": spec["destination"], "sources": spec["sources"], "specs": spec["rules"]}
    shown = table(KINDS["tt"], [one], wide=False, namespaces=False, headers=False)
    assert shown.split()[:4] == ["t", "web", "reader,jobs/cron", "HTTPRouteGroup/books[read],TCPRoute/p"]


async def test_a_target_whose_group_is_missing_has_an_event_and_another_when_it_is_there(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    now = 1_000_000.0
    store = FileStore(manifests, tmp_path / "state", "canary", accepting=True, clock=lambda: now)
    status = TrafficStatus(store, lambda: now)
    events = []
    try:
        for objects in ([target(http("books"))], [target(http("books")), BOOKS]):
            (manifests / "access.yaml").write_text(yaml.safe_dump_all(objects))
            now += 5.0
            store.refresh()
            await status.look()
            events.append([(event["type"], event["reason"]) for event in store.events(TARGET)])
    finally:
        store.close()
    assert events == [[("Warning", "RuleMissing")], [("Warning", "RuleMissing"), ("Normal", "ProblemResolved")]]
