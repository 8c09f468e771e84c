"""Differences between candidates, corrected for the number of comparisons.

many to one   each candidate against the baseline (Dunnett, JASA 1955), from the joint
              distribution of the t statistics, so correlated candidates are not over-corrected
all pairs     the same for each pair (Tukey's case)
best subset   the candidates that may be the best of all (Gupta 1965; Hsu, Ann. Stat. 1981)
tasks         Holm (1979) over the tasks of one comparison

>>> evidence = Evidence(names=("base", "mix"), means=np.array([0.50, 0.52]), unit=np.eye(2) / 3,
...                     noise=TrainingNoise(variance=1e-4, df=4, source="seeds"))
>>> advantage = many_to_one(evidence, baseline=0)["mix"]
>>> round(advantage.value, 3), round(advantage.p, 3), advantage.p == advantage.p_corrected
(0.02, 0.07, True)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sweeps.verdict.covariance import (
    MOST_DENSE,
    Contrasts,
    Covariance,
    differences,
    matrix,
    product,
    variances,
)
from sweeps.verdict.draws import (
    DRAWS,
    from_normal_score,
    normal_score,
    own_draws,
    own_noise,
    scaled_normals,
    selected_items,
    t_scales,
)
from sweeps.verdict.training_noise import Floats, OwnVariances, TrainingNoise

__all__ = [
    "Estimate",
    "Evidence",
    "Selection",
    "best_subset",
    "joint_df",
    "many_to_one",
    "simultaneous",
]

_MOST_GAIN = 2.0
"""Largest factor by which items raise the degrees of freedom. With few seeds the items' share of the noise
is itself a guess, and largest if the seeds agree by luck: 13 candidates compared with three runs of the
baseline gave 6.5% false winners without this limit, 2.8% with it (benchmarks/verdict_error_rates.py,
``search``)."""

_MOST_JOINT = 100
"""Most comparisons with a joint distribution; its draws cost seconds beyond, so Bonferroni is used."""

_RIVALS = 100
"""Best means that a candidate of more than :data:`~sweeps.verdict.covariance.MOST_DENSE` is compared with
to rule it out. Fewer rivals rule out fewer candidates, and the best means rule out most."""

_MANY = 200.0
"""Items, or groups of them, from which on their noise counts as known."""

_RARE = 50
"""Fewest draws beyond a statistic; with fewer the Bonferroni bound is used, which is tight there."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Difference between candidates with its noise and p-values; positive = better."""

    value: float
    """The difference, in score units."""
    standard_error: float
    """Standard error from training and item noise together."""
    df: float
    """Degrees of freedom of the standard error."""
    low: float
    """Lower end of the interval that holds for all comparisons at once."""
    high: float
    """Upper end of the same interval."""
    p: float
    """Two-sided p-value of this comparison alone."""
    p_corrected: float
    """Two-sided p-value, corrected for the number of comparisons."""

    @property
    def t(self) -> float:
        """Difference in standard errors; 0 if the noise is unknown."""
        return _ratio(self.value, self.standard_error)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Choice of the compared candidates by their scores on the same items."""

    searched: int
    """Candidates that were scored before the choice, without those in ``unchosen``."""
    seeds: float
    """Runs of each of them that the choice was made from, on average."""
    unchosen: tuple[str, ...] = ()
    """Candidates that were not chosen by their scores: the baseline."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Means of the candidates and the noise of their differences."""

    names: tuple[str, ...]
    means: Floats
    """Higher is better."""
    unit: Floats | Covariance
    """Covariance of the means for a run variance of 1."""
    noise: TrainingNoise
    item_covariance: Floats | Covariance | None = None
    """Covariance of the means from the choice of items; None if items were not kept."""
    item_df: float = math.inf
    """Degrees of freedom of the item covariance: items, or groups of them, less one."""
    alpha: float = 0.05
    """Two-sided error rate over all comparisons."""
    own: OwnVariances | None = None
    """Variance of each candidate's own replicates; None without any, or if they add nothing."""
    selection: Selection | None = None
    """Choice of the candidates; None if all that were searched are compared."""

    def contrasts(self, weights: Floats | Contrasts) -> tuple[Floats, Floats, Floats]:
        """Return values, variances and degrees of freedom of contrasts (rows that sum to 0)."""
        parts = self.parts(weights)
        return parts.values, parts.variance, parts.df

    def parts(self, weights: Floats | Contrasts) -> Parts:
        """Return the contrasts (rows that sum to 0) with the two parts of their noise separate."""
        values = product(weights, self.means)
        training, items = variances(self.unit, weights), np.zeros(len(values))
        ratio, known = np.ones(len(values)), np.full(len(values), self.noise.df)
        if self.item_covariance is not None:
            items = variances(self.item_covariance, weights)
        if not self.noise.known:
            training = np.full_like(training, math.inf)
            return Parts(values, training, items, ratio, np.ones(len(values)))
        training = training * self.noise.variance
        if self.own is not None:
            pool = np.array(self.noise.variance)
            ratio, known = own_noise(self.own, pool, self.noise.df, weights, self.own.squares)
        df = joint_df(training * ratio, known, items, self.item_df)
        return Parts(values, training, items, ratio, df)

    def covariances(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return two covariances of a few contrasts: by the pooled training noise, by the choice of items."""
        training = matrix(self.unit, weights) * self.noise.variance
        if self.item_covariance is None:
            return training, np.zeros_like(training)
        return training, matrix(self.item_covariance, weights)


def joint_df(training: Floats, known: Floats, items: Floats, item_df: float) -> Floats:
    """Return the degrees of freedom of the sum of two noises."""
    # Welch-Satterthwaite.
    spread = training**2 / known + items**2 / item_df
    df = np.where(spread > 0.0, (training + items) ** 2 / np.maximum(spread, 1e-300), known)
    return np.asarray(np.minimum(df, _MOST_GAIN * known))


@dataclass(frozen=True)
class Parts:
    """Contrasts with the two parts of their noise separate, one value for each contrast."""

    values: Floats
    training: Floats
    """Variance by the pooled training noise."""
    items: Floats
    """Variance by the choice of items."""
    ratio: Floats
    """Training variance of each contrast over that by the pooled noise, at least 1."""
    df: Floats
    """Degrees of freedom of each contrast."""

    @property
    def variance(self) -> Floats:
        """Both parts together, each contrast with the larger of the two training variances."""
        return np.asarray(self.training * self.ratio + self.items)

    def t(self) -> Floats:
        """Return the values in standard errors; 0 if the noise is unknown."""
        errors = np.sqrt(self.variance)
        exact = np.where(self.values == 0.0, 0.0, np.copysign(math.inf, self.values))
        return np.divide(self.values, errors, out=exact, where=errors > 0.0)


def many_to_one(evidence: Evidence, baseline: int) -> dict[str, Estimate]:
    """Return each other candidate minus the baseline, with intervals that hold together.

    Args:
        evidence: Means and noise of the candidates.
        baseline: Position of the baseline among them.
    """
    others = [k for k in range(len(evidence.names)) if k != baseline]
    count = len(evidence.names)
    many = len(others) > _MOST_JOINT
    weights = (differences if many else _against)(count, others, baseline)
    estimates = simultaneous(evidence, weights)
    return {evidence.names[k]: estimate for k, estimate in zip(others, estimates, strict=True)}


def simultaneous(evidence: Evidence, weights: Floats | Contrasts) -> list[Estimate]:
    """Return estimates of several contrasts whose intervals hold together at ``1 - alpha``.

    Args:
        evidence: Means and noise of the candidates.
        weights: Contrasts x candidates; rows sum to 0.
    """
    if not len(weights):
        return []
    parts = evidence.parts(weights)
    values, df = parts.values, parts.df
    if not evidence.noise.known:
        return [_unknown(float(value)) for value in values]
    errors = np.sqrt(parts.variance)
    raw, corrected, critical = _joint(evidence, weights, parts)
    return [
        Estimate(
            value=float(values[k]),
            standard_error=float(errors[k]),
            df=float(df[k]),
            low=float(values[k] - critical[k] * errors[k]),
            high=float(values[k] + critical[k] * errors[k]),
            p=float(raw[k]),
            p_corrected=float(corrected[k]),
        )
        for k in range(len(values))
    ]


def _joint(
    evidence: Evidence, weights: Floats | Contrasts, parts: Parts
) -> tuple[Floats, Floats, Floats]:
    """Return raw and corrected p-values, and the critical |t| of each contrast for all at once."""
    t, df = np.abs(parts.t()), parts.df
    raw = 2.0 * stats.t.sf(t, df)
    many = _comparisons(evidence, parts)
    bonferroni = np.minimum(1.0, many * raw)
    bound = stats.t.isf(evidence.alpha / 2.0 / many, df)
    alone = len(t) == 1 and evidence.own is None and evidence.selection is None
    if alone or isinstance(weights, Contrasts) or len(t) > _MOST_JOINT:
        return raw, bonferroni, bound
    draws = _null_scores(evidence, weights, parts)
    observed = _scores(evidence, np.abs(t), df)
    if evidence.own is not None:
        beyond = (np.abs(draws) >= observed).sum(axis=0)
        raw = np.where(beyond < _RARE, raw, np.minimum(raw, beyond / DRAWS))
    largest = np.sort(np.abs(draws).max(axis=1))
    beyond = DRAWS - np.searchsorted(largest, observed, side="left")
    corrected = np.where(beyond < _RARE, bonferroni, beyond / DRAWS)
    critical = float(np.quantile(largest, 1.0 - evidence.alpha))
    joint = np.full(len(t), critical)
    if evidence.own is not None:
        joint = from_normal_score(critical, df)
    return raw, np.maximum(raw, np.minimum(bonferroni, corrected)), np.minimum(joint, bound)


def _comparisons(evidence: Evidence, parts: Parts) -> int:
    """Return the number of comparisons to correct for; a choice on the same items counts all searched."""
    shared = evidence.selection is not None and bool((parts.items > 0.0).any())
    return max(
        len(parts.values), evidence.selection.searched if shared and evidence.selection else 0
    )


def _scores(evidence: Evidence, t: Floats, df: Floats) -> Floats:
    """Return signed statistics on the scale on which contrasts are compared with one another."""
    if evidence.own is None:
        return t
    return np.asarray(np.copysign(normal_score(t, df), t))


def _null_scores(evidence: Evidence, weights: Floats, parts: Parts) -> Floats:
    """Return draws x contrasts of :func:`_scores` under equal candidates."""
    v1, v2 = parts.training, parts.items
    training, item_part = evidence.covariances(weights)
    total = np.where(v1 + v2 > 0.0, v1 + v2, 1.0)
    if evidence.selection is None or not (v2 > 0.0).any():
        normal, rank = scaled_normals(training + item_part)
    else:
        normal, rank = scaled_normals(training)
        items = _selected(evidence, evidence.selection, weights, v2)
        normal = normal * np.sqrt(v1 / total) + items * np.sqrt(v2 / total)
    if evidence.own is None:
        return np.asarray(normal * t_scales(rank, round(float(parts.df.min()), 1))[:, None])
    # With few seeds the items' share is a guess: like the degrees of freedom, it is limited to the value
    # at which it would double these.
    share = np.maximum(v1 / total, 1.0 / math.sqrt(_MOST_GAIN))
    variance, known = own_draws(evidence.own, weights)
    df = joint_df(share * variance, known, 1.0 - share, evidence.item_df)
    variance = variance**share
    if evidence.item_df < _MANY:
        variance = variance * t_scales(rank, evidence.item_df)[:, None] ** (-2.0 * (1.0 - share))
    return _scores(evidence, np.asarray(normal / np.sqrt(variance)), df)


def _selected(evidence: Evidence, selection: Selection, weights: Floats, items: Floats) -> Floats:
    """Return draws x contrasts of the items' part, SD 1 before the choice, after it."""
    names = evidence.names
    chosen = [k for k, name in enumerate(names) if name not in selection.unchosen]
    others = [k for k in range(len(names)) if k not in chosen]
    # Half of a difference's item noise belongs to each candidate; the run noise is that of the choice.
    own = float(items[items > 0.0].mean()) / 2.0
    share = own / (own + evidence.noise.variance / selection.seeds)
    kept = len(chosen)
    best = selected_items(max(selection.searched, kept), kept, round(share, 2))
    draws = np.zeros((DRAWS, len(names)))
    draws[:, chosen] = best[:, :kept]
    draws[:, others] = best[:, kept:]
    length = np.sqrt((weights**2).sum(axis=1))
    return np.asarray(draws @ (weights / length[:, None]).T)


def best_subset(evidence: Evidence) -> tuple[tuple[str, ...], dict[str, float]]:
    """Return the candidates that cannot be ruled out as the best, and the p-value of each being best.

    The set contains the truly best candidate with probability at least ``1 - alpha / 2``: a candidate
    is ruled out only if another one beats it in a one-sided test corrected for all the others. At
    ``alpha / 2`` the rule agrees with the two-sided comparison against the baseline.
    """
    count = len(evidence.names)
    if count == 1 or not evidence.noise.known:
        return evidence.names, dict.fromkeys(evidence.names, 1.0)
    if count - 1 > _MOST_JOINT:
        p_best = dict(zip(evidence.names, _bounds_of_best(evidence), strict=True))
    else:
        p_best = {name: _p_of_best(evidence, k) for k, name in enumerate(evidence.names)}
    finalists = tuple(name for name in evidence.names if p_best[name] > evidence.alpha / 2.0)
    return finalists, p_best


def _p_of_best(evidence: Evidence, k: int) -> float:
    """Return the p-value of one of a few candidates being the best."""
    count = len(evidence.names)
    others = [j for j in range(count) if j != k]
    weights = _against(count, others, k)
    parts = evidence.parts(weights)
    tail = float(stats.t.sf(parts.t(), parts.df).min())
    bound = min(1.0, _comparisons(evidence, parts) * tail)
    alone = len(others) == 1 and evidence.selection is None
    # Only candidates near the border need draws: no correction lowers p, and p is at most the bound.
    if alone or tail > 2.0 * evidence.alpha or bound <= evidence.alpha / 2.0:
        return bound
    most = float(_scores(evidence, parts.t(), parts.df).max())
    beyond = int((_null_scores(evidence, weights, parts).max(axis=1) >= most).sum())
    return bound if beyond < _RARE else max(tail, min(bound, beyond / DRAWS))


def _bounds_of_best(evidence: Evidence) -> list[float]:
    """Return Bonferroni's bound on the p-value of each of many candidates being the best."""
    count = len(evidence.names)
    rivals = np.argsort(-evidence.means, kind="stable")
    if count > MOST_DENSE:
        rivals = rivals[:_RIVALS]
    tails, compared = np.ones(count), np.full(count, count - 1)
    for rival in rivals.tolist():
        others = np.delete(np.arange(count), rival)
        parts = evidence.parts(differences(count, others.tolist(), rival))
        tails[others] = np.minimum(tails[others], stats.t.sf(-parts.t(), parts.df))
        if evidence.selection is not None:
            searched = np.where(parts.items > 0.0, evidence.selection.searched, 0)
            compared[others] = np.maximum(compared[others], searched)
    return [min(1.0, float(bound)) for bound in compared * tails]


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
