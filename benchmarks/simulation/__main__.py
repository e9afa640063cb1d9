"""`make simulate`: the table, and with ARGS="--svg docs/balancing.svg" its plot.  One seed takes about 20 s."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.simulation.plot import plot
from benchmarks.simulation.scenarios import SCENARIOS, Figures, Scenario


@dataclass(frozen=True)
class Row:
    """One strategy in one scenario, over the seeds."""

    title: str
    figures: Sequence[Figures]

    def success(self) -> tuple[float, float, float]:
        """Median, least, greatest; percent."""
        values = [figure.success * 100 for figure in self.figures]
        return median(values), min(values), max(values)

    def p99_ms(self) -> float:
        return median(figure.p99_ms for figure in self.figures)

    def special(self) -> float:
        return median(figure.special for figure in self.figures)


def play(scenario: Scenario, seeds: Sequence[int]) -> list[Row]:
    return [Row(title, [run(seed) for seed in seeds]) for title, run in scenario.rows]


def table(scenario: Scenario, rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        f"### {scenario.title}",
        "",
        f"| | success, % (least to greatest) | p99, ms | {scenario.special} |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        middle, least, greatest = row.success()
        lines.append(
            f"| {row.title} | {middle:.2f} ({least:.2f} to {greatest:.2f}) | {row.p99_ms():.0f} | {row.special():.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 on (default 5)")
    parser.add_argument("--only", choices=[scenario.name for scenario in SCENARIOS], help="one scenario")
    parser.add_argument("--svg", type=Path, help="also draw it")
    arguments = parser.parse_args()
    seeds = range(1, arguments.seeds + 1)
    played = []
    for scenario in SCENARIOS:
        if arguments.only in (None, scenario.name):
            rows = play(scenario, seeds)
            played.append((scenario, rows))
            print(table(scenario, rows), flush=True)
    if arguments.svg is not None:
        arguments.svg.write_text(
            plot([(told.title, [(row.title, *row.success()) for row in rows]) for told, rows in played if told.name != "zones"])
        )


if __name__ == "__main__":
    main()
