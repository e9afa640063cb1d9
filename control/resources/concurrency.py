"""How many requests a pod takes at once, by its annotation.

meshproxy.dev/concurrency-limit   a number | adaptive | adaptive up to NUMBER (1000)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from control.resources.shape import shown

CONCURRENCY = "meshproxy.dev/concurrency-limit"
MAX_LIMIT = 1_000_000
LEAST_ADAPTIVE = 4  # an adaptive limit is never below
GREATEST_ADAPTIVE = 1000  # nor, unless said, above

_FORM = re.compile(r"([0-9]{1,7})\Z|adaptive(?:\s+up\s+to\s+([0-9]{1,7}))?\Z")


@dataclass(frozen=True, slots=True)
class Limit:
    """greatest: the limit itself, or where an adaptive one ends."""

    greatest: int
    adaptive: bool


def concurrency(annotations: Mapping[str, str]) -> Limit | None:
    """What a pod declares; None: nothing, or nothing usable.  Never raises."""
    text = annotations.get(CONCURRENCY)
    return None if text is None else _read(text)


def concurrency_mistake(value: str) -> str:
    """What is wrong with a limit; "" if nothing is."""
    if _read(value) is not None:
        return ""
    return f"found {shown(value)}, expected a number from 1 to {MAX_LIMIT}, adaptive, or adaptive up to NUMBER"


def _read(text: str) -> Limit | None:
    match = _FORM.match(text.strip())
    if match is None:
        return None
    if match[1]:
        fixed = int(match[1])
        return Limit(fixed, False) if 1 <= fixed <= MAX_LIMIT else None
    greatest = int(match[2]) if match[2] else GREATEST_ADAPTIVE
    return Limit(greatest, True) if LEAST_ADAPTIVE <= greatest <= MAX_LIMIT else None
