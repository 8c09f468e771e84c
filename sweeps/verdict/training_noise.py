"""Training noise: variation of a run's score over seeds, with everything else unchanged.

Item noise limits how precisely a run is measured. Training noise limits how precisely a *mixture* is
measured, and no number of items makes it smaller. Its sources, the most reliable first:

    seeds         replicates of the study itself, pooled over candidates: 2-3 seeds of one candidate
                  hardly determine its own variance, twelve pairs together do
    checkpoints   the last checkpoints of each run about their trend, doubled, and doubled again
                  if there is no other source (see below)
    published     declared SDs, such as those of another model over its last checkpoints
    none          unknown: no winner can be named

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

from sweeps.verdict.covariance import Covariance
from sweeps.verdict.smoothness import hidden_factor, off_line
from sweeps.verdict.trajectories import tables_of

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
"""Factor on the variance between late checkpoints, which share a trajectory. Five checkpoints whose noise
has a lag-one correlation of 0.5 show 0.53 of their variance about a fitted line."""

HIDDEN_INFLATION = 2.0
"""Factor on the checkpoints' variance without seeds: half of a run's noise is assumed to be common to all
its checkpoints, which do not show it. Eight seeds of the demo's run scatter with 3.8 times (95%: 1.3 to 17)
the variance of its last five checkpoints about their line; the two factors make 4."""

MIN_BLOCKED_DF = 4
"""Fewest degrees of freedom that a fit of seed effects must leave (t quantile 2.8, not 4.3)."""

PRIOR_DF = 2.0
"""Degrees of freedom that a prior variance counts for beside few seeds."""

FEW_DF = 8.0
"""Degrees of freedom from seeds from which on a prior variance is ignored."""


@dataclass(frozen=True, kw_only=True)
class TrainingNoise:
    """Variance of the score of one run, with its degrees of freedom and its source."""

    variance: float
    """Variance of one run's score, in score units squared; infinite if unknown."""
    df: float
    """Degrees of freedom behind the variance; 0 if unknown."""
    source: NoiseSource
    smooth: float = 1.0
    """Further factor on the variance of late checkpoints if there are no seeds, because they are more
    strongly correlated than :data:`CHECKPOINT_INFLATION` assumes."""

    @property
    def sd(self) -> float:
        """Standard deviation of one run's score."""
        return math.sqrt(self.variance)

    @property
    def known(self) -> bool:
        """True if the noise has a finite estimate."""
        return self.df > 0.0 and math.isfinite(self.variance)

    @classmethod
    def unknown(cls) -> TrainingNoise:
        """Return the noise of a study without seeds, checkpoints and declared figures."""
        return cls(variance=math.inf, df=0.0, source="none")


class RunScores:
    """Candidate, seed and score of each run; higher is always better."""

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
        """Return the seeds of one candidate, ascending."""
        return sorted(self.seed[self.candidate == candidate].tolist())


@dataclass(frozen=True, kw_only=True)
class OwnVariances:
    """Noise of each candidate by its own replicates, one value per candidate."""

    squares: Floats
    """Sum of the squared residuals of its runs."""
    df: Floats
    """Degrees of freedom behind the sum, fractional if seed effects were fitted; 0 with one run."""
    runs: Floats
    """Number of its runs."""


@dataclass(frozen=True, kw_only=True)
class MeansFit:
    """Least-squares means of the candidates and their noise."""

    means: Floats
    """Mean of each candidate, adjusted for seed effects if these were fitted."""
    unit: Covariance
    """Covariance of the means for a run variance of 1; for contrasts (weights sum to 0) only."""
    noise: TrainingNoise
    """Residual variance of one run; unknown if every candidate has one seed."""
    blocked: bool
    """True if seed effects were fitted: candidates share seeds, and degrees of freedom allow it."""
    own: OwnVariances | None = None
    """The same residuals by candidate; None if no candidate has two runs, or if they add nothing."""


def fit_means(runs: RunScores) -> MeansFit:
    """Return the means of all candidates, with seeds as blocks if the design allows it.

    Blocking removes the effect of a seed that all candidates share (initialisation, data order). It is
    chosen by the design alone and never by the scores, so it does not change the error rate.

    Seed effects sum to 0. The candidates are eliminated from the normal equations (Schur complement), so
    the cost grows with the runs times the seeds, and with the cube of the seeds.
    """
    names, position = np.unique(runs.seed, return_inverse=True)
    seeds = len(names)
    left = len(runs.value) - len(runs.candidates) - (seeds - 1)
    if seeds > 1 and left >= MIN_BLOCKED_DF and _connected(runs.candidate, position):
        return _least_squares(runs, position, seeds)
    return _least_squares(runs, np.zeros_like(position), 1)


