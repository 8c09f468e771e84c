"""Ratio curve: the score over the weight of one of two sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.direction import minimised
from analysis.figures.mixtures import COLOURS, KINDS, LABELS, MARKS, hover, indistinct, ruled_out
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
        frame: Frame from :func:`mixture_frame`, or from :func:`mark_verdict`: then the grey range are the
            shares that may be best by the verdict, and trials that it ruled out are open.
        names: Two sources; the first is on the axis.
        seeds: Frame from :func:`ratio_seeds_frame`: single runs, drawn small.
        prediction: Predictions of the surrogate: the weights, mean, low, high.
        verdict: Sentence above the plot.
        score: Name of the score, with its direction.
    """
    if len(names) != 2 or frame.empty:
        return empty_figure("a ratio curve needs scored mixtures of exactly two sources")
    source, other = names
    figure = blank(height=400)
    _add_range(figure, *_range(frame, source, prediction))
    if prediction is not None:
        _add_band(figure, prediction.sort_values(source), source)
    if seeds is not None and not seeds.empty:
        _add_seeds(figure, seeds, source)
    out = ruled_out(frame)
    for kind in KINDS:
        part = frame["kind"] == kind
        if kind == "trial":
            _add_trials(figure, frame[part & out], names, kind, open_mark=True)
            part &= ~out
        _add_trials(figure, frame[part], names, kind)
    _name_marked(figure, frame, source)
    if verdict:
        write_over(figure, verdict)
    title = f"weight of {source}; the rest is {other}"
    ends = span(frame[source].tolist())
    figure.layout.xaxis = axis(title, "share of tokens", tickformat=".0%", range=ends)
    figure.layout.yaxis = axis(score, range=_heights(frame, seeds))
    return figure


def _heights(frame: pd.DataFrame, seeds: pd.DataFrame | None) -> tuple[float, float]:
    """Return the range of the scores with their bars; a wide band of the surrogate is cut."""
    bars = (1.96 * frame["stderr"]).fillna(0.0)
    runs = seeds["score"].tolist() if seeds is not None else []
    return span([*(frame["score"] - bars), *(frame["score"] + bars), *runs], 0.12)


def _range(
    frame: pd.DataFrame, source: str, prediction: pd.DataFrame | None
) -> tuple[str, float, float]:
    """Return a range of shares with its name: the verdict's, else the surrogate's; empty if unknown."""
    if "may_be_best" in frame:
        best = frame.loc[frame["may_be_best"].fillna(False).astype(bool), source]
        return "may be best (verdict)", float(best.min()), float(best.max())
    if prediction is not None:
        tied = prediction[indistinct(prediction, minimised=minimised(frame))][source]
        return "within noise of the optimum", float(tied.min()), float(tied.max())
    return "", float("nan"), float("nan")


def _add_range(figure: go.Figure, name: str, low: float, high: float) -> None:
    if not low <= high:
        return
    figure.add_vrect(x0=low, x1=high, line_width=0, fillcolor=GREY, opacity=0.14, layer="below")
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=name,
        marker={"symbol": "square", "size": 12, "color": translucent(GREY, 0.35)},
    )


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
    figure: go.Figure, part: pd.DataFrame, names: list[str], kind: str, *, open_mark: bool = False
) -> None:
    if part.empty:
        return
    colour, mark = COLOURS[kind], dict(MARKS[kind])
    if open_mark:
        mark["symbol"] += "-open"
    figure.add_scatter(
        x=part[names[0]],
        y=part["score"],
        mode="markers",
        name="trial, ruled out as the best" if open_mark else LABELS[kind],
        # The others have their names beside them.
        showlegend=kind == "trial",
        hovertext=hover(part, names),
        hoverinfo="text",
        marker=mark
        | {"color": colour, "line": {"color": colour if open_mark else INK, "width": 1}},
        error_y={"type": "data", "array": 1.96 * part["stderr"], "thickness": 1.2, "color": colour},
    )


def _add_band(figure: go.Figure, line: pd.DataFrame, source: str) -> None:
    figure.add_scatter(
        x=[*line[source], *line[source][::-1]],
        y=[*line["high"], *line["low"][::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0},
        showlegend=False,
        fillcolor=translucent(PALETTE[5], 0.3),
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=line[source],
        y=line["mean"],
        mode="lines",
        name="surrogate, 90% interval",
        line={"color": PALETTE[0], "width": 2},
        hoverinfo="skip",
    )


def _name_marked(figure: go.Figure, frame: pd.DataFrame, source: str) -> None:
    """Write the names of the marked trials beside them: towards the middle of the figure.

    A name that would meet the one before it goes to the other side.
    """
    low, high = _heights(frame, None)
    left, right = span(frame[source].tolist())
    before: tuple[float, float, bool] | None = None
    for row in frame[frame["kind"] != "trial"].sort_values(source).to_dict("records"):
        name = row["name"] if isinstance(row["name"], str) else row["trial"]
        x, y = (row[source] - left) / (right - left), (row["score"] - low) / (high - low)
        above = y < 0.5
        if before is not None and x - before[0] < 0.3 and abs(y - before[1]) < 0.3:
            above = not before[2]
        before = x, y, above
        figure.add_annotation(
            x=row[source],
            y=row["score"],
            text=name if row["kind"] in ("baseline", "pick") else f"{name}: {LABELS[row['kind']]}",
            showarrow=True,
            arrowhead=0,
            arrowwidth=0.8,
            ax=0,
            ay=-30 if above else 30,
            font={"size": 11},
            bgcolor="rgba(255,255,255,0.8)",
        )
