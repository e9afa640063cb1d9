"""Label selectors as kubectl's -l takes them.  Pure.

    app=web,version!=v2       equality; == is =
    app,!canary               there is such a label; there is none
    tier in (web, api)        one of these; `notin`: none of these, or no such label

All the requirements, separated by commas, must be met.  Names and values follow Kubernetes' rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_LENGTH = 4096  # characters

Labels = Mapping[str, str]

_NAME = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"({_NAME})\s*(=|==|!=)\s*({_VALUE})\Z")
_SET = re.compile(rf"({_NAME})\s+(in|notin)\s*\(([^()]*)\)\Z")
_PRESENCE = re.compile(rf"(!?)\s*({_NAME})\Z")


class SelectorError(ValueError):
    """Not a selector; `str()` says which part and what was expected."""


@dataclass(frozen=True, slots=True)
class Requirement:
    name: str
    values: frozenset[str] | None  # None: any value
    wanted: bool  # the label has one of the values; False: it has none of them, or there is no such label

    def met(self, labels: Labels) -> bool:
        has = self.name in labels and (self.values is None or labels[self.name] in self.values)
        return has is self.wanted


def parse(text: str) -> Callable[[Labels], bool]:
    """A function that tells whether labels match; an empty text matches everything.

    Raises:
        SelectorError
    """
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"a selector has at most {MAX_LENGTH} characters")
    requirements = [_requirement(part.strip()) for part in _parts(text)] if text.strip() else []
    return lambda labels: all(requirement.met(labels) for requirement in requirements)


def _parts(text: str) -> list[str]:
    """At the commas that are not within parentheses."""
    return re.split(r",(?![^(]*\))", text)


def _requirement(text: str) -> Requirement:
    if match := _EQUALITY.match(text):
        name, operator, value = match.groups()
        return Requirement(name, frozenset((value,)), operator != "!=")
    if match := _SET.match(text):
        name, operator, inside = match.groups()
        values = [value.strip() for value in inside.split(",")]
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise SelectorError(f"{text!r}: ({inside}) are no label values: expected letters, digits, '-', '_', '.'")
        return Requirement(name, frozenset(values), operator == "in")
    if match := _PRESENCE.match(text):
        return Requirement(match.group(2), None, not match.group(1))
    raise SelectorError(
        f"{text!r} is no label requirement: expected NAME=VALUE, NAME!=VALUE, NAME, !NAME, NAME in (A,B) or NAME notin (A,B)"
    )
