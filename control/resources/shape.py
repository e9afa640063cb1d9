"""Does a value have the shape its type declares?  All mistakes, not the first.

The typed views (`core`, `split`, `canary`) are msgspec structs; their annotations are the schema.  msgspec itself stops at
the first mistake, so this file walks the same declarations and gathers them:

    Service (struct) --msgspec.inspect--> type tree --check(value, path)--> Report

Fields that exist in Kubernetes and that we carry but never read are named in `unread`, so that a typing error in a field
name ("replica") is told from a field we do not use ("minReadySeconds").
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import msgspec.inspect as types

from control.resources.documents import Document, Path, field_name
from control.store.store import Diagnostic, Key

MAX_SHOWN = 60  # characters of a found value in a message


class Shape(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of all typed views: immutable, camelCase in manifests, snake_case in Python."""

    unread: ClassVar[frozenset[str]] = frozenset()
    secret: ClassVar[bool] = False  # values must not appear in messages


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Report:
    """Gathers the diagnostics of one document; a field is named by its path, the document knows the line."""

    __slots__ = ("diagnostics", "document", "key", "paths", "secret")

    def __init__(self, document: Document, key: Key | None = None, secret: bool = False) -> None:
        self.document = document
        self.key = key
        self.secret = secret
        self.diagnostics: list[Diagnostic] = []
        self.paths: list[Path] = []  # of the diagnostics, in their order

    def error(self, path: Path, message: str, hint: str = "") -> None:
        self._add("error", path, message, hint)

    def warning(self, path: Path, message: str, hint: str = "") -> None:
        self._add("warning", path, message, hint)

    def _add(self, severity: str, path: Path, message: str, hint: str) -> None:
        line = self.document.line_of(path)
        self.paths.append(path)
        self.diagnostics.append(Diagnostic(severity, self.document.file, line, field_name(path), message, hint, self.key))

    @property
    def failed(self) -> bool:
        return any(diagnostic.severity == "error" for diagnostic in self.diagnostics)


def check_shape(value: Any, cls: type[Shape], report: Report, path: Path = ()) -> None:
    """Report every place where `value` is not what `cls` declares.  Null map values count as absent."""
    _check(value, _tree(cls), report, path)


def without_mistakes(value: Any, cls: type[Shape], paths: list[Path]) -> Any:
    """A copy that has the right shape, without what is at `paths` (from `check_shape`), so that the rest can be checked for
    meaning too; None if too little is left.  A list is cut before its first wrong item: the others keep their index."""
    copy: Any = value
    for _ in range(8):  # taking a required field away makes its holder wrong: some levels up at most
        for path in paths:
            copy = _cut(copy, path)
        probe = Report(Document(copy))
        check_shape(copy, cls, probe)
        if not probe.failed:
            return copy
        paths = [path[:-1] if path[-1] not in _at(copy, path[:-1]) else path for path in probe.paths if path]
        if any(len(path) < 2 for path in paths):
            return None
    return None


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()


def _cut(value: Any, path: Path) -> Any:
    if isinstance(value, dict):
        if len(path) == 1:
            return {name: inner for name, inner in value.items() if name != path[0]}
        return {name: _cut(inner, path[1:]) if name == path[0] else inner for name, inner in value.items()}
    if isinstance(value, list) and isinstance(path[0], int):
        head = value[: path[0]]
        return (
            head
            if len(path) == 1
            else [*head, *(_cut(item, path[1:]) for item in value[path[0] : path[0] + 1]), *value[path[0] + 1 :]]
        )
    return value


@functools.cache
def _tree(cls: type[Shape]) -> types.Type:
    return types.type_info(cls)


def shown(value: Any, secret: bool = False) -> str:
    """A found value, short, with its YAML type."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a map"
        case list():
            return "a list"
    kind = "boolean" if isinstance(value, bool) else "number" if isinstance(value, (int, float)) else "string"
    if secret:
        return f"a {kind}"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return f"the {kind} {text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '...'}"


PREFIXED = 0.9  # cutoff for words that have most of their letters in common: "retry.linkerd.io/http"


def nearest(word: str, known: list[str], cutoff: float = 0.7) -> str:
    """A hint "did you mean ...?", or nothing if no known word is near.  cutoff: how alike, 0 to 1."""
    near = closest(word, known, cutoff)
    return f"did you mean {near}?" if near else ""


def closest(word: str, known: list[str], cutoff: float = 0.7) -> str:
    """The known word that is nearest; "" if none is near."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(folded), n=1, cutoff=cutoff)
    return folded[near[0]] if near else ""


