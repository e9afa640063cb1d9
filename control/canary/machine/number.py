"""What was measured, as people read it: a share of requests has its unit, percent, and two decimals.

form("failures", 27)(37.037) + of_requests(27)  ->  37.04 % of 27 requests
form("orders-lost", None)(3.0)                  ->  3
"""

from __future__ import annotations

from collections.abc import Callable

from control.canary.declared.metric import SUCCESS_RATE
from control.canary.evidence.judge import FAILURES, QUANTILES, slow

_SHARES = frozenset((SUCCESS_RATE, FAILURES, *map(slow, QUANTILES)))


def form(metric: str, requests: float | None) -> Callable[[float], str]:
    """How numbers of this metric are written.  requests None: nobody counted any, as of a query, whatever its name is."""
    return _percent if metric in _SHARES and requests is not None else "{:g}".format


def of_requests(requests: float | None) -> str:
    """ " of 27 requests"; "" if nobody counted them."""
    return "" if requests is None else f" of {requests:g} request{'' if requests == 1 else 's'}"


def _percent(value: float) -> str:
    rounded = round(value, 2)
    # 99.998 is not all, and 0.002 is not none: whoever asks for 99.999 wants to see it.
    return f"{value if rounded in (0.0, 100.0) else rounded:g} %"
