"""Bar charts as SVG, written by hand: no plotting library, the same bytes for the same figures, readable in a pull request.

    title
    group    name |==========--|--        12.3      bar = median, whisker = least to greatest of the rounds
             name |=====-|-                6.1

Colours are Okabe and Ito's, which people with any kind of colour blindness can tell apart; every bar also has its name
and figure beside it, so nothing is said by colour alone..
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

# Okabe & Ito (2008).  Ours are the two strongest; a peer keeps its colour in every chart.
COLOURS: Final[Mapping[str, str]] = {
    "compiled": "#0072B2",
    "interpreted": "#56B4E9",
    "envoy": "#D55E00",
    "linkerd": "#CC79A7",
    "haproxy": "#009E73",
    "nginx": "#E69F00",
    "nghttpx": "#F0E442",
    "direct": "#999999",
}
OTHER: Final = "#777777"
WIDTH, NAME, FIGURE, BAR, GAP, HEAD = 760, 170, 150, 16, 10, 48


@dataclass(frozen=True)
class Bar:
    """`peer` chooses the colour.  `low` and `high`: ends of the whisker."""

    peer: str
    title: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    title: str
    bars: Sequence[Bar]


def chart(title: str, unit: str, groups: Sequence[Group]) -> str:
    """An SVG document: horizontal bars from 0, one scale for all groups."""
    highest = max((bar.high for group in groups for bar in group.bars), default=0.0) or 1.0
    scale = (WIDTH - NAME - FIGURE) / highest
    y = HEAD
    parts: list[str] = []
    for group in groups:
        parts.append(_text(8, y + 12, group.title, "bold"))
        y += 20
        for bar in group.bars:
            parts.append(_bar(bar, y, scale))
            y += BAR + 4
        y += GAP
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" role="img">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(8, 20, title, "bold", 15),
        _text(8, 37, f"{unit}; bar: median, line: least to greatest of the rounds; shorter is better", size=11),
    ]
    return "\n".join([*head, *parts, "</svg>", ""])


def _bar(bar: Bar, y: int, scale: float) -> str:
    colour = COLOURS.get(bar.peer.partition("-")[0], OTHER)
    low, high, middle = NAME + bar.low * scale, NAME + bar.high * scale, y + BAR / 2
    return "\n".join(
        [
            _text(NAME - 8, y + 12, bar.title, anchor="end", size=12),
            f'<rect x="{NAME}" y="{y}" width="{bar.value * scale:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8" stroke="#000000"/>',
            _text(high + 8, y + 12, f"{figure(bar.value)} [{figure(bar.low)}-{figure(bar.high)}]", size=12),
        ]
    )


def figure(value: float) -> str:
    """Three significant digits, as far as they mean anything: 1234, 123, 12.3, 1.23."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _text(x: float, y: float, text: str, weight: str = "normal", size: int = 13, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-family="sans-serif" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'
    )
