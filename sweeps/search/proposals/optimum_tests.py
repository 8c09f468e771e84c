"""Test an optimum of a fitted surrogate with four questions.

    skill       do predictions of left-out runs follow the losses better than shuffled losses allow?
    baseline    is the optimum better than the baseline, with 90% confidence?
    best run    is it no worse than the best run so far?
    inside      does it lie among the optima of resampled runs?

Each fitted surface has an optimum, even one of pure noise. It is worth a run or a full run only if
all four answers are yes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sweeps.search.space import Floats
from sweeps.search.surrogates.base import Family, Surrogate, folds

__all__ = [
    "MIN_RUNS",
    "NO_SKILL",
    "Difference",
    "Refit",
    "Skill",
    "Trust",
    "difference",
    "inside",
    "judge",
    "skill",
]

_PERMUTATIONS = 20
_LEVEL = 0.05
"""Largest probability of a skill among shuffled losses, for all compared families together."""

_SKILL_RUNS = 192
"""Largest number of runs that the skill is measured on: more are not needed to find a skill, and 21
columns of 512 runs take a Gaussian process a minute."""

_MOST_MORE = 10.0
"""Largest factor of runs that is reported; beyond it the estimate is meaningless."""

Loss = Callable[[Floats], Floats]
"""Function that returns predicted losses ``[n]`` of coordinates ``[n, d]``; less is better."""


@dataclass(frozen=True, kw_only=True)
class Skill:
    """Rank correlation of predictions and losses of left-out runs, against shuffled losses."""

    correlation: float
    """Rank correlation within folds, so that a model that predicts the mean has 0."""
    shuffled: float
    """Standard deviation of the correlation over shuffled losses."""
    chance: float
    """Probability of this correlation among shuffled losses, for the best of all families."""
    needed: float
    """Smallest correlation that is accepted."""


MIN_RUNS = 8
"""Smallest number of runs that a skill can be measured on: two folds of four."""

NO_SKILL = Skill(correlation=0.0, shuffled=1.0, chance=1.0, needed=1.0)
"""Skill of a fit to fewer runs."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Predicted loss of the optimum minus that of another mixture; below zero is better."""

    to: str
    value: float
    """Difference, corrected for the bias of choosing an optimum."""
    low: float
    """Lower bound at 90%, over refits on resampled runs."""
    high: float
    """Upper bound at 90%."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Result of the tests of an optimum."""

    enough: bool
    reasons: tuple[str, ...]
    """Failed tests, one sentence each; empty if all passed."""
    more_runs: int | None
    """Estimate of the further runs that are needed if the figures stay the same; None when enough."""
    skill: Skill
    best_run: Difference | None
    """Difference from the best run; None if the runs were not resampled."""
    baseline: Difference | None
    inside: bool | None
    """True if the optimum lies among the optima of resampled runs."""

    def plain(self) -> dict[str, Any]:
        """Return JSON values; a number that is not finite is null."""
        plain: dict[str, Any] = _finite(asdict(self))
        return plain


@dataclass(frozen=True)
class Refit:
    """Fit on resampled runs."""

    loss: Loss
    optimum: Floats


