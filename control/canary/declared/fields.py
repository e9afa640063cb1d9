"""Reading fields of a Canary (and of what it refers to): each function gives a typed value or says what is wrong where.

value, "spec.analysis.threshold" -> integer() -> 5      or SpecError("spec.analysis.threshold: expected ..., found ...")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MAX_NUMBER = 1e15  # of a threshold; neither infinite nor NaN passes

_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


class SpecError(ValueError):
    """A field has a value that cannot be meant; `str()` names field, value and what was expected."""


def duration(value: object, where: str, default: float) -> float:
    """Seconds of a Go duration ("1m30s", "500ms"); `default` if absent.  Raises SpecError."""
    if value is None or value == "":
        return default
    text = str(value)
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise SpecError(f"{where}: {text!r} is not a duration; expected for instance 30s, 1m or 1m30s")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION.findall(text))


def mapping(value: object, where: str) -> Mapping[str, Any]:
    """An object; {} if absent."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise SpecError(f"{where}: expected an object, found {value!r:.60}")
    return value


def items(value: object, where: str) -> list[Any]:
    """A list; [] if absent."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise SpecError(f"{where}: expected a list, found {value!r:.60}")
    return value


def text(value: object, where: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise SpecError(f"{where}: expected a name, found {value!r:.60}")
    return value


def flag(value: object, where: str, default: bool = False) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise SpecError(f"{where}: expected true or false, found {value!r:.60}")
    return value


def integer(value: object, where: str, default: int | None, low: int, high: int = 2**31 - 1) -> int:
    """A whole number within `low` .. `high`; `default` if absent (None: it must not be)."""
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise SpecError(f"{where}: expected a whole number from {low} to {high}, found {value!r:.60}")
    return value


def number(value: object, where: str) -> float | None:
    """A finite number; None if absent."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _MAX_NUMBER:
        raise SpecError(f"{where}: expected a number, found {value!r:.60}")
    return float(value)


def pairs(value: object, where: str) -> tuple[tuple[str, str], ...]:
    """A map of strings, hashable, in the order written.  Numbers and booleans that YAML read are taken as JSON would spell
    them, for it is easily forgotten to quote them."""
    found: list[tuple[str, str]] = []
    for name, content in mapping(value, where).items():
        if isinstance(content, bool):
            content = "true" if content else "false"
        elif isinstance(content, int | float):
            content = str(content)
        if not isinstance(content, str):
            raise SpecError(f"{where}.{name}: expected a string, found {content!r:.60}")
        found.append((str(name), content))
    return tuple(found)
