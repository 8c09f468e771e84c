"""Legends beside figures: the marks of their series, drawn as inline SVG.

Many small figures share one legend, and the figure beside the answer has one that takes less of a phone's
first screen than plotly's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.figures.theme import GREY, source_styles

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Mark", "figure_legend", "legend"]

_DASHES = {
    "solid": "",
    "dash": "6,6",
    "dot": "2,3",
    "dashdot": "6,3,2,3",
    "longdash": "10,5",
    "longdashdot": "10,3,3,3",
}
"""Dash pattern of plotly → that of SVG, in pixels."""

_SHAPES = {
    "circle": "M14 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "diamond": "M18 2l5 5l-5 5l-5 -5z",
    "square": "M14 3h8v8h-8z",
    "triangle-up": "M18 2.5l4.6 8h-9.2z",
    "x": "M14 4l1 -1l3 3l3 -3l1 1l-3 3l3 3l-1 1l-3 -3l-3 3l-1 -1l3 -3z",
    "cross": "M17 3h2v3h3v2h-3v3h-2v-3h-3v-2h3z",
    "star": "M18 1.5l1.6 3.7l4 .3l-3 2.6l1 3.9l-3.6 -2.1l-3.6 2.1l1 -3.9l-3 -2.6l4 -.3z",
    "cross-thin": "M18 2v10M13 7h10",
    "line-ew": "M13 7h10",
    "hexagon": "M14 4.7l4 -2.3l4 2.3v4.6l-4 2.3l-4 -2.3z",
}
"""Symbol of plotly → its outline in a box of 36 x 14 pixels."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Style of one series."""

    label: str
    colour: str
    dashes: str
    """Value of SVG's stroke-dasharray; empty = solid."""
    shape: str
    """SVG path in a box of 36 x 14 pixels; empty = a line alone."""
    line: bool = True
    """True if a line goes through the mark."""
    filled: bool = True
    """True if the shape is filled; otherwise it is an outline."""
    opacity: float = 1.0


def legend(labels: Iterable[str]) -> list[Mark]:
    """Return the marks of series in their order, as `figures.learning_curve` draws them."""
    return [
        Mark(
            label=label,
            colour=style["colour"],
            dashes=_DASHES[style["dash"]],
            shape=_SHAPES[style["symbol"]],
        )
        for label, style in source_styles(labels).items()
    ]


def figure_legend(figure: go.Figure) -> list[Mark]:
    """Return the marks of the named series that a figure would list in its own legend."""
    return [_mark(trace) for trace in figure.data if trace.name and trace.showlegend is not False]


def _mark(trace: go.Scatter | go.Bar) -> Mark:
    """Return the mark of one series; grey where its colour shows a number."""
    bar = trace.type == "bar"
    line = not bar and trace.mode == "lines"
    colour = trace.line.color if line else trace.marker.color
    symbol = "square" if bar else str(trace.marker.symbol or "circle")
    base = symbol.removesuffix("-open")
    return Mark(
        label=str(trace.name),
        colour=colour if isinstance(colour, str) else GREY,
        dashes="",
        shape="" if line else _SHAPES[base],
        line=line,
        filled=not symbol.endswith("-open") and base != "cross-thin",
        opacity=float((not bar and trace.marker.opacity) or 1.0),
    )
