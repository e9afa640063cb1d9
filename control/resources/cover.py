"""Does one match fit all that another one fits?  Only where that is certain: what is said here is told to people as a mistake.

    wide    path: none, the same, a prefix, "everything", or literal text at the start    AND
            methods: none, or all of the narrow one's                                     AND   -> covers
            headers, query: none that the narrow one has not                              AND

Regular expressions are compared by their look, not by their languages: many that cover another one are not found.
"""

from __future__ import annotations

import re

from control.resources.routing import EXACT, PREFIX, REGEX, REGEX_START, RequestMatch, StringMatch

_ANYTHING = (".*", "^.*", ".*$", "^.*$")  # of a whole path
_ROOTED = tuple(pattern.replace(".*", "/.*") for pattern in _ANYTHING)  # of one that begins with "/": all but `*` and CONNECT's
_LITERAL = re.compile(r"[^\\.^$*+?()\[\]{}|]+\Z")
_QUANTIFIERS = ("*", "?", "{")  # what may take the character before them away


def covers(wide: RequestMatch, narrow: RequestMatch) -> bool:
    """False where it is not certain."""
    return (
        (not wide.methods or (bool(narrow.methods) and set(narrow.methods) <= set(wide.methods)))
        and (wide.path is None or (narrow.path is not None and _path_covers(wide.path, narrow.path)))
        and set(wide.headers) <= set(narrow.headers)
        and set(wide.query) <= set(narrow.query)
    )


def _path_covers(wide: StringMatch, narrow: StringMatch) -> bool:
    if wide == narrow:
        return True
    text = narrow.value
    if wide.how == PREFIX:
        return narrow.how in (EXACT, PREFIX) and (text == wide.value or text.startswith(wide.value + "/"))
    if wide.how == REGEX:
        if wide.value in _ANYTHING:
            return True
        return wide.value in _ROOTED and _begins(narrow, "/")
    if wide.how == REGEX_START:
        literal = wide.value.removeprefix("^")
        return _LITERAL.match(literal) is not None and _begins(narrow, literal)
    return False


def _begins(one: StringMatch, literal: str) -> bool:
    """All that fits begins with this text."""
    if one.how in (EXACT, PREFIX):
        return one.value.startswith(literal)
    pattern = one.value.removeprefix("^")
    rest = pattern[len(literal) :]
    return pattern.startswith(literal) and "|" not in rest and not rest.startswith(_QUANTIFIERS)
