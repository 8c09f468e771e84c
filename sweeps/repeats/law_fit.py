"""Fit of the law of repeats: what the r-th epoch was worth in runs that repeat.

    loss = a + b × D'^(−β) + covariates + noise,    D' = Σ over sources of U (1 + R* (1 − exp(−R / R*)))

R* and β are integrated over a grid; a, b, the covariates and the noise are integrated out in closed form
(flat priors; Student's t). The prior of R* is log-normal around the published 15.39 with a factor of e either
way, that of β even from 0.05 to 1. So runs that show little leave the published value with a wide interval,
and whether they determined anything is stated: the interval has to be clearly narrower than the prior's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablations.errors import ConfigError, Problem
from ablations.mixture.repeats import PUBLISHED, RepeatLaw

__all__ = ["FEWEST_RUNS", "FittedRepeats", "RepeatRun", "fit_repeats"]

Floats = NDArray[np.float64]

FEWEST_RUNS = 6
"""Runs below which the law is not fitted."""

_LEAST_EPOCHS = 2.0
"""Epochs that some source has to reach in some run."""
_PRIOR_SPREAD = 1.0
"""Standard deviation of the prior of log R*."""
_NARROWER = 0.7
"""Largest spread of log R* after the fit, as a share of the prior's, for a law that the gate may use."""
_LOG_STEP = 0.06
_CONSTANTS = 0.3 * np.exp(_LOG_STEP * np.arange(127))
"""Grid of R*: 0.3 to 576."""
_EXPONENTS = np.linspace(0.05, 1.0, 40)
_BISECTIONS = 40
_MOST_SIGMAS = 60.0


@dataclass(frozen=True, kw_only=True)
class RepeatRun:
    """One run as the law sees it."""

    unique: Mapping[str, float]
    """Source → tokens that the run could read."""
    read: Mapping[str, float]
    """Source → tokens that it read."""
    loss: float
    """Result, less is better."""

    @property
    def epochs(self) -> float:
        """Return the most epochs of any source."""
        return max((self.read[s] / self.unique[s] for s in self.read if self.read[s]), default=0.0)


@dataclass(frozen=True)
class FittedRepeats:
    """Posterior of the law on the grid of R* and β."""

    weights: Floats
    """Probability of each grid point, [n]."""
    constants: Floats
    """R* of each, [n]."""
    exponents: Floats
    """β of each, [n]."""
    coefficients: Floats
    """Of 1, the standardised D'^(−β) and the covariates, [n, columns]."""
    covariances: Floats
    """Inverse of X'X, [n, columns, columns]."""
    scales: Floats
    """Standard deviation of the noise at each point, [n]."""
    centres: Floats
    """Mean and standard deviation of D'^(−β) at each point, [n, 2]."""
    reference: float
    """D' is in units of this."""
    degrees: int
    """Degrees of freedom of Student's t."""
    sources: tuple[str, ...]
    """Sources whose weights are covariates."""
    means: Floats
    """Mean share of each of these sources."""
    runs: int

    def interval(self, level: float = 0.9) -> tuple[float, float, float]:
        """Return lower end, median and upper end of R*."""
        marginal = self.weights.reshape(len(_CONSTANTS), -1).sum(axis=1)
        # Each grid point stands for the cell around it, even in the logarithm.
        edges = np.log(_CONSTANTS[0]) + _LOG_STEP * (np.arange(len(_CONSTANTS) + 1) - 0.5)
        below = np.concatenate([[0.0], np.cumsum(marginal)])
        places = [(1.0 - level) / 2.0, 0.5, (1.0 + level) / 2.0]
        low, middle, high = np.exp(np.interp(places, below, edges)).tolist()
        return low, middle, high

    @property
    def spread(self) -> float:
        """Return the standard deviation of log R* as a share of the prior's."""
        logs = np.log(self.constants)
        mean = float(self.weights @ logs)
        return math.sqrt(float(self.weights @ (logs - mean) ** 2)) / _PRIOR_SPREAD

    @property
    def determined(self) -> bool:
        """Return whether the runs say clearly more about R* than the prior."""
        return self.spread <= _NARROWER

    def law(self, study: str) -> RepeatLaw:
        """Return the law for a config."""
        low, middle, high = (float(f"{value:.4g}") for value in self.interval())
        return RepeatLaw(constant=middle, low=low, high=high, study=study)

    def predict(self, run: RepeatRun, level: float = 0.9) -> tuple[float, float, float]:
        """Return lower end, median and upper end of the loss of a run that was not fitted."""
        effective = _effective([run], self.constants)[:, 0] / self.reference
        value = effective**-self.exponents
        row = np.ones((len(self.weights), self.coefficients.shape[1]))
        row[:, 1] = (value - self.centres[:, 0]) / self.centres[:, 1]
        row[:, 2:] = _shares([run], self.sources) - self.means
        mean = np.einsum("nc,nc->n", row, self.coefficients)
        spread = self.scales * np.sqrt(1.0 + np.einsum("nc,ncd,nd->n", row, self.covariances, row))
        mean, spread, weights = self._likely(mean, spread)
        tails = ((1.0 - level) / 2.0, 0.5, (1.0 + level) / 2.0)
        low, middle, high = (self._quantile(mean, spread, weights, tail) for tail in tails)
        return low, middle, high

    def _likely(self, mean: Floats, spread: Floats) -> tuple[Floats, Floats, Floats]:
        """Return the grid points that hold 99.9% of the probability: a few hundred of five thousand."""
        order = np.argsort(-self.weights)
        below = np.cumsum(self.weights[order])
        kept = order[: int(np.searchsorted(below, 0.999)) + 1]
        return mean[kept], spread[kept], self.weights[kept] / self.weights[kept].sum()

    def _quantile(self, mean: Floats, spread: Floats, weights: Floats, place: float) -> float:
        from scipy.stats import t

        low = float((mean - _MOST_SIGMAS * spread).min())
        high = float((mean + _MOST_SIGMAS * spread).max())
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2.0
            below = float(weights @ t.cdf((middle - mean) / spread, self.degrees))
            low, high = (middle, high) if below < place else (low, middle)
        return (low + high) / 2.0