def skill(
    family: Family,
    inputs: Floats,
    losses: Floats,
    *,
    compared: int = 1,
    fold_count: int = 5,
    seed: int = 0,
) -> Skill:
    """Measure the skill of a family on left-out runs and on shuffled losses.

    The losses and their permutations are columns of one table, fitted on the same folds. The bound
    is a t distribution of the permutations, its level divided among the families compared.

    Args:
        family: Family that was chosen.
        inputs: Inputs ``[n, m]``.
        losses: Losses ``[n]``, finite.
        compared: Number of families that it was chosen from.
        fold_count: Largest number of folds; each has at least four runs.
        seed: Seed of folds and permutations.
    """
    from scipy.stats import rankdata, t

    rng = np.random.default_rng((seed, len(losses), 0x5111))
    some = np.sort(rng.permutation(len(losses))[:_SKILL_RUNS])
    inputs, losses = inputs[some], losses[some]
    columns = [losses, *(rng.permutation(losses) for _ in range(_PERMUTATIONS))]
    table = np.stack(columns, axis=1)
    fold = folds(len(losses), max(2, min(fold_count, len(losses) // 4)), seed)
    predicted = np.zeros_like(table)
    for number in np.unique(fold):
        test = fold == number
        model = Surrogate(family, seed=seed).fit(inputs[~test], table[~test])
        predicted[test] = model.predict(inputs[test])
    left, right = rankdata(predicted, axis=0), rankdata(table, axis=0)
    for number in np.unique(fold):
        test = fold == number
        left[test] -= left[test].mean(axis=0)
        right[test] -= right[test].mean(axis=0)
    size = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    found = (left * right).sum(axis=0) / np.where(size > 0.0, size, 1.0)
    own, shuffled = float(found[0]), found[1:]
    # The standard deviation of shuffled correlations is at least 1 / sqrt(runs).
    spread = max(float(np.sqrt(np.mean(shuffled**2))), 1.0 / math.sqrt(len(losses)))
    share = 1.0 - (1.0 - _LEVEL) ** (1.0 / compared)
    single = float(t.sf(own / spread, _PERMUTATIONS))
    return Skill(
        correlation=own,
        shuffled=spread,
        chance=1.0 - (1.0 - single) ** compared,
        needed=spread * float(t.isf(share, _PERMUTATIONS)),
    )


def difference(to: str, fitted: Refit, refits: Sequence[Refit], other: Floats) -> Difference:
    """Compare the optimum with another mixture, corrected for the bias of choosing an optimum.

    A refit's optimum looks better on the refit itself than on the fit of all runs. The mean of this
    gap estimates the bias of the optimum of all runs.

    Args:
        to: Name of the other mixture.
        fitted: Fit of all runs and its optimum.
        refits: Fits on resampled runs, at least two.
        other: Coordinates ``[d]`` of the other mixture.
    """
    from scipy.stats import t

    gains = [
        _gap(refit.loss, refit.optimum, other) - _gap(fitted.loss, refit.optimum, other)
        for refit in refits
    ]
    gaps = [_gap(refit.loss, fitted.optimum, other) for refit in refits]
    # Half of the middle 68%, because one outlier of twenty refits would double a standard deviation.
    spread = 0.5 * float(np.subtract(*np.quantile(gaps, (0.84, 0.16))))
    half = float(t.isf(0.05, len(refits) - 1)) * spread
    # At most the half width, because close to the other mixture the choice has no bias.
    bias = min(half, max(0.0, -float(np.mean(gains))))
    value = _gap(fitted.loss, fitted.optimum, other) + bias
    return Difference(to=to, value=value, low=value - half, high=value + half)


def inside(optimum: Floats, cloud: Sequence[Floats]) -> bool:
    """Return True if an optimum is no farther from the mean of resampled optima than they are.

    The distance is half the sum of absolute differences of coordinates: the share of tokens that
    differ. One percent is tolerated.
    """
    rows = np.array(cloud)
    middle = rows.mean(axis=0)
    reach = 0.5 * np.abs(rows - middle).sum(axis=1).max()
    return bool(0.5 * np.abs(optimum - middle).sum() <= reach + 0.01)


def judge(
    runs: int,
    known: Skill,
    best_run: Difference | None = None,
    baseline: Difference | None = None,
    within: bool | None = None,
) -> Trust:
    """Return whether an optimum is accepted, and why not; a figure that is None is not tested."""
    reasons: list[str] = []
    factors: list[float] = []
    if known.correlation < known.needed:
        reasons.append(
            f"predictions of left-out runs follow the score no better than shuffled scores allow "
            f"(rank correlation {known.correlation:.2f}, needed {known.needed:.2f})"
        )
        factors.append((known.needed / max(known.correlation, 1e-9)) ** 2)
    if baseline is not None and not baseline.high < 0.0:
        reasons.append(
            f"the optimum is not clearly better than {baseline.to} (expected difference "
            f"{baseline.value:+.3g}, 90% {baseline.low:+.3g} to {baseline.high:+.3g}; below 0 is "
            "better)"
        )
        factors.append(_factor(baseline))
    if best_run is not None and best_run.value > 0.0:
        reasons.append(
            f"the optimum is expected to be worse than {best_run.to}, which was run (difference "
            f"{best_run.value:+.3g}, 90% {best_run.low:+.3g} to {best_run.high:+.3g})"
        )
        factors.append(_factor(best_run))
    if within is False:
        reasons.append("the optimum lies outside the optima of resampled runs")
        factors.append(2.0)
    more = None
    if reasons:
        factor = min(_MOST_MORE, max(1.25, *factors))
        more = math.ceil((factor - 1.0) * runs)
    return Trust(
        enough=not reasons,
        reasons=tuple(reasons),
        more_runs=more,
        skill=known,
        best_run=best_run,
        baseline=baseline,
        inside=within,
    )


def _gap(loss: Loss, left: Floats, right: Floats) -> float:
    values = loss(np.stack([left, right]))
    return float(values[0] - values[1])


def _factor(found: Difference) -> float:
    """Return the factor of runs at which the interval excludes zero, at the same value."""
    half = 0.5 * (found.high - found.low)
    return _MOST_MORE if found.value >= 0.0 else (half / -found.value) ** 2


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
