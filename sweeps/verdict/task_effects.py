"""The verdict task by task: quality of each metric, and where the pick is better or worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sweeps.verdict.contrasts import Estimate, Evidence, corrected_by_holm, simultaneous
from sweeps.verdict.item_noise import item_covariance, paired_error
from sweeps.verdict.observations import Observations, TaskData
from sweeps.verdict.task_quality import (
    MIN_ABOVE_CHANCE,
    MIN_MONOTONICITY,
    MIN_VARIANCE_RATIO,
    Signal,
    measure_signal,
)
from sweeps.verdict.training_noise import (
    MeansFit,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
)
from sweeps.verdict.verdict_record import TaskEffect, TaskRow

__all__ = ["task_rows", "task_signals"]


@dataclass(frozen=True, kw_only=True)
class _TaskFit:
    """One task fitted over the runs that have it."""

    observed: Observations
    """Runs with a value of this task."""
    task: TaskData
    fit: MeansFit
    noise: TrainingNoise
    """Noise of one run that the task's interval rests on: seeds first."""


def task_signals(
    observed: Observations,
    last: int,
    least: tuple[float, float, float] = (MIN_VARIANCE_RATIO, MIN_MONOTONICITY, MIN_ABOVE_CHANCE),
) -> tuple[Signal, ...]:
    """Return the quality of every metric, from all runs of the study."""
    found = []
    for task in observed.tasks:
        fitted = _fit(observed, task, last)
        found.append(
            measure_signal(
                task.key,
                fitted.task.trajectories
                or [(np.zeros(1), np.array([value])) for value in fitted.task.values],
                [run.candidate for run in fitted.observed.runs],
                fitted.fit,
                fitted.noise,
                higher_is_better=task.higher_is_better,
                chance=task.chance,
                last=last,
                least=least,
            )
        )
    return tuple(found)


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
        weights: Weight of each metric in the score; others are shown beside it.
        pick: The candidate proposed.
        reference: What it is compared with.
        alpha: Error rate over all metrics.
        last: Checkpoints that count as late.
    """
    fits = [_fit(observed, task, last) for task in observed.tasks]
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


def _fit(observed: Observations, task: TaskData, last: int) -> _TaskFit:
    known = np.isfinite(task.values)
    kept = observed.keep(known.tolist())
    own = next(t for t in kept.tasks if t.key == task.key)
    sign = 1.0 if task.higher_is_better else -1.0
    if not known.any():
        nothing = np.zeros(0)
        fit = MeansFit(
            means=nothing, unit=np.zeros((0, 0)), noise=TrainingNoise.unknown(), blocked=False
        )
        return _TaskFit(observed=kept, task=own, fit=fit, noise=fit.noise)
    fit = fit_means(kept.run_scores(sign * own.values))
    noises = [fit.noise, checkpoint_noise(own.trajectories, last), _published(observed, task)]
    # Zero scatter is a task stuck at one value, not one measured without noise.
    seeds, late, declared = (n if n.variance > 0.0 else TrainingNoise.unknown() for n in noises)
    return _TaskFit(observed=kept, task=own, fit=fit, noise=combine(seeds, late, declared))


def _published(observed: Observations, task: TaskData) -> TrainingNoise:
    if task.published_sd is None:
        return TrainingNoise.unknown()
    return TrainingNoise(
        variance=task.published_sd**2, df=observed.published_df, source="published"
    )


def _advantage(fitted: _TaskFit, pick: str, reference: str, alpha: float) -> Estimate | None:
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


def _mean(fitted: _TaskFit, name: str) -> float | None:
    rows = _rows(fitted, name)
    return float(fitted.task.values[rows].mean()) if rows else None


def _rows(fitted: _TaskFit, name: str) -> list[int]:
    names = [candidate.name for candidate in fitted.observed.candidates]
    return [i for i, run in enumerate(fitted.observed.runs) if names[run.candidate] == name]


def _paired(fitted: _TaskFit, pick: str, reference: str) -> tuple[int | None, float | None]:
    """Items compared and their paired standard error, over the means of the seeds."""
    rows = [_rows(fitted, name) for name in (pick, reference)]
    if fitted.task.items is None or not all(rows):
        return None, None
    first, second = (fitted.task.items[own].mean(axis=0) for own in rows)
    _, error, count = paired_error(first, second, fitted.task.groups)
    return count, error if math.isfinite(error) else None
