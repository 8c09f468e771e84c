"""Mixing laws: a floor plus decaying terms, fitted by robust nonlinear least squares.

log-linear      y = c ± exp(t · w)                       Olmix's law, one for each metric
mixing-law      y = c ± Σ_k exp(t_k · w), k = 1, 2       Data Mixing Laws (Ye et al. 2024): a metric
                                                         is a sum over latent domains
power-law       y = c ± exp(a · log(w + e))              a power of each weight; e keeps zero finite
mixed-law       y = c ± exp(t · w + a · log(w + e))      both at once

Because weights sum to one, the factor in front of each exponential is part of its exponent. The fit
chooses the sign: losses fall towards a floor, accuracies rise towards a ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats

__all__ = ["LawFamily", "log_linear", "mixed_law", "mixing_law", "power_law"]

_OFFSETS = (0.01, 0.05)
"""Candidates for the offset of logarithms, as weights."""

_CLIP = (-20.0, 8.0)
"""Range to which exponents are clipped."""

_TRIAL_STEPS, _STEPS = 6, 40
"""Steps for each sign and offset, and steps for the best of them."""


@dataclass(frozen=True, kw_only=True)
class LawFamily:
    """Floor (or ceiling) plus ``terms`` exponentials of linear functions of features."""

    name: str
    features: Literal["weights", "logs", "both"]
    """Features that exponents are linear in."""
    terms: int = 1
    offsets: tuple[float, ...] = (0.0,)
    """Offsets of the logarithms to choose from."""
    signs: tuple[float, ...] = (1.0, -1.0)
    """1 falls towards a floor, -1 rises towards a ceiling."""
    penalty: float = 0.05
    """Pull of exponents towards their mean, in residuals of one standard deviation."""

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> LawModel:
        """Fit one metric; the best of both signs and of all offsets."""
        return self.fit_tasks(inputs, values[:, None], None if noise is None else noise[:, None])[0]

    def fit_tasks(self, inputs: Floats, values: Floats, noise: Floats | None) -> list[LawModel]:
        """Fit several metrics ``[n, t]`` at once: a step of all costs little more than a step of one.

        Each metric starts with each sign and offset; the best of them continues.
        """
        tasks = values.shape[1]
        weight = np.ones_like(values) if noise is None else 1.0 / np.sqrt(np.square(noise) + 0.1)
        weight = weight / weight.mean(axis=0)
        starts = [
            (task, offset, sign)
            for task in range(tasks)
            for offset in self.offsets
            for sign in self.signs
        ]
        fits = _Fits(self, starts, inputs, values.T, weight.T).run(_TRIAL_STEPS)
        best = fits.cost.reshape(tasks, -1).argmin(axis=1)
        chosen = best + np.arange(tasks) * (len(starts) // tasks)
        return fits.only(chosen).run(_STEPS).models()


@dataclass(frozen=True, kw_only=True)
class LawModel:
    """Fitted law."""

    family: LawFamily
    offset: float
    sign: float
    parameters: Floats
    """Floor, then the exponents of each term."""
    covariance: Floats
    """Covariance of the parameters, in units of the error's variance."""
    error: float
    """Root mean square of the leave-one-out errors."""
    left_out: Floats
    """Leave-one-out errors at the runs, linearised at the fit."""
    seen: tuple[float, float]
    """Smallest and largest value that the law was fitted to."""

    def predict(self, inputs: Floats) -> Floats:
        """Return values ``[n]`` of the law, no farther from the fitted values than their span."""
        return _bounded(self._law(inputs)[0], *self.seen)

    def spread(self, inputs: Floats) -> Floats:
        """Return the standard deviation ``[n]`` of a run and of the parameters together, linearised."""
        slopes = self._law(inputs)[1]
        doubt = np.einsum("ij,jk,ik->i", slopes, self.covariance, slopes)
        spread: Floats = self.error * np.sqrt(1.0 + np.clip(doubt, 0.0, 25.0))
        return spread

    def _rows(self, inputs: Floats) -> Floats:
        return _rows(self.family, self.offset, inputs)

    def _law(self, inputs: Floats) -> tuple[Floats, Floats]:
        sign = np.array([self.sign])
        values, slopes = _law(self._rows(inputs)[None], sign, self.parameters[None])
        return values[0], slopes[0]


