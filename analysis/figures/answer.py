"""Answer of a verdict as one figure, where no ratio curve or ternary map can show it.

answer_weights    many sources: the shares of the two mixtures compared, and the range that may be best
advantages        no mixture (a search over parameters): each candidate against the reference
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.figures.mixtures import COLOURS, LABELS, MARKS
from analysis.figures.theme import (
    GREY,
    INK,
    axis,
    blank,
    empty_figure,
    number,
    short_ticks,
    translucent,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from sweeps.verdict.verdict_record import CandidateRow

__all__ = ["MOST_ROWS", "advantages", "advantages_frame", "answer_frame", "answer_weights"]

MOST_ROWS = 20
"""Most rows of a figure; a phone's screen shows no more."""


def answer_frame(
    frame: pd.DataFrame, names: Sequence[str], *, reference: str, pick: str
) -> pd.DataFrame:
    """Return one row per source, the largest of the reference first.

    Args:
        frame: Frame from :func:`mark_verdict`.
        names: The sources.
        reference: Trial that the pick is compared with.
        pick: Trial that the verdict picked.

    Returns:
        source, reference, pick (shares of tokens; missing if the trial has no score), low, high (range
        over the trials that may be best; missing if the verdict does not record them).
    """
    import pandas as pd

    shares = frame.set_index("trial")[list(names)]
    judged = frame["may_be_best"].fillna(False).astype(bool).to_numpy()
    best = shares[judged]
    rows = pd.DataFrame(
        {
            "source": list(names),
            "reference": shares.loc[reference].to_numpy() if reference in shares.index else None,
            "pick": shares.loc[pick].to_numpy() if pick in shares.index else None,
            "low": best.min().to_numpy(),
            "high": best.max().to_numpy(),
        }
    )
    return rows.sort_values(["reference", "source"], ascending=[False, True], ignore_index=True)


def answer_weights(frame: pd.DataFrame, *, reference: str, pick: str, won: bool) -> go.Figure:
    """Draw the shares of two mixtures by source, and the range of the mixtures that may be best.

    Args:
        frame: Frame from :func:`answer_frame`; its first :data:`MOST_ROWS` rows are drawn.
        reference: Name of the reference.
        pick: Name of the pick.
        won: Whether the pick won.
    """
    if frame.empty:
        return empty_figure("an answer needs scored mixtures and a verdict on them")
    shown = frame.head(MOST_ROWS)
    figure = blank(height=130 + 21 * len(shown))
    ranges = shown.dropna(subset=["low", "high"])
    if not ranges.empty:
        figure.add_bar(
            y=ranges["source"],
            x=ranges["high"] - ranges["low"],
            base=ranges["low"],
            orientation="h",
            width=0.62,
            name="range of the mixtures that may be best",
            marker={"color": translucent(GREY, 0.3)},
            hovertext=[
                f"<b>{r.source}</b><br>{r.low:.1%} to {r.high:.1%} in mixtures that may be best"
                for r in ranges.itertuples()
            ],
            hoverinfo="text",
        )
    kind = "winner" if won else "pick"
    for column, of, name in (("reference", "baseline", reference), ("pick", kind, pick)):
        known = shown.dropna(subset=[column])
        figure.add_scatter(
            y=known["source"],
            x=known[column],
            mode="markers",
            name=name,
            marker={
                "symbol": MARKS[of]["symbol"],
                "size": 11,
                "color": COLOURS[of],
                "line": {"color": INK, "width": 0.8},
            },
            hovertext=[
                f"<b>{source}</b><br>{share:.1%} in {name}"
                for source, share in zip(known["source"], known[column], strict=True)
            ],
            hoverinfo="text",
        )
    figure.layout.xaxis = axis("weight", "share of tokens", tickformat=".0%", rangemode="tozero")
    figure.layout.yaxis = axis(
        "source", showgrid=False, autorange="reversed", **short_ticks(list(shown["source"]), 20)
    )
    return figure


def advantages_frame(candidates: Sequence[CandidateRow], *, pick: str) -> pd.DataFrame:
    """Return the advantage of each candidate over the reference, the largest first.

    Returns:
        name, value, low, high (score units, positive = better; low and high are missing if the noise is
        not known), pick (True for the verdict's pick), may_be_best.
    """
    import numpy as np
    import pandas as pd

    rows = [
        {
            "name": row.name,
            "value": row.advantage.value,
            "low": row.advantage.low,
            "high": row.advantage.high,
            "pick": row.name == pick,
            "may_be_best": row.finalist,
        }
        for row in candidates
        if row.advantage is not None
    ]
    columns = ["name", "value", "low", "high", "pick", "may_be_best"]
    frame = pd.DataFrame(rows, columns=columns).replace([np.inf, -np.inf], np.nan)
    return frame.sort_values(["value", "name"], ascending=[False, True], ignore_index=True)


def advantages(frame: pd.DataFrame, *, reference: str, won: bool) -> go.Figure:
    """Draw the advantage of the best candidates over the reference with simultaneous intervals.

    Args:
        frame: Frame from :func:`advantages_frame`; its first :data:`MOST_ROWS` rows are drawn.
        reference: Name of the reference, which is at 0.
        won: Whether the pick won.
    """
    if frame.empty:
        return empty_figure("no candidate was compared with another")
    shown = frame.head(MOST_ROWS)
    figure = blank(height=110 + 24 * len(shown), legend=bool((~shown["may_be_best"]).any()))
    kind = "winner" if won else "pick"
    parts = (
        ("may be best", shown[~shown["pick"] & shown["may_be_best"]], "trial", ""),
        ("ruled out as the best", shown[~shown["pick"] & ~shown["may_be_best"]], "trial", "-open"),
        (LABELS[kind], shown[shown["pick"]], kind, ""),
    )
    for name, part, of, suffix in parts:
        if part.empty:
            continue
        figure.add_scatter(
            x=part["value"],
            y=part["name"],
            mode="markers",
            name=name,
            marker=MARKS[of] | {"symbol": MARKS[of]["symbol"] + suffix, "color": COLOURS[of]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": part["high"] - part["value"],
                "arrayminus": part["value"] - part["low"],
                "thickness": 1.4,
                "color": COLOURS[of],
            },
            hovertext=[
                f"<b>{r.name}</b><br>{r.value:+.4g} over {reference}"
                f"<br>{number(r.low)} to {number(r.high)}"
                for r in part.itertuples(index=False)
            ],
            hoverinfo="text",
        )
    figure.add_vline(x=0.0, line={"color": GREY, "dash": "dot", "width": 1.5})
    figure.layout.xaxis = axis(f"advantage over {reference}", "score, positive = better")
    figure.layout.yaxis = axis(
        "candidate",
        showgrid=False,
        categoryorder="array",
        categoryarray=list(shown["name"][::-1]),
        **short_ticks(list(shown["name"]), 20),
    )
    return figure
