"""Which trials are run again with seeds once exploring is over.

The best trial seen is partly the luckiest. So the finalists — the best by value, the surrogate's own
optimum, and the baseline — are run with further seeds, and the verdict compares those.
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

__all__ = ["Pick", "Recommendation", "finalists", "pareto_front"]


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The surrogate's own optimum."""

    point: Point
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What it believes of it, as JSON: predicted loss, interval, which surrogate."""


Pick = Callable[[History], Recommendation | None]
"""Asks the surrogate for its optimum; None where it cannot say."""


def finalists(history: History, spec: ConfirmSpec, picked: int | None = None) -> list[Trial]:
    """Return the trials to confirm, best first, the baseline last; infeasible ones are left out.

    Args:
        picked: Number of the trial at the surrogate's optimum.

    Neither that trial nor the baseline counts as one of ``spec.finalists``: where one of them is the
    best, the next best is confirmed too, so that the verdict compares as many candidates as were
    asked for.
    """
    if spec.finalists == 0:
        return []
    candidates = [trial for trial in history.done if _allowed(history, trial)]
    if not candidates:
        return []
    order = _ranking(history.losses(candidates))
    ranked = [candidates[i] for i in order]
    baseline = history.baseline_trial
    beside = {picked} if baseline is None else {picked, baseline.number}
    best = [trial for trial in ranked if trial.number not in beside][: spec.finalists]
    chosen = [trial for trial in ranked if trial.number == picked or trial in best]
    chosen += [t for t in candidates if t.spec.phase == "confirm" and t not in chosen]
    return chosen if baseline is None else [*(t for t in chosen if t is not baseline), baseline]


def pareto_front(losses: np.ndarray) -> np.ndarray:
    """Rows ``[trials, objectives]`` that no other row beats in everything: a mask."""
    mask = np.ones(len(losses), dtype=bool)
    for i, row in enumerate(losses):
        no_worse = (losses <= row).all(axis=1)
        better = (losses < row).any(axis=1)
        mask[i] = not (no_worse & better).any()
    return mask


def _ranking(losses: np.ndarray) -> Sequence[int]:
    """Best first: by the loss, or the Pareto front by mean rank before everything else."""
    ranks = np.argsort(np.argsort(losses, axis=0, kind="stable"), axis=0).mean(axis=1)
    behind = ~pareto_front(losses)
    order: list[int] = np.lexsort((ranks, behind)).tolist()
    return order


def _allowed(history: History, trial: Trial) -> bool:
    if not history.constraints:
        return True
    beyond = history.feasibility(trial)
    return beyond is not None and all(value <= 0.0 for value in beyond.values())
