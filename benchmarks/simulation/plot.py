"""The table as a picture: SVG written by hand, the same bytes for the same figures.

One replica of ten needs 2 s ...
  round robin              |                          -o-      4.88
  peak EWMA (default)      |  -o-                              0.01
                           0.001   0.01    0.1     1     10    100   % of requests that failed (logarithmic)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Final
from xml.sax.saxutils import escape

WIDTH, NAME, FIGURE, LINE, HEAD, FOOT = 860, 270, 70, 20, 52, 28
DECADES: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
OURS: Final = "#0072B2"  # Okabe & Ito (2008), distinct with any kind of colour blindness
OTHERS: Final = "#D55E00"

Line = tuple[str, float, float, float]  # title, and success in percent: median, least, greatest


def plot(groups: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """An SVG document; one group a scenario."""
    parts: list[str] = []
    y = HEAD
    for title, lines in groups:
        parts.append(_text(8, y + 14, title, bold=True))
        y += LINE + 2
        for line in lines:
            parts.append(_line(line, y))
            y += LINE
        y += 10
    grid = []
    for decade in DECADES:
        x = _x(decade)
        grid.append(f'<path d="M{x:.1f} {HEAD}V{y}" stroke="#dddddd"/>')
        grid.append(_text(x, y + 16, f"{decade:g} %", size=11, anchor="middle"))
    height = y + FOOT
    box = f"0 0 {WIDTH} {height}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="{box}" role="img">',
            "<title>Requests that failed, by balancer</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            _text(8, 20, "Requests that failed or came too late", bold=True, size=15),
            _text(
                8,
                38,
                "percent, logarithmic; point: median of the seeds, line: least to greatest; further left is better",
                size=11,
            ),
            *grid,
            *parts,
            "</svg>",
            "",
        ]
    )


def _x(percent: float) -> float:
    """0 and what is below the scale stand at its left end."""
    first, last = log10(DECADES[0]), log10(DECADES[-1])
    at = (log10(max(percent, DECADES[0])) - first) / (last - first)
    return NAME + at * (WIDTH - NAME - FIGURE)


def _line(line: Line, y: int) -> str:
    title, middle, least, greatest = line
    failed = 100.0 - middle
    colour = OURS if title.startswith(("peak EWMA (", "peak EWMA +", "breaker, half", "adaptive", "preference")) else OTHERS
    at, low, high, centre = _x(failed), _x(100.0 - greatest), _x(100.0 - least), y + LINE / 2
    return "\n".join(
        [
            _text(NAME - 10, centre + 4, title, anchor="end", size=12),
            f'<path d="M{low:.1f} {centre}H{high:.1f}" stroke="{colour}" stroke-width="2"/>',
            f'<circle cx="{at:.1f}" cy="{centre}" r="5" fill="{colour}"/>',
            _text(max(at, high) + 10, centre + 4, f"{failed:.3f}" if failed < 0.1 else f"{failed:.1f}", size=12),
        ]
    )


def _text(x: float, y: float, text: str, bold: bool = False, size: int = 13, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-family="sans-serif" font-size="{size}"{weight} '
        f'text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'
    )
