"""Task × source effects: what moving tokens to a source does to each task, over the whole study.

The effect of a source on a task is the change that the linear fit over all scored mixtures gives
when ten points of weight move to it, taken from the others in proportion, at the mean mixture. It is
shown in standard deviations of the task over mixtures, so that tasks can be compared, with the sign
turned so that positive is better. A line is coarse and honest: where its t value is under 2 the
number is in brackets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures.theme import (
    DIVERGING,
    INK,
    axis,
    blank,
    colour_bar,
    empty_figure,
    short_ticks,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["effect_matrix", "effects_frame"]

MOVED = 0.1
"""Share of tokens that is moved."""

_CLEAR_T = 2.0


def effects_frame(
    values: pd.DataFrame, shares: pd.DataFrame, higher_is_better: dict[str, bool]
) -> pd.DataFrame:
    """One row a task and source.

    Args:
        values: Trial × task, of `frames.task_values`.
        shares: Trial × source, of `frames.weights`.
        higher_is_better: Task → direction of its metric.

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
        sign = 1.0 if higher_is_better.get(str(task), True) else -1.0
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
    """Least squares without an intercept (weights sum to 1): coefficients and their covariance."""
    used = x.std(axis=0) > 0
    freedom = len(y) - int(np.linalg.matrix_rank(x))
    if freedom < 2 or not used.any():
        return None
    inverse = np.linalg.pinv(x.T @ x)
    coefficients = inverse @ x.T @ y
    residual = y - x @ coefficients
    return coefficients, inverse * float(residual @ residual) / freedom


def _move(mean: np.ndarray[Any, Any], place: int) -> np.ndarray[Any, Any]:
    """Ten points to source ``place``, from the others in proportion to what they have."""
    others = mean.copy()
    others[place] = 0.0
    total = others.sum()
    move = -MOVED * (others / total if total > 0 else np.full_like(mean, 1.0 / len(mean)))
    move[place] = MOVED
    return move


def effect_matrix(frame: pd.DataFrame) -> go.Figure:
    """Tasks down, sources across; blue helps, vermilion hurts, brackets = not clear of noise."""
    if frame.empty:
        return empty_figure("effects need at least two more scored mixtures than sources")
    wide = frame.pivot(index="task", columns="source", values="effect").sort_index(ascending=False)
    clear = frame.pivot(index="task", columns="source", values="clear").loc[wide.index]
    raw = frame.pivot(index="task", columns="source", values="raw").loc[wide.index]
    limit = float(np.nanmax(np.abs(wide.to_numpy()))) or 1.0
    text = [
        [f"{v:+.1f}" if c else f"({v:+.1f})" for v, c in zip(values, clears, strict=True)]
        for values, clears in zip(wide.to_numpy(), clear.to_numpy(), strict=True)
    ]
    hover = [
        [
            f"<b>{task}</b> × {source}<br>{wide.loc[task, source]:+.2f} SD for +10 points"
            f"<br>{raw.loc[task, source]:+.4g} in the metric's units"
            for source in wide.columns
        ]
        for task in wide.index
    ]
    figure = blank(height=130 + 26 * len(wide), legend=False)
    figure.add_heatmap(
        z=wide.to_numpy(),
        x=list(wide.columns),
        y=list(wide.index),
        zmin=-limit,
        zmax=limit,
        colorscale=[list(stop) for stop in DIVERGING],
        text=text,
        texttemplate="%{text}",
        textfont={"size": 11, "color": INK},
        hovertext=hover,
        hoverinfo="text",
        xgap=2,
        ygap=2,
        colorbar=colour_bar("SD per +10 points, + = better"),
    )
    figure.layout.xaxis = axis(
        "source",
        standoff=32,
        showgrid=False,
        tickangle=0 if wide.shape[1] < 5 else -40,
        **short_ticks(list(wide.columns), 14),
    )
    figure.layout.yaxis = axis("task", showgrid=False, **short_ticks(list(wide.index), 20))
    return figure
