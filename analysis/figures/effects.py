"""Effect of each source on each task, over the whole study.

A linear model is fitted to all scored mixtures. The effect of a source on a task is the change that
the model predicts when ten points of weight move to the source at the mean mixture, taken from the
others in proportion. It is given in standard deviations of the task over mixtures, so that tasks can
be compared, and its sign is chosen so that positive is better. A linear model is coarse: if the t
value is under 2, the number is in brackets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.direction import gain_sign
from analysis.figures.theme import (
    DIVERGING,
    INK,
    MANY,
    axis,
    blank,
    colour_bar,
    empty_figure,
    narrow_ticks,
    short_ticks,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["effect_matrix", "effects_frame"]

MOVED = 0.1
"""Share of all tokens that moves to the source."""

_CLEAR_T = 2.0

_NUMBERS = 5
"""Most columns for which a number in brackets fits a cell on a phone."""


def effects_frame(
    values: pd.DataFrame, shares: pd.DataFrame, higher_is_better: dict[str, bool]
) -> pd.DataFrame:
    """Fit the effects, one row per task and source.

    Args:
        values: Trial × task, from `frames.task_values`.
        shares: Trial × source, from `frames.weights`.
        higher_is_better: Task → whether a higher value of its metric is better.

    Returns:
        task, source, effect (SD over mixtures for ten points of weight, positive = better), raw (in
        the metric's units), t, clear (t of 2 or more), mixtures. Empty with fewer mixtures than
        sources + 2.
    """
    import pandas as pd

    trials = values.index.intersection(shares.index)
    mixtures, sources = shares.loc[trials], [str(name) for name in shares.columns]
    rows = []
    for task in values.columns:
        known = values.loc[trials, task].notna().to_numpy()
        x, y = mixtures.to_numpy()[known], values.loc[trials, task].to_numpy(dtype=float)[known]
        fitted = _fit(x, y)
        if fitted is None:
            continue
        coefficients, covariance = fitted
        sign = gain_sign(higher_is_better.get(str(task), True))
        for place, source in enumerate(sources):
            move = _move(x.mean(axis=0), place)
            raw = float(move @ coefficients)
            error = float(np.sqrt(max(move @ covariance @ move, 0.0)))
            t = raw / error if error > 0 else float("nan")
            spread = float(y.std(ddof=1))
            rows.append(
                {
                    "task": str(task),
                    "source": source,
                    "raw": raw,
                    "t": t,
                    "effect": sign * raw / spread if spread > 0 else 0.0,
                    "clear": abs(t) >= _CLEAR_T,
                    "mixtures": len(y),
                }
            )
    columns = ["task", "source", "effect", "raw", "t", "clear", "mixtures"]
    return pd.DataFrame(rows, columns=columns)


def _fit(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Any:
    """Fit least squares without an intercept (weights sum to 1): coefficients and their covariance."""
    used = x.std(axis=0) > 0
    freedom = len(y) - int(np.linalg.matrix_rank(x))
    if freedom < 2 or not used.any():
        return None
    inverse = np.linalg.pinv(x.T @ x)
    coefficients = inverse @ x.T @ y
    residual = y - x @ coefficients
    return coefficients, inverse * float(residual @ residual) / freedom


def _move(mean: np.ndarray[Any, Any], place: int) -> np.ndarray[Any, Any]:
    """Return the change of weights that gives source ``place`` ten points of the others, in proportion."""
    others = mean.copy()
    others[place] = 0.0
    total = others.sum()
    move = -MOVED * (others / total if total > 0 else np.full_like(mean, 1.0 / len(mean)))
    move[place] = MOVED
    return move


def effect_matrix(frame: pd.DataFrame) -> go.Figure:
    """Draw the effects with tasks as rows and sources as columns; blue = better, vermilion = worse.

    Numbers in brackets are within the noise. Many sources become rows and the tasks columns; with
    more than five columns a cell shows only its sign.
    """
    if frame.empty:
        return empty_figure("effects need at least two more scored mixtures than sources")
    down, across = "task", "source"
    if MANY < frame["source"].nunique() > frame["task"].nunique():
        down, across = across, down
    wide = frame.pivot(index=down, columns=across, values="effect").sort_index(ascending=False)
    limit = float(np.nanmax(np.abs(wide.to_numpy()))) or 1.0
    cells = {(row[down], row[across]): row for row in frame.to_dict("records")}
    form = _number_in_cell if len(wide.columns) <= _NUMBERS else _sign_in_cell
    ticks = narrow_ticks(list(wide.columns))
    height = 130 + 26 * len(wide) + (80 if ticks["tickangle"] else 0)
    figure = blank(height=height, legend=False)
    figure.add_heatmap(
        z=wide.to_numpy(),
        x=list(wide.columns),
        y=list(wide.index),
        zmin=-limit,
        zmax=limit,
        colorscale=[list(stop) for stop in DIVERGING],
        text=[[form(cells.get((y, x))) for x in wide.columns] for y in wide.index],
        texttemplate="%{text}",
        textfont={"size": 11, "color": INK},
        hovertext=[[_hover(cells.get((y, x))) for x in wide.columns] for y in wide.index],
        hoverinfo="text",
        xgap=2,
        ygap=2,
        colorbar=colour_bar("SD per +10 points, + = better"),
    )
    figure.layout.xaxis = axis(across, standoff=32, showgrid=False, **ticks)
    figure.layout.yaxis = axis(down, showgrid=False, **short_ticks(list(wide.index), 20))
    return figure


def _number_in_cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"{cell['effect']:+.1f}" if cell["clear"] else f"({cell['effect']:+.1f})"


def _sign_in_cell(cell: Mapping[str, Any] | None) -> str:
    """Return the sign of the effect; nothing if it is within the noise."""
    if cell is None or not cell["clear"]:
        return ""
    return "+" if cell["effect"] > 0 else "−"


def _hover(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return (
        f"<b>{cell['task']}</b> × {cell['source']}<br>{cell['effect']:+.2f} SD for +10 points"
        f"<br>{cell['raw']:+.4g} in the metric's units"
        + ("" if cell["clear"] else "<br>within the noise")
    )
