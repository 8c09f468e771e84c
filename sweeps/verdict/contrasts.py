"""Differences between candidates, all at once: what many looks at the same noise do to a p-value.

many to one   every candidate against the baseline (Dunnett, JASA 1955), from the joint
              distribution of the t statistics, so correlated candidates are not over-corrected
all pairs     the same for every pair (Tukey's case)
best subset   the candidates that may be the best of all (Gupta 1965; Hsu, Ann. Stat. 1981)
tasks         Holm (1979) over the tasks of one comparison

>>> evidence = Evidence(names=("base", "mix"), means=np.array([0.50, 0.52]), unit=np.eye(2) / 3,
...                     noise=TrainingNoise(variance=1e-4, df=4, source="seeds"))
>>> advantage = many_to_one(evidence, baseline=0)["mix"]
>>> round(advantage.value, 3), round(advantage.p, 3), advantage.p == advantage.p_corrected
(0.02, 0.07, True)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats

from sweeps.verdict.noise import Floats, TrainingNoise

__all__ = [
    "Estimate",
    "Evidence",
    "all_pairs",
    "best_subset",
    "holm",
    "many_to_one",
    "simultaneous",
]

DRAWS = 2**14
"""Draws of the joint t distribution, evenly spread: a p-value of 0.05 is known to within 0.001."""

_MOST_GAIN = 2.0
"""Items may at most double the degrees of freedom. With few seeds their share of the noise is itself
a guess, largest where the seeds agree by luck: 13 candidates judged by three runs of the baseline gave
6.5% false winners without this limit, 2.8% with it (benchmarks/verdict_error_rates.py, ``search``)."""

_MOST_JOINT = 100
"""With more comparisons Bonferroni stands in: draws of a large joint distribution cost seconds."""

_RARE = 50
"""With fewer draws beyond a statistic the Bonferroni bound, tight out there, is used instead."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference with everything that is known of it; positive = better."""

    value: float
    """The difference, in score units."""
    standard_error: float
    """Training and item noise together."""
    df: float
    """Degrees of freedom of the standard error."""
    low: float
    """Lower end of the interval that holds for all comparisons at once."""
    high: float
    """Upper end of it."""
    p: float
    """Two-sided, of this comparison alone."""
    p_corrected: float
    """Two-sided, corrected for the number of comparisons."""

    @property
    def t(self) -> float:
        """The difference in standard errors; 0 where the noise is unknown."""
        return _ratio(self.value, self.standard_error)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Means of the candidates and the noise of their differences."""

    names: tuple[str, ...]
    means: Floats
    """Higher is better."""
    unit: Floats
    """Covariance of the means for a run variance of 1."""
    noise: TrainingNoise
    item_covariance: Floats | None = None
    """Covariance of the means from the choice of items; None where items were not kept."""
    item_df: float = math.inf
    """Items behind it, less one."""
    alpha: float = field(default=0.05)

    def contrasts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Values, covariance and degrees of freedom of contrasts (rows that sum to 0)."""
        values = weights @ self.means
        training = weights @ self.unit @ weights.T
        items = np.zeros_like(training)
        if self.item_covariance is not None:
            items = weights @ self.item_covariance @ weights.T
        if not self.noise.known:
            return values, np.full_like(training, math.inf), np.ones(len(values))
        training = training * self.noise.variance
        v1, v2 = np.diag(training), np.diag(items)
        # Welch-Satterthwaite: two noises, each known as well as its own degrees of freedom allow.
        spread = v1**2 / self.noise.df + v2**2 / self.item_df
        df = np.where(spread > 0.0, (v1 + v2) ** 2 / np.maximum(spread, 1e-300), self.noise.df)
        df = np.minimum(df, _MOST_GAIN * self.noise.df)
        return values, training + items, df


def many_to_one(evidence: Evidence, baseline: int) -> dict[str, Estimate]:
    """Every other candidate minus the baseline, with intervals that hold together."""
    others = [k for k in range(len(evidence.names)) if k != baseline]
    estimates = simultaneous(evidence, _against(len(evidence.names), others, baseline))
    return {evidence.names[k]: estimate for k, estimate in zip(others, estimates, strict=True)}


def all_pairs(evidence: Evidence) -> dict[tuple[str, str], Estimate]:
    """First minus second for every pair in order of names, with intervals that hold together."""
    count = len(evidence.names)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    weights = np.zeros((len(pairs), count))
    for row, (i, j) in enumerate(pairs):
        weights[row, i], weights[row, j] = 1.0, -1.0
    return {
        (evidence.names[i], evidence.names[j]): estimate
        for (i, j), estimate in zip(pairs, simultaneous(evidence, weights), strict=True)
    }


def simultaneous(evidence: Evidence, weights: Floats) -> list[Estimate]:
    """Estimates of several contrasts whose intervals hold together at ``1 - alpha``."""
    if not len(weights):
        return []
    values, covariance, df = evidence.contrasts(weights)
    if not evidence.noise.known:
        return [_unknown(float(value)) for value in values]
    errors = np.sqrt(np.diag(covariance))
    t = np.array([abs(_ratio(v, e)) for v, e in zip(values, errors, strict=True)])
    raw = 2.0 * stats.t.sf(t, df)
    corrected, critical = _joint(t, covariance, float(df.min()), raw, evidence.alpha)
    return [
        Estimate(
            value=float(values[k]),
            standard_error=float(errors[k]),
            df=float(df[k]),
            low=float(values[k] - critical * errors[k]),
            high=float(values[k] + critical * errors[k]),
            p=float(raw[k]),
            p_corrected=float(corrected[k]),
        )
        for k in range(len(values))
    ]


