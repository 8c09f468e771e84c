"""Task quality: how well each metric separates mixtures, measured on a study's own runs.

    variance ratio   variance between mixtures / noise variance of one run
    monotone         accuracies: mean over runs of Spearman(tokens, score)
    above chance     accuracies: (final score - chance) / noise of one run
    stable ranking   Kendall's tau of the candidates between late checkpoints

The first is the signal-to-noise ratio that predicts whether a small run ranks two data sets as a large
one does (Heineman et al., Signal and Noise, 2025). Monotonicity and distance from chance are criteria of
FineTasks (2024). The level of a metric over its noise is not a criterion: bits per byte far above zero
do not show that mixtures differ.

A verdict reports task quality and never changes the score by it: without some of its metrics it would
answer another question than the search asked. A study that wants it applied (``search.task_quality``)
decides once, before its first proposal (:func:`decide_task_quality`):

    baselines and design of the study ─▶ quality of each metric ─▶ metrics that leave the score
    (or an earlier study)                                        ─▶ weights of those that stay

The decision is kept in ``study.json`` and never made again. It uses the planned trials alone: they were
chosen before any score was known, and the runs that the verdict compares come later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ablations.evaluation.score_rule import removable
from ablations.files import finite_or_none
from ablations.record.run_record import list_runs
from ablations.record.stored import stored_object
from sweeps.study.run_results import trial_file
from sweeps.study.specs import TaskQualitySpec
from sweeps.verdict.covariance import Covariance, centred, variances
from sweeps.verdict.numbers import rank_correlations
from sweeps.verdict.observations import Observations, TaskData, score_form
from sweeps.verdict.study_observations import gather, gather_records
from sweeps.verdict.training_noise import (
    MeansFit,
    TrainingNoise,
    checkpoint_noise,
    combine,
    fit_means,
)
from sweeps.verdict.trajectories import Trajectories, tables_of

__all__ = [
    "MIN_ABOVE_CHANCE",
    "MIN_MONOTONICITY",
    "MIN_STABILITY",
    "MIN_VARIANCE_RATIO",
    "UNSTABLE",
    "TaskFit",
    "TaskQuality",
    "decide_task_quality",
    "fit_task",
    "measure_quality",
    "task_qualities",
]

MIN_VARIANCE_RATIO = 1.0
"""Below it the mixtures of a study differ less on a metric than two runs of one mixture do."""
MIN_MONOTONICITY = 0.5
MIN_ABOVE_CHANCE = 3.0
MIN_STABILITY = 0.3
UNSTABLE = "unstable ranking"
"""Warning that removes no metric from a score: it uses the differences that a verdict tests."""
_FEWEST_CHECKPOINTS = 3

_LEAST = (MIN_VARIANCE_RATIO, MIN_MONOTONICITY, MIN_ABOVE_CHANCE)

_LATE = 5
"""Checkpoints of each run that count as late, as in a verdict by default."""

_PLANNED = ("baseline", "design")
"""Phases whose trials were chosen before any score was known."""


@dataclass(frozen=True, kw_only=True)
class TaskQuality:
    """Quality of one metric as a measure of mixtures; None = could not be measured."""

    task: str
    """``task/metric``."""
    monotonicity: float | None
    """Mean over runs of Spearman(tokens, score), positive = improves with tokens."""
    noise_sd: float | None
    """Training noise of one run on this metric, in its units."""
    above_chance: float | None
    """Final score less chance, in noises of one run."""
    stability: float | None
    """Mean Kendall's tau of the candidates' ranking between consecutive late checkpoints."""
    warnings: tuple[str, ...]
    """Criteria that it fails, in words."""
    variance_ratio: float | None = None
    """Variance between mixtures over the noise variance of one run; 0 if noise explains it all."""


@dataclass(frozen=True, kw_only=True)
class TaskFit:
    """One metric fitted over the runs that have it."""

    observed: Observations
    """Runs with a value of this metric."""
    task: TaskData
    fit: MeansFit
    noise: TrainingNoise
    """Noise of one run that the metric's interval rests on: seeds first."""


