"""Style of every figure: colours for colour-blind readers, and shapes that remain clear in grey.

    colour    Okabe and Ito's eight (jfly.uni-koeln.de/color), in a fixed order; viridis for numbers,
              a blue-white-orange scale for better and worse
    shape     every series also has its own marker symbol, dash and fill pattern, so that a grey
              print shows the same
    width     figures take the width of the page; the legend is under the plot, titles wrap, and
              long names are broken, so that 390 pixels are enough

A figure is two functions: one that makes a frame and one that draws it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = [
    "DARK",
    "DASHES",
    "DIVERGING",
    "GREY",
    "INK",
    "MANY",
    "PALETTE",
    "PATTERNS",
    "SEQUENTIAL",
    "SYMBOLS",
    "axis",
    "blank",
    "colour_bar",
    "empty_figure",
    "narrow_ticks",
    "number",
    "short_ticks",
    "shorten",
    "source_styles",
    "span",
    "translucent",
    "wrapped",
    "write_over",
]

PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",  # black
    "#F0E442",  # yellow: last, it is faint on white
)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "cross", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
PATTERNS = ("", "/", ".", "x", "-", "\\", "+", "|")
INK = "#222222"
GREY = "#767676"
"""Lightest grey with a contrast of 4.5 on white (WCAG 2.2, 1.4.3)."""
SEQUENTIAL = "Viridis"
DIVERGING = ((0.0, "#E8863C"), (0.5, "#FFFFFF"), (1.0, "#4A9CCB"))
"""Vermilion = worse, white = no change, blue = better; light enough for dark text on every shade (a
contrast of 5.3, WCAG 2.2, 1.4.3). In grey the ends look alike, so each cell also has its number."""

MANY = 8
"""Most columns whose slanted labels fit a phone."""

DARK = {
    "white": "#15181c",
    "rgba(255,255,255,0.8)": "rgba(21,24,28,0.8)",
    INK: "#e6e6e6",
    "#000000": "#ffffff",
    GREY: "#a9b0b8",
    "#E6E6E6": "#333940",
    "#DDDDDD": "#3f464e",
    "#0072B2": "#3d9bd8",
    # The bands of the parallel coordinates: the best is the one that stands out.
    "#440154": "#f5e663",
    "#414487": "#b5de2b",
    "#2A788E": "#6ece58",
    "#22A884": "#35b79b",
    "#7AD151": "#4fa3c7",
    "#D8C91A": "#9a86d6",
}
"""Colour on a light page → colour on a dark one. Every other colour has a contrast of 3 on both (WCAG
2.2, 1.4.11), or is a filled area with a border."""

_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_HOVER = {"bgcolor": "white", "font": {"color": INK, "size": 12}, "align": "left"}
_LEGEND = {
    "orientation": "h",
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "x": 0,
    "xanchor": "left",
    "font": {"size": 12},
    "itemsizing": "constant",
}
_AXIS_LETTERS = 34
"""Most letters of an axis title that fit a phone's plot."""
_MARGIN = {"l": 8, "r": 12, "t": 12, "b": 8}


def blank(*, height: int = 420, legend: bool = True) -> go.Figure:
    """Return a figure without data in the common style.

    Args:
        height: Height in pixels; the width is that of the page.
        legend: Whether to show a legend under the plot.
    """
    import plotly.graph_objects as go

    # Passed to the constructor because plotly's update methods take ten times as long (20 ms).
    return go.Figure(
        layout={
            "template": "none",
            "height": height,
            "autosize": True,
            "margin": _MARGIN,
            "font": {"family": _FONT, "size": 13, "color": INK},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "colorway": PALETTE,
            "hoverlabel": _HOVER,
            "showlegend": legend,
            "legend": _LEGEND,
        }
    )


def axis(title: str, unit: str = "", *, standoff: int = 8, **more: Any) -> dict[str, Any]:
    """Return an axis with its title, the unit in brackets, and space for its labels.

    Args:
        title: Name of the quantity.
        unit: Unit of the quantity.
        standoff: Pixels from the axis line to the title. plotly moves a title away from a label that
            it would cover, but not from between two labels: an axis of few categories needs 32.
        more: Further properties of plotly's axis.
    """
    text = f"{title} ({unit})" if unit else title
    if len(text) > _AXIS_LETTERS:
        text = wrapped(title, _AXIS_LETTERS) + (f"<br>({unit})" if unit else "")
    return {
        "title": {"text": text, "standoff": standoff, "font": {"size": 13}},
        "automargin": True,
        "showgrid": True,
        "gridcolor": "#E6E6E6",
        "zeroline": False,
        "linecolor": INK,
        "showline": True,
        "ticks": "outside",
        "tickcolor": INK,
        **more,
    }


