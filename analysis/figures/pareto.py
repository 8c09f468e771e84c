"""Pareto front of two domains.

A domain's value is the mean of its tasks' main metrics at the last checkpoint. A trial is on the
front if no other is at least as good in both domains and better in one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.direction import gain_sign
from analysis.figures.learning import unit_of
from analysis.figures.theme import GREY, INK, PALETTE, axis, blank, empty_figure, number
from sweeps.study.confirm import undominated

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["domain_values", "most_opposed", "pareto_frame", "pareto_front"]


def domain_values(
    values: pd.DataFrame, tasks: pd.DataFrame, metric_of: Mapping[str, str]
) -> pd.DataFrame:
    """Return trial × domain: the mean of the domain's tasks that share its most common metric.

    Args:
        values: Trial × task, from `frames.task_values`.
        tasks: Frame of tasks, with the domain of each.
        metric_of: Task → metric in `values`.
    """
    import pandas as pd

    known = tasks.drop_duplicates("task").astype({"task": "str", "domain": "str"})
    known = known[known["task"].isin(list(metric_of))].set_index("task")
    known["metric"] = [metric_of[task] for task in known.index]
    columns: dict[str, Any] = {}
    for domain, members in known.groupby("domain", observed=True):
        metric = members["metric"].mode().iloc[0]
        names = members.index[members["metric"] == metric]
        present = [name for name in names if name in values.columns]
        if present:
            columns[f"{domain} ({unit_of(str(metric))})"] = values[present].mean(
                axis=1, skipna=False
            )
    return pd.DataFrame(columns, index=values.index)


def most_opposed(
    domains: pd.DataFrame, higher_is_better: dict[str, bool]
) -> tuple[str, str] | None:
    """Return the two domains whose rankings of the trials disagree most; None with fewer than two."""
    sign = [gain_sign(higher_is_better.get(name, True)) for name in domains.columns]
    ranks = (domains * sign).rank()
    pairs = list(itertools.combinations([str(name) for name in domains.columns], 2))
    if not pairs or len(domains) < 3:
        return None
    return min(pairs, key=lambda pair: ranks[pair[0]].corr(ranks[pair[1]]))


def pareto_frame(
    domains: pd.DataFrame,
    pair: tuple[str, str],
    higher_is_better: dict[str, bool],
    trials: pd.DataFrame,
) -> pd.DataFrame:
    """Return one row per trial: trial, x, y, front, name, phase, score, baseline."""
    frame = domains[list(pair)].dropna().set_axis(["x", "y"], axis=1)
    sign = np.array([gain_sign(higher_is_better.get(name, True)) for name in pair])
    frame["front"] = undominated(-frame[["x", "y"]].to_numpy() * sign) if len(frame) else []
    about = trials.astype({"trial": "str", "name": "str", "phase": "str"}).set_index("trial")
    frame = frame.join(about[["name", "phase", "score"]])
    frame["baseline"] = frame["phase"] == "baseline"
    return frame.reset_index(names="trial")


def pareto_front(
    frame: pd.DataFrame, pair: tuple[str, str], higher_is_better: dict[str, bool]
) -> go.Figure:
    """Draw two domains against each other; a dotted line joins the front."""
    if len(frame) < 3:
        return empty_figure("a Pareto front needs three trials scored in two domains")
    figure = blank(height=460)
    parts = (
        ("dominated trial", frame[~frame["front"] & ~frame["baseline"]], "circle-open", GREY, 9),
        ("on the front", frame[frame["front"] & ~frame["baseline"]], "circle", PALETTE[0], 11),
        ("baseline", frame[frame["baseline"]], "square", PALETTE[1], 12),
    )
    front = frame[frame["front"]].sort_values("x")
    figure.add_scatter(
        x=front["x"],
        y=front["y"],
        mode="lines",
        name="Pareto front",
        hoverinfo="skip",
        line={"color": PALETTE[0], "width": 1.5, "dash": "dot"},
    )
    for name, part, symbol, colour, size in parts:
        if part.empty:
            continue
        figure.add_scatter(
            x=part["x"],
            y=part["y"],
            mode="markers",
            name=name,
            hovertext=_hover(part, pair),
            hoverinfo="text",
            marker={
                "symbol": symbol,
                "size": size,
                "color": colour,
                "line": {"color": INK if symbol != "circle-open" else GREY, "width": 1},
            },
        )
    better = [higher_is_better.get(name, True) for name in pair]
    figure.layout.xaxis = axis(f"{pair[0]}, {'→' if better[0] else '←'} better")
    figure.layout.yaxis = axis(f"{pair[1]}, {'↑' if better[1] else '↓'} better")
    return figure


def _hover(part: pd.DataFrame, pair: tuple[str, str]) -> list[str]:
    return [
        f"<b>{row['name'] + ' · ' if isinstance(row['name'], str) else ''}{row['trial']}</b>"
        f"<br>{pair[0]} {number(row['x'], 5)}<br>{pair[1]} {number(row['y'], 5)}"
        f"<br>score {number(row['score'], 5)}"
        for row in part.to_dict("records")
    ]
