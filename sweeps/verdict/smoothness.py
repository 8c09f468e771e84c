"""How much of a run's noise its late checkpoints hide, from how smoothly they follow one another.

Checkpoints of one run share its weights, so their noise changes slowly: about a line through five of
them, noise with a lag-one correlation of 0.5 shows 0.53 of its variance, of 0.8 a fifth, of 0.95 a
twentieth. The correlation is estimated from all runs of the study together (restricted likelihood of a
first-order autoregression about a line for each run). A loss that still falls along a curve looks just
like strongly correlated noise, so it widens the noise too.

    >>> rng = np.random.default_rng(0)
    >>> rough = [off_line(np.arange(5.0), rng.standard_normal(5)) for _ in range(40)]
    >>> smooth = [off_line(np.arange(5.0), np.arange(5.0) ** 2) for _ in range(40)]
    >>> hidden_factor(rough) < 1.5, hidden_factor(smooth) > 10.0
    (True, True)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["OffLine", "hidden_factor", "off_line"]

CORRELATIONS = tuple((1.0 - np.geomspace(1.0, 0.04, 40)).tolist())
"""Lag-one correlations that are weighed, denser towards 1: five checkpoints of a few runs can hardly tell
0.5 from 0.9, and then the noise has to hold for the smoother of the two. Nearer to 1 than 0.96 they show
less than a twenty-fifth of the variance and are no measure of it."""

OffLine = tuple[tuple[float, ...], NDArray[np.float64]]
"""The place of a run's late checkpoints, and their score's part that no line in it explains."""


def off_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> OffLine:
    """Return the part of ``y`` that no line in ``x`` explains, in n - 2 independent numbers.

    Args:
        x: Ascending places of the n checkpoints, at least three, in any unit.
        y: Their scores.
    """
    place = tuple(np.round((x - x[0]) / max(float(np.ptp(x)), 1e-300), 9).tolist())
    return place, _basis(place) @ y


def hidden_factor(residuals: Sequence[OffLine]) -> float:
    """Return the variance of a checkpoint over the variance that is seen about the lines.

    It is the mean over the correlations that the residuals leave possible, each weighed by its
    restricted likelihood with the scale integrated out. 1 where there is nothing to see.
    """
    squares = sum(float(own @ own) for _, own in residuals)
    count = sum(len(own) for _, own in residuals)
    if squares <= 0.0:
        return 1.0
    groups: dict[tuple[float, ...], list[NDArray[np.float64]]] = {}
    for place, own in residuals:
        groups.setdefault(place, []).append(own)
    quadratic, penalty = np.zeros(len(CORRELATIONS)), np.zeros(len(CORRELATIONS))
    for place, members in groups.items():
        inverses, logs = _whitened(place)
        table = np.array(members)
        quadratic += np.einsum("ri,cij,rj->c", table, inverses, table)
        penalty += len(members) * logs
    likelihood = -0.5 * (count * np.log(quadratic / squares) + penalty)
    weight = np.exp(likelihood - likelihood.max())
    return float((weight * quadratic).sum() / weight.sum() / squares)


@functools.lru_cache(maxsize=256)
def _basis(place: tuple[float, ...]) -> NDArray[np.float64]:
    """Rows that are orthonormal, and orthogonal to every line in ``place``."""
    line = np.column_stack([np.ones(len(place)), np.array(place)])
    return np.asarray(np.linalg.qr(line, mode="complete")[0][:, 2:].T)


@functools.lru_cache(maxsize=256)
def _whitened(place: tuple[float, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse and log-determinant of the residuals' covariance at every correlation."""
    basis, lag = (
        _basis(place),
        np.abs(np.subtract.outer(np.arange(len(place)), np.arange(len(place)))),
    )
    covariances = np.array(
        [basis @ np.power(correlation, lag) @ basis.T for correlation in CORRELATIONS]
    )
    return np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1]
