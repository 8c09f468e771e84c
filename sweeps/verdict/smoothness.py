"""Share of a run's noise that its late checkpoints hide, from their correlation.

Checkpoints of one run share its weights, so their noise changes slowly. About a line through five of
them, noise with a lag-one correlation of 0.5 shows 0.53 of its variance, with 0.8 a fifth, with 0.95 a
twentieth. The correlation is estimated from all runs of the study together (restricted likelihood of a
first-order autoregression about one line for each run). A loss that still falls along a curve cannot be
distinguished from strongly correlated noise, so it widens the noise too.

    >>> rng = np.random.default_rng(0)
    >>> rough = off_line(np.arange(5.0), rng.standard_normal((40, 5)))
    >>> smooth = off_line(np.arange(5.0), np.tile(np.arange(5.0) ** 2, (40, 1)))
    >>> hidden_factor([rough]) < 1.5, hidden_factor([smooth]) > 10.0
    (True, True)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["OffLine", "hidden_factor", "off_line"]

CORRELATIONS = tuple((1.0 - np.geomspace(1.0, 0.04, 40)).tolist())
"""Lag-one correlations that are averaged over, denser towards 1. Five checkpoints of a few runs hardly
distinguish 0.5 from 0.9, and then the noise has to be large enough for 0.9. Above 0.96 checkpoints show less
than a twenty-fifth of the variance and are no measure of it."""

OffLine = tuple[tuple[float, ...], NDArray[np.float64]]
"""Positions of late checkpoints, 0 to 1, and the part of the runs' scores that no line explains, runs x
(checkpoints - 2)."""


def off_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> OffLine:
    """Return the part of each run's scores that no line in ``x`` explains, in n - 2 independent numbers.

    Args:
        x: Ascending positions of the n checkpoints, at least three, in any unit.
        y: Their scores, runs x n.
    """
    position = tuple(np.round((x - x[0]) / max(float(np.ptp(x)), 1e-300), 9).tolist())
    return position, y @ _basis(position).T


def hidden_factor(residuals: Sequence[OffLine]) -> float:
    """Return the variance of a checkpoint over the observed variance about the lines.

    It is the mean over :data:`CORRELATIONS`, each weighted by its restricted likelihood with the scale
    integrated out. 1 if the residuals are all zero.
    """
    squares = float(sum(np.vdot(own, own) for _, own in residuals))
    count = sum(own.size for _, own in residuals)
    if squares <= 0.0:
        return 1.0
    quadratic, penalty = np.zeros(len(CORRELATIONS)), np.zeros(len(CORRELATIONS))
    for position, own in residuals:
        inverses, logs = _whitened(position)
        quadratic += np.einsum("ij,cij->c", own.T @ own, inverses)
        penalty += len(own) * logs
    likelihood = -0.5 * (count * np.log(quadratic / squares) + penalty)
    weight = np.exp(likelihood - likelihood.max())
    return float((weight * quadratic).sum() / weight.sum() / squares)


@functools.lru_cache(maxsize=256)
def _basis(position: tuple[float, ...]) -> NDArray[np.float64]:
    """Return orthonormal rows that are orthogonal to every line in ``position``."""
    line = np.column_stack([np.ones(len(position)), np.array(position)])
    return np.asarray(np.linalg.qr(line, mode="complete")[0][:, 2:].T)


@functools.lru_cache(maxsize=256)
def _whitened(position: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the inverse and the log-determinant of the residuals' covariance at each correlation."""
    basis, order = _basis(position), np.arange(len(position))
    lag = np.abs(np.subtract.outer(order, order))
    covariances = np.array(
        [basis @ np.power(correlation, lag) @ basis.T for correlation in CORRELATIONS]
    )
    return np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1]
