"""Boosted trees, as in RegMix (Liu et al. 2024), with leaves for small swarms.

Trees fit jumps and interactions, but do not extrapolate and have no slope, so gradient descent cannot
find their optimum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sweeps.search.space import Floats
from sweeps.search.surrogates.base import folds

__all__ = ["TreesFamily"]


@dataclass(frozen=True, kw_only=True)
class TreesFamily:
    """Settings of LightGBM."""

    name: str = "lightgbm"
    trees: int = 200
    """Number of boosting rounds. It is fixed, because early stopping needs runs of its own."""
    rate: float = 0.05
    """Learning rate."""
    leaves: int = 7
    """Leaves per tree."""
    runs_per_leaf: int = 5
    """Smallest number of runs per leaf; less if there are fewer than 30 runs."""
    fold_count: int = 4
    """Number of folds that the spread is measured on."""
    seed: int = 0
    """Seed of the folds."""

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> _TreesModel:
        """Fit one metric; the spread is the error on left-out folds, the same everywhere."""
        weight = np.ones(len(values)) if noise is None else 1.0 / (np.square(noise) + 0.1)
        fold = folds(len(values), self.fold_count, self.seed)
        errors = np.zeros(len(values))
        for number in range(self.fold_count):
            test = fold == number
            booster = self._boost(inputs[~test], values[~test], weight[~test])
            errors[test] = values[test] - _TreesModel(booster, 0.0).predict(inputs[test])
        error = float(np.sqrt(np.mean(errors**2)))
        return _TreesModel(self._boost(inputs, values, weight), max(error, 1e-6))

    def _boost(self, inputs: Floats, values: Floats, weight: Floats) -> Any:
        import lightgbm

        settings = {
            "objective": "regression",
            "learning_rate": self.rate,
            "num_leaves": self.leaves,
            "min_data_in_leaf": max(2, min(self.runs_per_leaf, len(values) // 6)),
            "min_data_in_bin": 1,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": self.seed,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(inputs, values, weight=weight, params=settings)
        return lightgbm.train(settings, data, num_boost_round=self.trees)


@dataclass(frozen=True)
class _TreesModel:
    booster: Any
    error: float

    def predict(self, inputs: Floats) -> Floats:
        predicted: Floats = np.asarray(self.booster.predict(inputs, num_threads=1))
        return predicted

    def spread(self, inputs: Floats) -> Floats:
        return np.full(len(inputs), self.error)
