"""Training noise: by how much the score of a run moves when nothing but its luck changes.

Item noise says how well a run was measured; training noise says how well a *recipe* was measured,
and no number of items makes it smaller. In order of trust it comes from

    seeds         replicates of the study itself, pooled over candidates: 2-3 seeds of one candidate
                  say next to nothing about its own variance, twelve pairs say enough together
    checkpoints   the last checkpoints of each run about their trend, doubled, and doubled again
                  where nothing else is known (see below)
    published     declared SDs, such as those of another model over its last checkpoints
    none          nothing: then nobody can be named the winner

    >>> runs = RunScores(candidates=("a", "b"), candidate=[0, 0, 1, 1], seed=[1, 2, 1, 2],
    ...                  value=[1.0, 1.2, 2.0, 2.2])
    >>> fit = fit_means(runs)
    >>> [round(float(mean), 3) for mean in fit.means], round(fit.noise.sd, 3), fit.noise.df
    ([1.1, 2.1], 0.141, 2.0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeps.verdict.smoothness import OffLine, hidden_factor, off_line

__all__ = [
    "CHECKPOINT_INFLATION",
    "HIDDEN_INFLATION",
    "Floats",
    "MeansFit",
    "NoiseSource",
    "OwnVariances",
    "RunScores",
    "TrainingNoise",
    "checkpoint_noise",
    "combine",
    "fit_means",
    "mean_noise",
    "temper",
]

Floats = NDArray[np.float64]

NoiseSource = Literal["seeds", "checkpoints", "published", "none"]

CHECKPOINT_INFLATION = 2.0
"""Factor on the variance between late checkpoints: they share a trajectory. Five checkpoints whose
noise has a lag-one correlation of 0.5 show 0.53 of their variance about a fitted line."""

HIDDEN_INFLATION = 2.0
"""Factor on the checkpoints' variance where no seeds are: half of a run's noise is taken to be shared by
all its checkpoints, where it cannot be seen. Eight seeds of the demo's run scatter with 3.8 times (95%: 1.3
to 17) the variance of its last five checkpoints about their line; the two factors make 4."""

MIN_BLOCKED_DF = 4
"""Seed effects are fitted when that leaves as many degrees of freedom (t quantile 2.8, not 4.3)."""

PRIOR_DF = 2.0
"""Degrees of freedom that a prior variance counts for beside few seeds."""

FEW_DF = 8.0
"""Below this many degrees of freedom from seeds a larger prior variance is listened to."""


@dataclass(frozen=True, kw_only=True)
class TrainingNoise:
    """Variance of the score of one run, and how well it is known."""

    variance: float
    """Of one run, in score units squared; infinite where nothing is known."""
    df: float
    """Degrees of freedom behind the variance; 0 where nothing is known."""
    source: NoiseSource
    """Where the variance comes from."""
    smooth: float = 1.0
    """Of late checkpoints: what their variance is still to be multiplied by where no seeds are, because
    they follow one another more smoothly than :data:`CHECKPOINT_INFLATION` assumes."""

    @property
    def sd(self) -> float:
        """Standard deviation of one run."""
        return math.sqrt(self.variance)

    @property
    def known(self) -> bool:
        """Whether anything at all is known of the noise."""
        return self.df > 0.0 and math.isfinite(self.variance)

    @classmethod
    def unknown(cls) -> TrainingNoise:
        """No seeds, no checkpoints, nothing declared."""
        return cls(variance=math.inf, df=0.0, source="none")


class RunScores:
    """One score a run: which candidate, which seed, how good. Higher is better, always."""

    def __init__(
        self,
        *,
        candidates: Sequence[str],
        candidate: ArrayLike,
        seed: ArrayLike,
        value: ArrayLike,
    ) -> None:
        self.candidates = tuple(candidates)
        self.candidate = np.asarray(candidate, dtype=np.int64)
        self.seed = np.asarray(seed, dtype=np.int64)
        self.value = np.asarray(value, dtype=np.float64)
        if not np.isfinite(self.value).all():
            raise ValueError("a missing score is not a score: leave its run out")
        if set(self.candidate.tolist()) != set(range(len(self.candidates))):
            raise ValueError("every candidate needs at least one scored run")

    def seeds(self, candidate: int) -> list[int]:
        """The seeds of one candidate, ascending."""
        return sorted(self.seed[self.candidate == candidate].tolist())


@dataclass(frozen=True, kw_only=True)
class OwnVariances:
    """What each candidate's own replicates say of its noise, one value a candidate."""

    squares: Floats
    """Sum of the squared residuals of its runs."""
    df: Floats
    """Degrees of freedom behind it, fractional where seed effects were fitted; 0 with one run."""
    runs: Floats
    """Its runs."""


@dataclass(frozen=True, kw_only=True)
class MeansFit:
    """Least-squares means of the candidates and what is known of their noise."""

    means: Floats
    """One a candidate, adjusted for seed effects where these were fitted."""
    unit: Floats
    """Covariance of the means for a run variance of 1; for contrasts (weights sum to 0) only."""
    noise: TrainingNoise
    """Residual variance of one run; unknown when every candidate has one seed."""
    blocked: bool
    """Whether seed effects were fitted: candidates share seeds and degrees of freedom allow."""
    own: OwnVariances | None = None
    """The same residuals by candidate; None where no candidate has two runs, or they say no more."""


