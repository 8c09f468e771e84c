"""Learning curves: a task's metric over tokens, one line per trial, with a band over seeds.

The band runs from the lowest to the highest seed: with three seeds a standard deviation would
suggest more precision than there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.figures.theme import (
    DASHES,
    GREY,
    PALETTE,
    SYMBOLS,
    axis,
    blank,
    empty_figure,
    shorten,
    translucent,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["learning_curve", "learning_frame", "loss_curve", "loss_frame", "unit_of"]


def learning_frame(
    scores: pd.DataFrame, metric_of: Mapping[str, str], trials: Mapping[str, str]
) -> pd.DataFrame:
    """Summarise the seeds, one row per task, trial and checkpoint.

    Args:
        scores: Frame of scores.
        metric_of: Task → metric to show.
        trials: Trial → label, for the trials to show.

    Returns:
        task, metric, trial, label, tokens, mean, low, high, seeds, chance.
    """
    named = scores[scores["trial"].isin(list(trials))]
    shown = named["metric"].astype("str") == named["task"].astype("str").map(dict(metric_of))
    table = named[shown].astype({"task": "str", "metric": "str", "trial": "str"})
    grouped = table.groupby(["task", "metric", "trial", "tokens"], observed=True)
    frame = grouped.agg(
        mean=("value", "mean"),
        low=("value", "min"),
        high=("value", "max"),
        seeds=("value", "count"),
        chance=("chance", "first"),
    ).reset_index()
    frame["label"] = frame["trial"].map(dict(trials))
    return frame


def learning_curve(
    frame: pd.DataFrame,
    task: str,
    *,
    order: Sequence[str] = (),
    named: bool = True,
    legend: bool = True,
) -> go.Figure:
    """Draw the curves of one task.

    Args:
        frame: Frame from :func:`learning_frame`.
        task: Task to draw.
        order: Labels in the order of their colours, the same for several figures.
        named: Whether the axis names the task; a page may name it in a heading instead.
        legend: Whether the figure has a legend; a page may have one for several figures.
    """
    part = frame[frame["task"] == task]
    if part.empty:
        return empty_figure(f"{task} has no scored checkpoint")
    labels = list(order) or sorted(part["label"].unique())
    metric = str(part["metric"].iloc[0])
    figure = blank(height=300 if legend else 230, legend=legend)
    for place, label in enumerate(labels):
        rows = part[part["label"] == label].sort_values("tokens")
        if not rows.empty:
            _add_series(figure, rows, label, place)
    chance = part["chance"].dropna()
    if not chance.empty:
        figure.add_hline(
            y=float(chance.iloc[0]),
            line={"color": GREY, "dash": "dot", "width": 1},
            annotation_text="chance",
            annotation_font={"size": 11, "color": GREY},
        )
    figure.layout.xaxis = axis("training so far", "tokens", tickformat="~s", nticks=5)
    unit = unit_of(metric)
    figure.layout.yaxis = axis(*((shorten(task, 24), unit) if named else (unit,)), nticks=6)
    return figure


def unit_of(metric: str) -> str:
    """Return the text for a metric's unit on an axis."""
    return {
        "bpb": "bits per byte",
        "acc": "accuracy",
        "acc_char": "accuracy, char-normalised",
        "gain": "bits per byte that the picture saves",
        "bpb_without": "bits per byte without the picture",
        "shuffled_gain": "bits per byte that another picture costs",
        "exact_match": "exact match",
        "pass_at_1": "pass@1",
        "margin": "margin over the reference, nats",
        "reward_acc": "reward accuracy",
        "dpo_loss": "held-out DPO loss, nats",
        "prompt_level_strict_acc": "prompts followed",
        "inst_level_strict_acc": "instructions followed",
    }.get(metric, metric)


def _add_series(figure: go.Figure, rows: pd.DataFrame, label: str, place: int) -> None:
    colour = PALETTE[place % len(PALETTE)]
    if (rows["seeds"] > 1).any():
        figure.add_scatter(
            x=[*rows["tokens"], *rows["tokens"][::-1]],
            y=[*rows["high"], *rows["low"][::-1]],
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=translucent(colour, 0.2),
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=rows["tokens"],
        y=rows["mean"],
        mode="lines+markers",
        name=shorten(label, 24),
        line={"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2},
        marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 7},
        hovertext=[
            f"<b>{label}</b> · {r.trial}<br>{r.mean:.5g} [{r.low:.5g}, {r.high:.5g}]"
            f"<br>{r.tokens:,} tokens, {r.seeds} seed{'s' if r.seeds != 1 else ''}"
            for r in rows.itertuples()
        ],
        hoverinfo="text",
    )


def loss_frame(
    metrics: pd.DataFrame, trials: Mapping[str, str], *, points: int = 200
) -> pd.DataFrame:
    """Return the training loss of ``trials``, at most ``points`` rows per run.

    Columns: run, trial, label, tokens, loss (nats per token, mean over neighbouring steps).
    """
    import pandas as pd

    table = metrics[metrics["trial"].isin(list(trials))].astype({"run": "str", "trial": "str"})
    if table.empty:
        return pd.DataFrame(columns=["run", "trial", "label", "tokens", "loss"])
    parts = []
    for (run, trial), rows in table.groupby(["run", "trial"]):
        width = max(1, -(-len(rows) // points))
        bins = (pd.RangeIndex(len(rows)) // width).to_numpy()
        kept = rows[["tokens", "loss"]].astype("float64").groupby(bins).mean()
        parts.append(kept.assign(run=run, trial=trial, label=trials[str(trial)]))
    return pd.concat(parts, ignore_index=True)


def loss_curve(frame: pd.DataFrame, *, order: Sequence[str] = ()) -> go.Figure:
    """Draw the training loss over tokens; the runs of one trial share a colour."""
    if frame.empty:
        return empty_figure("no training step is recorded yet")
    labels = list(order) or sorted(frame["label"].unique())
    figure = blank(height=380)
    shown: set[str] = set()
    named = frame.assign(place=frame["label"].map(labels.index))
    for (place, label, run), rows in named.groupby(["place", "label", "run"]):
        figure.add_scatter(
            x=rows["tokens"],
            y=rows["loss"],
            mode="lines",
            name=shorten(str(label), 24),
            legendgroup=str(label),
            showlegend=label not in shown,
            line={
                "color": PALETTE[place % len(PALETTE)],
                "dash": DASHES[place % len(DASHES)],
                "width": 1.5,
            },
            hovertemplate=f"<b>{label}</b> · {run}<br>%{{y:.4g}} nats per token"
            "<br>%{x:,.0f} tokens<extra></extra>",
        )
        shown.add(str(label))
    figure.layout.xaxis = axis("training so far", "tokens", tickformat="~s")
    figure.layout.yaxis = axis("training loss", "nats per token")
    return figure
