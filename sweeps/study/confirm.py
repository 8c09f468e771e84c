"""Choice of the finalists, which are run again with more seeds after exploring.

The best trial is partly the luckiest. Therefore the finalists — the best trials, the optimum of the
surrogate, and the baseline — are run with more seeds, and the verdict compares those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sweeps.search.space import Point
from sweeps.study.specs import ConfirmSpec
from sweeps.study.strategy import History
from sweeps.study.trial import Trial

__all__ = ["Pick", "Recommendation", "finalists", "undominated"]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """Optimum of the surrogate."""

    point: Point
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Details as JSON values: predicted loss, its interval, name of the surrogate."""


Pick = Callable[[History], Recommendation | None]
"""Function that returns the optimum of the surrogate; None if it has none."""


def finalists(history: History, spec: ConfirmSpec, picked: int | None = None) -> list[Trial]:
    """Return the trials to confirm, best first, the baseline last, without infeasible ones.

    Args:
        history: Trials of the study.
        spec: Specification of the confirmation.
        picked: Number of the trial at the surrogate's optimum.

    Neither that trial nor the baseline counts as one of ``spec.finalists``: if one of them is the
    best, the next best is confirmed too, so that the verdict compares the specified number of
    candidates.
    """
    if spec.finalists == 0:
        return []
    candidates = [trial for trial in history.done if _allowed(history, trial)]
    if not candidates:
        return []
    order = _ranking(history.losses(candidates))
    ranked = [candidates[i] for i in order]
    baseline = history.baseline_trial
    extra = {picked} if baseline is None else {picked, baseline.number}
    best = [trial for trial in ranked if trial.number not in extra][: spec.finalists]
    chosen = [trial for trial in ranked if trial.number == picked or trial in best]
    chosen += [t for t in candidates if t.spec.phase == "confirm" and t not in chosen]
    return chosen if baseline is None else [*(t for t in chosen if t is not baseline), baseline]


def undominated(losses: np.ndarray) -> np.ndarray:
    """Return a mask ``[trials]`` of the rows of ``[trials, objectives]`` that no other row dominates."""
    if losses.shape[1] == 2 and len(losses):
        return _front_of_two(losses)
    mask = np.ones(len(losses), dtype=bool)
    for i, row in enumerate(losses):
        no_worse = (losses <= row).all(axis=1)
        better = (losses < row).any(axis=1)
        mask[i] = not (no_worse & better).any()
    return mask


def _front_of_two(losses: np.ndarray) -> np.ndarray:
    """Return :func:`undominated` for two objectives by sorting: O(n log n), for 20,000 trials of a report.

    A row is on the front if its second loss is the smallest of those with its first loss, and smaller than
    that of every row with a smaller first loss.
    """
    order = np.lexsort((losses[:, 1], losses[:, 0]))
    first, second = losses[order].T
    begins = np.r_[True, first[1:] != first[:-1]]
    group = np.cumsum(begins) - 1
    least = second[begins]
    before = np.r_[np.inf, np.minimum.accumulate(least)[:-1]]
    front = np.empty(len(losses), dtype=bool)
    front[order] = (second == least[group]) & (second < before[group])
    return front


def _ranking(losses: np.ndarray) -> Sequence[int]:
    """Return the order, best first: by loss, or the Pareto front by mean rank, then the others."""
    ranks = np.argsort(np.argsort(losses, axis=0, kind="stable"), axis=0).mean(axis=1)
    behind = ~undominated(losses)
    order: list[int] = np.lexsort((ranks, behind)).tolist()
    return order


def _allowed(history: History, trial: Trial) -> bool:
    if not history.constraints:
        return True
    distances = history.feasibility(trial)
    return distances is not None and all(value <= 0.0 for value in distances.values())
