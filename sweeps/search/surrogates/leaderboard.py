"""Which surrogate to believe: every family on the same left-out runs.

The rank correlation of the score stands beside the mean over metrics: metrics can be ordered well one
by one (.95) while their mean is not (.75), as when small proxies predict a large model.
Rank correlation alone misleads: a model can order the bulk of a swarm well and point at a poor
optimum. So each entry also says its regret: how much worse the run is that the model likes best
among the runs it did not see than the best of them, as a share of the gap to their mean.
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
"""Root mean square error, in standard deviations, from which on predictions have left the data: the
mean of the runs has 1."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One family, on runs that its fits did not see; means over metrics."""

    name: str
    rank_correlation: float
    """Spearman's, 1 is best."""
    r2: float
    """Share of the variance explained, 1 is best; negative is worse than the mean."""
    rmse: float
    """Root mean square error, in standard deviations of each metric."""
    regret: float
    """0: the model's favourite is the best run of its fold; 1: it is no better than their mean."""
    score_rank_correlation: float
    """Spearman's of the score: the stated weighted sum of metrics."""
    score_rmse: float
    """Root mean square error of the score, in its standard deviations."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Families from best to worst by the error of the score."""

    entries: tuple[Entry, ...]
    """Families to choose from."""
    dropped: tuple[Entry, ...] = ()
    """Families whose predictions leave the data: far worse than the mean of the runs."""
    runs: int
    metrics: int
    folds: int

    @property
    def best(self) -> str:
        """Name of the family to use."""
        return self.entries[0].name

    def rows(self) -> list[dict[str, float | str]]:
        """Plain rows for tables and JSON."""
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

    A family whose errors are over twice those of the mean of the runs has left the data. It is
    dropped by name, unless all families are like that.

    Args:
        families: What to compare.
        inputs: ``[n, m]``.
        values: ``[n, t]``; NaN where missing.
        weights: Weight of every metric in the score, negative where lower is better, so that a
            larger score is better. Minus the mean of the standardised metrics when None.
        noise: Standard errors of the values.
        fold_count: Folds; at most one a run.
        seed: Seed of the folds.
        progress: Takes a line for each family as soon as it is known.
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
            held = fold == number
            known = None if noise is None else noise[~held]
            model = Surrogate(family, seed=seed).fit(inputs[~held], values[~held], known)
            predicted[held] = model.predict(inputs[held])
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
    """Spearman's rank correlation of two columns; ties share ranks; 0 where one is constant."""
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
    """Mean over folds of (best − favourite) / (best − mean)."""
    regrets = []
    for number in np.unique(fold):
        held = fold == number
        best, mean = score[held].max(), score[held].mean()
        if best > mean:
            regrets.append((best - score[held][guess[held].argmax()]) / (best - mean))
    return float(np.mean(regrets)) if regrets else 0.0
