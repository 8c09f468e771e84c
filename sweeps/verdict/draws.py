"""Draws of the statistics of several contrasts at once, under equal candidates.

    plain      the joint t distribution: one estimate of the variance for all contrasts
    own        each contrast over the larger of the pooled and its own candidates' noise: the joint
               distribution of these statistics, with the same degrees of freedom behind both
    selected   confirmed candidates were chosen, out of more than are compared, on the same items that
               they are compared on: their part of the item noise is that of the best of all searched

All draws have fixed seeds: the same evidence gives the same p-value every time.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import stats

from sweeps.verdict.covariance import MOST_DENSE, Contrasts, power_sums
from sweeps.verdict.training_noise import Floats, OwnVariances

__all__ = [
    "DRAWS",
    "from_normal_score",
    "normal_score",
    "own_draws",
    "own_noise",
    "scaled_normals",
    "selected_items",
    "t_scales",
]

DRAWS = 2**14
"""Number of draws of a joint distribution, evenly spread: a p-value of 0.05 is known to within 0.001."""

_SEED = 20_260_101


def own_noise(
    own: OwnVariances,
    pool: Floats,
    pool_df: float,
    weights: Floats | Contrasts,
    squares: Floats,
) -> tuple[Floats, Floats]:
    """Return the training variance of contrasts over the pooled one, and its degrees of freedom.

    Args:
        own: Degrees of freedom and runs of each candidate.
        pool: Pooled variance of one run, any shape.
        pool_df: Degrees of freedom behind it.
        weights: Contrasts x candidates.
        squares: Residual sums of squares, shape of the pool x candidates.

    Returns:
        Two arrays, shape of the pool x contrasts. The variance is the largest of three: by the pool, by the
        candidates' own replicates, and by the pool of the candidates with the same number of runs (noisy
        ones may have fewer). So it is at least 1: if few replicates agree by luck, the pool is used. The
        degrees of freedom of a larger variance are those of the replicates behind it (Welch-Satterthwaite).
    """
    common = np.asarray(pool)[..., None]
    sizes, place = np.unique(own.runs, return_inverse=True)
    estimates = [(squares, own.df)]
    if len(sizes) > 1:
        member = (place[:, None] == np.arange(len(sizes))).astype(np.float64)
        estimates.append(((squares @ member)[..., place], (own.df @ member)[place]))
    ratio = np.ones((*np.shape(pool), len(weights)))
    df = np.full_like(ratio, pool_df)
    for own_squares, own_df in estimates:
        size, size_df = _beyond(own_squares, own_df, common, pool_df, weights, own.runs)
        ratio, df = np.maximum(ratio, size), np.where(size > ratio, size_df, df)
    return ratio, df


def _beyond(
    squares: Floats,
    df: Floats,
    pool: Floats,
    pool_df: float,
    weights: Floats | Contrasts,
    runs: Floats,
) -> tuple[Floats, Floats]:
    """Return the variance of contrasts by the candidates' variances over the pooled one, and its df."""
    known = df > 0.0
    own = np.where(known, squares / np.where(known, df, 1.0) / pool, 1.0)
    size = power_sums(weights, 2, 1.0 / runs)
    ratio = power_sums(weights, 2, own / runs) / size
    excess = np.maximum(0.0, own - 1.0) ** 2 / np.where(known, df, 1.0)
    uncertainty = power_sums(weights, 4, excess / runs**2) / size**2
    return ratio, np.minimum(pool_df, ratio**2 / (1.0 / pool_df + uncertainty))


def own_draws(own: OwnVariances, weights: Floats) -> tuple[Floats, Floats]:
    """Return draws of the variance of each contrast if the true one is 1, and of its df.

    Args:
        own: Degrees of freedom and runs of each candidate.
        weights: Contrasts x candidates.

    Returns:
        Two arrays of draws x contrasts.
    """
    if len(own.runs) > MOST_DENSE:
        own, weights = _merged(own, weights)
    key = (own.df.round(6).tobytes(), own.runs.tobytes(), weights.tobytes())
    return _own_draws(*key, len(own.runs))


def _merged(own: OwnVariances, weights: Floats) -> tuple[OwnVariances, Floats]:
    """Return the same candidates, those outside the contrasts merged by their number of runs.

    They count in the pools alone, where a sum of chi-squares is a chi-square.
    """
    used = (weights != 0.0).any(axis=0)
    sizes, place = np.unique(own.runs[~used], return_inverse=True)
    rest = np.bincount(place, own.df[~used], minlength=len(sizes))
    return OwnVariances(
        squares=np.zeros(int(used.sum()) + len(sizes)),
        df=np.concatenate([own.df[used], rest]),
        runs=np.concatenate([own.runs[used], sizes]),
    ), np.concatenate([weights[:, used], np.zeros((len(weights), len(sizes)))], axis=1)


