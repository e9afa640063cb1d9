"""A timeline as a picture (SVG): the canary's weight as steps, the metrics below it, each with its limits.

+-- weight ------------------+
|            ____            |
|      ____|     |           |
+-- request-success-rate ----+   a panel each; a dot where it was measured, a line where it must not go
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from control.canary.simulate.text import clock
from control.canary.simulate.timeline import Entry, Timeline

WIDTH, PANEL, LEFT, GAP = 900, 110, 60, 46  # pixels

_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
    'font-family="system-ui, sans-serif" font-size="12">\n<rect width="{width}" height="{height}" fill="white"/>\n'
)
_LINE, _LIMIT, _BAD = "#2563eb", "#d97706", "#dc2626"


def svg(timeline: Timeline) -> str:
    """The whole picture."""
    end = max((entry.at for entry in timeline.entries), default=0.0) or 1.0
    panels: list[str] = []
    for canary in timeline.outcomes:
        entries = timeline.of(canary)
        outcome = timeline.outcomes[canary].value
        panels.append(_weight(entries, end, f"{canary}: percent of the requests to the canary ({outcome})", len(panels)))
        for metric in dict.fromkeys(seen.metric for entry in entries for seen in entry.seen):
            panels.append(_metric(entries, metric, end, f"{canary}: {metric}", len(panels)))
    height = len(panels) * (PANEL + GAP) + GAP
    return _HEAD.format(width=WIDTH, height=height) + "\n".join(panels) + "\n</svg>\n"


class _Panel:
    def __init__(self, title: str, index: int, end: float, low: float, high: float) -> None:
        self.top = GAP + index * (PANEL + GAP)
        self.end, self.low, self.high = end, low, high if high > low else low + 1.0
        self.parts = [
            f'<text x="{LEFT}" y="{self.top - 8}" font-weight="600">{escape(title)}</text>',
            f'<rect x="{LEFT}" y="{self.top}" width="{WIDTH - LEFT - 20}" height="{PANEL}" fill="none" stroke="#d4d4d8"/>',
        ]
        for value in (self.low, self.high):
            self.parts.append(f'<text x="{LEFT - 6}" y="{self.y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
        for share in (0, 0.25, 0.5, 0.75, 1):
            x = self.x(end * share)
            self.parts.append(f'<text x="{x:.1f}" y="{self.top + PANEL + 15}" text-anchor="middle">{clock(end * share)}</text>')

    def x(self, at: float) -> float:
        return LEFT + max(0.0, at) / self.end * (WIDTH - LEFT - 20)

    def y(self, value: float) -> float:
        return self.top + PANEL - (value - self.low) / (self.high - self.low) * PANEL

    def level(self, value: float, text: str) -> None:
        y = self.y(value)
        self.parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_LIMIT}" stroke-dasharray="5 4"/>'
            f'<text x="{WIDTH - 24}" y="{y - 4:.1f}" text-anchor="end" fill="{_LIMIT}">{escape(text)}</text>'
        )

    def __str__(self) -> str:
        return "\n".join(self.parts)


def _weight(entries: Sequence[Entry], end: float, title: str, index: int) -> str:
    panel = _Panel(title, index, end, 0.0, max((entry.weight for entry in entries), default=1.0))
    points, before = [], 0.0
    for entry in entries:
        points += [(entry.at, before), (entry.at, entry.weight)]
        before = entry.weight
    path = " ".join(f"{panel.x(at):.1f},{panel.y(value):.1f}" for at, value in points)
    panel.parts.append(f'<polyline points="{path}" fill="none" stroke="{_LINE}" stroke-width="2"/>')
    return str(panel)


def _metric(entries: Sequence[Entry], metric: str, end: float, title: str, index: int) -> str:
    found = [(entry.at, seen) for entry in entries for seen in entry.seen if seen.metric == metric]
    values = [seen.value for _, seen in found if seen.value is not None]
    limits = [limit for _, seen in found for limit in (seen.minimum, seen.maximum) if limit is not None]
    panel = _Panel(title, index, end, min([*values, *limits], default=0.0), max([*values, *limits], default=1.0))
    first = found[0][1]
    if first.minimum is not None:
        panel.level(first.minimum, f"at least {first.minimum:g}")
    if first.maximum is not None:
        panel.level(first.maximum, f"at most {first.maximum:g}")
    for at, seen in found:
        y = panel.y(seen.value) if seen.value is not None else panel.top + PANEL
        colour = _LINE if seen.good else _BAD
        fill = colour if seen.value is not None else "white"
        panel.parts.append(f'<circle cx="{panel.x(at):.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}"/>')
    return str(panel)
