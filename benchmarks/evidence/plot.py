"""The two tables as a picture: SVG written by hand, the same bytes for the same figures.

The canary is as good as the primary        rolled back, % of releases (linear; further left is better)
  both fail 1 %               o evidence  x sequences  + threshold
The canary is bad                           canary requests that failed before it was rolled back, median (logarithmic)
  20 % fail                   o   x                              +
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, log10
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from benchmarks.evidence.__main__ import Row

WIDTH, NAME, RIGHT, LINE = 860, 300, 40, 22
COLOURS: Final = ("#0072B2", "#E69F00", "#D55E00")  # Okabe & Ito (2008), distinct with any kind of colour blindness
MOST: Final = 20_000.0


def plot(good: Sequence[Row], bad: Sequence[Row]) -> str:
    """An SVG document; a line for each stream, a mark for each method."""
    methods = list(dict.fromkeys(row.method for row in [*good, *bad]))
    parts = [_text(8, 20, "Who rolls back what, and when", bold=True, size=15)]
    for index, method in enumerate(methods):
        x = 300 + 170 * index
        parts += [_mark(x, 16, index), _text(x + 12, 20, method, size=12)]
    y = 48
    parts.append(_text(8, y, "The canary is as good as the primary: rolled back, % of releases", bold=True))
    percent = [(at, f"{at} %", NAME + (WIDTH - NAME - RIGHT) * at / 100) for at in (0, 20, 40, 60, 80, 100)]
    y = _lines(parts, good, methods, y + 8, lambda row: NAME + (WIDTH - NAME - RIGHT) * row.share, percent)
    y += 40
    parts.append(_text(8, y, "The canary is bad: canary requests that failed until it was rolled back (median)", bold=True))
    powers = [(at, f"{at:,}", _log(at)) for at in (1, 10, 100, 1000, 10_000)]
    y = _lines(parts, bad, methods, y + 8, lambda row: _log(row.middle("failed")), powers)
    parts.append(_text(WIDTH - 8, y + 34, "at the right edge: most were never rolled back", size=11, anchor="end"))
    height = y + 44
    box = f"0 0 {WIDTH} {height}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="{box}" role="img">',
            "<title>Canaries rolled back, by method</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _lines(
    parts: list[str],
    rows: Sequence[Row],
    methods: Sequence[str],
    top: int,
    x_of: Callable[[Row], float],
    grid: Sequence[tuple[int, str, float]],
) -> int:
    """A group; returns where it ends."""
    titles = list(dict.fromkeys(row.stream.title for row in rows))
    bottom = top + LINE * len(titles)
    for _, label, x in grid:
        parts.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#dddddd"/>')
        parts.append(_text(x, bottom + 15, label, size=11, anchor="middle"))
    for index, title in enumerate(titles):
        centre = top + LINE * index + LINE / 2
        parts.append(_text(NAME - 14, centre + 4, title, size=12, anchor="end"))
        these = [row for row in rows if row.stream.title == title]
        parts += [_mark(x_of(row), centre, methods.index(row.method)) for row in reversed(these)]
    return bottom


def _log(count: float) -> float:
    value = MOST if count == inf else min(max(count, 1.0), MOST)
    return NAME + (WIDTH - NAME - RIGHT) * log10(value) / log10(MOST)


def _mark(x: float, y: float, kind: int) -> str:
    """Shape and colour both say which method it is."""
    colour = COLOURS[kind]
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
    if kind == 1:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="none" stroke="{colour}" stroke-width="2"/>'
    return f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" stroke="{colour}" stroke-width="2"/>'


def _text(x: float, y: float, text: str, bold: bool = False, size: int = 13, anchor: str = "start") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-family="sans-serif" font-size="{size}"{weight} '
        f'text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'
    )
