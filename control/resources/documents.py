"""YAML -> documents: plain JSON values, and the line of every field, so that a mistake can be named where it is.

    bytes --scan events--> bounds ok? --compose--> nodes --build--> Document(obj, lines) ...
                |                        |            |
                +--- Diagnostic ---------+------------+    (file, line, what, hint)

Values are what `kubectl` would send: YAML 1.1 booleans and numbers, but no dates and no base-60 integers (`10:30` stays a
string), `1e3` is a number, a key that is a number becomes a string.  `List` objects are opened.  Anchors and merge keys
work; what they expand to counts against the bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from control.store.store import Diagnostic, Object

try:  # libyaml: some ten times faster
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without it
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

MAX_FILE_BYTES = 4 * 1024 * 1024  # Kubernetes stores at most 1.5 MiB an object; a file may hold several
MAX_DEPTH = 64  # the deepest real objects (CRD schemas) stay below 40; libyaml's composer recurses on the C stack
MAX_VALUES = 200_000  # of one file, after aliases are expanded ("billion laughs")
MAX_DOCUMENTS = 2_000  # of one file

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+\Z")
_WORDS = re.compile(r"""\b(kind|name)["']?:[ \t]*["']?([A-Za-z0-9][A-Za-z0-9.-]*)""")
_HELM = re.compile(r"\{\{-?\s*([.$]|(if|range|with|include|template|define|end|toYaml)\b)")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(slots=True)
class Document:
    """One object of a file.  `lines` maps a field's path to its 1-based line; it may be empty (an object from elsewhere)."""

    obj: Any
    file: str = ""
    line: int = 0
    lines: dict[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """The line of a field, or of the nearest enclosing one that is there."""
        for end in range(len(path), 0, -1):
            if (line := self.lines.get(path[:end])) is not None:
                return line
        return self.line


@dataclass(frozen=True, slots=True)
class Mentioned:
    """Objects that may be there: of one of these kinds, with one of these names.  None: any."""

    kinds: frozenset[str] | None = None
    names: frozenset[str] | None = None

    def fits(self, kind: str, name: str) -> bool:
        return (self.kinds is None or kind in self.kinds) and (self.names is None or name in self.names)


@dataclass(slots=True)
class Parsed:
    """A file's documents.  `broken`: the file does not parse to its end, so nothing of it may be taken as complete.
    `mentioned`: what may be in the part that was not read."""

    documents: list[Document] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    broken: bool = False
    mentioned: Mentioned | None = None


def field_name(path: Path) -> str:
    """("spec", "backends", 0, "weight") -> "spec.backends[0].weight"; keys with dots or slashes are put in ["..."]."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        elif _PLAIN_KEY.match(part):
            out += f".{part}" if out else part
        else:
            out += f'["{part}"]'
    return out


def parse_documents(data: bytes, file: str = "") -> Parsed:
    """Parse a manifest file.  Never raises: what is wrong is in `diagnostics`."""
    parsed = Parsed()

    def error(line: int, message: str, hint: str = "", path: Path = ()) -> None:
        parsed.diagnostics.append(Diagnostic("error", file, line, field_name(path), message, hint))

    def broken(line: int, message: str, hint: str = "") -> Parsed:
        error(line, message, hint)
        parsed.broken = True
        parsed.mentioned = Mentioned() if text is None else _mentioned("".join(text.splitlines(True)[read:]))
        return parsed

    text: str | None = None
    read = 0  # lines of documents that were read

    if len(data) > MAX_FILE_BYTES:
        return broken(0, f"the file has {len(data):,} bytes, more than {MAX_FILE_BYTES:,}", "split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        return broken(data.count(b"\n", 0, failure.start) + 1, "not UTF-8 text", "save the file as UTF-8")
    if refusal := _out_of_bounds(text):
        return broken(*refusal)
    loader = _Loader(text)
    try:
        while loader.check_node():
            root = loader.get_node()
            assert root is not None
            first_line = root.start_mark.line + 1 if root.start_mark is not None else 0
            if len(parsed.documents) >= MAX_DOCUMENTS:
                return broken(first_line, f"more than {MAX_DOCUMENTS} documents in one file", "split it")
            builder = _Builder()
            try:
                obj = builder.build(root, (), 0)
            except _Refused as refused:
                return broken(refused.line, str(refused), refused.hint)
            read = root.end_mark.line if root.end_mark is not None else 0
            for line, path, message, hint in builder.mistakes:
                error(line, message, hint, path)
            if obj is None:
                continue  # an empty document, such as the one after a trailing `---`
            document = Document(obj, file, first_line, builder.lines)
            if builder.mistakes:
                parsed.broken = True  # a value that is ambiguous (a key given twice) must not be guessed
            parsed.documents.extend(_opened(document))
    except yaml.YAMLError as failure:
        return broken(*_syntax(failure, text))
    finally:
        loader.dispose()
    return parsed


def _out_of_bounds(text: str) -> tuple[int, str, str] | None:
    """Look at the events only (no recursion there): depth and size, and the first syntax error."""
    depth = count = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            count += 1
            if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                depth += 1
                if depth > MAX_DEPTH:
                    return _line(event), f"nested deeper than {MAX_DEPTH} levels", "no Kubernetes object is"
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                depth -= 1
            if count > 2 * MAX_VALUES:
                return _line(event), f"more than {MAX_VALUES:,} values in one file", "split it"
    except yaml.YAMLError:
        return None  # composing reports it, after the documents before it were read
    return None


def _mentioned(text: str) -> Mentioned:
    """By the look of it: what stands after `kind:` and `name:`."""
    found = {word: frozenset(match[2] for match in _WORDS.finditer(text) if match[1] == word) for word in ("kind", "name")}
    return Mentioned(found["kind"], found["name"])


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


def _syntax(failure: yaml.YAMLError, text: str) -> tuple[int, str, str]:
    mark = getattr(failure, "problem_mark", None)
    problem = getattr(failure, "problem", None) or str(failure).splitlines()[0]
    context = getattr(failure, "context", None)
    line = mark.line + 1 if mark is not None else 0
    message = f"not valid YAML: {problem}" + (f" {context}" if context else "")
    if _HELM.search(text):
        return line, message, "a template of Helm? `helm template` makes the manifests: check those"
    if "cannot start any token" in message or "tab character" in message:
        return line, message, "is the line indented with a tab? YAML wants spaces"
    if "mapping values are not allowed" in message:
        return line, message, "check the indentation, and quote values that contain ': '"
    if mark is not None and "did not find expected" in message and (bracket := _open_bracket(text, mark.index)):
        return line, message, f"is the {bracket[0]!r} of line {bracket[1]} closed?"
    return line, message, ""


def _open_bracket(text: str, end: int) -> tuple[str, int] | None:
    """The innermost `{` or `[` that is open at character `end`, if it stands in an earlier line, and that line.  The parser
    complains of what comes next, which is a line (or, at the end of the file, many) after the one to mend."""
    opened: list[tuple[str, yaml.Mark]] = []
    try:
        for token in yaml.scan(text, Loader=_Loader):
            if token.start_mark.index >= end:
                break
            if isinstance(token, (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)):
                opened.append((token.id, token.start_mark))
            elif isinstance(token, (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)) and opened:
                opened.pop()
    except yaml.YAMLError:
        pass  # what was seen until then counts
    if not opened or text.find("\n", opened[-1][1].index, end) < 0:
        return None
    return opened[-1][0], opened[-1][1].line + 1


class _Refused(Exception):
    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


class _Builder:
    """Nodes -> values.  Aliases are expanded anew each time, so that sharing cannot hide size."""

    __slots__ = ("count", "lines", "mistakes")

    def __init__(self) -> None:
        self.count = 0
        self.lines: dict[Path, int] = {}
        self.mistakes: list[tuple[int, Path, str, str]] = []

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        line = node.start_mark.line + 1
        self.count += 1
        if self.count > MAX_VALUES:
            raise _Refused(line, f"more than {MAX_VALUES:,} values once aliases are expanded", "use fewer aliases")
        if depth > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels once aliases are expanded")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                inner = (*path, index)
                self.lines[inner] = item.start_mark.line + 1
                items.append(self.build(item, inner, depth + 1))
            return items
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _TAG + "merge":
                merged.extend(value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node])
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistakes.append((line, path, "a key is a list or a map, expected a string", ""))
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in out:
                first = self.lines[inner]
                self.mistakes.append((line, inner, f"given twice, first in line {first}", "keep one"))
            else:
                self.lines[inner] = line
                out[key] = self.build(value_node, inner, depth + 1)
        for source in merged:  # earlier sources win over later ones, own keys over all
            if not isinstance(source, yaml.MappingNode):
                self.mistakes.append((source.start_mark.line + 1, path, "'<<' merges something that is no map", ""))
                continue
            before = dict(self.lines)
            for key, value in self._mapping(source, path, depth + 1).items():
                out.setdefault(key, value)
            self.lines.update(before)
        return out

    def _scalar(self, node: yaml.ScalarNode, path: Path, line: int) -> Any:
        text: str = node.value
        tag = node.tag.removeprefix(_TAG)
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() in ("true", "yes", "on")
        if tag == "int" and ":" not in text:
            return _integer(text)
        if tag == "float" and ":" not in text:
            number = text.lower().replace("_", "")
            if number.endswith((".inf", ".nan")):
                self.mistakes.append((line, path, f"{text} cannot be sent to an API server", "give a number"))
                return 0.0
            return float(number)
        if tag == "binary":
            self.mistakes.append((line, path, "'!!binary' is not supported", "write the base64 text itself"))
        elif tag == "str" and not node.style and _EXPONENT.match(text):
            return float(text)
        return text


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.startswith("0b"):
        return sign * int(digits[2:], 2)
    if digits.startswith("0x"):
        return sign * int(digits[2:], 16)
    if digits.startswith("0o"):
        return sign * int(digits[2:], 8)
    if len(digits) > 1 and digits.startswith("0"):
        return sign * int(digits, 8)
    return sign * int(digits)


def _opened(document: Document) -> Iterator[Document]:
    """The document itself, or the items of a `List` (as `kubectl get -o yaml` writes it)."""
    obj = document.obj
    if not (isinstance(obj, dict) and obj.get("kind") == "List" and isinstance(obj.get("items"), list)):
        yield document
        return
    for index, item in enumerate(obj["items"]):
        prefix: Path = ("items", index)
        lines = {path[2:]: line for path, line in document.lines.items() if path[:2] == prefix and len(path) > 2}
        yield Document(item, document.file, document.lines.get(prefix, document.line), lines)


def without_nulls(value: Any) -> Any:
    """A copy in which no map has a null value: to an API server `field: null` means that the field is not there."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    return value


def as_document(obj: Object) -> Document:
    """An object that did not come from a file."""
    return Document(obj)
