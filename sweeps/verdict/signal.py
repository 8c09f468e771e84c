"""Which tasks carry signal, decided from the study's own runs (the criteria of FineTasks, 2024).

    monotone        mean over runs of Spearman(tokens, score) >= 0.5
    low noise       final score / noise of one run >= 20
    above chance    final score - chance >= 3 noises of one run
    stable ranking  Kendall's tau of the candidates between late checkpoints >= 0.3

A task that fails one of the first three has no vote in the verdict's score; it is reported. They
look at all runs together and never at who leads, so leaving a task out favours nobody. The ranking
criterion looks at exactly the differences that the verdict tests: choosing tasks by it would choose
lucky differences, so it is reported as a warning and takes no vote. For the same reason the noise
here is that of late checkpoints: tasks whose seeds agree by luck would be kept, and the verdict's
interval, made from those seeds, would be too narrow (5.0% false winners among 300 studies whose tasks
all lay at the threshold). Where seeds are all there is, the two criteria that need noise only warn.
What was not measured (fewer than three checkpoints, no chance level, unknown noise) counts against
nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sweeps.verdict.noise import Floats, TrainingNoise

__all__ = [
    "MIN_ABOVE_CHANCE",
    "MIN_MONOTONICITY",
    "MIN_RATIO",
    "MIN_STABILITY",
    "Signal",
    "measure_signal",
]

MIN_MONOTONICITY = 0.5
MIN_RATIO = 20.0
MIN_ABOVE_CHANCE = 3.0
MIN_STABILITY = 0.3
_FEWEST_CHECKPOINTS = 3


@dataclass(frozen=True, kw_only=True)
class Signal:
    """How far one task can be trusted to tell candidates apart; None = could not be measured."""

    task: str
    monotonicity: float | None
    """Mean over runs of Spearman(tokens, score), positive = improves with tokens."""
    noise_sd: float | None
    """Training noise of one run on this task, in the metric's units."""
    signal_to_noise: float | None
    """Final score over the noise of one run."""
    above_chance: float | None
    """Final score less chance, in noises of one run."""
    stability: float | None
    """Mean Kendall's tau of the candidates' ranking between consecutive late checkpoints."""
    faults: tuple[str, ...]
    """Criteria that it fails and that cost it its vote."""
    warnings: tuple[str, ...]
    """Criteria that it fails without losing its vote."""

    @property
    def votes(self) -> bool:
        """Whether the task counts in the verdict's score."""
        return not self.faults


def measure_signal(
    task: str,
    trajectories: Sequence[tuple[Floats, Floats]],
    candidate: Sequence[int],
    noise: TrainingNoise,
    *,
    higher_is_better: bool = True,
    chance: float | None = None,
    last: int = 5,
) -> Signal:
    """Apply the criteria to one task.

    Args:
        task: Its name.
        trajectories: (tokens, raw metric) of each run, ascending in tokens; missing values are NaN.
        candidate: Which candidate each run belongs to.
        noise: Training noise of one run on this task.
        higher_is_better: Direction of the metric.
        chance: Score of guessing; None where the metric has none.
        last: Checkpoints that count as late.
    """
    sign = 1.0 if higher_is_better else -1.0
    finals = [
        score[np.isfinite(score)][-1] for _, score in trajectories if np.isfinite(score).any()
    ]
    final = float(np.mean(finals)) if finals else math.nan
    sd = noise.sd if noise.known and noise.sd > 0.0 else math.nan
    monotonicity = _monotonicity(trajectories, sign)
    ratio = abs(final) / sd
    above = math.nan if chance is None else sign * (final - chance) / sd
    stability = _stability(trajectories, candidate, last)
    noisy = _noise_faults(ratio, above)
    judged = noise.source != "seeds"
    return Signal(
        task=task,
        monotonicity=_known(monotonicity),
        noise_sd=_known(sd),
        signal_to_noise=_known(ratio),
        above_chance=_known(above),
        stability=_known(stability),
        faults=(
            *(["not monotone in tokens"] if monotonicity < MIN_MONOTONICITY else []),
            *(noisy if judged else []),
        ),
        warnings=(
            *([] if judged else noisy),
            *(["unstable ranking"] if stability < MIN_STABILITY else []),
        ),
    )


def _noise_faults(ratio: float, above: float) -> list[str]:
    # NaN compares false, here and above: what could not be measured is no fault.
    found = []
    if ratio < MIN_RATIO:
        found.append("noisy")
    if above < MIN_ABOVE_CHANCE:
        found.append("not above chance")
    return found


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
