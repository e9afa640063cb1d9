"""One arm's rate, with bounds that hold at every look: the beta-binomial mixture confidence sequence.

    {p : M(f, n) / (p^f (1 - p)^(n - f)) < 1 / alpha}      M: the chance of the data, averaged over p ~ Beta(1/2, 1/2)

Howard and Ramdas (2021), after Robbins (1970).  Shown to people beside the verdict; the verdict itself is sequence.py's, which
needs fewer requests and does not mind rates that change (docs/canary/evidence.md).
"""

from __future__ import annotations

from math import lgamma, log, log1p

A, B = 0.5, 0.5  # Jeffreys' prior: wide, and narrow intervals near 0 where good services live


def bounds(failed: int, requests: int, alpha: float) -> tuple[float, float]:
    """(low, high) that contain the rate at all times with a chance of at least 1 - alpha.  (0, 1) without requests.

    Raises ValueError unless 0 <= failed <= requests and 0 < alpha < 1."""
    if not 0 <= failed <= requests or not 0.0 < alpha < 1.0:
        raise ValueError(f"expected 0 <= failed <= requests and 0 < alpha < 1, not {failed} of {requests} at {alpha}")
    if not requests:
        return 0.0, 1.0
    good = requests - failed
    # log M + log alpha: a rate at which the data is less likely than this is out.
    level = (
        lgamma(A + failed) + lgamma(B + good) - lgamma(A + B + requests) - (lgamma(A) + lgamma(B) - lgamma(A + B)) + log(alpha)
    )
    rate = failed / requests
    low = _edge(failed, good, level, 0.0, rate) if failed else 0.0
    high = _edge(failed, good, level, 1.0, rate) if good else 1.0
    return low, high


def _edge(failed: int, good: int, level: float, out: float, inside: float) -> float:
    """Bisection between a rate that is out and one that is not; the outer end, so that the interval never is too narrow."""
    for _ in range(60):
        middle = (out + inside) / 2.0
        if middle in (out, inside):
            break
        if failed * log(middle) + good * log1p(-middle) < level if 0.0 < middle < 1.0 else True:
            out = middle
        else:
            inside = middle
    return out