def _bounded(values: Floats, low: float, high: float) -> Floats:
    """Return values kept near those of a fit: unchanged up to half the span beyond it, then approaching
    the whole span.

    An exponent that few runs determine gave predictions of a thousand standard deviations on the
    sparse Olmix swarm (R2 of -6189). The order of predictions is kept, and with it the optimum.
    """
    free = 0.5 * (high - low)
    if free <= 0.0:
        return np.clip(values, low, high)
    inside = np.clip(values, low - free, high + free)
    beyond = values - inside
    bounded: Floats = inside + free * np.tanh(beyond / free)
    return bounded


def _rows(family: LawFamily, offset: float, inputs: Floats) -> Floats:
    if family.features == "weights":
        return inputs
    logs = np.log((np.maximum(inputs, 0.0) + offset) / (1.0 + offset))
    beside = np.ones((len(logs), 1)) if family.features == "logs" else inputs
    return np.concatenate([logs, beside], axis=1)


def _law(rows: Floats, sign: Floats, parameters: Floats) -> tuple[Floats, Floats]:
    """Return values ``[b, n]`` of laws at ``rows [b, n, w]``, and slopes by parameters ``[b, n, p]``."""
    count, runs, width = rows.shape
    exponents = rows @ parameters[:, 1:].reshape(count, -1, width).transpose(0, 2, 1)
    decayed = sign[:, None, None] * np.exp(np.clip(exponents, *_CLIP))
    slopes = np.empty((count, runs, parameters.shape[1]))
    slopes[:, :, 0] = 1.0
    slopes[:, :, 1:] = (decayed[:, :, :, None] * rows[:, :, None, :]).reshape(count, runs, -1)
    values: Floats = parameters[:, :1] + decayed.sum(axis=2)
    return values, slopes


