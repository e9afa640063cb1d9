"""Check a text as a manifest file, and what comes of it."""

from __future__ import annotations

from textwrap import dedent

from control.resources.documents import parse_documents
from control.resources.validate import Review, check_file, review
from control.store.store import Diagnostic, Object


def look(text: str, file: str = "app.yaml") -> Review:
    return review([check_file(file, parse_documents(dedent(text).lstrip("\n").encode(), file))])


def told(text: str) -> list[str]:
    """Every diagnostic as "line severity field: message (hint)"."""
    return [short(diagnostic) for diagnostic in look(text).diagnostics]


def short(diagnostic: Diagnostic) -> str:
    hint = f" ({diagnostic.hint})" if diagnostic.hint else ""
    return f"{diagnostic.line} {diagnostic.severity} {diagnostic.field}: {diagnostic.message}{hint}"


def taken(text: str) -> list[Object]:
    result = look(text)
    assert [short(diagnostic) for diagnostic in result.diagnostics if diagnostic.severity == "error"] == []
    return [checked.obj for checked in result.accepted.values() if checked.obj is not None]
