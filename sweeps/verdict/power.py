"""Power: the number of seeds or items that a difference of a given size needs to be detected.

The plan is a fresh comparison of the pick with the baseline, S seeds each, paired over the same items.
It needs no correction because both are named beforehand. Power is that of the two-sided t test.

    >>> need = seeds_needed(effect=2.0, run_variance=1.0, item_variance=0.0)
    >>> need, round(power(effect=2.0, seeds=need, run_variance=1.0, item_variance=0.0), 2)
    (6, 0.88)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, stats

__all__ = [
    "PowerEstimate",
    "detectable_effect",
    "estimate_power",
    "items_factor_needed",
    "power",
    "seeds_needed",
]

MOST_SEEDS = 200
"""Most seeds that are proposed; a difference that needs more is reported as too small."""


@dataclass(frozen=True, kw_only=True)
class PowerEstimate:
    """Seeds and items that the comparison of two candidates needs."""

    effect: float
    """Difference to be detected, in score units."""
    power: float
    """Probability of detecting it, if it is real."""
    seeds_now: int
    """Current seeds of the candidate with fewer."""
    seeds_needed: int | None
    """Fresh seeds of each of the two candidates; None if 200 are not enough."""
    items_factor: float | None
    """Factor on the current number of items, at the current seeds; None if no number is enough."""
    items_known: bool
    """True if items were kept, so that their part of the noise is known."""
    detectable_effect: float | None
    """Smallest difference that the current seeds and items detect with that power."""


def power(
    *,
    effect: float,
    seeds: int,
    run_variance: float,
    item_variance: float,
    alpha: float = 0.05,
) -> float:
    """Return the probability that the two-sided t test detects a true difference of ``effect``.

    Args:
        effect: True difference of the two candidates, in score units.
        seeds: Seeds of each of them, at least 2.
        run_variance: Training noise of one run, in score units squared.
        item_variance: Variance of the difference from the choice of items.
        alpha: Two-sided level.
    """
    error, df = _design(seeds, run_variance, item_variance)
    return _power(abs(effect) / error if error > 0.0 else math.inf, df, alpha)


def _design(seeds: int, run_variance: float, item_variance: float) -> tuple[float, float]:
    training = 2.0 * run_variance / seeds
    total = training + item_variance
    known = 2.0 * (seeds - 1)
    # There are many items: only the training part of the error is estimated from few runs.
    df = known * (total / training) ** 2 if training > 0.0 else math.inf
    return math.sqrt(total), min(df, 1e6)


def _power(z: float, df: float, alpha: float) -> float:
    if df <= 0.0:
        return 0.0
    critical = float(stats.t.isf(alpha / 2.0, df))
    if z > critical + 37.0:
        return 1.0
    return float(stats.nct.sf(critical, df, z))


def seeds_needed(
    *,
    effect: float,
    run_variance: float,
    item_variance: float,
    alpha: float = 0.05,
    wanted: float = 0.8,
) -> int | None:
    """Return the fewest seeds of each candidate that reach the wanted power; None if 200 do not."""
    if effect == 0.0 or not math.isfinite(run_variance):
        return None
    for seeds in range(2, MOST_SEEDS + 1):
        reached = power(
            effect=effect,
            seeds=seeds,
            run_variance=run_variance,
            item_variance=item_variance,
            alpha=alpha,
        )
        if reached >= wanted:
            return seeds
    return None


def items_factor_needed(
    *,
    effect: float,
    standard_error: float,
    item_variance: float,
    df: float,
    alpha: float = 0.05,
    wanted: float = 0.8,
) -> float | None:
    """Return the factor on the items for the wanted power at the current seeds; None if none is enough."""
    smallest = detectable_effect(standard_error=1.0, df=df, alpha=alpha, wanted=wanted)
    if smallest is None or effect == 0.0 or item_variance <= 0.0:
        return None
    allowed = (abs(effect) / smallest) ** 2 - (standard_error**2 - item_variance)
    if allowed <= 0.0:
        return None
    return max(1.0, item_variance / allowed)


def detectable_effect(
    *, standard_error: float, df: float, alpha: float = 0.05, wanted: float = 0.8
) -> float | None:
    """Return the smallest true difference that is detected with the wanted power at this standard error.

    None if the standard error is unknown.
    """
    if not math.isfinite(standard_error) or df <= 0.0:
        return None
    top = float(stats.t.isf(alpha / 2.0, df)) + 40.0
    try:
        z = optimize.brentq(lambda z: _power(z, min(df, 1e6), alpha) - wanted, 0.0, top)
    except ValueError:
        return None
    return float(z) * standard_error


def estimate_power(
    *,
    effect: float,
    standard_error: float,
    df: float,
    run_variance: float,
    item_variance: float,
    seeds_now: int,
    alpha: float = 0.05,
    wanted: float = 0.8,
) -> PowerEstimate:
    """Return the seeds and items that one comparison needs.

    Args:
        effect: Difference to be detected, in score units.
        standard_error: Current standard error of the difference.
        df: Degrees of freedom of it.
        run_variance: Training noise of one run, in score units squared.
        item_variance: Variance of the difference from the choice of items; 0 = not known.
        seeds_now: Current seeds of the candidate with fewer.
        alpha: Two-sided level.
        wanted: Probability of detecting the difference.
    """
    return PowerEstimate(
        effect=abs(effect),
        power=wanted,
        seeds_now=seeds_now,
        items_known=item_variance > 0.0,
        seeds_needed=seeds_needed(
            effect=effect,
            run_variance=run_variance,
            item_variance=item_variance,
            alpha=alpha,
            wanted=wanted,
        ),
        items_factor=items_factor_needed(
            effect=effect,
            standard_error=standard_error,
            item_variance=item_variance,
            df=df,
            alpha=alpha,
            wanted=wanted,
        ),
        detectable_effect=detectable_effect(
            standard_error=standard_error, df=df, alpha=alpha, wanted=wanted
        ),
    )