class _Fits:
    """Levenberg–Marquardt with weights that shrink for outliers (soft L1), many fits side by side.

    Args:
        family: Family that is fitted.
        starts: Row of ``values``, offset and sign of each fit.
        inputs: Inputs ``[n, m]``.
        values: Metrics ``[t, n]``.
        weight: Weights ``[t, n]`` of residuals.
    """

    def __init__(
        self,
        family: LawFamily,
        starts: Sequence[tuple[int, float, float]],
        inputs: Floats,
        values: Floats,
        weight: Floats,
    ) -> None:
        tasks = [task for task, _, _ in starts]
        self.family = family
        self.offset = np.array([offset for _, offset, _ in starts])
        self.sign = np.array([sign for _, _, sign in starts])
        by_offset = {offset: _rows(family, offset, inputs) for offset in set(self.offset.tolist())}
        self.rows = np.stack([by_offset[offset] for offset in self.offset.tolist()])
        self.values, self.weight = values[tasks], weight[tasks]
        self.pull = self._penalties(inputs.shape[1])
        self.parameters = self._start()
        self.damping = np.full(len(starts), 1e-2)
        self.cost = self._cost(np.arange(len(starts)), self.parameters)

    def only(self, chosen: NDArray[np.intp]) -> _Fits:
        """Return some of the fits in their present state."""
        part = copy(self)
        for name in ("offset", "sign", "rows", "values", "weight", "parameters", "damping", "cost"):
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def run(self, steps: int) -> _Fits:
        """Make at most ``steps`` accepted or refused steps of each fit."""
        going = np.arange(len(self.cost))
        normal, slope = self._normal(going)
        for _ in range(steps):
            diagonal = np.einsum("bii->bi", normal)
            damped = normal.copy()
            np.einsum("bii->bi", damped)[...] += self.damping[going, None] * diagonal
            tried = self.parameters[going] - np.linalg.solve(damped, slope[:, :, None])[:, :, 0]
            cost = self._cost(going, tried)
            gain = self.cost[going] - cost
            better = gain > 0.0
            self.parameters[going[better]], self.cost[going[better]] = tried[better], cost[better]
            damping = self.damping[going]
            damping = np.where(better, np.maximum(1e-9, damping / 5.0), damping * 4.0)
            self.damping[going] = damping
            continues = np.where(better, gain >= 1e-7 * (1.0 + cost), damping <= 1e8)
            going, moved = going[continues], better[continues]
            if not len(going):
                break
            normal, slope = normal[continues], slope[continues]
            if moved.any():
                normal[moved], slope[moved] = self._normal(going[moved])
        return self

    def models(self) -> list[LawModel]:
        """Return the laws at the parameters found."""
        everyone = np.arange(len(self.cost))
        inverse: Floats = np.asarray(np.linalg.inv(self._normal(everyone)[0]), dtype=np.float64)
        fitted, slopes = _law(self.rows, self.sign, self.parameters)
        weighed = self.weight[:, :, None] * slopes
        leverage = ((weighed @ inverse) * weighed).sum(axis=2)
        misfit = fitted - self.values
        left_out = misfit / np.maximum(1.0 - leverage, 0.05)
        # Leave-one-out errors, not residuals: with 48 runs of 40 sources a law fits each run exactly,
        # and intervals scaled by residuals were 19 standard deviations wide.
        error = np.sqrt(((self.weight * left_out) ** 2).mean(axis=1))
        return [
            LawModel(
                family=self.family,
                offset=float(self.offset[i]),
                sign=float(self.sign[i]),
                parameters=self.parameters[i],
                covariance=inverse[i],
                error=max(float(error[i]), 1e-6),
                left_out=left_out[i],
                seen=(float(self.values[i].min()), float(self.values[i].max())),
            )
            for i in everyone
        ]

    def _normal(self, some: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Return normal matrices and gradients, with less weight on outliers."""
        fitted, slopes = _law(self.rows[some], self.sign[some], self.parameters[some])
        weight = self.weight[some] ** 2
        gap = fitted - self.values[some]
        # Soft L1: rho(z) = 2 (sqrt(1 + z) - 1), whose weight is 1 / sqrt(1 + z).
        weight = weight / np.sqrt(1.0 + weight * gap**2)
        turned = slopes.transpose(0, 2, 1)
        ridge = self.pull + 1e-9 * np.eye(len(self.pull))
        normal = turned @ (weight[:, :, None] * slopes) + ridge
        slope = (turned @ (weight * gap)[:, :, None])[:, :, 0]
        return normal, slope + self.parameters[some] @ self.pull

    def _cost(self, some: NDArray[np.intp], parameters: Floats) -> Floats:
        fitted, _ = _law(self.rows[some], self.sign[some], parameters)
        misfit = (self.weight[some] * (fitted - self.values[some])) ** 2
        pulled = 0.5 * ((parameters @ self.pull) * parameters).sum(axis=1)
        cost: Floats = (np.sqrt(1.0 + misfit) - 1.0).sum(axis=1) + pulled
        return cost

    def _penalties(self, sources: int) -> Floats:
        """Return the matrix that pulls exponents of weights to their mean, those of logarithms to zero."""
        width, terms = self.rows.shape[2], self.family.terms
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
        """Return a floor beyond the best run, and the exponents of the line through the logarithms."""
        width, terms = self.rows.shape[2], self.family.terms
        # Terms that begin equal stay equal, so a fixed tilt makes them different.
        tilt = np.random.default_rng(0).normal(0.0, 0.5, (terms, width)) * (terms > 1)
        starts = []
        for rows, sign, values in zip(self.rows, self.sign, self.values, strict=True):
            towards = sign * values
            floor = towards.min() - 1.0
            design = np.r_[rows, 0.3 * np.eye(width)]
            logs = np.r_[np.log(towards - floor), np.zeros(width)]
            exponents = np.linalg.lstsq(design, logs, rcond=None)[0]
            starts.append(np.r_[sign * floor, (exponents - np.log(terms) + tilt).ravel()])
        return np.array(starts)


def log_linear() -> LawFamily:
    """Return Olmix's law."""
    return LawFamily(name="log-linear", features="weights")


def mixing_law() -> LawFamily:
    """Return the sum of two exponentials."""
    return LawFamily(name="mixing-law", features="weights", terms=2)


def power_law() -> LawFamily:
    """Return the law with powers of offset weights."""
    return LawFamily(name="power-law", features="logs", offsets=_OFFSETS)


def mixed_law() -> LawFamily:
    """Return the law with exponentials and powers in one exponent."""
    return LawFamily(name="mixed-law", features="both", offsets=_OFFSETS)
