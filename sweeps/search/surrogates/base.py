"""Common interface of fitted models mixture → metric.

    family (settings, no data) ── fit_task(inputs, one metric) ──▶ task model
    Surrogate(family) ── fit(inputs, metrics) ──▶ one task model per metric, predict, intervals

A family fits ONE metric whose values have mean 0 and standard deviation 1. The surrogate standardises,
leaves missing values out, loops over metrics, and calibrates its intervals on runs that were left out
of a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, Problem
from sweeps.search.space import Floats

__all__ = ["Family", "LeavesOut", "Surrogate", "TaskModel", "folds"]

_FOLDS = 10


class TaskModel(Protocol):
    """Fitted model of one standardised metric."""

    def predict(self, inputs: Floats) -> Floats:
        """Return means ``[n]``."""
        ...

    def spread(self, inputs: Floats) -> Floats:
        """Return the standard deviation ``[n]`` of a new run's value, noise included."""
        ...


class Family(Protocol):
    """Settings of one kind of model: frozen, comparable, without data."""

    @property
    def name(self) -> str:
        """Return the name in leaderboards."""
        ...

    def fit_task(self, inputs: Floats, values: Floats, noise: Floats | None) -> TaskModel:
        """Fit one metric.

        Args:
            inputs: Weights, then other searched parameters scaled to ``[0, 1]``: ``[n, m]``.
            values: Values ``[n]``, mean 0 and standard deviation 1.
            noise: Known standard errors ``[n]`` on the same scale, or None.
        """
        ...


@runtime_checkable
class _SelfCalibrated(Protocol):
    """Task model that left runs out while it was fitted, and kept their errors."""

    ratios: Floats
    """Absolute errors divided by predicted spreads, sorted."""


@runtime_checkable
class _Stretched(Protocol):
    """Task model that knows by how much its spreads have to be stretched to intervals."""

    def stretch(self, level: float) -> float:
        """Return the multiple of the spread that contains a new value with probability ``level``."""
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """Task model that has its leave-one-out errors without fitting again."""

    left_out: Floats
    """Prediction minus value at each run of the fit, ``[n]``."""


@runtime_checkable
class _FitsTogether(Protocol):
    """Family that fits several metrics faster together than one at a time."""

    def fit_tasks(
        self, inputs: Floats, values: Floats, noise: Floats | None
    ) -> Sequence[TaskModel]:
        """Fit metrics ``[n, t]``; otherwise like ``fit_task``."""
        ...


