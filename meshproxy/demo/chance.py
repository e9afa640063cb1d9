"""Could this have happened by chance?  The exact binomial distribution, without a table or a library."""

from __future__ import annotations

import math

ALPHA = 1e-6  # how unlikely a result must be by chance alone before it is held against the mesh


def binomial_at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X ~ B(n, p), exact; summed in logarithms, so that no term is lost."""
    if k < 0:
        return 0.0
    if k >= n or p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 0.0
    log_p, log_q = math.log(p), math.log1p(-p)
    terms = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q for i in range(k + 1)
    ]
    top = max(terms)
    return min(1.0, math.exp(top) * math.fsum(math.exp(term - top) for term in terms))


def plausible(k: int, n: int, p: float, alpha: float = ALPHA) -> bool:
    """Could k of n come from probability p?  Two-sided, alpha/2 each way."""
    low = binomial_at_most(k, n, p)
    high = binomial_at_most(n - k, n, 1.0 - p)  # P(X >= k)
    return low >= alpha / 2 and high >= alpha / 2
