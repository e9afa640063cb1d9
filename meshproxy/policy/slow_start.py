"""Slow start: a new endpoint gets its share of the traffic bit by bit.

    share of what it would get
       1 |              ________
         |          __/
         |      __/
     0.1 |____/                       linear over `window_s`, from a tenth
         +--------------------- time since it became known (or came back from ejection)
         0              window

An endpoint that has just started has cold caches, an empty connection pool, code that is not compiled yet.  Its estimate
(30 ms assumed) protects it from a stampede, not from a full share while it can bear a part of one.
"""

from __future__ import annotations

from typing import Final

LEAST: Final = 0.1  # it must get some requests, or it would never be warm (Envoy's min_weight_percent)


def warmth(now: float, since: float, window_s: float) -> float:
    """The share, LEAST .. 1.0, that an endpoint known since `since` (seconds) gets of its full weight."""
    age = now - since
    if age >= window_s:
        return 1.0
    if age <= 0.0:
        return LEAST
    return LEAST + (1.0 - LEAST) * age / window_s
