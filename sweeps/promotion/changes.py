"""Values of runs by task and metric, their relative changes, and the rank correlation of two changes.

Changes are relative and oriented so that positive is better, with one metric per task. Bits per byte are
preferred because accuracies of small models move in steps of one item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablations.record.run_record import RunRecord

__all__ = [
    "FEWEST_TASKS",
    "Values",
    "changes",
    "mean_first",
    "mean_last",
    "mean_values",
    "rank_correlation",
]

FEWEST_TASKS = 5
"""Smallest number of tasks for an interval: with fewer, a bootstrap repeats a handful of values."""

_DRAWS = 2000

Values = dict[tuple[str, str], tuple[float, bool]]
"""(task, metric) → value, and True if more is better."""


def mean_first(records: Sequence[RunRecord]) -> Values:
    """Return the means over the runs at their first scored checkpoints."""
    return mean_values([run.scores()[0] for run in records if run.scores()])


def mean_last(records: Sequence[RunRecord]) -> Values:
    """Return the means over the runs at their last scored checkpoints."""
    return mean_values([run.scores()[-1] for run in records if run.scores()])


def mean_values(rows: Sequence[Mapping[str, Any]]) -> Values:
    """Return the mean of every metric that all rows of scores contain."""
    found: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for row in rows:
        for task, metrics in row["metrics"].items():
            for name, metric in metrics.items():
                if metric["value"] is not None:
                    value = (float(metric["value"]), bool(metric["higher_is_better"]))
                    found.setdefault((task, name), []).append(value)
    return {
        key: (math.fsum(value for value, _ in values) / len(values), values[0][1])
        for key, values in found.items()
        if len(values) == len(rows)
    }


def changes(before: Values, after: Values) -> dict[str, tuple[str, float]]:
    """Return task → its metric and relative change, positive = better; one metric for each task."""
    found: dict[str, tuple[str, float]] = {}
    for (task, metric), (then, higher) in before.items():
        if (task, metric) not in after or then == 0.0:
            continue
        change = (after[task, metric][0] - then) / abs(then)
        # Bits per byte are preferred to any other metric of a task.
        if task not in found or metric == "bpb":
            found[task] = (metric, change if higher else -change)
    return found


def rank_correlation(
    x: Sequence[float], y: Sequence[float]
) -> tuple[float | None, tuple[float, float] | None]:
    """Return Spearman's rank correlation, and its 95% bootstrap interval over the pairs.

    The correlation is None below three pairs or without any spread, the interval below five pairs.
    """
    from sweeps.verdict.numbers import rank_correlations

    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(first) < 3:
        return None, None
    found = float(rank_correlations(first[None, :], second[None, :])[0])
    if not math.isfinite(found):
        return None, None
    if len(first) < FEWEST_TASKS:
        return found, None
    draws = np.random.default_rng(0).integers(0, len(first), size=(_DRAWS, len(first)))
    values = rank_correlations(first[draws], second[draws])
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return found, (float(low), float(high))
