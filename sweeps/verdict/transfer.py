"""Transfer of a ranking from one proxy size, or token horizon, to another.

rank correlation    Spearman over the mixtures that both proxies were run with
decision accuracy   share of pairs of mixtures that both put in the same order (DataDecide,
                    arXiv 2504.11393): the chance that a decision at the small size is right at the large

>>> found = transfer({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 10.0, "b": 30.0, "c": 20.0},
...                  small="15M", large="60M")
>>> found.rank_correlation, round(found.decision_accuracy, 2), found.pairs
(0.5, 0.67, 3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablations.files import finite_or_none
from sweeps.verdict.numbers import rank_correlations
from sweeps.verdict.training_noise import Floats

__all__ = ["Transfer", "transfer"]

FEWEST_FOR_INTERVAL = 5
"""Below this many shared mixtures a bootstrap over mixtures repeats a handful of values."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Agreement between two proxies of a study: two sizes, or two token horizons."""

    small: str
    large: str
    mixtures: int
    """Mixtures that both proxies were run with."""
    pairs: int
    """Pairs of them with different scores on both sides."""
    rank_correlation: float | None
    """Spearman; None below three mixtures."""
    rank_interval: tuple[float, float] | None
    """95% interval, bootstrap over mixtures; None below five."""
    decision_accuracy: float | None
    """Share of pairs in the same order."""
    decision_interval: tuple[float, float] | None
    """95% interval, bootstrap over mixtures; None below five."""


def transfer(
    small_scores: Mapping[str, float],
    large_scores: Mapping[str, float],
    *,
    small: str,
    large: str,
    draws: int = 2000,
) -> Transfer:
    """Compare the scores of the mixtures that both proxies were run with.

    Args:
        small_scores: Mixture → score at the small proxy.
        large_scores: Mixture → score at the large proxy.
        small: Name of the small proxy.
        large: Name of the large proxy.
        draws: Bootstrap draws behind each interval.
    """
    shared = [name for name in small_scores if name in large_scores]
    x = np.array([[small_scores[name] for name in shared]])
    y = np.array([[large_scores[name] for name in shared]])
    pairs = int((_agreement(x, y) != 0).sum())
    accuracy = _accuracies(x, y)[0]
    enough = len(shared) >= FEWEST_FOR_INTERVAL
    a, b = _resample(x, y, draws if enough else 1) if shared else (x, y)
    return Transfer(
        small=small,
        large=large,
        mixtures=len(shared),
        pairs=pairs,
        rank_correlation=_rounded(rank_correlations(x, y)[0]) if len(shared) >= 3 else None,
        rank_interval=_interval(rank_correlations(a, b)) if enough else None,
        decision_accuracy=_rounded(accuracy),
        decision_interval=_interval(_accuracies(a, b)) if enough else None,
    )


def _agreement(x: Floats, y: Floats) -> NDArray[np.int8]:
    """Return samples x pairs: 1 = same order, -1 = opposite order, 0 = equal on one side."""
    first, second = np.triu_indices(x.shape[1], 1)
    # A mixture drawn twice by the bootstrap makes no pair with itself: equal scores are left out.
    sides = [np.sign(side[:, first] - side[:, second]).astype(np.int8) for side in (x, y)]
    return np.asarray(sides[0] * sides[1], dtype=np.int8)


def _accuracies(x: Floats, y: Floats) -> Floats:
    """Return the share of pairs in the same order for each sample; NaN for one without pairs."""
    agreement = _agreement(x, y)
    same, counted = (agreement > 0).sum(axis=1), (agreement != 0).sum(axis=1)
    return np.where(counted > 0, same / np.maximum(counted, 1), math.nan)


def _resample(x: Floats, y: Floats, draws: int) -> tuple[Floats, Floats]:
    rows = np.random.default_rng(0).integers(0, x.shape[1], size=(draws, x.shape[1]))
    return x[0][rows], y[0][rows]


def _interval(values: Floats) -> tuple[float, float] | None:
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _rounded(value: float) -> float | None:
    known = finite_or_none(value)
    return None if known is None else round(known, 12)
