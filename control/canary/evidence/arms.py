"""What each arm of a comparison did: running counts of the canary and of the primary, and what was new between two looks.

    look k      ArmCounts (canary), ArmCounts (primary)  ─┐
                                                          ├─ block ─▶ what happened to both arms in between
    look k + 1  ArmCounts (canary), ArmCounts (primary)  ─┘

The two arms are only ever compared within one block: what hits both at once (an outage of what they share, the evening's
load) is in both of its halves, while sums over a release would mix hours in which the canary had 1 % of the requests with
hours in which it had half (Simpson's paradox).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

BUCKET_GROWTH = 1.02  # each bound of a fine histogram is 2 % above the one before it

# Upper bound in ms -> how many were at most that and above the bound before; the last bound may be inf.
Histogram = tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Running totals of one arm: they never fall while `epoch` stays the same.

    A source adds up what it sees of the arm's pods, those that are gone by now included, and gives another `epoch` when it
    had to begin anew (it was restarted, or had lost sight of a pod); what lies across such a gap is not compared.
    """

    successes: int = 0
    failures: int = 0
    latency: Histogram = ()  # of the successes, ascending bounds; () when the source has none
    epoch: float = 0.0  # when counting began, Unix seconds

    @property
    def requests(self) -> int:
        return self.successes + self.failures

    def since(self, earlier: ArmCounts) -> ArmCounts | None:
        """What was counted after `earlier`; None when the two cannot be compared."""
        if self.epoch != earlier.epoch or self.successes < earlier.successes or self.failures < earlier.failures:
            return None
        before = dict(earlier.latency)
        gained = tuple((bound, count - before.pop(bound, 0)) for bound, count in self.latency)
        if any(before.values()) or any(count < 0 for _, count in gained):
            return None
        return ArmCounts(self.successes - earlier.successes, self.failures - earlier.failures, gained, self.epoch)

    def slower_than(self, bound_ms: float) -> tuple[int, int]:
        """(successes slower than `bound_ms`, successes with a latency).  Exact when `bound_ms` is a bucket's bound; else the
        whole bucket it lies in counts as slower, in either arm alike."""
        bounds = [bound for bound, _ in self.latency]
        first = bisect_right(bounds, bound_ms)
        return sum(count for _, count in self.latency[first:]), sum(count for _, count in self.latency)


@dataclass(frozen=True, slots=True)
class Block:
    """What both arms did between two looks."""

    canary: ArmCounts
    primary: ArmCounts


def block(
    canary: ArmCounts | None, primary: ArmCounts | None, canary_before: ArmCounts | None, primary_before: ArmCounts | None
) -> Block | None:
    """The block between two looks; None when there is nothing to compare (a first look, or a source that began anew)."""
    if canary is None or primary is None or canary_before is None or primary_before is None:
        return None
    ours, theirs = canary.since(canary_before), primary.since(primary_before)
    return Block(ours, theirs) if ours is not None and theirs is not None else None


@dataclass(frozen=True, slots=True)
class Marks:
    """Where "slow" begins: quantiles of the primary's latency, frozen when a step starts.  Milliseconds; each is a bucket's
    bound, so that both arms' shares beyond it are exact."""

    at: Mapping[float, float] = field(default_factory=dict)  # quantile (0.5, 0.9, 0.99) -> bound in ms


def freeze(latency: Histogram, quantiles: Iterable[float] = (0.5, 0.9, 0.99), least: int = 100) -> Marks:
    """The bounds nearest above the primary's quantiles.  No marks at all from fewer than `least` successes: a p99 of 20
    requests is whichever was slowest.  A quantile beyond the last finite bound has no mark, and two quantiles in one coarse
    bucket share theirs (the later one is left out: it would be the same test again)."""
    bounds = [bound for bound, _ in latency]
    sums = list(accumulate(count for _, count in latency))
    if not sums or sums[-1] < least:
        return Marks()
    marks: dict[float, float] = {}
    for quantile in quantiles:
        bound = bounds[bisect_left(sums, quantile * sums[-1])]
        if bound != float("inf") and bound not in marks.values():
            marks[quantile] = bound
    return Marks(marks)
