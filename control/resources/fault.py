"""What is done to requests for a Service on purpose, by its annotations.

meshproxy.dev/fault-delay    TIME SHARE, such as 200ms 10%      (to 1m)
meshproxy.dev/fault-abort    STATUS SHARE, such as 503 0.5%     (200 to 599; gRPC calls get UNAVAILABLE)
meshproxy.dev/fault-header   NAME=VALUE: to requests with this header only
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from control.resources.quantity import seconds
from control.resources.shape import shown

DELAY = "meshproxy.dev/fault-delay"
ABORT = "meshproxy.dev/fault-abort"
HEADER = "meshproxy.dev/fault-header"
ON_SERVICES = (DELAY, ABORT, HEADER)

MAX_DELAY_S = 60.0
MILLION = 1_000_000

_SHARE = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,4}))?%\Z")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})=([\x20-\x7e]{1,1024})\Z")

Mistake = tuple[str, str, str]  # annotation, what is wrong, hint


@dataclass(frozen=True, slots=True)
class Fault:
    """Shares in millionths.  `header`: name and value, ("", "") for all requests."""

    delay_s: float = 0.0
    delay_ppm: int = 0
    status: int = 503
    abort_ppm: int = 0
    header: tuple[str, str] = ("", "")


def fault(annotations: Mapping[str, str]) -> tuple[Fault | None, list[Mistake]]:
    """What a Service declares; None: nothing.  With a mistake in any of them nothing at all is injected: a fault for other
    requests than were meant would be worse than none.  Never raises."""
    mistakes: list[Mistake] = []

    def wrong(name: str, expected: str) -> None:
        mistakes.append((name, f"found {shown(annotations[name])}, expected {expected}", "no fault is injected"))

    delay_s, delay_ppm, status, abort_ppm, header = 0.0, 0, 503, 0, ("", "")
    if DELAY in annotations:
        first, share = _parts(annotations[DELAY])
        try:
            delay_s = seconds(first)
        except ValueError:
            delay_s = -1.0
        if share is None or not 0.0 < delay_s <= MAX_DELAY_S:
            wrong(DELAY, "a time of at most 1m and a share, such as 200ms 10%")
        else:
            delay_ppm = share
    if ABORT in annotations:
        first, share = _parts(annotations[ABORT])
        if share is None or not (len(first) == 3 and first.isascii() and first.isdigit() and 200 <= int(first) <= 599):
            wrong(ABORT, "a status from 200 to 599 and a share, such as 503 0.5%")
        else:
            status, abort_ppm = int(first), share
    if HEADER in annotations:
        match = _HEADER.match(annotations[HEADER].strip())
        if match is None:
            wrong(HEADER, "NAME=VALUE")
        else:
            header = (match[1].lower(), match[2])
            if DELAY not in annotations and ABORT not in annotations:
                mistakes.append((HEADER, f"has no effect without {DELAY} or {ABORT}", ""))
    if mistakes or not (delay_ppm or abort_ppm):
        return None, mistakes
    return Fault(delay_s if delay_ppm else 0.0, delay_ppm, status, abort_ppm, header), mistakes


def _parts(text: str) -> tuple[str, int | None]:
    """What comes first, and the share in millionths; None if there is none that can be read."""
    words = text.split()
    if len(words) != 2 or (match := _SHARE.match(words[1])) is None:
        return (words[0] if words else "", None)
    ppm = int(match[1]) * 10_000 + int((match[2] or "").ljust(4, "0"))
    return words[0], ppm if ppm <= MILLION else None
