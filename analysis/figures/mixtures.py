"""Mixtures and their scores: the frame that the maps share, and the hover text of a trial.

`mixture_frame` has one row per trial: the weights of its sources, its score with its uncertainty, and
its kind (baseline, trial, best). A fitted surrogate is a frame of predictions: the weights, `mean`,
`low`, `high` (from :mod:`analysis.score_fit`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.direction import minimised
from analysis.figures.theme import number
from analysis.frames.views import weights

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "LABELS",
    "MARKS",
    "hover",
    "indistinct",
    "mixture_frame",
    "pooled_seed_sd",
]

MARKS: dict[str, dict[str, Any]] = {
    "trial": {"symbol": "circle", "size": 10},
    "baseline": {"symbol": "square", "size": 13},
    "best": {"symbol": "star", "size": 18},
}
"""Kind of trial → its marker."""
LABELS = {"trial": "trial", "baseline": "baseline", "best": "best trial seen"}
"""Kind of trial → its name in the legend."""


def mixture_frame(
    trials: pd.DataFrame, sources: pd.DataFrame, *, stage: str | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per scored trial, and the names of the weight columns.

    Columns: trial, name, kind (baseline, best, trial), runs, score, stderr (standard error over
    seeds, from the study's pooled seed noise), direction, and one weight per source (share of tokens).
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
        best = frame["score"].idxmin() if minimised(frame) else frame["score"].idxmax()
        if frame.loc[best, "kind"] == "trial":
            frame.loc[best, "kind"] = "best"
    return frame.reset_index(drop=True), names


def pooled_seed_sd(trials: pd.DataFrame) -> float:
    """Pool the standard deviation over seeds of the trials that have several; NaN if none has."""
    many = trials[trials["score_sd"].notna() & (trials["done"] > 1)]
    if many.empty:
        return float("nan")
    freedom = many["done"].astype("float64") - 1.0
    return float(np.sqrt((freedom * many["score_sd"] ** 2).sum() / freedom.sum()))


def hover(frame: pd.DataFrame, names: list[str]) -> list[str]:
    """Return the hover text of each trial."""
    lines = []
    for row in frame.to_dict("records"):
        title = f"{row['name']} · {row['trial']}" if isinstance(row["name"], str) else row["trial"]
        parts = [f"<b>{title}</b>", f"score {number(row['score'], 5)} ± {number(row['stderr'], 2)}"]
        parts += [f"{name} {100.0 * row[name]:.1f}%" for name in names]
        parts.append(f"{row['runs']} run{'s' if row['runs'] != 1 else ''}")
        lines.append("<br>".join(parts))
    return lines


def indistinct(prediction: pd.DataFrame, *, minimised: bool) -> pd.Series[bool]:
    """Return which predicted mixtures have an interval that reaches the best predicted mean."""
    if minimised:
        return prediction["low"] <= prediction["mean"].min()
    return prediction["high"] >= prediction["mean"].max()