def fit_task(observed: Observations, task: TaskData, last: int) -> TaskFit:
    """Fit the candidates' means on one metric, with higher is better.

    Args:
        observed: The runs.
        task: The metric.
        last: Checkpoints of each run that count as late.
    """
    known = np.isfinite(task.values)
    kept = replace(observed, tasks=(task,)).keep(known.tolist())
    own = kept.tasks[0]
    if not known.any():
        nothing = np.zeros(0)
        unit = Covariance(diagonal=nothing, factor=np.zeros((0, 0)), inner=np.zeros((0, 0)))
        fit = MeansFit(means=nothing, unit=unit, noise=TrainingNoise.unknown(), blocked=False)
        return TaskFit(observed=kept, task=own, fit=fit, noise=fit.noise)
    fit = fit_means(kept.run_scores(task.sign * own.values))
    noises = [fit.noise, checkpoint_noise(own.trajectories, last), _published(observed, task)]
    # Zero scatter is a task stuck at one value, not one measured without noise.
    seeds, late, declared = (n if n.variance > 0.0 else TrainingNoise.unknown() for n in noises)
    return TaskFit(observed=kept, task=own, fit=fit, noise=combine(seeds, late, declared))


def _published(observed: Observations, task: TaskData) -> TrainingNoise:
    if task.published_sd is None:
        return TrainingNoise.unknown()
    return TrainingNoise(
        variance=task.published_sd**2, df=observed.published_df, source="published"
    )


def task_qualities(
    observed: Observations, last: int, least: tuple[float, float, float] = _LEAST
) -> tuple[TaskQuality, ...]:
    """Return the quality of each metric, from all runs of the study.

    Args:
        observed: All runs.
        last: Checkpoints of each run that count as late.
        least: Least variance ratio, monotonicity and distance from chance that give no warning.
    """
    return tuple(
        measure_quality(fit_task(observed, task, last), last, least) for task in observed.tasks
    )


def measure_quality(
    fitted: TaskFit, last: int = _LATE, least: tuple[float, float, float] = _LEAST
) -> TaskQuality:
    """Measure the quality of one metric.

    Args:
        fitted: The metric over the runs that have it.
        last: Checkpoints of each run that count as late.
        least: Least variance ratio, monotonicity and distance from chance that give no warning.
    """
    task, noise = fitted.task, fitted.noise
    tables = tables_of(
        task.trajectories or [(np.zeros(1), np.array([value])) for value in task.values]
    )
    finals = [table.scores[:, -1] for table in tables if table.scores.size]
    final = float(np.mean(np.concatenate(finals))) if finals else math.nan
    sd = noise.sd if noise.known and noise.sd > 0.0 else math.nan
    ratio = _variance_ratio(fitted.fit, sd)
    monotonicity = _monotonicity(tables, task.sign)
    above = math.nan if task.chance is None else task.sign * (final - task.chance) / sd
    stability = _stability(tables, [run.candidate for run in fitted.observed.runs], last)
    # NaN compares false: a criterion that could not be measured gives no warning.
    criteria = (
        (ratio < least[0], "mixtures differ by less than the noise of a run"),
        (task.higher_is_better and monotonicity < least[1], "not monotone in tokens"),
        (task.higher_is_better and above < least[2], "not above chance"),
        (stability < MIN_STABILITY, UNSTABLE),
    )
    return TaskQuality(
        task=task.key,
        variance_ratio=finite_or_none(ratio),
        monotonicity=finite_or_none(monotonicity),
        noise_sd=finite_or_none(sd),
        above_chance=finite_or_none(above),
        stability=finite_or_none(stability),
        warnings=tuple(warning for failed, warning in criteria if failed),
    )


def _variance_ratio(fit: MeansFit, sd: float) -> float:
    """Return the variance between the candidates' true means, in noise variances of one run.

    The observed variance of the means includes their noise; its expectation is subtracted.
    """
    count = len(fit.means)
    if count < 2 or not math.isfinite(sd):
        return math.nan
    noise = float(variances(fit.unit, centred(count)).sum()) / (count - 1)
    return max(0.0, float(np.var(fit.means, ddof=1)) / sd**2 - noise)


