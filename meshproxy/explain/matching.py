"""Which rule a request is for, and what is wrong with the others: the matches of one Service port, for people.

    Matches, Head --tried()--> one line a match, in order:   misfit "header x-canary"   why "absent, = always was wanted"
                                                             fits, the first: taken          fits, but later: too late
Pure.
"""

from __future__ import annotations

from typing import Any, Final

from meshproxy.policy.access import host_of
from meshproxy.policy.declared import RouteSpec
from meshproxy.policy.filters import HeaderChanges
from meshproxy.policy.match import EXACT, PREFIX, REGEX, Match, Matches, Value, header_value, parse_query
from meshproxy.policy.path import normal_path
from meshproxy.policy.service import RouteEntry
from meshproxy.wire.message import Head

SHOWN: Final = 200  # matches that are listed one by one, endpoints and rules likewise; the page says how many are left out
VALUE: Final = 200  # characters of a value that are shown


def text(value: bytes) -> str:
    shown = value.decode("utf-8", "replace")
    return shown if len(shown) <= VALUE else shown[:VALUE] + "..."


def wanted(value: Value) -> str:
    """ "= always", "under /a", "~ [0-9]+" """
    shown = text(value.text)
    if value.how == EXACT:
        return f"= {shown}"
    if value.how == PREFIX:
        return f"under {shown or '/'}"
    return f"~ {shown}" if value.how == REGEX else f"~ {shown} (a beginning is enough)"


def said(match: Match) -> str:
    """All that a match asks for, on one line; "any request" where it asks for nothing."""
    parts = []
    if match.methods:
        parts.append("method " + " or ".join(text(one) for one in match.methods))
    if match.path is not None:
        parts.append("path " + wanted(match.path))
    parts += [f"header {text(one.name)} {wanted(one)}" for one in match.headers]
    parts += [f"query {text(one.name)} {wanted(one)}" for one in match.query]
    return ", ".join(parts) or "any request"


def why(match: Match, misfit: str, head: Head, path: bytes, parameters: dict[bytes, bytes]) -> str:
    """What was there, and what was wanted instead.  `misfit`: of Match.misfit, and not ""."""
    kind, _, name = misfit.partition(" ")
    if kind == "path":
        assert match.path is not None
        return f"path is {text(path)}, wanted {wanted(match.path)}"
    if kind == "method":
        return f"method is {text(head.method)}, wanted {' or '.join(text(one) for one in match.methods)}"
    conditions = match.headers if kind == "header" else match.query
    for one in conditions:
        if text(one.name) == name:
            found = header_value(head, one.name) if kind == "header" else parameters.get(one.name)
            if found is None or not one.fits(found):
                return f"{misfit} is {'absent' if found is None else text(found)}, wanted {wanted(one)}"
    return misfit


def tried(matches: Matches, routes: dict[int, RouteEntry], head: Head) -> list[dict[str, Any]]:
    """Every match with its rule: {"rule", "match", "fits", "taken", "why"}.  Where the path has no safe reading and rules are
    on paths, no match is tried: the list is empty, and `unsafe` is true."""
    path = head.path
    if matches.on_paths:
        normal = normal_path(path)
        if normal is None:
            return []
        path = normal
    parameters = parse_query(head.path) if matches.on_query else {}
    found: list[dict[str, Any]] = []
    taken = False
    for match in matches.all:
        misfit = match.misfit(head, path, parameters)
        entry = routes.get(match.route)
        line = {
            "rule": entry.spec.name if entry is not None else "",
            "match": said(match),
            "fits": not misfit,
            "taken": not misfit and not taken,
            "why": why(match, misfit, head, path, parameters) if misfit else "comes later" if taken else "",
        }
        taken = taken or not misfit
        found.append(line)
    return found


def unsafe(matches: Matches, head: Head) -> bool:
    return matches.on_paths and normal_path(head.path) is None


def changes(what: str, made: HeaderChanges | None) -> list[str]:
    return [] if made is None else [f"{what}: {word}" for word in made.words()]


def filters(spec: RouteSpec, before: Head, after: Head, location: str) -> list[str]:
    """What the rule changes of this request and its answer.  `after`: the head that is sent; location: of a redirect."""
    found = []
    if spec.redirect is not None:
        found.append(f"redirect: {spec.redirect.status} to {location}")
    if after.path != before.path:
        found.append(f"path: {text(before.path)} is sent as {text(after.path)}")
    if host_of(after.authority) != host_of(before.authority):
        found.append(f"host: {text(before.authority)} is sent as {text(after.authority)}")
    return found + changes("request header", spec.request_headers) + changes("answer's header", spec.response_headers)
