"""Models that are linear in features of the weights, with a penalty chosen by leave-one-out errors.

linear            the weights themselves
scheffe           weights and products of pairs: Scheffé's quadratic blending model (1958)
ridge-sqrt        square roots of weights: the first percent of a source has more effect than the tenth

scikit-learn's ``RidgeCV`` gives the same fits without known noise. It has no signed leave-one-out
errors and no covariance, centres by weight under known noise, and takes 4 s to import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeps.search.designs.design import blending
from sweeps.search.space import Floats

__all__ = ["LinearFamily", "linear", "ridge_sqrt", "scheffe"]

_PENALTIES = tuple(10.0**power for power in range(-3, 5))
"""Candidates for the ridge penalty, per unit of feature variance."""


@dataclass(frozen=True)
class LinearFamily:
    """Ridge regression on a feature map."""

    name: str
    features: Callable[[Floats], Floats]

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> _LinearModel:
        """Fit one metric; runs with a larger known noise have less weight."""
        rows = self.features(inputs)
        centre = rows.mean(axis=0)
        # One scale for all features, so that a product of two rare sources keeps its small size.
        scale = max(float(np.sqrt(rows.var(axis=0).mean())), 1e-9)
        design = np.c_[np.ones(len(rows)), (rows - centre) / scale]
        weight = np.ones(len(rows)) if noise is None else _precision(noise)
        root = np.sqrt(weight)[:, None]
        left, singular, right = np.linalg.svd(design[:, 1:] * root, full_matrices=False)
        mean = float(np.average(values, weights=weight))
        target = (values - mean) * root[:, 0]
        penalty, errors = min(
            ((p, _left_out(left, singular, target, p)) for p in _PENALTIES),
            key=lambda tried: float(np.mean(tried[1] ** 2)),
        )
        shrunk = singular / (singular**2 + penalty)
        slopes = right.T @ (shrunk * (left.T @ target))
        covariance = right.T @ np.diag(1.0 / (singular**2 + penalty)) @ right
        return _LinearModel(
            features=self.features,
            centre=centre,
            scale=scale,
            coefficients=np.r_[mean, slopes],
            covariance=covariance,
            error=float(np.sqrt(np.mean(errors**2))),
            left_out=errors / root[:, 0],
        )


@dataclass(frozen=True, kw_only=True)
class _LinearModel:
    features: Callable[[Floats], Floats]
    centre: Floats
    scale: float
    coefficients: Floats
    covariance: Floats
    error: float
    """Root mean square of the leave-one-out errors."""
    left_out: Floats
    """Leave-one-out errors at the runs, by the hat matrix."""

    def predict(self, inputs: Floats) -> Floats:
        predicted: Floats = self.coefficients[0] + self._rows(inputs) @ self.coefficients[1:]
        return predicted

    def spread(self, inputs: Floats) -> Floats:
        rows = self._rows(inputs)
        leverage = np.einsum("ij,jk,ik->i", rows, self.covariance, rows)
        spread: Floats = self.error * np.sqrt(1.0 + np.maximum(leverage, 0.0))
        return spread

    def _rows(self, inputs: Floats) -> Floats:
        rows: Floats = (self.features(inputs) - self.centre) / self.scale
        return rows


def _precision(noise: Floats) -> Floats:
    """Return weights proportional to the precision of each run, with a tenth of the variance shared."""
    weight = 1.0 / (np.square(noise) + 0.1)
    return np.asarray(weight / weight.mean(), dtype=np.float64)


def _left_out(left: Floats, singular: Floats, target: Floats, penalty: float) -> Floats:
    """Return leave-one-out errors under a penalty, by the hat matrix."""
    shrink = singular**2 / (singular**2 + penalty)
    hat = (left**2 * shrink).sum(axis=1) + 1.0 / len(target)
    fitted = left @ (shrink * (left.T @ target))
    errors: Floats = (fitted - target) / np.maximum(1.0 - hat, 1e-3)
    return errors


def _same(inputs: Floats) -> Floats:
    return inputs


def _roots(inputs: Floats) -> Floats:
    roots: Floats = np.sqrt(np.maximum(inputs, 0.0))
    return roots


def linear() -> LinearFamily:
    """Return the model that is linear in the weights."""
    return LinearFamily("linear", _same)


def scheffe() -> LinearFamily:
    """Return the model with weights and products of pairs."""
    return LinearFamily("scheffe", blending)


def ridge_sqrt() -> LinearFamily:
    """Return the model that is linear in square roots of weights."""
    return LinearFamily("ridge-sqrt", _roots)