def _joint(
    t: Floats, covariance: Floats, df: float, raw: Floats, alpha: float
) -> tuple[Floats, float]:
    """Corrected p-values and the critical value of the largest of several |t|."""
    if len(t) == 1 or len(t) > _MOST_JOINT:
        return np.minimum(1.0, len(t) * raw), float(stats.t.isf(alpha / 2.0 / len(t), df))
    largest = np.sort(np.abs(_t_draws(covariance, df)).max(axis=1))
    beyond = len(largest) - np.searchsorted(largest, t, side="left")
    bonferroni = np.minimum(1.0, len(t) * raw)
    corrected = np.where(beyond < _RARE, bonferroni, beyond / len(largest))
    critical = min(
        float(np.quantile(largest, 1.0 - alpha)), float(stats.t.isf(alpha / 2.0 / len(t), df))
    )
    return np.maximum(raw, np.minimum(bonferroni, corrected)), critical


def best_subset(evidence: Evidence) -> tuple[tuple[str, ...], dict[str, float]]:
    """The candidates that cannot be ruled out as the best, and the p-value of each being it.

    The set holds the truly best candidate with probability ``1 - alpha / 2`` at least: a candidate
    leaves only where another beats it one-sidedly, corrected for all the others. At ``alpha / 2``
    the rule agrees with the two-sided comparison against the baseline.
    """
    count = len(evidence.names)
    if count == 1 or not evidence.noise.known:
        return evidence.names, dict.fromkeys(evidence.names, 1.0)
    p_best = {}
    for k, name in enumerate(evidence.names):
        others = [j for j in range(count) if j != k]
        values, covariance, df = evidence.contrasts(_against(count, others, k))
        errors = np.sqrt(np.diag(covariance))
        t = max(_ratio(v, e) for v, e in zip(values, errors, strict=True))
        tail = float(stats.t.sf(t, df.min()))
        bound = min(1.0, len(others) * tail)
        if len(others) == 1 or bound <= evidence.alpha / 2.0 or len(others) > _MOST_JOINT:
            p_best[name] = bound
            continue
        beyond = int((_t_draws(covariance, float(df.min())).max(axis=1) >= t).sum())
        p_best[name] = bound if beyond < _RARE else max(tail, min(bound, beyond / DRAWS))
    finalists = tuple(name for name in evidence.names if p_best[name] > evidence.alpha / 2.0)
    return finalists, p_best


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN (not tested) stays NaN and is not counted."""
    tested = sorted((p, k) for k, p in enumerate(p_values) if not math.isnan(p))
    corrected, running = [math.nan] * len(p_values), 0.0
    for rank, (p, k) in enumerate(tested):
        running = max(running, min(1.0, (len(tested) - rank) * p))
        corrected[k] = running
    return corrected


def corrected_by_holm(estimates: Sequence[Estimate]) -> list[Estimate]:
    """The same estimates with Holm's correction over them."""
    corrected = holm([estimate.p for estimate in estimates])
    return [replace(e, p_corrected=p) for e, p in zip(estimates, corrected, strict=True)]


def _against(count: int, others: Sequence[int], reference: int) -> Floats:
    weights = np.zeros((len(others), count))
    weights[np.arange(len(others)), list(others)] = 1.0
    weights[:, reference] = -1.0
    return weights


def _ratio(value: float, error: float) -> float:
    if value == 0.0 or math.isinf(error):
        return 0.0
    return value / error if error > 0.0 else math.copysign(math.inf, value)


def _unknown(value: float) -> Estimate:
    return Estimate(
        value=value,
        standard_error=math.inf,
        df=0.0,
        low=-math.inf,
        high=math.inf,
        p=1.0,
        p_corrected=1.0,
    )


def _t_draws(covariance: Floats, df: float) -> Floats:
    """Draws of the joint t of contrasts with this covariance, each scaled to a t of its own."""
    errors = np.sqrt(np.diag(covariance))
    safe = np.where(errors > 0.0, errors, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(safe, safe))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    rank = int((values > 1e-9).sum())
    normal, even = _even_draws(rank)
    # One scale for all contrasts, since they share one estimate of the variance.
    scale = _scales(rank, round(df, 1)) if math.isfinite(df) else np.ones_like(even)
    return np.asarray(normal @ root[:, len(values) - rank :].T * scale[:, None])


@functools.lru_cache(maxsize=64)
def _even_draws(columns: int) -> tuple[Floats, Floats]:
    """Normal draws and uniform ones beside them, spread evenly (scrambled Sobol points).

    The seed is fixed: the same evidence gets the same p-value today and in the report.
    """
    points = stats.qmc.Sobol(columns + 1, rng=np.random.default_rng(20_260_101)).random(DRAWS)
    inside = np.clip(points, 1e-12, 1.0 - 1e-12)
    return stats.norm.ppf(inside[:, :-1]), inside[:, -1]


@functools.lru_cache(maxsize=256)
def _scales(columns: int, df: float) -> Floats:
    """One over the square root of chi-square / df."""
    return np.asarray(1.0 / np.sqrt(stats.chi2.ppf(_even_draws(columns)[1], df) / df))