def fit_means(runs: RunScores) -> MeansFit:
    """Means of all candidates, with seeds as blocks where the design can afford them.

    Blocking takes out what a seed does to every candidate alike (initialisation, data order). It is
    chosen by the design alone, never by looking at the scores, so it costs no error rate.
    """
    plain = np.eye(len(runs.candidates))[runs.candidate]
    blocks = _seed_columns(runs.seed)
    blocked = np.hstack([plain, blocks])
    rank = int(np.linalg.matrix_rank(blocked))
    full_rank = rank == blocked.shape[1]
    if blocks.shape[1] and full_rank and len(runs.value) - rank >= MIN_BLOCKED_DF:
        return _least_squares(blocked, runs, blocked=True)
    return _least_squares(plain, runs, blocked=False)


def _seed_columns(seed: NDArray[np.int64]) -> Floats:
    """Sum-to-zero columns, one a seed but the last."""
    names, position = np.unique(seed, return_inverse=True)
    indicator = np.eye(len(names))[position]
    return np.asarray(indicator[:, :-1] - indicator[:, -1:], dtype=np.float64)


def _least_squares(design: Floats, runs: RunScores, *, blocked: bool) -> MeansFit:
    count = len(runs.candidates)
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ (design.T @ runs.value)
    residual = runs.value - design @ solution
    df = len(runs.value) - design.shape[1]
    noise = TrainingNoise.unknown()
    if df > 0:
        noise = TrainingNoise(
            variance=float(residual @ residual) / df, df=float(df), source="seeds"
        )
    unit = np.asarray(inverse[:count, :count], dtype=np.float64)
    # Each run's part of the residual degrees of freedom: one less its leverage.
    free = 1.0 - ((design @ inverse) * design).sum(axis=1)
    own = OwnVariances(
        squares=np.asarray(np.bincount(runs.candidate, residual**2), dtype=np.float64),
        df=np.where(np.bincount(runs.candidate) > 1, np.bincount(runs.candidate, free), 0.0),
        runs=np.bincount(runs.candidate).astype(np.float64),
    )
    return MeansFit(
        means=solution[:count],
        unit=unit,
        noise=noise,
        blocked=blocked,
        own=own if df > 0 and _says_more(own) else None,
    )


def _says_more(own: OwnVariances) -> bool:
    """Whether candidates can differ from the pool: one with replicates is the pool, two alike make it up."""
    replicated = int((own.df > 0.0).sum())
    alike = len(own.runs) == 2 and bool(own.runs[0] == own.runs[1])
    return replicated > 1 and not alike


def checkpoint_noise(trajectories: Sequence[tuple[Floats, Floats]], last: int = 5) -> TrainingNoise:
    """Noise from the last checkpoints of each run: scatter about a line in tokens, pooled.

    Args:
        trajectories: (tokens, score) of each run, ascending in tokens; missing scores are NaN.
        last: Checkpoints used of each run; fewer than three scored ones say nothing.
    """
    residuals: list[OffLine] = []
    for tokens, score in trajectories:
        kept = np.isfinite(score)
        x, y = tokens[kept][-last:], score[kept][-last:]
        if len(y) < 3:
            continue
        residuals.append(off_line(x, y))
    df = sum(len(own) for _, own in residuals)
    if df == 0:
        return TrainingNoise.unknown()
    shown = sum(float(own @ own) for _, own in residuals) / df
    return TrainingNoise(
        variance=CHECKPOINT_INFLATION * shown,
        df=float(df),
        source="checkpoints",
        smooth=max(1.0, hidden_factor(residuals) / CHECKPOINT_INFLATION),
    )


def mean_noise(sds: Mapping[str, float], weights: Mapping[str, float], df: float) -> TrainingNoise:
    """Noise of a weighted sum of tasks from declared SDs of the tasks, taken as independent.

    A task without a declared SD makes the whole unknown: guessing 0 would invent certainty.
    """
    if not weights or any(task not in sds for task in weights):
        return TrainingNoise.unknown()
    parts = np.array([(weights[task] * sds[task]) ** 2 for task in weights])
    total = float(parts.sum())
    if total <= 0.0:
        return TrainingNoise.unknown()
    # Welch-Satterthwaite: the sum is known better than its parts, unless one of them dominates.
    return TrainingNoise(
        variance=total, df=float(df * total**2 / (parts**2).sum()), source="published"
    )


def temper(seeds: TrainingNoise, prior: TrainingNoise) -> TrainingNoise:
    """Few seeds, tempered by a prior variance, upwards only.

    Two or three seeds may agree by luck; a prior (checkpoints, published) that says the noise is
    larger is then listened to, as :data:`PRIOR_DF` more observations. A prior that says it is
    smaller is not: checkpoints of one run share its luck, so they miss what seeds show.
    """
    if not (seeds.known and prior.known) or seeds.df >= FEW_DF or prior.variance <= seeds.variance:
        return seeds
    blend = (seeds.df * seeds.variance + PRIOR_DF * prior.variance) / (seeds.df + PRIOR_DF)
    return TrainingNoise(variance=blend, df=seeds.df, source="seeds")


def combine(
    seeds: TrainingNoise, checkpoints: TrainingNoise, published: TrainingNoise
) -> TrainingNoise:
    """The noise a verdict rests on: seeds before checkpoints before published figures."""
    if seeds.known:
        priors = [noise for noise in (checkpoints, published) if noise.known]
        return temper(seeds, priors[0]) if priors else seeds
    if checkpoints.known:
        return replace(
            checkpoints, variance=HIDDEN_INFLATION * checkpoints.smooth * checkpoints.variance
        )
    return published if published.known else TrainingNoise.unknown()
