"""Ternary map: mixtures of three sources, coloured by score."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from analysis.direction import minimised
from analysis.figures.mixtures import KINDS, LABELS, MARKS, hover, indistinct, ruled_out
from analysis.figures.theme import (
    INK,
    PALETTE,
    SEQUENTIAL,
    blank,
    colour_bar,
    empty_figure,
    shorten,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["ternary_map"]


def ternary_map(
    frame: pd.DataFrame,
    names: list[str],
    *,
    prediction: pd.DataFrame | None = None,
    optimum: dict[str, float] | None = None,
    score: str = "score",
) -> go.Figure:
    """Draw mixtures of three sources, coloured by score.

    Args:
        frame: Frame from :func:`mixture_frame`, or from :func:`mark_verdict`: then the trials that the
            verdict ruled out are open.
        names: Three sources.
        prediction: Predictions of the surrogate on a grid of mixtures: the weights, mean, low, high.
            They are drawn small; without a verdict, rings mark those whose interval reaches the
            optimum's mean.
        optimum: Optimum of the surrogate: source → weight.
        score: Name of the score, with its direction.
    """
    if len(names) != 3 or frame.empty:
        return empty_figure("a ternary map needs scored mixtures of exactly three sources")
    figure = blank(height=480)
    shared = _colours(frame, prediction)
    if prediction is not None:
        _add_prediction(figure, frame, names, prediction, shared)
    out = ruled_out(frame)
    for kind in KINDS:
        part = frame["kind"] == kind
        if kind == "trial":
            _add_trials(figure, frame[part & out], names, kind, shared, open_mark=True)
            part &= ~out
        _add_trials(figure, frame[part], names, kind, shared)
    # One of the traces has the colour bar of all.
    figure.data[-1].marker.update(showscale=True, colorbar=colour_bar(score, y=1.1))
    if optimum is not None:
        _add_optimum(figure, names, optimum)
    figure.layout.ternary = _corners(names)
    return figure


def _add_trials(
    figure: go.Figure,
    part: pd.DataFrame,
    names: list[str],
    kind: str,
    shared: dict[str, Any],
    *,
    open_mark: bool = False,
) -> None:
    if part.empty:
        return
    marker = shared | MARKS[kind] | {"color": part["score"]}
    marker["line"] = {"color": INK, "width": 0.8 if kind == "trial" else 1.5}
    if open_mark:
        marker |= {"symbol": marker["symbol"] + "-open", "line": {"width": 2}}
    figure.add_scatterternary(
        **_abc(part, names),
        mode="markers",
        name="trial, ruled out as the best" if open_mark else LABELS[kind],
        hovertext=hover(part, names),
        hoverinfo="text",
        marker=marker,
    )


def _colours(frame: pd.DataFrame, prediction: pd.DataFrame | None) -> dict[str, Any]:
    """Return one colour scale for scores and predictions; the better end is lighter."""
    values = [*frame["score"], *(prediction["mean"] if prediction is not None else ())]
    return {
        "colorscale": SEQUENTIAL,
        "cmin": min(values),
        "cmax": max(values),
        "reversescale": minimised(frame),
    }


def _add_optimum(figure: go.Figure, names: list[str], optimum: dict[str, float]) -> None:
    shares = "<br>".join(f"{name} {100 * optimum[name]:.1f}%" for name in names)
    figure.add_scatterternary(
        **{letter: [optimum[name]] for letter, name in zip("abc", names, strict=True)},
        mode="markers",
        name="surrogate's optimum",
        hovertext="surrogate's optimum<br>" + shares,
        hoverinfo="text",
        marker={"symbol": "cross-thin", "size": 18, "line": {"width": 3, "color": PALETTE[1]}},
    )


def _corners(names: list[str]) -> dict[str, Any]:
    """Return the three axes; the domain leaves space for the names of the lower corners on a phone."""
    axes = {
        f"{letter}axis": {
            "title": {"text": _corner(name, letter), "font": {"size": 12}},
            "min": 0,
            "ticks": "outside",
            "tickformat": ".0%",
            "nticks": 6,
            "gridcolor": "#DDDDDD",
            "linecolor": INK,
            "layer": "below traces",
        }
        for letter, name in zip("abc", names, strict=True)
    }
    return {"sum": 1, "bgcolor": "white", "domain": {"x": [0.14, 0.86], "y": [0.12, 0.82]}, **axes}


def _corner(name: str, letter: str) -> str:
    """Return a corner's title; the lower ones are broken and moved down, so that they fit a phone."""
    if letter == "a":
        return shorten(name, 24)
    return "<br><br><br>" + "<br>".join(
        textwrap.wrap(shorten(name, 24).replace("_", "_ "), 10)
    ).replace("_ ", "_")


def _abc(frame: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    return {letter: frame[name] for letter, name in zip("abc", names, strict=True)}


def _add_prediction(
    figure: go.Figure,
    frame: pd.DataFrame,
    names: list[str],
    prediction: pd.DataFrame,
    shared: dict[str, Any],
) -> None:
    figure.add_scatterternary(
        **_abc(prediction, names),
        mode="markers",
        name="surrogate",
        hoverinfo="skip",
        marker=shared | {"color": prediction["mean"], "size": 6, "opacity": 0.45},
    )
    if "may_be_best" in frame:
        return
    tied = prediction[indistinct(prediction, minimised=minimised(frame))]
    figure.add_scatterternary(
        **_abc(tied, names),
        mode="markers",
        name="within noise of the optimum",
        hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 9, "color": INK, "line": {"width": 1}},
    )
