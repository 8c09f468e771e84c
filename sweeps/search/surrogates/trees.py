"""Boosted trees, as RegMix fits them (Liu et al. 2024), with leaves that fit small swarms.

Trees take jumps and interactions as they come, extrapolate to nothing, and have no slope: their
optimum is averaged over the best candidates rather than descended to.
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
    """Boosting rounds, fixed: stopping early would need runs that the test needs."""
    rate: float = 0.05
    """Learning rate."""
    leaves: int = 7
    """Leaves of a tree."""
    runs_per_leaf: int = 5
    """Fewest runs of a leaf; fewer where there are under 30 runs."""
    fold_count: int = 4
    """Folds that the spread is measured on."""
    seed: int = 0
    """Seed of the folds."""

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> _TreesModel:
        """Fit one metric; the spread is the error on left-out folds, the same everywhere."""
        weight = np.ones(len(values)) if noise is None else 1.0 / (np.square(noise) + 0.1)
        fold = folds(len(values), self.fold_count, self.seed)
        errors = np.zeros(len(values))
        for number in range(self.fold_count):
            held = fold == number
            booster = self._boost(inputs[~held], values[~held], weight[~held])
            errors[held] = values[held] - _TreesModel(booster, 0.0).predict(inputs[held])
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
