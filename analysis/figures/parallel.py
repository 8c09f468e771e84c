"""Parallel coordinates: mixtures of more than three sources, coloured by score.

The figure draws lines because plotly's own parallel coordinates have no hover text and do not print
in grey. Trials are grouped into bands of score with one trace each, so that 500 trials draw fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.direction import minimised
from analysis.figures.theme import axis, blank, empty_figure, narrow_ticks, number

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["parallel_coordinates"]

_BANDS = 6
_CROWD = 120
_BAND_NAMES = ("best 1/6", "2/6", "3/6", "4/6", "5/6", "worst 1/6")
_COLOURS = ("#440154", "#414487", "#2A788E", "#22A884", "#7AD151", "#D8C91A")
"""Viridis at six points; the last is darker because pure yellow is hard to see on white."""


def parallel_coordinates(
    frame: pd.DataFrame, names: list[str], *, score: str = "score"
) -> go.Figure:
    """Draw one line per trial through its weights, coloured by its rank in score.

    Args:
        frame: Frame from `mixtures.mixture_frame`.
        names: Sources, one axis each.
        score: Name of the score, with its direction.
    """
    if len(frame) < 2 or not names:
        return empty_figure("parallel coordinates need two scored mixtures")
    order = frame["score"].rank(ascending=minimised(frame), method="first").to_numpy()
    bands = np.minimum(((order - 1) * _BANDS / len(frame)).astype(int), _BANDS - 1)
    figure = blank(height=520)
    # The best band of 500 trials has 84 lines, which would be one dark block at full width.
    best = 2.5 if len(frame) <= _CROWD else 1.0
    # Draw the worst first, so that the best are on top.
    for band in range(_BANDS - 1, -1, -1):
        part = frame[bands == band]
        if part.empty:
            continue
        figure.add_scatter(
            **_lines(part, names),
            mode="lines+markers",
            name=_BAND_NAMES[band],
            legendrank=band,
            line={"color": _COLOURS[band], "width": best if band == 0 else best / 2},
            opacity=1.0 if band == 0 else 0.55,
            marker={"size": 2.4 * best if band == 0 else 4},
            hoverinfo="text",
        )
    figure.layout.legend.title = {"text": f"trials by {score}", "side": "top"}
    top = float(frame[names].to_numpy().max())
    figure.layout.xaxis = axis(
        "source",
        "",
        standoff=32,
        categoryorder="array",
        categoryarray=names,
        **narrow_ticks(names, 12),
    )
    figure.layout.yaxis = axis(
        "weight", "share of tokens", tickformat=".0%", range=[-0.02, min(1.02, 1.08 * top)]
    )
    return figure


def _lines(part: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """Join all trials of a band into one line with a gap after each."""
    x: list[str | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    for row in part.to_dict("records"):
        title = f"{row['name']} · {row['trial']}" if isinstance(row["name"], str) else row["trial"]
        head = f"<b>{title}</b><br>score {number(row['score'], 5)}"
        for name in names:
            x.append(name)
            y.append(round(float(row[name]), 4))
            hover.append(f"{head}<br>{name} {row[name]:.1%}")
        x.append(names[-1])
        y.append(None)
        hover.append("")
    return {"x": x, "y": y, "hovertext": hover}
