"""Laws: a floor plus decaying terms, fitted by robust nonlinear least squares.

log-linear      y = c ± exp(t · w)                        Olmix; its own law for every metric
mixing-law      y = c ± Σ_k exp(t_k · w), k = 1, 2        Data Mixing Laws (Ye et al. 2024): a metric is
                                                          a sum over domains that nobody named
power-law       y = c ± exp(a · log(w + e))               a power of each weight; e keeps zero finite

Because weights sum to one, the factor in front of each exponential is part of its exponent. The sign
is chosen by the fit: losses fall towards a floor, accuracies rise towards a ceiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sweeps.space import Floats

__all__ = ["LawFamily", "log_linear", "mixing_law", "power_law"]

_OFFSETS = (0.01, 0.05)
"""Candidates for the offset of the power law, as weights."""

_PENALTY = 0.05
"""Pull of exponents towards their mean. Standardised metrics have exponents of a few units, so this
is far below the data as soon as there are more runs than sources."""

_CLIP = (-20.0, 8.0)
"""Range of exponents in which the exponential is taken."""


@dataclass(frozen=True)
class LawFamily:
    """A floor (or ceiling) and ``terms`` exponentials of linear functions of features."""

    name: str
    terms: int
    offsets: tuple[float, ...] = (0.0,)
    """Offsets to choose from; 0 stands for the weights themselves."""

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> _LawModel:
        """Fit one metric; the best of both signs and of all offsets."""
        weight = np.ones(len(values)) if noise is None else 1.0 / np.sqrt(np.square(noise) + 0.1)
        weight = weight / weight.mean()
        fits = [
            _fit(self.terms, offset, sign, inputs, values, weight)
            for offset in self.offsets
            for sign in (1.0, -1.0)
        ]
        return min(fits, key=lambda fit: fit.cost)


@dataclass(frozen=True)
class _LawModel:
    offset: float
    sign: float
    floor: float
    exponents: Floats
    """``[terms, m]``."""
    cost: float
    error: float
    """Standard deviation of the residuals, corrected for the parameters used."""

    def predict(self, inputs: Floats) -> Floats:
        powers = _law_features(inputs, self.offset) @ self.exponents.T
        total = np.exp(np.clip(powers, *_CLIP)).sum(axis=1)
        predicted: Floats = self.floor + self.sign * total
        return predicted

    def spread(self, inputs: Floats) -> Floats:
        return np.full(len(inputs), self.error)


def _law_features(inputs: Floats, offset: float) -> Floats:
    if offset == 0.0:
        return inputs
    logs: Floats = np.log((np.maximum(inputs, 0.0) + offset) / (1.0 + offset))
    return np.c_[logs, np.ones(len(logs))]


def _fit(
    terms: int, offset: float, sign: float, inputs: Floats, values: Floats, weight: Floats
) -> _LawModel:
    from scipy.optimize import least_squares

    rows = _law_features(inputs, offset)
    residuals, jacobian = _problem(terms, sign, rows, values, weight)
    start = _start(terms, sign, rows, values)
    found = least_squares(
        residuals, start, jac=jacobian, loss="soft_l1", method="trf", max_nfev=60,
        ftol=1e-6, xtol=1e-6,
    )  # fmt: skip
    exponents = found.x[1:].reshape(terms, -1)
    raw = residuals(found.x)[: len(values)] / weight
    # A ridge-penalised law uses fewer degrees of freedom than it has parameters.
    used = min(0.5 * found.x.size, 0.5 * len(values))
    error = float(np.sqrt((raw**2).sum() / max(1.0, len(values) - used)))
    return _LawModel(
        offset, sign, float(found.x[0]), exponents, float(found.cost), max(error, 1e-6)
    )


def _problem(
    terms: int, sign: float, rows: Floats, values: Floats, weight: Floats
) -> tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]:
    """Residuals and Jacobian: the misfit of every run, then the pull on the exponents."""
    width = rows.shape[1]
    pull = _PENALTY * (np.eye(width) - 1.0 / width) + 0.1 * _PENALTY / width

    def exponentials(x: Floats) -> Floats:
        decayed: Floats = np.exp(np.clip(rows @ x[1:].reshape(terms, width).T, *_CLIP))
        return decayed

    def residuals(x: Floats) -> Floats:
        misfit = weight * (x[0] + sign * exponentials(x).sum(axis=1) - values)
        return np.r_[misfit, (x[1:].reshape(terms, width) @ pull).ravel()]

    def jacobian(x: Floats) -> Floats:
        decayed = exponentials(x) * weight[:, None]
        by_run = [weight[:, None], *(sign * decayed[:, [k]] * rows for k in range(terms))]
        by_pull = np.kron(np.eye(terms), pull)
        return np.r_[np.concatenate(by_run, axis=1), np.c_[np.zeros(len(by_pull)), by_pull]]

    return residuals, jacobian


def _start(terms: int, sign: float, rows: Floats, values: Floats) -> Floats:
    """A floor beyond the best run, and the exponents of the line through the logarithms."""
    towards = sign * values
    floor = towards.min() - 2.0
    logs = np.log(towards - floor)
    width = rows.shape[1]
    design = np.r_[rows, 0.1 * np.eye(width)]
    target = np.r_[logs, np.full(width, 0.1 * logs.mean())]
    exponents = np.linalg.lstsq(design, target, rcond=None)[0]
    # Terms that begin equal stay equal: a fixed tilt tells them apart.
    tilt = np.random.default_rng(0).normal(0.0, 0.5, (terms, width)) if terms > 1 else 0.0
    start = np.tile(exponents, (terms, 1)) - np.log(terms) * (width == rows.shape[1]) + tilt
    return np.r_[sign * floor, start.ravel()]


def log_linear() -> LawFamily:
    """Olmix's law."""
    return LawFamily("log-linear", 1)


def mixing_law() -> LawFamily:
    """A sum of two exponentials."""
    return LawFamily("mixing-law", 2)


def power_law() -> LawFamily:
    """Powers of offset weights."""
    return LawFamily("power-law", 1, _OFFSETS)
