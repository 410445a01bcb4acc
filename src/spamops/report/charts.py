"""Charts as SVG in the page. Lengths are percentages of the page's width and heights are pixels, so that a chart fits a phone
and its words keep their size. Colours are classes: the page's style sheet knows light and dark.

Each is an image with a name; the figures stand in a table beside it. Every text goes through `markupsafe.escape`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

PLOT = 150
"""Height of columns, in pixels; below them are 22 for their names, above them 12 for the topmost line's."""
_ABOVE, _BELOW = 12, 22
_ROW = 44


@dataclass(frozen=True)
class Part:
    """A piece of a bar or column: how much, the class of its colour, and what it says when pointed at."""

    value: float
    colour: str
    title: str = ""


@dataclass(frozen=True)
class Bar:
    """A bar or a column, with its name and, at the end of a bar, its figure. `start` is where a bar begins."""

    name: str
    parts: Sequence[Part]
    figure: str = ""
    start: float = 0.0


def columns(name: str, bars: Sequence[Bar]) -> Markup:
    """Columns side by side, each of parts on top of each other."""
    top = nice_top(max((sum(part.value for part in bar.parts) for bar in bars), default=0))
    lines, figures = [], []
    for step in range(5):
        value = top * step / 4
        y = _ABOVE + PLOT - PLOT * step / 4
        lines.append(Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(_n(y)))
        figures.append(Markup('<text x="100%" y="{}" text-anchor="end">{}</text>').format(_n(y + 4), f"{value:,.4g}"))
    width = 100 / max(1, len(bars))
    every = max(1, math.ceil(len(bars) / 7))
    shapes = []
    for place, bar in enumerate(bars):
        y = float(_ABOVE + PLOT)
        for part in bar.parts:
            if part.value <= 0:
                continue
            height = PLOT * part.value / top
            y -= height
            shapes.append(
                Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"><title>{}</title></rect>').format(
                    part.colour, _n(width * (place + 0.12)), _n(y), _n(width * 0.76), _n(height), part.title
                )
            )
        label, rest = divmod(len(bars) - 1 - place, every)
        if rest == 0:
            shapes.append(  # every other one has no room on a phone
                Markup('<text class="{}" x="{}%" y="{}" text-anchor="middle">{}</text>').format(
                    "minor" if label % 2 else "major", _n(width * (place + 0.5)), _ABOVE + PLOT + 16, bar.name
                )
            )
    height = _ABOVE + PLOT + _BELOW
    return Markup(
        '<div class="plot" role="img" aria-label="{}"><svg class="axis" width="44" height="{}" aria-hidden="true">{}</svg>'
        '<svg class="area" width="100%" height="{}" aria-hidden="true">{}{}</svg></div>'
    ).format(name, height, _all(figures), height, _all(lines), _all(shapes))


def bars(name: str, rows: Sequence[Bar], top: float | None = None) -> Markup:
    """Bars below each other, each below its name; `top` is what a whole width stands for."""
    most = top or max((row.start + sum(part.value for part in row.parts) for row in rows), default=0) or 1
    shapes = []
    for place, row in enumerate(rows):
        y = place * _ROW
        shapes.append(
            Markup(
                '<text x="0" y="{}">{}</text><text class="figure" x="100%" y="{}" text-anchor="end">{}</text>'
                '<rect class="rail" x="0" y="{}" width="100%" height="14"/>'
            ).format(y + 14, short(row.name), y + 14, row.figure, y + 21)
        )
        shapes.append(_stacked(row, most, y + 21, 14))
    return Markup('<svg class="bars" role="img" aria-label="{}" width="100%" height="{}">{}</svg>').format(
        name, max(1, len(rows)) * _ROW, _all(shapes)
    )


def strip(name: str, row: Bar, top: float) -> Markup:
    """One thin bar, for a cell of a table."""
    return Markup('<svg class="strip" role="img" aria-label="{}" width="100%" height="12">{}</svg>').format(
        name, _stacked(row, top or 1, 0, 12)
    )


def legend(entries: Mapping[str, str]) -> Markup:
    """What the colours mean: names by class."""
    each = Markup(
        '<li><svg width="12" height="12" aria-hidden="true"><rect class="{}" width="12" height="12" rx="2"/></svg>{}</li>'
    )
    return Markup('<ul class="legend">{}</ul>').format(_all([each.format(c, text) for c, text in entries.items()]))


def nice_top(most: float) -> float:
    """The end of an axis with four parts: at least `most`, and a number that a person would choose."""
    if most <= 0:
        return 4
    power = 10.0 ** math.floor(math.log10(most))
    return max(4, next(power * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if power * step >= most))


def short(text: str, characters: int = 40) -> str:
    """What has room beside a chart; the whole name is in the table."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def _stacked(row: Bar, top: float, y: float, height: float) -> Markup:
    x = 100 * row.start / top
    shapes = []
    for part in row.parts:
        if part.value > 0:
            width = max(0.5, 100 * part.value / top)  # what is there is seen
            x = min(x, 100 - width)
            shapes.append(
                Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"><title>{}</title></rect>').format(
                    part.colour, _n(x), _n(y), _n(width), _n(height), part.title
                )
            )
            x += width
    return _all(shapes)


def _all(pieces: Sequence[Markup]) -> Markup:
    return Markup("").join(pieces)


def _n(number: float) -> str:
    """A number as short as can be."""
    return str(escape(f"{number:.2f}".rstrip("0").rstrip(".")))
