"""Trajectories of many runs as tables: runs whose scored checkpoints lie at the same tokens share one.

>>> tokens = np.array([1.0, 2.0, 3.0])
>>> holed = np.array([4.0, np.nan, 6.0])
>>> [(table.tokens.tolist(), table.rows.tolist()) for table in
...  tables_of([(tokens, tokens), (tokens, holed), (tokens, 2 * tokens)])]
[([1.0, 2.0, 3.0], [0, 2]), ([1.0, 3.0], [1])]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Trajectories", "tables_of"]


@dataclass(frozen=True)
class Trajectories:
    """Scores of runs whose scored checkpoints lie at the same tokens."""

    tokens: NDArray[np.float64]
    """Tokens at each scored checkpoint, as the runs list them."""
    scores: NDArray[np.float64]
    """Runs x checkpoints, finite."""
    rows: NDArray[np.int64]
    """Position of each run among all runs."""


def tables_of(
    trajectories: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> list[Trajectories]:
    """Return the trajectories as tables, in the order in which their first runs come.

    Args:
        trajectories: (tokens, score) of each run; missing scores are NaN and left out.
    """
    if not trajectories:
        return []
    first = trajectories[0][0]
    if all(len(score) == len(first) for _, score in trajectories):
        # Nearly always every run has the same checkpoints: one comparison instead of one for each run.
        size = (len(trajectories), len(first))
        tokens = np.concatenate([own for own, _ in trajectories]).reshape(size)
        scores = np.concatenate([own for _, own in trajectories]).reshape(size)
        if (tokens == first).all() and np.isfinite(scores).all():
            return [Trajectories(first, scores, np.arange(len(trajectories)))]
    alike: dict[bytes, list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]] = {}
    for row, (own, score) in enumerate(trajectories):
        kept = np.isfinite(score)
        alike.setdefault(own[kept].tobytes(), []).append((row, own[kept], score[kept]))
    return [
        Trajectories(
            runs[0][1],
            np.array([score for _, _, score in runs]),
            np.array([row for row, _, _ in runs]),
        )
        for runs in alike.values()
    ]
