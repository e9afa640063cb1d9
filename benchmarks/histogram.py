"""Latencies in a histogram of bounded size and error: nanoseconds in, percentiles out.

    value = 1xxxxxx yyyyyyyy...   the leading bit and the 7 bits after it choose the bucket; the rest (y) is dropped

So a value is kept to 1 part in 128 (HdrHistogram's two significant digits), from 1 ns to hours, in at most a few thousand
integers; recording costs a shift and an addition, and histograms of several workers or rounds add up exactly.
"""

from __future__ import annotations

from typing import Final

BITS: Final = 7
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


class Histogram:
    __slots__ = ("counts", "greatest", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.total = 0
        self.greatest = 0

    def record(self, nanoseconds: int) -> None:
        """Values below 0 (a clock cannot run backwards, a schedule can) count as 0."""
        if nanoseconds < 0:
            nanoseconds = 0
        shift = nanoseconds.bit_length() - BITS - 1
        bucket = nanoseconds if shift <= 0 else (shift << BITS) + (nanoseconds >> shift)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1
        if nanoseconds > self.greatest:
            self.greatest = nanoseconds

    def add(self, other: Histogram) -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)

    def percentile(self, percent: float) -> int:
        """The value, in ns, that `percent` of all are not above: the upper end of its bucket.  0 without values."""
        wanted = self.total * percent / 100
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(_upper(bucket), self.greatest)
        return self.greatest

    def microseconds(self) -> dict[str, float]:
        """{"p50": ..., "p90": ..., "p99": ..., "p999": ..., "max": ...}, as results JSON has them."""
        found = {name: self.percentile(percent) / 1000 for name, percent in PERCENTILES.items()}
        return found | {"max": self.greatest / 1000}


def _upper(bucket: int) -> int:
    if bucket < 2 << BITS:
        return bucket
    # bucket = (shift << BITS) + mantissa, with the mantissa in [2**BITS, 2**(BITS+1)): it carries one into the shift
    shift = (bucket >> BITS) - 1
    mantissa = bucket - (shift << BITS)
    return ((mantissa + 1) << shift) - 1