def colour_bar(title: str, **more: Any) -> dict[str, Any]:
    """Return a colour bar above the plot; at the side it would take a third of a phone's width."""
    return {
        "title": {"text": title, "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "x": 0.5,
        "xanchor": "center",
        "y": 1.0,
        "yanchor": "bottom",
        "thickness": 12,
        "len": 0.9,
        "outlinewidth": 0.5,
        "tickfont": {"size": 11},
        "nticks": 5,
        **more,
    }


def empty_figure(reason: str, *, height: int = 160) -> go.Figure:
    """Return a figure that shows the reason why there is no data."""
    figure = blank(height=height, legend=False)
    figure.layout.xaxis = {"visible": False}
    figure.layout.yaxis = {"visible": False}
    figure.add_annotation(
        text=reason, showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5, font={"color": GREY}
    )
    return figure


def source_styles(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return colour, symbol, dash and pattern of each name, by its position in ``names``."""
    return {
        name: {
            "colour": PALETTE[place % len(PALETTE)],
            "symbol": SYMBOLS[place % len(SYMBOLS)],
            "dash": DASHES[place % len(DASHES)],
            "pattern": PATTERNS[(place + place // len(PALETTE)) % len(PATTERNS)],
        }
        for place, name in enumerate(names)
    }


def translucent(colour: str, alpha: float) -> str:
    """Return ``#RRGGBB`` as an rgba() with ``alpha`` (0 to 1)."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def shorten(name: str, most: int = 18) -> str:
    """Shorten ``name`` in its middle to ``most`` characters; the hover text shows all of it."""
    if len(name) <= most:
        return name
    head = most // 2
    return f"{name[:head]}…{name[-(most - 1 - head) :]}"


def write_over(figure: go.Figure, text: str) -> None:
    """Put a sentence above the plot, broken for a phone, with the margin that its lines need."""
    lines = wrapped(text)
    figure.add_annotation(
        text=lines,
        xref="paper",
        yref="paper",
        x=0.0,
        y=1.0,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        align="left",
        font={"size": 12},
    )
    figure.layout.margin.t = 30 + 18 * lines.count("<br>")


def short_ticks(names: Sequence[str], most: int = 18) -> dict[str, Any]:
    """Return ticks of a category axis with shortened labels; the categories keep their full names.

    Two names that are shortened to the same label remain two categories.
    """
    return {
        "type": "category",
        "tickmode": "array",
        "tickvals": list(names),
        "ticktext": [shorten(name, most) for name in names],
    }


def narrow_ticks(names: Sequence[str], most: int = 14) -> dict[str, Any]:
    """Return :func:`short_ticks` for an x axis: level if they fit a phone, else slanted, else upright."""
    ticks = short_ticks(names, most)
    letters = sum(map(len, ticks["ticktext"]))
    if letters < 28:
        return ticks | {"tickangle": 0}
    if len(names) <= MANY:
        return ticks | {"tickangle": -40}
    return ticks | {"tickangle": -90, "tickfont": {"size": 10}}


def wrapped(text: str, width: int = 46) -> str:
    """Break ``text`` into lines; 46 characters at size 12 fit a phone's plot."""
    return "<br>".join(textwrap.wrap(text, width))


def number(value: float | None, digits: int = 4) -> str:
    """Format a number for a label; a dash if it is missing."""
    if value is None or value != value:
        return "–"
    return f"{value:.{digits}g}"


def span(values: Sequence[float], pad: float = 0.06) -> tuple[float, float]:
    """Return the range of ``values`` with a margin; never empty."""
    finite = [value for value in values if value == value]
    if not finite:
        return (0.0, 1.0)
    low, high = min(finite), max(finite)
    margin = (high - low) * pad or abs(high) * pad or 1.0
    return low - margin, high + margin
