"""Covariances and contrasts of thousands of candidates, without candidates x candidates matrices.

    covariance   diag(diagonal) + factor @ inner @ factor.T
    contrasts    sparse rows, less one row that all share

The means of candidates that share a few seeds have such a covariance, and so has the noise of items
that all candidates answered. Memory and time grow with the candidates, not with their square. A study
of up to :data:`MOST_DENSE` candidates may use plain matrices instead; each function takes both.

    >>> shared = Covariance(diagonal=np.ones(3), factor=np.ones((3, 1)), inner=np.full((1, 1), 0.5))
    >>> variances(shared, differences(3, [1, 2], 0)).tolist()
    [2.0, 2.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MOST_DENSE",
    "Contrasts",
    "Covariance",
    "centred",
    "differences",
    "matrix",
    "power_sums",
    "product",
    "variances",
]

Floats = NDArray[np.float64]

MOST_DENSE = 1000
"""Most candidates for which a candidates x candidates matrix is made."""


@dataclass(frozen=True, kw_only=True)
class Covariance:
    """``diag(diagonal) + factor @ inner @ factor.T``."""

    diagonal: Floats
    """One value for each candidate."""
    factor: Floats
    """Candidates x columns, few of them."""
    inner: Floats
    """Columns x columns."""

    def dense(self) -> Floats:
        """Return the matrix, candidates x candidates."""
        return np.asarray(np.diag(self.diagonal) + self.factor @ self.inner @ self.factor.T)


@dataclass(frozen=True, kw_only=True)
class Contrasts:
    """Rows of weights that sum to 0: ``rows - shared``."""

    rows: Any
    """Sparse matrix (scipy's ``csr_array``), contrasts x candidates."""
    shared: Floats | None = None
    """Weights that are subtracted from each row; None = 0."""

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def dense(self) -> Floats:
        """Return the weights, contrasts x candidates."""
        rows = np.asarray(self.rows.toarray(), dtype=np.float64)
        return rows if self.shared is None else rows - self.shared


def differences(count: int, of: Sequence[int], reference: int) -> Contrasts:
    """Return the contrasts of candidates minus a reference.

    Args:
        count: Number of candidates.
        of: Positions of the candidates that are compared.
        reference: Position of the candidate that they are compared with.
    """
    from scipy.sparse import csr_array

    number = np.arange(len(of))
    place = np.concatenate([np.asarray(of, dtype=np.int64), np.full(len(of), reference)])
    data = np.repeat([1.0, -1.0], len(of))
    rows = csr_array((data, (np.tile(number, 2), place)), shape=(len(of), count))
    return Contrasts(rows=rows)


def centred(count: int, of: Sequence[int] | None = None) -> Contrasts:
    """Return the contrasts of candidates minus their own mean.

    Args:
        count: Number of candidates.
        of: Positions of the candidates that are compared; None = all.
    """
    from scipy.sparse import csr_array

    place = np.arange(count) if of is None else np.asarray(of, dtype=np.int64)
    rows = csr_array(
        (np.ones(len(place)), (np.arange(len(place)), place)), shape=(len(place), count)
    )
    shared = np.zeros(count)
    shared[place] = 1.0 / len(place)
    return Contrasts(rows=rows, shared=shared)


def product(weights: Floats | Contrasts, values: Floats) -> Floats:
    """Return ``weights @ values``, contrasts x columns or one value for each contrast."""
    if not isinstance(weights, Contrasts):
        return np.asarray(weights @ values, dtype=np.float64)
    found = np.asarray(weights.rows @ values, dtype=np.float64)
    return found if weights.shared is None else found - weights.shared @ values


def power_sums(weights: Floats | Contrasts, power: int, values: Floats) -> Floats:
    """Return ``weights**power @ values`` for values of each candidate."""
    if not isinstance(weights, Contrasts):
        return np.asarray(values @ (weights**power).T, dtype=np.float64)
    rows = weights.rows.copy()
    if weights.shared is None:
        rows.data = rows.data**power
        return np.asarray(rows @ values, dtype=np.float64)
    # Where a row is not zero, its own weight takes the place of the shared one.
    shared = -weights.shared
    rows.data = (rows.data + shared[rows.indices]) ** power - shared[rows.indices] ** power
    return np.asarray(rows @ values + shared**power @ values, dtype=np.float64)


def variances(covariance: Floats | Covariance, weights: Floats | Contrasts) -> Floats:
    """Return the variance of each contrast."""
    if isinstance(covariance, Covariance):
        across = product(weights, covariance.factor)
        own = power_sums(weights, 2, covariance.diagonal)
        return np.asarray(own + ((across @ covariance.inner) * across).sum(axis=1))
    plain = weights.dense() if isinstance(weights, Contrasts) else weights
    return np.asarray(((plain @ covariance) * plain).sum(axis=1))


def matrix(covariance: Floats | Covariance, weights: Floats) -> Floats:
    """Return the covariance of a few contrasts, contrasts x contrasts."""
    if isinstance(covariance, Covariance):
        across = weights @ covariance.factor
        own = (weights * covariance.diagonal) @ weights.T
        return np.asarray(own + across @ covariance.inner @ across.T)
    return np.asarray(weights @ covariance @ weights.T)
