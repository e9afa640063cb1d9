"""Kinds of requests as a Canary names them: service.match and analysis.match, in Istio's words, and what they are in ours.

    {headers: {cookie: {regex: ".*canary.*"}}, uri: {prefix: /api}}
      --parse_matches-->  Match(path, method, headers, query)
      --route_match-->    a match of an HTTPRoute          exact, prefix (whole segments) or regular expression
      --group_match-->    a match of an HTTPRouteGroup     regular expressions throughout; it has no query

Within a match all that is given must fit; matches are alternatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from control.canary.declared.fields import SpecError, flag, items, mapping
from control.resources.shape import words
from control.store.store import Object
from meshproxy.policy.regex import Regex

EXACT, PREFIX, REGEX = "exact", "prefix", "regex"
MAX_MATCHES = 64  # of a list, as of a rule of an HTTPRoute
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_SPECIAL = frozenset("\\.+*?()|[]{}^$")
_READ = words("name uri method headers queryParams authority scheme port ignoreUriCase gateways withoutHeaders sourceLabels")


@dataclass(frozen=True, slots=True)
class Text:
    """`prefix`: of a path whole segments.  Of a header a prefix is a regular expression."""

    how: str
    value: str


@dataclass(frozen=True, slots=True)
class Match:
    """Headers and query parameters sorted by name; names of headers in lower case."""

    path: Text | None = None
    method: str = ""
    headers: tuple[tuple[str, Text], ...] = ()
    query: tuple[tuple[str, Text], ...] = ()

    def narrowed(self, by: Match) -> Match:
        """What fits both.  Where both speak of one thing - the path, a header - `by` decides: it is meant as a part."""
        return replace(
            self,
            path=by.path or self.path,
            method=by.method or self.method,
            headers=tuple(sorted({**dict(self.headers), **dict(by.headers)}.items())),
            query=tuple(sorted({**dict(self.query), **dict(by.query)}.items())),
        )


EVERYTHING = Match()


def literal(value: str) -> str:
    """A regular expression for exactly this."""
    return "".join("\\" + char if char in _SPECIAL else char for char in value)


def parse_matches(value: object, where: str, port: int, refused: list[str], ignored: list[str]) -> tuple[Match, ...]:
    """Raises SpecError; what cannot be honoured is added to `refused` and `ignored`.  `port`: spec.service.port."""
    given = items(value, where)
    if len(given) > MAX_MATCHES:
        raise SpecError(f"{where}: has {len(given)} entries, expected at most {MAX_MATCHES}")
    return tuple(_match(mapping(one, f"{where}[{i}]"), f"{where}[{i}]", port, refused, ignored) for i, one in enumerate(given))


def _match(given: Mapping[str, Any], where: str, port: int, refused: list[str], ignored: list[str]) -> Match:
    refused.extend(f"{where}.{name} is not supported" for name in given if name not in _READ)
    if given.get("withoutHeaders"):
        refused.append(f"{where}.withoutHeaders is not supported: say what requests have, not what they lack")
    if given.get("sourceLabels"):
        refused.append(f"{where}.sourceLabels is not supported: for callers of one namespace write an HTTPRoute there")
    if given.get("port") not in (None, port):
        refused.append(f"{where}.port {given['port']}: only requests to spec.service.port {port} are shared out")
    scheme = _text(given.get("scheme"), f"{where}.scheme")
    if scheme is not None and scheme != Text(EXACT, "http"):
        refused.append(f"{where}.scheme: requests within the mesh are http")
    if given.get("gateways"):
        ignored.append(f"{where}.gateways: Istio's gateways are not this mesh's")
    headers = _texts(given.get("headers"), f"{where}.headers", lower=True)
    if (host := _text(given.get("authority"), f"{where}.authority")) is not None:
        headers["host"] = host  # as the mesh sees it: in lower case, without port
    return Match(
        _path(given, where),
        _method(given, where, refused),
        tuple(sorted(headers.items())),
        tuple(sorted(_texts(given.get("queryParams"), f"{where}.queryParams", lower=False).items())),
    )


def _path(given: Mapping[str, Any], where: str) -> Text | None:
    path = _text(given.get("uri"), f"{where}.uri")
    if path is None or path == Text(PREFIX, "/"):
        return None
    if path.how != REGEX and not path.value.startswith("/"):
        raise SpecError(f"{where}.uri.{path.how}: found {path.value!r:.60}, expected a path that begins with /")
    if not flag(given.get("ignoreUriCase"), f"{where}.ignoreUriCase"):
        return path
    return Text(REGEX, "(?i)" + _path_pattern(path))


def _path_pattern(path: Text) -> str:
    if path.how == REGEX:
        return path.value
    return literal(path.value) if path.how == EXACT else literal(path.value.rstrip("/")) + "(/.*)?"


def _method(given: Mapping[str, Any], where: str, refused: list[str]) -> str:
    method = _text(given.get("method"), f"{where}.method")
    if method is None:
        return ""
    if method.how != EXACT:
        refused.append(f"{where}.method: only exact methods are supported; write a match for each")
        return ""
    if method.value not in METHODS:
        raise SpecError(f"{where}.method.exact: found {method.value!r:.60}, expected {', '.join(METHODS)}")
    return method.value


def _texts(value: object, where: str, *, lower: bool) -> dict[str, Text]:
    found: dict[str, Text] = {}
    for name, one in mapping(value, where).items():
        text = _text(one, f"{where}.{name}")
        # A name without a value: the field must be there.
        found[name.lower() if lower else name] = text if text is not None else Text(REGEX, ".*")
    return found


def _text(value: object, where: str) -> Text | None:
    given = mapping(value, where)
    found = [(how, str(given[how])) for how in (EXACT, PREFIX, "suffix", REGEX) if given.get(how) not in (None, "")]
    if not found:
        return None
    if len(found) > 1:
        raise SpecError(f"{where}: has {' and '.join(how for how, _ in found)}, expected one of them")
    how, text = found[0]
    if how == "suffix":
        how, text = REGEX, ".*" + literal(text)
    if how == REGEX:
        try:
            Regex(text)
        except ValueError as mistake:
            raise SpecError(f"{where}.regex: {text!r:.80}: {mistake} (the syntax is RE2's)") from None
    return Text(how, text)


# ---------------------------------------------------------------- as objects have them


def route_match(match: Match) -> Object:
    """A match of an HTTPRoute, all defaults written out."""
    path = match.path or Text(PREFIX, "/")
    kind = {EXACT: "Exact", PREFIX: "PathPrefix", REGEX: "RegularExpression"}[path.how]
    made: Object = {"path": {"type": kind, "value": path.value}}
    if match.method:
        made["method"] = match.method
    if match.headers:
        made["headers"] = [_named(name, text) for name, text in match.headers]
    if match.query:
        made["queryParams"] = [_named(name, text) for name, text in match.query]
    return made


def _named(name: str, text: Text) -> Object:
    if text.how == EXACT:
        return {"type": "Exact", "name": name, "value": text.value}
    return {"type": "RegularExpression", "name": name, "value": _pattern(text)}


def _pattern(text: Text) -> str:
    if text.how == REGEX:
        return text.value
    return literal(text.value) if text.how == EXACT else literal(text.value) + ".*"


def group_match(match: Match, name: str) -> Object:
    """A match of an HTTPRouteGroup whose pathRegex takes the whole path (annotation meshproxy.dev/path-match: full)."""
    assert not match.query, "an HTTPRouteGroup has no query"
    made: Object = {"name": name, "methods": [match.method or "*"]}
    if match.path is not None:
        made["pathRegex"] = _path_pattern(match.path)
    if match.headers:
        made["headers"] = [{header: _pattern(text)} for header, text in match.headers]
    return made
