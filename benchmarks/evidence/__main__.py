"""`make simulate-canary`: the tables, and with ARGS="--svg docs/canary/evidence.svg" the plot.

About eight minutes; with --seeds 40 about one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.evidence.methods import METHODS, Method
from benchmarks.evidence.plot import plot
from benchmarks.evidence.streams import LOOKS, STREAMS, Stream


@dataclass(frozen=True)
class Release:
    """What one method made of one stream."""

    rolled_back: bool
    requests: int  # of the canary, until it was rolled back, or until the end; of a late fault: since then
    failed: int  # of these
    seconds: float
    safe_at: int | None  # canary requests when it was first certain to be within the margin


@dataclass(frozen=True)
class Row:
    stream: Stream
    method: str
    releases: Sequence[Release]

    @property
    def share(self) -> float:
        """Rolled back, of 1."""
        return sum(one.rolled_back for one in self.releases) / len(self.releases)

    def missed_by(self, requests: int) -> float:
        """Share that was not rolled back within so many canary requests."""
        return sum(not one.rolled_back or one.requests > requests for one in self.releases) / len(self.releases)

    def middle(self, what: str) -> float:
        """Median over the releases that were rolled back; infinite when most were not."""
        return median(getattr(one, what) if one.rolled_back else float("inf") for one in self.releases)

    def safe(self) -> str:
        found = [one.safe_at for one in self.releases if one.safe_at is not None]
        return f"{median(found):,.0f} ({100 * len(found) / len(self.releases):.0f} %)" if found else "never"


def play(stream: Stream, make: type[Method], seed: int) -> Release:
    method = make()
    requests = failed = looks = 0
    safe_at = None
    for look, counts in enumerate(stream.play(seed)):
        if look >= stream.since * LOOKS:
            requests += counts.canary
            failed += counts.canary_failed
            looks += 1
        said = method.look(counts)
        if said == "harm":
            return Release(True, requests, failed, looks / LOOKS, safe_at)
        if said == "safe" and safe_at is None:
            safe_at = requests
    return Release(False, requests, failed, looks / LOOKS, safe_at)


def by_stream(rows: Sequence[Row]) -> list[list[Row]]:
    """One list a stream, in the order of METHODS."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.stream.name, []).append(row)
    return list(found.values())


def good_table(rows: Sequence[Row]) -> str:
    lines = [
        "| the canary is as good as the primary: rolled back, % | evidence | sequences | threshold "
        "| known to be safe after, requests (of releases): evidence | sequences |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for evidence, sequences, threshold in by_stream(rows):
        shares = " | ".join(f"{100 * row.share:.1f}" for row in (evidence, sequences, threshold))
        lines.append(f"| {evidence.stream.title} | {shares} | {evidence.safe()} | {sequences.safe()} |")
    return "\n".join(lines)


def bad_table(rows: Sequence[Row]) -> str:
    """Of each figure the three methods' medians; "-" where most were never rolled back."""
    lines = [
        "| the canary is bad; medians of evidence / sequences / threshold | canary requests until it was rolled back "
        "| of these failed | seconds | not rolled back by 1,000 requests, % |",
        "|---|---:|---:|---:|---:|",
    ]
    for three in by_stream(rows):
        figures = [" / ".join(_figure(row.middle(what), what) for row in three) for what in ("requests", "failed", "seconds")]
        missed = " / ".join(f"{100 * row.missed_by(1000):.1f}" for row in three)
        lines.append(f"| {three[0].stream.title} | {' | '.join(figures)} | {missed} |")
    return "\n".join(lines)


def _figure(value: float, what: str) -> str:
    return "-" if value == float("inf") else f"{value:,.{what == 'seconds':d}f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="releases of each kind (default 300)")
    parser.add_argument("--only", choices=[stream.name for stream in STREAMS], action="append", help="one kind")
    parser.add_argument("--svg", type=Path, help="also draw it")
    arguments = parser.parse_args()
    rows = []
    for stream in STREAMS:
        if arguments.only and stream.name not in arguments.only:
            continue
        for method in METHODS:
            seeds = range(arguments.seeds)
            rows.append(Row(stream, method.title, [play(stream, method, seed) for seed in seeds]))
    good = [row for row in rows if not row.stream.bad]
    bad = [row for row in rows if row.stream.bad]
    print(good_table(good), bad_table(bad), sep="\n\n")
    if arguments.svg is not None:
        arguments.svg.write_text(plot(good, bad))


if __name__ == "__main__":
    main()
