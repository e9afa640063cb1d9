"""docs/annotations.md lists exactly the annotations that the mesh reads and writes, each with the objects it is read on."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from control.resources import linkerd
from control.resources.annotations import FOREIGN, PLACES, WRITTEN

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "annotations.md"

ANNOTATION = re.compile(r"(meshproxy\.dev|([a-z]+\.)*linkerd\.io|flagger\.app)/[a-z-]+\Z")
NO_ANNOTATIONS = {
    "meshproxy.dev/mesh",  # the controller's name in the status of routes
    "meshproxy.dev/proxy-deployment",  # a label
    "meshproxy.dev/simulated-revision",  # of objects that exist in a simulation only
    "flagger.app/scale-to-zero",  # a node label that no node has
    "linkerd.io/opaque",  # appProtocol of a port
    "linkerd.io/tcp",
    "balancer.alpha.linkerd.io/failure-accrual-success-rate",  # how three of them begin
}


LAST = "## Linkerd's that are not read"


def rows(of_the_last: bool = False) -> list[list[str]]:
    """The cells of every line of a table that is about an annotation; those of the last table are about several each."""
    first, last = PAGE.read_text().split(LAST)
    lines = [line for line in (last if of_the_last else first).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def name(row: list[str]) -> str:
    return row[0].strip("` ")


def literals() -> Iterator[tuple[str, str]]:
    """(file, annotation) for each string in our sources that looks like one, also `PREFIX + "name"`."""
    for package in ("control", "meshproxy"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                text = ""
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                elif isinstance(node, ast.BinOp) and isinstance(node.left, ast.Name) and node.left.id == "PREFIX":
                    text = "meshproxy.dev/" + str(getattr(node.right, "value", ""))
                if ANNOTATION.match(text):
                    yield str(file.relative_to(ROOT)), text


def test_every_annotation_that_is_read_has_one_row_with_the_objects_it_is_read_on() -> None:
    page = {name(row): set(row[1].split(", ")) for row in rows() if name(row) not in WRITTEN}
    assert page == {annotation: set(kinds) for annotation, kinds in {**PLACES, **FOREIGN}.items()}
    assert len({name(row) for row in rows()}) == len(rows()), "one has two rows"


def test_what_the_mesh_writes_is_on_the_page_too() -> None:
    assert {name(row) for row in rows()} >= WRITTEN


def test_no_source_knows_an_annotation_that_is_not_on_the_page() -> None:
    known = {*PLACES, *FOREIGN, *WRITTEN, *NO_ANNOTATIONS, *linkerd.NOT_READ, *linkerd.WRITTEN}
    found = list(literals())
    assert len(found) > 30
    assert [(file, text) for file, text in found if text not in known] == []


def test_linkerds_that_are_not_read_are_there_once_with_what_there_is_instead() -> None:
    names = [re.findall("`([^`]+)`", row[0]) for row in rows(of_the_last=True)]
    assert sorted(name for row in names for name in row) == sorted(linkerd.NOT_READ)
    assert [len({linkerd.NOT_READ[name] for name in row}) for row in names] == [1] * len(names)
    assert all(row[1] for row in rows(of_the_last=True))
    text = PAGE.read_text()
    assert [name for name in linkerd.WRITTEN if f"`{name}`" not in text] == []
    assert not {*linkerd.NOT_READ, *linkerd.WRITTEN} & {*PLACES, *FOREIGN}


def test_every_row_says_what_it_means_and_links_lead_somewhere() -> None:
    for row in rows():
        assert len(row) == (3 if name(row) in WRITTEN else 5), row
        assert row[-1], row
    for target in re.findall(r"\]\(([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
