"""Legend for many small figures: the marks of their series, drawn as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.figures.theme import source_styles

__all__ = ["Mark", "legend"]

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
    """SVG path in a box of 36 x 14 pixels."""


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