class Surrogate:
    """Family fitted to runs: predicts each metric of other mixtures.

    Args:
        family: Family to fit.
        seed: Seed of the folds that intervals are calibrated on.
    """

    def __init__(self, family: Family, *, seed: int = 0) -> None:
        self.family = family
        self.seed = seed
        self._tasks: list[TaskModel] = []
        self._ratios: list[Floats] | None = None

    def fit(self, inputs: Floats, values: Floats, noise: Floats | None = None) -> Self:
        """Fit each metric.

        Args:
            inputs: Inputs ``[n, m]``.
            values: Metrics ``[n, t]``; NaN if a run has no value.
            noise: Standard errors ``[n, t]`` of the values, if they are known.

        Raises:
            ConfigError: shapes that do not fit, or a metric with fewer than three values.
        """
        self._inputs = np.ascontiguousarray(inputs, dtype=np.float64)
        self._values = np.asarray(values, dtype=np.float64).reshape(len(inputs), -1)
        self._noise = None if noise is None else np.asarray(noise).reshape(self._values.shape)
        self._check()
        self._centre = np.nanmean(self._values, axis=0)
        spread = np.nanstd(self._values, axis=0)
        # A constant metric predicts its constant.
        self._scale = np.where(spread > 0.0, spread, 1.0)
        self._ratios = None
        everyone = np.ones(len(self._inputs), dtype=bool)
        self._tasks = [task for task in self._fit_tasks(everyone) if task is not None]
        return self

    def predict(self, inputs: Floats) -> Floats:
        """Return means ``[n, t]``."""
        means = np.stack([task.predict(inputs) for task in self._tasks], axis=1)
        scaled: Floats = self._centre + self._scale * means
        return scaled

    def spread(self, inputs: Floats) -> Floats:
        """Return the standard deviation ``[n, t]`` of a new run's value, not calibrated."""
        spreads = np.stack([task.spread(inputs) for task in self._tasks], axis=1)
        scaled: Floats = self._scale * spreads
        return scaled

    def left_out(self) -> Floats | None:
        """Return leave-one-out errors ``[n, t]``; NaN if a value is missing.

        Return None if the family does not have them without fitting again.
        """
        errors = np.full(self._values.shape, np.nan)
        for column, task in enumerate(self._tasks):
            if not isinstance(task, LeavesOut):
                return None
            known = np.isfinite(self._values[:, column])
            errors[known, column] = self._scale[column] * task.left_out
        return errors

    def predict_interval(self, inputs: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return bounds ``[n, t]`` that contain a new run's value with probability ``level``.

        Cross-conformal (Vovk 2015; Barber et al. 2021): each run is predicted by a fit without its
        fold, and its error is divided by the predicted spread. The quantile of these ratios scales
        the spread. This corrects intervals that are too narrow or too wide, and keeps them wider
        where there are fewer runs.
        """
        stretch = self._stretch(level)
        mean, half = self.predict(inputs), stretch * self.spread(inputs)
        return mean - half, mean + half

    def _stretch(self, level: float) -> Floats:
        """Return the multiple of the spread of each metric, ``[t]``."""
        known = [task.stretch(level) for task in self._tasks if isinstance(task, _Stretched)]
        if len(known) == len(self._tasks):
            return np.array(known)
        if self._ratios is None:
            self._ratios = self._calibrate()
        return np.array([_quantile(ratios, level) for ratios in self._ratios])

    def _check(self) -> None:
        problems = []
        if self._inputs.ndim != 2 or not np.isfinite(self._inputs).all():
            problems.append(
                Problem("surrogate inputs", "not a finite matrix", found=self._inputs.shape)
            )
        few = np.flatnonzero(np.isfinite(self._values).sum(axis=0) < 3)
        if len(few):
            problems.append(
                Problem(
                    "surrogate values",
                    "too few runs have a value",
                    found=f"metric columns {few.tolist()}",
                    allowed="at least 3 runs per metric",
                )
            )
        if problems:
            raise ConfigError(problems)

    def _fit_tasks(self, rows: NDArray[np.bool_]) -> Sequence[TaskModel | None]:
        """Return one model per metric of some runs; None if fewer than three have a value.

        Metrics are fitted together if the family can do so and no value is missing.
        """
        values = (self._values[rows] - self._centre) / self._scale
        noise = None if self._noise is None else self._noise[rows] / self._scale
        inputs, known = self._inputs[rows], np.isfinite(values)
        if isinstance(self.family, _FitsTogether) and known.all() and len(values) >= 3:
            return self.family.fit_tasks(inputs, values, noise)
        return [
            self.family.fit_task(
                inputs[some], values[some, task], None if noise is None else noise[some, task]
            )
            if some.sum() >= 3
            else None
            for task, some in enumerate(known.T)
        ]

    def _calibrate(self) -> list[Floats]:
        """Return errors divided by predicted spreads on left-out folds, one array per metric."""
        own = [task.ratios for task in self._tasks if isinstance(task, _SelfCalibrated)]
        if len(own) == len(self._tasks):
            return own
        fold = folds(len(self._inputs), _FOLDS, self.seed)
        errors = np.full(self._values.shape, np.nan)
        for number in range(_FOLDS):
            test = fold == number
            models = self._fit_tasks(~test) if test.any() else []
            for task, model in enumerate(models):
                if model is not None:
                    values = (self._values[test, task] - self._centre[task]) / self._scale[task]
                    gap = np.abs(values - model.predict(self._inputs[test]))
                    spread = model.spread(self._inputs[test])
                    errors[test, task] = gap / np.maximum(spread, 1e-9)
        return [np.sort(column[np.isfinite(column)]) for column in errors.T]


def folds(n: int, count: int, seed: int) -> NDArray[np.intp]:
    """Return a fold number for each of ``n`` runs: folds of equal size up to one run."""
    order = np.random.default_rng((seed, n)).permutation(n)
    numbers = np.empty(n, dtype=np.intp)
    numbers[order] = np.arange(n) % count
    return numbers


def _quantile(ratios: Floats, level: float) -> float:
    """Return the quantile at rank ``level * (n + 1)``, interpolated between ranks.

    The rank ``1 + level * (n - 1)`` of plain interpolation misses 2 points of coverage at 48 runs: on
    sparse swarms, 90% intervals covered 86-91%. The conformal rank, rounded up, covered 94% on RegMix.
    """
    if not len(ratios):
        return float("inf")
    return float(np.quantile(ratios, level, method="weibull"))
