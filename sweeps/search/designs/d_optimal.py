"""Choose rows of a candidate set: farthest-point maximin, and D-optimality by exchange."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sweeps.search.space import Floats

__all__ = ["d_optimal", "maximin"]

_RIDGE = 1e-6
"""Prior precision that keeps the information matrix of few rows invertible."""

_ROUNDS = 20


def maximin(distances: tuple[Floats, Floats], n: int) -> NDArray[np.intp]:
    """Choose rows one at a time, each the farthest from all before it (Gonzalez 1985).

    Args:
        distances: Distances ``[c, c]`` among candidates, and ``[c, k]`` to points already taken.
        n: Number of rows to choose.
    """
    among, to_taken = distances
    nearest = to_taken.min(axis=1) if to_taken.shape[1] else np.full(len(among), np.inf)
    chosen: list[int] = []
    for _ in range(min(n, len(among))):
        # If nothing is taken, the first is the most central row.
        row = int(nearest.argmax()) if np.isfinite(nearest).all() else int(among.sum(1).argmin())
        chosen.append(row)
        nearest = np.minimum(nearest, among[row])
        nearest[row] = -1.0
    return np.array(chosen, dtype=np.intp)


def d_optimal(rows: Floats, n: int, taken: Floats) -> NDArray[np.intp]:
    """Choose rows that maximise the determinant of the information matrix, by Fedorov's exchange.

    A greedy start adds the row of largest variance. Then chosen rows are replaced one at a time while
    the determinant grows.

    Args:
        rows: Features ``[candidates, f]``.
        n: Number of rows to choose; none is chosen twice.
        taken: Features ``[k, f]`` of points that are run anyway.
    """
    n = min(n, len(rows))
    information = taken.T @ taken + _RIDGE * np.eye(rows.shape[1])
    inverse = _inverse(information)
    chosen: list[int] = []
    for _ in range(n):
        variance = np.einsum("ij,jk,ik->i", rows, inverse, rows)
        variance[chosen] = -1.0
        row = int(variance.argmax())
        chosen.append(row)
        inverse = _with(inverse, rows[row], 1.0)
    for _ in range(_ROUNDS):
        # Recomputed each round, because rounding errors of rank-one updates accumulate.
        picked = rows[chosen]
        inverse = _inverse(information + picked.T @ picked)
        if not _exchange(rows, chosen, inverse):
            break
    return np.array(chosen, dtype=np.intp)


def _exchange(rows: Floats, chosen: list[int], inverse: Floats) -> bool:
    """Replace each chosen row by the best other one; return True if any was replaced."""
    changed = False
    for position, old in enumerate(chosen):
        projected = rows @ inverse
        variance = (projected * rows).sum(1)
        across = projected @ rows[old]
        # Fedorov's delta: the determinant is multiplied by 1 + gain.
        gain = variance - variance[old] - (variance * variance[old] - across**2)
        gain[chosen] = -np.inf
        new = int(gain.argmax())
        if gain[new] > 1e-6:
            chosen[position] = new
            inverse = _with(_with(inverse, rows[new], 1.0), rows[old], -1.0)
            changed = True
    return changed


def _with(inverse: Floats, row: Floats, sign: float) -> Floats:
    """Return the inverse of the information matrix with ``row`` added or removed (Sherman-Morrison)."""
    along = inverse @ row
    updated: Floats = inverse - sign * np.outer(along, along) / (1.0 + sign * float(row @ along))
    return updated


def _inverse(matrix: Floats) -> Floats:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