def fit_repeats(runs: Sequence[RepeatRun], where: str = "study") -> FittedRepeats:
    """Fit the law to runs that read their sources in different numbers of epochs.

    Args:
        runs: The runs; weights that differ between them become covariates.
        where: Name for messages.

    Raises:
        ConfigError: too few runs, or no repeats in them.
    """
    _require_repeats(runs, where)
    loss = np.array([run.loss for run in runs])
    sources = _varied(runs)
    shares = _shares(runs, sources)
    means = shares.mean(axis=0)
    constants = np.repeat(_CONSTANTS, len(_EXPONENTS))
    exponents = np.tile(_EXPONENTS, len(_CONSTANTS))
    effective = _effective(runs, constants)
    reference = float(np.exp(np.log(effective).mean()))
    values = (effective / reference) ** -exponents[:, None]
    centres = np.stack([values.mean(axis=1), values.std(axis=1)], axis=1)
    # Values that do not differ determine no slope: such a point of the grid gets no weight.
    flat = centres[:, 1] < 1e-9
    centres[flat, 1] = 1.0
    columns = 2 + len(sources)
    inputs = np.ones((len(constants), len(runs), columns))
    inputs[:, :, 1] = (values - centres[:, :1]) / centres[:, 1:]
    inputs[:, :, 2:] = shares - means
    degrees = len(runs) - columns
    covariances = np.linalg.pinv(np.einsum("nrc,nrd->ncd", inputs, inputs), hermitian=True)
    coefficients = np.einsum("ncd,nrd,r->nc", covariances, inputs, loss)
    rest = loss - np.einsum("nrc,nc->nr", inputs, coefficients)
    squares = np.maximum((rest**2).sum(axis=1), 1e-18)
    scales = np.sqrt(squares / degrees)
    weights = _posterior(constants, coefficients, covariances, scales, squares, degrees)
    weights[flat] = 0.0
    return FittedRepeats(
        weights=weights / weights.sum(),
        constants=constants,
        exponents=exponents,
        coefficients=coefficients,
        covariances=covariances,
        scales=scales,
        centres=centres,
        reference=reference,
        degrees=degrees,
        sources=sources,
        means=means,
        runs=len(runs),
    )


def _posterior(
    constants: Floats,
    coefficients: Floats,
    covariances: Floats,
    scales: Floats,
    squares: Floats,
    degrees: int,
) -> Floats:
    """Return the weight of each grid point: prior, likelihood, and that more text lowers the loss."""
    from scipy.stats import t

    prior = -0.5 * (np.log(constants / PUBLISHED.constant) / _PRIOR_SPREAD) ** 2
    _, volume = np.linalg.slogdet(covariances + 1e-12 * np.eye(covariances.shape[1]))
    likelihood = -0.5 * degrees * np.log(squares) + 0.5 * volume
    errors = scales * np.sqrt(np.maximum(covariances[:, 1, 1], 1e-18))
    falling = t.logcdf(coefficients[:, 1] / errors, degrees)
    logs = prior + likelihood + falling
    return np.asarray(np.exp(logs - logs.max()))


def _effective(runs: Sequence[RepeatRun], constants: Floats) -> Floats:
    """Return D' of each run at each R*, [constants, runs]."""
    found = np.zeros((len(constants), len(runs)))
    for column, run in enumerate(runs):
        for source, read in run.read.items():
            unique = run.unique[source]
            repeats = max(0.0, read / unique - 1.0) if read else 0.0
            found[:, column] += min(read, unique) - unique * constants * np.expm1(
                -repeats / constants
            )
    return found


def _varied(runs: Sequence[RepeatRun]) -> tuple[str, ...]:
    """Return the sources whose share differs between runs, less one: shares sum to 1."""
    names = tuple(dict.fromkeys(name for run in runs for name in run.read))
    shares = _shares(runs, names)
    return tuple(n for n, s in zip(names, np.ptp(shares, axis=0), strict=True) if s > 1e-3)[1:]


def _shares(runs: Sequence[RepeatRun], sources: Sequence[str]) -> Floats:
    totals = [math.fsum(run.read.values()) for run in runs]
    return np.array(
        [[run.read.get(s, 0.0) / t for s in sources] for run, t in zip(runs, totals, strict=True)]
    ).reshape(len(runs), len(sources))


def _require_repeats(runs: Sequence[RepeatRun], where: str) -> None:
    needed = max(FEWEST_RUNS, len(_varied(runs)) + 4) if runs else FEWEST_RUNS
    if len(runs) < needed:
        raise ConfigError(
            Problem(where, "too few runs for a law of repeats", len(runs), f"at least {needed}")
        )
    epochs = sorted({round(run.epochs, 2) for run in runs})
    if epochs[-1] < _LEAST_EPOCHS or len(epochs) < 3:
        raise ConfigError(
            Problem(
                where,
                "too little repetition for a law of repeats",
                found=f"epochs {', '.join(f'{e:g}' for e in epochs[:6])}",
                allowed=f"three different numbers of epochs, one of {_LEAST_EPOCHS:g} or more",
                do="sweep schedule.full_tokens, which repeats sources, and schedule.total_tokens",
            )
        )
