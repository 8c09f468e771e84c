"""Transfer: does the ranking at one proxy size, or token horizon, hold at another?

rank correlation    Spearman over the mixtures that both were run with
decision accuracy   share of pairs of mixtures that both put in the same order (DataDecide,
                    arXiv 2504.11393): the chance that a decision made small is right large

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
from scipy import stats

from sweeps.verdict.noise import Floats

__all__ = ["Transfer", "transfer"]

FEWEST_FOR_INTERVAL = 5
"""Below this many shared mixtures a bootstrap over mixtures repeats a handful of values."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Agreement between two arms of a study: two proxy sizes, or two token horizons."""

    small: str
    large: str
    mixtures: int
    """Mixtures that both arms were run with."""
    pairs: int
    """Pairs of them with different scores on both sides."""
    rank_correlation: float | None
    """Spearman; None below three mixtures."""
    rank_interval: tuple[float, float] | None
    """95%, bootstrap over mixtures; None below five."""
    decision_accuracy: float | None
    """Share of pairs in the same order."""
    decision_interval: tuple[float, float] | None
    """95%, bootstrap over mixtures; None below five."""


def transfer(
    small_scores: Mapping[str, float],
    large_scores: Mapping[str, float],
    *,
    small: str,
    large: str,
    draws: int = 2000,
) -> Transfer:
    """Compare the scores of the mixtures that both arms have."""
    shared = [name for name in small_scores if name in large_scores]
    x = np.array([small_scores[name] for name in shared])
    y = np.array([large_scores[name] for name in shared])
    pairs, accuracy = _decisions(x, y)
    samples = _resample(x, y, draws) if len(shared) >= FEWEST_FOR_INTERVAL else None
    return Transfer(
        small=small,
        large=large,
        mixtures=len(shared),
        pairs=pairs,
        rank_correlation=_known(_spearman(x, y)) if len(shared) >= 3 else None,
        rank_interval=_interval([_spearman(a, b) for a, b in samples]) if samples else None,
        decision_accuracy=_known(accuracy),
        decision_interval=_interval([_decisions(a, b)[1] for a, b in samples]) if samples else None,
    )


def _decisions(x: Floats, y: Floats) -> tuple[int, float]:
    first, second = np.triu_indices(len(x), 1)
    # A mixture drawn twice by the bootstrap makes no pair with itself: equal scores are left out.
    agree = np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])
    told = int((agree != 0).sum())
    return told, float((agree > 0).sum()) / told if told else math.nan


def _spearman(x: Floats, y: Floats) -> float:
    a, b = stats.rankdata(x), stats.rankdata(y)
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _resample(x: Floats, y: Floats, draws: int) -> list[tuple[Floats, Floats]]:
    rows = np.random.default_rng(0).integers(0, len(x), size=(draws, len(x)))
    return [(x[row], y[row]) for row in rows]


def _interval(values: list[float]) -> tuple[float, float] | None:
    known = np.array([value for value in values if math.isfinite(value)])
    if not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def _known(value: float) -> float | None:
    return round(value, 12) if math.isfinite(value) else None
