"""Mixtures and their scores: the frame that the maps share, the ternary map, the ratio curve.

`mixture_frame` is one row a trial: the weights of its sources, its score with its uncertainty, and
what it is (baseline, trial, finalist, best). A surrogate, where one was fitted, comes as a frame of
predictions: the weights, `mean`, `low`, `high` (:mod:`analysis.predictions` makes it).
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.figures.theme import (
    GREY,
    INK,
    PALETTE,
    SEQUENTIAL,
    axis,
    blank,
    colour_bar,
    empty_figure,
    number,
    shorten,
    span,
    translucent,
    wrapped,
)
from analysis.frames.views import weights

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["mixture_frame", "ratio_curve", "ratio_seeds_frame", "ternary_map"]


def mixture_frame(
    trials: pd.DataFrame, sources: pd.DataFrame, *, stage: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """One row a scored trial, and the names of the weight columns.

    Columns: trial, name, kind (baseline, best, trial), runs, score, stderr (standard error over
    seeds, from the study's pooled seed noise where a trial has one run), direction, and a weight a
    source (share of tokens).
    """
    if trials.empty or sources.empty:
        return trials.iloc[0:0].assign(kind=[], stderr=[]), []
    shares = weights(sources, stage=stage)
    names = [str(name) for name in shares.columns]
    scored = trials[trials["score"].notna()].copy()
    frame = scored[["trial", "name", "runs", "score", "direction"]].astype(
        {"trial": "str", "name": "str", "direction": "str"}
    )
    frame["runs"] = scored["done"].astype("int64")
    noise = pooled_seed_sd(scored)
    frame["stderr"] = noise / np.sqrt(frame["runs"].clip(lower=1).to_numpy())
    frame["kind"] = np.where(scored["phase"].astype("str") == "baseline", "baseline", "trial")
    frame = frame.join(shares, on="trial").dropna(subset=names)
    if not frame.empty:
        best = frame["score"].idxmin() if _minimised(frame) else frame["score"].idxmax()
        if frame.loc[best, "kind"] == "trial":
            frame.loc[best, "kind"] = "best"
    return frame.reset_index(drop=True), names


def pooled_seed_sd(trials: pd.DataFrame) -> float:
    """Standard deviation over seeds, pooled over the trials that have several; NaN with none."""
    many = trials[trials["score_sd"].notna() & (trials["done"] > 1)]
    if many.empty:
        return float("nan")
    freedom = many["done"].astype("float64") - 1.0
    return float(np.sqrt((freedom * many["score_sd"] ** 2).sum() / freedom.sum()))


def _minimised(frame: pd.DataFrame) -> bool:
    return bool((frame["direction"] == "minimize").any())


def _hover(frame: pd.DataFrame, names: list[str]) -> list[str]:
    lines = []
    for row in frame.to_dict("records"):
        title = f"{row['name']} · {row['trial']}" if isinstance(row["name"], str) else row["trial"]
        parts = [f"<b>{title}</b>", f"score {number(row['score'], 5)} ± {number(row['stderr'], 2)}"]
        parts += [f"{name} {100.0 * row[name]:.1f}%" for name in names]
        parts.append(f"{row['runs']} run{'s' if row['runs'] != 1 else ''}")
        lines.append("<br>".join(parts))
    return lines


_MARKS: dict[str, dict[str, Any]] = {
    "trial": {"symbol": "circle", "size": 10},
    "baseline": {"symbol": "square", "size": 13},
    "best": {"symbol": "star", "size": 18},
}
_LABELS = {"trial": "trial", "baseline": "baseline", "best": "best trial seen"}


def ternary_map(
    frame: pd.DataFrame,
    names: list[str],
    *,
    prediction: pd.DataFrame | None = None,
    optimum: dict[str, float] | None = None,
    score: str = "score",
) -> go.Figure:
    """Mixtures of three sources coloured by score.

    Args:
        frame: Of :func:`mixture_frame`.
        names: The three sources.
        prediction: The surrogate on a grid of mixtures: the weights, mean, low, high. Drawn small;
            grid points whose interval reaches the optimum's mean are ringed: they cannot be told
            from it.
        optimum: The surrogate's optimum.
        score: What the colour is, with its unit.
    """
    if len(names) != 3 or frame.empty:
        return empty_figure("a ternary map needs scored mixtures of exactly three sources")
    figure = blank(height=560)
    values = frame["score"] if prediction is None else _joined(frame["score"], prediction["mean"])
    low, high = float(values.min()), float(values.max())
    shared = {
        "colorscale": SEQUENTIAL,
        "cmin": low,
        "cmax": high,
        "reversescale": _minimised(frame),
    }
    if prediction is not None:
        _add_prediction(figure, frame, names, prediction, shared)
    for kind in ("trial", "baseline", "best"):
        part = frame[frame["kind"] == kind]
        if part.empty:
            continue
        figure.add_scatterternary(
            **_abc(part, names),
            mode="markers",
            name=_LABELS[kind],
            hovertext=_hover(part, names),
            hoverinfo="text",
            marker=shared
            | _MARKS[kind]
            | {
                "color": part["score"],
                "line": {"color": INK, "width": 1.5 if kind != "trial" else 0.8},
                "showscale": kind == frame["kind"].iloc[0],
                "colorbar": colour_bar(score),
            },
        )
    if optimum is not None:
        figure.add_scatterternary(
            **{axis_: [optimum[name]] for axis_, name in zip("abc", names, strict=True)},
            mode="markers",
            name="surrogate's optimum",
            hovertext="surrogate's optimum<br>"
            + "<br>".join(f"{name} {100 * optimum[name]:.1f}%" for name in names),
            hoverinfo="text",
            marker={"symbol": "cross-thin", "size": 18, "line": {"width": 3, "color": PALETTE[1]}},
        )
    figure.update_ternaries(
        sum=1,
        bgcolor="white",
        domain={"x": [0.14, 0.86], "y": [0.12, 0.82]},
        **{
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
        },
    )
    return figure


def _corner(name: str, letter: str) -> str:
    """A corner's title; those below are broken and moved inwards, or a phone cuts them off."""
    if letter == "a":
        return shorten(name, 24)
    return "<br><br><br>" + "<br>".join(
        textwrap.wrap(shorten(name, 24).replace("_", "_ "), 10)
    ).replace("_ ", "_")


def _joined(left: pd.Series[Any], right: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    return pd.concat([left, right])


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
    tied = prediction[indistinct(prediction, minimised=_minimised(frame))]
    figure.add_scatterternary(
        **_abc(tied, names),
        mode="markers",
        name="cannot be told from the optimum",
        hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 9, "color": INK, "line": {"width": 1}},
    )


def indistinct(prediction: pd.DataFrame, *, minimised: bool) -> pd.Series[bool]:
    """Which predicted mixtures have an interval that reaches the best predicted mean."""
    if minimised:
        return prediction["low"] <= prediction["mean"].min()
    return prediction["high"] >= prediction["mean"].max()


def ratio_seeds_frame(
    runs: pd.DataFrame, sources: pd.DataFrame, source: str, *, stage: str | None = None
) -> pd.DataFrame:
    """One row a scored run: the weight of ``source`` and the score, for the points of a curve."""
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
    """The score over the weight of the first of two sources.

    Args:
        frame: Of :func:`mixture_frame`.
        names: The two sources; the first is on the axis.
        seeds: Of :func:`ratio_seeds_frame`: single runs, drawn small.
        prediction: The surrogate: the weights, mean, low, high.
        verdict: One sentence, written over the plot.
        score: What the height is, with its unit.
    """
    if len(names) != 2 or frame.empty:
        return empty_figure("a ratio curve needs scored mixtures of exactly two sources")
    source, other = names
    figure = blank(height=460)
    if prediction is not None:
        _add_band(figure, prediction.sort_values(source), source, _minimised(frame))
    if seeds is not None and not seeds.empty:
        figure.add_scatter(
            x=seeds["weight"],
            y=seeds["score"],
            mode="markers",
            name="one run",
            marker={"symbol": "line-ew-open", "size": 9, "color": GREY},
            hovertext=[
                f"<b>{r.run}</b><br>score {r.score:.5g}<br>{source} {r.weight:.1%}"
                for r in seeds.itertuples()
            ],
            hoverinfo="text",
        )
    for place, kind in enumerate(("trial", "baseline", "best")):
        part = frame[frame["kind"] == kind]
        if part.empty:
            continue
        figure.add_scatter(
            x=part[source],
            y=part["score"],
            mode="markers",
            name=_LABELS[kind],
            hovertext=_hover(part, names),
            hoverinfo="text",
            marker=_MARKS[kind] | {"color": PALETTE[place], "line": {"color": INK, "width": 0.8}},
            error_y={
                "type": "data",
                "array": 1.96 * part["stderr"],
                "thickness": 1.2,
                "color": PALETTE[place],
            },
        )
    _name_baselines(figure, frame, source)
    if verdict:
        figure.add_annotation(
            text=wrapped(verdict),
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
        figure.layout.margin.t = 18 * (1 + wrapped(verdict).count("<br>")) + 12
    figure.layout.xaxis = axis(
        f"weight of {source}; the rest is {other}",
        "share of tokens",
        tickformat=".0%",
        range=span(frame[source].tolist()),
    )
    figure.layout.yaxis = axis(score)
    return figure


def _add_band(figure: go.Figure, line: pd.DataFrame, source: str, minimised: bool) -> None:
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
    tied = line[indistinct(line, minimised=minimised)][source]
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
        name="cannot be told from the optimum",
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
