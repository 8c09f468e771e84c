"""Task quality: how well each metric can tell mixtures apart, measured on a study's own runs.

    variance ratio   variance between mixtures / noise variance of one run
    monotone         accuracies: mean over runs of Spearman(tokens, score)
    above chance     accuracies: (final score - chance) / noise of one run
    stable ranking   Kendall's tau of the candidates between late checkpoints

The first is the signal-to-noise ratio that predicts whether a small run ranks two data sets as a large
one does (Heineman et al., Signal and Noise, 2025); monotonicity and distance from chance are criteria of
FineTasks (2024). The level of a metric over its noise is no signal: bits per byte far above zero tell
nothing of mixtures.

Task quality is reported, never applied to a score after the fact: a verdict that leaves out metrics
answers another question than the search asked. A study that wants it applied (``search.task_quality``)
decides once, before its first proposal (:mod:`sweeps.verdict.applied_quality`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sweeps.verdict.training_noise import Floats, MeansFit, TrainingNoise

__all__ = [
    "MIN_ABOVE_CHANCE",
    "MIN_MONOTONICITY",
    "MIN_STABILITY",
    "MIN_VARIANCE_RATIO",
    "UNSTABLE",
    "Signal",
    "measure_signal",
]

MIN_VARIANCE_RATIO = 1.0
"""Below it the mixtures of a study differ less on a metric than two runs of one mixture do."""
MIN_MONOTONICITY = 0.5
MIN_ABOVE_CHANCE = 3.0
MIN_STABILITY = 0.3
UNSTABLE = "unstable ranking"
"""A warning that costs no metric its place: it looks at the differences that a verdict tests."""
_FEWEST_CHECKPOINTS = 3


@dataclass(frozen=True, kw_only=True)
class Signal:
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
    """Variance between mixtures over the noise variance of one run; 0 where noise explains it all."""


def measure_signal(
    task: str,
    trajectories: Sequence[tuple[Floats, Floats]],
    candidate: Sequence[int],
    fit: MeansFit,
    noise: TrainingNoise,
    *,
    higher_is_better: bool = True,
    chance: float | None = None,
    last: int = 5,
    least: tuple[float, float, float] = (MIN_VARIANCE_RATIO, MIN_MONOTONICITY, MIN_ABOVE_CHANCE),
) -> Signal:
    """Measure the quality of one metric.

    Args:
        task: Its ``task/metric``.
        trajectories: (tokens, raw metric) of each run, ascending in tokens; missing values are NaN.
        candidate: Which candidate each run belongs to.
        fit: Means of the candidates on this metric.
        noise: Training noise of one run on this metric.
        higher_is_better: Direction of the metric.
        chance: Score of guessing; None where the metric has none.
        last: Checkpoints that count as late.
        least: Least variance ratio, monotonicity and distance from chance that earn no warning.
    """
    sign = 1.0 if higher_is_better else -1.0
    finals = [
        score[np.isfinite(score)][-1] for _, score in trajectories if np.isfinite(score).any()
    ]
    final = float(np.mean(finals)) if finals else math.nan
    sd = noise.sd if noise.known and noise.sd > 0.0 else math.nan
    ratio = _variance_ratio(fit, sd)
    monotonicity = _monotonicity(trajectories, sign)
    above = math.nan if chance is None else sign * (final - chance) / sd
    stability = _stability(trajectories, candidate, last)
    return Signal(
        task=task,
        variance_ratio=_known(ratio),
        monotonicity=_known(monotonicity),
        noise_sd=_known(sd),
        above_chance=_known(above),
        stability=_known(stability),
        warnings=_warnings(
            ratio, monotonicity, above, stability, accuracy=higher_is_better, least=least
        ),
    )


def _variance_ratio(fit: MeansFit, sd: float) -> float:
    """Variance between the candidates' true means, in noise variances of one run.

    The observed variance of the means holds their noise as well; its expectation is taken off.
    """
    count = len(fit.means)
    if count < 2 or not math.isfinite(sd):
        return math.nan
    centre = np.eye(count) - 1.0 / count
    noise = float(np.trace(centre @ fit.unit @ centre)) / (count - 1)
    return max(0.0, float(np.var(fit.means, ddof=1)) / sd**2 - noise)


def _warnings(
    ratio: float,
    monotonicity: float,
    above: float,
    stability: float,
    *,
    accuracy: bool,
    least: tuple[float, float, float],
) -> tuple[str, ...]:
    # NaN compares false: what could not be measured earns no warning.
    found = []
    if ratio < least[0]:
        found.append("mixtures differ by less than the noise of a run")
    if accuracy and monotonicity < least[1]:
        found.append("not monotone in tokens")
    if accuracy and above < least[2]:
        found.append("not above chance")
    if stability < MIN_STABILITY:
        found.append(UNSTABLE)
    return tuple(found)


def _monotonicity(trajectories: Sequence[tuple[Floats, Floats]], sign: float) -> float:
    """Mean Spearman correlation of a run's scores with its tokens; a flat run counts as 0."""
    alike: dict[int, list[tuple[Floats, Floats]]] = {}
    for tokens, score in trajectories:
        kept = np.isfinite(score)
        if kept.sum() >= _FEWEST_CHECKPOINTS:
            alike.setdefault(int(kept.sum()), []).append((tokens[kept], score[kept]))
    found = [_spearman(np.array(group)) for group in alike.values()]
    return sign * float(np.mean(np.concatenate(found))) if found else math.nan


def _spearman(pairs: Floats) -> Floats:
    """Rank correlation of the two rows of each of [n, 2, points]; 0 where one of them is flat.

    Many runs at once: one call of scipy a run was most of a verdict on 500 trials (10 CPU-seconds).
    """
    ranks = stats.rankdata(pairs, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    both = (ranks[:, 0] * ranks[:, 1]).sum(axis=-1)
    size = np.sqrt((ranks**2).sum(axis=-1).prod(axis=-1))
    found: Floats = np.divide(both, size, out=np.zeros_like(both), where=size > 0.0)
    return found


def _stability(
    trajectories: Sequence[tuple[Floats, Floats]], candidate: Sequence[int], last: int
) -> float:
    """Kendall's tau between consecutive late checkpoints that every run has, averaged."""
    owners = np.asarray(candidate)
    if len(set(owners.tolist())) < 3:
        return math.nan
    shared = set.intersection(
        *({float(x) for x, y in zip(*run, strict=True) if np.isfinite(y)} for run in trajectories)
    )
    late = sorted(shared)[-last:]
    if len(late) < 2:
        return math.nan
    table = np.array([[run[1][run[0] == x][0] for x in late] for run in trajectories])
    means = np.array([table[owners == k].mean(axis=0) for k in sorted(set(owners.tolist()))])
    taus = [
        float(stats.kendalltau(means[:, j], means[:, j + 1]).statistic)
        for j in range(len(late) - 1)
        if np.ptp(means[:, j]) > 0.0 and np.ptp(means[:, j + 1]) > 0.0
    ]
    return float(np.mean(taus)) if taus else math.nan


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
