"""Average surrogates with weights from their leave-one-out errors on a study's own score.

All metrics share the weights: with 20 noisy runs a choice per metric follows the noise, and the
errors of all metrics together distinguish families sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweeps.search.proposals.known_runs import Evidence
from sweeps.search.space import Floats, SearchSpace
from sweeps.search.surrogates.base import Family, Surrogate, folds
from sweeps.search.surrogates.rung_process import rung_columns

__all__ = ["Preferred", "prefer"]

_FOLDS = 5

_SHARPNESS = 30
"""Power of the error with which weights fall. On truths that no family contains, choosing one family
left .20 of regret after 50 runs and this left .05; 12 left less there, and more on plain laws."""

_MISFIT = 0.1
"""Error of a family at a run that is tolerated, as a share of how much worse the run is than good ones.
.05, .1, .2 and .4 left .0040, .0046, .0062 and .0092 of regret after 100 runs of 24 truths, but .05
leaves more if no family contains the truth."""

_FAR = 1.0
"""Unit of a run's error, as a share of how much worse the run is than good ones; .5 to 4 are alike."""

_LEAST = 0.02
"""Smallest weight that is kept."""


@dataclass(frozen=True)
class Preferred:
    """Fitted families and their weights."""

    members: tuple[Surrogate, ...]
    weights: Floats
    errors: dict[str, float]
    """Family → error on left-out runs, including families that were dropped."""
    turn: Floats
    """Sign of each metric: members are fitted to ``metric * turn``, of which less is better."""
    columns: int = 0
    """Last columns of the members' inputs that predictions have at zero: rungs, dropped sources."""
    left_out: Floats | None = None
    """Prediction minus value ``[n, t]`` of each run of the fit, by fits without it."""

    @property
    def name(self) -> str:
        """Return the name of the family with the largest weight."""
        return self.members[int(self.weights.argmax())].family.name

    def refit(self, space: SearchSpace, evidence: Evidence, rows: NDArray[np.intp]) -> Preferred:
        """Return the same families and weights, fitted to ``rows``; a run may occur twice."""
        noise = None if evidence.noise is None else evidence.noise[rows]
        inputs = evidence.inputs(space)[rows]
        turned = evidence.values[rows] * self.turn
        doubt = _doubt(turned, replace(evidence, values=evidence.values[rows], noise=noise))
        members = tuple(
            Surrogate(member.family, seed=member.seed).fit(inputs, turned, doubt)
            for member in self.members
        )
        return replace(self, members=members)

    def predict(self, inputs: Floats) -> Floats:
        """Return weighted means ``[n, t]``."""
        inputs = self._at_top(inputs)
        return self.turn * self._blend([member.predict(inputs) for member in self.members])

    def predict_interval(self, inputs: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return bounds ``[n, t]``: weighted means of those of the members."""
        inputs = self._at_top(inputs)
        bounds = [member.predict_interval(inputs, level) for member in self.members]
        low = self.turn * self._blend([low for low, _ in bounds])
        high = self.turn * self._blend([high for _, high in bounds])
        return np.minimum(low, high), np.maximum(low, high)

    def _at_top(self, inputs: Floats) -> Floats:
        if not self.columns:
            return inputs
        return rung_columns(inputs, np.zeros((len(inputs), self.columns)))

    def _blend(self, tables: list[Floats]) -> Floats:
        return np.asarray(np.tensordot(self.weights, np.array(tables), axes=1), dtype=np.float64)


def prefer(
    space: SearchSpace, evidence: Evidence, families: Sequence[Family], seed: int
) -> Preferred:
    """Return families fitted to all runs, with weights from their errors on left-out runs.

    The error is that of the losses plus half that of their metrics: the first is what matters, the
    second is less noisy.
    """
    inputs = evidence.inputs(space)
    turn = _turn(evidence)
    turned = evidence.values * turn
    doubt = _doubt(turned, evidence)
    fitted = [Surrogate(family, seed=seed).fit(inputs, turned, doubt) for family in families]
    found, left_out = {}, []
    for model in fitted:
        errors = _errors(inputs, turned, doubt, model)
        left_out.append(turn * errors)
        by_loss = _relative((turn * errors) @ evidence.objectives.T, evidence.losses)
        found[model.family.name] = by_loss + 0.5 * _relative(errors, turned)
    relative = np.maximum(np.array(list(found.values())), 1e-9)
    weights = (relative / relative.min()) ** -_SHARPNESS
    weights = np.where(weights < _LEAST * weights.sum(), 0.0, weights)
    kept = np.flatnonzero(weights)
    members = tuple(fitted[i] for i in kept)
    shares = weights[kept] / weights.sum()
    mixed = np.tensordot(shares, np.array([left_out[i] for i in kept]), axes=1)
    return Preferred(members, shares, found, turn, evidence.columns, mixed)


def _turn(evidence: Evidence) -> Floats:
    """Return -1 for metrics of which more is better (by objectives, else by limits), 1 for others."""
    asked = evidence.objectives.sum(axis=0)
    bounded = sum((limit.weights for limit in evidence.limits), start=np.zeros(len(asked)))
    turn: Floats = np.where(np.where(asked == 0.0, bounded, asked) < 0.0, -1.0, 1.0)
    return turn


def _errors(inputs: Floats, values: Floats, noise: Floats | None, fitted: Surrogate) -> Floats:
    """Return prediction minus value of each run, by a fit without it.

    Runs are left out one at a time if the family has these errors for free, by folds otherwise.
    """
    if (errors := fitted.left_out()) is not None:
        return errors
    count = min(_FOLDS, len(inputs))
    fold = folds(len(inputs), count, fitted.seed)
    predicted = np.zeros_like(values)
    for number in range(count):
        test = fold == number
        known = None if noise is None else noise[~test]
        model = Surrogate(fitted.family).fit(inputs[~test], values[~test], known)
        predicted[test] = model.predict(inputs[test])
    return predicted - values


def _doubt(values: Floats, evidence: Evidence) -> Floats:
    """Return standard errors ``[n, t]`` of the values, plus the tolerated error of families.

    Corners are many times as bad as the optimum, and a law that is wrong by a tenth there should not
    be fitted to them more closely. So runs with better values count more.
    """
    known = np.zeros_like(values) if evidence.noise is None else evidence.noise
    return np.asarray(np.hypot(known, _MISFIT * _badness(values)), dtype=np.float64)


def _badness(values: Floats) -> Floats:
    """Return how much worse each value is than the best quarter of its column."""
    return np.asarray(np.maximum(0.0, values - np.nanquantile(values, 0.25, axis=0)))


def _relative(errors: Floats, values: Floats) -> float:
    """Return the root mean square error, each error cut at five units.

    The unit is the median deviation, and larger at bad runs, so that corners do not decide which
    family is used near the optimum.
    """
    worse = _badness(values)
    unit = np.nanmedian(np.abs(values - np.nanmedian(values, axis=0)), axis=0)
    scaled = errors / np.where(unit > 0.0, np.hypot(unit, _FAR * worse), 1.0)
    return float(np.sqrt(np.nanmean(np.clip(scaled, -5.0, 5.0) ** 2)))
