"""docs/limits.md says what the classes say."""

from __future__ import annotations

import importlib
from pathlib import Path

from meshproxy.proxy.settings import Settings
from meshproxy.wire.limits import Limits

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


def rows() -> dict[str, list[str]]:
    """Name -> the other cells, of every table of the page."""
    found: dict[str, list[str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            name = cells[0].strip("| `")
            assert name not in found, f"{name} has two rows"
            found[name] = cells[1:]
    return found


def attributes(thing: object) -> dict[str, object]:
    """By `dir`, because a compiled object has no `__dict__`."""
    return {name: getattr(thing, name) for name in dir(thing) if not name.startswith("_")}


def test_every_setting_and_limit_is_on_the_page_with_its_default():
    held = attributes(Settings()) | attributes(Limits())
    del held["limits"]
    page = {name: cells[0] for name, cells in rows().items() if "." not in name}
    assert page == {name: repr(value) for name, value in held.items()}


def test_constants_on_the_page_have_the_value_it_gives():
    constants = {name: cells[0] for name, cells in rows().items() if "." in name}
    assert len(constants) >= 5
    for name, value in constants.items():
        module, _, attribute = name.rpartition(".")
        package = "meshproxy" if module.startswith(("mesh.", "policy.")) else "meshproxy.proxy"
        assert repr(getattr(importlib.import_module(f"{package}.{module}"), attribute)) == value, name


def test_every_row_says_what_happens_at_the_bound():
    for name, cells in rows().items():
        assert len(cells) == 4, name
        assert cells[1], f"{name} has no unit"
        assert cells[2], f"{name} does not say what happens"
