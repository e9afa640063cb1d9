"""What the SMI specification says, and what it leaves open: one row for each statement, asked of manifests and answered by what
becomes of them.

    row = (statement, the question, the answer)         smi_world.py has the words of the questions
    rows of TrafficSplit: smi_rows_split.py             rows of the other kinds: smi_rows_access.py

The numbers are those of the sections of a digest of the specification (traffic split, specs, access), which also lists where
it is silent and what implementations do there; such rows say what ours does ("open: ...").  Not here: TrafficMetrics, which is
an API and no object, and what only real sidecars can show (tests/mesh_e2e).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from smi_rows_access import GROUPS, TARGETS
from smi_rows_split import MATCHES, SPLITS

STATEMENTS = [*SPLITS, *MATCHES, *GROUPS, *TARGETS]


@pytest.mark.parametrize(("question", "answer"), [row[1:] for row in STATEMENTS], ids=[row[0] for row in STATEMENTS])
def test_the_statement_holds(question: Callable[[], Any], answer: Any) -> None:
    assert question() == answer


def test_no_statement_stands_here_twice() -> None:
    names = [row[0] for row in STATEMENTS]
    assert len(set(names)) == len(names)