def _connected(candidate: NDArray[np.int64], seed: NDArray[np.intp]) -> bool:
    """Return True if every candidate can be compared with every other through seeds that they share.

    Candidates and seeds are the two sides of a graph, with a run as an edge. Their columns have full rank
    if the graph is one piece, and only then.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(candidate.max()) + 1
    size = first + int(seed.max()) + 1
    edges = coo_array((np.ones(len(seed)), (candidate, first + seed)), shape=(size, size))
    return int(connected_components(edges, directed=False, return_labels=False)) == 1


def _least_squares(runs: RunScores, seed: NDArray[np.intp], seeds: int) -> MeansFit:
    """Fit means of candidates and effects of ``seeds`` seeds that sum to 0; 1 = no such effects."""
    counts = np.bincount(runs.candidate)
    means = np.bincount(runs.candidate, runs.value) / counts
    # Sum-to-zero columns, one for each seed but the last; within a candidate less their mean.
    columns = np.vstack([np.eye(seeds - 1), np.full((1, seeds - 1), -1.0)])
    size = (len(counts), seeds)
    table = np.bincount(runs.candidate * seeds + seed, minlength=size[0] * size[1]).reshape(size)
    factor = np.asarray(table @ columns / counts[:, None], dtype=np.float64)
    rows = columns[seed] - factor[runs.candidate]
    inner = np.asarray(np.linalg.inv(rows.T @ rows), dtype=np.float64)
    effects = inner @ (rows.T @ (runs.value - means[runs.candidate]))
    adjusted = means - factor @ effects
    residual = runs.value - adjusted[runs.candidate] - columns[seed] @ effects
    df = len(runs.value) - len(counts) - (seeds - 1)
    noise = TrainingNoise.unknown()
    if df > 0:
        noise = TrainingNoise(
            variance=float(residual @ residual) / df, df=float(df), source="seeds"
        )
    # Each run's part of the residual degrees of freedom: one less its leverage.
    free = 1.0 - 1.0 / counts[runs.candidate] - ((rows @ inner) * rows).sum(axis=1)
    own = OwnVariances(
        squares=np.asarray(np.bincount(runs.candidate, residual**2), dtype=np.float64),
        df=np.where(counts > 1, np.bincount(runs.candidate, free), 0.0),
        runs=counts.astype(np.float64),
    )
    return MeansFit(
        means=adjusted,
        unit=Covariance(diagonal=1.0 / counts, factor=factor, inner=inner),
        noise=noise,
        blocked=seeds > 1,
        own=own if df > 0 and _differs_from_pool(own) else None,
    )


def _differs_from_pool(own: OwnVariances) -> bool:
    """Return True if candidates' variances can differ from the pool.

    One candidate with replicates is the whole pool. Two with the same number of runs make it up together,
    so their difference has the pooled variance.
    """
    replicated = int((own.df > 0.0).sum())
    balanced_pair = len(own.runs) == 2 and bool(own.runs[0] == own.runs[1])
    return replicated > 1 and not balanced_pair


def checkpoint_noise(trajectories: Sequence[tuple[Floats, Floats]], last: int = 5) -> TrainingNoise:
    """Return the noise from the last checkpoints of each run: scatter about a line in tokens, pooled.

    Args:
        trajectories: (tokens, score) of each run, ascending in tokens; missing scores are NaN.
        last: Checkpoints used of each run; a run with fewer than three scored ones is not used.
    """
    residuals = [
        off_line(table.tokens[-last:], table.scores[:, -last:])
        for table in tables_of(trajectories)
        if len(table.tokens) >= 3
    ]
    df = sum(own.size for _, own in residuals)
    if df == 0:
        return TrainingNoise.unknown()
    observed = float(sum(np.vdot(own, own) for _, own in residuals)) / df
    return TrainingNoise(
        variance=CHECKPOINT_INFLATION * observed,
        df=float(df),
        source="checkpoints",
        smooth=max(1.0, hidden_factor(residuals) / CHECKPOINT_INFLATION),
    )


def mean_noise(sds: Mapping[str, float], weights: Mapping[str, float], df: float) -> TrainingNoise:
    """Return the noise of a weighted sum of tasks from their declared SDs, assumed independent.

    One task without a declared SD makes the whole unknown: 0 in its place would make it too small.

    Args:
        sds: Task → SD of one run.
        weights: Task → weight in the sum.
        df: Degrees of freedom behind each SD.
    """
    if not weights or any(task not in sds for task in weights):
        return TrainingNoise.unknown()
    parts = np.array([(weights[task] * sds[task]) ** 2 for task in weights])
    total = float(parts.sum())
    if total <= 0.0:
        return TrainingNoise.unknown()
    # Welch-Satterthwaite: the sum has more degrees of freedom than its parts, unless one dominates.
    return TrainingNoise(
        variance=total, df=float(df * total**2 / (parts**2).sum()), source="published"
    )


def temper(seeds: TrainingNoise, prior: TrainingNoise) -> TrainingNoise:
    """Return the noise from few seeds, raised by a prior variance if that is larger.

    Two or three seeds may agree by luck. A larger prior (checkpoints, published) then counts as
    :data:`PRIOR_DF` more observations. A smaller one is ignored: checkpoints of one run share its seed,
    so they do not show the noise between seeds.
    """
    if not (seeds.known and prior.known) or seeds.df >= FEW_DF or prior.variance <= seeds.variance:
        return seeds
    blend = (seeds.df * seeds.variance + PRIOR_DF * prior.variance) / (seeds.df + PRIOR_DF)
    return TrainingNoise(variance=blend, df=seeds.df, source="seeds")


def combine(
    seeds: TrainingNoise, checkpoints: TrainingNoise, published: TrainingNoise
) -> TrainingNoise:
    """Return the noise that a verdict uses: seeds before checkpoints before published figures."""
    if seeds.known:
        priors = [noise for noise in (checkpoints, published) if noise.known]
        return temper(seeds, priors[0]) if priors else seeds
    if checkpoints.known:
        return replace(
            checkpoints, variance=HIDDEN_INFLATION * checkpoints.smooth * checkpoints.variance
        )
    return published if published.known else TrainingNoise.unknown()
