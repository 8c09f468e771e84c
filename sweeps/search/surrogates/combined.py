"""Combine families: a weighted mean, or the one that cross-validation prefers.

    members ──5 folds──▶ predictions of left-out runs ──▶ weights >= 0, sum 1 ──▶ refit on all runs

Both work per metric. The weights solve non-negative least squares on the left-out predictions
(Breiman 1996), pulled towards equal weights, because 64 runs cannot distinguish members that agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweeps.search.space import Floats
from sweeps.search.surrogates.base import Family, TaskModel, folds

__all__ = ["StackFamily", "left_out_predictions"]


@dataclass(frozen=True, kw_only=True)
class StackFamily:
    """Settings of an ensemble or of a choice."""

    name: str
    members: tuple[Family, ...]
    rule: Literal["weigh", "choose"] = "weigh"
    """``weigh``: weighted mean; ``choose``: all weight on the member with the smallest error."""
    pull: float = 0.05
    """Strength of the pull towards equal weights, per run."""
    fold_count: int = 5
    seed: int = 0

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> StackModel:
        """Fit each member on each fold and on all runs, and find the weights."""
        means, spreads = left_out_predictions(self, inputs, values, noise)
        if self.rule == "choose":
            weights = np.zeros(len(self.members))
            weights[((means - values[:, None]) ** 2).mean(axis=0).argmin()] = 1.0
        else:
            weights = _blend(means, values, self.pull)
        models = tuple(
            member.fit_task(inputs, values, noise) if weight > 0.0 else None
            for member, weight in zip(self.members, weights, strict=True)
        )
        mean, spread = _combine(means, spreads, weights)
        ratios = np.sort(np.abs(values - mean) / np.maximum(spread, 1e-9))
        return StackModel(models, weights, ratios)


@dataclass(frozen=True)
class StackModel:
    """Fitted members and their weights."""

    models: tuple[TaskModel | None, ...]
    weights: Floats
    ratios: Floats
    """Errors of left-out runs divided by predicted spreads, sorted, to calibrate intervals."""

    def predict(self, inputs: Floats) -> Floats:
        """Return the weighted mean ``[n]``."""
        mean: Floats = sum(
            (w * m.predict(inputs) for m, w in self._used()), start=np.zeros(len(inputs))
        )
        return mean

    def spread(self, inputs: Floats) -> Floats:
        """Return the spread ``[n]`` from the members' own spreads and their disagreement."""
        used = self._used()
        means = np.stack([model.predict(inputs) for model, _ in used], axis=1)
        spreads = np.stack([model.spread(inputs) for model, _ in used], axis=1)
        return _combine(means, spreads, np.array([weight for _, weight in used]))[1]

    def _used(self) -> list[tuple[TaskModel, float]]:
        pairs = zip(self.models, self.weights, strict=True)
        return [(model, float(weight)) for model, weight in pairs if model is not None]


def left_out_predictions(
    stack: StackFamily, inputs: Floats, values: Floats, noise: Floats | None
) -> tuple[Floats, Floats]:
    """Return means and spreads ``[n, members]`` of each run, by fits without its fold."""
    count = min(stack.fold_count, len(values))
    fold = folds(len(values), count, stack.seed)
    means = np.zeros((len(values), len(stack.members)))
    spreads = np.ones_like(means)
    for number in range(count):
        test = fold == number
        known = None if noise is None else noise[~test]
        for column, member in enumerate(stack.members):
            model = member.fit_task(inputs[~test], values[~test], known)
            means[test, column] = model.predict(inputs[test])
            spreads[test, column] = model.spread(inputs[test])
    return means, spreads


def _combine(means: Floats, spreads: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of the mixture of the members' distributions."""
    mean = means @ weights
    second = (spreads**2 + (means - mean[:, None]) ** 2) @ weights
    return mean, np.sqrt(second)


def _blend(means: Floats, values: Floats, pull: float) -> Floats:
    """Return non-negative weights of sum one; those below 2% are dropped, because each costs a fit."""
    from scipy.optimize import nnls

    count = means.shape[1]
    error = max(float(((means.mean(axis=1) - values) ** 2).mean()), 1e-9)
    pulled = np.sqrt(pull * error * len(values)) * np.eye(count)
    total = 1e3 * np.ones((1, count))
    design = np.r_[means, pulled, total]
    target = np.r_[values, pulled.sum(axis=1) / count, 1e3]
    found = nnls(design, target)[0]
    kept: Floats = np.where(found < 0.02 * found.sum(), 0.0, found)
    return np.asarray(kept / kept.sum(), dtype=np.float64)
