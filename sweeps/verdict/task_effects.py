"""Comparison task by task: the metrics on which the pick is better or worse than the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ablations.files import finite_or_none
from sweeps.verdict.contrasts import Estimate, Evidence, simultaneous
from sweeps.verdict.holm import corrected_by_holm
from sweeps.verdict.item_noise import item_covariance, paired_error
from sweeps.verdict.observations import Observations
from sweeps.verdict.task_quality import TaskFit, fit_task
from sweeps.verdict.verdict_record import TaskEffect, TaskRow

__all__ = ["task_rows"]


def task_rows(
    observed: Observations,
    weights: Mapping[str, float],
    *,
    pick: str,
    reference: str,
    alpha: float,
    last: int,
) -> tuple[TaskRow, ...]:
    """Compare the pick with the reference on every metric, corrected by Holm over them.

    Args:
        observed: The runs that count.
        weights: Weight of each metric in the score; metrics without one are compared as well.
        pick: The candidate proposed.
        reference: The candidate that it is compared with.
        alpha: Error rate over all metrics.
        last: Checkpoints of each run that count as late.
    """
    fits = [fit_task(observed, task, last) for task in observed.tasks]
    estimates = [_advantage(fitted, pick, reference, alpha) for fitted in fits]
    known = [estimate for estimate in estimates if estimate is not None]
    corrected = iter(corrected_by_holm(known))
    rows = []
    for fitted, estimate in zip(fits, estimates, strict=True):
        final = None if estimate is None else next(corrected)
        items, error = _paired(fitted, pick, reference)
        rows.append(
            TaskRow(
                task=fitted.task.task,
                metric=fitted.task.metric,
                reference=_mean(fitted, reference),
                pick=_mean(fitted, pick),
                advantage=final,
                effect=_effect(final, alpha),
                in_score=fitted.task.key in weights,
                items=items,
                item_error=error,
            )
        )
    return tuple(rows)


def _advantage(fitted: TaskFit, pick: str, reference: str, alpha: float) -> Estimate | None:
    names = tuple(candidate.name for candidate in fitted.observed.candidates)
    if pick not in names or reference not in names:
        return None
    covariance, df = None, math.inf
    if fitted.task.items is not None:
        owner = np.array([run.candidate for run in fitted.observed.runs])
        covariance, df = item_covariance([fitted.task.items], [1.0], owner, [fitted.task.groups])
    evidence = Evidence(
        names=names,
        means=fitted.fit.means,
        unit=fitted.fit.unit,
        noise=fitted.noise,
        item_covariance=covariance,
        item_df=df,
        alpha=alpha,
        own=fitted.fit.own if fitted.noise.source == "seeds" else None,
    )
    contrast = np.zeros((1, len(names)))
    contrast[0, names.index(pick)], contrast[0, names.index(reference)] = 1.0, -1.0
    return simultaneous(evidence, contrast)[0]


def _effect(estimate: Estimate | None, alpha: float) -> TaskEffect:
    if estimate is None or not math.isfinite(estimate.standard_error):
        return "unknown"
    if estimate.p_corrected > alpha:
        return "not shown"
    return "gains" if estimate.value > 0.0 else "pays"


def _mean(fitted: TaskFit, name: str) -> float | None:
    rows = _rows(fitted, name)
    return float(fitted.task.values[rows].mean()) if rows else None


def _rows(fitted: TaskFit, name: str) -> list[int]:
    names = [candidate.name for candidate in fitted.observed.candidates]
    return [i for i, run in enumerate(fitted.observed.runs) if names[run.candidate] == name]


def _paired(fitted: TaskFit, pick: str, reference: str) -> tuple[int | None, float | None]:
    """Return the number of items compared and their paired standard error, over the means of the seeds."""
    rows = [_rows(fitted, name) for name in (pick, reference)]
    if fitted.task.items is None or not all(rows):
        return None, None
    first, second = (fitted.task.items[own].mean(axis=0) for own in rows)
    _, error, count = paired_error(first, second, fitted.task.groups)
    return count, finite_or_none(error)
