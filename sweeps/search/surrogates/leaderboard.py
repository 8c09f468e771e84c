"""Compare surrogates on the same left-out runs.

An entry has the rank correlation of the score and the mean over metrics: each metric can be ordered
well (.95) while their mean is not (.75), for example if small proxies predict a large model.
Rank correlation alone misleads, because a model can order most of a swarm well and still choose a
poor optimum. So each entry has a regret too: the difference between the run that the model prefers
among left-out runs and the best of them, as a share of the gap between the best and their mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sweeps.search.space import Floats
from sweeps.search.surrogates.base import Family, Surrogate, folds

__all__ = ["Entry", "Leaderboard", "leaderboard", "rank_correlation"]

_LEAVES = 2.0
"""Root mean square error, in standard deviations, above which predictions leave the data; predicting
the mean of the runs gives 1."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Family on runs that were left out of its fits; means over metrics."""

    name: str
    rank_correlation: float
    """Spearman's correlation, 1 is best."""
    r2: float
    """Share of the variance explained, 1 is best; negative is worse than the mean."""
    rmse: float
    """Root mean square error, in standard deviations of each metric."""
    regret: float
    """0: the model prefers the best run of a fold; 1: the preferred run is no better than the mean."""
    score_rank_correlation: float
    """Spearman's correlation of the score, a weighted sum of metrics."""
    score_rmse: float
    """Root mean square error of the score, in its standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Families from best to worst by the error of the score."""

    entries: tuple[Entry, ...]
    """Families that can be chosen."""
    dropped: tuple[Entry, ...] = ()
    """Families whose predictions are far worse than the mean of the runs."""
    runs: int
    metrics: int
    folds: int

    @property
    def best(self) -> str:
        """Return the name of the family to use."""
        return self.entries[0].name

    def rows(self) -> list[dict[str, float | str]]:
        """Return plain rows for tables and JSON."""
        return [dict(vars(entry)) for entry in (*self.entries, *self.dropped)]

    def __str__(self) -> str:
        head = f"{self.runs} runs, {self.metrics} metrics, {self.folds}-fold cross-validation"
        columns = (
            "surrogate        rank corr of the     R2  RMSE/SD  regret  score\n"
            "               score  mean metric                          RMSE/SD"
        )
        lines = [
            f"{e.name:<13} {e.score_rank_correlation:>6.3f} {e.rank_correlation:>12.3f} "
            f"{e.r2:>6.3f} {e.rmse:>8.3f} {e.regret:>7.3f} {e.score_rmse:>8.3f}"
            for e in self.entries
        ]
        lines += [
            f"{e.name:<13} dropped: its predictions leave the data (score RMSE/SD "
            f"{e.score_rmse:.3g}, R2 {e.r2:.3g})"
            for e in self.dropped
        ]
        return "\n".join([head, columns, *lines])


def leaderboard(
    families: Iterable[Family],
    inputs: Floats,
    values: Floats,
    *,
    weights: Sequence[float] | None = None,
    noise: Floats | None = None,
    fold_count: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Leaderboard:
    """Cross-validate families on the same folds.

    A family whose errors are more than twice those of the mean of the runs is dropped and listed,
    unless this holds for all families.

    Args:
        families: Families to compare.
        inputs: Inputs ``[n, m]``.
        values: Metrics ``[n, t]``; NaN if missing.
        weights: Weight of each metric in the score, negative if lower is better, so that a larger
            score is better. If None, the score is minus the mean of the standardised metrics.
        noise: Standard errors ``[n, t]`` of the values.
        fold_count: Largest number of folds; there is at most one per run.
        seed: Seed of the folds.
        progress: Called with a line for each family as soon as it is fitted.
    """
    count = min(fold_count, len(inputs))
    fold = folds(len(inputs), count, seed)
    scale = np.nanstd(values, axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    towards = -1.0 / scale if weights is None else np.asarray(weights, dtype=np.float64)
    entries = []
    for family in families:
        start = time.perf_counter()
        predicted = np.full(values.shape, np.nan)
        for number in range(count):
            test = fold == number
            known = None if noise is None else noise[~test]
            model = Surrogate(family, seed=seed).fit(inputs[~test], values[~test], known)
            predicted[test] = model.predict(inputs[test])
        entries.append(_entry(family.name, predicted, values, scale, towards, fold))
        if progress is not None:
            correlation = entries[-1].score_rank_correlation
            spent = time.perf_counter() - start
            progress(
                f"{family.name}: rank correlation of the score {correlation:.3f}, {spent:.1f} s"
            )
    ordered = sorted(entries, key=lambda entry: entry.score_rmse)
    kept = tuple(e for e in ordered if e.rmse <= _LEAVES and e.score_rmse <= _LEAVES)
    return Leaderboard(
        entries=kept or tuple(ordered),
        dropped=tuple(e for e in ordered if e not in kept) if kept else (),
        runs=len(inputs),
        metrics=values.shape[1],
        folds=count,
    )


def rank_correlation(left: Floats, right: Floats) -> float:
    """Return Spearman's rank correlation of two columns; ties share ranks; 0 if one is constant."""
    from scipy.stats import rankdata

    known = np.isfinite(left) & np.isfinite(right)
    a, b = rankdata(left[known]), rankdata(right[known])
    if len(a) < 2 or a.std() == 0.0 or b.std() == 0.0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _entry(
    name: str,
    predicted: Floats,
    values: Floats,
    scale: Floats,
    towards: Floats,
    fold: np.ndarray[tuple[int], np.dtype[np.intp]],
) -> Entry:
    tasks = range(values.shape[1])
    errors = (predicted - values) / scale
    mse = np.nanmean(errors**2, axis=0)
    score, guess = values @ towards, predicted @ towards
    used = np.isfinite(score)
    spread = float(score[used].std()) or 1.0
    return Entry(
        name=name,
        rank_correlation=float(
            np.mean([rank_correlation(predicted[:, t], values[:, t]) for t in tasks])
        ),
        r2=float(np.mean(1.0 - mse)),
        rmse=float(np.mean(np.sqrt(mse))),
        regret=_regret(guess[used], score[used], fold[used]),
        score_rank_correlation=rank_correlation(guess, score),
        score_rmse=float(np.sqrt(np.mean((guess[used] - score[used]) ** 2)) / spread),
    )


def _regret(guess: Floats, score: Floats, fold: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
    """Return the mean over folds of (best − preferred) / (best − mean)."""
    regrets = []
    for number in np.unique(fold):
        test = fold == number
        best, mean = score[test].max(), score[test].mean()
        if best > mean:
            regrets.append((best - score[test][guess[test].argmax()]) / (best - mean))
    return float(np.mean(regrets)) if regrets else 0.0