def _check(value: Any, tree: types.Type, report: Report, path: Path) -> None:
    match tree:
        case types.Metadata():
            if (expected := (tree.extra or {}).get("expected")) is None:
                _check(value, tree.type, report, path)
            elif _mismatch(value, tree.type):
                report.error(path, f"found {shown(value, report.secret)}, expected {expected}")
        case types.AnyType():
            pass
        case types.StructType():
            _struct(value, tree, report, path)
        case types.ListType() | types.VarTupleType():
            if not isinstance(value, list):
                report.error(path, f"found {shown(value, report.secret)}, expected a list", _listed(value))
                return
            for index, item in enumerate(value):
                _check(item, tree.item_type, report, (*path, index))
        case types.DictType():
            if not isinstance(value, dict):
                report.error(path, f"found {shown(value, report.secret)}, expected a map")
                return
            for key, item in value.items():
                if item is not None:
                    _check(item, tree.value_type, report, (*path, key))
        case types.UnionType():
            _union(value, tree, report, path)
        case _:
            if expected := _scalar_mistake(value, tree):
                report.error(path, f"found {shown(value, report.secret)}, expected {expected}", _scalar_hint(value, tree))


def _struct(value: Any, tree: types.StructType, report: Report, path: Path) -> None:
    if not isinstance(value, dict):
        report.error(path, f"found {shown(value, report.secret)}, expected a map")
        return
    fields: Mapping[str, types.Field] = {field.encode_name: field for field in tree.fields}
    unread: frozenset[str] = getattr(tree.cls, "unread", frozenset())
    for name, inner in value.items():
        if name in fields:
            if inner is not None:
                _check(inner, fields[name].type, report, (*path, name))
        elif name not in unread:
            where = f" of {field_name(path)}" if path else ""
            report.error((*path, name), f"unknown field{where}", nearest(name, [*fields, *sorted(unread)]))
    for name, field in fields.items():
        if field.required and value.get(name) is None:
            report.error((*path, name), f"is missing, expected {_expected(field.type)}")


def _union(value: Any, tree: types.UnionType, report: Report, path: Path) -> None:
    options = [option for option in tree.types if not isinstance(option, types.NoneType)]
    if len(options) == 1:
        _check(value, options[0], report, path)
    elif all(_mismatch(value, option) for option in options):
        expected = " or ".join(_expected(option) for option in options)
        report.error(path, f"found {shown(value, report.secret)}, expected {expected}")


def _mismatch(value: Any, tree: types.Type) -> bool:
    probe = Report(Document(value))
    _check(value, tree, probe, ())
    return probe.failed


def _scalar_mistake(value: Any, tree: types.Type) -> str:
    """What was expected, or "" if the value is right."""
    right = False
    match tree:
        case types.StrType():
            right = isinstance(value, str) and (tree.pattern is None or re.search(tree.pattern, value) is not None)
            right = right and len(value) >= (tree.min_length or 0)
            right = right and (tree.max_length is None or len(value) <= tree.max_length)
        case types.BoolType():
            right = isinstance(value, bool)
        case types.IntType() | types.FloatType():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if isinstance(tree, types.IntType):
                number = number and isinstance(value, int)
            right = number and (tree.ge is None or value >= tree.ge) and (tree.le is None or value <= tree.le)
            right = right and (tree.gt is None or value > tree.gt) and (tree.lt is None or value < tree.lt)
        case types.LiteralType():
            right = value in tree.values and not isinstance(value, bool)
        case types.NoneType():
            right = value is None
    return "" if right else _expected(tree)


def _expected(tree: types.Type) -> str:
    match tree:
        case types.Metadata():
            return str((tree.extra or {}).get("expected") or _expected(tree.type))
        case types.StrType():
            if tree.pattern is not None:
                return f"a string matching {tree.pattern}"
            return "a string that is not empty" if tree.min_length else "a string"
        case types.BoolType():
            return "true or false"
        case types.IntType() | types.FloatType():
            noun = "a whole number" if isinstance(tree, types.IntType) else "a number"
            if tree.ge is not None and tree.le is not None:
                return f"{noun} from {tree.ge} to {tree.le}"
            bounds = {"of at least": tree.ge, "above": tree.gt, "of at most": tree.le, "below": tree.lt}
            said = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
            return f"{noun} {said}" if said else noun
        case types.LiteralType():
            values = [str(value) for value in tree.values if value != ""]
            return "one of " + ", ".join(values) if len(values) > 1 else "".join(values)
        case types.ListType() | types.VarTupleType():
            return "a list"
        case types.UnionType():
            return " or ".join(_expected(option) for option in tree.types if not isinstance(option, types.NoneType))
    return "a map"


def _scalar_hint(value: Any, tree: types.Type) -> str:
    if isinstance(tree, types.StrType) and tree.pattern is None and isinstance(value, (bool, int, float)):
        return "put it in quotes"
    if isinstance(tree, types.LiteralType) and isinstance(value, str):
        return nearest(value, [str(option) for option in tree.values])
    if isinstance(tree, (types.IntType, types.FloatType)) and isinstance(value, str) and re.fullmatch(r"-?[0-9.]+", value):
        return "remove the quotes"
    return ""


def _listed(value: Any) -> str:
    return "begin each item with '- '" if isinstance(value, (dict, str)) else ""
