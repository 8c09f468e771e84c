"""Laws: a floor plus decaying terms, fitted by robust nonlinear least squares.

log-linear      y = c ± exp(t · w)                       Olmix's law, its own for every metric
mixing-law      y = c ± Σ_k exp(t_k · w), k = 1, 2       Data Mixing Laws (Ye et al. 2024): a metric
                                                         is a sum over domains that nobody named
power-law       y = c ± exp(a · log(w + e))              a power of each weight; e keeps zero finite
mixed-law       y = c ± exp(t · w + a · log(w + e))      both at once

Because weights sum to one, the factor in front of each exponential is part of its exponent. The
sign is chosen by the fit: losses fall towards a floor, accuracies rise towards a ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweeps.space import Floats

__all__ = ["LawFamily", "log_linear", "mixed_law", "mixing_law", "power_law"]

_OFFSETS = (0.01, 0.05)
"""Candidates for the offset of logarithms, as weights."""

_CLIP = (-20.0, 8.0)
"""Range of exponents in which the exponential is taken."""

_TRIAL_STEPS, _STEPS = 6, 40
"""Steps that every sign and offset gets, and steps that the best of them gets."""


@dataclass(frozen=True, kw_only=True)
class LawFamily:
    """A floor (or ceiling) and ``terms`` exponentials of linear functions of features."""

    name: str
    features: Literal["weights", "logs", "both"]
    """What exponents are linear in."""
    terms: int = 1
    offsets: tuple[float, ...] = (0.0,)
    """Offsets of the logarithms to choose from."""
    penalty: float = 0.05
    """Pull of exponents towards their mean, in residuals of one standard deviation."""

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> LawModel:
        """Fit one metric; the best of both signs and of all offsets."""
        weight = np.ones(len(values)) if noise is None else 1.0 / np.sqrt(np.square(noise) + 0.1)
        weight = weight / weight.mean()
        starts = [
            _Fit(self, offset, sign, inputs, values, weight).run(_TRIAL_STEPS)
            for offset in self.offsets
            for sign in (1.0, -1.0)
        ]
        return min(starts, key=lambda fit: fit.cost).run(_STEPS).model()


@dataclass(frozen=True, kw_only=True)
class LawModel:
    """A fitted law."""

    family: LawFamily
    offset: float
    sign: float
    parameters: Floats
    """The floor, then the exponents of every term."""
    covariance: Floats
    """Of the parameters, in units of the error's variance."""
    error: float
    """Standard deviation of the residuals, corrected for the parameters used."""
    left_out: Floats
    """Errors at the runs when each is left out, by linearising at the fit."""

    def predict(self, inputs: Floats) -> Floats:
        """The law at ``inputs``."""
        rows = _rows(self.family, self.offset, inputs)
        predicted: Floats = _law(rows, self.sign, self.parameters, self.family.terms)[0]
        return predicted

    def spread(self, inputs: Floats) -> Floats:
        """Error of a run and doubt about the parameters, linearised."""
        rows = _rows(self.family, self.offset, inputs)
        slopes = _law(rows, self.sign, self.parameters, self.family.terms)[1]
        doubt = np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes)
        spread: Floats = self.error * np.sqrt(1.0 + np.clip(doubt, 0.0, 25.0))
        return spread


def _rows(family: LawFamily, offset: float, inputs: Floats) -> Floats:
    if family.features == "weights":
        return inputs
    logs = np.log((np.maximum(inputs, 0.0) + offset) / (1.0 + offset))
    beside = np.ones((len(logs), 1)) if family.features == "logs" else inputs
    return np.concatenate([logs, beside], axis=1)


def _law(rows: Floats, sign: float, parameters: Floats, terms: int) -> tuple[Floats, Floats]:
    """Values ``[n]`` and their derivatives by the parameters ``[n, p]``."""
    width = rows.shape[1]
    exponents = np.clip(rows @ parameters[1:].reshape(terms, width).T, *_CLIP)
    decayed = sign * np.exp(exponents)
    slopes = (decayed[:, :, None] * rows[:, None, :]).reshape(len(rows), terms * width)
    values: Floats = parameters[0] + decayed.sum(axis=1)
    return values, np.c_[np.ones(len(rows)), slopes]


