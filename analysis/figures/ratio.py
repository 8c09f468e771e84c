"""Ratio curve: the score over the weight of one of two sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.direction import minimised
from analysis.figures.mixtures import LABELS, MARKS, hover, indistinct
from analysis.figures.theme import (
    GREY,
    INK,
    PALETTE,
    axis,
    blank,
    empty_figure,
    span,
    translucent,
    write_over,
)
from analysis.frames.views import weights

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["ratio_curve", "ratio_seeds_frame"]


def ratio_seeds_frame(
    runs: pd.DataFrame, sources: pd.DataFrame, source: str, *, stage: str | None = None
) -> pd.DataFrame:
    """Return the weight of ``source`` and the score, one row per scored run."""
    shares = weights(sources, stage=stage, per="run")
    if source not in shares:
        return runs.iloc[0:0].assign(weight=[])
    scored = runs[runs["score"].notna()][["run", "trial", "seed", "name", "score"]]
    scored = scored.astype({"run": "str", "trial": "str", "name": "str"})
    return scored.join(shares[source].rename("weight"), on="run").dropna(subset=["weight"])


def ratio_curve(
    frame: pd.DataFrame,
    names: list[str],
    *,
    seeds: pd.DataFrame | None = None,
    prediction: pd.DataFrame | None = None,
    verdict: str | None = None,
    score: str = "score",
) -> go.Figure:
    """Draw the score over the weight of the first of two sources.

    Args:
        frame: Frame from :func:`mixture_frame`.
        names: Two sources; the first is on the axis.
        seeds: Frame from :func:`ratio_seeds_frame`: single runs, drawn small.
        prediction: Predictions of the surrogate: the weights, mean, low, high.
        verdict: Sentence above the plot.
        score: Name of the score, with its direction.
    """
    if len(names) != 2 or frame.empty:
        return empty_figure("a ratio curve needs scored mixtures of exactly two sources")
    source, other = names
    figure = blank(height=460)
    if prediction is not None:
        _add_band(figure, prediction.sort_values(source), source, minimised(frame))
    if seeds is not None and not seeds.empty:
        _add_seeds(figure, seeds, source)
    for place, kind in enumerate(("trial", "baseline", "best")):
        _add_trials(figure, frame[frame["kind"] == kind], names, kind, PALETTE[place])
    _name_baselines(figure, frame, source)
    if verdict:
        write_over(figure, verdict)
    title = f"weight of {source}; the rest is {other}"
    ends = span(frame[source].tolist())
    figure.layout.xaxis = axis(title, "share of tokens", tickformat=".0%", range=ends)
    figure.layout.yaxis = axis(score)
    return figure


def _add_seeds(figure: go.Figure, seeds: pd.DataFrame, source: str) -> None:
    figure.add_scatter(
        x=seeds["weight"],
        y=seeds["score"],
        mode="markers",
        name="one run",
        marker={"symbol": "line-ew-open", "size": 9, "color": GREY},
        hovertext=[
            f"<b>{row.run}</b><br>score {row.score:.5g}<br>{source} {row.weight:.1%}"
            for row in seeds.itertuples()
        ],
        hoverinfo="text",
    )


def _add_trials(
    figure: go.Figure, part: pd.DataFrame, names: list[str], kind: str, colour: str
) -> None:
    if part.empty:
        return
    figure.add_scatter(
        x=part[names[0]],
        y=part["score"],
        mode="markers",
        name=LABELS[kind],
        hovertext=hover(part, names),
        hoverinfo="text",
        marker=MARKS[kind] | {"color": colour, "line": {"color": INK, "width": 0.8}},
        error_y={"type": "data", "array": 1.96 * part["stderr"], "thickness": 1.2, "color": colour},
    )


def _add_band(figure: go.Figure, line: pd.DataFrame, source: str, lower: bool) -> None:
    figure.add_scatter(
        x=[*line[source], *line[source][::-1]],
        y=[*line["high"], *line["low"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0},
        name="surrogate, 90% interval",
        fillcolor=translucent(PALETTE[5], 0.3),
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=line[source],
        y=line["mean"],
        mode="lines",
        name="surrogate",
        line={"color": PALETTE[0], "width": 2},
        hoverinfo="skip",
    )
    tied = line[indistinct(line, minimised=lower)][source]
    figure.add_vrect(
        x0=float(tied.min()),
        x1=float(tied.max()),
        line_width=0,
        fillcolor=GREY,
        opacity=0.12,
        layer="below",
    )
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name="within noise of the optimum",
        marker={"symbol": "square", "size": 12, "color": translucent(GREY, 0.25)},
    )


def _name_baselines(figure: go.Figure, frame: pd.DataFrame, source: str) -> None:
    named = frame[(frame["kind"] == "baseline") & frame["name"].notna()].sort_values(source)
    for place, row in enumerate(named.to_dict("records")):
        figure.add_annotation(
            x=row[source],
            y=row["score"],
            text=str(row["name"]),
            showarrow=True,
            arrowhead=0,
            arrowwidth=0.8,
            ax=0,
            ay=-34 if place % 2 else 34,
            font={"size": 11},
            bgcolor="rgba(255,255,255,0.8)",
        )
