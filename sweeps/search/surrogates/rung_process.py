"""Gaussian process over mixtures and rungs: cheap runs and full runs in one fit.

A rung is a fidelity of a run: a share of the tokens, a smaller model, another version of a source's
text. The last columns of the inputs state the rung of each run; all zeros are the top, which is what
a study decides on::

    K = signal · Matérn(w, w') · exp(-sum_q (z_q - z'_q)² / (2 λ_q²)) · a^[z = 0] · a^[z' = 0]
        + offset of each rung + noise of each rung

Each rung has a free offset, because the mean of a few finalists is not the mean of a design, and its
own noise, because an early checkpoint can be several times as loud as the end. The amplitude ``a`` of
the top is learned: losses of early checkpoints are more spread out. If all runs have the same rung,
the process is :class:`~sweeps.search.surrogates.gaussian_process.ProcessFamily` to the last digit.

With 45 cheap and 8 full runs of a public table, the product kernel was within noise of the best of
nine models where rungs agree, and the only one that never fell far below the full runs alone where
they do not (docs/decisions/surrogates.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats
from sweeps.search.surrogates.base import TaskModel
from sweeps.search.surrogates.gaussian_process import (
    JITTER,
    Kernel,
    ProcessFamily,
    ProcessModel,
    correlation_of,
    features_of,
    misfit_of,
    squares_of,
)

__all__ = ["RungFamily", "RungModel", "rung_columns"]


def rung_columns(inputs: Floats, rungs: Floats) -> Floats:
    """Return inputs ``[n, m]`` with the rungs ``[n, q]`` as their last columns."""
    return np.concatenate([inputs, rungs], axis=1)


@dataclass(frozen=True, kw_only=True)
class RungFamily:
    """Settings of the process over mixtures and rungs."""

    columns: int
    """Number of last input columns that state the rung; zeros are the top."""
    base: ProcessFamily = field(default_factory=ProcessFamily)
    """Process over the mixtures: kernel, power, and priors of lengths and noise."""
    rung_length: float = 3.0
    """Median of the prior of the length of a rung column."""
    rung_length_spread: float = 1.0
    """Standard deviation of the prior of the log length of a rung column."""
    top_spread: float = 0.3
    """Standard deviation of the prior of the log amplitude of the top."""
    offset: float = 25.0
    """Prior variance of the offset of a rung, as a multiple of the metric's variance."""

    @property
    def name(self) -> str:
        """Return the name in leaderboards."""
        return f"{self.base.name}-rungs"

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> TaskModel:
        """Fit one metric; see :class:`~sweeps.search.surrogates.base.Family`."""
        weights, rungs = inputs[:, : -self.columns], inputs[:, -self.columns :]
        if len(np.unique(rungs, axis=0)) < 2:
            return _OneRung(self.columns, self.base.fit_task(weights, values, noise))
        data = _Rows.of(weights, rungs, values, noise)
        fits = [_fit(self, power, data) for power in self.base.powers]
        return min(fits, key=lambda fit: fit.objective)


