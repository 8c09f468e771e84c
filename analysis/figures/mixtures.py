"""Mixtures and their scores: the frame that the maps share, and the hover text of a trial.

`mixture_frame` has one row per trial: the weights of its sources, its score with its uncertainty, and
its kind (baseline, trial, best). `mark_verdict` adds what the verdict found of each trial, so that a
figure shows the verdict and not a second opinion. A fitted surrogate is a frame of predictions: the
weights, `mean`, `low`, `high` (from :mod:`analysis.score_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.direction import minimised
from analysis.figures.theme import PALETTE, number
from analysis.frames.views import weights

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLOURS",
    "KINDS",
    "LABELS",
    "MARKS",
    "MOST_POINTS",
    "hover",
    "indistinct",
    "mark_verdict",
    "mixture_frame",
    "pooled_seed_sd",
    "ruled_out",
    "thinned",
]

MARKS: dict[str, dict[str, Any]] = {
    "trial": {"symbol": "circle", "size": 10},
    "baseline": {"symbol": "square", "size": 13},
    "pick": {"symbol": "diamond", "size": 15},
    "best": {"symbol": "star", "size": 18},
    "winner": {"symbol": "star", "size": 18},
}
"""Kind of trial → its marker; the last is drawn on top."""
KINDS = tuple(MARKS)
LABELS = {
    "trial": "trial",
    "baseline": "baseline",
    "pick": "compared with the baseline",
    "best": "best trial seen",
    "winner": "winner",
}
"""Kind of trial → its name in the legend."""
COLOURS = {
    "trial": PALETTE[0],
    "baseline": PALETTE[1],
    "pick": PALETTE[2],
    "best": PALETTE[2],
    "winner": PALETTE[2],
}
"""Kind of trial → its colour, where colour does not show the score."""

MOST_POINTS = 1000
"""Most trials that a figure draws: more marks cover each other, and 20,000 took 15 MB of a page."""

_MOST_BEST = 100
"""Best trials that a thinned figure always draws."""


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


def mark_verdict(
    frame: pd.DataFrame, *, pick: str, won: bool, may_be_best: Mapping[str, bool]
) -> pd.DataFrame:
    """Return a mixture frame with what a verdict found: the kind of its pick, and who may be best.

    Args:
        frame: Frame from :func:`mixture_frame`.
        pick: Trial that the verdict picked.
        won: Whether it won; otherwise it is only compared.
        may_be_best: Trial → False if the verdict ruled it out (`Verdict.may_be_best`).

    Returns:
        The frame; its column ``may_be_best`` is missing for a trial that the verdict does not judge.
    """
    found = frame.assign(
        may_be_best=frame["trial"].map(may_be_best).astype("boolean"),
        kind=frame["kind"].where(frame["kind"] != "best", "trial"),
    )
    found.loc[found["trial"] == pick, "kind"] = "winner" if won else "pick"
    return found


def ruled_out(frame: pd.DataFrame) -> pd.Series[bool]:
    """Return which trials the verdict ruled out as the best; none without a verdict."""
    if "may_be_best" not in frame:
        return frame["trial"].isna()
    return ~frame["may_be_best"].fillna(True).astype(bool)


def thinned(frame: pd.DataFrame, most: int = MOST_POINTS, *, seed: int = 0) -> pd.DataFrame:
    """Return at most about ``most`` trials: the marked ones, the best, and a sample of the others.

    Args:
        frame: Frame from :func:`mixture_frame`.
        most: Trials from which on the frame is thinned.
        seed: Seed of the sample.
    """
    if len(frame) <= most:
        return frame
    order = frame["score"].rank(ascending=minimised(frame), method="first")
    kept = (frame["kind"] != "trial") | (order <= min(_MOST_BEST, most // 2))
    rest = frame[~kept].sample(max(0, most - int(kept.sum())), random_state=seed)
    return frame.loc[frame.index[kept].union(rest.index)]


def pooled_seed_sd(trials: pd.DataFrame) -> float:
    """Pool the standard deviation over seeds of the trials that have several; NaN if none has."""
    many = trials[trials["score_sd"].notna() & (trials["done"] > 1)]
    if many.empty:
        return float("nan")
    freedom = many["done"].astype("float64") - 1.0
    return float(np.sqrt((freedom * many["score_sd"] ** 2).sum() / freedom.sum()))


def hover(frame: pd.DataFrame, names: list[str]) -> list[str]:
    """Return the hover text of each trial."""
    lines: list[str] = []
    out = ruled_out(frame).tolist()
    for row in frame.to_dict("records"):
        title = f"{row['name']} · {row['trial']}" if isinstance(row["name"], str) else row["trial"]
        parts = [f"<b>{title}</b>", f"score {number(row['score'], 5)} ± {number(row['stderr'], 2)}"]
        parts += [f"{name} {100.0 * row[name]:.1f}%" for name in names]
        parts.append(f"{row['runs']} run{'s' if row['runs'] != 1 else ''}")
        if out[len(lines)]:
            parts.append("ruled out as the best by the verdict")
        lines.append("<br>".join(parts))
    return lines


def indistinct(prediction: pd.DataFrame, *, minimised: bool) -> pd.Series[bool]:
    """Return which predicted mixtures have an interval that reaches the best predicted mean."""
    if minimised:
        return prediction["low"] <= prediction["mean"].min()
    return prediction["high"] >= prediction["mean"].max()
