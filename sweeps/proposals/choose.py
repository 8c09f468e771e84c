"""The surrogate that cross-validation prefers for a study's own score.

One choice for all metrics: with 20 noisy runs a choice per metric follows the noise, and the errors
of all metrics together tell families apart sooner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sweeps.proposals.evidence import Evidence
from sweeps.space import Floats, SearchSpace
from sweeps.surrogates.base import Family, Surrogate, folds

__all__ = ["believe", "choose"]

_FOLDS = 5

_MARGIN = 1.05
"""A family that is named earlier is kept unless a later one is better by this factor. Laws come
first: optima sit on faces, where a law extrapolates and a process returns to its mean."""


def choose(
    space: SearchSpace, evidence: Evidence, families: Sequence[Family], seed: int
) -> tuple[Surrogate, dict[str, float]]:
    """The family of least error on left-out runs, fitted to all runs, and every family's error.

    The error is that of the losses, in their standard deviations, plus half that of the metrics
    they are made of: the first is what is asked for, the second is less noisy. Families that err
    nearly alike are settled by their order.
    """
    found: dict[str, float] = {}
    fitted: dict[str, Surrogate] = {}
    for family in families:
        model = believe(space, evidence, family, seed)
        errors = _errors(space, evidence, model)
        by_loss = _relative(errors @ evidence.objectives.T, evidence.losses)
        found[family.name] = by_loss + 0.5 * _relative(errors, evidence.values)
        fitted[family.name] = model
    least = min(found.values())
    best = next(name for name, error in found.items() if error <= _MARGIN * least)
    return fitted[best], found


def believe(
    space: SearchSpace, evidence: Evidence, family: Family, seed: int, points: Floats | None = None
) -> Surrogate:
    """The family fitted to all finished runs, and to its own predictions at further points.

    Points that are running or just proposed are believed to turn out as predicted, so that the next
    proposal does not repeat them (kriging believer, Ginsbourger et al. 2010).
    """
    inputs = space.inputs(evidence.coordinates)
    model = Surrogate(family, seed=seed).fit(inputs, evidence.values, evidence.noise)
    if points is None or not len(points):
        return model
    more = space.inputs(points)
    noise = evidence.noise
    if noise is not None:
        noise = np.r_[noise, np.tile(np.nanmean(noise, axis=0), (len(more), 1))]
    values = np.r_[evidence.values, model.predict(more)]
    return Surrogate(family, seed=seed).fit(np.r_[inputs, more], values, noise)


def _errors(space: SearchSpace, evidence: Evidence, fitted: Surrogate) -> Floats:
    """Prediction minus value of every run by a fit without it: one at a time where the family has
    that for free, by folds otherwise."""
    if (errors := fitted.left_out()) is not None:
        return errors
    inputs, values = space.inputs(evidence.coordinates), evidence.values
    count = min(_FOLDS, len(inputs))
    fold = folds(len(inputs), count, fitted.seed)
    predicted = np.zeros_like(values)
    for number in range(count):
        held = fold == number
        known = None if evidence.noise is None else evidence.noise[~held]
        model = Surrogate(fitted.family).fit(inputs[~held], values[~held], known)
        predicted[held] = model.predict(inputs[held])
    return predicted - values


def _relative(errors: Floats, values: Floats) -> float:
    """Root mean square error in standard deviations of the values, cut at five of them."""
    scale = np.nanstd(values, axis=0)
    scaled = errors / np.where(scale > 0.0, scale, 1.0)
    return float(np.sqrt(np.nanmean(np.clip(scaled, -5.0, 5.0) ** 2)))