def _monotonicity(tables: Sequence[Trajectories], sign: float) -> float:
    """Return the mean Spearman correlation of a run's scores with its tokens; a flat run counts as 0."""
    found = [
        np.nan_to_num(
            rank_correlations(np.broadcast_to(table.tokens, table.scores.shape), table.scores)
        )
        for table in tables
        if len(table.tokens) >= _FEWEST_CHECKPOINTS
    ]
    return sign * float(np.mean(np.concatenate(found))) if found else math.nan


def _stability(tables: Sequence[Trajectories], candidate: Sequence[int], last: int) -> float:
    """Return Kendall's tau between consecutive late checkpoints that every run has, averaged."""
    owners = np.asarray(candidate)
    if len(set(owners.tolist())) < 3:
        return math.nan
    shared = set.intersection(*(set(table.tokens.tolist()) for table in tables))
    late = np.array(sorted(shared))[-last:]
    if len(late) < 2:
        return math.nan
    # Tokens ascend within a run.
    scores = np.zeros((len(owners), len(late)))
    for table in tables:
        scores[table.rows] = table.scores[:, np.searchsorted(table.tokens, late)]
    position = np.unique(owners, return_inverse=True)[1]
    sums = np.stack([np.bincount(position, column) for column in scores.T], axis=1)
    means = sums / np.bincount(position)[:, None]
    taus = [
        float(stats.kendalltau(means[:, j], means[:, j + 1]).statistic)
        for j in range(len(late) - 1)
        if np.ptp(means[:, j]) > 0.0 and np.ptp(means[:, j + 1]) > 0.0
    ]
    return float(np.mean(taus)) if taus else math.nan


def decide_task_quality(runs_dir: Path, study: str, spec: TaskQualitySpec) -> dict[str, Any]:
    """Return the decision on a study's score, in plain values, for ``study.json``.

    Args:
        runs_dir: Folder of all studies.
        study: The study whose baselines and design have ended.
        spec: Thresholds, and the earlier study that decides if any.

    Raises:
        UserError: the runs cannot be compared, or the earlier study does not exist.
    """
    planned = [r for r in list_runs(runs_dir, study) if _phase(r.path) in _PLANNED]
    own = gather_records(study, planned)
    source = own if spec.study is None else gather(runs_dir, spec.study)
    least = (spec.min_variance_ratio, spec.min_monotonicity, spec.min_above_chance)
    qualities = task_qualities(source, _LATE, least)
    left_out = _left_out(own, qualities)
    kept = [task for task in own.tasks if task.key not in left_out]
    if not score_form(own.rule, own.direction, kept).weights:
        # A score needs a metric: if none meets the criteria, the study keeps the score that it has.
        left_out, kept = {}, list(own.tasks)
    form = score_form(own.rule, own.direction, kept)
    return {
        "from": spec.study or study,
        "runs": [run.name for run in source.runs],
        "left_out": left_out,
        "weights": dict(form.weights),
        "constant": form.constant,
        "measured": {
            quality.task: {
                "variance_ratio": quality.variance_ratio,
                "monotonicity": quality.monotonicity,
                "above_chance": quality.above_chance,
            }
            for quality in qualities
        },
        "decided": time.time(),
    }


def _left_out(own: Observations, qualities: Sequence[TaskQuality]) -> dict[str, str]:
    """Return the metrics of the score that fail a criterion and may be left out, with the reason."""
    may = set(removable(own.rule, [task.key for task in own.tasks]))
    reasons = {
        quality.task: ", ".join(w for w in quality.warnings if w != UNSTABLE)
        for quality in qualities
    }
    return {key: why for key, why in reasons.items() if why and key in may}


def _phase(folder: Path) -> str | None:
    path = trial_file(folder)
    spec: Mapping[str, Any] = stored_object(path) if path.exists() else {}
    return spec.get("phase")
