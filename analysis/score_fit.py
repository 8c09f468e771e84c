"""Surrogate of a study's score: the best family, its predictions and its optimum.

Families are compared by cross-validation on the score of the trials. The one with the smallest error
is fitted to all trials and evaluated on a grid (two and three sources) or on even draws (more).
Intervals come from the surrogate, calibrated on runs that its fits did not see.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.direction import gain_sign, minimised

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["QUICK_FAMILIES", "ScoreFit", "fit_score"]

QUICK_FAMILIES = (
    "linear",
    "scheffe",
    "ridge-sqrt",
    "log-linear",
    "mixing-law",
    "power-law",
    "gp",
    "lightgbm",
)
"""Every family except the two that cross-validate others inside (60 trials: 4 to 5 s each)."""

FEWEST_TRIALS = 6
"""Fewest trials to fit: with fewer, five folds leave fits without a mixture on one side."""

MOST_TRIALS = 250
"""Most trials to fit: the time of a Gaussian process grows with their cube, and 11 fits are needed. With
500 trials its cross-validation alone took 2.2 CPU-seconds, with 250 it takes 0.3; `ablate fit` uses all."""

LEVEL = 0.9
"""Probability that a new run lies in the interval."""


@dataclass(frozen=True, kw_only=True)
class ScoreFit:
    """Results of cross-validation, and predictions of the best family."""

    leaderboard: pd.DataFrame
    """One row per family, best first: name, rank_correlation, r2, rmse (SD of the score), regret."""
    best: str
    trials: int
    """Number of trials fitted, at most :data:`MOST_TRIALS`."""
    folds: int
    prediction: pd.DataFrame
    """Columns: one weight per source, mean, low, high."""
    optimum: dict[str, float]
    """Mixture with the best predicted mean: source → weight."""


def fit_score(
    frame: pd.DataFrame,
    names: Sequence[str],
    *,
    families: Sequence[str] = QUICK_FAMILIES,
    seed: int = 0,
) -> ScoreFit | None:
    """Compare families on the trials' scores and fit the best; None with too few trials.

    Args:
        frame: Frame from `figures.mixture_frame`.
        names: The sources.
        families: Names in `sweeps.search.surrogates.FAMILIES`.
        seed: Seed of the folds.
    """
    import pandas as pd

    from sweeps.search.surrogates import Surrogate, family, leaderboard

    if len(frame) < max(FEWEST_TRIALS, len(names) + 2) or len(names) < 2:
        return None
    if len(frame) > MOST_TRIALS:
        frame = frame.sample(MOST_TRIALS, random_state=seed)
    inputs = frame[list(names)].to_numpy(dtype=float)
    values = frame[["score"]].to_numpy(dtype=float)
    lower = minimised(frame)
    board = leaderboard(
        [family(name) for name in families],
        inputs,
        values,
        weights=[gain_sign(not lower)],
        seed=seed,
    )
    model = Surrogate(family(board.best), seed=seed).fit(inputs, values)
    grid = mixture_grid(len(names), inputs)
    low, high = model.predict_interval(grid, LEVEL)
    prediction = pd.DataFrame(grid, columns=list(names))
    prediction["mean"] = model.predict(grid)[:, 0]
    prediction["low"], prediction["high"] = low[:, 0], high[:, 0]
    place = prediction["mean"].idxmin() if lower else prediction["mean"].idxmax()
    rows = pd.DataFrame(board.rows())
    return ScoreFit(
        leaderboard=rows[["name", "rank_correlation", "r2", "rmse", "regret"]],
        best=board.best,
        trials=board.runs,
        folds=board.folds,
        prediction=prediction,
        optimum={name: float(prediction.loc[place, name]) for name in names},
    )


def mixture_grid(sources: int, seen: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return mixtures to predict, one per row: a grid for two and three sources, even draws for more.

    All lie inside the box of the weights ``seen``, because a surrogate extrapolates outside it.
    """
    low, high = seen.min(axis=0) - 1e-9, seen.max(axis=0) + 1e-9
    if sources == 2:
        first = np.linspace(seen[:, 0].min(), seen[:, 0].max(), 101)
        return np.stack([first, 1.0 - first], axis=1)
    if sources == 3:
        cells = 30
        pairs = itertools.product(range(cells + 1), repeat=2)
        grid = np.array([(i, j, cells - i - j) for i, j in pairs if i + j <= cells]) / cells
    else:
        grid = np.random.default_rng(0).dirichlet(np.ones(sources), 4000)
        grid = np.concatenate([grid, seen])
    inside = ((grid >= low) & (grid <= high)).all(axis=1)
    return grid[inside] if inside.any() else seen