@functools.lru_cache(maxsize=8)
def _own_draws(df: bytes, runs: bytes, weights: bytes, count: int) -> tuple[Floats, Floats]:
    own = OwnVariances(squares=np.zeros(count), df=np.frombuffer(df), runs=np.frombuffer(runs))
    squares = _chi_squares(tuple(own.df.tolist()))
    total = float(own.df.sum())
    pool = squares.sum(axis=1) / total
    rows = np.frombuffer(weights).reshape(-1, count)
    ratio, known = own_noise(own, pool, total, rows, squares)
    return pool[:, None] * ratio, known


def normal_score(t: Floats, df: Floats) -> Floats:
    """Return |t| on the scale of a normal deviate, so that statistics of different df can be compared.

    Wallace (1959): within 1% of the exact score for 2 degrees of freedom and more.
    """
    return np.asarray((8.0 * df + 1.0) / (8.0 * df + 3.0) * np.sqrt(df * np.log1p(t**2 / df)))


def from_normal_score(score: float, df: Floats) -> Floats:
    """Return the |t| that has this :func:`normal_score`."""
    scaled = score * (8.0 * df + 3.0) / (8.0 * df + 1.0)
    return np.asarray(np.sqrt(df * np.expm1(np.minimum(scaled**2 / df, 600.0))))


@functools.lru_cache(maxsize=32)
def _chi_squares(df: tuple[float, ...]) -> Floats:
    rng = np.random.default_rng([_SEED, len(df)])
    draws = np.zeros((DRAWS, len(df)))
    for k, own in enumerate(df):
        if own > 0.0:
            draws[:, k] = rng.chisquare(own, DRAWS)
    return draws


def scaled_normals(covariance: Floats) -> tuple[Floats, int]:
    """Return draws x contrasts, normal with variance 1 each, and the number of columns drawn for them.

    The root of the covariance is the symmetric one: it is the only root that does not depend on the basis of
    equal eigenvalues, which differs by processor. With another one the same records gave limits that
    differed by 1%.
    """
    errors = np.sqrt(np.diag(covariance))
    safe = np.where(errors > 0.0, errors, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(safe, safe))
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return np.asarray(_even_draws(len(values))[0] @ root), len(values)


@functools.lru_cache(maxsize=64)
def _even_draws(columns: int) -> tuple[Floats, Floats]:
    """Return draws x columns of normals, and one uniform per draw: evenly spread (scrambled Sobol) points."""
    points = stats.qmc.Sobol(columns + 1, rng=np.random.default_rng(_SEED)).random(DRAWS)
    inside = np.clip(points, 1e-12, 1.0 - 1e-12)
    return stats.norm.ppf(inside[:, :-1]), inside[:, -1]


@functools.lru_cache(maxsize=256)
def t_scales(columns: int, df: float) -> Floats:
    """Return one over the square root of chi-square / df per draw, beside normals of ``columns`` columns."""
    if not math.isfinite(df):
        return np.ones(DRAWS)
    return np.asarray(1.0 / np.sqrt(stats.chi2.ppf(_even_draws(columns)[1], df) / df))


@functools.lru_cache(maxsize=64)
def selected_items(searched: int, kept: int, share: float) -> Floats:
    """Return draws of the item noise of the ``kept`` best of ``searched`` equal candidates.

    Args:
        searched: Candidates that were scored on the items.
        kept: Number of them, the best by that score, that are compared.
        share: Share of the variance of that score that the items cause, 0 to 1.

    Returns:
        draws x (kept + 1), SD 1 before the choice; the last column is a candidate that was not chosen.
    """
    rng = np.random.default_rng([_SEED, searched, kept])
    # The largest of n uniforms is U ** (1 / n), and the next is the largest of n - 1 below it.
    steps = rng.random((DRAWS, kept)) ** (1.0 / (searched - np.arange(kept)))
    best = stats.norm.ppf(np.clip(np.cumprod(steps, axis=1), 1e-12, 1.0 - 1e-12))
    rest = rng.standard_normal((DRAWS, kept + 1))
    chosen = math.sqrt(share) * best + math.sqrt(1.0 - share) * rest[:, :kept]
    return np.asarray(np.hstack([chosen, rest[:, kept:]]))
