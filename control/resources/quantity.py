"""Kubernetes quantities (`100m`, `1Gi`, `1e3`) and Go durations (`1m30s`, `500ms`)."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

_SUFFIX: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}
_QUANTITY = re.compile(
    r"([-+]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30}))(?:[eE]([-+]?[0-9]{1,2})|(n|u|m|k|[KMGTPE]i|[MGTPE])?)\Z"
)

_UNIT_SECONDS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 10**3),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_DURATION_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})(ns|us|µs|ms|s|m|h)")


def quantity(value: int | float | str) -> Fraction:
    """A quantity as an exact number.  Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("a boolean, expected a quantity such as 1, 500m or 1Gi")
    if isinstance(value, int):
        return Fraction(value)
    if isinstance(value, float):
        return Fraction(Decimal(repr(value)))
    match = _QUANTITY.match(value.strip())
    if match is None:
        raise ValueError(f"{value!r}, expected a quantity such as 1, 500m or 1Gi")
    number, exponent, suffix = match.groups()
    result = Fraction(Decimal(number))
    return result * Fraction(10) ** int(exponent) if exponent else result * _SUFFIX[suffix or ""]


def milli(value: int | float | str) -> int:
    """A quantity in thousandths; a finer rest is rounded up, as Kubernetes' MilliValue does.  Raises ValueError."""
    thousandths = quantity(value) * 1000
    return -(-thousandths.numerator // thousandths.denominator)


def seconds(value: str) -> float:
    """A Go duration ("90s", "1m30s", "500ms", "0") in seconds.  Raises ValueError."""
    text = value.strip()
    if text == "0":
        return 0.0
    total, position = Fraction(0), 0
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            break
        total += Fraction(Decimal(match.group(1))) * _UNIT_SECONDS[match.group(2)]
        position = match.end()
    if not text or position < len(text):
        raise ValueError(f"{value!r}, expected a duration such as 500ms, 10s or 1m30s")
    return float(total)
