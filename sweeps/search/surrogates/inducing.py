"""A Gaussian process of thousands of runs, by inducing points: its cost grows with the runs, not their cube.

A few hundred runs stand for all: given the metric at these, the values of the others are taken to be
independent (the fully independent training conditional; Snelson & Ghahramani 2006; Quiñonero-Candela
& Rasmussen 2005). No run is left out, so noise still averages over all of them.

    features of the runs ── spread_rows ──▶ rows that stand for all ── condition ──▶ Sparse

With every run as an inducing point the result is that of the exact process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats

__all__ = ["Sparse", "condition", "spread_rows"]


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """Process at its inducing points."""

    lower: Floats
    """Cholesky factor of the prior covariance of the inducing points."""
    seen: Floats
    """Cholesky factor of the precision that all runs give the whitened values there."""
    weights: Floats
    """Weight of each inducing point in a posterior mean."""
    left_out: Floats
    """Leave-one-out errors at all runs, prediction minus value."""

    def explained(self, across: Floats) -> Floats:
        """Return the prior variance ``[n]`` that the runs remove at points.

        Args:
            across: Covariances ``[n, m]`` of the points with the inducing points.
        """
        from scipy.linalg import solve_triangular

        white = solve_triangular(self.lower, across.T, lower=True)
        left = solve_triangular(self.seen, white, lower=True)
        explained: Floats = (white**2).sum(axis=0) - (left**2).sum(axis=0)
        return explained


def spread_rows(rows: Floats, count: int) -> NDArray[np.intp]:
    """Return the indices, ascending, of ``count`` rows: each the farthest from those before it.

    Args:
        rows: Scaled features ``[n, m]``; the first chosen is the row nearest to their mean.
        count: Number of rows; duplicates are not chosen, so there may be fewer.
    """
    gaps = ((rows - rows.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [int(gaps.argmin())]
    lengths = (rows**2).sum(axis=1)
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < min(count, len(rows)):
        last = chosen[-1]
        np.minimum(nearest, lengths + lengths[last] - 2.0 * rows @ rows[last], out=nearest)
        farthest = int(nearest.argmax())
        if nearest[farthest] <= 1e-12:
            break
        chosen.append(farthest)
    return np.sort(np.array(chosen, dtype=np.intp))


def condition(
    within: Floats, across: Floats, signal: float, noise: Floats, values: Floats
) -> Sparse:
    """Condition a process on all runs through its inducing points.

    Args:
        within: Prior covariance ``[m, m]`` of the inducing points, with jitter on its diagonal.
        across: Prior covariance ``[n, m]`` of the runs with the inducing points.
        signal: Prior variance of the metric.
        noise: Noise variance ``[n]`` of each run.
        values: Values ``[n]``, less their mean.
    """
    from scipy.linalg import cholesky, solve_triangular

    lower = cholesky(within, lower=True)
    white = solve_triangular(lower, across.T, lower=True)
    own = np.maximum(signal - (white**2).sum(axis=0), 0.0) + noise
    weighed = white / own
    seen = cholesky(np.eye(len(within)) + weighed @ white.T, lower=True)
    solved = solve_triangular(seen, weighed @ values, lower=True)
    coefficients = solve_triangular(seen, solved, lower=True, trans="T")
    fitted = coefficients @ white
    # The mean is linear in the values, so the error without a run follows from its leverage.
    leverage = (solve_triangular(seen, white, lower=True) ** 2).sum(axis=0) / own
    return Sparse(
        lower=lower,
        seen=seen,
        weights=solve_triangular(lower, coefficients, lower=True, trans="T"),
        left_out=(fitted - values) / np.maximum(1.0 - leverage, 1e-9),
    )
