"""Golden metrics from two pages: success rate, request rate, latency percentiles.   Pure.

    page at t0 --parse--+
                        +--deltas--> what happened in between --golden_by(labels)--> a Golden for each row
    page at t1 --parse--+

The numbers mean what Linkerd's `stat` and Prometheus' functions mean: counters that fell were reset (a restarted pod counts
from zero), a counter that is new began at zero, and `quantile` is histogram_quantile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Final

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]
Page = dict[Series, float]  # (name, sorted labels) -> value

# What `golden_by` reads; ask a proxy for these only and the page is a fraction of the whole.
NAMES: Final = (
    "response_total",
    "response_latency_ms",
    "route_response_total",
    "route_response_latency_ms",
    "tcp_open_connections",
    "tcp_read_bytes_total",
    "tcp_write_bytes_total",
)

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?[ \t]*")
_LABEL: Final = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*(?:,|$)')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "\\": "\\", '"': '"'}

# A proxy is asked for the same series every second: their labels are parsed once.  Bounded; changes speed only.
_MEMO: dict[str, Labels] = {}
_MAX_MEMO: Final = 20_000


def parse(text: str) -> Page:
    """A page in Prometheus' text format.  Raises ValueError with the line that is no sample."""
    page: Page = {}
    for line in text.split("\n"):  # and not splitlines(), which also splits at U+0085 and others that a label may hold
        if not line or line[0] == "#" or line.isspace():
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise ValueError(f"not a sample of Prometheus' text format: {line[:200]!r}")
        name, labels, value = match.groups()
        page[name, _labels(labels) if labels else ()] = float(value)
    return page


def _labels(text: str) -> Labels:
    known = _MEMO.get(text)
    if known is not None:
        return known
    pairs: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if match is None:
            raise ValueError(f"not the labels of a sample: {text[:200]!r}")
        name, value = match.groups()
        if "\\" in value:
            value = _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), value)
        pairs.append((name, value))
        position = match.end()
    labels = tuple(sorted(pairs))
    if len(_MEMO) >= _MAX_MEMO:
        _MEMO.clear()
    _MEMO[text] = labels
    return labels


def deltas(before: Page, after: Page) -> Page:
    """How much each series of `after` grew.  Meant for counters; a gauge is read from a page itself."""
    grown: Page = {}
    for series, value in after.items():
        old = before.get(series, 0.0)
        grown[series] = value - old if value >= old else value
    return grown


def quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """Prometheus' histogram_quantile over (upper bound, cumulative count) pairs, in the unit of the bounds.

    Linear within a bucket; the first bucket begins at 0.  In the last bucket (+Inf) the answer is the highest finite bound.
    nan without observations, without a +Inf bucket or for q nan; -inf and +inf for q outside 0..1.
    """
    if isnan(q):
        return nan
    if q < 0.0:
        return -inf
    if q > 1.0:
        return inf
    ordered = sorted(buckets)
    if len(ordered) < 2 or ordered[-1][0] != inf or not ordered[-1][1] > 0.0:
        return nan
    counts: list[float] = []
    for _, count in ordered:  # scrapes of several proxies are not taken at one instant: never let the sum go down
        counts.append(max(count, counts[-1]) if counts else count)
    rank = q * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= rank)
    if index == len(ordered) - 1:
        return ordered[-2][0]
    upper = ordered[index][0]
    if index == 0 and upper <= 0.0:
        return upper
    lower, below = (ordered[index - 1][0], counts[index - 1]) if index else (0.0, 0.0)
    inside = counts[index] - below
    if inside <= 0.0:  # q = 0 and nothing in the first bucket
        return lower if index else 0.0
    return lower + (upper - lower) * (rank - below) / inside


@dataclass(slots=True)
class Golden:
    """What happened to one group of requests in `seconds`.  Counts may be fractions of a scrape, so they are floats."""

    seconds: float
    success: float = 0.0
    failure: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)  # upper bound in ms -> cumulative count
    tcp_open: float = nan  # nan: nobody counts connections for this group (they carry the names of a split's leaves)
    read_bytes: float = 0.0
    write_bytes: float = 0.0

    @property
    def requests(self) -> float:
        return self.success + self.failure

    @property
    def success_rate(self) -> float:
        """0..1; nan without requests."""
        return self.success / self.requests if self.requests else nan

    @property
    def rps(self) -> float:
        return self.requests / self.seconds if self.seconds > 0.0 else nan

    def latency_ms(self, q: float) -> float:
        """nan without responses."""
        return quantile(q, self.buckets.items())

    def add(self, other: Golden) -> None:
        """Take another group of the same window in."""
        self.success += other.success
        self.failure += other.failure
        for bound, count in other.buckets.items():
            self.buckets[bound] = self.buckets.get(bound, 0.0) + count
        self.tcp_open = _sum(self.tcp_open, other.tcp_open)
        self.read_bytes += other.read_bytes
        self.write_bytes += other.write_bytes


def _sum(one: float, other: float) -> float:
    """nan is nothing."""
    return other if isnan(one) else one if isnan(other) else one + other


Group = tuple[str, ...]


def golden_by(
    before: Page,
    after: Page,
    seconds: float,
    by: Collection[str],
    where: Callable[[Mapping[str, str]], bool] = lambda labels: True,
    prefix: str = "",
) -> dict[Group, Golden]:
    """Golden metrics for each combination of the labels `by` (a missing one is "") among the series that `where` accepts.

    `seconds` between the pages.  `prefix`: "" for attempts, "route_" for exchanges.
    """
    rows: dict[Group, Golden] = {}
    responses, bucket = f"{prefix}response_total", f"{prefix}response_latency_ms_bucket"
    wanted = {responses, bucket, "tcp_read_bytes_total", "tcp_write_bytes_total"}
    for (name, pairs), value in deltas(before, after).items():
        tcp = name == "tcp_open_connections"
        if name not in wanted and not tcp:
            continue
        labels = dict(pairs)
        if not where(labels):
            continue
        group = tuple(labels.get(label, "") for label in by)
        row = rows.get(group)
        if row is None:
            row = rows[group] = Golden(seconds)
        if name == responses:
            if labels.get("classification") == "success":
                row.success += value
            else:
                row.failure += value
        elif name == bucket:
            bound = float(labels["le"])
            row.buckets[bound] = row.buckets.get(bound, 0.0) + value
        elif tcp:
            row.tcp_open = _sum(row.tcp_open, after[name, pairs])
        elif name == "tcp_read_bytes_total":
            row.read_bytes += value
        else:
            row.write_bytes += value
    return rows