class _OneRung:
    """Process of runs that all have the same rung; ignores the rung columns."""

    def __init__(self, columns: int, model: ProcessModel) -> None:
        self._columns, self._model = columns, model
        self.left_out = model.left_out

    def predict(self, inputs: Floats) -> Floats:
        """Return means ``[n]``."""
        return self._model.predict(inputs[:, : -self._columns])

    def spread(self, inputs: Floats) -> Floats:
        """Return standard deviations ``[n]`` of a new run's value."""
        return self._model.spread(inputs[:, : -self._columns])


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Runs of one metric, centred in each rung and scaled by the rung with most runs."""

    weights: Floats
    rungs: Floats
    kinds: Floats
    """The distinct rungs, ``[r, q]``."""
    kind: NDArray[np.intp]
    """Number of each run's rung."""
    top: Floats
    """1 for runs at the top, else 0."""
    centres: Floats
    """Mean of each rung. The offsets are free, so it only keeps the numbers small."""
    scale: float
    values: Floats
    known: Floats
    """Known noise variances on the scale of ``values``."""

    @classmethod
    def of(cls, weights: Floats, rungs: Floats, values: Floats, noise: Floats | None) -> _Rows:
        kinds, kind = np.unique(rungs, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        count = np.bincount(kind)
        centres = np.bincount(kind, weights=values) / count
        scale = float(values[kind == count.argmax()].std()) or 1.0
        known = np.zeros(len(values)) if noise is None else np.square(noise / scale)
        return cls(
            weights=weights,
            rungs=rungs,
            kinds=kinds,
            kind=kind,
            top=(rungs == 0.0).all(axis=1).astype(np.float64),
            centres=centres,
            scale=scale,
            values=(values - centres[kind]) / scale,
            known=known,
        )

    def part(self, most: int) -> NDArray[np.intp]:
        """Return at most ``most`` rows, evenly spread in each rung; small rungs keep all of theirs."""
        left, chosen = most, []
        order = np.argsort(np.bincount(self.kind), kind="stable")
        for turn, number in enumerate(order):
            rows = np.flatnonzero(self.kind == number)
            take = min(len(rows), left // (len(order) - turn))
            chosen.append(rows[np.linspace(0, len(rows) - 1, take).astype(int)])
            left -= take
        return np.sort(np.concatenate(chosen))


class _Posterior:
    """Negative log posterior of the settings, with its gradient.

    The settings are logarithms: lengths of the weights, lengths of the rung columns, signal,
    amplitude of the top, and the noise of each rung.
    """

    def __init__(self, family: RungFamily, power: float, data: _Rows, rows: NDArray[np.intp]):
        base = family.base
        self.kernel: Kernel = base.kernel
        self.features = features_of(data.weights[rows], power)
        self.gaps = (data.rungs[rows, None, :] - data.rungs[None, rows, :]) ** 2
        self.kind, self.top = data.kind[rows], data.top[rows]
        self.values, self.known = data.values[rows], data.known[rows]
        self.offset = family.offset * (self.kind[:, None] == self.kind[None])
        width, columns, kinds = self.features.shape[1], family.columns, len(data.kinds)
        self.cuts = np.cumsum([width, columns, 1, 1])
        self.prior = np.r_[
            np.full(width, np.log(base.length)),
            np.full(columns, np.log(family.rung_length)),
            0.0,
            0.0,
            np.full(kinds, np.log(base.noise)),
        ]
        self.widths = np.r_[
            np.full(width, base.length_spread),
            np.full(columns, family.rung_length_spread),
            1.0,
            family.top_spread,
            np.full(kinds, base.noise_spread),
        ]

    def split(self, settings: Floats) -> list[Floats]:
        """Return the lengths, rung lengths, signal, amplitude and noises as their logarithms."""
        return np.split(settings, self.cuts)

    def covariance(self, settings: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the covariance of the runs, its signal, and the derivative of the signal."""
        lengths, rung_lengths, signal, amplitude, noises = self.split(settings)
        rows = self.features * np.exp(-lengths)
        value, slope = correlation_of(self.kernel, squares_of(rows, rows))
        near = np.exp(-0.5 * self.gaps @ np.exp(-2.0 * rung_lengths))
        size = np.exp(0.5 * signal[0] + amplitude[0] * self.top)
        factor = size[:, None] * size[None] * near
        part = factor * value
        covariance = part + self.offset
        own = np.exp(noises)[self.kind] + self.known + JITTER
        covariance[np.diag_indices_from(covariance)] += own
        return covariance, part, factor * slope

    def __call__(self, settings: Floats) -> tuple[float, Floats]:
        covariance, part, slope = self.covariance(settings)
        misfit = misfit_of(covariance, self.values)
        if misfit is None:
            return 1e10, np.zeros_like(settings)
        value, outer = misfit
        away = (settings - self.prior) / self.widths
        value += 0.5 * away @ away
        lengths, rung_lengths, _, _, noises = self.split(settings)
        pulled = outer * part
        own = np.bincount(self.kind, weights=np.diag(outer), minlength=len(noises))
        gradient = np.r_[
            self._by_length(lengths, outer * slope),
            -0.5 * np.einsum("ij,ijq->q", pulled, self.gaps) * np.exp(-2.0 * rung_lengths),
            -0.5 * pulled.sum(),
            -(pulled.sum(axis=1) @ self.top),
            -0.5 * np.exp(noises) * own,
        ]
        return float(value), gradient + away / self.widths

    def _by_length(self, lengths: Floats, pull: Floats) -> Floats:
        """Return the derivative by the log lengths of the weights."""
        rows = self.features * np.exp(-lengths)
        squares = (rows**2).T @ pull.sum(axis=1) - ((pull @ rows) * rows).sum(axis=0)
        gradient: Floats = 2.0 * squares
        return gradient


@dataclass(frozen=True, kw_only=True)
class RungModel:
    """Process over mixtures and rungs, conditioned on its runs."""

    family: RungFamily
    power: float
    data: _Rows
    rows: Floats
    """Scaled features of the runs."""
    lengths: Floats
    """Inverse lengths of the weights."""
    rung_lengths: Floats
    """Inverse lengths of the rung columns."""
    signal: float
    amplitude: float
    """Factor of the deviations at the top."""
    noises: Floats
    """Noise variance of each rung."""
    lower: Floats
    weights: Floats
    left_out: Floats
    """Leave-one-out errors, enlarged because the settings were fitted to the same runs."""
    flattery: float
    """Factor by which errors of new runs exceed those of the fit."""
    objective: float

    def predict(self, inputs: Floats) -> Floats:
        """Return posterior means ``[n]`` at the rungs of the inputs."""
        kind = self._kind(inputs)
        centre = np.where(kind >= 0, self.data.centres[kind], self._nearest_centre())
        mean: Floats = centre + self.data.scale * (self._across(inputs) @ self.weights)
        return mean

    def spread(self, inputs: Floats) -> Floats:
        """Return posterior standard deviations ``[n]`` of a new run's value."""
        from scipy.linalg import solve_triangular

        solved = solve_triangular(self.lower, self._across(inputs).T, lower=True)
        prior = self.signal * self._size(inputs) ** 2 + self.family.offset
        doubt = np.maximum(prior - (solved**2).sum(axis=0), 1e-12)
        kind = self._kind(inputs)
        noise = np.where(kind >= 0, self.noises[kind], self.noises.mean())
        spread: Floats = self.data.scale * np.sqrt(doubt + noise)
        return spread

    def stretch(self, level: float) -> float:
        """Return the multiple of the spread that contains a new run with probability ``level``.

        It is the normal quantile times the flattery. Left-out folds would calibrate on the cheap
        runs, because the full ones are few.
        """
        return self.flattery * NormalDist().inv_cdf(0.5 + 0.5 * level)

    def _kind(self, inputs: Floats) -> NDArray[np.intp]:
        """Return the number of each input's rung among those of the fit; -1 for another rung."""
        same = (inputs[:, None, -self.family.columns :] == self.data.kinds[None]).all(axis=2)
        return np.where(same.any(axis=1), same.argmax(axis=1), -1)

    def _nearest_centre(self) -> float:
        """Return the mean of the rung with the fewest steps from the top."""
        return float(self.data.centres[np.abs(self.data.kinds).sum(axis=1).argmin()])

    def _size(self, inputs: Floats) -> Floats:
        at_top = (inputs[:, -self.family.columns :] == 0.0).all(axis=1)
        return np.where(at_top, self.amplitude, 1.0)

    def _across(self, inputs: Floats) -> Floats:
        columns = self.family.columns
        rows = features_of(inputs[:, :-columns], self.power) * self.lengths
        value = correlation_of(self.family.base.kernel, squares_of(rows, self.rows))[0]
        rungs, own = inputs[:, -columns:], self.data.rungs
        near = np.exp(-0.5 * squares_of(rungs * self.rung_lengths, own * self.rung_lengths))
        sizes = np.where(self.data.top > 0.0, self.amplitude, 1.0)
        across = self.signal * self._size(inputs)[:, None] * sizes[None] * value * near
        same: NDArray[np.bool_] = self._kind(inputs)[:, None] == self.data.kind[None]
        joint: Floats = across + self.family.offset * same
        return joint


def _fit(family: RungFamily, power: float, data: _Rows) -> RungModel:
    from scipy.linalg import cho_solve, cholesky
    from scipy.optimize import minimize

    everyone = np.arange(len(data.values))
    part = _Posterior(family, power, data, data.part(family.base.settings_runs))
    found = minimize(
        part,
        part.prior,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([part.prior - 6.0 * part.widths, part.prior + 6.0 * part.widths], axis=1),
        options={"maxiter": family.base.iterations, "ftol": 1e-6},
    )
    whole = part if len(part.values) == len(everyone) else _Posterior(family, power, data, everyone)
    lower = cholesky(whole.covariance(found.x)[0], lower=True)
    inverse = cho_solve((lower, True), np.eye(len(lower)))
    weights = inverse @ whole.values
    lengths, rung_lengths, signal, amplitude, noises = whole.split(found.x)
    flattery = 1.0 + len(found.x) / (2.0 * len(data.values))
    return RungModel(
        family=family,
        power=power,
        data=data,
        rows=whole.features * np.exp(-lengths),
        lengths=np.exp(-lengths),
        rung_lengths=np.exp(-rung_lengths),
        signal=float(np.exp(signal[0])),
        amplitude=float(np.exp(amplitude[0])),
        noises=np.exp(noises),
        lower=lower,
        weights=weights,
        left_out=-flattery * data.scale * weights / np.diag(inverse),
        flattery=flattery,
        objective=float(found.fun),
    )
