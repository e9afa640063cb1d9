"""docs/access.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from control.compile.access import MAX_RULES
from control.resources import routegroup, traffictarget
from control.resources.documents import parse_documents
from control.resources.validate import check_file
from meshproxy.policy import access, regex
from meshproxy.proxy import denials

PAGE = (Path(__file__).parents[2] / "docs" / "access.md").read_text()


def test_every_reason_is_on_the_page_and_no_other() -> None:
    assert set(re.findall(r"`(access_[a-z_]+)`", PAGE)) == set(access.REASONS)


def test_the_bounds_on_the_page_are_those_of_the_code() -> None:
    rows = [line.split("|")[2].strip() for line in PAGE.partition("## Bounds")[2].splitlines() if line.startswith("| ")]
    assert [int(row) for row in rows[1:]] == [
        MAX_RULES,
        traffictarget.MAX_SOURCES,
        traffictarget.MAX_RULES,
        routegroup.MAX_MATCHES,
        routegroup.MAX_HEADERS,
        regex.MAX_PATTERN,
        regex.MAX_POSITIONS,
        access.MEMO,
        denials.KINDS,
    ]


def test_the_example_is_accepted_as_it_stands() -> None:
    example = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
    checked = check_file("example.yaml", parse_documents(example.encode(), "example.yaml"))
    assert checked.diagnostics == []
    assert [document.obj["kind"] for document in checked.documents if document.obj] == ["HTTPRouteGroup", "TrafficTarget"]
    assert [document.diagnostics for document in checked.documents] == [[], []]
