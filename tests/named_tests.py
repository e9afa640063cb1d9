"""For tables that say which test shows what: the tests they name, looked up in the files they are said to be in.

"mesh_e2e/test_e2e_access.py::test_a"  --ast, no import-->  there, or an AssertionError that names it
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

TESTS = Path(__file__).parent


def are_there(names: Sequence[str], what: str) -> None:
    """Asserts that `what` is shown by some test, and that each exists.  names: "FILE::TEST", the file as seen from tests/."""
    assert names, f"no test shows {what!r}"
    for name in names:
        file, _, test = name.partition("::")
        assert test in _tests_in(TESTS / file), f"{name} shows {what!r}, and is not there: which test does now?"


@lru_cache
def _tests_in(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(), str(file))
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in found if node.name.startswith("test_"))