class _Fit:
    """Levenberg–Marquardt with weights that shrink for outliers (soft L1), from one start."""

    def __init__(
        self,
        family: LawFamily,
        offset: float,
        sign: float,
        inputs: Floats,
        values: Floats,
        weight: Floats,
    ) -> None:
        self.family, self.offset, self.sign = family, offset, sign
        self.rows = _rows(family, offset, inputs)
        self.values, self.weight = values, weight
        self.pull = self._penalties(inputs.shape[1])
        self.parameters = self._start()
        self.damping = 1e-2
        self.cost = self._cost(self.parameters)

    def run(self, steps: int) -> _Fit:
        """At most so many accepted or refused steps."""
        stale = False
        normal, slope = self._normal()
        for _ in range(steps):
            if stale:
                normal, slope = self._normal()
            damped = normal + self.damping * np.diag(np.diag(normal))
            tried = self.parameters - np.linalg.solve(damped, slope)
            cost = self._cost(tried)
            stale = cost < self.cost
            if not stale:
                self.damping *= 4.0
                if self.damping > 1e8:
                    break
                continue
            gain = self.cost - cost
            self.parameters, self.cost = tried, cost
            self.damping = max(1e-9, self.damping / 5.0)
            if gain < 1e-7 * (1.0 + cost):
                break
        return self

    def model(self) -> LawModel:
        """The law at the parameters found."""
        normal, _ = self._normal()
        inverse: Floats = np.asarray(np.linalg.inv(normal), dtype=np.float64)
        fitted, slopes = _law(self.rows, self.sign, self.parameters, self.family.terms)
        # Effective parameters: a penalised law uses up fewer degrees of freedom than it has.
        weighed = self.weight[:, None] * slopes
        leverage = np.einsum("ij,jk,ik->i", weighed, inverse, weighed)
        free = max(len(self.values) - float(leverage.sum()), 0.2 * len(self.values))
        misfit = fitted - self.values
        error = float(np.sqrt(((self.weight * misfit) ** 2).sum() / free))
        return LawModel(
            family=self.family,
            offset=self.offset,
            sign=self.sign,
            parameters=self.parameters,
            covariance=inverse,
            error=max(error, 1e-6),
            left_out=misfit / np.maximum(1.0 - leverage, 0.05),
        )

    def _normal(self) -> tuple[Floats, Floats]:
        """Normal matrix and gradient, outliers weighed down."""
        fitted, slopes = _law(self.rows, self.sign, self.parameters, self.family.terms)
        misfit = self.weight * (fitted - self.values)
        # Soft L1: rho(z) = 2 (sqrt(1 + z) - 1), whose weight is 1 / sqrt(1 + z).
        weight = (self.weight**2 / np.sqrt(1.0 + misfit**2))[:, None]
        normal = slopes.T @ (weight * slopes) + self.pull + 1e-9 * np.eye(len(self.parameters))
        slope: Floats = slopes.T @ (weight[:, 0] * (fitted - self.values))
        return normal, slope + self.pull @ self.parameters

    def _cost(self, parameters: Floats) -> float:
        fitted, _ = _law(self.rows, self.sign, parameters, self.family.terms)
        misfit = (self.weight * (fitted - self.values)) ** 2
        return float(
            (np.sqrt(1.0 + misfit) - 1.0).sum() + 0.5 * parameters @ self.pull @ parameters
        )

    def _penalties(self, sources: int) -> Floats:
        """Quadratic form: exponents of weights to their mean, exponents of logarithms to zero."""
        width, terms = self.rows.shape[1], self.family.terms
        block = np.eye(width)
        if self.family.features != "logs":
            weights = slice(width - sources, width)
            block[weights, weights] -= 0.99 / sources
        else:
            block[-1, -1] = 1e-4
        pull = np.zeros((1 + terms * width,) * 2)
        pull[1:, 1:] = np.kron(np.eye(terms), self.family.penalty**2 * block)
        return pull

    def _start(self) -> Floats:
        """A floor beyond the best run, and the exponents of the line through the logarithms."""
        towards = self.sign * self.values
        floor = towards.min() - 1.0
        logs = np.log(towards - floor)
        width, terms = self.rows.shape[1], self.family.terms
        design = np.r_[self.rows, 0.3 * np.eye(width)]
        exponents = np.linalg.lstsq(design, np.r_[logs, np.zeros(width)], rcond=None)[0]
        # Terms that begin equal stay equal: a fixed tilt tells them apart.
        tilt = np.random.default_rng(0).normal(0.0, 0.5, (terms, width)) * (terms > 1)
        start: Floats = np.r_[self.sign * floor, (exponents - np.log(terms) + tilt).ravel()]
        return start


def log_linear() -> LawFamily:
    """Olmix's law."""
    return LawFamily(name="log-linear", features="weights")


def mixing_law() -> LawFamily:
    """A sum of two exponentials."""
    return LawFamily(name="mixing-law", features="weights", terms=2)


def power_law() -> LawFamily:
    """Powers of offset weights."""
    return LawFamily(name="power-law", features="logs", offsets=_OFFSETS)


def mixed_law() -> LawFamily:
    """Exponentials and powers in one exponent."""
    return LawFamily(name="mixed-law", features="both", offsets=_OFFSETS)
