"""The surrogates that leave-one-out errors prefer for a study's own score, weighed together.

One weighing for all metrics: with 20 noisy runs a choice per metric follows the noise, and the
errors of all metrics together tell families apart sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sweeps.search.proposals.known_runs import Evidence
from sweeps.search.space import Floats, SearchSpace
from sweeps.search.surrogates.base import Family, Surrogate, folds

__all__ = ["Preferred", "prefer"]

_FOLDS = 5

_SHARPNESS = 30
"""Weights fall with this power of the error. On truths that no family contains, choosing one family
left .20 of regret after 50 runs where this left .05; 12 left less there, and more on plain laws."""

_MISFIT = 0.1
"""What a family may be wrong by at a run, as a share of how much worse the run is than good ones.
.05, .1, .2 and .4 left .0040, .0046, .0062 and .0092 after 100 runs of 24 truths, but .05 leaves more
where no family contains the truth."""

_FAR = 1.0
"""Share of how much worse a run is than good ones that its error is measured in; .5 to 4 are alike."""

_LEAST = 0.02
"""Weights under this are dropped."""


@dataclass(frozen=True)
class Preferred:
    """Fitted families and the weight of each."""

    members: tuple[Surrogate, ...]
    weights: Floats
    errors: dict[str, float]
    """Family → error on left-out runs, dropped families included."""
    turn: Floats
    """1 or -1 a metric: the members are fitted to ``metric * turn``, of which less is better."""

    @property
    def name(self) -> str:
        """Name of the family of most weight."""
        return self.members[int(self.weights.argmax())].family.name

    def refit(self, space: SearchSpace, evidence: Evidence, rows: NDArray[np.intp]) -> Preferred:
        """The same families with the same weights, fitted to some runs; a run may come twice."""
        noise = None if evidence.noise is None else evidence.noise[rows]
        inputs = space.inputs(evidence.coordinates[rows])
        turned = evidence.values[rows] * self.turn
        doubt = _doubt(turned, replace(evidence, values=evidence.values[rows], noise=noise))
        members = tuple(
            Surrogate(member.family, seed=member.seed).fit(inputs, turned, doubt)
            for member in self.members
        )
        return replace(self, members=members)

    def predict(self, inputs: Floats) -> Floats:
        """Weighted means ``[n, t]``."""
        return self.turn * self._blend([member.predict(inputs) for member in self.members])

    def predict_interval(self, inputs: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Bounds ``[n, t]``: those of the members, weighed."""
        bounds = [member.predict_interval(inputs, level) for member in self.members]
        low = self.turn * self._blend([low for low, _ in bounds])
        high = self.turn * self._blend([high for _, high in bounds])
        return np.minimum(low, high), np.maximum(low, high)

    def _blend(self, tables: list[Floats]) -> Floats:
        return np.asarray(np.tensordot(self.weights, np.array(tables), axes=1), dtype=np.float64)


def prefer(
    space: SearchSpace, evidence: Evidence, families: Sequence[Family], seed: int
) -> Preferred:
    """Families fitted to all runs, weighed by their errors on runs left out.

    The error is that of the losses plus half that of the metrics they are made of: the first is
    what is asked for, the second is less noisy.
    """
    inputs = space.inputs(evidence.coordinates)
    turn = _turn(evidence)
    turned = evidence.values * turn
    doubt = _doubt(turned, evidence)
    fitted = [Surrogate(family, seed=seed).fit(inputs, turned, doubt) for family in families]
    found = {}
    for model in fitted:
        errors = _errors(inputs, turned, doubt, model)
        by_loss = _relative((turn * errors) @ evidence.objectives.T, evidence.losses)
        found[model.family.name] = by_loss + 0.5 * _relative(errors, turned)
    relative = np.maximum(np.array(list(found.values())), 1e-9)
    weights = (relative / relative.min()) ** -_SHARPNESS
    weights = np.where(weights < _LEAST * weights.sum(), 0.0, weights)
    kept = np.flatnonzero(weights)
    members = tuple(fitted[i] for i in kept)
    return Preferred(members, weights[kept] / weights.sum(), found, turn)


def _turn(evidence: Evidence) -> Floats:
    """-1 for metrics of which more is better, by the objectives, else by the limits; 1 otherwise."""
    asked = evidence.objectives.sum(axis=0)
    bounded = sum((limit.weights for limit in evidence.limits), start=np.zeros(len(asked)))
    turn: Floats = np.where(np.where(asked == 0.0, bounded, asked) < 0.0, -1.0, 1.0)
    return turn


def _errors(inputs: Floats, values: Floats, noise: Floats | None, fitted: Surrogate) -> Floats:
    """Prediction minus value of every run by a fit without it: one at a time where the family has
    that for free, by folds otherwise."""
    if (errors := fitted.left_out()) is not None:
        return errors
    count = min(_FOLDS, len(inputs))
    fold = folds(len(inputs), count, fitted.seed)
    predicted = np.zeros_like(values)
    for number in range(count):
        held = fold == number
        known = None if noise is None else noise[~held]
        model = Surrogate(fitted.family).fit(inputs[~held], values[~held], known)
        predicted[held] = model.predict(inputs[held])
    return predicted - values


def _doubt(values: Floats, evidence: Evidence) -> Floats:
    """Standard errors ``[n, t]`` of the values, with what families get wrong far from the good.

    Corners are many times as bad as the optimum, and a law that is wrong by a tenth there must not
    be bent to them: a run teaches the more, the nearer its value is to the good ones.
    """
    known = np.zeros_like(values) if evidence.noise is None else evidence.noise
    return np.asarray(np.hypot(known, _MISFIT * _badness(values)), dtype=np.float64)


def _badness(values: Floats) -> Floats:
    """How much worse every value is than the good quarter of its column."""
    return np.asarray(np.maximum(0.0, values - np.nanquantile(values, 0.25, axis=0)))


def _relative(errors: Floats, values: Floats) -> float:
    """Root mean square error; the unit is the median deviation, larger at runs that are bad anyway,
    so that corners do not decide which family is believed near the optimum. Cut at five units."""
    worse = _badness(values)
    unit = np.nanmedian(np.abs(values - np.nanmedian(values, axis=0)), axis=0)
    scaled = errors / np.where(unit > 0.0, np.hypot(unit, _FAR * worse), 1.0)
    return float(np.sqrt(np.nanmean(np.clip(scaled, -5.0, 5.0) ** 2)))
